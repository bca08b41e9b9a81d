"""`colonies function`: what can be run here, who has it, how it went so far."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from colonies_cli import listing, options, output
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output
from colonies_cli.stats import times

app = group(
    "See the functions that workers have or processes ask for.\n\nExample: colonies function ls --unserved"
)

_Kind = Annotated[
    str | None, typer.Option("--runtimetype", metavar="T", help="Only functions of this runtime type.")
]


@command(app, "ls", past=True)
async def ls(
    here: Here,
    runtimetype: _Kind = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="Only those with this in their name.")
    ] = None,
    unserved: Annotated[
        bool, typer.Option("--unserved", help="Only functions that no living worker has or can run.")
    ] = False,
    limit: options.Limit = options.LIMIT,
    everything: options.All = False,
    cursor: options.Cursor = None,
    sort: Annotated[str | None, options.sort("name or first (seen)")] = None,
) -> None:
    """List functions, as the projector has them: who has them and how they went.

    Those of Unix workers are the commands that were submitted; no worker has a list of these.

    Example: colonies function ls --runtimetype python
    """
    pages = listing.Pages(limit, everything, cursor, sort)
    served = "no" if unserved else None
    items = await listing.asked(here, "functions", pages, runtimetype=runtimetype, text=text, served=served)
    header = ("FUNCTION", "RUNTIMETYPE", "ALIVE", "SUBMITTED", "FAILED", "RUN P50 P99")
    listing.show(here, items, header, _row, id="name", elastic=0)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    return (
        item["name"],
        item["runtimetype"],
        item["alive"],
        item["submitted"],
        item["failed"],
        times(item["run"], 50, 99),
    )


@command(app, "get", past=True)
async def get(
    here: Here,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function's name.", show_default=False)],
    runtimetype: _Kind = None,
) -> None:
    """Show a function: what it takes, who has it, how often and how long it ran.

    Example: colonies function get resize
    """
    items = await listing.asked(here, "functions", name=name, runtimetype=runtimetype)
    if not items:
        from colonies.errors import NotFound

        of = f" of runtime type {runtimetype}" if runtimetype is not None else ""
        raise NotFound(f"there is no function {name}{of}; see `colonies function ls`")
    for number, item in enumerate(items):
        if here.output != Output.table:
            output.line(item["name"]) if here.output == Output.name else output.json_line(item)
            continue
        if number:
            output.line()
        _show(item)


def _show(item: dict[str, Any]) -> None:
    schemas = item["schemas"]
    fields = [
        ("name", item["name"]),
        ("runtimetype", item["runtimetype"]),
        ("description", schemas[0]["description"] or None if schemas else None),
        ("arguments", schemas[0]["schema"] if schemas else None),
        ("alive", f"{item['alive']} of {len(item['holders'])} instances that have it"),
        ("submitted", item["submitted"]),
        *((word, item[word]) for word in ("open", "running", "successful", "failed", "cancelled")),
        ("attempts", f"{item['attempts']}; {item['failures']} failed, {item['lost']} lost"),
        ("retries", item["retries"]),
        ("wait", f"{times(item['wait'], 50, 95, 99)} (p50 p95 p99)"),
        ("run", f"{times(item['run'], 50, 95, 99)} (p50 p95 p99)"),
        ("first", output.seconds(item["first_at"])),
        ("last", output.seconds(item["last_at"])),
    ]
    for line in output.card(fields):
        output.line(line)
    if item["holders"]:
        output.line()
        several = len(schemas) > 1
        rows = ((one["worker"], one["instance"], one["state"], one["schema"]) for one in item["holders"])
        header = ("WORKER", "INSTANCE", "STATE", "SCHEMA")
        output.table(header if several else header[:3], (row if several else row[:3] for row in rows))
