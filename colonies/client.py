"""The client: submit processes, wait for them, follow them, cancel them.

It waits on the feed and believes nothing that it has not verified: a result counts when the process's whole
chain, read or heard, is valid. The feed may lose; so after every gap, and every 30 s, it reads from the
leader. It never runs work and never talks to a server of ours, for there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

from colonies import values
from colonies.calls import Call
from colonies.core.events import (
    MAX_TEXT_CHARS,
    Cancelled,
    Declared,
    Queued,
    Record,
    Ref,
    Signalled,
    Submitted,
    checked_reason,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.names import name as checked_name
from colonies.core.process import (
    CancelledForGood,
    FailedForGood,
    Process,
    SkippedForGood,
    Successful,
    keyed_id,
)
from colonies.core.spec import MAX_SECONDS, Spec, queue_of
from colonies.errors import (
    ColoniesError,
    Conflict,
    Invalid,
    NotFound,
    ProcessCancelled,
    ProcessFailed,
    Unavailable,
    Unknown,
)
from colonies.flows import WorkflowHandle, signal_data, submit_workflow
from colonies.history import Judged, Story
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.session import Session
from colonies.watching import Watcher

T = TypeVar("T")

WINDOW = 512
MAX_BATCH = 1_000
ROOM_FOR_ENVELOPE_BYTES = 16 * 1024
MAX_WAIT_S = MAX_SECONDS


class PartlySubmitted(ColoniesError):
    """Of many, some were accepted and some not. `accepted` and `refused` are (index, handle or error)."""

    def __init__(
        self, accepted: list[tuple[int, Handle[Any]]], refused: list[tuple[int, ColoniesError]]
    ) -> None:
        first = refused[0]
        super().__init__(
            f"{len(accepted)} of {len(accepted) + len(refused)} processes were accepted; "
            f"number {first[0]}: {first[1]}"
        )
        self.accepted = accepted
        self.refused = refused


class Handle(Generic[T]):
    """A process as a client holds it. `id` is its id; nothing else is kept here."""

    def __init__(self, client: Client, id: str, call: Call[T] | None = None) -> None:
        self._client = client
        self._call = call
        self.id = id

    def __repr__(self) -> str:
        return f"<process {self.id}>"

    async def get(self) -> Process:
        """The process as the ledger has it now. Raises NotFound."""
        return await self._client.session.process(self.id)

    async def wait(self, timeout_s: float | None = None) -> Process:
        """The process once it is final.

        Raises:
            NotFound: nobody submitted it.
            TimeoutError: it is not final after `timeout_s` seconds.
        """
        async with asyncio.timeout(checked_wait(timeout_s)):
            return await self._client.wait(self.id)

    async def result(self, timeout_s: float | None = None) -> T:
        """Its output, once it is successful.

        Raises:
            ProcessFailed, ProcessCancelled: it ended otherwise.
            NotFound, TimeoutError: as `wait`.
        """
        output = await self._client.output(await self.wait(timeout_s))
        if self._call is not None and self._call.returns is not None:
            return self._call.returns.validate_python(output)
        return output  # type: ignore[no-any-return]

    async def events(self) -> AsyncIterator[Judged]:
        """Every event of the process with its verdict, the past first, then live until it is final."""
        async for seen in self._client.events(self.id):
            yield seen

    async def cancel(self, reason: str = "") -> Process:
        """Cancel it. Raises Conflict if it is final already, Refused if it is another's."""
        return await self._client.cancel(self.id, reason)

    async def signal(self, name: str, data: Any = None) -> Process:
        """Send it a signal, which its function may wait for. Raises Conflict if it is final, Refused."""
        return await self._client.signal(self.id, name, data)


