"""The view of statistics: how much was submitted, started, ended and tried again, and how long it took, over
time.

Numbers are exact at every sequence. Times stand in buckets, so a percentile is at most 1/32 (3.2 percent)
off; means and sums are exact. `wait` is from when a process could be taken until it was, of each attempt;
`run` that of attempts that were successful, failed or ran out of time. What waits for a signal is not
counted: nobody runs it. Ranges go by whole minutes, `every` by whole minutes, hours and days of UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from colonies.errors import Invalid
from colonies.show import rfc3339
from colonies_projections import facts
from colonies_projections.counted import FOREVER_S, Range, counted, functions
from colonies_projections.facts import DAY_S, EVERYTHING, HOUR_S, MINUTE_S, TABLES
from colonies_projections.listing import microseconds
from colonies_projections.tally import Tally
from colonies_projections.view import Asked, Batch, Filter, Page, Row, Snapshot, Write

EVERY: Final = {"1m": MINUTE_S, "1h": HOUR_S, "1d": DAY_S, "all": FOREVER_S}

_MINUTE_US: Final = MINUTE_S * 1_000_000
_SECOND_NS: Final = 1_000_000_000


def _from(text: str) -> int:
    """The minute in which a time is."""
    return microseconds(text) // _MINUTE_US * MINUTE_S


def _to(text: str) -> int:
    """The minute after it, unless it is the very beginning of one."""
    return -(-microseconds(text) // _MINUTE_US) * MINUTE_S


class Statistics:
    """See `colonies_projections.view.View`."""

    name: ClassVar[str] = "statistics"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = TABLES
    filters: ClassVar[Mapping[str, Filter]] = {
        "func": Filter(),
        "runtimetype": Filter(),
        "since": Filter(read=_from),
        "until": Filter(read=_to),
        "every": Filter(tuple(EVERY)),
        "by": Filter(("func", "runtimetype")),
        "histogram": Filter(("yes", "no")),
    }
    sorts: ClassVar[Sequence[str]] = ("start",)

    def fold(self, batch: Batch) -> Iterable[Write]:
        return facts.writes(batch)

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """Items `{start, end, func, runtimetype, submitted, started, retries, successful, ..., wait, run}`:
        one for each piece of time in which anything happened, or for each function or runtime type."""
        filters = asked.filters
        histogram = filters.get("histogram") == "yes"
        since, until = filters.get("since", 0), filters.get("until", FOREVER_S)
        every = EVERY[filters.get("every", "all")]
        if "by" in filters:
            if every != FOREVER_S:
                raise Invalid("by: it goes with the whole range; leave out every")
            return await self._by(asked, at, Range(since, until))
        of = Range(since, until, every, await self._numbers(asked, at))
        if every == FOREVER_S:
            whole = (await counted(at, of)).get((EVERYTHING, 0), Tally())
            return Page([_item(of, since, whole, filters, histogram)])
        starts = [start for _, start in await counted(at, of, times=False)]
        after = asked.after[0] if asked.after is not None else None
        left = [
            start for start in starts if after is None or (start < after if asked.down else start > after)
        ]
        left.sort(reverse=asked.down)
        shown = left[: asked.limit]
        if not shown:
            return Page([])
        part = Range(max(since, min(shown)), min(until, max(shown) + every), every, of.functions)
        found = await counted(at, part)
        items = [_item(of, start, found[EVERYTHING, start], filters, histogram) for start in shown]
        return Page(items, [(start, 0) for start in shown], len(left) > len(shown))

    async def _numbers(self, asked: Asked, at: Snapshot) -> list[int]:
        wanted = [name for name in ("func", "runtimetype") if name in asked.filters]
        if not wanted:
            return [EVERYTHING]
        return [row["number"] for row in await self._functions(asked, at)]

    async def _functions(self, asked: Asked, at: Snapshot) -> list[Row]:
        columns = {"func": "name", "runtimetype": "runtimetype"}
        wanted = {columns[name]: value for name, value in asked.filters.items() if name in columns}
        where = " AND ".join(["true", *(f"{column} = ?" for column in wanted)])
        return await functions(at, where, list(wanted.values()))

    async def _by(self, asked: Asked, at: Snapshot, of: Range) -> Page:
        """One item for each function or runtime type; those without a name only if there is anything."""
        kinds = asked.filters["by"] == "runtimetype"
        groups: dict[tuple[str, str], list[Row]] = {}
        rows = await self._functions(asked, at)
        others = [row["number"] for row in rows if not row["name"]]
        some = await counted(at, Range(of.since, of.until, functions=others, apart=True), times=False)
        for row in rows:
            if not row["name"] and (row["number"], 0) not in some:
                continue
            key = ("", row["runtimetype"]) if kinds else (row["name"], row["runtimetype"])
            groups.setdefault(key, []).append(row)
        # A group is as old as its first function, which stays that.
        ages = {rows[0]["number"]: key for key, rows in groups.items()}
        left = _behind(ages, asked.after[0] if asked.after is not None else None, asked.down)
        items = []
        for age in left[: asked.limit]:
            name, kind = ages[age]
            numbers = [row["number"] for row in groups[name, kind]]
            found = await counted(at, Range(of.since, of.until, functions=numbers))
            said = {"runtimetype": kind} if kinds else {"func": name, "runtimetype": kind}
            tally = found.get((EVERYTHING, 0), Tally())
            items.append(_item(of, of.since, tally, said, asked.filters.get("histogram") == "yes"))
        return Page(items, [(age, 0) for age in left[: asked.limit]], len(left) > asked.limit)


def _behind(keys: Iterable[int], after: int | None, down: bool) -> list[int]:
    """Those that come after this one, in order."""
    if after is not None:
        keys = (key for key in keys if (key < after if down else key > after))
    return sorted(keys, reverse=down)


def _item(of: Range, start: int, tally: Tally, said: Mapping[str, Any], histogram: bool) -> dict[str, Any]:
    """A piece of time; what has no beginning or end says null."""
    first = max(start, of.since)
    end = min(start + of.every, of.until)
    return {
        "start": rfc3339(first * _SECOND_NS) if first else None,
        "end": rfc3339(end * _SECOND_NS) if end < FOREVER_S else None,
        "func": said.get("func"),
        "runtimetype": said.get("runtimetype"),
        **tally.wire(histogram=histogram),
    }
