"""Workflows as people write them: what makes a DAG, in which words the rest is refused, and groups."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.core import adding
from colonies.core.flow import MAX_NODES, WorkflowSpec
from colonies.core.node import Node
from colonies.errors import Invalid

CLI = {"runtimetype": "cli"}


def node(name: str, *parents: str, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "func": "f", "conditions": CLI, **fields}
    return found | ({"dependencies": list(parents)} if parents else {})


def parse(*nodes: object, **fields: Any) -> WorkflowSpec:
    return WorkflowSpec.parse({"nodes": list(nodes), **fields})


def said(*nodes: object, **fields: Any) -> str:
    with pytest.raises(Invalid) as refused:
        parse(*nodes, **fields)
    return str(refused.value)


# --- the form -----------------------------------------------------------------------------------------


def test_a_list_is_a_workflow_and_dependencies_may_stand_in_conditions() -> None:
    one = WorkflowSpec.parse([node("a"), {**node("b"), "conditions": {**CLI, "dependencies": ["a"]}}])
    assert one == parse(node("a"), node("b", "a"))
    assert one.by_name["b"].parents == ("a",)
    assert one.sinks == ["b"]


def test_the_seeds_word_for_a_node_is_read() -> None:
    found = WorkflowSpec.parse([{"nodename": "a", "func": "f", "conditions": CLI}])
    assert found.nodes[0].name == "a"


def test_what_the_ledger_holds_is_read_back_as_the_same() -> None:
    spec = parse(
        node("a", delay=2, maxretries=3),
        node("b", "a", when="a > `1`", args=[{"$output": "a.x.0"}, {"$literal": {"$output": "z"}}]),
        node("c", map={"$parameter": "files"}, kwargs={"x": {"$item": "name"}}, allow_failure=True),
        {"name": "d", "wait_signal": {"name": "go", "timeout": 5}, "dependencies": ["c"]},
        node("z", **{"finally": True}),
        name="train",
        label="nightly",
        parameters={"files": [1]},
        on_failure="stop",
        delay=1,
        at="2027-01-31T09:00:00Z",
        maxwaittime=60,
        output="b",
    )
    assert WorkflowSpec.read(json.loads(json.dumps(spec.wire()))) == spec
    assert spec.by_name["b"].parents == ("a",)


def test_a_reference_is_a_dependency() -> None:
    spec = parse(node("a"), node("l"), node("b", args=[[{"deep": {"$output": "a"}}]], map={"$output": "l"}))
    assert spec.by_name["b"].parents == ("a", "l")
    assert spec.by_name["b"].dependencies == ()


def test_the_run_before_may_have_had_nodes_that_were_added_and_workflows_within() -> None:
    previous = [{"$previous": name} for name in ("a.x", "each[3]", "a/more.x", "each[3]/more", "g/x", "b")]
    parse(
        node("a"),
        node("each", map={"$output": "a"}),
        node("b", args=previous),
        {"name": "g", "nodes": [node("x", args=previous)]},
    )


# --- what is no DAG -----------------------------------------------------------------------------------

BAD: dict[str, tuple[list[object], dict[str, Any], str]] = {
    "no nodes": ([], {}, "workflow: nodes: there are none"),
    "no name": (
        [{"func": "f", "conditions": CLI}],
        {},
        "workflow: nodes[0]: name: missing",
    ),
    "bad name": ([node("a b")], {}, "nodes[0]: name: 'a b'"),
    "twice": ([node("a"), node("b"), node("a")], {}, "node a: nodes[0] has this name as well"),
    "unknown": (
        [node("train"), node("b", "trian")],
        {},
        "node b: it depends on 'trian', and there is no such node; did you mean train?",
    ),
    "unknown reference": ([node("b", args=[{"$output": "x.y"}])], {}, "node b: it depends on 'x'"),
    "unknown node of the run before": (
        [node("train", args=[{"$previous": "trian.path"}])],
        {},
        "node train: '$previous trian.path': there is no such node; did you mean train?",
    ),
    "the name of what another may add": (
        [node("a"), node("b"), node("a/x/y")],
        {},
        "node a/x/y: there is a node a, and what it may add has such names",
    ),
    "a workflow with the name of a node": (
        [node("g"), {"name": "g", "nodes": [node("x")]}],
        {},
        "node g/x: there is a node g, and what it may add has such names",
    ),
    "itself": ([node("a", "a")], {}, "node a: it depends on itself: a -> a"),
    "behind the last": (
        [node("z", **{"finally": True}), node("b", "z")],
        {},
        "node b: it depends on z, which runs last (finally)",
    ),
    "parameter": (
        [node("a", args=[{"$parameter": "rate"}])],
        {"parameters": {"x": 1}},
        "node a: '$parameter rate': there is no such parameter; declared: ['x']",
    ),
    "output": ([node("a")], {"output": "b"}, "output: there is no node 'b'"),
    "unknown field": ([node("a")], {"colour": 1}, "colour: unknown field"),
    "on_failure": ([node("a")], {"on_failure": "explode"}, "on_failure"),
    "unknown field of a node": ([node("a", colour=1)], {}, "nodes[0] (a): colour: unknown field"),
    "a word that is almost a node's": (
        [node("a", allow_failures=True)],
        {},
        "nodes[0] (a): allow_failures: unknown field; did you mean allow_failure? allowed: allow_failure, ",
    ),
    "no node": (["a"], {}, "nodes[0]: 'a' is no node"),
    "both dependencies": (
        [node("a"), {**node("b", "a"), "conditions": {**CLI, "dependencies": ["a"]}}],
        {},
        "nodes[1] (b): dependencies and conditions.dependencies say the same thing",
    ),
    "no func": ([{"name": "a", "conditions": CLI}], {}, "nodes[0] (a): func: missing"),
    "item without map": (
        [node("a", args=[{"$item": ""}])],
        {},
        "nodes[0] (a): $item: this node maps over nothing",
    ),
    "map over a list": ([node("a", map=[1, 2])], {}, "nodes[0] (a): map"),
    "map over an item": ([node("a", map={"$item": ""})], {}, "map: {'$item': ''} is not allowed"),
    "no reference": ([node("a", args=[{"$outptu": "b"}])], {}, "args[0]: '$outptu' is no reference"),
    "two keys": ([node("a", kwargs={"x": {"$output": "b", "y": 1}})], {}, "kwargs.x"),
    "bad reference": ([node("a", args=[{"$output": "a b.c"}])], {}, "'a b' is no name"),
    "bad condition": ([node("a"), node("b", "a", when="a >")], {}, "nodes[1] (b): when: 'a >'"),
    "condition that makes values": (
        [node("a", when="a[*].b")],
        {},
        "when: 'a[*].b': a projection is not allowed",
    ),
    "function": ([node("a", when="sort(@)")], {}, "sort() is not allowed"),
    "signal that runs": (
        [node("a", wait_signal="go")],
        {},
        "nodes[0] (a): ['func', 'conditions']: a node that waits for a signal runs nothing",
    ),
    "signal that maps": (
        [{"name": "a", "wait_signal": "go", "map": {"$packed": ""}}],
        {},
        "map: a node that waits for a signal has no parts",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_workflow_is_refused_naming_the_node(case: str) -> None:
    nodes, fields, says = BAD[case]
    assert says in said(*nodes, **fields)


def test_a_cycle_is_shown_as_a_path() -> None:
    text = said(node("a", "c"), node("b", "a"), node("c", "b"), node("d"))
    path = text.rpartition("by a cycle: ")[2].split(" -> ")
    assert path[0] == path[-1]
    assert len(path) == 4
    assert set(path) == {"a", "b", "c"}
    assert text.startswith(f"workflow: node {path[0]}: it depends on itself")


def test_a_long_cycle_is_shown_shortened() -> None:
    text = said(*(node(f"n{i}", f"n{(i + 1) % 500}") for i in range(500)))
    assert "-> ... ->" in text
    assert len(text) < 200


def test_too_many_nodes_are_refused_by_their_number() -> None:
    assert f"10001 nodes; at most {MAX_NODES} are allowed" in said(*([node("a")] * 10_001))


def test_ten_problems_are_said_at_once_and_that_there_are_more() -> None:
    lines = said(*(node(f"n{i}", "x") for i in range(30))).splitlines()
    assert len(lines) == 10
    assert lines[-1] == "workflow: and more problems"


def test_what_is_no_list_is_refused() -> None:
    for wrong in (7, "a", None, {"nodes": 7}, {"nodes": None}, {}):
        with pytest.raises(Invalid, match=r"nodes|no workflow"):
            WorkflowSpec.parse(wrong)


@given(st.permutations([f"n{i}" for i in range(8)]), st.data())
def test_the_order_puts_parents_first_whatever_the_order_given(names: list[str], data: st.DataObject) -> None:
    parents = {
        f"n{i}": data.draw(st.sets(st.sampled_from([f"n{k}" for k in range(i)]))) if i else set()
        for i in range(8)
    }
    spec = parse(*(node(name, *sorted(parents[name])) for name in names))
    place = {name: at for at, name in enumerate(spec.order)}
    assert all(place[parent] < place[name] for name in names for parent in parents[name])
    assert spec.sinks == [n for n in names if not any(n in given for given in parents.values())]


# --- workflows in workflows ---------------------------------------------------------------------------


def prepare(**fields: Any) -> dict[str, Any]:
    """A group with two last nodes, `left` and `right`, behind `read`."""
    return {
        "name": "prepare",
        "nodes": [node("read"), node("left", "read"), node("right", args=[{"$output": "read.rows"}])],
        **fields,
    }


def args_of(found: Node) -> list[Any]:
    assert found.spec is not None
    return list(found.spec.args)


def test_the_nodes_of_a_group_stand_in_its_place() -> None:
    spec = parse(node("first"), prepare(dependencies=["first"]), node("train", "prepare"))
    assert [n.name for n in spec.nodes] == [
        *("first", "prepare/read", "prepare/left", "prepare/right", "train")
    ]
    assert spec.by_name["prepare/read"].parents == ("first",)
    assert spec.by_name["prepare/right"].parents == ("prepare/read",)
    assert spec.by_name["train"].parents == ("prepare/left", "prepare/right")
    assert args_of(spec.by_name["prepare/right"]) == [{"$output": "prepare/read.rows"}]


def test_a_reference_to_a_group_is_an_object_of_its_last_outputs() -> None:
    spec = parse(prepare(), node("train", args=[{"$output": "prepare"}, {"$output": "prepare.left.x"}]))
    assert args_of(spec.by_name["train"]) == [
        {"left": {"$output": "prepare/left"}, "right": {"$output": "prepare/right"}},
        {"$output": "prepare/left.x"},
    ]
    assert spec.by_name["train"].parents == ("prepare/left", "prepare/right")


def test_a_node_may_map_over_an_output_of_a_group_but_not_over_the_group() -> None:
    spec = parse(prepare(), node("each", map={"$output": "prepare.left.files"}))
    assert str(spec.by_name["each"].map) == "$output prepare/left.files"
    text = said(prepare(), node("each", map={"$output": "prepare"}))
    assert "node 'each': map: $output prepare: an object of outputs" in text
    assert "such as prepare.left" in text


def test_a_reference_to_what_is_no_last_node_of_a_group_names_those_that_are() -> None:
    text = said(prepare(), node("train", args=[{"$output": "prepare.read"}]))
    assert "$output prepare.read: 'read' is no last node of prepare; allowed: left, right" in text


def test_a_literal_is_no_reference_to_a_group() -> None:
    spec = parse(prepare(), node("train", args=[{"$literal": {"$output": "prepare"}}]))
    assert args_of(spec.by_name["train"]) == [{"$literal": {"$output": "prepare"}}]
    assert spec.by_name["train"].parents == ()


def test_groups_in_groups_are_objects_in_objects() -> None:
    outer = {"name": "outer", "nodes": [prepare(), node("side")]}
    spec = parse(outer, node("train", args=[{"$output": "outer"}, {"$output": "outer.prepare.left"}]))
    assert args_of(spec.by_name["train"]) == [
        {
            "prepare": {
                "left": {"$output": "outer/prepare/left"},
                "right": {"$output": "outer/prepare/right"},
            },
            "side": {"$output": "outer/side"},
        },
        {"$output": "outer/prepare/left"},
    ]


def test_a_groups_parameters_are_put_in_their_place() -> None:
    group = {
        "name": "g",
        "parameters": {"n": {"deep": [1, 2]}, "model": {"$output": "train"}, "rate": {"$parameter": "rate"}},
        "nodes": [
            node("a", args=[{"$parameter": "n.deep.1"}, {"$parameter": "model.path"}, {"$parameter": "rate"}])
        ],
    }
    spec = parse(node("train"), group, parameters={"rate": 0.5})
    assert args_of(spec.by_name["g/a"]) == [2, {"$output": "train.path"}, {"$parameter": "rate"}]
    assert spec.by_name["g/a"].parents == ("train",)


def test_what_a_group_maps_over_is_a_parameter_of_the_workflow() -> None:
    deep = {
        "name": "deep",
        "parameters": {"n": {"list": [{"$literal": {"$odd": 1}}, 2]}},
        "nodes": [node("a", map={"$parameter": "n.list"}), node("b", map={"$parameter": "n.list"})],
    }
    group = {"name": "g", "parameters": {"more": [3]}, "nodes": [deep, node("c", map={"$parameter": "more"})]}
    spec = parse(node("first"), group, parameters={"rate": 0.5})
    assert spec.parameters == {"rate": 0.5, "g/deep/n": {"list": [{"$odd": 1}, 2]}, "g/more": [3]}
    assert [str(spec.by_name[f"g/{name}"].map) for name in ("deep/a", "deep/b", "c")] == [
        "$parameter g/deep/n.list",
        "$parameter g/deep/n.list",
        "$parameter g/more",
    ]
    assert WorkflowSpec.read(spec.wire()) == spec


def test_what_a_group_maps_over_may_be_known_outside_only() -> None:
    inner = {
        "name": "in",
        "parameters": {"l": {"$parameter": "l"}},
        "nodes": [node("a", map={"$parameter": "l"})],
    }
    given = {"l": {"$output": "first.items"}}
    spec = parse(node("first"), {"name": "g", "parameters": given, "nodes": [inner]})
    assert str(spec.by_name["g/in/a"].map) == "$output first.items"
    assert spec.by_name["g/in/a"].parents == ("first",)
    assert spec.parameters == {}


def test_a_condition_does_not_see_a_group() -> None:
    wrong = node("c", dependencies=["prepare"], when="length(prepare.left) > `1`")
    assert "node 'c': when: 'prepare' is a workflow" in said(prepare(), wrong)
    assert 'allowed: "prepare/left", "prepare/right"' in said(prepare(), wrong)
    right = node("c", dependencies=["prepare"], when='"prepare/left".prepare > `1`')
    assert parse(prepare(), right).by_name["c"].when == right["when"]
    same = {**prepare(), "name": "left"}
    same["nodes"] = [*same["nodes"], node("e", "left", when="left")]
    assert "left/e" in parse(same).by_name


UNSEEN: dict[str, tuple[list[Any], str]] = {
    "a typing error": (
        [node("train"), node("c", "train", when="trian.ok")],
        "node c: when: 'trian' is no parent, and a condition sees parents; its parents: train",
    ),
    "a node that is none of its parents": (
        [node("a"), node("b"), node("c", "a", when="a && b")],
        "'b' is no parent, and a condition sees parents; its parents: a; to look at it, let c depend on b",
    ),
    "no parents": (
        [node("c", when="a")],
        "node c: when: 'a' is no parent, and a condition sees parents; it has none",
    ),
    "itself": ([node("a"), node("c", "a", when="c")], "'c' is no parent"),
    "within a function": ([node("a"), node("c", "a", when="contains(a, b[0].x)")], "'b' is no parent"),
    "behind a not": ([node("a"), node("c", "a", when="!(a.x < b)")], "'b' is no parent"),
    "behind @": ([node("a"), node("c", "a", when="@.b.a")], "'b' is no parent"),
    "beside itself in a group": (
        [{"name": "g", "nodes": [node("a"), node("b"), node("c", "a", when='b || "g/a"')]}],
        "node g/c: when: 'b' is no parent, and a condition sees parents; its parents: a",
    ),
    "the last of nodes that run last": (
        [node("a"), node("z", when="y", **{"finally": True}), node("y", **{"finally": True})],
        "node z: when: 'y' is no parent, and a condition sees parents; its parents: a",
    ),
    "a node added by what is no parent": ([node("a"), node("c", "a", when='"b/x"')], "'b/x' is no parent"),
    "a waiting node": ([{"name": "w", "wait_signal": "go", "when": "a"}], "node w: when: 'a' is no parent"),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_a_condition_that_names_no_parent_is_refused(case: str) -> None:
    nodes, says = UNSEEN[case]
    assert says in said(*nodes)


@pytest.mark.parametrize(
    "when",
    ["a.b.c", "@.a", "a[0].b", "!a", "'b' == a.x", "`1`", "length(@) > `1`", '"a/b" && "a[1]/c".d', "@"],
)
def test_a_condition_that_names_parents_or_what_they_add_is_none_of_these(when: str) -> None:
    spec = parse(node("a"), node("c", "a", when=when), node("z", when="a || c", **{"finally": True}))
    assert spec.by_name["c"].when == when


def test_what_is_recorded_with_such_a_condition_is_read_as_ever() -> None:
    """A check for people that came later than events does not part those who judge them."""
    wire = {"nodes": [node("a"), node("c", "a", when="b")]}
    spec = WorkflowSpec.read(wire)
    assert spec.checked() == spec
    with pytest.raises(Invalid, match="'b' is no parent"):
        WorkflowSpec.parse(spec.wire())


def test_what_previous_names_is_a_node_of_the_workflow() -> None:
    wrong = [node("count"), node("c", args=[{"$previous": "cuont.x"}])]
    assert "node c: '$previous cuont.x': there is no such node; did you mean count?" in said(*wrong)
    names = ["count", "c.x", "count[3].y", "count/added"]
    assert len(parse(*[node("count"), node("c", args=[{"$previous": name} for name in names])]).nodes) == 2
    group = {"name": "g", "nodes": [node("a", args=[{"$previous": "a.x"}])]}
    assert parse(group).by_name["g/a"].references[0].name == "g/a"


ADDED: dict[str, tuple[list[Any], str]] = {
    "the full name of the adder": (
        [node("a", "outer/inner")],
        "node a: it depends on 'outer/inner', and there is no such node among these; here it is called inner",
    ),
    "its full name in a reference": (
        [node("a", args=[{"$output": "outer/inner.x"}])],
        "here it is called inner",
    ),
    "its label": ([node("a", args=[{"$output": "outer/inner[2]"}])], "here it is called inner"),
    "the full name of another": ([node("a"), node("b", "outer/inner/a")], "here it is called a"),
    "a node of the workflow": (
        [node("a", "other"), node("b")],
        "node a: it depends on 'other', and there is no such node among these; allowed: inner, b",
    ),
    "a condition on a stranger": (
        [node("a", when="other > `1`")],
        "node outer/inner[2]/a: when: 'other' is no parent, and a condition sees parents; its parents: inner",
    ),
    "a condition on the full name": ([node("a", when='"outer/inner"')], "its parents: inner"),
}


@pytest.mark.parametrize("case", ADDED)
def test_nodes_that_are_added_say_short_names(case: str) -> None:
    nodes, says = ADDED[case]
    with pytest.raises(Invalid) as refused:
        adding.read(nodes, "outer/inner[2]", "file")
    assert says in str(refused.value)


def test_nodes_that_are_added_may_look_at_what_adds_them_and_at_each_other() -> None:
    nodes = [node("a", when="inner.x"), node("b", "a", when="a && inner", args=[{"$output": "inner.y"}])]
    found, between = adding.read({"nodes": nodes, "between": True}, "outer/inner", "file")
    assert ([each.name for each in found], between) == (["a", "b"], True)


GROUPS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": None}, "nodes[0]: name"),
    "unknown field": ({"when": "a"}, "nodes[0] (prepare): 'when': a workflow in a workflow has name, nodes"),
    "dependencies": ({"dependencies": "abc"}, "(prepare): dependencies: 'abc' is no list"),
    "no nodes": ({"nodes": []}, "(prepare): nodes: there are none"),
    "no list": ({"nodes": 7}, "(prepare): nodes: 7 is no list"),
    "finally": ({"nodes": [node("z", **{"finally": True}), node("a")]}, "finally: only in the outermost"),
    "cycle": ({"nodes": [node("a", "b"), node("b", "a")]}, "nodes[0] (prepare): node "),
    "outer node": ({"nodes": [node("a", "other")]}, "(prepare): node a: it depends on 'other'"),
    "no such step": (
        {"parameters": {"n": {"x": 1}}, "nodes": [node("a", args=[{"$parameter": "n.y"}])]},
        "(prepare): $parameter n.y: there is no 'y' in it",
    ),
    "maps over no list": (
        {"parameters": {"n": 7}, "nodes": [node("a", map={"$parameter": "n"})]},
        "(prepare): map: $parameter n: 7 is no list",
    ),
    "maps over references": (
        {"parameters": {"n": [{"$output": "other"}]}, "nodes": [node("a", map={"$parameter": "n"})]},
        "(prepare): map: $parameter n: there is $output other in it",
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_a_group_that_makes_no_sense_is_refused_naming_it(case: str) -> None:
    fields, says = GROUPS[case]
    assert says in said({**prepare(), **fields}, node("other"))


def test_two_groups_of_one_name_and_too_many_levels_are_refused() -> None:
    assert "another workflow in this one has this name" in said(prepare(), prepare())
    deep: dict[str, Any] = node("a")
    for level in range(6):
        deep = {"name": f"g{level}", "nodes": [deep]}
    assert "nested deeper than 4" in said(deep)


def test_a_cycle_through_a_group_is_found() -> None:
    text = said(prepare(dependencies=["train"]), node("train", "prepare"))
    assert "by a cycle: " in text
    assert "prepare/" in text


def test_a_value_that_holds_itself_is_refused_beside_a_group() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "nested too deeply" in said(prepare(), node("a", args=loop))
