"""The life of a cron, and what a run of it must be to be true.

    added ──> (paused ──> resumed)* ──> removed ──> added ...

Its chain holds members' words only, so it stays short however often it runs: that it ran is on the ledger as
a workflow, whose id derives from the cron and the time that it was due. `judge` says whether an event of a
cron could be true where it stands, `evolve` applies a valid one and never refuses, `sourced` says what a run
has from its cron. When it is due is `colonies.core.due`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from colonies.core.colony import Colony
from colonies.core.due import Schedule
from colonies.core.events import (
    VALID,
    CronAdded,
    CronPaused,
    CronRemoved,
    CronResumed,
    Record,
    Source,
    Verdict,
    denied,
    quarantined,
    void,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.states import ULID, derived_id
from colonies.core.workflow import Sourced
from colonies.errors import Invalid

MAX_PAUSES: Final = 1_000  # of a cron, until it is removed
MAX_LIVES: Final = 1_000  # how often crons of one name are added

CronState = Literal["active", "paused", "removed"]


@dataclass(frozen=True, slots=True)
class Pause:
    """While this lasted a cron did not run: sequences and times (ns) of its two events; None: it lasts."""

    since: int
    since_time: int
    until: int | None = None
    until_time: int | None = None

    def holds_at(self, sequence: int) -> bool:
        return self.since < sequence and (self.until is None or sequence < self.until)

    def leaves_out(self, due: int) -> bool:
        return self.since_time <= due and (self.until_time is None or due < self.until_time)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron as the ledger tells it. `added` is the sequence of its `added`, `added_at` (ns) that one's time;
    `head` and `time` are those of its last valid event. `before` is the last of the same name, which was
    removed."""

    name: str
    spec: WorkflowSpec
    schedule: Schedule
    wait_previous: bool
    catch_up: Literal["none", "one", "all"]
    author: str
    added: int
    added_at: int
    head: bytes
    time: int
    pauses: tuple[Pause, ...] = ()
    removed: int | None = None
    removed_at: int | None = None
    before: Cron | None = None
    lives: int = 1

    @property
    def state(self) -> CronState:
        if self.removed is not None:
            return "removed"
        return "paused" if self.paused else "active"

    @property
    def paused(self) -> bool:
        return bool(self.pauses) and self.pauses[-1].until is None

    def next_due(self, after: int) -> int | None:
        """The first due time (ns) after this that no pause leaves out; None: there is none."""
        due = self.schedule.next(after, self.added_at)
        while due is not None and (pause := self._leaving_out(due)) is not None:
            if pause.until_time is None:
                return None
            due = self.schedule.next(pause.until_time - 1, self.added_at)
        return due

    def last_due(self, until: int, after: int) -> int | None:
        """The last due time after `after` and not after `until` that no pause leaves out, if there is one."""
        due = self.schedule.last(until, self.added_at, after)
        while due is not None and (pause := self._leaving_out(due)) is not None:
            due = self.schedule.last(pause.since_time - 1, self.added_at, after)
        return due

    def _leaving_out(self, due: int) -> Pause | None:
        return next((pause for pause in reversed(self.pauses) if pause.leaves_out(due)), None)

    def starts(self, due: int) -> int:
        """The time (ns) before which the run that is due then does not start."""
        return self.schedule.starts(self.name, self.added, due)

    def run_id(self, due: int) -> str:
        """The id of the run that is due then."""
        return derived_id("cron", self.name, str(self.added), str(due))

    def life(self, added: int) -> Cron | None:
        """The cron of this name that was added with this sequence."""
        return next((cron for cron in self._lives() if cron.added == added), None)

    def _lives(self) -> Iterator[Cron]:
        cron: Cron | None = self
        while cron is not None:
            yield cron
            cron = cron.before


def schedule_of(event: CronAdded) -> Schedule:
    """When a cron that is added so is due."""
    return Schedule(event.cron, event.interval_s, event.zone, event.jitter_s)


# --- its own events ---------------------------------------------------------------------------------


def judge(cron: Cron | None, record: Record, colony: Colony) -> Verdict:
    """Could this event of a cron be true here? Never raises."""
    event = record.event
    if record.prev != (cron.head if cron is not None else None):
        return quarantined("its prev is not the digest of the cron's last valid event")
    if record.role not in ("user", "owner"):
        return denied(f"the role {record.role} says nothing of crons")
    if isinstance(event, CronAdded):
        if cron is not None and cron.removed is None:
            return quarantined("there is a cron of this name")
        return _added(cron, record, event, colony)
    if cron is None or cron.removed is not None:
        return quarantined("there is no cron of this name")
    if record.role != "owner" and record.author != cron.author:
        return denied(f"only {cron.author} or an owner may say this of the cron")
    match event:
        case CronPaused() if cron.paused:
            return quarantined("the cron is paused already")
        case CronPaused() if len(cron.pauses) >= MAX_PAUSES:
            return quarantined(f"the cron was paused {MAX_PAUSES} times, and is not again")
        case CronResumed() if not cron.paused:
            return quarantined("the cron is not paused")
        case CronPaused() | CronResumed() | CronRemoved():
            return VALID
        case _:
            return quarantined(f"{event.type} is not an event of a cron")


