"""Workflows as users have them in Python: built, submitted, grown while they run, signalled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

import colonies
from colonies.memory_colony import MemoryClient
from colonies.verify import verify_ledger
from tests.core.playing import Player, outcome_of, workflow_of

LIMIT_S = 30.0

worker = colonies.Worker("python", concurrency=8, backoff_s=0.05)


class Model(BaseModel):
    path: str
    rate: float


@worker.function
def fetch(count: int) -> dict[str, list[int]]:
    return {"parts": list(range(count))}


@worker.function
def fit(part: int, rate: float = 0.1) -> Model:
    return Model(path=f"/{part}", rate=rate)


@worker.function
def pick(models: list[Model], at: int = 0) -> Model:
    return models[at]


@worker.function
def echo(value: Any) -> Any:
    return value


@worker.function
def whole(number: int) -> int:
    return number


@worker.function
def boom() -> int:
    raise colonies.Fail("boom")


@worker.function
def seen() -> dict[str, Any]:
    return colonies.current().inputs


@worker.function
async def forever() -> None:
    await asyncio.sleep(600)


@worker.function
def act(seed: int) -> Any:
    """What `tests.core.playing` says that this node does."""
    here = colonies.current()
    assert here.node is not None
    does = outcome_of(seed, here.node)
    for node in does.adds:
        here.add(node, between=does.between)
    if does.fails:
        raise colonies.Fail("so it is drawn")
    return does.output


@pytest.fixture
async def colony() -> AsyncIterator[MemoryClient]:
    async with colonies.memory() as colony:
        await colony.work(worker)
        yield colony


async def states(handle: colonies.WorkflowHandle) -> dict[str, str]:
    now = await handle.wait(LIMIT_S)
    return {node.label: node.state for node in now.nodes}


# --- building ---------------------------------------------------------------------------------------


async def test_the_output_of_a_node_is_an_argument_of_another(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("train")
    data = workflow.add(fetch.call(3))
    models = workflow.map(fit.call, data.output["parts"])
    last = workflow.add(pick.call(models.output, at=2))
    path = workflow.add(echo.call({"found": [last.output.path]}))

    handle = await colony.submit(workflow)

    assert await handle.result(last, timeout_s=LIMIT_S) == Model(path="/2", rate=0.1)
    assert await handle.result(models) == [Model(path=f"/{n}", rate=0.1) for n in range(3)]
    assert await handle.result(path) == {"found": ["/2"]}
    assert await handle.result() == {"echo": {"found": ["/2"]}}


async def test_a_node_that_maps_calls_with_more_than_the_item(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("train")
    rate = workflow.parameter("rate", 0.5)
    parts = workflow.parameter("parts", [7, 8])
    models = workflow.map(lambda part: fit.call(part, rate), parts, name="models")

    handle = await colony.submit(workflow)

    assert [model.rate for model in await handle.result(models, timeout_s=LIMIT_S)] == [0.5, 0.5]


async def test_a_workflow_in_a_workflow_takes_outputs_as_its_parameters(colony: MemoryClient) -> None:
    inner = colonies.Workflow("prepare")
    first = inner.add(echo.call(inner.parameter("value", {"deep": 1})["deep"]), name="first")
    inner.add(seen.call(), after=[first], when="first > `40`")
    outer = colonies.Workflow("all")
    source = outer.add(echo.call({"deep": 42}))
    prepare = outer.add(inner, parameters={"value": source.output})
    after = outer.add(echo.call(prepare.output), name="after")
    outer.output = prepare

    handle = await colony.submit(outer)

    assert await handle.result(after, timeout_s=LIMIT_S) == {"first": 42}
    assert await handle.result(prepare.node(first)) == 42
    assert await handle.result() == {"first": 42}


async def test_data_that_looks_like_a_reference_is_data(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("odd")
    odd = {"$output": "nobody", "x": [{"$item": ""}]}
    plain = workflow.add(echo.call(odd), name="plain")
    both = workflow.add(echo.call([odd, plain.output]), name="both")
    given = workflow.add(echo.call(workflow.parameter("odd", odd)), name="given")

    handle = await colony.submit(workflow)

    assert await handle.result(both, timeout_s=LIMIT_S) == [odd, odd]
    assert await handle.result(given) == odd


async def test_arguments_that_are_known_are_checked_when_they_are_said() -> None:
    workflow = colonies.Workflow("train")
    part = workflow.add(whole.call(1))

    with pytest.raises(colonies.Invalid, match="fit: rate: Input should be a valid number"):
        fit.call(part.output, rate="fast")  # type: ignore[arg-type]


async def test_arguments_that_were_not_known_are_checked_when_it_runs(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("train")
    text = workflow.add(echo.call("one"))
    workflow.add(whole.call(text.output))

    handle = await colony.submit(workflow)

    with pytest.raises(colonies.WorkflowUnsuccessful, match="whole: number: Input should be a valid integer"):
        await handle.result(timeout_s=LIMIT_S)


async def test_failures_conditions_and_what_runs_last(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("bumpy")
    may = workflow.add(boom.call(), name="may", allow_failure=True)
    none = workflow.add(echo.call(may.output), name="none")
    workflow.add(seen.call(), name="skipped", after=[none], when="none")
    must = workflow.add(boom.call(), name="must")
    workflow.add(seen.call(), name="never", after=[must])
    workflow.add(seen.call(), name="tidy", last=True)

    assert await states(await colony.submit(workflow)) == {
        "may": "failed",
        "none": "successful",
        "skipped": "skipped",
        "must": "failed",
        "never": "cancelled",
        "tidy": "successful",
    }


async def test_on_failure_stop_ends_what_runs_for_every_reader(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("strict", on_failure="stop")
    workflow.add(forever.call())
    workflow.map(lambda _: forever.call(), workflow.parameter("two", [1, 2]), name="each")
    wait = workflow.wait_signal("go")
    workflow.add(boom.call(), after=[wait])
    handle = await colony.submit(workflow)
    async for now in handle.changes():
        if sum(node.state == "running" for node in now.nodes) == 3:
            break
    await handle.signal("go")

    found = await states(handle)

    assert found == {
        "forever": "cancelled",
        "each[0]": "cancelled",
        "each[1]": "cancelled",
        "go": "successful",
        "boom": "failed",
    }
    reader = await colony._members.session("late", "observer")
    for node in (await handle.get()).nodes:
        assert (await reader.story(node.id)).process == node.process


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda w, o: w.add(whole.call(1), name="taken"), "node taken: there is one of this name"),
        (lambda w, o: w.add(whole.call(o.output)), "of another workflow"),
        (lambda w, o: w.add(whole.call(1), after=[o]), "whole is a node of another workflow"),
        (lambda w, o: w.add(whole.call(1), after=w.add(whole.call(1))), "allowed: a list of nodes"),
        (lambda w, o: w.add(whole.call(1), behind=[]), "behind: no option of a node"),
        (lambda w, o: w.add(whole.call(1), when="a >"), "JMESPath"),
        (lambda w, o: w.add({"func": "echo hi", "conditions": {"runtimetype": "cli"}}), "give it one"),
        (lambda w, o: w.add(whole), "nothing that a node can run"),
        (lambda w, o: w.map(whole.call, [1, 2]), "is known now"),
        (lambda w, o: w.map(whole, w.parameter("l", [1])), "say what is called for an item: whole.call"),
        (lambda w, o: w.parameter("rate", 1), "parameter rate: there is one of this name"),
        (lambda w, o: w.add(o.within, parameters={"size": 1}), "there is no such parameter; declared: none"),
        (lambda w, o: bool(w.add(whole.call(1)).output), "known only when the workflow runs"),
        (lambda w, o: list(w.add(whole.call(1)).output), "map over it"),
        (lambda w, o: w.add(whole.call(1)).output["a.b"], "a key without a dot"),
        (lambda w, o: colonies.Workflow("empty").spec(), "there are none"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_said(wrong: Any, problem: str) -> None:
    workflow, other = colonies.Workflow("train"), colonies.Workflow("other")
    workflow.add(whole.call(1), name="taken")
    workflow.parameter("rate", 0.1)
    node = other.add(whole.call(1))

    with pytest.raises(colonies.Invalid, match=problem):
        wrong(workflow, node)


async def test_a_call_that_uses_an_output_is_no_process_of_its_own(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("train")

    with pytest.raises(colonies.Invalid, match="is known only in its workflow: add the call to it"):
        await colony.submit(whole.call(workflow.add(whole.call(1)).output))


def test_what_is_part_of_another_workflow_changes_no_more() -> None:
    inner, outer = colonies.Workflow("inner"), colonies.Workflow("outer")
    inner.add(whole.call(1))
    outer.add(inner)

    with pytest.raises(colonies.Invalid, match="it is part of outer already"):
        inner.add(whole.call(2))


def test_it_works_without_asyncio() -> None:
    with colonies.memory() as colony:
        colony.work(worker)
        workflow = colonies.Workflow("plain")
        one = workflow.add(whole.call(1))
        go = workflow.wait_signal("go", after=[one])

        handle = colony.submit(workflow, key="once")
        handle.signal("go", {"why": "because"})

        assert handle.result(one, timeout_s=LIMIT_S) == 1
        assert colony.workflow(handle.id).result() == {"go": {"by": "tester", "data": {"why": "because"}}}
        assert colony.submit(workflow, key="once").id == handle.id
        assert handle.result(go)["by"] == "tester"
        assert [now.state for now in handle.changes()] == ["successful"]


# --- against the rules alone ------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_random_workflows_end_as_the_rules_alone_say(colony: MemoryClient) -> None:
    async def one(seed: int) -> tuple[dict[str, str], dict[str, str]]:
        spec = workflow_of(seed)
        alone = Player(seed, spec, Random(seed)).play()
        handle = await colony.submit_workflow(spec)
        await handle.signal("go")
        return {label: end.state for label, end in alone.ends.items()}, await states(handle)

    for start in range(0, 60, 10):
        for wanted, found in await asyncio.gather(*map(one, range(start, start + 10))):
            assert found == wanted
    report = await verify_ledger(colony.ledger)
    assert report.clean, report.findings[:5]
