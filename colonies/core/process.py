"""The life of a process: the one state machine that everybody uses.

    submitted ──> waiting ──assigned──> running ──completed──> successful
                   ^   ^                 │ │ └──failed──> failed       (final, or retries used up)
                   │   └──returned───────┘ └──failed──> blocked        (backoff, or Later)
                   └──requeued── blocked <─┘
    any state that is not final ──cancelled──> cancelled;   waiting ──expired──> failed
    running with a lapsed lease ──assigned by another──> running       (the attempt before it is lost)
    running and long silent ──requeued──> waiting                      (as well)
    ... five times in a row ──poisoned──> failed

`evolve` applies a valid event and never refuses; whether it is valid says `judge` (`colonies.core.rules`).
The names of states and rules are found here as well: this is the door to all that concerns one process.
"""

from __future__ import annotations

from dataclasses import replace

from colonies.core.events import (
    Assigned,
    Cancelled,
    Completed,
    Expired,
    Failed,
    Poisoned,
    Queued,
    Record,
    Renewed,
    Requeued,
    Returned,
)
from colonies.core.rules import Wish, decide, judge, lost_in_a_row
from colonies.core.states import (
    MAX_ATTEMPTS_KEPT,
    MAX_LOST_IN_A_ROW,
    RENEW_LEASES,
    RENEW_MAX_S,
    REOFFER_AFTER_S,
    SECOND,
    Attempt,
    Blocked,
    CancelledForGood,
    FailedForGood,
    Final,
    Offer,
    Outcome,
    Phase,
    Process,
    Running,
    State,
    Successful,
    Waiting,
    derived_id,
    keyed_id,
)

__all__ = [
    "MAX_ATTEMPTS_KEPT",
    "MAX_LOST_IN_A_ROW",
    "RENEW_LEASES",
    "RENEW_MAX_S",
    "REOFFER_AFTER_S",
    "SECOND",
    "Attempt",
    "Blocked",
    "CancelledForGood",
    "FailedForGood",
    "Final",
    "Offer",
    "Outcome",
    "Phase",
    "Process",
    "Running",
    "State",
    "Successful",
    "Waiting",
    "Wish",
    "decide",
    "derived_id",
    "evolve",
    "judge",
    "keyed_id",
    "lost_in_a_row",
]


def evolve(process: Process | None, record: Record) -> Process:
    """The process after a valid event. `record.time` is not before the process's last (see `judge`)."""
    event = record.event
    if isinstance(event, Queued):
        return _born(record, event)
    assert process is not None
    process = replace(process, head=record.digest, sequence=record.sequence, time=record.time)
    match event:
        case Requeued():
            offer = Offer(record.id, record.sequence, record.time)
            since = process.phase.since if isinstance(process.phase, Waiting) else record.time
            return replace(_without_a_lost_attempt(process, record.time), phase=Waiting(offer, since))
        case Assigned():
            return _taken(process, record, event)
        case Renewed():
            assert isinstance(process.phase, Running)
            return replace(process, phase=replace(process.phase, signed_at=record.time))
        case Returned():
            assert isinstance(process.phase, Running)
            ended = _ended(process, record.time, "returned")
            return replace(ended, phase=Waiting(process.phase.offer, record.time))
        case Completed():
            logs = event.logs.count if event.logs else 0
            ended = _ended(process, record.time, "successful", logs=logs)
            return replace(ended, phase=Successful(event.output, event.stored))
        case Failed():
            return _attempt_failed(process, record.time, event)
        case Poisoned():
            process = _without_a_lost_attempt(process, record.time)
            error = f"poison: {MAX_LOST_IN_A_ROW} attempts in a row lost their worker"
            return replace(process, phase=FailedForGood(error))
        case Expired():
            return replace(
                process, phase=FailedForGood(f"nobody took it within {process.spec.maxwaittime:g} s")
            )
        case Cancelled(reason=reason):
            if isinstance(process.phase, Running):
                process = _ended(process, record.time, "cancelled")
            return replace(process, phase=CancelledForGood(record.author, reason))
        case _:
            raise AssertionError(f"not an event of a process: {event.type}")


def _born(record: Record, event: Queued) -> Process:
    assert record.queue is not None
    return Process(
        id=record.entity,
        spec=event.spec,
        queue=record.queue,
        submitter=record.author,
        submitted_at=record.time,
        phase=Waiting(Offer(record.id, record.sequence, record.time), record.time),
        head=record.digest,
        sequence=record.sequence,
        time=record.time,
        arguments=event.arguments,
    )


def _taken(process: Process, record: Record, event: Assigned) -> Process:
    assert isinstance(process.phase, Waiting | Running)
    offer = process.phase.offer
    process = _without_a_lost_attempt(process, record.time)
    before = process.attempts[1 - MAX_ATTEMPTS_KEPT :]
    n = before[-1].n + 1 if before else 1
    attempt = Attempt(n, record.id, record.author, event.instance, started_at=record.time)
    phase = Running(offer, event.lease_s, record.time)
    return replace(process, attempts=(*before, attempt), phase=phase)


def _attempt_failed(process: Process, time: int, event: Failed) -> Process:
    outcome: Outcome = event.kind if event.kind in ("timeout", "later") else "failed"
    logs = event.logs.count if event.logs else 0
    counts = event.kind in ("error", "timeout")
    process = _ended(process, time, outcome, error=event.error, logs=logs)
    process = replace(process, failures=process.failures + (1 if counts else 0))
    retries = process.spec.maxretries
    used_up = counts and retries != -1 and process.failures > retries
    if event.kind == "final" or used_up:
        return replace(process, phase=FailedForGood(event.error))
    return replace(process, phase=Blocked(time + int(event.delay_s * SECOND)))


def _ended(
    process: Process, time: int, outcome: Outcome, *, error: str | None = None, logs: int = 0
) -> Process:
    last = replace(process.attempts[-1], ended_at=time, outcome=outcome, error=error, logs=logs)
    return replace(process, attempts=(*process.attempts[:-1], last), lost_in_a_row=0)


def _without_a_lost_attempt(process: Process, time: int) -> Process:
    """If an attempt still runs in the books, it is lost: its lease has lapsed."""
    if not isinstance(process.phase, Running):
        return process
    lost = process.lost_in_a_row + 1
    last = process.attempts[-1]
    error = f"lost: no sign of life from {last.worker} within its lease of {process.phase.lease_s:g} s"
    return replace(_ended(process, time, "lost", error=error), lost_in_a_row=lost)
