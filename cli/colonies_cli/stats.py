"""`colonies stats`: how much was done, and how long it took, in a time or over it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from colonies_cli import listing, options, output
from colonies_cli.command import Here
from colonies_cli.output import Output

EVERY = ("1m", "1h", "1d")
BY = ("func", "runtimetype")
BACK = {None: "1h", "1m": "1h", "1h": "1d", "1d": "30d"}  # how far, unless --since says it

_COUNTS = (
    *("submitted", "started", "successful", "failed", "cancelled", "skipped", "retries"),
    *(
        ("attempts_timeout", "timed out"),
        ("attempts_lost", "leases lost"),
        ("attempts_returned", "given back"),
    ),
)


async def stats(
    here: Here,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="From this time on, or age: 10m, 2h. Default: 1h."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Before this time, or age.")
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="1m|1h|1d", help="A line for each minute, hour or day.")
    ] = None,
    func: Annotated[str | None, typer.Option("--func", metavar="FUNC", help="Only of this function.")] = None,
    runtimetype: Annotated[
        str | None, typer.Option("--runtimetype", metavar="T", help="Only of this runtime type.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="func|runtimetype", help="A line for each of these.")
    ] = None,
    limit: options.Limit = options.LIMIT,
    everything: options.All = False,
    cursor: options.Cursor = None,
) -> None:
    """Show how many processes were submitted, ran and ended, and how long they waited and ran.

    Times are whole minutes; percentiles are within 3.2 percent. Minutes, hours (and days, of UTC) in which
    nothing happened are left out of the table.

    Example: colonies stats --since 1d --every 1h
    """
    from colonies.errors import Invalid

    listing.check_word("--every", every, EVERY)
    listing.check_word("--by", by, BY)
    if every is not None and by is not None:
        raise Invalid("--by: it is for the whole time; leave out --every")
    single = every is None and by is None
    items = await listing.asked(
        here,
        "statistics",
        listing.Pages(1 if single else limit, everything and not single, cursor),
        since=since or BACK[every],
        until=until,
        every=every,
        func=func,
        runtimetype=runtimetype,
        by=by,
    )
    if here.output != Output.table:
        listing.show(here, items, (), _nothing, id="start")
    elif single:
        _card(items[0])
    else:
        first = ("FROM",) if every is not None else ("FUNCTION", "RUNTIMETYPE") if by == "func" else ("TYPE",)
        header = (*first, "SUBMITTED", "SUCCESSFUL", "FAILED", "RETRIES", "WAIT P50 P99", "RUN P50 P99")
        rows = (_row(item, every, by) for item in items)
        output.table(header, rows, elastic=0 if by == "func" else None)


def _nothing(item: Any) -> tuple[Any, ...]:
    return ()


def _row(item: dict[str, Any], every: str | None, by: str | None) -> tuple[Any, ...]:
    first: tuple[Any, ...] = (output.seconds(item["start"]),)
    if by is not None:
        name = item["func"] or "(others)"
        first = (name, item["runtimetype"]) if by == "func" else (item["runtimetype"] or "(others)",)
    counts = (item[word] for word in ("submitted", "successful", "failed", "retries"))
    return (*first, *counts, times(item["wait"], 50, 99), times(item["run"], 50, 99))


def _card(item: dict[str, Any]) -> None:
    start, end = item["start"], item["end"]
    fields: list[tuple[str, Any]] = [("from", output.seconds(start)), ("until", output.seconds(end))]
    for word in _COUNTS:
        name, title = (word, word) if isinstance(word, str) else word
        fields.append((title, f"{item[name]}{_rate(item[name], start, end)}"))
    for word in ("wait", "run"):
        fields.append((word, f"{times(item[word], 50, 95, 99)} (p50 p95 p99), of {item[word]['number']}"))
    for line in output.card(fields):
        output.line(line)


def _rate(number: int, start: str | None, end: str | None) -> str:
    """How many a second, where there is a beginning, an end and a number."""
    if start is None or end is None or not number:
        return ""
    length_s = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return f" ({number / length_s:.3g}/s)" if length_s > 0 else ""


def times(item: dict[str, Any], *percents: int) -> str:
    """Percentiles of times, for people."""
    return " ".join(_seconds(item[f"p{percent}_s"]) for percent in percents)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1_000:.3g}ms"
    if value < 100:
        return f"{value:.3g}s"
    minutes = value / 60
    return f"{minutes:.0f}m" if minutes < 100 else f"{minutes / 60:.0f}h"
