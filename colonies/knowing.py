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
from colonies.core import crons as crons_
from colonies.core.colony import Colony
from colonies.core.crons import Cron
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
from colonies.core.workflow import Sourced, Workflow, dag_of, node_id
from colonies.generating import Generators
from colonies.history import (
    WorkflowStory,
    examine,
    fold_process,
    fold_workflow,
    judge_process,
    judge_workflow,
)
from colonies.ledger import Ledger, Stored
from colonies.schedules import Schedules

if TYPE_CHECKING:
    from colonies.session import Session

MAX_ENDS_KEPT = 50_000  # processes
MAX_NODES_KEPT = 50_000  # of all workflows that are kept
AT_ONCE = 64  # reads under way
MANY = 8  # nodes
WORTH_SCANNING = 30  # events: to read so many in a row costs no more than to ask for one process


class Knowledge:
    """What a session has learned. `workflow` and `process` answer from it and never read."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stories: OrderedDict[str, tuple[WorkflowStory, int]] = OrderedDict()
        self._nodes = 0
        self._ends: OrderedDict[str, Process] = OrderedDict()
        self.schedules = Schedules(session)
        self.generators = Generators(session)

    # --- what a verifier asks ------------------------------------------------------------------------

    def workflow(self, id: str) -> Workflow | None:
        found = self._stories.get(id)
        return found[0].workflow if found is not None else None

    def process(self, id: str) -> Process | None:
        return self._ends.get(id)

    def cron(self, name: str) -> Cron | None:
        return self.schedules.cron(name)

    def sourced(self, source: Source, record: Record) -> Sourced | Verdict:
        if source.kind == "cron":
            return crons_.sourced(self.cron(source.name), source, record)
        return self.generators.sourced(source, record)

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
        labels, causes = self._places(messages)
        for id, label in labels:
            workflow = await self._workflow_at(id, messages[-1].sequence if fresh else 0)
            if workflow is not None:
                await self._learn_parents(workflow, label, causes)

    def _places(self, messages: Sequence[Stored]) -> tuple[Iterable[tuple[str, str]], list[str]]:
        """Which nodes of which workflows these messages say that they are, and what, by label, ended them."""
        entity = subjects.process_of(messages[0].subject) if messages else ""
        labels: dict[tuple[str, str], None] = {}
        causes: dict[str, None] = {}
        for stored in messages:  # whether they are signed is checked by whoever judges them
            record = examine(self._session.colony, stored, trusted=True).record
            match record.event if record is not None else None:
                case Released(workflow=str(id), node=str(label)):
                    labels[id, label] = None
                case Awaited(workflow=str(id), node=str(label)) | Skipped(workflow=str(id), node=str(label)):
                    labels[id, label] = None
                case Cancelled() as cancelled:
                    if cancelled.workflow is not None and cancelled.node is not None:
                        labels[cancelled.workflow, cancelled.node] = None
                    if cancelled.cause is not None:
                        causes[cancelled.cause] = None
        # Only its own: else anybody could have everybody read the largest workflows.
        return [place for place in labels if entity == node_id(*place)], list(causes)

    async def story(self, id: str) -> WorkflowStory:
        """A workflow's own events, read from the leader, each judged."""
        messages = await self._ledger.read(subjects.guard_of("workflow", id))
        for stored in messages:
            await self.learn_sources(self._colony, stored)
        return await self._judged(messages)

    async def _judged(self, messages: Sequence[Stored], *, fresh: bool = False) -> WorkflowStory:
        """A workflow's events, with what was said of the cron or generator that it comes from, if it does."""
        for stored in messages:
            await self.schedules.learn(stored, fresh=fresh)
            await self.generators.learn(stored)
        story = await self._fold(messages)
        again = not fresh and any(not seen.verdict.valid for seen in story.judged)
        return await self._judged(messages, fresh=True) if again else story

    async def _fold(self, messages: Sequence[Stored]) -> WorkflowStory:
        story = fold_workflow(self._colony, messages, self)
        if await self._session.caught_up(story.judged):
            story = fold_workflow(self._colony, messages, self)
        return story

    async def learn_sources(self, colony: Colony, stored: Stored) -> None:
        """Learn what the submission of a workflow cites: another whose results it takes, which may have taken
        its own from a third. The oldest first: each inside the next, they would be as deep as somebody likes,
        or go in a circle."""
        first = event = _citing(colony, [stored])
        chain: list[str] = []
        seen = {subjects.process_of(stored.subject)}
        while event is not None and event.rerun_of is not None and event.rerun_of not in seen:
            if self.workflow(event.rerun_of) is not None:
                break
            seen.add(event.rerun_of)
            chain.append(event.rerun_of)
            event = _citing(colony, await self._read(event.rerun_of))
        for id in reversed(chain):
            messages = await self._read(id)
            await self._learn_reused(_citing(colony, messages))
            self.keep(id, await self._judged(messages))
        await self._learn_reused(first)

    async def _read(self, id: str) -> list[Stored]:
        return await self._ledger.read(subjects.guard_of("workflow", id))

    async def _learn_reused(self, event: WorkflowSubmitted | None) -> None:
        """How those ended whose results are taken, if they are what they are said to be."""
        before = self.workflow(event.rerun_of or "") if event is not None else None
        if event is None or before is None:
            return
        taken = (event.reuses or {}).items()
        await self._learn_processes([id for label, id in taken if id == before.process_of(label)])

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
            if before[0].workflow.cancelled_at is None and story.workflow.cancelled_at is not None:
                self._doubt(id, story.workflow.cancelled_at)
        self._stories[id] = story, max(sequence, story.guard)
        self._nodes += len(story.workflow.spec.nodes)
        while self._nodes > MAX_NODES_KEPT and len(self._stories) > 1:
            _, (oldest, _) = self._stories.popitem(last=False)
            self._nodes -= len(oldest.workflow.spec.nodes) if oldest.workflow is not None else 0

    def _doubt(self, workflow: str, cancelled_at: int) -> None:
        """Forget what was judged before it was known that the workflow was cancelled: it may be void."""
        for process in list(self._ends.values()):
            if process.workflow == workflow and process.sequence > cancelled_at:
                del self._ends[process.id]

    async def workflow_now(self, id: str) -> WorkflowStory:
        """As `story`, and kept."""
        kept = self._stories.get(id)
        story = await (self.story(id) if kept is None else self._read_on(id, kept[0]))
        self.keep(id, story, story.guard)
        return story

    # --- the nodes before a node ---------------------------------------------------------------------

    async def _learn_parents(self, workflow: Workflow, asked: str, causes: Sequence[str]) -> None:
        """Learn how all those ended that this node waits for, directly or not, and the causes with theirs.

        The node itself is judged by whoever asks.
        """
        dag = dag_of(workflow, self)
        before = dict.fromkeys((*_ancestors(workflow, dag, [asked, *causes]), *causes))
        raw = await self._read_together(workflow, list(before))
        stack = [asked, *causes]
        begun: set[str] = set()
        while stack:
            label = stack[-1]
            stopped = [stored for stored in raw.get(label, ()) if subjects.says(stored.subject, "cancelled")]
            needed = [*_missing(dag, label), *self._places(stopped)[1]]
            missing = [name for name in needed if name not in begun]
            begun.add(label)
            if missing:  # judged before it, also those that others wait for as well
                raw.update(await self._read_together(workflow, [name for name in missing if name not in raw]))
                stack += missing
                continue
            stack.pop()
            if label != asked and label in raw:
                await self._remember_judged(raw.pop(label))

    async def _remember_judged(self, messages: Sequence[Stored]) -> Process | None:
        story = fold_process(self._colony, messages, self)
        # What was judged with a colony that is too old would be kept for good.
        if await self._session.caught_up(story.judged):
            story = fold_process(self._colony, messages, self)
        if story.process is not None:
            self.remember(story.process)
        return story.process

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
        found: dict[str, Process | None] = {}
        while labels := [label for label, _ in dag.labels() if label not in found]:
            for label in labels:
                if heard and not _maps(dag, label):
                    self.hear(heard.get(workflow.process_of(label), ()))
            raw = await self._read_together(workflow, labels)
            for label in labels:
                process = self.process(workflow.process_of(label))
                if process is None and raw.get(label):
                    process = await self._folded(raw[label], doubted=_maps(dag, label))
                found[label] = process
            await asyncio.sleep(0)
        there = {label for label, _ in dag.labels()}
        return {label: process for label, process in found.items() if label in there}

    def hear(self, messages: Sequence[Stored]) -> None:
        """Keep the end of a process if what was heard of it is a whole and sound chain up to there."""
        if not messages or subjects.process_of(messages[0].subject) in self._ends:
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

    async def _folded(self, messages: Sequence[Stored], *, doubted: bool) -> Process | None:
        """The process of a node. What was read before it may not yet be all that decides: `doubted` where
        it is valid only if something has not happened."""
        story = fold_process(self._colony, messages, self)
        if doubted or any(not seen.verdict.valid for seen in story.judged):
            await self.learn(messages, fresh=False)
            return await self._remember_judged(messages)
        if story.process is not None:
            self.remember(story.process)
        return story.process

    @property
    def _ledger(self) -> Ledger:
        return self._session.ledger

    @property
    def _colony(self) -> Colony:
        return self._session.colony


