"""What goes wrong, for real: workers killed, stopped and woken, functions that fail, brokers that die."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import colonies
from colonies.core.process import Process, Waiting
from colonies.errors import Conflict, ProcessCancelled, ProcessFailed
from colonies.jetstream import JetStreamLedger
from colonies.subjects import logs_of
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until

PYTHON = {"runtimetype": "python"}


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, lease_s=2.0) as colony:
        yield colony
        ledger = colony.owner.ledger
        assert isinstance(ledger, JetStreamLedger)
        report = await verify_ledger(ledger)
        assert report.findings == []


def outcomes(process: Process) -> list[str | None]:
    return [attempt.outcome for attempt in process.attempts]


async def state_of(client: colonies.Client, id: str, state: str) -> None:
    async with asyncio.timeout(30):
        while (await client.process(id).get()).state != state:
            await asyncio.sleep(0.02)


async def test_a_process_whose_worker_is_killed_is_finished_by_another(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    first = await colony.spawn("w1")
    handle = await client.submit({"func": "wait_for", "args": [str(tmp_path), "go"], "conditions": PYTHON})
    await until((tmp_path / "go.1.running").exists, "the first attempt runs")
    await colony.spawn("w2")
    first.send(signal.SIGKILL)
    await until((tmp_path / "go.2.running").exists, "the second attempt runs")
    (tmp_path / "go").touch()
    assert await handle.result(30) == 2
    process = await handle.get()
    assert outcomes(process) == ["lost", "successful"]
    assert [attempt.worker for attempt in process.attempts] == ["w1", "w2"]
    assert process.failures == 0


async def test_a_worker_that_lost_its_lease_cannot_report_a_result(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    sleeper = await colony.spawn("w1")
    handle = await client.submit({"func": "wait_for", "args": [str(tmp_path), "go"], "conditions": PYTHON})
    await until((tmp_path / "go.1.running").exists, "the first attempt runs")
    sleeper.send(signal.SIGSTOP)
    await colony.spawn("w2")
    await until((tmp_path / "go.2.running").exists, "the second attempt runs")
    (tmp_path / "go").touch()
    assert await handle.result(30) == 2
    sleeper.send(signal.SIGCONT)
    ledger = client.ledger

    async def noted() -> bool:
        return any(
            b"log.refused" in s.data or b"log.stopped" in s.data
            for s in await ledger.emitted(logs_of(handle.id))
        )

    async with asyncio.timeout(30):
        while not await noted():
            await asyncio.sleep(0.05)
    process = await handle.get()
    assert process.state == "successful"
    assert outcomes(process) == ["lost", "successful"]


async def test_a_failing_function_is_tried_again_as_often_as_the_spec_says(colony: RunningColony) -> None:
    client = await colony.client()
    await colony.spawn("w1")
    good = await client.submit({"func": "fail_until", "args": [3], "maxretries": 2, "conditions": PYTHON})
    bad = await client.submit({"func": "fail_until", "args": [9], "maxretries": 1, "conditions": PYTHON})
    assert await good.result(60) == 3
    with pytest.raises(ProcessFailed, match="attempt 2 is too early"):
        await bad.result(60)
    process = await bad.get()
    assert outcomes(process) == ["failed", "failed"]
    assert len(process.errors) == 2


async def test_fail_ends_a_process_at_once(colony: RunningColony) -> None:
    client = await colony.client()
    await colony.spawn("w1")
    handle = await client.submit({"func": "give_up", "maxretries": -1, "conditions": PYTHON})
    with pytest.raises(ProcessFailed, match="there is no such picture"):
        await handle.result(30)
    assert outcomes(await handle.get()) == ["failed"]


async def test_later_waits_and_does_not_count(colony: RunningColony) -> None:
    client = await colony.client()
    await colony.spawn("w1")
    handle = await client.submit({"func": "later", "args": [2], "conditions": PYTHON})
    assert await handle.result(60) == 3
    process = await handle.get()
    assert outcomes(process) == ["later", "later", "successful"]
    assert process.failures == 0


async def test_a_function_that_hangs_is_ended_by_maxexectime(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    await colony.spawn("w1")
    blocking = await client.submit(
        {"func": "wait_for", "args": [str(tmp_path), "never"], "maxexectime": 0.5, "conditions": PYTHON}
    )
    with pytest.raises(ProcessFailed, match=r"longer than its maxexectime of 0\.5 s"):
        await blocking.result(30)
    assert outcomes(await blocking.get()) == ["timeout"]
    (tmp_path / "never").touch()


async def test_a_waiting_process_can_be_cancelled_and_never_runs(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    handle = await client.submit({"func": "mark", "args": [str(tmp_path), "ran"], "conditions": PYTHON})
    await handle.cancel("not needed")
    with pytest.raises(ProcessCancelled, match="cancelled by ann: not needed"):
        await handle.result(30)
    await colony.spawn("w1")
    after = await client.submit({"func": "mark", "args": [str(tmp_path), "after"], "conditions": PYTHON})
    await after.result(30)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(Conflict, match="cancelled already"):
        await handle.cancel()


async def test_a_running_process_can_be_cancelled_and_its_work_is_stopped(colony: RunningColony) -> None:
    client = await colony.client()
    stopped = asyncio.Event()
    worker = colonies.Worker("python", concurrency=1)

    @worker.function
    async def long() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            stopped.set()

    await colony.work(worker, "w1")
    handle = await client.submit(long.call())
    await state_of(client, handle.id, "running")
    await handle.cancel()
    await asyncio.wait_for(stopped.wait(), 30)
    assert outcomes(await handle.get()) == ["cancelled"]


async def test_only_the_submitter_or_an_owner_cancels(colony: RunningColony) -> None:
    ann, bob = await colony.client("ann"), await colony.client("bob")
    handle = await ann.submit({"func": "mark", "conditions": PYTHON})
    with pytest.raises(colonies.Refused, match="only ann or an owner"):
        await bob.cancel(handle.id)
    owner = colonies.Client(colony.owner)
    await owner.cancel(handle.id)
    assert (await handle.get()).state == "cancelled"


async def test_a_worker_that_is_told_to_stop_gives_back_what_it_cannot_finish(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    worker = colonies.Worker("python", concurrency=1)

    @worker.function
    async def wait_here() -> str:
        if colonies.current().n == 1:
            await asyncio.sleep(600)
        return "done"

    first = await colony.work(worker, "w1")
    handle = await client.submit(wait_here.call())
    await state_of(client, handle.id, "running")
    first.stop(0.1)
    await state_of(client, handle.id, "waiting")
    await colony.work(worker, "w2")
    assert await handle.result(30) == "done"
    process = await handle.get()
    assert outcomes(process) == ["returned", "successful"]


async def test_a_broker_killed_in_the_middle_loses_nothing_and_completes_nothing_twice(
    tmp_path: Path,
) -> None:
    effects = tmp_path / "effects"
    effects.mkdir()
    async with running_colony(tmp_path, lease_s=2.0) as colony:
        client = await colony.client()
        await colony.spawn("w1", concurrency=8)
        call = {"func": "mark", "conditions": PYTHON}
        works = [{**call, "args": [str(effects), str(n), 0.05]} for n in range(100)]
        handles = await client.submit_many(works)
        await until(lambda: len(list(effects.iterdir())) > 10, "some work is done")
        await colony.kill_broker()
        await colony.restart_broker()
        results = await asyncio.gather(*(handle.result(90) for handle in handles))
        assert results == [str(n) for n in range(100)]
        assert all(len((effects / str(n)).read_text().split()) == 1 for n in range(100))
        ledger = colony.owner.ledger
        assert isinstance(ledger, JetStreamLedger)
        assert (await verify_ledger(ledger)).findings == []


async def test_instances_of_one_worker_name_are_fenced_from_each_other(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    first = await colony.spawn("w1")
    handle = await client.submit({"func": "wait_for", "args": [str(tmp_path), "go"], "conditions": PYTHON})
    await until((tmp_path / "go.1.running").exists, "the first attempt runs")
    first.send(signal.SIGSTOP)
    second = await colony.spawn("w1")
    await until((tmp_path / "go.2.running").exists, "the second attempt runs")
    first.send(signal.SIGCONT)
    (tmp_path / "go").touch()
    assert await handle.result(30) == 2
    process = await handle.get()
    assert [attempt.worker for attempt in process.attempts] == ["w1", "w1"]
    assert [attempt.instance for attempt in process.attempts] == [first.instance, second.instance]
    assert outcomes(process) == ["lost", "successful"]


async def test_an_old_offer_that_comes_again_while_a_newer_attempt_runs_is_left(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    first = await colony.spawn("w1", concurrency=2)
    handle = await client.submit(
        {
            "func": "wait_for",
            "args": [str(tmp_path), "go"],
            "maxexectime": 1,
            "maxretries": 3,
            "conditions": PYTHON,
        }
    )
    await until((tmp_path / "go.1.running").exists, "the first attempt runs")
    first.send(signal.SIGSTOP)  # its offer is redelivered, taken over, fails; a new offer follows
    await colony.spawn("w2", concurrency=2)
    await until((tmp_path / "go.3.running").exists, "a third attempt runs, from a newer offer")
    (tmp_path / "go").touch()
    first.send(signal.SIGCONT)
    await handle.result(60)
    process = await handle.get()
    assert outcomes(process)[:2] == ["lost", "timeout"]
    assert outcomes(process)[-1] == "successful"


async def test_a_queue_whose_consumer_was_deleted_is_served_again(colony: RunningColony) -> None:
    client = await colony.client()
    service = await colony.session("intruder", "service")
    assert isinstance(service.ledger, JetStreamLedger)
    handle = await client.submit({"func": "sleep", "args": [0], "conditions": PYTHON})
    process = await handle.get()
    assert isinstance(process.phase, Waiting)
    machinery = service.ledger.machinery()
    async with asyncio.timeout(30):
        while await machinery.queue_state(process.queue) is None:
            await asyncio.sleep(0.02)
    await machinery.delete_queue(process.queue)
    await colony.spawn("w1")
    assert await handle.result(60) == 0


async def test_a_poisonous_process_fails_after_five_lost_attempts(colony: RunningColony) -> None:
    client = await colony.client()
    handle = await client.submit({"func": "sleep", "args": [600], "conditions": PYTHON})
    for _ in range(5):
        worker = await colony.spawn("w1")
        await state_of_attempt(client, handle.id, worker.instance)
        worker.send(signal.SIGKILL)
        await worker.process.wait()
    await colony.spawn("w2")
    with pytest.raises(ProcessFailed, match="poison"):
        await handle.result(60)
    assert outcomes(await handle.get()) == ["lost"] * 5


async def state_of_attempt(client: colonies.Client, id: str, instance: str) -> None:
    async with asyncio.timeout(60):
        while True:
            attempts = (await client.process(id).get()).attempts
            if attempts and attempts[-1].instance == instance:
                return
            await asyncio.sleep(0.02)
