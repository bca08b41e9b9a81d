"""Queues in memory: what a durable pull consumer of the broker does, by the same rules.

An offer that was handed out comes again, to whoever pulls, once its time (the lease) has passed without an
acknowledgement. It moves stored messages; it never looks into one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from colonies import subjects
from colonies.ledger import Arrival, PullEnded, QueueState, Stored

SECOND = 1_000_000_000


@dataclass(slots=True)
class _Held:
    """An offer handed out and not acknowledged: from `due` (ns) on it may be handed out again."""

    offer: Stored
    due: int
    deliveries: int


@dataclass(slots=True)
class _Pull:
    """A parked pull: `left` more offers, until `until` (ns). `number` is the puller's own."""

    offers: MemoryOffers
    left: int
    until: int
    number: int = 0


class MemoryQueue:
    """One queue's consumer. `past` are the queue's offers from `start` on that are stored already."""

    def __init__(
        self, name: str, *, start: int, lease_s: float, past: Iterable[Stored], now: Callable[[], int]
    ) -> None:
        self.name = name
        self.filter = subjects.offers_of(name)
        self.lease_s = lease_s
        self._now = now
        self._fresh = deque(past)
        self._held: dict[int, _Held] = {}
        self._pulls: deque[_Pull] = deque()
        self._delivered = max(0, start - 1)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> QueueState:
        floor = min(self._held) - 1 if self._held else self._delivered
        return QueueState(self._delivered, floor, len(self._held), len(self._pulls))

    def add(self, offer: Stored) -> None:
        """A new offer was stored."""
        self._fresh.append(offer)
        self.serve()

    def pull(self, offers: MemoryOffers, batch: int, wait_s: float, number: int = 0) -> None:
        """Hand out up to `batch` offers, now or within `wait_s` seconds."""
        now = self._now()
        pull = _Pull(offers, batch, now + int(wait_s * SECOND), number)
        while pull.left and (held := self._next(now)) is not None:
            self._give(held, pull, now)
        if pull.left and wait_s > 0:
            self._pulls.append(pull)
        elif pull.left:
            offers.put(PullEnded(self.name, number=number, status=PullEnded.EMPTY))
        self._plan(now)

    def forget(self, offers: MemoryOffers) -> None:
        """Nobody listens there any more: drop its pulls."""
        self._pulls = deque(pull for pull in self._pulls if pull.offers is not offers)
        self._plan(self._now())

    def serve(self) -> None:
        """End the pulls whose time is up; give the others what is there and what is due again."""
        now = self._now()
        for pull in [pull for pull in self._pulls if pull.until <= now]:
            self._pulls.remove(pull)
            pull.offers.put(PullEnded(self.name, number=pull.number, status=PullEnded.TIME_UP))
        while self._pulls and (held := self._next(now)) is not None:
            pull = self._pulls.popleft()
            self._give(held, pull, now)
            if pull.left:
                self._pulls.append(pull)
        self._plan(now)

    def end(self) -> None:
        """The queue is deleted: whoever waits here hears it."""
        for pull in self._pulls:
            pull.offers.put(PullEnded(self.name, missing=True, number=pull.number))
        self._pulls.clear()
        self._held.clear()
        self._plan(self._now())

    def ack(self, sequence: int) -> None:
        self._held.pop(sequence, None)

    def extend(self, sequence: int) -> None:
        held = self._held.get(sequence)
        if held is not None:
            held.due = self._now() + int(self.lease_s * SECOND)

    def nak(self, sequence: int, delay_s: float) -> None:
        held = self._held.get(sequence)
        if held is not None:
            held.due = self._now() + int(max(0.0, delay_s) * SECOND)
            self.serve()

    def _next(self, now: int) -> _Held | None:
        """What is due again goes before what is new, each in order."""
        due = min((sequence for sequence, held in self._held.items() if held.due <= now), default=None)
        if due is not None:
            return self._held[due]
        if not self._fresh:
            return None
        offer = self._fresh.popleft()
        self._delivered = offer.sequence
        held = self._held[offer.sequence] = _Held(offer, 0, 0)
        return held

    def _give(self, held: _Held, pull: _Pull, now: int) -> None:
        held.due = now + int(self.lease_s * SECOND)
        held.deliveries += 1
        pull.left -= 1
        waiting = len(self._fresh)
        pull.offers.put(MemoryDelivery(held.offer, self.name, held.deliveries, waiting, self, pull.offers))

    def _plan(self, now: int) -> None:
        """Look again when the next parked pull ends or, if one waits, when the next offer is due again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pulls:
            return
        times = [pull.until for pull in self._pulls] + [held.due for held in self._held.values()]
        delay_s = max(0, min(times) - now) / SECOND
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.serve)


@dataclass(slots=True)
class MemoryDelivery:
    """See `colonies.ledger.Delivery`. What is said after the ledger was closed is not heard."""

    stored: Stored
    queue: str
    deliveries: int
    waiting: int
    of: MemoryQueue
    offers: MemoryOffers

    async def ack(self) -> None:
        if not self.offers.gone:
            self.of.ack(self.stored.sequence)

    async def nak(self, delay_s: float = 0.0) -> None:
        if not self.offers.gone:
            self.of.nak(self.stored.sequence, delay_s)

    async def in_progress(self) -> None:
        if not self.offers.gone:
            self.of.extend(self.stored.sequence)


class MemoryOffers:
    """See `colonies.ledger.Offers`. `gone`: the whole ledger is closed, as when a worker dies."""

    def __init__(self, queues: Mapping[str, MemoryQueue]) -> None:
        self.gone = False
        self._queues = queues
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._closed = False

    def put(self, arrival: Arrival) -> None:
        self._arrivals.put_nowait(arrival)

    async def pull(self, queue: str, *, batch: int, wait_s: float, number: int = 0) -> None:
        found = self._queues.get(queue)
        if found is None or self._closed:
            self.put(PullEnded(queue, missing=True, number=number))
        else:
            found.pull(self, batch, wait_s, number)

    async def arrival(self) -> Arrival:
        return await self._arrivals.get()

    async def close(self) -> None:
        self._closed = True
        for queue in self._queues.values():
            queue.forget(self)
