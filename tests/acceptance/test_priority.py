"""Queues in their order: urgent work first, and nothing starves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import colonies
from tests.harness import running_colony


async def test_urgent_processes_go_first_and_the_others_do_not_starve(tmp_path: Path) -> None:
    worker = colonies.Worker("python", concurrency=1)
    order: list[int] = []

    @worker.function
    async def note(priority: int) -> None:
        order.append(priority)

    async with running_colony(tmp_path) as colony:
        client = await colony.client()

        def calls(priority: int, count: int) -> list[dict[str, object]]:
            conditions = {"runtimetype": "python"}
            return [
                {"func": "note", "args": [priority], "priority": priority, "conditions": conditions}
                for _ in range(count)
            ]

        handles = await client.submit_many(calls(-3, 5) + calls(0, 20) + calls(9, 200))
        await colony.work(worker)
        await asyncio.gather(*(handle.result(60) for handle in handles))
    first = order[:100]
    assert first.count(9) >= 80, "urgent work goes first"
    assert first.count(0) >= 3, "the middle is not forgotten"
    assert first.count(-3) >= 3, "nor is the bottom"


async def test_a_worker_takes_only_what_names_it_or_nobody(tmp_path: Path) -> None:
    worker = colonies.Worker("python", concurrency=2)
    other = colonies.Worker("python", concurrency=2)

    @worker.function(name="who")
    async def first() -> str:
        return "w1"

    @other.function(name="who")
    async def second() -> str:
        return "w2"

    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(worker, "w1")
        await colony.work(other, "w2")
        spec = {"func": "who", "conditions": {"runtimetype": "python", "workernames": ["w2"]}}
        handles = await client.submit_many([spec] * 20)
        assert {await handle.result(30) for handle in handles} == {"w2"}
