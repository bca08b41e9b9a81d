"""Conducts the open workflows of a ledger that somebody else folds: says of each node what is to be said.

When a node is to be looked at is counted in `opened`. All that is known is derived from the ledger; whether
something may be said decides `colonies.core.dag`, here as at every reader. It records what is true now, and
if another orchestrator or a worker was faster, that is as well.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import structlog

from colonies.core.dag import Await, Map, Run, Say, Skip, Stop
from colonies.core.events import Awaited, Cancelled, ProcessEvent, Received, Released, Skipped
from colonies.core.node import Node, label_of, split
from colonies.core.nodes import spec_of
from colonies.core.process import SECOND, Awaiting, Process
from colonies.core.spec import Spec, queue_of
from colonies.core.workflow import Workflow, WorkflowState, dag_of, end_of, node_id, state_of
from colonies.errors import ColoniesError, Conflict
from colonies.history import History, Story
from colonies.limiting import Limiter
from colonies.opened import Open
from colonies.releasing import MAX_RELEASED, left_to_workers, may_release
from colonies.session import Session

AT_ONCE = 64  # events under way
AGAIN_S = 1.0
CONTESTED_S = 5.0
HEAD_START_S = 0.05  # for the worker that may release a child itself
HEAD_START_EACH_S = 0.003
MAX_ENDED_KEPT = 1_000  # workflows: what comes late of older ones is found out when it matters

Later = Callable[[float, Callable[[], None]], None]
Ended = Callable[[Workflow, WorkflowState], None]

_log = structlog.get_logger("colonies.orchestrator")


class Conductor:
    """Conducts for the orchestrator that folds `history`. `later` has something done after so many seconds,
    `done` is told of each process that is not needed any more, `limiter` has the places of those with
    limits."""

    def __init__(
        self, session: Session, history: History, later: Later, done: Callable[[str], None], limiter: Limiter
    ) -> None:
        self._session = session
        self._history = history
        self._later = later
        self._done = done
        self.on_ended: Ended = lambda workflow, state: None  # of what comes from a cron or a generator
        self._limiter = limiter
        self._open: dict[str, Open] = {}
        self._ended: deque[str] = deque()
        self._busy: dict[str, None] = {}  # workflows that have something ready
        self._awaiting: dict[str, dict[str, None]] = {}  # by workflow: who waits for a signal
        self._looks: set[tuple[str, str]] = set()
        self._left_to_workers: set[str] = set()

    def __len__(self) -> int:
        return len(self._open)

    def conducts(self, process: Process) -> bool:
        """Is it a node of an open workflow? Then nothing but the ledger, in order, says what it is."""
        return process.workflow in self._open

    def leaves(self, process: str) -> bool:
        """Is a success of this process left to its worker for the moment?"""
        return process in self._left_to_workers

    # --- what happened -------------------------------------------------------------------------------

    def on_workflow(self, id: str) -> None:
        """An event of this workflow was folded."""
        workflow = self._history.workflow(id)
        if workflow is None or id in self._ended:
            return
        before = self._open.get(id)
        if before is None:
            self._begin(workflow)
            return
        before.workflow = workflow
        before.dag = dag_of(workflow, self._history)
        if workflow.cancelled_at is not None and before.stopped is None:
            self._stop(before, workflow.cancelled_at, "its workflow was cancelled", None)
        for label in self._awaiting.get(id, ()):
            before.ready.append(label)
            self._busy[id] = None

    def on_process(self, process: Process) -> bool:
        """An event of this node was folded. Is its process needed still, once it is final?"""
        opened = self._open.get(process.workflow or "")
        if opened is None or process.node is None:
            return False
        if not process.final:
            if isinstance(process.phase, Awaiting):
                self._awaiting.setdefault(opened.workflow.id, {})[process.node] = None
                opened.ready.append(process.node)
                self._busy[opened.workflow.id] = None
            return True
        self._awaiting.get(opened.workflow.id, {}).pop(process.node, None)
        self._on_end(opened, process)
        return opened.workflow.id in self._open

    def _begin(self, workflow: Workflow) -> None:
        opened = Open(workflow, dag_of(workflow, self._history))
        self._open[workflow.id] = opened
        for node in workflow.spec.nodes:
            opened.add(node)
        self._left_to_workers.update(left_to_workers(workflow))
        if workflow.cancelled_at is not None:
            self._stop(opened, workflow.cancelled_at, "its workflow was cancelled", None)
        # Adders come before what they added: the label of an added node has one slash more.
        for label in sorted(workflow.reuses or {}, key=lambda label: label.count("/")):
            end = opened.dag.ends(label)
            if end is not None:
                if end.adds:
                    opened.add_more(label, end.adds, between=end.between)
                self._ended_label(opened, label)
        self._busy[workflow.id] = None

    def _on_end(self, opened: Open, process: Process) -> None:
        assert process.node is not None
        end = end_of(process)
        assert end is not None
        if end.adds:
            opened.add_more(process.node, end.adds, between=end.between)
        node = opened.dag.node(process.node)
        fatal = node is not None and not node.allow_failure and not node.last
        stops = opened.workflow.spec.on_failure == "stop" and opened.stopped is None
        if fatal and stops and end.state in ("failed", "cancelled"):
            self._stop(opened, end.sequence, f"{process.node} did not succeed", process.node)
        self._ended_label(opened, process.node)

    def _ended_label(self, opened: Open, label: str) -> None:
        """A process ended, or a part of one that maps."""
        opened.ended_label(label)
        self._busy[opened.workflow.id] = None

    def _stop(self, opened: Open, sequence: int, reason: str, cause: str | None) -> None:
        opened.stop(sequence, reason, cause)
        self._busy[opened.workflow.id] = None

    # --- what is to be said --------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(self._busy)

    async def act(self, now: int) -> None:
        """Say what is to be said at this ledger time (ns)."""
        while self._busy:
            id = next(iter(self._busy))
            del self._busy[id]
            opened = self._open.get(id)
            if opened is None:
                continue
            said: list[Coroutine[Any, Any, None]] = []
            while opened.ready and len(said) < AT_ONCE:
                said += self._look(opened, opened.ready.popleft(), now)
            if opened.ready:
                self._busy[id] = None
            await asyncio.gather(*said)
            if opened.left == 0 and not opened.ready:
                self._close(opened)

    def _close(self, opened: Open) -> None:
        """All of its nodes have ended."""
        id = opened.workflow.id
        self._open.pop(id, None)
        self._awaiting.pop(id, None)
        self._left_to_workers.difference_update(left_to_workers(opened.workflow))
        if opened.workflow.source is not None:
            ends = ((node, opened.dag.ends(label)) for label, node in opened.dag.labels())
            self.on_ended(opened.workflow, state_of(opened.workflow, ends))
        for label, _ in opened.dag.labels():
            self._done(node_id(id, label))
        self._ended.append(id)
        if len(self._ended) > MAX_ENDED_KEPT:
            self._history.workflows.pop(self._ended.popleft(), None)
        _log.info("workflow ended", workflow=id, colony=self._session.colony.name)

    def _look(self, opened: Open, label: str, now: int) -> list[Coroutine[Any, Any, None]]:
        """What is to be said of a node or part whose parents have ended."""
        name, _ = split(label)
        node = opened.dag.node(label)
        if node is None or name in opened.ended:
            return []
        process = self._history.process(opened.workflow.process_of(label))
        if process is not None and process.final:
            return []
        if opened.stopped is not None and not node.last:
            return self._stopping(opened, node, label)
        if process is not None:
            return self._signal(opened, node, process)
        if self._is_workers(opened, node, label):
            return []
        say = opened.dag.decide(label)
        match say:
            case None:
                return []
            case Map(parts):
                self._mapping(opened, name, parts)
                return []
            case Run(until=until) | Await(until=until) if until > now:
                self._again(opened, label, (until - now) / SECOND + 0.002)
                return []
            case Run() if node.spec is not None and node.spec.limits:
                if not self._is_admitted(opened, node.spec, label):
                    return []
        return [self._saying(opened, node, label, say)]

    def _mapping(self, opened: Open, name: str, parts: int) -> None:
        """Count the parts of a node, once, and look at those of which nothing was said yet."""
        if name in opened.parts:
            return
        labels = [label_of(name, number) for number in range(parts)]
        known = [self._known(opened, label) for label in labels]
        opened.parts[name] = parts - sum(found is not None and found.final for found in known)
        if opened.parts[name] == 0:
            opened.ended_name(name)
            self._busy[opened.workflow.id] = None
            return
        opened.ready.extend(label for label, found in zip(labels, known, strict=True) if found is None)

    def _known(self, opened: Open, label: str) -> Process | None:
        return self._history.process(opened.workflow.process_of(label))

    def _is_workers(self, opened: Open, node: Node, label: str) -> bool:
        """A child of one parent is released by the worker that finished it; only if it does not, by us."""
        if not may_release(node) or node.when is not None:
            return False
        siblings = len(opened.workflow.spec.children.get(node.parents[0], ()))
        if not 0 < siblings <= MAX_RELEASED:
            return False
        end = opened.dag.ends(node.parents[0])
        if end is None or end.worker is None or end.state != "successful":
            return False
        key = (opened.workflow.id, label)
        if key in self._looks:
            self._looks.discard(key)
            return False
        self._looks.add(key)
        self._again(opened, label, HEAD_START_S + siblings * HEAD_START_EACH_S)
        return True

    def _is_admitted(self, opened: Open, spec: Spec, label: str) -> bool:
        """Has a node all its places? If not it lines up, as of when its workflow was submitted."""
        id = node_id(opened.workflow.id, label)
        since = opened.workflow.time
        return self._limiter.admits(id, spec, 0, since, lambda: self._ready_again(opened, label))

    def _ready_again(self, opened: Open, label: str) -> None:
        opened.ready.append(label)
        self._busy[opened.workflow.id] = None

    def _again(self, opened: Open, label: str, delay_s: float) -> None:
        self._later(delay_s, lambda: self._ready_again(opened, label))

    def _stopping(self, opened: Open, node: Node, label: str) -> list[Coroutine[Any, Any, None]]:
        assert opened.stopped is not None
        sequence, reason, cause = opened.stopped
        labels = [label]
        parts = opened.dag.mapped(node) if split(label)[1] is None else None
        if parts is not None:
            self._mapping(opened, node.name, parts)
            labels = [label_of(node.name, n) for n in range(parts)]
        said: list[Coroutine[Any, Any, None]] = []
        for one in labels:
            process = self._known(opened, one)
            if process is None or not process.final:
                said.append(self._saying(opened, node, one, Stop(sequence, reason, cause)))
        return said

    def _signal(self, opened: Open, node: Node, process: Process) -> list[Coroutine[Any, Any, None]]:
        """Has what the node waits for come?"""
        if not isinstance(process.phase, Awaiting) or node.wait_signal is None:
            return []
        signal = opened.workflow.signal(node.wait_signal.name)
        if signal is None:
            return []
        event = Received(signal.sequence)
        at = Story(process, [], process.sequence)
        return [self._record(opened, node.name, process.id, event, at, None)]

    def _saying(self, opened: Open, node: Node, label: str, say: Say) -> Coroutine[Any, Any, None]:
        workflow = opened.workflow
        id = node_id(workflow.id, label)
        process = self._history.process(id)
        at = Story(process, [], process.sequence if process is not None else 0)
        queue: str | None = None
        event: ProcessEvent
        match say:
            case Run(cites=cites):
                spec = spec_of(workflow, node)
                queue = queue_of(spec.conditions, spec.priority)
                event = Released(workflow.id, label, list(cites))
            case Await(cites=cites):
                event = Awaited(workflow.id, label, list(cites))
            case Skip(cites=cites):
                event = Skipped(workflow.id, label, list(cites))
            case Stop(cites=sequence, reason=reason, cause=cause):
                event = Cancelled(reason, cites=sequence, cause=cause)
                if process is None:
                    event = replace(event, workflow=workflow.id, node=label)
            case _:
                raise AssertionError(say)
        return self._record(opened, label, id, event, at, queue)

    async def _record(
        self, opened: Open, label: str, id: str, event: ProcessEvent, at: Story, queue: str | None
    ) -> None:
        """Once for each thing that can be said of a node; again only if it could not be recorded."""
        if (label, event.type) in opened.said:
            return
        opened.said.add((label, event.type))
        delay_s = AGAIN_S
        try:
            # Mostly another said the same. If it was no valid event that came first, a second try reads that.
            once = at.process is None and (label, event.type) not in opened.contested
            await self._session.record(id, event, at=at, queue=queue, known=self._history, once=once)
            return
        except Conflict as error:
            _log.debug("another event came first", doing=event.type, process=id, error=str(error))
            if (label, event.type) in opened.contested:
                delay_s = CONTESTED_S  # whoever floods its subjects holds it up no longer than that
            opened.contested.add((label, event.type))
        except ColoniesError as error:
            _log.warning("failed, tried again", doing=event.type, process=id, error=str(error))
        except Exception:
            _log.exception("failed, tried again", doing=event.type, process=id)
        opened.said.discard((label, event.type))
        self._again(opened, label, delay_s)
