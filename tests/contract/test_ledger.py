"""What a ledger promises (`colonies.ledger`), asked of both: the one in memory and the one on JetStream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from colonies import jetstream
from colonies.errors import Conflict, NotFound, Unavailable
from colonies.ledger import Arrival, Delivery, Draft, Ledger, Machinery, Offers, PullEnded, Stored
from colonies.memory_ledger import MemoryBroker, MemoryLedger
from colonies.subjects import guard_of
from tests.harness import running_colony, until

LEASE_S = 0.5
SECOND = 1_000_000_000


@dataclass
class Place:
    """A ledger, what the service may do there, another member's ledger, and a way to publish unguarded."""

    ledger: Ledger
    machinery: Machinery
    other: Ledger
    publish: Callable[[str, bytes], Awaitable[Any]]


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Place]:
    broker = MemoryBroker("A" * 56)
    ledger, other = MemoryLedger(broker), MemoryLedger(broker)

    async def publish(subject: str, data: bytes) -> None:
        broker.store(subject, data)

    yield Place(ledger, ledger, other, publish)
    await ledger.close()
    await other.close()


@asynccontextmanager
async def on_jetstream(folder: Path) -> AsyncIterator[Place]:
    async with running_colony(folder, orchestrate=False) as colony, AsyncExitStack() as stack:
        admin = colony.keyring.owner.admin_credential()
        ledger = await jetstream.connect(colony.url, admin)
        other = await jetstream.connect(colony.url, admin)
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(other.close)

        async def publish(subject: str, data: bytes) -> None:
            await ledger.emit(subject, data)

        yield Place(ledger, ledger.machinery(), other, publish)


@pytest.fixture(params=[in_memory, on_jetstream])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with request.param(tmp_path) as place:
        yield place


@pytest.fixture
def ledger(place: Place) -> Ledger:
    return place.ledger


def offer(process: str, queue: str = "q", author: str = "ann") -> str:
    return f"ledger.process.{process}.queued.{queue}.{author}"


def event(process: str, name: str, author: str = "w1") -> str:
    return f"ledger.process.{process}.{name}.{author}"


# --- appending --------------------------------------------------------------------------------------


async def test_events_are_stored_in_order_and_read_as_they_were_written(ledger: Ledger) -> None:
    before = await ledger.last_sequence()

    first = await ledger.append(Draft(offer("A"), b"one", 0))
    second = await ledger.append(Draft(event("A", "assigned"), b"two", first))

    assert [first, second] == [before + 1, before + 2]
    assert await ledger.last_sequence() == second
    read = await ledger.read(guard_of("process", "A"))
    assert [(s.subject, s.sequence, s.data, s.alone) for s in read] == [
        (offer("A"), first, b"one", False),
        (event("A", "assigned"), second, b"two", False),
    ]


async def test_all_of_an_entity_is_read_also_where_many_messages_have_one_subject(ledger: Ledger) -> None:
    written: list[tuple[str, int]] = []
    last = 0
    for number, subject in enumerate(
        [offer("A"), event("A", "assigned"), event("A", "failed"), offer("A"), event("A", "assigned")]
        + [event("A", "renewed")] * 40
        + [event("A", "completed")]
    ):
        await ledger.append(Draft(offer(f"B{number}"), b"", 0))
        last = await ledger.append(Draft(subject, b"x", last))
        written.append((subject, last))
        read = await ledger.read(guard_of("process", "A"))
        assert [(stored.subject, stored.sequence) for stored in read] == written
    assert await ledger.read(guard_of("process", "AB")) == []
    assert await ledger.read(guard_of("workflow", "A")) == []


async def test_what_is_stored_while_it_is_read_leaves_no_hole(place: Place) -> None:
    """A subject whose last message is another by then hides the one before."""
    last = await place.ledger.append(Draft(offer("A"), b"", 0))
    done = asyncio.Event()

    async def write() -> None:
        nonlocal last
        for _ in range(150):
            for name in ("assigned", "returned"):
                last = await place.other.append(Draft(event("A", name), b"", last))
        done.set()

    writing = asyncio.create_task(write())
    counts: list[int] = []
    while not done.is_set():
        read = await place.ledger.read(guard_of("process", "A"))
        names = [stored.subject.split(".")[3] for stored in read]
        assert names == ["queued", *["assigned", "returned"] * 150][: len(names)]
        counts.append(len(names))
        await asyncio.sleep(0)
    await writing
    assert counts == sorted(counts)
    assert len(await place.ledger.read(guard_of("process", "A"))) == 301


