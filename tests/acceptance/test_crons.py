"""Crons with a real broker: each due time once, whoever is killed; what is missed; who may say what."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from colonies_workers.unix import UnixWorker

import colonies
from colonies.client import Client
from colonies.core.colony import Colony
from colonies.core.events import Source, WorkflowSubmitted
from colonies.core.process import SECOND
from colonies.crons import CronHandle
from colonies.errors import Conflict, NotFound, Refused
from colonies.flows import WorkflowHandle
from colonies.history import History
from colonies.ids import new_id
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Draft
from colonies.orchestrator import Orchestrator
from colonies.session import Session
from colonies.verify import verify_ledger
from tests.harness import RunningColony, WorkerProcess, running_colony

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "orchestrator_program.py"
PYTHON = {"runtimetype": "python"}
LIMIT_S = 60.0


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony
        ledger = colony.owner.ledger
        assert isinstance(ledger, JetStreamLedger)
        assert (await verify_ledger(ledger)).findings == []


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[RunningColony]:
    """A colony that nobody orchestrates yet."""
    async with running_colony(tmp_path, orchestrate=False) as colony:
        yield colony


def spec(func: str, *args: object, **more: object) -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": PYTHON, **more}


async def becomes(fact: Callable[[], Awaitable[Any]], what: str, limit_s: float = LIMIT_S) -> Any:
    try:
        async with asyncio.timeout(limit_s):
            while not (found := await fact()):
                await asyncio.sleep(0.05)
            return found
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


async def history_of(colony: RunningColony) -> tuple[History, dict[str, str]]:
    """The whole ledger folded, and the verdict on each submission of a workflow, by id."""
    history = History(Colony(colony.owner.ledger.colony))
    verdicts: dict[str, str] = {}
    async for batch in colony.owner.ledger.scan():
        for stored in batch:
            judged = history.add(stored)
            if stored.subject.startswith("ledger.workflow.") and ".submitted." in stored.subject:
                verdicts[stored.subject.split(".")[2]] = judged.verdict.kind
    return history, verdicts


async def runs_of(colony: RunningColony, name: str) -> list[int]:
    """The due times (ns) of a cron's runs, in the order of the ledger."""
    history, _ = await history_of(colony)
    found = [id for id in history.workflows if (w := history.workflow(id)) is not None and w.source]
    sources = [workflow.source for id in found if (workflow := history.workflow(id)) is not None]
    return [s.due for s in sources if s is not None and s.name == name and s.due is not None]


async def has_runs(colony: RunningColony, name: str, count: int) -> list[int]:
    async def enough() -> list[int]:
        found = await runs_of(colony, name)
        return found if len(found) >= count else []

    found: list[int] = await becomes(enough, f"{count} runs of {name}")
    return found


async def has_passed(colony: RunningColony, time: int) -> None:
    async def passed() -> bool:
        return await colony.owner.ledger.now() > time

    await becomes(passed, "a time of the ledger's clock")


async def spawn_orchestrator(colony: RunningColony, name: str = "orch") -> tuple[WorkerProcess, int]:
    """An orchestrator in a process of its own, and the ledger time (ns) when it was ready."""
    credential = await colony.credential(name, "service")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        colony.url,
        str(credential),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    spawned = WorkerProcess(process)
    colony.stack.push_async_callback(spawned.end)
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        word, time = (await process.stdout.readline()).split()
    assert word == b"ready"
    return spawned, int(time)


def counting() -> tuple[colonies.Worker, list[str]]:
    """A worker, and what ran on it."""
    worker = colonies.Worker("python", concurrency=8)
    ran: list[str] = []

    @worker.function
    async def tick() -> str:
        attempt = colonies.current()
        assert attempt is not None
        ran.append(attempt.process)
        return attempt.process

    @worker.function
    async def following(before: int | None) -> int:
        return (before or 0) + 1

    return worker, ran


# --- when it runs -----------------------------------------------------------------------------------


async def test_each_due_time_is_run_once_with_two_orchestrators(colony: RunningColony) -> None:
    await colony.orchestrate("second")
    worker, ran = counting()
    await colony.work(worker)
    client = await colony.client()
    cron = await client.add_cron("tick", spec("tick"), cron="* * * * * *")
    due = await has_runs(colony, "tick", 5)
    await cron.pause()
    due = await runs_of(colony, "tick")
    assert due == list(range(due[0], due[-1] + 1, SECOND))

    async def all_ended() -> bool:
        return len(ran) >= len(due)

    await becomes(all_ended, "all runs")
    runs = await cron.runs(100)
    assert len(runs) == len(due)
    for run in runs:
        now = await WorkflowHandle(client, run.workflow.id).wait(LIMIT_S)
        assert now.state == "successful"
        assert now.workflow.submitter == "ann"
    assert len(ran) == len(set(ran)) == len(due)


