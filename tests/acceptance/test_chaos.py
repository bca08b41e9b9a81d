"""Random kills, seeded: whatever dies, each process ends once, and the ledger verifies.

The suite runs a short version; `make long` runs the long one (CHAOS_PROCESSES, and see `tests.chaos`).
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from colonies.client import Client, Handle
from colonies.core.process import Process
from tests.chaos import (
    KILLS,
    LEASE_S,
    LIMIT_S,
    SEED,
    WAIT_S,
    Chaos,
    Fold,
    answered,
    chaos,
    check_marks,
    ledger_of,
    verified,
)
from tests.harness import running_colony

PROCESSES = int(os.environ.get("CHAOS_PROCESSES", "100"))


@pytest.mark.timeout(LIMIT_S)
async def test_random_kills_lose_nothing_and_end_every_process_once(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    marks = tmp_path / "marks"
    marks.mkdir()
    async with (
        running_colony(tmp_path, lease_s=LEASE_S, orchestrate=False) as colony,
        chaos(colony, dice) as on,
    ):
        client = await colony.client()
        works = _works(dice, marks)
        waits: list[asyncio.Task[Process]] = []
        async with asyncio.timeout(LIMIT_S):
            for kill in range(KILLS):
                for number in range(kill * PROCESSES // KILLS, (kill + 1) * PROCESSES // KILLS):
                    waits.append(asyncio.create_task(_to_the_end(client, works[number], f"{number}")))
                await asyncio.sleep(dice.uniform(0.05, 0.35))
                await on.kill_one()
        async with asyncio.timeout(WAIT_S):
            ended = await asyncio.gather(*waits)
        print(f"killed: {dict(on.killed)}; processes: {PROCESSES}")
        await _check(on, client, ended, marks)


async def _to_the_end(client: Client, work: dict[str, object], key: str) -> Process:
    """Submit it, also while the broker is away: the same key never gives a second process."""
    handle: Handle[object] = await answered(lambda: client.submit(work, key=key))
    return await answered(handle.wait)


def _works(dice: random.Random, marks: Path) -> list[dict[str, object]]:
    works: list[dict[str, object]] = []
    for n in range(PROCESSES):
        func, args = "note", [str(marks), round(dice.uniform(0.0, 2.0), 2)]
        if n % 20 == 0:
            func, args = "note_again", [str(marks)]
        works.append({"func": func, "args": args, "maxretries": 3, "conditions": {"runtimetype": "python"}})
    return works


async def _check(on: Chaos, client: Client, ended: list[Process], marks: Path) -> None:
    assert len({process.id for process in ended}) == PROCESSES
    fold = Fold(ledger_of(client))
    await fold.read_on()
    assert fold.ends == dict.fromkeys((process.id for process in ended), 1)
    assert fold.processes.keys() == fold.ends.keys()
    for process in ended:
        assert process.state == fold.processes[process.id].state
        poisoned = any(error.startswith("poison") for error in process.errors)
        assert process.state == ("failed" if poisoned else "successful"), process.errors
        check_marks(marks, process)
    assert {path.name for path in marks.iterdir()} <= fold.processes.keys()
    assert (await verified(on, client)).findings == []
