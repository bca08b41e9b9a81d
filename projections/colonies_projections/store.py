"""The SQLite file of a projector: the views' rows, the folded state behind them, and how far they are.

All three change in one transaction, so a projector killed at any point goes on exactly where its rows end.
Everything here can be rebuilt from the ledger. That is why WAL with `synchronous = NORMAL` is enough: after
a power cut the last commits may be missing, but all of each, and they are folded again. And that is why a
file that is broken, of another version or of another colony is not mended: `Unusable` says why, and the
projector begins anew. It never reads the ledger and never judges an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import msgpack
import structlog
from pydantic import TypeAdapter

from colonies.core.colony import Colony
from colonies.errors import Unavailable
from colonies_projections.installed import said
from colonies_projections.past import COLUMNS, SET_MOMENT, Table, looking_back, tables_of
from colonies_projections.position import Position, Unusable
from colonies_projections.view import Row, View, Write

# Raise it when what the fold stores, or what the views get to see, changes its meaning.
VERSION = 4
BUSY_S = 5.0

_TABLES = """
CREATE TABLE projector (
    schema TEXT NOT NULL, colony TEXT NOT NULL, position INTEGER NOT NULL, digest BLOB NOT NULL,
    time INTEGER NOT NULL, folded BLOB NOT NULL
);
CREATE TABLE folded (
    kind TEXT NOT NULL, id TEXT NOT NULL, entity BLOB NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE broken (view TEXT PRIMARY KEY, sequence INTEGER NOT NULL, error TEXT NOT NULL) WITHOUT ROWID;
"""
# No such table (1), a row that cannot be there already (19), and what a damaged file brings about.
_BROKEN = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_NOTADB,
}
_GONE = ("no such table", "vtable constructor failed")
_log = structlog.get_logger("colonies.projector")
_T = TypeVar("_T")
_COLONY: TypeAdapter[Colony] = TypeAdapter(Colony)

Kept = tuple[str, str, bytes]
"""A kind of entity, the id of one, and what is kept of it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file at `path` for one projector. Raises Unavailable if another has it.

    The lock is SQLite's own on an empty file beside it: it works on every system and ends with its holder,
    however that ends.
    """
    lock = sqlite3.connect(f"{path}.lock", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            raise Unavailable(
                f"another projector works on {path}; stop it, or give this one another file"
            ) from None
        yield
    finally:
        lock.close()


def discard(path: Path) -> None:
    """Remove the file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


class Store:
    """An open file. `position` and `colony` are those of the last commit, `tables` those of the views.

    `broken` are views of other packages that failed, each with the last sequence of the batch and the error.
    """

    def __init__(self, path: Path, writer: aiosqlite.Connection, stack: AsyncExitStack) -> None:
        self.path = path
        self.position = Position()
        self.colony: Colony
        self.tables: list[Table] = []
        self.broken: dict[str, tuple[int, str]] = {}
        self._writer = writer
        self._now: _Reader
        self._then: _Reader
        self._stack = stack

    @classmethod
    async def open(cls, path: Path, colony: str, views: Sequence[View]) -> Store:
        """Open the file, or make it.

        Raises Unusable, and OSError or sqlite3.Error if it cannot be read or written at all.
        """
        uri = await asyncio.to_thread(_prepared, path)
        async with AsyncExitStack() as stack:
            with broken_is_unusable():
                writer = await stack.enter_async_context(
                    aiosqlite.connect(path, timeout=BUSY_S, isolation_level=None)
                )
                await writer.execute("PRAGMA journal_mode = WAL")
                await writer.execute("PRAGMA synchronous = NORMAL")
                if not await writer.execute_fetchall("SELECT 1 FROM sqlite_master LIMIT 1"):
                    await _make(writer, colony, views)
                store = cls(path, writer, stack)
                await store._restore(colony, views)
                columns = await writer.execute_fetchall(COLUMNS)
                store.tables = [table for table in tables_of(columns) if table.name not in _OWN]
                store._now, store._then = [
                    _Reader(
                        await stack.enter_async_context(
                            aiosqlite.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
                        ),
                        store.tables,
                    )
                    for _ in range(2)
                ]
            store._stack = stack.pop_all()
        return store

    async def close(self) -> None:
        await self._stack.aclose()

    async def _restore(self, colony: str, views: Sequence[View]) -> None:
        rows = await self._writer.execute_fetchall("SELECT * FROM projector")
        for schema, of, sequence, digest, time, folded in rows:
            if schema != schema_of(views):
                raise Unusable("it was made by another version, or with other views")
            if of != colony:
                raise Unusable("it is of another colony")
            self.position = Position(sequence, digest, time)
            self.colony = _unpacked(_COLONY, folded)
            failed = await self._writer.execute_fetchall("SELECT view, sequence, error FROM broken")
            self.broken = {view: (at, error) for view, at, error in failed}
            return
        raise Unusable("it is not finished")

    async def recall(self, kind: str, ids: Collection[str] | None) -> list[tuple[str, bytes]]:
        """What is kept of those of these entities that there ever were; without ids, of all of the kind."""
        query, parameters = "SELECT id, entity FROM folded WHERE kind = ?", [kind]
        if ids is not None:
            query += " AND id IN (SELECT value FROM json_each(?))"
            parameters.append(json.dumps(sorted(ids)))
        with broken_is_unusable():
            rows = await self._writer.execute_fetchall(query, parameters)
            return [(row[0], row[1]) for row in rows]

    async def commit(
        self,
        position: Position,
        folded: Sequence[Kept],
        colony: Colony | None,
        writes: Iterable[Write],
        guests: Iterable[tuple[str, Folding]] = (),
    ) -> None:
        """All that a batch changed, or nothing. `colony` is None if it did not change.

        `guests` are views of other packages with what gives their writes: one that fails is left out alone.

        Raises sqlite3.OperationalError if it cannot be written; then only closing is left.
        """
        with broken_is_unusable():
            db = self._writer
            await db.execute("BEGIN IMMEDIATE")
            if folded:
                await db.executemany(
                    "INSERT OR REPLACE INTO folded (kind, id, entity) VALUES (?, ?, ?)", folded
                )
            for statement, rows in writes:
                if rows:
                    await db.executemany(statement, rows)
            for view, folding in guests:
                await self._write_guest(view, folding, position.sequence)
            if colony is not None:
                await db.execute("UPDATE projector SET folded = ?", (_packed_colony(colony),))
            await db.execute(
                "UPDATE projector SET position = ?, digest = ?, time = ?",
                (position.sequence, position.digest, position.time),
            )
            await db.execute("COMMIT")
        self.position = position

    async def _write_guest(self, view: str, folding: Folding, sequence: int) -> None:
        db = self._writer
        await db.execute("SAVEPOINT guest")
        try:
            for statement, rows in folding():
                if rows:
                    await db.executemany(statement, rows)
        except Exception as error:
            if isinstance(error, sqlite3.OperationalError) and _code(error) not in _BROKEN:
                raise
            await db.execute("ROLLBACK TO guest")
            await db.execute("INSERT INTO broken VALUES (?, ?, ?)", (view, sequence, said(error)))
            self.broken[view] = sequence, said(error)
            _log.error("a view is left out", view=view, sequence=sequence, exc_info=error)
        await db.execute("RELEASE guest")

    @contextlib.asynccontextmanager
    async def snapshot(self, at: int | None = None) -> AsyncIterator[tuple[int, Select]]:
        """Within this, the function it gives selects from the views as of one position, which it gives too:
        the last, or the earlier one that is asked for."""
        reader = self._now if at is None else self._then
        async with reader.begin(at) as position:
            yield position, reader.select


Select = Callable[[str, Sequence[Any]], Awaitable[list[Row]]]
Folding = Callable[[], Iterable[Write]]
_OWN = ("projector", "folded", "broken")


class _Reader:
    """A connection that only reads, for one question at a time."""

    def __init__(self, db: aiosqlite.Connection, tables: Sequence[Table]) -> None:
        db.row_factory = aiosqlite.Row
        self._db = db
        self._tables = tables
        self._looks_back = False
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def begin(self, at: int | None) -> AsyncIterator[int]:
        async with self._lock:
            with asking():
                if at is not None and not self._looks_back:
                    await self._db.executescript(looking_back(self._tables))
                    self._looks_back = True
                await self._db.execute("BEGIN")
                try:
                    if at is not None:
                        await self._db.execute(SET_MOMENT, (at,))
                    rows = await self.select("SELECT position FROM projector", ())
                    yield int(rows[0]["position"]) if at is None else at
                finally:
                    await self._db.execute("ROLLBACK")

    async def select(self, query: str, parameters: Sequence[Any]) -> list[Row]:
        rows = await self._db.execute_fetchall(query, parameters)
        return [dict(row) for row in rows]


def _prepared(path: Path) -> str:
    """The file's address. The file is there, and for its owner only: arguments may be private."""
    path.touch(mode=0o600)
    return path.absolute().as_uri()


async def _make(db: aiosqlite.Connection, colony: str, views: Sequence[View]) -> None:
    tables = "".join(view.tables for view in views)
    script = f"{_TABLES} {tables}"
    with contextlib.closing(sqlite3.connect(":memory:")) as scratch:  # what tables are these?
        scratch.executescript(script)
        found = tables_of(scratch.execute(COLUMNS).fetchall())
    keeping = "; ".join(statement for table in found for statement in table.keeping())
    await db.executescript(f"BEGIN; {script} {keeping};")
    await db.execute(
        "INSERT INTO projector VALUES (?, ?, 0, ?, 0, ?)",
        (schema_of(views), colony, b"", _packed_colony(Colony(colony))),
    )
    await db.execute("COMMIT")


def schema_of(views: Sequence[View]) -> str:
    """A digest of all that decides how rows come about. Another release may judge by other rules."""
    said = [
        VERSION,
        version("colonies"),
        _TABLES,
        *([view.name, view.version, view.tables] for view in views),
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@contextlib.contextmanager
def broken_is_unusable() -> Iterator[None]:
    """What SQLite says of a broken file, as Unusable; a full disk and the like pass through."""
    try:
        yield
    except sqlite3.Error as error:
        if _code(error) not in _BROKEN:
            raise
        raise Unusable(f"it is broken: {error}") from None


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """As `broken_is_unusable`; but a question that SQLite cannot put says nothing of the file, and whoever
    asks it must not have all built anew."""
    try:
        yield
    except sqlite3.Error as error:
        code, said = getattr(error, "sqlite_errorcode", 0), str(error)
        if code == sqlite3.SQLITE_ERROR and not said.startswith(_GONE):
            raise
        with broken_is_unusable():
            raise


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _unpacked(adapter: TypeAdapter[_T], packed: bytes) -> _T:
    try:
        return adapter.validate_python(msgpack.unpackb(packed))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Unusable(f"it is broken: what it holds of the fold makes no sense: {error}") from None


def _packed_colony(colony: Colony) -> bytes:
    packed: bytes = msgpack.packb(_COLONY.dump_python(colony))
    return packed
