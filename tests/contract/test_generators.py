"""Generators end to end, on both ledgers: each argument in exactly one run, in order, and no untrue run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

import colonies
from colonies import generating, memory_colony
from colonies.client import Client
from colonies.core.colony import Colony
from colonies.core.events import GeneratorPacked, GeneratorRemoved, Source, WorkflowSubmitted
from colonies.core.generators import Chain, run_id, source_of
from colonies.core.workflow import Workflow
from colonies.errors import Conflict, Invalid, NotFound, Refused
from colonies.history import History, Judged, judge_generator
from colonies.ids import new_id
from colonies.instance import Instance
from colonies.ledger import Draft, Machinery
from colonies.memory_ledger import MemoryLedger
from colonies.orchestrator import Orchestrator
from colonies.packing import Runs
from colonies.session import Session
from tests.harness import running_colony, until

PYTHON = {"runtimetype": "python"}
ALL = {"func": "note", "args": [{"$packed": ""}], "conditions": PYTHON}
SECOND = 1_000_000_000

SessionOf = Callable[[str, str], Awaitable[Session]]


class Ground:
    """A colony on one of the ledgers, with the user `ann`."""

    def __init__(self, session_of: SessionOf, stack: AsyncExitStack) -> None:
        self.session_of = session_of
        self.stack = stack
        self.client: Client

    async def orchestrate(self, name: str = "orchestrator") -> asyncio.Task[None]:
        session = await self.session_of(name, "service")
        ledger = cast(Any, session.ledger)
        machinery: Machinery = ledger if isinstance(ledger, MemoryLedger) else ledger.machinery()
        orchestrator = Orchestrator(session, machinery)
        task = asyncio.create_task(orchestrator.run())
        self.stack.push_async_callback(end, task)
        await until(lambda: orchestrator.ready.is_set() or task.done(), "the orchestrator is ready")
        return task

    async def work(self, worker: colonies.Worker, name: str = "w1") -> None:
        instance = Instance(worker, await self.session_of(name, "worker"))
        task = asyncio.create_task(instance.run())

        async def stop() -> None:
            instance.stop(0.0)
            await task

        self.stack.push_async_callback(stop)
        await until(lambda: instance.ready.is_set() or task.done(), "the worker is ready")

    async def history(self) -> tuple[History, list[Judged]]:
        """All of the ledger, and what in it is not valid."""
        ledger = self.client.ledger
        history = History(Colony(ledger.colony))
        found = [history.add(stored) async for batch in ledger.scan() for stored in batch]
        return history, [seen for seen in found if not seen.verdict.valid]

    async def runs(self, name: str, count: int) -> list[Workflow]:
        """The workflows of a generator's runs, in order, once there are so many."""
        async with asyncio.timeout(60):
            while len(found := await self.client.generator_runs(name, 1_000)) < count or any(
                run.state == "due" for run in found
            ):
                await asyncio.sleep(0.05)
        return [await self.client.session.workflow(run.workflow) for run in reversed(found)]


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture(params=["memory", "jetstream"])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        session_of: SessionOf
        if request.param == "memory":
            members = await memory_colony._found(2.0)
            stack.push_async_callback(memory_colony._close, members.owner)

            async def in_memory(name: str, role: str) -> Session:
                session = await members.session(name, cast(Any, role))
                stack.push_async_callback(memory_colony._close, session)
                return session

            session_of = in_memory
        else:
            colony = await stack.enter_async_context(running_colony(tmp_path, orchestrate=False))
            session_of = colony.session
        ground = Ground(session_of, stack)
        ground.client = Client(await session_of("ann", "user"))
        yield ground


def noting(noted: list[Any]) -> colonies.Worker:
    worker = colonies.Worker("python", concurrency=4)

    @worker.function
    async def note(items: Any) -> int:
        noted.append(items)
        return len(items) if isinstance(items, list) else 1

    return worker


# --- runs -------------------------------------------------------------------------------------------


async def test_a_run_has_exactly_its_arguments_in_order(ground: Ground) -> None:
    noted: list[Any] = []
    await ground.orchestrate()
    await ground.work(noting(noted))
    client = ground.client
    now = await client.add_generator("resize", ALL, trigger=3)
    assert (now.name, now.trigger, now.packed, now.added_by) == ("resize", 3, 0, "ann")

    await client.pack("resize", {"path": "a.png"}, "b")
    await client.pack("resize", 3, None, [5])
    runs = await ground.runs("resize", 1)
    assert await client.workflow(runs[0].id).result(timeout_s=30) == {"resize": 3}
    assert noted == [[{"path": "a.png"}, "b", 3]]
    assert await client.waiting_arguments("resize") == [None, [5]]
    now = await client.generator("resize")
    assert (now.packed, now.runs, now.waiting, now.ends) == (5, 1, 2, None)
    await client.pack("resize", "six")
    runs = await ground.runs("resize", 2)
    assert [run.packed for run in runs] == [({"path": "a.png"}, "b", 3), (None, [5], "six")]
    assert runs[1].submitter == "ann"
    assert (await ground.history())[1] == []