def _maps(dag: Dag, label: str) -> bool:
    """Is it a node that maps, as a whole? It ends so only if it has no parts."""
    node = dag.node(label)
    return node is not None and node.map is not None and split(label)[1] is None


def _citing(colony: Colony, messages: Sequence[Stored]) -> WorkflowSubmitted | None:
    """The first of these that submits a workflow which takes results from another."""
    for stored in messages:
        if b"rerun_of" not in stored.data:  # most take nothing, and to read 10,000 nodes takes a while
            continue
        record = examine(colony, stored).record
        if record is not None and isinstance(record.event, WorkflowSubmitted) and record.event.reuses:
            return record.event
    return None


def _missing(dag: Dag, label: str) -> list[str]:
    """The labels whose ends would have to be known before anything can be said of this one."""
    node = dag.node(label)
    if node is None:
        adder = adder_of(split(label)[0])
        return [adder] if adder is not None else []
    unfolded = dag.unfold(node)
    return [*unfolded.mapped, *unfolded.missing]


def _ancestors(workflow: Workflow, dag: Dag, labels: Sequence[str]) -> Iterable[str]:
    """The names of nodes before these, by the workflow's own event, also where a node that maps may have
    ended as a whole. Parts and added nodes come later."""
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
        yield name
        left += node.parents
