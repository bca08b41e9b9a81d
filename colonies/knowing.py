"""What one member knows of workflows and of how their nodes ended: read from the ledger when it is needed.

A verifier of one process brings this along (`colonies.core.workflow.Known`). Final is final, so an end that
was judged once is kept; a workflow is read again when something later than the last reading depends on it.
Its event names all ancestors of a node, so these are read together, judged parents first. It writes nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from colonies import subjects
from colonies.core.colony import Colony
from colonies.core.dag import Dag
from colonies.core.events import (
    Awaited,
    Cancelled,
    Record,
    Released,
    Skipped,
    Source,
    Verdict,
    WorkflowSubmitted,
)
from colonies.core.node import adder_of, split
from colonies.core.process import Process
from colonies.core.states import ULID
from colonies.core.workflow import NOTHING, Sourced, Workflow, dag_of
from colonies.history import WorkflowStory, examine, fold_process, fold_workflow
from colonies.ledger import Ledger, Stored

if TYPE_CHECKING:
    from colonies.session import Session

MAX_ENDS_KEPT = 50_000  # processes
MAX_NODES_KEPT = 50_000  # of all workflows that are kept
AT_ONCE = 64  # reads under way
_ASKED: ContextVar[frozenset[str]] = ContextVar("colonies_asked", default=frozenset())


class Knowledge:
    """What a session has learned. `workflow` and `process` answer from it and never read."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stories: OrderedDict[str, tuple[WorkflowStory, int]] = OrderedDict()
        self._nodes = 0
        self._ends: OrderedDict[str, Process] = OrderedDict()

    # --- what a verifier asks ------------------------------------------------------------------------

    def workflow(self, id: str) -> Workflow | None:
        found = self._stories.get(id)
        return found[0].workflow if found is not None else None

    def process(self, id: str) -> Process | None:
        return self._ends.get(id)

    def sourced(self, source: Source, record: Record) -> Sourced | Verdict:
        return NOTHING.sourced(source, record)

    # --- learning ------------------------------------------------------------------------------------

    def remember(self, process: Process) -> None:
        """Keep how a process ended, which was judged."""
        if process.final:
            self._ends[process.id] = process
            self._ends.move_to_end(process.id)
            if len(self._ends) > MAX_ENDS_KEPT:
                self._ends.popitem(last=False)

    async def learn(self, messages: Sequence[Stored], *, fresh: bool = True) -> None:
        """Learn what is needed to judge the messages of one process.

        `fresh`: of its workflow also what was said between the last reading and the messages.
        """
        if not messages or ULID.match(process := subjects.process_of(messages[0].subject)):
            return
        places, causes = self._cited(messages)
        for id, label in places:
            workflow = await self._workflow_at(id, messages[-1].sequence if fresh else 0)
            if workflow is not None:
                await self._learn_parents(workflow, [label])
                await self._learn_causes(process, [workflow.process_of(cause) for cause in causes])

    def _cited(self, messages: Sequence[Stored]) -> tuple[Iterable[tuple[str, str]], Iterable[str]]:
        """Which nodes of which workflows these messages say that they are, and whose failure stopped them."""
        places: dict[tuple[str, str], None] = {}
        causes: dict[str, None] = {}
        for stored in messages:
            record = examine(self._session.colony, stored).record
            event = record.event if record is not None else None
            if isinstance(event, Released | Awaited | Skipped):
                places[event.workflow, event.node] = None
            elif isinstance(event, Cancelled):
                if event.workflow is not None and event.node is not None:
                    places[event.workflow, event.node] = None
                if event.cause is not None:
                    causes[event.cause] = None
        return places, causes

    async def _learn_causes(self, process: str, causes: Sequence[str]) -> None:
        """Learn how those ended that stopped this one: its parents are known, these may be no parents."""
        asked = _ASKED.get() | {process}  # else two that blame one another would be read for ever
        token = _ASKED.set(asked)
        try:
            await self._learn_processes([id for id in causes if id not in asked])
        finally:
            _ASKED.reset(token)

    async def story(self, id: str) -> WorkflowStory:
        """A workflow's own events, read from the leader, each judged."""
        messages = await self._ledger.read(subjects.guard_of("workflow", id))
        for stored in messages:
            await self.learn_sources(self._colony, stored)
        story = fold_workflow(self._colony, messages, self)
        if any(not seen.verdict.valid for seen in story.judged):
            await self._session.refresh()
            story = fold_workflow(self._colony, messages, self)
        return story

    async def learn_sources(self, colony: Colony, stored: Stored) -> None:
        """Learn what the submission of a workflow cites: another whose results it takes."""
        record = examine(colony, stored).record
        event = record.event if record is not None else None
        if isinstance(event, WorkflowSubmitted) and event.reuses and event.rerun_of is not None:
            await self._workflow_at(event.rerun_of, 0)
            await self._learn_processes(list(event.reuses.values()))

    async def _learn_processes(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), AT_ONCE):
            asked = [id for id in ids[start : start + AT_ONCE] if id not in self._ends]
            for story in await asyncio.gather(*map(self._session.story, asked)):
                if story.process is not None:
                    self.remember(story.process)

    async def _workflow_at(self, id: str, sequence: int) -> Workflow | None:
        """The workflow with all that was said of it before this sequence, which is stored already."""
        kept = self._stories.get(id)
        if kept is not None and kept[1] >= sequence and kept[0].workflow is not None:
            self._stories.move_to_end(id)
            return kept[0].workflow
        story = await self.story(id)
        self._keep(id, story, sequence)
        return story.workflow

    def _keep(self, id: str, story: WorkflowStory, sequence: int) -> None:
        if story.workflow is None:
            return
        self._forget_after(story.workflow)
        if (before := self._stories.pop(id, None)) is not None and before[0].workflow is not None:
            self._nodes -= len(before[0].workflow.spec.nodes)
        self._stories[id] = story, max(sequence, story.guard)
        self._nodes += len(story.workflow.spec.nodes)
        while self._nodes > MAX_NODES_KEPT and len(self._stories) > 1:
            _, (oldest, _) = self._stories.popitem(last=False)
            self._nodes -= len(oldest.workflow.spec.nodes) if oldest.workflow is not None else 0

    def _forget_after(self, workflow: Workflow) -> None:
        """What was released after the workflow's cancel is void; whoever had not heard of that believed
        it."""
        kept = self._stories.get(workflow.id)
        known = kept[0].workflow if kept is not None else None
        if workflow.cancelled_at is None or (known is not None and known.cancelled_at is not None):
            return
        doubtful = [
            id
            for id, end in self._ends.items()
            if end.workflow == workflow.id and end.sequence > workflow.cancelled_at
        ]
        for id in doubtful:
            del self._ends[id]

    async def workflow_now(self, id: str) -> WorkflowStory:
        """As `story`, and kept."""
        story = await self.story(id)
        self._keep(id, story, story.guard)
        return story

    # --- the nodes before a node ---------------------------------------------------------------------

    async def _learn_parents(self, workflow: Workflow, labels: Sequence[str]) -> None:
        """Learn how all those ended that these nodes wait for, directly or not."""
        dag = dag_of(workflow, self)
        raw = await self._read_together(workflow, list(_ancestors(workflow, dag, labels)))
        asked = set(labels)  # whoever asks judges these itself
        done: set[str] = set()
        stack = list(labels)
        while stack:
            label = stack[-1]
            missing = [name for name in _missing(dag, label) if name not in done] if label not in done else []
            if missing:
                raw.update(await self._read_together(workflow, [name for name in missing if name not in raw]))
                stack += missing
                continue
            stack.pop()
            if label not in done and label not in asked and label in raw:
                process = fold_process(self._colony, raw.pop(label), self).process
                if process is not None:
                    self.remember(process)
            done.add(label)

    async def _read_together(self, workflow: Workflow, labels: Sequence[str]) -> dict[str, list[Stored]]:
        """The messages of these nodes, of those that are not known to have ended."""
        reused = [id for label in labels if (id := (workflow.reuses or {}).get(label)) is not None]
        await self._learn_processes(reused)
        wanted = [label for label in labels if workflow.process_of(label) not in self._ends]
        found: dict[str, list[Stored]] = {}
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            ids = [subjects.guard_of("process", workflow.process_of(label)) for label in some]
            found.update(zip(some, await asyncio.gather(*map(self._ledger.read, ids)), strict=True))
        return found

    async def nodes(self, workflow: Workflow) -> dict[str, Process | None]:
        """Every node and part that there is now, by label, with its process if it has begun."""
        dag = dag_of(workflow, self)
        found: dict[str, Process | None] = {}
        doubtful: dict[str, list[Stored]] = {}
        # Some cite the ends of others that were read after them: of nodes put between, or of any that stopped
        # the workflow. These are judged again, as long as that helps.
        progress = True
        while progress:
            labels = [label for label, _ in dag.labels() if label not in found]
            raw = {**doubtful, **await self._read_together(workflow, labels)}
            before, doubtful = set(doubtful), {}
            for label in (*before, *labels):
                found[label] = self._folded(workflow, label, raw, doubtful)
            progress = bool(labels) or set(doubtful) != before
            await asyncio.sleep(0)
        there = [label for label, _ in dag.labels()]
        return {label: found.get(label) for label in there}

    def _folded(
        self,
        workflow: Workflow,
        label: str,
        raw: dict[str, list[Stored]],
        doubtful: dict[str, list[Stored]],
    ) -> Process | None:
        """The process of a node whose messages these are; among the doubtful, if not all of them are
        valid."""
        process = self.process(workflow.process_of(label))
        if process is not None or label not in raw:
            return process
        story = fold_process(self._colony, raw[label], self)
        if any(not seen.verdict.valid for seen in story.judged):
            doubtful[label] = raw[label]
        if story.process is not None:
            self.remember(story.process)
        return story.process

    @property
    def _ledger(self) -> Ledger:
        return self._session.ledger

    @property
    def _colony(self) -> Colony:
        return self._session.colony


def _missing(dag: Dag, label: str) -> list[str]:
    """The labels whose ends would have to be known before anything can be said of this one."""
    node = dag.node(label)
    if node is None:
        adder = adder_of(split(label)[0])
        return [adder] if adder is not None else []
    return dag.unfold(node).missing


def _ancestors(workflow: Workflow, dag: Dag, labels: Sequence[str]) -> Iterable[str]:
    """The names of nodes before these, by the workflow's own event. Parts and added nodes come later."""
    seen: set[str] = set()
    left = [
        parent for label in labels if (node := dag.node(label)) is not None for parent in dag.parents(node)
    ]
    while left:
        name = left.pop()
        node = workflow.spec.by_name.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if node.map is None:
            yield name
        left += node.parents
