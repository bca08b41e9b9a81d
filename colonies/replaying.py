"""Runs a recorded attempt here once more, and compares how it ends with what the ledger says.

The function gets what its worker got: the arguments, the outputs of the node's parents, the signals that had
come. Nothing is written: what it logs is handed to `show`, what it adds to its workflow is compared, and what
it would submit is refused. What it does to the world beside the ledger, it does again.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from colonies import connection, past, values
from colonies.attempt import Attempt
from colonies.codec import plain
from colonies.core import process as processes
from colonies.core.events import Completed, Failed, LogDigest
from colonies.core.process import Process
from colonies.core.states import Signal
from colonies.difference import Difference, first_difference
from colonies.errors import ColoniesError, Invalid, NotFound
from colonies.hearing import logging_to_attempts
from colonies.history import Story
from colonies.inputs import Inputs
from colonies.missing import not_found
from colonies.outcome import failure_of, work_of
from colonies.session import Session
from colonies.worker import Worker

WHY: Final = (
    "this is a replay, which writes nothing: what the function submits, sends or signals there is refused"
)

_PLACE = re.compile(
    r" \([^()]*:[0-9]+ in [^()]*\)\Z"
)  # where in the code an error came from: it may have moved


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: `how` is `successful` or the kind of its failure, `seconds` what it took.

    Successful, it has an output and what it added; else a text, and for `later` a delay (s). `error` is the
    exception itself, if it was raised here.
    """

    how: str
    output: Any = None
    added: Any = None
    text: str | None = None
    delay_s: float | None = None
    seconds: float | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """An attempt that was run again. `recorded` is None if it did not end by itself: then there is nothing to
    compare, and `difference` is None as well. `code` is the digest of the code that ran, `code_here` of what
    ran here; each None if it is not known."""

    process: Process
    attempt: processes.Attempt
    recorded: Ended | None
    here: Ended
    difference: Difference | None
    code: str | None
    code_here: str | None

    @property
    def same(self) -> bool | None:
        """Did it end as it did before? None: nobody can tell."""
        return None if self.recorded is None else self.difference is None

    @property
    def same_code(self) -> bool | None:
        """Is it the code that ran before? None: not known."""
        return None if self.code is None or self.code_here is None else self.code == self.code_here


async def replay(
    session: Session, id: str, worker: Worker, n: int | None = None, show: Callable[[str], None] = print
) -> Replayed:
    """Run attempt `n` of a process here, by default the last one that ended by itself.

    Raises:
        NotFound: there is no such process or attempt, or a stored value that it needs is gone.
        Invalid: the worker has no such function.
    """
    story = await session.story(id)
    process = story.process
    if process is None:
        raise await not_found(session, "process", id)
    ends = {
        record.event.attempt: (record.event, record.sequence)
        for record in (seen.record for seen in story.judged if seen.verdict.valid)
        if record is not None and isinstance(record.event, Completed | Failed)
    }
    attempt = _attempt_of(process, n, set(ends))
    _check_function(worker, process.spec.func)
    end, until = ends.get(attempt.id, (None, story.guard + 1))
    recorded = await _recorded(session, end) if end is not None else None
    rerun = _Rerun(session, process, attempt, until, show)
    async with _as_it_was(session, attempt, story) as then:
        await then.story(id)
        work = await work_of(then, process, rerun, Inputs(then))
    with connection.only_reading(WHY), logging_to_attempts():
        here = await _run(worker, work)
    difference = _compared(process, recorded, here) if recorded is not None else None
    code_here = worker.code_of(process.spec.func)
    return Replayed(process, attempt, recorded, here, difference, attempt.code, code_here)


@contextlib.asynccontextmanager
async def _as_it_was(session: Session, attempt: processes.Attempt, story: Story) -> AsyncIterator[Session]:
    """A session on the ledger as it was when the attempt began: what came later was no input of it."""
    valid = (seen for seen in story.judged if seen.verdict.valid and seen.record is not None)
    began = next(seen.stored for seen in valid if seen.record is not None and seen.record.id == attempt.id)
    moment = past.Moment(began.sequence, began.time)
    then = Session(past.PastLedger(session.ledger, moment), session.name, session.keypair)
    try:
        yield await then.open()
    finally:
        await then.close()  # the ledger beneath is the other session's


