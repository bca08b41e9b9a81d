"""An honest workflow among hostile members: its nodes wait in a queue of their own, which only tests serve.

flow = await Flow.of(field, node("a"), node("b", "a"))
attempt = await flow["a"].take(who)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from colonies.core.process import Process, Waiting
from colonies.core.workflow import node_id
from colonies.flows import WorkflowHandle
from colonies.ids import new_token
from tests.hostile.attacker import Attacker, digest, ulid
from tests.hostile.field import LIMIT_S, Field

LEASE_S = 2.0


def node(name: str, *parents: str, **rules: Any) -> dict[str, Any]:
    """A node; its runtime type is put in by `Flow.of`."""
    return {"name": name, "func": "job", "dependencies": list(parents), **rules}


class Flow:
    """A workflow of ann's. `flow["a"]` is one of its nodes, or a label that it has not."""

    def __init__(self, field: Field, handle: WorkflowHandle) -> None:
        self.field = field
        self.handle = handle
        self.id = handle.id

    @classmethod
    async def of(cls, field: Field, *nodes: dict[str, Any], **rules: Any) -> Flow:
        conditions = {"runtimetype": f"r{new_token(8)}"}
        made = [found if "wait_signal" in found else {"conditions": conditions, **found} for found in nodes]
        for found in made:
            if "wait_signal" in found:
                found.pop("func")
        return cls(field, await field.ann.submit_workflow({"nodes": made, **rules}))

    def __getitem__(self, label: str) -> Node:
        return Node(self, label)

    async def sequence(self) -> int:
        """Where its own event stands."""
        return (await self.field.ann.session.workflow(self.id)).sequence

    async def state(self) -> str:
        return (await self.handle.get()).state

    async def head(self) -> bytes:
        return (await self.field.ann.session.workflow(self.id)).head

    def subject(self, event: str, author: str) -> str:
        return f"ledger.workflow.{self.id}.{event}.{author}"

    async def finish(self, who: Attacker, state: str = "successful") -> None:
        """Have whatever is offered still done by a worker, honestly, until the workflow has ended so."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                now = await self.handle.get()
                if now.final:
                    break
                for found in now.nodes:
                    if found.process is not None and isinstance(found.process.phase, Waiting):
                        await self[found.label].done(who)
                await asyncio.sleep(0.02)
        assert now.state == state, [(found.label, found.state) for found in now.nodes]


class Node:
    """One node of a `Flow`, as `Job` is a process of its own."""

    def __init__(self, flow: Flow, label: str) -> None:
        self.flow = flow
        self.label = label
        self.id = node_id(flow.id, label)

    def subject(self, event: str, author: str) -> str:
        return f"ledger.process.{self.id}.{event}.{author}"

    async def get(self) -> Process:
        found = (await self.flow.field.ann.session.story(self.id)).process
        assert found is not None
        return found

    async def until(self, *states: str) -> Process:
        """Wait until it is in one of these states."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = (await self.flow.field.ann.session.story(self.id)).process
                if found is not None and found.state in states:
                    return found
                await asyncio.sleep(0.01)

    async def take(self, who: Attacker) -> tuple[str, bytes]:
        """Take its offer; the attempt's id and the new head."""
        process, id = await self.until("waiting"), ulid()
        assert isinstance(process.phase, Waiting)
        subject = self.subject("assigned", who.name)
        data = {"offer": process.phase.offer.id, "lease_s": LEASE_S, "instance": "evil"}
        event = who.event("process.assigned", subject, prev=process.head, id=id, data=data)
        await who.store(subject, event)
        return id, digest(who.colony, subject, event)

    async def done(self, who: Attacker, output: Any = None, **data: Any) -> int:
        """Take it and end it well; where that stands."""
        attempt, head = await self.take(who)
        subject = self.subject("completed", who.name)
        data = {"attempt": attempt, "output": output, **data}
        return await who.store(subject, who.event("process.completed", subject, prev=head, data=data))

    async def failed(self, who: Attacker) -> int:
        attempt, head = await self.take(who)
        subject = self.subject("failed", who.name)
        data = {"attempt": attempt, "error": "broken", "kind": "final"}
        return await who.store(subject, who.event("process.failed", subject, prev=head, data=data))

    def said(
        self,
        who: Attacker,
        kind: str,
        cites: Any,
        *,
        queue: str = "",
        workflow: str | None = None,
        **more: Any,
    ) -> tuple[str, bytes]:
        """The subject and bytes of an event with which its process would begin."""
        event = f"queued.{queue}" if kind == "released" else kind
        subject = self.subject(event, who.name)
        data = {"workflow": workflow or self.flow.id, "node": self.label, "cites": cites, **more}
        return subject, who.event(f"process.{kind}", subject, data=data)


@asynccontextmanager
async def unconducted(field: Field) -> AsyncIterator[None]:
    """The orchestrator looks at no workflow meanwhile: what a test says is said first."""
    conductor = field.orchestrator._conductor
    busy, conductor._busy = conductor._busy, _Never()
    try:
        yield
    finally:
        conductor._busy = busy | dict.fromkeys(conductor._open)
        field.orchestrator._wake.set()


class _Never(dict[str, None]):
    """A dictionary that stays empty, whatever is put into it."""

    def __setitem__(self, key: str, value: None) -> None:
        pass