async def test_nodes_have_one_argument_or_a_part_for_each(ground: Ground) -> None:
    noted: list[Any] = []
    await ground.orchestrate()
    await ground.work(noting(noted))
    nodes = [
        {
            "name": "each",
            "func": "note",
            "map": {"$packed": ""},
            "args": [{"$item": ""}],
            "conditions": PYTHON,
        },
        {"name": "second", "func": "note", "args": [{"$packed": "1.name"}], "conditions": PYTHON},
    ]
    await ground.client.add_generator("g", nodes, trigger=3)
    await ground.client.pack("g", "a", {"name": "b"}, "c")
    (run,) = await ground.runs("g", 1)
    assert await ground.client.workflow(run.id).result(timeout_s=30) == {"each": [1, 1, 1], "second": 1}
    assert sorted(map(str, noted)) == sorted(map(str, ["a", {"name": "b"}, "c", "b"]))


async def test_when_the_time_is_over_a_run_has_what_is_there(ground: Ground) -> None:
    await ground.orchestrate()
    await ground.client.add_generator("g", ALL, trigger=100, timeout_s=1)
    await ground.client.pack("g", "a")
    await ground.client.pack("g", "b")
    ends = (await ground.client.generator("g")).ends
    (first,) = await ground.runs("g", 1)
    await ground.client.pack("g", "c")
    first, second = await ground.runs("g", 2)
    assert [run.packed for run in (first, second)] == [("a", "b"), ("c",)]
    assert ends is not None
    assert 0 <= first.submitted_at - ends < 20 * SECOND
    assert (await ground.history())[1] == []


async def test_who_is_behind_the_clock_does_not_run_a_part_of_what_is_there(ground: Ground) -> None:
    """An orchestrator may have read up to the first argument when the group's time is over."""
    session = await ground.session_of("orchestrator", "service")
    client, history = ground.client, History(Colony(ground.client.ledger.colony))
    runs = Runs(session, history, lambda delay_s, do: None)
    await client.add_generator("g", ALL, trigger=100, timeout_s=1)
    await client.pack("g", "a")
    async for batch in client.ledger.scan():
        for stored in batch:
            history.add(stored)
    await client.pack("g", "b")
    ends = (await client.generator("g")).ends
    assert ends is not None
    while (now := await session.ledger.now()) < ends:
        await asyncio.sleep(0.05)

    runs.on_generator("g")
    await runs.act(now)
    assert [run.state for run in await client.generator_runs("g")] == ["due"]
    async for batch in client.ledger.scan(history.position):
        for stored in batch:
            history.add(stored)
    runs.on_generator("g")
    await runs.act(now)
    [run] = await ground.runs("g", 1)
    assert run.packed == ("a", "b")
    assert (await ground.history())[1] == []


async def test_after_a_downtime_all_that_is_due_runs_in_order(ground: Ground) -> None:
    await ground.client.add_generator("g", ALL, trigger=2)
    await ground.client.add_generator("timed", ALL, trigger=50, timeout_s=1)
    await ground.client.pack("timed", *range(7))
    await ground.client.pack("g", *range(201))
    ends = (await ground.client.generator("timed")).ends
    while await ground.client.ledger.now() < (ends or 0):
        await asyncio.sleep(0.05)
    await ground.orchestrate()
    runs = await ground.runs("g", 100)
    assert [list(run.packed) for run in runs] == [[n, n + 1] for n in range(0, 200, 2)]
    sequences = [run.sequence for run in runs]
    assert sequences == sorted(sequences)
    (timed,) = await ground.runs("timed", 1)
    assert list(timed.packed) == list(range(7))
    assert (await ground.history())[1] == []


async def test_two_orchestrators_submit_each_run_once(ground: Ground) -> None:
    await ground.client.add_generator("g", ALL, trigger=1)
    await ground.client.pack("g", *range(20))
    await asyncio.gather(ground.orchestrate("one"), ground.orchestrate("two"))
    await ground.client.pack("g", *range(20, 40))
    runs = await ground.runs("g", 40)
    assert [run.packed for run in runs] == [(n,) for n in range(40)]
    history, wrong = await ground.history()
    assert wrong == []
    submitted = [held for held in history.workflows.values() if isinstance(held, Workflow)]
    assert len(submitted) == 40
    generator = history.generators["g"].generator
    assert generator is not None
    assert (generator.runs, generator.closed) == (40, {})


