"""Both fences, on what is said of workflows: work that nobody asked for, or not yet, or not like this."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from colonies.core.process import keyed_id
from colonies.core.workflow import node_id, workflow_key
from colonies.errors import Conflict
from colonies.ledger import Draft
from tests.hostile.attacker import Attacker, digest, ulid
from tests.hostile.field import PYTHON, Field
from tests.hostile.flow import Flow, node, unconducted
from tests.hostile.rows import row
from tests.hostile.test_forged import of_nobody
from tests.hostile.test_said import submission

pytestmark = pytest.mark.asyncio(loop_scope="package")

NOT_THERE = "its workflow has no valid submission before it"


async def two_workers(field: Field) -> tuple[Attacker, Attacker]:
    return await field.attacker("worker"), await field.attacker("worker", "evil-second")


# --- releases -----------------------------------------------------------------------------------------


@row("untrue-release")
async def test_a_node_is_released_by_what_is_true(field: Field) -> None:
    service, worker = await field.attacker("service"), await field.attacker("worker")
    flow = await Flow.of(
        field, node("a"), node("b", "a"), node("c", "a"), node("bad"), node("late", "a", delay=3_600)
    )
    other = await Flow.of(field, node("a"), node("b", "a"))
    own = await flow.sequence()
    queue = (await flow["a"].until("waiting")).queue
    running = await flow["a"].take(worker)
    blamed = {}

    async def say(label: str, cites: list[int], rule: str, *, queue: str = queue, **more: Any) -> None:
        said = flow[label].said(service, "released", cites, queue=queue, **more)
        blamed[await service.store(*said)] = rule

    parent = (await flow["a"].get()).sequence
    await say("b", [own], "its parents have not all ended")
    await say("b", [own, parent], "its parents have not all ended")
    await say("none", [own], "the workflow has no node none at this point")
    await say("b[0]", [own], r"the workflow has no node b\[0\] at this point")
    await say("a/more", [own], "the workflow has no node a/more at this point")
    await say("b", [own], "the id does not derive from the workflow and the node", workflow=other.id)
    await say("b", [own], "the id does not derive", workflow=ulid())
    subject, event = other["b"].said(service, "released", [own], queue=queue, node="a")
    blamed[await service.store(subject, event)] = "the id does not derive"
    async with unconducted(field):
        subject = flow["a"].subject("completed", worker.name)
        data = {"attempt": running[0], "output": 1}
        end = await worker.store(
            subject, worker.event("process.completed", subject, prev=running[1], data=data)
        )
        for cites in ([own], [end], [end, own], [own, end, end], [own, end, end + 1], [own + 1, end]):
            await say("b", cites, "it does not cite")
        await say("b", [own, end], "the queue is not that", queue="a" * 26)
        await say("late", [own, end], "the delay is not over")
        for kind in ("awaited", "skipped"):
            said = flow["b"].said(service, kind, [own, end])
            blamed[await service.store(*said)] = "the node is not to be dealt with in this way"
    await field.agree(blamed)
    await other["a"].failed(worker)
    failed = (await other["a"].until("failed")).sequence
    await other["b"].until("cancelled")
    said = other["b"].said(service, "released", [await other.sequence(), failed], queue=queue)
    await field.agree({await service.store(*said): "something was decided about the node already"})
    for label in ("bad", "b", "c"):
        await flow[label].done(worker)
    await flow.handle.cancel()


@row("failed-parent")
async def test_no_node_runs_on_a_failure(field: Field) -> None:
    service, worker = await field.attacker("service"), await field.attacker("worker")
    flow = await Flow.of(field, node("a"), node("b", "a"), node("c", "a", "d"), node("d"))
    own, queue = await flow.sequence(), (await flow["a"].until("waiting")).queue
    async with unconducted(field):
        failed = await flow["a"].failed(worker)
        blamed = {}
        for label in ("b", "c"):
            said = flow[label].said(service, "released", [own, failed], queue=queue)
            blamed[await service.store(*said)] = "the node cannot run: its parent a failed"
        said = flow["b"].said(service, "skipped", [own, failed])
        blamed[await service.store(*said)] = "the node cannot run: its parent a failed"
        await field.agree(blamed)
    await flow.finish(worker, "failed")


@row("worker-release")
async def test_a_worker_releases_only_what_waits_for_it_alone(field: Field) -> None:
    one, two = await two_workers(field)
    flow = await Flow.of(
        field,
        node("a"),
        node("b"),
        node("both", "a", "b"),
        node("after", "a"),
        node("go", "a", wait_signal="go"),
    )
    own, queue = await flow.sequence(), (await flow["a"].until("waiting")).queue
    async with unconducted(field):
        a, b = await flow["a"].done(one), await flow["b"].done(one)
        blamed = {}
        for who, label, cites in ((one, "both", [own, a, b]), (two, "after", [own, a])):
            said = flow[label].said(who, "released", cites, queue=queue)
            blamed[await who.store(*said)] = "a worker releases only a child whose only parent it finished"
        for kind, label in (("awaited", "go"), ("skipped", "after")):
            said = flow[label].said(one, kind, [own, a])
            blamed[await field.smuggled(one, *said)] = "the role worker does not decide this about nodes"
        await one.store(*flow["after"].said(one, "released", [own, a], queue=queue))  # this one it may
        await field.agree(blamed)
    await flow.handle.signal("go")
    await flow.finish(two)


@row("cancelled-flow")
async def test_what_is_built_on_a_cancelled_workflow_is_void_and_nobody_is_blamed(field: Field) -> None:
    service, worker = await field.attacker("service"), await field.attacker("worker")
    flow = await Flow.of(field, node("a"), node("b", "a"), node("c", "a"), node("d", "b"))
    own, queue = await flow.sequence(), (await flow["a"].until("waiting")).queue
    async with unconducted(field):
        end = await flow["a"].done(worker)
        await flow.handle.cancel("not needed")
        subject, event = flow["b"].said(worker, "released", [own, end], queue=queue)
        voids = {await worker.store(subject, event): "its workflow was cancelled before it"}
        offer, prev = msgpack.unpackb(msgpack.unpackb(event)[0])["id"], digest(field.key, subject, event)
        attempt = ulid()
        for kind, data in (
            ("assigned", {"offer": offer, "lease_s": 2.0, "instance": "one"}),
            ("completed", {"attempt": attempt, "output": 1}),
        ):
            subject = flow["b"].subject(kind, worker.name)
            id = attempt if kind == "assigned" else ulid()
            event = worker.event(f"process.{kind}", subject, prev=prev, id=id, data=data)
            voids[await worker.store(subject, event)] = "it stands on an event that is void"
            prev = digest(field.key, subject, event)
        subject, event = flow["d"].said(worker, "released", [own, max(voids)], queue=queue)
        voids[await worker.store(subject, event)] = "its workflow was cancelled before it"
        await field.agree(voids, "void")
        said = flow["c"].said(service, "released", [own], queue=queue)
        await field.agree({await service.store(*said): "it does not cite"})
    await flow.finish(worker, "cancelled")
    assert (await flow["b"].get()).attempts == ()


@row("untrue-skip")
async def test_what_is_skipped_and_what_waits_is_said_by_the_workflow(field: Field) -> None:
    service, worker = await field.attacker("service"), await field.attacker("worker")
    flow = await Flow.of(
        field,
        node("a"),
        node("runs", "a", when="a.n > `1`"),
        node("skips", "a", when="a.n > `9`"),
        node("waits", "a", wait_signal="go"),
    )
    own, queue = await flow.sequence(), (await flow["a"].until("waiting")).queue
    async with unconducted(field):
        end = await flow["a"].done(worker, {"n": 5})
        blamed = {}
        for kind, label, rule in (
            ("skipped", "runs", "the node is not to be dealt with in this way"),
            ("released", "skips", "the node is to be skipped"),
            ("awaited", "runs", "the node is not to be dealt with in this way"),
            ("skipped", "waits", "the node is not to be dealt with in this way"),
            ("released", "waits", "the node is not to be dealt with in this way"),
        ):
            said = flow[label].said(service, kind, [own, end], queue=queue)
            blamed[await service.store(*said)] = rule
        await field.agree(blamed)
    await flow.handle.signal("go")
    await flow.finish(worker)
    assert (await flow["skips"].get()).state == "skipped"


# --- cancels ------------------------------------------------------------------------------------------


@row("untrue-stop")
async def test_the_service_cancels_only_what_cannot_go_on(field: Field) -> None:
    service, worker = await field.attacker("service"), await field.attacker("worker")
    stop = {"on_failure": "stop"}
    flow = await Flow.of(
        field, node("soft", allow_failure=True), node("a"), node("b", "a"), node("c"), **stop
    )
    other = await Flow.of(field, node("a"), node("b", "a"))
    plain = await field.running()
    foreign = await other["a"].failed(worker)
    running = await flow["c"].take(worker)
    allowed = await flow["soft"].failed(worker)
    own = await flow.sequence()
    blamed = {}
    lies: list[dict[str, Any]] = [{}, *({"cites": cited} for cited in (own, foreign, allowed))]
    for data in (*lies, {"cites": allowed, "cause": "soft"}):
        subject = flow["b"].subject("cancelled", service.name)
        event = {"workflow": flow.id, "node": "b", **data}
        said = service.event("process.cancelled", subject, data=event)
        blamed[await service.store(subject, said)] = "it cites nothing that stops|what it cites does not stop"
        subject = flow["c"].subject("cancelled", service.name)
        said = service.event("process.cancelled", subject, prev=running[1], data=data)
        blamed[await service.store(subject, said)] = "it cites nothing that stops|what it cites does not stop"
    subject = plain.subject("cancelled", service.name)
    said = service.event("process.cancelled", subject, prev=(await plain.get()).head, data={"cites": foreign})
    blamed[await service.store(subject, said)] = "cancels nothing but nodes of workflows"
    await field.agree(blamed)
    await plain.finish()
    # What does stop it, said by the honest one: every reader takes it, also one that reads that node alone.
    await flow["a"].failed(worker)
    await flow["c"].until("cancelled")
    ends = [await flow[label].until("cancelled") for label in ("b", "c")]
    await field.agree({})
    await field._readers_agree([end.sequence for end in ends])


@row("cancel-anothers-flow")
async def test_a_user_cancels_its_own_workflow_only(field: Field) -> None:
    user, worker = await field.attacker("user"), await field.attacker("worker")
    flow = await Flow.of(field, node("a"), node("b", "a"))
    await flow["a"].until("waiting")
    subject = flow.subject("cancelled", user.name)
    said = user.event("workflow.cancelled", subject, prev=await flow.head())
    blamed = {await user.store(subject, said): "only ann or an owner may cancel the workflow"}
    for label, prev, data in (
        ("a", (await flow["a"].get()).head, {}),
        ("b", None, {"workflow": flow.id, "node": "b"}),
    ):
        subject = flow[label].subject("cancelled", user.name)
        said = user.event("process.cancelled", subject, prev=prev, data=data)
        blamed[await user.store(subject, said)] = "only ann or an owner may cancel the process"
    await field.agree(blamed)
    await flow.finish(worker)


# --- submissions --------------------------------------------------------------------------------------


@row("invented-flow")
async def test_a_workflow_comes_from_a_members_hand(field: Field) -> None:
    service = await field.attacker("service")
    nodes = [{"name": "a", "func": "job", "args": ["invented"], "conditions": PYTHON}]
    queue = (await (await field.running()).get()).queue
    blamed, id = {}, ulid()
    cron = {"kind": "cron", "name": "none", "added": 1}
    for entity, data, rule in (
        (id, {"spec": {"nodes": nodes}}, "the role service submits no workflows of its own"),
        (id, {"source": cron}, "there is no cron none"),
        (
            id,
            {"source": {"kind": "cron", "name": "n", "added": 1}, "spec": {"nodes": nodes}},
            "no spec of its own",
        ),
        (id, {}, "the role service submits no workflows of its own"),
    ):
        subject = f"ledger.workflow.{entity}.submitted.{service.name}"
        blamed[await service.store(subject, service.event("workflow.submitted", subject, data=data))] = rule
    subject = f"ledger.process.{node_id(id, 'a')}.queued.{queue}.{service.name}"
    data = {"workflow": id, "node": "a", "cites": [min(blamed)]}
    blamed[await service.store(subject, service.event("process.released", subject, data=data))] = NOT_THERE
    await field.agree(blamed)
    await (await field.running()).finish()
    assert not field.runs["invented"]


@row("spliced-parts")
async def test_nobody_puts_nodes_into_anothers_workflow(field: Field) -> None:
    user, service = await field.attacker("user"), await field.attacker("service")
    ann = await field.attacker("user", "anna")
    nodes = [{"name": "a", "func": "job", "args": ["spliced"], "conditions": PYTHON}]
    queue = (await (await field.running()).get()).queue
    id, blamed = ulid(), {}

    async def part(who: Attacker, entity: str, rule: str | None, prev: bytes | None, **more: Any) -> bytes:
        subject = f"ledger.workflow.{entity}.part.{who.name}"
        event = who.event("workflow.part", subject, prev=prev, data={"nodes": nodes, **more})
        stored = await who.store(subject, event)
        if rule is not None:
            blamed[stored] = rule
        return digest(field.key, subject, event)

    head = await part(ann, id, None, None)
    await part(user, id, "its parts are those of anna", head)
    subject = f"ledger.workflow.{id}.submitted.{user.name}"
    data = {"spec": {"nodes": []}, "parts": [head.hex()]}
    event = user.event("workflow.submitted", subject, prev=head, data=data)
    blamed[await user.store(subject, event)] = "its parts are those of anna"
    # Before it is submitted there is nothing that could run.
    subject = f"ledger.process.{node_id(id, 'a')}.queued.{queue}.{service.name}"
    data = {"workflow": id, "node": "a", "cites": [min(blamed) - 1]}
    blamed[await service.store(subject, service.event("process.released", subject, data=data))] = NOT_THERE
    subject = f"ledger.workflow.{id}.submitted.{ann.name}"
    data = {"spec": {"nodes": []}, "parts": ["0" * 64]}
    event = ann.event("workflow.submitted", subject, prev=head, data=data)
    blamed[await ann.store(subject, event)] = "it is no workflow: its part 0000"
    # Nor is the place of a workflow taken whose id can be foretold.
    keyed = workflow_key("ann", key := f"k{ulid()}")
    await part(user, keyed, "the id of a plain workflow is a ULID", None)
    await part(user, keyed, "the id does not derive from the submitter and the key", None, key=key)
    await field.agree(blamed)
    handle = await field.ann.submit_workflow(
        [{"name": "x", "func": "job", "conditions": {"runtimetype": "nobody"}}], key=key
    )
    assert handle.id == keyed
    await Flow(field, handle)["x"].until("waiting")
    await handle.cancel()
    assert not field.runs["spliced"]


@row("squatted-node")
async def test_nobody_takes_the_place_of_a_node(field: Field) -> None:
    user, worker = await field.attacker("user"), await field.attacker("worker")
    flow = await Flow.of(field, node("a"), node("b", "a"))
    await flow["a"].take(worker)
    queue = (await (await field.running()).get()).queue
    id = flow["b"].id
    blamed = {
        await user.store(*submission(user, id, queue)): "the id of a plain process is a ULID",
        await user.store(*submission(user, id, queue, key="b")): "does not derive from the submitter",
        await user.store(*submission(user, keyed_id("node", f"{flow.id}\0b"), queue)): "is a ULID",
    }
    await field.agree(blamed)
    assert not field.runs["squatted"]
    await flow.handle.cancel()


@row("false-reuse")
async def test_a_workflow_takes_only_true_results_from_another(field: Field) -> None:
    user, worker = await field.attacker("user"), await field.attacker("worker")
    flow = await Flow.of(field, node("good"), node("bad"), node("blocked", "bad"))
    other = await Flow.of(field, node("good"))
    await flow["good"].done(worker)
    await flow["bad"].failed(worker)
    await other["good"].done(worker)
    conditions = {"runtimetype": "nobody"}
    nodes = [{"name": n, "func": "job", "conditions": conditions} for n in ("good", "bad", "more")]
    blamed = {}

    async def take(reuses: dict[str, str], rule: str, rerun_of: str | None = flow.id, id: str = "") -> None:
        subject = f"ledger.workflow.{id or ulid()}.submitted.{user.name}"
        data = {"spec": {"nodes": nodes}, "reuses": reuses, "rerun_of": rerun_of}
        blamed[await user.store(subject, user.event("workflow.submitted", subject, data=data))] = rule

    await take({"bad": flow["bad"].id}, "was not successful")
    await take({"blocked": flow["blocked"].id}, "was not successful")
    await take({"good": flow["good"].id}, "node good: it is another node there")  # in another queue
    await take({"bad": flow["good"].id}, "is not that node of workflow")
    await take({"good": other["good"].id}, "is not that node of workflow")
    await take({"good": flow["good"].id}, "takes results from a workflow that is not there", None)
    await take({"good": flow["good"].id}, "takes results from a workflow that is not there", ulid())
    own, first, second = ulid(), ulid(), ulid()
    await take({"good": node_id(own, "good")}, "takes results from a workflow that is not there", own, own)
    for id, cited in ((first, second), (second, first)):  # in a circle, which no reader may run in
        await take({"good": node_id(cited, "good")}, "takes results from a workflow", cited, id)
    await field.agree(blamed)
    await flow.finish(worker, "failed")


@row("flooded-node")
async def test_a_flood_where_a_node_will_be_holds_it_up_only_while_it_lasts(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, worker = await field.attacker("user"), await field.attacker("worker")
    flow = await Flow.of(field, node("a"), node("b", "a"))
    subject, last = flow["b"].subject("cancelled", user.name), await field.reader.ledger.last_sequence()
    session = field.orchestrator._conductor._session
    record, append, beaten = session.record, session.ledger.append, 0

    async def recorded(process: str, *args: Any, **rest: Any) -> Any:
        nonlocal beaten
        try:
            return await record(process, *args, **rest)
        except Conflict:
            beaten += process == flow["b"].id
            raise

    async def overtaken(draft: Draft) -> int:  # each time, as by a flood; but readers read all of it
        if flow["b"].id in draft.subject and beaten < 3:
            await user.store(subject, b"junk")
        return await append(draft)

    monkeypatch.setattr(session, "record", recorded)
    monkeypatch.setattr(session.ledger, "append", overtaken)
    await flow["a"].done(worker)
    await field.until(lambda: beaten >= 3, "the orchestrator was beaten again and again")
    await flow.finish(worker)
    junk = [s async for b in field.reader.ledger.scan(last, f"ledger.process.{flow['b'].id}.>") for s in b]
    await of_nobody(field, [s.sequence for s in junk if s.data == b"junk"])


# --- signals, nodes, pauses ---------------------------------------------------------------------------


@row("forged-signal")
async def test_an_approval_is_a_users_word(field: Field) -> None:
    flow = await Flow.of(field, node("ok", wait_signal="approve"), node("after", "ok"))
    await flow["ok"].until("waiting")
    blamed = {}
    for role in ("worker", "observer", "service"):
        who = await field.attacker(role)
        subject = flow.subject("signalled", who.name)
        event = who.event("workflow.signalled", subject, prev=await flow.head(), data={"name": "approve"})
        blamed[await field.smuggled(who, subject, event)] = f"the role {role} sends no signals"
    service, worker = await field.attacker("service"), await field.attacker("worker")
    await flow.handle.signal("other")
    said = (await field.ann.session.workflow(flow.id)).signals[0].sequence
    for cites in (await flow.sequence(), said, max(blamed), 10**9):
        subject = flow["ok"].subject("received", service.name)
        process = await flow["ok"].get()
        event = service.event("process.received", subject, prev=process.head, data={"cites": cites})
        blamed[await service.store(subject, event)] = "does not cite the first signal approve"
    await field.agree(blamed)
    await flow.handle.signal("approve", {"by": "nobody"})
    assert (await flow["ok"].until("successful")).phase.output["by"] == "ann"  # type: ignore[union-attr]
    await flow.finish(worker)


@row("foreign-nodes")
async def test_only_what_runs_adds_nodes_and_only_such_that_can_be(field: Field) -> None:
    one, two = await two_workers(field)
    flow = await Flow.of(field, node("a"), node("b", "a"))
    attempt, head = await flow["a"].take(one)
    made = {"func": "job", "conditions": {"runtimetype": "nobody"}}

    def add(name: str, *parents: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "dependencies": list(parents), **made, **more}

    blamed = {}
    for who, adds, rule in (
        (two, [add("x")], "attempt 1 of evil-worker holds the process"),
        (one, [add("x", "y"), add("y", "x")], "make no workflow with it: .*cycle"),
        (one, [add("x/y")], "their names have no /"),
        (one, [add("x", **{"finally": True})], "none runs last"),
        (one, [add("x", "b")], "there is no such node"),
        (one, [add("x"), add("x")], "has this name as well"),
        (one, [add("a", "x"), add("x", "a")], "it has the name of the node that adds it"),
    ):
        subject = flow["a"].subject("completed", who.name)
        event = who.event(
            "process.completed", subject, prev=head, data={"attempt": attempt, "output": 1, "adds": adds}
        )
        blamed[await who.store(subject, event)] = rule
    plain = await field.waiting()
    process = await plain.get()
    subject = plain.subject("assigned", one.name)
    data = {"offer": process.phase.offer.id, "lease_s": 2.0, "instance": "x"}  # type: ignore[union-attr]
    event = one.event("process.assigned", subject, prev=process.head, id=(id := ulid()), data=data)
    await one.store(subject, event)
    head = digest(field.key, subject, event)
    subject = plain.subject("completed", one.name)
    data = {"attempt": id, "output": "evil", "adds": [add("x")]}
    event = one.event("process.completed", subject, prev=head, data=data)
    blamed[await one.store(subject, event)] = "it adds nodes, and belongs to no workflow"
    await field.agree(blamed)
    await plain.handle.cancel()
    await flow.handle.cancel()


@row("pausing")
async def test_whose_work_waits_the_owner_decides(field: Field) -> None:
    user = await field.attacker("user")
    queue = (await (await field.running()).get()).queue
    blamed = {}
    for kind, place, entity in (
        ("colony.paused", "colony", ""),
        ("colony.resumed", "colony", ""),
        ("queue.paused", f"queue.{queue}", queue),
        ("queue.resumed", f"queue.{queue}", queue),
        ("member.drained", "member.w1", "w1"),
        ("member.resumed", "member.w1", "w1"),
    ):
        subject = f"ledger.{place}.{kind.partition('.')[2]}.{user.name}"
        prev = await field.head(kind.partition(".")[0], entity)
        event = user.event(kind, subject, prev=prev)
        blamed[await field.smuggled(user, subject, event)] = "only an owner pauses, drains and resumes"
    await field.agree(blamed)
    await (await field.running()).finish()


# --- bytes of others ----------------------------------------------------------------------------------


@row("replayed-flow")
async def test_what_was_said_of_a_workflow_is_said_once_and_there(field: Field) -> None:
    user, worker = await field.attacker("user"), await field.attacker("worker")
    flow = await Flow.of(field, node("a"), node("b", "a"))
    await flow.handle.signal("go", 1)
    await flow.finish(worker)
    own = await field.reader.ledger.read(f"ledger.workflow.{flow.id}.>")
    nodes = await field.reader.ledger.read(f"ledger.process.{flow['b'].id}.>")
    again = {
        await field.smuggled(user, old.subject, old.data): "prev is not|already" for old in (*own, *nodes)
    }
    await field.agree(again)
    moved = {}
    for old in (*own, *nodes):
        elsewhere = old.subject.replace(flow.id, ulid()).replace(flow["b"].id, node_id(ulid(), "b"))
        moved[await field.smuggled(user, elsewhere, old.data)] = "its signature is not that of"
    subject = f"ledger.workflow.{ulid()}.submitted.{user.name}"
    data = {"spec": {"nodes": [{"name": "a", "func": "job", "args": ["moved"], "conditions": PYTHON}]}}
    other = user.event("workflow.submitted", subject, data=data, colony="A" * 56)
    moved[await user.store(subject, other)] = "its signature is not that of"
    await field.agree(moved, "damaged")
    assert await flow.state() == "successful"
    assert not field.runs["moved"]
