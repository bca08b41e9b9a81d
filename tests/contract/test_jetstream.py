"""What only the ledger on JetStream can meet: permissions, hostile headers, a broker that dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from colonies import jetstream, link
from colonies.creds import Credential
from colonies.errors import Conflict, Refused, Unavailable, Unknown
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Draft, PullEnded, Stored
from colonies.subjects import guard_of
from tests.harness import RunningColony, running_colony, until

SECOND = 1_000_000_000


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        yield colony


class Door:
    """Ledgers on a colony, closed after the test."""

    def __init__(self, colony: RunningColony, stack: AsyncExitStack) -> None:
        self.colony = colony
        self.stack = stack

    async def __call__(self, name: str, role: str) -> JetStreamLedger:
        credential = Credential.read(await self.colony.credential(name, role))
        ledger = await jetstream.connect(self.colony.url, credential)
        self.stack.push_async_callback(ledger.close)
        return ledger


@pytest.fixture
async def ledger_of(colony: RunningColony) -> AsyncIterator[Door]:
    async with AsyncExitStack() as stack:
        yield Door(colony, stack)


def offer(process: str, author: str = "ann") -> str:
    return f"ledger.process.{process}.queued.q.{author}"


async def publish_raw(ledger: JetStreamLedger, subject: str, header: bytes, data: bytes) -> None:
    """Publish with a header block of our own making, as a hostile client would."""
    size, total = len(header), len(header) + len(data)
    line = f"HPUB {subject} {size} {total}\r\n".encode()
    await ledger.client()._send_command(line + header + data + b"\r\n")
    await ledger.client().flush()


# --- who may say what, and who hears the answer -----------------------------------------------------


async def test_a_publish_that_the_broker_denies_is_refused_by_name_at_once(ledger_of: Door) -> None:
    ann = await ledger_of("ann", "user")
    first = await ann.append(Draft(offer("A"), b"", 0))

    for subject in ("ledger.process.A.assigned.ann", offer("A", "bob"), "ledger.member.bob.approved.ann"):
        async with asyncio.timeout(2):
            with pytest.raises(Refused, match=rf"ann may not publish on {subject}"):
                await ann.append(Draft(subject, b"", first))
    with pytest.raises(Refused):
        await ann.append_all([Draft("ledger.process.A.assigned.ann", b"", first), Draft(offer("B"), b"", 0)])

    assert await ann.append(Draft("ledger.process.A.cancelled.ann", b"", first)) == first + 1


async def test_a_denied_publish_among_many_fails_alone(ledger_of: Door) -> None:
    ann = await ledger_of("ann", "user")

    drafts = [Draft(offer(f"P{n}", "bob" if n == 7 else "ann"), b"", 0) for n in range(20)]
    under_way = [await ann.send(draft) for draft in drafts]
    outcomes = await asyncio.gather(*under_way, return_exceptions=True)

    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Refused)] == [7]
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 19


async def test_two_connections_of_one_member_never_take_each_others_answers(ledger_of: Door) -> None:
    ann = await ledger_of("ann", "user")
    same = [await ledger_of("w1", "worker") for _ in range(4)]

    for n in range(50):
        first = await ann.append(Draft(offer(f"P{n}"), b"", 0))
        taken = Draft(f"ledger.process.P{n}.assigned.w1", b"", first)
        outcomes = await asyncio.gather(*(one.append(taken) for one in same), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if not isinstance(outcome, Conflict)] == [int]


async def test_a_credential_that_is_not_of_the_colony_is_refused(
    colony: RunningColony, tmp_path: Path
) -> None:
    async with running_colony(tmp_path / "other", orchestrate=False) as other:
        stranger = Credential.read(await other.credential("ann", "user"))
    with pytest.raises(Refused, match="does not accept the credential of ann"):
        await jetstream.connect(colony.url, stranger)


async def test_where_no_broker_is_the_message_says_what_to_do(colony: RunningColony) -> None:
    credential = Credential.read(await colony.credential("ann", "user"))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1;.*colonies dev"):
        await jetstream.connect("nats://127.0.0.1:1", credential, wait_s=0.5)


# --- headers that somebody made up ------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        b"NATS/1.0\r\nStatus: 204\r\n\r\n",
        b"NATS/1.0\r\nStatus: 503\r\nNats-Num-Pending: 0\r\n\r\n",
        b"NATS/1.0 204\r\n\r\n",
        b"NATS/1.0 404 gone\r\nNats-Num-Pending: 0\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: 7777\r\nNats-Subject: ledger.x\r\nNats-Time-Stamp: no time\r\n\r\n",
        b"NATS/1.0\r\nno header at all\r\n\r\n",
        b"NATS/1.0\r\n\xff\xfe: \x80\r\n: \r\n\r\n\r\n",
        b"NATS/1.0\r\nopen: end",
    ],
)
async def test_no_header_hides_or_disguises_what_is_stored(ledger_of: Door, header: bytes) -> None:
    ann, mallory = await ledger_of("ann", "user"), await ledger_of("mallory", "user")
    heard: list[Stored] = []
    await ann.subscribe("feed.process.>", heard.append)
    before = await ann.last_sequence()

    await ann.append(Draft(offer("A"), b"one", 0))
    await publish_raw(mallory, offer("B", "mallory"), header, b"")
    await until(lambda: len(heard) == 2, "what mallory published is stored")
    await ann.append(Draft(offer("C"), b"three", 0))

    found = [s async for batch in ann.scan(before) for s in batch]
    assert [(s.subject, s.sequence) for s in found] == [
        (offer("A"), before + 1),
        (offer("B", "mallory"), before + 2),
        (offer("C"), before + 3),
    ]
    assert await ann.read(guard_of("process", "B")) == [found[1]]
    assert await ann.last_of([guard_of("process", "B")]) == {guard_of("process", "B"): before + 2}
    await until(lambda: len(heard) == 3, "all three are heard")
    assert heard == found


# --- a broker that dies and returns -----------------------------------------------------------------


async def test_a_headers_value_is_one_line_whatever_is_in_it(ledger_of: Door) -> None:
    ann = await ledger_of("ann", "user")
    heard: list[dict[str, str]] = []
    await ann.client().listen("feed.process.>", lambda msg: heard.append(msg.headers))

    headers = {"One": "a\r\nTwo: b", "Three": "c\nFour: d", "Five": "e\rf"}
    for process, given in (("A", headers), ("B", {"Plain": "as it is"})):
        await ann.client().publish(offer(process), b"x", headers=dict(given))
    await until(lambda: len(heard) == 2, "both are heard")

    assert headers.keys() <= heard[0].keys()
    assert not {"Two", "Four"} & heard[0].keys()
    assert heard[1]["Plain"] == "as it is"


async def test_what_was_in_flight_when_the_broker_was_killed_is_of_unknown_fate_at_once(
    colony: RunningColony, ledger_of: Door
) -> None:
    ann = await ledger_of("ann", "user")
    first = await ann.append(Draft(offer("A"), b"", 0))
    os.kill(colony.server.pid, signal.SIGSTOP)
    await asyncio.sleep(0.2)  # until all of its threads have stopped
    under_way = asyncio.gather(
        await ann.send(Draft(offer("B"), b"", 0)),
        await ann.send(Draft(offer("C"), b"", 0)),
        return_exceptions=True,
    )
    reading = asyncio.create_task(ann.read("ledger.process.>"))
    await asyncio.sleep(0.1)

    await colony.kill_broker()
    async with asyncio.timeout(2):
        assert [type(outcome) for outcome in await under_way] == [Unknown, Unknown]
        with pytest.raises(Unavailable):
            await reading

    await colony.restart_broker()
    assert await ann.append(Draft("ledger.process.A.cancelled.ann", b"", first)) > first
    stored = {s.subject for s in await ann.read("ledger.process.>")}
    for process in "BC":
        if offer(process) in stored:
            with pytest.raises(Conflict):
                await ann.append(Draft(offer(process), b"", 0))
        else:
            await ann.append(Draft(offer(process), b"", 0))


async def test_an_append_waits_out_a_short_absence_and_reading_a_long_one_says_unavailable(
    colony: RunningColony, ledger_of: Door
) -> None:
    ann = await ledger_of("ann", "user")
    first = await ann.append(Draft(offer("A"), b"", 0))
    await colony.kill_broker()
    await asyncio.sleep(0.1)

    started = time.monotonic()
    outcomes = await asyncio.gather(
        ann.read("ledger.process.>"),
        ann.last_sequence(),
        ann.append(Draft(offer("B"), b"", 0)),
        ann.append_all([Draft(offer("C"), b"", 0), Draft(offer("D"), b"", 0)]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
    assert time.monotonic() - started < link.ANSWER_S + 2

    waiting = asyncio.create_task(ann.append(Draft("ledger.process.A.cancelled.ann", b"", first)))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await colony.restart_broker()
    assert await waiting == first + 1
    assert [s.subject for s in await ann.read("ledger.process.>")] == [
        offer("A"),
        "ledger.process.A.cancelled.ann",
    ]


async def test_subscriptions_pulls_and_timers_go_on_after_a_restart_and_tell_of_the_gap(
    colony: RunningColony, ledger_of: Door
) -> None:
    ann, w1 = await ledger_of("ann", "user"), await ledger_of("w1", "worker")
    service = await ledger_of("orchestrator", "service")
    machinery = service.machinery()
    await machinery.make_queue("q", start=1, lease_s=30)
    heard: list[Stored] = []
    gaps: list[float] = []
    await ann.subscribe("feed.process.>", heard.append)
    ann.on_gap(lambda: gaps.append(time.monotonic()))
    offers = await w1.offers()
    await offers.pull("q", batch=1, wait_s=30)
    await machinery.schedule("A", await service.now() + 3 * SECOND)

    async def due() -> list[str]:
        while True:
            try:
                if found := await machinery.due():
                    return found
            except Unavailable:
                await asyncio.sleep(0.1)

    waiting = asyncio.create_task(due())
    await asyncio.sleep(0.1)
    await colony.kill_broker()
    await colony.restart_broker()

    async with asyncio.timeout(15):
        assert await offers.arrival() == PullEnded("q")
        await offers.pull("q", batch=1, wait_s=30)
        await until(lambda: gaps, "the gap is told")
        stored = await ann.append(Draft(offer("A"), b"", 0))
        found = await offers.arrival()
        assert not isinstance(found, PullEnded)
        assert found.stored.sequence == stored
        await until(lambda: heard, "the subscription hears again")
        assert [s.sequence for s in heard] == [stored]
        assert await waiting == ["A"]
    await offers.close()


async def test_what_was_acknowledged_survives_the_brokers_death(
    colony: RunningColony, ledger_of: Door
) -> None:
    ann = await ledger_of("ann", "user")
    under_way = [await ann.send(Draft(offer(f"P{n}"), b"%d" % n, 0)) for n in range(2_000)]
    outcomes, _ = await asyncio.gather(
        asyncio.gather(*under_way, return_exceptions=True), colony.kill_broker()
    )
    await colony.restart_broker()

    stored = {s.sequence: s.data async for batch in ann.scan(0, "ledger.process.>") for s in batch}

    assert {type(outcome) for outcome in outcomes} <= {int, Unknown}
    for n, outcome in enumerate(outcomes):
        if isinstance(outcome, int):
            assert stored[outcome] == b"%d" % n


async def test_closing_while_the_broker_is_down_takes_no_time(colony: RunningColony, ledger_of: Door) -> None:
    ann = await ledger_of("ann", "user")
    await colony.kill_broker()
    reading = asyncio.create_task(ann.read("ledger.process.>"))
    await asyncio.sleep(0.2)

    async with asyncio.timeout(2):
        await ann.close()
        with pytest.raises(Unavailable):
            await reading
