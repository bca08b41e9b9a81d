"""The SQLite file of the log: verified messages, an index of their lines, and how far LOGS was read.

All of it changes in one transaction, so a projector killed at any point has each message once. Unlike the
views this is no cache: LOGS ages out, and what it no longer keeps stands here alone. So views that are built
anew leave it as it is, and a file that cannot be gone on with is set aside, not deleted. It is bounded: the
oldest messages make room. Its functions block; they are called in threads, one at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from colonies_projections.log_lines import MAX_LINES, about, broken_off, indexed, lines
from colonies_projections.position import Unusable
from colonies_projections.store import BUSY_S, asking, broken_is_unusable, discard

# Raise it when what is indexed of a message changes: it is deleted from the index by the same words.
VERSION = 1
MAX_KEPT_BYTES = 4 * 1024 * 1024 * 1024  # as LOGS keeps: text, and MESSAGE_BYTES for each message
MESSAGE_BYTES = 256
PAGE_BYTES = 16_384  # messages of some KB would leave half of smaller pages empty
MAX_SOURCES_KEPT = 10_000
PRUNED_AT_ONCE = 64
SUMMED_AT_ONCE = 5_000
READ_BYTES = 16 * 1024 * 1024  # of messages, for one answer

LINE_BITS = 20  # of a row of the index: above them the message's sequence, in them the number of its line

_BITS = 2**128

# A source is one stream of one attempt. `text` is the message's, `carried` the end of the message before it,
# `follows`, that broke off in a line. Times are microseconds since 1970 and never go back.
_TABLES = """
CREATE TABLE logs_state (
    version INTEGER NOT NULL, colony TEXT NOT NULL, stream TEXT NOT NULL, position INTEGER NOT NULL,
    time INTEGER NOT NULL, bytes INTEGER NOT NULL, left_out INTEGER NOT NULL
);
CREATE TABLE logs_sources (
    id INTEGER PRIMARY KEY, process TEXT NOT NULL, worker TEXT NOT NULL, attempt TEXT NOT NULL,
    n INTEGER NOT NULL, stream TEXT NOT NULL, func TEXT, workflow TEXT,
    UNIQUE (attempt, process, worker, stream, n)
);
CREATE TABLE logs (
    sequence INTEGER PRIMARY KEY, source INTEGER NOT NULL, place INTEGER NOT NULL, time INTEGER NOT NULL,
    text TEXT NOT NULL, carried TEXT NOT NULL, follows INTEGER, lines INTEGER NOT NULL, bytes INTEGER NOT NULL
);
CREATE UNIQUE INDEX logs_once ON logs (source, place);
CREATE INDEX logs_time ON logs (time);
CREATE UNIQUE INDEX logs_follows ON logs (follows) WHERE follows IS NOT NULL;
CREATE VIRTUAL TABLE logs_text USING fts5(words, about, content='', columnsize=0);
"""
_SOURCE = "SELECT id FROM logs_sources WHERE (process, worker, attempt, n, stream) = (?, ?, ?, ?, ?)"
_NEW_SOURCE = """
INSERT INTO logs_sources (process, worker, attempt, n, stream, func, workflow) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_BEFORE = """
SELECT sequence, lines, carried || text AS text FROM logs WHERE source = ? AND place < ?
ORDER BY place DESC LIMIT 1
"""
_MESSAGE = "INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LINE = "INSERT INTO logs_text (rowid, words, about) VALUES (?, ?, ?)"
_FORGET = "INSERT INTO logs_text (logs_text, rowid, words, about) VALUES ('delete', ?, ?, ?)"
_OLDEST = """
SELECT sequence, source, carried || text AS text, bytes FROM logs ORDER BY sequence LIMIT ?
"""
_UNUSED = """
DELETE FROM logs_sources WHERE id = ? AND NOT EXISTS (SELECT 1 FROM logs WHERE source = logs_sources.id)
"""
_WHOLE = "SELECT * FROM logs JOIN logs_sources ON id = source WHERE sequence = ?"
_SUMMED = """
SELECT sequence, process, worker, attempt, n, stream, place, time, text
FROM logs JOIN logs_sources ON id = source WHERE time <= ?
"""
# A line that goes on in a later message is that message's.
_FOUND = """
SELECT hit.rowid, sequence FROM logs_text AS hit CROSS JOIN logs ON sequence = hit.rowid >> {bits}
WHERE logs_text MATCH :words AND hit.rowid >= :least AND hit.rowid < :most AND NOT (
    hit.rowid & {mask} = lines - 1 AND EXISTS (
        SELECT 1 FROM logs AS later WHERE later.follows = logs.sequence AND later.sequence << {bits} < :until
    )
)
ORDER BY hit.rowid {order} LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A verified message of a process's log. `place` is its place in its attempt's log, `time` in us."""

    sequence: int
    process: str
    worker: str
    attempt: str
    n: int
    stream: str
    place: int
    time: int
    text: str
    func: str | None
    workflow: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for: `words` as `MATCH` takes it, in the messages from the time `since` on and before
    `until` (us), after the row `after` in the order asked for."""

    words: str
    since: int | None
    until: int | None
    after: int | None
    down: bool
    limit: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its row in the index, its number in its message, and that message with its source."""

    hit: int
    number: int
    text: str
    message: sqlite3.Row


