"""Runs a workflow again: a new one that takes over, by reference, what it can of the results of another.

What that is says `colonies.core.rerun`; readers judge it once more by the ledger. It waits for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colonies.core import rerun as rerun_
from colonies.core.plain import checked_value
from colonies.core.workflow import dag_of
from colonies.errors import Conflict, Invalid
from colonies.flows import submit_workflow
from colonies.looking import workflow_now

if TYPE_CHECKING:
    from colonies.client import Client


async def rerun(client: Client, id: str, from_node: str | None, parameters: Mapping[str, Any]) -> str:
    """Submit a workflow that reuses what it can of another; its id. See `WorkflowHandle.rerun`."""
    spec = (before := await client.session.workflow(id)).spec
    if from_node is not None:
        rerun_.check_from(spec, from_node)
    spec, changed = rerun_.changed_spec(
        spec, {name: checked_value(value, f"parameter {name}") for name, value in parameters.items()}
    )
    now = await workflow_now(client, id)
    if not now.final:
        raise Conflict(f"workflow {id} is running; wait for its end or cancel it, then run it again")
    before = now.workflow
    dag = dag_of(before, client.session.knowledge)
    taken = rerun_.reused(dag, changed, from_node)
    lacking = rerun_.without_previous(dag, taken)
    if lacking is not None and (before.rerun_of is not None or (before.source and before.source.previous)):
        raise Invalid(f"node {lacking}: it refers to the run before ($previous), and a rerun has none")
    reuses = {label: before.process_of(label) for label in taken}
    return await submit_workflow(client, rerun_.unpacked(spec, before.packed), rerun_of=id, reuses=reuses)
