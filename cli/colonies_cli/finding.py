"""`colonies finding`: what stands on the ledger and does not count, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from colonies_cli import exits, listing, options, output
from colonies_cli.command import Here, command, group

app = group("See what on the ledger does not count, and why.\n\nExample: colonies finding ls")

VERDICTS = ("quarantined", "void")


@command(app, "ls", past=True)
async def ls(
    here: Here,
    verdict: Annotated[
        str | None,
        typer.Option("--verdict", metavar="V", help="Only those with this verdict: quarantined, void."),
    ] = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="NAME", help="Only what this member signed.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="Only events of a kind, such as process or worker."),
    ] = None,
    entity: Annotated[
        str | None,
        typer.Option("--entity", metavar="ID", help="Only of this process, member ...: a whole id or name."),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="Only those with this in rule or subject.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only what was stored at this time or later, or age."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Only what was stored before it, or age.")
    ] = None,
    limit: options.Limit = options.LIMIT,
    everything: options.All = False,
    cursor: options.Cursor = None,
) -> None:
    """List the events that are void or quarantined, newest first, as the projector has them.

    A void event was true when it was decided, and lost a race: nobody is to blame. A quarantined one could
    never be true. AUTHOR is who signed it; what nobody signed has none.

    Example: colonies finding ls --verdict quarantined --since 1d
    """
    from colonies.core.states import is_id

    listing.check_word("--verdict", verdict, VERDICTS)
    asked = {"verdict": verdict, "author": author, "kind": kind, "entity": entity, "text": text}
    pages = listing.Pages(limit, everything, cursor)
    items = await listing.asked(here, "findings", pages, since=since, until=until, **asked)
    if not items and entity is not None and not is_id(entity):
        exits.say(f"nothing of {output.cell(entity)}; --entity takes whole ids and names")
    header = ("SEQUENCE", "TIME", "VERDICT", "EVENT", "AUTHOR", "RULE")
    listing.show(here, items, header, _row, id="sequence", elastic=5)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    return (
        item["sequence"],
        output.seconds(item["time"]),
        item["verdict"],
        item["event"],
        item["author"],
        item["rule"],
    )
