"""The view of processes: one row each, one for each attempt, and beside them the values that may be large.

Each event of a process makes its row what it is from there on. All that `colonies.show` shows of a process is
here. What is searched for by its words is in an index of text: a process's function, name, label, node and
arguments, and what its attempts failed of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

from pydantic_core import to_json

from colonies.core.process import Attempt, Awaiting, FailedForGood, Process, State, Successful, Waiting
from colonies.show import jsonable
from colonies_projections.listing import Listing, Where, microseconds, rfc3339_of
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Step, Write

# In answers only; the tables hold everything that stands on the ledger.
MAX_VALUE_BYTES = 4_096
MAX_LISTED = 10
MAX_ERROR_CHARS = 512

MAX_WORDS_CHARS = 1_024  # of a process's arguments, for search
MAX_SEARCHED_WORDS = 10

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
    PRIMARY KEY (process, n)
) WITHOUT ROWID;
CREATE TABLE processes_values (sequence INTEGER PRIMARY KEY, value TEXT, stored TEXT);
CREATE TABLE processes_errors (sequence INTEGER PRIMARY KEY, process INTEGER NOT NULL);
CREATE VIRTUAL TABLE processes_text USING fts5(words, content='', detail='none', columnsize=0);
"""

_INSERT = """
INSERT INTO processes (
    sequence, since, id, state, func, name, runtimetype, queue, label, workflow, node, priority, submitter,
    worker, attempts, submitted_at, waiting_since, started_at, ended_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
UPDATE processes SET since = ?, state = ?, worker = ?, attempts = ?, waiting_since = ?, started_at = ?,
    ended_at = ?
WHERE id = ?
"""
_ATTEMPT = """
INSERT INTO processes_attempts (process, n, since, worker, instance, started_at, ended_at, outcome, error)
SELECT sequence, ?, ?, ?, ?, ?, ?, ?, ? FROM processes WHERE id = ?
ON CONFLICT (process, n) DO UPDATE SET since = excluded.since, ended_at = excluded.ended_at,
    outcome = excluded.outcome, error = excluded.error
"""
_VALUE = "INSERT INTO processes_values (sequence, value, stored) VALUES (?, ?, ?)"
_ERROR = "INSERT INTO processes_errors (sequence, process) SELECT ?, sequence FROM processes WHERE id = ?"
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
    WITH hits AS MATERIALIZED (SELECT rowid AS hit FROM processes_text WHERE words MATCH ?)
    SELECT hit FROM hits UNION SELECT process FROM processes_errors WHERE sequence IN (SELECT hit FROM hits)
)
"""
_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> str:
    """What is searched for, as the index of text takes it: each word, or its beginning."""
    found = _WORD.findall(text)[:MAX_SEARCHED_WORDS]
    if not found:
        raise ValueError("words of letters or digits")
    return " ".join(f'"{word}"*' for word in found)


_FILTERS = {
    "id": Where(column="id"),
    "state": Where(get_args(State), column="state"),
    "func": Where(column="func"),
    "name": Where(sql="name = ?"),
    "runtimetype": Where(column="runtimetype"),
    "queue": Where(sql="queue = ?"),
    "worker": Where(column="worker"),
    "submitter": Where(column="submitter"),
    "label": Where(column="label"),
    "workflow": Where(column="workflow"),
    "since": Where(read=microseconds, sql="submitted_at >= ?"),
    "until": Where(read=microseconds, sql="submitted_at < ?"),
    "text": Where(read=words, sql=_TEXT),
}


class Processes:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "processes"
    version: ClassVar[int] = 4
    tables: ClassVar[str] = _TABLES
    filters: ClassVar[Mapping[str, Filter]] = _FILTERS
    sorts: ClassVar[Sequence[str]] = ("-submitted", "ended")
    listing: ClassVar[Listing] = Listing(
        "processes",
        _COLUMNS,
        _FILTERS,
        {"submitted": "sequence", "ended": "ended_at"},
        together=("func", "state"),
    )

    def fold(self, batch: Batch) -> Iterable[Write]:
        first = [step for step in batch.steps if step.before is None]
        yield _INSERT, [(step.record.sequence, step.record.sequence, *_born(step.after)) for step in first]
        later = [step for step in batch.steps if step.before is not None]
        yield _UPDATE, [(step.record.sequence, *_moving(step.after), step.after.id) for step in later]
        yield _ATTEMPT, [row for step in batch.steps for row in _attempts(step)]
        yield _VALUE, [row for step in batch.steps for row in _values(step)]
        failed = [(step, error) for step in batch.steps for error in _new_errors(step)]
        yield _ERROR, [(step.record.sequence, step.after.id) for step, _ in failed]
        yield _WORDS, [(step.record.sequence, _words(step.after)) for step in first]
        yield _WORDS, [(step.record.sequence, error) for step, error in failed]

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


_ATTEMPTS_OF = """
SELECT * FROM processes_attempts WHERE process IN (SELECT value FROM json_each(?)) ORDER BY process, n
"""
_VALUES_OF = f"""
SELECT sequence, CASE WHEN length(CAST(value AS BLOB)) <= {MAX_VALUE_BYTES} THEN value END AS value,
    value IS NOT NULL OR stored IS NOT NULL AS is_there
