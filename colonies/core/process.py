"""The life of a process: the one state machine that everybody uses.

    submitted ──> waiting ──assigned──> running ──completed──> successful
                   ^   ^                 │ │ └──failed──> failed       (final, or retries used up)
                   │   └──returned───────┘ └──failed──> blocked        (backoff, or Later)
                   └──requeued── blocked <─┘
    any state that is not final ──cancelled──> cancelled;   waiting ──expired──> failed
    running with a lapsed lease ──assigned by another──> running       (the attempt before it is lost)
    ... five times in a row ──poisoned──> failed

`decide` turns a wish into the event to record or refuses it; `judge` gives a verdict on what is stored;
`evolve` applies a valid event and never refuses. All three are pure: time and ids come in as data.
`decide` is `judge` asked before the fact, so what one allows the other accepts.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from colonies.core.colony import Colony
from colonies.core.events import (
    VALID,
    Assigned,
    Cancelled,
    Completed,
    Expired,
    Failed,
    Poisoned,
    ProcessEvent,
    Queued,
    Record,
    Ref,
    Renewed,
    Requeued,
    Returned,
    Verdict,
    denied,
    quarantined,
)
from colonies.core.spec import Spec, queue_of
from colonies.errors import Conflict, Refused

MAX_LOST_IN_A_ROW = 5
REOFFER_AFTER_S = 10
SECOND = 1_000_000_000

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")

State = Literal["blocked", "waiting", "running", "successful", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Offer:
    """The event that put the process into its queue: its id, its sequence, its ledger time (ns)."""

    id: str
    sequence: int
    time: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """Not offered: a backoff or a delay lasts until `until` (ns)."""

    until: int
    state: Literal["blocked"] = "blocked"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Offered and not taken, since `since` (ns); being offered again does not start that anew."""

    offer: Offer
    since: int
    state: Literal["waiting"] = "waiting"


@dataclass(frozen=True, slots=True)
class Running:
    """Taken: the last of the process's attempts holds it. `signed_at` (ns) is its last sign on the ledger."""

    offer: Offer
    lease_s: float
    signed_at: int
    state: Literal["running"] = "running"

    def lapses_at(self) -> int:
        """The ledger time (ns) from which another worker may take over."""
        return self.signed_at + int(self.lease_s * SECOND)


@dataclass(frozen=True, slots=True)
class Successful:
    """Final: the output is here or, when it is large, in `stored`."""

    output: Any = None
    stored: Ref | None = None
    state: Literal["successful"] = "successful"


@dataclass(frozen=True, slots=True)
class FailedForGood:
    """Final: no attempt will follow. `error` is the last one's."""

    error: str
    state: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class CancelledForGood:
    """Final: somebody did not want it any more."""

    by: str
    reason: str
    state: Literal["cancelled"] = "cancelled"


Phase = Blocked | Waiting | Running | Successful | FailedForGood | CancelledForGood
Final = (Successful, FailedForGood, CancelledForGood)

