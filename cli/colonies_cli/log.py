"""`colonies log`: find what processes wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from colonies_cli import exits, listing, options, output
from colonies_cli.command import Here, ask, command, group
from colonies_cli.output import Output

LOOK_AGAIN_S = 5.0
GATHER_S = 0.2

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
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Oldest first, and go on as lines come.")
    ] = False,
) -> None:
    """Find lines in the logs of all processes, newest first.

    A line has all of the words, in any order; case and accents count for nothing. "two words" in quotes stand
    in a row, and so do those of one argument with blanks; beginn* is the beginning of a word. Marks only
    separate words: 10.0.0.1 is four in a row.

    Example: colonies log search "out of memory" --stream stderr --since 1h
    """
    text = " ".join(map(_in_a_row, words or ())) or None
    filters = {"process": process, "workflow": workflow, "worker": worker, "func": func, "stream": stream}
    if follow:
        here.check_now("--follow", follow)
        _check_alone({"--until": until, "--all": all, "--cursor": cursor, "--sort": sort})
        await _follow(here, limit, {"text": text, "since": since, **filters})
        return
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


def _check_alone(given: dict[str, Any]) -> None:
    """Raises Invalid: these have no meaning for what comes."""
    from colonies.errors import Invalid

    if found := [option for option, value in given.items() if value]:
        raise Invalid(f"--follow: it shows what comes, oldest first; leave out {', '.join(found)}")


async def _follow(here: Here, limit: int, question: dict[str, Any]) -> None:
    """Print the last lines that there are, then each that comes, until interrupted."""
    import asyncio
    import contextlib

    from colonies import subjects
    from colonies.errors import Unavailable
    from colonies.show import rfc3339

    heard = asyncio.Event()
    async with here.session() as session:
        ledger = session.ledger
        await ledger.subscribe(subjects.ALL_LOGS, lambda _: heard.set())
        ledger.on_gap(heard.set)
        question = await listing.with_whole_ids(ledger, "logs", question)
        if question["since"] is not None:
            question["since"] = await listing.as_time(ledger, question["since"], "since")
        began = rfc3339(await ledger.now())
        items: Iterator[dict[str, Any]] = reversed(
            (await ask(ledger, "logs", {**question, "limit": limit})).items
        )
        newest, silent = (0, 0), False
        while True:
            for item in items:
                place = (item["sequence"], item["line"])
                if place > newest:
                    newest, began = place, item["time"]
                    _print(here, item)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await heard.wait()
                await asyncio.sleep(GATHER_S)
            heard.clear()
            items = iter(())
            try:
                items, silent = iter(await _since(ledger, {**question, "since": began})), False
            except Unavailable as error:  # a projector or a broker that starts again
                if not silent:
                    exits.say(str(error))
                silent = True


async def _since(ledger: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    """All that is there from this time on, oldest first."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        more = {"limit": options.PAGE, "sort": "time", "cursor": cursor}
        answer = await ask(ledger, "logs", {**question, **more})
        items += answer.items
        cursor = answer.cursor
        if cursor is None:
            return items


def _print(here: Here, item: dict[str, Any]) -> None:
    if here.output == Output.json:
        output.json_line(item)
    elif here.output == Output.name:
        output.line(item["process"])
    else:
        output.line("  ".join(map(output.cell, _row(item))))
