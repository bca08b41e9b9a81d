"""`colonies log`: find what processes wrote."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from colonies_cli import listing, options, output
from colonies_cli.command import Here, command, group

_COLOUR = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")

app = group("Find what processes wrote.\n\nExample: colonies log search error --since 1h")


@command(app, "search", past=True)
async def search(
    here: Here,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORDS", help="What a line must hold. Default: anything.", show_default=False),
    ] = None,
    process: Annotated[str | None, typer.Option("--process", metavar="ID", help="Only this process.")] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="ID", help="Only processes of this workflow.")
    ] = None,
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="NAME", help="Only what this worker ran.")
    ] = None,
    func: Annotated[
        str | None, typer.Option("--func", metavar="FUNC", help="Only processes of this function.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="NAME", help="Only this: stdout, stderr, log ...")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only from this time on, or age: 1h.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Only before this time, or age.")
    ] = None,
    limit: options.Limit = options.LIMIT,
    all: options.All = False,
    cursor: options.Cursor = None,
    sort: Annotated[str | None, options.sort("time")] = None,
) -> None:
    """Find lines in the logs of all processes, newest first.

    A line has all of the words, in any order; case and accents count for nothing. "two words" in quotes stand
    in a row, and so do those of one argument with blanks; beginn* is the beginning of a word. Marks only
    separate words: 10.0.0.1 is four in a row.

    Example: colonies log search "out of memory" --stream stderr --since 1h
    """
    text = " ".join(map(_in_a_row, words or ())) or None
    filters = {"process": process, "workflow": workflow, "worker": worker, "func": func, "stream": stream}
    pages = listing.Pages(limit, all, cursor, sort)
    items = await listing.asked(here, "logs", pages, text=text, since=since, until=until, **filters)
    header = ("TIME", "PROCESS", "WORKER", "ATTEMPT", "STREAM", "TEXT")
    listing.show(here, items, header, _row, id="process", elastic=5)


def _in_a_row(argument: str) -> str:
    """An argument with blanks is meant as one: the shell took its quotes away."""
    return f'"{argument}"' if '"' not in argument and len(argument.split()) > 1 else argument


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    time, text = output.seconds(item["time"]), _COLOUR.sub("", item["text"])
    return time, item["process"], item["worker"], item["attempt"], item["stream"], text.strip()
