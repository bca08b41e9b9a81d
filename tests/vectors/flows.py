"""The story of `ledger.json`, continued: workflows, their nodes, signals, and what is paused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from colonies.core import events as facts
from colonies.core.flow import WorkflowSpec
from colonies.core.node import Node
from colonies.core.spec import Conditions, Spec, queue_of
from colonies.core.workflow import node_id, workflow_key
from tests.vectors.telling import Teller

PYTHON = {"runtimetype": "python"}
QUEUE = queue_of(Conditions(runtimetype="python"), 0)
NOT_THERE = "its workflow has no valid submission before it"
NOBODY = "does not decide this about nodes"
ALREADY = {
    "colony.paused": "colony is paused",
    "queue.paused": "queue is paused",
    "member.drained": "worker is drained",
}
STOPS = "what it cites does not stop the node"


def told(t: Teller) -> None:
    _pauses(t)
    _later(t)
    _parts(t)
    flow = _submitted(t)
    _life(t, flow)
    _others(t, flow)
    _cancelled(t)
    _reruns(t, flow)


def node(name: str, *parents: str, **rules: Any) -> dict[str, Any]:
    runs = {} if "wait_signal" in rules else {"func": "double", "conditions": PYTHON}
    return {"name": name, "dependencies": list(parents), **runs, **rules}


def asked(*nodes: dict[str, Any], **rules: Any) -> facts.WorkflowSubmitted:
    return facts.WorkflowSubmitted(WorkflowSpec.read({"nodes": list(nodes), **rules}, whole=False))


def _pauses(t: Teller) -> None:
    colony: list[tuple[facts.Event, facts.Event, str]] = [
        (facts.ColonyPaused("a new rack"), facts.ColonyResumed(), ""),
        (facts.QueuePaused(), facts.QueueResumed(), QUEUE),
        (facts.WorkerDrained("an update"), facts.WorkerResumed(), "w1"),
    ]
    for paused, resumed, entity in colony:
        t.say("ann", paused, entity, "only an owner pauses, drains and resumes, and ann is a user")
        t.say("olga", paused, entity)
        t.say("olga", paused, entity, f"the {ALREADY[paused.type]} already, by olga")
        if entity == QUEUE:
            t.say("orch", facts.Retired(t.last), QUEUE, "the queue is paused")
        t.say("ann", resumed, entity, "only an owner pauses")
        t.say("olga", resumed, entity)
    t.say("olga", facts.ColonyResumed(), "", "the colony is not paused")
    t.say("olga", facts.QueuePaused(), queue_of(Conditions(runtimetype="none"), 0), "there is no such queue")
    t.say("olga", facts.WorkerDrained(), "ann", "there is no worker ann")


def _later(t: Teller) -> None:
    id, plain = t.new_id(), {"func": "double", "conditions": PYTHON}
    later = Spec.parse({**plain, "delay": 5, "at": t.now // 10**9 + 20})
    t.say("w1", facts.Submitted(later), id, "the role worker submits no processes")
    t.say(
        "ann",
        facts.Submitted(Spec.parse(plain)),
        id,
        "by its delay, time and limits it is not to be offered later",
    )
    t.say(
        "ann",
        facts.Queued(later),
        id,
        "by its delay, time and limits it is not to be offered now",
        queue=QUEUE,
    )
    t.say("ann", facts.Submitted(later), id)
    t.say("orch", facts.Requeued(t.last), id, "the delay is not over", after_s=10, queue=QUEUE)
    t.say("orch", facts.Requeued(t.process(id).sequence), id, after_s=20, queue=QUEUE)
    t.say("w1", facts.Signalled("hello"), id, "the role worker sends no signals")
    t.say("bob", facts.Signalled("hello", {"n": 1}), id)
    t.say("ann", facts.Cancelled(workflow=t.new_id(), node="a"), id, "it names a workflow and node")
    t.say("ann", facts.Cancelled(), id)


def _parts(t: Teller) -> None:
    """A workflow in parts, with a key; and another's id, which nobody takes before."""
    id, key = workflow_key("ann", "nightly"), "nightly"
    part = facts.Part([Node.read(node("a"))], key)
    t.say("bob", part, id, "the id does not derive from the submitter and the key")
    t.say("bob", facts.Part(part.nodes), id, "the id of a plain workflow is a ULID")
    t.say("orch", part, id, "the role service submits no workflows of its own")
    t.say("ann", part, id)
    t.say("bob", part, id, "its parts are those of ann")
    many = facts.Part([Node.read(node(f"n{number}")) for number in range(2)], key)
    digest = t.rows[t.last - 2]["digest"]
    rest = asked(node("b", "a")).spec
    t.say("ann", facts.WorkflowSubmitted(rest, ["0" * 64], key), id, "it is no workflow: its part 0000")
    t.say("ann", facts.WorkflowSubmitted(rest, [digest], key), id)
    t.say("ann", many, id, "the workflow is submitted already")


