"""Verifying a whole ledger: every sequence from 1, every signature, chain, role and transition.

A broker that lost events does not say so: it skips them silently, or cuts the tail and counts on from there.
So sequences must be contiguous up to what the broker itself, or an earlier verification (`high_water`), says
was there; and where a batch ends early, what follows is asked for one by one. A sequence for which the broker
does not answer, though it does for its neighbours, is a finding; a broker that answers for none of them is
not there, which says nothing about the ledger. It changes nothing and needs no consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from colonies import subjects
from colonies.core.audit import doubts
from colonies.core.colony import Colony
from colonies.core.process import Process
from colonies.errors import NotFound, Unavailable, Unknown
from colonies.history import History, Judged
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Stored
from colonies.witness import HighWater, digest_of

SILENCE_S = 3.0  # before an answer, be it one of many
TRIES = 3
MAX_NAMED = 1_000  # missing sequences in a row: more are one finding
MAX_AT_ONCE = 64

Kind = Literal["missing", "damaged", "quarantined", "void"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one sequence that a reader should know, and the rule that says so.

    `last`: it holds for every sequence up to this one (more than 1,000).
    """

    sequence: int
    kind: Kind
    rule: str
    subject: str | None = None
    author: str | None = None
    last: int | None = None


@dataclass(slots=True)
class Report:
    """`events` messages were read, `valid` of them are; `last_sequence` is the last that must be there."""

    events: int = 0
    valid: int = 0
    last_sequence: int = 0
    findings: list[Finding] = field(default_factory=list)
    high_water: HighWater = field(default_factory=HighWater)

    @property
    def clean(self) -> bool:
        """Nothing is missing, damaged or quarantined (a void event is nobody's fault)."""
        return all(finding.kind == "void" for finding in self.findings)


class _Silent(Exception):
    """The broker answers, but not for this sequence, nor for those behind it."""

    def __init__(self, sequence: int) -> None:
        super().__init__(sequence)
        self.sequence = sequence