Outcome = Literal["successful", "failed", "timeout", "later", "returned", "lost", "cancelled"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One assignment. `id` is its `assigned` event's id; times are ledger times (ns); `n` counts from 1."""

    n: int
    id: str
    worker: str
    instance: str
    started_at: int
    ended_at: int | None = None
    outcome: Outcome | None = None
    error: str | None = None
    logs: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the ledger tells it. `head` and `sequence` are those of its last valid event."""

    id: str
    spec: Spec
    queue: str
    submitter: str
    submitted_at: int
    phase: Phase
    head: bytes
    sequence: int
    time: int
    arguments: Ref | None = None
    attempts: tuple[Attempt, ...] = ()
    failures: int = 0
    lost_in_a_row: int = 0

    @property
    def state(self) -> State:
        return self.phase.state

    @property
    def final(self) -> bool:
        return isinstance(self.phase, Final)

    @property
    def ended_at(self) -> int | None:
        return self.time if self.final else None

    @property
    def errors(self) -> list[str]:
        """The errors of all attempts, oldest first, and what ended the process if no attempt did."""
        found = [attempt.error for attempt in self.attempts if attempt.error]
        if isinstance(self.phase, FailedForGood) and self.phase.error not in found:
            found.append(self.phase.error)
        return found


def derived_id(*sources: str) -> str:
    """The id of a process that derives from something: 32 characters, lower case, so never a ULID."""
    digest = hashlib.sha256("\0".join(sources).encode()).digest()
    return base64.b32encode(digest[:20]).decode().lower()


def keyed_id(submitter: str, key: str) -> str:
    """The id that a submitter's idempotency key stands for."""
    return derived_id("key", submitter, key)


# --- verdicts ---------------------------------------------------------------------------------------


def judge(process: Process | None, record: Record, colony: Colony) -> Verdict:
    """Could this event of a process be true here? Rules: DESIGN.md section 3. Never raises."""
    event = record.event
    if isinstance(event, Queued):
        return _queued(process, record, event, colony)
    if process is None:
        return quarantined("the process has no valid submission before it")
    if process.final:
        return quarantined(f"the process is {process.state} already")
    if record.prev != process.head:
        return quarantined("its prev is not the digest of the process's last valid event")
    match event:
        case Requeued():
            return _requeued(process, record, event)
        case Assigned():
            return _assigned(process, record, event, colony)
        case Renewed() | Returned() | Completed() | Failed():
            return _of_the_holder(process, record, event.attempt)
        case Poisoned():
            return _poisoned(process, record)
        case Expired():
            return _expired(process, record)
        case Cancelled():
            return _cancelled(process, record)
        case _:
            return quarantined(f"{event.type} is not an event of a process")


def _queued(process: Process | None, record: Record, event: Queued, colony: Colony) -> Verdict:
    if record.role not in ("user", "owner"):
        return denied(f"a {record.role} submits no processes")
    if process is not None:
        return quarantined("the process is submitted already")
    if record.prev is not None:
        return quarantined("a submission has no event before it")
    if event.key is None and not _ULID.fullmatch(record.entity):
        return quarantined("the id of a plain process is a ULID")
    if event.key is not None and record.entity != keyed_id(record.author, event.key):
        return quarantined("the id does not derive from the submitter and the key")
    if record.queue != queue_of(event.spec.conditions, event.spec.priority):
        return quarantined("the queue is not that of the spec's conditions and priority")
    if event.spec.conditions.dependencies:
        return quarantined("a process on its own has no dependencies")
    if event.spec.colony is not None and event.spec.colony not in (colony.name, colony.key):
        return quarantined(f"the spec is for the colony {event.spec.colony}, this is {colony.name}")
    return VALID


def _requeued(process: Process, record: Record, event: Requeued) -> Verdict:
    if record.role != "service":
        return denied(f"a {record.role} does not offer a process again")
    if record.queue != process.queue:
        return quarantined("the queue is not that of the process")
    if event.cites != process.sequence:
        return quarantined("it does not cite the process's last valid event")
    match process.phase:
        case Blocked(until=until) if record.time < until:
            return quarantined("the delay is not over")
        case Waiting(offer=offer) if record.time < offer.time + REOFFER_AFTER_S * SECOND:
            return quarantined(f"the offer is less than {REOFFER_AFTER_S} s old")
        case Running() as running if record.time < running.lapses_at():
            return quarantined("the lease of the running attempt has not lapsed")
    return VALID


def _assigned(process: Process, record: Record, event: Assigned, colony: Colony) -> Verdict:
    if record.role != "worker":
        return denied(f"a {record.role} takes no processes")
    names = process.spec.conditions.workernames
    if names and record.author not in names:
        return denied(f"the process is for {', '.join(names)}")
    if event.lease_s > colony.longest_lease_s:
        return quarantined(f"a lease in this colony is at most {colony.longest_lease_s:g} s")
    match process.phase:
        case Waiting(offer=offer):
            pass
        case Running(offer=offer) as running:
            if record.time < running.lapses_at():
                return quarantined(
                    f"attempt {len(process.attempts)} of {process.attempts[-1].worker} holds it"
                )
        case _:
            return quarantined(f"the process is {process.state}, not offered")
    if event.offer != offer.id:
        return quarantined("it does not name the process's current offer")
    if lost_in_a_row(process, record.time) >= MAX_LOST_IN_A_ROW:
        return quarantined(f"{MAX_LOST_IN_A_ROW} attempts in a row lost their worker")
    return VALID


def _of_the_holder(process: Process, record: Record, attempt: str) -> Verdict:
    if record.role != "worker":
        return denied(f"a {record.role} holds no attempts")
    if not isinstance(process.phase, Running):
        return quarantined(f"the process is {process.state}, not running")
    latest = process.attempts[-1]
    if latest.id != attempt or latest.worker != record.author:
        return quarantined(f"attempt {latest.n} of {latest.worker} holds the process")
    return VALID


def _poisoned(process: Process, record: Record) -> Verdict:
    if record.role not in ("worker", "service"):
        return denied(f"a {record.role} calls no process poison")
    if lost_in_a_row(process, record.time) < MAX_LOST_IN_A_ROW:
        return quarantined(f"it has not lost {MAX_LOST_IN_A_ROW} attempts in a row")
    return VALID


def _expired(process: Process, record: Record) -> Verdict:
    if record.role not in ("worker", "service"):
        return denied(f"a {record.role} lets no process expire")
    limit_s = process.spec.maxwaittime
    if limit_s is None or not isinstance(process.phase, Waiting):
        return quarantined("the process has no wait that could be over")
    if record.time < process.phase.since + int(limit_s * SECOND):
        return quarantined("the process has not waited for its maxwaittime")
    return VALID


def _cancelled(process: Process, record: Record) -> Verdict:
    if record.role == "owner" or (record.role == "user" and record.author == process.submitter):
        return VALID
    return denied(f"only {process.submitter} or an owner may cancel the process")


def lost_in_a_row(process: Process, at: int) -> int:
    """How many attempts in a row lost their worker, counting a running one whose lease lapsed by `at` (ns)."""
    running = isinstance(process.phase, Running) and at >= process.phase.lapses_at()
    return process.lost_in_a_row + (1 if running else 0)


# --- wishes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """What a member wants recorded of a process: the event to be, by whom, at which ledger time (ns)."""

    process: str
    queue: str | None
    author: str
    role: Any
    id: str
    at: int
    event: ProcessEvent


def decide(process: Process | None, wish: Wish, colony: Colony) -> bytes | None:
    """May this be recorded now? Gives the `prev` to record it with.

    Raises:
        Refused: the author may not say this.
        Conflict: it is not true of the process as it stands.
    """
    prev = process.head if process else None
    record = Record(
        sequence=0,
        time=wish.at,
        kind="process",
        entity=wish.process,
        queue=wish.queue,
        author=wish.author,
        role=wish.role,
        id=wish.id,
        prev=prev,
        digest=b"",
        event=wish.event,
    )
    verdict = judge(process, record, colony)
    if verdict.denied:
        raise Refused(f"process {wish.process}: {verdict.rule}")
    if not verdict.valid:
        raise Conflict(f"process {wish.process}: {verdict.rule}")
    return prev


# --- folding ----------------------------------------------------------------------------------------


def evolve(process: Process | None, record: Record) -> Process:
    """The process after a valid event."""
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
    attempt = Attempt(
        len(process.attempts) + 1, record.id, record.author, event.instance, started_at=record.time
    )
    return replace(
        process,
        attempts=(*process.attempts, attempt),
        phase=Running(offer, event.lease_s, record.time),
    )


def _attempt_failed(process: Process, time: int, event: Failed) -> Process:
    outcome: Outcome = {"timeout": "timeout", "later": "later"}.get(event.kind, "failed")  # type: ignore[assignment]
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
