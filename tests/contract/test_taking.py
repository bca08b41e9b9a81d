"""How an instance takes offers when answers are late and queues forget: found by the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

import colonies
from colonies.core.capacity import Candidate, Capacity
from colonies.core.flow import WorkflowSpec
from colonies.core.process import Running
from colonies.core.workflow import Workflow
from colonies.errors import Unknown
from colonies.history import Judged, Story
from colonies.ledger import Draft, PullEnded, Stored
from colonies.memory_colony import MemoryClient
from colonies.memory_ledger import MemoryLedger
from colonies.pulling import Puller
from colonies.releasing import left_to_workers
from colonies.session import Session

PYTHON = {"runtimetype": "python"}


@pytest.fixture
async def colony() -> AsyncIterator[MemoryClient]:
    async with colonies.memory(lease_s=2.0) as colony:
        yield colony


async def until(holds: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)
    assert holds(), what


async def forgetting(ledger: MemoryLedger) -> str:
    """Make the one queue anew, as if nothing had ever been handed out; who waits there waits again."""
    (queue,) = ledger.broker.queues
    before = ledger.broker.queues.pop(queue)
    await ledger.make_queue(queue, start=1, lease_s=2.0)
    for offers in [pull.offers for pull in before._pulls]:
        offers.put(PullEnded(queue, missing=True, number=10_000))
        await offers.pull(queue, batch=1, wait_s=5.0)
    return queue


async def test_what_ended_before_the_answer_came_is_not_run(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `assigned` is stored, the answer is lost, and by the time it asks the process is cancelled."""
    worker = colonies.Worker("python", concurrency=1)
    ran: list[str] = []

    @worker.function
    def work(name: str) -> str:
        ran.append(name)
        return name

    append, lost = MemoryLedger.append, asyncio.Event()

    async def losing(ledger: MemoryLedger, draft: Draft) -> int:
        sequence = await append(ledger, draft)
        if ".assigned." in draft.subject and not lost.is_set():
            lost.set()
            await colony.cancel(draft.subject.split(".")[2], "enough")
            raise Unknown("the broker gave no answer in time")
        return sequence

    monkeypatch.setattr(MemoryLedger, "append", losing)
    await colony.work(worker)
    cancelled = await colony.submit(work.call("cancelled"))
    await asyncio.wait_for(lost.wait(), 10)

    assert (await cancelled.wait(10)).state == "cancelled"
    assert await (await colony.submit(work.call("next"))).result(10) == "next"
    assert ran == ["next"]


