"""Paused queues, a paused colony, drained workers: nothing is handed out, nothing is lost, all goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies.client import Client, Handle
from colonies.core import states
from colonies.core.events import Declared
from colonies.core.spec import Conditions, queue_of
from colonies.errors import Conflict, Invalid, NotFound, ProcessFailed, Refused
from colonies.jetstream import JetStreamLedger
from colonies.orchestrator import Orchestrator
from colonies.queueing import _Delivery
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until


def spec(func: str, *args: object, **more: object) -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": {"runtimetype": "python"}, **more}


def sleeper() -> colonies.Worker:
    worker = colonies.Worker("python", concurrency=4)

    @worker.function
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)

    return worker


async def canary(client: Client) -> None:
    """Work of another queue gets done: whoever works here has heard what was said before."""
    await (await client.submit(spec("sleep", 0, priority=9))).result(60)


async def becomes(fact: Callable[[], Awaitable[object]], what: str, limit_s: float = 60.0) -> None:
    try:
        async with asyncio.timeout(limit_s):
            while not await fact():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


async def events_of(client: Client, handle: Handle[Any]) -> list[str]:
    judged = (await client.session.story(handle.id)).judged
    assert all(seen.verdict.valid for seen in judged)
    return [seen.record.event.type.removeprefix("process.") for seen in judged if seen.record]


async def taken(client: Client, handles: list[Handle[Any]]) -> int:
    """How often these were assigned."""
    return sum([(await events_of(client, handle)).count("assigned") for handle in handles])


async def nobody_runs(client: Client, handles: list[Handle[Any]]) -> bool:
    return not any([(await handle.get()).state == "running" for handle in handles])


async def verified(colony: RunningColony) -> None:
    ledger = colony.owner.ledger
    assert isinstance(ledger, JetStreamLedger)
    assert (await verify_ledger(ledger)).findings == []


async def test_a_paused_queue_hands_out_nothing_whatever_is_restarted(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        orchestrator = await colony.orchestrate()
        client, owner = await colony.client(), Client(colony.owner)
        worker = await colony.spawn("w1", concurrency=2)
        handles = await client.submit_many([spec("sleep", 0.05)] * 40)
        await handles[3].wait(30)
        queue = (await handles[0].get()).queue
        await owner.pause_queue(queue[:8], "the licence server is down")
        await canary(client)
        await becomes(lambda: nobody_runs(client, handles), "what ran has ended")
        before = await taken(client, handles)
        assert 0 < before < 40

        handles += await client.submit_many([spec("sleep", 0)] * 5)
        await canary(client)
        worker.send(signal.SIGKILL)
        await worker.end()
        orchestrator.cancel()
        await asyncio.gather(orchestrator, return_exceptions=True)
        await colony.kill_broker()
        await colony.restart_broker()
        await colony.orchestrate("another")
        await colony.spawn("w1", concurrency=2)
        handles += await client.submit_many([spec("sleep", 0)] * 5)
        await canary(client)
        assert await taken(client, handles) == before

        await owner.resume_queue(queue)
        for handle in handles:
            await handle.result(60)
        assert await taken(client, handles) == len(handles), "each was taken once"
        await verified(colony)


async def test_what_comes_into_a_paused_queue_is_not_handed_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of four workers has a pull parked there; then each gives back what came, once at most."""
    async with running_colony(tmp_path) as colony:
        client, owner = await colony.client(), Client(colony.owner)
        for number in range(4):
            await colony.spawn(f"w{number}", concurrency=1)
        await colony.work(sleeper(), "mine")
        first = await client.submit(spec("sleep", 0))
        await first.result(30)
        session = await colony.session("looker", "service")
        assert isinstance(session.ledger, JetStreamLedger)
        machinery = session.ledger.machinery()
        queue = (await first.get()).queue

        async def pulls() -> int:
            state = await machinery.queue_state(queue)
            return state.pulls if state is not None else 0

        async def all_parked() -> bool:
            return await pulls() == 5

        await becomes(all_parked, "all five wait for an offer there")
        gone_back: list[float] = []
        nak = _Delivery.nak

        async def counted(self: _Delivery, delay_s: float = 0.0) -> None:
            gone_back.append(delay_s)
            await nak(self, delay_s)

        monkeypatch.setattr(_Delivery, "nak", counted)
        await owner.pause_queue(queue)
        await canary(client)
        handle = await client.submit(spec("sleep", 0))

        async def none_parked() -> bool:
            return await pulls() == 0

        await becomes(none_parked, "every parked pull is used up")
        await canary(client)
        assert len(gone_back) <= 1
        assert await events_of(client, handle) == ["queued"]
        await owner.resume_queue(queue)
        await handle.result(5)
        assert await events_of(client, handle) == ["queued", "assigned", "completed"]


