"""The view of workers: one row for each instance that said on the ledger that it started.

Whether an instance is alive is not on the ledger but in HEARTBEATS, and changes by time alone. So it is
looked up when somebody asks: with the broker's own times, equal for all projectors, nothing to lose, and no
work while nobody asks. At most one read a second; what was verified once is not verified again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from colonies.core.colony import Paused
from colonies.core.events import WorkerStarted, WorkerStopped
from colonies.core.process import SECOND
from colonies.heartbeats import Heartbeat
from colonies.show import rfc3339
from colonies_projections.beats import Beats
from colonies_projections.view import Asked, Batch, Snapshot, Write

LOST_AFTER_LEASES = 2
MAX_RUNNING = 1_000
MAX_FUNCTIONS = 200
MAX_INTEGER = 2**63 - 1  # of SQLite; on the ledger it may be larger

_TABLES = """
CREATE TABLE workers (
    name TEXT NOT NULL,
    instance TEXT NOT NULL,
    sequence INTEGER NOT NULL UNIQUE,
    runtimetype TEXT NOT NULL,
    concurrency INTEGER NOT NULL,
    functions TEXT NOT NULL,
    has TEXT,
    started_at TEXT NOT NULL,
    stopped_at TEXT,
    PRIMARY KEY (name, instance)
) WITHOUT ROWID;
"""

_STARTED = """
INSERT OR REPLACE INTO workers
    (name, instance, sequence, runtimetype, concurrency, functions, has, started_at, stopped_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)
"""
_STOPPED = "UPDATE workers SET stopped_at = ? WHERE name = ? AND instance = ?"
_SELECT = """
SELECT * FROM (
    SELECT *, CASE
        WHEN stopped_at IS NOT NULL THEN 'stopped'
        WHEN started_at >= ? OR name || '.' || instance IN (SELECT value FROM json_each(?)) THEN 'alive'
        ELSE 'lost'
    END AS state
    FROM workers
) WHERE true
"""
_WHERE = {
    "state": " AND state = ?",
    "func": " AND ? IN (SELECT value FROM json_each(functions))",
    "runtimetype": " AND runtimetype = ?",
}


class Workers:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "workers"
    version: ClassVar[int] = 2
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Sequence[str] | None]] = {
        "state": ("alive", "lost", "stopped"),
        "func": None,
        "runtimetype": None,
    }

    def __init__(self) -> None:
        self._beats = Beats()

    def fold(self, batch: Batch) -> Iterable[Write]:
        for judged in batch.judged:
            record = judged.record
            if record is None or not judged.verdict.valid:
                continue
            match record.event:
                case WorkerStarted() as event:
                    functions = json.dumps([function.name for function in event.functions])
                    concurrency = min(event.concurrency, MAX_INTEGER)
                    has = None if event.has is None else json.dumps(event.has.wire())
                    said = (event.runtimetype, concurrency, functions, has, rfc3339(record.time))
                    yield _STARTED, [(record.entity, event.instance, record.sequence, *said)]
                case WorkerStopped(instance=instance):
                    yield _STOPPED, [(rfc3339(record.time), record.entity, instance)]

    async def answer(self, asked: Asked, at: Snapshot) -> list[dict[str, Any]]:
        rows, beats = await instances(at, self._beats, asked.filters, asked.limit)
        items = [_item(row, beats.get(f"{row['name']}.{row['instance']}")) for row in rows]
        return [{**item, "drained": paused(at.colony.drained.get(item["name"]))} for item in items]


async def instances(
    at: Snapshot, beats: Beats, filters: Mapping[str, str], limit: int
) -> tuple[list[Mapping[str, Any]], dict[str, Heartbeat]]:
    """The rows of instances, newest first, each with its `state`, and their last heartbeats."""
    now = await at.ledger.now()
    heard = await beats.read(at.ledger, at.colony, now)
    oldest = now - int(LOST_AFTER_LEASES * at.colony.lease_s * SECOND)
    alive = json.dumps([key for key, beat in heard.items() if beat.time >= oldest])
    wanted = "".join(_WHERE[name] for name in filters)
    query = f"{_SELECT}{wanted} ORDER BY sequence DESC LIMIT ?"
    return await at.select(query, (rfc3339(oldest), alive, *filters.values(), limit)), heard


def paused(since: Paused | None) -> dict[str, Any] | None:
    """Who paused or drained something, since when, why."""
    if since is None:
        return None
    return {"by": since.by, "since": rfc3339(since.since), "reason": since.reason}


def _item(row: Mapping[str, Any], beat: Heartbeat | None) -> dict[str, Any]:
    """An instance as it is shown. `running` are the processes that its last heartbeat names."""
    seen = [row["started_at"], row["stopped_at"], rfc3339(beat.time) if beat is not None else None]
    running = sorted(map(str, beat.attempts)) if beat is not None else []
    return {
        "name": row["name"],
        "instance": row["instance"],
        "runtimetype": row["runtimetype"],
        "concurrency": row["concurrency"],
        "state": row["state"],
        "started_at": row["started_at"],
        "last_seen": max(time for time in seen if time is not None),
        "running": running[:MAX_RUNNING] if row["state"] == "alive" else [],
        "has": row["has"] and json.loads(row["has"]),
        "functions": json.loads(row["functions"])[:MAX_FUNCTIONS],
    }
