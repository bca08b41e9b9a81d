"""The views as they were: at every sequence what the ledger said up to there, however it was cut."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import Projector
from colonies_projections.build import Build
from colonies_projections.past import SET_MOMENT, Table, looking_back

from colonies import jetstream
from colonies.client import Client
from colonies.history import History
from colonies.session import Session
from colonies.show import process_object
from tests.harness import RunningColony
from tests.projections.flows import all_ways
from tests.projections.helpers import ALL, ask, dump, ledger_of, projecting
from tests.projections.test_views import some_life, spec


async def at_every_sequence(session: Session) -> list[tuple[int, list[dict[str, Any]]]]:
    """What a fold that reads no further says of all processes, newest first."""
    history = History(type(session.colony)(session.ledger.colony))
    told: list[tuple[int, list[dict[str, Any]]]] = []
    order: list[str] = []
    async for batch in session.ledger.scan(0):
        for stored in batch:
            seen = history.add(stored)
            id = seen.record.entity if seen.record is not None and seen.record.kind == "process" else ""
            if id in history.processes and id not in order:
                order.append(id)
            shown = [process_object(history.processes[id]) for id in reversed(order)]
            told.append((stored.sequence, shown))
    return told


@pytest.mark.timeout(240)
async def test_processes_are_at_every_sequence_what_the_ledger_had_told_by_then(
    colony: RunningColony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    await some_life(colony, client)
    told = await at_every_sequence(client.session)
    for size in (1, 7, 10_000):
        monkeypatch.setattr(jetstream, "READ_BATCH", size)
        async with projecting(session, tmp_path / f"{size}.sqlite"):
            for sequence, shown in told:
                answer = await ask(client.session, "processes", at=sequence)
                assert answer == {"items": shown, "position": sequence}
                waiting = await ask(client.session, "processes", at=sequence, state="waiting")
                assert waiting["items"] == [item for item in shown if item["state"] == "waiting"]


@pytest.mark.timeout(240)
async def test_every_table_is_at_every_sequence_what_it_is_where_nobody_has_seen_more(
    colony: RunningColony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    live, young = tmp_path / "live.sqlite", tmp_path / "young.sqlite"
    await all_ways(colony, client)
    await pauses(colony)
    async with projecting(session, live, ALL) as projector:
        assert projector.build is not None
        tables = [table for table in projector.build.store.tables if table.changes or table.grows]
    assert {table.name for table in tables} > {"processes", "processes_values", "queues", "workflows_nodes"}
    monkeypatch.setattr(jetstream, "READ_BATCH", 1)
    build = await Build.open(session.ledger, young, [make() for make in ALL])
    compared = 0
    with contextlib.closing(sqlite3.connect(live)) as then, contextlib.closing(sqlite3.connect(young)) as now:
        then.executescript(looking_back(tables))
        async for batch in session.ledger.scan(0):
            await build.take_in(batch)
            then.execute(SET_MOMENT, (batch[-1].sequence,))
            for table in tables:
                query = f"SELECT * FROM {table.name} ORDER BY 1, 2"
                assert then.execute(query).fetchall() == now.execute(query).fetchall(), (table, batch)
            compared += 1
            if batch[-1].sequence == build.position.sequence == projector_end(projector):
                break
    await build.close()
    assert compared > 100


def projector_end(projector: Projector) -> int:
    return dump(projector.path)["projector"][0][2]  # type: ignore[no-any-return]


async def pauses(colony: RunningColony) -> None:
    """Everything that the owner can bring to a halt, halted and let go on."""
    owner = Client(colony.owner)
    queue = next(iter(colony.owner.colony.queues))
    for again in range(2):
        await owner.pause_colony(f"holidays {again}")
        await owner.pause_queue(queue)
        await owner.drain_worker("w1", "repairs")
        await owner.resume_colony()
        await owner.resume_queue(queue)
        await owner.resume_worker("w1")


async def test_a_row_with_a_past_is_never_deleted(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), path := tmp_path / "views.sqlite"):
        await client.submit(spec("x"))
        await ask(client.session, "processes")
    with contextlib.closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("DELETE FROM processes")


async def test_nobody_is_told_the_future(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        last = await ledger_of(client.session).last_sequence()
        answer = await ask(client.session, "processes", at=last + 10)
        assert answer["error"] == f"there is no event {last + 10} yet: the ledger ends at {last}"


async def test_a_question_waits_until_the_views_are_as_far_as_it_asks_for(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    ledger = ledger_of(client.session)
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        for _ in range(20):
            handle = await client.submit(spec("x"))
            last = await ledger.last_sequence()
            answer = await ledger.ask_service("query.processes", {"limit": 1, "at_least": last}, wait_s=30)
            assert [item["id"] for item in answer["items"]] == [handle.id]
            assert answer["position"] >= last


def test_a_table_says_how_its_past_is_kept() -> None:
    assert Table("a", ("sequence", "x"), ("sequence",)).grows
    assert Table("a", ("id", "since"), ("id",)).changes
    assert not Table("a", ("sequence", "x"), ("sequence",)).keeping()