async def test_an_attempt_is_run_once_though_its_instance_took_the_process_twice(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first `assigned` comes when the same instance holds the second."""
    worker = colonies.Worker("python", concurrency=2)
    ran: list[int] = []
    done = asyncio.Event()

    @worker.function
    async def work() -> None:
        ran.append(colonies.current().n)
        await done.wait()

    append, lost = MemoryLedger.append, asyncio.Event()

    async def losing(ledger: MemoryLedger, draft: Draft) -> int:
        sequence = await append(ledger, draft)
        if ".assigned." in draft.subject and not lost.is_set():
            lost.set()
            running = (await colony.session.process(draft.subject.split(".")[2])).phase
            assert isinstance(running, Running)
            while await ledger.now() <= running.lapses_at():
                await asyncio.sleep(0.05)
            await forgetting(ledger)
            await until(lambda: ran, "it was taken again")
            raise Unknown("the broker gave no answer in time")
        return sequence

    monkeypatch.setattr(MemoryLedger, "append", losing)
    await colony.work(worker)
    process = await colony.submit(work.call())
    await until(lambda: ran, "it runs")
    await asyncio.sleep(0.2)
    done.set()
    await process.result(10)

    assert ran == [2]


async def test_a_queue_that_forgot_everything_takes_no_work_from_a_living_worker(
    colony: MemoryClient,
) -> None:
    """The offer comes as if for the first time, long after it was taken; its worker lives and says so."""
    worker = colonies.Worker("python", concurrency=1)
    done = asyncio.Event()

    @worker.function
    async def work() -> int:
        await done.wait()
        return colonies.current().n

    await colony.work(worker)
    process = await colony.submit(work.call())
    ledger = colony.ledger
    assert isinstance(ledger, MemoryLedger)
    await until(lambda: any(".assigned." in s.subject for s in ledger.broker.events), "it was taken")
    running = (await process.get()).phase
    assert isinstance(running, Running)
    await colony.work(worker, "other")

    while await ledger.now() <= running.lapses_at():  # on the ledger alone it looks dead from here on
        await asyncio.sleep(0.05)
    queue = await forgetting(ledger)
    await until(lambda: ledger.broker.queues[queue].state.delivered, "it was offered again")
    for _ in range(20):
        await asyncio.sleep(0.01)
    done.set()

    assert await process.result(10) == 1
    assert [attempt.outcome for attempt in (await process.get()).attempts] == ["successful"]


class Counted:
    """Offers of a queue that has no consumer; it counts what is asked."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[PullEnded] = asyncio.Queue()

    async def pull(self, queue: str, *, batch: int, wait_s: float, number: int = 0) -> None:
        self.ended.put_nowait(PullEnded(queue, missing=True, number=number))

    async def arrival(self) -> PullEnded:
        return await self.ended.get()

    async def close(self) -> None: ...


async def test_a_worker_without_a_free_slot_does_not_spin_over_a_missing_queue(
    colony: MemoryClient,
) -> None:
    """The queue is to be asked again, which nobody can as long as all slots are taken."""
    worker = colonies.Worker("nowhere", concurrency=1)

    @worker.function
    def work() -> None: ...

    await colony.submit(work.call())
    await colony.session.refresh()
    free, looks = 1, 0

    def slots() -> int:
        nonlocal looks
        looks += 1
        return free

    offers = Counted()
    candidate = Candidate("worker", "nowhere", Capacity())
    puller = Puller(colony.session, candidate, offers, room=lambda _: slots(), take=lambda *_: True)
    loops = [asyncio.create_task(puller.receive()), asyncio.create_task(puller.sweep())]
    await until(lambda: looks >= 2, "it was asked once")
    free = 0
    await asyncio.sleep(0.2)
    before = looks
    await asyncio.sleep(0.2)
    for task in loops:
        task.cancel()
    await asyncio.gather(*loops, return_exceptions=True)

    assert looks - before < 10


async def test_queues_that_ran_empty_take_no_turn_from_those_that_wait(colony: MemoryClient) -> None:
    """Once in ten starts a lower queue has its turn, however many others there are with nothing in them."""
    worker = colonies.Worker("python", concurrency=1)
    order: list[int] = []

    @worker.function
    async def note(priority: int) -> None:
        order.append(priority)

    def calls(priority: int, count: int) -> list[dict[str, Any]]:
        conditions = {"runtimetype": "python"}
        one = {"func": "note", "args": [priority], "priority": priority, "conditions": conditions}
        return [one] * count

    few = [work for priority in range(1, 9) for work in calls(priority, 1)]
    handles = await colony.submit_many([*few, *calls(0, 6), *calls(9, 400)])
    await colony.work(worker)
    async with asyncio.timeout(60):
        await asyncio.gather(*(handle.wait() for handle in handles))

    starts = [index for index, priority in enumerate(order) if priority < 9]
    assert starts[0] < 20
    assert max(later - before for before, later in pairwise(starts)) <= 20


# --- what an instance released itself ----------------------------------------------------------------


def _chain(*names: str) -> list[dict[str, Any]]:
    conditions = [{"runtimetype": "python", "dependencies": list(names[:n][-1:])} for n in range(len(names))]
    return [{"name": n, "func": "work", "conditions": c} for n, c in zip(names, conditions, strict=True)]


async def test_what_a_worker_released_itself_it_does_not_verify_again(
    colony: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = colonies.Worker("python", concurrency=4)
    worker.function(lambda: None, name="work")
    instance = await colony.work(worker)
    examined: list[str] = []

    async def noted(stored: Stored) -> Judged:
        examined.append(stored.subject)
        return await Session.examine(instance.session, stored)

    monkeypatch.setattr(instance.session, "examine", noted)
    handle = await colony.submit_workflow(_chain("a", "b", "c"))

    assert (await handle.wait(20)).state == "successful"
    assert isinstance(colony.ledger, MemoryLedger)
    offers = {s.subject for s in colony.ledger.broker.events if ".queued." in s.subject}
    own = {subject for subject in offers if subject.endswith(".worker")}
    assert own, "it released none"
    assert set(examined) == offers - own


async def test_an_offer_at_another_place_than_our_release_is_looked_at_as_any_other(
    colony: MemoryClient,
) -> None:
    """Somebody stored the same bytes a second time, or ours came too late and were not stored."""
    worker = colonies.Worker("python", concurrency=1)
    worker.function(lambda: None, name="work")
    instance = await colony.work(worker)
    handle = await colony.submit_workflow(_chain("a", "b"))
    now = await handle.wait(20)
    assert isinstance(colony.ledger, MemoryLedger)
    [offer] = [
        s for s in colony.ledger.broker.events if s.subject.endswith(".worker") and ".queued." in s.subject
    ]
    releases, first = instance._releases, now.nodes[0].process
    assert first is not None
    for place, known in ((offer.sequence, True), (offer.sequence + 9, False)):
        told = asyncio.get_running_loop().create_future()
        releases._own[now.nodes[1].id] = told
        told.set_result(Story(now.nodes[1].process, [], offer.sequence))
        story = await releases.story_of(replace(offer, sequence=place))
        assert (story is not None) is known
        assert await releases.story_of(offer) is None  # known once only: it may come again much later

    await releases.release_children(first)  # the child has begun long ago
    assert await releases.story_of(offer) is None


def test_an_orchestrator_leaves_to_a_worker_only_what_surely_waits_for_nothing_else() -> None:
    def node(name: str, *parents: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "func": "f", "conditions": PYTHON | {"dependencies": list(parents)}, **more}

    spec = WorkflowSpec.parse(
        [
            *(node(name) for name in ("chain", "join", "when", "map", "signal", "limits", "leaf")),
            node("a", "chain"),
            node("b", "a"),
            node("c", "join", "leaf"),
            node("d", "join"),
            node("e", "when", when="when"),
            node("f", "map", map={"$output": "map"}),
            {"name": "g", "dependencies": ["signal"], "wait_signal": "go"},
            node("h", "limits", limits={"key": "k", "running": 1}),
            node("tidy", **{"finally": True}),
        ]
    )
    workflow = Workflow("0" * 26, spec, "ann", 1, 0, b"", 0)

    assert list(left_to_workers(workflow)) == [workflow.process_of(name) for name in ("chain", "a")]
