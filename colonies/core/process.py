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

from typing import Any

from colonies.core.adding import placed
from colonies.core.events import (
    Assigned,
    Awaited,
    Cancelled,
    Completed,
    Event,
    Expired,
    Failed,
    Poisoned,
    Queued,
    Received,
    Record,
    Released,
    Renewed,
    Requeued,
    Returned,
    Signalled,
    Skipped,
    Submitted,
)
from colonies.core.nodes import spec_of
from colonies.core.rules import judge, lost_in_a_row
from colonies.core.shapes import SECOND
from colonies.core.spec import queue_of
from colonies.core.states import (
    MAX_ATTEMPTS_KEPT,
    MAX_LOST_IN_A_ROW,
    RENEW_LEASES,
    RENEW_MAX_S,
    REOFFER_AFTER_S,
    ULID,
    Attempt,
    Awaiting,
    Blocked,
    CancelledForGood,
    FailedForGood,
    Final,
    Offer,
    Outcome,
    Phase,
    Process,
    Running,
    Signal,
    SkippedForGood,
    State,
    Successful,
    Waiting,
    derived_id,
    keyed_id,
)
from colonies.core.values import changed
from colonies.core.workflow import NOTHING, Known, dag_of

__all__ = [
    "MAX_ATTEMPTS_KEPT",
    "MAX_LOST_IN_A_ROW",
    "RENEW_LEASES",
    "RENEW_MAX_S",
    "REOFFER_AFTER_S",
    "SECOND",
    "ULID",
    "Attempt",
    "Awaiting",
    "Blocked",
    "CancelledForGood",
    "FailedForGood",
    "Final",
    "Offer",
    "Outcome",
    "Phase",
    "Process",
    "Running",
    "Signal",
    "SkippedForGood",
    "State",
    "Successful",
    "Waiting",
    "derived_id",
    "evolve",
    "judge",
    "keyed_id",
    "lost_in_a_row",
]


def evolve(process: Process | None, record: Record, known: Known = NOTHING) -> Process:
    """The process after a valid event. `record.time` is not before the process's last (see `judge`)."""
    event = record.event
    if isinstance(event, Queued | Submitted):
        return _born(record, event)
    if isinstance(event, Released | Awaited | Skipped) or (process is None and isinstance(event, Cancelled)):
        return _born_as_node(record, event, known)
    assert process is not None
    return changed(
        process,
        head=record.digest,
        sequence=record.sequence,
        time=record.time,
        **_changes(process, record, event, known),
    )


def _changes(process: Process, record: Record, event: Event, known: Known) -> dict[str, Any]:
    """What else a valid event changes of a process, by field."""
    phase, time = process.phase, record.time
    match event:
        case Requeued():
            since = process.waits_since
            offer = Offer(record.id, record.sequence, time)
            return {**_lost_attempt(process, time), "phase": Waiting(offer, time if since is None else since)}
        case Assigned():
            return _taken(process, record, event)
        case Renewed():
            assert isinstance(phase, Running)
            return {"phase": changed(phase, signed_at=time)}
        case Returned():
            assert isinstance(phase, Running)
            return {**_ended(process, time, "returned"), "phase": Waiting(phase.offer, time)}
        case Completed():
            logs = event.logs.count if event.logs else 0
            ended = _ended(process, time, "successful", logs=logs)
            adds = placed(event.adds, process.node) if event.adds and process.node else ()
            found = Successful(event.output, event.stored, event.items, adds, bool(event.between))
            return {**ended, "phase": found}
        case Failed():
            return _attempt_failed(process, time, event)
        case Poisoned():
            error = f"poison: {MAX_LOST_IN_A_ROW} attempts in a row lost their worker"
            return {**_lost_attempt(process, time), "phase": FailedForGood(error)}
        case Expired():
            what = (
                f"the {process.spec.func} did not come" if isinstance(phase, Awaiting) else "nobody took it"
            )
            return {"phase": FailedForGood(f"{what} within {process.spec.maxwaittime:g} s")}
        case Cancelled(reason=reason):
            ended = _ended(process, time, "cancelled") if isinstance(phase, Running) else {}
            return {**ended, "phase": CancelledForGood(record.author, reason)}
        case Received(cites=cites):
            workflow = known.workflow(process.workflow or "")
            assert workflow is not None
            [signal] = [signal for signal in workflow.signals if signal.sequence == cites]
            return {"phase": Successful({"by": signal.by, "data": signal.data})}
        case Signalled(name=name, data=data):
            signal = Signal(record.sequence, time, record.author, name, data)
            return {"signals": (*process.signals, signal)}
        case _:
            raise AssertionError(f"not an event of a process: {event.type}")


