"""An imported ledger: an export as something that everything which reads a ledger can read, offline.

It has the colony's own key and the sequences and times of the broker, so all verdicts are what they were, and
nothing in it was signed or stored anew. It is a file (SQLite) that no broker serves and that nobody can write
to: it is the past. Whoever reads it judges it, as always. What it costs: the events, unpacked, on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from colonies import subjects
from colonies.core.events import Role
from colonies.errors import Invalid, NotFound, Refused, Unavailable
from colonies.export_file import VALUE, Counts, Header, Reader, kind_of_entry
from colonies.ledger import Stored, Subscription
from colonies.read_only import ReadOnly
from colonies.session import Session

FILE = "ledger.sqlite"
READ_BATCH = 512
WRITE_BATCH = 2_000
WHY = (
    "this is an imported ledger: it is only read, and nothing can be done in it; use a context of the colony"
)
READER = "reader"  # how a session on it is called; nobody of that name has to be a member

_TABLES = """
CREATE TABLE header (json TEXT NOT NULL);
CREATE TABLE event (sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, guard TEXT, subject TEXT NOT NULL,
    time INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE note (subject TEXT NOT NULL, sequence INTEGER NOT NULL, time INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE TABLE piece (name TEXT NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (name, number)) WITHOUT ROWID;
"""
_INDICES = """
CREATE INDEX event_guard ON event (guard, sequence);
CREATE INDEX event_kind ON event (kind, sequence) WHERE kind <> 'process';
CREATE INDEX note_subject ON note (subject, sequence);
"""
_LOGS = """
SELECT subject, sequence, time, data FROM note
WHERE subject >= 'log.' AND subject < 'log/' AND sequence > ? ORDER BY sequence
"""


def write(reader: Reader, folder: Path, progress: Callable[[int, int], None] | None = None) -> Counts:
    """Make the imported ledger in `folder`, whole or not at all, from an export; what was there is gone.

    Raises:
        Broken: the export is damaged.
        Invalid: the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise Invalid(f"{folder} cannot be written: {error.strerror}") from None
    try:
        with contextlib.closing(sqlite3.connect(temporary / FILE)) as database:
            database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES}")
            _fill(database, reader, progress)
            database.executescript(_INDICES)
        if folder.exists():
            os.replace(folder, temporary / "before")
        os.replace(temporary / FILE, _made(folder) / FILE)
    except (OSError, sqlite3.Error) as error:
        raise Invalid(f"{folder} cannot be written: {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return reader.counts


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _fill(database: sqlite3.Connection, reader: Reader, progress: Callable[[int, int], None] | None) -> None:
    database.execute("INSERT INTO header VALUES (?)", (json.dumps(asdict(reader.header)),))
    for number, entry in enumerate(reader, start=1):
        kind = kind_of_entry(entry.subject)
        if kind == "pieces":
            row: tuple[Any, ...] = (entry.subject[len(VALUE) :], entry.sequence, entry.data)
            database.execute("INSERT OR IGNORE INTO piece VALUES (?, ?, ?)", row)
        elif kind == "notes":
            row = (entry.subject, entry.sequence, entry.time, entry.data)
            database.execute("INSERT INTO note VALUES (?, ?, ?, ?)", row)
        else:
            guard, kind = subjects.guard_if_any(entry.subject), _kind(entry.subject)
            row = (entry.sequence, kind, guard, entry.subject, entry.time, entry.data)
            database.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", row)
        if number % WRITE_BATCH == 0:
            database.commit()
            if progress is not None:
                progress(min(entry.sequence, reader.header.last), reader.header.last)
    database.commit()
    if progress is not None:
        progress(reader.header.last, reader.header.last)


def _kind(subject: str) -> str:
    return subject.split(".", 2)[1] if "." in subject else ""


class ImportedLedger(ReadOnly):
    """See `colonies.ledger.Ledger`; `header` says what it is of. The time is always that of the export."""

    def __init__(self, folder: Path) -> None:
        self._database, self.header = _opened(folder)
        self.folder = folder
        self.colony = self.header.colony
        super().__init__(WHY)
        self._closed = asyncio.Event()

    def _select(self, where: str, *values: Any) -> Iterator[Stored]:
        if self._closed.is_set():
            raise Unavailable("the imported ledger is closed")
        try:
            rows = self._database.execute(f"SELECT subject, sequence, time, data FROM {where}", values)
            for row in rows.fetchall():
                yield Stored(*row)
        except sqlite3.Error as error:
            raise Unavailable(f"{self.folder}: {error}; import it again") from None

    # --- reading -------------------------------------------------------------------------------------

    async def read(self, pattern: str) -> list[Stored]:
        return [stored async for batch in self.scan(0, pattern) for stored in batch]

    async def scan(self, after: int = 0, pattern: str = subjects.EVERYTHING) -> AsyncIterator[list[Stored]]:
        matches = subjects.matcher(pattern)
        where, values = _under(pattern)
        while True:
            await asyncio.sleep(0)
            limit = f"event WHERE {where} AND sequence > ? ORDER BY sequence LIMIT {READ_BATCH}"
            batch = list(self._select(limit, *values, after))
            if not batch:
                return
            after = batch[-1].sequence
            if found := [stored for stored in batch if matches(stored.subject)]:
                yield found

    async def at(self, sequence: int) -> Stored:
        """One message by its sequence. Raises NotFound."""
        for stored in self._select("event WHERE sequence = ?", sequence):
            return stored
        raise NotFound(f"the imported ledger has no event {sequence}")

    async def last_sequence(self) -> int:
        return self.header.last

    async def last_of(self, patterns: Sequence[str]) -> dict[str, int]:
        last = "event WHERE guard = ? ORDER BY sequence DESC LIMIT 1"
        found = {guard: list(self._select(last, guard)) for guard in patterns}
        return {guard: stored[0].sequence for guard, stored in found.items() if stored}

    async def emitted(self, pattern: str) -> list[Stored]:
        return [stored async for batch in self.scan_emitted(pattern) for stored in batch]

    async def scan_emitted(self, pattern: str) -> AsyncIterator[list[Stored]]:
        """As `emitted`, in batches."""
        matches = subjects.matcher(pattern)
        prefix = pattern.partition("*")[0].partition(">")[0]
        found = self._select(
            "note WHERE subject >= ? AND subject < ? ORDER BY sequence", prefix, f"{prefix}\U0010ffff"
        )
        yield [stored for stored in found if matches(stored.subject)]

    async def logs(self, after: int) -> AsyncIterator[list[Stored]]:
        """The log messages after a sequence of LOGS, in order and in batches."""
        if self._closed.is_set():
            raise Unavailable("the imported ledger is closed")
        try:
            rows = self._database.execute(_LOGS, (after,))
            while found := rows.fetchmany(READ_BATCH):
                yield [Stored(*row) for row in found]
                await asyncio.sleep(0)
        except sqlite3.Error as error:
            raise Unavailable(f"{self.folder}: {error}; import it again") from None

    async def get_value(self, name: str, size_bytes: int) -> bytes:
        rows = self._select(
            "(SELECT name AS subject, number AS sequence, 0 AS time, data FROM piece) WHERE subject = ? "
            "ORDER BY sequence",
            name,
        )
        data = b"".join(stored.data for stored in rows)
        if not data:
            raise NotFound(f"the stored value {name} is not in the import")
        return data[:size_bytes]

    async def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> Subscription:
        """Nothing will ever be heard."""
        return _Silence()

    async def ask_service(self, subject: str, body: dict[str, Any], *, wait_s: float) -> dict[str, Any]:
        """As of `JetStreamLedger`: what there is to answer here is `answers`. Raises Unavailable: nothing."""
        if answers is None or not subject.startswith("query."):
            raise Unanswered(
                f"nothing answers on {subject}: no services run on an imported ledger; in Python say "
                "`colonies_projections.offline.answer_here()` first"
            )
        return await answers(self, subject, body)

    # --- the end -------------------------------------------------------------------------------------

    async def now(self) -> int:
        return self.header.at

    @property
    def reconnected_at(self) -> float | None:
        return None

    async def lost(self) -> None:
        await self._closed.wait()
        raise Unavailable("the imported ledger is closed")

    async def close(self) -> None:
        self._closed.set()
        self._database.close()


answers: Callable[[ImportedLedger, str, dict[str, Any]], Awaitable[dict[str, Any]]] | None = None
"""What answers questions about imported ledgers in this program, in the place of services."""


class Unanswered(Unavailable):
    """Nobody will answer this of an imported ledger; the message says why."""


class _Silence:
    async def close(self) -> None: ...


def _under(pattern: str) -> tuple[str, tuple[str, ...]]:
    """What finds at least the events under a pattern, by an index."""
    if "*" not in pattern and subjects.guard_if_any(pattern) == pattern:
        return "guard = ?", (pattern,)
    kind = _kind(pattern)
    if kind in ("", "*", ">"):
        return "1", ()
    # Said as in the index, which has no processes: they are most of it.
    return ("kind = ?", (kind,)) if kind == "process" else ("kind <> 'process' AND kind = ?", (kind,))


def _opened(folder: Path) -> tuple[sqlite3.Connection, Header]:
    path = folder / FILE
    try:
        if not path.is_file():
            raise NotFound(
                f"{path}: the imported ledger is gone; import it again, or `colonies context rm` it"
            )
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
        (text,) = database.execute("SELECT json FROM header").fetchone()
        return database, Header(**json.loads(text))
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        raise Invalid(f"{path}: it is no imported ledger ({error}); import it again") from None


class ImportSession(Session):
    """A session on an imported ledger, of nobody: it may read, and that is all."""

    @property
    def role(self) -> Role:
        """What whoever wants to write asks for."""
        raise Refused(WHY)
