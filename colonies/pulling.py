"""How a worker gets its offers: one inbox, at most one parked pull per queue, the most urgent queue first.

A queue is *parked* when a pull of ours waits in it, so it is known to be empty; any other queue that we serve
may have offers and is swept, for as many as there is room for, by priority; after ten starts the one that was
swept longest ago has its turn, so that nothing starves. Each offer tells how many more wait behind it: after
the last one the queue is parked without sweeping it in vain. An offer that comes when there is no room for it
goes back at once. Pulls are numbered: an end that is not that of the pull we wait for is an old one's, and
nothing is parked for it, else each break of the connection would leave one parked pull more. Of a queue that
is paused, and by a worker that is drained, nothing is asked for; what a pull of before brings goes back, and
no new pull is parked, so it is not handed round. This module never looks into an offer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from colonies.core.capacity import Candidate, serves
from colonies.core.colony import Queue
from colonies.core.spec import Conditions
from colonies.ledger import Delivery, Offers, PullEnded
from colonies.session import Session

PARK_S = 30.0
SILENT_S = 5.0
MISSING_WAIT_S = 0.05
REFUSED_WAIT_S = 1.0
FAIR_AFTER = 10  # starts
CLOSED_S = 1.0  # for what came from a paused queue; less than the orchestrator takes to call an offer lost


_log = structlog.get_logger("colonies.worker")


class Puller:
    """Pulls for one instance, which is `worker` to the queues.

    `room` says how many more processes of these conditions fit now; `take` gets every offer, and says whether
    there was room for it.
    """

    def __init__(
        self,
        session: Session,
        worker: Candidate,
        offers: Offers,
        *,
        room: Callable[[Conditions], int],
        take: Callable[[Delivery, Conditions], bool],
    ) -> None:
        self._session = session
        self._worker = worker
        self._offers = offers
        self._room = room
        self._take = take
        self._served: dict[str, Queue] = {}
        self._pulls = 0
        self._parked: dict[str, tuple[int, float]] = {}  # the pull's number, since when (s)
        self._retry_at: dict[str, float] = {}
        self._emptied: set[str] = set()  # by the last offer that came
        self._sweeping: str | None = None
        self._sweep_first = 0  # the number of the sweep's first pull
        self._sweep_left = 0
        self._sweep_since = 0.0
        self._sweeps = 0
        self._starts = 0  # since the queue that waited longest had its turn
        self._is_turn = False  # this sweep is such a turn: it asks for one offer
        self._last_sweep: dict[str, int] = {}
        self._stopped = False
        self._queues_changed = True
        self._is_drained = False
        self._wake = asyncio.Event()
        session.on_queues.append(self._on_queues)

    def wake(self) -> None:
        """A slot may have become free."""
        self._wake.set()

    def rest(self, queue: str, pause_s: float) -> None:
        """Pull nothing of this queue for a while, so that others come before us."""
        self._retry_at[queue] = time.monotonic() + pause_s
        self._wake.set()

    def stop(self) -> None:
        """Pull no more; what still comes goes back."""
        self._stopped = True

    def closed(self, queue: str) -> bool:
        """Is nothing of this queue to be taken here for now: paused, or we are drained?"""
        colony = self._session.colony
        return colony.is_paused(queue) or self._session.name in colony.drained

    def _on_queues(self) -> None:
        self._queues_changed = True
        self._wake.set()
        drained = self._session.colony.drained.get(self._session.name)
        if (drained is not None) != self._is_drained:
            self._is_drained = drained is not None
            if drained is not None:
                _log.info("drained: nothing more is taken", by=drained.by, reason=drained.reason)
            else:
                _log.info("resumed: offers are taken again")

    async def sweep(self) -> None:
        """Send pulls, until cancelled."""
        while True:
            self._wake.clear()
            if self._queues_changed:
                self._find_queues()
            now = time.monotonic()
            self._give_up_what_is_silent(now)
            if not self._stopped:
                await self._park_what_is_empty()
                await self._sweep_one(now)
            # What is due already waits for a slot, or for a sweep's end; both wake us.
            soonest = min((at for at in self._retry_at.values() if at > now), default=now + SILENT_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(soonest - now, SILENT_S))):
                    await self._wake.wait()

    async def _park_what_is_empty(self) -> None:
        """Where the last offer came from, if there is room for one more. No turn is spent on that."""
        for queue in sorted(queue for queue in self._emptied if self._wanted(queue) > 0):
            self._emptied.discard(queue)
            if queue not in self._parked and queue != self._sweeping and queue not in self._retry_at:
                await self._pull(queue, 1, PARK_S)

    async def _sweep_one(self, now: float) -> None:
        """Fill what is free from one queue; while half of what was asked for is still to come, wait."""
        if self._sweeping is None:
            queue, wanted = self._next_queue(now)
            self._sweep_first, self._sweep_left = self._pulls + 1, 0
        elif self._is_turn:
            return
        else:
            queue, wanted = self._sweeping, self._wanted(self._sweeping) - self._sweep_left
            if wanted < max(1, self._sweep_left):
                return
        if queue is None:
            return
        self._sweep_left += wanted
        self._sweeping, self._sweep_since = queue, now
        await self._pull(queue, wanted, 0)

    def _wanted(self, queue: str) -> int:
        """How many offers of this queue to ask for; others that may have some do not wait long."""
        served = self._served.get(queue)
        if served is None or self.closed(queue):
            return 0
        wanted = self._room(served.conditions)
        others = any(
            other not in self._parked and not self.closed(other) for other in self._served if other != queue
        )
        return min(wanted, max(1, FAIR_AFTER - self._starts)) if others else wanted

    async def _pull(self, queue: str, batch: int, wait_s: float) -> None:
        self._pulls += 1
        if wait_s > 0:
            self._parked[queue] = self._pulls, time.monotonic()
        await self._offers.pull(queue, batch=batch, wait_s=wait_s, number=self._pulls)

    def _give_up_what_is_silent(self, now: float) -> None:
        """A pull whose end got lost must not stall its queue for good."""
        if self._sweeping is not None and now > self._sweep_since + SILENT_S:
            self._sweeping = None
        for queue in [queue for queue, (_, at) in self._parked.items() if now > at + PARK_S + SILENT_S]:
            del self._parked[queue]

    def _find_queues(self) -> None:
        self._queues_changed = False
        queues = self._session.colony.queues.values()
        self._served = {}
        for queue in queues:
            try:
                if serves(queue.conditions, self._worker):
                    self._served[queue.id] = queue
            except Exception:  # what one user declared must not keep us from all others
                _log.exception("a queue is passed over", queue=queue.id)
        self._emptied &= self._served.keys()

    def _next_queue(self, now: float) -> tuple[str, int] | tuple[None, int]:
        """The queue to sweep, and how many offers to ask it for."""
        for queue in [queue for queue, at in self._retry_at.items() if at <= now]:
            del self._retry_at[queue]
        ready = [
            queue
            for queue in self._served
            if queue not in self._parked and queue not in self._retry_at and not self.closed(queue)
        ]
        self._is_turn = self._starts >= FAIR_AFTER and len(ready) > 1
        if self._is_turn:
            ready.sort(key=lambda queue: self._last_sweep.get(queue, 0))
        else:
            # Among equals the one swept longest ago, so that they share.
            ready.sort(key=lambda q: (-self._served[q].priority, self._last_sweep.get(q, 0)))
        for queue in ready:
            if (wanted := self._wanted(queue)) > 0:
                if self._is_turn:
                    self._starts, wanted = 0, 1
                self._sweeps += 1
                self._last_sweep[queue] = self._sweeps
                return queue, wanted
        return None, 0

    async def receive(self) -> None:
        """Hand out what comes, until cancelled."""
        while True:
            arrival = await self._offers.arrival()
            if isinstance(arrival, PullEnded):
                await self._ended(arrival)
                continue
            self._parked.pop(arrival.queue, None)
            if self._sweeping == arrival.queue:
                self._sweep_left -= 1
                if self._sweep_left <= 0 or arrival.waiting == 0:
                    self._sweeping = None
            if arrival.waiting == 0:
                self._emptied.add(arrival.queue)
            else:
                self._emptied.discard(arrival.queue)
            if self.closed(arrival.queue):
                # Others may not have heard of it yet; and after it is resumed it is to come soon.
                await arrival.nak(CLOSED_S)
                continue
            served = self._served.get(arrival.queue)
            if self._stopped or served is None or not self._take(arrival, served.conditions):
                await arrival.nak()
                continue
            self._starts += 1
            self._wake.set()

    async def _ended(self, ended: PullEnded) -> None:
        """A sweep that found it empty parks a pull there; a parked pull that ran out is parked anew."""
        swept = self._sweeping == ended.queue and ended.number >= self._sweep_first
        parked, _ = self._parked.get(ended.queue, (None, 0.0))
        if not swept and parked != ended.number:
            return
        self._parked.pop(ended.queue, None)
        if swept:
            self._sweeping = None
        if ended.missing or ended.refused:  # asking again at once would only be refused again
            pause_s = MISSING_WAIT_S if ended.missing else REFUSED_WAIT_S
            self._retry_at[ended.queue] = time.monotonic() + pause_s
        elif not self._stopped and ended.queue in self._served and not self.closed(ended.queue):
            await self._pull(ended.queue, 1, PARK_S)
        self._wake.set()
