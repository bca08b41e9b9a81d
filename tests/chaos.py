"""What both random killings share: programs that are killed and started again, and the whole ledger folded.

CHAOS_KILLS, CHAOS_SEED and CHAOS_WAIT_S (how long the rest may take) say how much and how; the suite runs a
short version, `make long` a long one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from colonies.client import Client
from colonies.core.colony import Colony
from colonies.core.process import Process
from colonies.errors import Unavailable
from colonies.history import History, Judged
from colonies.jetstream import JetStreamLedger
from colonies.verify import Report, verify_ledger
from tests.harness import RunningColony

T = TypeVar("T")

COLONIES = Path(sys.executable).with_name("colonies")
KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
WAIT_S = int(os.environ.get("CHAOS_WAIT_S", "240"))
LIMIT_S = KILLS * 10 + WAIT_S + 120  # of a whole test
LEASE_S = 4.0
WEIGHTS = {"worker": 4, "orchestrator": 3, "projector": 1, "broker": 1}


class Victim:
    """A program that is killed and started again."""

    def __init__(self, start: Callable[[], Awaitable[asyncio.subprocess.Process]]) -> None:
        self._start = start
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await self._start()

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()


class Chaos:
    """A colony whose services, workers and broker are killed. `safe` is a worker that never is, `killed`
    counts by kind."""

    def __init__(self, colony: RunningColony, dice: random.Random) -> None:
        self.colony = colony
        self.killed: Counter[str] = Counter()
        self._dice = dice
        self._victims = {
            "worker-1": Victim(lambda: self._worker("w1")),
            "worker-2": Victim(lambda: self._worker("w2")),
            "orchestrator-1": Victim(lambda: service(colony, "orchestrator", "service")),
            "orchestrator-2": Victim(lambda: service(colony, "orchestrator", "service")),
            "projector": Victim(lambda: service(colony, "projector", "observer")),
        }
        self._first = [*self._victims, "broker"]  # so that each dies at least once
        dice.shuffle(self._first)

    async def start(self) -> None:
        for victim in self._victims.values():
            await victim.start()
        self.safe = await self.colony.spawn("safe")

    async def stop(self) -> None:
        for victim in self._victims.values():
            await victim.kill()

    async def kill_one(self) -> None:
        """Kill one of them, or the broker, and start it again."""
        name = self._first.pop() if self._first else self._any()
        self.killed[_kind(name)] += 1
        if name == "broker":
            await self.colony.kill_broker()
            await self.colony.restart_broker()
            return
        await self._victims[name].kill()
        await self._victims[name].start()

    def _any(self) -> str:
        names = [*self._victims, "broker"]
        return self._dice.choices(names, weights=[WEIGHTS[_kind(name)] for name in names])[0]

    async def _worker(self, name: str) -> asyncio.subprocess.Process:
        return (await self.colony.spawn(name)).process


async def service(colony: RunningColony, kind: str, role: str) -> asyncio.subprocess.Process:
    """`colonies server start --only KIND`, in a process of its own."""
    credential = await colony.credential(kind, role)
    views = ["--views", str(colony.folder / "views")] if kind == "projector" else []
    with (colony.folder / f"{kind}.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(str(COLONIES), "server", "start", "--only", kind, "--url", colony.url),
            *("--creds", str(credential), *views),
            stdout=log,
            stderr=log,
        )


def _kind(name: str) -> str:
    return name.partition("-")[0]


@asynccontextmanager
async def chaos(colony: RunningColony, dice: random.Random) -> AsyncIterator[Chaos]:
    """Two workers, two orchestrators and a projector, to be killed, and a worker that lives on."""
    found = Chaos(colony, dice)
    try:
        await found.start()
        yield found
        assert found.safe.process.returncode is None
    finally:
        await found.stop()


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and again as long as the broker is away or does not say what became of it."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            return await ask()
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


class Fold:
    """A whole ledger, folded as it grows. `ends` counts the valid events that ended each process."""

    def __init__(self, ledger: JetStreamLedger) -> None:
        self.history = History(Colony(ledger.colony))
        self.ends: Counter[str] = Counter()
        self.on_valid: Callable[[Judged], None] = lambda judged: None
        self._ledger = ledger

    async def read_on(self) -> None:
        async for batch in self._ledger.scan(self.history.position):
            for stored in batch:
                self._add(self.history.add(stored))

    def _add(self, judged: Judged) -> None:
        if not judged.verdict.valid or judged.record is None:
            return
        if judged.record.kind == "process":
            self.ends[judged.record.entity] += self.processes[judged.record.entity].final
        self.on_valid(judged)

    @property
    def processes(self) -> dict[str, Process]:
        return self.history.processes


def ledger_of(client: Client) -> JetStreamLedger:
    assert isinstance(client.ledger, JetStreamLedger)
    return client.ledger


async def verified(chaos: Chaos, client: Client) -> Report:
    """The ledger verified, here and by the command, which must find the same."""
    report = await verify_ledger(ledger_of(client))
    credential = await chaos.colony.credential("verifier", "observer")
    process = await asyncio.create_subprocess_exec(
        *(str(COLONIES), "ledger", "verify", "-o", "json"),
        *("--url", chaos.colony.url, "--creds", str(credential)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == (0 if report.clean else 1), out.decode()[-2_000:]
    return report


def check_marks(marks: Path, process: Process) -> None:
    """What ran is what was assigned, each attempt at most once; what counts ran, and gave this output."""
    file = marks / process.id
    ran = file.read_text().split() if file.exists() else []
    attempts = {attempt.id: attempt for attempt in process.attempts}
    assert len(set(ran)) == len(ran), f"{process.id}: an attempt ran twice"
    assert set(ran) <= attempts.keys(), f"{process.id}: what nobody was assigned ran"
    ended = {id for id, attempt in attempts.items() if attempt.outcome in ("successful", "failed")}
    assert ended <= set(ran), f"{process.id}: what counts never ran"
    succeeded = [id for id, attempt in attempts.items() if attempt.outcome == "successful"]
    assert len(succeeded) == (process.state == "successful" and bool(attempts))
    output = getattr(process.phase, "output", None)
    if isinstance(output, dict) and "attempt" in output:
        assert [output["attempt"]] == succeeded
