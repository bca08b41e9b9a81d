"""Facts about real processes, waited for and never guessed: nothing here sleeps for a fixed time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from colonies.reaper import Reaper

LIMIT_S = 30.0


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if os.path.exists("/proc/self/stat"):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False
    listing = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], stdout=subprocess.PIPE, text=True, check=False
    )
    return listing.stdout.strip()[:1] not in ("", "Z")


def wait_until(fact: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not fact():
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}"
        time.sleep(0.01)


async def until(fact: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not fact():
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}"
        await asyncio.sleep(0.01)


def read_pids(folder: Path, *names: str) -> list[int]:
    """The numbers that commands wrote to files; empty until all of them are there."""
    texts = [(folder / name).read_text() if (folder / name).exists() else "" for name in names]
    return [int(text) for text in texts] if all(text.endswith("\n") for text in texts) else []


@pytest.fixture
def facts() -> SimpleNamespace:
    return SimpleNamespace(is_alive=is_alive, wait_until=wait_until, until=until, read_pids=read_pids)


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    async with Reaper() as reaper:
        yield reaper


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python program that can import what the tests can; killed at the end of the test."""
    started = []

    def start(text: str, **options: object) -> subprocess.Popen[str]:
        script = tmp_path / f"program{len(started)}.py"
        script.write_text(text)
        program = subprocess.Popen(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()
        program.wait()
        program.stdout.close()
