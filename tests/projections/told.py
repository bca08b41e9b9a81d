"""Ledgers that nobody lived through: true events, signed by hand, at times of one's choice.

told = Told()
process = told.submit("resize")
told.later(90)
told.take(process)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from colonies_projections import Asked, View
from colonies_projections.build import Build
from colonies_projections.projector import VIEWS

from colonies import codec, subjects
from colonies.core.events import (
    Approved,
    Assigned,
    Cancelled,
    Completed,
    Declared,
    Event,
    Failed,
    Genesis,
    Queued,
    Requeued,
    Role,
    WorkerStarted,
)
from colonies.core.shapes import SECOND, Function
from colonies.core.spec import Spec, queue_of
from colonies.ids import new_id
from colonies.ledger import Stored
from colonies.memory_ledger import MemoryBroker, MemoryLedger
from colonies.nkeys import KeyPair
from colonies.roles import ROLES

START = 1_767_225_600 * SECOND  # the first of January 2026
LEASE_S = 30.0


class Told:
    """A ledger under way: `events` are those so far, `time` (ns) is that of the next."""

    def __init__(self) -> None:
        self.account = KeyPair.new("account")
        self.time = START
        self.events: list[Stored] = []
        self._keys: dict[str, KeyPair] = {}
        self._heads: dict[str, bytes] = {}
        self._offers: dict[str, str] = {}
        self._queues: dict[str, str] = {}
        self._attempts: dict[str, tuple[str, str]] = {}
        owner = self._keys["owner"] = KeyPair.new("user")
        roles: dict[Role, str] = {role: KeyPair.new("account").public for role in ROLES}
        self.say("owner", Genesis("test", "owner", owner.public, roles, LEASE_S), "", key=self.account)
        self.approve("ann", "user")
        self.approve("orchestrator", "service")
        for name in ("w1", "w2"):
            self.approve(name, "worker")

    def approve(self, name: str, role: Role) -> None:
        self._keys[name] = KeyPair.new("user")
        self.say("owner", Approved(self._keys[name].public, role), name)

    def later(self, seconds: float) -> None:
        self.time += int(seconds * SECOND)

    def say(
        self, author: str, event: Event, entity: str, queue: str | None = None, key: KeyPair | None = None
    ) -> str:
        """Have this said now; the event's id."""
        subject = subjects.subject_of(event, entity, author, queue)
        about, id = f"{subject.split('.')[1]}.{entity}", new_id()
        sealed = codec.seal(
            key or self._keys[author],
            self.account.public,
            subject,
            id=id,
            type=event.type,
            time=self.time,
            author=author,
            prev=self._heads.get(about),
            data=codec.data_of(event),
        )
        self._heads[about] = sealed.digest
        self.store(subject, sealed.data)
        return id

    def store(self, subject: str, data: bytes) -> None:
        """Have any bytes stored now."""
        self.events.append(Stored(subject, len(self.events) + 1, self.time, data))

    # --- what happens to processes -----------------------------------------------------------------------

    def register(self, worker: str, *functions: str, runtimetype: str = "python") -> None:
        found = [Function(name, f"does {name}", {"type": "object"}) for name in functions]
        self.say(worker, WorkerStarted("i1", runtimetype, 4, found), worker)

    def submit(self, func: str, runtimetype: str = "python", **more: Any) -> str:
        spec = Spec.parse({"func": func, "conditions": {"runtimetype": runtimetype}, **more})
        process, queue = new_id(), queue_of(spec.conditions, spec.priority)
        if f"queue.{queue}" not in self._heads:
            self.say("ann", Declared(spec.conditions, spec.priority), queue)
        self._queues[process] = queue
        self._offers[process] = self.say("ann", Queued(spec), process, queue)
        return process

    def take(self, process: str, worker: str = "w1") -> None:
        said = self.say(worker, Assigned(self._offers[process], LEASE_S, "i1"), process)
        self._attempts[process] = worker, said

    def complete(self, process: str) -> None:
        worker, attempt = self._attempts[process]
        self.say(worker, Completed(attempt, "done"), process)

    def fail(self, process: str, **more: Any) -> None:
        worker, attempt = self._attempts[process]
        self.say(worker, Failed(attempt, "broken", **more), process)

    def offer_again(self, process: str) -> None:
        """Right after it failed."""
        requeued = Requeued(len(self.events))
        self._offers[process] = self.say("orchestrator", requeued, process, self._queues[process])

    def cancel(self, process: str) -> None:
        self.say("ann", Cancelled("enough"), process)

    # --- views of it -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def folded(
        self, path: Path, sizes: Sequence[int] = (1_000,), views: Any = VIEWS
    ) -> AsyncIterator[Build]:
        """Views of all of it, taken in in batches of these sizes, over and over."""
        ledger = MemoryLedger(MemoryBroker(self.account.public, clock=lambda: self.time))
        build = await Build.open(ledger, path, [make() for make in views])
        try:
            left, number = list(self.events), 0
            while left:
                size = sizes[number % len(sizes)]
                number += 1
                await build.take_in(left[:size])
                left = left[size:]
            yield build
        finally:
            await build.close()


async def asked(build: Build, name: str, at: int | None = None, **asked: Any) -> list[dict[str, Any]]:
    """The items of a view; filters as their text."""
    view: View = next(view for view in build.views if view.name == name)
    filters = {name: view.filters[name].read(text) for name, text in asked.pop("filters", {}).items()}
    page, _ = await build.answer(view, Asked(filters, **{"limit": 1_000, **asked}), at)
    await asyncio.sleep(0)
    return list(page.items)
