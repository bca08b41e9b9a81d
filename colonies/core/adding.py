"""What a running process adds to its workflow: nodes, named by it, that run after it.

They are in its `completed`, so they exist exactly if that attempt counts. Here they get the names that they
have in the workflow; when they run is `colonies.core.dag`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from colonies.core.flow import WorkflowSpec, misread
from colonies.core.names import shown
from colonies.core.node import MAX_NODE_CHARS, MAX_NODE_LEVELS, Node, fits, split
from colonies.core.references import renamed
from colonies.errors import Invalid

EXAMPLE: Final = '[{"name": "count", "func": "wc -w", "conditions": {"runtimetype": "cli"}}]'


def read(said: object, adder: str, where: str) -> tuple[tuple[Node, ...], bool]:
    """The nodes that a program writes down for its workflow, as in a workflow's file, and whether they stand
    `between` it and its children: a list of nodes, or an object `{"nodes": [...], "between": true}`.

    Raises:
        Invalid: it makes no sense, or no DAG with the adder; names the node.
    """
    rest = {"nodes": said} if isinstance(said, list) else said
    if not isinstance(rest, dict) or not isinstance(rest.get("nodes"), list):
        raise Invalid(
            f"{where}: {shown(said)} holds no list of nodes; allowed: a list such as {EXAMPLE}, or an object "
            f'such as {{"between": true, "nodes": {EXAMPLE}}}'
        )
    if unknown := [shown(key) for key in rest if key not in ("nodes", "between")]:
        raise Invalid(f"{where}: {', '.join(unknown[:5])}: unknown; allowed: nodes, between")
    between = rest.get("between", False)
    if not isinstance(between, bool):
        raise Invalid(f"{where}: between: {shown(between)}; allowed: true or false")
    for number, node in enumerate(rest["nodes"]):
        if isinstance(node, dict) and "nodes" in node:
            raise Invalid(
                f"{where}: nodes[{number}]: a workflow in a workflow; allowed: its nodes one by one"
            )
    nodes = WorkflowSpec.read({"nodes": rest["nodes"]}, where=where, whole=False).nodes
    check(nodes, adder)
    return nodes, between


def check(adds: Sequence[Node], adder: str) -> None:
    """Raises Invalid: as `placed`, or a condition names what is no parent (see `WorkflowSpec.sensible`)."""
    for node in placed(adds, adder) if adds else ():
        for problem in misread(node, node.parents):
            raise Invalid(f"nodes added by {adder}: {problem}")


def placed(adds: Sequence[Node], adder: str) -> tuple[Node, ...]:
    """Nodes that a process added, with the names that they have in its workflow: `adder/name`.

    Each depends on the process that added it, and on those added with it whose names it says. The adder's own
    output has the last part of its name.

    Raises:
        Invalid: they make no DAG with it.
    """
    where = f"nodes added by {adder}"
    own = split(adder)[0].rpartition("/")[2]
    names = {node.name for node in adds}
    if own in names:
        raise Invalid(f"{where}: node {own}: it has the name of the node that adds it; each has its own")
    if any("/" in node.name or node.last for node in adds):
        raise Invalid(f"{where}: their names have no /, and none runs last (finally)")
    _check_parents(adds, own, where)
    WorkflowSpec(
        tuple(replace(node, parents=tuple(p for p in node.parents if p != own)) for node in adds)
    ).checked(where)

    def outer(name: str) -> str:
        return f"{adder}/{name}" if name in names else adder

    found = tuple(_placed(node, f"{adder}/{node.name}", adder, outer) for node in adds)
    for node in found:
        if not fits(node.name):
            raise Invalid(
                f"{where}: {node.name}: added by what was added, too deep; allowed: {MAX_NODE_LEVELS} levels "
                f"and {MAX_NODE_CHARS} characters"
            )
    return found


def _check_parents(adds: Sequence[Node], own: str, where: str) -> None:
    """What is added waits for what adds it and for what is added with it, all by their short names."""
    names = {node.name for node in adds}
    for node in adds:
        for parent in node.parents:
            if parent in names or parent == own:
                continue
            short = split(parent)[0].rpartition("/")[2]
            there = [own, *sorted(names - {node.name})]
            known = short != parent and short in there
            right = f"here it is called {short}" if known else f"allowed: {', '.join(there[:6])}"
            raise Invalid(
                f"{where}: node {node.name}: it depends on {shown(parent)}, and there is no such node among "
                f"these; {right}"
            )


def _placed(node: Node, name: str, adder: str, outer: Callable[[str], str]) -> Node:
    spec, mapped = node.spec, node.map
    if spec is not None and node.references:
        args, kwargs = renamed(spec.args, outer), renamed(spec.kwargs, outer)
        spec = spec.model_copy(update={"args": args, "kwargs": kwargs})
    if mapped is not None and mapped.kind == "output":
        mapped = replace(mapped, name=outer(mapped.name))
    return replace(
        node,
        name=name,
        spec=spec,
        parents=tuple(dict.fromkeys((adder, *map(outer, node.parents)))),
        dependencies=tuple(map(outer, node.dependencies)),
        references=tuple(
            replace(r, name=outer(r.name)) if r.kind == "output" else r for r in node.references
        ),
        map=mapped,
    )
