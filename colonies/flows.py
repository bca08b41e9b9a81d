"""Workflows as a client holds them: submitted whole, looked at, waited for, cancelled, sent signals.

A workflow's state is that of its nodes, and each node's chain is verified like any process's. The feed only
wakes: what is shown is read from the leader. It releases nothing; that is the orchestrator's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgpack

from colonies import subjects
from colonies.core.ends import End
from colonies.core.events import (
    MAX_PARTS,
    MAX_TEXT_CHARS,
    Part,
    WorkflowCancelled,
    WorkflowSignalled,
    WorkflowSubmitted,
    checked_reason,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.names import name as checked_name
from colonies.core.node import Node
from colonies.core.process import ULID, Process
from colonies.core.workflow import Gathering, Workflow, WorkflowState, dag_of, end_of, state_of, workflow_key
from colonies.errors import Conflict, Invalid, NotFound, Unavailable, WorkflowUnsuccessful
from colonies.history import WorkflowStory
from colonies.ids import new_id
from colonies.ledger import Stored

if TYPE_CHECKING:
    from colonies import building
    from colonies.client import Client

T = TypeVar("T")

PART_BYTES = 600_000
MAX_NODE_BYTES = 500_000
REREAD_S = 30.0
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


class WorkflowHandle:
    """A workflow as a client holds it. `id` is its id; of one built here, the types of its outputs are known
    as well."""

    def __init__(self, client: Client, id: str, built: building.Workflow | None = None) -> None:
        self._client = client
        self._built = built
        self.id = id

    def __repr__(self) -> str:
        return f"<workflow {self.id}>"

    async def get(self) -> WorkflowNow:
        """The workflow as the ledger has it now. Raises NotFound."""
        return await workflow_now(self._client, self.id)

    async def changes(self) -> AsyncGenerator[WorkflowNow, None]:
        """The workflow now, and again whenever something changed, until it is final. Raises NotFound."""
        async with contextlib.aclosing(follow(self._client, self.id)) as found:
            async for now in found:
                yield now

    async def wait(self, timeout_s: float | None = None) -> WorkflowNow:
        """The workflow once it is final.

        Raises:
            NotFound: nobody submitted it.
            TimeoutError: it is not final after `timeout_s` seconds.
        """
        from colonies.client import checked_wait

        async with asyncio.timeout(checked_wait(timeout_s)):
            async for now in self.changes():
                if now.final:
                    return now
        raise AssertionError("it ends only when it is final")

    @overload
    async def result(self, *, timeout_s: float | None = None) -> Any: ...
    @overload
    async def result(self, node: building.Node[T], *, timeout_s: float | None = None) -> T: ...
    async def result(self, node: building.Node[Any] | None = None, *, timeout_s: float | None = None) -> Any:
        """Its output, once it is successful: that of the node that it names as such, or by name those of all
        nodes on which no other depends. Or, typed, the output of this node of it.

        Raises:
            WorkflowUnsuccessful: it failed or was cancelled.
            Invalid: the node is not one of it. NotFound, TimeoutError: as `wait`.
        """
        if node is not None and self._built is not None and node.within is not self._built:
            raise Invalid(f"node {node.name} is not one of the workflow {self._built.name}")
        now = await self.wait(timeout_s)
        if now.state != "successful":
            raise WorkflowUnsuccessful(_why(now), workflow=self.id)
        spec = now.workflow.spec
        if node is not None:
            if node.name not in spec.by_name:
                raise Invalid(f"workflow {self.id} has no node {node.name}")
            return node.typed(await self._output(now, node.name))
        if spec.output is not None:
            return self._typed(spec.output, await self._output(now, spec.output))
        return {name: self._typed(name, await self._output(now, name)) for name in spec.sinks}

    def _typed(self, name: str, output: Any) -> Any:
        return self._built.typed(name, output) if self._built is not None else output

    async def _output(self, now: WorkflowNow, name: str) -> Any:
        found = [node for node in now.nodes if node.node.name == name]
        outputs = [
            await self._client.output(node.process)
            if node.process is not None and node.process.state == "successful"
            else None
            for node in found
        ]
        mapped = bool(found) and found[0].node.map is not None and found[0].label != name
        return outputs if mapped or not found else outputs[0]

    async def cancel(self, reason: str = "") -> None:
        """Cancel it: what runs is stopped. Raises Conflict if it is cancelled, Refused if it is another's."""
        event = WorkflowCancelled(checked_reason(reason))
        await self._client.session.record_workflow(self.id, event, at=await self._story())

    async def signal(self, name: str, data: Any = None) -> None:
        """Send it a signal; nodes may wait for it. Raises NotFound, Invalid, Refused."""
        event = WorkflowSignalled(checked_name(name, "signal"), data)
        await self._client.session.record_workflow(self.id, event, at=await self._story())

    async def story(self) -> WorkflowStory:
        """Its own events, each judged. Raises NotFound."""
        return await self._story()

    async def _story(self) -> WorkflowStory:
        story = await self._client.session.knowledge.workflow_now(self.id)
        if story.workflow is None:
            raise NotFound(f"there is no workflow {self.id} in the colony {self._client.colony}")
        return story


# --- submitting -------------------------------------------------------------------------------------


