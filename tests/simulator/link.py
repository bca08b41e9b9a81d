"""The seam of `colonies.ledger` over the fake broker, and all that happens to messages on their way.

A call is a request, its effect at the broker, and a reply. Each may be late, the first and the last may get
lost, and the machine may crash before the effect, or after it and before it hears of it. A machine whose
connection broke waits for it, hears nothing, and is told of the gap when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from colonies.errors import ColoniesError, Conflict, NotFound, Unavailable, Unknown
from colonies.ledger import Arrival, Draft, PullEnded, QueueState, Stored
from tests.simulator.broker import SECOND, Broker, Queue, guard_of
from tests.simulator.loop import Machine, VirtualLoop

if TYPE_CHECKING:
    from tests.simulator.plan import Faults

CONNECT_S = 10.0
DUE_S = 20.0
BATCH = 64


class Host(Machine):
    """A machine with a network: whether its connection is `up`, how far its clock is behind the broker's.

    `crash_at` is the number of the call at whose effect it crashes, before it or, `crash_after`, after it.
    `troubled_at` is when something last happened to it (s): what it does in time is judged from then on.
    """

    def __init__(self, name: str, member: str) -> None:
        super().__init__(name)
        self.member = member
        self.up = True
        self.calls = 0
        self.crash_at = 0
        self.crash_after = False
        self.troubled_at = -1e9
        self.lag_ns = 0
        self.links: list[SimLedger] = []
        self.instance = ""  # the id of the worker's instance on it
        self.heard_at = 0.0
        self.reconnected_at: float | None = None
        self.on_crash: list[Callable[[], object]] = []  # what its operating system closes

    def trouble(self, until: float) -> None:
        """Something happens to it, until then."""
        self.troubled_at = max(self.troubled_at, until)


class Network:
    """What is between the machines and the broker. All chance comes from the seed."""

    def __init__(self, loop: VirtualLoop, broker: Broker, faults: Faults, random: Random) -> None:
        self.loop = loop
        self.broker = broker
        self.faults = faults
        self.random = random.random
        self.calm = False
        self.crash: Callable[[Host], None] = lambda host: None
        self.trace: Callable[..., None] | None = None
        self.subscribers: dict[str, list[SimSubscription]] = {}  # by the kind of entity, or ">"
        broker.redelivery_s = self._redelivery_s

    def latency_s(self) -> float:
        return 0.0002 + 0.004 * self.random() ** 4

    def _redelivery_s(self) -> float:
        """Up to 0.6 s early, or late."""
        if self.faults.redelivery and not self.calm and self.random() < self.faults.redelivery:
            return -0.6 + 1.6 * self.random()
        return 0.0

    def stale_s(self) -> float:
        return self.faults.stale_s * self.random() if self.faults.stale_s else 0.0

    def effect(self, host: Host, doing: str, effect: Callable[..., Any], *args: Any) -> Any:
        """What a call brings about at the broker or on the disk, if its machine lives so long."""
        if host.dead:
            raise asyncio.CancelledError
        host.calls += 1
        crash = host.calls == host.crash_at and not self.calm
        if crash and not host.crash_after:
            self.crash(host)
            raise asyncio.CancelledError
        loop = self.loop
        loop.machine = loop.nobody  # what it plans there outlives the machine that asked
        try:
            outcome = effect(*args)
        except ColoniesError as error:
            outcome = error
        finally:
            loop.machine = host
        if self.trace is not None:
            self.note(host, doing, *args, "->", outcome)
        if crash:
            self.crash(host)
            raise asyncio.CancelledError
        return outcome

    def at_broker(self, effect: Callable[..., Any], *args: Any) -> Any:
        """What happens at the broker is nobody's: its timers outlive the machine that asked."""
        loop, machine = self.loop, self.loop.machine
        loop.machine = loop.nobody
        try:
            return effect(*args)
        finally:
            loop.machine = machine

    def publish(self, stored: Stored) -> None:
        """To all who listen, in order, unless it gets lost."""
        feed = "feed" + stored.subject[6:]
        tokens = feed.split(".")
        for subscriber in (*self.subscribers.get(tokens[1], ()), *self.subscribers.get(">", ())):
            host = subscriber.host
            if host.up and not host.dead and subscriber.wants(tokens):
                if not self.calm and self.faults.lose_feed and self.random() < self.faults.lose_feed:
                    self.note(host, "did not hear", feed)
                    continue
                self.later(host, self._in_order(host), subscriber.hear, stored)

    def _in_order(self, host: Host) -> float:
        host.heard_at = max(host.heard_at + 1e-7, self.loop.now + self.latency_s())
        return host.heard_at

    def later(self, host: Host, when: float, callback: Callable[..., object], *args: Any) -> Any:
        loop, machine = self.loop, self.loop.machine
        loop.machine = host
        try:
            return loop.call_at(when, callback, *args)
        finally:
            loop.machine = machine

    def note(self, host: Host, what: str, *about: object) -> None:
        if self.trace is not None:
            self.trace(host.name, what, *about)

    # --- connections ---------------------------------------------------------------------------------

    def disconnect(self, host: Host, *, noticed: bool) -> None:
        """`noticed`: the broker knows at once; else offers still go there for a while, and are lost."""
        host.up = False
        host.trouble(self.loop.now)
        for link in host.links:
            link.broke(noticed)

    def reconnect(self, host: Host) -> None:
        host.up = True
        host.trouble(self.loop.now)
        host.reconnected_at = self.loop.now
        if not host.dead:
            for link in host.links:
                self.later(host, self.loop.now, link.mended)


