"""Why a process ended as it did, how its attempts went, and how the one goes that runs. Pure: facts in,
reasons out (`colonies.reasons`).
"""

from __future__ import annotations

from collections.abc import Iterator

from colonies.core.events import (
    Assigned,
    Cancelled,
    Expired,
    Failed,
    Poisoned,
    Record,
    Renewed,
    Returned,
    Skipped,
)
from colonies.core.process import SECOND, Attempt, Blocked, FailedForGood, Running
from colonies.core.states import Process
from colonies.reasons import Facts, Reason, called, lasted, named
from colonies.show import to_the_second

MAX_TOLD = 10  # attempts, the last ones
MAX_ERROR_CHARS = 1_000


def running(facts: Facts, phase: Running) -> Iterator[Reason]:
    """Of a process that a worker has."""
    process, now = facts.process, facts.now
    attempt = process.attempts[-1]
    cites = facts.sequence_of(attempt.id)
    limit_s = process.spec.maxexectime
    until = attempt.started_at + int(limit_s * SECOND) if limit_s is not None else None
    beat = facts.beat if facts.beat is not None and facts.beat.runs(process.id, attempt.id) else None
    where = f"{attempt.worker}/{attempt.instance}"
    text = f"running since {to_the_second(attempt.started_at)}: attempt {attempt.n} on {where}"
    if until is not None:
        text += f"; it may run until {to_the_second(until)} (maxexectime {limit_s:g} s)"
    data = {"attempt": attempt.n, "worker": attempt.worker, "instance": attempt.instance}
    if beat is not None:
        text += f"; it showed life {lasted(now - beat.time)} ago{_progress(beat.attempts[process.id])}"
    last_sign = max(phase.signed_at, beat.time if beat is not None else 0)
    lapsed = last_sign + int(phase.lease_s * SECOND)
    if now >= lapsed:
        silent = (
            f"no sign of life from {where} since {to_the_second(last_sign)}, and its lease is "
            f"{phase.lease_s:g} s: another worker may take it over"
        )
        signs = tuple(step.record.sequence for step in facts.steps if _is_sign(step.record, attempt))
        yield Reason("silent", silent, signs[-1:], last_sign, data={**data, "lease_s": phase.lease_s})
    yield Reason("running", text, cites, attempt.started_at, until, data)
    yield from _long(facts, attempt)


def _progress(said: object) -> str:
    """How far it is, as its heartbeat says: [attempt, fraction, message]."""
    match said:
        case [_, float() | int() as fraction, str() as message, *_] if 0 <= fraction <= 1:
            return f", {fraction:.0%} done{': ' if message else ''}{message}"
    return ""


def _is_sign(record: Record, attempt: Attempt) -> bool:
    event = record.event
    return record.id == attempt.id or (isinstance(event, Renewed) and event.attempt == attempt.id)


def _long(facts: Facts, attempt: Attempt) -> Iterator[Reason]:
    usual = facts.views.usual if facts.views is not None else None
    ran = facts.now - attempt.started_at
    if usual is None or facts.views is None or ran <= int(usual.most_s * SECOND):
        return
    most, median = lasted(int(usual.most_s * SECOND)), lasted(int(usual.median_s * SECOND))
    text = (
        f"it runs for {lasted(ran)}, longer than each of the last {usual.count} of "
        f"{called(facts.process.spec.func)} that were successful (at most {most}, half of them {median})"
    )
    data = {"ran_s": round(ran / SECOND, 3), "median_s": usual.median_s, "most_s": usual.most_s}
    data |= {"count": usual.count, "position": facts.views.position}
    yield Reason("running_long", text, facts.sequence_of(attempt.id), attempt.started_at, data=data)


# --- the attempts -----------------------------------------------------------------------------------


def attempts(facts: Facts) -> Iterator[Reason]:
    """The attempts that ended without success, the last first."""
    told = [attempt for attempt in facts.process.attempts if attempt.outcome not in (None, "successful")]
    if told and _is_told(facts):
        told.pop()
    for attempt in reversed(told[-MAX_TOLD:]):
        yield _attempt(facts, attempt)
    if len(told) > MAX_TOLD:
        more = len(told) - MAX_TOLD
        text = f"{more} attempts before these; see `colonies process history {facts.process.id}`"
        yield Reason("attempts_before", text, data={"count": len(told) - MAX_TOLD})


def _is_told(facts: Facts) -> bool:
    """Was the last attempt told of already, as what the process ended of, or backs off from?"""
    phase = facts.process.phase
    waits = isinstance(phase, Blocked) and facts.now < phase.until
    return isinstance(facts.steps[-1].record.event, Failed) and (waits or facts.process.final)


