"""How far spans were taken by whoever they are exported to: one row of a small SQLite file.

It is written after they were taken. So a service that is killed tells again what it had just told, with the
same ids, and leaves nothing out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
import structlog

from colonies.errors import Unavailable
from colonies.ledger import Ledger, Stored
from colonies_projections.position import Position, Unusable

_TABLE = """
CREATE TABLE IF NOT EXISTS exported (
    colony TEXT PRIMARY KEY, sequence INTEGER NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID
"""

_log = structlog.get_logger("colonies.traces")


class Exported:
    """The open file of one colony."""

    def __init__(self, file: aiosqlite.Connection, ledger: Ledger) -> None:
        self._file = file
        self._ledger = ledger

    async def begin(self) -> int:
        """The sequence behind which to go on: the ledger's last if nothing was exported from here yet, its
        beginning if it is another ledger than it was."""
        query = "SELECT sequence, digest FROM exported WHERE colony = ?"
        async with self._file.execute(query, (self._ledger.colony,)) as rows:
            row = await rows.fetchone()
        if row is None:
            return await self._begin_now()
        ours = Position(int(row[0]), bytes(row[1]))
        try:
            await ours.confirm(self._ledger)
        except Unusable as reason:
            _log.warning("told from the beginning of the ledger", was_at=ours.sequence, reason=str(reason))
            await self._put(Position())
            return 0
        return ours.sequence

    async def done(self, last: Stored) -> None:
        """All spans up to this event were taken."""
        await self._put(Position.of(last))

    async def _begin_now(self) -> int:
        last = await self._ledger.last_sequence()
        ours = Position.of(await self._ledger.at(last)) if last else Position()
        await self._put(ours)
        return ours.sequence

    async def _put(self, ours: Position) -> None:
        row = (self._ledger.colony, ours.sequence, ours.digest)
        await self._file.execute("INSERT OR REPLACE INTO exported VALUES (?, ?, ?)", row)
        await self._file.commit()


@asynccontextmanager
async def exported(path: Path, ledger: Ledger) -> AsyncIterator[Exported]:
    """The file at `path`, made if need be. Raises Unavailable: it cannot be used; says what to do."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with aiosqlite.connect(path) as file:
            await file.execute("PRAGMA journal_mode = WAL")
            await file.execute("PRAGMA synchronous = NORMAL")
            await file.execute(_TABLE)
            await file.commit()
            yield Exported(file, ledger)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            f"{path} cannot be used: {error}; if it is damaged, remove it: spans are told from then on"
        ) from None
