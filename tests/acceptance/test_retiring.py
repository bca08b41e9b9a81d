"""Queues that nobody uses: retired after a while, back by themselves, and nothing is forgotten meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import colonies
from colonies import jetstream
from colonies.client import Client
from colonies.core.events import Declared, Queued
from colonies.core.spec import Conditions, Spec, queue_of
from colonies.history import Story
from colonies.ids import new_id
from colonies.orchestrator import Orchestrator
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until


async def _retiring(colony: RunningColony, after_s: float) -> asyncio.Task[None]:
    session = await colony.session("keeper", "service")
    assert isinstance(session.ledger, jetstream.JetStreamLedger)
    orchestrator = Orchestrator(session, session.ledger.machinery(), retire_after_s=after_s)
    return await colony._start(orchestrator.run(), orchestrator.ready)


async def _unused_is_retired(client: Client) -> str:
    """Declare a queue that nobody uses and wait until it is retired: so long is the time of any other."""
    unused = Conditions.parse({"runtimetype": "unused"})
    queue = queue_of(unused, 0)
    await client.session.record_entity("queue", queue, Declared(unused, 0))
    while not await client.ledger.read(f"ledger.queue.{queue}.retired.*"):
        await asyncio.sleep(0.1)
    return queue


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
        await _unused_is_retired(client)
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
        unused = await _unused_is_retired(client)
        retired = await client.ledger.read("ledger.queue.*.retired.*")
        assert [stored.subject.split(".")[2] for stored in retired] == [unused]
        assert (await handle.get()).state == "waiting"


async def test_what_one_orchestrator_retired_another_makes_again(tmp_path: Path) -> None:
    """The other made the queue's consumer before, and it is not there any more."""
    async with running_colony(tmp_path, orchestrate=False) as colony:
        await colony.orchestrate("other")
        retiring = await _retiring(colony, 0.5)
        client = await colony.client()
        queue = await _unused_is_retired(client)
        session = await colony.session("looker", "service")
        assert isinstance(session.ledger, jetstream.JetStreamLedger)
        machinery = session.ledger.machinery()
        while await machinery.queue_state(queue) is not None:
            await asyncio.sleep(0.05)
        retiring.cancel()
        await asyncio.gather(retiring, return_exceptions=True)

        unused = Conditions.parse({"runtimetype": "unused"})
        await client.session.record_entity("queue", queue, Declared(unused, 0))
        async with asyncio.timeout(30):
            while await machinery.queue_state(queue) is None:
                await asyncio.sleep(0.05)