class SimSubscription:
    def __init__(self, network: Network, host: Host, pattern: str, heard: Callable[[Stored], None]) -> None:
        self.host = host
        self._tokens = pattern.split(".")
        self._open = self._tokens[-1] == ">"
        self._heard = heard
        self._network = network
        self._among = network.subscribers.setdefault(self._tokens[1], [])
        self._among.append(self)

    def wants(self, tokens: list[str]) -> bool:
        mine = self._tokens
        if self._open:
            if len(tokens) < len(mine):
                return False
            mine = mine[:-1]
        elif len(mine) != len(tokens):
            return False
        return all(own in ("*", token) for own, token in zip(mine, tokens, strict=False))

    def hear(self, stored: Stored) -> None:
        if self in self._among and not self.host.dead and self.host.up:
            self._network.note(self.host, "hears", stored.sequence)
            self._heard(stored)

    async def close(self) -> None:
        if self in self._among:
            self._among.remove(self)


class SimDelivery:
    """See `colonies.ledger.Delivery`."""

    def __init__(self, link: SimLedger, of: Queue, stored: Stored, deliveries: int) -> None:
        self.stored = stored
        self.queue = of.name
        self.deliveries = deliveries
        self.waiting = len(of.fresh)
        self._of = of
        self._link = link

    async def ack(self) -> None:
        self._link.say("ack", self._of.ack, self.stored.sequence)

    async def nak(self, delay_s: float = 0.0) -> None:
        self._link.say("nak", self._of.nak, self.stored.sequence, delay_s)

    async def in_progress(self) -> None:
        self._link.say("in progress", self._of.extend, self.stored.sequence)


class SimOffers:
    """See `colonies.ledger.Offers`."""

    def __init__(self, link: SimLedger) -> None:
        self.deaf = False
        self._link = link
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._pulled: dict[str, int] = {}
        link.on_gap(self._on_gap)

    async def pull(self, queue: str, *, batch: int, wait_s: float, number: int = 0) -> None:
        self._pulled[queue] = number
        if not self._link.host.up:
            self._arrivals.put_nowait(PullEnded(queue, True, number))
            return
        self._link.say("pull", self._pull, queue, batch, wait_s, number)

    def _pull(self, queue: str, batch: int, wait_s: float, number: int) -> None:
        found = self._link.broker.queues.get(queue)
        if found is None:
            self.ended(queue, number, "503")
        else:
            found.pull(self, batch, wait_s, number)

    def deliver(self, queue: Queue, stored: Stored, deliveries: int) -> None:
        if self.deaf:
            return
        delivery = SimDelivery(self._link, queue, stored, deliveries)
        self._link.to_here(self._put, delivery, doing="offer")

    def ended(self, queue: str, number: int, status: str) -> None:
        if not self.deaf:
            self._link.to_here(self._put, PullEnded(queue, status == "503", number, status))

    def _put(self, arrival: Arrival) -> None:
        host = self._link.host
        if host.dead or not host.up:
            return
        if isinstance(arrival, SimDelivery):
            self._link.network.note(host, "is offered", arrival.stored.sequence, arrival.deliveries)
        self._arrivals.put_nowait(arrival)

    def _on_gap(self) -> None:
        self.deaf = False
        for queue, number in self._pulled.items():
            self._arrivals.put_nowait(PullEnded(queue, number=number))

    async def arrival(self) -> Arrival:
        return await self._arrivals.get()

    async def close(self) -> None:
        self.deaf = True


