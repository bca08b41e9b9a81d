"""The ledger on NATS JetStream: `colonies.ledger.Ledger` over one connection.

Reading needs no consumer: batches come by direct get, and what promises to be complete is held against the
leader's word. It never looks into an event, and it never decides whether to try again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError

from colonies import subjects
from colonies.creds import Credential
from colonies.direct import DirectClient, Message
from colonies.errors import NotFound, Unavailable
from colonies.ids import new_token
from colonies.ledger import Draft, Offers, Stored, Subscription
from colonies.link import ANSWER_S, Link, read_answer, sequence_of, status_of
from colonies.object_store import description
from colonies.queueing import JetStreamMachinery, JetStreamOffers
from colonies.whole import whole

READ_BATCH = 512
READ_BYTES = 1024 * 1024  # of a batch: what else is asked on this connection is answered behind it
MAX_LASTS = 1_024  # messages: the most that the broker gives in one answer to `multi_last`
MAX_BATCH = 1_000
CHUNK_BYTES = 256 * 1024
CLOCK_CHECK_S = 60.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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
    await ledger._link.open(wait_s)
    return ledger


class _TooMany(Unavailable):
    """The broker does not answer because the answer would be too long."""


class JetStreamLedger:
    """See `colonies.ledger.Ledger`."""

    def __init__(self, url: str, credential: Credential) -> None:
        self.url = url
        self.colony = credential.colony
        self._link = Link(url, credential)
        self._link.on_gap(self._forget_clock)
        self._clock_offset: int | None = None
        self._clock_checked = 0.0

    async def close(self) -> None:
        await self._link.close()

    async def lost(self) -> None:
        await self._link.lost()

    @property
    def reconnected_at(self) -> float | None:
        return self._link.reconnected_at

    def on_gap(self, heard: Callable[[], None]) -> None:
        self._link.on_gap(heard)

    async def ask_service(self, subject: str, body: dict[str, Any], *, wait_s: float) -> dict[str, Any]:
        """One question to a service of the colony (`query.>`); its JSON answer.

        Raises:
            Unavailable: no service answers on that subject within `wait_s` seconds.
        """
        msg: Message = await (await self._link.start(subject, json.dumps(body).encode(), wait_s=wait_s))
        if status_of(msg) == "503":
            raise Unavailable(f"no service answers on {subject}")
        return read_answer(msg.data, subject)

    def new_inbox(self) -> str:
        """A subject on which only this member hears."""
        return f"{self._link.inbox}.g.{new_token()}"

    # --- writing -------------------------------------------------------------------------------------

    async def append(self, draft: Draft) -> int:
        return await (await self.send(draft))

    async def send(self, draft: Draft) -> Awaitable[int]:
        headers = {
            subjects.EXPECTED_SEQUENCE: str(draft.after),
            subjects.EXPECTED_SUBJECT: subjects.guard_of_subject(draft.subject),
        }
        future = await self._link.start(draft.subject, draft.data, headers)
        return _stored(future, draft.subject)

    async def append_all(self, drafts: Sequence[Draft]) -> list[int]:
        if not 1 <= len(drafts) <= MAX_BATCH:
            raise ValueError(f"{len(drafts)} events in a batch; it takes 1 to {MAX_BATCH}")
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
                await self._link.publish(draft.subject, draft.data, headers=headers)
                continue
            msg = await (await self._link.start(draft.subject, draft.data, headers))
            if number == len(drafts) or msg.data or status_of(msg):
                last = sequence_of(msg, draft.subject)
        return list(range(last - len(drafts) + 1, last + 1))

    async def emit(self, subject: str, data: bytes) -> int:
        return sequence_of(await (await self._link.start(subject, data)), subject)

    # --- reading -------------------------------------------------------------------------------------

    async def read(self, pattern: str) -> list[Stored]:
        if (found := await whole(self, pattern)) is not None:
            return found
        return [stored async for batch in self.scan(0, pattern) for stored in batch]

    async def get_many(self, body: dict[str, Any]) -> list[Stored] | None:
        """As `whole.Reads` says."""
        try:
            return (await self._get_many(subjects.LEDGER, {**body, "max_bytes": READ_BYTES}))[0]
        except _TooMany:
            return None

    async def counts(self, pattern: str) -> dict[str, int]:
        """As `whole.Reads` says."""
        info = await self._link.ask(f"$JS.API.STREAM.INFO.{subjects.LEDGER}", {"subjects_filter": pattern})
        return dict(info["state"].get("subjects") or {})

    async def _last_under(self, pattern: str) -> int:
        """The last sequence under a pattern as the leader has it, 0 if there is none."""
        try:
            newest = await self._link.ask(
                f"$JS.API.STREAM.MSG.GET.{subjects.LEDGER}", {"last_by_subj": pattern}
            )
        except NotFound:
            return 0
        return int(newest["message"]["seq"])

    async def _read_one_by_one(self, after: int, pattern: str, stream: str = subjects.LEDGER) -> list[Stored]:
        """From the leader itself, for the rare moment in which a replica is behind."""
        found: list[Stored] = []
        sequence = after + 1
        while True:
            try:
                answer = await self._link.ask(
                    f"$JS.API.STREAM.MSG.GET.{stream}", {"seq": sequence, "next_by_subj": pattern}
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
        self, after: int = 0, pattern: str = subjects.EVERYTHING, *, wait_s: float = ANSWER_S
    ) -> AsyncIterator[list[Stored]]:
        """As the protocol says. A part of the ledger is held against the leader's word: its reader moves on
        to where the whole ends, so what a replica that is behind left out would never be seen."""
        if pattern == subjects.EVERYTHING:
            async for batch in self._batches(subjects.LEDGER, after, pattern, wait_s):
                yield batch
            return
        leader = await self._last_under(pattern)
        if leader <= after:
            return
        async for batch in self._batches(subjects.LEDGER, after, pattern, wait_s):
            yield batch
            after = batch[-1].sequence
            if after >= leader:
                return
        if rest := await self._read_one_by_one(after, pattern):
            yield rest

    async def _batches(
        self, stream: str, after: int, pattern: str, wait_s: float = ANSWER_S
    ) -> AsyncIterator[list[Stored]]:
        while True:
            body = {"seq": after + 1, "batch": READ_BATCH, "max_bytes": READ_BYTES, "next_by_subj": pattern}
            found, status = await self._get_many(stream, body, wait_s)
            if found:
                after = found[-1].sequence
                yield found
            if not found or status.get("Nats-Num-Pending", "0") == "0":
                return

    async def _get_many(
        self, stream: str, body: dict[str, Any], wait_s: float = ANSWER_S
    ) -> tuple[list[Stored], dict[str, str]]:
        """The answers to one request, and the headers of what ended them. `wait_s` limits each silence."""
        subject = f"$JS.API.DIRECT.GET.{stream}"
        future = await self._link.start(subject, json.dumps(body).encode(), many=True, wait_s=wait_s)
        messages, status = await future
        if status["Status"] == "503":
            raise Unavailable(f"the stream {stream} is not there")
        if status["Status"] == "413":
            raise _TooMany(f"too many subjects of {stream} in one answer")
        if status["Status"] not in ("204", "404"):
            raise Unavailable(f"reading {stream}: {status}")
        return [_from_headers(msg) for msg in messages], status

    async def last_sequence(self) -> int:
        info = await self._link.ask(f"$JS.API.STREAM.INFO.{subjects.LEDGER}", None)
        return int(info["state"]["last_seq"])

    async def stream_info(self, stream: str, *, deleted_details: bool = False) -> dict[str, Any]:
        """The broker's own description of a stream, on demand with what it knows to have lost."""
        body = {"deleted_details": True} if deleted_details else None
        return await self._link.ask(f"$JS.API.STREAM.INFO.{stream}", body)

    async def at(self, sequence: int, *, wait_s: float = ANSWER_S) -> Stored:
        """One message of the ledger by its sequence.

        Raises:
            NotFound: the broker has none there, or cannot read the one it has.
        """
        answer = await self._link.ask(
            f"$JS.API.STREAM.MSG.GET.{subjects.LEDGER}", {"seq": sequence}, wait_s=wait_s
        )
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
        return [stored async for batch in self.scan_emitted(pattern) for stored in batch]

    def scan_emitted(self, pattern: str) -> AsyncIterator[list[Stored]]:
        """As `emitted`, in batches: all logs together may be large."""
        stream = subjects.LOGS if pattern.startswith("log.") else subjects.HEARTBEATS
        return self._batches(stream, 0, pattern)

    async def logs(self, after: int, last: int) -> AsyncIterator[list[Stored]]:
        """All log messages after a sequence of LOGS that are still there, in order and in batches, up to the
        `last` one that `stream_info` names at least."""
        if after >= last:
            return
        async for batch in self._batches(subjects.LOGS, after, subjects.ALL_LOGS):
            yield batch
            after = batch[-1].sequence
            if after >= last:
                return
        if rest := await self._read_one_by_one(after, subjects.ALL_LOGS, subjects.LOGS):
            yield rest

    async def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> Subscription:
        live = not pattern.startswith("feed.")

        def on_message(msg: Message) -> None:
            if live:
                heard(Stored(msg.subject, 0, 0, msg.data))
            elif subjects.STORED_SEQUENCE in msg.headers:
                stored = _from_headers(msg)
                # A consumer's delivery can be led onto the feed as well; it shows its own subject, and its
                # headers are its author's.
                if msg.subject == subjects.feed_of(stored.subject):
                    heard(stored)

        return _Subscription(await self._link.nc.listen(pattern, on_message))

    # --- queues --------------------------------------------------------------------------------------

    async def offers(self) -> Offers:
        offers = JetStreamOffers(self._link.nc, f"{self._link.inbox}.p.{new_token()}", self._saw)
        await offers.open()
        self.on_gap(offers.on_gap)
        return offers

    def machinery(self) -> JetStreamMachinery:
        """The service's tools on this connection."""
        return JetStreamMachinery(self._link)

    def client(self) -> DirectClient:
        """The connection itself, for services of `nats.micro`. Whoever takes it leaves it open."""
        return self._link.nc

    # --- time ----------------------------------------------------------------------------------------

    async def now(self) -> int:
        """The broker's clock, from the age of its last answer or offer and our own steady clock."""
        if self._clock_offset is None or time.monotonic() - self._clock_checked > CLOCK_CHECK_S:
            info = await self._link.ask(f"$JS.API.STREAM.INFO.{subjects.LEDGER}", None)
            self._clock_offset = broker_time(info["ts"]) - time.monotonic_ns()
            self._clock_checked = time.monotonic()
        return time.monotonic_ns() + self._clock_offset

    def _saw(self, time_ns: int) -> None:
        """The broker's clock is past this. An answer that took long would leave ours behind for a minute."""
        if self._clock_offset is not None:
            self._clock_offset = max(self._clock_offset, time_ns - time.monotonic_ns())

    def _forget_clock(self) -> None:
        self._clock_offset = None

    # --- large values --------------------------------------------------------------------------------

    async def put_value(self, author: str, data: bytes) -> str:
        name = f"{author}.{new_token()}"
        subject = subjects.value_chunks(name)
        chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        for chunk in chunks:
            sequence_of(await (await self._link.start(subject, chunk)), subject)
        place, meta = description(name, data, len(chunks), CHUNK_BYTES)
        sequence_of(await (await self._link.start(place, meta)), place)
        return name

    async def get_value(self, name: str, size_bytes: int) -> bytes:
        pattern = subjects.value_chunks(name)
        found = bytearray()
        async for batch in self._batches(subjects.VALUES, 0, pattern):
            for stored in batch:
                found += stored.data
            if len(found) >= size_bytes:
                break
        if not found:
            raise NotFound(f"the stored value {name} is not in the colony's Object Store")
        return bytes(found[:size_bytes])


class _Subscription:
    def __init__(self, subscription: NatsSubscription) -> None:
        self._subscription = subscription

    async def close(self) -> None:
        with contextlib.suppress(NatsError):
            await self._subscription.unsubscribe()


def _from_headers(msg: Message) -> Stored:
    headers = msg.headers
    return Stored(
        headers[subjects.STORED_SUBJECT],
        int(headers[subjects.STORED_SEQUENCE]),
        broker_time(headers[subjects.STORED_TIME]),
        msg.data,
    )


async def _stored(future: asyncio.Future[Message], subject: str) -> int:
    return sequence_of(await future, subject)
