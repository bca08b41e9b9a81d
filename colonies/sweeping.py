"""What no event brings about: consumers and offers that went missing, leases and waits that ended.

The orchestrator that follows the ledger sweeps every few seconds; what is found missing is said by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from colonies import subjects
from colonies.core.events import Expired, Poisoned, ProcessEvent, Requeued
from colonies.core.process import MAX_LOST_IN_A_ROW, SECOND, Blocked, Process, Running, Waiting
from colonies.heartbeats import read_heartbeat
from colonies.history import History
from colonies.keeping import QueueKeeper, apart
from colonies.ledger import Machinery
from colonies.limiting import Limiter
from colonies.reoffering import QueueWatch, offer_of
from colonies.session import Session

BLOCKED_MARGIN_S = 2.0  # a timer that is so late is lost


class Sweeper:
    """Sweeps for the orchestrator that folds `history`. `catch_up` has all that is recorded by now folded,
    `say` has an event recorded of a process, if that is as it was, `touch` has a process looked at."""

    def __init__(
        self,
        session: Session,
        machinery: Machinery,
        history: History,
        keeper: QueueKeeper,
        limiter: Limiter,
        *,
        catch_up: Callable[[], Awaitable[None]],
        say: Callable[[Process, ProcessEvent], Awaitable[None]],
        touch: Callable[[str], None],
    ) -> None:
        self._ledger = session.ledger
        self._machinery = machinery
        self._history = history
        self._keeper = keeper
        self._limiter = limiter
        self._catch_up = catch_up
        self._say = say
        self._touch = touch
        self._watched: dict[str, QueueWatch] = {}

    def forget(self, queue: str) -> None:
        """It has no consumer any more, or another one."""
        self._watched.pop(queue, None)

    async def sweep(self, now: int) -> None:
        """Look at all open processes at this ledger time (ns)."""
        open_: dict[str, list[str]] = {}  # by queue
        late: dict[str, list[str]] = {}
        started = time.monotonic()
        for process in list(self._history.processes.values()):
            if time.monotonic() - started > 0.05:
                await asyncio.sleep(0)
                started = time.monotonic()
            if isinstance(process.phase, Waiting | Running):
                open_.setdefault(process.queue, []).append(process.id)
            if (event := self._over(process, now)) is not None:
                await apart(self._say(process, event), "ending a wait", process=process.id)
                continue
            match process.phase:
                case Waiting() as waiting if now > waiting.reoffer_at() + SECOND:
                    late.setdefault(process.queue, []).append(process.id)
                case Running() as running if now > running.silent_at():
                    lapsing = self._lapsed(process, running, now)
                    await apart(lapsing, "ending a lease", process=process.id)
        for queue, waiting_ in late.items():
            if self._history.colony.is_paused(queue):  # it waits because it shall
                self.forget(queue)
                continue
            offering = self._offer_again(queue, waiting_, open_[queue])
            await apart(offering, "offering again", queue=queue)

    def _over(self, process: Process, now: int) -> ProcessEvent | None:
        """What ends the process's wait, if it is over."""
        since, limit_s = process.waits_since, process.spec.maxwaittime
        if since is not None and limit_s is not None and now > since + limit_s * SECOND:
            return Expired()
        match process.phase:
            case Blocked(until=until) if now > until + BLOCKED_MARGIN_S * SECOND:
                if not process.spec.limits:
                    return Requeued(process.sequence)
                if not self._limiter.waits(process.id):
                    self._touch(process.id)
        return None

    async def _offer_again(self, queue: str, late: list[str], open_: list[str]) -> None:
        """Of those that wait for long, offer again those that will not be handed out by themselves."""
        state = await self._machinery.queue_state(queue)
        now = await self._ledger.now()
        await self._catch_up()  # whatever was acknowledged by then has its end in here
        if state is None or not state.sound or state.delivered > self._history.position:
            self.forget(queue)
            await self._keeper.make_anew(queue)
            return
        watch = self._watched.setdefault(queue, QueueWatch())
        lease_s = self._history.colony.lease_s
        last = not any(offer_of(process) > state.delivered for process in self._still(open_))
        lost = [
            process
            for process in self._still(late)
            if isinstance(process.phase, Waiting)
            and watch.lost(process.phase, state, now, lease_s=lease_s, last=last)
        ]
        watch.look(state, self._still(open_), now)
        for process in lost:
            saying = self._say(process, Requeued(process.sequence))
            await apart(saying, "offering again", process=process.id)

    def _still(self, ids: Iterable[str]) -> Iterable[Process]:
        """Those processes as they are now, without those that have ended."""
        return (found for id in ids if (found := self._history.processes.get(id)) is not None)

    async def _lapsed(self, process: Process, running: Running, now: int) -> None:
        last = process.attempts[-1]
        for beat in await self._ledger.emitted(subjects.heartbeat(last.worker, last.instance)):
            found = read_heartbeat(self._history.colony, beat)
            if found is None or not found.runs(process.id, last.id):
                continue
            if now < found.time + running.lease_s * SECOND:
                return
        poison = process.lost_in_a_row + 1 >= MAX_LOST_IN_A_ROW
        await self._say(process, Poisoned() if poison else Requeued(process.sequence))
