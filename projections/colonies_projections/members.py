"""The view of members: who they are, who let them in, and whether they still count.

When a member said something last is as it is now only: it would be a row for each event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

from colonies.core.colony_events import Approved, Genesis, Revoked, Rotated
from colonies.core.events import Record, Role
from colonies_projections.listing import Listing, Where, rfc3339_of
from colonies_projections.moment import moment_us
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Write

STATES = ("active", "expired", "revoked")

_SECOND_US = 1_000_000
# `sequence` is that of the approval, so the newest is the last row. Times are microseconds since 1970.
_TABLES = """
CREATE TABLE members (
    sequence INTEGER PRIMARY KEY,
    since INTEGER NOT NULL,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    key TEXT NOT NULL,
    approved_by TEXT NOT NULL,
    approved_at INTEGER NOT NULL,
    expires_at INTEGER,
    rotated_by TEXT,
    rotated_at INTEGER,
    revoked_by TEXT,
    revoked_at INTEGER,
    revoked_reason TEXT
);
CREATE INDEX members_role ON members (role);
CREATE TABLE members_said (
    name TEXT PRIMARY KEY, said_at INTEGER NOT NULL, said INTEGER NOT NULL
) WITHOUT ROWID;
"""
_INSERT = """
INSERT INTO members (sequence, since, name, role, key, approved_by, approved_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_ROTATED = """
UPDATE members SET since = ?, key = ?, rotated_by = ?, rotated_at = ?, expires_at = coalesce(?, expires_at)
WHERE name = ?
"""
_REVOKED = "UPDATE members SET since = ?, revoked_by = ?, revoked_at = ?, revoked_reason = ? WHERE name = ?"
_SAID = """
INSERT INTO members_said (name, said_at, said) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET said_at = excluded.said_at, said = excluded.said
"""
_COLUMNS = (
    *("name", "role", "key", "approved_by", "approved_at", "expires_at", "rotated_by", "rotated_at"),
    *("revoked_by", "revoked_at", "revoked_reason"),
)
# Each takes the state that is asked for, and the time of the moment twice.
_STATE = """
CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= {now} THEN 'expired' ELSE 'active' END = ?
"""
_FILTERS = {
    "name": Where(column="name"),
    "role": Where(get_args(Role), column="role"),
    "state": Where(STATES, sql=_STATE),
}


class Members:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "members"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = _FILTERS
    sorts: ClassVar[Sequence[str]] = ("-approved", "name")

    def fold(self, batch: Batch) -> Iterable[Write]:
        for record in batch.others:
            if record.kind in ("member", "colony"):
                yield from _of_member(record)
        said = {record.author: record for record in batch.valid()}
        yield _SAID, [(name, record.time // 1_000, record.sequence) for name, record in said.items()]

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """`{name, role, state, key, approved_by, approved_at, expires_at, ..., last_said_at}`."""
        now = await moment_us(at)
        state = Where(STATES, sql=_STATE.format(now=now))
        sorts = {"approved": "sequence", "name": "name"}
        listing = Listing("members", _COLUMNS, {**_FILTERS, "state": state}, sorts)
        rows, keys, more = await listing.page(asked, at)
        heard: dict[str, int] = {}
        if not at.past:
            heard = {row["name"]: row["said_at"] for row in await at.select("SELECT * FROM members_said", ())}
        return Page([_item(row, now, heard.get(row["name"])) for row in rows], keys, more)


def _of_member(record: Record) -> Iterator[Write]:
    time, author, sequence = record.time // 1_000, record.author, record.sequence
    match record.event:
        case Genesis(owner=owner, owner_key=key):
            yield _INSERT, [(sequence, sequence, owner, "owner", key, author, time, None)]
        case Approved(key=key, role=role, expires_unix_s=expires):
            ends = None if expires is None else expires * _SECOND_US
            yield _INSERT, [(sequence, sequence, record.entity, role, key, author, time, ends)]
        case Rotated(key=key, expires_unix_s=expires):
            ends = None if expires is None else expires * _SECOND_US
            yield _ROTATED, [(sequence, key, author, time, ends, record.entity)]
        case Revoked(reason=reason):
            yield _REVOKED, [(sequence, author, time, reason, record.entity)]


def _item(row: Row, now: int, said_at: int | None) -> dict[str, Any]:
    state = "active"
    if row["revoked_at"] is not None:
        state = "revoked"
    elif row["expires_at"] is not None and row["expires_at"] <= now:
        state = "expired"
    item = {name: rfc3339_of(row[name]) if name.endswith("_at") else row[name] for name in _COLUMNS}
    return {
        "name": row["name"],
        "role": row["role"],
        "state": state,
        **item,
        "last_said_at": rfc3339_of(said_at),
    }
