"""A colony that sends to webhooks, and a real receiver: what the tests of this folder stand on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from colonies_projections.webhooks import Webhooks

from colonies.core.webhooks import Webhook
from colonies.webhook_orders import Order, ask_about, give_order
from colonies.webhooks import add_webhook, webhooks
from tests.harness import RunningColony, running_colony, until

HERE = Path(__file__).parent
SPEC = {"func": "echo", "args": ["hello"], "conditions": {"runtimetype": "cli"}}
QUICK = (0.05, 0.05, 0.05)
LIMIT_S = 100.0


class Receiver:
    """A process that takes requests; it can be killed, and started again at the same port."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(HERE / "receiver.py"), str(self.port), str(self.folder)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            self.port = int(await self._process.stdout.readline())

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def url(self, path: str = "ok") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def requests(self, path: str | None = None) -> list[dict[str, Any]]:
        """What came, in order; to this path."""
        file = self.folder / "requests"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        found = [json.loads(line) for line in text.splitlines()]
        return [request for request in found if path in (None, request["path"].strip("/"))]

    def events(self, path: str | None = None) -> list[dict[str, Any]]:
        return [json.loads(request["body"]) for request in self.requests(path)]

    def sequences(self, path: str | None = None) -> list[int]:
        return [int(event["id"]) for event in self.events(path)]


class Ground:
    """A running colony, its owner's session `owner`, a client `ann`, and a receiver."""

    def __init__(self, colony: RunningColony, receiver: Receiver) -> None:
        self.colony = colony
        self.receiver = receiver
        self.owner = colony.owner
        self.file = colony.folder / "webhooks.sqlite"

    async def send(self, name: str = "webhooks", **options: Any) -> asyncio.Task[None]:
        """Start the service in this process."""
        options = {"delays_s": QUICK, **options}
        service = Webhooks(await self.colony.session(name, "observer"), self.file, **options)
        return await self.colony._start(service.run(), service.ready)

    async def enrol(self, name: str = "webhooks") -> None:
        await self.colony.credential(name, "observer")
        await self.owner.refresh()

    async def add(self, name: str, path: str = "ok", **options: Any) -> bytes:
        return await add_webhook(self.owner, name, self.receiver.url(path), **options)

    async def submit(self, count: int = 1, **fields: Any) -> list[int]:
        """Submit processes; the sequences of their first events."""
        client = await self.colony.client("ann")
        handles = [await client.submit({**SPEC, **fields}) for _ in range(count)]
        stored = [(await self.owner.ledger.read(f"ledger.process.{h.id}.>"))[0] for h in handles]
        await client.close()
        return [each.sequence for each in stored]

    async def ask(self, name: str, *, dead: int = 100, service: str = "webhooks") -> dict[str, Any]:
        question = {"webhook": name, "dead": dead}
        answer = await ask_about(self.owner, service, question, wait_s=10)
        return dict(answer["items"][0])

    async def order(self, order: Order) -> dict[str, Any]:
        return await give_order(self.owner, "webhooks", order, wait_s=20)

    async def webhook(self, name: str) -> Webhook:
        return next(found for found in await webhooks(self.owner) if found.name == name)

    async def until(self, name: str, fact: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """Wait until this is so of what the service says of a webhook."""
        async with asyncio.timeout(LIMIT_S):
            while not fact(said := await self.ask(name)):
                await asyncio.sleep(0.05)
        return said

    async def heard(self, wanted: Sequence[int], path: str | None = None) -> None:
        """Wait until the receiver has all of these events."""
        await until(lambda: set(wanted) <= set(self.receiver.sequences(path)), f"{wanted} at {path}", LIMIT_S)


@asynccontextmanager
async def ground(folder: Path, *, orchestrate: bool = False) -> AsyncIterator[Ground]:
    """A colony with a receiver, nothing sent yet."""
    async with AsyncExitStack() as stack:
        receiver = Receiver(folder / "receiver")
        await receiver.start()
        stack.push_async_callback(receiver.kill)
        (folder / "colony").mkdir()
        colony = await stack.enter_async_context(running_colony(folder / "colony", orchestrate=orchestrate))
        yield Ground(colony, receiver)


async def stopped(task: asyncio.Task[None]) -> None:
    """Stop a service of this process, and wait until it has."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
