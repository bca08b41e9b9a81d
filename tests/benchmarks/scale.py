"""What happens to the rate when there is more of something: events, queues, instances of a worker; and when
the processes that end have been running for so long that the broker must look for them in old blocks of its
files.

Each rate stands beside the bare broker's in the same minutes, which has one stream, one consumer and one
worker all the time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from colonies.client import Client
from colonies.core.events import Assigned, Completed
from colonies.core.process import Running, Waiting
from colonies.history import Story
from colonies.session import Session
from tests.benchmarks import bare
from tests.benchmarks.effort import CONCURRENCY, Effort, say
from tests.benchmarks.figure import Figure, median
from tests.benchmarks.ground import Ground

Works = Callable[[], Sequence[dict[str, Any]]]

LIMIT = "limit: the bare broker in the same minutes, one publish, pull and ack for each task"
FILLER_BYTES = 2 * 1024  # a few thousand in a block, which the broker goes through when it opens it
BLOCK_BYTES = 8 * 1024 * 1024  # of the broker's files
FORGETS_S = 12.0  # the broker keeps a block that it read for 10 s
AT_A_TIME = 64


def _spec(*names: str) -> dict[str, Any]:
    conditions: dict[str, Any] = {"runtimetype": "bench"}
    return {"func": "noop", "conditions": {**conditions, "workernames": list(names)} if names else conditions}


async def _run(client: Client, works: Sequence[dict[str, Any]]) -> float:
    """Seconds from the first submission to the last verified result."""
    started = time.perf_counter()
    handles = await client.submit_many(works)
    await asyncio.gather(*(handle.result() for handle in handles))
    return time.perf_counter() - started


async def _rates(effort: Effort, client: Client, limit: bare.Publisher, works: Works) -> tuple[float, float]:
    """Processes/s and bare tasks/s, the median of rounds that alternate."""
    rates, limits = [], []
    for _ in range(effort.rounds):
        given = works()
        limits.append(len(given) / await limit.tasks(len(given), "singly"))
        rates.append(len(given) / await _run(client, given))
    return median(rates), median(limits)


async def ledger_size(effort: Effort) -> AsyncIterator[Figure]:
    """Processes/s as the ledger grows."""
    async with Ground() as ground:
        limit = await ground.bare()
        await ground.orchestrator()
        await ground.worker("w1", concurrency=CONCURRENCY)
        client = await ground.client()
        for size in effort.sizes:
            while (last := await client.ledger.last_sequence()) < size:
                say(f"{last} of {size} events on the ledger")
                await _run(client, [_spec()] * min(2_000, (size - last) // 3 + 1))
            rate, least = await _rates(effort, client, limit, lambda: [_spec()] * effort.processes)
            say(f"{rate:.0f} processes/s on a ledger of {size} events, the bare broker {least:.0f}")
            yield Figure(f"processes_per_s_at_{size}_events", rate, "1/s", least, note=LIMIT)


async def queues(effort: Effort) -> AsyncIterator[Figure]:
    """Processes/s as they spread over more queues, all served by one worker."""
    async with Ground() as ground:
        limit = await ground.bare()
        await ground.orchestrator()
        await ground.worker("w1", concurrency=CONCURRENCY)
        client = await ground.client()
        for count in effort.queues:
            specs = [_spec("w1", f"other{number}") for number in range(count)]
            await _run(client, specs)  # declares them
            spread = [specs[number % count] for number in range(effort.processes)]
            rate, least = await _rates(effort, client, limit, lambda spread=spread: spread)  # type: ignore[misc]
            say(f"{rate:.0f} processes/s over {count} queues, the bare broker {least:.0f}")
            yield Figure(f"processes_per_s_over_{count}_queues", rate, "1/s", least, note=LIMIT)


async def instances(effort: Effort) -> AsyncIterator[Figure]:
    """Processes/s as more instances of one worker share the work."""
    async with Ground() as ground:
        limit = await ground.bare()
        await ground.orchestrator()
        client = await ground.client()
        most, started = max(effort.instances), 0
        for count in effort.instances:
            while started < count:
                await ground.worker("w1", concurrency=CONCURRENCY // most)
                started += 1
            rate, least = await _rates(effort, client, limit, lambda: [_spec()] * effort.processes)
            say(f"{rate:.0f} processes/s by {count} instances, the bare broker {least:.0f}")
            note = f"each of concurrency {CONCURRENCY // most}, all on this machine; {LIMIT}"
            yield Figure(f"processes_per_s_by_{count}_instances", rate, "1/s", least, note=note)


# --- ending what is old -----------------------------------------------------------------------------


async def cold(effort: Effort) -> AsyncIterator[Figure]:
    """Ends/s, at random, of processes whose last events are in old blocks, beside new ones'."""
    async with Ground() as ground:
        limit = await ground.bare()
        client = await ground.client()
        worker = await ground.session("w1", "worker")
        old: list[Story] = []
        steps = max(1, effort.cold_bytes // BLOCK_BYTES)
        for step in range(steps):
            old += await _began(client, worker, effort.ends // steps + 1)
            await _fill(client, BLOCK_BYTES // FILLER_BYTES)
            say(f"block {step + 1} of {steps}")
        await asyncio.sleep(FORGETS_S if effort.rounds > 1 else 0.0)
        least = effort.submits / await limit.pipelined(effort.submits)
        cold_rate = await _ended(worker, old)
        warm_rate = await _ended(worker, await _began(client, worker, len(old)))
        say(f"{warm_rate:.0f} ends/s of new processes, {cold_rate:.0f} of old ones")
        note = f"{len(old)} in random order, {AT_A_TIME} at a time, signed and guarded"
        unsigned = f"{note}; limit: unsigned publishes to the bare broker in the same run, pipelined"
        yield Figure("ends_per_s_warm", warm_rate, "1/s", least, note=unsigned)
        spread = f"begun over {steps} blocks of 8 MiB, then left alone for {FORGETS_S:g} s"
        note = f"{note}; {spread}; limit: the warm ones in the same run"
        yield Figure("ends_per_s_cold", cold_rate, "1/s", warm_rate, note=note)


async def _began(client: Client, worker: Session, count: int) -> list[Story]:
    """Processes that run at `worker`, as far as the ledger tells: nobody does anything."""

    async def begin(id: str) -> Story:
        story = await worker.story(id)
        assert story.process is not None
        assert isinstance(story.process.phase, Waiting)
        event = Assigned(story.process.phase.offer.id, worker.colony.lease_s, "bench")
        return await worker.record(id, event, at=story)

    handles = await client.submit_many([_spec()] * count)
    begun: list[Story] = []
    for start in range(0, count, AT_A_TIME):
        begun += await asyncio.gather(*(begin(handle.id) for handle in handles[start : start + AT_A_TIME]))
    return begun


async def _fill(client: Client, count: int) -> None:
    """So many events of FILLER_BYTES: processes that nobody will run."""
    await client.submit_many([{**_spec(), "args": ["x" * FILLER_BYTES]}] * count)


async def _ended(worker: Session, running: Sequence[Story]) -> float:
    """Complete them in random order; how many in a second."""

    async def end(story: Story) -> None:
        process = story.process
        assert process is not None
        assert isinstance(process.phase, Running)
        await worker.record(process.id, Completed(process.attempts[-1].id), at=story)

    left = random.sample(list(running), len(running))
    started = time.perf_counter()
    for start in range(0, len(left), AT_A_TIME):
        await asyncio.gather(*(end(story) for story in left[start : start + AT_A_TIME]))
    return len(left) / (time.perf_counter() - started)
