"""Several who wait for one process in one client."""

from __future__ import annotations

import asyncio

import colonies

worker = colonies.Worker("python", concurrency=4, backoff_s=0.05)


@worker.function(maxretries=5)
async def third_time(word: str) -> str:
    if colonies.current().n < 3:
        raise ValueError("not yet")
    return word


async def test_all_who_wait_for_a_process_hear_of_its_end() -> None:
    """After a retry what is heard does not fit together, so it is read; by one for all (found by the simulator)."""
    async with colonies.memory() as colony:
        await colony.work(worker)
        process = await colony.submit(third_time.call("lucky"))

        results = await asyncio.gather(*(process.result(20) for _ in range(4)))

        assert results == ["lucky"] * 4