@pytest.mark.parametrize("catch_up", ["none", "one", "all"])
async def test_what_was_due_while_no_orchestrator_ran_follows_catch_up(
    quiet: RunningColony, catch_up: Any
) -> None:
    client = await quiet.client()
    killed, _ = await spawn_orchestrator(quiet)
    await client.add_cron("tick", spec("tick"), interval_s=1, catch_up=catch_up)
    await has_runs(quiet, "tick", 2)
    await killed.end()
    before = await runs_of(quiet, "tick")
    await has_passed(quiet, before[-1] + 4 * SECOND)
    _, ready = await spawn_orchestrator(quiet)
    after = await has_runs(quiet, "tick", len(before) + 3)
    assert after[: len(before)] == before
    schedule = list(range(before[-1] + SECOND, after[-1] + 1, SECOND))
    missed = [due for due in schedule if due <= ready]
    assert len(missed) >= 3
    # Whatever was due within a moment of being ready counts as missed, or not.
    live = 1 if missed[-1] > ready - SECOND // 2 else 0
    ran = [due for due in after if before[-1] < due <= ready]
    match catch_up:
        case "none":
            assert ran in ([], missed[len(missed) - live :])
        case "one":
            assert ran in (missed[-1:], missed[len(missed) - 1 - live :])
        case "all":
            assert ran == missed
    assert [due for due in after if due > ready] == [due for due in schedule if due > ready]


async def test_an_orchestrator_that_takes_over_runs_what_the_other_did_not(quiet: RunningColony) -> None:
    """While one of them lives nothing is missed, whatever `catch_up` says."""
    client = await quiet.client()
    first, _ = await spawn_orchestrator(quiet, "orch1")
    await spawn_orchestrator(quiet, "orch2")
    await client.add_cron("tick", spec("tick"), interval_s=1, catch_up="none")
    await has_runs(quiet, "tick", 2)
    await first.end()
    due = await has_runs(quiet, "tick", 6)
    assert due == list(range(due[0], due[-1] + 1, SECOND))


async def test_what_was_due_while_the_broker_was_away_is_run_late(colony: RunningColony) -> None:
    client = await colony.client()
    await client.add_cron("tick", spec("tick"), interval_s=1, catch_up="none")
    await has_runs(colony, "tick", 2)
    await colony.kill_broker()
    await colony.restart_broker()
    due = await has_runs(colony, "tick", 6)
    assert due == list(range(due[0], due[-1] + 1, SECOND))


