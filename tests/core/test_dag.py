"""The rules of a workflow, alone: random DAGs with random outcomes, played in random orders."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonies.core.adding import placed
from colonies.core.dag import Dag, Map, Run, Skip, Stop
from colonies.core.ends import End
from colonies.core.flow import WorkflowSpec
from colonies.core.node import Node, adder_of, label_of, split
from colonies.errors import Invalid
from tests.core.playing import FINE, Player, workflow_of

SEEDS = st.integers(0, 2**32)
RULES = st.sampled_from(["continue", "stop"])


def played(seed: int, order: int, on_failure: str, cancels: bool) -> Player:
    spec = workflow_of(seed, on_failure=on_failure)
    return Player(seed, spec, Random(order), cancels).play()


def test_a_node_that_maps_over_a_part_that_is_not_there_says_so() -> None:
    conditions = {"runtimetype": "python"}
    spec = WorkflowSpec.parse(
        {
            "nodes": [
                {"name": "m", "map": {"$parameter": "p"}, "func": "f", "conditions": conditions},
                {"name": "n", "map": {"$output": "m.9"}, "func": "f", "conditions": conditions},
            ],
            "parameters": {"p": [1]},
        }
    )
    ends = {"m[0]": End("id", 5, 7, "successful", "w", [1])}
    say = Dag(spec, 1, 0, ends.get).decide("n")
    assert isinstance(say, Stop)
    assert say.reason == "map: '$output m.9': there is no such part"


def parts_of(name: str, ends: dict[str, End]) -> list[str]:
    """All labels of a node that have ended: itself, or its parts."""
    return [label for label in ends if split(label)[0] == name]


def waited_for(player: Player, node: Node, ends: dict[str, End]) -> set[str]:
    """The names that a node is to wait for, said anew: its parents, and what these put between."""
    if node.last:
        own = {one.name for one in player.spec.nodes if one.last}  # and what these add
        return {split(label)[0] for label in player.ends if split(label.split("/")[0])[0] not in own}
    found: set[str] = set()
    left = list(node.parents)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        labels = [name] if name in ends else parts_of(name, ends)
        for label in labels:
            end = ends[label]
            if end.between and label != adder_of(node.name):
                depended_on = {parent for one in end.adds for parent in one.parents}
                left += [one.name for one in end.adds if one.name not in depended_on]
    return found


@settings(max_examples=400)
@given(SEEDS, SEEDS, RULES, st.booleans())
def test_every_node_ends_once_in_one_state(seed: int, order: int, on_failure: str, cancels: bool) -> None:
    player = played(seed, order, on_failure, cancels)

    labels = [label for label, _ in player.dag.labels()]
    assert sorted(labels) == sorted(player.ends)
    assert len(labels) == len(set(labels))
    assert not player.running
    for label, node in player.dag.labels():
        whole = node.name in player.ends
        assert whole == (split(label)[1] is None), "it is one process, or its parts, never both"


@settings(max_examples=400)
@given(SEEDS, SEEDS, RULES, st.booleans())
def test_no_node_runs_before_its_parents_ended_well(
    seed: int, order: int, on_failure: str, cancels: bool
) -> None:
    player = played(seed, order, on_failure, cancels)

    for label, ends in player.begun.items():
        node = player.dag.node(label)
        assert node is not None
        for name in waited_for(player, node, ends):
            parent = player.dag.node(name)
            assert parent is not None
            there = [name] if name in player.ends else parts_of(name, player.ends)
            for part in there:
                assert part in ends, f"{label} ran before {part} had ended"
                if not node.last and not parent.allow_failure:
                    assert ends[part].state in FINE


@settings(max_examples=400)
@given(SEEDS, SEEDS, st.booleans())
def test_after_a_stop_nothing_begins_but_what_runs_last(seed: int, order: int, cancels: bool) -> None:
    player = played(seed, order, "stop", cancels)

    for label, begun_at in player.begun_at.items():
        node = player.dag.node(label)
        assert node is not None
        assert node.last or player.stopped is None or begun_at <= player.stopped
    for node in player.spec.nodes:
        if node.last:
            assert player.ends[node.name].state in ("successful", "failed")


@settings(max_examples=400)
@given(SEEDS, SEEDS, SEEDS)
def test_without_a_stop_the_order_does_not_matter(seed: int, order: int, other: int) -> None:
    one = played(seed, order, "continue", False)
    two = played(seed, other, "continue", False)

    assert {label: end.state for label, end in one.ends.items()} == {
        label: end.state for label, end in two.ends.items()
    }


# --- one by one -------------------------------------------------------------------------------------


def node(name: str, *parents: str, **more: object) -> dict[str, object]:
    return {
        "name": name,
        "func": "f",
        "conditions": {"runtimetype": "python"},
        "dependencies": list(parents),
        **more,
    }


def dag_of(*nodes: dict[str, object], ends: dict[str, End], cancelled_at: int | None = None) -> Dag:
    return Dag(WorkflowSpec.parse(list(nodes)), 1, 0, ends.get, cancelled_at)


def ended(label: str, state: str = "successful", output: object = None, **more: object) -> End:
    return End(label, 10, 0, state, "w1", output, **more)  # type: ignore[arg-type]


def adding(label: str, *nodes: dict[str, object], between: bool = False) -> End:
    return ended(label, adds=placed([Node.read(one) for one in nodes], label), between=between)


def test_a_child_waits_for_what_its_parent_put_between() -> None:
    nodes = node("a"), node("b", "a")
    end = adding("a", node("x"), node("y", "x"), between=True)

    assert dag_of(*nodes, ends={"a": end}).decide("b") is None
    assert isinstance(dag_of(*nodes, ends={"a": end}).decide("a/x"), Run)
    assert dag_of(*nodes, ends={"a": end, "a/x": ended("x")}).decide("b") is None
    ready = dag_of(*nodes, ends={"a": end, "a/x": ended("x"), "a/y": ended("y")}).decide("b")
    assert isinstance(ready, Run)


def test_a_child_does_not_wait_for_what_its_parent_added_beside_it() -> None:
    end = adding("a", node("x"))

    assert isinstance(dag_of(node("a"), node("b", "a"), ends={"a": end}).decide("b"), Run)


def test_what_runs_last_waits_for_what_was_added() -> None:
    nodes = node("a"), node("z", **{"finally": True})
    end = adding("a", node("x"))

    assert dag_of(*nodes, ends={"a": end}).decide("z") is None
    assert isinstance(dag_of(*nodes, ends={"a": end, "a/x": ended("x", "failed")}).decide("z"), Run)


def test_a_part_of_a_node_that_maps_may_add_nodes() -> None:
    nodes = node("l"), node("m", map={"$output": "l"}), node("b", "m")
    ends = {"l": ended("l", output=[1, 2]), "m[0]": ended("m[0]")}
    ends["m[1]"] = adding("m[1]", node("x", map={"$output": "m"}), between=True)
    ends["m[1]"] = ended("m[1]", output=[7], adds=ends["m[1]"].adds, between=True)

    dag = dag_of(*nodes, ends=ends)
    assert dag.decide("b") is None
    assert isinstance(dag.decide("m[1]/x"), Map)
    assert isinstance(dag.decide("m[1]/x[0]"), Run)
    assert dag.decide("m[1]/x[1]") is None
    assert isinstance(dag_of(*nodes, ends={**ends, "m[1]/x[0]": ended("x")}).decide("b"), Run)


def test_a_condition_names_the_nodes_of_its_own_workflow_as_they_are_written_there() -> None:
    inner = {"name": "g", "nodes": [node("a"), node("b", "a", when="a.good")]}

    assert isinstance(dag_of(inner, ends={"g/a": ended("a", output={"good": True})}).decide("g/b"), Run)
    assert isinstance(dag_of(inner, ends={"g/a": ended("a", output={"good": False})}).decide("g/b"), Skip)


def test_a_parameter_of_an_inner_workflow_may_be_an_output_of_the_outer() -> None:
    inside = node("b", kwargs={"of": {"$parameter": "model.path"}})
    inner = {"name": "g", "parameters": {"model": {"$output": "a.best"}}, "nodes": [inside]}

    found = WorkflowSpec.parse([node("a"), inner]).by_name["g/b"]

    assert found.parents == ("a",)
    assert found.spec is not None
    assert found.spec.kwargs == {"of": {"$output": "a.best.path"}}


def test_a_node_that_maps_is_cancelled_whole_or_part_by_part() -> None:
    nodes = node("l"), node("m", map={"$output": "l"})
    before = dag_of(*nodes, ends={}, cancelled_at=9)
    after = dag_of(*nodes, ends={"l": ended("l", output=[1])}, cancelled_at=11)

    assert isinstance(before.decide("m"), Stop)
    assert before.decide("m[0]") is None
    assert not isinstance(after.decide("m"), Stop)
    assert isinstance(after.decide("m[0]"), Stop)
    assert [label for label, _ in after.labels()] == ["l", "m[0]"]


def test_a_node_that_was_cancelled_whole_has_no_parts_any_more() -> None:
    nodes = node("l"), node("m", map={"$output": "l"})
    dag = dag_of(*nodes, ends={"m": ended("m", "cancelled"), "l": ended("l", output=[1])}, cancelled_at=9)

    assert dag.decide("m[0]") is None
    assert [label for label, _ in dag.labels()] == ["l", "m"]


def test_a_late_reader_is_told_to_look_for_a_node_that_maps_as_a_whole() -> None:
    nodes = node("l"), node("m", "l", map={"$output": "l"}, when="`false`"), node("b", "m")

    missing = dag_of(*nodes, ends={"l": ended("l", output=[1])}).unfold(Node.read(nodes[2])).missing

    assert set(missing) == {label_of("m", 0), "m"}


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([node("x", "y"), node("y", "x")], "by a cycle"),
        ([node("x"), node("x")], "has this name as well"),
        ([node("x", "elsewhere")], "there is no such node"),
        ([node("split")], "it has the name of the node that adds it"),
        ([node("x", **{"finally": True})], "none runs last"),
        ([node("x/y")], "have no /"),
        ([node("x", kwargs={"a": {"$parameter": "rate"}})], "no such parameter"),
    ],
)
def test_what_makes_no_dag_with_its_adder_is_not_added(nodes: list[dict[str, object]], problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        placed([Node.read(one) for one in nodes], "g/split")


def test_what_is_added_by_what_was_added_has_an_end() -> None:
    with pytest.raises(Invalid, match="too deep"):
        placed([Node.read(node("y"))], "/".join(["x"] * 8))


def test_what_is_added_refers_to_its_own_by_their_names() -> None:
    x, y = placed(
        [
            Node.read(node("x", args=[{"$output": "split.path"}])),
            Node.read(node("y", kwargs={"of": [{"$output": "x"}, {"$literal": {"$output": "x"}}]})),
        ],
        "g/split[2]",
    )

    assert x.spec is not None
    assert x.spec.args == [{"$output": "g/split[2].path"}]
    assert y.parents == ("g/split[2]", "g/split[2]/x")
    assert y.spec is not None
    assert y.spec.kwargs == {"of": [{"$output": "g/split[2]/x"}, {"$literal": {"$output": "x"}}]}
