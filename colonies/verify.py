"""Verifying a whole ledger: every sequence from 1, every signature, chain, role and transition.

A broker that lost events does not say so: it skips them silently, or cuts the tail and counts on from there.
So sequences must be contiguous up to what the broker itself, or an earlier verification (`high_water`), says
was there; what a batch leaves out is asked for one by one; and a broker that does not answer is a finding,
not a wait. It changes nothing and needs no consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from colonies.core.colony import Colony
from colonies.errors import NotFound, Unavailable, Unknown
from colonies.history import History
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Stored
from colonies.witness import HighWater, digest_of

BATCH_WAIT_S = 3.0
TRIES = 3

Kind = Literal["missing", "damaged", "quarantined", "void"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one sequence that a reader should know, and the rule that says so."""

    sequence: int
    kind: Kind
    rule: str
    subject: str | None = None
    author: str | None = None


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
    """The broker does not answer for what stands after this sequence."""


async def verify_ledger(
    ledger: JetStreamLedger,
    *,
    high_water: HighWater | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read and judge every event. `progress` is called with (sequence, last sequence) now and then.

    Raises:
        Unavailable: there is no ledger, or the broker is gone.
    """
    before = high_water or HighWater()
    end, lost_bytes = await _extent(ledger)
    report = Report(last_sequence=max(end, before.sequence))
    history = History(Colony(ledger.colony))
    position = 0
    while position < report.last_sequence:
        try:
            batch = await _next(ledger, position, report.last_sequence)
        except _Silent:
            rule = "the broker does not answer for it, nor for what may stand behind it"
            report.findings.append(Finding(position + 1, "damaged", rule))
            break
        for stored in batch:
            _missing(report, position + 1, stored.sequence)
            position = stored.sequence
            _judge(report, history, stored, before)
        if not batch:
            _missing(report, position + 1, report.last_sequence + 1)
            break
        if progress is not None:
            progress(position, report.last_sequence)
    # Reading itself can make the broker find, and cut, what it cannot read.
    _judge_tail(report, history, max(lost_bytes, (await _extent(ledger))[1]))
    return report


def _judge(report: Report, history: History, stored: Stored, before: HighWater) -> None:
    report.events += 1
    judged = history.add(stored)
    digest = digest_of(stored)
    if stored.sequence == before.sequence and digest != before.digest:
        rule = "it is not the event that an earlier verification saw at this sequence"
        report.findings.append(Finding(stored.sequence, "damaged", rule, stored.subject))
    if judged.verdict.valid:
        report.valid += 1
        report.high_water = HighWater(stored.sequence, digest)
        return
    # Without a sound signature it is nobody's word: what its subject says of an author proves nothing.
    author = judged.record.author if judged.record is not None else None
    kind: Kind = "damaged"
    if judged.verdict.kind != "valid" and (judged.record is not None or judged.stranger):
        kind = judged.verdict.kind
    report.findings.append(Finding(stored.sequence, kind, judged.verdict.rule, stored.subject, author))


def _missing(report: Report, first: int, end: int) -> None:
    rule = "the broker has no readable message at this sequence"
    report.findings += [Finding(sequence, "missing", rule) for sequence in range(first, end)]


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


async def _next(ledger: JetStreamLedger, position: int, end: int) -> list[Stored]:
    """The next batch after `position`; empty if nothing readable is left up to `end`."""
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(BATCH_WAIT_S):
                async for batch in ledger.scan(position):
                    return batch
            break
        except (TimeoutError, Unknown):
            continue
    # Either nothing is left or the batch stumbled over what it cannot read: ask for the next ones singly.
    silent = 0
    for sequence in range(position + 1, end + 1):
        try:
            async with asyncio.timeout(BATCH_WAIT_S):
                return [await ledger.at(sequence)]
        except NotFound:
            continue
        except (TimeoutError, Unknown):
            silent += 1
            if silent == TRIES:
                raise _Silent from None
    return []
