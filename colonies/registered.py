"""Which living workers registered a function: a worker that lacks it leaves the process to them.

A worker says its functions when it starts (`worker.started`), and that it lives in its heartbeats. Both are
verified, and still only a hint: it decides whether an offer is put off for a moment or taken, never what is
true. Nothing is recorded of it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from colonies import subjects
from colonies.core.capacity import Candidate, Capacity, serves
from colonies.core.events import WorkerStarted
from colonies.core.process import SECOND
from colonies.core.spec import Conditions, Spec
from colonies.heartbeats import read_heartbeat
from colonies.ledger import Delivery
from colonies.pulling import Puller
from colonies.session import Session
from colonies.worker import Worker

FRESH_S = 1.0
GONE_S = 30.0  # how long one that fell silent is waited for: it may be starting anew
GONE_LEASES = 3
PUT_OFF_S = 0.02  # of an offer, doubled each time it comes again
_PUT_OFF_MOST_S = 1.0  # less than the orchestrator takes to call an offer lost
UNRESTED = 16  # put off in a row: among work that is mixed the next may be ours
REST_S = 0.2  # of the queue from then on, doubled each time, so that a backlog of others' work costs little
_REST_MOST_S = 1.0

_MOST_DOUBLED = 16


@dataclass(frozen=True, slots=True)
class _Instance:
    """A living instance, with what it said when it started."""

    candidate: Candidate
    functions: frozenset[str]


class Registered:
    """What the other instances of this runtime type have, looked up at most once in FRESH_S."""

    def __init__(self, session: Session, worker: Worker) -> None:
        self._session = session
        self._worker = worker
        self._living: dict[tuple[str, str], _Instance | None] = {}
        self._looked_at = -FRESH_S
        self._looking = asyncio.Lock()
        self._put_off: dict[str, int] = {}  # by queue: how many in a row

    async def leaves(self, delivery: Delivery, spec: Spec, puller: Puller | None) -> bool:
        """Is the offer one for others, who have the function that we lack? Then it is put off for a moment,
        and after many in a row we pull nothing of its queue for a while. Raises Unavailable."""
        queue = delivery.queue
        if not self._worker.lacks(spec.func):
            self._put_off.pop(queue, None)
            return False
        if not await self.elsewhere(spec.func, spec.conditions):
            return False
        in_a_row = self._put_off[queue] = min(self._put_off.get(queue, 0) + 1, UNRESTED + _MOST_DOUBLED)
        if puller is not None and in_a_row > UNRESTED:
            puller.rest(queue, min(_REST_MOST_S, REST_S * 2.0 ** (in_a_row - UNRESTED - 1)))
        again = min(delivery.deliveries, _MOST_DOUBLED)
        await delivery.nak(min(_PUT_OFF_MOST_S, PUT_OFF_S * 2.0 ** (again - 1)))
        return True

    async def elsewhere(self, func: str, conditions: Conditions) -> bool:
        """Does a living worker that may take from such a queue have this function? Raises Unavailable."""
        async with self._looking:
            if time.monotonic() - self._looked_at >= FRESH_S:
                await self._look()
                self._looked_at = time.monotonic()
        return any(
            one is not None and func in one.functions and serves(conditions, one.candidate)
            for one in self._living.values()
        )

    async def _look(self) -> None:
        ledger, colony = self._session.ledger, self._session.colony
        oldest = await ledger.now() - int(max(GONE_S, GONE_LEASES * colony.lease_s) * SECOND)
        living: dict[tuple[str, str], _Instance | None] = {}
        for stored in await ledger.emitted(subjects.heartbeat("*", "*")):
            beat = read_heartbeat(colony, stored)
            if beat is not None and beat.time >= oldest and beat.runtimetype == self._worker.runtimetype:
                living[beat.worker, beat.instance] = self._living.get((beat.worker, beat.instance))
        for name in sorted({name for (name, _), known in living.items() if known is None}):
            async for batch in ledger.scan(0, subjects.guard_of("worker", name)):
                for stored in batch:
                    if not subjects.says(stored.subject, "started"):
                        continue
                    event = (await self._session.examine(stored)).record
                    if event is None or not isinstance(event.event, WorkerStarted):
                        continue
                    said = event.event
                    if (name, said.instance) in living:
                        candidate = Candidate(name, said.runtimetype, said.has or Capacity())
                        functions = frozenset(function.name for function in said.functions)
                        living[name, said.instance] = _Instance(candidate, functions)
        self._living = living
