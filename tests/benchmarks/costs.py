"""Where each microsecond of a process goes: processor time among many, and the time of one round trip.

The first is the whole processor time of each part, and what a meter found in it (see `meter`); the difference
is named `rest`. The second is cut at marks, so that its legs add up to all of it (see `marks`).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

from tests.benchmarks.actor import work_functions
from tests.benchmarks.effort import CONCURRENCY, Effort, say
from tests.benchmarks.figure import Figure, median
from tests.benchmarks.ground import Ground, cpu_s
from tests.benchmarks.marks import CLIENT, WAY, Marks, legs
from tests.benchmarks.meter import FUNCTIONS, Meter, reading, spent_us

METERED = ("client", "worker", "orchestrator", "projector")
REST = (
    "event loop, futures, sockets, garbage collection, other threads, what is called once for many "
    "processes, and the meter's own counting"
)


async def costs(effort: Effort) -> AsyncIterator[Figure]:
    """Processor time of a process, by part and purpose, beside the bare broker's."""
    noop = work_functions("bench", None).functions["noop"]
    count = effort.processes
    with ExitStack() as stack:
        async with Ground(watch="meter") as ground:
            limit = await ground.bare()
            bare = ground.parts["bare"].pid
            parts = {
                "worker": (await ground.worker("w1", concurrency=CONCURRENCY)).pid,
                "orchestrator": (await ground.orchestrator()).pid,
                "projector": (await ground.projector()).pid,
            }
            client = await ground.client()
            stack.enter_context(Meter(ground.watched("client")).installed())
            pids = {"client": 0, **parts, "broker": ground.server.pid}

            async def ours() -> float:
                started = time.perf_counter()
                handles = await client.submit_many(noop.call() for _ in range(count))
                await asyncio.gather(*(handle.result() for handle in handles))
                return time.perf_counter() - started

            await ours()
            await limit.tasks(count, "singly")
            found: dict[str, list[float]] = {}
            walls, limits = [], []
            for _ in range(effort.rounds):
                before = {name: spent_s(pid) for name, pid in {**pids, "bare": bare}.items()}
                await limit.tasks(count, "singly")
                least = {name: (spent_s(pid) - before[name]) * 1e6 / count for name, pid in pids.items()}
                least["worker"] = (spent_s(bare) - before["bare"]) * 1e6 / count
                limits.append(least)
                before = {name: spent_s(pid) for name, pid in pids.items()}
                first = {part: reading(ground.watched(part)) for part in METERED}
                walls.append(await ours() * 1e6 / count)
                await asyncio.sleep(0.5)  # what follows the ledger is a moment behind
                for name, pid in pids.items():
                    whole = (spent_s(pid) - before[name]) * 1e6 / count
                    found.setdefault(f"{name}", []).append(whole)
                    if name in METERED:
                        spent = spent_us(first[name], reading(ground.watched(name)))
                        for kind, us in spent.items():
                            found.setdefault(f"{name}_{kind}", []).append(us / count)
                say(f"{sum(found[name][-1] for name in pids):.0f} us of processor time for each process")
    for figure in _costs(found, limits, walls, list(pids)):
        yield figure


def _costs(
    found: dict[str, list[float]], limits: list[dict[str, float]], walls: list[float], parts: list[str]
) -> list[Figure]:
    """The whole of each part, beside that of its counterpart if the bare broker has one; then its pieces."""
    figures = []
    for part in parts:
        note = "all processor time of this part; limit: of its counterpart for one bare task"
        least = median([limit[part] for limit in limits])
        bare = least if part in ("client", "worker", "broker") else None
        figures.append(Figure(f"cost_{part}", median(found[part]), "us/process", bare, note=note))
        if part in METERED:
            pieces = {kind: median(found[f"{part}_{kind}"]) for kind in FUNCTIONS}
            pieces["rest"] = median(found[part]) - sum(pieces.values())
            figures += [
                Figure(f"cost_{part}_{kind}", us, "us/process", note=REST if kind == "rest" else "")
                for kind, us in pieces.items()
                if us
            ]
    whole = median([sum(each) for each in zip(*(found[part] for part in parts), strict=True)])
    least = median([limit["client"] + limit["worker"] + limit["broker"] for limit in limits])
    note = "all parts together; limit: client, worker and broker of one bare task"
    figures.append(Figure("cost_all", whole, "us/process", least, note=note))
    note = "what all processors together could have done meanwhile, less what these parts used"
    figures.append(Figure("cost_idle", median(walls) * _cores() - whole, "us/process", note=note))
    return figures


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spent_s(pid: int) -> float:
    """The processor time of a part so far; 0 is this process."""
    return cpu_s(pid) if pid else time.process_time()


async def trip(effort: Effort) -> AsyncIterator[Figure]:
    """One round trip, leg by leg, by marks in both of its processes."""
    noop = work_functions("bench", None).functions["noop"]
    marks = Marks(CLIENT)
    async with Ground(watch="marks") as ground:
        limit = await ground.bare()
        await ground.orchestrator()
        worker = await ground.worker("w1")
        client = await ground.client()
        bare, times = [], []
        with marks.installed():
            for number in range(20 + effort.round_trips):
                bare.append(await limit.round_trip())
                marks.make("begin")
                started = time.perf_counter()
                await (await client.submit(noop.call())).result()
                times.append(time.perf_counter() - started)
                marks.make("end")
                if number == 20:
                    for found in (bare, times, marks.made):
                        found.clear()
        await worker.stop()
        heard = [(name, ns) for name, ns in json.loads(ground.watched("worker").read_text())]
    trips = legs(marks.made, heard)
    least = median(bare) * 1e6
    say(f"{len(trips)} of {len(times)} trips cut into legs")
    whole = 0.0
    for _, _, leg in WAY:
        value = median([found[leg] for found in trips])
        whole += value
        yield Figure(f"trip_{leg}", value, "us")
    note = f"the sum of the medians of the legs; limit: {BARE}"
    yield Figure("trip_legs", whole, "us", least, note=note)
    p50 = median(times) * 1e6
    note = "waits that fall now into one leg, now into another, so that no leg's median has them"
    yield Figure("trip_rest", p50 - whole, "us", note=note)
    note = f"p50 from submit to verified result, with marks; limit: {BARE}"
    yield Figure("trip", p50, "us", least, note=note)


BARE = "the bare broker's in turn with it, task and result stored"
