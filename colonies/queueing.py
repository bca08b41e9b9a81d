"""The queues on JetStream: a worker's pulls and deliveries, and what only the service may do.

A queue is a durable pull consumer of LEDGER, a timer a scheduled message of TIMERS. See `colonies.ledger` for
what each promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError

from colonies import subjects
from colonies.direct import DirectClient, Message
from colonies.errors import NotFound
from colonies.ids import new_token
from colonies.ledger import Arrival, PullEnded, QueueState, Stored
from colonies.link import ANSWER_S, Link, sequence_of, status_of

MAX_ACK_PENDING = 100_000
MAX_WAITING = 10_000
TIMER_WAIT_S = 20.0

# What may follow the two checks in the header of an offer that stood alone.
_NO_BATCH_OR_FIRST = re.compile(
    rf"({subjects.BATCH_ID}: [A-Za-z0-9]+\r\n{subjects.BATCH_SEQUENCE}: 1\r\n"
    rf"({subjects.BATCH_COMMIT}: 1\r\n)?)?\r\n".encode()
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class _Delivery:
    stored: Stored
    queue: str
    deliveries: int
    waiting: int
    nc: DirectClient
    reply: str

    async def ack(self) -> None:
        await self._say(b"+ACK")

    async def nak(self, delay_s: float = 0.0) -> None:
        delay = f' {{"delay": {int(delay_s * 1e9)}}}' if delay_s > 0 else ""
        await self._say(f"-NAK{delay}".encode())

    async def in_progress(self) -> None:
        await self._say(b"+WPI")

    async def _say(self, what: bytes) -> None:
        with contextlib.suppress(NatsError, OSError):
            await self.nc.publish(self.reply, what)


class JetStreamOffers:
    """One inbox for all pulls. A pull's reply subject ends in queue and number, so its end names both."""

    def __init__(self, nc: DirectClient, inbox: str, saw: Callable[[int], None]) -> None:
        """`saw` is told at which time (ns) the broker stored an offer that just came."""
        self._nc = nc
        self._inbox = inbox
        self._saw = saw
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._subscription: NatsSubscription | None = None
        self._pulled: dict[str, int] = {}  # the number of the last pull

    async def open(self) -> None:
        self._subscription = await self._nc.listen(f"{self._inbox}.*.*", self._on_message)

    def _on_message(self, msg: Message) -> None:
        if not msg.reply:
            _, queue, number = msg.subject.rsplit(".", 2)
            status = status_of(msg) or ""
            self._arrivals.put_nowait(PullEnded(queue, status == "503", int(number), status))
            return
        meta = Msg(self._nc, reply=msg.reply).metadata
        subject = subjects.parse(msg.subject)
        stamp = (meta.timestamp - _EPOCH) // _MICROSECOND * 1_000
        self._saw(stamp)
        stored = Stored(msg.subject, meta.sequence.stream, stamp, msg.data, _came_alone(msg))
        queue = subject.queue if subject is not None and subject.queue else meta.consumer
        self._arrivals.put_nowait(
            _Delivery(stored, queue, meta.num_delivered, meta.num_pending, self._nc, msg.reply)
        )

    async def pull(self, queue: str, *, batch: int, wait_s: float, number: int = 0) -> None:
        self._pulled[queue] = number
        try:
            await self._nc.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{subjects.LEDGER}.{queue}",
                _request(batch, wait_s),
                reply=f"{self._inbox}.{queue}.{number}",
            )
        except (NatsError, OSError):
            self._arrivals.put_nowait(PullEnded(queue, True, number))

    def on_gap(self) -> None:
        """After a reconnect the broker has forgotten every parked pull."""
        for queue, number in self._pulled.items():
            self._arrivals.put_nowait(PullEnded(queue, number=number))

    async def arrival(self) -> Arrival:
        return await self._arrivals.get()

    async def close(self) -> None:
        if self._subscription is not None:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()


@lru_cache(maxsize=256)
def _request(batch: int, wait_s: float) -> bytes:
    """A pull, as the JetStream API takes it."""
    how = {"expires": int(wait_s * 1e9)} if wait_s > 0 else {"no_wait": True}
    return json.dumps({"batch": batch, **how}).encode()


def _came_alone(msg: Message) -> bool:
    """Did the broker check that nothing of the entity stood before this message?

    Only if its header says that in just this form: a name given twice, or with a space before it, is read by
    the broker otherwise than by us. Of a batch only the first is alone, for two events of one entity are not
    checked against each other in it. Whoever writes it otherwise is believed as well, once it is read.
    """
    guard = subjects.guard_of_subject(msg.subject)
    checks = f"{subjects.EXPECTED_SEQUENCE}: 0\r\n{subjects.EXPECTED_SUBJECT}: {guard}\r\n"
    begin, raw = f"NATS/1.0\r\n{checks}".encode(), msg._raw or b""
    return raw.startswith(begin) and _NO_BATCH_OR_FIRST.fullmatch(raw, len(begin)) is not None


