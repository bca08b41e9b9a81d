"""A Unix command adds nodes to its workflow by the file COLONIES_ADDS: real shells on a real colony."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from colonies_workers.unix import UnixWorker

import colonies
from tests.harness import RunningColony, running_colony

CLI = {"runtimetype": "cli"}


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony


@pytest.fixture
async def client(colony: RunningColony, tmp_path: Path) -> colonies.Client:
    await colony.orchestrate()
    await colony.work(UnixWorker(folder=tmp_path / "work", show=False, concurrency=4, backoff_s=0.1), "u1")
    return await colony.client()


def node(name: str, func: str, *parents: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "func": func, "dependencies": list(parents), "conditions": CLI, **fields}


GOOD = node("a", "true")


def adding(said: Any, then: str = "echo 3") -> str:
    """A command that adds this, in JSON or as it stands."""
    text = said if isinstance(said, str) else json.dumps(said)
    return f"cat > $COLONIES_ADDS <<'END'\n{text}\nEND\n{then}"


def show(*parents: str) -> dict[str, Any]:
    return node("show", "cat $COLONIES_INPUTS > $COLONIES_OUTPUT", *parents)


def python(expression: str) -> str:
    """A command that adds what Python says, with NODE as one node."""
    program = f"import json\nNODE = {GOOD}\nprint(json.dumps({expression}))"
    return f"{sys.executable} - > $COLONIES_ADDS <<'END'\n{program}\nEND"


async def states(handle: colonies.WorkflowHandle) -> dict[str, str]:
    now = await handle.get()
    return {each.label: each.state for each in now.nodes}


async def test_what_it_adds_runs_after_it_and_finds_its_output(client: colonies.Client) -> None:
    adds = [
        node("double", "expr 2 '*'", args=[{"$output": "split"}]),
        node("show", "cat $COLONIES_INPUTS > $COLONIES_OUTPUT", "double"),
    ]
    handle = await client.submit_workflow([node("split", adding(adds)), show("split")])
    assert await handle.result(timeout_s=60) == {"show": {"split": "3"}}
    assert await states(handle) == dict.fromkeys(
        ("split", "split/double", "split/show", "show"), "successful"
    )
    (inner,) = [each for each in (await handle.get()).nodes if each.label == "split/show"]
    assert inner.process is not None
    assert await client.output(inner.process) == {"split": "3", "double": "6"}


async def test_nodes_between_are_waited_for_by_the_nodes_behind_it(client: colonies.Client) -> None:
    adds = {
        "between": True,
        "nodes": [node(f"part{n}", f"echo {n}") for n in range(3)]
        + [node("each", "echo", map={"$output": "split"}, args=[{"$item": ""}])],
    }
    split = node("split", adding(adds, 'echo "[1, 2]" > $COLONIES_OUTPUT'))
    handle = await client.submit_workflow([split, show("split")])
    assert (await handle.result(timeout_s=60))["show"] == {
        "split": [1, 2],
        **{f"split/part{n}": str(n) for n in range(3)},
        "split/each": ["1", "2"],
    }


BAD: dict[str, tuple[str, list[str]]] = {
    "no json": (adding("[{"), ["COLONIES_ADDS: not JSON: line 2, column 1"]),
    "empty": (": > $COLONIES_ADDS", ["COLONIES_ADDS: empty; allowed"]),
    "a number": (adding("7"), ["COLONIES_ADDS: 7 holds no list of nodes; allowed: a list such as [{"]),
    "an unknown key": (adding({"nodes": [], "after": []}), ["'after': unknown; allowed: nodes, between"]),
    "no flag": (adding({"nodes": [GOOD], "between": 1}), ["between: 1; allowed: true or false"]),
    "a field": (adding([GOOD, {**GOOD, "name": "b", "funk": 1}]), ["nodes[1] (b): funk: unknown field"]),
    "no name": (adding([{"func": "true", "conditions": CLI}]), ["nodes[0]: name: missing"]),
    "twice": (adding([GOOD, GOOD]), ["node a: nodes[0] has this name as well"]),
    "its own name": (adding([node("split", "true")]), ["node split: it has the name of the node that adds"]),
    "a parent": (adding([node("a", "true", "b")]), ["node a: it depends on 'b', and there is no such node"]),
    "a cycle": (adding([node("a", "x", "b"), node("b", "x", "a")]), ["by a cycle: "]),
    "finally": (adding([{**GOOD, "finally": True}]), ["none runs last (finally)"]),
    "a group": (adding([{"name": "g", "nodes": [GOOD]}]), ["nodes[0]: a workflow in a workflow"]),
    "a key twice": (adding('[{"name": "a", "name": "b"}]'), ["the key 'name' is given twice"]),
    "deep": (f"{sys.executable} -c 'print(\"[\" * 200000)' > $COLONIES_ADDS", ["nested too deeply"]),
    "not a number": (adding('[{"name": "a", "func": "x", "args": [NaN]}]'), ["nodes[0] (a)", "args"]),
    "no UTF-8": (r"printf '[\377]' > $COLONIES_ADDS", ["COLONIES_ADDS: not UTF-8: byte 1 is 0xff"]),
    "many": (python('[{**NODE, "name": f"n{n}"} for n in range(1001)]'), ["1001 nodes; at most 1000"]),
    "large nodes": (python('[{**NODE, "args": ["x" * 800000]}]'), ["bytes of nodes; at most 700000"]),
    "a large file": (
        "head -c 5000000 /dev/zero > $COLONIES_ADDS",
        ["longer than the limit of 4194304 bytes"],
    ),
    "a pipe": ("mkfifo $COLONIES_ADDS", ["COLONIES_ADDS", "is not a regular file"]),
    "a folder": ("mkdir $COLONIES_ADDS", ["is not a regular file"]),
    "a link": ("echo '[]' > x; ln -s $PWD/x $COLONIES_ADDS", ["is a link; allowed: a regular file"]),
    "a link to what never ends": ("ln -s /dev/zero $COLONIES_ADDS", ["is a link; allowed: a regular file"]),
    "a link to nothing": ("ln -s nothing $COLONIES_ADDS", ["is a link; allowed: a regular file"]),
}


async def test_a_bad_file_fails_the_attempt_and_names_the_node_and_nothing_is_added(
    client: colonies.Client,
) -> None:
    handles = {
        case: await client.submit_workflow([node("split", func), show("split")])
        for case, (func, _) in BAD.items()
    }
    for case, handle in handles.items():
        now = await handle.wait(120)
        assert {each.label: each.state for each in now.nodes} == {"split": "failed", "show": "cancelled"}, (
            case
        )
        split = next(each.process for each in now.nodes if each.label == "split")
        assert split is not None
        for said in BAD[case][1]:
            assert said in split.errors[-1], (case, split.errors)


async def test_a_command_that_fails_adds_nothing_and_what_the_next_attempt_adds_counts(
    client: colonies.Client,
) -> None:
    func = adding(
        [node("from1", "true")], 'test "$COLONIES_ATTEMPT" = 2 && sed -i s/from1/from2/ $COLONIES_ADDS'
    )
    handle = await client.submit_workflow([node("split", func, maxretries=1)])
    assert (await handle.wait(60)).state == "successful"
    assert await states(handle) == {"split": "successful", "split/from2": "successful"}
    failed = await client.submit_workflow([node("split", adding([GOOD], "exit 3"))])
    await failed.wait(60)
    assert await states(failed) == {"split": "failed"}


async def test_a_process_that_is_no_node_is_told_so_and_an_empty_list_adds_nothing(
    client: colonies.Client,
) -> None:
    alone = await client.submit({"func": adding([GOOD]), "conditions": CLI})
    with pytest.raises(colonies.ProcessFailed, match="only a node of a workflow adds nodes"):
        await alone.result(60)
    there = await client.submit({"func": "test ! -e $COLONIES_ADDS && echo none", "conditions": CLI})
    assert await there.result(60) == "none"
    handle = await client.submit_workflow([node("split", adding([]))])
    assert await handle.result(timeout_s=60) == {"split": "3"}