async def test_an_event_whose_entity_has_moved_on_is_refused_and_not_stored(ledger: Ledger) -> None:
    first = await ledger.append(Draft(offer("A"), b"one", 0))
    second = await ledger.append(Draft(event("A", "assigned"), b"two", first))

    for after in (0, first, second + 1):
        with pytest.raises(Conflict):
            await ledger.append(Draft(event("A", "completed"), b"three", after))

    assert await ledger.last_sequence() == second


async def test_other_entities_do_not_stand_in_the_way(ledger: Ledger) -> None:
    await ledger.append(Draft(offer("A"), b"", 0))

    await ledger.append(Draft(offer("AB"), b"", 0))
    await ledger.append(Draft("ledger.workflow.A.submitted.ann", b"", 0))
    await ledger.append(Draft("ledger.queue.A.declared.ann", b"", 0))
    await ledger.append(Draft("ledger.worker.w1.started.w1", b"", 0))


async def test_the_colony_is_one_entity(ledger: Ledger) -> None:
    last = max((s.sequence for s in await ledger.read("ledger.colony.>")), default=0)

    stored = await ledger.append(Draft("ledger.colony.configured.owner", b"", last))

    with pytest.raises(Conflict):
        await ledger.append(Draft("ledger.colony.checkpoint.service", b"", last))
    assert (await ledger.read("ledger.colony.>"))[-1].sequence == stored


async def test_junk_under_the_guard_counts_whoever_wrote_it(place: Place) -> None:
    first = await place.ledger.append(Draft(offer("A"), b"one", 0))
    await place.publish("ledger.process.A.no.event.of.ours.mallory", b"\xff")

    with pytest.raises(Conflict):
        await place.ledger.append(Draft(event("A", "assigned"), b"two", first))

    junk = (await place.ledger.read(guard_of("process", "A")))[-1]
    await place.ledger.append(Draft(event("A", "assigned"), b"two", junk.sequence))


async def test_junk_that_belongs_to_no_entity_is_stored_and_read_like_the_rest(place: Place) -> None:
    before = await place.ledger.last_sequence()
    for subject in ("ledger.x", "ledger.process.A", "ledger.member.a.b.c.d.e.f"):
        await place.publish(subject, b"")

    found = [s.subject async for batch in place.ledger.scan(before) for s in batch]

    assert found == ["ledger.x", "ledger.process.A", "ledger.member.a.b.c.d.e.f"]