def _attempt(facts: Facts, attempt: Attempt) -> Reason:
    began = facts.sequence_of(attempt.id)
    end = _end_of(facts, attempt)
    who = f"attempt {attempt.n} on {attempt.worker}"
    data = {
        "attempt": attempt.n,
        "worker": attempt.worker,
        "instance": attempt.instance,
        "error": attempt.error,
    }
    span = (attempt.started_at, attempt.ended_at)
    cites = (*began, *([end.sequence] if end is not None else []))
    then = _then(facts, attempt, end)
    match attempt.outcome:
        case "lost":
            signs = [step.record.sequence for step in facts.steps if _is_sign(step.record, attempt)]
            silent = f"no sign of life for {_lease_s(facts, attempt):g} s after sequence {signs[-1]}"
            text = f"{who} was lost: {silent}{then}"
            return Reason("attempt_lost", text, (*signs[-1:], *cites[1:]), *span, data)
        case "returned":
            reason = end.event.reason if end is not None and isinstance(end.event, Returned) else ""
            text = f"{who} was given back unfinished{': ' if reason else ''}{reason}{then}"
            return Reason("attempt_returned", text, cites, *span, {**data, "why": reason})
        case "cancelled":
            return Reason(
                "attempt_cancelled", f"{who} was stopped: the process was cancelled", cites, *span, data
            )
        case "later":
            text = f"{who} asked to be put off: {_error(attempt)}{then}"
            return Reason("attempt_put_off", text, cites, *span, data)
    timed_out = attempt.outcome == "timeout"
    text = f"{who} {'timed out' if timed_out else 'failed'}: {_error(attempt)}{then}"
    return Reason("attempt_timed_out" if timed_out else "attempt_failed", text, cites, *span, data)


def _then(facts: Facts, attempt: Attempt, end: Record | None) -> str:
    """What came after it."""
    event = end.event if end is not None else None
    if isinstance(event, Failed) and not facts.process.final and attempt is facts.process.attempts[-1]:
        return f"; backoff of {event.delay_s:g} s"
    following = next((other for other in facts.process.attempts if other.n == attempt.n + 1), None)
    if following is not None:
        return f"; attempt {following.n} on {following.worker} took it at sequence {_first(facts, following)}"
    if isinstance(event, Poisoned):
        return "; it was not offered again"
    return f"; offered again at sequence {end.sequence}" if end is not None and end.queue is not None else ""


def _first(facts: Facts, attempt: Attempt) -> int:
    return next(iter(facts.sequence_of(attempt.id)), 0)


def _end_of(facts: Facts, attempt: Attempt) -> Record | None:
    """The event by which it ended."""
    for step in facts.steps:
        for after in step.after.attempts[-2:]:
            if after.id == attempt.id and after.ended_at is not None:
                return step.record
    return None


def _lease_s(facts: Facts, attempt: Attempt) -> float:
    for step in facts.steps:
        if step.record.id == attempt.id and isinstance(step.record.event, Assigned):
            return step.record.event.lease_s
    return 0.0


def _error(attempt: Attempt) -> str:
    return (attempt.error or "no reason given")[:MAX_ERROR_CHARS]


# --- the end ----------------------------------------------------------------------------------------


def failed(facts: Facts, phase: FailedForGood) -> Iterator[Reason]:
    process, end = facts.process, facts.steps[-1].record
    cites, at = (end.sequence,), end.time
    match end.event:
        case Poisoned():
            lost = process.attempts[-process.lost_in_a_row :]
            starts = tuple(n for attempt in lost for n in facts.sequence_of(attempt.id))
            who = named(sorted({attempt.worker for attempt in lost}))
            text = f"poisoned: {len(lost)} attempts in a row were lost, on {who}"
            yield Reason("poisoned", text, (*starts, *cites), at, data={"lost": len(lost)})
        case Expired():
            since = _waited_since(facts)
            limit_s = process.spec.maxwaittime or 0
            what = "for its signal " if process.queue == "" else ""
            text = f"expired: waited {what}longer than its maxwaittime of {limit_s:g} s"
            text += f", since {to_the_second(since)}" if since is not None else ""
            yield Reason("expired", text, cites, at, data={"maxwaittime": limit_s})
        case Failed() as event:
            yield from _gave_up(facts, event, phase.error[:MAX_ERROR_CHARS], at)
        case _:
            yield Reason("failed", f"failed: {phase.error}", cites, at)


def _waited_since(facts: Facts) -> int | None:
    return facts.steps[-2].after.waits_since if len(facts.steps) > 1 else None


