"""What the statistics count, event by event, and the tables that keep it.

Each event of a process that counts is a row of `statistics_facts`. They stand in stretches of one minute and
at most FACTS_AT_ONCE sequences; when one is over, a trigger adds its facts up for each function and for all
(number 0), and likewise minutes to hours and hours to days. All of these tables only grow, so what is counted
at a sequence is the sums that were closed by then and the few facts after them.

Time goes by ledger times and never back: where the broker's clock was set back, an event counts in the minute
that it had come to. Of functions that only submissions name there are MAX_SUBMITTED at most; the others
count together, by runtime type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from colonies.core.colony_events import WorkerStarted
from colonies.core.process import (
    Attempt,
    CancelledForGood,
    FailedForGood,
    Process,
    Running,
    SkippedForGood,
    Successful,
    Waiting,
)
from colonies.core.process_events import Assigned
from colonies_projections.tally import COUNTS, OUTCOMES, STATES, bucket_of
from colonies_projections.view import Batch, Step, Write

MAX_SUBMITTED: Final = 10_000  # functions
MAX_REGISTERED: Final = 20_000  # functions, with those that workers have
MAX_NAME_CHARS: Final = 256
BLOCK_BITS: Final = 14
FACTS_AT_ONCE: Final = 1 << BLOCK_BITS

MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
SPANS: Final = (MINUTE_S, HOUR_S, DAY_S)
EVERYTHING: Final = 0  # in the place of a function's number
NAMELESS: Final = 1  # what there is no room for, not even by its runtime type

_MINUTE_NS: Final = MINUTE_S * 1_000_000_000
_RAN: Final = {"successful", "failed", "timeout"}  # attempts whose end their own function brought about
_NOTHING, _SUBMITTED, _STARTED, _RETRIED = range(4)  # what began
_STATE: Final[dict[type[Any], int]] = {
    Successful: STATES.index("successful") + 1,
    FailedForGood: STATES.index("failed") + 1,
    CancelledForGood: STATES.index("cancelled") + 1,
    SkippedForGood: STATES.index("skipped") + 1,
}
_OUTCOME: Final = {outcome: number for number, outcome in enumerate(OUTCOMES, start=1)}

# How long it waited is known when it is taken, how long it ran when an attempt ends: never both at once.
TIMED: Final = (f"began >= {_STARTED}", f"began = {_NOTHING}")

_OF_FACTS: Final = (
    *(f"sum(began = {_SUBMITTED})", f"sum(began >= {_STARTED})", f"sum(began = {_RETRIED})"),
    *(f"sum(state = {number})" for number in range(1, len(STATES) + 1)),
    *(f"sum(outcome = {number})" for number in _OUTCOME.values()),
)
SUMS_OF_FACTS: Final = ", ".join(f"{sum_} AS {name}" for sum_, name in zip(_OF_FACTS, COUNTS, strict=True))
SUMS: Final = ", ".join(f"sum({name}) AS {name}" for name in COUNTS)
_NAMES: Final = ", ".join(COUNTS)


def _added_up(span: int, of: int) -> str:
    """The trigger that adds up the sums of one length to the next, when that is over."""
    within = f"x.span = {of} AND x.start >= last.start AND x.start < last.start + {span}"
    last = f"(SELECT start FROM statistics_spans WHERE span = {span} ORDER BY sequence DESC LIMIT 1) AS last"
    return f"""
CREATE TRIGGER statistics_{span}_over BEFORE INSERT ON statistics_spans WHEN NEW.span = {span} BEGIN
    INSERT INTO statistics_counts (func, span, start, sequence, {_NAMES})
    SELECT x.func, {span}, last.start, NEW.sequence, {", ".join(f"sum(x.{name})" for name in COUNTS)}
    FROM {last} CROSS JOIN statistics_functions CROSS JOIN statistics_counts AS x
        ON x.func = statistics_functions.number AND {within}
    GROUP BY x.func;
    INSERT INTO statistics_times (func, span, what, start, sequence, bucket, number, total_us)
    SELECT x.func, {span}, x.what, last.start, NEW.sequence, x.bucket, sum(x.number), sum(x.total_us)
    FROM {last} CROSS JOIN statistics_functions CROSS JOIN (SELECT 0 AS kind UNION ALL SELECT 1)
        CROSS JOIN statistics_times AS x
        ON x.func = statistics_functions.number AND x.what = kind AND {within}
    GROUP BY x.func, x.what, x.bucket;
