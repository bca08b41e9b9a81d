"""The client: submit processes, wait for them, follow them, cancel them.

It waits on the feed and believes nothing that it has not verified: a result counts when the process's whole
chain, read or heard, is valid. The feed may lose; so after every gap, and every 30 s, it reads from the
leader. It never runs work and never talks to a server of ours, for there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar, overload

from colonies import subjects, values
from colonies.calls import Call
from colonies.core.events import Cancelled, Declared, Queued, Record
from colonies.core.process import (
    CancelledForGood,
    FailedForGood,
    Process,
    Successful,
    evolve,
    keyed_id,
)
from colonies.core.spec import Spec, queue_of
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
from colonies.history import Judged, Story, examine, judge_process
from colonies.ids import new_id
from colonies.ledger import Draft, Stored, Subscription
from colonies.session import Session

T = TypeVar("T")

_ENDS = frozenset({"completed", "cancelled", "poisoned", "expired"})
_MAY_END = _ENDS | {"failed"}

REREAD_S = 30.0
MANY_WATCHED = 64
WINDOW = 512
MAX_UNATTENDED = 4_096
MAX_BATCH = 1_000
ROOM_FOR_ENVELOPE_BYTES = 16 * 1024


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


class _Watched:
    """A process that is, or may soon be, waited for: its story so far and what was heard since.

    `users` counts who waits, `followers` those of them who want to see every event; `done` says that its end
    was heard, so no subscription is needed any more.
    """

    __slots__ = ("changed", "done", "followers", "heard", "story", "subscription", "users")

    def __init__(self, story: Story | None) -> None:
        self.story = story
        self.heard: list[Stored] = []
        self.changed = asyncio.Event()
        self.users = 0
        self.followers = 0
        self.done = False
        self.subscription: Subscription | None = None


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
        async with asyncio.timeout(timeout_s):
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


class Client:
    """A member's door to its colony. Open one with `colonies.connect()`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ledger = session.ledger
        self._declared: set[str] = set()
        self._watched: dict[str, _Watched] = {}
        self._live = 0
        self._all: Subscription | None = None
        self._unneeded: asyncio.Queue[Subscription] = asyncio.Queue()
        self._closer = asyncio.create_task(self._close_unneeded(), name="subscription closer")
        self._rereader = asyncio.create_task(self._reread(), name="rereader")
        session.ledger.on_gap(self._wake_all)

    @property
    def name(self) -> str:
        """This member's name."""
        return self.session.name

    @property
    def colony(self) -> str:
        """The colony's name."""
        return self.session.colony.name

    async def close(self) -> None:
        for watched in list(self._watched.values()):
            if watched.subscription is not None:
                await watched.subscription.close()
        if self._all is not None:
            await self._all.close()
        self._closer.cancel()
        self._rereader.cancel()
        await asyncio.gather(self._closer, self._rereader, return_exceptions=True)
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
        watched = await self._watch(id)
        try:
            story = await self._submit(id, event, queue)
            if watched.story is None:
                watched.story = story
        finally:
            self._leave(watched)
        return Handle(self, id, call)

    async def _submit(self, id: str, event: Queued, queue: str) -> Story:
        try:
            return await self.session.record(id, event, at=Story(None, [], 0), queue=queue)
        except Conflict:
            story = await self.session.story(id)
            if event.key is None or story.process is None:
                raise
            if story.process.spec != event.spec or story.process.arguments != event.arguments:
                raise Invalid(
                    f"the key {event.key!r} stands for process {id}, which has another spec; take a new key"
                ) from None
            return story

    async def _prepare(self, spec: Spec, key: str | None) -> tuple[Queued, str]:
        if spec.conditions.dependencies:
            raise Invalid("conditions.dependencies: a process on its own has none; they belong in a workflow")
        if spec.colony is not None and spec.colony not in (self.colony, self.ledger.colony):
            raise Invalid(f"colony: the spec is for {spec.colony!r}, this context is for {self.colony!r}")
        if key is not None and not 1 <= len(key) <= 256:
            raise Invalid(f"key: it has {len(key)} characters; 1 to 256 are allowed")
        arguments = None
        packed = values.pack([spec.args, spec.kwargs], "the arguments")
        if len(packed) > values.MAX_INLINE_BYTES:
            _, arguments = await values.store(
                self.ledger, self.name, [spec.args, spec.kwargs], "the arguments"
            )
            spec = spec.model_copy(update={"args": [], "kwargs": {}})
        rest = len(values.pack(spec.wire(), "the spec"))
        limit = values.MAX_INLINE_BYTES + ROOM_FOR_ENVELOPE_BYTES
        if rest > limit:
            raise Invalid(f"the spec without its arguments is {rest} bytes; at most {limit} are allowed")
        queue = queue_of(spec.conditions, spec.priority)
        await self._declare(queue, spec)
        return Queued(spec, key, arguments), queue

    async def _declare(self, queue: str, spec: Spec) -> None:
        if queue in self._declared or queue in self.session.colony.queues:
            return
        conditions = spec.conditions.model_copy(update={"dependencies": []})
        try:
            await self.session.record_entity("queue", queue, Declared(conditions, spec.priority))
        except Conflict:
            await self.session.refresh()
            if queue not in self.session.colony.queues:
                raise
        self._declared.add(queue)

    async def submit_many(
        self, works: Iterable[Call[Any] | Spec | dict[str, Any]], *, atomic: bool = False
    ) -> list[Handle[Any]]:
        """Submit many processes, pipelined; with `atomic`, at most 1,000 of which all or none are accepted.

        Raises:
            PartlySubmitted: some were accepted, some not; it says which. Nothing else of `submit`'s errors
                leaves a part accepted.
        """
        calls = [_call(work) for work in works]
        if not calls:
            return []
        if atomic and len(calls) > MAX_BATCH:
            raise Invalid(
                f"{len(calls)} processes in one batch; at most {MAX_BATCH} are accepted or refused together"
            )
        prepared = [await self._prepare(call.spec, None) for call in calls]
        handles: list[Handle[Any]] = [Handle(self, new_id(), call) for call in calls]
        if len(calls) >= MANY_WATCHED:
            await self._watch_everything()
        if atomic:
            await self._append_together(handles, prepared)
        else:
            await self._append_each(handles, prepared)
        return handles

    async def _seal_many(
        self, handles: Sequence[Handle[Any]], prepared: Sequence[tuple[Queued, str]]
    ) -> list[tuple[Draft, Record]]:
        now = await self.ledger.now()
        sealed = []
        for handle, (event, queue) in zip(handles, prepared, strict=True):
            sealed.append(self.session.seal_first(event, handle.id, queue, now))
            self._leave(await self._watch(handle.id))
        return sealed

    def _submitted(self, record: Record, sequence: int) -> None:
        """What we submitted ourselves need not be read again by whoever waits for it."""
        watched = self._watched.get(record.entity)
        if watched is not None and watched.story is None:
            process = evolve(None, replace(record, sequence=sequence))
            watched.story = Story(process, [], sequence)

    async def _append_together(
        self, handles: Sequence[Handle[Any]], prepared: Sequence[tuple[Queued, str]]
    ) -> None:
        sealed = await self._seal_many(handles, prepared)
        try:
            sequences = await self.ledger.append_all([draft for draft, _ in sealed])
        except Unknown:
            if (await self.session.story(handles[-1].id)).process is None:
                raise
            return
        for (_, record), sequence in zip(sealed, sequences, strict=True):
            self._submitted(record, sequence)

    async def _append_each(
        self, handles: Sequence[Handle[Any]], prepared: Sequence[tuple[Queued, str]]
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
                    self._submitted(sealed[index - start][1], outcome)
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

    async def cancel(self, id: str, reason: str = "") -> Process:
        story = await self.session.story(id)
        if story.process is None:
            raise NotFound(f"there is no process {id} in the colony {self.colony}")
        story = await self.session.record(id, Cancelled(reason[:1_000]), at=story)
        assert story.process is not None
        return story.process

    # --- waiting -------------------------------------------------------------------------------------

    def process(self, id: str) -> Handle[Any]:
        """A handle on a process that was submitted before, here or elsewhere."""
        return Handle(self, id)

    async def output(self, process: Process) -> Any:
        """The output of a final process. Raises ProcessFailed, ProcessCancelled."""
        match process.phase:
            case Successful(output=output, stored=None):
                return output
            case Successful(stored=stored) if stored is not None:
                return await values.load(self.ledger, stored)
            case FailedForGood(error=error):
                raise ProcessFailed(f"process {process.id} failed: {error}", process=process.id)
            case CancelledForGood(by=by, reason=reason):
                why = f": {reason}" if reason else ""
                raise ProcessCancelled(f"process {process.id} was cancelled by {by}{why}", process=process.id)
            case _:
                raise Conflict(f"process {process.id} is {process.state}, not final")

    async def wait(self, id: str) -> Process:
        watched = await self._watch(id)
        try:
            while True:
                watched.changed.clear()
                process = self._catch_up(watched)
                if process is None:
                    watched.story = await self._story_of(id)
                    process = watched.story.process
                if process is not None and process.final:
                    return process
                await watched.changed.wait()
        finally:
            self._leave(watched)
            if watched.users == 0:
                self._unwatch(id)

    async def _story_of(self, id: str) -> Story:
        story = await self.session.story(id)
        if story.process is None:
            raise NotFound(f"there is no process {id} in the colony {self.colony}")
        return story

    def _catch_up(self, watched: _Watched) -> Process | None:
        """Fold what was heard. None: something is missing or not valid, so it must be read.

        A signature is checked unless the next event, of the same author, covers it by its `prev`. Until that
        one is checked, nothing is kept of what it covers: somebody else may be waiting for this process too.
        """
        story = watched.story
        if story is None or story.process is None:
            watched.heard.clear()
            return None
        heard = [stored for stored in watched.heard if stored.sequence > story.guard]
        watched.heard.clear()
        process: Process = story.process
        for index, stored in enumerate(heard):
            author = stored.subject.rsplit(".", 1)[1]
            covered = index + 1 < len(heard) and heard[index + 1].subject.rsplit(".", 1)[1] == author
            seen = examine(self.session.colony, stored, trusted=covered)
            after, seen = judge_process(self.session.colony, process, seen)
            if not seen.verdict.valid or after is None:
                return None
            process = after
            if not covered:
                watched.story = Story(process, story.judged, stored.sequence)
        return process

    async def events(self, id: str) -> AsyncIterator[Judged]:
        watched = await self._watch(id)
        watched.followers += 1
        try:
            shown = 0
            while True:
                watched.changed.clear()
                watched.heard.clear()
                story = await self._story_of(id)
                watched.story = story
                for seen in story.judged:
                    if seen.stored.sequence > shown:
                        shown = seen.stored.sequence
                        yield seen
                if story.process is not None and story.process.final:
                    return
                await watched.changed.wait()
        finally:
            watched.followers -= 1
            self._leave(watched)
            if watched.users == 0:
                self._unwatch(id)

    # --- hearing -------------------------------------------------------------------------------------

    async def _watch(self, id: str) -> _Watched:
        """Hear this process from now on. Every call is ended by one `_leave`."""
        watched = self._watched.get(id)
        if watched is None:
            watched = self._watched[id] = _Watched(None)
            self._live += 1
            if self._all is None and len(self._watched) >= MANY_WATCHED:
                await self._watch_everything()
            if self._all is None:
                watched.subscription = await self.ledger.subscribe(
                    subjects.process_events(id), self._on_event
                )
            if len(self._watched) > MAX_UNATTENDED:
                self._forget_one()
        watched.users += 1
        return watched

    def _leave(self, watched: _Watched) -> None:
        watched.users -= 1

    def _forget_one(self) -> None:
        """Of those that nobody waits for, let the oldest go: who asks for it later reads it."""
        for id, watched in self._watched.items():
            if watched.users == 0 and watched.story is not None:
                self._unwatch(id)
                return

    async def _watch_everything(self) -> None:
        """One subscription for all processes is lighter than very many for one each."""
        if self._all is None:
            self._all = await self.ledger.subscribe(subjects.ALL_PROCESS_EVENTS, self._on_event)

    def _unwatch(self, id: str) -> None:
        watched = self._watched.pop(id, None)
        if watched is not None:
            self._need_no_more(watched)

    def _need_no_more(self, watched: _Watched) -> None:
        if not watched.done:
            watched.done = True
            self._live -= 1
        if watched.subscription is not None:
            self._unneeded.put_nowait(watched.subscription)
            watched.subscription = None
        if self._all is not None and self._live == 0:
            self._unneeded.put_nowait(self._all)
            self._all = None

    async def _close_unneeded(self) -> None:
        while True:
            await (await self._unneeded.get()).close()

    def _on_event(self, stored: Stored) -> None:
        watched = self._watched.get(subjects.process_of_feed(stored.subject))
        if watched is None:
            return
        watched.heard.append(stored)
        event = stored.subject.split(".", 4)[3]
        if watched.followers or event in _MAY_END:
            watched.changed.set()
        if watched.users == 0 and event in _ENDS:
            self._need_no_more(watched)

    async def _reread(self) -> None:
        """The feed may lose without a word: what is waited for is read now and then."""
        while True:
            await asyncio.sleep(REREAD_S)
            for watched in self._watched.values():
                if watched.users > 0:
                    watched.story = None
                    watched.changed.set()

    def _wake_all(self) -> None:
        for watched in self._watched.values():
            watched.story = None
            watched.changed.set()


async def _raising(error: ColoniesError) -> int:
    raise error


def _call(work: Call[Any] | Spec | dict[str, Any]) -> Call[Any]:
    if isinstance(work, Call):
        return work
    return Call(work if isinstance(work, Spec) else Spec.parse(work))
