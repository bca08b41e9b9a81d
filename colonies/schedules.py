"""What one session knows of crons, read when a run of one is judged; and how a cron is recorded.

The chain of a cron is members' words, and short, so it is read whole. Who runs them is the orchestrator.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from colonies import codec, subjects
from colonies.core import crons as crons_
from colonies.core.crons import Cron
from colonies.core.events import (
    MAX_COUNT,
    CronAdded,
    CronPaused,
    CronRemoved,
    CronResumed,
    Record,
    WorkflowSubmitted,
)
from colonies.errors import Conflict, Unknown
from colonies.history import CronStory, examine, fold_cron, holds
from colonies.ids import new_id
from colonies.ledger import Draft, Stored, settled

if TYPE_CHECKING:
    from colonies.session import Session

MAX_KEPT = 1_000  # crons
MAX_TRIES = 100

CronEvent = CronAdded | CronPaused | CronResumed | CronRemoved


class Schedules:
    """What a session has learned of crons. `cron` answers from it and never reads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._crons: OrderedDict[str, tuple[Cron, int]] = OrderedDict()

    def cron(self, name: str) -> Cron | None:
        found = self._crons.get(name)
        return found[0] if found is not None else None

    async def learn(self, stored: Stored, *, fresh: bool = False) -> None:
        """Learn what the submission of a workflow comes from, if it is a run, with all that was said of that
        before it. `fresh`: whatever was read already."""
        if b"source" not in stored.data:  # most come from nowhere
            return
        record = examine(self._session.colony, stored).record
        event = record.event if record is not None else None
        if not isinstance(event, WorkflowSubmitted) or event.source is None:
            return
        name = event.source.name
        if event.source.kind == "cron" and (fresh or self._read_to(name) < stored.sequence):
            await self.read(name, stored.sequence)

    def _read_to(self, name: str) -> int:
        return self._crons[name][1] if name in self._crons else 0

    async def read(self, name: str, sequence: int = 0) -> CronStory:
        """A cron, read from the leader, each event judged, and kept; `sequence` was stored before."""
        messages = await self._session.ledger.read(subjects.guard_of("cron", name))
        story = fold_cron(self._session.colony, messages)
        if any(not seen.verdict.valid for seen in story.judged):
            await self._session.refresh()
            story = fold_cron(self._session.colony, messages)
        if story.cron is not None:
            self._crons[name] = story.cron, max(sequence, story.guard)
            self._crons.move_to_end(name)
            if len(self._crons) > MAX_KEPT:
                self._crons.popitem(last=False)
        return story

    async def record(self, name: str, event: CronEvent, *, at: CronStory) -> CronStory:
        """Record an event of a cron, starting from what is known of it. Raises as `Session.record`."""
        codec.check(event)
        session, id = self._session, new_id()
        for _ in range(MAX_TRIES):
            now = await session.ledger.now()
            cron = at.cron
            time = now if cron is None else max(now, cron.time)
            prev = cron.head if cron is not None else None
            role = session.role_at(now)
            wish = Record(MAX_COUNT, time, "cron", name, None, session.name, role, id, prev, b"", event)
            crons_.decided(cron, wish, session.colony)
            subject, sealed = session.seal(event, name, prev=prev, id=id, now=now)
            try:
                sequence = await session.ledger.append(Draft(subject, sealed.data, at.guard))
            except (Conflict, Unknown) as error:
                at = await settled(error, self.read(name), f"cron {name}")
                if holds(at.judged, id):
                    return at
                continue
            record = replace(wish, sequence=sequence, digest=sealed.digest)
            return CronStory(crons_.evolve(cron, record), at.judged, sequence)
        raise Conflict(f"cron {name}: {MAX_TRIES} other events came first, each time")
