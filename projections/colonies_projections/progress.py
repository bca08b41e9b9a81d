"""How far workflows are, kept up event by event: an event costs what it changes, however large the workflow
is.

What nodes and parts there are says `colonies.core.dag`, what state that makes says `colonies.core.workflow`;
here they are counted. A node that maps becomes its parts at the event that ends the last of those it waits
for. To know that event, memory has whom each of these still waits for; it is derived from the workflow
whenever it is not there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from colonies.core.dag import Dag
from colonies.core.ends import End
from colonies.core.events import WorkflowCancelled, WorkflowSubmitted
from colonies.core.node import Node, label_of
from colonies.core.process import Process, State
from colonies.core.values import struct
from colonies.core.workflow import Known, Nothing, Workflow, WorkflowState, dag_of, end_of, is_final, state_of
from colonies.history import Judged

if TYPE_CHECKING:
    from colonies_projections.memory import Memory

_NODES = {allowed: Node("", None, (), allow_failure=allowed) for allowed in (False, True)}


@dataclass(slots=True)
class Progress:
    """How far one workflow is. `counts` says of each state how many nodes and parts are in it, `allowed` how
    many of these may fail. `pending` are the nodes that map and may turn out to be parts yet. `ended_at` (ns)
    is None as long as it runs; `cancelled_last` is the sequence at which a node was last cancelled.
    """

    counts: dict[State, int] = field(default_factory=dict)
    allowed: dict[State, int] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    state: WorkflowState = "running"
    ended_at: int | None = None
    cancelled_last: int = 0

    @property
    def nodes(self) -> int:
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """How many will not change any more."""
        return sum(number for state, number in self.counts.items() if is_final(state))

    def count(self, state: State, node: Node, by: int) -> None:
        for counts in (self.counts, self.allowed) if node.allow_failure else (self.counts,):
            counts[state] = counts.get(state, 0) + by
            if counts[state] == 0:
                del counts[state]

    def settle(self, workflow: Workflow, time: int) -> None:
        """Derive the state from the counts, by the library's own rule: it asks for no more than one of each
        kind."""
        self.state = state_of(workflow, self._one_of_each())
        self.ended_at = None if self.state == "running" else self.ended_at or time

    def _one_of_each(self) -> Iterator[tuple[Node, End | None]]:
        for state, number in self.counts.items():
            allowed = self.allowed.get(state, 0)
            sequence = self.cancelled_last if state == "cancelled" else 0
            end = End("", sequence, 0, state) if is_final(state) else None
            if number > allowed:
                yield _NODES[False], end
            if allowed:
                yield _NODES[True], end

    def wire(self) -> dict[str, Any]:
        """The plain form: what is equal is also written alike."""
        return {
            "counts": dict(sorted(self.counts.items())),
            "allowed": dict(sorted(self.allowed.items())),
            "pending": sorted(self.pending),
            "state": self.state,
            "ended_at": self.ended_at,
            "cancelled_last": self.cancelled_last,
        }


@struct
class NodeRow:
    """A node or part as the event at `since` made it. Without a state it is there no more: its parts are in
    its place."""

    since: int
    workflow: str
    label: str
    process: str
    state: State | None


@struct
class WorkflowStep:
    """A workflow as the event at `since` made it; `ended_at` (ns) is None as long as it runs."""

    since: int
    workflow: Workflow
    state: WorkflowState
    nodes: int
    done: int
    failed: int
    ended_at: int | None

    @property
    def first(self) -> bool:
        """Is it the event that submitted it?"""
        return self.since == self.workflow.sequence


class Progresses:
    """Keeps up the progress of all workflows. `rows` is what changed of nodes and `steps` what changed of
    workflows, both in order, since `forget` was called last."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._history = memory.history
        self._waits: dict[str, _Waits] = {}
        self._at = 0
        self.rows: list[NodeRow] = []
        self.steps: list[WorkflowStep] = []

    @property
    def touched(self) -> set[str]:
        """The workflows that changed."""
        return {step.workflow.id for step in self.steps}

    def forget(self) -> None:
        """The batch is committed."""
        self.rows, self.steps = [], []
        held = self._memory.held["progress"]
        for id in [id for id in self._waits if id not in held or not held[id].pending]:
            del self._waits[id]

    async def after(self, judged: Judged, before: Process | None) -> None:
        """Take in what the history has just folded; `before` is what that process was before."""
        record = judged.record
        if record is None or not judged.verdict.valid:
            return
        self._at = record.sequence
        if isinstance(record.event, WorkflowSubmitted | WorkflowCancelled):
            workflow = self._history.workflow(record.entity)
            assert workflow is not None
            if isinstance(record.event, WorkflowSubmitted):
                await self._begin(workflow)
            self._settle(workflow, await self._of(workflow), record.time)
        elif record.kind == "process":
            process = self._history.processes[record.entity]
            if process.workflow is not None and (before is None or before.state != process.state):
                await self._on_process(process, before)

    async def _on_process(self, process: Process, before: Process | None) -> None:
        assert process.workflow is not None
        assert process.node is not None
        id, label = process.workflow, process.node
        workflow = await self._memory.ask(lambda: self._history.workflow(id))
        assert workflow is not None
        progress = await self._of(workflow)
        node = await self._memory.ask(lambda: dag_of(workflow, self._history).node(label))
        assert node is not None
        progress.count(before.state if before is not None else "blocked", node, -1)
        progress.count(process.state, node, 1)
        if process.state == "cancelled" and not node.allow_failure:
            progress.cancelled_last = process.sequence
        self._row(id, label, process.id, process.state)
        if process.final:
            await self._ended(workflow, progress, process, label)
        self._settle(workflow, progress, process.time)

    async def _of(self, workflow: Workflow) -> Progress:
        progress = await self._memory.get("progress", workflow.id)
        assert isinstance(progress, Progress)
        return progress

    def _settle(self, workflow: Workflow, progress: Progress, time: int) -> None:
        progress.settle(workflow, time)
        failed = progress.counts.get("failed", 0)
        numbers = (progress.nodes, progress.done, failed, progress.ended_at)
        self.steps.append(WorkflowStep(self._at, workflow, progress.state, *numbers))

    def _row(self, workflow: str, label: str, process: str, state: State | None) -> None:
        self.rows.append(NodeRow(self._at, workflow, label, process, state))

    async def _begin(self, workflow: Workflow) -> None:
        """Count all nodes and parts that there are."""
        progress = self._memory.held["progress"][workflow.id] = Progress()
        known = _Reused(workflow, self._history)
        for node, parts, found in await self._memory.ask(lambda: list(_walk(workflow, known))):
            if node.map is not None and parts is None and not is_final(found[0][2]):
                progress.pending.add(node.name)
            for label, id, state in found:
                progress.count(state, node, 1)
                self._row(workflow.id, label, id, state)

    # --- nodes that map --------------------------------------------------------------------------------

    async def _ended(self, workflow: Workflow, progress: Progress, process: Process, label: str) -> None:
        end = end_of(process)
        assert end is not None
        progress.pending.discard(label)
        look = []
        for node in end.adds:
            progress.count("blocked", node, 1)
            self._row(workflow.id, node.name, workflow.process_of(node.name), "blocked")
            if node.map is not None:
                progress.pending.add(node.name)
                look.append(node.name)
        if not progress.pending:
            return
        waits = self._waits.get(workflow.id)
        if waits is None:
            waits = self._waits[workflow.id] = _Waits()
            look = sorted(progress.pending)
        await self._look(workflow, progress, waits, [*look, *waits.told(label)])

    async def _look(
        self, workflow: Workflow, progress: Progress, waits: _Waits, names: Iterable[str]
    ) -> None:
        """See whether these nodes are parts now; if so, perhaps others that wait for them are as well."""
        dag = dag_of(workflow, self._history)
        left = deque(names)
        while left:
            name = left.popleft()
            if name not in progress.pending:
                continue
            node, parts, missing, mapped = await self._memory.ask(partial(_expanded, dag, name))
            if parts is None:
                # A parent that maps either ends as a whole or becomes its parts; these end then.
                still = mapped & progress.pending
                waits.wait(name, missing - (mapped - still), still)
                continue
            progress.pending.discard(name)
            progress.count("blocked", node, -1)
            progress.count("blocked", node, parts)
            self._row(workflow.id, name, "", None)
            for label in (label_of(name, number) for number in range(parts)):
                self._row(workflow.id, label, workflow.process_of(label), "blocked")
            left.extend(waits.told(name))