def _born(record: Record, event: Queued | Submitted) -> Process:
    spec = event.spec
    phase: Phase
    if isinstance(event, Queued):
        phase = Waiting(Offer(record.id, record.sequence, record.time), record.time)
    else:
        delay = record.time + int((spec.delay or 0) * SECOND)
        phase = Blocked(max(delay, int((spec.at or 0) * SECOND)))
    return Process(
        id=record.entity,
        spec=spec,
        queue=queue_of(spec.conditions, spec.priority),
        submitter=record.author,
        submitted_at=record.time,
        phase=phase,
        head=record.digest,
        sequence=record.sequence,
        time=record.time,
        arguments=event.arguments,
        trace=event.trace,
        first=record.sequence,
    )


def _born_as_node(record: Record, event: Event, known: Known) -> Process:
    """A node's process as its first event makes it: its submitter is that of the workflow."""
    assert isinstance(event, Released | Awaited | Skipped | Cancelled)
    workflow = known.workflow(event.workflow or "")
    assert workflow is not None
    assert event.node is not None
    node = dag_of(workflow, known, before=record.sequence).node(event.node)
    assert node is not None
    spec = spec_of(workflow, node)
    phase: Phase
    match event:
        case Released():
            phase = Waiting(Offer(record.id, record.sequence, record.time), record.time)
        case Awaited():
            phase = Awaiting(record.time)
        case Skipped():
            phase = SkippedForGood()
        case Cancelled(reason=reason):
            phase = CancelledForGood(record.author, reason)
    return Process(
        id=record.entity,
        spec=spec,
        queue="" if node.wait_signal is not None else queue_of(spec.conditions, spec.priority),
        submitter=workflow.submitter,
        submitted_at=record.time,
        phase=phase,
        head=record.digest,
        sequence=record.sequence,
        time=record.time,
        workflow=workflow.id,
        node=event.node,
        trace=workflow.trace,
        first=record.sequence,
    )


def _taken(process: Process, record: Record, event: Assigned) -> dict[str, Any]:
    assert isinstance(process.phase, Waiting | Running)
    changes = _lost_attempt(process, record.time)
    before = changes.get("attempts", process.attempts)[1 - MAX_ATTEMPTS_KEPT :]
    n = before[-1].n + 1 if before else 1
    attempt = Attempt(n, record.id, record.author, event.instance, started_at=record.time, code=event.code)
    phase = Running(process.phase.offer, event.lease_s, record.time)
    return {**changes, "attempts": (*before, attempt), "phase": phase}


def _attempt_failed(process: Process, time: int, event: Failed) -> dict[str, Any]:
    outcome: Outcome = event.kind if event.kind in ("timeout", "later") else "failed"
    logs = event.logs.count if event.logs else 0
    counts = event.kind in ("error", "timeout")
    failures = process.failures + counts
    retries = process.spec.maxretries
    used_up = counts and retries != -1 and failures > retries
    phase: Phase
    if event.kind == "final" or used_up:
        phase = FailedForGood(event.error)
    else:
        phase = Blocked(time + int(event.delay_s * SECOND))
    ended = _ended(process, time, outcome, error=event.error, logs=logs)
    return {**ended, "failures": failures, "phase": phase}


def _ended(
    process: Process, time: int, outcome: Outcome, *, error: str | None = None, logs: int = 0
) -> dict[str, Any]:
    last = changed(process.attempts[-1], ended_at=time, outcome=outcome, error=error, logs=logs)
    return {"attempts": (*process.attempts[:-1], last), "lost_in_a_row": 0}


def _lost_attempt(process: Process, time: int) -> dict[str, Any]:
    """If an attempt still runs in the books, it is lost: its lease has lapsed."""
    if not isinstance(process.phase, Running):
        return {}
    last = process.attempts[-1]
    error = f"no sign of life from {last.worker} within its lease of {process.phase.lease_s:g} s"
    return {**_ended(process, time, "lost", error=error), "lost_in_a_row": process.lost_in_a_row + 1}
