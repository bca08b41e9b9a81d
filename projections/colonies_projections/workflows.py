"""The view of workflows: one row each, and one for each of their nodes and parts, those included that wait
still.

State and numbers come with the batch (`colonies_projections.progress`), so an event costs as much in a
workflow of ten thousand nodes as in one of three.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, get_args

from colonies.core.events import WorkflowSubmitted
from colonies.core.workflow import Workflow, WorkflowState
from colonies.show import rfc3339
from colonies_projections.progress import NodeRow, Progress
from colonies_projections.view import Asked, Batch, Snapshot, Write

# `sequence` is that of the submission, so the newest is the last row. `source` is what it comes from, if not
# from a member's own hand, such as `cron nightly`.
_TABLES = """
CREATE TABLE workflows (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    label TEXT,
    state TEXT NOT NULL,
    nodes INTEGER NOT NULL,
    done INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    submitter TEXT NOT NULL,
    source TEXT,
    submitted_at TEXT NOT NULL,
    ended_at TEXT
);
CREATE INDEX workflows_state ON workflows (state);
CREATE INDEX workflows_name ON workflows (name);
CREATE TABLE workflows_nodes (
    workflow TEXT NOT NULL,
    label TEXT NOT NULL,
    process TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (workflow, label)
) WITHOUT ROWID;
"""

_INSERT = """
INSERT INTO workflows (
    state, nodes, done, failed, ended_at, id, sequence, name, label, submitter, source, submitted_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = "UPDATE workflows SET state = ?, nodes = ?, done = ?, failed = ?, ended_at = ? WHERE id = ?"
_GONE = "DELETE FROM workflows_nodes WHERE workflow = ? AND label = ?"
_NODE = "INSERT OR REPLACE INTO workflows_nodes (workflow, label, process, state) VALUES (?, ?, ?, ?)"
_SHOWN = (
    *("id", "name", "label", "state", "nodes", "done", "failed", "submitter", "source"),
    *("submitted_at", "ended_at"),
)


class Workflows:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "workflows"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Sequence[str] | None]] = {
        "state": get_args(WorkflowState),
        "name": None,
        "label": None,
        "submitter": None,
        "source": None,
    }

    def fold(self, batch: Batch) -> Iterable[Write]:
        submitted = {
            judged.record.entity
            for judged in batch.judged
            if judged.verdict.valid
            and judged.record is not None
            and isinstance(judged.record.event, WorkflowSubmitted)
        }
        found = {id: (*_moving(progress), id) for id, (_, progress) in batch.workflows.items()}
        yield _INSERT, [(*found[id], *_fixed(batch.workflows[id][0])) for id in found.keys() & submitted]
        yield _UPDATE, [found[id] for id in found.keys() - submitted]
        for statement, rows in groupby(batch.nodes, _statement):
            yield statement, [_row(statement, row) for row in rows]

    async def answer(self, asked: Asked, at: Snapshot) -> list[dict[str, Any]]:
        """`{id, name, label, state, nodes, done, failed, submitter, source, submitted_at, ended_at}`: `nodes`
        is how many nodes and parts there are, as far as is known, `done` how many of them are final."""
        wanted = "".join(f" AND {name} = ?" for name in asked.filters)
        query = f"SELECT {', '.join(_SHOWN)} FROM workflows WHERE true{wanted} ORDER BY sequence DESC LIMIT ?"
        return [dict(row) for row in await at.select(query, (*asked.filters.values(), asked.limit))]


def _moving(progress: Progress) -> Iterator[Any]:
    """What changes in a workflow's life."""
    yield progress.state
    yield progress.nodes
    yield progress.done
    yield progress.counts.get("failed", 0)
    yield rfc3339(progress.ended_at) if progress.ended_at is not None else None


def _fixed(workflow: Workflow) -> Iterator[Any]:
    """What its submission says for ever."""
    yield workflow.sequence
    yield workflow.spec.name
    yield workflow.spec.label
    yield workflow.submitter
    yield f"{workflow.source.kind} {workflow.source.name}" if workflow.source is not None else None
    yield rfc3339(workflow.submitted_at)


def _statement(row: NodeRow) -> str:
    return _GONE if row.state is None else _NODE


def _row(statement: str, row: NodeRow) -> Sequence[Any]:
    place = (row.workflow, row.label)
    return place if statement == _GONE else (*place, row.process, row.state)
