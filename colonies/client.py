"""The client: submit processes, wait for them, follow them, cancel them.

It waits on the feed and believes nothing that it has not verified: a result counts when the process's whole
chain, read or heard, is valid. The feed may lose; so after every gap, and every 30 s, it reads from the
leader. It never runs work and never talks to a server of ours, for there is none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Generic, TypeVar, overload

from colonies import tracing, values
from colonies.batch import Batch
from colonies.building import Workflow
from colonies.calls import Call
from colonies.core.events import (
    MAX_TEXT_CHARS,
    Cancelled,
    Declared,
    Queued,
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
from colonies.crons import CronClient
from colonies.errors import (
    Conflict,
    Invalid,
    ProcessCancelled,
    ProcessFailed,
)
from colonies.flows import WorkflowHandle, signal_data, submit_workflow
from colonies.generators import GeneratorClient
from colonies.history import Judged, Story
from colonies.ids import new_id
from colonies.listening import FeedClient
from colonies.missing import not_found
from colonies.pausing import Pausing
from colonies.querying import Querying
from colonies.reasons import Reason
from colonies.session import Session
from colonies.waited import within
from colonies.watching import Watcher

T = TypeVar("T")

ROOM_FOR_ENVELOPE_BYTES = 16 * 1024
MAX_WAIT_S = MAX_SECONDS


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

        async def state() -> str:
            return (await self.get()).state

        async with within(checked_wait(timeout_s), f"process {self.id}", state):
            return await self._client.wait(self.id)
        raise AssertionError("what takes too long is raised")

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

    async def why(self) -> list[Reason]:
        """Why it is as it is, the most telling reason first. Raises NotFound."""
        from colonies.explaining import explain

        return await explain(self._client, self.id)

    async def cancel(self, reason: str = "") -> Process:
        """Cancel it. Raises Conflict if it is final already, Refused if it is another's."""
        return await self._client.cancel(self.id, reason)

    async def rerun(self, *, key: str | None = None) -> Handle[T]:
        """Submit what was asked for once more, as a new process of this member; arguments in the Object
        Store are taken by reference. With a `key`, a repetition gives the same new process.

        Raises:
            Conflict: it is not final. Invalid: it is a node; its workflow is run again. NotFound, Refused.
        """
        from colonies.rerunning import rerun_process

        new, _ = await rerun_process(self._client, self.id, key)
        return Handle(self._client, new, self._call)

    async def signal(self, name: str, data: Any = None) -> Process:
        """Send it a signal, which its function may wait for. Raises Conflict if it is final, Refused."""
        return await self._client.signal(self.id, name, data)


class Client(CronClient, GeneratorClient, Pausing, Querying, FeedClient):
    """A member's door to its colony. Open one with `colonies.connect()`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ledger = session.ledger
        self._watcher = Watcher(session)

    @property
    def name(self) -> str:
        """This member's name."""
        return self.session.name

    @property
    def colony(self) -> str:
        """The colony's name."""
        return self.session.colony.name

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
    @overload
    async def submit(self, work: Workflow, *, key: str | None = None) -> WorkflowHandle: ...
    async def submit(
        self, work: Call[Any] | Spec | dict[str, Any] | Workflow, *, key: str | None = None
    ) -> Handle[Any] | WorkflowHandle:
        """Submit one process, or one workflow, whole; when this returns it is on the ledger.

        With a `key`, the same submitter and key always give the same process, or workflow.

        Raises:
            Invalid: the spec makes no sense, or the key stands for another spec.
            Refused: this member may not submit.
            Unavailable: the broker does not answer; Unknown: ... nor is it known what became of it.
        """
        if isinstance(work, Workflow):
            return WorkflowHandle(self, await submit_workflow(self, work.spec(), key), work)
        call = called(work)
        event, queue = await self.prepare(call.spec, key)
        id = keyed_id(self.name, key) if key is not None else new_id()
        async with self._watcher.watching(id) as watched:
            story, _ = await self.record_submission(id, event, queue)
            if watched.story is None:
                watched.restart(story)
        return Handle(self, id, call)

    async def record_submission(
        self, id: str, event: Queued | Submitted, queue: str | None
    ) -> tuple[Story, bool]:
        """Record it, or find it recorded under its key; was it there? Raises Invalid: the key stands for
        another spec."""
        try:
            return await self.session.record(id, event, at=Story(None, [], 0), queue=queue), False
        except Conflict:
            story = await self.session.story(id)
            if event.key is None or story.process is None:
                raise
            same = values.same(story.process.arguments, event.arguments)
            if story.process.spec != event.spec or not same:
                raise Invalid(
                    f"the key {event.key!r} stands for process {id}, which has another spec; take a new key"
                ) from None
            return story, True

    async def prepare(
        self, spec: Spec, key: str | None, stored: Ref | None = None
    ) -> tuple[Queued | Submitted, str | None]:
        """The event that submits a spec, and its queue, if it is offered at once. `stored` are its arguments,
        if the Object Store has them already. Raises Invalid."""
        if spec.conditions.dependencies:
            raise Invalid("conditions.dependencies: a process on its own has none; they belong in a workflow")
        if spec.colony is not None and spec.colony not in (self.colony, self.ledger.colony):
            raise Invalid(f"colony: the spec is for {spec.colony!r}, this context is for {self.colony!r}")
        if key is not None and not 1 <= len(key) <= MAX_TEXT_CHARS:
            raise Invalid(f"key: it has {len(key)} characters; 1 to {MAX_TEXT_CHARS} are allowed")
        arguments = stored
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
        if spec.delay is not None or spec.at is not None or spec.limits:
            return Submitted(spec, key, arguments, tracing.here()), None
        return Queued(spec, key, arguments, tracing.here()), queue

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
        return await Batch(self, self._watcher).submit(works, atomic=atomic)

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
            raise await not_found(self.session, "process", id)
        story = await self.session.record(id, Cancelled(reason), at=story)
        assert story.process is not None
        return story.process

    async def signal(self, id: str, name: str, data: Any = None) -> Process:
        """Send a process a signal. Raises NotFound, Invalid, Conflict if it is final, Refused."""
        event = Signalled(checked_name(name, "signal"), signal_data(data))
        story = await self.session.story(id)
        if story.process is None:
            raise await not_found(self.session, "process", id)
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


def called(work: Call[Any] | Spec | dict[str, Any]) -> Call[Any]:
    if isinstance(work, Call):
        if work.uses:
            raise Invalid(
                f"{work.spec.func}: {work.uses[0]!r} is known only in its workflow: add the call to it"
            )
        return work
    return Call(work if isinstance(work, Spec) else Spec.parse(work))