def _gave_up(facts: Facts, event: Failed, error: str, at: int) -> Iterator[Reason]:
    process, cites = facts.process, (facts.process.sequence,)
    attempt = process.attempts[-1]
    data = {"attempt": attempt.n, "worker": attempt.worker, "error": error}
    if event.kind == "final":
        text = (
            f"attempt {attempt.n} on {attempt.worker} ended for good (its function said Fail, or what it was "
            f"given or gave is not allowed): {error}"
        )
        yield Reason("failed_for_good", text, cites, at, data=data)
        return
    retries = process.spec.maxretries
    used = process.failures - 1
    text = f"retries used up ({used} of {retries}): attempt {attempt.n} on {attempt.worker} "
    text += f"{'timed out' if event.kind == 'timeout' else 'failed'}: {error}"
    yield Reason("retries_used_up", text, cites, at, data={**data, "retries": retries})
    if f"has no function {process.spec.func!r}" in error:
        yield _no_function(facts, attempt)


def _no_function(facts: Facts, attempt: Attempt) -> Reason:
    process, views = facts.process, facts.views
    func = called(process.spec.func)
    data: dict[str, object] = {"func": process.spec.func, "without": [attempt.worker]}
    runtimetype = process.spec.conditions.runtimetype
    if views is None:
        text = f"{attempt.worker} has no function {func}; {facts.silence}"
    else:
        having = sorted({w.name for w in views.workers if process.spec.func in w.functions})
        data |= {"with": having, "position": views.position}
        others = f"of the living workers of runtimetype {runtimetype}"
        none = "none is known to have it" if any(w.more_functions for w in views.workers) else "none has it"
        has = f"{named(having)} {'has' if len(having) == 1 else 'have'} it" if having else none
        text = f"{attempt.worker} has no function {func}; {others} {has}"
    return Reason("no_function", text, (process.sequence,), data=data)


def cancelled(facts: Facts) -> Iterator[Reason]:
    end = facts.steps[-1].record
    event = end.event
    assert isinstance(event, Cancelled)
    workflow, cites = facts.workflow, (end.sequence, *([event.cites] if event.cites is not None else []))
    at = to_the_second(end.time)
    if end.role != "service":
        why = f": {event.reason}" if event.reason else ""
        text = f"cancelled by {end.author} at {at}{why}"
        yield Reason("cancelled", text, cites, end.time, data={"by": end.author, "why": event.reason})
    elif facts.cause is not None:
        yield _stopped_by(facts.cause.label, facts.cause.process, event.cites, cites, at, end.time)
    elif workflow is not None and workflow.cancelled_at == event.cites:
        why = f": {workflow.reason}" if workflow.reason else ""
        text = f"cancelled at {at} with its workflow, which {workflow.cancelled_by} cancelled{why}"
        data = {"by": workflow.cancelled_by, "why": workflow.reason, "workflow": workflow.id}
        yield Reason("workflow_cancelled", text, cites, end.time, data=data)
    else:
        text = f"cancelled at {at} by the service {end.author}: {event.reason or 'no reason given'}"
        yield Reason("cancelled", text, cites, end.time, data={"by": end.author, "why": event.reason})


def _stopped_by(
    label: str, cause: Process | None, cited: int | None, cites: tuple[int, ...], at: str, time: int
) -> Reason:
    state = cause.state if cause is not None else "ended"
    error = f": {cause.errors[-1][:MAX_ERROR_CHARS]}" if cause is not None and cause.errors else ""
    was = "was cancelled" if state == "cancelled" else state
    text = f"cancelled at {at} since node {label} {was} (sequence {cited}){error}"
    data = {"node": label, "state": state, "process": cause.id if cause is not None else None}
    return Reason("stopped_by_node", text, cites, time, data=data)


def skipped(facts: Facts) -> Iterator[Reason]:
    end = facts.steps[0].record
    event = end.event
    assert isinstance(event, Skipped)
    node = (
        facts.workflow.spec.by_name.get(event.node.partition("[")[0]) if facts.workflow is not None else None
    )
    when = node.when if node is not None else None
    cites = (end.sequence, *event.cites[:20])
    if when is not None:
        text = f"skipped: its condition did not hold: {when}"
    else:
        text = "skipped: all the nodes before it were skipped"
    yield Reason("skipped", text, cites, end.time, data={"when": when})


def successful(facts: Facts) -> Iterator[Reason]:
    process = facts.process
    if not process.attempts:
        yield Reason("successful", "successful: its signal came", (process.sequence,), process.time)
        return
    attempt = process.attempts[-1]
    ran = lasted(process.time - attempt.started_at)
    text = f"successful: attempt {attempt.n} on {attempt.worker} took {ran}"
    cites = (*facts.sequence_of(attempt.id), process.sequence)
    yield Reason(
        "successful", text, cites, process.time, data={"attempt": attempt.n, "worker": attempt.worker}
    )
