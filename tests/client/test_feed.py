"""`colony.feed()`: what a client hears, live and from the past on, in memory and on a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies import codec, feed, founding
from colonies.client import Client
from colonies.core.events import Cancelled
from colonies.ids import new_id
from colonies.ledger import Draft, Stored
from tests.harness import RunningColony, running_colony

LIMIT_S = 30.0
NOBODY = {"func": "x", "conditions": {"runtimetype": "nothing"}}

worker = colonies.Worker("python")


@worker.function
def double(number: int) -> int:
    return 2 * number


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Client]:
    async with colonies.memory() as client:
        await client.work(worker, "w1")
        yield client


@asynccontextmanager
async def on_jetstream(folder: Path) -> AsyncIterator[Client]:
    async with running_colony(folder) as colony:
        await colony.work(worker)
        yield await colony.client("tester")


@pytest.fixture(params=[in_memory, on_jetstream])
async def colony(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    async with request.param(tmp_path) as client:
        yield client


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony


class Listener:
    """A feed that is listened to in a task of its own, until the block ends."""

    def __init__(self, events: AsyncIterator[colonies.FeedEvent]) -> None:
        self.heard: list[colonies.FeedEvent] = []
        self._events = events
        self._came = asyncio.Event()

    async def __aenter__(self) -> Listener:
        self.task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _listen(self) -> None:
        async for event in self._events:
            self.heard.append(event)
            self._came.set()

    async def until(self, type: str, entity: str | None = None) -> None:
        """Wait until such an event was heard, or raise what ended the feed."""
        async with asyncio.timeout(LIMIT_S):
            while not any(e.type == type and entity in (None, e.entity) for e in self.heard):
                self._came.clear()
                waiting = asyncio.create_task(self._came.wait())
                await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if self.task.done():
                    await self.task


async def past(colony: Client, **options: Any) -> list[colonies.FeedEvent]:
    return [event async for event in colony.feed(options.pop("after", 0), live=False, **options)]


async def test_what_comes_is_heard_in_order_each_event_once(colony: Client) -> None:
    async with Listener(colony.feed(await colony.ledger.last_sequence())) as listener:
        handles = [await colony.submit(double.call(n)) for n in range(20)]
        for handle in handles:
            await listener.until("process.completed", handle.id)
    sequences = [event.sequence for event in listener.heard]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    own = [event for event in listener.heard if event.entity == handles[3].id]
    assert [(event.type, event.author, event.attempt) for event in own] == [
        ("process.queued", "tester", None),
        ("process.assigned", "w1", 1),
        ("process.completed", "w1", 1),
    ]
    assert {(event.kind, event.verdict, event.rule, event.workflow) for event in own} == {
        ("process", "valid", "", None)
    }
    assert own[-1].data["output"] == 6
    cloud = own[-1].cloud_event()
    assert (cloud["type"], cloud["subject"]) == ("colonies.process.completed", f"process/{handles[3].id}")
    assert json.loads(json.dumps(cloud))["data"]["output"] == 6


async def test_from_now_on_is_from_when_one_begins_to_listen(colony: Client) -> None:
    before = await colony.submit(NOBODY)
    async with Listener(colony.feed(type="process.queued")) as listener:
        while not listener.heard:  # when it began is not told
            after = await colony.submit(NOBODY)
            await asyncio.sleep(0.02)
        await listener.until("process.queued", after.id)
    assert before.id not in {event.entity for event in listener.heard}


async def test_past_and_present_are_joined_without_a_gap_wherever_one_begins(colony: Client) -> None:
    first = await colony.ledger.last_sequence()
    begun = asyncio.Event()

    async def submit() -> str:
        for number in range(60):
            handle = await colony.submit(NOBODY)
            if number == 10:
                begun.set()
        return handle.id

    submitting = asyncio.create_task(submit())
    await begun.wait()
    listeners = [Listener(colony.feed(after)) for after in (0, first, first + 5)]
    async with listeners[0], listeners[1], listeners[2]:
        last = await submitting
        for listener in listeners:
            await listener.until("process.queued", last)
    for listener, after in zip(listeners, (0, first, first + 5), strict=True):
        sequences = [event.sequence for event in listener.heard]
        assert sequences == list(range(after + 1, sequences[-1] + 1))


async def test_after_a_time_is_after_the_last_event_at_or_before_it(colony: Client) -> None:
    await colony.submit(NOBODY)
    everything = await past(colony)
    for event in (everything[0], everything[2], everything[-1]):
        found = await past(colony, after=event.time)
        assert found == [other for other in everything if other.time > event.time]
    assert await past(colony, after=everything[0].time - timedelta(days=1)) == everything
    for wrong, said in (
        (everything[0].time.replace(tzinfo=None), "has no time zone; give it one"),
        (datetime.now(UTC) + timedelta(days=1), "is in the future; None is from now on"),
        ("5", "after: '5'; allowed: a sequence, a datetime, or None"),
        (10**6, r"after: 1000000; the ledger has the sequences 1 to \d+"),
    ):
        with pytest.raises(colonies.Invalid, match=said):
            await past(colony, after=wrong)


async def test_filters_are_joined_by_and_their_values_by_or(colony: Client) -> None:
    flow = colonies.Workflow("two")
    flow.add(double.call(flow.add(double.call(1)).output))
    handle = await colony.submit(flow)
    await handle.wait(LIMIT_S)
    single = await colony.submit(double.call(5))
    await single.wait(LIMIT_S)
    nodes = [node.id for node in (await handle.get()).nodes]
    everything = await past(colony)

    async def check(expected: Any, **filters: Any) -> list[colonies.FeedEvent]:
        found = await past(colony, **filters)
        assert found == [event for event in everything if expected(event)], filters
        assert found, filters
        return found

    await check(lambda e: e.type == "process.completed", type="process.completed")
    await check(lambda e: e.kind == "process", type="process")
    both = ["process.released", "member"]
    await check(lambda e: e.type == "process.released" or e.kind == "member", type=both)
    await check(lambda e: e.author == "w1", author="w1")
    await check(
        lambda e: e.author in ("w1", "tester") and e.kind == "worker", author=["w1", "tester"], type="worker"
    )
    await check(lambda e: e.entity == single.id, process=single.id)
    await check(lambda e: e.entity in (single.id, nodes[0]), process={single.id, nodes[0]})
    whole = await check(lambda e: e.entity in (handle.id, *nodes), workflow=handle.id)
    assert {event.workflow for event in whole} == {handle.id}
    assert len(whole) == 7
    await check(lambda e: e.entity == nodes[1], workflow=handle.id, process=nodes[1])
    assert await past(colony, workflow=handle.id, process=single.id) == []
    assert await past(colony, author="nobody") == []


async def forge(client: Client, process: str) -> int:
    """Store a cancellation that its author has not signed; its sequence."""
    session = client.session
    story = await session.story(process)
    assert story.process is not None
    subject, sealed = session.seal(
        Cancelled("forged"), process, prev=story.process.head, id=new_id(), now=await session.ledger.now()
    )
    opened = codec.open_(session.ledger.colony, subject, sealed.data)
    data = sealed.data.replace(opened.signature, os.urandom(64))
    return await session.ledger.append(Draft(subject, data, story.guard))


async def test_what_does_not_count_is_told_to_those_who_ask_for_it(colony: Client) -> None:
    handle = await colony.submit(NOBODY)
    bad = await forge(colony, handle.id)
    await handle.cancel("meant")
    assert [event.type for event in await past(colony, process=handle.id)] == [
        "process.queued",
        "process.cancelled",
    ]
    all_of_it = await past(colony, process=handle.id, verdict=None)
    assert [event.verdict for event in all_of_it] == ["valid", "quarantined", "valid"]
    (seen,) = await past(colony, verdict=["quarantined", "void"])
    assert (seen.sequence, seen.author, seen.data) == (bad, None, {})
    assert seen.rule == "its signature is not that of tester"
    assert seen.cloud_event()["type"] == "colonies.quarantined.process.cancelled"
    assert await past(colony, verdict="quarantined", author="tester") == []


async def test_junk_about_a_process_has_no_reader_read_the_process_again(
    colony: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await colony.submit(double.call(1))
    await done.wait(LIMIT_S)
    open_ = await colony.submit(NOBODY)
    read: list[str] = []
    story = colony.session.story

    async def counted(process: str) -> Any:
        read.append(process)
        return await story(process)

    reader = feed.Reader(colony.session, 0)
    monkeypatch.setattr(colony.session, "story", counted)
    told = []
    for number in range(20):
        with monkeypatch.context() as uncounted:
            uncounted.setattr(colony.session, "story", story)
            await forge(colony, (done.id, open_.id)[number % 2])
        told += [one.seen.verdict.kind async for one in reader.read()]
    assert told.count("quarantined") == 20
    assert sorted(read) == sorted([done.id, open_.id])


async def test_filters_that_make_no_sense_are_refused_before_anything_is_read(colony: Client) -> None:
    for filters, said in (
        (
            {"type": "process.done"},
            "type: 'process.done' is no type of event; allowed: process, process.assi",
        ),
        ({"type": ["process", "thing"]}, "type: 'thing' is no type of event; allowed: colony, cron, "),
        ({"type": []}, "type: none is given"),
        ({"verdict": "bad"}, "verdict: 'bad' is no verdict; allowed: valid, void, quarantined"),
        ({"process": "a.>"}, r"process: 'a\.>' is not allowed as a name"),
        ({"process": "01M83K0TD"}, "process: '01M83K0TD' is no whole id; allowed: all of its 26 or 32"),
        ({"workflow": "01M83K0TD"}, "workflow: '01M83K0TD' is no whole id"),
        ({"workflow": 5}, "workflow: 5, a whole number, is not a name"),
        ({"author": "Ann"}, "author: 'Ann' is not allowed as a name"),
    ):
        with pytest.raises(colonies.Invalid, match=said):
            colony.feed(**filters)  # type: ignore[arg-type]


async def test_a_feed_ends_with_its_client(colony: Client) -> None:
    async with Listener(colony.feed(0)) as listener:
        await listener.until("colony.genesis")
        await colony.close()
        with pytest.raises(colonies.Unavailable):
            async with asyncio.timeout(LIMIT_S):
                await listener.task


async def test_who_is_revoked_hears_no_more_and_is_told_why(running: RunningColony) -> None:
    desk, ready = await running.session("desk", "observer"), asyncio.Event()
    ready.set()
    await running._start(founding.Operator(desk, running.keyring.operator, running.url).run(), ready)
    client = await running.client("ann")
    async with Listener(client.feed(0)) as listener:
        await listener.until("colony.genesis")
        await founding.revoke(running.owner, "ann", "left")
        with pytest.raises(colonies.Refused):
            async with asyncio.timeout(LIMIT_S):
                await listener.task


async def test_a_broker_that_dies_and_comes_back_costs_no_event(running: RunningColony) -> None:
    client = await running.client("ann")
    async with Listener(client.feed(0)) as listener:
        await listener.until("colony.genesis")
        for _ in range(3):
            await running.kill_broker()
            await asyncio.sleep(0)
            await running.restart_broker()
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        handle = await client.submit(NOBODY)
                        break
                    except (colonies.Unavailable, colonies.Unknown):
                        await asyncio.sleep(0.05)
            await listener.until("process.queued", handle.id)
    assert [event.sequence for event in listener.heard] == list(range(1, len(listener.heard) + 1))


async def test_events_that_the_feed_lost_are_told_all_the_same(
    colony: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOK_AGAIN_S", 0.2)

    async def deaf(pattern: str, heard: Any) -> Any:
        return await subscribe("feed.nothing", heard)

    subscribe = colony.ledger.subscribe
    monkeypatch.setattr(colony.ledger, "subscribe", deaf)
    async with Listener(colony.feed(0)) as listener:
        await listener.until("colony.genesis")
        queue = await colony.declare(colonies.Spec.parse(NOBODY))
        await listener.until("queue.declared", queue)


async def test_what_a_batch_leaves_out_is_asked_for_and_what_is_lost_is_passed_over(
    colony: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(10):
        await colony.submit(NOBODY)
    last = await colony.ledger.last_sequence()
    scan, at = colony.ledger.scan, colony.ledger.at

    async def leaving_out(after: int = 0, pattern: str = "ledger.>") -> AsyncIterator[list[Stored]]:
        async for batch in scan(after, pattern):
            whole = pattern != "ledger.>"
            yield [one for one in batch if whole or one.sequence == last or one.sequence % 3 != 0]

    async def losing(sequence: int) -> Stored:
        if sequence == 6:
            raise colonies.NotFound("it is not there")
        if sequence == 9:
            raise colonies.Unavailable("it cannot be read")
        return await at(sequence)

    monkeypatch.setattr(colony.ledger, "scan", leaving_out)
    assert [event.sequence for event in await past(colony)] == list(range(1, last + 1))
    monkeypatch.setattr(colony.ledger, "at", losing)
    assert [e.sequence for e in await past(colony)] == [n for n in range(1, last + 1) if n not in (6, 9)]


async def test_a_replica_that_is_behind_is_looked_at_again_soon(
    colony: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = colony.ledger.scan
    behind = 0

    async def stale(after: int = 0, pattern: str = "ledger.>") -> AsyncIterator[list[Stored]]:
        nonlocal behind
        if pattern == "ledger.>" and behind:
            behind -= 1
            return
        async for batch in scan(after, pattern):
            yield batch

    async with Listener(colony.feed(0)) as listener:
        await listener.until("colony.genesis")
        monkeypatch.setattr(colony.ledger, "scan", stale)
        behind = 5
        began = time.monotonic()
        handle = await colony.submit(NOBODY)
        await listener.until("process.queued", handle.id)
        assert behind == 0
        assert time.monotonic() - began < feed.LOOK_AGAIN_S / 2


def test_without_asyncio_a_feed_is_left_and_taken_up_again() -> None:
    with colonies.memory() as colony:
        colony.work(worker)
        handles = [colony.submit(double.call(n)) for n in range(5)]
        for handle in handles:
            handle.wait(LIMIT_S)
        last, done = 0, []
        while len(done) < 5:
            for event in colony.feed(last, type="process.completed"):
                done.append(event.entity)
                last = event.sequence
                break
        assert sorted(done) == sorted(handle.id for handle in handles)
        with pytest.raises(colonies.Invalid):
            colony.feed(type="nothing")
        assert len(list(colony.feed(0, type="process.completed", live=False))) == 5
        left = colony.feed(0)
        next(left)
    names = [thread.name for thread in threading.enumerate()]
    assert "colonies client" not in names
    left.close()