async def test_of_many_writers_of_one_transition_exactly_one_wins(place: Place) -> None:
    first = await place.ledger.append(Draft(offer("A"), b"", 0))
    writers = [place.ledger, place.other] * 4

    outcomes = await asyncio.gather(
        *(w.append(Draft(event("A", "assigned", f"w{n}"), b"", first)) for n, w in enumerate(writers)),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 7 + ["int"]


async def test_what_is_sent_is_stored_in_order_and_a_conflict_stops_only_itself(ledger: Ledger) -> None:
    await ledger.append(Draft(offer("P3"), b"", 0))
    before = await ledger.last_sequence()

    under_way = [await ledger.send(Draft(offer(f"P{n}"), b"", 0)) for n in range(200)]
    outcomes = await asyncio.gather(*under_way, return_exceptions=True)

    assert isinstance(outcomes.pop(3), Conflict)
    assert outcomes == list(range(before + 1, before + 200))
    stored = [s.subject async for batch in ledger.scan(before) for s in batch]
    assert stored == [offer(f"P{n}") for n in range(200) if n != 3]


async def test_what_became_of_a_cancelled_append_is_settled_by_reading_and_trying_again(
    ledger: Ledger,
) -> None:
    """A read may overtake an append that is still under way, so one read alone does not settle it."""
    task = asyncio.create_task(ledger.append(Draft(offer("A"), b"", 0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with asyncio.timeout(5):
        while True:
            stored = await ledger.read(guard_of("process", "A"))
            guard = stored[-1].sequence if stored else 0
            with suppress(Conflict):
                await ledger.append(Draft(event("A", "cancelled", "ann"), b"", guard))
                break

    assert len(await ledger.read(guard_of("process", "A"))) == len(stored) + 1


async def test_many_are_stored_together_and_in_order(ledger: Ledger) -> None:
    sequences = await ledger.append_all([Draft(offer(f"P{n}"), b"%d" % n, 0) for n in range(1_000)])

    stored = [s async for batch in ledger.scan(sequences[0] - 1) for s in batch]
    assert [s.sequence for s in stored] == sequences
    assert [s.data for s in stored] == [b"%d" % n for n in range(1_000)]


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_of_many_together_none_is_stored_if_one_cannot_be(ledger: Ledger, taken: int) -> None:
    await ledger.append(Draft(offer(f"P{taken}"), b"", 0))
    before = await ledger.last_sequence()

    with pytest.raises(Conflict):
        await ledger.append_all([Draft(offer(f"P{n}"), b"", 0) for n in range(3)])

    assert await ledger.last_sequence() == before


async def test_a_batch_has_limits(ledger: Ledger) -> None:
    before = await ledger.last_sequence()
    for drafts in (
        [],
        [Draft(offer(f"P{n}"), b"", 0) for n in range(1_001)],
        [Draft(offer("A"), b"", 0), Draft(offer("A", author="bob"), b"", 0)],
    ):
        with pytest.raises(ValueError, match="batch"):
            await ledger.append_all(drafts)

    assert await ledger.last_sequence() == before
    assert await ledger.append_all([Draft(offer("A"), b"", 0)]) == [before + 1]


# --- reading ----------------------------------------------------------------------------------------


async def test_reading_goes_by_pattern(ledger: Ledger) -> None:
    a = await ledger.append(Draft(offer("A"), b"", 0))
    b = await ledger.append(Draft(offer("B", "other"), b"", 0))
    a2 = await ledger.append(Draft(event("A", "assigned"), b"", a))
    c = await ledger.append(Draft("ledger.queue.A.declared.ann", b"", 0))

    async def read(pattern: str) -> list[int]:
        return [s.sequence for s in await ledger.read(pattern)]

    assert await read("ledger.process.A.>") == [a, a2]
    assert await read("ledger.process.*.queued.*.ann") == [a, b]
    assert await read("ledger.process.*.queued.other.*") == [b]
    assert await read("ledger.process.*.*.*") == [a2]
    assert await read("ledger.process.>") == [a, b, a2]
    assert await read("ledger.*.A.>") == [a, a2, c]
    assert await read(event("A", "assigned")) == [a2]
    assert await read("ledger.process.Z.>") == []
    assert await read("ledger.process") == []


async def test_scanning_brings_everything_after_a_position_once_in_batches(ledger: Ledger) -> None:
    before = await ledger.last_sequence()
    under_way = [await ledger.send(Draft(offer(f"P{n}", f"q{n % 2}"), b"", 0)) for n in range(1_300)]
    await asyncio.gather(*under_way)

    batches = [batch async for batch in ledger.scan(before)]
    assert [s.sequence for batch in batches for s in batch] == list(range(before + 1, before + 1_301))
    assert max(map(len, batches)) <= 512

    odd = [
        s.sequence async for batch in ledger.scan(before + 700, "ledger.process.*.queued.q1.*") for s in batch
    ]
    assert odd == list(range(before + 702, before + 1_301, 2))
    assert [batch async for batch in ledger.scan(before + 1_300)] == []


async def test_a_long_history_is_read_whole(place: Place) -> None:
    await asyncio.gather(*(place.publish(event("A", "renewed", f"w{n}"), b"") for n in range(700)))

    assert len(await place.ledger.read(guard_of("process", "A"))) == 700


async def test_one_event_is_read_by_its_sequence(ledger: Ledger) -> None:
    first = await ledger.append(Draft(offer("A"), b"one", 0))
    second = await ledger.append(Draft(offer("B"), b"two", 0))
    (stored,) = await ledger.read(guard_of("process", "A"))
    assert await ledger.at(first) == stored
    assert (await ledger.at(second)).data == b"two"
    for wrong in (second + 1, 10**9):
        with pytest.raises(NotFound):
            await ledger.at(wrong)


async def test_the_last_sequences_of_many_entities_are_asked_for_together(place: Place) -> None:
    ledger = place.ledger
    first = [await ledger.append(Draft(offer(f"P{n}"), b"", 0)) for n in range(100)]
    last = [await ledger.append(Draft(event(f"P{n}", "assigned"), b"", at)) for n, at in enumerate(first)]

    guards = [guard_of("process", f"P{n}") for n in range(101)]
    assert await ledger.last_of(guards) == dict(zip(guards, last, strict=False))
    assert await ledger.last_of([]) == {}


async def test_the_last_sequence_is_known_however_many_subjects_somebody_adds(place: Place) -> None:
    await asyncio.gather(*(place.publish(offer("A", f"junk{n}"), b"") for n in range(1_100)))
    await place.publish(offer("B"), b"")
    last = await place.ledger.last_sequence()

    guards = [guard_of("process", process) for process in "ABC"]
    assert await place.ledger.last_of(guards) == {guards[0]: last - 1, guards[1]: last}


async def test_ledger_time_is_the_brokers_and_never_goes_back(ledger: Ledger) -> None:
    await ledger.now()
    before = time.time_ns()
    for n in range(20):
        await ledger.append(Draft(offer(f"P{n}"), b"", 0))
    times = [s.time for s in await ledger.read("ledger.process.>")]

    assert times == sorted(times)
    assert before - SECOND < times[0] <= times[-1] < time.time_ns() + SECOND
    assert all(moment % 1_000 == 0 for moment in times)
    assert times[-1] - SECOND < await ledger.now() < time.time_ns() + SECOND


# --- hearing ----------------------------------------------------------------------------------------


async def test_a_subscriber_hears_what_is_stored_as_it_is_read(place: Place) -> None:
    heard: list[Stored] = []
    ends: list[Stored] = []
    everything = await place.ledger.subscribe("feed.>", heard.append)
    await place.ledger.subscribe("feed.process.*.*.*", ends.append)
    before = await place.other.last_sequence()

    first = await place.other.append(Draft(offer("A"), b"one", 0))
    await place.other.append(Draft(event("A", "completed"), b"two", first))
    await until(lambda: len(heard) == 2 and ends, "both are heard")

    assert heard == [s async for batch in place.ledger.scan(before) for s in batch]
    assert ends == heard[1:]

    await everything.close()
    await everything.close()
    await place.other.append(Draft(offer("B"), b"", 0))
    await place.other.append(Draft(event("C", "completed"), b"", 0))
    await until(lambda: len(ends) == 2, "the other still hears")
    assert len(heard) == 2


async def test_of_heartbeats_the_last_is_kept_and_of_logs_all(place: Place) -> None:
    live: list[Stored] = []
    await place.other.subscribe("heartbeat.>", live.append)
    await place.other.subscribe("log.A.*", live.append)
    await place.other.last_sequence()

    for beat in (b"1", b"2"):
        await place.ledger.emit("heartbeat.w1.i1", beat)
    await place.ledger.emit("heartbeat.w1.i2", b"3")
    logged = [await place.ledger.emit("log.A.w1", line) for line in (b"x", b"y")]
    await place.ledger.emit("log.B.w1", b"z")

    assert [s.data for s in await place.ledger.emitted("heartbeat.w1.*")] == [b"2", b"3"]
    assert [s.data for s in await place.ledger.emitted("heartbeat.w1.i1")] == [b"2"]
    assert [(s.sequence, s.data) for s in await place.ledger.emitted("log.A.*")] == [
        (logged[0], b"x"),
        (logged[1], b"y"),
    ]
    assert [s.data for s in await place.ledger.emitted("log.*.w1")] == [b"x", b"y", b"z"]
    assert await place.ledger.emitted("log.C.*") == []
    beaten = (await place.ledger.emitted("heartbeat.w1.i2"))[0]
    assert abs(beaten.time - time.time_ns()) < 5 * SECOND
    await until(lambda: len(live) == 5, "all are heard live")
    assert [s.data for s in live] == [b"1", b"2", b"3", b"x", b"y"]


# --- large values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [1, 256 * 1024, 700_001])
async def test_a_large_value_comes_back_as_it_was(place: Place, size_bytes: int) -> None:
    data = bytes(n % 251 for n in range(size_bytes))

    name = await place.ledger.put_value("ann", data)

    assert name.startswith("ann.")
    assert await place.other.get_value(name, len(data)) == data
    assert await place.other.get_value(name, 5) == data[:5]
    assert await place.ledger.put_value("ann", data) != name


async def test_a_value_that_is_not_there_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match=r"ann\.nothing"):
        await ledger.get_value("ann.nothing", 5)


# --- queues -----------------------------------------------------------------------------------------


async def arrival(offers: Offers, limit_s: float = 20.0) -> Arrival:
    async with asyncio.timeout(limit_s):
        return await offers.arrival()


async def delivery(offers: Offers, limit_s: float = 20.0) -> Delivery:
    found = await arrival(offers, limit_s)
    assert not isinstance(found, PullEnded)
    return found


async def is_empty(offers: Offers, queue: str = "q") -> bool:
    await offers.pull(queue, batch=1, wait_s=0)
    return await arrival(offers) == PullEnded(queue)


@pytest.fixture
async def offers(place: Place) -> AsyncIterator[Offers]:
    """A worker's side of a place that has a queue `q`."""
    await place.machinery.make_queue("q", start=1, lease_s=LEASE_S)
    offers = await place.other.offers()
    yield offers
    await offers.close()


async def test_a_pull_on_a_queue_without_a_consumer_says_so(place: Place) -> None:
    offers = await place.other.offers()

    await offers.pull("nowhere", batch=1, wait_s=0)
    assert await arrival(offers) == PullEnded("nowhere", missing=True)
    await offers.pull("nowhere", batch=1, wait_s=30)
    assert await arrival(offers) == PullEnded("nowhere", missing=True)

    assert await place.machinery.queue_state("nowhere") is None
    await offers.close()


async def test_a_pull_that_does_not_wait_ends_when_the_queue_is_empty(offers: Offers) -> None:
    assert await is_empty(offers)


async def test_an_offer_is_handed_out_as_it_is_stored(place: Place, offers: Offers) -> None:
    await place.ledger.append(Draft(offer("A"), b"one", 0))

    await offers.pull("q", batch=1, wait_s=30)
    found = await delivery(offers)

    (stored,) = await place.ledger.read(guard_of("process", "A"))
    assert (found.queue, found.deliveries) == ("q", 1)
    assert abs(found.stored.time - stored.time) <= 1_000
    assert replace(found.stored, time=stored.time) == replace(stored, alone=True)


async def test_an_offer_stands_alone_only_if_the_broker_checked_it(place: Place, offers: Offers) -> None:
    first = await place.ledger.append(Draft(offer("A"), b"", 0))
    await place.ledger.append(Draft(offer("A", author="orchestrator"), b"", first))
    await place.publish(offer("B"), b"")
    await place.ledger.append_all([Draft(offer("C"), b"", 0)])

    await offers.pull("q", batch=4, wait_s=5)

    found = [(await delivery(offers)).stored for _ in range(4)]
    assert [(s.subject.split(".")[2], s.alone) for s in found] == [
        ("A", True),
        ("A", False),
        ("B", False),
        ("C", True),
    ]


async def test_a_queue_hands_out_its_own_offers_only_and_from_its_start_on(place: Place) -> None:
    await place.ledger.append(Draft(offer("A"), b"", 0))
    start = await place.ledger.append(Draft(offer("B"), b"", 0))
    await place.ledger.append(Draft(offer("C", "other"), b"", 0))
    await place.ledger.append(Draft(event("B", "assigned"), b"", start))
    await place.machinery.make_queue("q", start=start, lease_s=LEASE_S)
    await place.ledger.append(Draft(offer("D"), b"", 0))
    offers = await place.other.offers()

    await offers.pull("q", batch=2, wait_s=5)

    subjects = [(await delivery(offers)).stored.subject for _ in range(2)]
    assert subjects == [offer("B"), offer("D")]
    assert await is_empty(offers)
    await offers.close()


async def test_a_parked_pull_is_woken_by_a_later_offer(place: Place, offers: Offers) -> None:
    await offers.pull("q", batch=1, wait_s=30)
    with pytest.raises(TimeoutError):
        await arrival(offers, 0.1)

    await place.ledger.append(Draft(offer("A"), b"", 0))

    assert (await delivery(offers, 1)).stored.subject == offer("A")
    assert await is_empty(offers)


async def test_a_parked_pull_ends_after_its_time(offers: Offers) -> None:
    started = time.monotonic()
    await offers.pull("q", batch=1, wait_s=0.3)

    assert await arrival(offers) == PullEnded("q")
    assert 0.25 < time.monotonic() - started < 1.5


async def test_a_batch_ends_without_more_words_when_it_is_full(place: Place, offers: Offers) -> None:
    for n in range(3):
        await place.ledger.append(Draft(offer(f"P{n}"), b"", 0))

    await offers.pull("q", batch=2, wait_s=5)
    assert [(await delivery(offers)).stored.subject for _ in range(2)] == [offer("P0"), offer("P1")]
    with pytest.raises(TimeoutError):
        await arrival(offers, 0.1)

    await offers.pull("q", batch=2, wait_s=0)
    assert (await delivery(offers)).stored.subject == offer("P2")
    assert await arrival(offers) == PullEnded("q")


async def test_two_who_pull_never_get_the_same_offer(place: Place, offers: Offers) -> None:
    others = await place.ledger.offers()
    for one in (offers, others):
        for _ in range(10):
            await one.pull("q", batch=1, wait_s=30)

    under_way = [await place.ledger.send(Draft(offer(f"P{n}"), b"", 0)) for n in range(20)]
    await asyncio.gather(*under_way)

    found = [await delivery(one) for one in (offers, others) for _ in range(10)]
    for taken in found:
        await taken.ack()
    assert sorted(taken.stored.subject for taken in found) == sorted(offer(f"P{n}") for n in range(20))
    await others.close()


async def test_an_offer_comes_again_when_its_lease_has_passed_without_a_word(
    place: Place, offers: Offers
) -> None:
    await place.ledger.append(Draft(offer("A"), b"", 0))
    await offers.pull("q", batch=1, wait_s=30)
    first = await delivery(offers)
    assert await is_empty(offers)

    await offers.pull("q", batch=1, wait_s=30)
    again = await delivery(offers)

    assert again.stored.sequence == first.stored.sequence
    assert (first.deliveries, again.deliveries) == (1, 2)
    await again.ack()


async def test_an_offer_that_came_again_goes_before_a_new_one(place: Place, offers: Offers) -> None:
    await place.ledger.append(Draft(offer("A"), b"", 0))
    await place.ledger.append(Draft(offer("B"), b"", 0))
    await offers.pull("q", batch=1, wait_s=30)
    await delivery(offers)
    await asyncio.sleep(LEASE_S + 1)

    await offers.pull("q", batch=2, wait_s=5)

    assert [(await delivery(offers)).stored.subject for _ in range(2)] == [offer("A"), offer("B")]


async def test_an_acknowledged_offer_never_comes_again(place: Place, offers: Offers) -> None:
    await place.ledger.append(Draft(offer("A"), b"", 0))
    await offers.pull("q", batch=1, wait_s=30)
    found = await delivery(offers)

    await found.ack()
    await found.ack()

    await asyncio.sleep(LEASE_S + 0.3)
    assert await is_empty(offers)
    await found.nak()
    assert await is_empty(offers)


async def test_an_offer_given_back_comes_at_once_to_whoever_waits(place: Place, offers: Offers) -> None:
    await place.ledger.append(Draft(offer("A"), b"", 0))
    await offers.pull("q", batch=1, wait_s=30)
    found = await delivery(offers)
    others = await place.ledger.offers()
    await others.pull("q", batch=1, wait_s=30)

    await found.nak()

    again = await delivery(others, 0.4)
    assert (again.stored.subject, again.deliveries) == (offer("A"), 2)
    await again.ack()
    await others.close()


async def test_an_offer_put_off_comes_after_the_delay_and_not_before(place: Place, offers: Offers) -> None:
    await place.ledger.append(Draft(offer("A"), b"", 0))
    await offers.pull("q", batch=1, wait_s=5)
    await (await delivery(offers)).nak(1.0)
    started = time.monotonic()
    assert await is_empty(offers)

    await offers.pull("q", batch=1, wait_s=30)

    assert (await delivery(offers)).deliveries == 2
    assert 0.8 < time.monotonic() - started < 2


async def test_who_is_still_at_it_keeps_the_offer(place: Place, offers: Offers) -> None:
    await place.ledger.append(Draft(offer("A"), b"", 0))
    await offers.pull("q", batch=1, wait_s=30)
    found = await delivery(offers)

    for _ in range(10):
        await asyncio.sleep(LEASE_S / 5)
        await found.in_progress()
        assert await is_empty(offers)

    await offers.pull("q", batch=1, wait_s=30)
    assert (await delivery(offers)).deliveries == 2


async def test_nobody_loses_an_offer_to_one_who_has_left(place: Place, offers: Offers) -> None:
    gone = await place.ledger.offers()
    await gone.pull("q", batch=5, wait_s=30)
    await gone.close()

    await place.ledger.append(Draft(offer("A"), b"", 0))
    await offers.pull("q", batch=1, wait_s=15)

    assert (await delivery(offers)).stored.subject == offer("A")


async def test_a_queues_state_tells_what_was_handed_out_and_what_is_done(
    place: Place, offers: Offers
) -> None:
    sequences = [await place.ledger.append(Draft(offer(f"P{n}"), b"", 0)) for n in range(3)]

    async def state() -> tuple[bool, ...]:
        found = await place.machinery.queue_state("q")
        assert found is not None
        handed_out = (at <= found.delivered for at in sequences)
        done = (at <= found.acknowledged for at in sequences)
        return (*handed_out, *done)

    assert await state() == (False, False, False, False, False, False)
    await offers.pull("q", batch=2, wait_s=5)
    first, second = await delivery(offers), await delivery(offers)
    assert await state() == (True, True, False, False, False, False)
    await second.ack()
    await asyncio.sleep(0.05)
    assert await state() == (True, True, False, False, False, False)
    await first.ack()
    await asyncio.sleep(0.05)
    assert await state() == (True, True, False, True, True, False)


async def test_a_queue_that_is_made_again_keeps_its_place_and_takes_the_new_lease(
    place: Place, offers: Offers
) -> None:
    last = await place.ledger.append(Draft(offer("A"), b"", 0))
    await offers.pull("q", batch=1, wait_s=5)
    await (await delivery(offers)).ack()

    await place.machinery.make_queue("q", start=1, lease_s=LEASE_S)
    await place.machinery.make_queue("q", start=last + 5, lease_s=30)

    assert await is_empty(offers)
    await place.ledger.append(Draft(offer("B"), b"", 0))
    await offers.pull("q", batch=1, wait_s=5)
    assert (await delivery(offers)).stored.subject == offer("B")
    await asyncio.sleep(LEASE_S + 0.3)
    assert await is_empty(offers)


# --- timers -----------------------------------------------------------------------------------------


async def due(machinery: Machinery, limit_s: float = 5.0) -> list[str]:
    async with asyncio.timeout(limit_s):
        while not (found := await machinery.due()):
            pass
    return found


async def test_a_process_is_due_at_its_time_and_not_before(place: Place) -> None:
    at = await place.ledger.now() + int(1.2 * SECOND)
    await place.machinery.schedule("A", at)

    assert await due(place.machinery) == ["A"]
    assert at - SECOND // 20 <= await place.ledger.now() < at + 2 * SECOND


async def test_what_was_due_long_ago_is_due_now(place: Place) -> None:
    waiting = asyncio.create_task(due(place.machinery))
    await asyncio.sleep(0.1)
    assert not waiting.done()

    await place.machinery.schedule("A", await place.ledger.now() - 3_600 * SECOND)

    assert await waiting == ["A"]


async def test_of_several_times_for_one_process_the_last_counts(place: Place) -> None:
    now = await place.ledger.now()
    await place.machinery.schedule("A", now + 3_600 * SECOND)
    await place.machinery.schedule("B", now + 1 * SECOND)
    await place.machinery.schedule("B", now + 3_600 * SECOND)
    await place.machinery.schedule("A", now + 1 * SECOND)

    assert await due(place.machinery) == ["A"]
    with pytest.raises(TimeoutError):
        await due(place.machinery, 1.0)


# --- the end ----------------------------------------------------------------------------------------


async def test_a_closed_ledger_says_so_at_once(place: Place) -> None:
    lost = asyncio.create_task(place.ledger.lost())
    await place.ledger.last_sequence()
    assert not lost.done()

    await place.ledger.close()
    await place.ledger.close()

    async with asyncio.timeout(1):
        with pytest.raises(Unavailable, match="closed"):
            await lost
        with pytest.raises(Unavailable, match="closed"):
            await place.ledger.append(Draft(offer("A"), b"", 0))
        with pytest.raises(Unavailable, match="closed"):
            await place.ledger.read("ledger.>")
    assert await place.other.read("ledger.process.>") == []


async def test_what_a_closed_ledger_held_goes_to_another(place: Place, offers: Offers) -> None:
    dying = await place.ledger.offers()
    await place.other.append(Draft(offer("A"), b"", 0))
    await dying.pull("q", batch=1, wait_s=30)
    found = await delivery(dying)
    await place.ledger.close()
    await found.ack()

    await offers.pull("q", batch=1, wait_s=30)

    assert (await delivery(offers)).deliveries == 2
