"""Readers under trouble: slow links, silent brokers, long gaps, stale replicas, forged headers.

Where a broker cannot be made to misbehave on demand, one method of a real ledger is made to.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

import colonies
from colonies import jetstream, reading, session, subjects, values
from colonies.core.events import Ref
from colonies.creds import Credential
from colonies.errors import ColoniesError, NotFound, Unavailable, Unknown
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Arrival, Draft, PullEnded, Stored
from colonies.subjects import guard_of
from colonies.verify import Report, verify_ledger
from colonies.witness import HighWater
from tests.harness import RunningColony, running_colony, until

SPEC = {"func": "f", "conditions": {"runtimetype": "nobody"}}


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        yield colony


async def ledger_of(colony: RunningColony, name: str, role: str, url: str = "") -> JetStreamLedger:
    ledger = await jetstream.connect(url or colony.url, Credential.read(await colony.credential(name, role)))
    colony.stack.push_async_callback(ledger.close)
    return ledger


@asynccontextmanager
async def slow_link(url: str, bytes_a_second: int) -> AsyncIterator[str]:
    """A way to the broker on which what it says comes slowly."""
    host, port = url.removeprefix("nats://").split(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int) -> None:
        try:
            while data := await reader.read(16_384):
                writer.write(data)
                await writer.drain()
                if rate:
                    await asyncio.sleep(len(data) / rate)
        except OSError:
            pass
        finally:
            writer.close()

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, to_broker, 0), pump(from_broker, writer, bytes_a_second))

    server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


# --- slow is not dead -------------------------------------------------------------------------------


async def test_a_slow_link_is_no_damage(colony: RunningColony, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await colony.client()
    await client.submit_many([SPEC | {"args": ["x" * 60_000]} for _ in range(40)])
    monkeypatch.setattr(reading, "SILENCE_S", 0.7)

    async with slow_link(colony.url, 800_000) as url:
        ledger = await ledger_of(colony, "slow", "user", url)
        started = time.monotonic()
        report = await verify_ledger(ledger)
        assert time.monotonic() - started > 1.4  # else the link was not slow
        batches = [batch async for batch in ledger.scan(0, wait_s=0.7)]
        await ledger.close()

    assert (report.findings, report.valid) == ([], report.last_sequence)
    assert [s.sequence for batch in batches for s in batch] == list(range(1, report.last_sequence + 1))


async def test_a_batch_has_about_a_megabyte_at_most(colony: RunningColony) -> None:
    client = await colony.client()
    await client.submit_many([SPEC | {"args": ["x" * 100_000]} for _ in range(25)])

    sizes = [sum(len(s.data) for s in batch) async for batch in client.ledger.scan()]

    assert len(sizes) >= 3
    assert max(sizes) < jetstream.READ_BYTES + 200_000
    assert sum(sizes) > 2_500_000


async def test_a_silence_still_ends_a_request(colony: RunningColony) -> None:
    client = await colony.client()
    await client.submit_many([SPEC | {"args": ["x" * 100_000]} for _ in range(5)])

    async with slow_link(colony.url, 50_000) as url:
        ledger = await ledger_of(colony, "slow", "user", url)
        with pytest.raises(Unknown, match="no answer in time"):
            async for _ in ledger.scan(0, wait_s=0.3):
                pass
        await ledger.close()


# --- verifying what the broker does not give --------------------------------------------------------


class Troubled:
    """A real ledger with `gap` sequences missing after the second event, and some that it is silent about."""

    def __init__(self, ledger: JetStreamLedger, *, gap: int = 0, silent: set[int] | None = None) -> None:
        self._ledger = ledger
        self._gap = gap
        self._silent = silent or set()
        self.colony = ledger.colony
        self.requests = 0

    async def stream_info(self, stream: str, *, deleted_details: bool = False) -> dict[str, Any]:
        info = await self._ledger.stream_info(stream, deleted_details=deleted_details)
        info["state"]["last_seq"] += self._gap
        return info

    async def scan(self, after: int, *, wait_s: float) -> AsyncIterator[list[Stored]]:
        self.requests += 1
        if any(after < silent for silent in self._silent):
            raise Unknown("silence")
        if self._gap and after == 2:
            raise Unavailable("reading LEDGER: it stumbles over what it cannot read")
        async for batch in self._ledger.scan(max(2, after - self._gap) if after >= 2 else after):
            yield [self._moved(s) for s in batch if not self._gap or after >= 2 or s.sequence <= 2]
            return

    async def at(self, sequence: int, *, wait_s: float) -> Stored:
        self.requests += 1
        if sequence in self._silent:
            raise Unknown("silence")
        if 2 < sequence <= 2 + self._gap:
            raise NotFound("no message")
        return self._moved(await self._ledger.at(sequence - self._gap if sequence > 2 else sequence))

    def _moved(self, stored: Stored) -> Stored:
        return replace(stored, sequence=stored.sequence + self._gap) if stored.sequence > 2 else stored


async def verified(ledger: Any, **options: Any) -> Report:
    return await verify_ledger(ledger, **options)


@pytest.fixture
async def filled(colony: RunningColony) -> JetStreamLedger:
    """A ledger of some events."""
    client = await colony.client()
    await client.submit_many([SPEC for _ in range(12)])
    ledger = client.ledger
    assert isinstance(ledger, JetStreamLedger)
    return ledger


async def test_a_broker_that_answers_for_nothing_says_nothing_about_the_ledger(
    filled: JetStreamLedger,
) -> None:
    with pytest.raises(Unavailable, match="the broker does not answer"):
        await verified(Troubled(filled, silent=set(range(100))))


async def test_silence_about_one_sequence_is_a_finding_of_that_sequence(filled: JetStreamLedger) -> None:
    report = await verified(Troubled(filled, silent={5}))

    assert [(f.sequence, f.kind) for f in report.findings if "does not answer" in f.rule] == [(5, "damaged")]
    assert report.events == report.last_sequence - 1


async def test_silence_from_one_sequence_on_is_a_finding_too(filled: JetStreamLedger) -> None:
    report = await verified(Troubled(filled, silent=set(range(8, 100))))

    assert [(f.sequence, f.kind) for f in report.findings] == [(8, "damaged")]
    assert "nor for what may stand behind it" in report.findings[0].rule
    assert report.events == 7


async def test_a_gap_of_a_few_is_named_one_by_one(filled: JetStreamLedger) -> None:
    report = await verified(Troubled(filled, gap=900))

    missing = [f for f in report.findings if f.kind == "missing"]
    assert [(f.sequence, f.last) for f in missing] == [(n, None) for n in range(3, 903)]
    assert report.events == report.last_sequence - 900


async def test_a_long_gap_is_one_finding_and_not_a_request_for_each(filled: JetStreamLedger) -> None:
    troubled = Troubled(filled, gap=200_000)
    report = await verified(troubled)

    (missing,) = [f for f in report.findings if f.kind == "missing"]
    assert (missing.sequence, missing.last) == (3, 200_002)
    assert "200000 sequences from here to 200002" in missing.rule
    assert report.events == report.last_sequence - 200_000
    assert troubled.requests < 1_200


async def test_a_tail_that_is_not_there_is_not_asked_for(filled: JetStreamLedger) -> None:
    troubled = Troubled(filled)
    last = await filled.last_sequence()
    report = await verified(troubled, high_water=HighWater(last + 50_000, b"x" * 32))

    assert [(f.sequence, f.kind, f.last) for f in report.findings] == [(last + 1, "missing", last + 50_000)]
    assert troubled.requests < 10


# --- offers that say they stand alone ---------------------------------------------------------------


async def offered(colony: RunningColony, process: str, headers: list[list[str]]) -> list[bool]:
    """Publish one offer of a process for each header block; tell which stood alone, as a worker sees it."""
    service = await ledger_of(colony, "orchestrator", "service")
    ann = await ledger_of(colony, "ann", "user")
    await service.machinery().make_queue("q", start=1, lease_s=30)
    for lines in headers:
        head = "".join(f"{line}\r\n" for line in ["NATS/1.0", *lines, ""]).encode()
        subject = f"ledger.process.{process}.queued.q.ann"
        reply = f"{ann._link._replies}.0"
        line = f"HPUB {subject} {reply} {len(head)} {len(head)}\r\n".encode()
        await ann.client()._send_command(line + head + b"\r\n")
    await ann.client().flush()
    offers = await (await ledger_of(colony, "w1", "worker")).offers()
    await offers.pull("q", batch=len(headers), wait_s=1)
    found: list[Arrival] = []
    async with asyncio.timeout(5):
        while len(found) < len(headers) and not (found and isinstance(found[-1], PullEnded)):
            found.append(await offers.arrival())
    await offers.close()
    return [arrival.stored.alone for arrival in found if not isinstance(arrival, PullEnded)]


def checks(process: str) -> list[str]:
    return [
        f"{subjects.EXPECTED_SEQUENCE}: 0",
        f"{subjects.EXPECTED_SUBJECT}: {guard_of('process', process)}",
    ]


async def test_of_two_offers_of_one_process_in_one_batch_only_the_first_is_alone(
    colony: RunningColony,
) -> None:
    def place(number: int) -> list[str]:
        return [f"{subjects.BATCH_ID}: abc", f"{subjects.BATCH_SEQUENCE}: {number}"]

    batch = [[*checks("P"), *place(1)], [*checks("P"), *place(2), f"{subjects.BATCH_COMMIT}: 1"]]

    assert await offered(colony, "P", batch) == [True, False]


@pytest.mark.parametrize("trick", ["said twice", "a space before", "not looked at"])
async def test_a_header_that_the_broker_reads_otherwise_makes_no_offer_alone(
    colony: RunningColony, trick: str
) -> None:
    for name, role in (("ann", "user"), ("orchestrator", "service"), ("w1", "worker")):
        await colony.credential(name, role)
    last = await colony.owner.ledger.last_sequence() + 1  # of the first offer
    sequence, guard = checks("P")
    second = {
        "said twice": [f"{subjects.EXPECTED_SEQUENCE}: {last}", guard, sequence],
        "a space before": [f" {sequence}", f" {guard}"],
        "not looked at": [f"X: {subjects.EXPECTED_SEQUENCE}", f" {sequence}", f" {guard}"],
    }[trick]

    assert await offered(colony, "P", [checks("P"), second]) == [True, False]


# --- what a session knows of its colony -------------------------------------------------------------


async def test_a_member_that_a_replica_does_not_have_yet_is_not_skipped(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await colony.session("ann", "user")
    for subscription in user._subscriptions:
        await subscription.close()
    before = await user.ledger.last_sequence()
    whole = JetStreamLedger._batches

    async def stale(self: JetStreamLedger, *args: Any, **kwargs: Any) -> AsyncIterator[list[Stored]]:
        async for batch in whole(self, *args, **kwargs):
            if kept := [stored for stored in batch if stored.sequence <= before]:
                yield kept

    await colony.credential("bob", "user")
    with monkeypatch.context() as patch:
        patch.setattr(JetStreamLedger, "_batches", stale)
        await user.refresh()
    await user.refresh()

    assert "bob" in user.colony.members


async def test_a_part_is_read_to_its_end_from_the_leader_where_a_replica_is_behind(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await ledger_of(colony, "ann", "user")
    offers = [f"ledger.process.{name}.queued.q.ann" for name in "ABC"]
    sequences = [await ann.append(Draft(offer, b"", 0)) for offer in offers]
    whole = JetStreamLedger._batches

    async def stale(self: JetStreamLedger, *args: Any, **kwargs: Any) -> AsyncIterator[list[Stored]]:
        async for batch in whole(self, *args, **kwargs):
            yield batch[:1]
            return

    monkeypatch.setattr(JetStreamLedger, "_batches", stale)
    found = [s.sequence async for batch in ann.scan(0, "ledger.process.>") for s in batch]

    assert found == sequences
    assert [s.sequence for s in await ann.read("ledger.process.>")] == sequences
    assert [batch async for batch in ann.scan(sequences[-1], "ledger.process.>")] == []


async def test_an_error_of_ours_does_not_end_what_keeps_a_colony_fresh(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await colony.session("ann", "user")
    monkeypatch.setattr(session, "UNEXPECTED_S", 0.05)
    failures: list[int] = []

    def fails_once() -> None:
        if not failures:
            failures.append(1)
            raise RuntimeError("of our own making")

    user.on_queues.append(fails_once)
    client = await colony.client()
    await client.submit(SPEC)
    await until(lambda: failures, "the error", 5)
    await colony.credential("bob", "user")

    await until(lambda: "bob" in user.colony.members, "the keeper goes on", 5)


# --- stored values ----------------------------------------------------------------------------------


async def keep(ledger: Any, data: bytes) -> Ref:
    name = await ledger.put_value("tester", data)
    return Ref(hashlib.sha256(data).hexdigest(), len(data), name)


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb(msgpack.ExtType(5, b"anything")),
        msgpack.packb({"when": msgpack.Timestamp(1, 2)}),
        msgpack.packb([1, [b"bytes"]]),
        msgpack.packb({b"key": 1}),
        msgpack.packb({1: 2}),
        msgpack.packb(1) + b"more",
        b"\xc1",
        b"\x91" * 5_000 + b"\x01",
        b"\xdf\xff\xff\xff\xff",
    ],
)
async def test_a_stored_value_that_json_cannot_say_is_refused(data: bytes) -> None:
    async with colonies.memory() as colony:
        ref = await keep(colony.ledger, data)
        with pytest.raises(ColoniesError, match="is not what JSON can say"):
            await values.load(colony.ledger, ref)


async def test_a_stored_value_comes_back_as_it_was() -> None:
    value = {"a": [1, -2.5, "three", None, True, {"deep": [[]]}]}
    async with colonies.memory() as colony:
        ref = await keep(colony.ledger, msgpack.packb(value))
        assert await values.load(colony.ledger, ref) == value


@pytest.mark.parametrize("first", [b"half of", None])
async def test_a_stored_value_is_read_once_more_before_it_is_called_wrong(
    monkeypatch: pytest.MonkeyPatch, first: bytes | None
) -> None:
    monkeypatch.setattr(values, "AGAIN_S", 0.01)
    async with colonies.memory() as colony:
        ref = await keep(colony.ledger, msgpack.packb("whole"))
        answers = [first]
        whole = colony.ledger.get_value

        async def behind(name: str, size_bytes: int) -> bytes:
            if not answers:
                return await whole(name, size_bytes)
            if (answer := answers.pop()) is None:
                raise NotFound("not yet")
            return answer

        monkeypatch.setattr(colony.ledger, "get_value", behind)
        assert await values.load(colony.ledger, ref) == "whole"
        answers += [b"wrong", b"wrong"]
        with pytest.raises(ColoniesError, match="not the one that the ledger names"):
            await values.load(colony.ledger, ref)
