"""A worker as a program of its own, to be killed, stopped and woken by tests.

    python tests/worker_program.py URL CREDENTIAL [CONCURRENCY]

Prints `ready` when it takes offers. Its functions leave marks in files, so that tests see what really ran.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import structlog

import colonies
from colonies.connection import open_session
from colonies.instance import Instance

worker = colonies.Worker("python", concurrency=int(sys.argv[3]) if len(sys.argv) > 3 else 4, backoff_s=0.2)


@worker.function
def mark(folder: str, name: str, pause_s: float = 0.0) -> str:
    """Leave one line per run in a file, then take its time."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(pause_s)
    return name


@worker.function
def wait_for(folder: str, name: str) -> int:
    """Say that it runs, then run until a file appears; returns the number of its attempt."""
    attempt = colonies.current().n
    (Path(folder) / f"{name}.{attempt}.running").write_text(str(os.getpid()))
    while not (Path(folder) / name).exists():
        time.sleep(0.02)
    return attempt


@worker.function
async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@worker.function
def fail_until(attempt: int) -> int:
    """Raises in every attempt before this one."""
    now = colonies.current().n
    if now < attempt:
        raise ValueError(f"attempt {now} is too early")
    return now


@worker.function
def give_up() -> None:
    raise colonies.Fail("there is no such picture")


@worker.function
def later(times: int) -> int:
    if colonies.current().n <= times:
        raise colonies.Later(0.1, "not yet")
    return colonies.current().n


def _noted(folder: str) -> str:
    """Leave the attempt's id in its process's file, before anything else is done; returns it."""
    now = colonies.current()
    with (Path(folder) / now.process).open("a") as file:
        file.write(f"{now.id}\n")
    return now.id


@worker.function
def note(folder: str, pause_s: float = 0.0, given: Any = None) -> dict[str, Any]:
    """Note the attempt and take its time; gives the attempt, and what it was given itself."""
    attempt = _noted(folder)
    time.sleep(pause_s)
    return {"attempt": attempt, "inputs": colonies.current().inputs, "given": given}


@worker.function
async def note_long(folder: str, seconds: float) -> str:
    """As `note`, on the loop, where a cancel stops it."""
    attempt = _noted(folder)
    await asyncio.sleep(seconds)
    return attempt


@worker.function
def note_again(folder: str) -> dict[str, Any]:
    """As `note`, and fails in its first attempt."""
    attempt = _noted(folder)
    if colonies.current().n < 2:
        raise ValueError("attempt 1 is too early")
    return {"attempt": attempt}


@worker.function
def numbers(folder: str, count: int) -> list[int]:
    """As `note`, and gives that many numbers."""
    _noted(folder)
    return list(range(count))


@worker.function
def grow(folder: str, count: int) -> dict[str, Any]:
    """As `note`, and puts that many nodes between itself and those behind it."""
    here = colonies.current()
    for number in range(count):
        here.add(note.call(folder, 0.05), name=f"more{number}", between=True)
    return {"attempt": _noted(folder)}


@worker.function
async def hear(folder: str, name: str) -> dict[str, Any]:
    """As `note`, and waits for a signal; gives what came."""
    attempt = _noted(folder)
    word = await colonies.signal(name)
    return {"attempt": attempt, "by": word.by, "data": word.data}


@worker.function
def refuse(folder: str) -> None:
    """As `note`, and fails for good."""
    _noted(folder)
    raise colonies.Fail("not this one")


async def main() -> None:
    session = await open_session(url=sys.argv[1], creds=sys.argv[2])
    instance = Instance(worker, session)
    loop = asyncio.get_running_loop()
    import signal

    loop.add_signal_handler(signal.SIGTERM, instance.stop, 5.0)
    running = asyncio.create_task(instance.run())
    ready = asyncio.create_task(instance.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    print(f"ready {instance.id}", flush=True)
    await running
    await session.close()
    await session.ledger.close()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(main())
