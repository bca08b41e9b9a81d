"""`colonies.memory()`, as users have it in their tests; and what only a broker in memory can do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

import colonies
from colonies.core.colony import Colony
from colonies.history import History
from colonies.ledger import Draft, PullEnded, Stored
from colonies.memory_colony import MemoryClient
from colonies.memory_ledger import MemoryBroker, MemoryLedger

SECOND = 1_000_000_000

worker = colonies.Worker("python", concurrency=4, backoff_s=0.05)
begun = asyncio.Event()


@worker.function
def double(n: int) -> int:
    return 2 * n


@worker.function
async def slow(name: str) -> str:
    begun.set()
    await asyncio.sleep(30)
    return name


@worker.function(maxretries=5)
def third_time(word: str) -> str:
    if colonies.current().n < 3:
        raise ValueError("not yet")
    return word


@worker.function
def hopeless() -> None:
    raise colonies.Fail("there is no way")


@worker.function
def later(delay_s: float) -> int:
    if colonies.current().n == 1:
        raise colonies.Later(delay_s)
    return colonies.current().n


@worker.function
def large(size: int) -> str:
    return "x" * size


@pytest.fixture(autouse=True)
async def nothing_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Event belongs to the loop that it was first waited on, and each test has its own."""
    monkeypatch.setitem(globals(), "begun", asyncio.Event())


@pytest.fixture
async def colony() -> AsyncIterator[MemoryClient]:
    async with colonies.memory() as colony:
        await colony.work(worker)
        yield colony


# --- as users have it -------------------------------------------------------------------------------


async def test_a_worker_is_tested_without_a_broker() -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        process = await colony.submit(double.call(21))
        assert await process.result() == 42


def test_a_worker_is_tested_without_asyncio_as_well() -> None:
    with colonies.memory() as colony:
        colony.work(worker)
        process = colony.submit(double.call(21))
        assert process.result() == 42


async def test_the_colony_and_its_member_have_names(colony: MemoryClient) -> None:
    assert (colony.colony, colony.name) == ("memory", "tester")


async def test_a_round_trip_takes_milliseconds(colony: MemoryClient) -> None:
    await (await colony.submit(double.call(1))).result(5)
    started = time.monotonic()
    for n in range(10):
        assert await (await colony.submit(double.call(n))).result(5) == 2 * n
    assert time.monotonic() - started < 2


async def test_what_fails_is_tried_again_as_in_earnest(colony: MemoryClient) -> None:
    process = await colony.submit(third_time.call("lucky"))

    assert await process.result(10) == "lucky"
    assert [attempt.outcome for attempt in (await process.get()).attempts] == [
        "failed",
        "failed",
        "successful",
    ]


async def test_what_fails_for_good_and_what_comes_later(colony: MemoryClient) -> None:
    failed, put_off = await colony.submit(hopeless.call()), await colony.submit(later.call(1.2))

    with pytest.raises(colonies.ProcessFailed, match="there is no way"):
        await failed.result(5)
    assert await put_off.result(10) == 2


async def test_a_cancelled_process_is_stopped(colony: MemoryClient) -> None:
    process = await colony.submit(slow.call("never"))
    await asyncio.wait_for(begun.wait(), 5)

    await process.cancel("enough")

    with pytest.raises(colonies.ProcessCancelled, match="enough"):
        await process.result(5)


async def test_many_large_and_keyed(colony: MemoryClient) -> None:
    processes = await colony.submit_many([double.call(n) for n in range(300)])
    assert [await process.result(20) for process in processes] == [2 * n for n in range(300)]
    together = await colony.submit_many([double.call(n) for n in range(3)], atomic=True)
    assert [await process.result(5) for process in together] == [0, 2, 4]

    assert len(await (await colony.submit(large.call(300_000))).result(5)) == 300_000

    first, again = [await colony.submit(double.call(1), key="once") for _ in range(2)]
    assert first.id == again.id
    with pytest.raises(colonies.Invalid, match="another spec"):
        await colony.submit(double.call(2), key="once")


async def test_a_process_goes_to_the_worker_it_names(colony: MemoryClient) -> None:
    await colony.work(worker, "gpu1")
    spec = {"func": "double", "args": [2], "conditions": {"runtimetype": "python", "workernames": ["gpu1"]}}

    process = await colony.submit(spec)

    assert await process.result(5) == 4
    assert (await process.get()).attempts[-1].worker == "gpu1"


async def test_what_a_stopping_worker_gives_back_another_finishes() -> None:
    async with colonies.memory() as colony:
        impatient, patient = colonies.Worker("python"), colonies.Worker("python")

        @impatient.function(name="work")
        async def hang() -> str:
            begun.set()
            await asyncio.sleep(30)
            return "never"

        @patient.function(name="work")
        async def finish() -> str:
            return "done"

        first = await colony.work(impatient)
        process = await colony.submit(hang.call())
        await asyncio.wait_for(begun.wait(), 5)
        await colony.work(patient, "second")
        first.stop(0.0)

        assert await process.result(5) == "done"
        outcomes = [attempt.outcome for attempt in (await process.get()).attempts]
        assert outcomes == ["returned", "successful"]


