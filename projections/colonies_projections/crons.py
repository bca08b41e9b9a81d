"""The views of crons and generators: what submits workflows by time and by count, and what it submitted last.

One row for each that was ever added, those included that were removed and whose name is another's now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from colonies.core.due import Schedule
from colonies.core.events import (
    CronAdded,
    CronPaused,
    CronRemoved,
    CronResumed,
    GeneratorAdded,
    GeneratorPacked,
    GeneratorRemoved,
    Record,
    WorkflowSubmitted,
)
from colonies.core.flow import WorkflowSpec
from colonies_projections.listing import Listing, Where, rfc3339_of
from colonies_projections.moment import moment_us
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Write

LAST_RUNS: Final = 5
MAX_NODES_NAMED: Final = 100

# `sequence` is that of the event that added it. Times are microseconds since 1970.
_CRONS = """
CREATE TABLE crons (
    sequence INTEGER PRIMARY KEY,
    since INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    author TEXT NOT NULL,
    cron TEXT,
    interval_s REAL,
    timezone TEXT NOT NULL,
    jitter_s REAL NOT NULL,
    wait_previous INTEGER NOT NULL,
    catch_up TEXT NOT NULL,
    nodes TEXT NOT NULL,
    added_at INTEGER NOT NULL,
    changed_by TEXT,
    changed_at INTEGER,
    reason TEXT
);
CREATE INDEX crons_name ON crons (name);
CREATE TABLE crons_runs (
    added INTEGER NOT NULL, sequence INTEGER NOT NULL, workflow TEXT NOT NULL, due_at INTEGER,
    PRIMARY KEY (added, sequence)
) WITHOUT ROWID;
"""
_CRON = """
INSERT INTO crons (
    sequence, since, name, state, author, cron, interval_s, timezone, jitter_s, wait_previous, catch_up,
    nodes, added_at
) VALUES (?, ?, ?, 'active', ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_CRON_CHANGED = """
UPDATE crons SET since = ?, state = ?, changed_by = ?, changed_at = ?, reason = ?
WHERE name = ? AND state <> 'removed'
"""
_CRON_RUN = "INSERT INTO crons_runs (added, sequence, workflow, due_at) VALUES (?, ?, ?, ?)"
_GENERATORS = """
CREATE TABLE generators (
    sequence INTEGER PRIMARY KEY,
    since INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    author TEXT NOT NULL,
    trigger INTEGER NOT NULL,
    timeout_s REAL,
    nodes TEXT NOT NULL,
    packed INTEGER NOT NULL,
    packed_at INTEGER,
    added_at INTEGER NOT NULL,
    removed_by TEXT,
    removed_at INTEGER,
    reason TEXT
);
CREATE INDEX generators_name ON generators (name);
CREATE TABLE generators_runs (
    added INTEGER NOT NULL, sequence INTEGER NOT NULL, workflow TEXT NOT NULL, run INTEGER NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (added, sequence)
) WITHOUT ROWID;
"""
_GENERATOR = """
INSERT INTO generators (
    sequence, since, name, state, author, trigger, timeout_s, nodes, packed, added_at
) VALUES (?, ?, ?, 'active', ?, ?, ?, ?, 0, ?)
"""
_PACKED = """
UPDATE generators SET since = ?, packed = packed + ?, packed_at = ? WHERE name = ? AND state = 'active'
"""
_GENERATOR_REMOVED = """
UPDATE generators SET since = ?, state = 'removed', removed_by = ?, removed_at = ?, reason = ?
WHERE name = ? AND state = 'active'
"""
_GENERATOR_RUN = "INSERT INTO generators_runs (added, sequence, workflow, run, count) VALUES (?, ?, ?, ?, ?)"

_SHARED = {"name": Where(column="name"), "author": Where(sql="author = ?")}
_CRON_FILTERS = {**_SHARED, "state": Where(("active", "paused", "removed"), sql="state = ?")}
_GENERATOR_FILTERS = {**_SHARED, "state": Where(("active", "removed"), sql="state = ?")}
_CRON_COLUMNS = (
    *("sequence", "name", "state", "author", "cron", "interval_s", "timezone", "jitter_s", "wait_previous"),
    *("catch_up", "nodes", "added_at", "changed_by", "changed_at", "reason"),
)
_GENERATOR_COLUMNS = (
    *("sequence", "name", "state", "author", "trigger", "timeout_s", "nodes", "packed", "packed_at"),
    *("added_at", "removed_by", "removed_at", "reason"),
)
_LAST_RUNS = f"""
SELECT runs.*, workflows.state, workflows.submitted_at, workflows.ended_at
FROM {{view}}_runs AS runs LEFT JOIN workflows ON workflows.id = runs.workflow
WHERE runs.added = ? ORDER BY runs.sequence DESC LIMIT {LAST_RUNS}
"""


class Crons:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "crons"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = _CRONS
    filters: ClassVar[Mapping[str, Filter]] = _CRON_FILTERS
    sorts: ClassVar[Sequence[str]] = ("-added", "name")
    listing: ClassVar[Listing] = Listing(
        "crons", _CRON_COLUMNS, _CRON_FILTERS, {"added": "sequence", "name": "name"}
    )

    def fold(self, batch: Batch) -> Iterable[Write]:
        for record in batch.others:
            if record.kind == "cron":
                yield from _of_cron(record)
            elif record.kind == "workflow" and isinstance(record.event, WorkflowSubmitted):
                source = record.event.source
                if source is not None and source.kind == "cron":
                    due_at = None if source.due is None else source.due // 1_000
                    yield _CRON_RUN, [(source.added, record.sequence, record.entity, due_at)]

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """Crons with `next`, when each is due next, and `runs`, the last of them."""
        now = await moment_us(at)
        rows, keys, more = await self.listing.page(asked, at)
        items = []
        for row in rows:
            runs = await at.select(_LAST_RUNS.format(view="crons"), (row["sequence"],))
            items.append(
                {
                    **_shown(row, _CRON_COLUMNS),
                    "wait_previous": bool(row["wait_previous"]),
                    "next": rfc3339_of(_next(row, now)) if row["state"] == "active" else None,
                    "runs": [{**_run(run), "due": rfc3339_of(run["due_at"])} for run in runs],
                }
            )
        return Page(items, keys, more)


class Generators:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "generators"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = _GENERATORS
    filters: ClassVar[Mapping[str, Filter]] = _GENERATOR_FILTERS
    sorts: ClassVar[Sequence[str]] = ("-added", "name")
    listing: ClassVar[Listing] = Listing(
        "generators", _GENERATOR_COLUMNS, _GENERATOR_FILTERS, {"added": "sequence", "name": "name"}
    )

    def fold(self, batch: Batch) -> Iterable[Write]:
        for record in batch.others:
            if record.kind == "generator":
                yield from _of_generator(record)
            elif record.kind == "workflow" and isinstance(record.event, WorkflowSubmitted):
                source = record.event.source
                if source is not None and source.kind == "generator":
                    said = (source.added, record.sequence, record.entity, source.run, source.count)
                    yield _GENERATOR_RUN, [said]

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """Generators: `packed` arguments of which `submitted` went into runs; `runs` are the last."""
        rows, keys, more = await self.listing.page(asked, at)
        items = []
        for row in rows:
            runs = await at.select(_LAST_RUNS.format(view="generators"), (row["sequence"],))
            sums = await at.select(
                "SELECT count(*) AS runs, coalesce(sum(count), 0) AS submitted FROM generators_runs "
                "WHERE added = ?",
                (row["sequence"],),
            )
            items.append(
                {
                    **_shown(row, _GENERATOR_COLUMNS),
                    "submitted": sums[0]["submitted"],
                    "runs_submitted": sums[0]["runs"],
                    "runs": [{**_run(run), "run": run["run"], "count": run["count"]} for run in runs],
                }
            )
        return Page(items, keys, more)


def _of_cron(record: Record) -> Iterator[Write]:
    sequence, time, name = record.sequence, record.time // 1_000, record.entity
    match record.event:
        case CronAdded() as event:
            when = (event.cron, event.interval_s, event.zone, event.jitter_s)
            how = (event.wait_previous, event.catch_up, _nodes(event.spec))
            yield _CRON, [(sequence, sequence, name, record.author, *when, *how, time)]
        case CronPaused(reason=reason):
            yield _CRON_CHANGED, [(sequence, "paused", record.author, time, reason, name)]
        case CronResumed():
            yield _CRON_CHANGED, [(sequence, "active", record.author, time, None, name)]
        case CronRemoved(reason=reason):
            yield _CRON_CHANGED, [(sequence, "removed", record.author, time, reason, name)]


def _of_generator(record: Record) -> Iterator[Write]:
    sequence, time, name = record.sequence, record.time // 1_000, record.entity
    match record.event:
        case GeneratorAdded(spec=spec, trigger=trigger, timeout_s=timeout_s):
            said = (trigger, timeout_s, _nodes(spec))
            yield _GENERATOR, [(sequence, sequence, name, record.author, *said, time)]
        case GeneratorPacked(args=args):
            yield _PACKED, [(sequence, len(args), time, name)]
        case GeneratorRemoved(reason=reason):
            yield _GENERATOR_REMOVED, [(sequence, record.author, time, reason, name)]


def _nodes(spec: WorkflowSpec) -> str:
    return json.dumps([node.name for node in spec.nodes[:MAX_NODES_NAMED]])


def _next(row: Row, now: int) -> int | None:
    """When it is due next. What it was paused for lies behind us."""
    schedule = Schedule(row["cron"], row["interval_s"], row["timezone"], row["jitter_s"])
    due = schedule.next(now * 1_000, row["added_at"] * 1_000)
    return None if due is None else due // 1_000


def _shown(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    item = {name: rfc3339_of(row[name]) if name.endswith("_at") else row[name] for name in columns}
    return {**item, "nodes": json.loads(row["nodes"])}


def _run(row: Row) -> dict[str, Any]:
    times = {name: rfc3339_of(row[name]) for name in ("submitted_at", "ended_at")}
    return {"id": row["workflow"], "state": row["state"], **times}
