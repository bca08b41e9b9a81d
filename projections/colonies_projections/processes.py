"""The view of processes: one row each, one for each attempt, and beside them the values that may be large.

Each event of a process makes its row what it is from there on. All that `colonies.show` shows of a process is
here. What is searched for by its words is in an index of text: a process's function, name, label, node and
arguments, and what its attempts failed of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, get_args

from pydantic_core import PydanticSerializationError, to_json

from colonies.core.process import Attempt, Awaiting, FailedForGood, Process, State, Successful, Waiting
from colonies.show import jsonable
from colonies_projections.listing import BEGINS, Listing, Where, microseconds, rfc3339_of
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Step, Write
from colonies_projections.words import words

# In answers only; the tables hold everything that stands on the ledger.
MAX_VALUE_BYTES = 4_096
MAX_LISTED = 10
MAX_ERROR_CHARS = 512

MAX_WORDS_CHARS = 1_024  # of a process's arguments, for search

# `sequence` is that of the first event, so the newest is the last row. Times are microseconds since 1970. The
# value at a process's own sequence is its arguments; at the event that ended it, its output or last error.
# `stored` names the object in the Object Store that holds a value too large for an event.
_TABLES = """
CREATE TABLE processes (
    sequence INTEGER PRIMARY KEY,
    since INTEGER NOT NULL,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    func TEXT NOT NULL,
    name TEXT,
    runtimetype TEXT NOT NULL,
    queue TEXT NOT NULL,
    label TEXT,
    workflow TEXT,
    node TEXT,
    priority INTEGER NOT NULL,
    submitter TEXT NOT NULL,
    worker TEXT,
    attempts INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL,
    waiting_since INTEGER,
    started_at INTEGER,
    ended_at INTEGER
);
CREATE INDEX processes_state ON processes (state);
CREATE INDEX processes_func ON processes (func);
CREATE INDEX processes_func_state ON processes (func, state);
CREATE INDEX processes_runtimetype ON processes (runtimetype);
CREATE INDEX processes_worker ON processes (worker) WHERE worker IS NOT NULL;
CREATE INDEX processes_submitter ON processes (submitter);
CREATE INDEX processes_name ON processes (name) WHERE name IS NOT NULL;
CREATE INDEX processes_label ON processes (label) WHERE label IS NOT NULL;
CREATE INDEX processes_workflow ON processes (workflow) WHERE workflow IS NOT NULL;
CREATE INDEX processes_open ON processes (queue, state, waiting_since) WHERE ended_at IS NULL;
CREATE INDEX processes_ended_at ON processes (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE processes_attempts (
    process INTEGER NOT NULL,
    n INTEGER NOT NULL,
    since INTEGER NOT NULL,
    worker TEXT NOT NULL,
    instance TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    outcome TEXT,
    error TEXT,
    code TEXT,
    PRIMARY KEY (process, n)
) WITHOUT ROWID;
CREATE TABLE processes_values (sequence INTEGER PRIMARY KEY, value TEXT, stored TEXT);
CREATE TABLE processes_errors (sequence INTEGER PRIMARY KEY, process INTEGER NOT NULL);
CREATE VIRTUAL TABLE processes_text USING fts5(words, content='', detail='none', columnsize=0);
"""

_COLUMNS_KEPT = """(
    sequence, since, id, state, func, name, runtimetype, queue, label, workflow, node, priority, submitter,
    worker, attempts, submitted_at, waiting_since, started_at, ended_at"""
_PLACES = ", ".join("?" * 19)
_INSERT = f"INSERT INTO processes {_COLUMNS_KEPT}) VALUES ({_PLACES})"
_INSERT_PAST = f"INSERT INTO past_processes {_COLUMNS_KEPT}, until) VALUES ({_PLACES}, ?)"
_UPDATE = """
UPDATE processes SET since = ?, state = ?, worker = ?, attempts = ?, waiting_since = ?, started_at = ?,
    ended_at = ?
WHERE sequence = ?
"""
_KEPT_OF_ATTEMPT = "process, n, since, worker, instance, started_at, ended_at, outcome, error, code"
_ATTEMPT_PLACES = ", ".join("?" * 10)
_BEGUN = f"INSERT INTO processes_attempts ({_KEPT_OF_ATTEMPT}) VALUES ({_ATTEMPT_PLACES})"
_BEGUN_PAST = f"INSERT INTO past_processes_attempts ({_KEPT_OF_ATTEMPT}, until) VALUES ({_ATTEMPT_PLACES}, ?)"
_ENDED = """
UPDATE processes_attempts SET since = ?, ended_at = ?, outcome = ?, error = ? WHERE process = ? AND n = ?
"""
_VALUE = "INSERT INTO processes_values (sequence, value, stored) VALUES (?, ?, ?)"
_ERROR = "INSERT INTO processes_errors (sequence, process) VALUES (?, ?)"
_WORDS = "INSERT INTO processes_text (rowid, words) VALUES (?, ?)"

_COLUMNS = (
    *(
        "sequence",
        "since",
        "id",
        "state",
        "func",
        "name",
        "runtimetype",
        "label",
        "workflow",
        "node",
        "priority",
    ),
    *("submitter", "worker", "attempts", "submitted_at", "started_at", "ended_at"),
)
_TEXT = """
sequence IN (
    WITH hits AS MATERIALIZED (SELECT rowid AS hit FROM processes_text WHERE processes_text MATCH ?)
    SELECT hit FROM hits UNION SELECT process FROM processes_errors WHERE sequence IN (SELECT hit FROM hits)
)
"""

_FILTERS = {
    "id": Where(column="id"),
    "state": Where(get_args(State), several=True, column="state"),
    "func": Where(column="func"),
    "name": Where(column="name"),
    "runtimetype": Where(column="runtimetype"),
    "queue": Where(sql="queue = ?"),
    "worker": Where(column="worker"),
    "submitter": Where(column="submitter"),
    "label": Where(column="label"),
    "workflow": Where(column="workflow"),
    "begins": BEGINS,
    "since": Where(read=microseconds, sql="submitted_at >= ?"),
    "until": Where(read=microseconds, sql="submitted_at < ?"),
    "text": Where(read=words, sql=_TEXT),
}


class Processes:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "processes"
    version: ClassVar[int] = 6
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = _FILTERS
    sorts: ClassVar[Sequence[str]] = ("-submitted", "ended", "id")
    listing: ClassVar[Listing] = Listing(
        "processes",
        _COLUMNS,
        _FILTERS,
        {"submitted": "sequence", "ended": "ended_at", "id": "id"},
        together=("func", "state"),
    )

    def fold(self, batch: Batch) -> Iterable[Write]:
        rows = _Rows()
        for step in batch.steps:
            rows.take(step)
        yield _INSERT, list(rows.born.values())
        yield _INSERT_PAST, rows.passed
        yield _UPDATE, rows.changed
        yield _BEGUN, list(rows.begun.values())
        yield _BEGUN_PAST, rows.passed_attempts
        yield _ENDED, rows.ended
        yield _VALUE, rows.values
        yield _ERROR, rows.errors
        yield _WORDS, rows.words

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """Objects as of `colonies.show.process_object`; `left_out` names what is too large for an answer."""
        rows, keys, more = await self.listing.page(asked, at)
        wanted = json.dumps([row["sequence"] for row in rows])
        attempts: dict[int, list[Row]] = {}
        for row in await at.select(_ATTEMPTS_OF, (wanted,)):
            attempts.setdefault(row["process"], []).append(row)
        ends = [row["since"] for row in rows if row["state"] in ("successful", "failed")]
        places = json.dumps([*(row["sequence"] for row in rows), *ends])
        values = {row["sequence"]: row for row in await at.select(_VALUES_OF, (places,))}
        items = [_item(row, attempts.get(row["sequence"], []), values) for row in rows]
        return Page(items, keys, more)


_ATTEMPTS_OF = f"""
SELECT processes_attempts.*
FROM processes_attempts JOIN processes ON processes.sequence = processes_attempts.process
WHERE process IN (SELECT value FROM json_each(?)) AND n > processes.attempts - {MAX_LISTED}
ORDER BY process, n
"""
_VALUES_OF = f"""
SELECT sequence, CASE WHEN length(CAST(value AS BLOB)) <= {MAX_VALUE_BYTES} THEN value END AS value,
    value IS NOT NULL OR stored IS NOT NULL AS is_there
FROM processes_values WHERE sequence IN (SELECT value FROM json_each(?))
"""


# --- rows -------------------------------------------------------------------------------------------


class _Rows:
    """What the steps of a batch make. `born` are the rows of processes that began in it, as they are at its
    end; what these were within it goes straight to `passed`, their past. So it is with attempts."""

    def __init__(self) -> None:
        self.born: dict[int, tuple[Any, ...]] = {}
        self.passed: list[tuple[Any, ...]] = []
        self.changed: list[tuple[Any, ...]] = []
        self.begun: dict[tuple[int, int], tuple[Any, ...]] = {}
        self.passed_attempts: list[tuple[Any, ...]] = []
        self.ended: list[tuple[Any, ...]] = []
        self.values: list[tuple[int, str | None, str | None]] = []
        self.errors: list[tuple[int, int]] = []
        self.words: list[tuple[int, str]] = []

    def take(self, step: Step) -> None:
        process, since = step.after, step.record.sequence
        if step.before is None:
            self.born[process.first] = _row(process, since)
            self._first_values(process)
            if not process.final and not process.attempts:
                return
        elif process.first in self.born:
            self.passed.append((*self.born[process.first], since))
            self.born[process.first] = _row(process, since)
        else:
            self.changed.append((since, *_moving(process), process.first))
        self._attempts(step)
        self._last_value(process, since)

    def _first_values(self, process: Process) -> None:
        spec, stored = process.spec, process.arguments
        if stored is not None:
            self.values.append((process.first, None, stored.object))
        arguments = ""
        if spec.args:
            arguments = _json(spec.args)
            self.values.append((process.first, arguments, None))
        said = filter(None, (spec.func, spec.name, spec.label, process.node, process.id))
        self.words.append((process.first, " ".join((*said, arguments[:MAX_WORDS_CHARS]))))

    def _attempts(self, step: Step) -> None:
        """The attempts that this event began or ended: at most the last of before and a new one."""
        process, since = step.after, step.record.sequence
        before = step.before.attempts if step.before is not None else ()
        new: list[Attempt] = []
        if process.attempts is not before:
            new = [attempt for attempt in process.attempts[-2:] if attempt not in before[-2:]]
        errors = []
        for attempt in new:
            place = process.first, attempt.n
            ended = attempt.ended_at // 1_000 if attempt.ended_at is not None else None
            if not any(other.n == attempt.n for other in before[-2:]):
                said = (attempt.worker, attempt.instance, attempt.started_at // 1_000)
                how = (ended, attempt.outcome, attempt.error, attempt.code)
                self.begun[place] = (*place, since, *said, *how)
            elif (row := self.begun.get(place)) is not None:
                self.passed_attempts.append((*row, since))
                how = (ended, attempt.outcome, attempt.error, attempt.code)
                self.begun[place] = (*place, since, *row[3:6], *how)
            else:
                self.ended.append((since, ended, attempt.outcome, attempt.error, *place))
            if attempt.error:
                errors.append(attempt.error)
        phase = process.phase
        if isinstance(phase, FailedForGood) and phase.error not in errors:
            errors.append(phase.error)
        if errors:
            self.errors.append((since, process.first))
            self.words.append((since, " ".join(errors)))

    def _last_value(self, process: Process, since: int) -> None:
        """The output, or what a process failed of at last; its first event has its arguments there."""
        if since == process.first:
            return
        match process.phase:
            case Successful(output=output, stored=None):
                if output is not None:
                    self.values.append((since, _json(output), None))
            case Successful(stored=stored):
                assert stored is not None
                self.values.append((since, None, stored.object))
            case FailedForGood(error=error):
                self.values.append((since, _json(error), None))


def _row(process: Process, since: int) -> tuple[Any, ...]:
    """A whole row, as the event at `since` makes it."""
    spec = process.spec
    state, worker, attempts, waiting_since, started_at, ended_at = _moving(process)
    return (
        *(process.first, since, process.id, state, spec.func, spec.name, spec.conditions.runtimetype),
        *(process.queue, spec.label, process.workflow, process.node, spec.priority, process.submitter),
        *(worker, attempts, process.submitted_at // 1_000, waiting_since, started_at, ended_at),
    )


def _moving(process: Process) -> tuple[Any, ...]:
    """What changes in a process's life."""
    phase, attempts = process.phase, process.attempts
    last = attempts[-1] if attempts else None
    return (
        phase.state,
        last.worker if last is not None else None,
        last.n if last is not None else 0,
        phase.since // 1_000 if isinstance(phase, Waiting | Awaiting) else None,
        attempts[0].started_at // 1_000 if attempts else None,
        process.time // 1_000 if process.final else None,
    )


def _json(value: Any) -> str:
    try:
        return to_json(value, bytes_mode="base64", inf_nan_mode="null", fallback=str).decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        return to_json(jsonable(value)).decode()


# --- items ------------------------------------------------------------------------------------------


def _item(row: Row, attempts: Sequence[Row], values: Mapping[int, Row]) -> dict[str, Any]:
    """A row as `colonies.show.process_object`; what was left out for its size is named in `left_out`."""
    left_out: list[str] = []
    args = _value(values.get(row["sequence"]), "args", left_out)
    end = values.get(row["since"])
    output = _value(end, "output", left_out) if row["state"] == "successful" else None
    errors: list[str] = [attempt["error"] for attempt in attempts if attempt["error"]]
    if row["state"] == "failed" and end is not None:
        last = json.loads(end["value"]) if end["value"] is not None else None
        if last is not None and last not in errors:
            errors.append(last)
    if row["attempts"] > len(attempts):
        left_out.append("attempts")
    too_many = row["attempts"] > len(attempts) or len(errors) > MAX_LISTED
    if too_many or any(len(error) > MAX_ERROR_CHARS for error in errors):
        left_out.append("errors")
    item = {
        "id": row["id"],
        "state": row["state"],
        "func": row["func"],
        "name": row["name"],
        "args": [] if args is None and "args" not in left_out else args,
        "runtimetype": row["runtimetype"],
        "label": row["label"],
        "workflow": row["workflow"],
        "node": row["node"],
        "priority": row["priority"],
        "submitter": row["submitter"],
        "worker": row["worker"],
        "attempts": [_attempt(attempt) for attempt in attempts],
        "submitted_at": rfc3339_of(row["submitted_at"]),
        "started_at": rfc3339_of(row["started_at"]),
        "ended_at": rfc3339_of(row["ended_at"]),
        "output": output,
        "errors": [error[:MAX_ERROR_CHARS] for error in errors[-MAX_LISTED:]],
    }
    return {**item, "left_out": left_out} if left_out else item


def _value(kept: Row | None, name: str, left_out: list[str]) -> Any:
    if kept is None or not kept["is_there"]:
        return None
    if kept["value"] is None:
        left_out.append(name)
        return None
    return json.loads(kept["value"])


def _attempt(row: Row) -> dict[str, Any]:
    return {
        "n": row["n"],
        "worker": row["worker"],
        "instance": row["instance"],
        "started_at": rfc3339_of(row["started_at"]),
        "ended_at": rfc3339_of(row["ended_at"]),
        "outcome": row["outcome"],
        "error": row["error"] and row["error"][:MAX_ERROR_CHARS],
        "code": row["code"],
    }
