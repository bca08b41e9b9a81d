"""Lists out of one table: filters, sorts and pages, in SQL that finds its way over a million rows.

SQLite chooses an index without knowing how many rows a value has. So before a question with several filters
is put, each indexed one is counted, up to a bound; the rarest leads and the others are only compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from colonies.show import rfc3339
from colonies_projections.view import Asked, Filter, Row, Snapshot

FEW = 2_000
SORTED = 20_000  # rows that are put in order for one question

_MICROSECOND_NS = 1_000


@dataclass(frozen=True, slots=True)
class Where(Filter):
    """A filter as SQL with one `?`, or with several if `read` makes a tuple. `column`: it asks whether this
    one, which has an index, is equal."""

    column: str = ""
    sql: str = ""

    def condition(self, value: Any, *, lead: bool) -> str:
        if self.sql:
            return self.sql
        compared = f"IN ({', '.join('?' * len(value))})" if isinstance(value, tuple) else "= ?"
        return f"{self.column} {compared}" if lead else f"+{self.column} {compared}"


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of the rows of `table`, by whose `sequence` it is sorted if nothing else is asked for.

    `sorts` says of each sort by which column. Where that is null an item is left out. The filters `together`
    have one index for all of them.
    """

    table: str
    columns: Sequence[str]
    filters: Mapping[str, Where]
    sorts: Mapping[str, str]
    together: tuple[str, ...] = ()

    async def page(self, asked: Asked, at: Snapshot) -> tuple[list[Row], list[tuple[Any, int]], bool]:
        """The rows, their keys, and whether there are more behind them."""
        leads = await self._leads(asked, at)
        where: list[str] = ["true"]
        values: list[Any] = []
        for name, value in asked.filters.items():
            where.append(self.filters[name].condition(value, lead=name in leads))
            values += _each(value)
        column = self.sorts[asked.sort]
        order, than = ("DESC", "<") if asked.down else ("ASC", ">")
        if column == "sequence":
            by = f"sequence {order}"
            if asked.after is not None:
                where.append(f"sequence {than} ?")
                values.append(asked.after[1])
        else:
            where.append(f"{column} IS NOT NULL")
            by = f"{column} {order}, sequence {order}"
            if asked.after is not None:
                where.append(f"({column}, sequence) {than} (?, ?)")
                values += asked.after
        names = dict.fromkeys((*self.columns, "sequence", column))
        query = f"SELECT {', '.join(names)} FROM {self.table} WHERE {' AND '.join(where)}"
        rows = await at.select(f"{query} ORDER BY {by} LIMIT ?", (*values, asked.limit + 1))
        found = rows[: asked.limit]
        return found, [(row[column], row["sequence"]) for row in found], len(rows) > asked.limit

    async def _leads(self, asked: Asked, at: Snapshot) -> Sequence[str]:
        """The filters whose index is used: those with one together, or the one with the fewest rows.

        An index has the rows of one value in order; those of several are sorted first, so not if they are
        many: then the table is gone through in its order.
        """
        indexed = [name for name in asked.filters if self.filters[name].column]
        several = [name for name in indexed if isinstance(asked.filters[name], tuple)]
        if len(indexed) < 2 and not several:
            return indexed
        counts: dict[str, int] = {}
        for name in indexed:
            value, most = asked.filters[name], SORTED if name in several else FEW
            where = self.filters[name].condition(value, lead=True)
            query = f"SELECT 1 FROM {self.table} WHERE {where} LIMIT {most}"
            rows = await at.select(f"SELECT count(*) AS number FROM ({query})", _each(value))
            counts[name] = rows[0]["number"]
        rarest = min(indexed, key=counts.__getitem__)
        if rarest in several:
            return (rarest,) if counts[rarest] < SORTED else ()
        alone = set(indexed) - set(several)
        if counts[rarest] == FEW and self.together and set(self.together) <= alone:
            return self.together
        return (rarest,)


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def microseconds(text: str) -> int:
    """A time with its zone, RFC 3339, as the tables hold it. Raises ValueError with what is right."""
    right = "a time with its zone, such as 2026-01-31T09:30:00Z"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(right) from None
    if time.tzinfo is None:
        raise ValueError(right)
    return (time - _EPOCH) // timedelta(microseconds=1)


def like(text: str) -> str:
    """A pattern for what contains this text. Raises ValueError: there is none."""
    if not text.strip():
        raise ValueError("some text")
    for char in "\\%_":
        text = text.replace(char, f"\\{char}")
    return f"%{text}%"


def beginning(text: str) -> tuple[str, str]:
    """From which id on, and before which, they begin so. Raises ValueError: no id does."""
    if not (text.isascii() and text.isalnum()):
        raise ValueError("letters and digits")
    return text, f"{text}~"


BEGINS = Where(read=beginning, sql="id >= ? AND id < ?")
"""For ids of letters and digits, which have an index."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339_of(microseconds: int | None) -> str | None:
    """The other way round."""
    return None if microseconds is None else rfc3339(microseconds * _MICROSECOND_NS)