def _submitted(t: Teller) -> str:
    id = t.new_id()
    circle = asked(node("a", "b"), node("b", "a"))
    t.say("ann", circle, id, "it is no workflow: workflow: node")
    t.say("ann", asked(node("a", colony="other")), id, "node a is for the colony other")
    t.say("orch", asked(node("a")), id, "the role service submits no workflows of its own")
    source = facts.Source("cron", "nightly", 5)
    t.say("orch", facts.WorkflowSubmitted(source=source), id, "there is no cron nightly before it")
    t.say("w1", facts.WorkflowSubmitted(source=source), id, "the role worker submits no workflows")
    both = facts.WorkflowSubmitted(asked(node("a")).spec, source=source)
    t.say("orch", both, id, "what comes from a cron or generator has no spec of its own")
    trace = facts.Trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    traced = facts.WorkflowSubmitted(source=source, trace=trace)
    t.say("orch", traced, id, "what comes from a cron or generator has no spec of its own")
    t.say("ann", replace(asked(node("a")), trace=trace), t.new_id())
    t.say("ann", facts.WorkflowCancelled(), id, "the workflow has no valid submission before it")
    t.say("ann", facts.WorkflowSignalled("go"), id, "the workflow has no valid submission before it")
    nodes = [
        node("a"),
        node("b", "a"),
        node("both", "a", "b"),
        node("each", map={"$output": "a.items"}, args=[{"$item": ""}]),
        node("if", "a", when="length(a.items) > `5`"),
        node("ok", "a", wait_signal={"name": "approve", "timeout": 60}),
        node("late", "a", delay=60),
        node("bad"),
        node("never", "bad"),
        node("last", **{"finally": True}),
    ]
    t.say("ann", asked(*nodes, name="train", maxwaittime=3_600), id)
    return id


class Labels:
    """The nodes of one workflow, by label."""

    def __init__(self, t: Teller, flow: str) -> None:
        self.t = t
        self.flow = flow
        self.own = t.history.workflows[flow].sequence  # type: ignore[union-attr]

    def id(self, label: str) -> str:
        return node_id(self.flow, label)

    def release(self, label: str, *ends: int, rule: str = "", who: str = "orch", **more: Any) -> None:
        event = facts.Released(self.flow, label, [self.own, *ends])
        self.t.say(who, event, self.id(label), rule, **{"queue": QUEUE, **more})

    def run(self, label: str, event: Any, who: str = "w1") -> int:
        """Take it and end it; where its end stands."""
        offer = self.t.process(self.id(label)).phase.offer  # type: ignore[union-attr]
        attempt = self.t.say(who, facts.Assigned(offer.id, 10.0, "i1"), self.id(label))
        self.t.say(who, event(attempt), self.id(label))
        return self.t.last


