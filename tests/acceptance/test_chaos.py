"""Random kills, seeded: whatever dies, each process ends once, and the ledger verifies.

The suite runs a short version; `make long` runs the long one (CHAOS_KILLS, CHAOS_PROCESSES, CHAOS_SEED).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from colonies.client import Client
from colonies.core.colony import Colony
from colonies.core.process import Process
from colonies.history import History
from colonies.jetstream import JetStreamLedger
from colonies.verify import verify_ledger
from tests.chaos import Victim, kill_one, service, worker
from tests.harness import RunningColony, running_colony

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
PROCESSES = int(os.environ.get("CHAOS_PROCESSES", "100"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
LEASE_S = 4.0


@pytest.mark.timeout(540)
async def test_random_kills_lose_nothing_and_end_every_process_once(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    effects = tmp_path / "effects"
    effects.mkdir()
    async with running_colony(tmp_path, lease_s=LEASE_S, orchestrate=False) as colony:
        victims = {
            "worker-1": Victim(lambda: worker(colony, "w1")),
            "worker-2": Victim(lambda: worker(colony, "w2")),
            "orchestrator": Victim(lambda: service(colony, "orchestrator", "service")),
            "projector": Victim(lambda: service(colony, "projector", "observer")),
        }
        try:
            for victim in victims.values():
                await victim.start()
            safe = await colony.spawn("safe")
            client = await colony.client()
            works = _works(dice, effects)
            waits: list[asyncio.Task[Process]] = []
            for kill in range(KILLS):
                wave = works[kill * PROCESSES // KILLS : (kill + 1) * PROCESSES // KILLS]
                waits += [asyncio.create_task(handle.wait()) for handle in await client.submit_many(wave)]
                await asyncio.sleep(dice.uniform(0.05, 0.35))
                await kill_one(dice, colony, victims)
            results = asyncio.gather(*waits)
            async with asyncio.timeout(int(os.environ.get("CHAOS_WAIT_S", "240"))):
                ended = await results
            assert safe.process.returncode is None
            await _check(colony, client, ended, effects, str(safe.process.pid))
        finally:
            for victim in victims.values():
                await victim.kill()


def _works(dice: random.Random, effects: Path) -> list[dict[str, object]]:
    works: list[dict[str, object]] = []
    for n in range(PROCESSES):
        func, args = "mark", [str(effects), f"{n}", round(dice.uniform(0.0, 2.0), 2)]
        if n % 20 == 0:
            func, args = "fail_until", [2]
        works.append({"func": func, "args": args, "maxretries": 3, "conditions": {"runtimetype": "python"}})
    return works


async def _check(
    colony: RunningColony, client: Client, ended: list[Process], effects: Path, safe: str
) -> None:
    assert len({process.id for process in ended}) == PROCESSES
    for process in ended:
        poisoned = any(error.startswith("poison") for error in process.errors)
        assert process.state == ("failed" if poisoned else "successful"), process.errors
    ledger = client.ledger
    assert isinstance(ledger, JetStreamLedger)
    report = await verify_ledger(ledger)
    assert report.findings == []
    history = History(Colony(ledger.colony))
    finals: Counter[str] = Counter()
    async for batch in ledger.scan():
        for stored in batch:
            judged = history.add(stored)
            assert judged.verdict.valid
            if judged.record is not None and judged.record.event.type in (
                "process.completed",
                "process.poisoned",
            ):
                finals[judged.record.entity] += 1
    assert len(finals) == PROCESSES
    assert set(finals.values()) == {1}
    for path in effects.iterdir():
        runs = path.read_text().split()
        assert runs.count(safe) <= 1, f"{path.name} was run twice by a worker that was never killed"
        process = next(p for p in ended if p.spec.args[1:2] == [path.name])
        if all(attempt.worker == "safe" for attempt in process.attempts):
            assert runs == [safe]