class _Waits:
    """Of nodes that map: the labels of those whose ends they still wait for, and of those that are to be
    looked at whatever else is missing."""

    def __init__(self) -> None:
        self._missing: dict[str, tuple[set[str], set[str]]] = {}
        self._by: dict[str, list[str]] = {}

    def wait(self, name: str, labels: set[str], at_once: set[str]) -> None:
        self._missing[name] = labels, at_once
        for label in labels | at_once:
            self._by.setdefault(label, []).append(name)

    def told(self, label: str) -> list[str]:
        """Those to look at, now that this has ended or turned out to be parts."""
        found = []
        for name in self._by.pop(label, ()):
            missing, at_once = self._missing.get(name, (set(), set()))
            missing.discard(label)
            if name in self._missing and (not missing or label in at_once):
                del self._missing[name]
                found.append(name)
        return found


class _Reused(Nothing):
    """Knows of the processes whose results a workflow takes, and of no other: it was not there before."""

    def __init__(self, workflow: Workflow, known: Known) -> None:
        self._ids = set((workflow.reuses or {}).values())
        self._known = known

    def process(self, id: str) -> Process | None:
        return self._known.process(id) if id in self._ids else None


def _walk(
    workflow: Workflow, known: Known
) -> Iterator[tuple[Node, int | None, list[tuple[str, str, State]]]]:
    """Every node there is, with its number of parts, and each with label, process and state."""
    for node, parts, labels in dag_of(workflow, known).walk():
        found: list[tuple[str, str, State]] = []
        for label in labels:
            id = workflow.process_of(label)
            process = known.process(id)
            found.append((label, id, process.state if process is not None else "blocked"))
        yield node, parts, found


def _expanded(dag: Dag, name: str) -> tuple[Node, int | None, set[str], set[str]]:
    """A node that maps, its number of parts, or whom it waits for, and which of its parents map."""
    node = dag.node(name)
    assert node is not None
    parts = dag.mapped(node)
    if parts is not None:
        return node, parts, set(), set()
    unfolded = dag.unfold(node)
    return node, None, set(unfolded.missing), set(unfolded.mapped)