async def test_an_offer_that_is_lost_in_a_paused_queue_is_offered_again_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "REOFFER_AFTER_S", 1)
    sweeps: list[int] = []
    sweep = Orchestrator._sweep

    async def counted(self: Orchestrator) -> None:
        await sweep(self)
        sweeps.append(1)

    monkeypatch.setattr(Orchestrator, "_sweep", counted)
    async with running_colony(tmp_path) as colony:
        client, owner = await colony.client(), Client(colony.owner)
        hands = {"runtimetype": "python", "workernames": ["hand"]}
        mine = await client.submit(spec("sleep", 0) | {"conditions": hands})
        queue = (await mine.get()).queue
        offers = await (await colony.session("hand", "worker")).ledger.offers()
        found: list[Any] = []
        while not found:
            await offers.pull(queue, batch=1, wait_s=5)
            arrival = await offers.arrival()
            found += [arrival] if isinstance(arrival, _Delivery) else []
        await owner.pause_queue(queue)
        await found[0].ack()  # by one who did not take it
        done = len(sweeps)
        await until(lambda: len(sweeps) > done + 3, "the orchestrator has looked")
        assert await events_of(client, mine) == ["queued"]

        await owner.resume_queue(queue)
        await colony.work(sleeper(), "hand")  # here, where the time that an offer waits is short
        await mine.result(30)
        assert await events_of(client, mine) == ["queued", "requeued", "assigned", "completed"]


async def test_a_paused_colony_takes_submissions_and_hands_out_nothing(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        client, owner = await colony.client(), Client(colony.owner)
        await colony.spawn("w1")
        (tmp_path / "folder").mkdir()
        running = await client.submit(spec("wait_for", str(tmp_path / "folder"), "go"))
        await until((tmp_path / "folder" / "go.1.running").exists, "it runs")
        await owner.pause_colony("a power cut")
        assert colony.owner.colony.paused is not None
        assert colony.owner.colony.paused.reason == "a power cut"
        (tmp_path / "folder" / "go").touch()
        assert await running.result(30) == 1, "what runs goes on"
        waiting = await client.submit(spec("sleep", 0))
        hurried = await client.submit(spec("sleep", 0, maxwaittime=3))
        with pytest.raises(ProcessFailed, match="nobody took it within 3 s"):
            await hurried.result(30)
        assert await events_of(client, waiting) == ["queued"]
        await owner.resume_colony()
        await waiting.result(30)
        await verified(colony)


async def test_a_drained_worker_finishes_what_it_runs_and_takes_nothing_more(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        client, owner = await colony.client(), Client(colony.owner)
        one = await colony.spawn("w1")
        (tmp_path / "folder").mkdir()
        only = {"runtimetype": "python", "workernames": ["w1"]}
        running = await client.submit(spec("wait_for", str(tmp_path / "folder"), "go") | {"conditions": only})
        await until((tmp_path / "folder" / "go.1.running").exists, "it runs")
        await owner.drain_worker("w1", "new disks")
        await colony.spawn("w2")
        waiting = await client.submit(spec("sleep", 0) | {"conditions": only})
        others = await client.submit_many([spec("sleep", 0)] * 20)
        for handle in others:
            await handle.result(30)
            assert (await handle.get()).attempts[0].worker == "w2"
        (tmp_path / "folder" / "go").touch()
        assert await running.result(30) == 1
        assert one.process.returncode is None, "it stays up"

        await one.end()
        await colony.spawn("w1")
        for handle in await client.submit_many([spec("sleep", 0)] * 20):
            await handle.result(30)
            assert (await handle.get()).attempts[0].worker == "w2"
        assert await events_of(client, waiting) == ["queued"]
        await owner.resume_worker("w1")
        await waiting.result(30)
        await verified(colony)


async def test_of_two_who_pause_at_once_one_hears_that_the_other_was_first(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        owner, other = Client(colony.owner), await colony.client("olga", "owner")
        ann = await colony.client("ann")
        await colony.credential("w1", "worker")
        queue = await ann.declare(colonies.Spec.parse(spec("sleep", 0)))
        for first, second in (
            (owner.pause_queue(queue), other.pause_queue(queue)),
            (owner.pause_colony(), other.pause_colony()),
            (owner.drain_worker("w1"), other.drain_worker("w1")),
        ):
            said = await asyncio.gather(first, second, return_exceptions=True)
            [refused] = [error for error in said if isinstance(error, BaseException)]
            assert isinstance(refused, Conflict)
            assert "already, by o" in str(refused)
        with pytest.raises(Refused, match="only an owner pauses"):
            await ann.pause_queue(queue)
        with pytest.raises(Refused, match="only an owner pauses"):
            await ann.resume_colony()
        with pytest.raises(NotFound, match="no queue"):
            await owner.pause_queue("x" * 26)
        with pytest.raises(Invalid, match="short"):
            await owner.pause_queue(queue[:2])
        with pytest.raises(NotFound, match="ann is no worker"):
            await owner.drain_worker("ann")
        await owner.resume_queue(queue)
        with pytest.raises(Conflict, match="the queue is not paused"):
            await other.resume_queue(queue)


async def test_a_paused_queue_is_not_retired(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        session = await colony.session("keeper", "service")
        assert isinstance(session.ledger, JetStreamLedger)
        keeping = Orchestrator(session, session.ledger.machinery(), retire_after_s=0.5)
        client, owner = await colony.client(), Client(colony.owner)
        queues = {}
        for name in ("paused", "unused"):
            conditions = Conditions.parse({"runtimetype": name})
            queues[name] = queue_of(conditions, 0)
            await client.session.record_entity("queue", queues[name], Declared(conditions, 0))
        await owner.pause_queue(queues["paused"])
        await colony._start(keeping.run(), keeping.ready)

        async def retired(name: str) -> bool:
            return bool(await client.ledger.read(f"ledger.queue.{queues[name]}.retired.*"))

        await becomes(lambda: retired("unused"), "the one that nobody uses goes")
        assert not await retired("paused")
        await owner.resume_queue(queues["paused"])
        await becomes(lambda: retired("paused"), "then the other")
        await verified(colony)
