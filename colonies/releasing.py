"""A worker releases what waits for nothing but the process that it just finished: that saves a detour.

The service does the same a moment later for whatever was left out here, so nothing depends on this. A release
that another said first is as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from colonies.core.dag import Run
from colonies.core.events import Released
from colonies.core.node import Node
from colonies.core.nodes import spec_of
from colonies.core.process import Process, Successful
from colonies.core.spec import queue_of
from colonies.core.workflow import Workflow, dag_of, node_id
from colonies.errors import ColoniesError
from colonies.history import Story
from colonies.session import Session

AT_ONCE = 64
MAX_RELEASED = 256  # children of one process; if there are more, the service releases them all

_log = structlog.get_logger("colonies.worker")


def left_to_workers(workflow: Workflow) -> Iterator[str]:
    """The ids of the processes of a workflow after whose success only their worker has something to say, as
    far as the workflow's own event tells."""
    spec = workflow.spec
    for node in spec.nodes:
        children = [spec.by_name[name] for name in spec.children.get(node.name, ())]
        if node.map is None and 0 < len(children) <= MAX_RELEASED and all(map(_is_workers, children)):
            yield workflow.process_of(node.name)


def _is_workers(node: Node) -> bool:
    """Is it a node that a worker may release when it finished its only parent?"""
    waits_for_more = node.map is not None or node.when is not None or node.wait_signal is not None
    return len(node.parents) == 1 and not (waits_for_more or node.last or (node.spec and node.spec.limits))


async def release_children(session: Session, process: Process) -> None:
    """Release the children of a node that this member finished and whose only parent it is. Never raises."""
    knowledge = session.knowledge
    workflow = knowledge.workflow(process.workflow or "")
    if workflow is None or process.node is None or process.state != "successful":
        return
    knowledge.remember(process)
    children = [workflow.spec.by_name[name] for name in workflow.spec.children.get(process.node, [])]
    if isinstance(process.phase, Successful):
        children += process.phase.adds
    if not 0 < len(children) <= MAX_RELEASED or workflow.cancelled_at is not None:
        return
    dag = dag_of(workflow, knowledge)
    now = await session.ledger.now()
    ready: list[tuple[str, Released, str]] = []
    for node in children:
        name = node.name
        if node.last or len(node.parents) != 1 or name in (workflow.reuses or {}):
            continue
        if node.spec is not None and node.spec.limits:  # it needs a place first, and the service grants it
            continue
        say = dag.decide(name)
        if isinstance(say, Run) and say.until <= now:
            spec = spec_of(workflow, node)
            released = Released(workflow.id, name, list(say.cites))
            ready.append((node_id(workflow.id, name), released, queue_of(spec.conditions, spec.priority)))
    for start in range(0, len(ready), AT_ONCE):
        await asyncio.gather(*(_release(session, *one) for one in ready[start : start + AT_ONCE]))


async def _release(session: Session, id: str, event: Released, queue: str) -> None:
    try:
        await session.record(id, event, at=Story(None, [], 0), queue=queue, once=True)
    except ColoniesError as error:
        _log.debug("not released here", process=id, reason=str(error))
    except Exception:
        _log.exception("not released here", process=id)
