"""A process as people and other programs are shown it: one JSON object with stable fields.

The views, the command and the feeds all use this form. It is made from the fold (`colonies.core.process`)
and decides nothing. Times are RFC 3339 in UTC with six digits after the second, so they sort as text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from types import EllipsisType
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from colonies.core.process import Attempt, Process, Successful

UNSHOWABLE = "(nested too deeply to be shown)"


def rfc3339(ns: int) -> str:
    """A ledger time (ns since 1970) as text, such as `2026-01-31T09:30:00.000250Z`."""
    second = datetime.fromtimestamp(ns // 1_000_000_000, UTC).isoformat()[:19]
    return f"{second}.{ns // 1_000 % 1_000_000:06}Z"


def to_the_second(ns: int) -> str:
    """A ledger time as people need it, such as `2026-01-31T09:30:00Z`."""
    return f"{rfc3339(ns)[:19]}Z"


def process_object(
    process: Process, *, output: Any | EllipsisType = ..., args: Any | EllipsisType = ...
) -> dict[str, Any]:
    """The process as a JSON object.

    `{id, state, func, name, args, runtimetype, label, workflow, node, priority, submitter, worker, attempts:
    [{n, worker, instance, started_at, ended_at, outcome, error, code}], submitted_at, started_at, ended_at,
    output, errors}`: what is not there (yet) is None; `worker` is that of the last attempt, `started_at` the
    start of the first. Values kept in the Object Store are None, unless the caller has loaded them and gives
    them here.
    """
    phase = process.phase
    if output is ...:
        output = phase.output if isinstance(phase, Successful) else None
    if args is ...:
        args = None if process.arguments is not None else process.spec.args
    attempts = process.attempts
    return {
        "id": process.id,
        "state": process.state,
        "func": process.spec.func,
        "name": process.spec.name,
        "args": jsonable(args),
        "runtimetype": process.spec.conditions.runtimetype,
        "label": process.spec.label,
        "workflow": process.workflow,
        "node": process.node,
        "priority": process.spec.priority,
        "submitter": process.submitter,
        "worker": attempts[-1].worker if attempts else None,
        "attempts": [_attempt(attempt) for attempt in attempts],
        "submitted_at": rfc3339(process.submitted_at),
        "started_at": rfc3339(attempts[0].started_at) if attempts else None,
        "ended_at": rfc3339(process.ended_at) if process.ended_at is not None else None,
        "output": jsonable(output),
        "errors": process.errors,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "n": attempt.n,
        "worker": attempt.worker,
        "instance": attempt.instance,
        "started_at": rfc3339(attempt.started_at),
        "ended_at": rfc3339(attempt.ended_at) if attempt.ended_at is not None else None,
        "outcome": attempt.outcome,
        "error": attempt.error,
        "code": attempt.code,
    }


def jsonable(value: Any) -> Any:
    """Any value of an event as what JSON can say. Never fails: a worker may sign whatever it likes.

    Bytes become base64, numbers that JSON lacks (NaN, infinities) None.
    """
    try:
        return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null", fallback=str)
    except (PydanticSerializationError, ValueError, RecursionError):
        return UNSHOWABLE
