"""The view of processes: one row each, with all that `colonies.show` shows of a process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

from pydantic_core import to_json

from colonies.core.process import Awaiting, Process, State, Successful, Waiting
from colonies.show import process_object, rfc3339
from colonies_projections.view import Asked, Batch, Snapshot, Write

# In answers only; the tables hold everything that stands on the ledger.
MAX_VALUE_BYTES = 4_096
MAX_LISTED = 10
MAX_ERROR_CHARS = 512

# `sequence` is that of the first event, so the newest is the last row. args_stored and output_stored name the
# object in the Object Store that holds a value too large for an event.
_TABLES = """
CREATE TABLE processes (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    waiting_since TEXT,
    func TEXT NOT NULL,
    args TEXT,
    args_stored TEXT,
    runtimetype TEXT NOT NULL,
    queue TEXT NOT NULL,
    label TEXT,
    workflow TEXT,
    node TEXT,
    priority INTEGER NOT NULL,
    submitter TEXT NOT NULL,
    worker TEXT,
    attempts TEXT NOT NULL,
    submitted_at TEXT NOT NULL,
    started_at TEXT,
    ended_at TEXT,
    output TEXT,
    output_stored TEXT,
    errors TEXT NOT NULL
);
CREATE INDEX processes_state ON processes (state);
CREATE INDEX processes_func ON processes (func);
CREATE INDEX processes_runtimetype ON processes (runtimetype);
CREATE INDEX processes_workflow ON processes (workflow) WHERE workflow IS NOT NULL;
"""

_INSERT = """
INSERT INTO processes (
    state, waiting_since, worker, attempts, started_at, ended_at, output, output_stored, errors,
    id, sequence, func, args, args_stored, runtimetype, queue, label, workflow, node, priority, submitter,
    submitted_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
UPDATE processes SET state = ?, waiting_since = ?, worker = ?, attempts = ?, started_at = ?, ended_at = ?,
    output = ?, output_stored = ?, errors = ?
WHERE id = ?
"""
_SELECT = f"""
SELECT id, state, func, runtimetype, label, workflow, node, priority, submitter, worker, attempts,
    submitted_at, started_at, ended_at, errors,
    CASE WHEN length(CAST(args AS BLOB)) <= {MAX_VALUE_BYTES} THEN args END AS args,
    CASE WHEN length(CAST(output AS BLOB)) <= {MAX_VALUE_BYTES} THEN output END AS output,
    args IS NOT NULL OR args_stored IS NOT NULL AS has_args,
    output IS NOT NULL OR output_stored IS NOT NULL AS has_output
FROM processes WHERE true
"""


class Processes:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "processes"
    version: ClassVar[int] = 3
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Sequence[str] | None]] = {
        "state": get_args(State),
        "func": None,
        "runtimetype": None,
        "workflow": None,
    }

    def fold(self, batch: Batch) -> Iterable[Write]:
        born = {
            record.entity: record.sequence
            for judged in batch.judged
            if judged.verdict.valid and (record := judged.record) is not None and record.prev is None
        }
        new: list[tuple[Any, ...]] = []
        changed: list[tuple[Any, ...]] = []
        for process in batch.processes.values():
            shown = process_object(process)
            moving = (*_moving(process, shown), process.id)
            if process.id in born:
                new.append((*moving, born[process.id], *_fixed(process, shown)))
            else:
                changed.append(moving)
        yield _INSERT, new
        yield _UPDATE, changed

    async def answer(self, asked: Asked, at: Snapshot) -> list[dict[str, Any]]:
        wanted = "".join(f" AND {name} = ?" for name in asked.filters)
        query = f"{_SELECT}{wanted} ORDER BY sequence DESC LIMIT ?"
        return [_item(row) for row in await at.select(query, (*asked.filters.values(), asked.limit))]


def _moving(process: Process, shown: dict[str, Any]) -> Iterator[Any]:
    """What changes in a process's life."""
    phase = process.phase
    successful = isinstance(phase, Successful)
    stored = phase.stored if isinstance(phase, Successful) else None
    yield shown["state"]
    yield rfc3339(phase.since) if isinstance(phase, Waiting | Awaiting) else None
    yield shown["worker"]
    yield _json(shown["attempts"])
    yield shown["started_at"]
    yield shown["ended_at"]
    yield _json(shown["output"]) if successful and stored is None else None
    yield stored.object if stored is not None else None
    yield _json(shown["errors"])


def _fixed(process: Process, shown: dict[str, Any]) -> Iterator[Any]:
    """What its first event says for ever."""
    stored = process.arguments
    yield shown["func"]
    yield _json(shown["args"]) if stored is None else None
    yield stored.object if stored is not None else None
    yield shown["runtimetype"]
    yield process.queue
    yield shown["label"]
    yield process.workflow
    yield process.node
    yield shown["priority"]
    yield shown["submitter"]
    yield shown["submitted_at"]


def _json(value: Any) -> str:
    return to_json(value).decode()


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as `colonies.show.process_object`; what was left out for its size is named in `left_out`."""
    left_out = [name for name in ("args", "output") if row[name] is None and row[f"has_{name}"]]
    attempts: list[dict[str, Any]] = json.loads(row["attempts"])
    errors: list[str] = json.loads(row["errors"])
    if len(attempts) > MAX_LISTED:
        left_out.append("attempts")
    if len(errors) > MAX_LISTED or any(len(error) > MAX_ERROR_CHARS for error in errors):
        left_out.append("errors")
    for attempt in attempts:
        attempt["error"] = attempt["error"] and attempt["error"][:MAX_ERROR_CHARS]
    item = {
        "id": row["id"],
        "state": row["state"],
        "func": row["func"],
        "args": row["args"] and json.loads(row["args"]),
        "runtimetype": row["runtimetype"],
        "label": row["label"],
        "workflow": row["workflow"],
        "node": row["node"],
        "priority": row["priority"],
        "submitter": row["submitter"],
        "worker": row["worker"],
        "attempts": attempts[-MAX_LISTED:],
        "submitted_at": row["submitted_at"],
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "output": row["output"] and json.loads(row["output"]),
        "errors": [error[:MAX_ERROR_CHARS] for error in errors[-MAX_LISTED:]],
    }
    return {**item, "left_out": left_out} if left_out else item