class LogStore:
    """An open file. `position` is the last sequence of LOGS that was read, `time` that of its message (us);
    `left_out` counts what nobody signed that may write a log."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.stream = ""
        self.position = self.time = self.left_out = self._bytes = 0
        self._max_bytes = max_bytes
        self._sources: dict[tuple[Any, ...], int] = {}
        self._writing, self._reading = threading.Lock(), threading.Lock()
        path.touch(mode=0o600)
        self._writer = _connect(path.absolute().as_uri())
        self._reader = _connect(f"{path.absolute().as_uri()}?mode=ro")

    @classmethod
    def open(cls, path: Path, colony: str, max_bytes: int | None = None) -> LogStore:
        """Open the file, or make it.

        Raises Unusable, and OSError or sqlite3.Error if it cannot be read or written at all.
        """
        store = cls(path, MAX_KEPT_BYTES if max_bytes is None else max_bytes)
        try:
            with broken_is_unusable():
                store._begin(colony)
        except BaseException:
            store.close()
            raise
        return store

    def _begin(self, colony: str) -> None:
        db = self._writer
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
            state = f"INSERT INTO logs_state VALUES ({VERSION}, '{colony}', '', 0, 0, 0, 0);"
            db.executescript(f"BEGIN; {_TABLES} {state} COMMIT;")
        rows = db.execute("SELECT * FROM logs_state").fetchall()
        if len(rows) != 1 or rows[0]["version"] != VERSION:
            raise Unusable("it was made by another version")
        if rows[0]["colony"] != colony:
            raise Unusable("it is of another colony")
        [state] = rows
        self.stream, self.position, self.time = state["stream"], state["position"], state["time"]
        self._bytes, self.left_out = state["bytes"], state["left_out"]

    def close(self) -> None:
        with self._writing, self._reading:
            self._reader.close()  # only who may write clears away what SQLite keeps beside the file
            self._writer.close()

    def confirm(self, stream: str, last: int) -> None:
        """Is LOGS still the stream that we read? `stream` says which one it is. Raises Unusable if not."""
        if self.stream and (self.stream != stream or last < self.position):
            raise Unusable("the stream LOGS is another one now")
        self.stream = stream

    # --- taking in -----------------------------------------------------------------------------------

    def take_in(self, position: int, messages: Iterable[Message], left_out: int = 0) -> None:
        """Keep the messages that are not there yet, and that LOGS was read up to this sequence."""
        with self._writing, broken_is_unusable(), self._transaction() as db:
            time, size = self.time, self._bytes
            for message in messages:
                time = max(time, message.time)
                size += self._keep(db, message, time)
            if size > self._max_bytes:
                size -= self._make_room(db, size - self._max_bytes)
            said = (self.stream, position, time, size, self.left_out + left_out)
            db.execute(
                "UPDATE logs_state SET (stream, position, time, bytes, left_out) = (?, ?, ?, ?, ?)", said
            )
        self.position, self.time, self._bytes = position, time, size
        self.left_out += left_out

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            self._sources.clear()
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise

    def _keep(self, db: sqlite3.Connection, message: Message, time: int) -> int:
        """Its size; 0 if it was there already."""
        source = self._source(db, message)
        before = db.execute(_BEFORE, (source, message.place)).fetchone()
        carried = (broken_off(before["text"]) or "") if before is not None else ""
        follows = before["sequence"] if carried and _can_be_followed(db, before) else None
        found = lines(carried + message.text)
        size = len(message.text.encode()) + len(carried.encode()) + MESSAGE_BYTES
        row = (
            message.sequence,
            source,
            message.place,
            time,
            message.text,
            carried,
            follows,
            len(found),
            size,
        )
        if not db.execute(f"{_MESSAGE} ON CONFLICT (source, place) DO NOTHING", row).rowcount:
            return 0
        first, said = message.sequence << LINE_BITS, _about(message)
        db.executemany(_LINE, [(first + number, indexed(line), said) for number, line in enumerate(found)])
        return size

    def _source(self, db: sqlite3.Connection, message: Message) -> int:
        key = (message.process, message.worker, message.attempt, message.n, message.stream)
        id = self._sources.get(key)
        if id is None:
            row = db.execute(_SOURCE, key).fetchone()
            id = row[0] if row else db.execute(_NEW_SOURCE, (*key, message.func, message.workflow)).lastrowid
            assert id is not None
            if len(self._sources) >= MAX_SOURCES_KEPT:
                self._sources.clear()
            self._sources[key] = id
        return id

    def _make_room(self, db: sqlite3.Connection, size: int) -> int:
        """Forget the oldest messages, at least of this size together; their size."""
        freed = 0
        while freed < size:
            oldest = db.execute(_OLDEST, (PRUNED_AT_ONCE,)).fetchall()
            if not oldest:
                break
            for row in oldest:
                [source] = db.execute("SELECT * FROM logs_sources WHERE id = ?", (row["source"],)).fetchall()
                first, said = row["sequence"] << LINE_BITS, _about(source)
                found = enumerate(lines(row["text"]))
                gone = [(first + number, indexed(line), said) for number, line in found]
                db.executemany(_FORGET, gone)
                db.execute("DELETE FROM logs WHERE sequence = ?", (row["sequence"],))
                db.execute(_UNUSED, (row["source"],))
                freed += row["bytes"]
                if freed >= size:
                    break
        self._sources.clear()
        return freed

    # --- asking --------------------------------------------------------------------------------------

    def find(self, wanted: Wanted) -> tuple[list[Line], bool]:
        """The lines found, and whether there are more behind them."""
        with self._reading, asking():
            db = self._reader
            db.execute("BEGIN")
            try:
                return self._found(db, wanted)
            finally:
                db.execute("ROLLBACK")

    def _found(self, db: sqlite3.Connection, wanted: Wanted) -> tuple[list[Line], bool]:
        least = 0 if wanted.since is None else _from(db, wanted.since)
        until = most = _END if wanted.until is None else _from(db, wanted.until)
        if wanted.after is not None:
            least, most = (least, min(most, wanted.after)) if wanted.down else (wanted.after + 1, most)
        order = "DESC" if wanted.down else "ASC"
        query = _FOUND.format(bits=LINE_BITS, mask=2**LINE_BITS - 1, order=order)
        said = {"words": wanted.words, "least": least, "most": most, "until": until}
        hits = db.execute(query, {**said, "limit": wanted.limit + 1}).fetchall()
        found: list[Line] = []
        messages: dict[int, tuple[sqlite3.Row, list[str]]] = {}
        size = 0
        for hit, sequence in hits[: wanted.limit]:
            if sequence not in messages:
                if size > READ_BYTES:
                    return found, True
                row = db.execute(_WHOLE, (sequence,)).fetchone()
                messages[sequence] = row, lines(row["carried"] + row["text"])
                size += row["bytes"]
            row, texts = messages[sequence]
            number = hit & (2**LINE_BITS - 1)
            found.append(Line(hit, number, texts[number], row))
        return found, len(hits) > wanted.limit


def checksum(path: Path, time: int) -> tuple[int, str]:
    """How many messages the file has up to a time (us), and what their digests add up to."""
    number, total = 0, 0
    with contextlib.closing(_connect(f"{path.absolute().as_uri()}?mode=ro")) as db:
        rows = db.execute(_SUMMED, (time,))
        while found := rows.fetchmany(SUMMED_AT_ONCE):
            number += len(found)
            for row in found:
                digest = hashlib.blake2b(msgpack.packb(tuple(row)), digest_size=16).digest()
                total += int.from_bytes(digest, "big")
    return number, f"{total % _BITS:032x}"


def set_aside(path: Path) -> Path:
    """Put the file away, over one that was put away before; where it is now."""
    aside = path.with_name(f"{path.name}.old")
    discard(aside)
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    discard(path)
    return aside


_END = 2**63 - 1


def _can_be_followed(db: sqlite3.Connection, before: sqlite3.Row) -> bool:
    """Messages that were stored out of order may both come after the same one; the first one follows it."""
    taken = db.execute("SELECT 1 FROM logs WHERE follows = ?", (before["sequence"],)).fetchone()
    return taken is None and before["lines"] < MAX_LINES


def _from(db: sqlite3.Connection, time: int) -> int:
    """The first row of the index that is of this time or later."""
    row = db.execute("SELECT sequence FROM logs WHERE time >= ? ORDER BY time, sequence LIMIT 1", (time,))
    found = row.fetchone()
    return _END if found is None else int(found[0]) << LINE_BITS


def _about(source: Message | sqlite3.Row) -> str:
    names = ("process", "worker", "stream", "func", "workflow")
    if isinstance(source, Message):
        return about((name, getattr(source, name)) for name in names)
    return about((name, source[name]) for name in names)


def _connect(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    return db
