"""The limit: what nats-py and the bare broker do with the least that can be called a task.

One unsigned publish, acknowledged; a pull by the only worker process, one ack. The same server, the same
settings, the same event loop; no verification, no history, no result. Tasks are published without waiting
for one another. Pulls are parked, in two ways: in large batches, which is the most that nats-py can do, and
one for each task, which is what a worker does that takes one task at a time. For the round trip, where a
result must come back, both task and result are stored before anybody goes on, by nats-py's own JetStream
calls. Nothing of Colonies is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from colonies.creds import Credential

STREAM = "BARE"
TASKS = {"batches": "bare.task", "singly": "bare.one"}
CALL = "bare.call"
RESULT = "bare.result"
BULK = "bare.bulk"
DONE = "bare-done"
BATCH = {"batches": 500, "singly": 1}
AHEAD = {"batches": 2, "singly": 1}
LAST = b"!"  # how a task begins whose end the publisher wants to hear of

_STREAM = {
    "name": STREAM,
    "subjects": ["bare.>"],
    "storage": "file",
    "retention": "limits",
    "discard": "old",
    "allow_direct": True,
    "allow_atomic": True,
    "max_consumers": -1,
    "republish": {"src": RESULT, "dest": DONE},
}
_CONSUMER = {
    "deliver_policy": "all",
    "ack_policy": "explicit",
    "ack_wait": int(30e9),
    "max_deliver": -1,
    "replay_policy": "instant",
    "max_ack_pending": 100_000,
    "max_waiting": 10_000,
}


async def connect(url: str, credential: Credential) -> Client:
    client = Client()
    await client.connect(
        url,
        user_jwt_cb=credential.user_jwt,
        signature_cb=credential.signature,
        inbox_prefix=credential.inbox_prefix,
        pending_size=64 * 1024 * 1024,
        skip_subject_validation=True,
    )
    return client


async def prepare(client: Client) -> None:
    """Make the stream and its durable consumers, one for each way."""
    await _api(client, f"STREAM.CREATE.{STREAM}", _STREAM)
    for way, subject in {**TASKS, "calls": CALL}.items():
        config = {**_CONSUMER, "durable_name": way, "name": way, "filter_subject": subject}
        request = {"stream_name": STREAM, "config": config}
        await _api(client, f"CONSUMER.CREATE.{STREAM}.{way}.{subject}", request)


async def _api(client: Client, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        (await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=10)).data
    )
    if "error" in answer:
        raise RuntimeError(f"{subject}: {answer['error']}")
    return answer


class Publisher:
    """The publishing side. A task is `size` bytes."""

    def __init__(self, client: Client, size: int) -> None:
        self._client = client
        self._stream = client.jetstream()
        self._task = b"x" * size
        self._last = LAST + b"x" * (size - 1)
        self._done = asyncio.Event()
        self._acks = 0
        self._wanted = 0
        self._acked = asyncio.Event()
        self._inbox = f"{client._inbox_prefix.decode()}.acks"

    async def open(self) -> Publisher:
        await self._client.subscribe(DONE, cb=self._on_done)
        await self._client.subscribe(self._inbox, cb=self._on_ack, pending_msgs_limit=-1)
        return self

    async def _on_done(self, msg: Msg) -> None:
        self._done.set()

    async def _on_ack(self, msg: Msg) -> None:
        if b'"seq"' not in msg.data:
            raise RuntimeError(msg.data.decode())
        self._acks += 1
        if self._acks == self._wanted:
            self._acked.set()

    async def _publish(self, subject: str, payloads: list[bytes]) -> None:
        self._acked.clear()
        self._acks, self._wanted = 0, len(payloads)
        publish, inbox = self._client.publish, self._inbox
        for payload in payloads:
            await publish(subject, payload, reply=inbox)
        await self._acked.wait()

    async def tasks(self, count: int, way: str = "batches") -> float:
        """Seconds from the first publish until all are acknowledged and the worker has acked the last."""
        self._done.clear()
        started = time.perf_counter()
        await self._publish(TASKS[way], [self._task] * (count - 1) + [self._last])
        await self._done.wait()
        return time.perf_counter() - started

    async def round_trip(self) -> float:
        """Seconds from one publish until its stored result is heard of."""
        self._done.clear()
        started = time.perf_counter()
        await self._stream.publish(CALL, self._task)
        await self._done.wait()
        return time.perf_counter() - started

    async def one_by_one(self, count: int) -> float:
        """Seconds for publishes that each wait for their acknowledgement."""
        started = time.perf_counter()
        for _ in range(count):
            await self._publish(BULK, [self._task])
        return time.perf_counter() - started

    async def pipelined(self, count: int) -> float:
        started = time.perf_counter()
        await self._publish(BULK, [self._task] * count)
        return time.perf_counter() - started

    async def guarded(self, count: int) -> float:
        """As `pipelined`; each on a subject of its own, stored only if nothing is there yet."""
        run = f"{BULK}.{os.getpid()}-{time.monotonic_ns()}"
        started = time.perf_counter()
        self._acked.clear()
        self._acks, self._wanted = 0, count
        publish, inbox = self._client.publish, self._inbox
        for number in range(count):
            headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
            await publish(f"{run}.{number}", self._task, reply=inbox, headers=headers)
        await self._acked.wait()
        return time.perf_counter() - started

    async def batched(self, count: int, size: int) -> float:
        """Seconds for `count` messages in atomic batches of `size`."""
        started = time.perf_counter()
        for number in range(0, count, size):
            await self._batch(f"{os.getpid()}-{time.monotonic_ns()}-{number}", min(size, count - number))
        return time.perf_counter() - started

    async def _batch(self, batch: str, size: int) -> None:
        self._acked.clear()
        self._acks, self._wanted = 0, 1
        publish = self._client.publish
        for number in range(1, size):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            await publish(BULK, self._task, headers=headers)
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(size), "Nats-Batch-Commit": "1"}
        await publish(BULK, self._task, reply=self._inbox, headers=headers)
        await self._acked.wait()


async def work(client: Client) -> None:
    """The worker's side, until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_answer(client))
        for way in TASKS:
            group.create_task(_work(client, way))


async def _answer(client: Client) -> None:
    """Every call answered by a stored result, then acked."""
    stream = client.jetstream()
    calls = await stream.pull_subscribe_bind("calls", STREAM)
    while True:
        with contextlib.suppress(NatsTimeout):
            for msg in await calls.fetch(1, timeout=30):
                await stream.publish(RESULT, b"result")
                await msg.ack()


async def _work(client: Client, way: str) -> None:
    """Every task acked, the last one told. While one batch comes in, the next is asked for."""
    inbox = f"{client._inbox_prefix.decode()}.{way}"
    batch = BATCH[way]
    request = json.dumps({"batch": batch, "expires": int(60e9)}).encode()
    left = 0
    publish = client.publish

    async def pull() -> None:
        nonlocal left
        left += batch
        await publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{way}", request, reply=inbox)

    async def on_message(msg: Msg) -> None:
        nonlocal left
        if not msg.reply:  # a pull ran out of time
            left -= int((msg.headers or {}).get("Nats-Pending-Messages", batch))
        else:
            left -= 1
            await publish(msg.reply)
            if msg.data.startswith(LAST):
                await publish(DONE)
        if left <= batch * (AHEAD[way] - 1):
            await pull()

    await client.subscribe(inbox, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    for _ in range(AHEAD[way]):
        await pull()
    await client.flush()
    await asyncio.get_running_loop().create_future()
