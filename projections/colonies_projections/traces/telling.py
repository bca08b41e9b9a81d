"""From judged events to spans, one event at a time: what it takes to know of the processes and workflows that
are under way.

All of it can be read again from the ledger, so nothing is kept when a service ends, and what is kept
meanwhile is limited. It judges nothing: it is given verdicts.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from colonies.core.events import Event, Queued, Record, Submitted, WorkflowSubmitted
from colonies.core.process import Process, evolve
from colonies.core.workflow import dag_of
from colonies.errors import NotFound, Unavailable
from colonies.history import Judged
from colonies.looking import WorkflowNow, workflow_now
from colonies.session import Session
from colonies_projections.traces.spans import Span, base_of, span_of_workflow, spans_of

MAX_PROCESSES = 50_000  # under way
MAX_NODES = 200_000  # that have not ended, of all workflows under way
AGAIN_S = 0.5

T = TypeVar("T")

_log = structlog.get_logger("colonies.traces")


@dataclass(slots=True)
class _Left:
    """The processes of a workflow that have not ended. `surely`: none of them is a node that maps, in whose
    place there may be parts by now."""

    processes: set[str]
    surely: bool = True


class Teller:
    """Tells the events of one ledger as spans, on a session of any member. Give it all, in order."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._colony = session.ledger.colony
        self._processes: OrderedDict[str, Process] = OrderedDict()
        self._workflows: OrderedDict[str, _Left] = OrderedDict()
        self._nodes = 0

    async def take(self, seen: Judged) -> list[Span]:
        """The spans that end with this event. While the broker is away, it waits."""
        record = seen.record
        if record is None or not seen.verdict.valid:
            return []
        if record.kind == "process":
            return await self._of_process(record)
        if isinstance(record.event, WorkflowSubmitted):
            return await self._begun(record)
        return []

    # --- processes -----------------------------------------------------------------------------------

    async def _of_process(self, record: Record) -> list[Span]:
        before = await self._before(record)
        known = self.session.knowledge
        after = _light(evolve(before, record, known))
        found = spans_of(self._colony, before, after, record)
        if not after.final:
            self._processes[after.id] = after
            self._processes.move_to_end(after.id)
            if len(self._processes) > MAX_PROCESSES:
                self._processes.popitem(last=False)
            return found
        self._processes.pop(after.id, None)
        if after.workflow is not None:
            known.remember(after)
            if base_of(self._colony, after.trace, after.workflow, after.id).sampled:
                found += await self._of_workflow(after, record)
        return found

    async def _before(self, record: Record) -> Process | None:
        """The process as it was before this event."""
        found = self._processes.get(record.entity)
        if found is not None or isinstance(record.event, Queued | Submitted):
            return found
        if record.prev is None and self._knows_node(record.event, record.sequence):
            return None
        story = await _patiently(lambda: self.session.story(record.entity))
        for seen in story.judged:
            if seen.record is not None and seen.verdict.valid and seen.stored.sequence < record.sequence:
                found = evolve(found, seen.record, self.session.knowledge)
        return _light(found) if found is not None else None

    def _knows_node(self, event: Event, sequence: int) -> bool:
        """Is what the first event of a node stands on known here?"""
        known = self.session.knowledge
        workflow = known.workflow(getattr(event, "workflow", None) or "")
        label = getattr(event, "node", None)
        return (
            workflow is not None
            and bool(label)
            and dag_of(workflow, known, before=sequence).node(str(label)) is not None
        )

    # --- workflows -----------------------------------------------------------------------------------

    async def _begun(self, record: Record) -> list[Span]:
        """A workflow begins; all that it needs may have been taken over from another."""
        workflow = self.session.knowledge.workflow(record.entity)
        if workflow is None:
            workflow = await _patiently(lambda: self.session.workflow(record.entity))
        if not base_of(self._colony, workflow.trace, workflow.id, "").sampled:
            return []
        if workflow.reuses:
            return await self._looked_at(workflow.id, record)
        certain = {workflow.process_of(node.name) for node in workflow.spec.nodes if node.map is None}
        self._keep(workflow.id, _Left(certain, bool(certain)))
        return []

    async def _of_workflow(self, process: Process, record: Record) -> list[Span]:
        """A node ended; perhaps it was the last."""
        assert process.workflow is not None
        left = self._workflows.get(process.workflow)
        if left is not None:
            if process.id in left.processes:
                left.processes.discard(process.id)
                self._nodes -= 1
            if left.surely and left.processes:
                return []
        return await self._looked_at(process.workflow, record)

    async def _looked_at(self, id: str, record: Record) -> list[Span]:
        """See which of its nodes have not ended with this event; what is read may be later than that."""
        now = await _patiently(lambda: workflow_now(self, id))
        left = {
            node.id: node.node.map is None or node.label != node.node.name
            for node in now.nodes
            if node.process is None or not node.process.final or node.process.sequence > record.sequence
        }
        certain = {process for process, surely in left.items() if surely}
        if left:
            self._keep(id, _Left(certain or set(left), bool(certain)))
            return []
        self._drop(id)
        return [self._whole(now)]

    def _whole(self, now: WorkflowNow) -> Span:
        workflow = now.workflow
        ends = [node.process.time for node in now.nodes if node.process is not None]
        end = max([workflow.submitted_at, *ends])
        return span_of_workflow(self._colony, workflow, [n.node for n in now.nodes], now.state, end)

    def _keep(self, id: str, left: _Left) -> None:
        self._drop(id)
        self._workflows[id] = left
        self._nodes += len(left.processes)
        while self._nodes > MAX_NODES and len(self._workflows) > 1:
            self._drop(next(iter(self._workflows)))

    def _drop(self, id: str) -> None:
        if (left := self._workflows.pop(id, None)) is not None:
            self._nodes -= len(left.processes)


def _light(process: Process) -> Process:
    """As far as its spans need it."""
    spec = process.spec
    if spec.args or spec.kwargs or spec.env:
        spec = spec.model_copy(update={"args": [], "kwargs": {}, "env": {}})
        process = replace(process, spec=spec)
    return replace(process, signals=()) if process.signals else process


async def _patiently(read: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await read()
        except (Unavailable, NotFound) as error:
            _log.debug("ledger not read", error=str(error))
            await asyncio.sleep(AGAIN_S)
