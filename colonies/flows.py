"""Workflows as a client holds them: submitted whole, looked at, waited for, cancelled, sent signals.

How it is looked at is `looking`. Nothing here releases a node; that is the orchestrator's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgpack

from colonies import subjects, tracing, values
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
from colonies.core.plain import checked_value
from colonies.core.workflow import Gathering, Workflow, workflow_key
from colonies.errors import Conflict, Invalid, Unavailable, Unknown, WorkflowUnsuccessful
from colonies.history import WorkflowStory
from colonies.ids import new_id
from colonies.looking import WorkflowNow, follow, why_ended, workflow_now
from colonies.missing import not_found
from colonies.reasons import Reason
from colonies.recording import WorkflowTail, record
from colonies.waited import within

if TYPE_CHECKING:
    from colonies import building
    from colonies.client import Client
    from colonies.session import Session

T = TypeVar("T")

PART_BYTES = 600_000
LOOKED_AT = 10  # nodes
MAX_NODE_BYTES = 500_000
MAX_LAST_BYTES = 300_000  # beside the nodes, in the event that ends it


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

        async def state() -> str:
            return (await self.get()).state

        following = contextlib.aclosing(follow(self._client, self.id, ends=True))
        async with within(checked_wait(timeout_s), f"workflow {self.id}", state), following as found:
            async for now in found:
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
            raise WorkflowUnsuccessful(why_ended(now), workflow=self.id)
        if node is not None:
            if node.name not in now.workflow.spec.by_name:
                raise Invalid(f"workflow {self.id} has no node {node.name}")
            return node.typed(await self._output(now, node.name))
        return await output_of(self, now)

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
        """Cancel it: what runs is stopped. Raises Conflict if it has ended, Refused if it is another's."""
        event = WorkflowCancelled(checked_reason(reason))
        await self._client.session.record_workflow(self.id, event, at=await self._open())

    async def signal(self, name: str, data: Any = None) -> None:
        """Send it a signal; nodes may wait for it. Raises NotFound, Invalid, Refused; Conflict: it has
        ended."""
        event = WorkflowSignalled(checked_name(name, "signal"), signal_data(data))
        await self._client.session.record_workflow(self.id, event, at=await self._open())

    async def rerun(
        self, from_node: str | None = None, parameters: Mapping[str, Any] | None = None
    ) -> WorkflowHandle:
        """Run it once more, taking over by reference the results of all that ended well and need not run
        anew: what is not successful does, `from_node`, what refers to a parameter given another value here,
        and all that is behind these.

        Raises:
            Invalid: it has no such node or parameter. Conflict: it is running still. NotFound; else as
                `Client.submit_workflow`.
        """
        from colonies.rerunning import rerun

        return WorkflowHandle(self._client, await rerun(self._client, self.id, from_node, parameters or {}))

    async def why(self, node: str | None = None) -> list[Reason]:
        """Why it, or this node or part of it, is as it is. Raises NotFound; Invalid: it has no such node."""
        from colonies.explaining import explain_workflow

        return await explain_workflow(self._client, self.id, node)

    async def story(self) -> WorkflowStory:
        """Its own events, each judged. Raises NotFound."""
        return await self._story()

    async def _story(self) -> WorkflowStory:
        story = await self._client.session.knowledge.workflow_now(self.id)
        if story.workflow is None:
            raise await not_found(self._client.session, "workflow", self.id)
        return story

    async def _open(self) -> WorkflowStory:
        """As `story`. Raises Conflict if it has ended."""
        story = await self._story()
        workflow = story.workflow
        assert workflow is not None
        spec, ledger = workflow.spec, self._client.session.ledger
        for name in [node.name for node in spec.nodes if node.last or node.name in spec.sinks][:LOOKED_AT]:
            guard = subjects.guard_of("process", workflow.process_of(name))
            if spec.by_name[name].map is None and not await ledger.read(guard):
                return story  # a node has not begun: there is no need to read all of them
        now = await self.get()
        if now.final:
            raise Conflict(f"workflow {self.id}: the workflow is {now.state} already")
        return story


async def output_of(handle: WorkflowHandle, now: WorkflowNow) -> Any:
    """The output of a workflow as it was seen, as `WorkflowHandle.result`; None unless it was successful."""
    spec = now.workflow.spec
    if now.state != "successful":
        return None
    if spec.output is not None:
        return handle._typed(spec.output, await handle._output(now, spec.output))
    return {name: handle._typed(name, await handle._output(now, name)) for name in spec.sinks}


