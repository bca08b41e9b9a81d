"""What must hold of the workflows of a ledger that is read whole, in other words than the rules have it.

`colonies.core.dag` says what may be said of a node, and every reader asks it, so a mistake there is
everybody's. Here it is not asked: whenever a valid event moved a node on, the node is held against the
workflow as it was asked for, and against the processes before it as they are then. Nothing is found where
the rules are right. Pure; in all it costs as much as there are dependencies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from colonies.core.node import Node, adder_of, split
from colonies.core.states import CancelledForGood, Process, Running, Successful, derived_id
from colonies.core.workflow import Workflow

FINE = ("successful", "skipped")


def doubts(
    before: Process | None, process: Process, workflow: Workflow | None, processes: Mapping[str, Process]
) -> Iterator[str]:
    """What cannot be of a node's process that was `before` and now is this one, in sentences.

    `processes` are all there are now, by id.
    """
    label = process.node or ""
    if before is not None and before.final:
        yield f"node {label} had ended, and went on"
    if workflow is None or workflow.sequence >= process.sequence:
        yield f"node {label} is of no workflow that was submitted before it"
        return
    if process.id != derived_id("node", workflow.id, label):
        yield f"its id is not that of node {label} of workflow {workflow.id}"
    if label in (workflow.reuses or {}):
        yield f"node {label} has its result from another workflow"
    node = _node(workflow, label, processes)
    if node is None:
        yield f"workflow {workflow.id} has no node {label}"
    elif _moves_on(before, process):
        yield from _too_early(workflow, node, label, processes)


def _moves_on(before: Process | None, process: Process) -> bool:
    """Did it just begin, or was it just taken?"""
    if isinstance(process.phase, CancelledForGood):
        return False
    taken = isinstance(process.phase, Running) and before is not None and before.attempts != process.attempts
    return before is None or taken


def _too_early(workflow: Workflow, node: Node, label: str, processes: Mapping[str, Process]) -> Iterator[str]:
    """All that its node names have ended, and ended well where they must."""
    names = [other.name for other in workflow.spec.nodes if not other.last] if node.last else node.parents
    for name in names:
        parent = _node(workflow, name, processes)
        allowed = node.last or (parent is not None and parent.allow_failure)
        for found in _processes(workflow, name, parent, processes):
            if found is None or not found.final:
                yield f"node {label} goes on, and {name} before it has not ended"
            elif not allowed and found.state not in FINE:
                yield f"node {label} goes on, and {name} before it {found.state}"


def _processes(
    workflow: Workflow, name: str, node: Node | None, processes: Mapping[str, Process]
) -> list[Process | None]:
    """The process of a node, or those of the parts of it that there are."""
    whole = processes.get(_id(workflow, name))
    if whole is not None or node is None or node.map is None:
        return [whole]
    found: list[Process | None] = []
    while (part := processes.get(_id(workflow, f"{name}[{len(found)}]"))) is not None:
        found.append(part)
    return found


def _id(workflow: Workflow, label: str) -> str:
    return (workflow.reuses or {}).get(label) or derived_id("node", workflow.id, label)


def _node(workflow: Workflow, label: str, processes: Mapping[str, Process]) -> Node | None:
    """The node of a label: as it was asked for, or as the process that added it said."""
    name, part = split(label)
    found = workflow.spec.by_name.get(name)
    if found is None and (adder := adder_of(name)) is not None:
        process = processes.get(_id(workflow, adder))
        adds = process.phase.adds if process is not None and isinstance(process.phase, Successful) else ()
        found = next((added for added in adds if added.name == name), None)
    return found if found is None or part is None or found.map is not None else None