async def submit_workflow(client: Client, spec: WorkflowSpec, key: str | None = None) -> str:
    """Submit a workflow, whole or not at all; its id. Raises as `Client.submit`."""
    spec.checked()
    if key is not None and not 1 <= len(key) <= MAX_TEXT_CHARS:
        raise Invalid(f"key: it has {len(key)} characters; 1 to {MAX_TEXT_CHARS} are allowed")
    parts, rest = _parted(spec)
    await declare_queues(client, spec)
    session = client.session
    id = workflow_key(client.name, key) if key is not None else new_id()
    story = WorkflowStory(None, [], 0)
    if key is not None:
        story = await session.knowledge.story(id)
        if story.workflow is not None:
            return _same(story.workflow, spec, key)
    try:
        digests = []
        for nodes in parts:
            story = await session.record_workflow(id, Part(list(nodes)), at=story)
            assert isinstance(story.held, Gathering)
            digests.append(story.held.parts[-1][0].hex())
        await session.record_workflow(id, WorkflowSubmitted(rest, digests or None, key), at=story)
    except Conflict:
        before = (await session.knowledge.story(id)).workflow
        if key is None or before is None:
            raise
        return _same(before, spec, key)
    return id


def _same(before: Workflow, spec: WorkflowSpec, key: str) -> str:
    if before.spec != spec:
        raise Invalid(f"the key {key!r} stands for workflow {before.id}, which is another; take a new key")
    return before.id


async def declare_queues(client: Client, spec: WorkflowSpec) -> None:
    """Declare the queues of all nodes. Raises Invalid if a node is for another colony."""
    seen = set()
    for node in spec.nodes:
        if node.spec is None:
            continue
        named = node.spec.colony
        if named is not None and named not in (client.colony, client.ledger.colony):
            raise Invalid(
                f"node {node.name}: colony: it is for {named!r}, this context is for {client.colony!r}"
            )
        place = (node.spec.conditions.model_dump_json(), node.spec.priority)
        if place not in seen:
            seen.add(place)
            await client.declare(node.spec)


def _parted(spec: WorkflowSpec) -> tuple[list[tuple[Node, ...]], WorkflowSpec]:
    """The nodes that do not fit into the workflow's own event, in parts, and the spec with the others."""
    from dataclasses import replace

    sizes = [len(msgpack.packb(node.wire())) for node in spec.nodes]
    for node, size in zip(spec.nodes, sizes, strict=True):
        if size > MAX_NODE_BYTES:
            raise Invalid(f"node {node.name}: {size} bytes; at most {MAX_NODE_BYTES} are allowed")
    parts: list[tuple[Node, ...]] = []
    first, held = 0, len(msgpack.packb(replace(spec, nodes=()).wire()))
    if held > PART_BYTES:
        raise Invalid(f"the workflow without its nodes is {held} bytes; at most {PART_BYTES} are allowed")
    for number, size in enumerate(sizes):
        if held + size > PART_BYTES:
            parts.append(spec.nodes[first:number])
            first, held = number, 0
        held += size
    if len(parts) > MAX_PARTS:
        raise Invalid(f"the workflow has {sum(sizes)} bytes; at most {MAX_PARTS * PART_BYTES} are allowed")
    return [part for part in parts if part], replace(spec, nodes=spec.nodes[first:])


# --- looking ----------------------------------------------------------------------------------------


async def workflow_now(client: Client, id: str) -> WorkflowNow:
    """A workflow and its nodes, read from the leader. Raises NotFound."""
    workflow = await client.session.workflow(id)
    found = await client.session.knowledge.nodes(workflow)
    return _now(client, workflow, found)


def _now(client: Client, workflow: Workflow, found: dict[str, Process | None]) -> WorkflowNow:
    dag = dag_of(workflow, client.session.knowledge)
    nodes = tuple(
        NodeNow(label, node, workflow.process_of(label), found.get(label)) for label, node in dag.labels()
    )
    ends: Sequence[tuple[Node, End | None]] = [
        (now.node, end_of(now.process) if now.process is not None else None) for now in nodes
    ]
    return WorkflowNow(workflow, nodes, state_of(workflow, ends))


async def follow(client: Client, id: str) -> AsyncGenerator[WorkflowNow, None]:
    """The workflow now and at every change, until it is final; a broker that is away is waited for."""
    changed = asyncio.Event()
    ids: set[str] = set()
    reading = True
    others: set[str] = set()  # heard of while its nodes were read: perhaps they are among them

    def heard(stored: Stored) -> None:
        id = subjects.process_of_feed(stored.subject)
        if id in ids:
            changed.set()
        elif reading and not ULID.match(id):
            others.add(id)

    def woken(_: Stored | None = None) -> None:
        changed.set()

    async with contextlib.AsyncExitStack() as stack:
        for feed, on_event in (
            (subjects.ALL_PROCESS_EVENTS, heard),
            (subjects.ALL_OFFERS, heard),
            (subjects.feed_of(subjects.guard_of("workflow", id)), woken),
        ):
            stack.push_async_callback((await client.ledger.subscribe(feed, on_event)).close)
        client.ledger.on_gap(woken)
        while True:
            changed.clear()
            others.clear()
            reading = True
            try:
                now = await workflow_now(client, id)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
                continue
            ids, reading = {node.id for node in now.nodes}, False
            if not ids.isdisjoint(others):
                changed.set()
            yield now
            if now.final:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REREAD_S):
                    await changed.wait()


def _why(now: WorkflowNow) -> str:
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
