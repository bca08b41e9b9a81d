"""Which results of a workflow another run of it can take over, by reference to the processes that have them.

What was successful or skipped is taken, unless it, or anything before it, is to run anew: because it is
asked for (`from_node`), refers to a parameter that changed, or did not end well. Parts of a node that maps
are taken one by one, if all before the node are. Nodes that a process added are taken with it, or run anew
with it: it is taken only if all of them can be. Pure: ends come in by `Dag`; readers check what is taken by
rules of their own (`colonies.core.workflow`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from colonies.core.dag import FINE, Dag
from colonies.core.flow import WorkflowSpec
from colonies.core.names import shown
from colonies.core.node import MAX_NODE_LEVELS, Node, adder_of, label_of, split
from colonies.core.references import Reference
from colonies.core.workflow_events import MAX_REUSED
from colonies.errors import Invalid

PACKED = "packed"  # the parameter that holds what a generator gave to the run before


def changed_spec(spec: WorkflowSpec, parameters: Mapping[str, Any]) -> tuple[WorkflowSpec, frozenset[str]]:
    """The spec with other values of its parameters, and the names of those that differ.

    Raises:
        Invalid: it has no such parameter.
    """
    for name in parameters:
        if name not in spec.parameters:
            near = get_close_matches(str(name)[:64], list(spec.parameters), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            declared = ", ".join(sorted(spec.parameters)) or "none"
            raise Invalid(f"parameter {shown(name)}: there is no such parameter{hint}; declared: {declared}")
    # 1 and true are equal in Python only.
    changed = frozenset(
        name for name, value in parameters.items() if _told_apart(value) != _told_apart(spec.parameters[name])
    )
    return replace(spec, parameters={**spec.parameters, **parameters}), changed


def unpacked(spec: WorkflowSpec, packed: Sequence[Any]) -> WorkflowSpec:
    """The spec of a generator's run as one of its own: what was packed for the run becomes a parameter."""
    if not any(r.kind == "packed" for node in spec.nodes for r in _used(node)):
        return spec
    name = next(n for n in (PACKED, *(f"{PACKED}_{i}" for i in range(2, 10_000))) if n not in spec.parameters)

    def value(item: Any) -> Any:
        if isinstance(item, list):
            return [value(inner) for inner in item]
        match item:
            case {"$literal": _}:
                return item
            case {"$packed": str(path)}:
                return {"$parameter": f"{name}.{path}" if path else name}
            case dict():
                return {key: value(inner) for key, inner in item.items()}
        return item

    nodes = []
    for node in spec.nodes:
        if any(r.kind == "packed" for r in _used(node)):
            wire = node.wire()
            for key in ("args", "kwargs", "map"):
                if key in wire:
                    wire[key] = value(wire[key])
            node = Node.read(wire)
        nodes.append(node)
    return replace(spec, nodes=tuple(nodes), parameters={**spec.parameters, name: list(packed)})


def _told_apart(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _told_apart(inner) for key, inner in value.items()}
    return (
        [_told_apart(inner) for inner in value] if isinstance(value, list) else (type(value).__name__, value)
    )


def without_previous(dag: Dag, taken: Iterable[str]) -> str | None:
    """A node that would run anew without the outputs of the cron's run before, to which it refers."""
    there = {split(label)[0] for label in taken}
    for node in dag.spec.nodes:
        if node.name not in there and any(r.kind == "previous" for r in _used(node)):
            return node.name
    return None


def another(name: str, spec: WorkflowSpec, before: WorkflowSpec, taken: Mapping[str, str]) -> str | None:
    """Why a node of `spec` cannot take its result from that of this name in `before` (see `unpacked`); None:
    it can. What a process added comes with that process."""
    node, old = spec.by_name.get(name), before.by_name.get(name)
    if node is None:
        return None if adder_of(name) in taken else "there is no such node"
    if old is None or _told_apart(node.wire()) != _told_apart(old.wire()):
        return "it is another node there"
    for reference in _used(node):
        given, was = spec.parameters, before.parameters
        if reference.kind == "parameter" and _told_apart(given[reference.name]) != _told_apart(
            was.get(reference.name)
        ):
            return f"its parameter {reference.name} had another value there"
    return None


def check_from(spec: WorkflowSpec, from_node: str) -> None:
    """Raises Invalid if there is no such node to run from."""
    if from_node in spec.by_name:
        return
    name, part = split(from_node)
    if part is not None and name in spec.by_name:
        raise Invalid(f"node {from_node}: a part of {name}; allowed: a node: {name}")
    for adder in _adders(from_node):
        if split(adder)[0] in spec.by_name:
            raise Invalid(
                f"node {shown(from_node)}: {adder} added it, if it was there; allowed: {split(adder)[0]}"
            )
    near = get_close_matches(from_node[:64], list(spec.by_name)[:1_000], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise Invalid(f"node {shown(from_node)}: the workflow has no such node{hint}")


def _adders(name: str) -> Iterable[str]:
    for _ in range(MAX_NODE_LEVELS):
        name, slash, _ = name.rpartition("/")
        if not slash:
            return
        yield name


def reused(dag: Dag, changed: frozenset[str] = frozenset(), from_node: str | None = None) -> list[str]:
    """The labels of the nodes and parts whose results another run of the workflow takes over, adders before
    what they added.

    `dag` is that of the workflow that has the results, `changed` the names of the parameters that differ.

    Raises:
        Invalid: these are too many.
    """
    anew: set[str] = set()
    found: list[str] = []
    for name in _in_order(dag.spec):
        node = dag.spec.by_name[name]
        if name == from_node or _refers(node, changed) or any(p in anew for p in dag.parents(node)):
            anew.add(name)
            continue
        labels, whole = _labels(dag, node, changed)
        found += labels
        if not whole:
            anew.add(name)
    if len(found) > MAX_REUSED:
        raise Invalid(f"{len(found)} results to take over; at most {MAX_REUSED} are allowed")
    return found


def _in_order(spec: WorkflowSpec) -> list[str]:
    """Parents first, and those that run last behind all others."""
    return sorted(spec.order, key=lambda name: spec.by_name[name].last)


def _refers(node: Node, changed: frozenset[str]) -> bool:
    return any(reference.kind == "parameter" and reference.name in changed for reference in _used(node))


def _used(node: Node) -> tuple[Reference, ...]:
    return (*node.references, *([node.map] if node.map is not None else ()))


def _labels(dag: Dag, node: Node, changed: frozenset[str]) -> tuple[list[str], bool]:
    """What of a node can be taken over; is it all of the node?"""
    if node.map is None or dag.ends(node.name) is not None:
        labels = _taken(dag, node.name, changed)
        return labels or [], labels is not None
    parts = dag.parts(node)
    if not isinstance(parts, int):
        return [], False
    found: list[str] = []
    whole = True
    for number in range(parts):
        labels = _taken(dag, label_of(node.name, number), changed)
        found += labels or []
        whole = whole and labels is not None
    return found, whole


def _taken(dag: Dag, label: str, changed: frozenset[str]) -> list[str] | None:
    """A process and all that were added by it, if all of that ended well."""
    end = dag.ends(label)
    if end is None or end.state not in FINE:
        return None
    found = [label]
    for added in end.adds:
        labels, whole = _labels(dag, added, changed)
        if not whole or _refers(added, changed):
            return None
        found += labels
    return found