async def test_clients_pack_at_once_and_each_keeps_its_order(ground: Ground) -> None:
    await ground.orchestrate()
    await ground.client.add_generator("g", ALL, trigger=7)
    clients = [Client(await ground.session_of(f"user{n}", "user")) for n in range(4)]

    async def pack(client: Client) -> None:
        for n in range(0, 14, 2):
            await client.pack("g", [client.name, n], [client.name, n + 1])

    await asyncio.gather(*map(pack, clients))
    runs = await ground.runs("g", 8)
    packed = [arg for run in runs for arg in run.packed]
    assert all(len(run.packed) == 7 for run in runs)
    for client in clients:
        assert [n for name, n in packed if name == client.name] == list(range(14))
    assert (await ground.history())[1] == []


# --- runs that are not true ---------------------------------------------------------------------------


async def say(session: Session, id: str, source: Source) -> None:
    """A run, whatever it says, on the ledger without being asked whether it is true."""
    now = await session.ledger.now()
    event = WorkflowSubmitted(source=source)
    subject, sealed = session.seal(event, id, prev=None, id=new_id(), now=now)
    await session.ledger.append(Draft(subject, sealed.data, 0))


async def test_untrue_runs_are_quarantined_by_all_readers(ground: Ground) -> None:
    """Too early, other arguments, no such generator: said by the service, which is trusted with nothing."""
    client = ground.client
    service = await ground.session_of("liar", "service")
    await client.add_generator("g", ALL, trigger=3, timeout_s=1_000)
    await client.pack("g", *range(7))
    generator = (await client.session.knowledge.generators.read("g")).chain.generator
    assert generator is not None
    added = generator.added
    true = [
        replace(source_of(generator, group), packs=[added + 1])
        for group in (*generator.closed.values(), generator.open)
        if group is not None
    ]
    lies = {
        run_id("g", added, 2): true[2],  # one of three, and the time is not over
        run_id("g", added, 0): replace(true[0], count=2),
        run_id("g", added, 1): replace(true[1], first=2),
        run_id("g", added, 3): replace(true[1], run=3),
        run_id("none", added, 0): replace(true[0], name="none"),
        run_id("g", 1, 0): replace(true[0], added=1),
        new_id(): true[0],
    }
    for id, source in lies.items():
        await say(service, id, source)
    _, wrong = await ground.history()
    assert [seen.record.entity for seen in wrong if seen.record is not None] == list(lies)
    assert {seen.verdict.kind for seen in wrong} == {"quarantined"}
    late = await ground.session_of("eve", "observer")
    for id in lies:
        for session in (client.session, late):
            story = await session.knowledge.story(id)
            assert story.workflow is None
            assert [seen.verdict.kind for seen in story.judged] == ["quarantined"]

    await ground.orchestrate()  # what nobody may say twice is said all the same
    runs = await ground.runs("g", 2)
    assert [run.packed for run in runs] == [(0, 1, 2), (3, 4, 5)]
    assert len((await ground.history())[1]) == len(lies)


async def test_an_untrue_packed_event_changes_no_run(ground: Ground) -> None:
    """A member whose client leaves out the rules: its events count for nothing, and hold up nobody."""
    client = ground.client
    mallory = await ground.session_of("mallory", "user")
    await client.add_generator("g", ALL, trigger=2)
    await client.pack("g", "a")
    reading = await mallory.knowledge.generators.read("g")
    for event, prev in (
        (GeneratorPacked(0, ["x", "y"]), reading.chain.head),
        (GeneratorPacked(1, ["x", "y"]), b"nothing that was"),
        (GeneratorRemoved(), reading.chain.head),
    ):
        subject, sealed = mallory.seal(event, "g", prev=prev, id=new_id(), now=await mallory.ledger.now())
        guard = (await mallory.knowledge.generators.read("g")).guard
        await mallory.ledger.append(Draft(subject, sealed.data, guard))
    await client.pack("g", "b")
    await ground.orchestrate()
    (run,) = await ground.runs("g", 1)
    assert run.packed == ("a", "b")
    assert run.source is not None
    assert run.source.packs is not None
    assert len(run.source.packs) == 2
    assert [seen.verdict.kind for seen in (await ground.history())[1]] == ["quarantined"] * 3


# --- adding, packing, removing --------------------------------------------------------------------------


async def test_a_removed_generator_runs_what_was_complete_and_its_name_is_free(ground: Ground) -> None:
    client = ground.client
    await client.add_generator("g", ALL, trigger=2)
    await client.pack("g", "a", "b", "c")
    before = (await client.session.knowledge.generators.read("g")).chain.generator
    await client.remove_generator("g", "not needed")
    with pytest.raises(NotFound, match="there is no generator g in the colony"):
        await client.pack("g", "d")
    await client.add_generator("g", ALL, trigger=1)
    await client.pack("g", "e")
    await ground.orchestrate()
    (run,) = await ground.runs("g", 1)
    assert run.packed == ("e",)
    assert before is not None
    old = run_id("g", before.added, 0)
    async with asyncio.timeout(30):
        while (await client.session.knowledge.story(old)).workflow is None:
            await asyncio.sleep(0.05)
    assert (await client.session.workflow(old)).packed == ("a", "b")
    assert await client.waiting_arguments("g") == []
    assert (await client.session.knowledge.story(run_id("g", before.added, 1))).judged == []


