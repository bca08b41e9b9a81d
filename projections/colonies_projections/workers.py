"""The view of workers: one row for each instance that said on the ledger that it started.

Whether an instance is alive is not on the ledger but in HEARTBEATS, and changes by time alone. So it is
looked up when somebody asks: with the broker's own times, equal for all projectors, nothing to lose, and no
work while nobody asks. At most one read a second; what was verified once is not verified again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from colonies.core.colony_events import WorkerDrained, WorkerResumed, WorkerStarted, WorkerStopped
from colonies.core.events import Record
from colonies.core.process import SECOND
from colonies.heartbeats import Heartbeat
from colonies.show import rfc3339
from colonies_projections.beats import Beats
from colonies_projections.listing import rfc3339_of
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Write

LOST_AFTER_LEASES = 2
MAX_RUNNING = 1_000
MAX_FUNCTIONS = 200
MAX_INTEGER = 2**63 - 1  # of SQLite; on the ledger it may be larger

_TABLES = """
CREATE TABLE workers (
    name TEXT NOT NULL,
    instance TEXT NOT NULL,
    since INTEGER NOT NULL,
    started INTEGER NOT NULL,
    runtimetype TEXT NOT NULL,
    concurrency INTEGER NOT NULL,
    functions TEXT NOT NULL,
    has TEXT,
    started_at INTEGER NOT NULL,
    stopped_at INTEGER,
    PRIMARY KEY (name, instance)
) WITHOUT ROWID;
CREATE TABLE workers_drained (
    name TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    drained_by TEXT,
    drained_at INTEGER,
    reason TEXT
) WITHOUT ROWID;
"""

_STARTED = """
INSERT INTO workers (name, instance, since, started, runtimetype, concurrency, functions, has, started_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name, instance) DO UPDATE SET since = excluded.since, started = excluded.started,
    runtimetype = excluded.runtimetype, concurrency = excluded.concurrency, functions = excluded.functions,
    has = excluded.has, started_at = excluded.started_at, stopped_at = NULL
"""
_STOPPED = "UPDATE workers SET since = ?, stopped_at = ? WHERE name = ? AND instance = ?"
_DRAINED = """
INSERT INTO workers_drained (name, since, drained_by, drained_at, reason) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET since = excluded.since, drained_by = excluded.drained_by,
    drained_at = excluded.drained_at, reason = excluded.reason
"""
# Alive are those that are named, and those too young to be; the others are lost.
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
    "name": " AND name = ?",
    "func": " AND ? IN (SELECT value FROM json_each(functions))",
    "runtimetype": " AND runtimetype = ?",
}
# In the past: those that stopped later, or said something later.
_HEARD_LATER = """
SELECT name, instance FROM main.workers WHERE since > ?1
UNION SELECT worker, instance FROM main.processes_attempts WHERE since > ?1
"""
_RUNNING = """
SELECT processes.id, processes_attempts.worker, processes_attempts.instance
FROM processes CROSS JOIN processes_attempts
    ON processes_attempts.process = processes.sequence AND processes_attempts.n = processes.attempts
