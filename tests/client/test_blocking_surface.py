"""Blocking and not, the client has one surface: whatever the one can do, the other can."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies.blocking import BlockingClient
from colonies.blocking_handles import BlockingCronHandle, BlockingHandle, BlockingWorkflowHandle
from colonies.client import Client, Handle
from colonies.crons import CronHandle
from colonies.flows import WorkflowHandle
from colonies.memory_colony import BlockingMemoryClient, MemoryClient
from tests.harness import running_colony

PAIRS: list[tuple[type, type]] = [
    (Client, BlockingClient),
    (MemoryClient, BlockingMemoryClient),
    (Handle, BlockingHandle),
    (WorkflowHandle, BlockingWorkflowHandle),
    (CronHandle, BlockingCronHandle),
]
INSIDE = {"prepare", "declare", "record_submission"}  # what other modules of the library call, on the loop
OPENING = {"open", "run"}  # what starts a blocking client, and runs its coroutines

worker = colonies.Worker("python")


@worker.function
def total(numbers: list[int]) -> int:
    return sum(numbers)


def surface(of: type) -> dict[str, Any]:
    return {
        name: found
        for name, found in inspect.getmembers(of)
        if not name.startswith("_") and (callable(found) or isinstance(found, property))
    }


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any, Any]]:
    """Names, kinds, defaults and types; a type says nothing of which of the two it belongs to."""
    given = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default, str(p.annotation).replace("building.", "")) for p in given]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_the_blocking_client_and_the_other_have_the_same_names_and_parameters(
    pair: tuple[type, type],
) -> None:
    other, blocking = (surface(each) for each in pair)
    assert set(blocking) - OPENING == set(other) - OPENING - INSIDE
    for name in set(other) - INSIDE - {"open"}:
        if not isinstance(other[name], property):
            assert parameters(blocking[name]) == parameters(other[name]), name


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_nothing_blocking_gives_out_what_must_be_awaited(pair: tuple[type, type]) -> None:
    others = {each.__name__ for each, _ in PAIRS}
    for name, found in surface(pair[1]).items():
        if not isinstance(found, property) and name not in OPENING:
            assert not inspect.iscoroutinefunction(found), name
            given = inspect.signature(found).return_annotation
            assert not {word for word in others if str(given).partition("[")[0] == word}, name
            assert "Async" not in str(given), name


async def test_crons_generators_and_pausing_without_asyncio(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as running:
        await running.work(worker)
        creds = await running.credential("boss", "owner")

        def use() -> None:
            with colonies.connect(url=running.url, creds=creds) as colony:
                crons(colony)
                generators(colony)
                pausing(colony)
                workflows(colony)

        await asyncio.to_thread(use)


def crons(colony: BlockingClient) -> None:
    cron = colony.add_cron("yearly", {**total.call([1, 2]).spec.wire(), "name": "t"}, cron="0 0 1 1 *")
    assert (cron.get().state, len(cron.get().due)) == ("active", 5)
    assert [now.name for now in colony.crons()] == ["yearly"]
    assert colony.cron("yearly").run().result(timeout_s=20) == {"t": 3}
    cron.pause("holidays")
    assert cron.get().state == "paused"
    cron.resume()
    assert isinstance(cron.runs(3), list)
    cron.remove()
    with pytest.raises(colonies.NotFound):
        cron.get()


def generators(colony: BlockingClient) -> None:
    spec = {**total.call([]).spec.wire(), "args": [{"$packed": ""}]}
    assert colony.add_generator("sum", spec, trigger=2, timeout_s=600).waiting == 0
    colony.pack("sum", 1, 2, 3)
    assert [now.name for now in colony.generators()] == ["sum"]
    assert (colony.generator("sum").waiting, colony.waiting_arguments("sum")) == (1, [3])
    (run,) = colony.generator_runs("sum", 5)
    assert (run.first, run.count) == (0, 2)
    deadline = time.monotonic() + 30
    while colony.generator_runs("sum")[0].state == "due":
        assert time.monotonic() < deadline, "never submitted"
    assert colony.workflow(run.workflow).result(timeout_s=20) == {"sum": 3}
    colony.remove_generator("sum", "done")
    assert colony.generators() == []


def pausing(colony: BlockingClient) -> None:
    process = colony.submit(total.call([1]))
    assert colony.output(colony.wait(process.id)) == 1
    queue = next(iter(colony._client.session.colony.queues))
    assert colony.pause_queue(queue, "why") == queue
    with pytest.raises(colonies.Conflict):
        colony.pause_queue(queue)
    assert colony.resume_queue(queue) == queue
    assert colony.pause_colony("stop").by == "boss"
    held = colony.submit(total.call([2]))
    colony.resume_colony()
    assert held.result(20) == 2
    name = next(m.name for m in colony._client.session.colony.members.values() if m.role == "worker")
    colony.drain_worker(name, "disks")
    waits = colony.submit(total.call([3]))
    assert colony.signal(waits.id, "word").id == waits.id
    assert colony.cancel(waits.id).state == "cancelled"
    assert [seen.record.event.type for seen in colony.events(waits.id) if seen.record][-1] == (
        "process.cancelled"
    )
    colony.resume_worker(name)


def workflows(colony: BlockingClient) -> None:
    workflow = colonies.Workflow("again")
    number = workflow.parameter("number", 1)
    node = workflow.add(total.call([number, 1]))
    handle = colony.submit(workflow)
    assert handle.result(node, timeout_s=20) == 2
    again = handle.rerun(parameters={"number": 5})
    assert again.result(timeout_s=20) == {"total": 6}
    assert again.story().workflow is not None
