"""Generators among real processes: four clients pack, the orchestrator is killed and started again."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies.client import Client
from colonies.core.workflow import Workflow
from colonies.jetstream import JetStreamLedger
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until

PACKER = Path(__file__).parents[1] / "packing_program.py"
COLONIES = Path(sys.executable).with_name("colonies")
CLIENTS = 4
TRIGGER = 20
KILLS = 6
SEED = 3
ALL = {"func": "note", "args": [{"$packed": ""}], "conditions": {"runtimetype": "python"}}


class Orchestrating:
    """`colonies server start --only orchestrator`, to be killed."""

    def __init__(self, colony: RunningColony) -> None:
        self._colony = colony
        self._process: asyncio.subprocess.Process | None = None
        self.log = colony.folder / "orchestrator.log"
        colony.stack.push_async_callback(self.kill)

    async def start(self) -> None:
        credential = await self._colony.credential("orchestrator", "service")
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(str(COLONIES), "server", "start", "--only", "orchestrator"),
                *("--url", self._colony.url, "--creds", str(credential)),
                stdout=log,
                stderr=log,
            )

    async def submits(self, count: int) -> None:
        """Wait until it has submitted so many more runs."""
        before = self._submitted()
        await until(lambda: self._submitted() >= before + count, f"{count} more runs are submitted")

    def _submitted(self) -> int:
        return self.log.read_bytes().count(b"run submitted")

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


async def packer(colony: RunningColony, name: str) -> asyncio.subprocess.Process:
    credential = await colony.credential(name, "user")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PACKER), colony.url, str(credential), "g", str(colony.folder / "enough")),
        stdout=asyncio.subprocess.PIPE,
    )

    async def end() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    colony.stack.push_async_callback(end)
    return process


async def runs_of(client: Client, count: int) -> list[Workflow]:
    """The workflows of the generator's runs, in order, once there are so many and all of them have ended."""
    async with asyncio.timeout(120):
        while len(found := await client.generator_runs("g", 1_000)) < count:
            await asyncio.sleep(0.2)
        while any(run.state == "due" for run in found):
            await asyncio.sleep(0.2)
            found = await client.generator_runs("g", 1_000)
        for run in found:
            await client.workflow(run.workflow).result()
    return [await client.session.workflow(run.workflow) for run in reversed(found)]


@pytest.mark.timeout(300)
async def test_each_argument_is_in_exactly_one_run_whatever_is_killed(tmp_path: Path) -> None:
    noted: list[list[Any]] = []
    worker = colonies.Worker("python", concurrency=4)

    @worker.function
    async def note(items: list[Any]) -> int:
        noted.append(items)
        return len(items)

    dice = random.Random(SEED)
    async with running_colony(tmp_path, orchestrate=False) as colony:
        client = await colony.client()
        await client.add_generator("g", ALL, trigger=TRIGGER, timeout_s=5)
        orchestrating = Orchestrating(colony)
        await orchestrating.start()
        await colony.work(worker)
        packers = [await packer(colony, f"client{number}") for number in range(CLIENTS)]
        for _ in range(KILLS):
            await orchestrating.submits(dice.randint(1, 12))
            await orchestrating.kill()
            await orchestrating.start()
        (colony.folder / "enough").touch()
        counts = [int((await process.communicate())[0]) for process in packers]
        assert min(counts) > 0

        now = await client.generator("g")
        assert now.packed == sum(counts)
        async with asyncio.timeout(30):  # the last ones wait for the time to be over
            while (await client.generator("g")).waiting:
                await asyncio.sleep(0.1)
        runs = await runs_of(client, (await client.generator("g")).runs)
        packed = [argument for run in runs for argument in run.packed]
        assert len(packed) == sum(counts)
        for number, count in enumerate(counts):
            assert [n for name, n in packed if name == f"client{number}"] == list(range(count))
        assert [run.source.run for run in runs if run.source] == list(range(len(runs)))
        full = [run for run in runs if len(run.packed) == TRIGGER]
        assert len(full) > KILLS
        assert sorted(noted) == sorted(list(run.packed) for run in runs)
        ledger = client.ledger
        assert isinstance(ledger, JetStreamLedger)
        assert (await verify_ledger(ledger)).findings == []


@pytest.mark.timeout(120)
async def test_two_orchestrators_end_to_end(tmp_path: Path) -> None:
    """Two programs orchestrate; one is killed in the middle of what it says."""
    async with running_colony(tmp_path, orchestrate=False) as colony:
        client = await colony.client()
        await client.add_generator("g", ALL, trigger=2)
        one = Orchestrating(colony)
        await one.start()
        await colony.orchestrate("second")
        await client.pack("g", *range(100))
        await until(
            lambda: b"run submitted" in one.log.read_bytes() or b"ready" in one.log.read_bytes(), "up"
        )
        await client.pack("g", *range(100, 200))
        await one.kill()
        await client.pack("g", *range(200, 300))
        async with asyncio.timeout(60):
            while any(run.state == "due" for run in await client.generator_runs("g", 1_000)):
                await asyncio.sleep(0.1)
        found = await client.generator_runs("g", 1_000)
        runs = [await client.session.workflow(run.workflow) for run in reversed(found)]
        assert [n for run in runs for n in run.packed] == list(range(300))
        assert isinstance(client.ledger, JetStreamLedger)
        assert (await verify_ledger(client.ledger)).findings == []