async def test_others_pack_but_do_not_remove(ground: Ground) -> None:
    await ground.client.add_generator("g", ALL, trigger=2)
    bob = Client(await ground.session_of("bob", "user"))
    await bob.pack("g", 1)
    with pytest.raises(Refused, match="only ann or an owner may remove"):
        await bob.remove_generator("g")
    assert [now.name for now in await bob.generators()] == ["g"]
    with pytest.raises(Conflict, match="there is a generator of this name"):
        await bob.add_generator("g", ALL, trigger=3)
    worker = Client(await ground.session_of("w1", "worker"))
    with pytest.raises(Refused):
        await worker.pack("g", 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trigger": 0}, "trigger: 0; a whole number of arguments from 1 to 100000"),
        ({"trigger": True}, "trigger: True"),
        ({"trigger": 3, "timeout_s": 0.5}, "timeout: 0.5; 1 to"),
        ({"trigger": 3, "timeout_s": float("nan")}, "timeout: nan"),
        ({"trigger": 3, "name": "a.b"}, "generator: 'a.b' is not allowed"),
        ({"trigger": 3, "work": {"func": "f"}}, "conditions: missing"),
        ({"trigger": 3, "work": ALL | {"args": [{"$packed": "3"}]}}, r"\$packed 3: a run has at most 3 arg"),
        ({"trigger": 3, "work": ALL | {"map": {"$packed": "3"}}}, r"\$packed 3: a run has at most 3 arg"),
        ({"trigger": 3, "work": ALL | {"colony": "other"}}, "it is for 'other'"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_not_recorded(
    ground: Ground, given: dict[str, Any], said: str
) -> None:
    before = await ground.client.ledger.last_sequence()
    given = {"name": "g", "work": ALL, **given}
    with pytest.raises(Invalid, match=said):
        await ground.client.add_generator(given.pop("name"), given.pop("work"), **given)
    assert await ground.client.ledger.last_sequence() == before


async def test_arguments_are_cut_into_events_and_large_ones_refused(ground: Ground) -> None:
    client = ground.client
    await client.add_generator("g", ALL, trigger=2_500)
    before = await client.ledger.last_sequence()
    with pytest.raises(Invalid, match="argument 2: 131075 bytes; at most 131072 are allowed"):
        await client.pack("g", 1, 2, "x" * 131_070)
    with pytest.raises(Invalid, match="argument 1 cannot be stored"):
        await client.pack("g", 1, object())
    with pytest.raises(Invalid, match="nothing to pack"):
        await client.pack("g")
    assert await client.ledger.last_sequence() == before
    await client.pack("g", *range(2_489))
    assert await client.ledger.last_sequence() == before + 3
    large = ["x" * 131_000] * 11
    await client.pack("g", *large)
    assert await client.ledger.last_sequence() == before + 3 + 3
    await ground.orchestrate()
    (run,) = await ground.runs("g", 1)
    assert list(run.packed) == [*range(2_489), *large]


# --- what readers keep -----------------------------------------------------------------------------------


async def test_an_old_run_is_found_though_little_is_kept(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generating, "MAX_GROUPS_KEPT", 3)
    client = ground.client
    await client.add_generator("g", ALL, trigger=2)
    await client.pack("g", *range(10))
    await client.pack("g", *range(10, 20))
    await ground.orchestrate()
    for number in (0, 9, 1, 5):
        reading = await client.session.knowledge.generators.read("g")
        generator = reading.chain.generator
        assert generator is not None
        assert len(generator.closed) <= 3
        assert all(group.packs == [] for group in generator.closed.values())
        id = run_id("g", generator.added, number)
        async with asyncio.timeout(30):
            while (found := (await client.session.knowledge.story(id)).workflow) is None:
                await asyncio.sleep(0.05)
        assert found.packed == (2 * number, 2 * number + 1)


async def test_a_chain_is_read_on_and_not_again(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ground.client
    await client.add_generator("g", ALL, trigger=3)
    folded: list[int] = []

    def counted(colony: Colony, chain: Chain, seen: Judged) -> Judged:
        folded.append(seen.stored.sequence)
        return judge_generator(colony, chain, seen)

    monkeypatch.setattr(generating, "judge_generator", counted)
    for number in range(5):
        await client.pack("g", number)
    await asyncio.gather(*(client.generator("g") for _ in range(5)))
    assert folded == sorted(set(folded))
    assert len(folded) == 5