def _settings(queue: str) -> dict[str, Any]:
    """What a queue's consumer must be, but for where it begins and for how long it waits."""
    return {
        "durable_name": queue,
        "name": queue,
        "filter_subject": subjects.offers_of(queue),
        "deliver_policy": "by_start_sequence",
        "ack_policy": "explicit",
        "max_deliver": -1,
        "replay_policy": "instant",
        "max_ack_pending": MAX_ACK_PENDING,
        "max_waiting": MAX_WAITING,
    }


_FREE_SETTINGS = {"opt_start_seq", "ack_wait", "num_replicas", "metadata"}


def _is_sound(queue: str, config: dict[str, Any]) -> bool:
    """Is this the consumer that we make? Paused, or with another filter, it would hold back offers."""
    return {name: config[name] for name in config.keys() - _FREE_SETTINGS} == _settings(queue)


class JetStreamMachinery:
    """See `colonies.ledger.Machinery`. Only a member with the role `service` has the rights for it."""

    TIMER_CONSUMER = "orchestrator"

    def __init__(self, link: Link) -> None:
        self._link = link
        self._has_timers = False
        self._inbox: str | None = None
        self._timers: asyncio.Queue[Message | None] = asyncio.Queue()
        link.on_gap(lambda: self._timers.put_nowait(None))  # the broker forgot our pull: send it again

    async def make_queue(self, queue: str, *, start: int, lease_s: float) -> None:
        info = await self._info(queue)
        if info is not None and not _is_sound(queue, info["config"]):
            await self.delete_queue(queue)  # not all of what is wrong could be changed
        elif info is not None:  # where a consumer began cannot be changed; it keeps its place
            start = info["config"].get("opt_start_seq", start)
        config = {**_settings(queue), "opt_start_seq": max(1, start), "ack_wait": int(lease_s * 1e9)}
        subject = f"$JS.API.CONSUMER.CREATE.{subjects.LEDGER}.{queue}.{subjects.offers_of(queue)}"
        await self._link.ask(subject, {"stream_name": subjects.LEDGER, "config": config})

    async def queue_state(self, queue: str) -> QueueState | None:
        info = await self._info(queue)
        if info is None:
            return None
        return QueueState(
            delivered=int(info["delivered"]["stream_seq"]),
            acknowledged=int(info["ack_floor"]["stream_seq"]),
            pending=int(info["num_ack_pending"]),
            pulls=int(info["num_waiting"]),
            sound=_is_sound(queue, info["config"]),
        )

    async def _info(self, queue: str) -> dict[str, Any] | None:
        try:
            return await self._link.ask(f"$JS.API.CONSUMER.INFO.{subjects.LEDGER}.{queue}", None)
        except NotFound:
            return None

    async def delete_queue(self, queue: str) -> None:
        with contextlib.suppress(NotFound):
            await self._link.ask(f"$JS.API.CONSUMER.DELETE.{subjects.LEDGER}.{queue}", None)

    async def schedule(self, process: str, at: int) -> None:
        second = -(-at // 1_000_000_000)
        headers = {
            subjects.SCHEDULE: f"@at {datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}",
            subjects.SCHEDULE_TARGET: subjects.timer_due(process),
            subjects.SCHEDULE_TTL: "1h",
        }
        subject = subjects.timer(process)
        sequence_of(await (await self._link.start(subject, b"due", headers)), subject)

    async def due(self) -> list[str]:
        if not self._has_timers:
            await self._make_timers()
        # A delivery bears its stream's subject, not our reply's, so timers need an inbox of their own.
        if self._inbox is None:
            inbox = f"{self._link.inbox}.t.{new_token()}"
            await self._link.nc.listen(inbox, self._timers.put_nowait)
            self._inbox = inbox
        await self._link.wait_connected(ANSWER_S)
        await self._link.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{subjects.TIMERS}.{self.TIMER_CONSUMER}",
            json.dumps({"batch": 1, "expires": int(TIMER_WAIT_S * 1e9)}).encode(),
            reply=self._inbox,
        )
        try:
            async with asyncio.timeout(TIMER_WAIT_S + 5):
                msg = await self._timers.get()
        except TimeoutError:
            return []
        if msg is None:
            return []
        if not msg.reply:
            if status_of(msg) == "503":
                self._has_timers = False
                await asyncio.sleep(0.1)
            return []
        await self._link.publish(msg.reply, b"+ACK")
        return [msg.subject.rsplit(".", 1)[1]]

    async def _make_timers(self) -> None:
        config = {
            "durable_name": self.TIMER_CONSUMER,
            "name": self.TIMER_CONSUMER,
            "filter_subject": "timers.due.>",
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(30e9),
            "max_deliver": -1,
            "replay_policy": "instant",
            "max_waiting": MAX_WAITING,
        }
        subject = f"$JS.API.CONSUMER.CREATE.{subjects.TIMERS}.{self.TIMER_CONSUMER}.timers.due.>"
        await self._link.ask(subject, {"stream_name": subjects.TIMERS, "config": config})
        self._has_timers = True
