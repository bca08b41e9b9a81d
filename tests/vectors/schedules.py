"""The story of `ledger.json`, continued: crons, generators, their runs, places under a key, webhooks."""

from __future__ import annotations

from typing import Any

from colonies import sealing, webhooks
from colonies.core import events as facts
from colonies.core.generators import run_id
from colonies.core.limits import digest_of
from colonies.core.spec import Spec
from colonies.core.workflow import node_id
from tests.vectors.flows import PYTHON, Labels, asked, node
from tests.vectors.telling import COLONY, SECOND, Teller, keypair

SPEC = asked(node("count", args=[{"$previous": "count"}])).spec
ELSEWHERE = asked(node("a", colony="other")).spec
MINUTE = 60 * SECOND


def told(t: Teller) -> None:
    _places(t)
    _cron(t)
    _generator(t)
    _webhook(t)


def _places(t: Teller) -> None:
    limits = {"key": "customer-7", "running": 2}
    limited = Spec.parse({"func": "double", "conditions": PYTHON, "limits": limits})
    key, id = digest_of("customer-7"), t.new_id()
    t.say("ann", facts.Submitted(limited), id)
    granted = facts.Granted("customer-7", {id: t.last}, 60)
    t.say("ann", granted, key, "the role user grants no places")
    t.say("orch", granted, digest_of("customer-8"), "the name is not the digest of the key")
    t.say("orch", granted, key, "its prev is not the digest", prev=bytes(32))
    t.say("orch", granted, key)
    t.say("orch", facts.Granted("customer-7", {id: t.last}), key)  # each stands alone
    t.say("ann", facts.Cancelled(), id)
    flow = t.new_id()
    t.say("ann", asked(node("a"), node("b", "a", limits=limits)), flow)
    of = Labels(t, flow)
    of.release("a")
    a = of.run("a", facts.Completed)
    of.release("b", a, rule="a worker releases no node with limits", who="w1")
    t.say("orch", facts.Granted("customer-7", {node_id(flow, "b"): 0}), key)
    of.release("b", a)
    of.run("b", facts.Completed)


def _cron(t: Teller) -> None:
    minutely = facts.CronAdded(SPEC, interval_s=60.0)
    t.say("w1", minutely, "nightly", "the role worker says nothing of crons")
    t.say("ann", facts.CronAdded(SPEC), "nightly", "a cron has an expression or an interval")
    t.say("ann", facts.CronAdded(SPEC, "0 3 * * *", zone="Nowhere"), "nightly", "there is no time zone")
    t.say("ann", facts.CronAdded(SPEC, "0 0 */32 * MON#5"), "nightly", "it is never due")
    t.say("ann", facts.CronAdded(ELSEWHERE, interval_s=60.0), "nightly", "node a is for the colony other")
    t.say("ann", minutely, "nightly", "its prev is not the digest of the cron's", prev=bytes(32))
    for event in (facts.CronPaused(), facts.CronResumed(), facts.CronRemoved()):
        t.say("ann", event, "nightly", "there is no cron of this name")
    t.say("ann", minutely, "nightly")
    t.say("ann", minutely, "nightly", "there is a cron of this name")
    t.say("bob", facts.CronPaused(), "nightly", "only ann or an owner may say this of the cron")
    t.say("ann", facts.CronResumed(), "nightly", "the cron is not paused")
    _due(t)
    daily = facts.CronAdded(SPEC, "30 2 * * *", zone="Europe/Berlin", jitter_s=60.0)
    t.say("bob", daily, "nightly")
    t.say("olga", facts.CronRemoved(), "nightly")


def _due(t: Teller) -> None:
    cron = t.history.crons["nightly"]
    first = cron.added_at + MINUTE

    def run(due: int, rule: str = "", who: str = "orch", id: str = "", **more: Any) -> None:
        source = facts.Source("cron", "nightly", **{"added": cron.added, "due": due, **more})
        t.say(who, facts.WorkflowSubmitted(source=source), id or cron.run_id(due), rule)

    def now(rule: str = "", who: str = "ann", id: str = "", **more: Any) -> None:
        source = facts.Source("cron", "nightly", cron.added, **more)
        t.say(who, facts.WorkflowSubmitted(source=source), id or t.new_id(), rule)

    before: dict[str, Any] = {"previous": cron.run_id(first), "previous_due": first}
    run(first, "there is no cron nightly before it", added=cron.added - 1)
    run(first, "what it says is of generators", run=1)
    run(first, "the run before it is not one of the cron", previous=t.new_id(), previous_due=first)
    run(first, "the run before it is not one of the cron", previous=cron.run_id(first))
    run(first, "the run before it was not due before it", **before)
    never = first - 1
    run(first, "the run before it was never due", previous=cron.run_id(never), previous_due=never)
    run(first, "the role user runs no cron as due", "ann")
    run(first, "the id does not derive from the cron and the time", id=t.new_id())
    run(never, "the cron is not due then")
    run(first, "it is before its time")
    t.now = first
    run(first)
    now("the role service runs no cron before it is due", "orch")
    now("the id of a run that is not due is a ULID", id=cron.run_id(never))
    now(**before)
    t.now = first + MINUTE
    t.say("ann", facts.CronPaused("holidays"), "nightly")
    t.say("ann", facts.CronPaused(), "nightly", "the cron is paused already")
    run(first + MINUTE, "the cron was paused before it", **before)  # void
    t.now = first + 2 * MINUTE
    run(first + 2 * MINUTE, "the cron was paused then")
    t.say("ann", facts.CronResumed(), "nightly")
    run(first + MINUTE, **before)
    t.now = first + 3 * MINUTE
    t.say("ann", facts.CronRemoved(), "nightly")
    run(first + 3 * MINUTE, "the cron was removed before it")  # void
    t.now = first + 4 * MINUTE
    run(first + 4 * MINUTE, "the cron was removed before it")
    now("the cron was removed before it")  # void


