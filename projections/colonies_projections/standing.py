"""How a projector stands: how far its views are behind the ledger, and what their rows add up to.

    query.projections  {"at": 1234, "checksums": true}  ->  {"items": [{view, position, lag_s, ...}], ...}

Every projector answers this, not one of them for all. A checksum is the sum of a digest of each row that a
view has at a sequence; so it is the same wherever, and however often, the views were built. Building anew is
asked for on `query.rebuild`, signed (`colonies.requests`), since it costs much.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

from colonies.core.process import SECOND
from colonies.errors import Invalid, Refused, Unavailable
from colonies.requests import Requests
from colonies.show import rfc3339
from colonies_projections.past import SET_MOMENT, Table, looking_back
from colonies_projections.question import MAX_SEQUENCE, read_object, whole

if TYPE_CHECKING:
    from colonies_projections.build import Build
    from colonies_projections.projector import Projector

SUBJECT = "query.projections"
REBUILD = "query.rebuild"
MAY_REBUILD = ("owner", "observer", "service")
ROWS_AT_ONCE = 5_000
MAX_WAITING = 8  # questions: to count a large view takes seconds
BREATH_S = 0.001  # between so many rows, for the loop that shares this interpreter

_BITS = 2**128


class Standing:
    """Answers for one projector."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._requests = Requests(REBUILD)
        self._summing = asyncio.Lock()
        self._waiting = 0
        self._sums: tuple[tuple[Build, int] | None, dict[str, tuple[int, str]]] = (None, {})

    async def answer(self, data: bytes) -> dict[str, Any]:
        """How each view stands. With `checksums`, what its rows add up to, at the sequence `at`."""
        said = read_object(data)
        at = whole(said.pop("at", None), "at", 1, MAX_SEQUENCE)
        checksums = said.pop("checksums", False)
        if said or not isinstance(checksums, bool):
            raise Invalid("allowed: at (a sequence), checksums (true or false)")
        build = self._projector.build
        if build is None:
            raise Unavailable("the views are being built anew; ask again in a moment")
        if at is not None and at > build.position.sequence:
            raise Invalid(f"at: {at}; the views have come to {build.position.sequence}")
        sums: dict[str, tuple[int, str]] = {}
        counted = at or build.position.sequence
        if checksums:
            sums = await self._summed(build, counted)
        items = [*await self._items(build, counted, sums), *await self._logs(counted, checksums)]
        return {"items": items, "position": build.position.sequence}

    async def rebuild(self, data: bytes) -> dict[str, Any]:
        """Begin to build anew beside the views that answer."""
        session = self._projector.session
        said = read_object(data)
        request = self._requests.read(session.colony, said.get("request"), await session.ledger.now())
        if request.role not in MAY_REBUILD:
            raise Refused(
                f"{request.author} is a {request.role}; views are rebuilt by {', '.join(MAY_REBUILD)}"
            )
        if request.data.get("projector") not in (None, session.name):
            return {"items": []}
        self._projector.rebuild()
        return {"items": [{"projector": session.name, "state": "rebuilding"}]}

    async def _items(
        self, build: Build, counted: int, sums: dict[str, tuple[int, str]]
    ) -> list[dict[str, Any]]:
        projector = self._projector
        position, now = build.position, await projector.ledger.now()
        last = await projector.ledger.last_sequence()
        behind = max(0, last - position.sequence)
        beside = projector.beside
        common = {
            "projector": projector.session.name,
            "position": position.sequence,
            "last": last,
            "lag_events": behind,
            "lag_s": round(max(0, now - position.time) / SECOND, 3) if behind else 0.0,
            "at_time": rfc3339(position.time) if position.time else None,
            "state": "ready" if beside is None else "rebuilding",
            "rebuilt": None if beside is None else beside.position.sequence,
        }
        return [
            {
                "view": view.name,
                "version": view.version,
                **common,
                **_broken(build, view.name),
                "rows": sums[view.name][0] if sums else None,
                "checksum": sums[view.name][1] if sums else None,
                "counted_at": counted if sums else None,
            }
            for view in build.views
        ]

    async def _logs(self, counted: int, checksums: bool) -> list[dict[str, Any]]:
        """How the view of logs stands. Its sequences are those of LOGS (`stream`)."""
        logs = self._projector.logs
        if not checksums or not counted:
            return await logs.standing(None)
        async with self._turn():
            return await logs.standing(counted)

    async def _summed(self, build: Build, at: int) -> dict[str, tuple[int, str]]:
        async with self._turn():
            if self._sums[0] != (build, at):
                names = [view.name for view in build.views]
                counting = asyncio.to_thread(checksums, build.store.path, build.store.tables, names, at)
                with while_counting():
                    self._sums = (build, at), await counting
            return self._sums[1]

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One counts at a time, and few wait for it. Raises Unavailable."""
        if self._waiting >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} wait for checksums already; ask again in a moment")
        self._waiting += 1
        try:
            async with self._summing:
                yield
        finally:
            self._waiting -= 1


def _broken(build: Build, view: str) -> dict[str, Any]:
    """What is wrong with a view of another package, if it is left out."""
    if view not in build.store.broken:
        return {"error": None}
    sequence, error = build.store.broken[view]
    return {"state": "broken", "error": f"left out since sequence {sequence}: {error}"}


@contextlib.contextmanager
def while_counting() -> Iterator[None]:
    """Raises Unavailable where SQLite cannot count: the file may be changing places with another."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"the rows cannot be counted now: {error}; ask again in a moment") from None


def checksums(
    path: Path, tables: Iterable[Table], views: Iterable[str], at: int
) -> dict[str, tuple[int, str]]:
    """Of each view the number of rows that it has at a sequence, and what their digests add up to."""
    tables = list(tables)
    found: dict[str, tuple[int, str]] = {}
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.executescript(looking_back(tables))
        db.execute("BEGIN")
        db.execute(SET_MOMENT, (at,))
        for view in views:
            own = [table for table in tables if _is_of(table, view) and (table.changes or table.grows)]
            number, total = 0, 0
            for table in own:
                for rows in _rows(db, table.name):
                    number += len(rows)
                    for row in rows:
                        packed = msgpack.packb((table.name, row))
                        digest = hashlib.blake2b(packed, digest_size=16).digest()
                        total += int.from_bytes(digest, "big")
                    time.sleep(BREATH_S)
            found[view] = number, f"{total % _BITS:032x}"
    return found


def _rows(db: sqlite3.Connection, table: str) -> Iterable[list[tuple[Any, ...]]]:
    cursor = db.execute(f"SELECT * FROM {table}")
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        yield rows


def _is_of(table: Table, view: str) -> bool:
    return table.name == view or table.name.startswith(f"{view}_")
