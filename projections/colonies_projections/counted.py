"""Reading what the statistics counted: the sums of a range of time, whole or cut into pieces, of all or some
functions.

A range is covered by as few sums as there are: days, hours at its edges, minutes at theirs, and the facts of
the stretch that is not over. So it costs the same for a thousand processes as for a million.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from colonies_projections.facts import DAY_S, EVERYTHING, HOUR_S, MINUTE_S, SUMS, SUMS_OF_FACTS, TIMED
from colonies_projections.tally import COUNTS, Tally
from colonies_projections.view import Row, Snapshot

FOREVER_S: Final = 2**40  # longer than any ledger; as a length of pieces: one for all

Key = tuple[int, int]
"""A function's number, and the start of a piece of time in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Range:
    """From `since` on and before `until`, whole minutes in seconds since 1970, in pieces of `every` seconds
    that begin at multiples of it. `functions` are numbers; `apart`: each for itself, else together."""

    since: int = 0
    until: int = FOREVER_S
    every: int = FOREVER_S
    functions: Sequence[int] = (EVERYTHING,)
    apart: bool = False


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums of one length whose start is in this range."""

    span: int
    since: int
    until: int


async def counted(at: Snapshot, of: Range, *, times: bool = True) -> dict[Key, Tally]:
    """What was counted, by function (if apart, else EVERYTHING) and piece, in order; pieces in which nothing
    was are left out. Without `times` their numbers only."""
    opened = {
        row["span"]: row
        for row in await at.select(
            "SELECT span, max(sequence) AS sequence, max(start) AS start FROM statistics_spans GROUP BY span",
            (),
        )
    }
    found: dict[Key, Tally] = {}
    if not opened:
        return found
    starts = {span: row["start"] for span, row in opened.items()}
    for sums in _cover(of.since, of.until, of.every, starts):
        await _add_sums(at, of, sums, found, times)
    open_ = opened[MINUTE_S]
    if of.since <= open_["start"] < of.until:
        await _add_facts(at, of, open_, found, times)
    return dict(sorted(found.items()))


def _cover(since: int, until: int, every: int, opened: dict[int, int]) -> Iterator[_Sums]:
    """The largest sums that are closed, do not go over a border between pieces, and cover the range."""
    left = [(since, until)]
    for span in (DAY_S, HOUR_S, MINUTE_S):
        if span > every or span not in opened:
            continue
        rest: list[tuple[int, int]] = []
        for first, last in left:
            begins = -(-first // span) * span
            # The minute that is not over may have sums: those of its stretches that are.
            ends = last if span == MINUTE_S else min(last // span * span, opened[span])
            if begins >= ends:
                rest.append((first, last))
                continue
            yield _Sums(span, begins, ends)
            rest += [(first, begins), (ends, last)]
        left = [(first, last) for first, last in rest if first < last]


async def _add_sums(at: Snapshot, of: Range, sums: _Sums, found: dict[Key, Tally], times: bool) -> None:
    piece = f"start / {of.every} * {of.every}"
    where = "func IN (SELECT value FROM json_each(?)) AND span = ?"
    common = (json.dumps(list(of.functions)), sums.span, sums.since, sums.until)
    rows = await at.select(
        f"SELECT {_func(of)}, {piece} AS piece, {SUMS} FROM statistics_counts "
        f"WHERE {where} AND start >= ? AND start < ? GROUP BY 1, 2",
        common,
    )
    _count(rows, found)
    if times:
        rows = await at.select(
            f"SELECT {_func(of)}, {piece} AS piece, what, bucket, sum(number) AS number, "
            f"sum(total_us) AS total_us FROM statistics_times WHERE {where} AND what IN (0, 1) "
            "AND start >= ? AND start < ? GROUP BY 1, 2, 3, 4",
            common,
        )
        _time(rows, found)


async def _add_facts(at: Snapshot, of: Range, open_: Row, found: dict[Key, Tally], times: bool) -> None:
    """Those of the stretch that is not over."""
    piece = open_["start"] // of.every * of.every
    where, values = "sequence >= ?", [open_["sequence"]]
    if tuple(of.functions) != (EVERYTHING,):
        where += " AND func IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(list(of.functions)))
    query = f"SELECT {_func(of)}, {piece} AS piece, {SUMS_OF_FACTS} FROM statistics_facts WHERE {where}"
    _count(await at.select(f"{query} GROUP BY 1", values), found)
    for what, timed in enumerate(TIMED) if times else ():
        rows = await at.select(
            f"SELECT {_func(of)}, {piece} AS piece, {what} AS what, bucket, count(*) AS number, "
            f"sum(us) AS total_us FROM statistics_facts WHERE {where} AND bucket IS NOT NULL AND {timed} "
            "GROUP BY 1, 4",
            values,
        )
        _time(rows, found)


def _func(of: Range) -> str:
    return "func" if of.apart else f"{EVERYTHING} AS func"


def _count(rows: Iterable[Row], found: dict[Key, Tally]) -> None:
    for row in rows:
        if any(row[name] for name in COUNTS):
            found.setdefault((row["func"], row["piece"]), Tally()).count(row)


def _time(rows: Iterable[Row], found: dict[Key, Tally]) -> None:
    for row in rows:
        found.setdefault((row["func"], row["piece"]), Tally()).time([row])


async def functions(at: Snapshot, where: str = "true", values: Sequence[Any] = ()) -> list[Row]:
    """Those that are counted, but for EVERYTHING: `{number, name, runtimetype, sequence}`, by number."""
    query = "SELECT * FROM statistics_functions WHERE number > 0 AND "
    return await at.select(f"{query}{where} ORDER BY number", values)
