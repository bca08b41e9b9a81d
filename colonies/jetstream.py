"""The ledger on NATS JetStream: `colonies.ledger.Ledger` over one connection.

Requests share one reply inbox and are told apart by a token, so that thousands can be under way. Reading
needs no consumer: batches come by direct get. The connection is kept for ever; what was under way when it
broke ends as `Unknown`. It never looks into an event, and it never decides whether to try again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError

from colonies import subjects
from colonies.creds import Credential
from colonies.direct import DirectClient, Message
from colonies.errors import ColoniesError, Conflict, NotFound, Refused, Unavailable, Unknown
from colonies.ids import new_token
from colonies.ledger import Arrival, Draft, Offers, PullEnded, QueueState, Stored, Subscription
from colonies.roles import gated

ANSWER_S = 10.0
READ_BATCH = 512
MAX_LASTS = 1_024  # messages: the most that the broker gives in one answer to `multi_last`
CHUNK_BYTES = 256 * 1024
PENDING_BYTES = 64 * 1024 * 1024
MAX_ACK_PENDING = 100_000
MAX_WAITING = 10_000
TIMER_WAIT_S = 20.0
# Wrong last sequence: of one message, of a message in a batch, and among those still in flight.
_CONFLICTS = {10071, 10163, 10164}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_log = structlog.get_logger("colonies.ledger")


def broker_time(text: str) -> int:
    """A broker's RFC 3339 time as ns since 1970, cut to whole microseconds."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND * 1_000


async def connect(url: str, credential: Credential, *, wait_s: float = 5.0) -> JetStreamLedger:
    """Log in and return the colony's ledger.

    Raises:
        Unavailable: nobody answers at `url` within `wait_s` seconds.
        Refused: the broker does not accept the credential.
    """
    ledger = JetStreamLedger(url, credential)
    await ledger._open(wait_s)
    return ledger


class _TooMany(Unavailable):
    """The broker does not answer because the answer would be too long."""


class _Request:
    """One request under way: where its answers go."""

    __slots__ = ("answers", "future", "subject", "timer")

    def __init__(self, subject: str, future: asyncio.Future[Any], answers: list[Message] | None) -> None:
        self.subject = subject
        self.future = future
        self.answers = answers
        self.timer: asyncio.TimerHandle | None = None


