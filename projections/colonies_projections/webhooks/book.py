"""What is still to be delivered, in an SQLite file: the position in the ledger, and every delivery to make.

Both change in one transaction, so a service that is killed at any point skips no event. A delivery leaves the
file when it was made; what was under way when the service died is made again, under the same id. An event's
bytes are not kept here but read from the ledger, and no secret is: only how it stands there, sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import aiosqlite
import msgpack

from colonies.core.webhooks import Webhook
from colonies.errors import NotFound
from colonies_projections.position import Position, Unusable

VERSION: Final = 1
BUSY_S: Final = 5.0
MAX_PENDING: Final = 1_000_000  # deliveries of one webhook; what comes beyond is a dead letter at once
MAX_DEAD: Final = 100_000  # dead letters of one webhook; the oldest go
NAMED: Final = 5  # that are asked for and are not there

_TABLES = """
CREATE TABLE service (
    version INTEGER NOT NULL, colony TEXT NOT NULL, position INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE webhook (name TEXT PRIMARY KEY, said BLOB NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE delivery (
    webhook TEXT NOT NULL, sequence INTEGER NOT NULL, type TEXT NOT NULL, tries INTEGER NOT NULL,
    due INTEGER NOT NULL, dead INTEGER, error TEXT, PRIMARY KEY (webhook, sequence)
) WITHOUT ROWID;
CREATE INDEX first ON delivery (webhook, sequence) WHERE dead IS NULL AND tries = 0;
CREATE INDEX again ON delivery (webhook, due) WHERE dead IS NULL AND tries > 0;
CREATE INDEX dead ON delivery (webhook, sequence) WHERE dead IS NOT NULL;
"""
# No such table (1), and what a damaged file brings about; a full disk and the like are something else.
_BROKEN = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. Times are in ns; `dead`: when it became a dead letter."""

    webhook: str
    sequence: int
    type: str
    tries: int = 0
    due: int = 0
    dead: int | None = None
    error: str | None = None


@dataclass(slots=True)
class State:
    """How it goes with a webhook; what of it lasts. Times are in ns.

    `gone`: since when the receiver wants nothing any more. `held_until`: it asked not to be sent to before.
    `dropped` counts dead letters that were too many.
    """

    delivered: int = 0
    delivered_at: int | None = None
    failing_since: int | None = None
    error: str | None = None
    gone: int | None = None
    held_until: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Entry:
    """A webhook of this service, with its state, and how many deliveries are to be made."""

    said: Webhook
    state: State = field(default_factory=State)
    pending: int = 0


@dataclass(slots=True)
class Changes:
    """What a stretch of the ledger brings: webhooks that are so from then on, by name (None: it is removed,
    or another's), and deliveries, in order."""

    webhooks: dict[str, Webhook | None] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)


class Book:
    """An open file. Use `open`, then `close`. `entries` are its webhooks, by name."""

    def __init__(self, db: aiosqlite.Connection, stack: AsyncExitStack) -> None:
        self._db = db
        self._stack = stack
        self._writing = asyncio.Lock()
        self.position: Position | None = None
        self.taken = asyncio.Event()  # set, and another in its place, when the ledger brought something
        self.entries: dict[str, Entry] = {}

    @classmethod
    async def open(cls, path: Path, colony: str) -> Book:
        """Open the file, or make it. Raises Unusable: it is broken, or of another colony or version."""
        await asyncio.to_thread(path.touch, 0o600)
        async with AsyncExitStack() as stack:
            try:
                db = await stack.enter_async_context(
                    aiosqlite.connect(path, timeout=BUSY_S, isolation_level=None)
                )
                await db.execute("PRAGMA journal_mode = WAL")
                await db.execute("PRAGMA synchronous = NORMAL")
                if not await db.execute_fetchall("SELECT 1 FROM sqlite_master LIMIT 1"):
                    await db.executescript(f"BEGIN; {_TABLES} COMMIT;")
                book = cls(db, stack)
                await book._restore(colony)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BROKEN:
                    raise
                raise Unusable(f"it is broken: {error}") from None
            except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as error:
                raise Unusable(f"it is broken: what it holds makes no sense: {error}") from None
            book._stack = stack.pop_all()
        return book

    async def close(self) -> None:
        await self._stack.aclose()

    async def _restore(self, colony: str) -> None:
        for version, of, sequence, digest in await self._db.execute_fetchall("SELECT * FROM service"):
            if version != VERSION:
                raise Unusable("it was made by another version")
            if of != colony:
                raise Unusable("it is of another colony")
            self.position = Position(sequence, digest) if sequence else None
            break
        else:
            await self._db.execute("INSERT INTO service VALUES (?, ?, 0, ?)", (VERSION, colony, b""))
        for name, said, state in await self._db.execute_fetchall("SELECT name, said, state FROM webhook"):
            fields = msgpack.unpackb(said)
            webhook = Webhook(**{**fields, "events": tuple(fields["events"])})
            pending = await self._count("dead IS NULL", name)
            self.entries[name] = Entry(webhook, State(**json.loads(state)), pending)

    # --- from the ledger -----------------------------------------------------------------------------

    async def take(self, position: Position, changes: Changes, at: int) -> None:
        """Keep what the ledger brought up to this position: all of it or nothing."""
        async with self._transaction() as db:
            await db.execute(
                "UPDATE service SET position = ?, digest = ?", (position.sequence, position.digest)
            )
            for name, said in changes.webhooks.items():
                await self._say(db, name, said)
            by_name: dict[str, list[Delivery]] = {}
            for delivery in changes.deliveries:
                entry = self.entries.get(delivery.webhook)
                if entry is not None and entry.said.added < delivery.sequence:
                    by_name.setdefault(delivery.webhook, []).append(delivery)
            for name, deliveries in by_name.items():
                await self._add(db, self.entries[name], deliveries, at)
        self.position = position
        taken, self.taken = self.taken, asyncio.Event()
        taken.set()

    async def _say(self, db: aiosqlite.Connection, name: str, said: Webhook | None) -> None:
        before = self.entries.pop(name, None)
        if said is None or (before is not None and before.said.added != said.added):
            await db.execute("DELETE FROM webhook WHERE name = ?", (name,))
            await db.execute("DELETE FROM delivery WHERE webhook = ?", (name,))
            before = None
        if said is not None:
            # What was wrong with the address, or with the key, is so no more.
            state = replace(before.state, gone=None, held_until=0) if before is not None else State()
            self.entries[name] = Entry(said, state, before.pending if before is not None else 0)
            await self._keep(db, name)

    async def _add(
        self, db: aiosqlite.Connection, entry: Entry, deliveries: Sequence[Delivery], at: int
    ) -> None:
        room = max(0, MAX_PENDING - entry.pending)
        entry.pending += len(deliveries[:room])
        await db.executemany(
            "INSERT OR IGNORE INTO delivery VALUES (?, ?, ?, 0, 0, NULL, NULL)",
            [(d.webhook, d.sequence, d.type) for d in deliveries[:room]],
        )
        for late in deliveries[room:]:
            error = f"{MAX_PENDING} deliveries were waiting already"
            await self._bury(db, replace(late, dead=at, error=error))

    # --- what is next --------------------------------------------------------------------------------

    async def firsts(self, name: str, after: int, most: int) -> list[Delivery]:
        """The next deliveries that were never tried, of events after a sequence, in order."""
        return await self._deliveries(
            "WHERE webhook = ? AND dead IS NULL AND tries = 0 AND sequence > ? ORDER BY sequence LIMIT ?",
            (name, after, most),
        )

    async def retries(self, name: str, most: int) -> list[Delivery]:
        """The deliveries that are to be tried again, those that are due first first."""
        return await self._deliveries(
            "WHERE webhook = ? AND dead IS NULL AND tries > 0 ORDER BY due, sequence LIMIT ?", (name, most)
        )

    async def dead(self, name: str, most: int) -> list[Delivery]:
        """The dead letters, those of the latest events first."""
        return await self._deliveries(
            "WHERE webhook = ? AND dead IS NOT NULL ORDER BY sequence DESC LIMIT ?", (name, most)
        )

    async def counts(self, name: str) -> tuple[int, int]:
        """How many deliveries are to be made, and how many are dead letters."""
        return await self._count("dead IS NULL", name), await self._count("dead IS NOT NULL", name)

    async def _deliveries(self, where: str, parameters: tuple[Any, ...]) -> list[Delivery]:
        query = f"SELECT webhook, sequence, type, tries, due, dead, error FROM delivery {where}"
        return [Delivery(*row) for row in await self._db.execute_fetchall(query, parameters)]

    async def _count(self, which: str, name: str) -> int:
        query = f"SELECT count(*) FROM delivery WHERE webhook = ? AND {which}"
        for row in await self._db.execute_fetchall(query, (name,)):
            return int(row[0])
        return 0

    # --- what became of it ---------------------------------------------------------------------------

    async def delivered(self, done: Delivery, at: int) -> None:
        """The receiver has it."""
        async with self._transaction() as db:
            if not await self._remove(db, done):
                return
            state = self.entries[done.webhook].state
            state.delivered, state.delivered_at = state.delivered + 1, at
            state.failing_since, state.error, state.held_until = None, None, 0
            await self._keep(db, done.webhook)

    async def failed(
        self, tried: Delivery, error: str, at: int, due: int | None, held_until: int = 0
    ) -> None:
        """It is tried again when it is `due`; without that it is a dead letter."""
        async with self._transaction() as db:
            if due is None:
                there = await self._remove(db, tried)
            else:
                found = await db.execute(
                    "UPDATE delivery SET tries = ?, due = ?, error = ? "
                    "WHERE webhook = ? AND sequence = ? AND dead IS NULL",
                    (tried.tries + 1, due, error, tried.webhook, tried.sequence),
                )
                there = found.rowcount > 0
            if not there:  # the webhook was removed meanwhile
                return
            if due is None:
                await self._bury(db, replace(tried, tries=tried.tries + 1, dead=at, error=error))
            state = self.entries[tried.webhook].state
            state.failing_since, state.error = state.failing_since or at, error
            state.held_until = max(state.held_until, held_until)
            await self._keep(db, tried.webhook)

    async def gone(self, name: str, at: int) -> None:
        """The receiver wants nothing any more: what was to be delivered is dead letters."""
        async with self._transaction() as db:
            entry = self.entries.get(name)
            if entry is None:
                return
            entry.state.gone, entry.state.failing_since = at, entry.state.failing_since or at
            entry.state.error, entry.pending = "answered 410", 0
            await db.execute(
                "UPDATE delivery SET dead = ?, error = coalesce(error, ?) WHERE webhook = ? AND dead IS NULL",
                (at, "answered 410", name),
            )
            await self._shorten(db, name)
            await self._keep(db, name)

    async def rerun(self, name: str, sequences: Collection[int] | None, at: int) -> int:
        """Let dead letters be delivered again, all or these; how many. A receiver that had gone is back.

        Raises NotFound: some of these are none; then nothing is changed.
        """
        async with self._transaction() as db:
            entry = self.entries.get(name)
            if entry is None:
                return 0
            query = (
                "UPDATE delivery SET dead = NULL, tries = 1, due = ? WHERE webhook = ? AND dead IS NOT NULL"
            )
            parameters: list[Any] = [at, name]
            if sequences is not None:
                query += " AND sequence IN (SELECT value FROM json_each(?))"
                parameters.append(json.dumps(sorted(sequences)))
            again = {row[0] for row in await db.execute_fetchall(f"{query} RETURNING sequence", parameters)}
            if missing := sorted(set(sequences or ()) - again):
                named = ", ".join(map(str, missing[:NAMED])) + (" ..." if missing[NAMED:] else "")
                raise NotFound(f"webhook {name} has no dead letter {named}; nothing is sent again")
            entry.pending += len(again)
            entry.state.gone, entry.state.held_until = None, 0
            await self._keep(db, name)
        return len(again)

    async def _remove(self, db: aiosqlite.Connection, done: Delivery) -> bool:
        """Was it there?"""
        query = "DELETE FROM delivery WHERE webhook = ? AND sequence = ? AND dead IS NULL"
        there = (await db.execute(query, (done.webhook, done.sequence))).rowcount > 0
        if there:
            self.entries[done.webhook].pending -= 1
        return there

    async def _bury(self, db: aiosqlite.Connection, letter: Delivery) -> None:
        row = (letter.webhook, letter.sequence, letter.type, letter.tries, 0, letter.dead, letter.error)
        await db.execute("INSERT OR REPLACE INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        await self._shorten(db, letter.webhook)

    async def _shorten(self, db: aiosqlite.Connection, name: str) -> None:
        """Let the oldest dead letters go where there are too many."""
        found = await db.execute(
            "DELETE FROM delivery WHERE webhook = ? AND dead IS NOT NULL AND sequence <= (SELECT sequence "
            "FROM delivery WHERE webhook = ? AND dead IS NOT NULL ORDER BY sequence DESC LIMIT 1 OFFSET ?)",
            (name, name, MAX_DEAD),
        )
        self.entries[name].state.dropped += found.rowcount

    async def _keep(self, db: aiosqlite.Connection, name: str) -> None:
        entry = self.entries[name]
        row = (name, msgpack.packb(asdict(entry.said)), json.dumps(asdict(entry.state)))
        await db.execute("INSERT OR REPLACE INTO webhook VALUES (?, ?, ?)", row)

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Everything in this block, or nothing. One at a time: there is one connection."""
        async with self._writing:
            await self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                await self._db.execute("ROLLBACK")
                raise
            await self._db.execute("COMMIT")
