"""The ledger from some point on, each event judged: first what is there, then what comes, with no gap.

What is told is read from the ledger, by sequence; the broker's feed, which may lose, only wakes. What the
colony is (members, queues, crons, workers) is folded from the first event, for it is little; a process is
read whole when the first of its events comes by. So it costs what is asked for, wherever one begins.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from colonies import subjects
from colonies.core.colony import Colony
from colonies.core.events import Cancelled, Received
from colonies.core.generators import Chain
from colonies.core.process import Process
from colonies.core.states import ULID
from colonies.errors import Invalid, NotFound, Unavailable
from colonies.history import History, Judged, examine, judge_generator, judge_process
from colonies.ledger import Stored
from colonies.session import Session
from colonies.show_event import attempt_of, numbered

LOOK_AGAIN_S = 30.0
AGAIN_S = 0.5
MAX_PROCESSES = 10_000  # that are kept between two of their events
AT_ONCE = 64  # processes that are read together

_COLONY_PATTERNS = (*subjects.TRUST, subjects.QUEUES, subjects.CRONS, subjects.WORKERS)
_OF_COLONY = tuple(pattern.removesuffix(">") for pattern in _COLONY_PATTERNS)


@dataclass(frozen=True, slots=True)
class Told:
    """A judged message of the ledger, the number of the attempt that it speaks of, and the workflow that it
    is about, or its process is a node of."""

    seen: Judged
    attempt: int | None = None
    workflow: str | None = None


def everything(stored: Stored) -> bool:
    """All messages are wanted."""
    return True


async def follow(session: Session, after: int | None = None) -> AsyncGenerator[Judged, None]:
    """As `tell`, live, of all messages, without what else is told of them."""
    async with aclosing(tell(session, after)) as feed:
        async for told in feed:
            yield told.seen


async def tell(
    session: Session,
    after: int | None = None,
    *,
    wanted: Callable[[Stored], bool] = everything,
    live: bool = True,
) -> AsyncGenerator[Told, None]:
    """The messages of the ledger behind the sequence `after`, judged, in order; None: from now on.

    If `live` it goes on with what comes, and waits while the broker is away; else it ends with what there is.
    Messages that are not `wanted` (by a look at their subject) are passed over, unjudged where that can be.

    Raises:
        Invalid: the ledger does not reach as far as `after`.
        Refused: this member was revoked meanwhile. Unavailable: the session was closed, or not `live`.
    """
    ledger = session.ledger
    async with AsyncExitStack() as stack:
        woken = asyncio.Event()
        lost = asyncio.create_task(ledger.lost(), name="connection")
        stack.push_async_callback(_cancel, lost)
        if live:
            subscription = await ledger.subscribe("feed.>", lambda _: woken.set())
            stack.push_async_callback(subscription.close)
            session.ears.add(woken.set)
            stack.callback(session.ears.discard, woken.set)
        last = await ledger.last_sequence()
        reader = Reader(session, checked_after(last if after is None else after, last))
        while True:
            woken.clear()
            wait_s = LOOK_AGAIN_S
            try:
                async with aclosing(reader.read(wanted)) as found:
                    async for told in found:
                        yield told
            except (Unavailable, NotFound):
                if not live:
                    raise
                wait_s = AGAIN_S
            if not live:
                return
            await _first(woken, lost, wait_s)


def checked_after(after: int, last: int) -> int:
    """A position in a ledger that ends at `last`. Raises Invalid."""
    if not 0 <= after <= last:
        raise Invalid(f"after: {after}; the ledger has the sequences 1 to {last}, and 0 is before the first")
    return after


async def _first(woken: asyncio.Event, lost: asyncio.Task[None], wait_s: float) -> None:
    """Wait until something was heard, or for a while. Raises why this member is let in no more."""
    waking = asyncio.create_task(woken.wait(), name="feed")
    try:
        await asyncio.wait({waking, lost}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(waking)
    if lost.done():
        await lost


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass(slots=True)
class _Known:
    """A process that came by: it as of `guard`, and what of it was judged and not told yet."""

    process: Process | None
    guard: int
    judged: dict[int, tuple[Judged, int | None]]


class Reader:
    """Judges the ledger from the position `after` on, each time up to what there is."""

    def __init__(self, session: Session, after: int) -> None:
        self.position = after
        self._session = session
        self._history = History(Colony(session.ledger.colony))
        self._folded = False
        self._processes: OrderedDict[str, _Known] = OrderedDict()

    async def read(self, wanted: Callable[[Stored], bool] = everything) -> AsyncGenerator[Told, None]:
        """What was stored behind the position. Raises Unavailable: next time it goes on from there."""
        if not self._folded:
            await self._fold_colony()
        async for batch in self._session.ledger.scan(self.position):
            for start in range(0, len(batch), AT_ONCE):
                some = batch[start : start + AT_ONCE]
                await self._read_together([stored for stored in some if wanted(stored)])
                for stored in some:
                    if not wanted(stored):
                        self._pass(stored)
                        self.position = stored.sequence
                        continue
                    told = await self._judge(stored)
                    self.position = stored.sequence
                    yield told

    async def _fold_colony(self) -> None:
        """Fold what stands before the position; what comes later is folded when it comes by."""
        found: list[Stored] = []
        for pattern in _COLONY_PATTERNS:
            async for batch in self._session.ledger.scan(0, pattern):
                found += [stored for stored in batch if stored.sequence <= self.position]
                if batch[-1].sequence > self.position:
                    break
        for stored in sorted(found, key=lambda stored: stored.sequence):
            self._history.add(stored)
        self._folded = True

    # --- judging -------------------------------------------------------------------------------------

    def _pass(self, stored: Stored) -> None:
        """Nobody wants this one; but what it changes must be known."""
        subject = subjects.parse(stored.subject)
        if stored.subject.startswith(_OF_COLONY):
            self._history.add(stored)
        elif subject is not None and subject.kind == "generator":
            if subject.entity in self._history.generators:
                self._history.add(stored)
        elif subject is not None and subject.kind == "process":
            known = self._processes.get(subject.entity)
            if known is not None and known.judged.pop(stored.sequence, None) is None:
                del self._processes[subject.entity]

    async def _judge(self, stored: Stored) -> Told:
        subject = subjects.parse(stored.subject)
        if subject is None:
            return Told(self._history.add(stored))
        if subject.kind == "process":
            return await self._judge_of_process(subject.entity, stored)
        if subject.kind == "workflow":
            return Told(await self._judge_of_workflow(subject.entity, stored), workflow=subject.entity)
        if subject.kind == "generator":
            await self._read_generator(subject.entity, stored.sequence)
        return Told(self._history.add(stored))

    async def _judge_of_workflow(self, id: str, stored: Stored) -> Judged:
        story = await self._session.knowledge.workflow_now(id)
        found = [seen for seen in story.judged if seen.stored.sequence == stored.sequence]
        return found[0] if found else examine(self._history.colony, stored)

    async def _read_generator(self, name: str, sequence: int) -> None:
        """Fold what was said of a generator before this sequence, when the first of its events comes by."""
        if name in self._history.generators:
            return
        chain = Chain(name, keeps=False)
        async for batch in self._session.ledger.scan(0, subjects.guard_of("generator", name)):
            for stored in batch:
                if stored.sequence < sequence:
                    judge_generator(self._history.colony, chain, examine(self._history.colony, stored))
            if batch[-1].sequence >= sequence:
                break
        self._history.generators[name] = chain

    # --- processes -----------------------------------------------------------------------------------

    async def _judge_of_process(self, id: str, stored: Stored) -> Told:
        known = self._processes.get(id) or await self._read(id, stored.sequence)
        self._keep(id, known)
        found = known.judged.pop(stored.sequence, None)
        if found is None:
            found = self._judge_next(known, stored)
        if found is None:  # it takes more than its own events to judge this one
            known = await self._read(id, stored.sequence)
            self._keep(id, known)
            found = known.judged.pop(stored.sequence, None) or (examine(self._history.colony, stored), None)
        workflow = known.process.workflow if known.process is not None else None
        if known.process is not None and known.process.final and not known.judged:
            del self._processes[id]
        return Told(*found, workflow)

    def _judge_next(self, known: _Known, stored: Stored) -> tuple[Judged, int | None] | None:
        """Judge the next event of a process by what is known of it; None: read it again."""
        if stored.sequence <= known.guard:
            return None
        event = examine(self._history.colony, stored)
        if event.record is not None and isinstance(event.record.event, Cancelled | Received):
            return None  # of a node it cites others
        colony, knowledge = self._history.colony, self._session.knowledge
        process, seen = judge_process(colony, known.process, event, knowledge)
        if not seen.verdict.valid:
            return None  # which of the two it is depends on what stands before it
        known.process, known.guard = process, stored.sequence
        return seen, attempt_of(seen, process)

    async def _read(self, id: str, sequence: int) -> _Known:
        """A process as it is now, with the verdicts on its events from this sequence on."""
        story, knowledge = await self._session.story(id), self._session.knowledge
        judged = {
            seen.stored.sequence: (seen, n)
            for seen, n, _ in numbered(story.judged, knowledge)
            if seen.stored.sequence >= sequence
        }
        return _Known(story.process, story.guard, judged)

    async def _read_together(self, messages: Sequence[Stored]) -> None:
        """Read the processes of these messages that are not known yet.

        Nodes are left to be read one by one, since those of one workflow would each read that first.
        """
        first: dict[str, int] = {}
        for stored in messages:
            subject = subjects.parse(stored.subject)
            if subject is not None and subject.kind == "process" and ULID.match(subject.entity):
                first.setdefault(subject.entity, stored.sequence)
        missing = [(id, sequence) for id, sequence in first.items() if id not in self._processes]
        found = await asyncio.gather(*(self._read(id, sequence) for id, sequence in missing))
        for (id, _), known in zip(missing, found, strict=True):
            self._keep(id, known)

    def _keep(self, id: str, known: _Known) -> None:
        self._processes[id] = known
        self._processes.move_to_end(id)
        if len(self._processes) > MAX_PROCESSES:
            self._processes.popitem(last=False)
