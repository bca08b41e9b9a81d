"""The view of queues: what waits in each, since when, and which living workers could take it.

A queue that no living worker can serve says what each of them lacks. The queues themselves are the colony's;
the numbers are those of the tables of processes and workers, so this view has none of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from colonies.core.capacity import Candidate, Capacity, misses
from colonies.core.colony_events import (
    ColonyPaused,
    ColonyResumed,
    Declared,
    QueuePaused,
    QueueResumed,
    Retired,
)
from colonies.core.events import Record
from colonies.core.process_events import Assigned
from colonies.core.spec import Conditions
from colonies.show import rfc3339
from colonies_projections.listing import rfc3339_of
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Write
from colonies_projections.workers import Instances, drained, paused

MAX_INSTANCES = 10_000
MAX_NAMES = 100
MAX_LACKING = 5
BREATH_S = 0.02

WHOLE_COLONY = "*"  # in the place of a queue's id, for what the colony's pause says

_TABLES = """
CREATE TABLE queues (
    id TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    conditions TEXT NOT NULL,
    priority INTEGER NOT NULL,
    retired INTEGER NOT NULL,
    paused_by TEXT,
    paused_at INTEGER,
    paused_reason TEXT
) WITHOUT ROWID;
CREATE TABLE queues_taken (
    queue TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    worker TEXT NOT NULL,
    taken_at INTEGER NOT NULL,
    PRIMARY KEY (queue, sequence)
) WITHOUT ROWID;
"""
_DECLARED = """
INSERT INTO queues (id, since, conditions, priority, retired) VALUES (?, ?, ?, ?, 0)
ON CONFLICT (id) DO UPDATE SET since = excluded.since, conditions = excluded.conditions,
    priority = excluded.priority, retired = 0