async def test_events_come_in_order_each_with_its_verdict(colony: MemoryClient) -> None:
    process = await colony.submit(double.call(1))

    seen = [event async for event in process.events()]

    assert [e.record.event.type for e in seen if e.record] == [
        "process.queued",
        "process.assigned",
        "process.completed",
    ]
    assert all(e.verdict.valid for e in seen)


async def test_every_event_is_signed_and_true_as_on_a_real_ledger(colony: MemoryClient) -> None:
    await (await colony.submit(third_time.call("x"))).result(10)
    history = History(Colony(colony.ledger.colony))

    judged = [history.add(stored) async for batch in colony.ledger.scan() for stored in batch]

    assert len(judged) > 10
    assert [one.verdict.rule for one in judged if not one.verdict.valid] == []


# --- the end of it ----------------------------------------------------------------------------------


async def test_nothing_is_left_when_it_is_closed() -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        await colony.work(worker, "second")
        await (await colony.submit(double.call(1))).result(5)

    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(colonies.Unavailable, match="closed"):
        await colony.submit(double.call(1))


async def test_it_does_not_wait_for_what_still_runs() -> None:
    began = time.monotonic()
    async with colonies.memory() as colony:
        await colony.work(worker)
        await colony.submit(slow.call("never"))
        await colony.submit_many([double.call(n) for n in range(50)])
        await asyncio.wait_for(begun.wait(), 5)

    assert time.monotonic() - began < 5
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    async def use() -> None:
        async with colonies.memory() as colony:
            await colony.work(worker)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_two_colonies_know_nothing_of_each_other() -> None:
    async with colonies.memory() as one, colonies.memory() as other:
        process = await one.submit(double.call(1))

        assert one.ledger.colony != other.ledger.colony
        with pytest.raises(colonies.NotFound):
            await other.process(process.id).get()


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("No Name", colonies.Invalid, "No Name"),
        ("tester", colonies.Refused, "tester has the role user"),
        ("orchestrator", colonies.Refused, "orchestrator has the role service"),
    ],
)
async def test_a_worker_needs_a_name_of_its_own(name: str, error: type[Exception], says: str) -> None:
    async with colonies.memory() as colony:
        with pytest.raises(error, match=says):
            await colony.work(worker, name)
        await colony.work(worker)
        assert await (await colony.submit(double.call(1))).result(5) == 2


@pytest.mark.parametrize("lease_s", [0, 1.9, -1, float("nan"), 100_000])
def test_a_lease_must_be_one(lease_s: float) -> None:
    with pytest.raises(colonies.Invalid, match="lease_s"):
        colonies.memory(lease_s=lease_s)


# --- the broker in memory ---------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND + 123_456_789

    def __call__(self) -> int:
        return self.now


async def test_the_clock_may_be_ones_own() -> None:
    clock = Clock()
    broker = MemoryBroker("A" * 56, clock=clock)
    ledger = MemoryLedger(broker)
    assert await ledger.now() == 1_800_000_000 * SECOND + 123_456_000

    await ledger.make_queue("q", start=1, lease_s=3_600)
    offers = await ledger.offers()
    await ledger.append(Draft("ledger.process.A.queued.q.ann", b"", 0))
    for _ in range(2):
        await offers.pull("q", batch=1, wait_s=7_200)
    assert not isinstance(await offers.arrival(), PullEnded)
    await ledger.schedule("A", clock.now + 60 * SECOND)
    due = asyncio.create_task(ledger.due())
    await asyncio.sleep(0.01)
    assert not due.done()

    clock.now += 3_601 * SECOND
    broker.wake()

    assert await due == ["A"]
    again = await asyncio.wait_for(offers.arrival(), 1)
    assert not isinstance(again, PullEnded)
    assert again.deliveries == 2
    clock.now -= 86_400 * SECOND
    await ledger.append(Draft("ledger.process.B.queued.q.ann", b"", 0))
    times = [s.time for s in await ledger.read("ledger.>")]
    assert times == sorted(times)
    await ledger.close()


async def test_subscribers_hear_from_the_loop_and_never_from_within_an_append() -> None:
    broker = MemoryBroker("A" * 56)
    ledger = MemoryLedger(broker)
    heard: list[Stored] = []
    await ledger.subscribe("feed.>", heard.append)

    broker.store("ledger.process.A.queued.q.ann", b"")
    assert heard == []
    await asyncio.sleep(0)
    assert len(heard) == 1

    broker.store("ledger.process.B.queued.q.ann", b"")
    await ledger.close()
    await asyncio.sleep(0)
    assert len(heard) == 1
