"""Workflows in the views: what everybody else makes of the ledger, however it is cut, and wherever one is
killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import Projector
from colonies_projections import projector as projector_module
from colonies_projections.build import Build

from colonies import jetstream
from colonies.history import History
from colonies.ledger import Stored
from colonies.show import process_object, rfc3339
from tests.harness import RunningColony, until
from tests.projections.flows import all_ways, node, told, untrue, whole, worker
from tests.projections.helpers import ALL, ask, dump, folded, projecting
from tests.projections.test_projector import PROGRAM, position

KILLS = 8
ROWS = "SELECT id, state, nodes, done, failed FROM workflows ORDER BY id"
NODES = """
SELECT workflow, label, process, state FROM workflows_nodes WHERE state IS NOT NULL ORDER BY workflow, label
"""


class Forgetful(Build):
    """Forgets after each batch all that a restart would, and holds its rows against a fold that forgets
    nothing."""

    compared = 0
    truth: History

    async def take_in(self, batch: list[Stored]) -> None:
        await super().take_in(batch)
        await self.remember()
        if self.compared == 0:
            type(self).truth = whole(self.ledger.colony)
        for stored in batch:
            self.truth.add(stored)
        with contextlib.closing(sqlite3.connect(self.store.path)) as db:
            ours = db.execute(ROWS).fetchall(), db.execute(NODES).fetchall()
        assert ours == told(self.truth), f"after {batch[-1].sequence}"
        type(self).compared += 1


async def run_through(projector: Projector) -> None:
    task = asyncio.create_task(projector.run())
    ready = asyncio.create_task(projector.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.timeout(240)
async def test_all_ways_a_workflow_can_go_are_told_at_every_event(
    colony: RunningColony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    live = tmp_path / "live.sqlite"
    async with projecting(session, live, ALL):
        handles = await all_ways(colony, client)
        await untrue(colony, client)
        answer = await ask(client.session, "workflows")
        processes = await ask(client.session, "processes", limit=1_000)
    fold, verdicts = await folded(client.session)
    kinds = [kind for _, kind, _ in verdicts]
    assert kinds.count("void") == 2
    assert kinds.count("quarantined") == 3
    for handle in handles:
        now = await handle.get()
        [item] = [item for item in answer["items"] if item["id"] == handle.id]
        assert (item["state"], item["nodes"]) == (now.state, len(now.nodes))
        assert item["done"] == sum(n.process is not None and n.process.final for n in now.nodes)
        assert item["failed"] == sum(n.state == "failed" for n in now.nodes)
        assert item["submitter"] == "ann"
        source = now.workflow.source
        assert item["source"] == (f"{source.kind} {source.name}" if source is not None else None)
        mine = {n.id: fold[n.id] for n in now.nodes if n.id in fold}
        ends = [process.time for process in mine.values() if process.final]
        assert item["ended_at"] == (rfc3339(max(ends)) if now.final else None)
        seen = {item["id"]: item for item in processes["items"] if item["id"] in mine}
        assert seen == {id: process_object(process) for id, process in mine.items()}
    for size in (1, 7, 10_000):
        monkeypatch.setattr(jetstream, "READ_BATCH", size)
        path = tmp_path / f"{size}.sqlite"
        monkeypatch.setattr(Forgetful, "compared", 0)
        with monkeypatch.context() as patched:
            patched.setattr(projector_module, "Build", Forgetful)
            await run_through(Projector(session, path, ALL))
        assert dump(path)["verdicts"] == verdicts
        assert Forgetful.compared >= len(verdicts) // size
        async with projecting(session, live, ALL):
            await ask(client.session, "workflows")
        assert dump(path) == dump(live)


@pytest.mark.timeout(240)
async def test_killed_at_any_point_it_goes_on_with_the_same_verdicts(
    colony: RunningColony, tmp_path: Path
) -> None:
    chance = random.Random(11)
    client = await colony.client()
    killed, rebuilt = tmp_path / "killed.sqlite", tmp_path / "rebuilt.sqlite"
    credential = await colony.credential("viewer", "observer")
    life = asyncio.create_task(all_ways(colony, client))
    number = 0
    while number < KILLS or not life.done():
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", str(PROGRAM), colony.url, str(credential), str(killed)),
            stdout=asyncio.subprocess.PIPE,
        )
        last = position(killed)
        if not life.done():
            await until(lambda last=last: position(killed) > last or life.done(), "the projector goes on")
        await asyncio.sleep(chance.uniform(0, 0.4))
        program.kill()
        said, _ = await program.communicate()
        assert b"built anew" not in said
        number += 1
    await life
    await untrue(colony, client)
    session = await colony.session("viewer", "observer")
    for path in (killed, rebuilt, killed):
        async with projecting(session, path, ALL):
            await ask(client.session, "workflows")
    assert dump(killed) == dump(rebuilt)
    assert dump(killed)["verdicts"] == (await folded(client.session))[1]


async def test_filters_limit_and_order(colony: RunningColony, tmp_path: Path) -> None:
    ann, bob = await colony.client("ann"), await colony.client("bob")
    await colony.work(worker(), "w1")
    nowhere = node("a", "one", runtimetype="nowhere")
    handles = [
        await ann.submit_workflow({"name": "train", "label": "red", "nodes": [node("a", "one")]}),
        await bob.submit_workflow({"name": "train", "nodes": [nowhere]}),
        await ann.submit_workflow({"name": "test", "label": "red", "nodes": [node("a", "boom")]}),
    ]
    await handles[0].wait(30)
    await handles[2].wait(30)
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):

        async def found(view: str = "workflows", **question: Any) -> Any:
            answer = await ask(ann.session, view, **question)
            return [item["workflow" if view == "processes" else "id"] for item in answer["items"]]

        ids = [handle.id for handle in handles]
        assert await found() == ids[::-1]
        assert await found(limit=1) == ids[2:]
        assert await found(state="running") == [ids[1]]
        assert await found(state="failed", label="red") == [ids[2]]
        assert await found(name="train") == [ids[1], ids[0]]
        assert await found(submitter="ann", name="train") == [ids[0]]
        assert await found("processes", workflow=ids[1]) == [ids[1]]
        assert await found("processes", workflow="nothing") == []
        refused = await ask(ann.session, "workflows", state="blocked")
    assert refused["error"] == (
        "state: 'blocked' is not one; allowed: running, successful, failed, cancelled"
    )
