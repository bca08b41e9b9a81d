"""What ends before a node, and how: lists without items, parents that stop, cancels that come late."""

from __future__ import annotations

from typing import Any

from colonies.core.dag import Dag, End, Map, Run, Stop
from colonies.core.flow import WorkflowSpec
from colonies.core.references import found
from colonies.core.workflow import Workflow, state_of


def node(name: str, *parents: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "func": "f",
        "conditions": {"runtimetype": "python"},
        "dependencies": list(parents),
        **more,
    }


def a_dag(ends: dict[str, End], *nodes: dict[str, Any], cancelled_at: int | None = None, **more: Any) -> Dag:
    spec = WorkflowSpec.parse({"nodes": list(nodes), **more})
    return Dag(spec, 10, 0, ends.get, cancelled_at)


def end(sequence: int, state: str = "successful") -> End:
    return End(f"p{sequence}", sequence, sequence, state, "w1", {"n": sequence})


OVER_NOTHING = {"args": [{"$item": ""}], "map": {"$parameter": "list"}}


def test_references_are_found_in_the_order_in_which_they_stand() -> None:
    value = [{"x": {"$output": "c"}, "y": [{"$output": "a"}, {"$output": "d"}]}, {"$output": "b"}]
    assert [reference.name for reference in found(value, "args")] == ["c", "a", "d", "b"]


def test_a_node_that_maps_over_an_empty_list_waits_for_its_parents_too() -> None:
    nodes = node("a"), node("m", "a", **OVER_NOTHING), node("n", "m", **OVER_NOTHING), node("c", "n")
    ends: dict[str, End] = {}
    dag = a_dag(ends, *nodes, parameters={"list": []})
    assert dag.decide("c") is None

    ends["a"] = end(11)
    assert isinstance(dag.decide("m"), Map)
    assert isinstance(dag.decide("c"), Run)


def test_nothing_runs_behind_an_empty_list_whose_node_is_to_be_cancelled() -> None:
    nodes = node("a"), node("m", "a", **OVER_NOTHING), node("c", "m")
    dag = a_dag({"a": end(11, "failed")}, *nodes, parameters={"list": []})
    assert isinstance(dag.decide("m"), Stop)
    assert dag.decide("c") is None


def test_long_rows_of_empty_lists_are_no_deep_recursion() -> None:
    row = [node("n0", **OVER_NOTHING), *(node(f"n{i}", f"n{i - 1}", **OVER_NOTHING) for i in range(1, 3_000))]
    assert isinstance(a_dag({}, *row, parameters={"list": []}).decide("n2999"), Map)


def test_a_node_with_parts_has_them_after_its_workflows_cancel_too() -> None:
    nodes = node("a"), node("m", "a", args=[{"$item": ""}], map={"$parameter": "list"})
    ends = {"a": end(11)}
    dag = a_dag(ends, *nodes, parameters={"list": [1, 2]}, cancelled_at=12)
    assert [label for label, _ in dag.labels()] == ["a", "m[0]", "m[1]"]
    assert dag.unfold(dag.spec.by_name["m"]).missing == []


def test_what_its_parents_stop_is_stopped_by_them_though_the_workflow_was_cancelled_meanwhile() -> None:
    dag = a_dag({"a": end(11, "failed")}, node("a"), node("b", "a"), cancelled_at=12)
    stop = dag.by_parents("b")
    assert isinstance(stop, Stop)
    assert (stop.cites, stop.cause) == (11, "a")


def test_a_cancel_that_comes_when_all_has_ended_changes_no_state() -> None:
    spec = WorkflowSpec.parse([node("a"), node("b", "a")])
    ends = [(spec.by_name["a"], end(11, "failed")), (spec.by_name["b"], end(12, "cancelled"))]

    def state(cancelled_at: int | None) -> str:
        return state_of(Workflow("w", spec, "ann", 10, 0, b"", 0, cancelled_at), ends)

    assert (state(None), state(13), state(11)) == ("failed", "failed", "cancelled")