END;
"""


def _facts_added_up() -> str:
    last = f"""(
        SELECT start, sequence FROM statistics_spans WHERE span = {MINUTE_S} ORDER BY sequence DESC LIMIT 1
    ) AS last"""
    facts = f"{last} CROSS JOIN statistics_facts AS fact ON fact.sequence >= last.sequence"
    times = "".join(
        f"""
    INSERT INTO statistics_times (func, span, what, start, sequence, bucket, number, total_us)
    SELECT func, {MINUTE_S}, {what}, last.start, NEW.sequence, bucket, count(*), sum(us)
    FROM {facts} WHERE bucket IS NOT NULL AND {timed} GROUP BY func, bucket;
"""
        for what, timed in enumerate(TIMED)
    )
    fresh = f"x.func = statistics_functions.number AND x.span = {MINUTE_S}"
    return f"""
CREATE TRIGGER statistics_{MINUTE_S}_over BEFORE INSERT ON statistics_spans WHEN NEW.span = {MINUTE_S} BEGIN
    INSERT INTO statistics_counts (func, span, start, sequence, {_NAMES})
    SELECT func, {MINUTE_S}, last.start, NEW.sequence, {SUMS_OF_FACTS} FROM {facts} GROUP BY func;
    {times}
    INSERT INTO statistics_counts (func, span, start, sequence, {_NAMES})
    SELECT {EVERYTHING}, {MINUTE_S}, last.start, NEW.sequence, {SUMS}
    FROM {last} CROSS JOIN statistics_functions CROSS JOIN statistics_counts AS x
        ON {fresh} AND x.start = last.start AND x.sequence = NEW.sequence
    GROUP BY last.start;
    INSERT INTO statistics_times (func, span, what, start, sequence, bucket, number, total_us)
    SELECT {EVERYTHING}, {MINUTE_S}, what, last.start, NEW.sequence, bucket, sum(x.number), sum(total_us)
    FROM {last} CROSS JOIN statistics_functions CROSS JOIN (SELECT 0 AS kind UNION ALL SELECT 1)
        CROSS JOIN statistics_times AS x
        ON {fresh} AND x.what = kind AND x.start = last.start AND x.sequence = NEW.sequence
    GROUP BY what, bucket;
END;
"""


# `start` is in seconds since 1970; the sums closed at `sequence` are of the events before it. A function
# without a name stands for all others of its runtime type.
TABLES: Final = f"""
CREATE TABLE statistics_functions (
    number INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL,
    name TEXT NOT NULL,
    runtimetype TEXT NOT NULL,
    UNIQUE (name, runtimetype)
);
INSERT INTO statistics_functions VALUES ({EVERYTHING}, 0, '*', ''), ({NAMELESS}, 0, '', '');
CREATE TABLE statistics_spans (
    span INTEGER NOT NULL, sequence INTEGER NOT NULL, start INTEGER NOT NULL, PRIMARY KEY (span, sequence)
) WITHOUT ROWID;
CREATE TABLE statistics_facts (
    sequence INTEGER PRIMARY KEY,
    func INTEGER NOT NULL,
    began INTEGER NOT NULL,
    state INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    bucket INTEGER,
    us INTEGER
);
CREATE TABLE statistics_counts (
    func INTEGER NOT NULL, span INTEGER NOT NULL, start INTEGER NOT NULL, sequence INTEGER NOT NULL,
    {", ".join(f"{name} INTEGER NOT NULL" for name in COUNTS)},
    PRIMARY KEY (func, span, start, sequence)
) WITHOUT ROWID;
CREATE TABLE statistics_times (
    func INTEGER NOT NULL, span INTEGER NOT NULL, what INTEGER NOT NULL, start INTEGER NOT NULL,
    sequence INTEGER NOT NULL, bucket INTEGER NOT NULL, number INTEGER NOT NULL, total_us INTEGER NOT NULL,
    PRIMARY KEY (func, span, what, start, sequence, bucket)
) WITHOUT ROWID;
{_facts_added_up()}
{_added_up(HOUR_S, MINUTE_S)}
{_added_up(DAY_S, HOUR_S)}
"""

_FUNCTION = """
INSERT INTO statistics_functions (number, sequence, name, runtimetype)
SELECT top + 1, ?1, ?2, ?3 FROM (SELECT max(number) AS top FROM statistics_functions)
WHERE top < ?4 ON CONFLICT DO NOTHING
"""
# Nothing is begun that has begun already: the same stretches, however the ledger is cut into batches.
_BEGUN = f"""
INSERT INTO statistics_spans (span, start, sequence)
SELECT ?1, max(?2, coalesce(last.start, 0)), ?3 FROM (SELECT 1) LEFT JOIN (
    SELECT start, sequence FROM statistics_spans WHERE span = ?1 ORDER BY sequence DESC LIMIT 1
) AS last
WHERE last.start IS NULL OR last.start < ?2
    OR (?1 = {MINUTE_S} AND last.sequence >> {BLOCK_BITS} < ?3 >> {BLOCK_BITS})