class SimLedger:
    """See `colonies.ledger.Ledger` and `Machinery`."""

    def __init__(self, network: Network, host: Host) -> None:
        self.network = network
        self.broker = network.broker
        self.colony = network.broker.colony
        self.host = host
        self.offering: list[SimOffers] = []
        self._loop = network.loop
        self._gaps: list[Callable[[], None]] = []
        self._under_way: dict[asyncio.Future[Any], None] = {}
        self._connected = asyncio.Event()
        if host.up:
            self._connected.set()
        self._closed = False
        self._gone = asyncio.Event()
        host.links.append(self)

    # --- on the way ----------------------------------------------------------------------------------

    async def _ask(self, doing: str, effect: Callable[..., Any], *args: Any) -> Any:
        if not self.host.up or self._closed:
            await self._wait_connected()
        return await self._start(doing, effect, *args)

    def _start(self, doing: str, effect: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        host, network = self.host, self.network
        if host.dead:
            raise asyncio.CancelledError
        future = self._loop.create_future()
        self._under_way[future] = None
        if not network.calm and self._is_troubled(doing, args):
            self._in_trouble(future, doing, effect, args)
        else:
            outcome = network.effect(host, doing, effect, *args)
            self._loop.call_at(self._loop.now + network.latency_s(), self._settle, future, outcome)
        return future

    def _is_troubled(self, doing: str, args: tuple[Any, ...]) -> bool:
        faults, random = self.network.faults, self.network.random
        if faults.focus and doing == "append" and f".{faults.focus}." in args[0] and random() < 0.5:
            return True
        return bool(faults.trouble) and random() < faults.trouble

    def _in_trouble(
        self, future: asyncio.Future[Any], doing: str, effect: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        """Lost or late, there or back."""
        network, host, now = self.network, self.host, self._loop.now
        kind, delay_s = int(network.random() * 4), 5.0 * network.random() ** 1.5
        host.trouble(now + 0.2 + delay_s)
        network.note(host, ("loses", "gets no answer to", "is slow with", "waits for")[kind], doing)
        if kind == 1 or kind == 3:
            outcome = network.effect(host, doing, effect, *args)
            if kind == 3:
                network.later(host, now + delay_s, self._settle_late, future, outcome)
        elif kind == 2:
            network.later(host, now + delay_s / 2, self._do_late, future, doing, effect, args, delay_s / 2)
        if kind < 2:
            lost = Unknown("the broker gave no answer in time")
            network.later(host, now + 0.2 + delay_s, self._settle_late, future, lost)

    def _do_late(
        self,
        future: asyncio.Future[Any],
        doing: str,
        effect: Callable[..., Any],
        args: tuple[Any, ...],
        delay_s: float,
    ) -> None:
        if self.host.dead or future.done() or not self.host.up:
            return
        try:
            outcome = self.network.effect(self.host, doing, effect, *args)
        except asyncio.CancelledError:
            return
        self._loop.call_at(self._loop.now + delay_s, self._settle_late, future, outcome)

    def _settle_late(self, future: asyncio.Future[Any], outcome: Any) -> None:
        self.host.trouble(self._loop.now)
        self._settle(future, outcome)

    def _settle(self, future: asyncio.Future[Any], outcome: Any) -> None:
        self._under_way.pop(future, None)
        if future.done() or self.host.dead:
            return
        if isinstance(outcome, ColoniesError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def _wait_connected(self) -> None:
        if self._closed:
            raise Unavailable("the connection is closed")
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._connected.wait()
        except TimeoutError:
            raise Unavailable("the broker does not answer") from None
        if self._closed:
            raise Unavailable("the connection is closed")

    def say(self, doing: str, effect: Callable[..., Any], *args: Any) -> None:
        """Without an answer: it arrives or not."""
        network, host = self.network, self.host
        if not host.up and not host.dead:
            return
        if not network.calm and network.faults.lose_word and network.random() < network.faults.lose_word:
            host.trouble(self._loop.now)
            network.note(host, "loses", doing, *args)
            return
        network.effect(host, doing, effect, *args)

    def to_here(self, callback: Callable[..., object], *args: Any, doing: str = "end") -> None:
        """From the broker, in order with all else that comes; an offer may get lost or be late."""
        network, faults = self.network, self.network.faults
        when = network._in_order(self.host)
        if not network.calm and faults.lose_word and network.random() < faults.lose_word:
            self.host.trouble(self._loop.now)
            if network.random() < 0.5:
                network.note(self.host, "does not get", doing)
                return
            when += 3.0 * network.random()
        network.later(self.host, when, callback, *args)

    def broke(self, noticed: bool) -> None:
        self._connected.clear()
        for offers in self.offering:
            offers.deaf = noticed
        self.network.later(self.host, self._loop.now, self._fail_all)

    def _fail_all(self) -> None:
        under_way, self._under_way = self._under_way, {}
        for future in under_way:
            if not future.done():
                future.set_exception(Unknown("the connection to the broker broke before its answer came"))

    def mended(self) -> None:
        if self.host.up:
            self._connected.set()
            for heard in self._gaps:
                heard()

    def on_gap(self, heard: Callable[[], None]) -> None:
        self._gaps.append(heard)

    # --- writing -------------------------------------------------------------------------------------

    async def append(self, draft: Draft) -> int:
        outcome: int = await self._ask("append", self.broker.store, draft.subject, draft.data, draft.after)
        return outcome

    async def send(self, draft: Draft) -> Awaitable[int]:
        if not self.host.up or self._closed:
            await self._wait_connected()
        return self._start("append", self.broker.store, draft.subject, draft.data, draft.after)

    async def append_all(self, drafts: Sequence[Draft]) -> list[int]:
        outcome: list[int] = await self._ask("append all", self._store_all, list(drafts))
        return outcome

    def _store_all(self, drafts: list[Draft]) -> list[int]:
        for draft in drafts:
            if _last(self.broker, draft.subject) != draft.after:
                raise Conflict("wrong last sequence")
        return [self.broker.store(draft.subject, draft.data, draft.after) for draft in drafts]

    async def emit(self, subject: str, data: bytes) -> int:
        outcome: int = await self._ask("emit", self._emit, subject, data)
        return outcome

    def _emit(self, subject: str, data: bytes) -> int:
        if subject.startswith("log."):
            self.broker.logs.append(Stored(subject, len(self.broker.logs) + 1, self.broker.now(), data))
            return len(self.broker.logs)
        self.broker.beat(subject, data)
        return 1

    # --- reading -------------------------------------------------------------------------------------

    async def read(self, pattern: str) -> list[Stored]:
        found: list[Stored] = await self._ask("read", self._under, pattern, 0)
        return found

    def _under(self, pattern: str, after: int) -> list[Stored]:
        entities = self.broker.entities
        if pattern in entities:
            return [stored for stored in entities[pattern] if stored.sequence > after]
        if pattern.count(".") > 2:
            return []
        kind = pattern[:-1]
        return [s for s in self.broker.events[after:] if s.subject.startswith(kind)]

    async def scan(self, after: int = 0, pattern: str = "ledger.>") -> AsyncIterator[list[Stored]]:
        while True:
            look = self._ahead if pattern == "ledger.>" else self._under
            batch: list[Stored] = await self._ask("scan", look, pattern, after)
            if not batch:
                return
            yield batch[:BATCH]
            if len(batch) <= BATCH:
                return
            after = batch[BATCH - 1].sequence

    def _ahead(self, pattern: str, after: int) -> list[Stored]:
        return self._seen(self.broker.events[after:])

    def _seen(self, events: list[Stored]) -> list[Stored]:
        """What a replica that is a little behind has of them."""
        stale_s = self.network.stale_s()
        if stale_s and events:
            until = self.broker.now() - int(stale_s * SECOND)
            return [stored for stored in events if stored.time <= until]
        return events

    async def at(self, sequence: int) -> Stored:
        found: Stored = await self._ask("at", self._at, sequence)
        return found

    def _at(self, sequence: int) -> Stored:
        if not 1 <= sequence <= len(self.broker.events):
            raise NotFound(f"there is no event {sequence}")
        return self.broker.events[sequence - 1]

    async def last_sequence(self) -> int:
        last: int = await self._ask("last sequence", lambda: len(self.broker.events))
        return last

    async def last_of(self, patterns: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = await self._ask("last of", self._last_of, list(patterns))
        return found

    def _last_of(self, patterns: list[str]) -> dict[str, int]:
        found = {guard: self._seen(self.broker.entities.get(guard, [])) for guard in patterns}
        return {guard: events[-1].sequence for guard, events in found.items() if events}

    async def emitted(self, pattern: str) -> list[Stored]:
        found: list[Stored] = await self._ask("emitted", self._emitted, pattern)
        return found

    def _emitted(self, pattern: str) -> list[Stored]:
        if pattern.startswith("log."):
            prefix = pattern.removesuffix("*")
            return [stored for stored in self.broker.logs if stored.subject.startswith(prefix)]
        return self._seen(self.broker.heartbeats.get(pattern, []))[-1:]

    async def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> SimSubscription:
        if self.host.dead:
            raise asyncio.CancelledError
        return SimSubscription(self.network, self.host, pattern, heard)

    async def offers(self) -> SimOffers:
        self.offering.append(SimOffers(self))
        return self.offering[-1]

    async def now(self) -> int:
        return self.broker.now() - self.host.lag_ns

    # --- values --------------------------------------------------------------------------------------

    async def put_value(self, author: str, data: bytes) -> str:
        name: str = await self._ask("put value", self._put_value, author, data)
        return name

    def _put_value(self, author: str, data: bytes) -> str:
        name = f"{author}.{len(self.broker.values):04d}"
        self.broker.values[name] = data
        return name

    async def get_value(self, name: str, size_bytes: int) -> bytes:
        found: bytes | None = await self._ask("get value", self.broker.values.get, name)
        if found is None:
            raise NotFound(f"the stored value {name} is not in the colony's Object Store")
        return found[:size_bytes]

    # --- the service's -------------------------------------------------------------------------------

    async def make_queue(self, queue: str, *, start: int, lease_s: float) -> None:
        await self._ask("make queue", self.broker.make_queue, queue, start, lease_s)

    async def delete_queue(self, queue: str) -> None:
        await self._ask("delete queue", self.broker.delete_queue, queue)

    async def queue_state(self, queue: str) -> QueueState | None:
        state: QueueState | None = await self._ask("queue state", self._state, queue)
        return state

    def _state(self, queue: str) -> QueueState | None:
        found = self.broker.queues.get(queue)
        return found.state() if found is not None else None

    async def schedule(self, process: str, at: int) -> None:
        await self._ask("schedule", self.broker.schedule, process, at)

    async def due(self) -> list[str]:
        if not self.host.up:
            await self._wait_connected()
        future: asyncio.Future[str] = self._loop.create_future()

        def fired(process: str) -> None:
            self.to_here(self._settle, future, process)

        self.say("wait for timers", self.broker.waiters.append, fired)
        self.network.at_broker(self.broker.hand_out_due)
        try:
            async with asyncio.timeout(DUE_S):
                return [await future]
        except TimeoutError:
            return []
        finally:
            if fired in self.broker.waiters:
                self.broker.waiters.remove(fired)

    # --- the end -------------------------------------------------------------------------------------

    @property
    def reconnected_at(self) -> float | None:
        return self.host.reconnected_at

    async def lost(self) -> None:
        await self._gone.wait()
        raise Unavailable("the connection is closed")

    async def close(self) -> None:
        self._closed = True
        self._connected.set()
        self._gone.set()
        for offers in self.offering:
            await offers.close()


def _last(broker: Broker, subject: str) -> int:
    events = broker.entities.get(guard_of(subject))
    return events[-1].sequence if events else 0
