"""One act on many processes or workflows: so many at a time, each read from the ledger and verified first.

Who asks for it knows the ids, from a view for example, which is a hint: what has ended meanwhile is left as
it is. What cannot be done to one of them stops no other; a broker that is away stops all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from colonies.core.events import Cancelled, checked_reason
from colonies.errors import ColoniesError, Conflict, Invalid, Refused, Unavailable
from colonies.missing import not_found
from colonies.rerunning import is_rerun, rerun_process
from colonies.tasks import first_error

if TYPE_CHECKING:
    from colonies.client import Client
    from colonies.history import Story

AT_ONCE = 64

Outcome = Literal["done", "existing", "skipped", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one. `existing`: it was done before, under the same key; `skipped`: it is in no state
    for it; `refused`: this member may not, or nobody can. `detail` says its state, or why not; `new` is the
    id of what was submitted."""

    id: str
    outcome: Outcome
    detail: str = ""
    new: str | None = None


Act = Callable[[str], Awaitable[Done]]


async def each(ids: Iterable[str], act: Act, told: Callable[[Done], None], *, at_once: int = AT_ONCE) -> None:
    """Act on each of these ids, `at_once` at a time; `told` hears of each as it is done.

    Raises Unavailable: the broker does not answer; what was told until then is done.
    """
    left = iter(dict.fromkeys(ids))

    async def some() -> None:
        for id in left:
            told(await _outcome(id, act))

    with first_error():
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(some())


async def _outcome(id: str, act: Act) -> Done:
    try:
        return await act(id)
    except Unavailable:
        raise
    except (Refused, Invalid) as error:
        return Done(id, "refused", str(error))
    except ColoniesError as error:
        return Done(id, "failed", str(error))


def cancelling(client: Client, reason: str = "") -> Act:
    """Cancels a process that is not final. Raises Invalid: the reason is too long."""
    event = Cancelled(checked_reason(reason))

    async def cancel(id: str) -> Done:
        story = await client.session.story(id)
        try:
            if story.process is not None and not story.process.final:
                story = await client.session.record(id, event, at=story)
                return Done(id, "done", "cancelled")
        except Conflict:
            story = await client.session.story(id)
            if story.process is None or not story.process.final:
                raise
        if story.process is None:
            raise await not_found(client.session, "process", id)
        return Done(id, "skipped", story.process.state)

    return cancel


def rerunning(client: Client, key: str | None = None) -> Act:
    """Runs a process again that has ended. With a `key`, what was run again with it is not once more, and
    neither is what that made."""

    async def rerun(id: str) -> Done:
        story = await client.session.story(id)
        if story.process is not None and not story.process.final:
            return Done(id, "skipped", story.process.state)
        if key is not None and is_rerun(story, client.name, key):
            return Done(id, "skipped", f"made by a rerun with the key {key}")
        return await run_again(client, id, key, story)

    return rerun


async def run_again(client: Client, id: str, key: str | None, story: Story | None = None) -> Done:
    """Run one again: `done`, or `existing`. Raises as `Handle.rerun`."""
    new, existed = await rerun_process(client, id, key, story)
    if existed:
        return Done(id, "existing", f"submitted before with the key {key}", new)
    return Done(id, "done", "submitted", new)


def cancelling_workflows(client: Client, reason: str = "") -> Act:
    """Cancels a workflow that runs. Raises Invalid: the reason is too long."""
    reason = checked_reason(reason)

    async def cancel(id: str) -> Done:
        handle = client.workflow(id)
        try:
            await handle.cancel(reason)
        except Conflict:
            now = await handle.get()
            if not now.final and now.workflow.cancelled_at is None:
                raise
            return Done(id, "skipped", now.state if now.final else "cancelled")
        return Done(id, "done", "cancelled")

    return cancel


def rerunning_workflows(client: Client) -> Act:
    """Runs a workflow again that has ended, taking over what was successful."""

    async def rerun(id: str) -> Done:
        handle = client.workflow(id)
        try:
            return Done(id, "done", "submitted", (await handle.rerun()).id)
        except Conflict:
            now = await handle.get()
            if now.final:
                raise
            return Done(id, "skipped", now.state)

    return rerun
