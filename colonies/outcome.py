"""From running to a fact: executes one attempt and says, as an event, how it ended.

    returned a value                completed
    raised Later                    failed, kind later: waits, not counted
    raised Fail, or bad arguments   failed, kind final
    ran over maxexectime            failed, kind timeout: counted
    raised anything else            failed, kind error: counted; its traceback is in the process's log

It records nothing. `NotHere` passes through: then the attempt has not failed, it could not be run. Once the
function has ended nothing makes it run again: its output is stored for as long as that takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from typing import Literal

import structlog

from colonies import values
from colonies.attempt import Attempt
from colonies.core.events import MAX_DELAY_S, MAX_ERROR_CHARS, Completed, Failed, Ref
from colonies.core.process import Process
from colonies.errors import Invalid, Unavailable
from colonies.execution import Fail, Later, NotHere, Work
from colonies.inputs import Given, Inputs
from colonies.raised import described, traceback_of
from colonies.session import Session
from colonies.worker import MAX_BACKOFF_S, Worker

Kind = Literal["error", "timeout", "final", "later"]

_log = structlog.get_logger("colonies.worker")


class _TimedOut(Exception):
    """The attempt ran over its maxexectime."""


async def outcome_of(
    worker: Worker, session: Session, process: Process, attempt: Attempt, inputs: Inputs
) -> Completed | Failed:
    """Run the attempt to its end. Raises NotHere, and CancelledError when it is stopped from outside."""
    try:
        output = await _executed(worker, session, process, attempt, inputs)
        adds, between = attempt.added()
        items = len(output) if isinstance(output, list | tuple) else None
        output, stored = await _stored(session, output)
        logs = await attempt.close()
        return Completed(attempt.id, output, stored, logs, items if stored else None, adds, between or None)
    except NotHere:
        raise
    except Exception as error:
        kind, text, delay_s = failure_of(error)
        if kind == "error":
            _tell(attempt, error)
    if delay_s is None:
        delay_s = backoff_s(worker.backoff_s, process.failures)
    return Failed(attempt.id, text, kind, delay_s, logs=await attempt.close())


def _tell(attempt: Attempt, error: Exception) -> None:
    """The traceback as stderr, which it would be of any program: in the process's log and on the terminal."""
    text = traceback_of(error)
    if text is not None:
        attempt.log(text, "stderr")
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
            sys.stderr.flush()


def failure_of(error: Exception) -> tuple[Kind, str, float | None]:
    """What a function that raised this has failed with: kind, text, and its delay (s), if it says one."""
    match error:
        case _TimedOut():
            return "timeout", _cut(str(error)), None
        case Later():
            return "later", _cut(str(error)), min(max(0.0, error.delay_s), MAX_DELAY_S)
        case Fail() | Invalid():
            return "final", _cut(str(error) or type(error).__name__), 0.0
    return "error", _cut(described(error)), None


async def work_of(session: Session, process: Process, attempt: Attempt, inputs: Inputs) -> Work:
    """What an attempt is to run: its arguments in full, what its parents gave. Raises as `values.load`."""
    args, kwargs = process.spec.args, process.spec.kwargs
    if process.arguments is not None:
        args, kwargs = await values.load_arguments(session.ledger, process.arguments)
    given = Given(args, kwargs, {})
    if process.workflow is not None:
        given = await inputs.of(process, args, kwargs)
    return Work(process.spec, given.args, given.kwargs, attempt, given.inputs)


async def _executed(
    worker: Worker, session: Session, process: Process, attempt: Attempt, inputs: Inputs
) -> object:
    try:
        work = await work_of(session, process, attempt, inputs)
    except Unavailable as error:
        raise NotHere(str(error)) from error
    limit_s = process.spec.maxexectime
    if limit_s is None:
        return await worker.execute(work)
    limit = asyncio.timeout(limit_s)
    started = time.monotonic()
    over = _TimedOut(f"timed out: it ran longer than its maxexectime of {limit_s:g} s")
    try:
        async with limit:
            output = await worker.execute(work)
    except TimeoutError:
        if not limit.expired():
            raise
        raise over from None
    if time.monotonic() - started > limit_s:  # it blocked the loop, so nothing could stop it in time
        raise over
    return output


async def _stored(session: Session, output: object) -> tuple[object, Ref | None]:
    wait_s = 0.1
    while True:
        try:
            return await values.store(session.ledger, session.name, output, "the output")
        except Unavailable as error:
            _log.warning("output not stored yet", error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(2.0, wait_s * 2)


def backoff_s(base_s: float, failures: int) -> float:
    """Exponential with jitter: half to all of `base_s` doubled for each failure before, at most 5 minutes."""
    full = min(MAX_BACKOFF_S, base_s * 2.0 ** min(failures, 30))
    return round(full * random.uniform(0.5, 1.0), 3)


def _cut(text: str) -> str:
    """What an event can hold; characters that no UTF-8 has are replaced."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 4] + " ..."
