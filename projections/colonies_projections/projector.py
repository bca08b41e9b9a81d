"""The projector: follows the ledger from its own position, has every event judged, keeps the views.

There is one state machine, `colonies.history`; views get its verdicts and its processes. It needs no
consumer and nothing from the broker but reading: the feed only wakes it. Killed at any point it goes on
where its rows end, without verifying anything again; and when its file or its position is not to be trusted
it builds everything anew by itself. It writes nothing to the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from colonies import subjects
from colonies.core.events import Record, WorkflowSubmitted
from colonies.errors import NotFound, Refused, Unavailable
from colonies.history import Judged
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Stored
from colonies.session import Session
from colonies_projections.desk import open_desk
from colonies_projections.memory import Memory
from colonies_projections.processes import Processes
from colonies_projections.progress import Progresses
from colonies_projections.queues import Queues
from colonies_projections.store import Position, Store, Unusable, discard, locked
from colonies_projections.view import Asked, Batch, Snapshot, View
from colonies_projections.workers import Workers
from colonies_projections.workflows import Workflows

POLL_S = 5.0
GATHER_S = 0.01
AGAIN_S = 0.2
MAX_REBUILDS = 5
EVENTS_IN_A_ROW = 64

VIEWS: tuple[Callable[[], View], ...] = (Processes, Workers, Queues, Workflows)

_log = structlog.get_logger("colonies.projector")


class Projector:
    """One projector, on a session of a member with the role `observer`; its views are in the file `path`.

    `ready` is set once the views have caught up and questions are answered.
    """

    def __init__(self, session: Session, path: Path, views: Sequence[Callable[[], View]] = VIEWS) -> None:
        self.session = session
        self.ledger = session.ledger
        self.path = path
        self.ready = asyncio.Event()
        self._make_views = views
        self._views: list[View] = []
        self._store: Store
        self._memory: Memory
        self._progresses: Progresses
        self._wake = asyncio.Event()
        self._gap = True
        self._broken: Unusable | None = None
        self._rebuilds = 0

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            Refused: this member is no observer, or is revoked.
            Unavailable: another projector has the file, or it cannot be written.
        """
        if self.session.role != "observer":
            raise Refused(
                f"{self.session.name} is a {self.session.role}; a projector needs the role observer"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(self.path):
                await self._work_while_let_in()
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self.path} cannot be written: {error}") from None
        finally:
            self.ready.clear()

    async def _work_while_let_in(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._work(), name="project")
                group.create_task(self.ledger.lost(), name="connection")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _work(self) -> None:
        self.ledger.on_gap(self._on_gap)
        feed = await self.ledger.subscribe("feed.>", lambda _: self._wake.set())
        try:
            while True:
                try:
                    await self._follow()
                except Unusable as reason:
                    self._rebuilds += 1
                    _log.warning("the views are built anew", path=str(self.path), reason=str(reason))
                    if self._rebuilds > MAX_REBUILDS:
                        raise Unavailable(f"{self.path} is unusable again and again: {reason}") from None
                    discard(self.path)
        finally:
            await feed.close()

    def _on_gap(self) -> None:
        """The broker may have come back with another ledger: look before going on."""
        self._gap = True
        self._wake.set()

    # --- following -----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        self.ready.clear()
        self._gap, self._broken = True, None
        self._views = [make() for make in self._make_views]
        async with AsyncExitStack() as stack:
            store = self._store = await Store.open(self.path, self.ledger.colony, self._views)
            stack.push_async_callback(store.close)
            self._memory = await Memory(store).open()
            self._progresses = Progresses(self._memory)
            while True:
                self._wake.clear()
                if self._broken is not None:
                    raise self._broken
                try:
                    await self._catch_up()
                except (Unavailable, NotFound) as error:
                    _log.debug("ledger not read", error=str(error))
                    await asyncio.sleep(AGAIN_S)
                    continue
                if not self.ready.is_set():
                    await self._open_desk(stack)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
                    await asyncio.sleep(GATHER_S)

    async def _open_desk(self, stack: AsyncExitStack) -> None:
        if isinstance(self.ledger, JetStreamLedger):
            await stack.enter_async_context(open_desk(self.ledger.client(), self._views, self._answer))
        self._rebuilds = 0
        self.ready.set()
        _log.info("projector ready", path=str(self.path), position=self._store.position.sequence)

    async def _catch_up(self) -> None:
        if self._gap:
            await self._confirm()
            self._gap = False
        async for batch in self.ledger.scan(self._store.position.sequence):
            await self._take_in(batch)

    async def _confirm(self) -> None:
        """Does our position still stand in this ledger? Raises Unusable if not."""
        ours = self._store.position
        if ours.sequence == 0:
            return
        async for batch in self.ledger.scan(ours.sequence - 1):
            if Position.of(batch[0]) != ours:
                raise Unusable(f"the ledger was replaced: event {ours.sequence} is another one now")
            return
        last = await self.ledger.last_sequence()
        if last < ours.sequence:
            raise Unusable(f"the ledger was cut: it ends at {last}, the views are at {ours.sequence}")
        raise Unavailable("the broker that answered is behind; another time")

    # --- taking in -----------------------------------------------------------------------------------

    async def _take_in(self, batch: list[Stored]) -> None:
        memory, progresses = self._memory, self._progresses
        held = memory.held
        named = await memory.begin(batch)
        judged: list[Judged] = []
        for number, stored in enumerate(batch, start=1):
            before = held["process"].get(_process_of(stored) or "")
            judged.append(await memory.take(stored))
            await progresses.after(judged[-1], before)
            if number % EVENTS_IN_A_ROW == 0:
                await asyncio.sleep(0)
        valid = [seen.record for seen in judged if seen.record is not None and seen.verdict.valid]
        touched = {(record.kind, record.entity) for record in valid if record.kind in held}
        touched |= {("generator", name) for name in map(_generator_of, valid) if name is not None}
        touched |= {("progress", id) for id in progresses.touched}
        touched |= {(kind, id) for kind, id in named if kind == "voids" and id in held[kind]}
        changed = Batch(
            judged,
            {id: held[kind][id] for kind, id in touched if kind == "process"},
            {id: (held["workflow"][id], held["progress"][id]) for id in progresses.touched},
            progresses.rows,
        )
        await self._store.commit(
            Position.of(batch[-1]),
            memory.packed(touched),
            memory.history.colony if any(record.kind not in held for record in valid) else None,
            [write for view in self._views for write in view.fold(changed)],
        )
        memory.forget(named)
        progresses.forget()

    # --- answering -----------------------------------------------------------------------------------

    async def _answer(self, view: View, asked: Asked) -> tuple[list[dict[str, Any]], int]:
        try:
            async with self._store.snapshot() as position:
                at = Snapshot(position, self._store.select, self._memory.history.colony, self.ledger)
                return await view.answer(asked, at), position
        except Unusable as reason:
            self._broken = reason
            self._wake.set()
            raise Unavailable("the views are being built anew; ask again in a moment") from None


def _process_of(stored: Stored) -> str | None:
    """The process that a message is of, if it is of one."""
    subject = subjects.parse(stored.subject)
    return subject.entity if subject is not None and subject.kind == "process" else None


def _generator_of(record: Record) -> str | None:
    """The generator whose arguments this takes."""
    source = record.event.source if isinstance(record.event, WorkflowSubmitted) else None
    return source.name if source is not None and source.kind == "generator" else None
