"""Which results a rerun takes over, for all small workflows and all ways in which they can have ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.core import rerun
from colonies.core.adding import placed
from colonies.core.dag import Dag, End
from colonies.core.flow import WorkflowSpec
from colonies.core.node import Node
from colonies.errors import Invalid

STATES = ("successful", "skipped", "failed", "cancelled", None)
CLI = {"runtimetype": "cli"}


def node(name: str, *parents: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "func": "f", "conditions": CLI, "dependencies": list(parents), **fields}


@dataclass
class Ended:
    """A workflow and how its labels ended."""

    spec: WorkflowSpec
    ends: dict[str, End] = field(default_factory=dict)

    def end(self, label: str, state: str = "successful", *, output: Any = None, adds: Any = ()) -> Ended:
        added = placed([Node.read(item) for item in adds], label) if adds else ()
        self.ends[label] = End(label, 10 + len(self.ends), 0, state, "w1", output, adds=added)
        return self

    @property
    def dag(self) -> Dag:
        return Dag(self.spec, 1, 0, self.ends.get)

    def taken(self, *changed: str, from_node: str | None = None) -> list[str]:
        return rerun.reused(self.dag, frozenset(changed), from_node)


def ended(*nodes: dict[str, Any], **fields: Any) -> Ended:
    return Ended(WorkflowSpec.parse({"nodes": list(nodes), **fields}))


def diamond(**states: str) -> Ended:
    found = ended(node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"))
    for name in "abcd":
        found.end(name, states.get(name, "successful"))
    return found


def test_a_result_is_that_of_the_same_node_with_the_same_parameters() -> None:
    asked = {"x": 1, "y": 2}
    spec = ended(node("a", args=[{"$parameter": "x"}]), node("b", args=[1]), parameters=asked).spec

    def why(name: str, **other: Any) -> str | None:
        return rerun.another(name, replace(spec, **other), spec, {"a": "", "b[2]": ""})

    changed = (Node.read(node("b", args=[True])), Node.read(node("c")))
    assert why("a") is why("b") is None
    assert why("a", parameters={"x": True, "y": 2}) == "its parameter x had another value there"
    assert why("b", parameters={"x": True, "y": 2}) is None
    assert why("b", nodes=changed) == why("c", nodes=changed) == "it is another node there"
    assert why("a/x") is why("b[2]/x") is None
    assert why("b/x") == why("d") == "there is no such node"


def test_everything_that_was_successful_or_skipped_is_taken_over() -> None:
    assert diamond().taken() == ["a", "b", "c", "d"]
    assert diamond(b="skipped").taken() == ["a", "b", "c", "d"]


def test_what_was_not_successful_runs_anew_and_everything_behind_it() -> None:
    assert sorted(diamond(b="failed").taken()) == ["a", "c"]
    assert diamond(a="cancelled").taken() == []


def test_from_a_node_runs_it_and_everything_behind_it() -> None:
    assert sorted(diamond().taken(from_node="b")) == ["a", "c"]
    assert diamond().taken(from_node="a") == []


def test_who_refers_to_a_changed_parameter_runs_anew() -> None:
    found = ended(
        node("a"),
        node("b", "a", args=[{"$parameter": "x.deep"}]),
        node("c", "b"),
        parameters={"x": {}, "y": 1},
    )
    for name in "abc":
        found.end(name)
    assert found.taken("x") == ["a"]
    assert found.taken("y") == ["a", "b", "c"]


def test_what_runs_last_runs_again_if_anything_does() -> None:
    found = ended(node("a"), node("b"), node("z", **{"finally": True}))
    for name in "abz":
        found.end(name)
    assert sorted(found.taken()) == ["a", "b", "z"]
    assert found.taken(from_node="b") == ["a"]
    assert sorted(found.taken(from_node="z")) == ["a", "b"]


def mapping(*parts: str) -> Ended:
    found = ended(node("list"), node("each", map={"$output": "list"}), node("sum", "each"))
    found.end("list", output=list(range(len(parts))))
    for number, state in enumerate(parts):
        found.end(f"each[{number}]", state)
    return found.end("sum")


def test_parts_are_taken_over_one_by_one() -> None:
    assert mapping("successful", "failed", "successful").taken() == ["list", "each[0]", "each[2]"]
    assert mapping("successful", "skipped").taken() == ["list", "each[0]", "each[1]", "sum"]


def test_no_part_is_taken_over_if_its_list_is_made_anew() -> None:
    assert mapping("successful", "successful").taken(from_node="list") == []
    assert mapping("successful", "successful").taken(from_node="each") == ["list"]


def test_a_node_that_mapped_over_nothing_is_no_hindrance() -> None:
    assert mapping().taken() == ["list", "sum"]


def test_a_node_that_maps_and_was_skipped_as_a_whole_is_taken_over() -> None:
    found = ended(node("list"), node("each", map={"$output": "list"}))
    found.end("list", "skipped").end("each", "skipped")
    assert found.taken() == ["list", "each"]


def adding(inner: str, then: str = "successful") -> Ended:
    found = ended(node("split"), node("sum", "split"))
    found.end("split", adds=[node("one"), node("two", "one")])
    return found.end("split/one").end("split/two", inner).end("sum", then)


def test_added_nodes_are_taken_over_with_the_process_that_added_them() -> None:
    assert adding("successful").taken() == ["split", "split/one", "split/two", "sum"]


def test_a_process_runs_anew_if_anything_that_it_added_was_not_successful() -> None:
    assert adding("failed").taken() == []


def test_added_nodes_of_a_process_that_runs_anew_do_as_well() -> None:
    assert adding("successful").taken(from_node="split") == []


def test_who_added_nodes_that_refer_to_a_changed_parameter_runs_anew() -> None:
    found = ended(node("split"), parameters={"x": 1})
    added = Node.read(node("split/one", "split", args=[{"$parameter": "x"}]))
    found.end("split").end("split/one")
    found.ends["split"] = replace(found.ends["split"], adds=(added,))
    assert found.taken() == ["split", "split/one"]
    assert found.taken("x") == []


def test_what_parts_added_is_taken_over_with_the_part() -> None:
    found = ended(node("list"), node("each", map={"$output": "list"}))
    found.end("list", output=[1, 2])
    found.end("each[0]", adds=[node("x")]).end("each[0]/x")
    found.end("each[1]", adds=[node("x")]).end("each[1]/x", "failed")
    assert found.taken() == ["list", "each[0]", "each[0]/x"]


@st.composite
def workflows(draw: st.DrawFn) -> tuple[Ended, frozenset[str], str | None]:
    names = [f"n{i}" for i in range(draw(st.integers(1, 7)))]
    nodes = []
    for number, name in enumerate(names):
        parents = draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=3)) if number else []
        args = [{"$parameter": name} for name in draw(st.sets(st.sampled_from(["x", "y"])))]
        nodes.append(node(name, *parents, args=args))
    found = ended(*nodes, parameters={"x": 1, "y": 2})
    for name in names:
        if (state := draw(st.sampled_from(STATES))) is not None:
            adds = [node("one")] if state == "successful" and draw(st.booleans()) else []
            found.end(name, state, adds=adds)
            if adds and (inner := draw(st.sampled_from(STATES))) is not None:
                found.end(f"{name}/one", inner)
    changed = frozenset(draw(st.sets(st.sampled_from(["x", "y"]))))
    return found, changed, draw(st.none() | st.sampled_from(names))


@given(workflows())
def test_a_rerun_takes_over_exactly_what_ended_well_and_depends_on_nothing_that_runs_anew(
    drawn: tuple[Ended, frozenset[str], str | None],
) -> None:
    found, changed, from_node = drawn
    taken = set(found.taken(*changed, from_node=from_node))
    for one in found.spec.nodes:
        end = found.ends.get(one.name)
        added = [inner.name for inner in (end.adds if end else ())]
        good = end is not None and end.state in ("successful", "skipped")
        whole = all((inner := found.ends.get(name)) and inner.state in rerun.FINE for name in added)
        asked = one.name == from_node or any(r.name in changed for r in one.references)
        assert (one.name in taken) == (
            good and whole and not asked and all(parent in taken for parent in one.parents)
        )
        assert all((name in taken) == (one.name in taken) for name in added)


# --- what is asked for --------------------------------------------------------------------------------


def test_parameters_are_replaced_and_those_that_differ_are_named() -> None:
    spec = ended(node("a"), parameters={"x": 1, "y": [True], "z": None}).spec
    found, changed = rerun.changed_spec(spec, {"x": 2, "y": [True]})
    assert (found.parameters, changed) == ({"x": 2, "y": [True], "z": None}, frozenset("x"))
    assert rerun.changed_spec(spec, {"x": True})[1] == frozenset("x")
    assert spec.parameters["x"] == 1


def test_a_parameter_that_there_is_not_is_refused_with_the_nearest() -> None:
    spec = ended(node("a"), parameters={"rate": 1}).spec
    with pytest.raises(Invalid, match="no such parameter; did you mean rate\\?; declared: rate"):
        rerun.changed_spec(spec, {"rat": 2})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("splt", "no such node; did you mean split"),
        ("split/one", "split added it"),
        ("split[3]", "a part of split; allowed: a node: split"),
    ],
)
def test_a_node_that_there_is_not_to_run_from_is_refused(name: str, says: str) -> None:
    rerun.check_from(ended(node("split")).spec, "split")
    with pytest.raises(Invalid, match=says):
        rerun.check_from(ended(node("split")).spec, name)


def test_what_a_generator_gave_becomes_a_parameter() -> None:
    spec = ended(
        node("a", args=[{"$packed": "0.name"}, {"$literal": {"$packed": ""}}], map={"$packed": ""}),
        node("b", kwargs={"packed": {"$parameter": "packed"}}),
        parameters={"packed": 7},
    ).spec
    found = rerun.unpacked(spec, [{"name": "x"}, 2])
    first, second = found.nodes
    assert first.spec is not None
    assert first.spec.args == [{"$parameter": "packed_2.0.name"}, {"$literal": {"$packed": ""}}]
    assert str(first.map) == "$parameter packed_2"
    assert second is spec.nodes[1]
    assert found.parameters == {"packed": 7, "packed_2": [{"name": "x"}, 2]}
    found.checked()
    assert rerun.unpacked(found, []) is found


def test_who_needs_the_run_before_is_named_if_it_runs_anew() -> None:
    found = ended(node("a", args=[{"$previous": "a"}])).end("a")
    assert rerun.without_previous(found.dag, ["a"]) is None
    assert rerun.without_previous(found.dag, []) == "a"
