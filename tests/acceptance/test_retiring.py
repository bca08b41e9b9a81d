"""Queues that nobody uses: retired after a while, back by themselves, and nothing is forgotten meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import colonies
from colonies import jetstream
from colonies.core.events import Declared, Queued
from colonies.core.spec import Conditions, Spec, queue_of
from colonies.history import Story
from colonies.ids import new_id
from colonies.orchestrator import Orchestrator
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until


async def _retiring(colony: RunningColony, after_s: float) -> None:
    session = await colony.session("keeper", "service")
    assert isinstance(session.ledger, jetstream.JetStreamLedger)
    orchestrator = Orchestrator(session, session.ledger.machinery(), retire_after_s=after_s)
    await colony._start(orchestrator.run(), orchestrator.ready)


async def test_a_queue_that_nobody_uses_is_retired_and_comes_back_by_itself(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        await _retiring(colony, 1.0)
        client = await colony.client()
        spec = {"func": "double", "args": [4], "conditions": {"runtimetype": "python", "labels": {"a": "b"}}}
        ran: list[int] = []
        worker = colonies.Worker("python", has={"labels": {"a": "b"}})

        @worker.function
        async def double(n: int) -> int:
            ran.append(n)
            return 2 * n

        instance = await colony.work(worker)
        handle = await client.submit(spec)
        assert await handle.result(30) == 8
        queue = (await handle.get()).queue
        await asyncio.sleep(2)  # long enough, if it were not pulled
        assert not await client.ledger.read(f"ledger.queue.{queue}.retired.*")

        instance.stop(0.0)
        while not await client.ledger.read(f"ledger.queue.{queue}.retired.*"):
            await asyncio.sleep(0.1)
        await until(lambda: queue not in client.session.colony.queues, "the client hears of it")

        again = await client.submit(spec)
        await colony.work(worker)
        assert await again.result(30) == 8
        assert ran == [4, 4]
        story = await client.session.story(handle.id)
        assert [s.verdict.kind for s in story.judged] == ["valid"] * 3
        ledger = client.ledger
        assert isinstance(ledger, jetstream.JetStreamLedger)
        assert not (await verify_ledger(ledger)).findings


async def test_what_is_submitted_to_a_retired_queue_is_not_forgotten(tmp_path: Path) -> None:
    """Its submitter did not hear of it."""
    async with running_colony(tmp_path, orchestrate=False) as colony:
        await _retiring(colony, 0.5)
        client = await colony.client()
        spec = Spec.parse({"func": "noop", "conditions": {"runtimetype": "python", "labels": {"a": "b"}}})
        queue = queue_of(spec.conditions, spec.priority)
        await client.session.record_entity("queue", queue, Declared(spec.conditions, spec.priority))
        while not await client.ledger.read(f"ledger.queue.{queue}.retired.*"):
            await asyncio.sleep(0.1)
        process = new_id()
        await client.session.record(process, Queued(spec), at=Story(None, [], 0), queue=queue)
        worker = colonies.Worker("python", has={"labels": {"a": "b"}})

        @worker.function
        async def noop() -> None:
            pass

        await colony.work(worker)
        assert (await client.process(process).wait(30)).state == "successful"


async def test_a_queue_with_something_waiting_is_not_retired(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        await _retiring(colony, 0.5)
        client = await colony.client()
        handle = await client.submit({"func": "noop", "conditions": {"runtimetype": "nobody"}})
        unused = Conditions.parse({"runtimetype": "unused"})
        await client.session.record_entity("queue", queue_of(unused, 0), Declared(unused, 0))
        while not await client.ledger.read("ledger.queue.*.retired.*"):
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        retired = await client.ledger.read("ledger.queue.*.retired.*")
        assert [stored.subject.split(".")[2] for stored in retired] == [queue_of(unused, 0)]
        assert (await handle.get()).state == "waiting"
