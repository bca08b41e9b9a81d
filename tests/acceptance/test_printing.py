"""What a Python function prints is in its process's log, in order, and still on the worker's terminal."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import logging
import os
import re
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies.attempt import MAX_BUFFER_CHARS
from colonies.calls import Call
from colonies.hearing import Heard
from colonies.logs import LogEntry, read_logs
from colonies.memory_colony import MemoryClient

TOGETHER = 4
PROGRAM = """
import asyncio, logging, sys, warnings, colonies
from colonies.logs import read_logs

worker = colonies.Worker("printing", concurrency=1)

@worker.function
def warm() -> None:
    logging.info("warmer")
    logging.getLogger("heat").debug("no news")
    warnings.warn("too hot")

async def main() -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        logging.getLogger("beside").error("of no process")
        handle = await colony.submit(warm.call())
        await handle.result(30)
        for entry in await read_logs(colony.session, handle.id):
            print(entry.stream, entry.text.splitlines()[0])

asyncio.run(main())
"""
ODD = """
import asyncio, logging, os, colonies

worker = colonies.Worker("printing", concurrency=1)

@worker.function
def odd() -> int:
    logging.warning("%d is no number", "seven")
    child = os.fork()
    if child == 0:
        logging.warning("of a child")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def main() -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        print(await (await colony.submit(odd.call())).result(30))