async def _dated(session: Session, id: str, story: WorkflowStory) -> WorkflowStory:
    """The story with the broker's time of its last event: what it releases is judged by that, not by ours."""
    last = (await session.ledger.read(subjects.guard_of("workflow", id)))[-1]
    workflow = story.workflow
    if workflow is None or last.sequence != story.guard:
        return await session.knowledge.story(id)
    workflow = replace(workflow, submitted_at=last.time, time=last.time)
    return WorkflowStory(workflow, story.judged, story.guard, workflow)


def signal_data(data: Any) -> Any:
    """What goes with a signal, as plain values. Raises Invalid."""
    data = checked_value(data, "data")
    if len(packed := values.pack(data, "the data of a signal")) > values.MAX_INLINE_BYTES:
        raise Invalid(f"data: {len(packed)} bytes; at most {values.MAX_INLINE_BYTES} are allowed")
    return data


# --- submitting -------------------------------------------------------------------------------------


async def submit_workflow(
    client: Client,
    spec: WorkflowSpec,
    key: str | None = None,
    *,
    rerun_of: str | None = None,
    reuses: dict[str, str] | None = None,
) -> str:
    """Submit a workflow, whole or not at all; its id. `reuses` says of labels which processes of the workflow
    `rerun_of` have their results. Raises as `Client.submit`."""
    spec.checked()
    if key is not None and not 1 <= len(key) <= MAX_TEXT_CHARS:
        raise Invalid(f"key: it has {len(key)} characters; 1 to {MAX_TEXT_CHARS} are allowed")
    parts, rest = _parted(spec, reuses)
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
            story, digest = await _put_part(session, id, Part(list(nodes), key), story)
            digests.append(digest.hex())
        submitted = WorkflowSubmitted(
            rest, digests or None, key, rerun_of=rerun_of, reuses=reuses or None, trace=tracing.here()
        )
        story = await session.record_workflow(id, submitted, at=story)
        with contextlib.suppress(Unavailable):  # it is submitted; whoever looks reads it then
            session.knowledge.keep(id, await _dated(session, id, story))
    except Conflict as error:
        before = (await session.knowledge.story(id)).workflow
        if key is None:
            raise
        if before is None:  # parts of others are in the way
            raise Invalid(
                f"the key {key!r} cannot be used for this workflow ({error}); take a new key"
            ) from None
        return _same(before, spec, key)
    return id


class _PartTail(WorkflowTail):
    """As that of its workflow; a part is there whoever put it: an earlier try that did not come to its end,
    or another client with the same key."""

    __slots__ = ()

    def digest(self) -> bytes | None:
        """That of the part, if it is there."""
        held, said = self.story.held, self.said
        assert isinstance(said, Part)
        there = held.parts if isinstance(held, Gathering) else ()
        return next((digest for digest, nodes in there if nodes == tuple(said.nodes)), None)

    def found(self, id: str) -> WorkflowStory | None:
        return self.story if self.digest() is not None else None


async def _put_part(
    session: Session, id: str, part: Part, story: WorkflowStory
) -> tuple[WorkflowStory, bytes]:
    """Record a part, unless it is there; with its digest. Raises as `submit_workflow`."""
    tail = _PartTail(session, id, part, story, session.knowledge)
    try:
        if tail.digest() is None:
            tail.story = await record(session, tail)
    except Unknown as error:  # without the event that lists it, a part means nothing
        raise Unavailable(
            f"workflow {id} is not submitted: the broker stopped answering before all was sent; try again"
        ) from error
    digest = tail.digest()
    assert digest is not None
    return tail.story, digest


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


def _parted(spec: WorkflowSpec, reuses: dict[str, str] | None) -> tuple[list[tuple[Node, ...]], WorkflowSpec]:
    """The nodes that do not fit into the workflow's own event, in parts, and the spec with the others."""
    rest = len(msgpack.packb([replace(spec, nodes=()).wire(), reuses]))
    if rest > PART_BYTES + MAX_LAST_BYTES:
        raise Invalid(
            f"the workflow without its nodes, and what it takes over, are {rest} bytes; at most "
            f"{PART_BYTES + MAX_LAST_BYTES} are allowed"
        )
    parts: list[list[Node]] = [[]]
    held, all_bytes = 0, 0
    for node in spec.nodes:
        size = len(msgpack.packb(node.wire()))
        if size > MAX_NODE_BYTES:
            raise Invalid(f"node {node.name}: {size} bytes; at most {MAX_NODE_BYTES} are allowed")
        if held + size > PART_BYTES:
            parts.append([])
            held = 0
        parts[-1].append(node)
        held += size
        all_bytes += size
    last = parts.pop() if rest + held <= PART_BYTES + MAX_LAST_BYTES else []
    if len(parts) > MAX_PARTS:
        raise Invalid(f"the workflow has {all_bytes} bytes; at most {MAX_PARTS * PART_BYTES} are allowed")
    return [tuple(part) for part in parts], replace(spec, nodes=tuple(last))
