"""Asking the views of the ledger: what projectors answer, page by page.

A question covers what this member knows of: the views answer once they have taken in the last event that
stood on the ledger when it was asked (or the one that `at_least` names). What projectors say is not verified
here: who must be sure reads the process itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from colonies.errors import Invalid, NotFound, Unavailable
from colonies.imported import Unanswered
from colonies.ledger import Asked
from colonies.tasks import first_error

if TYPE_CHECKING:
    from colonies.ledger import Ledger
    from colonies.session import Session

ANSWER_S = 15.0  # a projector waits up to 5 s until it has come as far as it is asked for
QUIET_S = 2.0  # after so long without an answer projectors are asked whether they are there
PING_S = 5.0  # and then have so long to say so, which costs them nothing
PAGE = 1_000

PING = "$SRV.PING.colonies-projector"
INFO = "$SRV.INFO.colonies-projector"
REBUILD = "rebuild"  # which is no view
LOOK_S = 2.0

NO_PROJECTOR = (
    "no projector answers; start one: `colonies dev` runs it, or `colonies server start --only projector`"
)


class Behind(Unavailable):
    """The views have not come as far as the question asks for; without that they would answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Items as JSON objects, and the sequence that they are of. `cursor`: there are more behind them. `cut`:
    there are, and this view has no pages: ask for fewer. `behind`: the last sequence of the ledger, if the
    views are far from it."""

    items: list[dict[str, Any]]
    position: int
    cursor: str | None = None
    cut: bool = False
    behind: int | None = None


async def ask(
    ledger: Ledger,
    view: str,
    question: Mapping[str, Any],
    *,
    wait_s: float = ANSWER_S,
    waiting: Callable[[], None] = lambda: None,
) -> Answer:
    """One page of what a view has.

    `question` holds its filters, and `sort`, `limit`, `cursor`, `at` and `at_least` (sequences); what is None
    counts as not said. `waiting` is called if it takes long.

    Raises:
        Invalid: the question makes no sense. NotFound: there is no such view. Behind: the views are not far
            enough.
        Unavailable: no projector answers.
    """
    if not hasattr(ledger, "ask_service"):
        raise Unavailable("a colony in memory has no projector")
    body = {name: value for name, value in question.items() if value is not None}
    said = await _answer(cast(Asked, ledger), f"query.{view}", body, wait_s, waiting)
    match said:
        case {"error": error, "kind": "invalid"}:
            raise Invalid(str(error))
        case {"error": error, "kind": "behind"}:
            raise Behind(f"the projector has no answer: {error}")
        case {"items": list() as items, "position": int() as position}:
            return Answer(items, position, said.get("cursor"), bool(said.get("cut")))
    raise Unavailable(f"the projector has no answer: {said.get('error', said)}")


async def ask_now(
    ledger: Ledger,
    view: str,
    question: Mapping[str, Any],
    *,
    wait_s: float = ANSWER_S,
    waiting: Callable[[], None] = lambda: None,
) -> Answer:
    """As `ask`, as of all that is on the ledger now; if the views are far behind, as of where they are."""
    last = await ledger.last_sequence()
    now = {**question, "at_least": last}
    try:
        return await ask(ledger, view, now, wait_s=wait_s, waiting=waiting)
    except Behind:
        return replace(await ask(ledger, view, question, wait_s=wait_s, waiting=waiting), behind=last)


async def _answer(
    ledger: Asked, subject: str, body: dict[str, Any], wait_s: float, waiting: Callable[[], None]
) -> dict[str, Any]:
    """What a projector says. One that is slow may take `wait_s`; one that hangs is not waited for."""
    alive = False

    async def watch() -> None:
        nonlocal alive
        await asyncio.sleep(QUIET_S)
        waiting()
        with contextlib.suppress(Unanswered):
            await ledger.ask_service(PING, {}, wait_s=PING_S)
        alive = True

    try:
        with first_error():
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(watch())
                said = await ledger.ask_service(subject, body, wait_s=wait_s)
                watching.cancel()
        return said
    except Unanswered:
        raise
    except Unavailable:
        if alive:
            raise Unavailable(
                f"a projector is there and has no answer after {wait_s:g} s; ask again"
            ) from None
        raise await _nobody(ledger, subject) from None


async def _nobody(ledger: Asked, subject: str) -> NotFound | Unavailable:
    """Nobody answered at once: is there no such view, or no projector?"""
    try:
        told = await ledger.ask_service(INFO, {}, wait_s=LOOK_S)
        found = {str(endpoint["subject"]).removeprefix("query.") for endpoint in told["endpoints"]}
    except (Unavailable, ValueError, RecursionError, KeyError, TypeError):
        return Unavailable(NO_PROJECTOR)
    view = subject.removeprefix("query.")
    if view in found:
        return Unavailable("a projector is there and had no answer; ask again")
    names = ", ".join(sorted(found - {REBUILD}))
    return NotFound(f"no projector has a view {view}; there are: {names}")


class Querying:
    """The part of a client that asks the views."""

    session: Session

    async def query(
        self,
        view: str,
        *,
        sort: str | None = None,
        limit: int | None = None,
        at: int | None = None,
        at_least: int | None = None,
        **filters: str | None,
    ) -> AsyncIterator[dict[str, Any]]:
        """The items of a view, such as `processes`, as JSON objects: at most `limit`, by default all.

        `at`: as they were at that sequence. `at_least`: as of no earlier sequence; by default as of all that
        stands on the ledger now. Pages are asked for as they are needed.

        Raises:
            Invalid: there is no such filter, value or sort. NotFound: no such view; it names those there are.
            Unavailable: no projector answers, or it is far behind.
        """
        ledger = self.session.ledger
        if at_least is None and at is None:
            at_least = await ledger.last_sequence()
        given, left, cursor = 0, limit, None
        while left is None or left > 0:
            page = PAGE if left is None else min(PAGE, left)
            common = {"sort": sort, "limit": page, "at": at, "at_least": at_least, "cursor": cursor}
            answer = await ask(ledger, view, {**filters, **common})
            for item in answer.items:
                yield item
            given += len(answer.items)
            left = None if limit is None else limit - given
            cursor = answer.cursor
            if cursor is None:
                return
