"""Programs that are killed at random moments and started again."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.harness import RunningColony

COLONIES = Path(sys.executable).with_name("colonies")


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


async def service(colony: RunningColony, kind: str, role: str) -> asyncio.subprocess.Process:
    credential = await colony.credential(kind, role)
    views = ["--views", str(colony.folder / "views")] if kind == "projector" else []
    with (colony.folder / f"{kind}.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(str(COLONIES), "server", "start", "--only", kind, "--url", colony.url),
            *("--creds", str(credential), *views),
            stdout=log,
            stderr=log,
        )


async def worker(colony: RunningColony, name: str) -> asyncio.subprocess.Process:
    return (await colony.spawn(name)).process


async def kill_one(dice: random.Random, colony: RunningColony, victims: dict[str, Victim]) -> None:
    """Kill one of them, workers more often than others, or the broker, and start it again."""
    weights = [4 if name.startswith("worker") else 2 for name in victims]
    name = dice.choices([*victims, "broker"], weights=[*weights, 1])[0]
    if name == "broker":
        await colony.kill_broker()
        await colony.restart_broker()
        return
    await victims[name].kill()
    await victims[name].start()
