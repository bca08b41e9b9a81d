"""The view of nodes: those of one workflow as a graph, each with its state, its process and its parents.

States are those of the view of workflows, the rest that of processes; here is only what each node was
submitted with, or added with: its function and its parents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, get_args

from colonies.core.node import Node, split
from colonies.core.process import State, Successful
from colonies.errors import Invalid
from colonies_projections.listing import rfc3339_of
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Step, Write

MAX_PARENTS: Final = 1_000  # of a node, in an answer

_TABLES = """
CREATE TABLE nodes (
    workflow TEXT NOT NULL,
    name TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    func TEXT,
    runtimetype TEXT,
    signal TEXT,
    maps INTEGER NOT NULL,
    parents TEXT NOT NULL,
    PRIMARY KEY (workflow, name)
) WITHOUT ROWID;
"""
_INSERT = """
INSERT INTO nodes (workflow, name, sequence, func, runtimetype, signal, maps, parents)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_LABELS = "SELECT label, process, state FROM workflows_nodes WHERE workflow = ? AND state IS NOT NULL"
_NAMED = "SELECT * FROM nodes WHERE workflow = ? AND name IN (SELECT value FROM json_each(?))"
_PROCESSES = """
SELECT id, worker, attempts, submitted_at, started_at, ended_at FROM processes
WHERE id IN (SELECT value FROM json_each(?))
"""


class Nodes:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "nodes"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = {
        "workflow": Filter(),
        "state": Filter(get_args(State)),
        "label": Filter(),
    }
    sorts: ClassVar[Sequence[str]] = ("label",)

    def fold(self, batch: Batch) -> Iterable[Write]:
        submitted = [step for step in batch.workflows if step.first]
        yield (
            _INSERT,
            [
                _row(step.workflow.id, step.since, node)
                for step in submitted
                for node in step.workflow.spec.nodes
            ],
        )
        ended = [step for step in batch.steps if type(step.after.phase) is Successful]
        yield _INSERT, [row for step in ended for row in _added(step)]

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """`{label, node, state, process, func, runtimetype, signal, maps, parents, worker, attempts,
        submitted_at, started_at, ended_at}` by label. `parents` are names of nodes; those of a node that maps
        stand for all of its parts."""
        workflow = asked.filters.get("workflow")
        if workflow is None:
            raise Invalid("workflow: it is missing; say the id of the workflow whose nodes you want")
        query, values = _LABELS, [workflow]
        for name in ("state", "label"):
            if name in asked.filters:
                query += f" AND {name} = ?"
                values.append(asked.filters[name])
        if asked.after is not None:
            query += f" AND label {'<' if asked.down else '>'} ?"
            values.append(str(asked.after[0]))
        query += f" ORDER BY label {'DESC' if asked.down else 'ASC'} LIMIT ?"
        rows = await at.select(query, (*values, asked.limit + 1))
        shown = rows[: asked.limit]
        names = json.dumps(sorted({split(row["label"])[0] for row in shown}))
        nodes = {row["name"]: row for row in await at.select(_NAMED, (workflow, names))}
        ids = json.dumps([row["process"] for row in shown])
        processes = {row["id"]: row for row in await at.select(_PROCESSES, (ids,))}
        items = [_item(row, nodes[split(row["label"])[0]], processes.get(row["process"])) for row in shown]
        return Page(items, [(row["label"], 0) for row in shown], len(rows) > len(shown))


def _row(workflow: str, sequence: int, node: Node) -> tuple[Any, ...]:
    spec = node.spec
    runs = (spec.func, spec.conditions.runtimetype) if spec is not None else (None, None)
    signal = node.wait_signal.name if node.wait_signal is not None else None
    parents = json.dumps(list(node.parents))
    return (workflow, node.name, sequence, *runs, signal, node.map is not None, parents)


def _added(step: Step) -> Iterable[tuple[Any, ...]]:
    """The nodes that this event adds to its workflow."""
    process = step.after
    if process.workflow is None or not isinstance(process.phase, Successful) or not process.phase.adds:
        return ()
    return [_row(process.workflow, step.record.sequence, node) for node in process.phase.adds]


def _item(row: Row, node: Row, process: Row | None) -> dict[str, Any]:
    of = process or dict.fromkeys(("worker", "submitted_at", "started_at", "ended_at"))
    return {
        "label": row["label"],
        "node": node["name"],
        "state": row["state"],
        "process": row["process"],
        "func": node["func"],
        "runtimetype": node["runtimetype"],
        "signal": node["signal"],
        "maps": bool(node["maps"]),
        "parents": json.loads(node["parents"])[:MAX_PARENTS],
        "worker": of["worker"],
        "attempts": process["attempts"] if process is not None else 0,
        **{name: rfc3339_of(of[name]) for name in ("submitted_at", "started_at", "ended_at")},
    }
