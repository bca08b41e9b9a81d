"""The view of queues: what waits in each, since when, and which living workers could take it.

A queue that no living worker can serve says what each of them lacks. The queues themselves are the colony's;
the numbers are those of the tables of processes and workers, so this view has none of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from colonies.core.capacity import Candidate, Capacity, misses
from colonies.core.colony import Queue
from colonies.show import rfc3339
from colonies_projections.beats import Beats
from colonies_projections.view import Asked, Batch, Snapshot, Write
from colonies_projections.workers import instances, paused

MAX_INSTANCES = 10_000
MAX_NAMES = 100
MAX_LACKING = 5
BREATH_S = 0.02

_COUNTS = """
SELECT queue, state, count(*) AS number, min(waiting_since) AS oldest
FROM processes WHERE state IN ('waiting', 'running', 'blocked') GROUP BY queue, state
"""


class Queues:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "queues"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = ""
    filters: ClassVar[Mapping[str, Sequence[str] | None]] = {"runtimetype": None, "served": ("yes", "no")}

    def __init__(self) -> None:
        self._beats = Beats()

    def fold(self, batch: Batch) -> Iterable[Write]:
        return ()

    async def answer(self, asked: Asked, at: Snapshot) -> list[dict[str, Any]]:
        counts: dict[str, dict[str, Mapping[str, Any]]] = {}
        for row in await at.select(_COUNTS, ()):
            counts.setdefault(row["queue"], {})[row["state"]] = row
        workers = await self._candidates(at)
        found = []
        started = time.monotonic()
        for queue in list(at.colony.queues.values()):
            if time.monotonic() - started > BREATH_S:  # others are asking too
                await asyncio.sleep(0)
                started = time.monotonic()
            if asked.filters.get("runtimetype") not in (None, queue.conditions.runtimetype):
                continue
            item = _item(queue, counts.get(queue.id, {}), workers)
            item["drained"] = [name for name in item["workers"] if name in at.colony.drained]
            item["paused"] = paused(at.colony.paused_queues.get(queue.id) or at.colony.paused)
            if asked.filters.get("served") in (None, "yes" if item["workers"] else "no"):
                found.append(item)
        # What waits where nobody comes is what people look for; then the fullest.
        found.sort(key=lambda item: (bool(item["workers"]) or not item["waiting"], -item["waiting"]))
        return found[: asked.limit]

    async def _candidates(self, at: Snapshot) -> list[Candidate]:
        rows, _ = await instances(at, self._beats, {"state": "alive"}, MAX_INSTANCES)
        now = rfc3339(await at.ledger.now())
        return [_candidate(row, now) for row in rows]


def _candidate(row: Mapping[str, Any], now: str) -> Candidate:
    """An instance as conditions see it; of its time, what is left."""
    has = Capacity.parse(json.loads(row["has"] or "{}"))
    if has.walltime is not None:
        age = datetime.fromisoformat(now) - datetime.fromisoformat(row["started_at"])
        has = has.model_copy(update={"walltime": max(0.001, has.walltime - age.total_seconds())})
    return Candidate(row["name"], row["runtimetype"], has)


def _item(queue: Queue, counts: Mapping[str, Mapping[str, Any]], workers: list[Candidate]) -> dict[str, Any]:
    """`workers` are those that could take from it; `lacking`, if there are none, what the nearest lack."""
    lacking = [(misses(queue.conditions, worker), worker.name) for worker in workers]
    serving = sorted({name for missing, name in lacking if not missing})
    nearest = sorted(lacking, key=lambda found: len(found[0]))[:MAX_LACKING] if not serving else []
    waiting = counts.get("waiting")
    return {
        "id": queue.id,
        "runtimetype": queue.conditions.runtimetype,
        "priority": queue.priority,
        "conditions": queue.conditions.wire(),
        "waiting": waiting["number"] if waiting else 0,
        "oldest": waiting["oldest"] if waiting else None,
        "running": counts["running"]["number"] if "running" in counts else 0,
        "blocked": counts["blocked"]["number"] if "blocked" in counts else 0,
        "workers": serving[:MAX_NAMES],
        "lacking": [{"worker": name, "misses": missing} for missing, name in nearest],
    }
