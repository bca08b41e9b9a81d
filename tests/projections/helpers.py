"""Projectors for tests: started, waited for, and their tables read from outside."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import aiosqlite
from colonies_projections import Asked, Batch, Filter, Page, Projector, Snapshot, Write
from colonies_projections.past import COLUMNS, Table, tables_of
from colonies_projections.projector import VIEWS

from colonies.core.process import Process
from colonies.history import History, Judged
from colonies.jetstream import JetStreamLedger
from colonies.session import Session


class Verdicts:
    """A view of our own: every event with its verdict."""

    name: ClassVar[str] = "verdicts"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = "CREATE TABLE verdicts (sequence INTEGER PRIMARY KEY, kind TEXT, rule TEXT);"
    filters: ClassVar[Mapping[str, Filter]] = {"kind": Filter(("valid", "void", "quarantined"))}
    sorts: ClassVar[Sequence[str]] = ()

    def fold(self, batch: Batch) -> Iterable[Write]:
        rows = [_verdict(judged) for judged in batch.judged]
        yield "INSERT INTO verdicts VALUES (?, ?, ?)", rows

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        where = "".join(f" AND {name} = ?" for name in asked.filters)
        query = f"SELECT * FROM verdicts WHERE true{where} ORDER BY sequence DESC LIMIT ?"
        return Page([dict(row) for row in await at.select(query, (*asked.filters.values(), asked.limit))])


ALL = (*VIEWS, Verdicts)


def _verdict(judged: Judged) -> tuple[int, str, str]:
    return judged.stored.sequence, judged.verdict.kind, judged.verdict.rule


@contextlib.asynccontextmanager
async def projecting(session: Session, path: Path, views: Any = VIEWS) -> AsyncIterator[Projector]:
    """A projector that has caught up, until the block ends."""
    projector = Projector(session, path, views)
    task = asyncio.create_task(projector.run())
    ready = asyncio.create_task(projector.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        if task.done():
            task.result()
        assert projector.ready.is_set()
        yield projector
    finally:
        ready.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def ask(session: Session, view: str, **question: Any) -> dict[str, Any]:
    """A question over NATS, answered when the views cover all that is on the ledger by now."""
    ledger = ledger_of(session)
    question = {"at_least": await ledger.last_sequence(), **question}
    async with asyncio.timeout(30):
        while True:
            answer = await ledger.ask_service(f"query.{view}", question, wait_s=15)
            if answer.get("kind") != "behind":
                return answer


def ledger_of(session: Session) -> JetStreamLedger:
    assert isinstance(session.ledger, JetStreamLedger)
    return session.ledger


async def folded(session: Session) -> tuple[dict[str, Process], list[tuple[int, str, str]]]:
    """The whole ledger folded in one go: its processes, newest submission last, and all verdicts."""
    history = History(type(session.colony)(session.ledger.colony))
    verdicts = []
    async for batch in session.ledger.scan(0):
        verdicts += [_verdict(history.add(stored)) for stored in batch]
    return history.processes, verdicts


def tables_in(path: Path) -> list[Table]:
    """The tables of views in a file that nobody writes to."""

    async def read() -> list[Table]:
        async with aiosqlite.connect(path) as db:
            return tables_of(await db.execute_fetchall(COLUMNS))

    with ThreadPoolExecutor(1) as pool:
        tables = pool.submit(asyncio.run, read()).result()
    return [table for table in tables if table.name not in ("projector", "folded", "broken")]


def dump(path: Path, *, without: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Every row of every table; an index of text is laid out as it was written, and left out."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        named = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        tables = [name for (name,) in db.execute(named)]
        return {
            table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in sorted(tables)
            if table not in without
        }
