"""What stands for aiosqlite: the calls of it that the projector makes, over sqlite3 and without its threads.

Each call is an effect of its machine, which may crash before or after it, and takes a moment. A crash drops
the connections, so that what was not committed is undone; the file stays.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from os import PathLike
from sqlite3 import Row
from typing import Any

from tests.simulator.ground import GROUND
from tests.simulator.link import Host

__all__ = ["Connection", "Row", "connect"]

MOMENT_S = 0.0005


class Connection:
    """See `aiosqlite.Connection`. Its machine is the one that runs as it is made."""

    def __init__(self, database: str | PathLike[str], options: dict[str, Any]) -> None:
        assert GROUND.network is not None
        self._network = GROUND.network
        machine = self._network.loop.machine
        assert isinstance(machine, Host)
        self._host = machine
        self._database = database
        self._options = options
        self._db: sqlite3.Connection

    async def _do(self, doing: str, effect: Callable[[], Any]) -> Any:
        outcome = self._network.effect(self._host, doing, effect)
        await asyncio.sleep(MOMENT_S * self._network.random())
        return outcome

    async def __aenter__(self) -> Connection:
        await self._do("opens its file", self._open)
        return self

    def _open(self) -> None:
        self._db = sqlite3.connect(self._database, **self._options)
        self._host.on_crash.append(self._db.close)

    async def __aexit__(self, *_: object) -> None:
        if not self._host.dead:
            await self._do("closes its file", self._db.close)

    def _set_row_factory(self, factory: Any) -> None:
        self._db.row_factory = factory

    row_factory = property(fset=_set_row_factory)

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        await self._do(_said(statement), lambda: self._db.execute(statement, parameters).close())

    async def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        await self._do(_said(statement), lambda: self._db.executemany(statement, rows).close())

    async def executescript(self, script: str) -> None:
        await self._do(_said(script), lambda: self._db.executescript(script).close())

    async def execute_fetchall(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        rows: list[Any] = await self._do(_said(query), lambda: self._db.execute(query, parameters).fetchall())
        return rows


def connect(database: str | PathLike[str], **options: Any) -> Connection:
    return Connection(database, options)


def _said(statement: str) -> str:
    """The beginning of a statement, for the trace."""
    return " ".join(statement.split()[:4])
