"""Reruns and signals by the client: late readers see what others saw before them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import colonies
from colonies.core.events import Assigned, Completed
from colonies.core.generators import run_id
from colonies.core.node import Node
from colonies.core.process import Waiting
from colonies.core.workflow import node_id
from colonies.errors import Conflict, Invalid, NotFound
from colonies.flows import WorkflowHandle
from colonies.ids import new_id
from colonies.knowing import Knowledge
from colonies.looking import WorkflowNow
from colonies.memory_colony import MemoryClient

LIMIT_S = 60.0


def node(name: str, func: str, *parents: str, runtimetype: str = "python", **fields: Any) -> dict[str, Any]:
    conditions = {"runtimetype": runtimetype, "dependencies": list(parents)}
    return {"name": name, "func": func, "conditions": conditions, **fields}


def worker(broken: list[int]) -> colonies.Worker:
    """Whose function `work` fails as long as there is anything in `broken`."""
    found = colonies.Worker("python", concurrency=4)

    @found.function
    def work(n: int = 0) -> int:
        if broken:
            raise colonies.Fail("broken")
        return n

    @found.function
    def odd(n: int) -> int:
        if n % 2 == 0:
            raise colonies.Fail("even")
        return n

    @found.function
    def total(items: list[Any]) -> int:
        return sum(item or 0 for item in items)

    return found


async def complete(colony: MemoryClient, id: str, adds: list[dict[str, Any]], *, between: bool) -> None:
    """As the worker `hand`, take the process and complete it with nodes that it adds."""
    session = await colony._members.session("hand", "worker")

    async def offered() -> bool:
        story = await session.story(id)
        return story.process is not None and isinstance(story.process.phase, Waiting)

    async for _ in _until(offered):
        pass
    story = await session.story(id)
    assert story.process is not None
    assert isinstance(story.process.phase, Waiting)
    story = await session.record(id, Assigned(story.process.phase.offer.id, 2.0, "i1"), at=story)
    assert story.process is not None
    event = Completed(
        story.process.attempts[-1].id,
        [1],
        adds=[Node.read(item) for item in adds],
        between=True if between else None,
    )
    await session.record(id, event, at=story)


async def _until(fact: Any) -> Any:
    import asyncio

    async with asyncio.timeout(LIMIT_S):
        while not await fact():
            await asyncio.sleep(0.02)
            yield


def taken(now: WorkflowNow) -> set[str]:
    return set(now.workflow.reuses or {})


def states(now: WorkflowNow) -> dict[str, str]:
    return {found.label: found.state for found in now.nodes}


async def split(colony: MemoryClient, *, between: bool) -> WorkflowHandle:
    """A workflow whose first node adds two, `one` and `two` behind it."""
    handle = await colony.submit_workflow(
        [node("split", "split", runtimetype="hand"), node("sum", "work", "split"), node("end", "work", "sum")]
    )
    await complete(
        colony,
        node_id(handle.id, "split"),
        [node("one", "work"), node("two", "work", "one")],
        between=between,
    )
    return handle


@pytest.mark.parametrize("between", [False])
async def test_what_a_process_added_is_taken_over_with_it(between: bool) -> None:
    broken: list[int] = []
    async with colonies.memory() as colony:
        await colony.work(worker(broken))
        before = await (await split(colony, between=between)).wait(LIMIT_S)
        assert before.state == "successful"
        handle = await colony.workflow(before.workflow.id).rerun("end")
        now = await handle.wait(LIMIT_S)
        assert (now.state, taken(now)) == ("successful", {"split", "split/one", "split/two", "sum"})
        assert states(now) == states(before)
        again = await (await handle.rerun("sum")).wait(LIMIT_S)
        assert (again.state, taken(again)) == ("successful", {"split", "split/one", "split/two"})


async def test_a_process_runs_anew_if_what_it_added_did_not_succeed() -> None:
    broken = [1]
    async with colonies.memory() as colony:
        await colony.work(worker(broken))
        before = await (await split(colony, between=False)).wait(LIMIT_S)
        assert states(before)["split/one"] == "failed"
        broken.clear()
        handle = await colony.workflow(before.workflow.id).rerun()
        now = await handle.get()
        assert taken(now) == set()
        await complete(colony, node_id(handle.id, "split"), [node("other", "work")], between=False)
        now = await handle.wait(LIMIT_S)
        assert now.state == "successful"
        assert set(states(now)) == {"split", "split/other", "sum", "end"}


async def test_who_comes_late_sees_what_was_seen_before() -> None:
    async with colonies.memory() as colony:
        await colony.work(worker([]))
        handle = await colony.submit_workflow(
            {
                "parameters": {"items": [1, 2, 3]},
                "nodes": [
                    node("last", "work", **{"finally": True}),
                    node("join", "total", args=[{"$output": "each"}]),
                    node("each", "odd", map={"$output": "list.items"}, args=[{"$item": ""}]),
                    node("list", "given", runtimetype="hand"),
                ],
            }
        )
        now = await handle.get()
        assert now.state == "running"
        await handle.cancel("enough")
        assert states(await handle.wait(LIMIT_S))["last"] == "successful"

        mapped = await colony.submit_workflow(
            {
                "parameters": {"items": [1, 2, 3]},
                "nodes": [
                    node("last", "work", **{"finally": True}),
                    node("each", "odd", map={"$parameter": "items"}, args=[{"$item": ""}]),
                    node("join", "total", args=[{"$output": "each"}]),
                ],
            }
        )
        seen = [await one.wait(LIMIT_S) for one in (handle, mapped)]
        colony.session.knowledge = Knowledge(colony.session)
        late = [await one.get() for one in (handle, mapped)]
        assert [(now.state, states(now)) for now in late] == [(now.state, states(now)) for now in seen]
        assert states(late[1])["join"] == "cancelled"


async def test_a_rerun_of_a_generators_or_a_crons_run_is_true_for_who_comes_late() -> None:
    async with colonies.memory() as colony:
        await colony.work(worker([]))
        spec = {"nodes": [node("each", "work", map={"$packed": ""}, args=[{"$item": ""}]), node("x", "work")]}
        await colony.add_generator("g", spec, trigger=2)
        await colony.pack("g", 3, 4)
        cron = await colony.add_cron("c", [node("x", "work")], interval_s=3_600)
        first = (await colony.generator("g")).added
        runs = [await cron.run(), colony.workflow(run_id("g", first, 0))]
        for run in runs:
            async with asyncio.timeout(LIMIT_S):
                while (await colony.session.knowledge.story(run.id)).workflow is None:
                    await asyncio.sleep(0.01)
            await run.wait(LIMIT_S)
            colony.session.knowledge = Knowledge(colony.session)
            again = await run.rerun("x")
            await again.wait(LIMIT_S)
            colony.session.knowledge = Knowledge(colony.session)
            now = await again.get()
            assert (now.state, taken(now)) == (
                "successful",
                {"each[0]", "each[1]"} if run is runs[1] else set(),
            )


async def test_a_long_line_of_reruns_is_read_by_who_comes_late() -> None:
    async with colonies.memory() as colony:
        await colony.work(worker([]))
        handle = await colony.submit_workflow([node("a", "work"), node("b", "work", "a")])
        await handle.wait(LIMIT_S)
        for _ in range(12):
            handle = await handle.rerun("b")
            await handle.wait(LIMIT_S)
        colony.session.knowledge = Knowledge(colony.session)
        now = await handle.get()
        assert (now.state, taken(now)) == ("successful", {"a"})


async def test_nothing_of_a_running_workflow_is_run_again() -> None:
    async with colonies.memory() as colony:
        handle = await colony.submit_workflow([node("a", "work")])
        with pytest.raises(Conflict, match="is running; wait for its end or cancel it"):
            await handle.rerun()
        with pytest.raises(Invalid, match="the workflow has no such node"):
            await handle.rerun("b")
        with pytest.raises(Invalid, match="parameter 'x': there is no such parameter; declared: none"):
            await handle.rerun(parameters={"x": 1})


async def test_a_process_is_sent_signals_that_stay_on_the_ledger_in_order() -> None:
    async with colonies.memory() as colony:
        handle = await colony.submit({"func": "f", "conditions": {"runtimetype": "hand"}})
        await handle.signal("go", {"n": 1})
        process = await handle.signal("go")
        assert [(signal.name, signal.data) for signal in process.signals] == [("go", {"n": 1}), ("go", None)]
        assert (await handle.get()).signals == process.signals[:1] + (await handle.get()).signals[1:]
        for name, data, says in (
            ("a b", None, "signal: 'a b'"),
            ("go", {1: 2}, "data: the key 1 is a whole number"),
            ("go", object(), "data: .* is not allowed"),
            ("go", "x" * 140_000, "data: 140005 bytes; at most 131072 are allowed"),
        ):
            with pytest.raises(Invalid, match=says):
                await handle.signal(name, data)
        await handle.cancel()
        with pytest.raises(Conflict, match="cancelled already"):
            await handle.signal("go")
        with pytest.raises(NotFound):
            await colony.process("01JZY800000000000000000000").signal("go")


async def test_a_process_runs_again_with_the_arguments_that_are_stored_already() -> None:
    broken = [1]
    long = "x" * 200_000
    runner = colonies.Worker("python")

    @runner.function
    def measure(text: str) -> int:
        if broken:
            raise colonies.Fail("broken")
        return len(text)

    async with colonies.memory() as colony:
        await colony.work(runner)
        first = await colony.submit(measure.call(long))
        assert (await first.wait(LIMIT_S)).state == "failed"
        broken.clear()
        again = await first.rerun()
        assert await again.result(LIMIT_S) == 200_000
        old, new = await first.get(), await again.get()
        assert old.arguments is not None
        assert new.arguments == old.arguments, "not stored again"
        assert (new.spec, new.id != old.id, old.state) == (old.spec, True, "failed")
        keyed = [(await first.rerun(key="k")).id for _ in range(2)]
        assert keyed[0] == keyed[1] not in (old.id, new.id)
        with pytest.raises(Invalid, match="key: it has 201 characters; 1 to 200 are allowed"):
            await first.rerun(key="k" * 201)
        with pytest.raises(NotFound, match="there is no process"):
            await colony.process(new_id()).rerun()


async def test_what_is_not_over_does_not_run_again_and_an_observer_runs_nothing() -> None:
    async with colonies.memory() as colony:
        waits = await colony.submit({"func": "work", "conditions": {"runtimetype": "python"}})
        with pytest.raises(Conflict, match="is waiting; wait for its end or cancel it"):
            await waits.rerun()
        await waits.cancel()
        eye = colonies.Client(await colony._members.session("eye", "observer"))
        before = await colony.ledger.last_sequence()
        with pytest.raises(colonies.Refused, match="the role observer submits no processes"):
            await eye.process(waits.id).rerun()
        assert await colony.ledger.last_sequence() == before
        await eye.close()
        assert (await (await waits.rerun()).get()).state == "waiting"


async def test_a_delay_and_limits_hold_for_the_new_process_as_for_the_old() -> None:
    limit = {"key": "k", "running": 1}
    spec = {"func": "work", "conditions": {"runtimetype": "python"}, "delay": 3_600, "limits": limit}
    async with colonies.memory() as colony:
        first = await colony.submit(spec)
        await first.cancel()
        again = await (await first.rerun()).get()
        assert again.state == "blocked"
        assert again.spec == (await first.get()).spec