FROM processes_values WHERE sequence IN (SELECT value FROM json_each(?))
"""


# --- rows -------------------------------------------------------------------------------------------


def _born(process: Process) -> Iterator[Any]:
    """What its first event says for ever, around what changes in its life."""
    spec = process.spec
    state, worker, attempts, waiting_since, started_at, ended_at = _moving(process)
    yield from (
        process.id,
        state,
        spec.func,
        spec.name,
        spec.conditions.runtimetype,
        process.queue,
        spec.label,
    )
    yield from (process.workflow, process.node, spec.priority, process.submitter, worker, attempts)
    yield from (process.submitted_at // 1_000, waiting_since, started_at, ended_at)


def _moving(process: Process) -> Iterator[Any]:
    """What changes in a process's life."""
    phase, attempts = process.phase, process.attempts
    yield process.state
    yield attempts[-1].worker if attempts else None
    yield attempts[-1].n if attempts else 0
    yield phase.since // 1_000 if isinstance(phase, Waiting | Awaiting) else None
    yield attempts[0].started_at // 1_000 if attempts else None
    yield process.ended_at // 1_000 if process.ended_at is not None else None


def _attempts(step: Step) -> Iterator[tuple[Any, ...]]:
    """The attempts that this event began or ended: at most the last of before and a new one."""
    before = step.before.attempts[-1:] if step.before is not None else ()
    for attempt in step.after.attempts[-2:]:
        if attempt in before or (before and attempt.n < before[0].n):
            continue
        ended = attempt.ended_at // 1_000 if attempt.ended_at is not None else None
        said = (attempt.worker, attempt.instance, attempt.started_at // 1_000, ended)
        yield (
            *(attempt.n, step.record.sequence, *said, attempt.outcome, attempt.error),
            step.after.id,
        )


def _values(step: Step) -> Iterator[tuple[int, str | None, str | None]]:
    process = step.after
    if step.before is None and (process.arguments is not None or process.spec.args):
        stored = process.arguments
        text = _json(process.spec.args) if stored is None else None
        yield step.record.sequence, text, stored.object if stored is not None else None
    if step.before is not None and not process.final:
        return
    match process.phase:
        case Successful(output=output, stored=None) if output is not None and step.before is not None:
            yield step.record.sequence, _json(output), None
        case Successful(stored=stored) if stored is not None and step.before is not None:
            yield step.record.sequence, None, stored.object
        case FailedForGood(error=error) if step.before is not None:
            yield step.record.sequence, _json(error), None


def _new_errors(step: Step) -> Iterator[str]:
    """What this event says that went wrong, for search."""
    ended = [attempt.error for attempt in _changed(step) if attempt.error]
    if isinstance(step.after.phase, FailedForGood) and step.after.phase.error not in ended:
        ended.append(step.after.phase.error)
    if ended:
        yield " ".join(ended)


def _changed(step: Step) -> list[Attempt]:
    before = step.before.attempts if step.before is not None else ()
    return [attempt for attempt in step.after.attempts[-2:] if attempt not in before[-2:]]


def _words(process: Process) -> str:
    spec = process.spec
    said = [spec.func, spec.name, spec.label, process.node, process.id]
    arguments = _json(spec.args)[:MAX_WORDS_CHARS] if spec.args else ""
    return " ".join([*filter(None, said), arguments])


def _json(value: Any) -> str:
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
    if len(attempts) > MAX_LISTED or row["attempts"] > len(attempts):
        left_out.append("attempts")
    if len(errors) > MAX_LISTED or any(len(error) > MAX_ERROR_CHARS for error in errors):
        left_out.append("errors")
    item = {
        "id": row["id"],
        "state": row["state"],
        "func": row["func"],
        "args": [] if args is None and "args" not in left_out else args,
        "runtimetype": row["runtimetype"],
        "label": row["label"],
        "workflow": row["workflow"],
        "node": row["node"],
        "priority": row["priority"],
        "submitter": row["submitter"],
        "worker": row["worker"],
        "attempts": [_attempt(attempt) for attempt in attempts[-MAX_LISTED:]],
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
    }
