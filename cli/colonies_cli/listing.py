"""What all lists have in common: what the projector is asked, and the three ways to print what is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from colonies_cli import output
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies_cli.command import Here

T = TypeVar("T")


def check_state(state: str | None, allowed: Sequence[str], what: str = "state") -> None:
    """Raises Invalid: there is no such state to ask for."""
    if state is not None and state not in allowed:
        from colonies.errors import Invalid

        raise Invalid(f"--state: {state!r} is no {what}; allowed: {', '.join(allowed)}")


async def asked(here: Here, query: str, **filters: Any) -> list[dict[str, Any]]:
    """What the projector has, with those of the filters that are given. Raises as `Here.query`."""
    return await here.query(query, {key: value for key, value in filters.items() if value is not None})


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
