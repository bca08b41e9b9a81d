"""Many processes submitted at once: pipelined, or together as one batch.

It is the client's, which says what one submission is; here is only how many of them are sent, and what became
of each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from colonies.calls import Call
from colonies.core.events import Queued, Record, Submitted
from colonies.core.spec import Spec
from colonies.errors import ColoniesError, Invalid, Unavailable, Unknown
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.watching import Watcher

if TYPE_CHECKING:
    from colonies.client import Client, Handle

WINDOW = 512
MAX_BATCH = 1_000


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


class Batch:
    """Submits many for one client."""

    def __init__(self, client: Client, watcher: Watcher) -> None:
        self._client = client
        self._watcher = watcher
        self._session = client.session
        self._ledger = client.ledger

    async def submit(
        self, works: Iterable[Call[Any] | Spec | dict[str, Any]], *, atomic: bool
    ) -> list[Handle[Any]]:
        """As `Client.submit_many`."""
        from colonies.client import Handle, called

        calls: list[Call[Any]] = []
        for number, work in enumerate(works):
            with _numbered(number):
                calls.append(called(work))
        if not calls:
            return []
        if atomic and len(calls) > MAX_BATCH:
            raise Invalid(
                f"{len(calls)} processes in one batch; at most {MAX_BATCH} are accepted or refused together"
            )
        prepared = []
        for number, call in enumerate(calls):
            with _numbered(number):
                prepared.append(await self._client.prepare(call.spec, None))
        handles: list[Handle[Any]] = [Handle(self._client, new_id(), call) for call in calls]
        await self._watcher.expect(len(calls))
        if atomic:
            await self._append_together(handles, prepared)
        else:
            await self._append_each(handles, prepared)
        return handles

    async def _seal_many(
        self, handles: Sequence[Handle[Any]], prepared: Sequence[tuple[Queued | Submitted, str | None]]
    ) -> list[tuple[Draft, Record]]:
        now = await self._ledger.now()
        sealed = []
        for handle, (event, queue) in zip(handles, prepared, strict=True):
            sealed.append(self._session.seal_first(event, handle.id, queue, now))
            await self._watcher.hear(handle.id)
        return sealed

    async def _append_together(
        self, handles: Sequence[Handle[Any]], prepared: Sequence[tuple[Queued | Submitted, str | None]]
    ) -> None:
        sealed = await self._seal_many(handles, prepared)
        try:
            sequences = await self._ledger.append_all([draft for draft, _ in sealed])
        except Unknown:
            if (await self._session.story(handles[-1].id)).process is None:
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
                under_way.append(await self._ledger.send(draft))
            except ColoniesError as error:
                under_way.append(_raising(error))
        outcomes: list[int | BaseException] = await asyncio.gather(*under_way, return_exceptions=True)
        return outcomes

    async def _settle(self, id: str, error: Unavailable) -> int | ColoniesError:
        """What became of an event of unknown fate: its sequence, or the error that stays."""
        try:
            story = await self._session.story(id)
        except Unavailable:
            return error
        return story.guard if story.process is not None else error


async def _raising(error: ColoniesError) -> int:
    raise error


@contextlib.contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Whatever is invalid in here is said of this one of many."""
    try:
        yield
    except Invalid as error:
        raise Invalid(f"number {number}: {error}") from None
