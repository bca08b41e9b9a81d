"""The view of workflows: one row each, and one for each of their nodes and parts, those included that wait
still.

State and numbers come with the batch (`colonies_projections.progress`), so an event costs as much in a
workflow of ten thousand nodes as in one of three.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

from colonies.core.workflow import Workflow, WorkflowState
from colonies_projections.listing import BEGINS, Listing, Where, like, microseconds, rfc3339_of
from colonies_projections.progress import WorkflowStep
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Write

# `sequence` is that of the submission, so the newest is the last row. `source` is what it comes from, if not
# from a member's own hand, such as `cron nightly`. Times are microseconds since 1970. A node without a state
# is there no more: its parts are in its place.
_TABLES = """
CREATE TABLE workflows (
    sequence INTEGER PRIMARY KEY,
    since INTEGER NOT NULL,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    label TEXT,
    state TEXT NOT NULL,
    nodes INTEGER NOT NULL,
    done INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    submitter TEXT NOT NULL,
    source TEXT,
    submitted_at INTEGER NOT NULL,
    ended_at INTEGER
);
CREATE INDEX workflows_state ON workflows (state);
CREATE INDEX workflows_name ON workflows (name) WHERE name IS NOT NULL;
CREATE INDEX workflows_label ON workflows (label) WHERE label IS NOT NULL;
CREATE INDEX workflows_ended_at ON workflows (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE workflows_nodes (
    workflow TEXT NOT NULL,
    label TEXT NOT NULL,
    since INTEGER NOT NULL,
    process TEXT NOT NULL,
    state TEXT,
    PRIMARY KEY (workflow, label)
) WITHOUT ROWID;
"""

_INSERT = """
INSERT INTO workflows (
    since, state, nodes, done, failed, ended_at, id, sequence, name, label, submitter, source, submitted_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = (
    "UPDATE workflows SET since = ?, state = ?, nodes = ?, done = ?, failed = ?, ended_at = ? WHERE id = ?"
)
_NODE = """
INSERT INTO workflows_nodes (workflow, label, since, process, state) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET since = excluded.since, process = excluded.process, state = excluded.state
"""
_SHOWN = (
    *("id", "name", "label", "state", "nodes", "done", "failed", "submitter", "source"),
    *("submitted_at", "ended_at"),
)


_FILTERS = {
    "id": Where(column="id"),
    "state": Where(get_args(WorkflowState), several=True, column="state"),
    "name": Where(column="name"),
    "label": Where(column="label"),
    "submitter": Where(sql="submitter = ?"),
    "source": Where(sql="source = ?"),
    "begins": BEGINS,
    "since": Where(read=microseconds, sql="submitted_at >= ?"),
    "until": Where(read=microseconds, sql="submitted_at < ?"),
    "text": Where(
        read=like, sql="coalesce(name, '') || ' ' || coalesce(label, '') || ' ' || id LIKE ? ESCAPE '\\'"
    ),
}


class Workflows:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "workflows"
    version: ClassVar[int] = 2
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = _FILTERS
    sorts: ClassVar[Sequence[str]] = ("-submitted", "ended", "id")
    listing: ClassVar[Listing] = Listing(
        "workflows", _SHOWN, _FILTERS, {"submitted": "sequence", "ended": "ended_at", "id": "id"}
    )

    def fold(self, batch: Batch) -> Iterable[Write]:
        first = [step for step in batch.workflows if step.first]
        yield _INSERT, [(*_moving(step), step.workflow.id, *_fixed(step.workflow)) for step in first]
        later = [step for step in batch.workflows if not step.first]
        yield _UPDATE, [(*_moving(step), step.workflow.id) for step in later]
        yield _NODE, [(row.workflow, row.label, row.since, row.process, row.state) for row in batch.nodes]

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """`{id, name, label, state, nodes, done, failed, submitter, source, submitted_at, ended_at}`: `nodes`
        is how many nodes and parts there are, as far as is known, `done` how many of them are final."""
        rows, keys, more = await self.listing.page(asked, at)
        return Page([_item(row) for row in rows], keys, more)


def _item(row: Row) -> dict[str, Any]:
    times = {name: rfc3339_of(row[name]) for name in ("submitted_at", "ended_at")}
    return {**{name: row[name] for name in _SHOWN}, **times}


def _moving(step: WorkflowStep) -> Iterator[Any]:
    """What changes in a workflow's life."""
    yield step.since
    yield step.state
    yield step.nodes
    yield step.done
    yield step.failed
    yield step.ended_at // 1_000 if step.ended_at is not None else None


def _fixed(workflow: Workflow) -> Iterator[Any]:
    """What its submission says for ever."""
    yield workflow.sequence
    yield workflow.spec.name
    yield workflow.spec.label
    yield workflow.submitter
    yield f"{workflow.source.kind} {workflow.source.name}" if workflow.source is not None else None
    yield workflow.submitted_at // 1_000