def _generator(t: Teller) -> None:
    added = facts.GeneratorAdded(SPEC, 3, 60.0)
    t.say("w1", added, "frames", "the role worker says nothing of generators")
    t.say("ann", facts.GeneratorAdded(ELSEWHERE, 3), "frames", "node a is for the colony other")
    circle = asked(node("a", "b"), node("b", "a")).spec
    t.say("ann", facts.GeneratorAdded(circle, 3), "frames", "workflow: node")
    t.say("ann", facts.GeneratorPacked(0, [1]), "frames", "there is no generator of this name")
    t.say("ann", facts.GeneratorRemoved(), "frames", "there is no generator of this name")
    t.say("ann", added, "frames")
    t.say("ann", added, "frames", "there is a generator of this name")
    t.say("bob", facts.GeneratorPacked(0, []), "frames", "it holds no argument")
    t.say("bob", facts.GeneratorPacked(1, [1]), "frames", "0 arguments were packed before it, it says 1")
    t.say("bob", facts.GeneratorPacked(0, [1]), "frames", "its prev is not the digest", prev=bytes(32))
    t.say("bob", facts.GeneratorRemoved(), "frames", "only ann or an owner may remove the generator")
    _runs(t)


def _runs(t: Teller) -> None:
    chain = t.history.generators["frames"].generator
    assert chain is not None
    added = chain.added

    def run(number: int, rule: str = "", *, id: str = "", after_s: float = 1.0, **more: Any) -> None:
        source = facts.Source("generator", "frames", **{"added": added, "run": number, **more})
        event = facts.WorkflowSubmitted(source=source)
        t.say("orch", event, id or run_id("frames", added, number), rule, after_s=after_s)

    t.say("bob", facts.GeneratorPacked(0, [1, 2]), "frames")
    packs = [t.last]
    run(0, "run 0 has 2 of 3 arguments, and its time is not over", first=0, count=2, packs=packs)
    t.say("ann", facts.GeneratorPacked(2, [{"frame": 3}, "four"]), "frames")
    packs.append(t.last)
    whole: dict[str, Any] = {"first": 0, "count": 3, "packs": packs}
    run(0, "the generator frames was not added at", **{**whole, "added": added - 1})
    run(0, "it does not say which run of the generator it is", due=1, **whole)
    run(0, "the id does not derive from the generator and the run", id=t.new_id(), **whole)
    run(0, "it does not have the arguments of run 0", **{**whole, "count": 2})
    run(0, "it does not cite the events that hold the arguments of run 0", **{**whole, "packs": packs[:1]})
    run(0, **whole)
    run(2, "run 2 has no arguments yet", first=4, count=1, packs=packs[1:])
    run(1, first=3, count=1, packs=packs[1:], after_s=60)
    t.say("bob", facts.GeneratorPacked(4, [5]), "frames")
    last: dict[str, Any] = {"first": 4, "count": 1, "packs": [t.last]}
    t.say("ann", facts.GeneratorRemoved(), "frames")
    run(2, "the generator was removed before run 2 was complete", **last)
    run(2, "the generator was removed before it", after_s=60, **last)  # void


def _webhook(t: Teller) -> None:
    eye = t.keys["eye"].public
    said: dict[str, Any] = {"service": "eye", "key": eye, "secret": sealed_for_eye()}
    added = facts.WebhookAdded("https://example.com/hook", ["process.failed", "workflow.*"], **said)
    changed = facts.WebhookChanged("https://example.com/hook", ["*"], func="train", label="night", **said)
    t.say("ann", added, "ops", "only an owner says where events are sent, and ann is a user")
    for event in (changed, facts.WebhookRemoved()):
        t.say("olga", event, "ops", "there is no webhook of this name")
    t.say("olga", added, "ops", "its prev is not the digest", prev=bytes(32))
    t.say("olga", added, "ops")
    t.say("olga", added, "ops", "there is a webhook of this name")
    t.say("olga", changed, "ops")
    t.say("olga", facts.WebhookRemoved("moved"), "ops")
    t.say("olga", added, "ops")


def sealed_for_eye() -> bytes:
    """The bytes 0 to 31, sealed for the observer with the X25519 key whose private half is 32 bytes of 7."""
    return sealing.sealed_with(bytes([7]) * 32, bytes(range(32)), keypair("eye").public, about_ops())


def about_ops() -> bytes:
    return webhooks.about(COLONY, "ops", "https://example.com/hook")
