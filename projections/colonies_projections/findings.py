"""The view of findings: every message of the ledger that does not count, void or quarantined, and why.

Nothing in it is believed. Its author is only whoever signed it as a member of that point; of what is not even
a signed event, the subject says what it wants to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from colonies.history import Judged
from colonies.show_event import what
from colonies_projections.listing import Listing, Where, like, microseconds, rfc3339_of
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Write

MAX_SAID_CHARS: Final = 512  # of a subject, a type, a name and a rule

# `time` is when the broker stored it, in microseconds since 1970.
_TABLES = """
CREATE TABLE findings (
    sequence INTEGER PRIMARY KEY,
    verdict TEXT NOT NULL,
    time INTEGER NOT NULL,
    kind TEXT,
    entity TEXT,
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    author TEXT,
    rule TEXT NOT NULL,
    size_bytes INTEGER NOT NULL
);
CREATE INDEX findings_verdict ON findings (verdict);
CREATE INDEX findings_author ON findings (author) WHERE author IS NOT NULL;
CREATE INDEX findings_entity ON findings (entity) WHERE entity IS NOT NULL;
"""
_INSERT = """
INSERT INTO findings (sequence, verdict, time, kind, entity, event, subject, author, rule, size_bytes)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COLUMNS = (
    "sequence",
    "verdict",
    "time",
    "kind",
    "entity",
    "event",
    "subject",
    "author",
    "rule",
    "size_bytes",
)
_FILTERS = {
    "sequence": Where(read=int, sql="sequence = ?"),
    "verdict": Where(("void", "quarantined"), column="verdict"),
    "author": Where(column="author"),
    "kind": Where(sql="kind = ?"),
    "entity": Where(column="entity"),
    "event": Where(sql="event = ?"),
    "since": Where(read=microseconds, sql="time >= ?"),
    "until": Where(read=microseconds, sql="time < ?"),
    "text": Where(read=like, sql="rule || ' ' || subject LIKE ? ESCAPE '\\'"),
}


class Findings:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "findings"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = _FILTERS
    sorts: ClassVar[Sequence[str]] = ("-sequence",)
    listing: ClassVar[Listing] = Listing("findings", _COLUMNS, _FILTERS, {"sequence": "sequence"})

    def fold(self, batch: Batch) -> Iterable[Write]:
        yield _INSERT, [_row(judged) for judged in batch.judged if not judged.verdict.valid]

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """`{sequence, verdict, time, kind, entity, event, subject, author, rule, size_bytes}`."""
        rows, keys, more = await self.listing.page(asked, at)
        return Page([_item(row) for row in rows], keys, more)


def _row(judged: Judged) -> tuple[Any, ...]:
    stored, verdict, record = judged.stored, judged.verdict, judged.record
    event, kind, entity = what(judged)
    return (
        *(stored.sequence, verdict.kind, stored.time // 1_000, kind or None, _cut(entity) or None),
        *(_cut(event), _cut(stored.subject), record.author if record is not None else None),
        *(_cut(verdict.rule), len(stored.data)),
    )


def _cut(text: str) -> str:
    return text[:MAX_SAID_CHARS]


def _item(row: Row) -> dict[str, Any]:
    return {**{name: row[name] for name in _COLUMNS}, "time": rfc3339_of(row["time"])}