def _life(t: Teller, flow: str) -> None:
    of = Labels(t, flow)
    of.release("a", rule="the role user", who="ann")
    of.release("a", rule="a worker releases only a child", who="w1")
    of.release("a", rule="a node's first event has no event before it", prev=bytes(32))
    of.release("none", rule="the workflow has no node none at this point")
    of.release("b", rule="its parents have not all ended")
    of.release(
        "a", rule="the queue is not that of the spec's", queue=queue_of(Conditions(runtimetype="none"), 0)
    )
    of.release("a", of.own, rule="it does not cite the workflow's event")
    t.say("orch", facts.Released(flow, "b", [of.own]), of.id("a"), "the id does not derive", queue=QUEUE)
    gone = t.new_id()
    t.say("orch", facts.Released(gone, "a", [1]), node_id(gone, "a"), NOT_THERE, queue=QUEUE)
    of.release("a")
    of.release("a", rule="something was decided about the node already")
    more = [Node.read(node("more", "split")), Node.read(node("split"))]
    circle = [Node.read(node("x", "y")), Node.read(node("y", "x"))]
    offer = t.process(of.id("a")).phase.offer  # type: ignore[union-attr]
    attempt = t.say("w1", facts.Assigned(offer.id, 10.0, "i1"), of.id("a"))
    output = {"items": [1, 2]}
    t.say("w1", facts.Completed(attempt, adds=circle), of.id("a"), "the nodes that it adds make no workflow")
    t.say("w1", facts.Completed(attempt, between=True), of.id("a"), "between: it adds nothing")
    t.say("ann", facts.Cancelled("", flow, "each[0]"), of.id("each[0]"), "there is no part 0 of each at this")
    t.say("w1", facts.Completed(attempt, output, adds=more), of.id("a"))
    a = t.last
    t.say("ann", facts.Cancelled("", flow, "each"), of.id("each"), "it has parts, and each of them ends")
    of.release("a/more", a, rule="its parents have not all ended")
    of.release("a/split", a)
    split = of.run("a/split", facts.Completed)
    of.release("a/more", a, split, rule="a worker releases only a child", who="w1")
    of.release("a/more", a, split)
    of.run("a/more", facts.Completed, "w2")
    of.release("b", a, rule="a worker releases only a child whose only parent", who="w2")
    of.release("b", a, who="w1")
    b = of.run("b", facts.Completed)
    of.release("both", a, b)
    of.run("both", facts.Completed)
    for number in range(2):
        of.release("each", a, rule="the node is not to be dealt with in this way")
        of.release(f"each[{number}]", a)
        of.run(f"each[{number}]", facts.Completed)
    of.release("each[2]", a, rule="there is no part 2 of each at this point")
    t.say("w1", facts.Skipped(flow, "if", [of.own, a]), of.id("if"), f"the role worker {NOBODY}")
    of.release("if", a, rule="the node is to be skipped")
    t.say("orch", facts.Skipped(flow, "if", [of.own, a]), of.id("if"))
    of.release("late", a, rule="the delay is not over")
    of.release("late", a, after_s=60)
    of.run("late", facts.Completed)


