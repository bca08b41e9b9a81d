"""What all lists have in common: what the projector is asked, and the three ways to print what is found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from colonies_cli import exits, ids, options, output
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies_cli.command import Here

T = TypeVar("T")

WITH_IDS: Final[dict[str, tuple[ids.Noun, ...]]] = {
    "processes": ("workflow",),
    "nodes": ("workflow",),
    "logs": ("process", "workflow"),
}
"""Views, and those of their filters that are an id."""


@dataclass(frozen=True, slots=True)
class Pages:
    """How much of a list: at most `limit` from the `cursor` on, or `all`; in which order."""

    limit: int
    all: bool = False
    cursor: str | None = None
    sort: str | None = None


def check_state(state: str | None, allowed: Sequence[str], what: str = "state") -> None:
    """Raises Invalid: there is no such state to ask for."""
    if state is not None and state not in allowed:
        from colonies.errors import Invalid

        raise Invalid(f"--state: {state!r} is no {what}; allowed: {', '.join(allowed)}")


def check_word(option: str, given: str | None, allowed: Sequence[str]) -> None:
    """Raises Invalid: the option has no such word."""
    if given is not None and given not in allowed:
        from colonies.errors import Invalid

        raise Invalid(f"{option}: {given!r} is not one; allowed: {', '.join(allowed)}")


async def asked(here: Here, view: str, pages: Pages | None = None, /, **filters: Any) -> list[dict[str, Any]]:
    """What the projector has, with those of the filters that are given, as many as `pages` says.

    Raises as `Here.query`; `since` and `until` may be a time, an age or a sequence.
    """
    from colonies_cli.command import ask

    pages = pages or Pages(options.LIMIT)
    items: list[dict[str, Any]] = []
    async with here.session() as session:
        cursor = pages.cursor
        question = await _question(session.ledger, view, filters, cursor)
        while pages.all or len(items) < pages.limit:
            limit = options.PAGE if pages.all else min(options.PAGE, pages.limit - len(items))
            more = {"limit": limit, "cursor": cursor, "sort": pages.sort}
            answer = await ask(session.ledger, view, {**question, **more})
            items += answer.items
            cursor = answer.cursor
            if cursor is None:
                return items
    exits.say(f"there are more: --all shows them all, --cursor {cursor} the next")
    return items


async def every(ledger: Any, view: str, filters: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """All items that filters find, page by page. Raises as `asked`."""
    from colonies_cli.command import ask

    question, cursor = await _question(ledger, view, filters), None
    while True:
        answer = await ask(ledger, view, {**question, "limit": options.PAGE, "cursor": cursor})
        for item in answer.items:
            yield item
        cursor = answer.cursor
        if cursor is None:
            return


async def _question(
    ledger: Any, view: str, filters: Mapping[str, Any], cursor: str | None = None
) -> dict[str, Any]:
    """The filters that are given, as the view takes them, behind a cursor. Raises Invalid, NotFound."""
    question = {name: value for name, value in filters.items() if value is not None}
    for word in ("since", "until"):
        if word in question:
            question[word] = await as_time(ledger, question[word], word, cursor)
    return await with_whole_ids(ledger, view, question)


async def with_whole_ids(ledger: Any, view: str, question: dict[str, Any]) -> dict[str, Any]:
    """A question whose ids may be beginnings, as the view takes it. Raises as `ids.whole`."""
    given = [noun for noun in WITH_IDS.get(view, ()) if question.get(noun) is not None]
    return question | {noun: await ids.whole(ledger, noun, question[noun], f"--{noun}") for noun in given}


async def as_time(ledger: Any, text: str, word: str, cursor: str | None = None) -> str:
    """A time, an age or a sequence as a time. Raises Invalid."""
    from colonies.past import when
    from colonies.show import rfc3339

    if cursor is None:
        return rfc3339(await when(ledger, text, f"--{word}"))
    from colonies_projections import question

    return await question.as_time(ledger, word, text, f"--{word}", cursor)


def _same(item: Any) -> Any:
    return item


def show(
    here: Here,
    items: Sequence[T],
    header: Sequence[str],
    row: Callable[[T], Sequence[Any]],
    *,
    id: str = "id",
    elastic: int | None = None,
    as_object: Callable[[T], dict[str, Any]] = _same,
) -> None:
    """Print a list: a table, one JSON object a line, or the field `id` of each object."""
    if here.output == Output.table:
        output.table(header, map(row, items), elastic=elastic)
        return
    for item in map(as_object, items):
        output.line(item[id]) if here.output == Output.name else output.json_line(item)
