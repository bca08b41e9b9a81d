"""What an event changes of a process, in numbers: how long it waited and ran, how it ended.

It holds the processes that are under way, as `evolve` makes them; of one that began before this server did,
the ledger is read once. There is no state machine here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from colonies.core.events import Record
from colonies.core.members import SECOND
from colonies.core.process import Process, evolve
from colonies.feed import Told
from colonies.history import Judged
from colonies.session import Session

MAX_PROCESSES: Final = 20_000
MAX_PROCESSES_BYTES: Final = 33_554_432  # of the events that they are made of


@dataclass(frozen=True, slots=True)
class Change:
    """What one event changed. `attempts` are those that it ended: outcome and seconds."""

    runtimetype: str
    begun: bool = False
    ended: str | None = None
    retried: bool = False
    waited_s: float | None = None
    attempts: tuple[tuple[str, float], ...] = ()


class Meter:
    """The processes that are under way, the least lately changed forgotten first."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held: OrderedDict[str, tuple[Process, int]] = OrderedDict()
        self._size_bytes = 0

    async def take(self, told: Told) -> Change | None:
        """What this event changes of a process. Raises as `Session.story`."""
        record = told.seen.record
        if record is None or record.kind != "process" or not told.seen.verdict.valid:
            return None
        before, size_bytes = self._forget(record.entity) or (None, 0)
        if before is None and record.prev is not None:
            before = await self._read(record)
            if before is None:
                return None
        await self._learn(record, before)
        after = evolve(before, record, self._session.knowledge)
        if not after.final:
            self._hold(after, size_bytes + len(told.seen.stored.data))
        return _change(before, after)

    async def _learn(self, record: Record, before: Process | None) -> None:
        """The workflow that a node is of, should it have been forgotten since the event was judged."""
        id = getattr(record.event, "workflow", None) or (before.workflow if before is not None else None)
        if id is not None and self._session.knowledge.workflow(id) is None:
            await self._session.knowledge.workflow_now(id)

    async def _read(self, record: Record) -> Process | None:
        """The process before this event."""
        process: Process | None = None
        for seen in (await self._session.story(record.entity)).judged:
            if seen.stored.sequence >= record.sequence:
                break
            process = _after(process, seen, self._session)
        return process

    def _hold(self, process: Process, size_bytes: int) -> None:
        self._held[process.id] = process, size_bytes
        self._size_bytes += size_bytes
        while len(self._held) > MAX_PROCESSES or self._size_bytes > MAX_PROCESSES_BYTES:
            _, (_, freed_bytes) = self._held.popitem(last=False)
            self._size_bytes -= freed_bytes

    def _forget(self, id: str) -> tuple[Process, int] | None:
        found = self._held.pop(id, None)
        if found is not None:
            self._size_bytes -= found[1]
        return found


def _after(process: Process | None, seen: Judged, session: Session) -> Process | None:
    if seen.record is None or not seen.verdict.valid:
        return process
    return evolve(process, seen.record, session.knowledge)


def _change(before: Process | None, after: Process) -> Change:
    known = len(before.attempts) if before is not None else 0
    was = {a.id: a.outcome for a in before.attempts} if before is not None else {}
    taken = len(after.attempts) > 0 and after.attempts[-1].id not in was
    ended = [a for a in after.attempts if a.outcome is not None and was.get(a.id) is None]
    since = before.waits_since if before is not None and taken else None
    last = before.attempts[-1].outcome if before is not None and known else None
    return Change(
        after.spec.conditions.runtimetype,
        begun=before is None,
        ended=after.state if after.final else None,
        retried=taken and last in ("failed", "timeout"),
        waited_s=None if since is None else max(0, after.time - since) / SECOND,
        attempts=tuple((str(a.outcome), max(0, (a.ended_at or 0) - a.started_at) / SECOND) for a in ended),
    )
