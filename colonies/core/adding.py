"""Nodes that a process adds to its workflow when it completes: the names that they have there.

Whoever completes says their names as it knows them; in the workflow each stands below the process that added
it, so it takes no other's place. Pure; when they are released is `colonies.core.dag`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from colonies.core.flow import WorkflowSpec
from colonies.core.names import shown
from colonies.core.node import MAX_MAPPED, MAX_NODE_CHARS, MAX_NODE_LEVELS, Node, label_of, split
from colonies.errors import Invalid


def placed(adds: Sequence[Node], adder: str) -> tuple[Node, ...]:
    """Nodes that a process added, with the names that they have in its workflow: `adder/name`.

    Each depends on the process that added it, and on those added with it whose names it says.

    Raises:
        Invalid: they make no DAG with it, or cannot bear such names.
    """
    where = f"nodes added by {adder}"
    own, _ = split(adder)
    short = own.rpartition("/")[2]
    names = {node.name for node in adds}
    for node in adds:
        if "/" in node.name or node.last:
            raise Invalid(f"{where}: {node.name}: their names have no /, and none runs last (finally)")
        label = label_of(f"{adder}/{node.name}", MAX_MAPPED if node.map is not None else None)
        if node.name == short:
            raise Invalid(f"{where}: {node.name}: that is what they call the one that added them")
        if len(label) > MAX_NODE_CHARS or label.count("/") >= MAX_NODE_LEVELS:
            raise Invalid(
                f"{where}: {shown(label)}: at most {MAX_NODE_LEVELS} levels and {MAX_NODE_CHARS} characters"
            )
    spec = WorkflowSpec(
        tuple(replace(node, parents=tuple(p for p in node.parents if p != short)) for node in adds)
    )
    spec.checked(where)

    def outer(name: str) -> str:
        return f"{adder}/{name}" if name in names else adder

    return tuple(
        replace(
            node,
            name=f"{adder}/{node.name}",
            parents=tuple(dict.fromkeys((adder, *map(outer, node.parents)))),
            dependencies=tuple(map(outer, node.dependencies)),
            references=tuple(
                replace(r, name=outer(r.name)) if r.kind == "output" else r for r in node.references
            ),
            map=replace(node.map, name=outer(node.map.name))
            if node.map and node.map.kind == "output"
            else node.map,
        )
        for node in adds
    )
