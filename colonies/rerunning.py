"""Runs again what has ended: a process as a new one of the same spec, a workflow as a new one that takes
over, by reference, what it can of the results of another.

What that is says `colonies.core.rerun`; readers judge it once more by the ledger. It waits for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colonies.core import rerun as rerun_
from colonies.core.node import split
from colonies.core.plain import checked_value
from colonies.core.process import keyed_id
from colonies.core.process_events import Queued, Submitted
from colonies.core.workflow import dag_of
from colonies.errors import Conflict, Invalid
from colonies.flows import submit_workflow
from colonies.history import Story
from colonies.ids import new_id
from colonies.looking import workflow_now
from colonies.missing import not_found

MAX_KEY_CHARS = 200  # with the id of a process it is a key of a submission

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


async def rerun_process(
    client: Client, id: str, key: str | None = None, story: Story | None = None
) -> tuple[str, bool]:
    """Submit the spec of a process that has ended once more; the new process's id, and whether it was there
    by its key already. `story` is the process's, if it was read. See `Handle.rerun`."""
    process = (story or await client.session.story(id)).process
    if process is None:
        raise await not_found(client.session, "process", id)
    if process.workflow is not None:
        raise Invalid(
            f"process {id} is node {process.node} of a workflow, and runs again with that only: "
            f"`colonies workflow rerun {process.workflow} --from {split(process.node or '')[0]}`"
        )
    if not process.final:
        raise Conflict(f"process {id} is {process.state}; wait for its end or cancel it, then run it again")
    key = checked_key(key)
    again = key_of(key, id) if key is not None else None
    event, queue = await client.prepare(process.spec, again, process.arguments)
    new = keyed_id(client.name, again) if again is not None else new_id()
    _, existed = await client.record_submission(new, event, queue)
    return new, existed


def is_rerun(story: Story, submitter: str, key: str) -> bool:
    """Was the process made by this member by running another again with this key?"""
    first = story.judged[0].record if story.judged else None
    own = first.event.key if first is not None and isinstance(first.event, Queued | Submitted) else None
    return first is not None and first.author == submitter and own is not None and own.startswith(f"{key}/")


def checked_key(key: str | None, where: str = "key") -> str | None:
    """A key for reruns, from which keys of processes are made. Raises Invalid."""
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
        raise Invalid(f"{where}: it has {len(key)} characters; 1 to {MAX_KEY_CHARS} are allowed")
    return key


def key_of(key: str, process: str) -> str:
    """The key under which a process is run again: whoever repeats it with the same key gets the same one."""
    return f"{key}/{process}"