def _added(cron: Cron | None, record: Record, event: CronAdded, colony: Colony) -> Verdict:
    if cron is not None and cron.lives >= MAX_LIVES:
        return quarantined(f"crons of this name were added {MAX_LIVES} times; take another name")
    try:
        event.spec.checked()
        schedule = schedule_of(event).checked()
    except Invalid as error:
        return quarantined(str(error).splitlines()[0])
    if schedule.next(record.time, record.time) is None:
        return quarantined("it is never due")
    for node in event.spec.nodes:
        named = node.spec.colony if node.spec is not None else None
        if named is not None and named not in (colony.name, colony.key):
            return quarantined(f"node {node.name} is for the colony {named}, this is {colony.name}")
    return VALID


def evolve(cron: Cron | None, record: Record) -> Cron:
    """The cron after a valid event."""
    event = record.event
    if isinstance(event, CronAdded):
        return Cron(
            name=record.entity,
            spec=event.spec,
            schedule=schedule_of(event),
            wait_previous=event.wait_previous,
            catch_up=event.catch_up,
            author=record.author,
            added=record.sequence,
            added_at=record.time,
            head=record.digest,
            time=record.time,
            before=cron,
            lives=cron.lives + 1 if cron is not None else 1,
        )
    assert cron is not None
    after = replace(cron, head=record.digest, time=record.time)
    match event:
        case CronPaused():
            return replace(after, pauses=(*cron.pauses, Pause(record.sequence, record.time)))
        case CronResumed():
            ended = replace(cron.pauses[-1], until=record.sequence, until_time=record.time)
            return replace(after, pauses=(*cron.pauses[:-1], ended))
        case CronRemoved():
            return replace(after, removed=record.sequence, removed_at=record.time)
        case _:
            raise AssertionError(f"not an event of a cron: {event.type}")


# --- its runs ---------------------------------------------------------------------------------------


def sourced(known: Cron | None, source: Source, record: Record) -> Sourced | Verdict:
    """What a run has from its cron at this place of the ledger; or why it has nothing.

    `known` is what is known of the crons of this name: all that was said before the record, perhaps more.
    """
    cron = known.life(source.added) if known is not None else None
    if cron is None or cron.added >= record.sequence:
        return quarantined(f"there is no cron {source.name} before it")
    if (source.run, source.first, source.count, source.packs) != (None, None, None, None):
        return quarantined("what it says is of generators")
    if (wrong := _not_before(cron, source)) is not None:
        return wrong
    return _now(cron, record) if source.due is None else _due(cron, source.due, record)


def _not_before(cron: Cron, source: Source) -> Verdict | None:
    """What is wrong with the run whose outputs this one may use. Its id says that it is one of the cron's,
    so nobody has to read it."""
    if source.previous is None and source.previous_due is None:
        return None
    before = source.previous_due
    if before is None or source.previous != cron.run_id(before):
        return quarantined("the run before it is not one of the cron")
    if source.due is not None and before >= source.due:
        return quarantined("the run before it was not due before it")
    if not cron.schedule.is_due(before, cron.added_at):
        return quarantined("the run before it was never due")
    return None


def _now(cron: Cron, record: Record) -> Sourced | Verdict:
    """A member runs it now."""
    if record.role not in ("user", "owner"):
        return denied(f"the role {record.role} runs no cron before it is due")
    if not ULID.match(record.entity):
        return quarantined("the id of a run that is not due is a ULID")
    if cron.removed is not None and cron.removed < record.sequence:
        return void("the cron was removed before it")
    return Sourced(cron.spec, record.author)


def _due(cron: Cron, due: int, record: Record) -> Sourced | Verdict:
    """The service runs it when it is due."""
    if record.role != "service":
        return denied(f"the role {record.role} runs no cron as due")
    # So it runs once for each time that it is due, however many say so.
    if record.entity != cron.run_id(due):
        return quarantined("the id does not derive from the cron and the time that it is due")
    if not cron.schedule.is_due(due, cron.added_at):
        return quarantined("the cron is not due then")
    if record.time < cron.starts(due):
        return quarantined("it is before its time")
    if cron.removed is not None and cron.removed < record.sequence:
        assert cron.removed_at is not None
        rule = "the cron was removed before it"
        return void(rule) if due <= cron.removed_at else quarantined(rule)
    for pause in cron.pauses:
        known = pause.since < record.sequence
        if known and due < pause.since_time and pause.holds_at(record.sequence):
            return void("the cron was paused before it")
        if known and pause.leaves_out(due):
            return quarantined("the cron was paused then")
    return Sourced(cron.spec, cron.author)
