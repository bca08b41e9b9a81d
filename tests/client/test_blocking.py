"""Colonies without asyncio: `with` instead of `async with`, the same client underneath."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import colonies
from colonies.blocking import BlockingClient
from colonies.memory_colony import BlockingMemoryClient
from tests.harness import running_colony

worker = colonies.Worker("python", concurrency=4)


@worker.function
def double(n: int) -> int:
    return 2 * n


@worker.function
def fail(reason: str) -> None:
    raise colonies.Fail(reason)


NOBODY = {"func": "wait", "conditions": {"runtimetype": "none"}}


@pytest.fixture
def colony() -> Iterator[BlockingMemoryClient]:
    with colonies.memory() as colony:
        colony.work(worker)
        yield colony


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "colonies client"]


def whole_life(colony: BlockingClient) -> None:
    """All that a client can do, once."""
    process = colony.submit(double.call(21))
    assert process.result(10) == 42
    assert (process.get().state, process.wait(5).state) == ("successful", "successful")
    assert colony.process(process.id).result(5) == 42
    assert colony.submit(double.call(21), key="k").id == colony.submit(double.call(21), key="k").id

    assert [p.result(10) for p in colony.submit_many(double.call(n) for n in range(20))] == [
        2 * n for n in range(20)
    ]

    types = [seen.record.event.type for seen in process.events() if seen.record is not None]
    assert types == ["process.queued", "process.assigned", "process.completed"]

    waiting = colony.submit(NOBODY)
    assert waiting.cancel("not needed").state == "cancelled"
    with pytest.raises(colonies.ProcessCancelled, match="not needed"):
        waiting.result(5)
    with pytest.raises(colonies.Conflict, match="cancelled already"):
        waiting.cancel()


def test_a_client_does_all_without_asyncio(colony: BlockingMemoryClient) -> None:
    assert (colony.name, colony.colony) == ("tester", "memory")
    whole_life(colony)


async def test_it_does_the_same_with_a_real_colony(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as running:
        await running.work(worker)
        creds = await running.credential("ann", "user")

        def use() -> None:
            with colonies.connect(url=running.url, creds=creds) as colony:
                assert (colony.name, colony.colony) == ("ann", "test")
                whole_life(colony)

        await asyncio.to_thread(use)
    assert client_threads() == []


def test_errors_are_raised_where_the_call_was_made(colony: BlockingMemoryClient) -> None:
    with pytest.raises(colonies.ProcessFailed, match="no way"):
        colony.submit(fail.call("no way")).result(5)
    with pytest.raises(colonies.Invalid, match="runtimetype"):
        colony.submit({"func": "x"})
    with pytest.raises(colonies.NotFound):
        colony.process("01ARZ3NDEKTSV4RRFFQ69G5FAV").get()
    with pytest.raises(colonies.Refused, match="tester has the role user"):
        colony.work(worker, "tester")
    with pytest.raises(TimeoutError):
        colony.submit(NOBODY).result(0.05)

    assert colony.submit(double.call(1)).result(5) == 2


def test_who_cannot_log_in_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    missing = tmp_path / "nobody.creds"

    with (
        pytest.raises(colonies.NotFound, match=r"nobody\.creds"),
        colonies.connect(url="nats://127.0.0.1:1", creds=missing),
    ):
        pass

    assert client_threads() == []


def test_many_threads_may_use_one_client(colony: BlockingMemoryClient) -> None:
    results: list[int] = []

    def use(n: int) -> None:
        results.append(colony.submit(double.call(n)).result(10))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(results) == [2 * n for n in range(8)]


def test_events_may_be_left_in_the_middle(colony: BlockingMemoryClient) -> None:
    process = colony.submit(NOBODY)

    for seen in process.events():
        assert seen.record is not None
        assert seen.record.event.type == "process.queued"
        break

    process.cancel()
    assert [s.record.event.type for s in process.events() if s.record] == [
        "process.queued",
        "process.cancelled",
    ]


def press_ctrl_c_soon() -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_ctrl_c_ends_the_wait_and_leaves_the_client_as_it_was(colony: BlockingMemoryClient) -> None:
    process = colony.submit(NOBODY)
    press_ctrl_c_soon()

    with pytest.raises(KeyboardInterrupt):
        process.result(30)

    assert colony.submit(double.call(2)).result(5) == 4
    assert process.get().state == "waiting"


def test_ctrl_c_out_of_the_block_closes_everything() -> None:
    def use() -> None:
        with colonies.memory() as colony:
            colony.work(worker)
            press_ctrl_c_soon()
            colony.submit(NOBODY).result(30)

    with pytest.raises(KeyboardInterrupt):
        use()

    assert client_threads() == []


def test_a_closed_client_says_so() -> None:
    with colonies.memory() as colony:
        process = colony.submit(NOBODY)
        events = process.events()
        next(events)

    assert client_threads() == []
    colony.close()
    for use in (
        lambda: colony.submit(double.call(1)),
        lambda: colony.submit_many([double.call(1)]),
        process.get,
        process.result,
        process.cancel,
        lambda: next(events),
        lambda: colony.work(worker),
    ):
        with pytest.raises(colonies.ColoniesError, match="this client is closed"):
            use()


async def test_inside_a_running_loop_it_works_but_that_loop_stands_still() -> None:
    """Nothing deadlocks, for the client has a loop and a thread of its own; but take `async with` there."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    with colonies.memory() as colony:
        colony.work(worker)
        assert colony.submit(double.call(21)).result(5) == 42
        with pytest.raises(TimeoutError):
            colony.submit(NOBODY).result(0.2)
    assert ticks == 0
    await asyncio.sleep(0.05)
    assert ticks > 0
    ticking.cancel()


SCRIPT = """
import colonies

worker = colonies.Worker("python")

@worker.function
def double(n: int) -> int:
    return 2 * n

with colonies.memory() as colony:
    colony.work(worker)
    process = colony.submit(double.call(21))
    print(process.result())
"""


def test_a_plain_script_runs_through_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)

    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "42" in done.stdout.splitlines()
    assert time.monotonic() - started < 30
