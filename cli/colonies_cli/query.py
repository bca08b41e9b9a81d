"""`colonies query`: any view of a projector, also one of somebody's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from colonies_cli import listing, options, output
from colonies_cli.command import Here
from colonies_cli.output import Output

MAX_COLUMNS = 6
SERVICE = "colonies-projector"
REBUILD = "query.rebuild"
LOOK_S = 2.0
OPTIONS = ("sort", "limit", "cursor", "at")
NAMES = ("id", "name", "label", "sequence")  # the first of these that an item has, for -o name


async def query(
    here: Here,
    view: Annotated[
        str, typer.Argument(metavar="VIEW", help="The view's name, such as members.", show_default=False)
    ],
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME=VALUE", help="Only those; repeatable, once for each name."),
    ] = None,
    sort: Annotated[str | None, options.sort("one of the view's sorts")] = None,
    limit: options.Limit = options.LIMIT,
    everything: options.All = False,
    cursor: options.Cursor = None,
) -> None:
    """Ask a view of the ledger for what it has: docs/views.md says which there are.

    A view that you installed is asked by its own name. The table has the first six fields; -o json has all.

    Example: colonies query members --filter role=worker
    """
    from colonies.errors import Unavailable

    _check(view)
    asked = _filters(filters or ())
    try:
        items = await listing.asked(here, view, listing.Pages(limit, everything, cursor, sort), **asked)
    except Unavailable:
        await _check_there_is(here, view)
        raise
    if here.output == Output.json:
        for item in items:
            output.json_line(item)
    elif here.output == Output.name:
        for item in items:
            output.line(output.cell(next((item[name] for name in NAMES if name in item), None)))
    else:
        names = list(items[0])[:MAX_COLUMNS] if items else []
        rows = ([item.get(name) for name in names] for item in items)
        if names:
            output.table([name.upper().replace("_", " ") for name in names], rows)


def _check(view: str) -> None:
    """Raises Invalid: no view is called that."""
    import re

    from colonies.errors import Invalid

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", view):
        allowed = "a-z, 0-9 and _, such as members"
        raise Invalid(f"{output.cell(view)}: no view is called that; allowed: {allowed}")


async def _check_there_is(here: Here, view: str) -> None:
    """Nobody answered. Raises NotFound: projectors are there, and have no such view."""
    from colonies.errors import NotFound, Unavailable

    async with here.session() as session:
        ledger: Any = session.ledger
        try:
            told = await ledger.ask_service(f"$SRV.INFO.{SERVICE}", {}, wait_s=LOOK_S)
            subjects = {str(endpoint["subject"]) for endpoint in told["endpoints"]}
        except (Unavailable, KeyError, TypeError):
            return
    if f"query.{view}" not in subjects:
        names = sorted(subject.removeprefix("query.") for subject in subjects - {REBUILD})
        raise NotFound(f"no projector has a view {view}; there are: {', '.join(names)}")


def _filters(texts: Sequence[str]) -> dict[str, Any]:
    """What --filter says. Raises Invalid: one is none, or is said twice."""
    from colonies.errors import Invalid

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Invalid(f"--filter: {output.cell(text)}; allowed: NAME=VALUE, such as role=worker")
        if name in OPTIONS:
            raise Invalid(f"--filter: {name} is no filter; allowed: the option --{name}")
        if name in found:
            raise Invalid(f"--filter: {output.cell(name)} is given twice; allowed: once")
        found[name] = value
    return found
