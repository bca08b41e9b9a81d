"""Looking at workflows: as they are now, at every change, until they have ended.

A workflow's state is that of its nodes, and each node's chain is verified like any process's. The feed only
wakes: what is shown is read from the leader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from colonies import subjects
from colonies.core.ends import End
from colonies.core.node import Node
from colonies.core.process import Process
from colonies.core.workflow import Workflow, WorkflowState, dag_of, end_of, state_of
from colonies.errors import Unavailable
from colonies.ledger import Stored

if TYPE_CHECKING:
    from colonies.client import Client
    from colonies.session import Session

REREAD_S = 30.0
_ENDS = frozenset({"completed", "failed", "cancelled", "skipped", "received", "expired", "poisoned"})
AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class NodeNow:
    """A node, or a part of one that maps. `process` is None until something was decided about it."""

    label: str
    node: Node
    id: str
    process: Process | None

    @property
    def state(self) -> str:
        return self.process.state if self.process is not None else "blocked"


@dataclass(frozen=True, slots=True)
class WorkflowNow:
    """A workflow as it is, with all of its nodes and parts, parents first."""

    workflow: Workflow
    nodes: tuple[NodeNow, ...]
    state: WorkflowState

    @property
    def final(self) -> bool:
        return self.state != "running"


class HasSession(Protocol):
    """A client, or whoever else reads the ledger."""

    session: Session


async def workflow_now(
    client: HasSession, id: str, heard: Mapping[str, list[Stored]] | None = None, *, awaited: bool = False
) -> WorkflowNow:
    """A workflow and its nodes, read from the leader. `awaited`: all that was there may have ended. Raises
    NotFound."""
    known = client.session.knowledge.workflow(id) if awaited else None
    workflow = known or await client.session.workflow(id)
    while True:
        found = await client.session.knowledge.nodes(workflow, heard)
        now = _now(client, workflow, found)
        if not now.final and known is None:
            return now
        known = None
        workflow = await client.session.workflow(id)
        if workflow.head == now.workflow.head:
            return now  # else ends that were read after a cancel may be void, for example


def _now(client: HasSession, workflow: Workflow, found: dict[str, Process | None]) -> WorkflowNow:
    dag = dag_of(workflow, client.session.knowledge)
    nodes = tuple(
        NodeNow(label, node, workflow.process_of(label), found.get(label)) for label, node in dag.labels()
    )
    ends: Sequence[tuple[Node, End | None]] = [
        (now.node, end_of(now.process) if now.process is not None else None) for now in nodes
    ]
    return WorkflowNow(workflow, nodes, state_of(workflow, ends))


class _Ear:
    """What is heard of a workflow's processes. `left` are those that have not ended as far as was heard.
    `ended` is given what was heard of one that may have: there is time for it until the last has."""

    def __init__(self, ended: Callable[[Sequence[Stored]], None], *, ends: bool) -> None:
        self._ended = ended
        self.changed = asyncio.Event()
        self.heard: dict[str, list[Stored]] = {}
        self._only_ends = ends
        self._grows = False
        self._recent: set[str] = set()  # what ended since the last look began
        self._left: set[str] = set()
        self._all: set[str] = set()

    def look(self) -> None:
        """A look begins: what comes from here on, it may not see."""
        self.changed.clear()
        self._recent.clear()

    def mind(self, now: WorkflowNow) -> None:
        """From here on a change is one of this workflow; what is final needs no ear."""
        self._grows = any(n.node.map is not None and n.label == n.node.name for n in now.nodes)
        self._all = {node.id for node in now.nodes}
        self._left = {node.id for node in now.nodes if node.process is None or not node.process.final}
        self._left -= self._recent
        if not self._left or (self._grows and self._recent & self._all):  # its parts may be known by now
            self.changed.set()

    def on_process(self, stored: Stored) -> None:
        id = subjects.process_of_feed(stored.subject)
        if _may_end(stored):
            self._recent.add(id)
        if self._all and id not in self._all:
            return
        heard = self.heard.setdefault(id, [])
        heard.append(stored)
        if id in self._left and _may_end(stored):
            self._left.discard(id)
            if not self._grows:  # else what it is may not be known yet
                self._ended(heard)
        if not self._only_ends or not self._left or (self._grows and _may_end(stored)):
            self.changed.set()

    def on_other(self, _: Stored | None = None) -> None:
        self.heard.clear()
        self.changed.set()


def _may_end(stored: Stored) -> bool:
    return stored.subject.split(".", 4)[3] in _ENDS


async def follow(client: Client, id: str, *, ends: bool = False) -> AsyncGenerator[WorkflowNow, None]:
    """The workflow now and at every change, until it is final; a broker that is away is waited for.

    `ends`: not at every change, but when all that was there may have ended.
    """
    ear = _Ear(client.session.knowledge.hear, ends=ends)
    woken = False
    async with contextlib.AsyncExitStack() as stack:
        for feed, on_event in (
            (subjects.ALL_PROCESS_EVENTS, ear.on_process),
            (subjects.ALL_OFFERS, ear.on_process),
            (subjects.feed_of(subjects.guard_of("workflow", id)), ear.on_other),
        ):
            stack.push_async_callback((await client.ledger.subscribe(feed, on_event)).close)
        client.session.ears.add(ear.on_other)
        stack.callback(client.session.ears.discard, ear.on_other)
        while True:
            ear.look()
            try:
                now = await workflow_now(client, id, ear.heard, awaited=ends and woken)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
                continue
            yield now
            if now.final:
                return
            ear.mind(now)
            woken = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REREAD_S):
                    woken = await ear.changed.wait()


def why_ended(now: WorkflowNow) -> str:
    """What ended the workflow, in a line."""
    if now.state == "cancelled":
        reason = f": {now.workflow.reason}" if now.workflow.reason else ""
        return f"workflow {now.workflow.id} was cancelled by {now.workflow.cancelled_by}{reason}"
    ended = [n for n in now.nodes if n.process is not None and not n.node.allow_failure]
    wrong = [n for n in ended if n.state == "failed"] or [n for n in ended if n.state == "cancelled"]
    first = min(wrong, key=lambda n: n.process.sequence if n.process is not None else 0)
    errors = first.process.errors if first.process is not None else []
    said = f": {errors[-1]}" if errors else ""
    return f"workflow {now.workflow.id} failed: node {first.label} {first.state}{said}"
