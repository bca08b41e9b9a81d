"""One part of a measurement in an operating system process of its own.

    python -m tests.benchmarks.actor '{"part": "worker", "url": ..., "creds": ..., ...}'

It prints `ready`, works until its stdin ends (so that it never outlives whoever started it), and exits. With
`profile` it leaves a cProfile there.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog
from colonies_projections.projector import Projector

from colonies import Worker, current, jetstream
from colonies.creds import Credential
from colonies.instance import Instance
from colonies.orchestrator import Orchestrator
from colonies.session import Session
from tests.benchmarks import bare
from tests.benchmarks.marks import WORKER, Marks
from tests.benchmarks.meter import Meter

STOP_S = 5.0

Part = Callable[[dict[str, Any], asyncio.Event], Coroutine[Any, Any, None]]


def work_functions(runtimetype: str, concurrency: int | None) -> Worker:
    """The worker of all benchmarks. `hold` lasts for ever, but ends at once when it is run again."""
    worker = Worker(runtimetype, concurrency=concurrency)

    @worker.function
    async def noop() -> None:
        pass

    @worker.function
    async def hold() -> int:
        if current().n == 1:
            await asyncio.sleep(3_600)
        return current().n

    return worker


async def _session(given: dict[str, Any]) -> Session:
    credential = Credential.read(Path(given["creds"]))
    ledger = await jetstream.connect(given["url"], credential)
    return await Session(ledger, credential.name, credential.keypair).open()


async def _worker(given: dict[str, Any], ready: asyncio.Event) -> None:
    session = await _session(given)
    instance = Instance(work_functions(given["runtimetype"], given.get("concurrency")), session)
    instance.ready = ready
    task = asyncio.create_task(instance.run())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        instance.stop(0.0)
        await task
    finally:
        await session.close()
        await session.ledger.close()


async def _orchestrator(given: dict[str, Any], ready: asyncio.Event) -> None:
    session = await _session(given)
    ledger = session.ledger
    assert isinstance(ledger, jetstream.JetStreamLedger)
    orchestrator = Orchestrator(session, ledger.machinery())
    orchestrator.ready = ready
    try:
        await orchestrator.run()
    finally:
        await session.close()
        await ledger.close()


async def _bare(given: dict[str, Any], ready: asyncio.Event) -> None:
    client = await bare.connect(given["url"], Credential.read(Path(given["creds"])))
    ready.set()
    try:
        await bare.work(client)
    finally:
        await client.close()


async def _projector(given: dict[str, Any], ready: asyncio.Event) -> None:
    session = await _session(given)
    projector = Projector(session, Path(given["creds"]).with_suffix(".sqlite"))
    projector.ready = ready
    try:
        await projector.run()
    finally:
        await session.close()
        await session.ledger.close()


_PARTS: dict[str, Part] = {
    "worker": _worker,
    "orchestrator": _orchestrator,
    "projector": _projector,
    "bare": _bare,
}


async def _act(given: dict[str, Any]) -> None:
    with contextlib.ExitStack() as stack:
        if "meter" in given:
            stack.enter_context(Meter(Path(given["meter"])).installed())
        if "marks" in given:
            stack.enter_context(Marks(WORKER).kept(Path(given["marks"])))
        await _play(given)


async def _play(given: dict[str, Any]) -> None:
    ready = asyncio.Event()
    stdin_ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    part = asyncio.create_task(_PARTS[given["part"]](given, ready))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({part, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not part.done():
        print("ready", flush=True)
        await asyncio.wait({part, asyncio.ensure_future(stdin_ended)}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if part.done():
        part.result()
    part.cancel()
    await asyncio.wait({part}, timeout=STOP_S)
    if not part.done():
        os._exit(1)  # nobody is left who would end it


def quiet_logs() -> None:
    """Warnings and worse to stderr, as the command does."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def run(work: Coroutine[Any, Any, None], profile: str | None = None) -> None:
    """On uvloop where there is one."""
    try:
        from uvloop import run as run_loop
    except ImportError:
        run_loop = asyncio.run  # type: ignore[assignment]
    if profile is None:
        run_loop(work)
        return
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        run_loop(work)
    finally:
        profiler.disable()
        profiler.dump_stats(profile)


if __name__ == "__main__":
    quiet_logs()
    given = json.loads(sys.argv[1])
    run(_act(given), given.get("profile"))
