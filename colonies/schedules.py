"""What one session knows of crons, read when a run of one is judged; and how a cron is recorded.

The chain of a cron is members' words, and short, so it is read whole. Who runs them is the orchestrator.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from colonies import codec, subjects
from colonies.core import crons as crons_
from colonies.core.crons import Cron
from colonies.core.events import (
    CronAdded,
    CronPaused,
    CronRemoved,
    CronResumed,
    Event,
    Record,
    WorkflowSubmitted,
)
from colonies.history import CronStory, examine, fold_cron
from colonies.ledger import Stored
from colonies.recording import is_there, record

if TYPE_CHECKING:
    from colonies.session import Session

MAX_KEPT = 1_000  # crons

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
        """Record an event of a cron, starting from what is known of it. See `recording.record`."""
        return await record(self._session, CronTail(self, self._session, name, event, at))


@dataclass(slots=True)
class CronTail:
    """The end of a cron's history, where the next event goes; gives its story. See `recording.Tail`."""

    schedules: Schedules
    session: Session
    entity: str
    said: CronEvent
    story: CronStory
    kind: str = "cron"

    @property
    def guard(self) -> int:
        return self.story.guard

    @property
    def head(self) -> bytes | None:
        return self.story.cron.head if self.story.cron is not None else None

    @property
    def time(self) -> int:
        return self.story.cron.time if self.story.cron is not None else 0

    def event(self) -> Event:
        codec.check(self.said)
        return self.said

    def decide(self, wish: Record) -> None:
        crons_.judge(self.story.cron, wish, self.session.colony).require(f"cron {self.entity}")

    async def read(self) -> None:
        self.story = await self.schedules.read(self.entity)

    def found(self, id: str) -> CronStory | None:
        return self.story if is_there(self.story.judged, id) else None

    async def after(self, record: Record) -> CronStory:
        return CronStory(crons_.evolve(self.story.cron, record), self.story.judged, record.sequence)