def _attempt_of(process: Process, n: int | None, ended: set[str]) -> processes.Attempt:
    if not process.attempts:
        raise NotFound(
            f"process {process.id} is {process.state}: no worker has taken it, so nothing can be run again"
        )
    if n is None:
        own = [attempt for attempt in process.attempts if attempt.id in ended]
        return own[-1] if own else process.attempts[-1]
    for attempt in process.attempts:
        if attempt.n == n:
            return attempt
    first, last = process.attempts[0].n, process.attempts[-1].n
    raise NotFound(f"process {process.id} has no attempt {n}; it has {first} to {last}")


def _check_function(worker: Worker, func: str) -> None:
    if type(worker) is Worker and func not in worker.functions:
        has = ", ".join(sorted(worker.functions)) or "none"
        raise Invalid(f"the worker has no function {func!r}, which the process is of; it has: {has}")


async def _recorded(session: Session, event: Completed | Failed) -> Ended:
    """What the ledger says. Raises as `values.load`."""
    if isinstance(event, Failed):
        delay_s = event.delay_s if event.kind == "later" else None
        return Ended(event.kind, text=event.error, delay_s=delay_s)
    output = event.output if event.stored is None else await values.load(session.ledger, event.stored)
    return Ended("successful", output, _adds(event.adds, bool(event.between)))


def _adds(nodes: Any, between: bool) -> Any:
    return {"nodes": plain(nodes), "between": between} if nodes else None


class _Rerun(Attempt):
    """An attempt of which nothing gets out."""

    def __init__(
        self,
        session: Session,
        process: Process,
        attempt: processes.Attempt,
        until: int,
        show: Callable[[str], None],
    ) -> None:
        super().__init__(
            session,
            process.id,
            attempt.n,
            attempt.id,
            process.spec,
            workflow=process.workflow,
            node=process.node,
        )
        self._until = until
        self._show = show

    def log(self, text: str, stream: str = "log") -> None:
        self._show(text if text.endswith("\n") or stream != "log" else f"{text}\n")

    def printed(self, text: str, stream: str) -> None:
        """It is on the terminal already."""

    async def flush(self) -> None:
        """There is nothing to store."""

    async def close(self) -> LogDigest | None:
        return None

    async def note(self, type: str, data: dict[str, Any]) -> None:
        """Nothing is noted."""

    async def signal(self, name: str, timeout_s: float | None) -> Signal:
        """The next signal of this name that had come before the attempt ended."""
        number = self._numbers.take(name)
        found = await self._signals.read(self.process, self.workflow, name)
        if number < len(found) and found[number].sequence < self._until:
            return found[number]
        self._numbers.give_back(name, number)
        if timeout_s is not None:
            raise TimeoutError(f"the signal {name} did not come within {timeout_s:g} s")
        raise ColoniesError(f"no further signal {name} had come when this attempt ended")


async def _run(worker: Worker, work: Any) -> Ended:
    began = time.monotonic()
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(worker.lifespan())
            output = await worker.execute(work)
            seconds = time.monotonic() - began
            nodes, between = work.attempt.added()
            # As it would be on the ledger: tuples are lists there, for example.
            output = msgpack.unpackb(values.pack(output, "the output"), strict_map_key=False)
            return Ended("successful", output, _adds(nodes, between), seconds=seconds)
    except Exception as error:
        kind, text, delay_s = failure_of(error)
        delay_s = delay_s if kind == "later" else None
        seconds = time.monotonic() - began
        return Ended(kind, text=text, delay_s=delay_s, seconds=seconds, error=error)


def _compared(process: Process, recorded: Ended, here: Ended) -> Difference | None:
    if recorded.how == "timeout":
        limit_s = process.spec.maxexectime or 0.0
        if here.seconds is not None and here.seconds > limit_s:
            return None
        return Difference("seconds", f"more than {limit_s:g}", round(here.seconds or 0.0, 3))
    if recorded.how != here.how:
        return Difference("outcome", _said(recorded), _said(here))
    if recorded.how == "successful":
        found = first_difference(recorded.output, here.output, "output")
        return found or first_difference(recorded.added, here.added, "added")
    if _without_place(recorded.text) != _without_place(here.text):
        return Difference("error", recorded.text, here.text)
    return first_difference(recorded.delay_s, here.delay_s, "delay_s")


def _said(ended: Ended) -> str:
    return ended.how if ended.text is None else f"{ended.how}: {ended.text}"


def _without_place(text: str | None) -> str:
    return _PLACE.sub("", text or "")
