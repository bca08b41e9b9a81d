"""Reading with open eyes: every stored message gets a verdict, the valid ones are folded.

`examine` checks form, membership and signature; `History` folds a whole ledger from its first message and
is what `ledger verify`, the projectors and the orchestrator use; `fold_process` does the same for one
process. They share the rules of `colonies.core` and hold no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from colonies import codec, subjects
from colonies.core import colony as colonies_
from colonies.core import crons as crons_
from colonies.core import generators as generators_
from colonies.core import process as processes_
from colonies.core import workflow as workflows_
from colonies.core.colony import Colony
from colonies.core.crons import Cron
from colonies.core.events import (
    VALID,
    Record,
    Rotated,
    Source,
    Verdict,
    WorkflowSubmitted,
    quarantined,
    void,
)
from colonies.core.generators import Chain
from colonies.core.process import Process
from colonies.core.values import changed, struct
from colonies.core.workflow import NOTHING, Held, Known, Sourced, Workflow
from colonies.ledger import Stored


@struct
class Judged:
    """A stored message with its verdict. `record` is None where it is not even a signed event.

    `stranger`: its author, or the key that signed it, is no member's as far as the colony is known here;
    perhaps not far enough.
    """

    stored: Stored
    record: Record | None
    verdict: Verdict
    stranger: bool = False


def examine(colony: Colony, stored: Stored, *, trusted: bool = False, signed_by: str | None = None) -> Judged:
    """Is this a well-formed event, signed by a member of that point? Nothing about its truth yet.

    `trusted` leaves out the signature's arithmetic, for bytes that the next event, of the same author, covers
    by its `prev`. Believe nothing of them before that event is examined, untrusted, and found valid.
    `signed_by` is a key of which it was checked already that it signed this message.
    """
    subject = subjects.parse(stored.subject)
    if subject is None:
        return Judged(stored, None, quarantined("its subject is not of the ledger's grammar"))
    try:
        opened = codec.open_(colony.key, stored.subject, stored.data)
        event = opened.event()
    except codec.Malformed as error:
        return Judged(stored, None, quarantined(f"it is not an event: {error}"))
    if opened.author != subject.author or not subjects.matches(event, subject):
        return Judged(stored, None, quarantined("its author or type is not that of its subject"))
    holder = colony.key_of(subject.kind, subject.event, subject.author, stored.sequence, stored.time)
    if holder is None:
        verdict = quarantined(f"{subject.author} is no member at this point")
        return Judged(stored, None, verdict, stranger=True)
    key, role = holder
    if not trusted and key != signed_by and not opened.is_signed_by(key):
        if any(opened.is_signed_by(other) for other in colony.keys_of(subject.author) if other != key):
            verdict = quarantined(f"it is signed with a key of {subject.author} that does not count here")
            return Judged(stored, None, verdict, stranger=True)
        return Judged(stored, None, quarantined(f"its signature is not that of {subject.author}"))
    if isinstance(event, Rotated) and not codec.agreed(colony.key, subject.entity, event):
        return Judged(stored, None, quarantined("not both keys consented to this change"))
    record = Record(
        sequence=stored.sequence,
        time=stored.time,
        kind=subject.kind,
        entity=subject.entity,
        queue=subject.queue,
        author=subject.author,
        role=role,
        id=opened.id,
        prev=opened.prev,
        digest=opened.digest,
        event=event,
    )
    return Judged(stored, record, VALID)


def judge_process(
    colony: Colony,
    process: Process | None,
    seen: Judged,
    known: Known = NOTHING,
    voids: set[bytes] | None = None,
) -> tuple[Process | None, Judged]:
    """Judge an examined event of a process and, if it is valid, fold it.

    `voids` are the digests of its events that are void: whoever built on one of them was not to blame either.
    """
    record = seen.record
    if record is None:
        return process, seen
    if process is not None and record.time < process.time:
        record = changed(record, time=process.time)
    verdict = processes_.judge(process, record, colony, known)
    if voids is not None and not verdict.valid:
        if record.prev in voids:
            verdict = void("it stands on an event that is void")
        if verdict.kind == "void":
            voids.add(record.digest)
    judged = Judged(seen.stored, record, verdict)
    return (processes_.evolve(process, record, known) if verdict.valid else process), judged


def judge_workflow(
    colony: Colony, held: Held | None, seen: Judged, known: Known
) -> tuple[Held | None, Judged]:
    """Judge an examined event of a workflow and, if it is valid, fold it."""
    record = seen.record
    if record is None:
        return held, seen
    if held is not None and record.time < held.time:
        record = changed(record, time=held.time)
    verdict = workflows_.judge(held, record, colony, known)
    judged = Judged(seen.stored, record, verdict)
    return (workflows_.evolve(held, record, known) if verdict.valid else held), judged


@dataclass(slots=True)
class Story:
    """One process as read from the ledger: its state, every message's verdict, and its guard. `voids` as of
    `judge_process`."""

    process: Process | None
    judged: list[Judged]
    guard: int
    voids: set[bytes] = field(default_factory=set)


def fold_process(colony: Colony, messages: Iterable[Stored], known: Known = NOTHING) -> Story:
    """Fold the messages of one process, in order."""
    process: Process | None = None
    judged: list[Judged] = []
    voids: set[bytes] = set()
    guard = 0
    for stored in messages:
        process, seen = judge_process(colony, process, examine(colony, stored), known, voids)
        judged.append(seen)
        guard = stored.sequence
    return Story(process, judged, guard, voids)


@dataclass(slots=True)
class WorkflowStory:
    """One workflow as read from the ledger: its own events, not those of its nodes. See `Story`."""

    workflow: Workflow | None
    judged: list[Judged]
    guard: int
    held: Held | None = None


def fold_workflow(colony: Colony, messages: Iterable[Stored], known: Known) -> WorkflowStory:
    """Fold the messages of one workflow, in order."""
    held: Held | None = None
    judged: list[Judged] = []
    guard = 0
    for stored in messages:
        held, seen = judge_workflow(colony, held, examine(colony, stored), known)
        judged.append(seen)
        guard = stored.sequence
    return WorkflowStory(held if isinstance(held, Workflow) else None, judged, guard, held)


def judge_cron(colony: Colony, cron: Cron | None, seen: Judged) -> tuple[Cron | None, Judged]:
    """Judge an examined event of a cron and, if it is valid, fold it."""
    record = seen.record
    if record is None:
        return cron, seen
    if cron is not None and record.time < cron.time:
        record = changed(record, time=cron.time)
    verdict = crons_.judge(cron, record, colony)
    return (crons_.evolve(cron, record) if verdict.valid else cron), Judged(seen.stored, record, verdict)


@dataclass(slots=True)
class CronStory:
    """One cron as read from the ledger: its own events, not its runs. See `Story`."""

    cron: Cron | None
    judged: list[Judged]
    guard: int


def fold_cron(colony: Colony, messages: Iterable[Stored]) -> CronStory:
    """Fold the messages of one cron, in order."""
    story = CronStory(None, [], 0)
    for stored in messages:
        story.cron, seen = judge_cron(colony, story.cron, examine(colony, stored))
        story.judged.append(seen)
        story.guard = stored.sequence
    return story


def judge_generator(colony: Colony, chain: Chain, seen: Judged) -> Judged:
    """Judge an examined event of a generator and, if it is valid, fold it."""
    record = seen.record
    if record is None:
        return seen
    verdict = generators_.judge(chain, record, colony)
    if verdict.valid:
        generators_.evolve(chain, record)
    return Judged(seen.stored, record, verdict)


@dataclass(slots=True)
class History:
    """A fold over a whole ledger. Feed it every message in order, starting with the first.

    It is `Known` to itself: what a process or workflow cites stands before it. What it has forgotten it looks
    up `beyond`.
    """

    colony: Colony
    processes: dict[str, Process] = field(default_factory=dict)
    position: int = 0
    workflows: dict[str, Held] = field(default_factory=dict)
    voids: dict[str, set[bytes]] = field(default_factory=dict)
    beyond: Known = NOTHING
    crons: dict[str, Cron] = field(default_factory=dict)
    generators: dict[str, Chain] = field(default_factory=dict)

    def workflow(self, id: str) -> Workflow | None:
        held = self.workflows.get(id)
        return held if isinstance(held, Workflow) else self.beyond.workflow(id)

    def process(self, id: str) -> Process | None:
        return self.processes.get(id) or self.beyond.process(id)

    def cron(self, name: str) -> Cron | None:
        return self.crons.get(name)

    def sourced(self, source: Source, record: Record) -> Sourced | Verdict:
        if source.kind == "cron":
            return crons_.sourced(self.cron(source.name), source, record)
        chain = self.generators.get(source.name)
        return generators_.sourced(chain.find(source.added) if chain is not None else None, source, record)

    def add(self, stored: Stored, *, trusted: bool = False) -> Judged:
        """Judge the next message and fold it if it is valid. `trusted` as in `examine`."""
        return self.take(examine(self.colony, stored, trusted=trusted))

    def take(self, seen: Judged) -> Judged:
        """As `add`, of a message that was examined. If `beyond` raises, nothing was folded: take it again."""
        stored, record = seen.stored, seen.record
        self.position = stored.sequence
        if record is None:
            return seen
        match record.kind:
            case "process":
                return self._add_process(record.entity, seen)
            case "workflow":
                held, judged = judge_workflow(self.colony, self.workflows.get(record.entity), seen, self)
                if held is not None:
                    self.workflows[record.entity] = held
                self._take(judged)
                return judged
            case "cron":
                cron, judged = judge_cron(self.colony, self.crons.get(record.entity), seen)
                if cron is not None:
                    self.crons[record.entity] = cron
                return judged
            case "generator":
                return self._add_generator(record.entity, seen)
        verdict = colonies_.judge(self.colony, record)
        if verdict.valid:
            colonies_.evolve(self.colony, record)
        return Judged(stored, record, verdict)

    def _add_generator(self, name: str, seen: Judged) -> Judged:
        chain = self.generators.get(name) or Chain(name)
        judged = judge_generator(self.colony, chain, seen)
        if judged.verdict.valid:
            self.generators[name] = chain
        return judged

    def _take(self, judged: Judged) -> None:
        """The arguments of a generator's run are the workflow's now."""
        event = judged.record.event if judged.record is not None and judged.verdict.valid else None
        source = event.source if isinstance(event, WorkflowSubmitted) else None
        if source is not None and source.kind == "generator":
            self.generators[source.name].taken(source)

    def _add_process(self, id: str, seen: Judged) -> Judged:
        before = self.processes.get(id)
        voids = self.voids.get(id, set())
        process, judged = judge_process(self.colony, before, seen, self, voids)
        if voids:
            self.voids[id] = voids
        if process is not None:
            self.processes[id] = process
        return judged
