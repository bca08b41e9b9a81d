"""A subscriber that is killed again and again, and the broker with it, has every event once.

The suite kills it 15 times; `make long` a hundred (FEED_KILLS).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pytest

import colonies
from colonies.client import Client
from colonies.core.colony import Colony
from colonies.history import History
from colonies.show_event import what
from tests.harness import RunningColony, running_colony, until

PROGRAM = Path(__file__).parents[1] / "feed_program.py"
KILLS = int(os.environ.get("FEED_KILLS", "15"))
SEED = int(os.environ.get("FEED_SEED", "1"))
LIMIT_S = KILLS * 15 + 120

worker = colonies.Worker("python", concurrency=4, backoff_s=0.05)


@worker.function(maxretries=1)
def sometimes(number: int) -> int:
    if number % 5 == 0 and colonies.current().n == 1:
        raise ValueError("not this time")
    return number


async def work_on(client: Client, done: asyncio.Event) -> None:
    """Submit processes, and now and then a workflow, whatever becomes of the broker meanwhile."""
    number = 0
    while not done.is_set():
        number += 1
        flow = colonies.Workflow("two")
        flow.add(sometimes.call(number), after=[flow.add(sometimes.call(number + 1), name="before")])
        try:
            async with asyncio.timeout(10):
                await client.submit(flow if number % 7 == 0 else sometimes.call(number))
        except (colonies.Unavailable, colonies.Unknown, colonies.Conflict, TimeoutError):
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.01)


class Subscriber:
    """The program, whose processes are started and killed one after the other; its database stays."""

    def __init__(self, colony: RunningColony, program: asyncio.subprocess.Process, database: Path) -> None:
        self._colony = colony
        self._program = program
        self._database = sqlite3.connect(database)
        self._database.execute(
            "CREATE TABLE seen (sequence INTEGER, type TEXT, entity TEXT, author TEXT, verdict TEXT)"
        )

    @classmethod
    async def open(cls, colony: RunningColony) -> Subscriber:
        database, creds = colony.folder / "seen.sqlite", await colony.credential("eye", "observer")
        with (colony.folder / "subscriber.log").open("ab") as log:
            program = await asyncio.create_subprocess_exec(
                *(sys.executable, str(PROGRAM), colony.url, str(creds), str(database)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        colony.stack.push_async_callback(program.wait)
        assert program.stdin is not None
        colony.stack.callback(program.stdin.close)
        return cls(colony, program, database)

    async def start(self, until: int = 0) -> int:
        """The pid of the next one."""
        assert self._program.stdin is not None
        self._program.stdin.write(f"{until}\n".encode())
        return await self.told()

    async def told(self) -> int:
        """What the program prints next: a pid, or how that process ended."""
        assert self._program.stdout is not None
        async with asyncio.timeout(60):
            line = await self._program.stdout.readline()
        assert line, (self._colony.folder / "subscriber.log").read_text()
        return int(line)

    def read(self, query: str) -> list[tuple[object, ...]]:
        return self._database.execute(query).fetchall()

    def position(self) -> object:
        return self.read("SELECT coalesce(max(sequence), 0) FROM seen")[0][0]

    async def live_and_die(self, dice: random.Random) -> None:
        """One life of it: it is killed at any time, or while it deals with what there is."""
        before = self.position()
        pid = await self.start()
        if dice.random() < 0.2:
            await asyncio.sleep(dice.uniform(0.0, 0.2))
        else:
            await until(lambda: self.position() != before, "the subscriber goes on", 60.0)
            await asyncio.sleep(dice.uniform(0.0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert await self.told() == -signal.SIGKILL, (self._colony.folder / "subscriber.log").read_text()


@pytest.mark.timeout(LIMIT_S)
async def test_a_subscriber_killed_and_resumed_again_and_again_has_every_event_once(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(worker)
        subscriber = await Subscriber.open(colony)
        done = asyncio.Event()
        working = asyncio.create_task(work_on(client, done))
        for kill in range(KILLS):
            await subscriber.live_and_die(dice)
            if kill % 10 == 5:
                await colony.kill_broker()
                await colony.restart_broker()
        done.set()
        await working
        last = await client.ledger.last_sequence()
        await subscriber.start(last)
        assert await subscriber.told() == 0
        await check(client, subscriber, last)


async def check(client: Client, subscriber: Subscriber, last: int) -> None:
    found = subscriber.read("SELECT * FROM seen ORDER BY rowid")
    twice = [sequence for sequence, count in Counter(row[0] for row in found).items() if count > 1]
    assert twice == []
    assert [row[0] for row in found] == list(range(1, last + 1))
    history = History(Colony(client.ledger.colony))
    expected = []
    async for batch in client.ledger.scan():
        for stored in batch[: max(0, last - history.position)]:
            seen = history.add(stored)
            type, _, entity = what(seen)
            author = seen.record.author if seen.record is not None else None
            expected.append((stored.sequence, type, entity, author, seen.verdict.kind))
    assert found == expected
    print(f"{KILLS} kills, {last} events")
