"""The broker: one stream of events, consumers, timers, heartbeats. It does what nats-server was seen to do.

All of it happens at one moment of virtual time and never fails; what gets lost, late or twice on the way is
`link`. What the owner of the broker, or a hostile worker, can do to consumers is here as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from colonies.errors import Conflict
from colonies.ledger import PullEnded, QueueState, Stored
from tests.simulator.loop import VirtualLoop

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND  # of the virtual clock, in ledger time (ns)
TIMER_AGAIN_S = 30.0
HEARTBEATS_KEPT = 8


def guard_of(subject: str) -> str:
    """What compare-and-set is about: `ledger.<kind>.<entity>.>`."""
    kind, entity = subject.split(".", 3)[1:3]
    return "ledger.colony.>" if kind == "colony" else f"ledger.{kind}.{entity}.>"


class Puller(Protocol):
    """Where a pull's offers and its end go. `deaf`: nobody listens there any more."""

    deaf: bool

    def deliver(self, queue: Queue, stored: Stored, deliveries: int) -> None: ...

    def ended(self, queue: str, number: int, status: str) -> None: ...


class Held:
    """An offer that was handed out: from `due` (s) on it may be handed out again."""

    __slots__ = ("deliveries", "due", "stored")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.due = 0.0
        self.deliveries = 0


class Pull:
    __slots__ = ("left", "number", "puller", "until")

    def __init__(self, puller: Puller, left: int, until: float, number: int) -> None:
        self.puller = puller
        self.left = left
        self.until = until
        self.number = number


class Queue:
    """A durable pull consumer. What is due again goes before what is new."""

    def __init__(self, broker: Broker, name: str, start: int, lease_s: float) -> None:
        self.name = name
        self.lease_s = lease_s
        self.deleted = False
        self.delivered = max(0, start - 1)
        self.held: dict[int, Held] = {}
        self.pulls: deque[Pull] = deque()
        self._broker = broker
        self._loop = broker.loop
        self._timer: Any = None
        self.fresh: deque[Stored] = deque()
        self.begin(start)

    def begin(self, start: int) -> None:
        """Forget everything, and hand out again from this sequence on."""
        self.delivered = max(0, start - 1)
        self.held.clear()
        self.fresh = deque(
            stored
            for stored in self._broker.events[max(0, start - 1) :]
            if f".queued.{self.name}." in stored.subject
        )

    def skip_all(self) -> None:
        """As if a hostile worker had pulled and acknowledged everything."""
        self.delivered = max(self.delivered, len(self._broker.events))
        self.fresh.clear()
        self.held.clear()

    def state(self) -> QueueState:
        floor = min(self.held) - 1 if self.held else self.delivered
        return QueueState(self.delivered, floor, len(self.held), len(self.pulls))

    def add(self, stored: Stored) -> None:
        self.fresh.append(stored)
        self.serve()

    def pull(self, puller: Puller, batch: int, wait_s: float, number: int) -> None:
        now = self._loop.now
        pull = Pull(puller, batch, now + wait_s, number)
        while pull.left and (held := self._next(now)) is not None:
            self._give(held, pull, now)
        if pull.left and wait_s > 0:
            self.pulls.append(pull)
        elif pull.left:
            puller.ended(self.name, number, PullEnded.EMPTY)
        self._plan()

    def forget(self, puller: Puller) -> None:
        self.pulls = deque(pull for pull in self.pulls if pull.puller is not puller)

    def serve(self) -> None:
        now = self._loop.now
        if self.pulls:
            self.pulls = deque(pull for pull in self.pulls if not self._is_over(pull, now))
        while self.pulls and (held := self._next(now)) is not None:
            pull = self.pulls.popleft()
            self._give(held, pull, now)
            if pull.left:
                self.pulls.append(pull)
        self._plan()

    def _is_over(self, pull: Pull, now: float) -> bool:
        if pull.until <= now:
            pull.puller.ended(self.name, pull.number, PullEnded.TIME_UP)
            return True
        return pull.puller.deaf

    def _next(self, now: float) -> Held | None:
        due = [sequence for sequence, held in self.held.items() if held.due <= now]
        if due:
            return self.held[min(due)]
        if not self.fresh:
            return None
        stored = self.fresh.popleft()
        self.delivered = stored.sequence
        held = self.held[stored.sequence] = Held(stored)
        return held

    def _give(self, held: Held, pull: Pull, now: float) -> None:
        held.due = now + self.lease_s + self._broker.redelivery_s()
        held.deliveries += 1
        pull.left -= 1
        pull.puller.deliver(self, held.stored, held.deliveries)

    def ack(self, sequence: int) -> None:
        self.held.pop(sequence, None)

    def extend(self, sequence: int) -> None:
        if sequence in self.held:
            self.held[sequence].due = self._loop.now + self.lease_s + self._broker.redelivery_s()

    def nak(self, sequence: int, delay_s: float) -> None:
        if sequence in self.held:
            self.held[sequence].due = self._loop.now + max(0.0, delay_s)
            self.serve()

    def delete(self) -> None:
        self.deleted = True
        for pull in self.pulls:
            pull.puller.ended(self.name, pull.number, "409")
        self.pulls.clear()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.pulls and not self.deleted:
            when = min(pull.until for pull in self.pulls)
            if self.held:
                when = min(when, *(held.due for held in self.held.values()))
            self._timer = self._broker.plan(when, self.serve)


