"""The ledger as it was: who reads through it sees what a ledger that ends there would show, and no more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import colonies
from colonies import past, subjects
from colonies.client import Client
from colonies.crons import CronNow
from colonies.errors import Invalid, NotFound, Refused
from colonies.generators import GeneratorNow
from colonies.ledger import Draft, Ledger, Stored
from colonies.memory_colony import MemoryClient
from colonies.memory_ledger import MemoryBroker, MemoryLedger
from colonies.nkeys import KeyPair
from colonies.session import Session
from colonies.show import process_object, rfc3339
from colonies.show_workflow import workflow_object
from tests.harness import running_colony

SECOND = 1_000_000_000

worker = colonies.Worker("python", concurrency=2, backoff_s=0.01)


@worker.function
def numbers(count: int) -> list[int]:
    return list(range(count))


@worker.function(maxretries=1)
def square(number: int) -> int:
    if number == 2 and colonies.current().n == 1:
        raise ValueError("not this time")
    return number * number


@worker.function
def wrong() -> None:
    raise colonies.Fail("no")


async def live(colony: MemoryClient) -> list[Stored]:
    """Much of what can happen, one after the other; the whole ledger of it."""
    await colony.work(worker)
    flow = colonies.Workflow("squares")
    flow.map(square.call, flow.add(numbers.call(3)).output)
    await (await colony.submit(flow)).wait(20)
    failing = colonies.Workflow("failing")
    failing.add(square.call(1), after=[failing.add(wrong.call())])
    await (await colony.submit(failing)).wait(20)
    stopped = colonies.Workflow("stopped")
    stopped.wait_signal("go")
    handle = await colony.submit(stopped)
    await handle.signal("stay")
    await handle.cancel("enough")
    await handle.wait(20)
    process = await colony.submit({"func": "x", "conditions": {"runtimetype": "nothing"}})
    cron = await colony.add_cron("yearly", {**square.call(1).spec.wire(), "name": "t"}, cron="0 0 1 1 *")
    await cron.pause("a while")
    spec = {**numbers.call(1).spec.wire(), "args": [{"$packed": "0"}]}
    await colony.add_generator("pairs", spec, trigger=2)
    await colony.pack("pairs", 1, 2, 3)
    await process.cancel()
    await cron.remove()
    return [stored async for batch in colony.ledger.scan() for stored in batch]


async def told(session: Session) -> dict[str, Any]:
    """All that a client shows of a colony."""
    client = Client(session)
    found: dict[str, Any] = {
        "members": sorted(session.colony.members),
        "queues": sorted(session.colony.queues),
        "crons": [_cron(now) for now in await client.crons()],
        "generators": [_generator(now) for now in await client.generators()],
    }
    entities: set[tuple[str, str]] = set()
    async for batch in session.ledger.scan():
        entities |= {(s.subject.split(".")[1], s.subject.split(".")[2]) for s in batch}
    for kind, id in sorted(entities):
        if kind == "process" and (process := (await session.story(id)).process) is not None:
            found[id] = process_object(process)
        elif kind == "workflow":
            found[id] = workflow_object(await client.workflow(id).get())
    for now in await client.generators():
        found[now.name] = [(run.run, run.state) for run in await client.generator_runs(now.name)]
    return found


def _cron(now: CronNow) -> tuple[Any, ...]:
    return now.name, now.state, now.due


def _generator(now: GeneratorNow) -> tuple[Any, ...]:
    return now.name, now.packed, now.runs, now.waiting


def cut(stored: list[Stored], colony: str) -> MemoryLedger:
    """A ledger that holds these and nothing else, its clock at the last."""
    broker = MemoryBroker(colony, clock=lambda: stored[-1].time)
    for one in stored:
        broker.store(one.subject, one.data)
        broker.events[-1] = one
        if (guard := subjects.guard_if_any(one.subject)) is not None:
            broker._entities[guard][-1] = one
    return MemoryLedger(broker)


@asynccontextmanager
async def reading(ledger: Ledger) -> AsyncIterator[Session]:
    session = await Session(ledger, "reader", KeyPair.new("user")).open()
    try:
        yield session
    finally:
        await session.close()


async def test_at_every_sequence_all_is_shown_as_a_ledger_that_ends_there_shows_it() -> None:
    async with colonies.memory() as colony:
        whole = await live(colony)
        states: set[str] = set()
        for end in range(1, len(whole) + 1):
            moment = await past.moment(colony.ledger, str(end))
            assert moment == past.Moment(end, whole[end - 1].time)
            async with (
                reading(past.PastLedger(colony.ledger, moment)) as then,
                reading(cut(whole[:end], colony.ledger.colony)) as ended,
            ):
                shown = await told(then)
                assert shown == await told(ended), end
            states |= {item["state"] for item in shown.values() if isinstance(item, dict)}
        assert states >= {"waiting", "running", "blocked", "successful", "failed", "cancelled"}


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Client]:
    async with colonies.memory() as client:
        yield client


@asynccontextmanager
async def on_jetstream(folder: Path) -> AsyncIterator[Client]:
    async with running_colony(folder) as colony:
        yield await colony.client()


@pytest.fixture(params=[in_memory, on_jetstream])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    async with request.param(tmp_path) as client:
        yield client


async def submitted(client: Client, count: int) -> list[Stored]:
    """The whole ledger, after some processes were submitted, each at a time of its own."""
    for _ in range(count):
        await client.submit({"func": "x", "conditions": {"runtimetype": "nothing"}})
        now = await client.ledger.now()
        while await client.ledger.now() <= now + 2_000:
            await asyncio.sleep(0)
    return [stored async for batch in client.ledger.scan() for stored in batch]


async def test_a_time_is_the_last_event_at_or_before_it(client: Client) -> None:
    whole = await submitted(client, 40)
    for stored in whole:
        last = max(one.sequence for one in whole if one.time <= stored.time)
        assert await past.moment(client.ledger, rfc3339(stored.time)) == past.Moment(last, stored.time)
        just_before = stored.time - 1_000
        before = [one.sequence for one in whole if one.time <= just_before]
        if before:
            assert (await past.moment(client.ledger, rfc3339(just_before))).sequence == before[-1]
    now = await past.moment(client.ledger, rfc3339(await client.ledger.now()))
    assert now.sequence == len(whole)


async def test_zones_dates_and_ages(client: Client) -> None:
    whole = await submitted(client, 1)
    then = datetime.fromtimestamp(whole[-1].time / SECOND, UTC) + timedelta(milliseconds=1)
    ledger = client.ledger
    while await ledger.now() < past.ns_of(then):
        await asyncio.sleep(0.001)
    local = then.astimezone().replace(tzinfo=None)
    for text in (then.isoformat(), local.isoformat(), local.isoformat(" ")):
        assert await past.moment(ledger, text) == past.Moment(len(whole), past.ns_of(then)), text
    midnight = datetime(2026, 1, 31).astimezone()
    assert await past.time_of(ledger, "2026-01-31") == past.ns_of(midnight)
    ago = await past.time_of(ledger, "2h")
    assert 0 <= await ledger.now() - 7_200 * SECOND - ago < 60 * SECOND


async def test_what_is_no_moment_of_this_ledger_is_refused_with_what_would_be(client: Client) -> None:
    whole = await submitted(client, 1)
    last = len(whole)
    for text, said in (
        ("0", f"--at: there is no sequence 0; the ledger has those from 1 to {last}"),
        (str(last + 1), f"--at: there is no sequence {last + 1}; the ledger has those from 1 to {last}"),
        ("9" * 30, "is no moment; allowed: a sequence, such as 120"),
        ("2024-01-01", f"is before the first event of the ledger, of {rfc3339(whole[0].time)}"),
        ("2h", "is before the first event"),
        ("2990-01-01", f"is in the future; the last event of the ledger is {last}, of "),
        ("yesterday", "'yesterday' is no moment; allowed: a sequence"),
        ("2026-13-01", "'2026-13-01' is no moment"),
        ("2026-W01-1", "is no moment"),
        ("0001-01-01", "before the first|is no moment"),
        ("400d", "'400d' is not allowed; allowed: a whole number and one of s, m, h, d"),
        ("-1", "is no moment"),
        ("", "is no moment"),
    ):
        with pytest.raises(Invalid, match=said.replace("(", r"\(")) as refused:
            await past.moment(client.ledger, text, "--at")
        assert str(refused.value).startswith("--at: ")


@given(
    st.text(max_size=40)
    | st.from_regex(r"\A-?[0-9]{1,5}-[0-9]{1,3}-[0-9]{1,3}([T ][0-9:.,Z+ -]{0,20})?\Z")
    | st.datetimes(timezones=st.none() | st.timezones()).map(str)
    | st.from_regex(r"\A[0-9]{1,25}[smhdwy]?\Z")
)
def test_whatever_is_given_for_a_moment_is_one_or_is_refused_in_a_line(text: str) -> None:
    broker = MemoryBroker("A" * 56)
    broker.store("ledger.colony.genesis.ann", b"")
    try:
        said = f"--at: {asyncio.run(past.moment(MemoryLedger(broker), text, '--at'))}"
        assert said.startswith("--at: sequence 1, ")
    except Invalid as error:
        said = str(error)
    assert re.fullmatch(r"--at: [^\n]{1,500}", said)


async def test_nothing_is_written_into_the_past_and_nothing_is_heard_of_it(client: Client) -> None:
    process = await client.submit({"func": "x", "conditions": {"runtimetype": "nothing"}})
    ledger = past.PastLedger(client.ledger, await past.moment(client.ledger, "2"))
    draft = Draft("ledger.process.x.queued.q.ann", b"", 0)
    for writing in (
        ledger.append(draft),
        ledger.send(draft),
        ledger.append_all([draft]),
        ledger.emit("log.x.ann", b""),
        ledger.put_value("ann", b"x"),
        ledger.offers(),
    ):
        with pytest.raises(Refused, match=r"as it was at sequence 2, .*: nothing can be added to it"):
            await writing
    heard: list[Stored] = []
    await ledger.subscribe("feed.>", heard.append)
    ledger.on_gap(lambda: heard.append(draft))  # type: ignore[arg-type]
    await process.cancel()
    async with reading(ledger) as session:
        with pytest.raises(NotFound):
            await session.process(process.id)
        with pytest.raises(NotFound):
            await ledger.at(3)
        assert (await ledger.at(2)).sequence == await ledger.last_sequence() == 2
        assert [s.sequence async for batch in ledger.scan(1) for s in batch] == [2]
        assert await ledger.now() == (await client.ledger.at(2)).time
    assert heard == []
