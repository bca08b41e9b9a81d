"""Why a process does not run yet: who could take it and does not, what waits before it, what holds it back.

Pure: facts in, reasons out (`colonies.reasons`). What a worker lacks is said by the function by which workers
themselves decide (`colonies.core.capacity.misses`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from colonies.core import units
from colonies.core.capacity import Candidate, misses
from colonies.core.events import Queued, Released, Requeued
from colonies.core.process import SECOND, Awaiting, Blocked, Waiting
from colonies.core.spec import Conditions
from colonies.reasons import (
    MAX_IN_DATA,
    Facts,
    PlaceNow,
    Reason,
    Stop,
    Views,
    WorkerNow,
    called,
    named,
    plural,
)
from colonies.show import to_the_second

# Conditions of which what else runs on a worker takes its share.
SHARED = ("cpu", "mem", "storage", "gpu", "processes")


def waiting(facts: Facts, phase: Waiting) -> Iterator[Reason]:
    """Of a process that is offered and that nobody has taken."""
    yield from _stopped(facts)
    if facts.views is None:
        text = f"waiting since {to_the_second(phase.since)}: needs {_needs_of(facts)}; {facts.silence}"
        yield Reason("no_views", text, _declared(facts), phase.since, data={"needs": _needs_of(facts)})
    else:
        yield from _workers(facts, facts.views, phase)
        yield from _ahead(facts.views, phase)
    yield from _not_taken(facts)
    yield from _expires(facts, phase)


def awaiting(facts: Facts, phase: Awaiting) -> Iterator[Reason]:
    """Of a node that waits for a signal."""
    name = facts.process.spec.func.removeprefix("signal ")
    text = (
        f"waiting since {to_the_second(phase.since)} for the signal {name} "
        f"(`colonies workflow signal {facts.process.workflow} {name}`)"
    )
    data = {"signal": name, "workflow": facts.process.workflow}
    yield Reason("waits_for_signal", text, _last(facts), phase.since, data=data)
    yield from _expires(facts, phase)


def blocked(facts: Facts, phase: Blocked) -> Iterator[Reason]:
    """Of a process that is not offered."""
    process = facts.process
    last = process.attempts[-1] if process.attempts else None
    until = phase.until if facts.now < phase.until else None
    held = any(place.granted is None for place in facts.places)
    if until is not None and last is not None:
        code, what = ("put_off", "was put off") if last.outcome == "later" else ("backoff", "is backing off")
        text = f"blocked: attempt {last.n} on {last.worker} ended so: {last.error}; it {what} until "
        data = {"attempt": last.n, "worker": last.worker, "error": last.error}
        yield Reason(code, text + to_the_second(until), _last(facts), process.time, until, data)
    elif until is not None:
        text = f"blocked: it has a delay until {to_the_second(until)}"
        yield Reason("delay", text, _last(facts), process.submitted_at, until)
    elif held:
        yield from places(facts.places, process.time)
    else:
        yield _to_be_offered(facts, phase)
    yield from _stopped(facts)
    yield from _expires(facts, phase)


def _to_be_offered(facts: Facts, phase: Blocked) -> Reason:
    grants = tuple(place.granted for place in facts.places if place.granted is not None)
    text = (
        f"blocked: nothing holds it back since {to_the_second(phase.until)}; an orchestrator is to offer it, "
        "and none has yet (`colonies server start --only orchestrator`)"
    )
    return Reason("offer_due", text, (*_last(facts), *grants), phase.until)


# --- pauses -----------------------------------------------------------------------------------------


def _stopped(facts: Facts) -> Iterator[Reason]:
    for stop in facts.stops:
        if stop.what != "worker":
            what = "the colony" if stop.what == "colony" else f"the queue {stop.name}"
            yield _stop(f"{stop.what}_paused", f"{what} is paused", stop)


def _stop(code: str, what: str, stop: Stop) -> Reason:
    why = f": {stop.reason}" if stop.reason else ""
    text = f"{what} by {stop.by} since {to_the_second(stop.since)}{why}"
    data = {"name": stop.name, "by": stop.by, "why": stop.reason}
    return Reason(code, text, (stop.sequence,) if stop.sequence is not None else (), stop.since, data=data)


# --- who could take it ------------------------------------------------------------------------------


def _workers(facts: Facts, views: Views, phase: Waiting) -> Iterator[Reason]:
    conditions = _conditions(facts)
    lacks = [(misses(conditions, Candidate(w.name, w.runtimetype, w.has)), w) for w in views.workers]
    able = [worker for missing, worker in lacks if not missing]
    begun = f"waiting since {to_the_second(phase.since)}: needs {needs(conditions)}; "
    known = {"position": views.position, "needs": needs(conditions), "alive": len(lacks)}
    if views.more:
        begun += "of the newest workers "
    if not able:
        yield _unserved(facts, lacks, begun, known, phase.since)
        return
    drained = {stop.name: stop for stop in facts.stops if stop.what == "worker"}
    for stop in [drained[name] for name in dict.fromkeys(w.name for w in able) if name in drained]:
        yield _stop("worker_drained", f"the worker {stop.name} is drained", stop)
    taking = [worker for worker in able if worker.name not in drained]
    free = [worker for worker in taking if worker.running < worker.concurrency]
    if not any(stop.what != "worker" for stop in facts.stops):
        yield _serving(facts, begun, {**known, "able": len(able)}, taking, free, conditions, phase.since)
    yield from _without_function(facts, views, taking)


def _unserved(
    facts: Facts,
    lacks: Sequence[tuple[list[str], WorkerNow]],
    begun: str,
    known: dict[str, object],
    since: int,
) -> Reason:
    if not lacks:
        return Reason("unserved", f"{begun}no worker is alive", _declared(facts), since, data=known)
    nearest = sorted(lacks, key=lambda found: (len(found[0]), found[1].name))
    missing, worker = nearest[0]
    none = f"0 of {plural(len(lacks), 'worker')} have it"
    text = f"{begun}{none}; nearest: {worker.name} lacks {'; '.join(missing)}"
    near = [{"worker": w.name, "misses": lacking} for lacking, w in nearest[:MAX_IN_DATA]]
    return Reason("unserved", text, _declared(facts), since, data={**known, "nearest": near})


def _serving(
    facts: Facts,
    begun: str,
    known: dict[str, object],
    taking: Sequence[WorkerNow],
    free: Sequence[WorkerNow],
    conditions: Conditions,
    since: int,
) -> Reason:
    """Some have what it needs. `taking` are those of them that are not drained, `free` those with a place."""
    cites = _declared(facts)
    have = f"{known['able']} of {plural(int(str(known['alive'])), 'worker')} have it"
    listed = [
        {"worker": w.name, "instance": w.instance, "running": w.running, "concurrency": w.concurrency}
        for w in taking[:MAX_IN_DATA]
    ]
    data = {**known, "workers": listed}
    if not taking:
        return Reason("all_drained", f"{begun}{have}, all drained", cites, since, data=data)
    if not free:
        runs = {f"{w.running} of {w.concurrency}" for w in taking}
        each = f"each runs {runs.pop()}" if len(runs) == 1 else named([_runs(w) for w in taking])
        who = "it is" if len(taking) == 1 else f"{len(taking)} could take it and are"
        return Reason("workers_busy", f"{begun}{have}; {who} busy: {each}", cites, since, data=data)
    shared = [field for field in SHARED if _asks(conditions, field)]
    if shared and all(worker.running for worker in free):
        what = f"what they run may use up the {' and '.join(shared)} that this needs"
        text = f"{begun}{have}; {named([_runs(w) for w in free])}: {what}"
        return Reason("workers_full", text, cites, since, data={**data, "shared": shared})
    text = f"{begun}{have}; {named([_runs(w) for w in free])}: it is about to be taken"
    return Reason("workers_free", text, cites, since, data=data)


def _runs(worker: WorkerNow) -> str:
    return f"{worker.name} runs {worker.running} of {worker.concurrency}"


def _without_function(facts: Facts, views: Views, taking: Sequence[WorkerNow]) -> Iterator[Reason]:
    """Of those who could take it, some have functions and not this one."""
    func = facts.process.spec.func
    without = sorted({w.name for w in taking if w.lacks(func)})
    having = sorted({w.name for w in taking if func in w.functions})
    more = any(w.more_functions for w in taking)
    if without:
        have = (
            f"{named(having)} {'has' if len(having) == 1 else 'have'} it"
            if having
            else ("none is known to have it" if more else "no living worker has it")
        )
        lack = "has" if len(without) == 1 else "have"
        leave = "leaves" if len(without) == 1 else "leave"
        then = f"{leave} it to others" if having else "would fail it"
        text = f"{named(without)} {lack} no function {called(func)} and {then}; {have}"
        data = {"func": func, "without": without, "with": having, "position": views.position}
        yield Reason("no_function", text, _last(facts), data=data)


# --- what is before it, what became of its offers -----------------------------------------------------


def _ahead(views: Views, phase: Waiting) -> Iterator[Reason]:
    ahead, position = views.ahead, views.position
    if ahead is None:
        return
    if ahead.higher:
        waits = f"{plural(ahead.higher, 'process', 'processes')} of higher priority wait"
        text = f"{waits}{'s' if ahead.higher == 1 else ''} for the same workers"
        yield Reason("higher_priority", text, data={"count": ahead.higher, "position": position})
    if ahead.same:
        least = "more than " if ahead.more else ""
        text = (
            f"{least}{plural(ahead.same, 'process', 'processes')} submitted before it wait in the same queue"
        )
        data = {"count": ahead.same, "more": ahead.more, "position": position}
        yield Reason("ahead", text, (phase.offer.sequence,), data=data)


def _not_taken(facts: Facts) -> Iterator[Reason]:
    """It was offered more than once since it last ran."""
    offers: list[int] = []
    for step in facts.steps:
        if isinstance(step.record.event, Queued | Released | Requeued):
            offers.append(step.record.sequence)
        elif not isinstance(step.after.phase, Waiting):
            offers.clear()
    if len(offers) > 1:
        text = f"offered {len(offers)} times; the offer of sequence {offers[-1]} is not taken"
        yield Reason("not_taken", text, tuple(offers), data={"offers": len(offers)})


def _expires(facts: Facts, phase: Waiting | Awaiting | Blocked) -> Iterator[Reason]:
    limit_s, since = facts.process.spec.maxwaittime, facts.process.waits_since
    if limit_s is None or since is None:
        return
    until = since + int(limit_s * SECOND)
    what = "the signal comes" if isinstance(phase, Awaiting) else "somebody takes it"
    text = f"it fails at {to_the_second(until)} unless {what} before (maxwaittime {limit_s:g} s)"
    yield Reason("expires", text, _last(facts), since, until, {"maxwaittime": limit_s})


# --- places under limits ------------------------------------------------------------------------------


def places(wanted: Sequence[PlaceNow], since: int) -> Iterator[Reason]:
    """Of what waits for places under the keys of its limits."""
    full = False
    for place in wanted:
        running = place.limit.running
        if place.granted is not None:
            continue
        if running is not None and len(place.holders) >= running:
            full = True
            holders = [id for id, _ in place.holders]
            taken = f"{len(holders)} of {running} places taken by {named(holders)}"
            text = f"blocked: limit key {place.key}: {taken}"
            data = {"key": place.key, "running": running, "holders": holders[:MAX_IN_DATA]}
            grants = tuple(sorted({sequence for _, sequence in place.holders}))
            yield Reason("limit_reached", text, grants, since, data=data)
        elif place.room_at is not None and place.limit.rate is not None and place.grants:
            yield from _rate(place, since)
            full = True
    if not full:
        keys = [place.key for place in wanted if place.granted is None]
        text = (
            f"blocked: there is room under {named(keys)}, and no place is granted yet; that is an "
            "orchestrator's to do, by priority, then submission"
        )
        yield Reason("place_due", text, since=since, data={"keys": keys})


def _rate(place: PlaceNow, since: int) -> Iterator[Reason]:
    limit, at = place.limit, place.room_at
    assert at is not None
    text = (
        f"blocked: rate {place.key}: {limit.rate} per {limit.per}, {len(place.grants)} granted; next place "
        f"at {to_the_second(at)}"
    )
    data = {"key": place.key, "rate": limit.rate, "per": limit.per, "granted": len(place.grants)}
    yield Reason("rate_reached", text, tuple(sorted(set(place.grants))), since, at, data)


# --- what it needs ------------------------------------------------------------------------------------


def needs(conditions: Conditions) -> str:
    """Conditions in words, such as `runtimetype=python, gpu=2 A100`."""
    found = [f"runtimetype={conditions.runtimetype}"]
    if conditions.workernames:
        found.append(f"workernames={' or '.join(conditions.workernames[:3])}")
    if conditions.location is not None:
        found.append(f"location={conditions.location}")
    found += [f"labels.{name}={value}" for name, value in conditions.labels.items()]
    if conditions.cpu is not None:
        found.append(f"cpu={conditions.cpu:g}")
    for field in ("mem", "storage"):
        if (size := getattr(conditions, field)) is not None:
            found.append(f"{field}={units.text(size)}")
    if (gpu := conditions.gpu) is not None:
        name = f" {gpu.name}" if gpu.name else ""
        found.append(f"gpu={gpu.count}{name}{f' of {units.text(gpu.mem)}' if gpu.mem else ''}")
    found += [f"{field}={n}" for field in ("nodes", "processes") if (n := getattr(conditions, field)) > 1]
    if conditions.walltime is not None:
        found.append(f"walltime={conditions.walltime:g} s")
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _asks(conditions: Conditions, field: str) -> bool:
    value = getattr(conditions, field)
    return bool(value > 1) if field == "processes" else value is not None


def _conditions(facts: Facts) -> Conditions:
    """Those of its queue, which are what counts; where that is retired, its own."""
    return facts.queue.conditions if facts.queue is not None else facts.process.spec.conditions


def _needs_of(facts: Facts) -> str:
    return needs(_conditions(facts))


def _declared(facts: Facts) -> tuple[int, ...]:
    """Where its queue says what it needs, and its last event."""
    own = (facts.queue.declared,) if facts.queue is not None else ()
    return (*own, *_last(facts))


def _last(facts: Facts) -> tuple[int, ...]:
    """The process's last valid event."""
    return (facts.process.sequence,)
