"""Runs crons when they are due, for an orchestrator that folds the ledger.

What was due while no orchestrator ran follows the cron's `catch_up`, as does what was due while a run waited
for the one before it; every other due time is run once, late rather than never. A run's id derives from the
cron and its due time, so it does no harm that several orchestrators say it. Of each cron it keeps where it
is, nothing of its runs but those that are open; all of it is derived from the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from colonies.core.crons import Cron
from colonies.core.events import Source, WorkflowSubmitted
from colonies.core.process import SECOND
from colonies.core.workflow import Workflow, WorkflowState
from colonies.errors import ColoniesError, Conflict
from colonies.history import History, Judged, WorkflowStory
from colonies.session import Session

AT_ONCE = 64  # crons
MAX_IN_A_ROW = 64  # runs of one cron, before the others have their turn
AGAIN_S = 1.0
MARGIN_S = 0.002

Later = Callable[[float, Callable[[], None]], None]

_log = structlog.get_logger("colonies.orchestrator")


@dataclass(slots=True)
class Place:
    """Where a cron is. Every due time (ns) up to `done` is dealt with, and so are those in `said`, by others.

    `open` are its runs that have not ended, `ended` and `successful` the last due times whose run has, and
    was successful. `held`: a run waits, or waited, for the one before it. `wakes` is what a timer is set for,
    `contested` the due time of a run before which another event came.
    """

    cron: Cron
    done: int
    said: set[int] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    ended: int = 0
    successful: int | None = None
    held: bool = False
    wakes: int = 0
    contested: int = 0

    def advance(self, done: int) -> None:
        self.done = max(self.done, done)
        self.said = {due for due in self.said if due > self.done}

    def catch_up(self, now: int) -> None:
        """Of what was due until now, leave out what the cron does not want."""
        match self.cron.catch_up:
            case "none":
                self.advance(now)
            case "one":
                last = self.cron.last_due(now, self.done)
                if last is not None:
                    self.advance(last - 1)


class Scheduler:
    """Runs the crons of the ledger that `history` folds. `later` has something done after so many seconds."""

    def __init__(self, session: Session, history: History, later: Later) -> None:
        self._session = session
        self._history = history
        self._later = later
        self._places: dict[str, Place] = {}  # by name
        self._ready: set[str] = set()
        self._began = False

    @property
    def has_work(self) -> bool:
        return bool(self._ready) or not self._began

    # --- what happened -------------------------------------------------------------------------------

    def on_event(self, judged: Judged) -> None:
        """An event was folded."""
        record = judged.record
        if record is None:
            return
        if record.kind == "cron" and judged.verdict.valid:
            self._on_cron(self._history.crons[record.entity])
        elif record.kind == "workflow" and isinstance(record.event, WorkflowSubmitted):
            source = record.event.source
            place = self._place(source) if source is not None else None
            if source is None or place is None:
                return
            if judged.verdict.valid:
                self._on_run(place, record.entity, source.due)
            elif self._history.workflow(record.entity) is None:  # ours, too late: it never ends
                self._forget_run(place, record.entity)

    def _on_cron(self, cron: Cron) -> None:
        if cron.removed is not None:
            self._places.pop(cron.name, None)
            return
        place = self._places.get(cron.name)
        if place is None or place.cron.added != cron.added:
            place = self._places[cron.name] = Place(cron, cron.added_at)
        place.cron = cron
        self._ready.add(cron.name)

    def _on_run(self, place: Place, id: str, due: int | None) -> None:
        place.open.add(id)
        if due is None:
            return
        if not self._began:
            place.advance(due)
        elif due > place.done:
            place.said.add(due)

    def on_ended(self, workflow: Workflow, state: WorkflowState) -> None:
        """All nodes of a workflow have ended."""
        source = workflow.source
        place = self._place(source) if source is not None else None
        if source is None or place is None:
            return
        if source.due is not None:
            place.ended = max(place.ended, source.due)
            if state == "successful":
                place.successful = max(place.successful or 0, source.due)
        self._forget_run(place, workflow.id)

    def _forget_run(self, place: Place, id: str) -> None:
        place.open.discard(id)
        if place.held and not place.open:
            self._ready.add(place.cron.name)

    def _place(self, source: Source) -> Place | None:
        place = self._places.get(source.name) if source.kind == "cron" else None
        return place if place is not None and place.cron.added == source.added else None

    # --- what is to be run ---------------------------------------------------------------------------

    async def act(self, now: int) -> None:
        """Run what is due at this ledger time (ns). What others said first is left until it was read."""
        if not self._began:
            self._began = True
            for place in self._places.values():
                place.catch_up(now)
        contested: list[str] = []
        while self._ready:
            some = [self._ready.pop() for _ in range(min(AT_ONCE, len(self._ready)))]
            places = [self._places[name] for name in some if name in self._places]
            done = await asyncio.gather(*(self._step(place, now) for place in places))
            contested += [place.cron.name for place, is_done in zip(places, done, strict=True) if not is_done]
        for name in contested:
            self._ready.add(name)

    async def _step(self, place: Place, now: int) -> bool:
        """One run of a cron behind the other, so that none is left out if this ends in between. False: what
        came before one of them is to be read."""
        try:
            for _ in range(MAX_IN_A_ROW):
                due = self._due(place, now)
                if due is None:
                    return True
                if not await self._run(place, due):
                    place.contested = due
                    return False
                place.advance(due)
            self._again(place, MARGIN_S)
        except ColoniesError as error:
            _log.warning(
                "failed, tried again", doing="a run of a cron", cron=place.cron.name, error=str(error)
            )
            self._again(place, AGAIN_S)
        except Exception:
            _log.exception("failed, tried again", doing="a run of a cron", cron=place.cron.name)
            self._again(place, AGAIN_S)
        return True

    def _due(self, place: Place, now: int) -> int | None:
        """The due time whose run is to be said now; if there is none, it is looked for again in time."""
        cron = place.cron
        if cron.paused or cron is not self._history.crons.get(cron.name):
            return None
        if cron.wait_previous and place.open:
            place.held = True
            return None
        if place.held:
            place.held = False
            place.catch_up(now)
        while (due := cron.next_due(place.done)) is not None:
            if due in place.said:
                place.advance(due)
                continue
            starts = cron.starts(due)
            if starts <= now:
                return due
            self._wake_at(place, starts, now)
            return None
        return None

    def _wake_at(self, place: Place, time: int, now: int) -> None:
        if place.wakes == time:
            return
        place.wakes = time

        def due() -> None:
            place.wakes = 0
            self._ready.add(place.cron.name)

        self._later((time - now) / SECOND + MARGIN_S, due)

    def _again(self, place: Place, delay_s: float) -> None:
        self._later(delay_s, lambda: self._ready.add(place.cron.name))

    async def _run(self, place: Place, due: int) -> bool:
        """Say that the run is there; if another has said so, that is as well. False: something was said that
        was not read yet."""
        cron, before = place.cron, place.successful
        # Mostly another orchestrator said the same, and that comes. If it was no valid event, a second try
        # reads it.
        once = not cron.wait_previous and place.contested != due
        id = cron.run_id(due)
        source = Source("cron", cron.name, cron.added, due)
        if before is not None and before < due:
            source = Source("cron", cron.name, cron.added, due, cron.run_id(before), before)
        event = WorkflowSubmitted(source=source)
        try:
            at = WorkflowStory(None, [], 0)
            recording = self._session.record_workflow(id, event, at=at, known=self._history, once=once)
            guard = (await recording).guard
        except Conflict as error:
            _log.debug("not said", run=id, cron=cron.name, reason=str(error))
            if not cron.wait_previous:  # else it matters when that one ends
                return not once
            story = await self._session.knowledge.story(id)
            if story.workflow is None:
                return True
            guard = story.guard
        folded = self._history.position >= guard and self._history.workflow(id) is None
        if due > place.ended and not folded:  # what was folded and is not there was void, and never ends
            place.open.add(id)
        _log.info("cron is due", cron=cron.name, workflow=id, colony=self._session.colony.name)
        return True
