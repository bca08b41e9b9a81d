"""Staying alive and knowing when one is not: heartbeats, leases, and what an instance no longer holds.

Every third of a lease the deliveries are extended, a signed heartbeat says what runs, and the last sequences
of all that runs are compared with what is known; what was taken over or cancelled is let go. It stops work,
it never reports on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from colonies import subjects
from colonies.attempt import Attempt
from colonies.core.events import Completed, Failed, Renewed
from colonies.core.process import RENEW_LEASES, RENEW_MAX_S, SECOND, Process, Running
from colonies.errors import ColoniesError, Conflict, Unavailable
from colonies.heartbeats import read_heartbeat
from colonies.history import Story
from colonies.ledger import Delivery, Stored
from colonies.session import Session

MAX_BEAT_BYTES = 900_000  # what does not fit goes without progress; 10,000 attempts then take 0.7 MB

_log = structlog.get_logger("colonies.worker")


@dataclass(slots=True)
class Held:
    """An attempt that an instance holds: what it knows of the process, the delivery, the task that runs it.

    `ended` says why the task was stopped from outside, None if it was not; `outcome` is the result in hand,
    `finished` the process once that is recorded.
    """

    story: Story
    attempt: Attempt
    delivery: Delivery
    renewed: float
    task: asyncio.Task[None] | None = None
    ended: str | None = None
    outcome: Completed | Failed | None = None
    finished: Process | None = None

    def let_go(self, reason: str) -> None:
        """Stop the work; the task cleans up."""
        if self.ended is None and self.task is not None and not self.task.done():
            self.ended = reason
            self.task.cancel()


async def lease_left_s(session: Session, process: Process, running: Running) -> float:
    """How long the holder's lease still lasts: from its last sign on the ledger or its last heartbeat (s).

    While the broker was down nobody could give a sign, so after a reconnect everybody has a whole lease.

    HEARTBEATS keeps the last of an instance, and any member can have the broker store something else in its
    place, or push it out. Who takes offers has one there; if it is gone, or is not fresh, then what the
    holder said is not known, and it must first be silent on the ledger.
    """
    last, lease = process.attempts[-1], int(running.lease_s * SECOND)
    alive_until = running.silent_at()
    for beat in await session.ledger.emitted(subjects.heartbeat(last.worker, last.instance)):
        found = read_heartbeat(session.colony, beat)
        if found is not None and beat.time <= found.time + lease:
            runs = found.runs(process.id, last.id)
            alive_until = max(running.lapses_at(), found.time + lease if runs else 0)
    left_s = (alive_until - await session.ledger.now()) / SECOND
    reconnected_at = session.ledger.reconnected_at
    if reconnected_at is not None:
        left_s = max(left_s, running.lease_s - (time.monotonic() - reconnected_at))
    return left_s


class Liveness:
    """The signs of life of one instance, over what it holds."""

    def __init__(
        self, session: Session, instance: str, runtimetype: str, concurrency: int, held: Mapping[str, Held]
    ) -> None:
        self._session = session
        self._ledger = session.ledger
        self._about = {"instance": instance, "runtimetype": runtimetype, "concurrency": concurrency}
        self._subject = subjects.heartbeat(session.name, instance)
        self._held = held
        self._look = asyncio.Event()
        self._ledger.on_gap(self._look.set)

    def on_cancel(self, stored: Stored) -> None:
        """A hint from the feed; the ledger is asked before anything is stopped."""
        if subjects.process_of_feed(stored.subject) in self._held:
            self._look.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._session.colony.lease_s / 3):
                    await self._look.wait()
            self._look.clear()
            try:
                await self._drop_what_is_lost()
                for held in list(self._held.values()):
                    await held.delivery.in_progress()
                await self.beat()
                await self._renew()
            except Unavailable as error:
                _log.debug("no heartbeat", error=str(error))
                await asyncio.sleep(0.1)
                self._look.set()
            except ColoniesError:
                raise
            except Exception:
                _log.exception("no heartbeat")

    async def beat(self) -> None:
        """Publish one heartbeat."""
        now = await self._ledger.now()
        sealed = self._sealed(now, progress=True)
        if len(sealed) > MAX_BEAT_BYTES:
            sealed = self._sealed(now, progress=False)
        await self._ledger.emit(self._subject, sealed)

    def _sealed(self, now: int, *, progress: bool) -> bytes:
        attempts: dict[str, Any] = {}
        for held in self._held.values():
            last = held.attempt.last_progress if progress else None
            said = [last.fraction, last.message] if last else []
            attempts[held.attempt.process] = [held.attempt.id, *said]
        return self._session.seal_note(self._subject, "heartbeat", now, {**self._about, "attempts": attempts})

    async def _drop_what_is_lost(self) -> None:
        """Compare the last sequences of all that runs with what we know; read those that moved."""
        guards = {subjects.guard_of("process", process): held for process, held in self._held.items()}
        if not guards:
            return
        for guard, sequence in (await self._ledger.last_of(list(guards))).items():
            held = guards.get(guard)
            if held is None or sequence <= held.story.guard or held.ended is not None:
                continue
            story = await self._session.story(held.attempt.process)
            process = story.process
            if process is None:
                continue
            if isinstance(process.phase, Running) and process.attempts[-1].id == held.attempt.id:
                held.story = story
            else:
                held.let_go(f"the process is {process.state}" if process.final else "its lease lapsed")

    async def _renew(self) -> None:
        """Long attempts show on the ledger that they live, every 10 leases or 5 minutes."""
        after_s = min(RENEW_LEASES * self._session.colony.lease_s, RENEW_MAX_S)
        for held in list(self._held.values()):
            if time.monotonic() - held.renewed < after_s or held.ended is not None:
                continue
            try:
                event = Renewed(held.attempt.id)
                held.story = await self._session.record(held.attempt.process, event, at=held.story)
                held.renewed = time.monotonic()
            except Conflict:
                self._look.set()
