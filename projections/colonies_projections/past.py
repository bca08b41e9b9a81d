"""Tables with a past: what keeps it, and how they are read as they were.

A table with a column `since` (the sequence of the event that made the row what it is) gets a twin,
`past_<table>`: a trigger puts there what a row was, with `until`, when a later event changes it. Rows of such
a table are never deleted. A table with `sequence` and no `since` only grows. On a connection prepared by
`look_back` the names of both are views of what held at one sequence, so the same SQL asks about then and now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = "past_"

_MOMENT = "CREATE TEMP TABLE moment (sequence INTEGER NOT NULL); INSERT INTO moment VALUES (0);"
SET_MOMENT = "UPDATE temp.moment SET sequence = ?"


@dataclass(frozen=True, slots=True)
class Table:
    """A view's table: its columns in order, and those of its primary key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Does it have a past?"""
        return "since" in self.columns

    @property
    def grows(self) -> bool:
        return not self.changes and "sequence" in self.columns

    def keeping(self) -> list[str]:
        """The statements that make the table's past, none if it has none."""
        if not self.changes:
            return []
        columns = ", ".join(self.columns)
        old = ", ".join(f"OLD.{column}" for column in self.columns)
        key = ", ".join(self.key)
        past = f"{PREFIX}{self.name}"
        return [
            f"CREATE TABLE {past} ({columns}, until INTEGER NOT NULL, PRIMARY KEY ({key}, until)) "
            "WITHOUT ROWID",
            f"CREATE TRIGGER {past}_changed BEFORE UPDATE ON {self.name} WHEN OLD.since < NEW.since "
            f"BEGIN INSERT INTO {past} ({columns}, until) VALUES ({old}, NEW.since); END",
            f"CREATE TRIGGER {past}_kept BEFORE DELETE ON {self.name} "
            "BEGIN SELECT RAISE(ABORT, 'a row with a past is never deleted'); END",
        ]

    def as_it_was(self) -> str:
        """A query for the rows at the moment that the connection is set to."""
        columns, moment = ", ".join(self.columns), "(SELECT sequence FROM temp.moment)"
        if self.grows:
            return f"SELECT {columns} FROM main.{self.name} WHERE sequence <= {moment}"
        return (
            f"SELECT {columns} FROM main.{self.name} WHERE since <= {moment} UNION ALL "
            f"SELECT {columns} FROM main.{PREFIX}{self.name} WHERE since <= {moment} AND until > {moment}"
        )


COLUMNS = f"""
SELECT tables.name, columns.name, columns.pk
FROM pragma_table_list AS tables JOIN pragma_table_info(tables.name) AS columns
WHERE tables.schema = 'main' AND tables.type = 'table'
    AND tables.name NOT LIKE '{PREFIX}%' AND tables.name NOT LIKE 'sqlite%'
ORDER BY tables.name, columns.cid
"""


def tables_of(rows: Iterable[Sequence[Any]]) -> list[Table]:
    """The tables of an open file, from the rows of `COLUMNS`: not those of an index of text, nor those that
    keep the past."""
    found: dict[str, list[tuple[str, int]]] = {}
    for table, column, pk in rows:
        found.setdefault(table, []).append((column, pk))
    return [
        Table(
            name,
            tuple(column for column, _ in columns),
            tuple(column for column, pk in sorted(columns, key=lambda of: of[1]) if pk),
        )
        for name, columns in found.items()
    ]


def looking_back(tables: Iterable[Table]) -> str:
    """The SQL that makes a connection's tables views of the past; `SET_MOMENT` says of which sequence."""
    views = (
        f"CREATE TEMP VIEW {table.name} AS {table.as_it_was()};"
        for table in tables
        if table.changes or table.grows
    )
    return _MOMENT + "".join(views)