"""
_FACT = f"""
INSERT INTO statistics_facts (sequence, func, began, state, outcome, bucket, us)
VALUES (?3, coalesce(
    (SELECT number FROM statistics_functions WHERE name = ?1 AND runtimetype = ?2),
    (SELECT number FROM statistics_functions WHERE name = '' AND runtimetype = ?2),
    {NAMELESS}
), ?4, ?5, ?6, ?7, ?8)
"""

Fact = tuple[Any, ...]


def writes(batch: Batch) -> Iterator[Write]:
    """What a batch adds to these tables."""
    yield _FUNCTION, _functions(batch)
    minute = block = -1
    facts: list[Fact] = []
    for step in batch.steps:
        fact = _fact(step)
        if fact is None:
            continue
        time, sequence = step.record.time, step.record.sequence
        if time // _MINUTE_NS != minute or sequence >> BLOCK_BITS != block:
            if facts:
                yield _FACT, facts
            minute, block, facts = time // _MINUTE_NS, sequence >> BLOCK_BITS, []
            start = minute * MINUTE_S
            yield _BEGUN, [(span, start // span * span, sequence) for span in SPANS]
        facts.append(fact)
    yield _FACT, facts


def _functions(batch: Batch) -> list[tuple[Any, ...]]:
    """The functions that this batch is the first to name, perhaps, in order."""
    found: dict[tuple[str, str], int] = {}
    for step in batch.steps:
        process = step.after
        if step.before is not None or not process.queue:
            continue
        name, kind = process.spec.func, process.spec.conditions.runtimetype
        if (name, kind) not in found:
            found.setdefault(("", kind), step.record.sequence)
            if len(name) <= MAX_NAME_CHARS:
                found[name, kind] = step.record.sequence
    rows = [(sequence, *key, MAX_SUBMITTED) for key, sequence in found.items()]
    for record in batch.others:
        if isinstance(record.event, WorkerStarted):
            kind = record.event.runtimetype
            names = ["", *(function.name for function in record.event.functions)]
            rows += [(record.sequence, name, kind, MAX_REGISTERED) for name in names]
    return sorted(rows, key=lambda row: row[0])


def _fact(step: Step) -> Fact | None:
    """What this event adds to what is counted; None: nothing. What waits for a signal is run by nobody."""
    before, after, record = step.before, step.after, step.record
    if not after.queue:
        return None
    began, outcome, us = _NOTHING, 0, None
    state = _STATE.get(type(after.phase), 0)
    if before is None:
        began = _SUBMITTED
    else:
        ended = _ended(before, after)
        if ended is not None and ended.outcome is not None:
            outcome = _OUTCOME[ended.outcome]
        if isinstance(record.event, Assigned):
            began = _RETRIED if _failed_last(before) else _STARTED
            if isinstance(before.phase, Waiting):
                us = max(0, record.time - before.phase.since) // 1_000
        elif ended is not None and ended.outcome in _RAN and ended.ended_at is not None:
            us = max(0, ended.ended_at - ended.started_at) // 1_000
        elif not outcome and not state:
            return None
    bucket = bucket_of(us) if us is not None else None
    spec = after.spec
    return (
        *(spec.func, spec.conditions.runtimetype, record.sequence),
        *(began, state, outcome, bucket, us),
    )


def _ended(before: Process, after: Process) -> Attempt | None:
    """The attempt that this event ended."""
    if not isinstance(before.phase, Running):
        return None
    n = before.attempts[-1].n
    for attempt in after.attempts[:-3:-1]:
        if attempt.n == n:
            return attempt if attempt.ended_at is not None else None
    return None


def _failed_last(before: Process) -> bool:
    return bool(before.attempts) and before.attempts[-1].outcome in ("failed", "timeout")
