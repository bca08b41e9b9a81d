"""The queues' consumers: made when a queue is declared, made anew when they are lost, gone when unused.

A queue is unused while nothing in it is open, nothing that it handed out is unacknowledged, and nobody waits
at it. One that was unused at every look for long enough is retired: on the ledger first, then its consumer
goes. Nothing is lost if somebody submits to it at that very moment: its queue is declared again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable

import structlog

from colonies.core.colony import Queue
from colonies.core.events import Declared, Retired
from colonies.core.process import Process
from colonies.errors import ColoniesError, Conflict
from colonies.history import History
from colonies.ledger import Machinery
from colonies.reoffering import offer_of
from colonies.session import Session

RETIRE_AFTER_S = 3_600.0
LOOKS = 30  # in that time, at least
AGAIN_S = 1.0

_log = structlog.get_logger("colonies.orchestrator")


async def apart(step: Awaitable[None], what: str, **about: str) -> bool:
    """One step of many, so that its failure is its own. Did it succeed?"""
    try:
        await step
    except ColoniesError as error:
        _log.warning("failed, tried again", doing=what, error=str(error), **about)
    except Exception:
        _log.exception("failed, tried again", doing=what, **about)
    else:
        return True
    return False


class QueueKeeper:
    """Keeps the consumers of the colony that `history` follows."""

    def __init__(self, session: Session, machinery: Machinery, history: History, after_s: float) -> None:
        self.pause_s = after_s / LOOKS
        self._session = session
        self._machinery = machinery
        self._history = history
        self._after_s = after_s
        self._made: dict[str, tuple[int, float]] = {}  # where it was declared, its lease
        self._make_again_at: dict[str, float] = {}
        self._unused_since: dict[str, float] = {}

    async def make(self) -> None:
        """Make the consumers of all queues that have none from us, and adjust those of another lease."""
        colony = self._history.colony
        for queue in list(colony.queues.values()):
            wait = time.monotonic() < self._make_again_at.get(queue.id, 0.0)
            if self._made.get(queue.id) == (queue.declared, colony.lease_s) or wait:
                continue
            if not await apart(self._make(queue, colony.lease_s), "making a queue", queue=queue.id):
                self._make_again_at[queue.id] = time.monotonic() + AGAIN_S

    async def make_anew(self, queue: str) -> None:
        """Make the consumer of a queue that has lost it."""
        declared = self._history.colony.queues.get(queue)
        if declared is not None:
            _log.warning("a queue lost its consumer, or it was tampered with; made anew", queue=queue)
            await self._make(declared, self._history.colony.lease_s)

    async def _make(self, queue: Queue, lease_s: float) -> None:
        state = await self._machinery.queue_state(queue.id)
        kept = state is not None and state.sound
        start = queue.declared if kept else self._first_open_offer(queue)
        await self._machinery.make_queue(queue.id, start=start, lease_s=lease_s)
        self._made[queue.id] = (queue.declared, lease_s)
        _log.debug("queue ready", queue=queue.id)

    def _first_open_offer(self, queue: Queue) -> int:
        """Where a consumer that is made anew must begin, so that no open offer is passed over."""
        of_queue = [process for process in self._history.processes.values() if process.queue == queue.id]
        offers = [offer for process in of_queue if (offer := offer_of(process))]
        return min(offers, default=max(queue.declared, self._history.position))

    async def declare_again(self, process: Process) -> None:
        """The submitter of this process did not hear that its queue was retired."""
        conditions = process.spec.conditions.model_copy(update={"dependencies": []})
        with contextlib.suppress(Conflict):
            event = Declared(conditions, process.spec.priority)
            await self._session.record_entity("queue", process.queue, event)

    async def retire(self) -> list[str]:
        """Look once at each queue and retire those that are due; returns these."""
        floor = self._history.position
        in_use = {process.queue for process in self._history.processes.values() if not process.final}
        retired: list[str] = []
        for queue in list(self._history.colony.queues):
            # Who pauses a queue means to go on with it; and nobody can use it meanwhile.
            if self._history.colony.is_paused(queue) or queue in in_use or await self._is_pulled(queue):
                self._unused_since.pop(queue, None)
                continue
            since = self._unused_since.setdefault(queue, time.monotonic())
            due = time.monotonic() - since >= self._after_s
            if due and await apart(self._retire(queue, floor), "retiring a queue", queue=queue):
                retired.append(queue)
        return retired

    async def _is_pulled(self, queue: str) -> bool:
        state = await self._machinery.queue_state(queue)
        return state is not None and (state.pulls > 0 or state.pending > 0)

    async def _retire(self, queue: str, floor: int) -> None:
        del self._unused_since[queue]
        await self._session.record_entity("queue", queue, Retired(floor))
        self._made.pop(queue, None)
        await self._machinery.delete_queue(queue)
        _log.info("queue retired", queue=queue, unused_s=self._after_s)
