"""Signals among real processes: who may send them, when they count, and whoever is dead when they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from colonies.client import Client
from colonies.core.process import SECOND
from colonies.core.workflow import node_id
from colonies.errors import Conflict, Invalid, NotFound, Refused
from colonies.flows import WorkflowHandle
from colonies.jetstream import JetStreamLedger
from colonies.looking import WorkflowNow
from colonies.verify import verify_ledger
from tests.chaos import Victim, service
from tests.cli.conftest import Cli
from tests.harness import RunningColony, WorkerProcess, running_colony, until

LIMIT_S = 60.0
SOON_S = 60.0
PYTHON = {"runtimetype": "python"}


@dataclass
class Field:
    """A colony with a worker of its own process, and an orchestrator to be killed. `marks`: see `note`."""

    colony: RunningColony
    client: Client
    orchestrator: Victim
    worker: WorkerProcess
    marks: Path

    def node(
        self, name: str, func: str, *args: object, after: tuple[str, ...] = (), **more: Any
    ) -> dict[str, Any]:
        conditions = {**PYTHON, "dependencies": list(after)}
        return {
            "name": name,
            "func": func,
            "args": [str(self.marks), *args],
            "conditions": conditions,
            **more,
        }

    async def asks(self, timeout_s: float | None = None, *after: str) -> WorkflowHandle:
        """A workflow with a node that waits for `go`, one behind it, and one that runs last."""
        wait = {
            "name": "word",
            "wait_signal": {"name": "go", "timeout": timeout_s},
            "dependencies": list(after),
        }
        nodes = [
            *(self.node(name, "note", 2.0) for name in after),
            wait,
            self.node("then", "note", after=("word",)),
            self.node("last", "note", **{"finally": True}),
        ]
        return await self.client.submit_workflow(nodes)

    async def over(self, seconds: float) -> None:
        """Wait until so much time has passed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(0.05)


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Field]:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        orchestrator = Victim(lambda: service(colony, "orchestrator", "service"))
        colony.stack.push_async_callback(orchestrator.kill)
        await orchestrator.start()
        worker = await colony.spawn("w1")
        marks = tmp_path / "marks"
        marks.mkdir()
        client = await colony.client()
        yield Field(colony, client, orchestrator, worker, marks)
        assert isinstance(client.ledger, JetStreamLedger)
        assert (await verify_ledger(client.ledger)).findings == []


def states(now: WorkflowNow) -> dict[str, str]:
    return {node.label: node.state for node in now.nodes}


async def becomes(handle: WorkflowHandle, label: str, state: str) -> WorkflowNow:
    async with asyncio.timeout(LIMIT_S):
        while states(now := await handle.get())[label] != state:
            await asyncio.sleep(0.05)
    return now


async def events(field: Field, handle: WorkflowHandle, label: str) -> dict[str, int]:
    """The valid events of a node by type, with their ledger times (ns)."""
    story = await field.client.session.story(node_id(handle.id, label))
    return {seen.record.event.type: seen.stored.time for seen in story.judged if seen.record is not None}


# --- when it counts ---------------------------------------------------------------------------------


async def test_a_wait_that_is_over_while_no_orchestrator_runs_fails_when_one_does(field: Field) -> None:
    handle = await field.asks(2)
    await becomes(handle, "word", "waiting")
    await field.orchestrator.kill()
    await field.over(3)
    assert states(await handle.get()) == {"word": "waiting", "then": "blocked", "last": "blocked"}
    back = await field.client.ledger.now()
    await field.orchestrator.start()

    now = await handle.wait(LIMIT_S)

    assert states(now) == {"word": "failed", "then": "cancelled", "last": "successful"}
    assert now.nodes[0].process is not None
    assert now.nodes[0].process.errors == ["the signal go did not come within 2 s"]
    found = await events(field, handle, "word")
    assert found["process.awaited"] + 2 * SECOND < back < found["process.expired"] < back + SOON_S * SECOND


async def test_a_signal_that_came_in_time_counts_though_no_orchestrator_ran_until_the_time_was_over(
    field: Field,
) -> None:
    handle = await field.asks(2)
    await becomes(handle, "word", "waiting")
    await field.orchestrator.kill()
    await handle.signal("go", {"budget": 5})
    await field.over(3)
    assert states(await handle.get())["word"] == "waiting"
    await field.orchestrator.start()

    now = await handle.wait(LIMIT_S)

    assert states(now) == {"word": "successful", "then": "successful", "last": "successful"}
    assert await handle.result() == {"then": await output(field, handle, "then")}
    assert (await output(field, handle, "then"))["inputs"] == {"word": {"by": "ann", "data": {"budget": 5}}}


