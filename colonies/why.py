"""Why a process waits, is blocked, runs long, was taken over, failed, was cancelled or skipped: reasons, the
most telling first, each with the events that it stands on.

Pure: `colonies.explaining` reads the facts. It decides nothing: what a process is, says its fold
(`colonies.core.process`); this only tells how it came to be so.
"""

from __future__ import annotations

from collections.abc import Iterator

from colonies import why_ended, why_waiting
from colonies.core.process import (
    Awaiting,
    Blocked,
    CancelledForGood,
    FailedForGood,
    Running,
    SkippedForGood,
    Waiting,
)
from colonies.reasons import Facts, Reason
from colonies.show_event import what

MAX_REFUSED = 5  # events that do not count, the last ones


def why(facts: Facts) -> list[Reason]:
    """The reasons for the state that a process is in, and how it got there."""
    return [*_now(facts), *_before(facts), *_refused(facts)]


def _now(facts: Facts) -> Iterator[Reason]:
    match facts.process.phase:
        case Waiting() as phase:
            return why_waiting.waiting(facts, phase)
        case Awaiting() as phase:
            return why_waiting.awaiting(facts, phase)
        case Blocked() as phase:
            return why_waiting.blocked(facts, phase)
        case Running() as phase:
            return why_ended.running(facts, phase)
        case FailedForGood() as phase:
            return why_ended.failed(facts, phase)
        case CancelledForGood():
            return why_ended.cancelled(facts)
        case SkippedForGood():
            return why_ended.skipped(facts)
        case _:
            return why_ended.successful(facts)


def _before(facts: Facts) -> Iterator[Reason]:
    return why_ended.attempts(facts)


def _refused(facts: Facts) -> Iterator[Reason]:
    """Events under its name that do not count: somebody thought otherwise of it."""
    for seen in facts.refused[-MAX_REFUSED:]:
        event, _, _ = what(seen)
        who = f" of {seen.record.author}" if seen.record is not None else ""
        text = f"{event}{who} does not count ({seen.verdict.kind}): {seen.verdict.rule}"
        data = {"event": event, "verdict": seen.verdict.kind, "rule": seen.verdict.rule}
        yield Reason("not_counted", text, (seen.stored.sequence,), seen.stored.time, data=data)