class Broker:
    """Everything that outlives the machines. `redelivery_s`: how much a lease differs from what was asked."""

    def __init__(self, loop: VirtualLoop, colony: str, prelude: list[Stored]) -> None:
        self.loop = loop
        self.colony = colony
        self.events = list(prelude)
        self.entities: dict[str, list[Stored]] = {}
        for stored in prelude:
            self.entities.setdefault(guard_of(stored.subject), []).append(stored)
        self.queues: dict[str, Queue] = {}
        self.heartbeats: dict[str, list[Stored]] = {}
        self.logs: list[Stored] = []
        self.values: dict[str, bytes] = {}
        self.redelivery_s: Callable[[], float] = lambda: 0.0
        self.on_stored: Callable[[Stored], None] = lambda stored: None
        self.timers: dict[str, int] = {}
        self.waiters: deque[Callable[[str], None]] = deque()
        self._due: deque[str] = deque()

    def now(self) -> int:
        """The ledger's clock (ns, whole microseconds)."""
        return START + int(self.loop.now * 1_000_000) * 1_000

    def plan(self, when: float, callback: Callable[..., object], *args: Any) -> Any:
        """As `call_at`, whatever machine is running."""
        loop, machine = self.loop, self.loop.machine
        loop.machine = loop.nobody
        try:
            return loop.call_at(when, callback, *args)
        finally:
            loop.machine = machine

    def store(self, subject: str, data: bytes, after: int | None) -> int:
        """Store an event. Raises Conflict if `after` is not the last sequence of its entity."""
        guard = guard_of(subject)
        entity = self.entities.get(guard)
        last = entity[-1].sequence if entity else 0
        if after is not None and after != last:
            raise Conflict(f"wrong last sequence: {last}")
        stored = Stored(subject, len(self.events) + 1, self.now(), data, after == 0)
        self.events.append(stored)
        if entity is None:
            self.entities[guard] = [stored]
        else:
            entity.append(stored)
        self.on_stored(stored)
        tokens = subject.split(".")
        if len(tokens) == 6 and tokens[3] == "queued" and tokens[4] in self.queues:
            self.queues[tokens[4]].add(stored)
        return stored.sequence

    def make_queue(self, name: str, start: int, lease_s: float) -> None:
        queue = self.queues.get(name)
        if queue is None:
            self.queues[name] = Queue(self, name, start, lease_s)
        else:
            queue.lease_s = lease_s

    def delete_queue(self, name: str) -> None:
        if (queue := self.queues.pop(name, None)) is not None:
            queue.delete()

    def beat(self, subject: str, data: bytes) -> None:
        kept = self.heartbeats.setdefault(subject, [])
        kept.append(Stored(subject, 0, self.now(), data))
        del kept[:-HEARTBEATS_KEPT]

    # --- timers --------------------------------------------------------------------------------------

    def schedule(self, process: str, at: int) -> None:
        due = -(-at // SECOND)
        self.timers[process] = due
        self.plan((due * SECOND - START) / SECOND, self._fire, process, due)

    def _fire(self, process: str, due: int) -> None:
        if self.timers.get(process) == due:
            self._due.append(process)
            self.hand_out_due()

    def hand_out_due(self) -> None:
        """One that is not acknowledged comes again."""
        while self._due and self.waiters:
            process = self._due.popleft()
            self.waiters.popleft()(process)
            self.plan(self.loop.now + TIMER_AGAIN_S, self._fire, process, self.timers[process])