asyncio.run(main())
"""
worker = colonies.Worker("printing", concurrency=TOGETHER, backoff_s=0.05)
_met = threading.Barrier(TOGETHER)
_gate = threading.Event()


@worker.function
def everything() -> None:
    print("first")
    colonies.current().log("second")
    logging.getLogger("training").warning("third, loss is %s", 0.5)
    print("fourth", file=sys.stderr)
    sys.stdout.write("six")
    sys.stdout.writelines(["th\n", "seventh"])


@worker.function
async def everything_on_the_loop() -> None:
    print("first")
    await asyncio.sleep(0)
    colonies.current().log("second")
    await asyncio.to_thread(print, "third")


@worker.function
def side_by_side(name: str) -> None:
    for n in range(50):
        _met.wait(20)
        print(name, n)


@worker.function
async def side_by_side_on_the_loop(name: str) -> None:
    for n in range(50):
        print(name, n)
        await asyncio.sleep(0)


@worker.function
def flood(lines: int) -> None:
    for n in range(lines):
        print(f"{n:07} {'x' * 92}")


@worker.function
def at_once(chars: int) -> None:
    print("y" * chars)


@worker.function(maxexectime=0.2)
def outlives() -> None:
    print("before")
    _gate.wait(30)
    print("after")
    _gone.set()


_gone = threading.Event()


@worker.function
def redirected() -> str:
    with contextlib.redirect_stdout(io.StringIO()) as own:
        print("mine")
    print("everybody's")
    return own.getvalue()


class Tee:
    """What people put before a stream, and leave there."""

    def __init__(self, under: Any) -> None:
        self.under = under

    def write(self, text: str) -> int:
        written: int = self.under.write(text)
        return written

    def flush(self) -> None:
        self.under.flush()


@worker.function
def leaves_a_tee() -> None:
    sys.stdout = Tee(sys.stdout)  # type: ignore[assignment]
    print("through the tee")


@worker.function
def printed_while_writing() -> None:
    attempt = colonies.current()
    with attempt._lock:  # where a finalizer or a signal's handler may come in
        print("in between")
    print("begun")


@worker.function
def forks() -> int:
    print("parent")
    child = os.fork()
    if child == 0:
        try:
            assert not isinstance(sys.stdout, Heard)
            print("child")
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@worker.function
def own_threads() -> None:
    context = contextvars.copy_context()
    for thread in (
        threading.Thread(target=print, args=("nobody's",)),
        threading.Thread(target=context.run, args=(print, "mine")),
    ):
        thread.start()
        thread.join()


@worker.function
def bytes_to_stdout() -> None:
    sys.stdout.write(b"raw")  # type: ignore[arg-type]


@dataclass(eq=False)
class Terminal(io.TextIOBase):
    """A terminal of ASCII letters that can be hung up."""

    said: list[str] = field(default_factory=list)
    gone: bool = False
    encoding: str = "ascii"

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(5, "Input/output error")
        text.encode(self.encoding)
        self.said.append(text)
        return len(text)


@pytest.fixture
async def colony() -> AsyncIterator[MemoryClient]:
    async with colonies.memory() as colony:
        await colony.work(worker)
        yield colony


async def log_of(colony: MemoryClient, id: str) -> list[LogEntry]:
    return await read_logs(colony.session, id)


async def said(colony: MemoryClient, call: Call[Any]) -> tuple[object, str]:
    """What the function gave, and its log as one text."""
    handle = await colony.submit(call)
    result = await handle.result(30)
    return result, "".join(entry.text for entry in await log_of(colony, handle.id))


def hang(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(sys, "stdout", terminal)
    return terminal


async def test_what_a_function_in_a_thread_says_is_in_its_log_in_order(colony: MemoryClient) -> None:
    handle = await colony.submit(everything.call())
    await handle.result(30)
    entries = await log_of(colony, handle.id)
    lines = "".join(entry.text for entry in entries).splitlines()
    assert lines[:4] == ["first", "second", "third, loss is 0.5", "fourth"]
    assert lines[4:] == ["sixth", "seventh"]
    streams = [(entry.stream, entry.text.split()[0]) for entry in entries if entry.text.strip()]
    assert streams[:3] == [("stdout", "first"), ("log", "second"), ("stderr", "fourth")]


async def test_what_a_function_on_the_loop_says_is_in_its_log_in_order(colony: MemoryClient) -> None:
    assert await said(colony, everything_on_the_loop.call()) == (None, "first\nsecond\nthird\n")


@pytest.mark.parametrize("function", [side_by_side, side_by_side_on_the_loop])
async def test_processes_side_by_side_have_each_their_own_lines(colony: MemoryClient, function: Any) -> None:
    names = [f"p{n}" for n in range(TOGETHER)]
    logs = await asyncio.gather(*(said(colony, function.call(name)) for name in names))
    for name, (_, text) in zip(names, logs, strict=True):
        assert text == "".join(f"{name} {n}\n" for n in range(50))


async def test_a_flood_keeps_its_order_and_what_is_left_out_is_said(colony: MemoryClient) -> None:
    _, text = await said(colony, flood.call(60_000))
    lines = [line for line in text.splitlines() if re.fullmatch(r"[0-9]{7} x{92}", line)]
    assert lines[0].startswith("0000000 ")
    assert lines == sorted(set(lines))
    left_out = sum(int(chars) for chars in re.findall(r"\[(\d+) characters of log left out\]", text))
    assert len(lines) >= 60_000 - left_out // 101 - 2 * text.count("[")


async def test_one_huge_text_is_cut_at_the_limit(colony: MemoryClient) -> None:
    _, text = await said(colony, at_once.call(MAX_BUFFER_CHARS + 1_000))
    assert text.count("y") == MAX_BUFFER_CHARS
    assert re.search(r"\[100[01] characters of log left out\]", text)


async def test_the_terminal_of_the_worker_shows_it_too(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = hang(Terminal(), monkeypatch)
    await said(colony, everything_on_the_loop.call())
    assert "".join(terminal.said) == "first\nthird\n"
    assert sys.stdout is terminal  # nothing of ours stays


async def test_a_terminal_that_is_gone_costs_the_function_nothing(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang(Terminal(gone=True), monkeypatch)
    assert await said(colony, everything_on_the_loop.call()) == (None, "first\nsecond\nthird\n")


async def test_letters_that_the_terminal_does_not_have_are_in_the_log(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = hang(Terminal(), monkeypatch)
    _, text = await said(colony, side_by_side_on_the_loop.call("gr\u00fcn"))
    assert text.startswith("gr\u00fcn 0\n")
    assert "".join(terminal.said).startswith("gr\\xfcn 0\n")


async def test_without_a_terminal_it_is_in_the_log(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert await said(colony, everything_on_the_loop.call()) == (None, "first\nsecond\nthird\n")
    assert sys.stdout is None  # as before: to print is no error then


async def test_a_stream_that_a_function_leaves_there_says_each_line_once(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = hang(Terminal(), monkeypatch)
    for _ in range(3):
        assert await said(colony, leaves_a_tee.call()) == (None, "through the tee\n")
    assert await said(colony, everything_on_the_loop.call()) == (None, "first\nsecond\nthird\n")
    assert "".join(terminal.said) == "through the tee\n" * 3 + "first\nthird\n"


async def test_what_runs_on_after_its_time_prints_into_no_log(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = hang(Terminal(), monkeypatch)
    handle = await colony.submit(outlives.call())
    process = await handle.wait(30)
    assert process.state == "failed"
    _gate.set()
    assert await asyncio.to_thread(_gone.wait, 30)
    await said(colony, everything_on_the_loop.call())
    assert "".join(entry.text for entry in await log_of(colony, handle.id)) == "before\n"
    assert "after\n" in "".join(terminal.said)


async def test_what_a_function_redirects_is_its_own(colony: MemoryClient) -> None:
    assert await said(colony, redirected.call()) == ("mine\n", "everybody's\n")


async def test_a_child_of_a_function_is_not_listened_to(colony: MemoryClient) -> None:
    assert await said(colony, forks.call()) == (0, "parent\n")


async def test_threads_of_a_function_are_heard_in_its_context(colony: MemoryClient) -> None:
    assert await said(colony, own_threads.call()) == (None, "mine\n")


async def test_what_is_no_text_is_refused_as_ever(colony: MemoryClient) -> None:
    handle = await colony.submit(bytes_to_stdout.call())
    process = await handle.wait(30)
    assert "TypeError: write() argument must be str, not bytes" in process.errors[0]


async def test_a_program_with_two_workers_says_each_line_once() -> None:
    other = colonies.Worker("other", concurrency=1)
    async with colonies.memory() as colony:
        await colony.work(worker)
        await colony.work(other)
        handle = await colony.submit(everything.call())
        await handle.result(30)
        text = "".join(entry.text for entry in await log_of(colony, handle.id))
        assert text.count("third") == 1


async def test_warnings_and_logging_of_a_program_that_set_nothing_up(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert out.decode().splitlines() == [
        "log warmer",
        f"stderr {program}:11: UserWarning: too hot",
    ], err.decode()
    assert err.decode().startswith("of no process\n")
    assert "UserWarning: too hot" in err.decode()


async def test_what_logging_cannot_say_costs_the_function_nothing_and_its_children_log_by_themselves(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(ODD)
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert out.decode() == "0\n", err.decode()
    assert err.decode().startswith("--- Logging error ---\n")
    assert "of a child\n" in err.decode()


async def test_what_prints_while_a_log_is_written_stops_nothing(colony: MemoryClient) -> None:
    assert await said(colony, printed_while_writing.call()) == (None, "in between\nbegun\n")