class Client:
    """A member's door to its colony. Open one with `colonies.connect()`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ledger = session.ledger
        self._watcher = Watcher(session)
        self.ears: set[Callable[[], None]] = set()  # called when the feed may have lost something
        self.ledger.on_gap(self._on_gap)

    @property
    def name(self) -> str:
        """This member's name."""
        return self.session.name

    @property
    def colony(self) -> str:
        """The colony's name."""
        return self.session.colony.name

    def _on_gap(self) -> None:
        for hear in list(self.ears):
            hear()

    async def close(self) -> None:
        """Leave; whoever still waits gets `Unavailable`."""
        await self._watcher.close()
        await self.session.close()
        await self.ledger.close()

    # --- submitting ----------------------------------------------------------------------------------

    @overload
    async def submit(self, work: Call[T], *, key: str | None = None) -> Handle[T]: ...
    @overload
    async def submit(self, work: Spec | dict[str, Any], *, key: str | None = None) -> Handle[Any]: ...
    async def submit(self, work: Call[Any] | Spec | dict[str, Any], *, key: str | None = None) -> Handle[Any]:
        """Submit one process; when this returns it is on the ledger.

        With a `key`, the same submitter and key always give the same process.

        Raises:
            Invalid: the spec makes no sense, or the key stands for another spec.
            Refused: this member may not submit.
            Unavailable: the broker does not answer; Unknown: ... nor is it known what became of it.
        """
        call = _call(work)
        event, queue = await self._prepare(call.spec, key)
        id = keyed_id(self.name, key) if key is not None else new_id()
        async with self._watcher.watching(id) as watched:
            story = await self._submit(id, event, queue)
            if watched.story is None:
                watched.restart(story)
        return Handle(self, id, call)

    async def _submit(self, id: str, event: Queued | Submitted, queue: str | None) -> Story:
        try:
            return await self.session.record(id, event, at=Story(None, [], 0), queue=queue)
        except Conflict:
            story = await self.session.story(id)
            if event.key is None or story.process is None:
                raise
            same = values.same(story.process.arguments, event.arguments)
            if story.process.spec != event.spec or not same:
                raise Invalid(
                    f"the key {event.key!r} stands for process {id}, which has another spec; take a new key"
                ) from None
            return story

    async def _prepare(self, spec: Spec, key: str | None) -> tuple[Queued | Submitted, str | None]:
        if spec.conditions.dependencies:
            raise Invalid("conditions.dependencies: a process on its own has none; they belong in a workflow")
        if spec.colony is not None and spec.colony not in (self.colony, self.ledger.colony):
            raise Invalid(f"colony: the spec is for {spec.colony!r}, this context is for {self.colony!r}")
        if key is not None and not 1 <= len(key) <= MAX_TEXT_CHARS:
            raise Invalid(f"key: it has {len(key)} characters; 1 to {MAX_TEXT_CHARS} are allowed")
        arguments: Ref | None = None
        given = [spec.args, spec.kwargs]
        packed = values.pack(given, "the arguments") if any(given) else b""
        if len(packed) > values.MAX_INLINE_BYTES:
            if key is not None:
                before = (await self.session.story(keyed_id(self.name, key))).process
                if before is not None and values.is_kept(packed, before.arguments):
                    arguments = before.arguments
            if arguments is None:
                _, arguments = await values.store(self.ledger, self.name, given, "the arguments")
            spec = spec.model_copy(update={"args": [], "kwargs": {}})
        if spec.env or spec.conditions.workernames or spec.conditions.labels:  # no other field can be large
            rest = len(values.pack(spec.wire(), "the spec"))
            limit = values.MAX_INLINE_BYTES + ROOM_FOR_ENVELOPE_BYTES
            if rest > limit:
                raise Invalid(f"the spec without its arguments is {rest} bytes; at most {limit} are allowed")
        queue = await self.declare(spec)
        if spec.delay is not None or spec.at is not None:
            return Submitted(spec, key, arguments), None
        return Queued(spec, key, arguments), queue

    async def declare(self, spec: Spec) -> str:
        """Declare the queue of a spec, if it is not; its name."""
        queue = queue_of(spec.conditions, spec.priority)
        await self._declare(queue, spec)
        return queue

    async def _declare(self, queue: str, spec: Spec) -> None:
        if queue in self.session.colony.queues:
            return
        conditions = spec.conditions.model_copy(update={"dependencies": []})
        try:
            await self.session.record_entity("queue", queue, Declared(conditions, spec.priority))
        except Conflict:
            await self.session.refresh()
            if queue not in self.session.colony.queues:
                raise

    async def submit_many(
        self, works: Iterable[Call[Any] | Spec | dict[str, Any]], *, atomic: bool = False
    ) -> list[Handle[Any]]:
        """Submit many processes, pipelined; with `atomic`, at most 1,000 of which all or none are accepted.

        Raises:
            PartlySubmitted: some were accepted, some not; it says which. Nothing else of `submit`'s errors
                leaves a part accepted.
        """
        calls: list[Call[Any]] = []
        for number, work in enumerate(works):
            with _numbered(number):
                calls.append(_call(work))
        if not calls:
            return []
        if atomic and len(calls) > MAX_BATCH:
            raise Invalid(
                f"{len(calls)} processes in one batch; at most {MAX_BATCH} are accepted or refused together"
            )
        prepared = []
        for number, call in enumerate(calls):
            with _numbered(number):
                prepared.append(await self._prepare(call.spec, None))
        handles: list[Handle[Any]] = [Handle(self, new_id(), call) for call in calls]
        await self._watcher.expect(len(calls))
        if atomic:
            await self._append_together(handles, prepared)
        else:
            await self._append_each(handles, prepared)
        return handles

    async def _seal_many(
        self, handles: Sequence[Handle[Any]], prepared: Sequence[tuple[Queued | Submitted, str | None]]
    ) -> list[tuple[Draft, Record]]:
        now = await self.ledger.now()
        sealed = []
        for handle, (event, queue) in zip(handles, prepared, strict=True):
            sealed.append(self.session.seal_first(event, handle.id, queue, now))
            await self._watcher.hear(handle.id)
        return sealed

    async def _append_together(
        self, handles: Sequence[Handle[Any]], prepared: Sequence[tuple[Queued | Submitted, str | None]]
    ) -> None:
        sealed = await self._seal_many(handles, prepared)
        try:
            sequences = await self.ledger.append_all([draft for draft, _ in sealed])
        except Unknown:
            if (await self.session.story(handles[-1].id)).process is None:
                raise
            return
        for (_, record), sequence in zip(sealed, sequences, strict=True):
            self._watcher.submitted(record, sequence)

    async def _append_each(
        self, handles: Sequence[Handle[Any]], prepared: Sequence[tuple[Queued | Submitted, str | None]]
    ) -> None:
        accepted: list[tuple[int, Handle[Any]]] = []
        refused: list[tuple[int, ColoniesError]] = []
        for start in range(0, len(handles), WINDOW):
            window = handles[start : start + WINDOW]
            sealed = await self._seal_many(window, prepared[start : start + WINDOW])
            outcomes = await self._send([draft for draft, _ in sealed])
            for index, outcome in enumerate(outcomes, start):
                handle = handles[index]
                if isinstance(outcome, int):
                    self._watcher.submitted(sealed[index - start][1], outcome)
                elif isinstance(outcome, Unavailable):
                    outcome = await self._settle(handle.id, outcome)
                if isinstance(outcome, ColoniesError):
                    refused.append((index, outcome))
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    accepted.append((index, handle))
        if refused:
            raise PartlySubmitted(accepted, refused)

    async def _send(self, drafts: Sequence[Draft]) -> list[int | BaseException]:
        """Send all, one behind the other; the sequence of each, or its error."""
        under_way: list[Any] = []
        for draft in drafts:
            try:
                under_way.append(await self.ledger.send(draft))
            except ColoniesError as error:
                under_way.append(_raising(error))
        outcomes: list[int | BaseException] = await asyncio.gather(*under_way, return_exceptions=True)
        return outcomes

    async def _settle(self, id: str, error: Unavailable) -> int | ColoniesError:
        """What became of an event of unknown fate: its sequence, or the error that stays."""
        try:
            story = await self.session.story(id)
        except Unavailable:
            return error
        return story.guard if story.process is not None else error

    async def submit_workflow(
        self, work: WorkflowSpec | list[Any] | dict[str, Any], *, key: str | None = None
    ) -> WorkflowHandle:
        """Submit a workflow, whole; then it is on the ledger. `key` and errors as of `submit`."""
        spec = work if isinstance(work, WorkflowSpec) else WorkflowSpec.parse(work)
        return WorkflowHandle(self, await submit_workflow(self, spec, key))

    def workflow(self, id: str) -> WorkflowHandle:
        """A handle on a workflow that was submitted before, here or elsewhere."""
        return WorkflowHandle(self, id)

    async def cancel(self, id: str, reason: str = "") -> Process:
        reason = checked_reason(reason)
        story = await self.session.story(id)
        if story.process is None:
            raise NotFound(f"there is no process {id} in the colony {self.colony}")
        story = await self.session.record(id, Cancelled(reason), at=story)
        assert story.process is not None
        return story.process

    async def signal(self, id: str, name: str, data: Any = None) -> Process:
        """Send a process a signal. Raises NotFound, Invalid, Conflict if it is final, Refused."""
        event = Signalled(checked_name(name, "signal"), signal_data(data))
        story = await self.session.story(id)
        if story.process is None:
            raise NotFound(f"there is no process {id} in the colony {self.colony}")
        story = await self.session.record(id, event, at=story)
        assert story.process is not None
        return story.process

    # --- waiting -------------------------------------------------------------------------------------

    def process(self, id: str) -> Handle[Any]:
        """A handle on a process that was submitted before, here or elsewhere."""
        return Handle(self, id)

    async def output(self, process: Process) -> Any:
        """The output of a final process, null if it was skipped. Raises ProcessFailed, ProcessCancelled."""
        match process.phase:
            case Successful(output=output, stored=None):
                return output
            case Successful(stored=stored) if stored is not None:
                return await values.load(self.ledger, stored)
            case SkippedForGood():
                return None
            case FailedForGood(error=error):
                raise ProcessFailed(f"process {process.id} failed: {error}", process=process.id)
            case CancelledForGood(by=by, reason=reason):
                why = f": {reason}" if reason else ""
                raise ProcessCancelled(f"process {process.id} was cancelled by {by}{why}", process=process.id)
            case _:
                raise Conflict(f"process {process.id} is {process.state}, not final")

    async def wait(self, id: str) -> Process:
        """The process once it is final. Raises NotFound."""
        return await self._watcher.wait(id)

    def events(self, id: str) -> AsyncIterator[Judged]:
        """Every event of the process, live until it is final. Raises NotFound."""
        return self._watcher.events(id)


def checked_wait(timeout_s: float | None) -> float | None:
    """A time limit (s) that a clock can keep. Raises Invalid: for NaN too, with which no wait ends well."""
    if timeout_s is not None and not 0 <= timeout_s <= MAX_WAIT_S:
        raise Invalid(f"timeout: {timeout_s} s; 0 to {MAX_WAIT_S} are allowed, or none for no limit")
    return timeout_s


async def _raising(error: ColoniesError) -> int:
    raise error


@contextlib.contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Whatever is invalid in here is said of this one of many."""
    try:
        yield
    except Invalid as error:
        raise Invalid(f"number {number}: {error}") from None


def _call(work: Call[Any] | Spec | dict[str, Any]) -> Call[Any]:
    if isinstance(work, Call):
        return work
    return Call(work if isinstance(work, Spec) else Spec.parse(work))
