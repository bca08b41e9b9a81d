"""Reruns and signals by the client: late readers see what others saw before them."""

from __future__ import annotations

from typing import Any

import pytest

import colonies
from colonies.errors import Conflict, Invalid, NotFound
from colonies.flows import WorkflowNow
from colonies.knowing import Knowledge

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


def taken(now: WorkflowNow) -> set[str]:
    return set(now.workflow.reuses or {})


def states(now: WorkflowNow) -> dict[str, str]:
    return {found.label: found.state for found in now.nodes}


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