async def output(field: Field, handle: WorkflowHandle, label: str) -> Any:
    await becomes(handle, label, "successful")
    return await field.client.process(node_id(handle.id, label)).result(LIMIT_S)


@pytest.mark.parametrize("dead", [False, True])
async def test_a_signal_that_comes_before_its_node_is_reached_is_not_lost(field: Field, dead: bool) -> None:
    handle = await field.asks(1, "before")
    if dead:
        await field.orchestrator.kill()
    await handle.signal("go", 1)
    await handle.signal("other", 2)
    await handle.signal("go", 3)
    if dead:
        await field.orchestrator.start()

    now = await handle.wait(LIMIT_S)

    assert set(states(now).values()) == {"successful"}
    assert await output(field, handle, "word") == {"by": "ann", "data": 1}
    found = await events(field, handle, "word")
    assert found["process.received"] - found["process.awaited"] < SOON_S * SECOND


async def test_a_signal_is_on_the_ledger_whatever_becomes_of_the_broker_and_of_who_waits(
    field: Field,
) -> None:
    """The worker is killed while its function waits; the broker dies; then comes the word."""
    process = await field.client.submit({**field.node("x", "hear", "go"), "name": None})
    mark = field.marks / process.id
    await until(lambda: mark.exists() and mark.read_text(), "the function waits")
    await field.worker.end()
    await field.colony.spawn("w2")
    await field.colony.kill_broker()
    await field.colony.restart_broker()
    await process.signal("go", "yes")

    result = await process.result(LIMIT_S)

    assert (result["by"], result["data"]) == ("ann", "yes")
    assert [attempt.outcome for attempt in (await process.get()).attempts] == ["lost", "successful"]


# --- who may, and what makes no sense ---------------------------------------------------------------


@pytest.mark.parametrize(("name", "role"), [("eve", "observer"), ("wim", "worker"), ("sam", "service")])
async def test_who_may_not_send_signals_is_told_so(field: Field, name: str, role: str) -> None:
    handle = await field.asks(None)
    process = await field.client.submit({**field.node("x", "hear", "go"), "name": None})
    stranger = await field.colony.client(name, role)
    before = await events(field, handle, "word"), (await handle.story()).guard
    for of in (stranger.workflow(handle.id), stranger.process(process.id)):
        with pytest.raises(Refused, match=f"the role {role} sends no signals"):
            await of.signal("go", "mine")
    credential = await field.colony.credential(name, role)
    cli = Cli(field.marks, {"COLONIES_URL": field.colony.url, "COLONIES_CREDS": str(credential)})
    for noun, id in (("workflow", handle.id), ("process", process.id)):
        done = await asyncio.to_thread(cli, noun, "signal", id, "go")
        assert (done.code, done.out) == (4, "")
        assert done.err == f"colonies: {noun} {id}: the role {role} sends no signals\n"
    assert (await handle.get()).workflow.signals == ()
    assert (await process.get()).signals == ()
    assert (await handle.story()).guard == before[1]
    await handle.signal("go", "ours")
    await process.signal("go", "ours")
    assert (await output(field, handle, "word"))["data"] == "ours"
    assert (await process.result(LIMIT_S))["data"] == "ours"


async def test_a_signal_to_what_has_ended_or_was_never_there_is_refused(field: Field) -> None:
    ended: dict[str, str] = {}
    for state, func in (("successful", "note"), ("failed", "refuse")):
        process = await field.client.submit({**field.node("x", func), "name": None})
        assert (await process.wait(LIMIT_S)).state == state
        ended[process.id] = state
    called_off = await field.client.submit({**field.node("x", "hear", "go"), "name": None})
    await called_off.cancel()
    ended[called_off.id] = "cancelled"
    credential = await field.colony.credential("bob", "user")
    cli = Cli(field.marks, {"COLONIES_URL": field.colony.url, "COLONIES_CREDS": str(credential)})
    for id, state in ended.items():
        guard = (await field.client.session.story(id)).guard
        with pytest.raises(Conflict, match=f"process {id}: the process is {state} already"):
            await field.client.signal(id, "go")
        done = await asyncio.to_thread(cli, "process", "signal", id, "go")
        assert (done.code, done.out) == (1, "")
        assert done.err == f"colonies: process {id}: the process is {state} already\n"
        assert (await field.client.session.story(id)).guard == guard
    for of in (
        field.client.process("01JZY8NOSUCHPROCESS0000000"),
        field.client.workflow("01JZY8NOSUCHW0RKF10W000000"),
    ):
        with pytest.raises(NotFound, match="there is no "):
            await of.signal("go")
    for name, data, says in (("a b", 1, "'a b' is not allowed"), ("go", "x" * 140_000, "at most 131072")):
        with pytest.raises(Invalid, match=says):
            await field.client.signal(called_off.id, name, data)
