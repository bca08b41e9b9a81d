"""Whoever reads a workflow for the first time comes to what those know who followed it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

import colonies
from colonies.client import Client
from colonies.memory_colony import MemoryClient
from colonies.session import Session

LIMIT_S = 30.0


def node(name: str, *parents: str, func: str = "one", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "func": func,
        "conditions": {"runtimetype": "python", "dependencies": list(parents)},
        **more,
    }


@pytest.fixture
def worker() -> colonies.Worker:
    worker = colonies.Worker("python", concurrency=4)

    @worker.function
    def one(n: int = 1) -> int:
        return n

    @worker.function
    def numbers(n: int = 3) -> list[int]:
        return list(range(n))

    @worker.function
    def boom() -> int:
        raise colonies.Fail("boom")

    @worker.function
    async def long() -> int:
        await asyncio.sleep(LIMIT_S)
        return 1

    return worker


async def a_stranger(colony: MemoryClient) -> Client:
    """The same member with a session that knows nothing yet."""
    before = colony.session
    return Client(await Session(before.ledger, before.name, before.keypair).open())


async def test_a_first_look_at_a_workflow_that_has_ended_shows_all_of_it(worker: colonies.Worker) -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        mapping = {"map": {"$output": "l"}, "args": [{"$item": ""}]}
        nodes = [node("l", func="numbers"), node("m", **mapping), node("c", "m"), node("d", "m", "c")]
        handle = await colony.submit_workflow(nodes)
        await handle.wait(LIMIT_S)

        stranger = await a_stranger(colony)
        now = await stranger.workflow(handle.id).get()
        assert now.state == "successful"
        assert all(one.state == "successful" for one in now.nodes)
        await stranger.session.close()


async def test_parents_that_wait_for_each_other_are_judged_in_their_order(worker: colonies.Worker) -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        nodes = [node("a"), node("b", "a"), node("c", "a", "b"), node("d", "c"), node("f", "b", "c", "d")]
        handle = await colony.submit_workflow(nodes)
        now = await handle.wait(LIMIT_S)
        [last] = [one.id for one in now.nodes if one.label == "f"]

        stranger = await a_stranger(colony)
        assert (await stranger.session.process(last)).state == "successful"
        await stranger.session.close()


async def test_what_stopped_a_node_is_read_with_it(worker: colonies.Worker) -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        nodes = [node("a", func="boom", delay=0.2), node("b", func="long"), node("z", finally_=True)]
        nodes[-1]["finally"] = nodes[-1].pop("finally_")
        handle = await colony.submit_workflow({"nodes": nodes, "on_failure": "stop"})
        now = await handle.wait(LIMIT_S)
        states = {one.label: one.state for one in now.nodes}
        assert states == {"a": "failed", "b": "cancelled", "z": "successful"}

        stranger = await a_stranger(colony)
        for one in now.nodes:
            assert (await stranger.session.process(one.id)).state == states[one.label]
        await stranger.session.close()


async def test_an_end_that_was_judged_before_the_cancel_was_known_is_judged_again(
    worker: colonies.Worker,
) -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        handle = await colony.submit_workflow([node("a"), {"name": "s", "wait_signal": "go"}])
        async for now in handle.changes():
            if now.nodes[0].state == "successful":
                break
        process = now.nodes[0].process
        assert process is not None
        stranger = await a_stranger(colony)
        knowledge = stranger.session.knowledge
        await knowledge.workflow_now(handle.id)
        knowledge.remember(replace(process, sequence=1_000_000))  # as if it ended after the cancel
        await handle.cancel("enough")

        await knowledge.workflow_now(handle.id)
        assert knowledge.process(process.id) is None
        await stranger.session.close()
