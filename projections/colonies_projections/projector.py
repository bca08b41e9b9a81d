"""The projector: follows the ledger from its own position, has every event judged, keeps the views.

There is one state machine, `colonies.history`; views get its verdicts and its processes. It needs no
consumer and nothing from the broker but reading: the feed only wakes it. Killed at any point it goes on
where its rows end, without verifying anything again; and when its file or its position is not to be trusted
it builds everything anew by itself. It writes nothing to the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from colonies.errors import Invalid, NotFound, Refused, Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.session import Session
from colonies.tasks import first_error
from colonies_projections.build import Build
from colonies_projections.crons import Crons, Generators
from colonies_projections.desk import open_desk
from colonies_projections.findings import Findings
from colonies_projections.functions import Functions
from colonies_projections.logs import Logs
from colonies_projections.members import Members
from colonies_projections.nodes import Nodes
from colonies_projections.position import Unusable
from colonies_projections.processes import Processes
from colonies_projections.question import Question
from colonies_projections.queues import Queues
from colonies_projections.standing import Standing
from colonies_projections.statistics import Statistics
from colonies_projections.store import discard, locked
from colonies_projections.view import Page, Row, View
from colonies_projections.workers import Workers
from colonies_projections.workflows import Workflows

POLL_S = 5.0
GATHER_S = 0.01
AGAIN_S = 0.2
MAX_REBUILDS = 5
BEHIND_S = 5.0  # how long a question waits until the views are as far as it asks for

VIEWS: tuple[Callable[[], View], ...] = (
    Processes,
    Workers,
    Queues,
    Workflows,
    Nodes,
    Statistics,
    Functions,
    Members,
    Crons,
    Generators,
    Findings,
)

_log = structlog.get_logger("colonies.projector")


class Projector:
    """One projector, on a session of a member with the role `observer`; its views are in the file `path`.

    `ready` is set once the views have caught up and questions are answered. `build` are the views
    that answer, `beside` those that are built meanwhile, if any, `next` the same once they have caught up.
    `logs` stand beside the ledger, and in a file of their own.
    """

    def __init__(self, session: Session, path: Path, views: Sequence[Callable[[], View]] = VIEWS) -> None:
        self.session = session
        self.ledger = session.ledger
        self.path = path
        self.ready = asyncio.Event()
        self.build: Build | None = None
        self.beside: Build | None = None
        self.next: Build | None = None
        self.logs = Logs(self)
        self._make_views = views
        self._wake = asyncio.Event()
        self._broken: Unusable | None = None
        self._rebuilds = 0
        self._wanted = asyncio.Event()
        self._gate = _Gate()
        self._moved = asyncio.Condition()

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
                discard(self._beside)
                await self._work_while_let_in()
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self.path} cannot be written: {error}") from None
        finally:
            self.ready.clear()

    @property
    def _beside(self) -> Path:
        """The file in which views are built while others answer."""
        return self.path.with_name(f"{self.path.name}.next")

    async def _work_while_let_in(self) -> None:
        with first_error():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._work(), name="project")
                group.create_task(self._rebuild_when_asked(), name="rebuild")
                group.create_task(self.logs.run(), name="logs")
                group.create_task(self.ledger.lost(), name="connection")

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
        for build in (self.build, self.beside):
            if build is not None:
                build.confirmed = False
        self._wake.set()

    # --- following -----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Keep the views in the file until they are broken: raises Unusable."""
        self.ready.clear()
        self._broken = None
        self.build = await Build.open(self.ledger, self.path, self.views())
        try:
            async with AsyncExitStack() as stack:
                while True:
                    self._wake.clear()
                    if self._broken is not None:
                        raise self._broken
                    try:
                        await self._catch_up(self.build)
                        if self.next is not None:
                            await self._swap(self.next)
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
        finally:
            build, self.build = self.build, None
            if build is not None:
                await build.close()

    def views(self) -> list[View]:
        return [make() for make in self._make_views]

    async def _open_desk(self, stack: AsyncExitStack) -> None:
        assert self.build is not None
        if isinstance(self.ledger, JetStreamLedger):
            await stack.enter_async_context(
                open_desk(self.ledger.client(), [*self.views(), self.logs], self._answer, Standing(self))
            )
        self._rebuilds = 0
        self.ready.set()
        position = self.build.position.sequence
        _log.info("projector ready", path=str(self.path), position=position)

    async def _catch_up(self, build: Build) -> None:
        await build.confirm()
        async with contextlib.aclosing(build.catch_up()) as positions:
            async for _ in positions:
                async with self._moved:
                    self._moved.notify_all()

    # --- building anew, beside -------------------------------------------------------------------------

    def rebuild(self) -> None:
        """Build the views anew beside those that answer, then let them take their place.

        While that is under way already, it changes nothing.
        """
        if self.beside is None:
            self._wanted.set()

    async def _rebuild_when_asked(self) -> None:
        while True:
            await self._wanted.wait()
            await self.ready.wait()
            self._wanted.clear()
            await self._build_beside()

    async def _build_beside(self) -> None:
        discard(self._beside)
        _log.info("views are built anew beside those that answer", path=str(self.path))
        build = None
        try:
            build = self.beside = await Build.open(self.ledger, self._beside, self.views())
            while build.position.sequence < self._position() or self.build is None:
                try:
                    await build.confirm()
                    async with contextlib.aclosing(build.catch_up()) as positions:
                        async for _ in positions:
                            await asyncio.sleep(0)
                except (Unavailable, NotFound) as error:
                    _log.debug("ledger not read", error=str(error))
                    await asyncio.sleep(AGAIN_S)
            self.next = build
            self._wake.set()
            async with self._moved:
                await self._moved.wait_for(lambda: self.next is None)
        except Unusable as reason:
            _log.warning("the views were not built anew", path=str(self.path), reason=str(reason))
        finally:
            self.next = self.beside = None
            if build is not None:
                await build.close()
            discard(self._beside)

    async def _swap(self, build: Build) -> None:
        """Let a build that has caught up take the place of the one that answers."""
        try:
            await self._catch_up(build)
        except Unusable as reason:  # of this file; the one that answers is not to blame
            _log.warning("the views were not built anew", path=str(self.path), reason=str(reason))
            await self._done_with_next()
            return
        assert self.build is not None
        if build.position.sequence < self.build.position.sequence:
            return
        async with self._gate.closed():
            await build.close()
            former, self.build = self.build, None
            await former.close()
            discard(self.path)
            os.replace(self._beside, self.path)
            self.build = await Build.open(self.ledger, self.path, self.views())
        _log.info("views built anew answer now", path=str(self.path), position=self._position())
        await self._done_with_next()

    async def _done_with_next(self) -> None:
        async with self._moved:
            self.next = None
            self._moved.notify_all()

    # --- answering -----------------------------------------------------------------------------------

    async def _answer(self, name: str, question: Question) -> tuple[Page, int]:
        if name == self.logs.name:
            return await self.logs.answer(question)
        await self.come_to(max(question.at_least, question.at or 0))
        async with self._gate.through():
            build = self.build
            if build is None:
                raise Unavailable("the views are being built anew; ask again in a moment")
            view = next(view for view in build.views if view.name == name)
            try:
                return await build.answer(view, question.asked, question.at)
            except Unusable as reason:
                raise self._is_broken(reason) from None

    async def rows(self, query: str, parameters: Sequence[Any]) -> list[Row]:
        """Rows of the views as they are now, for what stands beside them. Raises Unavailable."""
        async with self._gate.through():
            if self.build is None:
                raise Unavailable("the views are being built anew; ask again in a moment")
            try:
                async with self.build.store.snapshot() as (_, select):
                    return await select(query, parameters)
            except Unusable as reason:
                raise self._is_broken(reason) from None

    def _is_broken(self, reason: Unusable) -> Unavailable:
        self._broken = reason
        self._wake.set()
        return Unavailable("the views are being built anew; ask again in a moment")

    async def come_to(self, sequence: int) -> None:
        """Wait until the views have taken in this event. Raises Invalid: there is none; Unavailable."""
        if self._position() >= sequence:
            return
        last = await self.ledger.last_sequence()
        if last < sequence:
            raise Invalid(f"there is no event {sequence} yet: the ledger ends at {last}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEHIND_S), self._moved:
                await self._moved.wait_for(lambda: self._position() >= sequence)
                return
        raise Unavailable(f"the views are behind: they have come to {self._position()} of {last}")

    def _position(self) -> int:
        return self.build.position.sequence if self.build is not None else 0


class _Gate:
    """Many go through at a time, or one holds it closed: then nobody is within, and others wait."""

    def __init__(self) -> None:
        self._within = 0
        self._closed = False
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def through(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closed)
            self._within += 1
        try:
            yield
        finally:
            async with self._changed:
                self._within -= 1
                self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        async with self._changed:
            self._closed = True
            await self._changed.wait_for(lambda: self._within == 0)
        try:
            yield
        finally:
            async with self._changed:
                self._closed = False
                self._changed.notify_all()