WHERE processes.state = 'running'
ORDER BY processes.sequence
"""


class Workers:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "workers"
    version: ClassVar[int] = 3
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = {
        "state": Filter(("alive", "lost", "stopped")),
        "name": Filter(),
        "func": Filter(),
        "runtimetype": Filter(),
    }
    sorts: ClassVar[Sequence[str]] = ()

    def __init__(self) -> None:
        self._instances = Instances()

    def fold(self, batch: Batch) -> Iterable[Write]:
        for record in batch.others:
            yield from _of_worker(record)

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """Instances, the newest first. `running` are the processes that the ledger says it runs: a heartbeat
        is as old as it is."""
        rows, beats = await self._instances.find(at, asked.filters, asked.limit)
        drains = await drained(at)
        runs = await _running(at)
        items = []
        for row in rows:
            key = f"{row['name']}.{row['instance']}"
            item = _item(row, beats.get(key), runs.get(key, []))
            items.append({**item, "drained": drains.get(row["name"])})
        return Page(items)


def _of_worker(record: Record) -> Iterator[Write]:
    """What an event says of workers, as rows."""
    time = record.time // 1_000
    match record.event:
        case WorkerStarted() as event:
            functions = json.dumps([function.name for function in event.functions])
            concurrency = min(event.concurrency, MAX_INTEGER)
            has = None if event.has is None else json.dumps(event.has.wire())
            said = (event.runtimetype, concurrency, functions, has, time)
            yield _STARTED, [(record.entity, event.instance, record.sequence, record.sequence, *said)]
        case WorkerStopped(instance=instance):
            yield _STOPPED, [(record.sequence, time, record.entity, instance)]
        case WorkerDrained(reason=reason):
            yield _DRAINED, [(record.entity, record.sequence, record.author, time, reason)]
        case WorkerResumed():
            yield _DRAINED, [(record.entity, record.sequence, None, None, None)]


class Instances:
    """Finds instances, and says which of them are alive."""

    def __init__(self) -> None:
        self._beats = Beats()

    async def find(
        self, at: Snapshot, filters: Mapping[str, Any], limit: int
    ) -> tuple[list[Row], Mapping[str, Heartbeat]]:
        """The rows of instances, newest first, each with its `state`, and their last heartbeats, by
        `<name>.<instance>`: there are none of the past."""
        now = await at.ledger.now()
        heard = await self._beats.read(at.ledger, at.colony, now)
        oldest = now - int(LOST_AFTER_LEASES * at.colony.lease_s * SECOND)
        alive = [key for key, beat in heard.items() if beat.time >= oldest]
        if at.past:
            later = await at.select(_HEARD_LATER, (at.position,))
            alive += [f"{row['name']}.{row['instance']}" for row in later]
        wanted = "".join(_WHERE[name] for name in filters)
        query = f"{_SELECT}{wanted} ORDER BY started DESC LIMIT ?"
        rows = await at.select(query, (oldest // 1_000, json.dumps(alive), *filters.values(), limit))
        return rows, {} if at.past else heard


async def drained(at: Snapshot) -> dict[str, dict[str, Any]]:
    """Who is drained, by name: by whom, since when, why."""
    rows = await at.select("SELECT * FROM workers_drained WHERE drained_by IS NOT NULL", ())
    found = {row["name"]: paused(row["drained_by"], row["drained_at"], row["reason"]) for row in rows}
    return {name: drain for name, drain in found.items() if drain is not None}


async def _running(at: Snapshot) -> dict[str, list[str]]:
    """What each instance runs, by the ledger, in the order in which it was submitted."""
    found: dict[str, list[str]] = {}
    for row in await at.select(_RUNNING, ()):
        found.setdefault(f"{row['worker']}.{row['instance']}", []).append(row["id"])
    return found


def paused(by: str | None, since: int | None, reason: str | None) -> dict[str, Any] | None:
    """Who paused or drained something, since when, why; None: nobody."""
    if by is None:
        return None
    return {"by": by, "since": rfc3339_of(since), "reason": reason}


def _item(row: Row, beat: Heartbeat | None, running: list[str]) -> dict[str, Any]:
    """An instance as it is shown; `left_out` names what is told in part, for its size."""
    seen = [rfc3339_of(row["started_at"]), rfc3339_of(row["stopped_at"])]
    if beat is not None:
        seen.append(rfc3339(beat.time))
    functions = json.loads(row["functions"])
    left_out = ["functions"] if len(functions) > MAX_FUNCTIONS else []
    item = {
        "name": row["name"],
        "instance": row["instance"],
        "runtimetype": row["runtimetype"],
        "concurrency": row["concurrency"],
        "state": row["state"],
        "started_at": rfc3339_of(row["started_at"]),
        "last_seen": max(time for time in seen if time is not None),
        "running": running[:MAX_RUNNING] if row["state"] == "alive" else [],
        "has": row["has"] and json.loads(row["has"]),
        "functions": functions[:MAX_FUNCTIONS],
    }
    return {**item, "left_out": left_out} if left_out else item