async def verify_ledger(
    ledger: JetStreamLedger,
    *,
    high_water: HighWater | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read and judge every event. `progress` is called with (sequence, last sequence) now and then.

    Raises:
        Unavailable: there is no ledger, or the broker is gone or does not answer.
    """
    before = high_water or HighWater()
    end, lost_bytes = await _extent(ledger)
    report = Report(last_sequence=max(end, before.sequence))
    history = History(Colony(ledger.colony))
    reader = _Reader(ledger, end)
    position = 0
    while position < report.last_sequence:
        try:
            batch = await reader.next(position)
        except _Silent as silent:
            _gap(report, position + 1, silent.sequence - 1, reader.silent)
            rule = "the broker does not answer for it, nor for what may stand behind it"
            report.findings.append(Finding(silent.sequence, "damaged", rule))
            break
        for stored in batch:
            _gap(report, position + 1, stored.sequence - 1, reader.silent)
            position = stored.sequence
            _judge(report, history, stored, before)
        if not batch:
            _gap(report, position + 1, report.last_sequence, reader.silent)
            break
        if progress is not None:
            progress(position, report.last_sequence)
    # Reading itself can make the broker find, and cut, what it cannot read.
    _judge_tail(report, history, max(lost_bytes, (await _extent(ledger))[1]))
    return report


def _judge(report: Report, history: History, stored: Stored, before: HighWater) -> None:
    report.events += 1
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
        return
    # Without a sound signature it is nobody's word: what its subject says of an author proves nothing.
    author = judged.record.author if judged.record is not None else None
    kind: Kind = "damaged"
    if judged.verdict.kind != "valid" and (judged.record is not None or judged.stranger):
        kind = judged.verdict.kind
    report.findings.append(Finding(stored.sequence, kind, judged.verdict.rule, stored.subject, author))


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


def _gap(report: Report, first: int, last: int, silent: set[int]) -> None:
    """What is between two events that were read: some the broker has not, for some it does not answer."""
    for sequence in sorted(s for s in silent if first <= s <= last):
        _missing(report, first, sequence - 1)
        report.findings.append(Finding(sequence, "damaged", "the broker does not answer for it"))
        first = sequence + 1
    _missing(report, first, last)


def _missing(report: Report, first: int, last: int) -> None:
    number = last - first + 1
    if number > MAX_NAMED:
        rule = f"the broker has no readable message at any of the {number} sequences from here to {last}"
        report.findings.append(Finding(first, "missing", rule, last=last))
        return
    rule = "the broker has no readable message at this sequence"
    report.findings += [Finding(sequence, "missing", rule) for sequence in range(first, last + 1)]


def _judge_tail(report: Report, history: History, lost_bytes: int) -> None:
    if not history.colony.name:
        report.findings.append(Finding(1, "missing", "the ledger does not begin with a valid genesis"))
    if lost_bytes and not any(finding.kind == "missing" for finding in report.findings):
        rule = f"the broker cut {lost_bytes} bytes when it recovered: events from here on are lost"
        report.findings.append(Finding(report.last_sequence + 1, "missing", rule))


async def _extent(ledger: JetStreamLedger) -> tuple[int, int]:
    """The broker's own word: its last sequence, and how many bytes it knows to have lost."""
    for attempt in range(TRIES):
        try:
            info = await ledger.stream_info("LEDGER", deleted_details=True)
            break
        except Unknown:
            if attempt == TRIES - 1:
                raise
    else:
        raise Unavailable("the broker does not describe the ledger")
    state = info["state"]
    lost = state.get("lost") or {}
    return int(state["last_seq"]), int(lost.get("bytes") or 0)


class _Reader:
    """Reads on over what the broker cannot read, up to `end`, the last sequence that it claims to have.

    `silent` are the sequences for which it does not answer, though it does for their neighbours.
    """

    def __init__(self, ledger: JetStreamLedger, end: int) -> None:
        self._ledger = ledger
        self._end = end
        self.silent: set[int] = set()

    async def next(self, position: int) -> list[Stored]:
        """The next events after `position`; empty if nothing readable is left.

        Raises:
            _Silent: there may be more, but the broker does not answer for it.
            Unavailable: the broker does not answer at all.
        """
        if found := await self._batch(position):
            return found
        # Either nothing is left or the batch stumbled over what it cannot read: ask for the next ones singly.
        first, width, far = position + 1, 1, position + 1 + MAX_NAMED
        while first <= self._end:
            asked = range(first, min(first + width, self._end + 1))
            if found := await self._singly(asked, position):
                return found
            first, width = asked.stop, min(2 * width, MAX_AT_ONCE)
            if first >= far:  # a long gap: a batch may well find where it ends
                if found := await self._batch(first - 1):
                    return found
                far = first + MAX_NAMED
        return []

    async def _batch(self, position: int) -> list[Stored]:
        for _ in range(TRIES):
            try:
                async for batch in self._ledger.scan(position, wait_s=SILENCE_S):
                    return batch
                return []
            except Unknown:
                continue
            except (Unavailable, NotFound):
                return []
        return []

    async def _singly(self, asked: Sequence[int], position: int) -> list[Stored]:
        """Those of them that are there, up to where the broker is silent."""
        found: list[Stored] = []
        for sequence, answer in zip(asked, await asyncio.gather(*map(self._at, asked)), strict=True):
            if isinstance(answer, Stored):
                found.append(answer)
            elif answer == "silent":
                if found:
                    break
                await self._check_neighbours(sequence, position)
                self.silent.add(sequence)
                in_a_row = range(sequence - TRIES + 1, sequence + 1)
                if self.silent.issuperset(in_a_row):
                    self.silent.difference_update(in_a_row)
                    raise _Silent(in_a_row[0])
        return found

    async def _check_neighbours(self, sequence: int, position: int) -> None:
        """Raises Unavailable if the broker does not answer for what is next to a silent sequence either."""
        for neighbour in (position, sequence + 1):
            if 1 <= neighbour <= self._end and await self._at(neighbour) != "silent":
                return
        raise Unavailable(
            f"the broker does not answer (asked for sequence {sequence} of the ledger): try again later"
        )

    async def _at(self, sequence: int) -> Stored | Literal["none", "silent"]:
        for _ in range(TRIES):
            try:
                return await self._ledger.at(sequence, wait_s=SILENCE_S)
            except NotFound:
                return "none"
            except Unavailable:
                continue
        return "silent"
