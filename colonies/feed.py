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

import structlog

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
SOON_S = 0.01
MAX_PROCESSES = 10_000  # that are kept between two of their events
MAX_KEPT_BYTES = 64 * 1024 * 1024  # of events that these are made of
MAX_LEFT_OUT = 1_000  # of events in a row that the broker leaves out, so many are asked for one by one
AT_ONCE = 64  # processes that are read together

_COLONY_PATTERNS = (*subjects.TRUST, subjects.QUEUES, subjects.CRONS, subjects.WORKERS, subjects.WEBHOOKS)
_OF_COLONY = tuple(pattern.removesuffix(">") for pattern in _COLONY_PATTERNS)

_log = structlog.get_logger("colonies.feed")


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
    ledger, ear = session.ledger, _Ear()
    async with AsyncExitStack() as stack:
        lost = asyncio.create_task(ledger.lost(), name="connection")
        stack.push_async_callback(_cancel, lost)
        if live:
            stack.push_async_callback((await ledger.subscribe("feed.>", ear.hear)).close)
            session.ears.add(ear.woken.set)
            stack.callback(session.ears.discard, ear.woken.set)
        last = await ledger.last_sequence()
        reader = Reader(session, checked_after(last if after is None else after, last))
        while True:
            ear.woken.clear()
            try:
                async with aclosing(reader.read(wanted)) as found:
                    async for told in found:
                        yield told
            except (Unavailable, NotFound):
                if not live:
                    raise
                wait_s = AGAIN_S
            else:
                wait_s = ear.wait_s(reader.position)
            if not live:
                return
            await _first(ear.woken, lost, wait_s)


class _Ear:
    """What wakes a feed. A replica may be behind what was heard: then it is read again soon."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self._heard = 0
        self._soon_s = SOON_S

    def hear(self, stored: Stored) -> None:
        self._heard = max(self._heard, stored.sequence)
        self.woken.set()

    def wait_s(self, position: int) -> float:
        """How long to wait for more, having read up to here."""
        if position >= self._heard:
            self._soon_s = SOON_S
            return LOOK_AGAIN_S
        self._soon_s = min(2 * self._soon_s, LOOK_AGAIN_S)
        return self._soon_s


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
    """A process that came by: it as of `guard`, and what of it was judged and not told yet.

    `first`: its first valid event, which says of a node which it is. `size_bytes`: of all its valid events.
    """

    process: Process | None
    guard: int
    judged: dict[int, tuple[Judged, int | None]]
    voids: set[bytes]
    first: Stored | None
    size_bytes: int


class Reader:
    """Judges the ledger from the position `after` on, each time up to what there is."""

    def __init__(self, session: Session, after: int) -> None:
        self.position = after
        self._session = session
        self._history = History(Colony(session.ledger.colony))
        self._folded = False
        self._processes: OrderedDict[str, _Known] = OrderedDict()
        self._kept_bytes = 0

    async def read(self, wanted: Callable[[Stored], bool] = everything) -> AsyncGenerator[Told, None]:
        """What was stored behind the position. Raises Unavailable: next time it goes on from there."""
        if not self._folded:
            await self._fold_colony()
        async for batch in self._session.ledger.scan(self.position):
            whole = await self._with_all(batch)
            for start in range(0, len(whole), AT_ONCE):
                some = whole[start : start + AT_ONCE]
                await self._read_together([stored for stored in some if wanted(stored)])
                for stored in some:
                    if not wanted(stored):
                        self._pass(stored)
                        self.position = stored.sequence
                        continue
                    told = await self._judge(stored)
                    self.position = stored.sequence
                    yield told

    async def _with_all(self, batch: list[Stored]) -> list[Stored]:
        """The batch with what it leaves out: sequences have no gap."""
        found: list[Stored] = []
        position = self.position
        for stored in batch:
            if stored.sequence > position + 1:
                found += await self._left_out(position + 1, stored.sequence)
            found.append(stored)
            position = stored.sequence
        return found

    async def _left_out(self, first: int, end: int) -> list[Stored]:
        """What the broker has from `first` on up to `end`, which it has. What it has lost is passed over."""
        ledger = self._session.ledger
        first = max(first, self._session.complete_from)
        found: list[Stored] = []
        for sequence in range(max(first, end - MAX_LEFT_OUT), end):
            try:
                found.append(await ledger.at(sequence))
            except NotFound:
                continue
            except Unavailable:  # it cannot read this one, or it answers nothing at all
                await ledger.at(end)
        if len(found) < end - first:
            _log.warning("the broker has lost events; see `colonies ledger verify`", first=first, end=end)
        return found

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
                self._forget(subject.entity)

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
        if story.guard < stored.sequence:
            raise _behind(f"workflow {id}", stored.sequence)
        found = (seen for seen in reversed(story.judged) if seen.stored.sequence == stored.sequence)
        return next(found, None) or examine(self._history.colony, stored)

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
        known = self._forget(id)
        if known is None or (stored.sequence <= known.guard and stored.sequence not in known.judged):
            known = await self._read(id, stored.sequence)
        found = known.judged.pop(stored.sequence, None) or await self._judge_next(known, stored)
        self._keep(id, known)
        return Told(*found, known.process.workflow if known.process is not None else None)

    async def _judge_next(self, known: _Known, stored: Stored) -> tuple[Judged, int | None]:
        """Judge the next event of a process by what is known of it. To read it again would let whoever stores
        junk about one process keep all readers busy with it."""
        colony, knowledge = self._history.colony, self._session.knowledge
        event = examine(colony, stored)
        if event.record is None:  # nothing is read for what nobody signed
            known.guard = stored.sequence
            return event, None
        if known.first is None:
            await knowledge.learn([stored])
        elif isinstance(event.record.event, Cancelled | Received):  # it cites others
            await knowledge.learn([known.first, stored])
        known.process, seen = judge_process(colony, known.process, event, knowledge, known.voids)
        known.guard = stored.sequence
        if seen.verdict.valid:
            known.first = known.first or stored
            known.size_bytes += len(stored.data)
        return seen, attempt_of(seen, known.process)

    async def _read(self, id: str, sequence: int) -> _Known:
        """A process as it is now, with the verdicts on its events from this sequence on."""
        story, knowledge = await self._session.story(id), self._session.knowledge
        if story.guard < sequence:
            raise _behind(f"process {id}", sequence)
        judged = {
            seen.stored.sequence: (seen, n)
            for seen, n, _ in numbered(story.judged, knowledge)
            if seen.stored.sequence >= sequence
        }
        valid = [seen.stored for seen in story.judged if seen.verdict.valid]
        size_bytes = sum(len(one.data) for one in valid)
        return _Known(story.process, story.guard, judged, story.voids, next(iter(valid), None), size_bytes)

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
        self._forget(id)
        self._processes[id] = known
        self._kept_bytes += known.size_bytes
        while len(self._processes) > MAX_PROCESSES or self._kept_bytes > MAX_KEPT_BYTES:
            self._forget(next(iter(self._processes)))

    def _forget(self, id: str) -> _Known | None:
        known = self._processes.pop(id, None)
        self._kept_bytes -= known.size_bytes if known is not None else 0
        return known


def _behind(what: str, sequence: int) -> Unavailable:
    """One of several servers answered, and it does not have yet what another has shown."""
    return Unavailable(f"what was read of {what} ends before sequence {sequence}")
