"""Verifying a whole ledger: every sequence from 1, every signature, chain, role and transition.

A broker that lost events does not say so: it skips them silently, or cuts the tail and counts on from there.
So sequences must be contiguous up to what the broker itself, or an earlier verification (`high_water`), says
was there; and where a batch ends early, what follows is asked for one by one. A sequence for which the broker
does not answer, though it does for its neighbours, is a finding; a broker that answers for none of them is
not there, which says nothing about the ledger. It changes nothing and needs no consumer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from colonies import subjects
from colonies.core.audit import doubts
from colonies.core.colony import Colony
from colonies.core.process import Process
from colonies.history import History, Judged
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Stored
from colonies.reading import MAX_NAMED, LedgerSource, Silent, Source
from colonies.witness import HighWater, digest_of

Kind = Literal["missing", "damaged", "quarantined", "void"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one sequence that a reader should know, and the rule that says so.

    `last`: it holds for every sequence up to this one.
    """

    sequence: int
    kind: Kind
    rule: str
    subject: str | None = None
    author: str | None = None
    last: int | None = None


@dataclass(slots=True)
class Report:
    """`events` messages were read, `valid` of them are; all from `first` to `last_sequence` must be there.

    `context` of them stand before the first. `name` is the colony's, as its genesis says. `cut_after`: of a
    file that was cut off, the last sequence that is still in it.
    """

    events: int = 0
    valid: int = 0
    last_sequence: int = 0
    first: int = 1
    context: int = 0
    name: str = ""
    cut_after: int | None = None
    findings: list[Finding] = field(default_factory=list)
    high_water: HighWater = field(default_factory=HighWater)

    @property
    def clean(self) -> bool:
        """Nothing is missing, damaged or quarantined (a void event is nobody's fault)."""
        return all(finding.kind == "void" for finding in self.findings)


async def verify_ledger(
    ledger: JetStreamLedger,
    *,
    high_water: HighWater | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read and judge every event of a broker's ledger. As `verify`."""
    return await verify(LedgerSource(ledger), high_water=high_water, progress=progress)


async def verify(
    source: Source,
    *,
    high_water: HighWater | None = None,
    progress: Callable[[int, int], None] | None = None,
    saw: Callable[[Judged, History], None] = lambda *_: None,
) -> Report:
    """Read and judge every event. `progress` is called with (sequence, last sequence) now and then, `saw`
    with every event, judged, and the fold after it.

    Raises:
        Unavailable: there is no ledger, or the broker is gone or does not answer.
    """
    before = high_water or HighWater()
    extent = await source.extent()
    report = Report(first=extent.first, last_sequence=max(extent.last, before.sequence))
    history = History(Colony(source.colony))
    position = 0
    while position < report.last_sequence:
        try:
            batch = await source.next(position)
        except Silent as silent:
            _gap(report, position + 1, silent.sequence - 1, source)
            kind: Kind = "damaged" if silent.missing_to is None else "missing"
            found = Finding(silent.sequence, kind, str(silent), last=silent.missing_to)
            report.findings.append(found)
            break
        for stored in batch:
            _gap(report, position + 1, stored.sequence - 1, source)
            position = stored.sequence
            saw(_judge(report, history, stored, before), history)
        if not batch:
            _gap(report, position + 1, report.last_sequence, source)
            break
        if progress is not None:
            progress(position, report.last_sequence)
    # Reading itself can make the broker find, and cut, what it cannot read.
    _judge_tail(report, history, max(extent.lost_bytes, (await source.extent()).lost_bytes))
    report.name = history.colony.name
    return report


def _judge(report: Report, history: History, stored: Stored, before: HighWater) -> Judged:
    report.events += 1
    report.context += stored.sequence < report.first
    entity = _process_of(stored)
    earlier = history.processes.get(entity)
    judged = history.add(stored)
    digest = digest_of(stored)
    if stored.sequence == before.sequence and digest != before.digest:
        rule = "it is not the event that an earlier verification saw at this sequence"
        report.findings.append(Finding(stored.sequence, "damaged", rule, stored.subject))
    if judged.verdict.valid:
        report.valid += 1
        report.high_water = HighWater(stored.sequence, digest)
        _doubt(report, history, judged, earlier, entity)
        return judged
    # Without a sound signature it is nobody's word: what its subject says of an author proves nothing.
    author = judged.record.author if judged.record is not None else None
    kind: Kind = "damaged"
    if judged.verdict.kind != "valid" and (judged.record is not None or judged.stranger):
        kind = judged.verdict.kind
    report.findings.append(Finding(stored.sequence, kind, judged.verdict.rule, stored.subject, author))
    return judged


def _process_of(stored: Stored) -> str:
    subject = subjects.parse(stored.subject)
    return subject.entity if subject is not None and subject.kind == "process" else ""


def _doubt(report: Report, history: History, judged: Judged, earlier: Process | None, entity: str) -> None:
    """A second look at the nodes of workflows, which does not lean on the rules that called this valid."""
    process = history.processes.get(entity)
    if process is None or process.workflow is None or judged.record is None:
        return
    workflow = history.workflow(process.workflow)
    for rule in doubts(earlier, process, workflow, history.processes):
        stored, author = judged.stored, judged.record.author
        report.findings.append(Finding(stored.sequence, "quarantined", rule, stored.subject, author))


def _gap(report: Report, first: int, last: int, source: Source) -> None:
    """What is between two events that were read: some are not there, for some there is no answer."""
    first = max(first, report.first)
    for sequence in sorted(s for s in source.silent if first <= s <= last):
        _missing(report, first, sequence - 1, source)
        report.findings.append(Finding(sequence, "damaged", f"{source.what} does not answer for it"))
        first = sequence + 1
    _missing(report, first, last, source)


def _missing(report: Report, first: int, last: int, source: Source) -> None:
    number = last - first + 1
    if number > MAX_NAMED:
        rule = f"{source.what} has no readable message at any of the {number} sequences from here to {last}"
        report.findings.append(Finding(first, "missing", rule, last=last))
        return
    rule = f"{source.what} has no readable message at this sequence"
    report.findings += [Finding(sequence, "missing", rule) for sequence in range(first, last + 1)]


def _judge_tail(report: Report, history: History, lost_bytes: int) -> None:
    if not history.colony.name:
        report.findings.append(Finding(1, "missing", "the ledger does not begin with a valid genesis"))
    if lost_bytes and not any(finding.kind == "missing" for finding in report.findings):
        rule = f"the broker cut {lost_bytes} bytes when it recovered: events from here on are lost"
        report.findings.append(Finding(report.last_sequence + 1, "missing", rule))
