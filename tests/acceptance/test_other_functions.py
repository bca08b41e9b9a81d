"""Workers of one runtime type with different functions: each process comes to one that has its function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import colonies
from colonies import registered
from colonies.client import Client
from colonies.pulling import Puller
from tests.harness import RunningColony, running_colony, until

TOGETHER = 30
MIXED = 120
FEW = 60  # rests of those who have one of the functions: 0 to 20; if they rested each time, more than 120


def with_function(name: str, concurrency: int = 4, took_s: float = 0.0) -> colonies.Worker:
    worker = colonies.Worker("shared", concurrency=concurrency, backoff_s=0.05)

    @worker.function(name=name)
    async def work(n: int = 0) -> str:
        await asyncio.sleep(took_s)
        return f"{name} {n}"

    return worker


def spec(func: str, *args: object, **more: object) -> dict[str, object]:
    return {"func": func, "args": list(args), "conditions": {"runtimetype": "shared"}, **more}


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, lease_s=2.0) as colony:
        await colony.orchestrate()
        yield colony


@pytest.fixture
async def client(colony: RunningColony) -> Client:
    return await colony.client()


async def events(client: Client, id: str) -> list[str]:
    return [seen.record.event.type async for seen in client.process(id).events() if seen.record is not None]


async def test_each_process_comes_to_a_worker_that_has_its_function(
    colony: RunningColony, client: Client
) -> None:
    await colony.work(with_function("left"), "w1")
    await colony.work(with_function("right"), "w2")
    handles = [await client.submit(spec(("left", "right")[n % 2], n)) for n in range(TOGETHER)]
    results = [await handle.result(60) for handle in handles]
    assert results == [f"{('left', 'right')[n % 2]} {n}" for n in range(TOGETHER)]
    for handle in handles:
        assert len((await handle.get()).attempts) == 1
        assert await events(client, handle.id) == [
            "process.queued",
            "process.assigned",
            "process.completed",
        ]


async def test_among_mixed_work_nobody_rests_who_has_a_part_of_it(
    colony: RunningColony, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested: list[str] = []
    rest = Puller.rest

    def resting(self: Puller, queue: str, pause_s: float) -> None:
        rested.append(self._session.name)
        rest(self, queue, pause_s)

    monkeypatch.setattr(Puller, "rest", resting)
    for n, name in enumerate(("left", "right", "neither")):
        await colony.work(with_function(name, concurrency=2), f"w{n}")
    handles = [await client.submit(spec(("left", "right")[n % 2], n)) for n in range(MIXED)]
    for handle in handles:
        await handle.result(60)
    assert sum(name != "w2" for name in rested) < FEW


async def test_what_no_living_worker_has_fails_with_what_there_is(
    colony: RunningColony, client: Client
) -> None:
    await colony.work(with_function("left"), "w1")
    await colony.work(with_function("right"), "w2")
    process = await (await client.submit(spec("wrong"))).wait(30)
    assert process.state == "failed"
    assert "this worker has no function 'wrong'; it has: " in process.errors[0]
    assert "no living worker of its runtime type has registered it" in process.errors[0]


async def test_nodes_of_a_workflow_find_their_workers(colony: RunningColony, client: Client) -> None:
    await colony.work(with_function("left"), "w1")
    await colony.work(with_function("right"), "w2")
    nodes = [
        {"name": "a", **spec("left")},
        {"name": "b", **spec("right"), "conditions": {"runtimetype": "shared", "dependencies": ["a"]}},
        {"name": "c", **spec("left"), "conditions": {"runtimetype": "shared", "dependencies": ["b"]}},
    ]
    handle = await client.submit_workflow(nodes)
    await handle.wait(60)
    assert (await handle.get()).state == "successful"


async def test_a_worker_that_may_not_take_it_is_no_reason_to_leave_it(
    colony: RunningColony, client: Client
) -> None:
    await colony.work(with_function("left"), "w1")
    await colony.work(with_function("right"), "w2")
    only = {"runtimetype": "shared", "workernames": ["w1"]}
    process = await (await client.submit({**spec("right"), "conditions": only})).wait(30)
    assert "this worker has no function 'right'; it has: left" in process.errors[0]


async def test_who_has_it_may_be_busy_and_the_other_waits_for_it(
    colony: RunningColony, client: Client
) -> None:
    await colony.work(with_function("slow", concurrency=1, took_s=0.5), "w1")
    await colony.work(with_function("quick"), "w2")
    handles = [await client.submit(spec("slow", n)) for n in range(8)]
    quick = [await client.submit(spec("quick", n)) for n in range(4)]
    assert [await handle.result(60) for handle in quick] == [f"quick {n}" for n in range(4)]
    assert [await handle.result(60) for handle in handles] == [f"slow {n}" for n in range(8)]
    for handle in handles:
        assert [attempt.worker for attempt in (await handle.get()).attempts] == ["w1"]
        assert (await events(client, handle.id)).count("process.requeued") == 0


async def test_when_the_last_that_had_it_is_gone_it_fails(
    colony: RunningColony, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "GONE_S", 1.0)
    monkeypatch.setattr(registered, "GONE_LEASES", 0)
    await colony.work(with_function("left"), "w1")
    other = await colony.work(with_function("right"), "w2")
    other.stop(0.0)
    await until(lambda: not other._tasks and other._puller is not None and other._puller._stopped, "stops")
    process = await (await client.submit(spec("right"))).wait(60)
    assert "this worker has no function 'right'; it has: left" in process.errors[0]


async def test_a_worker_that_starts_anew_is_waited_for(colony: RunningColony, client: Client) -> None:
    await colony.work(with_function("left"), "w1")
    other = await colony.work(with_function("right"), "w2")
    other.stop(0.0)
    await until(lambda: other._puller is not None and other._puller._stopped, "it stops")
    handle = await client.submit(spec("right", 7))
    await colony.work(with_function("right"), "w3")
    assert await handle.result(60) == "right 7"
    assert len((await handle.get()).attempts) == 1
