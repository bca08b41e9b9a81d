"""A worker releases what waits for nothing but the process that it just finished: that saves a detour.

The service does the same a moment later for whatever was left out here, so nothing depends on this. A release
that another said first is as well.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator

import structlog

from colonies import subjects
from colonies.core.dag import Run
from colonies.core.events import Released
from colonies.core.node import Node
from colonies.core.nodes import spec_of
from colonies.core.process import Process, Successful
from colonies.core.spec import queue_of
from colonies.core.workflow import Workflow, dag_of, node_id
from colonies.errors import ColoniesError
from colonies.history import Story
from colonies.ledger import Stored
from colonies.session import Session

AT_ONCE = 64
OWN_KEPT = 4_096  # releases, to know their offers again
MAX_RELEASED = 256  # children of one process; if there are more, the service releases them all

_log = structlog.get_logger("colonies.worker")


def left_to_workers(workflow: Workflow) -> Iterator[str]:
    """The ids of the processes of a workflow after whose success only their worker has something to say, as
    far as the workflow's own event tells."""
    spec = workflow.spec
    for node in spec.nodes:
        children = [spec.by_name[name] for name in spec.children.get(node.name, ())]
        all_run = all(may_release(child) and child.when is None for child in children)
        if node.map is None and 0 < len(children) <= MAX_RELEASED and all_run:
            yield workflow.process_of(node.name)


def may_release(node: Node) -> bool:
    """Is it a node that the worker which finished its only parent may release? One with limits needs a place
    first, and that the service grants."""
    limited = node.spec is not None and node.spec.limits
    for_more = node.last or node.map is not None or node.wait_signal is not None or limited
    return len(node.parents) == 1 and not for_more


class Releases:
    """What one instance releases, as a member with this session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: OrderedDict[str, asyncio.Future[Story | None]] = OrderedDict()

    async def story_of(self, offer: Stored) -> Story | None:
        """The story of a process that nothing was said of but this offer, and that by us: we signed these
        bytes, and judged them. None: look at it as at any other."""
        if subjects.author_of(offer.subject) != self._session.name:
            return None
        releasing = self._own.pop(subjects.process_of(offer.subject), None)
        story = await releasing if releasing is not None else None
        return story if story is not None and story.guard == offer.sequence else None

    async def release_children(self, process: Process) -> None:
        """Release the children of a node that this member finished and whose only parent it is. Never
        raises."""
        knowledge = self._session.knowledge
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
        now = await self._session.ledger.now()
        ready: list[tuple[str, Released, str]] = []
        for node in children:
            name = node.name
            if not may_release(node) or name in (workflow.reuses or {}):
                continue
            say = dag.decide(name)
            if isinstance(say, Run) and say.until <= now:
                spec = spec_of(workflow, node)
                released = Released(workflow.id, name, list(say.cites))
                queue = queue_of(spec.conditions, spec.priority)
                ready.append((node_id(workflow.id, name), released, queue))
        if len(ready) == 1:  # the way of a chain: no task between
            await self._release(*ready[0])
            return
        for start in range(0, len(ready), AT_ONCE):
            await asyncio.gather(*(self._release(*one) for one in ready[start : start + AT_ONCE]))

    async def _release(self, id: str, event: Released, queue: str) -> None:
        story: Story | None = None
        releasing = self._own[id] = asyncio.get_running_loop().create_future()
        if len(self._own) > OWN_KEPT:
            self._own.popitem(last=False)
        try:
            at = Story(None, [], 0)
            story = await self._session.record(id, event, at=at, queue=queue, once=True)
        except ColoniesError as error:
            _log.debug("not released here", process=id, reason=str(error))
        except Exception:
            _log.exception("not released here", process=id)
        finally:
            releasing.set_result(story)
