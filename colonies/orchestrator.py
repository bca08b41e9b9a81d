"""The orchestrator: keeps the queues' consumers, ends backoffs, offers again what was lost, lets expire.

It follows the ledger, verifying every event, and holds only the processes that are not final. All it says is
guarded and cites what makes it true, so two orchestrators, or one that repeats itself, do no harm; killed at
any point, it derives everything anew from the ledger. It never runs work and can invent none.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import structlog

from colonies import subjects
from colonies.core.colony import Queue
from colonies.core.events import Expired, Poisoned, ProcessEvent, Requeued
from colonies.core.process import (
    MAX_LOST_IN_A_ROW,
    SECOND,
    Blocked,
    Process,
    Running,
    Waiting,
)
from colonies.errors import ColoniesError, Conflict, Refused, Unavailable
from colonies.heartbeats import read_heartbeat
from colonies.history import History, Story, examine
from colonies.ledger import Machinery, Stored
from colonies.session import Session
from colonies.witness import HighWater, digest_of, recall, remember

SWEEP_S = 2.0
LOOK_S = 0.25
DELIVERED_WAIT_S = 5.0
SOON_S = 1.0
WITNESS_S = 1.0

# What cannot wait for the next look; all else is found by looking every LOOK_S seconds.
URGENT_FEEDS = ("feed.process.*.failed.*", "feed.queue.>", "feed.colony.>", "feed.member.>")
CHECKED_LATER = frozenset({"queued", "assigned", "renewed"})

_log = structlog.get_logger("colonies.orchestrator")


class Orchestrator:
    """One orchestrator, on a session of a member with the role `service`."""

    def __init__(self, session: Session, machinery: Machinery) -> None:
        self.session = session
        self.ledger = session.ledger
        self.machinery = machinery
        self.ready = asyncio.Event()
        self._history = History(type(session.colony)(session.ledger.colony))
        self._finished: set[str] = set()
        self._touched: set[str] = set()
        self._unchecked: dict[str, list[Stored]] = {}
        self._doubted: set[str] = set()
        self._wake = asyncio.Event()
        self._made: dict[str, float] = {}
        self._soon: set[asyncio.TimerHandle] = set()
        self._last_seen: Stored | None = None

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            Refused: this member is no service, or is revoked.
        """
        if self.session.role != "service":
            raise Refused(
                f"{self.session.name} is a {self.session.role}; an orchestrator needs the role service"
            )
        await self._look_for_a_cut()
        self.ledger.on_gap(self._wake.set)
        feeds = [await self.ledger.subscribe(feed, lambda _: self._wake.set()) for feed in URGENT_FEEDS]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name="follow the ledger")
                group.create_task(self._repeat(self._sweep, SWEEP_S), name="sweep")
                group.create_task(self._repeat(self._due, 0.0), name="timers")
                group.create_task(self._repeat(self._bear_witness, WITNESS_S), name="witness")
                group.create_task(self.ledger.lost(), name="watch connection")
        except* ColoniesError as errors:
            raise errors.exceptions[0] from None
        finally:
            for timer in self._soon:
                timer.cancel()
            await self._bear_witness()
            for feed in feeds:
                await feed.close()

    async def _repeat(self, step: Callable[[], Awaitable[None]], pause_s: float) -> None:
        await self.ready.wait()
        while True:
            try:
                await step()
            except (Unavailable, ColoniesError) as error:
                _log.debug("trying again", step=step.__name__, error=str(error))
                await asyncio.sleep(0.5)
            await asyncio.sleep(pause_s)

    # --- following -----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._catch_up()
                await self._make_queues()
                await self._act_on_touched()
            except Unavailable as error:
                _log.debug("ledger not read", error=str(error))
                await asyncio.sleep(0.2)
                continue
            if not self.ready.is_set():
                _log.info(
                    "orchestrator ready", position=self._history.position, open=len(self._history.processes)
                )
                self.ready.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def _catch_up(self) -> None:
        history = self._history
        async for batch in self.ledger.scan(history.position):
            for stored in batch:
                self._fold(stored)
            self._last_seen = batch[-1]
            await asyncio.sleep(0)

    def _fold(self, stored: Stored) -> None:
        """Fold one event. Most processes begin and end within a moment: what only moves them on is believed
        until `_check` or their end; what ends them, and all else, is checked at once."""
        subject = subjects.parse(stored.subject)
        later = subject is not None and subject.kind == "process" and subject.event in CHECKED_LATER
        judged = self._history.add(stored, trusted=later)
        if subject is None or subject.kind != "process":
            return
        process = subject.entity
        if later:
            self._unchecked.setdefault(process, []).append(stored)
        if process in self._finished:
            self._forget(process)
        elif not judged.verdict.valid:
            if process in self._unchecked:  # perhaps only because of something that was believed
                self._doubted.add(process)
        elif self._history.processes[process].final:
            self._finished.add(process)
            self._forget(process)
        else:
            self._touched.add(process)

    def _forget(self, process: str) -> None:
        self._history.processes.pop(process, None)
        self._unchecked.pop(process, None)
        self._touched.discard(process)
        self._doubted.discard(process)

    async def _check(self, process: str) -> Process | None:
        """The process, everything that was believed of it checked; read anew if any of it was not sound."""
        believed = self._unchecked.pop(process, [])
        colony = self._history.colony
        if all(examine(colony, stored).record is not None for stored in believed):
            return self._history.processes.get(process)
        found = (await self.session.story(process)).process
        if found is None or found.final:
            self._forget(process)
            return None
        self._history.processes[process] = found
        return found

    async def _bear_witness(self) -> None:
        """Keep outside the ledger how far it went, so that a cut tail is noticed."""
        stored = self._last_seen
        if stored is not None:
            seen = HighWater(stored.sequence, digest_of(stored))
            await asyncio.to_thread(remember, self.ledger.colony, seen)

    async def _look_for_a_cut(self) -> None:
        seen = recall(self.ledger.colony)
        if await self.ledger.last_sequence() < seen.sequence:
            _log.error(
                "the ledger ends before an event that was seen here: its tail is lost; run ledger verify",
                seen=seen.sequence,
            )

    async def _make_queues(self) -> None:
        colony = self._history.colony
        for queue in list(colony.queues.values()):
            if self._made.get(queue.id) != colony.lease_s:
                await self._make_queue(queue, colony.lease_s)

    async def _make_queue(self, queue: Queue, lease_s: float) -> None:
        state = await self.machinery.queue_state(queue.id)
        start = queue.declared
        if state is None:
            start = self._first_open_offer(queue)
        await self.machinery.make_queue(queue.id, start=start, lease_s=lease_s)
        self._made[queue.id] = lease_s
        _log.debug("queue ready", queue=queue.id)

    def _first_open_offer(self, queue: Queue) -> int:
        """Where a consumer that is made anew must begin, so that no open offer is passed over."""
        offers = [
            process.phase.offer.sequence
            for process in self._history.processes.values()
            if process.queue == queue.id and isinstance(process.phase, Waiting | Running)
        ]
        return min(offers, default=max(queue.declared, self._history.position))

    async def _act_on_touched(self) -> None:
        while self._doubted:
            await self._check(self._doubted.pop())
        now = await self.ledger.now()
        while self._touched:
            process = self._history.processes.get(self._touched.pop())
            if process is not None and isinstance(process.phase, Blocked):
                await self._blocked(process, process.phase.until, now)

    async def _blocked(self, process: Process, until: int, now: int) -> None:
        left_s = (until - now) / SECOND
        if left_s <= 0:
            await self._say(process, Requeued(process.sequence))
        elif left_s <= SOON_S:
            self._look_again_in(left_s + 0.002, process.id)
        else:
            await self.machinery.schedule(process.id, until)

    def _look_again_in(self, delay_s: float, process: str) -> None:
        def due() -> None:
            self._soon.discard(timer)
            self._touched.add(process)
            self._wake.set()

        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._soon.add(timer)

    async def _due(self) -> None:
        for process in await self.machinery.due():
            self._touched.add(process)
            self._wake.set()

    # --- sweeping ------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """What no event brings about: consumers and offers that went missing, leases and waits that ended."""
        now = await self.ledger.now()
        passed: dict[str, tuple[int, int]] = {}
        started = time.monotonic()
        for process_id in [id for id, seen in self._unchecked.items() if now > seen[0].time + 2 * SECOND]:
            await self._check(process_id)
            await asyncio.sleep(0)
        for process in list(self._history.processes.values()):
            if time.monotonic() - started > 0.05:
                await asyncio.sleep(0)
                started = time.monotonic()
            match process.phase:
                case Waiting() as waiting:
                    await self._waiting(process, waiting, now, passed)
                case Running() as running if now > running.silent_at():
                    await self._lapsed(process, running, now)
                case Blocked(until=until) if now > until + 2 * SECOND:
                    await self._say(process, Requeued(process.sequence))

    async def _waiting(
        self, process: Process, waiting: Waiting, now: int, passed: dict[str, tuple[int, int]]
    ) -> None:
        limit_s = process.spec.maxwaittime
        if limit_s is not None and now > waiting.since + limit_s * SECOND:
            await self._say(process, Expired())
            return
        if now < waiting.reoffer_at() + SECOND:
            return
        if process.queue not in passed:
            passed[process.queue] = await self._passed(process.queue)
        delivered, acknowledged = passed[process.queue]
        offer = waiting.offer.sequence
        handed_out = now > waiting.reoffer_at() + DELIVERED_WAIT_S * SECOND and offer <= delivered
        if offer <= acknowledged or handed_out:
            await self._say(process, Requeued(process.sequence))

    async def _passed(self, queue: str) -> tuple[int, int]:
        """How far the queue's consumer is; it is made anew when it is gone."""
        state = await self.machinery.queue_state(queue)
        if state is not None:
            return state.delivered, state.acknowledged
        declared = self._history.colony.queues.get(queue)
        if declared is not None:
            _log.warning("a queue lost its consumer; made anew", queue=queue)
            await self._make_queue(declared, self._history.colony.lease_s)
        return 0, 0

    async def _lapsed(self, process: Process, running: Running, now: int) -> None:
        last = process.attempts[-1]
        for beat in await self.ledger.emitted(subjects.heartbeat(last.worker, last.instance)):
            found = read_heartbeat(self._history.colony, beat)
            if found is None or not found.runs(process.id, last.id):
                continue
            if now < found.time + running.lease_s * SECOND:
                return
        poison = process.lost_in_a_row + 1 >= MAX_LOST_IN_A_ROW
        await self._say(process, Poisoned() if poison else Requeued(process.sequence))

    async def _say(self, process: Process, event: ProcessEvent) -> None:
        """Record it; if the process has moved on meanwhile, that is as well."""
        if process.id in self._unchecked and await self._check(process.id) != process:
            self._touched.add(process.id)
            return
        queue = process.queue if isinstance(event, Requeued) else None
        try:
            await self.session.record(process.id, event, at=Story(process, [], process.sequence), queue=queue)
            _log.info(event.type, process=process.id, colony=self.session.colony.name)
        except Conflict:
            self._wake.set()