def _others(t: Teller, flow: str) -> None:
    """A signal, a failure, and what comes last."""
    of = Labels(t, flow)
    a = t.process(of.id("a")).sequence
    ok = of.id("ok")
    t.say("ann", facts.Awaited(flow, "ok", [of.own, a]), ok, f"the role user {NOBODY}")
    t.say("orch", facts.Awaited(flow, "ok", [of.own, a]), ok)
    t.say("orch", facts.Received(of.own), ok, "it does not cite the first signal approve")
    t.say("w1", facts.WorkflowSignalled("approve"), flow, "the role worker sends no signals")
    t.say("bob", facts.WorkflowSignalled("approve", {"seen": True}), flow)
    t.say("ann", facts.Received(t.last), ok, "the role user hands on no signals")
    t.say("orch", facts.Received(t.last - 1), ok)
    of.release("bad")
    t.say("orch", facts.Received(of.own), of.id("bad"), "the process waits for no signal")
    bad = of.run("bad", lambda attempt: facts.Failed(attempt, "broken", "final"))
    of.release("never", bad, rule="the node cannot run: its parent bad failed")
    never = of.id("never")
    stop = facts.Cancelled("its parent bad failed", flow, "never", bad, "bad")
    t.say("orch", facts.Cancelled("", flow, None, bad), never, "it names no node of a workflow")
    t.say("orch", facts.Cancelled("", flow, "never"), never, "it cites nothing that stops the node")
    t.say("orch", facts.Cancelled("", flow, "never", a), never, STOPS)
    t.say("bob", stop, never, "only ann or an owner may cancel the process")
    t.say("orch", stop, never)
    labels = ["a", "b", "both", "each[0]", "each[1]", "if", "ok", "late", "bad", "never", "a/split", "a/more"]
    ends = sorted(t.process(of.id(label)).sequence for label in labels)
    of.release("last", *ends)
    of.run("last", facts.Completed)
    plain = t.new_id()
    offer = t.say(
        "ann", facts.Queued(Spec.parse({"func": "double", "conditions": PYTHON})), plain, queue=QUEUE
    )
    t.say("orch", facts.Cancelled(cites=bad), plain, "the service cancels nothing but nodes of workflows")
    attempt = t.say("w1", facts.Assigned(offer, 10.0, "i1"), plain)
    more = facts.Completed(attempt, adds=[Node.read(node("x"))])
    t.say("w1", more, plain, "it adds nodes, and belongs to no workflow")


def _cancelled(t: Teller) -> None:
    """What stands on a release after the cancel is void."""
    id = t.new_id()
    t.say("ann", asked(node("a"), node("b", "a"), node("c", "a"), node("d", "b")), id)
    of = Labels(t, id)
    of.release("a")
    a = of.run("a", facts.Completed)
    t.say("bob", facts.WorkflowCancelled(), id, "only ann or an owner may cancel the workflow")
    t.say("ann", facts.WorkflowCancelled("not needed"), id)
    cancel = t.last
    t.say("ann", facts.WorkflowCancelled(), id, "the workflow is cancelled already")
    t.say("ann", facts.WorkflowSignalled("go"), id, "its prev is not the digest", prev=bytes(32))
    of.release("b", a, rule="its workflow was cancelled before it", who="w1")
    void = bytes.fromhex(t.rows[-1]["digest"])
    offer = t.say("w1", facts.Assigned(t.new_id(), 10.0, "i1"), of.id("b"), "it stands on", prev=void)
    void = bytes.fromhex(t.rows[-1]["digest"])
    t.say("w1", facts.Completed(offer, 1), of.id("b"), "it stands on an event that is void", prev=void)
    of.release("d", t.rows[-1]["sequence"], rule="its workflow was cancelled before it", who="w1")
    of.release("c", rule="it does not cite")
    for label in ("b", "c", "d"):
        t.say("orch", facts.Cancelled("", id, label, cancel), of.id(label))


def _reruns(t: Teller, flow: str) -> None:
    def take(reuses: dict[str, str], rule: str = "", before: str | None = flow) -> None:
        t.say("ann", facts.WorkflowSubmitted(nodes, rerun_of=before, reuses=reuses), id, rule)

    id, of = t.new_id(), Labels(t, flow)
    nodes = asked(node("a"), node("bad")).spec
    take({"a": of.id("a")}, "it takes results from a workflow that is not there", t.new_id())
    take({"a": of.id("b")}, f"node a: {of.id('b')} is not that node of workflow {flow}")
    take({"bad": of.id("bad")}, f"node bad: process {of.id('bad')} was not successful")
    nodes = asked(node("a", args=[1]), node("bad")).spec
    take({"a": of.id("a")}, "node a: it is another node there")
    nodes = asked(node("bad"), node("late")).spec
    take({"a": of.id("a")}, "node a: there is no such node")
    nodes = asked(node("a"), node("bad")).spec
    take({"a": of.id("a")})
    again = Labels(t, id)
    again.release("a", rule="the node has its result from another workflow")
    again.release("bad")
