"""Whatever a function does, it is that attempt's outcome: the worker, and its other work, go on."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import colonies
from colonies.core.events import Completed
from colonies.core.process import Process
from colonies.errors import ProcessFailed, Unavailable
from colonies.logs import missing, read_logs
from colonies.memory_colony import MemoryClient
from tests.harness import running_colony

worker = colonies.Worker("python", concurrency=4, backoff_s=0.05)


@worker.function
def leave() -> None:
    sys.exit(3)


@worker.function
async def leave_politely() -> None:
    sys.exit("enough")


@worker.function
def unavailable() -> None:
    raise Unavailable("another colony does not answer")


@worker.function
async def cancelled_inside() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


@worker.function
async def odd_characters() -> str:
    attempt = colonies.current()
    attempt.progress(0.5, "file \udce9")
    attempt.log("file \udce9\n")
    await asyncio.sleep(0.3)
    return "done"


@worker.function
async def raises_odd_characters() -> None:
    raise ValueError("file \udce9")


@worker.function
def logs() -> None:
    logging.getLogger("training").warning("loss is %s", 0.5)


@worker.function
async def block() -> str:
    time.sleep(0.4)  # noqa: ASYNC251
    return "done"


@worker.function
def double(n: int) -> int:
    return 2 * n


@pytest.fixture
async def colony() -> AsyncIterator[MemoryClient]:
    async with colonies.memory() as colony:
        await colony.work(worker)
        yield colony


async def ended(colony: MemoryClient, func: str) -> Process:
    handle = await colony.submit({"func": func, "conditions": {"runtimetype": "python"}})
    process = await handle.wait(30)
    assert await (await colony.submit(double.call(21))).result(30) == 42
    return process


@pytest.mark.parametrize(
    ("func", "error"),
    [
        ("leave", "sys.exit(3)"),
        ("leave_politely", "sys.exit('enough')"),
        ("unavailable", "another colony does not answer"),
        ("cancelled_inside", "cancelled from inside"),
        ("raises_odd_characters", "ValueError: file ?"),
    ],
)
async def test_it_fails_and_the_worker_goes_on(colony: MemoryClient, func: str, error: str) -> None:
    process = await ended(colony, func)
    assert [attempt.outcome for attempt in process.attempts] == ["failed"]
    assert error in process.errors[0]


async def test_half_characters_in_progress_and_log_harm_nobody(colony: MemoryClient) -> None:
    process = await ended(colony, "odd_characters")
    assert process.state == "successful"
    assert [entry.text for entry in await read_logs(colony.session, process.id)] == ["file ?\n"]


async def test_pythons_own_logging_is_in_the_processes_log(colony: MemoryClient) -> None:
    process = await ended(colony, "logs")
    assert [entry.text for entry in await read_logs(colony.session, process.id)] == ["loss is 0.5\n"]


async def test_a_log_written_while_the_broker_dies_is_whole(tmp_path: Path) -> None:
    chatty = colonies.Worker("python", concurrency=1)
    told = asyncio.Event()

    @chatty.function
    async def talk() -> str:
        attempt = colonies.current()
        for n in range(40):
            attempt.log(f"{n}\n")
            if n == 10:
                told.set()
            await asyncio.sleep(0.1)
        return "done"

    async with running_colony(tmp_path, lease_s=10.0) as colony:
        client = await colony.client()
        await colony.work(chatty)
        handle = await client.submit(talk.call())
        await asyncio.wait_for(told.wait(), 30)
        await colony.kill_broker()
        await colony.restart_broker()
        assert await handle.result(60) == "done"
        entries = await read_logs(client.session, handle.id)
        assert "".join(entry.text for entry in entries) == "".join(f"{n}\n" for n in range(40))
        last = [seen async for seen in handle.events()][-1].record
        assert last is not None
        assert isinstance(last.event, Completed)
        assert last.event.logs is not None
        assert missing(entries, last.author, last.event.attempt, last.event.logs) == 0


async def test_a_worker_told_to_stop_while_it_takes_an_offer_stops(tmp_path: Path) -> None:
    slow = colonies.Worker("python", concurrency=1)

    @slow.function
    async def forever() -> None:
        await asyncio.sleep(600)

    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        instance = await colony.work(slow)
        handles = [await client.submit(forever.call()) for _ in range(3)]
        instance.stop(0.0)
        async with asyncio.timeout(20):
            while instance._tasks:
                await asyncio.sleep(0.02)
        states = [(await handle.get()).state for handle in handles]
        assert "running" not in states


async def test_a_large_output_is_not_computed_again_because_the_broker_was_away(tmp_path: Path) -> None:
    big = colonies.Worker("python", concurrency=1)
    runs: list[int] = []
    computed = asyncio.Event()

    @big.function
    async def compute() -> str:
        runs.append(1)
        computed.set()
        return "x" * 1_000_000

    async with running_colony(tmp_path, lease_s=30.0) as colony:
        client = await colony.client()
        await colony.work(big)
        handle = await client.submit(compute.call())
        await asyncio.wait_for(computed.wait(), 30)
        await colony.kill_broker()
        await colony.restart_broker()
        assert len(await handle.result(90)) == 1_000_000
        assert runs == [1]


async def test_a_failing_process_says_what_failed_not_that_its_worker_did(colony: MemoryClient) -> None:
    handle = await colony.submit({"func": "unavailable", "conditions": {"runtimetype": "python"}})
    with pytest.raises(ProcessFailed, match="another colony"):
        await handle.result(30)


async def test_a_coroutine_that_blocks_beyond_its_maxexectime_timed_out(colony: MemoryClient) -> None:
    spec = {"func": "block", "maxexectime": 0.1, "conditions": {"runtimetype": "python"}}
    handle = await colony.submit(spec)
    process = await handle.wait(30)
    assert [attempt.outcome for attempt in process.attempts] == ["timeout"]


def test_a_runtime_type_that_is_no_name_is_refused_where_it_is_given() -> None:
    with pytest.raises(colonies.Invalid, match="runtimetype"):
        colonies.Worker("a b")
