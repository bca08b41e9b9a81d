"""Workflows: how long what depends on each other takes, and whether that grows with what is done already.

The limit of a chain is the bare broker's round trip, once for each link; of a fan, a round trip, all of its
tasks, and a round trip. All of that is unsigned and holds no history.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from colonies.client import Client
from colonies.core.workflow import node_id
from tests.benchmarks.effort import BROKER_CAN, CONCURRENCY, Effort, say
from tests.benchmarks.figure import Figure, median
from tests.benchmarks.ground import Ground, resident_bytes

FAN = 50
CHAIN = 20
GROWTH_STEPS = 4


def _node(name: str, *parents: str) -> dict[str, Any]:
    conditions = {"runtimetype": "bench", "dependencies": list(parents)}
    return {"name": name, "func": "noop", "conditions": conditions}


def _fan(width: int) -> list[dict[str, Any]]:
    middle = [f"n{number}" for number in range(width)]
    return [_node("first"), *(_node(name, "first") for name in middle), _node("last", *middle)]


def _chain(length: int) -> list[dict[str, Any]]:
    first, *rest = [f"n{number}" for number in range(length)]
    return [_node(first), *(_node(f"n{number + 1}", f"n{number}") for number in range(len(rest)))]


async def _run(client: Client, nodes: Sequence[dict[str, Any]]) -> tuple[float, str]:
    """Seconds from the submission until all of its nodes are verified, and its id."""
    started = time.perf_counter()
    handle = await client.submit_workflow(list(nodes))
    now = await handle.wait(600)
    if now.state != "successful":
        raise RuntimeError(f"the workflow is {now.state}")
    return time.perf_counter() - started, handle.id


async def _steps(client: Client, id: str, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """For each parent and child: from the one's end to the other's first assignment, by ledger time (ms)."""
    found = []
    for parent, child in pairs:
        before = await client.session.process(node_id(id, parent))
        after = await client.session.process(node_id(id, child))
        found.append((after.attempts[0].started_at - before.time) / 1e6)
    return found


async def workflows(effort: Effort) -> AsyncIterator[Figure]:
    """A fan of 1, 50 and 1 processes, a chain of 20, and the step from a parent to its child."""
    async with Ground(profile=effort.profile) as ground:
        limit = await ground.bare()
        await ground.orchestrator()
        await ground.worker("w1", concurrency=CONCURRENCY)
        client = await ground.client()
        fan, chain = _fan(FAN), _chain(CHAIN)
        for nodes in (fan, chain):
            await _run(client, nodes)
        found: dict[str, list[float]] = {"fan": [], "chain": [], "step": []}
        limits: dict[str, list[float]] = {"fan": [], "chain": [], "step": []}
        pairs = [(f"n{number}", f"n{number + 1}") for number in range(CHAIN - 1)]
        for number in range(effort.rounds * 2 + 1):
            trips = [await limit.round_trip() for _ in range(CHAIN)]
            limits["chain"].append(sum(trips))
            limits["step"].append(median(trips) * 1e3)
            limits["fan"].append(2 * median(trips) + await limit.tasks(FAN, "singly"))
            found["fan"].append((await _run(client, fan))[0])
            seconds, id = await _run(client, chain)
            found["chain"].append(seconds)
            found["step"].append(median(await _steps(client, id, pairs)))
            say(f"round {number + 1}: fan {found['fan'][-1]:.3f} s, chain {seconds:.3f} s")
        note = f"one client, one worker (concurrency {CONCURRENCY}), one orchestrator process; {BROKER_CAN}"
        fanned = f"submit to the last verified end; {note}; limit: a round trip, 50 tasks, a round trip"
        yield Figure("workflow_1_50_1", median(found["fan"]), "s", median(limits["fan"]), note=fanned)
        chained = f"submit to the last verified end; {note}; limit: 20 round trips"
        yield Figure(
            "workflow_chain_of_20", median(found["chain"]), "s", median(limits["chain"]), note=chained
        )
        step = "a parent's completed to its child's assigned, by ledger time, median; limit: a round trip"
        yield Figure("workflow_step", median(found["step"]), "ms", median(limits["step"]), note=step)


async def large_workflow(effort: Effort) -> AsyncIterator[Figure]:
    """A workflow of many nodes: its submission, its time, the orchestrator's memory, releases as it grows."""
    async with Ground(profile=effort.profile) as ground:
        limit = await ground.bare()
        orchestrator = await ground.orchestrator()
        await ground.worker("w1", concurrency=CONCURRENCY)
        client = await ground.client()
        await _run(client, _chain(2))
        count = effort.nodes
        nodes = _fan(count - 2)
        before = resident_bytes(orchestrator.pid)
        bare = await limit.tasks(count, "singly")
        started = time.perf_counter()
        handle = await client.submit_workflow(nodes)
        submitted = time.perf_counter() - started
        most = before
        waiting = asyncio.create_task(handle.wait(900))
        while not waiting.done():
            most = max(most, resident_bytes(orchestrator.pid))
            await asyncio.sleep(0.2)
            say(f"{await client.ledger.last_sequence()} events on the ledger")
        if (await waiting).state != "successful":
            raise RuntimeError("the workflow did not succeed")
        whole = time.perf_counter() - started
        note = f"{count} nodes: one, all others but the last behind it, one behind these"
        yield Figure(f"workflow_of_{count}_submit", submitted, "s", note=note)
        yield Figure(f"workflow_of_{count}", whole, "s", bare, note=f"{note}; limit: as many bare tasks")
        yield Figure(
            f"workflow_of_{count}_memory", (most - before) / 1e6, "MB", note=f"orchestrator's; {note}"
        )
        async for figure in _growth(effort, client):
            yield figure


async def _growth(effort: Effort, client: Client) -> AsyncIterator[Figure]:
    """The step from parent to child in a chain, early and late: what is done must not make it slower."""
    length = max(GROWTH_STEPS, effort.nodes // 20)
    _, id = await _run(client, _chain(length))
    quarter = length // GROWTH_STEPS
    for number in (0, GROWTH_STEPS - 1):
        links = range(number * quarter, (number + 1) * quarter - 1)
        steps = await _steps(client, id, [(f"n{link}", f"n{link + 1}") for link in links])
        where = "first" if number == 0 else "last"
        note = f"in the {where} quarter of a chain of {length}, median"
        yield Figure(f"workflow_step_{where}_quarter", median(steps), "ms", note=note)
