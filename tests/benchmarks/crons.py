"""Many crons due in one second: how long until the last of their runs is on the ledger, and has ended.

All times are the broker's, so nothing that measures is in them. The limit is the bare broker's, for as many
events as make the runs (the workflow's own, and the release of its node), each guarded, none waiting for
another, and one signature for each; for the end, as many bare tasks in addition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from colonies.client import Client
from colonies.ledger import Stored
from tests.benchmarks.bare import Publisher
from tests.benchmarks.effort import BROKER_CAN, CONCURRENCY, Effort, say
from tests.benchmarks.figure import Figure
from tests.benchmarks.ground import Ground, cpu_s

SECOND = 1_000_000_000
LEAD_S = 5.0  # before they are due, and for each of them
LEAD_EACH_S = 0.02
ADDED_AT_ONCE = 50
MOST_S = 300.0
EVENTS = 2  # of a run, until its node can be taken
SPEC = {"func": "noop", "conditions": {"runtimetype": "bench"}}


class _Ear:
    """What the feed tells of the runs: when the last was submitted, when the last ended (ns)."""

    def __init__(self, count: int) -> None:
        self.submitted = self.ended = 0
        self.done = asyncio.Event()
        self._left = count

    def on_run(self, stored: Stored) -> None:
        self.submitted = max(self.submitted, stored.time)

    def on_end(self, stored: Stored) -> None:
        self.ended = max(self.ended, stored.time)
        self._left -= 1
        if self._left == 0:
            self.done.set()


async def crons(effort: Effort) -> AsyncIterator[Figure]:
    """Many crons due in one second, with one orchestrator and with several."""
    async with Ground(profile=effort.profile) as ground:
        limit = await ground.bare()
        await ground.worker("w1", concurrency=CONCURRENCY)
        client = await ground.client()
        pids: list[int] = []
        for number in effort.orchestrators:
            while len(pids) < number:
                pids.append((await ground.orchestrator()).pid)
            async for figure in _due_at_once(effort.crons, client, limit, pids):
                yield figure


async def _due_at_once(
    count: int, client: Client, limit: Publisher, pids: list[int]
) -> AsyncIterator[Figure]:
    bare = await limit.guarded(count * EVENTS) + _signing_s(client, count * EVENTS)
    tasks = await limit.tasks(count, "singly")
    due = await _add(count, client, f"by{len(pids)}")
    ear = _Ear(count)
    feeds = [
        await client.ledger.subscribe("feed.workflow.*.submitted.*", ear.on_run),
        await client.ledger.subscribe("feed.process.*.completed.*", ear.on_end),
    ]
    await asyncio.sleep((due - await client.ledger.now()) / SECOND)
    before = sum(map(cpu_s, pids))
    async with asyncio.timeout(MOST_S):
        await ear.done.wait()
    spent = sum(map(cpu_s, pids)) - before
    for feed in feeds:
        await feed.close()
    note = f"{count} crons due in one second, {len(pids)} orchestrator(s), one worker; {BROKER_CAN}"
    name = f"crons_{count}_by_{len(pids)}"
    submitted, ended = ((at - due) / SECOND for at in (ear.submitted, ear.ended))
    events = f"{count * EVENTS} guarded, signed events, pipelined"
    yield Figure(f"{name}_submitted", submitted, "s", bare, note=f"{note}; limit: {events}")
    both = f"{events}, and {count} tasks"
    yield Figure(f"{name}_ended", ended, "s", bare + tasks, note=f"{note}; limit: {both}")
    yield Figure(f"{name}_cpu", spent, "s", note=f"processor time of the orchestrators until then; {note}")


async def _add(count: int, client: Client, prefix: str) -> int:
    """Add crons that are due once, in the same second; that second (ledger time, ns)."""
    slots = asyncio.Semaphore(ADDED_AT_ONCE)
    second = int(await client.ledger.now() / SECOND + LEAD_S + count * LEAD_EACH_S)
    expression = f"{second % 60} {second // 60 % 60} {second // 3_600 % 24} * * *"

    async def add(number: int) -> None:
        async with slots:
            await client.add_cron(f"{prefix}-{number}", SPEC, cron=expression)

    started = time.perf_counter()
    await asyncio.gather(*(add(number) for number in range(count)))
    say(f"{count} crons added in {time.perf_counter() - started:.1f} s")
    if await client.ledger.now() >= second * SECOND:
        raise RuntimeError(f"this machine is too slow to add {count} crons before they are due")
    return second * SECOND


def _signing_s(client: Client, count: int) -> float:
    keypair = client.session.keypair
    started = time.perf_counter()
    for number in range(count):
        keypair.sign(b"%d" % number * 64)
    return time.perf_counter() - started
