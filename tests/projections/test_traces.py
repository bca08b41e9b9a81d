"""The ledger told as spans, exported to a real receiver: real broker, real workers, real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import traces as exporting
from colonies_projections.traces.exporter import Exporter

import colonies
from colonies.core import trace as traces
from tests.harness import RunningColony, running_colony, until
from tests.receiver import Received, Receiver, receiving

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PYTHON = {"runtimetype": "python"}
LIMIT_S = 60.0
SECRET = "an-argument-or-output-of-somebody"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv(exporting.ENDPOINT, receiver.endpoint)
        yield receiver
    assert SECRET.encode() not in b"".join(receiver.bodies)


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony


@pytest.fixture
def worker() -> colonies.Worker:
    worker = colonies.Worker("python", concurrency=4, backoff_s=0.2)

    @worker.function
    def echo(said: Any = None) -> Any:
        return said

    @worker.function
    def second_time(said: str) -> str:
        if colonies.current().n == 1:
            raise RuntimeError("not yet\nand a second line")
        return said

    @worker.function
    def later() -> str:
        if colonies.current().n == 1:
            raise colonies.Later(0.1)
        return "now"

    @worker.function
    def broken() -> None:
        raise colonies.Fail("broken for good")

    @worker.function
    def numbers(n: int) -> list[int]:
        return list(range(n))

    @worker.function
    def adds() -> None:
        here = colonies.current()
        here.add(echo.call(here.add(echo.call(1), name="one").output), name="two")

    return worker


@asynccontextmanager
async def exporter(colony: RunningColony, name: str = "traces") -> AsyncIterator[Exporter]:
    found = Exporter(await colony.session(name, "observer"), colony.folder / f"{name}.sqlite")
    task = await colony._start(found.run(), found.ready, cancel=False)
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def received(receiver: Receiver, fact: Callable[[], Any], what: str) -> Any:
    """As `Receiver.until`, beside a colony that goes on."""
    return await asyncio.to_thread(receiver.until, fact, what)


async def spans_of(receiver: Receiver, process: str, number: int) -> list[Received]:
    await received(receiver, lambda: len(receiver.of(process)) >= number, f"{number} spans of {process}")
    found = receiver.of(process)
    assert len(found) == number, found
    return found


def span(colony: RunningColony, what: traces.SpanOf, id: str) -> str:
    return traces.span_id(colony.owner.ledger.colony, what, id)


async def test_a_process_with_a_retry_is_a_span_with_two_waits_and_two_attempts(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        spec = {"func": "second_time", "args": [SECRET], "maxretries": 1, "label": "l", "conditions": PYTHON}
        handle = await client.submit(spec)
        assert await handle.result(LIMIT_S) == SECRET
        process = await handle.get()
        wait, first, again, second, whole = await spans_of(receiver, process.id, 5)
    own = traces.own(client.ledger.colony, "process", process.id)
    assert {s.trace for s in (wait, first, again, second, whole)} == {own.trace_id}
    assert (whole.id, whole.parent) == (span(colony, "process", process.id), None)
    assert [s.id for s in (first, second)] == [span(colony, "attempt", a.id) for a in process.attempts]
    assert {s.parent for s in (wait, first, again, second)} == {whole.id}
    assert [s.name for s in (wait, first, again, second, whole)] == [
        *("wait", "attempt second_time", "wait", "attempt second_time", "second_time")
    ]
    # Each begins where the one before it ended, but for the backoff; and all of it is the ledger's own time.
    assert whole.start == wait.start == process.submitted_at
    assert wait.end == first.start == process.attempts[0].started_at
    assert first.end == process.attempts[0].ended_at
    assert first.end < again.start < again.end == second.start
    assert second.end == whole.end == process.ended_at
    [(what, when)] = first.events
    assert what == "backoff"
    assert again.start >= first.end + when["colonies.delay_s"] * 1e9
    assert first.error is not None
    assert first.error.startswith("RuntimeError: not yet")
    assert "second line" not in first.error
    assert [s.error for s in (wait, second, whole)] == [None] * 3
    assert whole.attributes == {
        "colonies.process.id": process.id,
        "colonies.func": "second_time",
        "colonies.label": "l",
        "colonies.runtimetype": "python",
        "colonies.queue": process.queue,
        "colonies.priority": 0,
        "colonies.submitter": "ann",
        "colonies.attempts": 2,
        "colonies.outcome": "successful",
    }
    assert second.attributes["colonies.worker"] == "w1"
    assert second.attributes["colonies.n" if False else "colonies.attempt.n"] == 2
    assert whole.resource["service.name"] == "colonies"
    assert whole.resource["colonies.colony"] == "test"


async def test_an_attempt_that_loses_its_lease_is_a_span_that_went_wrong(
    colony: RunningColony, receiver: Receiver
) -> None:
    async with exporter(colony):
        client = await colony.client()
        first = await colony.spawn("w1")
        handle = await client.submit({"func": "hang", "args": [], "conditions": PYTHON})
        await until(lambda: True, "submitted")
        async with asyncio.timeout(LIMIT_S):
            while (await handle.get()).state != "running":
                await asyncio.sleep(0.02)
        await first.end()
        await colony.spawn("w2")
        async with asyncio.timeout(LIMIT_S):
            while len((await handle.get()).attempts) < 2:
                await asyncio.sleep(0.05)
        await handle.cancel("enough")
        found = await spans_of(receiver, handle.id, 4)
    wait, lost, cancelled, whole = found
    assert [s.attributes.get("colonies.outcome") for s in (wait, lost, cancelled, whole)] == [
        *(None, "lost", "cancelled", "cancelled")
    ]
    assert lost.error is not None
    assert "no sign of life from w1" in lost.error
    assert cancelled.error is None
    assert whole.attributes["colonies.cancelled_by"] == "ann"