class JetStreamLedger:
    """See `colonies.ledger.Ledger`."""

    def __init__(self, url: str, credential: Credential) -> None:
        self.url = url
        self.colony = credential.colony
        self.credential = credential
        self._nc = DirectClient()
        self._inbox = f"_INBOX_{credential.keypair.public}"
        # Not to be guessed: a member can have the broker send an answer anywhere (see `colonies.roles`).
        self._replies = f"{self._inbox}.r.{new_token()}"
        self._requests: dict[str, _Request] = {}
        self._count = 0
        self._gap_heard: list[Callable[[], None]] = []
        self._opened = False
        self._closing = False
        self._connected = asyncio.Event()
        self._lost: ColoniesError | None = None
        self._gone = asyncio.Event()
        self._reconnected_at: float | None = None
        self._clock_offset: int | None = None
        self._clock_checked = 0.0

    # --- the connection ------------------------------------------------------------------------------

    async def _open(self, wait_s: float) -> None:
        credential = self.credential
        try:
            async with asyncio.timeout(wait_s):
                await self._nc.connect(
                    self.url,
                    name=f"colonies {credential.name}",
                    user_jwt_cb=lambda: bytearray(credential.jwt.encode()),
                    signature_cb=lambda nonce: base64.b64encode(credential.keypair.sign(nonce.encode())),
                    inbox_prefix=self._inbox,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # a float is fine: it is slept
                    connect_timeout=2,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    pending_size=PENDING_BYTES,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    closed_cb=self._on_closed,
                    allow_reconnect=True,
                )
        except (TimeoutError, OSError, NatsError, Refused) as error:
            await self._abandon()
            if "authorization" in str(error).lower() or isinstance(self._lost, Refused):
                raise Refused(
                    f"the broker at {where(self.url)} does not accept the credential of "
                    f"{credential.name}: it is expired, revoked or of another colony"
                ) from None
            raise Unavailable(
                f"no broker answers at {where(self.url)}; "
                "start one with `colonies dev`, or name yours with --url"
            ) from None
        self._opened = True
        self._connected.set()
        await self._nc.listen(f"{self._replies}.*", self._on_answer)

    async def _abandon(self) -> None:
        self._closing = True
        with contextlib.suppress(Exception):
            await self._nc.close()

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._fail_requests(Unavailable("the connection is being closed"))
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            if self._nc.is_connected:
                await self._nc.flush(2)
        with contextlib.suppress(NatsError, OSError):
            await self._nc.close()

    @property
    def reconnected_at(self) -> float | None:
        return self._reconnected_at

    async def lost(self) -> None:
        await self._gone.wait()
        raise self._lost or Unavailable("the connection is closed")

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if isinstance(error, SlowConsumerError):
            self._gap()
        elif "permissions violation for publish" in text.lower():
            self._refuse_publish(text)
        elif "authorization" in text.lower() or "authentication" in text.lower():
            self._lost = Refused(f"the broker no longer accepts {self.credential.name}: {text}")
            if not self._opened:
                raise self._lost  # out of the attempt to connect: asking again would not help
        elif not self._closing:
            _log.debug("broker error", error=text)

    def _refuse_publish(self, text: str) -> None:
        denied = text.split('"')[1].lower() if '"' in text else ""
        for token, request in list(self._requests.items()):
            if denied in (request.subject.lower(), gated(request.subject).lower()):
                self._finish(
                    token, error=Refused(f"{self.credential.name} may not publish on {request.subject}")
                )
                return

    async def _on_disconnect(self) -> None:
        self._connected.clear()
        self._fail_requests(Unknown("the connection to the broker broke before its answer came"))

    async def _on_reconnect(self) -> None:
        self._connected.set()
        self._reconnected_at = time.monotonic()
        self._clock_offset = None
        self._gap()

    async def _on_closed(self) -> None:
        self._connected.set()  # nobody waits for it any more: see `_raise_if_gone`
        if not self._closing and self._lost is None:
            self._lost = Refused(
                f"the broker closed the connection of {self.credential.name} for good: "
                f"{self._nc.last_error or 'no reason given'}"
            )
        self._stop_reconnecting()
        self._fail_requests(self._lost or Unavailable("the connection is closed"))
        self._gone.set()
        self._gap()

    def _stop_reconnecting(self) -> None:
        """nats-py goes on knocking after it was told that it is not let in."""
        task = getattr(self._nc, "_reconnection_task", None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def on_gap(self, heard: Callable[[], None]) -> None:
        self._gap_heard.append(heard)

    def _gap(self) -> None:
        for heard in self._gap_heard:
            heard()

    # --- requests ------------------------------------------------------------------------------------

    async def _start(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        *,
        many: bool = False,
        wait_s: float = ANSWER_S,
    ) -> asyncio.Future[Any]:
        if not self._nc.is_connected:
            await self._wait_connected(wait_s)
        loop = asyncio.get_running_loop()
        self._count += 1
        token = str(self._count)
        request = _Request(subject, loop.create_future(), [] if many else None)
        request.timer = loop.call_later(wait_s, self._expire, token)
        self._requests[token] = request
        try:
            await self._nc.publish(subject, payload, reply=f"{self._replies}.{token}", headers=headers)
        except (NatsError, OSError) as error:
            self._finish(token, error=Unavailable(f"not sent: {error}"))
        return request.future

    async def _wait_connected(self, wait_s: float) -> None:
        self._raise_if_gone()
        try:
            async with asyncio.timeout(wait_s):
                await self._connected.wait()
        except TimeoutError:
            raise Unavailable(
                f"the broker at {where(self.url)} does not answer; it is tried again for ever"
            ) from None
        self._raise_if_gone()

    def _raise_if_gone(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._closing:
            raise Unavailable("the connection is closed")

    def _expire(self, token: str) -> None:
        self._finish(token, error=Unknown("the broker gave no answer in time"))

    def _finish(self, token: str, value: Any = None, error: BaseException | None = None) -> None:
        request = self._requests.pop(token, None)
        if request is None:
            return
        if request.timer is not None:
            request.timer.cancel()
        if request.future.done():
            return
        if error is None:
            request.future.set_result(value)
        else:
            request.future.set_exception(error)

    def _fail_requests(self, error: ColoniesError) -> None:
        for token in list(self._requests):
            self._finish(token, error=type(error)(*error.args))

    def _on_answer(self, msg: Message) -> None:
        token = msg.subject.rsplit(".", 1)[1]
        request = self._requests.get(token)
        if request is None:
            return
        if request.answers is None:
            self._finish(token, msg)
        elif subjects.STORED_SEQUENCE not in msg.headers:  # an author may have put a `Status` into his
            self._finish(token, (request.answers, msg.headers))
        else:
            request.answers.append(msg)

    async def _ask(self, subject: str, body: object, *, wait_s: float = ANSWER_S) -> dict[str, Any]:
        """One JetStream API request; a JSON answer. Raises NotFound and Unavailable."""
        msg = await (await self._start(subject, json.dumps(body).encode() if body else b"", wait_s=wait_s))
        if _status(msg) == "503":
            raise Unavailable(f"nobody answers on {subject}: JetStream or the stream is missing")
        answer: dict[str, Any] = json.loads(msg.data)
        error = answer.get("error")
        if error is None:
            return answer
        if error["code"] == 404:
            raise NotFound(f"{subject}: {error['description']}")
        raise Unavailable(f"{subject}: {error['description']}")

    async def ask_service(self, subject: str, body: dict[str, Any], *, wait_s: float) -> dict[str, Any]:
        """One question to a service of the colony (`query.>`); its JSON answer.

        Raises:
            Unavailable: no service answers on that subject within `wait_s` seconds.
        """
        msg: Message = await (await self._start(subject, json.dumps(body).encode(), wait_s=wait_s))
        if _status(msg) == "503":
            raise Unavailable(f"no service answers on {subject}")
        answer = json.loads(msg.data)
        if not isinstance(answer, dict):
            raise Unavailable(f"what answers on {subject} is no service of ours")
        return answer

    # --- writing -------------------------------------------------------------------------------------

    async def append(self, draft: Draft) -> int:
        return await (await self.send(draft))

    async def send(self, draft: Draft) -> Awaitable[int]:
        headers = {
            subjects.EXPECTED_SEQUENCE: str(draft.after),
            subjects.EXPECTED_SUBJECT: subjects.guard_of_subject(draft.subject),
        }
        future = await self._start(draft.subject, draft.data, headers)
        return _stored(future, draft.subject)

    async def append_all(self, drafts: Sequence[Draft]) -> list[int]:
        if not 1 <= len(drafts) <= 1_000:
            raise ValueError(f"{len(drafts)} events in a batch; it takes 1 to 1,000")
        # The broker does not check two subjects of one entity against each other within a batch.
        if len({subjects.guard_of_subject(draft.subject) for draft in drafts}) < len(drafts):
            raise ValueError("a batch takes one event of an entity at most")
        batch, last = new_token(), 0
        for number, draft in enumerate(drafts, start=1):
            headers = {
                subjects.EXPECTED_SEQUENCE: str(draft.after),
                subjects.EXPECTED_SUBJECT: subjects.guard_of_subject(draft.subject),
                subjects.BATCH_ID: batch,
                subjects.BATCH_SEQUENCE: str(number),
            }
            if number == len(drafts):
                headers[subjects.BATCH_COMMIT] = "1"
            elif number > 1:
                await self._publish(draft.subject, draft.data, headers=headers)
                continue
            msg = await (await self._start(draft.subject, draft.data, headers))
            if number == len(drafts) or msg.data or _status(msg):
                last = _sequence_of(msg, draft.subject)
        return list(range(last - len(drafts) + 1, last + 1))

    async def _publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send without asking for an answer. Raises Unavailable."""
        try:
            await self._nc.publish(subject, data, reply=reply, headers=headers)
        except (NatsError, OSError) as error:
            raise Unavailable(f"not sent: {error}") from None

    async def emit(self, subject: str, data: bytes) -> int:
        return _sequence_of(await (await self._start(subject, data)), subject)

    # --- reading -------------------------------------------------------------------------------------

    async def read(self, pattern: str) -> list[Stored]:
        leader = await self._last_under(pattern)
        if not leader:
            return []
        found = [stored async for batch in self.scan(0, pattern, up_to=leader) for stored in batch]
        if found and found[-1].sequence >= leader:
            return found
        return await self._read_one_by_one(pattern)

    async def _last_under(self, pattern: str) -> int:
        """The last sequence under a pattern as the leader has it, 0 if there is none."""
        try:
            newest = await self._ask(f"$JS.API.STREAM.MSG.GET.{subjects.LEDGER}", {"last_by_subj": pattern})
        except NotFound:
            return 0
        return int(newest["message"]["seq"])

    async def _read_one_by_one(self, pattern: str) -> list[Stored]:
        """From the leader itself, for the rare moment in which a replica is behind."""
        found: list[Stored] = []
        sequence = 1
        while True:
            try:
                answer = await self._ask(
                    f"$JS.API.STREAM.MSG.GET.{subjects.LEDGER}", {"seq": sequence, "next_by_subj": pattern}
                )
            except NotFound:
                return found
            message = answer["message"]
            found.append(
                Stored(
                    message["subject"],
                    int(message["seq"]),
                    broker_time(message["time"]),
                    base64.b64decode(message.get("data", "")),
                )
            )
            sequence = found[-1].sequence + 1

    async def scan(
        self, after: int = 0, pattern: str = subjects.EVERYTHING, *, up_to: int | None = None
    ) -> AsyncIterator[list[Stored]]:
        async for batch in self._batches(subjects.LEDGER, after, pattern):
            yield batch
            if up_to is not None and batch[-1].sequence >= up_to:
                return

    async def _batches(self, stream: str, after: int, pattern: str) -> AsyncIterator[list[Stored]]:
        while True:
            body = {"seq": after + 1, "batch": READ_BATCH, "next_by_subj": pattern}
            found, status = await self._get_many(stream, body)
            if found:
                after = found[-1].sequence
                yield found
            if not found or status.get("Nats-Num-Pending", "0") == "0":
                return

    async def _get_many(self, stream: str, body: dict[str, Any]) -> tuple[list[Stored], dict[str, str]]:
        future = await self._start(f"$JS.API.DIRECT.GET.{stream}", json.dumps(body).encode(), many=True)
        messages, status = await future
        if status["Status"] == "503":
            raise Unavailable(f"the stream {stream} is not there")
        if status["Status"] == "413":
            raise _TooMany(f"too many subjects of {stream} in one answer")
        if status["Status"] not in ("204", "404"):
            raise Unavailable(f"reading {stream}: {status}")
        return [_from_headers(msg) for msg in messages], status

    async def last_sequence(self) -> int:
        info = await self._ask(f"$JS.API.STREAM.INFO.{subjects.LEDGER}", None)
        return int(info["state"]["last_seq"])

    async def stream_info(self, stream: str, *, deleted_details: bool = False) -> dict[str, Any]:
        """The broker's own description of a stream, on demand with what it knows to have lost."""
        body = {"deleted_details": True} if deleted_details else None
        return await self._ask(f"$JS.API.STREAM.INFO.{stream}", body)

    async def at(self, sequence: int) -> Stored:
        """One message of the ledger by its sequence.

        Raises:
            NotFound: the broker has none there, or cannot read the one it has.
        """
        answer = await self._ask(f"$JS.API.STREAM.MSG.GET.{subjects.LEDGER}", {"seq": sequence})
        message = answer["message"]
        return Stored(
            message["subject"],
            int(message["seq"]),
            broker_time(message["time"]),
            base64.b64decode(message.get("data", "")),
        )

    async def last_of(self, patterns: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(patterns), 64):
            asked = list(patterns[start : start + 64])
            try:
                messages, _ = await self._get_many(subjects.LEDGER, {"multi_last": asked, "batch": MAX_LASTS})
            except _TooMany:  # whoever may submit can add subjects to any process
                lasts = await asyncio.gather(*map(self._last_under, asked))
                found |= {guard: last for guard, last in zip(asked, lasts, strict=True) if last}
                continue
            for stored in messages:
                guard = subjects.guard_of_subject(stored.subject)
                found[guard] = max(found.get(guard, 0), stored.sequence)
        return found

    async def emitted(self, pattern: str) -> list[Stored]:
        stream = subjects.LOGS if pattern.startswith("log.") else subjects.HEARTBEATS
        return [stored async for batch in self._batches(stream, 0, pattern) for stored in batch]

    async def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> Subscription:
        live = not pattern.startswith("feed.")

        def on_message(msg: Message) -> None:
            if live:
                heard(Stored(msg.subject, 0, 0, msg.data))
            elif subjects.STORED_SEQUENCE in msg.headers:
                heard(_from_headers(msg))

        return _Subscription(await self._nc.listen(pattern, on_message))

    # --- queues --------------------------------------------------------------------------------------

    async def offers(self) -> Offers:
        offers = _JetStreamOffers(self._nc, f"{self._inbox}.p.{new_token()}")
        await offers.open()
        self.on_gap(offers.on_gap)
        return offers

    def machinery(self) -> JetStreamMachinery:
        """The service's tools on this connection."""
        return JetStreamMachinery(self)

    def client(self) -> DirectClient:
        """The connection itself, for services of `nats.micro`. Whoever takes it leaves it open."""
        return self._nc

    # --- time ----------------------------------------------------------------------------------------

    async def now(self) -> int:
        """The broker's clock, from the age of its last answer and our own steady clock."""
        if self._clock_offset is None or time.monotonic() - self._clock_checked > 60:
            info = await self._ask(f"$JS.API.STREAM.INFO.{subjects.LEDGER}", None)
            self._clock_offset = broker_time(info["ts"]) - time.monotonic_ns()
            self._clock_checked = time.monotonic()
        return time.monotonic_ns() + self._clock_offset

    # --- large values --------------------------------------------------------------------------------

    async def put_value(self, author: str, data: bytes) -> str:
        name = f"{author}.{new_token()}"
        subject = subjects.value_chunks(name)
        chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        for chunk in chunks:
            _sequence_of(await (await self._start(subject, chunk)), subject)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
        meta = {
            "name": name,
            "bucket": subjects.VALUES_BUCKET,
            "nuid": name,
            "size": len(data),
            "chunks": len(chunks),
            "mtime": datetime.now(UTC).isoformat(),
            "digest": f"SHA-256={digest}",
            "options": {"max_chunk_size": CHUNK_BYTES},
        }
        place = subjects.value_meta(base64.urlsafe_b64encode(name.encode()).decode())
        _sequence_of(await (await self._start(place, json.dumps(meta).encode())), place)
        return name

    async def get_value(self, name: str) -> bytes:
        pattern = subjects.value_chunks(name)
        chunks = [s.data async for b in self._batches(subjects.VALUES, 0, pattern) for s in b]
        if not chunks:
            raise NotFound(f"the stored value {name} is not in the colony's Object Store")
        return b"".join(chunks)


class JetStreamMachinery:
    """See `colonies.ledger.Machinery`. Only a member with the role `service` has the rights for it."""

    TIMER_CONSUMER = "orchestrator"

    def __init__(self, ledger: JetStreamLedger) -> None:
        self._ledger = ledger
        self._has_timers = False
        self._inbox: str | None = None
        self._timers: asyncio.Queue[Message | None] = asyncio.Queue()
        ledger.on_gap(lambda: self._timers.put_nowait(None))  # the broker forgot our pull: send it again

    async def make_queue(self, queue: str, *, start: int, lease_s: float) -> None:
        info = await self._info(queue)
        if info is not None:  # where a consumer began cannot be changed; it keeps its place
            start = info["config"].get("opt_start_seq", start)
        config = {
            "durable_name": queue,
            "name": queue,
            "filter_subject": subjects.offers_of(queue),
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(1, start),
            "ack_policy": "explicit",
            "ack_wait": int(lease_s * 1e9),
            "max_deliver": -1,
            "replay_policy": "instant",
            "max_ack_pending": MAX_ACK_PENDING,
            "max_waiting": MAX_WAITING,
        }
        subject = f"$JS.API.CONSUMER.CREATE.{subjects.LEDGER}.{queue}.{subjects.offers_of(queue)}"
        await self._ledger._ask(subject, {"stream_name": subjects.LEDGER, "config": config})

    async def queue_state(self, queue: str) -> QueueState | None:
        info = await self._info(queue)
        if info is None:
            return None
        return QueueState(int(info["delivered"]["stream_seq"]), int(info["ack_floor"]["stream_seq"]))

    async def _info(self, queue: str) -> dict[str, Any] | None:
        try:
            return await self._ledger._ask(f"$JS.API.CONSUMER.INFO.{subjects.LEDGER}.{queue}", None)
        except NotFound:
            return None

    async def delete_queue(self, queue: str) -> None:
        """Delete the queue's consumer; what it handed out is forgotten."""
        await self._ledger._ask(f"$JS.API.CONSUMER.DELETE.{subjects.LEDGER}.{queue}", None)

    async def schedule(self, process: str, at: int) -> None:
        second = -(-at // 1_000_000_000)
        headers = {
            subjects.SCHEDULE: f"@at {datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}",
            subjects.SCHEDULE_TARGET: subjects.timer_due(process),
            subjects.SCHEDULE_TTL: "1h",
        }
        subject = subjects.timer(process)
        _sequence_of(await (await self._ledger._start(subject, b"due", headers)), subject)

    async def due(self) -> list[str]:
        if not self._has_timers:
            await self._make_timers()
        # A delivery bears its stream's subject, not our reply's, so timers need an inbox of their own.
        if self._inbox is None:
            inbox = f"{self._ledger._inbox}.t.{new_token()}"
            await self._ledger._nc.listen(inbox, self._timers.put_nowait)
            self._inbox = inbox
        await self._ledger._wait_connected(ANSWER_S)
        await self._ledger._publish(
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
            if _status(msg) == "503":
                self._has_timers = False
                await asyncio.sleep(0.1)
            return []
        await self._ledger._publish(msg.reply, b"+ACK")
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
        await self._ledger._ask(subject, {"stream_name": subjects.TIMERS, "config": config})
        self._has_timers = True


class _Subscription:
    def __init__(self, subscription: NatsSubscription) -> None:
        self._subscription = subscription

    async def close(self) -> None:
        with contextlib.suppress(NatsError):
            await self._subscription.unsubscribe()


@dataclass(slots=True)
class _JetStreamDelivery:
    stored: Stored
    queue: str
    deliveries: int
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


class _JetStreamOffers:
    """One inbox for all pulls. A pull's reply subject ends in the queue, so its end names it."""

    def __init__(self, nc: DirectClient, inbox: str) -> None:
        self._nc = nc
        self._inbox = inbox
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._subscription: NatsSubscription | None = None
        self._pulled: set[str] = set()

    async def open(self) -> None:
        self._subscription = await self._nc.listen(f"{self._inbox}.*", self._on_message)

    def _on_message(self, msg: Message) -> None:
        if not msg.reply:
            queue = msg.subject.rsplit(".", 1)[1]
            self._arrivals.put_nowait(PullEnded(queue, missing=_status(msg) == "503"))
            return
        meta = Msg(self._nc, reply=msg.reply).metadata
        subject = subjects.parse(msg.subject)
        headers = msg.headers
        alone = headers.get(subjects.EXPECTED_SEQUENCE) == "0" and headers.get(
            subjects.EXPECTED_SUBJECT
        ) == subjects.guard_of_subject(msg.subject)
        stamp = (meta.timestamp - _EPOCH) // _MICROSECOND * 1_000
        stored = Stored(msg.subject, meta.sequence.stream, stamp, msg.data, alone)
        queue = subject.queue if subject is not None and subject.queue else meta.consumer
        self._arrivals.put_nowait(_JetStreamDelivery(stored, queue, meta.num_delivered, self._nc, msg.reply))

    async def pull(self, queue: str, *, batch: int, wait_s: float) -> None:
        self._pulled.add(queue)
        body: dict[str, object] = {"batch": batch}
        if wait_s > 0:
            body["expires"] = int(wait_s * 1e9)
        else:
            body["no_wait"] = True
        try:
            await self._nc.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{subjects.LEDGER}.{queue}",
                json.dumps(body).encode(),
                reply=f"{self._inbox}.{queue}",
            )
        except (NatsError, OSError):
            self._arrivals.put_nowait(PullEnded(queue, missing=True))

    def on_gap(self) -> None:
        """After a reconnect the broker has forgotten every parked pull."""
        for queue in self._pulled:
            self._arrivals.put_nowait(PullEnded(queue))

    async def arrival(self) -> Arrival:
        return await self._arrivals.get()

    async def close(self) -> None:
        if self._subscription is not None:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()


def where(url: str) -> str:
    """A URL as it may be shown: without anything secret in it."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 4222}"


def _status(msg: Message) -> str | None:
    return None if msg.data else msg.headers.get("Status")


def _from_headers(msg: Message) -> Stored:
    headers = msg.headers
    return Stored(
        headers[subjects.STORED_SUBJECT],
        int(headers[subjects.STORED_SEQUENCE]),
        broker_time(headers[subjects.STORED_TIME]),
        msg.data,
    )


async def _stored(future: asyncio.Future[Message], subject: str) -> int:
    return _sequence_of(await future, subject)


def _sequence_of(msg: Message, subject: str) -> int:
    """The sequence in a publish acknowledgement."""
    if _status(msg) == "503":
        raise Unavailable(f"no stream takes {subject}: the colony's streams are missing")
    answer = json.loads(msg.data)
    error = answer.get("error")
    if error is not None:
        if error.get("err_code") in _CONFLICTS:
            raise Conflict(error["description"])
        raise Unavailable(f"not stored: {error['description']}")
    if answer.get("duplicate"):
        raise Unavailable("not stored: the broker took it for a duplicate")
    return int(answer["seq"])
