"""`why`: what a real colony says of processes that do not run, and of those that ended badly."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from colonies_projections.workers import MAX_FUNCTIONS

import colonies
from colonies.client import Client, Handle
from colonies.core.events import Assigned
from colonies.errors import Invalid, NotFound
from colonies.explaining import explain
from colonies.past import Moment, PastLedger
from colonies.reasons import Reason
from colonies.session import Session
from tests.harness import RunningColony, running_colony, until
from tests.projections.helpers import projecting

PYTHON = {"runtimetype": "python"}


def spec(
    func: str, *args: object, conditions: dict[str, Any] | None = None, **more: object
) -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": {**PYTHON, **(conditions or {})}, **more}


class Gate:
    """A worker whose `hold` runs until its gate is opened."""

    def __init__(self, concurrency: int = 1, **has: Any) -> None:
        self.open = asyncio.Event()
        self.worker = colonies.Worker("python", concurrency=concurrency, backoff_s=60, has=has or None)
        self.runs = 0

        @self.worker.function
        async def hold() -> None:
            self.runs += 1
            await self.open.wait()

        @self.worker.function
        async def broken() -> None:
            raise ValueError("no such file")

        @self.worker.function
        async def give_up() -> None:
            raise colonies.Fail("there is no such picture")

        @self.worker.function
        async def put_off() -> None:
            raise colonies.Later(300, "not yet")


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with (
        running_colony(tmp_path, lease_s=2.0) as colony,
        projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"),
    ):
        yield colony


async def said(handle: Handle[Any], code: str, limit_s: float = 30.0) -> Reason:
    """The reason of this code, once there is one."""
    reasons: list[Reason] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while True:
                with contextlib.suppress(NotFound):
                    reasons = await handle.why()
                for reason in reasons:
                    if reason.code == code:
                        return reason
                await asyncio.sleep(0.05)
    pytest.fail(f"never said: {code}; last: {[(reason.code, reason.text) for reason in reasons]}")


async def events_of(client: Client, id: str) -> dict[str, int]:
    """The last sequence of each type of event of a process."""
    judged = (await client.session.story(id)).judged
    return {seen.record.event.type.partition(".")[2]: seen.stored.sequence for seen in judged if seen.record}


async def test_it_says_which_condition_no_worker_meets_and_then_that_those_who_do_are_busy(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    gate = Gate(gpus=[{"id": "0"}])
    await colony.work(gate.worker, "lab1")
    need = await client.submit(spec("hold", conditions={"gpu": {"count": 2}}))
    found = await said(need, "unserved")
    assert "needs runtimetype=python and gpu=2; 0 of 1 worker have it" in found.text
    assert found.text.endswith("nearest: lab1 lacks gpu: 2 needed, 1 there")
    queue = client.session.colony.queues[(await need.get()).queue]
    assert found.sequences == (queue.declared, (await need.get()).sequence)
    assert found.since == (await need.get()).submitted_at

    runs = await client.submit(spec("hold"))
    await until(lambda: gate.runs, "it runs")
    first, second = [await client.submit(spec("hold")) for _ in range(2)]
    busy = await said(second, "workers_busy")
    assert "needs runtimetype=python; 1 of 1 worker have it; it is busy: each runs 1 of 1" in busy.text
    ahead = await said(second, "ahead")
    assert ahead.text == "1 process submitted before it wait in the same queue"
    assert ahead.data["count"] == 1
    assert not [reason for reason in await first.why() if reason.code == "ahead"]
    await client.submit(spec("hold", priority=5))
    assert (await said(second, "higher_priority")).data["count"] == 1
    assert "attempt 1 on lab1/" in (await said(runs, "running")).text

    other = await client.submit(spec("unknown", priority=1))
    assert "lab1 has no function unknown" in (await said(other, "no_function")).text
    gate.open.set()


async def test_of_a_worker_with_very_many_functions_it_claims_to_know_no_more_than_it_does(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    gate = Gate()
    for number in range(MAX_FUNCTIONS):

        @gate.worker.function(name=f"f{number:03}")
        async def nothing() -> None:
            pass

    await colony.work(gate.worker, "lab1")
    await client.submit(spec("hold"))
    await until(lambda: gate.runs, "it runs")
    last = f"f{MAX_FUNCTIONS - 1:03}"
    waits = await client.submit(spec(last))
    await said(waits, "workers_busy")
    assert "no_function" not in [reason.code for reason in await waits.why()]
    [item] = [item async for item in client.query("workers")]
    assert (last in item["functions"], item["left_out"]) == (False, ["functions"])
    gate.open.set()


async def test_it_says_who_paused_or_drained_what_and_why_and_that_it_was_so_then(
    colony: RunningColony,
) -> None:
    client, owner = await colony.client(), Client(colony.owner)
    gate = Gate()
    await colony.work(gate.worker, "lab1")
    await owner.drain_worker("lab1", "new disks")
    waits = await client.submit(spec("hold"))
    drained = await said(waits, "worker_drained")
    assert drained.text.startswith("the worker lab1 is drained by owner since ")
    assert drained.text.endswith(": new disks")
    assert "1 of 1 worker have it, all drained" in (await said(waits, "all_drained")).text
    queue = (await waits.get()).queue
    await owner.pause_queue(queue, "licence")
    await owner.pause_colony("a power cut")
    for code, what in (("queue_paused", f"the queue {queue}"), ("colony_paused", "the colony")):
        paused = await said(waits, code)
        why = "licence" if code == "queue_paused" else "a power cut"
        assert paused.text.startswith(f"{what} is paused by owner since ")
        assert paused.text.endswith(f": {why}")
        (sequence,) = paused.sequences
        stored = await client.ledger.at(sequence)
        assert stored.subject == (
            f"ledger.queue.{queue}.paused.owner" if code == "queue_paused" else "ledger.colony.paused.owner"
        )
    at = await client.ledger.last_sequence()
    await owner.resume_colony()
    await owner.resume_queue(queue)
    await owner.resume_worker("lab1")
    await until(lambda: gate.runs, "it runs")
    gate.open.set()
    await waits.wait(30)
    assert (await said(waits, "successful")).text.startswith("successful: attempt 1 on lab1 took ")
    then = await in_the_past(client, waits.id, at)
    assert {"worker_drained", "queue_paused", "colony_paused"} == {reason.code for reason in then}


async def in_the_past(client: Client, id: str, sequence: int) -> list[Reason]:
    """What was to be said of it at that sequence."""
    stored = await client.ledger.at(sequence)
    past = PastLedger(client.ledger, Moment(sequence, stored.time))
    session = await Session(past, client.session.name, client.session.keypair).open()
    try:
        return await explain(Client(session), id)
    finally:
        await session.close()


async def test_it_says_who_holds_the_places_under_a_key_and_when_a_rate_has_the_next(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    gate = Gate(concurrency=4)
    await colony.work(gate.worker, "lab1")
    limit = {"key": "customer-7", "running": 2}
    handles = [await client.submit(spec("hold", limits=limit)) for _ in range(3)]
    await until(lambda: gate.runs == 2, "two run")
    found = await said(handles[2], "limit_reached")
    assert found.text.startswith("blocked: limit key customer-7: 2 of 2 places taken by ")
    assert set(found.data["holders"]) == {handles[0].id, handles[1].id}
    for sequence in found.sequences:
        assert ".granted." in (await client.ledger.at(sequence)).subject

    rate = {"key": "maps", "rate": 1, "per": "hour"}
    first, second = [await client.submit(spec("give_up", limits=rate)) for _ in range(2)]
    await first.wait(30)
    reached = await said(second, "rate_reached")
    assert "rate maps: 1 per hour, 1 granted; next place at " in reached.text
    (sequence,) = reached.sequences
    granted = await client.ledger.at(sequence)
    assert reached.until == granted.time + 3_600 * 1_000_000_000
    gate.open.set()


async def test_it_says_for_which_parent_signal_or_backoff_a_node_waits_and_what_cancelled_it(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    gate = Gate(concurrency=4)
    await colony.work(gate.worker, "lab1")
    workflow = await client.submit_workflow(
        [
            {**spec("hold"), "name": "a"},
            {**spec("broken", maxretries=1), "name": "b"},
            {**spec("hold"), "name": "c", "dependencies": ["a", "b"]},
            {"name": "approve", "wait_signal": "approve"},
        ]
    )
    nodes = {node.label: node for node in (await workflow.get()).nodes}
    back = await said(client.process(nodes["b"].id), "backoff")
    assert back.text.startswith("blocked: attempt 1 on lab1 ended so: ValueError: no such file")
    assert back.until is not None
    assert back.sequences == ((await events_of(client, nodes["b"].id))["failed"],)
    assert (
        "for the signal approve" in (await said(client.process(nodes["approve"].id), "waits_for_signal")).text
    )
    await until(lambda: gate.runs, "a runs")
    (blocked,) = await workflow.why("c")
    assert blocked.code == "waits_for_parents"
    assert "a (running since " in blocked.text
    assert " on lab1), b (blocked, attempt 2, backing off until " in blocked.text
    told = {(reason.node, reason.code) for reason in await workflow.why()}
    assert {
        ("a", "running"),
        ("b", "backoff"),
        ("c", "waits_for_parents"),
        (None, "workflow_running"),
    } <= told
    assert ("approve", "waits_for_signal") in told
    with pytest.raises(NotFound, match="workflow why"):
        await client.process(nodes["c"].id).why()
    with pytest.raises(Invalid, match="did you mean approve"):
        await workflow.why("aprove")

    await client.process(nodes["b"].id).cancel("enough")
    (due,) = await workflow.why("c")
    assert due.code == "cancel_due"
    assert "its parent b was cancelled; it is cancelled when these have ended as well: a (running" in due.text
    gate.open.set()
    found = await said(client.process(nodes["c"].id), "stopped_by_node")
    assert "since node b was cancelled" in found.text
    b = await events_of(client, nodes["b"].id)
    assert found.sequences == ((await events_of(client, nodes["c"].id))["cancelled"], b["cancelled"])
    by = await said(client.process(nodes["b"].id), "cancelled")
    assert by.text.startswith("cancelled by ann at ")
    assert by.text.endswith(": enough")
    await workflow.cancel("all of it")
    whole = await said(client.process(nodes["approve"].id), "workflow_cancelled")
    assert "with its workflow, which ann cancelled: all of it" in whole.text


async def test_it_says_how_attempts_failed_and_which_end_that_made(colony: RunningColony) -> None:
    client = await colony.client()
    await colony.work(Gate(concurrency=4).worker, "lab1")
    for_good, used, later, unknown, late = [
        await client.submit(work)
        for work in (
            spec("give_up"),
            spec("broken"),
            spec("put_off"),
            spec("unknown"),
            spec("hold", conditions={"location": "attic"}, maxwaittime=0.5),
        )
    ]
    await for_good.wait(30)
    found = await said(for_good, "failed_for_good")
    assert found.text.endswith(
        "said Fail, or what it was given or gave is not allowed): there is no such picture"
    )
    assert found.sequences == ((await events_of(client, for_good.id))["failed"],)
    await used.wait(30)
    assert (
        "retries used up (0 of 0): attempt 1 on lab1 failed: ValueError"
        in (await said(used, "retries_used_up")).text
    )
    assert "it was put off until " in (await said(later, "put_off")).text
    await unknown.wait(30)
    assert (await said(unknown, "no_function")).text == (
        "lab1 has no function unknown; of the living workers of runtimetype python none has it"
    )
    await late.wait(60)
    expired = await said(late, "expired")
    assert expired.text.startswith("expired: waited longer than its maxwaittime of 0.5 s, since ")
    assert expired.sequences == ((await events_of(client, late.id))["expired"],)


async def test_it_says_which_attempts_were_lost_and_that_it_is_poison(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    handle = await client.submit(spec("wait_for", str(tmp_path), "never"))
    for number in range(1, 6):
        worker = await colony.spawn(f"w{number}", concurrency=1)
        await until((tmp_path / f"never.{number}.running").exists, f"attempt {number} runs")
        if number == 2:
            lost = await said(handle, "attempt_lost")
            judged = (await client.session.story(handle.id)).judged
            taken = [
                seen.stored.sequence
                for seen in judged
                if seen.record is not None and isinstance(seen.record.event, Assigned)
            ]
            assert lost.text == (
                f"attempt 1 on w1 was lost: no sign of life for 2 s after sequence {taken[0]}; "
                f"attempt 2 on w2 took it at sequence {taken[1]}"
            )
            assert lost.sequences == tuple(taken)
        worker.send(signal.SIGKILL)
        await worker.end()
    await colony.work(Gate().worker, "last")
    await handle.wait(60)
    poisoned = await said(handle, "poisoned")
    assert poisoned.text == "poisoned: 5 attempts in a row were lost, on w1, w2, w3, w4, w5"
    assert poisoned.sequences[-1] == (await handle.get()).sequence
    assert [reason.code for reason in await handle.why()].count("attempt_lost") == 5


async def test_without_a_projector_it_says_what_the_ledger_alone_tells(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        waits = await client.submit(spec("hold", conditions={"cpu": 4}))
        (reason,) = await waits.why()
        assert reason.code == "no_views"
        assert "needs runtimetype=python and cpu=4; which workers could take it" in reason.text
        assert "no projector answers; start one" in reason.text
        await Client(colony.owner).pause_colony("night")
        assert [reason.code for reason in await waits.why()] == ["colony_paused", "no_views"]


async def test_in_memory_it_works_as_well() -> None:
    gate = Gate()
    async with colonies.memory() as colony:
        await colony.work(gate.worker)
        done = await colony.submit(spec("give_up"))
        await done.wait(30)
        assert [reason.code for reason in await done.why()] == ["failed_for_good"]