async def test_what_is_due_while_a_cron_is_paused_is_left_out(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    cron = await client.add_cron("tick", spec("tick"), interval_s=1, catch_up="all")
    await has_runs(colony, "tick", 1)
    await cron.pause("holidays")
    with pytest.raises(Conflict, match="paused already"):
        await cron.pause()
    paused_at = (await cron.get()).cron.pauses[-1].since_time
    await has_passed(colony, paused_at + 3 * SECOND)
    before = await runs_of(colony, "tick")
    assert (await cron.get()).due == ()
    await cron.resume()
    pause = (await cron.get()).cron.pauses[-1]
    assert pause.until_time is not None
    due = await has_runs(colony, "tick", len(before) + 2)
    assert not [d for d in due if pause.since_time <= d < pause.until_time]
    assert due[len(before)] - pause.until_time <= SECOND


async def test_a_removed_cron_runs_no_more_and_its_name_is_free(colony: RunningColony) -> None:
    client = await colony.client()
    cron = await client.add_cron("tick", spec("tick"), interval_s=1)
    await has_runs(colony, "tick", 1)
    with pytest.raises(Conflict, match="there is a cron tick"):
        await client.add_cron("tick", spec("tick"), interval_s=1)
    with pytest.raises(Refused, match="only ann or an owner"):
        await (await colony.client("bob")).cron("tick").remove()
    await cron.remove()
    count = len(await runs_of(colony, "tick"))
    for call in (cron.get, cron.pause, cron.run, cron.remove):
        with pytest.raises(NotFound, match="there is no cron tick"):
            await call()
    assert await client.crons() == []
    again = await client.add_cron("tick", spec("tick"), interval_s=2)
    added_at = (await again.get()).cron.added_at
    due = await has_runs(colony, "tick", count + 1)
    assert due[count] == added_at + 2 * SECOND


async def test_an_orchestrator_that_is_behind_the_clock_runs_no_cron_that_was_removed(
    quiet: RunningColony,
) -> None:
    """What it follows may be older than the clock: other work came first, or a replica is behind."""
    client = await quiet.client()
    cron = await client.add_cron("tick", spec("tick"), interval_s=1)
    session = await quiet.session("late", "service")
    assert isinstance(session.ledger, JetStreamLedger)
    late = Orchestrator(session, session.ledger.machinery())
    await late._catch_up()
    await late._act_on_touched()
    await cron.remove()
    await has_passed(quiet, late._history.crons["tick"].added_at + 2 * SECOND)
    late._scheduler._ready.add("tick")  # as its timer does

    await late._act_on_touched()

    assert await history_of(quiet) == (ANY, {})
    assert late._history.crons["tick"].removed is not None
    for timer in late._soon:
        timer.cancel()


# --- one after the other ----------------------------------------------------------------------------


async def test_a_run_waits_for_the_one_before_it_whatever_way_that_ends(colony: RunningColony) -> None:
    worker = colonies.Worker("python", concurrency=8)
    let_go = asyncio.Event()
    running: list[int] = []

    @worker.function
    async def slow(before: object = None) -> None:
        running.append(1)
        try:
            await let_go.wait()
            raise colonies.Fail("on purpose")
        finally:
            running.pop()

    await colony.work(worker)
    client = await colony.client()
    cron = await client.add_cron("slow", spec("slow"), interval_s=1, wait_previous=True)
    first = (await has_runs(colony, "slow", 1))[0]
    await has_passed(colony, first + 3 * SECOND)
    assert await runs_of(colony, "slow") == [first]
    await (await last_run(client, cron)).cancel("too slow")
    due = await has_runs(colony, "slow", 2)
    assert due[1] - first >= 3 * SECOND  # of what was due meanwhile only the latest

    async def runs() -> bool:
        return bool(running)

    await becomes(runs, "the second run")
    let_go.set()  # from now on it fails
    due = await has_runs(colony, "slow", 4)
    assert len(set(due)) == len(due)
    await cron.remove()
    states = [run.state for run in await cron_runs(colony, "slow")]
    assert states[0] == "cancelled"
    assert states[1] == "failed"


async def last_run(client: Client, cron: CronHandle) -> WorkflowHandle:
    return WorkflowHandle(client, (await cron.runs(1))[0].workflow.id)


async def cron_runs(colony: RunningColony, name: str) -> list[Any]:
    """Its runs, ended, in the order of the ledger."""
    client = await colony.client("carl")
    history, _ = await history_of(colony)
    ids = [id for id in history.workflows if (w := history.workflow(id)) is not None and w.source]
    return [await client.workflow(id).wait(LIMIT_S) for id in ids]


async def test_what_was_due_while_a_run_waited_follows_catch_up(
    colony: RunningColony,
) -> None:
    worker, _ = counting()
    client = await colony.client()
    await client.add_cron("tick", spec("tick"), interval_s=1, wait_previous=True, catch_up="all")
    first = (await has_runs(colony, "tick", 1))[0]
    await has_passed(colony, first + 3 * SECOND)
    assert await runs_of(colony, "tick") == [first]
    await colony.work(worker)
    due = await has_runs(colony, "tick", 5)
    assert due == list(range(first, due[-1] + 1, SECOND))


async def test_the_outputs_of_a_run_are_inputs_of_the_next(colony: RunningColony) -> None:
    worker, _ = counting()
    await colony.work(worker)
    client = await colony.client()
    nodes = [spec("following", {"$previous": "count"}, name="count")]
    cron = await client.add_cron("count", nodes, interval_s=1, wait_previous=True)
    await has_runs(colony, "count", 4)
    await cron.pause()
    runs = await cron_runs(colony, "count")
    assert [run.nodes[0].process.phase.output for run in runs] == list(range(1, len(runs) + 1))
    now = await cron.run()
    assert await now.result(timeout_s=LIMIT_S) == {"count": len(runs) + 1}


async def test_of_a_node_that_maps_the_next_run_gets_the_list(colony: RunningColony) -> None:
    worker = colonies.Worker("python")

    @worker.function
    def add(before: list[int | None] | None, item: int) -> int | None:
        return sum(n or 0 for n in before or []) + item if item != 9 else None

    @worker.function
    def see(whole: object, first: object) -> list[object]:
        return [whole, first]

    await colony.work(worker)
    client = await colony.client()
    each = spec("add", {"$previous": "each"}, {"$item": ""}, name="each", map={"$parameter": "items"})
    last = spec("see", {"$previous": "each"}, {"$previous": "each.1"}, name="see")
    empty = {**spec("add", None, {"$item": ""}, name="empty", map={"$parameter": "none"})}
    none = spec("see", {"$previous": "empty"}, {"$previous": "skipped"}, name="none")
    skipped = {
        **spec("add", 1, {"$item": ""}, name="skipped", map={"$parameter": "items"}),
        "when": "`false`",
    }
    work = {"parameters": {"items": [1, 9, 2], "none": []}, "nodes": [each, last, empty, none, skipped]}
    cron = await client.add_cron("sums", work, interval_s=1, wait_previous=True)
    await has_runs(colony, "sums", 2)
    await cron.pause()
    first, second = (await cron_runs(colony, "sums"))[:2]
    assert await WorkflowHandle(client, first.workflow.id).result(timeout_s=LIMIT_S) == {
        "each": [1, None, 2],
        "see": [None, None],
        "empty": [],
        "none": [None, None],
        "skipped": None,
    }
    assert await WorkflowHandle(client, second.workflow.id).result(timeout_s=LIMIT_S) == {
        "each": [4, None, 5],
        "see": [[1, None, 2], None],
        "empty": [],
        "none": [[], None],
        "skipped": None,
    }


async def test_the_example_counts_its_runs(colony: RunningColony) -> None:
    await colony.work(UnixWorker())
    client = await colony.client()
    work = json.loads((ROOT / "examples" / "cron.json").read_text(encoding="utf-8"))
    cron = await client.add_cron("counting", work, interval_s=1, wait_previous=True)
    await has_runs(colony, "counting", 3)
    await cron.pause()
    runs = await cron_runs(colony, "counting")
    assert [run.nodes[0].process.phase.output for run in runs] == [str(n + 1) for n in range(len(runs))]


async def test_a_member_runs_a_cron_now(colony: RunningColony) -> None:
    worker, _ = counting()
    await colony.work(worker)
    await (await colony.client()).add_cron("yearly", spec("tick"), cron="0 0 1 1 *")
    bob = await colony.client("bob")
    handle = await bob.cron("yearly").run()
    assert list(await handle.result(timeout_s=LIMIT_S)) == ["main"]
    now = await handle.get()
    assert now.workflow.submitter == "bob"
    assert now.workflow.source is not None
    assert now.workflow.source.due is None
    assert await runs_of(colony, "yearly") == []


# --- many -------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
async def test_a_thousand_crons_that_are_due_in_one_second_all_run_once(colony: RunningColony) -> None:
    client = await colony.client()
    limit = asyncio.Semaphore(50)
    now = await client.ledger.now()
    due = (now // SECOND + 30) * SECOND
    seconds = due // SECOND
    expression = f"{seconds % 60} {seconds // 60 % 60} {seconds // 3_600 % 24} * * *"

    async def add(number: int) -> None:
        async with limit:
            await client.add_cron(f"c{number}", spec("tick"), cron=expression)

    await asyncio.gather(*(add(number) for number in range(1_000)))
    assert await client.ledger.now() < due, "this machine is too slow to add 1,000 crons in 30 s"
    assert len(await client.crons()) == 1_000

    async def all_run() -> bool:
        count = 0
        async for batch in client.ledger.scan(0, "ledger.workflow.*.submitted.*"):
            count += len(batch)
        return count == 1_000

    await becomes(all_run, "1,000 runs", 150)
    history, verdicts = await history_of(colony)
    assert set(verdicts.values()) == {"valid"}
    names = {w.source.name for id in verdicts if (w := history.workflow(id)) is not None and w.source}
    assert len(names) == 1_000


# --- what is invented -------------------------------------------------------------------------------


async def invent(session: Session, id: str, source: Source) -> None:
    """Store a run, whatever the rules say of it."""
    now = await session.ledger.now()
    event = WorkflowSubmitted(source=source)
    subject, sealed = session.seal(event, id, prev=None, id=new_id(), now=now)
    await session.ledger.append(Draft(subject, sealed.data, 0))


async def test_bytes_stored_where_a_run_will_be_do_not_keep_it_from_running(quiet: RunningColony) -> None:
    client = await quiet.client()
    handle = await client.add_cron("tick", spec("tick"), interval_s=1, catch_up="all")
    cron = (await handle.get()).cron
    mallory = await quiet.session("mallory", "user")
    dues = [cron.added_at + number * SECOND for number in range(1, 6)]
    for due in dues:
        subject = f"ledger.workflow.{cron.run_id(due)}.submitted.mallory"
        await mallory.ledger.append(Draft(subject, b"junk", 0))
    for name in ("one", "two"):
        await quiet.orchestrate(name)
    await has_runs(quiet, "tick", len(dues) + 1)
    await handle.pause()
    found = await runs_of(quiet, "tick")
    assert found[: len(dues)] == dues
    assert len(set(found)) == len(found)


async def test_an_invented_run_is_quarantined_by_all_who_read(quiet: RunningColony) -> None:
    client = await quiet.client()
    handle = await client.add_cron("tick", spec("tick"), interval_s=1)
    cron = (await handle.get()).cron
    evil = await quiet.session("evil", "service")
    await has_passed(quiet, cron.added_at + SECOND)
    first, odd, far = (
        cron.added_at + SECOND,
        cron.added_at + SECOND // 2,
        cron.added_at + 3_600 * SECOND,
    )
    invented = [(cron.run_id(due), Source("cron", "tick", cron.added, due)) for due in (odd, far)]
    invented.append((new_id(), Source("cron", "tick", cron.added, first)))
    invented.append((cron.run_id(far + SECOND), Source("cron", "tock", cron.added, far + SECOND)))
    invented.append((new_id(), Source("cron", "tick", cron.added)))
    true = cron.run_id(first)
    await invent(evil, true, Source("cron", "tick", cron.added, first))
    for id, source in invented:
        await invent(evil, id, source)
    mallory = await quiet.session("mallory", "user")
    second = first + SECOND
    await has_passed(quiet, second)
    invented.append((cron.run_id(second), Source("cron", "tick", cron.added, second)))
    await invent(mallory, *invented[-1])
    await handle.remove()
    removed = await quiet.owner.ledger.now()
    late = first + ((removed - first) // SECOND + 1) * SECOND
    await has_passed(quiet, late)
    invented.append((cron.run_id(late), Source("cron", "tick", cron.added, late)))
    await invent(evil, *invented[-1])
    history, verdicts = await history_of(quiet)
    knowledge = (await quiet.session("eye", "observer")).knowledge
    for id, _ in invented:
        story = await knowledge.story(id)
        assert story.workflow is None
        assert history.workflow(id) is None
        assert verdicts[id] == story.judged[0].verdict.kind == "quarantined", story.judged[0].verdict
    assert verdicts[true] == "valid"
    found = (await knowledge.story(true)).workflow
    assert found is not None
    assert found == history.workflow(true)


async def test_a_session_and_a_fold_agree_on_every_run(quiet: RunningColony) -> None:
    """Also on those before a pause, a removal, a new cron of the same name."""
    client = await quiet.client()
    service = await quiet.session("orch", "service")
    for interval_s in (1, 2):
        handle = await client.add_cron("tick", spec("tick"), interval_s=interval_s)
        cron = (await handle.get()).cron
        first = cron.added_at + interval_s * SECOND
        await has_passed(quiet, first)
        await invent(service, cron.run_id(first), Source("cron", "tick", cron.added, first))
        second = first + interval_s * SECOND
        await has_passed(quiet, second)
        await handle.pause()
        lost = Source("cron", "tick", cron.added, second, cron.run_id(first), first)
        await invent(service, cron.run_id(second), lost)
        await handle.resume()
        await handle.remove()
    history, verdicts = await history_of(quiet)
    assert sorted(verdicts.values()) == ["valid", "valid", "void", "void"]
    for reader in (client.session, await quiet.session("eye", "observer")):
        for id, verdict in verdicts.items():
            story = await reader.knowledge.story(id)
            assert story.judged[0].verdict.kind == verdict
            assert story.workflow == history.workflow(id)