"""
_RETIRED = "UPDATE queues SET since = ?, retired = 1 WHERE id = ?"
_PAUSED = """
INSERT INTO queues (id, since, conditions, priority, retired, paused_by, paused_at, paused_reason)
VALUES (?, ?, '{}', 0, 1, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET since = excluded.since, paused_by = excluded.paused_by,
    paused_at = excluded.paused_at, paused_reason = excluded.paused_reason
"""
_TAKEN = "INSERT INTO queues_taken (queue, sequence, worker, taken_at) VALUES (?, ?, ?, ?)"

_COUNTS = """
SELECT queue, state, count(*) AS number, min(waiting_since) AS oldest
FROM processes WHERE ended_at IS NULL GROUP BY queue, state
"""
_LAST_OF = "SELECT worker, taken_at FROM queues_taken WHERE queue = ? ORDER BY sequence DESC LIMIT 1"


class Queues:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "queues"
    version: ClassVar[int] = 2
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = {
        "id": Filter(),
        "runtimetype": Filter(),
        "served": Filter(("yes", "no")),
    }
    sorts: ClassVar[Sequence[str]] = ()

    def __init__(self) -> None:
        self._instances = Instances()

    def fold(self, batch: Batch) -> Iterable[Write]:
        for record in batch.others:
            yield from _of_queue(record)
        taken = [
            (step.after.queue, step.record.sequence, step.record.author, step.record.time // 1_000)
            for step in batch.steps
            if isinstance(step.record.event, Assigned)
        ]
        yield _TAKEN, taken

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """The queues: first those where something waits that nobody can take, then the fullest."""
        counts: dict[str, dict[str, Row]] = {}
        for row in await at.select(_COUNTS, ()):
            counts.setdefault(row["queue"], {})[row["state"]] = row
        workers = await self._candidates(at)
        drains = await drained(at)
        queues = await at.select("SELECT * FROM queues", ())
        whole = next((row for row in queues if row["id"] == WHOLE_COLONY), None)
        found = []
        started = time.monotonic()
        for row in queues:
            if time.monotonic() - started > BREATH_S:  # others are asking too
                await asyncio.sleep(0)
                started = time.monotonic()
            if row["retired"] or not _is_asked_for(row, asked.filters):
                continue
            item = _item(row, counts.get(row["id"], {}), workers)
            item["drained"] = [name for name in item["workers"] if name in drains]
            item["paused"] = _pause(row) or _pause(whole)
            if asked.filters.get("served") in (None, "yes" if item["workers"] else "no"):
                found.append(item)
        # What waits where nobody comes is what people look for; then the fullest.
        found.sort(
            key=lambda item: (bool(item["workers"]) or not item["waiting"], -item["waiting"], item["id"])
        )
        for item in found[: asked.limit]:
            last = await at.select(_LAST_OF, (item["id"],))
            item["last_taken_by"] = last[0]["worker"] if last else None
            item["last_taken_at"] = rfc3339_of(last[0]["taken_at"]) if last else None
        return Page(found[: asked.limit])

    async def _candidates(self, at: Snapshot) -> list[Candidate]:
        rows, _ = await self._instances.find(at, {"state": "alive"}, MAX_INSTANCES)
        now = rfc3339(await at.ledger.now())
        return [_candidate(row, now) for row in rows]


def _of_queue(record: Record) -> Iterator[Write]:
    """What an event says of queues, as rows. Its time is a ledger time (ns)."""
    time = record.time // 1_000
    match record.event:
        case Declared(conditions=conditions, priority=priority):
            said = json.dumps(conditions.wire())
            yield _DECLARED, [(record.entity, record.sequence, said, priority)]
        case Retired():
            yield _RETIRED, [(record.sequence, record.entity)]
        case QueuePaused(reason=reason):
            yield _PAUSED, [(record.entity, record.sequence, record.author, time, reason)]
        case QueueResumed():
            yield _PAUSED, [(record.entity, record.sequence, None, None, None)]
        case ColonyPaused(reason=reason):
            yield _PAUSED, [(WHOLE_COLONY, record.sequence, record.author, time, reason)]
        case ColonyResumed():
            yield _PAUSED, [(WHOLE_COLONY, record.sequence, None, None, None)]


def _is_asked_for(row: Row, filters: Mapping[str, Any]) -> bool:
    if filters.get("id") not in (None, row["id"]):
        return False
    return filters.get("runtimetype") in (None, json.loads(row["conditions"])["runtimetype"])


def _pause(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return paused(row["paused_by"], row["paused_at"], row["paused_reason"])


def _candidate(row: Mapping[str, Any], now: str) -> Candidate:
    """An instance as conditions see it; of its time, what is left."""
    has = Capacity.parse(json.loads(row["has"] or "{}"))
    if has.walltime is not None:
        age = datetime.fromisoformat(now) - datetime.fromisoformat(row["started_at"])
        has = has.model_copy(update={"walltime": max(0.001, has.walltime - age.total_seconds())})
    return Candidate(row["name"], row["runtimetype"], has)


def _item(row: Row, counts: Mapping[str, Row], workers: list[Candidate]) -> dict[str, Any]:
    """`workers` are those that could take from it; `lacking`, if there are none, what the nearest lack."""
    said = json.loads(row["conditions"])
    conditions = Conditions.model_validate(said)
    lacking = [(misses(conditions, worker), worker.name) for worker in workers]
    serving = sorted({name for missing, name in lacking if not missing})
    nearest = sorted(lacking, key=lambda found: len(found[0]))[:MAX_LACKING] if not serving else []
    waiting = counts.get("waiting")
    return {
        "id": row["id"],
        "runtimetype": conditions.runtimetype,
        "priority": row["priority"],
        "conditions": said,
        "waiting": waiting["number"] if waiting else 0,
        "oldest": rfc3339_of(waiting["oldest"]) if waiting else None,
        "running": counts["running"]["number"] if "running" in counts else 0,
        "blocked": counts["blocked"]["number"] if "blocked" in counts else 0,
        "workers": serving[:MAX_NAMES],
        "lacking": [{"worker": name, "misses": missing} for missing, name in nearest],
    }
