"""What one member knows of workflows and of how their nodes ended: read from the ledger when it is needed.

A verifier of one process brings this along (`colonies.core.workflow.Known`). Final is final, so an end that
was judged once is kept; a workflow is read again when something later than the last reading depends on it.
Its event names all ancestors of a node, so these are read together, judged parents first. It writes nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
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
from colonies.history import (
    WorkflowStory,
    examine,
    fold_process,
    fold_workflow,
    judge_process,
    judge_workflow,
)
from colonies.ledger import Ledger, Stored

if TYPE_CHECKING:
    from colonies.session import Session

MAX_ENDS_KEPT = 50_000  # processes
MAX_NODES_KEPT = 50_000  # of all workflows that are kept
AT_ONCE = 64  # reads under way
MANY = 256  # nodes
WORTH_SCANNING = 30  # events: to read so many in a row costs no more than to ask for one process


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
        if not messages or ULID.match(subjects.process_of(messages[0].subject)):
            return
        places = dict.fromkeys(self._places(messages))
        for id, label, sequence in places:
            workflow = await self._workflow_at(id, sequence if fresh else 0)
            if workflow is not None:
                await self._learn_parents(workflow, [label])

    def _places(self, messages: Sequence[Stored]) -> Iterable[tuple[str, str, int]]:
        """Which nodes of which workflows these messages say that they are."""
        last = messages[-1].sequence
        for stored in messages:
            record = examine(self._session.colony, stored).record
            if record is None:
                continue
            match record.event:
                case Released(workflow=str(id), node=str(label)):
                    yield id, label, last
                case Awaited(workflow=str(id), node=str(label)) | Skipped(workflow=str(id), node=str(label)):
                    yield id, label, last
                case Cancelled(workflow=str(id), node=str(label), cause=cause):
                    yield id, label, last
                    if cause is not None:
                        yield id, cause, last

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
        if b"rerun_of" not in stored.data:  # most take nothing, and to read 10,000 nodes takes a while
            return
        id = _rerun_of(colony, [stored])
        reruns: list[str] = []  # the oldest last; each is learned before the one that takes its results
        while id is not None and id not in self._stories and id not in reruns:
            reruns.append(id)
            id = _rerun_of(colony, await self._ledger.read(subjects.guard_of("workflow", id)))
        for id in reversed(reruns):
            await self._workflow_at(id, 0)
        record = examine(colony, stored).record
        event = record.event if record is not None else None
        if isinstance(event, WorkflowSubmitted) and event.reuses and event.rerun_of is not None:
            before = await self._workflow_at(event.rerun_of, 0)
            if before is not None and any(id not in self._ends for id in event.reuses.values()):
                await self.nodes(before)

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
        story = await (self.story(id) if kept is None else self._read_on(id, kept[0]))
        self.keep(id, story, sequence)
        return story.workflow

    async def _read_on(self, id: str, story: WorkflowStory) -> WorkflowStory:
        """The story with what came since: its first event may be large."""
        held, judged, guard = story.held, list(story.judged), story.guard
        async for batch in self._ledger.scan(guard, subjects.guard_of("workflow", id)):
            for stored in batch:
                held, seen = judge_workflow(self._colony, held, examine(self._colony, stored), self)
                judged.append(seen)
                guard = stored.sequence
        return WorkflowStory(held if isinstance(held, Workflow) else None, judged, guard, held)

    def keep(self, id: str, story: WorkflowStory, sequence: int = 0) -> None:
        """Keep a story that was judged, with all that was said before this sequence."""
        if story.workflow is None:
            return
        if (before := self._stories.pop(id, None)) is not None and before[0].workflow is not None:
            self._nodes -= len(before[0].workflow.spec.nodes)
        self._stories[id] = story, max(sequence, story.guard)
        self._nodes += len(story.workflow.spec.nodes)
        while self._nodes > MAX_NODES_KEPT and len(self._stories) > 1:
            _, (oldest, _) = self._stories.popitem(last=False)
            self._nodes -= len(oldest.workflow.spec.nodes) if oldest.workflow is not None else 0

    async def workflow_now(self, id: str) -> WorkflowStory:
        """As `story`, and kept."""
        kept = self._stories.get(id)
        story = await (self.story(id) if kept is None else self._read_on(id, kept[0]))
        self.keep(id, story, story.guard)
        return story

    # --- the nodes before a node ---------------------------------------------------------------------

    async def _learn_parents(self, workflow: Workflow, labels: Sequence[str]) -> None:
        """Learn how all those ended that these nodes wait for, directly or not."""
        dag = dag_of(workflow, self)
        raw = await self._read_together(workflow, list(_ancestors(workflow, dag, labels)))
        tried: set[str] = set(labels)
        asked = set(labels)  # whoever asks judges these itself
        stack = list(labels)
        while stack:
            label = stack[-1]
            missing = [name for name in _missing(dag, label) if name not in tried]
            if missing:
                tried.update(missing)
                raw.update(await self._read_together(workflow, [name for name in missing if name not in raw]))
                stack += missing
                continue
            stack.pop()
            if label not in asked and label in raw:
                process = fold_process(self._colony, raw.pop(label), self).process
                if process is not None:
                    self.remember(process)

    async def _read_together(self, workflow: Workflow, labels: Sequence[str]) -> dict[str, list[Stored]]:
        """The messages of these nodes, of those that are not known to have ended."""
        reused = [id for label in labels if (id := (workflow.reuses or {}).get(label)) is not None]
        await self._learn_processes(reused)
        wanted = [label for label in labels if workflow.process_of(label) not in self._ends]
        found: dict[str, list[Stored]] = {}
        span = len(wanted) * WORTH_SCANNING if len(wanted) >= MANY else 0
        if span and await self._ledger.last_sequence() - workflow.sequence < span:
            return await self._scan(workflow, {workflow.process_of(label): label for label in wanted})
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            ids = [subjects.guard_of("process", workflow.process_of(label)) for label in some]
            found.update(zip(some, await asyncio.gather(*map(self._ledger.read, ids)), strict=True))
        return found

    async def _scan(self, workflow: Workflow, ids: Mapping[str, str]) -> dict[str, list[Stored]]:
        """The messages of many nodes: what was stored since their workflow was, read in one go."""
        found: dict[str, list[Stored]] = {label: [] for label in ids.values()}
        async for batch in self._ledger.scan(workflow.sequence, subjects.PROCESSES):
            for stored in batch:
                label = ids.get(subjects.process_of(stored.subject))
                if label is not None:
                    found[label].append(stored)
        return found

    async def nodes(
        self, workflow: Workflow, heard: Mapping[str, list[Stored]] | None = None
    ) -> dict[str, Process | None]:
        """Every node and part that there is now, by label, with its process if it has begun.

        `heard` are messages of processes, by id, from the feed: what they prove to have ended is not read.
        """
        dag = dag_of(workflow, self)
        raw: dict[str, list[Stored]] = {}
        found: dict[str, Process | None] = {}
        while True:
            labels = [label for label, _ in sorted(dag.labels(), key=lambda pair: pair[1].last)]
            new = [label for label in labels if label not in found]
            for label in new:
                self._take_heard(workflow.process_of(label), heard or {})
            raw.update(await self._read_together(workflow, new))
            # What was judged before what it cites was known is judged again, as long as more becomes known.
            before = {label: process.head for label, process in found.items() if process is not None}
            for label in labels:
                found[label] = self._judged(workflow, label, raw.get(label, ()))
            after = {label: process.head for label, process in found.items() if process is not None}
            if not new and before == after:
                return {label: found[label] for label in labels}
            await asyncio.sleep(0)

    def _judged(self, workflow: Workflow, label: str, messages: Sequence[Stored]) -> Process | None:
        process = self.process(workflow.process_of(label))
        if process is None and messages:
            process = fold_process(self._colony, messages, self).process
            if process is not None:
                self.remember(process)
        return process

    def _take_heard(self, id: str, heard: Mapping[str, list[Stored]]) -> None:
        """Keep the end of a process if what was heard of it is a whole and sound chain up to there."""
        messages = heard.get(id)
        if messages is None or id in self._ends:
            return
        process: Process | None = None
        for stored, after in zip(messages, [*messages[1:], None], strict=True):
            # What the next event, of the same author, names as its `prev` is signed by that.
            covered = after is not None and subjects.author_of(after.subject) == subjects.author_of(
                stored.subject
            )
            process, seen = judge_process(
                self._colony, process, examine(self._colony, stored, trusted=covered), self
            )
            if not seen.verdict.valid or process is None:
                return
        if process is not None:
            self.remember(process)

    @property
    def _ledger(self) -> Ledger:
        return self._session.ledger

    @property
    def _colony(self) -> Colony:
        return self._session.colony


def _rerun_of(colony: Colony, messages: Iterable[Stored]) -> str | None:
    """Which workflow's results these messages of a workflow say that it takes over."""
    for stored in messages:
        if b"rerun_of" in stored.data:
            record = examine(colony, stored).record
            if record is not None and isinstance(record.event, WorkflowSubmitted) and record.event.reuses:
                return record.event.rerun_of
    return None


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
        if dag.ends(name) is not None:  # it was judged, and with it all before it
            continue
        if node.map is None:
            yield name
        left += node.parents
