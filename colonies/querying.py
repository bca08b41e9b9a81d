"""Asking the views of the ledger: what projectors answer, page by page.

A question covers what this member knows of: the views answer once they have taken in the last event that
stood on the ledger when it was asked (or the one that `at_least` names). What projectors say is not verified
here: who must be sure reads the process itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from colonies.errors import Invalid, Unavailable
from colonies.imported import Unanswered
from colonies.ledger import Asked

if TYPE_CHECKING:
    from colonies.ledger import Ledger
    from colonies.session import Session

ANSWER_S = 15.0  # a projector waits up to 5 s until it has come as far as it is asked for
PAGE = 1_000

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


async def ask(ledger: Ledger, view: str, question: Mapping[str, Any], *, wait_s: float = ANSWER_S) -> Answer:
    """One page of what a view has.

    `question` holds its filters, and `sort`, `limit`, `cursor`, `at` and `at_least` (sequences); what is None
    counts as not said.

    Raises:
        Invalid: the question makes no sense. Behind: the views are not far enough.
        Unavailable: no projector answers.
    """
    if not hasattr(ledger, "ask_service"):
        raise Unavailable("a colony in memory has no projector")
    body = {name: value for name, value in question.items() if value is not None}
    try:
        said = await cast(Asked, ledger).ask_service(f"query.{view}", body, wait_s=wait_s)
    except Unanswered:
        raise
    except Unavailable:
        raise Unavailable(NO_PROJECTOR) from None
    match said:
        case {"error": error, "kind": "invalid"}:
            raise Invalid(str(error))
        case {"error": error, "kind": "behind"}:
            raise Behind(f"the projector has no answer: {error}")
        case {"items": list() as items, "position": int() as position}:
            return Answer(items, position, said.get("cursor"), bool(said.get("cut")))
    raise Unavailable(f"the projector has no answer: {said.get('error', said)}")


async def ask_now(
    ledger: Ledger, view: str, question: Mapping[str, Any], *, wait_s: float = ANSWER_S
) -> Answer:
    """As `ask`, as of all that is on the ledger now; if the views are far behind, as of where they are."""
    last = await ledger.last_sequence()
    try:
        return await ask(ledger, view, {**question, "at_least": last}, wait_s=wait_s)
    except Behind:
        return replace(await ask(ledger, view, question, wait_s=wait_s), behind=last)


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
            Invalid: there is no such filter, value or sort.
            Unavailable: no projector answers for such a view, or it is far behind.
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
