"""The ledger in one process: `colonies.ledger` without a broker, files or network.

A `MemoryBroker` holds all streams of one colony; each member has a `MemoryLedger` on it. It behaves as
`colonies.jetstream` does, which one contract test checks on both; only permissions, lost connections and
restarts are not to be had here. A broker belongs to the event loop that it is used on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

from colonies import subjects
from colonies.errors import Conflict, NotFound, Unavailable
from colonies.ids import new_token
from colonies.ledger import Draft, QueueState, Stored, Subscription
from colonies.memory_queues import SECOND, MemoryOffers, MemoryQueue

READ_BATCH = 512
MAX_BATCH = 1_000


class MemoryBroker:
    """All streams of the colony whose account key is `colony`. `clock` gives ns since 1970."""

    def __init__(self, colony: str, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.colony = colony
        self.events: list[Stored] = []
        self.queues: dict[str, MemoryQueue] = {}
        self.values: dict[str, bytes] = {}
        self._clock = clock
        self._entities: dict[str, list[Stored]] = {}
        self._alone: set[int] = set()
        self._heartbeats: dict[str, Stored] = {}
        self._logs: list[Stored] = []
        self._notes = 0
        self._timers: dict[str, int] = {}
        self._timers_changed = asyncio.Event()
        self._subscriptions: dict[_Subscription, None] = {}

    def now(self) -> int:
        """The broker's clock (ns, whole microseconds)."""
        return self._clock() // 1_000 * 1_000

    def wake(self) -> None:
        """Look at the clock again, after an injected one was moved."""
        for queue in self.queues.values():
            queue.serve()
        self._timers_changed.set()

    # --- the ledger ----------------------------------------------------------------------------------

    def store(self, subject: str, data: bytes, *, after: int | None = None) -> int:
        """Store what a member published, whatever it is, and hand it on; `after` is checked if given."""
        guard = subjects.guard_if_any(subject)
        if after is not None and after != self.last(guard):
            raise Conflict(f"wrong last sequence: {self.last(guard)}")
        time = max(self.now(), self.events[-1].time if self.events else 0)
        stored = Stored(subject, len(self.events) + 1, time, data)
        self.events.append(stored)
        if guard is not None:
            self._entities.setdefault(guard, []).append(stored)
        if after == 0:
            self._alone.add(stored.sequence)
        self._publish(subjects.feed_of(subject), stored)
        for queue in self.queues.values():
            if subjects.matcher(queue.filter)(subject):
                queue.add(self._as_offer(stored))
        return stored.sequence

    def last(self, guard: str | None) -> int:
        """The last sequence under a guard, 0 if there is none."""
        events = self._entities.get(guard) if guard is not None else None
        return events[-1].sequence if events else 0

    def under(self, pattern: str, after: int = 0) -> list[Stored]:
        """The next events under a pattern after a sequence, at most READ_BATCH."""
        found: list[Stored] = []
        matches = subjects.matcher(pattern)
        if "*" not in pattern and subjects.guard_if_any(pattern) == pattern:
            events, start = self._entities.get(pattern, []), 0
        else:
            events, start = self.events, after
        for index in range(start, len(events)):
            stored = events[index]
            if stored.sequence > after and matches(stored.subject):
                found.append(stored)
                if len(found) == READ_BATCH:
                    break
        return found

    def _as_offer(self, stored: Stored) -> Stored:
        return replace(stored, alone=stored.sequence in self._alone)

    # --- heartbeats, logs, subscriptions -------------------------------------------------------------

    def keep_note(self, subject: str, data: bytes) -> int:
        """Store a heartbeat (the last one of each subject is kept) or a log message."""
        self._notes += 1
        stored = Stored(subject, self._notes, self.now(), data)
        if subject.startswith("log."):
            self._logs.append(stored)
        else:
            self._heartbeats[subject] = stored
        self._publish(subject, Stored(subject, 0, 0, data))
        return stored.sequence

    def notes(self, pattern: str) -> list[Stored]:
        matches = subjects.matcher(pattern)
        kept = self._logs if pattern.startswith("log.") else list(self._heartbeats.values())
        return sorted((s for s in kept if matches(s.subject)), key=lambda stored: stored.sequence)

    def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> _Subscription:
        subscription = _Subscription(pattern, heard, self._subscriptions)
        self._subscriptions[subscription] = None
        return subscription

    def _publish(self, subject: str, stored: Stored) -> None:
        for subscription in self._subscriptions:
            if subjects.matcher(subscription.pattern)(subject):
                asyncio.get_running_loop().call_soon(subscription.hear, stored)

    # --- queues and timers ---------------------------------------------------------------------------

    def make_queue(self, name: str, start: int, lease_s: float) -> None:
        """Make the queue's consumer, or give the one that is there another lease; it keeps its place."""
        queue = self.queues.get(name)
        if queue is not None:
            queue.lease_s = lease_s
            return
        matches = subjects.matcher(subjects.offers_of(name))
        past = [self._as_offer(s) for s in self.events if s.sequence >= start and matches(s.subject)]
        self.queues[name] = MemoryQueue(name, start=start, lease_s=lease_s, past=past, now=self.now)

    def schedule(self, process: str, at: int) -> None:
        self._timers[process] = -(-at // SECOND) * SECOND
        self._timers_changed.set()

    async def due(self) -> list[str]:
        while True:
            now = self.now()
            due = [process for process, at in self._timers.items() if at <= now]
            if due:
                for process in due:
                    del self._timers[process]
                return due
            self._timers_changed.clear()
            wait_s = (min(self._timers.values()) - now) / SECOND if self._timers else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._timers_changed.wait()
            except TimeoutError:
                continue


class MemoryLedger:
    """See `colonies.ledger.Ledger` and `Machinery`: it is both, for there are no permissions here."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.colony = broker.colony
        self._closed = asyncio.Event()
        self._subscriptions: list[_Subscription] = []
        self._offers: list[MemoryOffers] = []

    async def _turn(self) -> None:
        """Let others run, as waiting for a broker's answer would.

        Raises:
            Unavailable: this ledger is closed.
        """
        if self._closed.is_set():
            raise Unavailable("the connection is closed")
        await asyncio.sleep(0)

    # --- writing -------------------------------------------------------------------------------------

    async def append(self, draft: Draft) -> int:
        return await (await self.send(draft))

    async def send(self, draft: Draft) -> Awaitable[int]:
        if self._closed.is_set():
            raise Unavailable("the connection is closed")
        outcome: int | Conflict
        try:
            outcome = self.broker.store(draft.subject, draft.data, after=draft.after)
        except Conflict as conflict:
            outcome = conflict
        return self._answer(outcome)

    async def _answer(self, outcome: int | Conflict) -> int:
        await self._turn()
        if isinstance(outcome, Conflict):
            raise outcome
        return outcome

    async def append_all(self, drafts: Sequence[Draft]) -> list[int]:
        guards = {subjects.guard_if_any(draft.subject) for draft in drafts}
        if not 1 <= len(drafts) <= MAX_BATCH:
            raise ValueError(f"{len(drafts)} events in a batch; it takes 1 to {MAX_BATCH}")
        if len(guards) < len(drafts):
            raise ValueError("a batch takes one event of an entity at most")
        await self._turn()
        for draft in drafts:
            last = self.broker.last(subjects.guard_if_any(draft.subject))
            if last != draft.after:
                raise Conflict(f"wrong last sequence: {last}")
        return [self.broker.store(draft.subject, draft.data, after=draft.after) for draft in drafts]

    async def emit(self, subject: str, data: bytes) -> int:
        await self._turn()
        return self.broker.keep_note(subject, data)

    # --- reading -------------------------------------------------------------------------------------

    async def read(self, pattern: str) -> list[Stored]:
        return [stored async for batch in self.scan(0, pattern) for stored in batch]

    async def scan(self, after: int = 0, pattern: str = subjects.EVERYTHING) -> AsyncIterator[list[Stored]]:
        while True:
            await self._turn()
            batch = self.broker.under(pattern, after)
            if not batch:
                return
            after = batch[-1].sequence
            yield batch

    async def at(self, sequence: int) -> Stored:
        await self._turn()
        if not 1 <= sequence <= len(self.broker.events):
            raise NotFound(f"there is no event {sequence}")
        return self.broker.events[sequence - 1]

    async def last_sequence(self) -> int:
        await self._turn()
        return len(self.broker.events)

    async def last_of(self, patterns: Sequence[str]) -> dict[str, int]:
        await self._turn()
        return {guard: last for guard in patterns if (last := self.broker.last(guard))}

    async def emitted(self, pattern: str) -> list[Stored]:
        await self._turn()
        return self.broker.notes(pattern)

    async def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> Subscription:
        await self._turn()
        subscription = self.broker.subscribe(pattern, heard)
        self._subscriptions.append(subscription)
        return subscription

    def on_gap(self, heard: Callable[[], None]) -> None:
        """Nothing is ever lost here."""

    async def now(self) -> int:
        return self.broker.now()

    # --- queues and timers ---------------------------------------------------------------------------

    async def offers(self) -> MemoryOffers:
        await self._turn()
        self._offers.append(MemoryOffers(self.broker.queues))
        return self._offers[-1]

    async def make_queue(self, queue: str, *, start: int, lease_s: float) -> None:
        await self._turn()
        self.broker.make_queue(queue, start, lease_s)

    async def queue_state(self, queue: str) -> QueueState | None:
        await self._turn()
        found = self.broker.queues.get(queue)
        return found.state if found is not None else None

    async def delete_queue(self, queue: str) -> None:
        await self._turn()
        if (found := self.broker.queues.pop(queue, None)) is not None:
            found.end()

    async def schedule(self, process: str, at: int) -> None:
        await self._turn()
        self.broker.schedule(process, at)

    async def due(self) -> list[str]:
        await self._turn()
        return await self.broker.due()

    # --- large values --------------------------------------------------------------------------------

    async def put_value(self, author: str, data: bytes) -> str:
        await self._turn()
        name = f"{author}.{new_token()}"
        self.broker.values[name] = data
        return name

    async def get_value(self, name: str, size_bytes: int) -> bytes:
        await self._turn()
        if name not in self.broker.values:
            raise NotFound(f"the stored value {name} is not in the colony's Object Store")
        return self.broker.values[name][:size_bytes]

    # --- the end -------------------------------------------------------------------------------------

    @property
    def reconnected_at(self) -> float | None:
        return None  # there is no connection to break

    async def lost(self) -> None:
        await self._closed.wait()
        raise Unavailable("the connection is closed")

    async def close(self) -> None:
        self._closed.set()
        for subscription in self._subscriptions:
            await subscription.close()
        for offers in self._offers:
            offers.gone = True
            await offers.close()


class _Subscription:
    def __init__(
        self, pattern: str, heard: Callable[[Stored], None], among: dict[_Subscription, None]
    ) -> None:
        self.pattern = pattern
        self._heard = heard
        self._among = among

    def hear(self, stored: Stored) -> None:
        if self in self._among:
            self._heard(stored)

    async def close(self) -> None:
        self._among.pop(self, None)
