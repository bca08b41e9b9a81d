"""Workflows as users have them in Python: built, submitted, grown while they run, signalled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

import colonies
from colonies import subjects
from colonies.core.colony import Colony
from colonies.core.flow import WorkflowSpec
from colonies.core.workflow import Workflow
from colonies.history import History, Judged
from colonies.ledger import Stored
from colonies.looking import NodeNow, WorkflowNow, _Ear
from colonies.memory_colony import MemoryClient
from colonies.verify import verify_ledger
from tests.core.playing import PYTHON, Player, outcome_of, workflow_of
from tests.harness import running_colony

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
def grow(how: str) -> list[int]:
    here = colonies.current()
    match how:
        case "between":
            many = here.map(whole.call, here.output, name="many", between=True)
            here.add(total.call(many.output), between=True)
        case "plain":
            each = {"map": {"$output": "grow"}, "args": [{"$item": ""}]}
            here.add({"name": "many", "func": "whole", "conditions": PYTHON, **each}, between=True)
            many = {"args": [{"$output": "many"}], "when": "length(many) > `2`"}
            here.add({"name": "total", "func": "total", "conditions": PYTHON, **many}, between=True)
            own = {"args": [[{"$output": "grow.2"}, {"$literal": {"$output": "grow"}}]]}
            here.add({"name": "own", "func": "echo", "conditions": PYTHON, **own}, between=True)
        case "beside":
            here.add(whole.call(1), name="beside")
        case "elsewhere":  # to a queue that nobody has used before
            here.add({"name": "other", "func": "whole", "args": [1], "conditions": {**PYTHON, "cpu": 0.25}})
        case "twice":
            here.add(whole.call(1), name="one")
            here.add(whole.call(1), name="one")
        case "mixed":
            here.add(whole.call(1), between=True)
            here.add(whole.call(1))
        case "large":
            here.add(echo.call("x" * 400_000))
            here.add(echo.call("x" * 400_000))
        case "many":
            for _ in range(1_001):
                here.add(whole.call(1))
        case "unknown":
            here.add({"name": "one", "func": "f", "conditions": PYTHON, "dependencies": ["nobody"]})
        case "last":
            here.add(whole.call(1), last=True)
        case "again":
            here.add(whole.call(1))
            if here.n == 1:
                raise ValueError("once more")
    return [1, 2, 3]


@worker.function
def deeper(levels: int) -> int:
    if levels:
        colonies.current().add(deeper.call(levels - 1))
    return levels


@worker.function
def total(numbers: list[int]) -> int:
    return sum(numbers)


@worker.function
async def hear(name: str, times: int, timeout_s: float | None = None) -> list[Any]:
    found = [await colonies.signal(name, timeout_s=timeout_s) for _ in range(times)]
    return [[signal.by, signal.name, signal.data] for signal in found]


@worker.function(maxretries=1)
def hear_in_a_thread(name: str) -> list[Any]:
    first = colonies.signal(name).wait()
    if colonies.current().n == 1:
        raise ValueError("once more")
    second = colonies.signal(name).wait()
    return [first.data, second.data, first.at < second.at]


@worker.function
async def hear_wrongly() -> None:
    colonies.signal("go").wait()


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
        (lambda w, o: w.add(whole.call(1), maxretries=3), r"`@worker.function\(maxretries=...\)`"),
        (lambda w, o: whole.call(o), "<node whole> is no value; allowed: what it gives, its `.output`"),
        (lambda w, o: w.map(whole.call, w.add(whole.call(1))), "<node whole.*> is no list; allowed: what it"),
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


# --- what a running node adds -----------------------------------------------------------------------


def growing(how: str, **options: Any) -> colonies.Workflow:
    workflow = colonies.Workflow("growing")
    first = workflow.add(grow.call(how), **options)
    workflow.add(seen.call(), name="after", after=[first])
    workflow.add(seen.call(), name="tidy", last=True)
    return workflow


async def test_what_is_put_between_is_waited_for_and_given_on(colony: MemoryClient) -> None:
    handle = await colony.submit(growing("between"))

    assert await handle.result(timeout_s=LIMIT_S) == {"after": {"grow": [1, 2, 3], "grow/total": 6}}
    found = await states(handle)
    assert found == dict.fromkeys(
        ["grow", "grow/many[0]", "grow/many[1]", "grow/many[2]", "grow/total", "after", "tidy"], "successful"
    )


@pytest.mark.parametrize("within", [False, True])
async def test_what_is_added_refers_to_its_adder_and_to_what_is_added_with_it(
    colony: MemoryClient, within: bool
) -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "grow", "func": "grow", "args": ["plain"], "conditions": PYTHON},
        {"name": "after", "func": "seen", "conditions": {**PYTHON, "dependencies": ["grow"]}},
    ]
    spec = WorkflowSpec.parse([{"name": "in", "nodes": nodes}] if within else nodes)

    result = await (await colony.submit_workflow(spec)).result(timeout_s=LIMIT_S)

    own = [3, {"$output": "grow"}]
    assert result == {
        "in/after" if within else "after": {"grow": [1, 2, 3], "grow/total": 6, "grow/own": own}
    }


async def test_a_workflow_in_a_workflow_maps_over_its_parameter(colony: MemoryClient) -> None:
    def sums(name: str) -> colonies.Workflow:
        inner = colonies.Workflow(name)
        many = inner.map(whole.call, inner.parameter("numbers", [1, 2]), name="many")
        inner.add(total.call(many.output), name="sum", when="length(many) > `1`")
        return inner

    outer = colonies.Workflow("all")
    source = outer.add(grow.call("nothing"), name="source")
    outer.add(sums("own"))
    outer.add(sums("given"), parameters={"numbers": [3, 4, 5]})
    outer.add(sums("found"), parameters={"numbers": source.output})
    outer.add(sums("outer"), parameters={"numbers": outer.parameter("numbers", [6])})

    result = await (await colony.submit(outer)).result(timeout_s=LIMIT_S)

    assert result == {"own/sum": 3, "given/sum": 12, "found/sum": 6, "outer/sum": None}


@pytest.mark.parametrize(("how", "label"), [("beside", "grow/beside"), ("elsewhere", "grow/other")])
async def test_what_is_added_beside_belongs_to_the_workflow(
    colony: MemoryClient, how: str, label: str
) -> None:
    handle = await colony.submit(growing(how))

    assert (await states(handle))[label] == "successful"
    assert await handle.result() == {"after": {"grow": [1, 2, 3]}}


async def test_an_attempt_that_failed_adds_nothing(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("growing")
    workflow.add({"name": "grow", "func": "grow", "args": ["again"], "conditions": PYTHON, "maxretries": 1})

    assert await states(await colony.submit(workflow)) == {"grow": "successful", "grow/whole": "successful"}


async def test_what_is_added_may_add(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("deep")
    workflow.add(deeper.call(3))

    found = await states(await colony.submit(workflow))

    assert max(found, key=len) == "deeper/deeper-2/deeper/deeper-2"
    assert set(found.values()) == {"successful"}


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("twice", "added by grow: node one: there is one of this name"),
        ("mixed", "between: it holds for all nodes that are added, or for none"),
        ("large", "bytes in all; at most 700000 are allowed"),
        ("many", "more than 1000 nodes"),
        ("unknown", "depends on 'nobody', and there is no such node"),
        ("last", "only the nodes that a workflow was submitted with run last"),
    ],
)
async def test_what_cannot_be_added_fails_the_attempt_and_says_why(
    colony: MemoryClient, how: str, problem: str
) -> None:
    handle = await colony.submit(growing(how))

    with pytest.raises(colonies.WorkflowUnsuccessful, match=problem):
        await handle.result(timeout_s=LIMIT_S)
    assert await states(handle) == {"grow": "failed", "after": "cancelled", "tidy": "successful"}


async def test_only_a_node_of_a_workflow_adds_nodes(colony: MemoryClient) -> None:
    process = await colony.submit(grow.call("beside"))

    with pytest.raises(colonies.ProcessFailed, match="only a node of a workflow adds nodes"):
        await process.result(LIMIT_S)


def test_a_wait_looks_again_if_parts_may_have_come_while_it_looked() -> None:
    spec = WorkflowSpec.parse(
        [
            {"name": "list", "func": "f", "conditions": PYTHON},
            {"name": "each", "func": "f", "conditions": PYTHON, "map": {"$output": "list"}},
        ]
    )
    flow = Workflow("0" * 26, spec, "ann", 1, 0, b"", 0)
    nodes = tuple(NodeNow(node.name, node, flow.process_of(node.name), None) for node in spec.nodes)
    for event, looks in (("completed", True), ("assigned", False)):
        ear = _Ear(lambda _: None, ends=True)
        ear.look()
        ear.on_process(Stored(f"ledger.process.{nodes[0].id}.{event}.w1", 9, 0, b""))
        ear.changed.clear()
        ear.mind(WorkflowNow(flow, nodes, "running"))
        assert ear.changed.is_set() is looks


# --- signals ----------------------------------------------------------------------------------------


async def test_each_call_gets_the_next_signal_of_its_name(colony: MemoryClient) -> None:
    process = await colony.submit(hear.call("go", 2))
    await process.signal("go", {"n": 1})
    await process.signal("stop", 0)
    await process.signal("go", 2)

    assert await process.result(LIMIT_S) == [["tester", "go", {"n": 1}], ["tester", "go", 2]]


async def test_a_repeated_attempt_gets_the_same_signals(colony: MemoryClient) -> None:
    process = await colony.submit(hear_in_a_thread.call("go"))
    await process.signal("go", 1)
    while len((await process.get()).attempts) < 2:
        await asyncio.sleep(0.01)
    await process.signal("go", 2)

    assert await process.result(LIMIT_S) == [1, 2, True]


async def test_a_node_hears_signals_to_its_workflow(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("asking")
    node = workflow.add(hear.call("go", 1))
    handle = await colony.submit(workflow)
    async for now in handle.changes():
        if now.nodes[0].state == "running":
            break
    await handle.signal("go", "yes")

    assert await handle.result(node, timeout_s=LIMIT_S) == [["tester", "go", "yes"]]


async def test_a_signal_that_does_not_come_in_time_is_said_by_name(colony: MemoryClient) -> None:
    process = await colony.submit(hear.call("go", 1, 0.05))

    with pytest.raises(colonies.ProcessFailed, match=r"the signal go did not come within 0\.05 s"):
        await process.result(LIMIT_S)


async def test_waiting_on_the_loop_itself_is_refused(colony: MemoryClient) -> None:
    process = await colony.submit(hear_wrongly.call())

    with pytest.raises(colonies.ProcessFailed, match="would stop this whole worker"):
        await process.result(LIMIT_S)


async def test_a_process_that_waits_in_a_thread_can_be_cancelled(colony: MemoryClient) -> None:
    process = await colony.submit(hear_in_a_thread.call("never"))
    while not (await process.get()).attempts:
        await asyncio.sleep(0.01)
    await process.cancel()

    assert (await process.wait(LIMIT_S)).state == "cancelled"
    with pytest.raises(colonies.Conflict):
        await process.signal("never")


async def test_signals_work_without_asyncio() -> None:
    def all_of_it() -> Any:
        with colonies.memory() as colony:
            colony.work(worker)
            process = colony.submit(hear.call("go", 1))
            process.signal("go", 1)
            return process.result(LIMIT_S)

    assert await asyncio.to_thread(all_of_it) == [["tester", "go", 1]]


# --- for real ---------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_all_of_it_on_a_real_broker(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        client = await colony.client("ann")
        await colony.work(worker, "w1")
        await colony.work(worker, "w2")
        workflow = growing("between")
        wait = workflow.wait_signal("approve")
        heard = workflow.add(hear.call("go", 1), after=[wait])
        workflow.map(whole.call, workflow.map(whole.call, workflow.parameter("l", [1, 2])).output, name="m")

        handle = await client.submit(workflow)
        await handle.signal("approve", {"sure": True})
        async for now in handle.changes():
            if any(node.label == "hear" and node.state == "running" for node in now.nodes):
                break
        await handle.signal("go", 7)

        assert await handle.result(heard, timeout_s=LIMIT_S) == [["ann", "go", 7]]
        result = await handle.result()
        assert result == {
            "after": {"grow": [1, 2, 3], "grow/total": 6},
            "hear": [["ann", "go", 7]],
            "m": [1, 2],
        }
        late = await colony.client("bob")
        assert {node.state for node in (await late.workflow(handle.id).get()).nodes} == {"successful"}
        process = await client.submit(hear.call("go", 1))
        await process.signal("go", 8)
        assert await process.result(LIMIT_S) == [["ann", "go", 8]]
        report = await verify_ledger(client.ledger)
        assert report.clean, report.findings[:5]


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
    assert await blamed(colony) == []


@pytest.mark.timeout(120)
async def test_random_workflows_that_are_stopped_anywhere_come_to_an_end(colony: MemoryClient) -> None:
    async def one(seed: int) -> None:
        chance = Random(seed)
        spec = workflow_of(seed, on_failure=chance.choice(["continue", "stop"]))
        handle = await colony.submit_workflow(spec)
        after = chance.randrange(4)
        with contextlib.suppress(TimeoutError):  # perhaps it waits for a signal and does not change
            async with asyncio.timeout(0.2):
                async for _ in handle.changes():
                    if after == 0:
                        break
                    after -= 1
        with contextlib.suppress(colonies.Conflict):  # it may be over by now
            await (handle.cancel() if chance.random() < 0.5 else handle.signal("go"))
        now = await handle.wait(LIMIT_S)
        assert not [node for node in now.nodes if node.process is None or not node.process.final]
        reader = await colony._members.session("late", "observer")
        late = await reader.knowledge.nodes(await reader.workflow(handle.id))
        assert {label: process and process.state for label, process in late.items()} == {
            node.label: node.state for node in now.nodes
        }

    for seed in range(40):
        await one(seed)
    assert await blamed(colony) == []


async def blamed(colony: MemoryClient) -> list[Judged]:
    """The events that a fold of the whole ledger quarantines."""
    history = History(Colony(colony.ledger.colony))
    judged = [history.add(stored) async for batch in colony.ledger.scan() for stored in batch]
    return [seen for seen in judged if seen.verdict.kind == "quarantined"]


async def test_who_submits_has_the_time_of_the_ledger_and_not_its_own(colony: MemoryClient) -> None:
    workflow = colonies.Workflow("train")
    workflow.add(echo.call(1))

    handle = await colony.submit(workflow)

    (stored,) = await colony.session.ledger.read(subjects.guard_of("workflow", handle.id))
    kept = colony.session.knowledge.workflow(handle.id)
    assert kept is not None
    assert kept.submitted_at == stored.time
    assert (await handle.get()).workflow == kept
