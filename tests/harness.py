"""A real colony for tests: a real nats-server, real keys, and members by name. Nothing here is pretended.

async with running_colony(tmp_path) as colony:
    client = await colony.client("ann")
    instance = await colony.work(worker, "w1")
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from colonies import founding, jetstream
from colonies.client import Client
from colonies.creds import Credential
from colonies.instance import Instance
from colonies.nkeys import KeyPair
from colonies.operator import Keyring
from colonies.orchestrator import Orchestrator
from colonies.reaper import Reaper
from colonies.server import EmbeddedServer
from colonies.session import Session
from colonies.worker import Worker

PROGRAM = Path(__file__).parent / "worker_program.py"


class WorkerProcess:
    """A worker in a process of its own. `instance` is its instance id."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.instance = ""

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self) -> None:
        """Kill it, stopped or not, and wait until it is gone."""
        if self.process.returncode is None:
            self.send(signal.SIGKILL)
        await self.process.wait()


async def until(fact: Callable[[], object], what: str, limit_s: float = 30.0) -> None:
    """Wait until a fact holds; fail saying what never came."""
    deadline = time.monotonic() + limit_s
    while not fact():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.02)


class RunningColony:
    """A colony named `test`, its owner `owner`; `folder` holds keys, credentials and the broker's files."""

    def __init__(self, folder: Path, keyring: Keyring, server: EmbeddedServer, reaper: Reaper) -> None:
        self.reaper = reaper
        self.folder = folder
        self.keyring = keyring
        self.server = server
        self.owner: Session
        self.stack = AsyncExitStack()

    @property
    def url(self) -> str:
        return self.server.url

    async def credential(self, name: str, role: str) -> Path:
        """The credential file of a member, enrolled if need be."""
        return await founding.enrol(self.owner, self.keyring.owner, name, role, self.folder)

    async def session(self, name: str, role: str) -> Session:
        """An open session of a member, closed with the colony."""
        credential = Credential.read(await self.credential(name, role))
        ledger = await jetstream.connect(self.url, credential)
        session = await Session(ledger, credential.name, credential.keypair).open()
        self.stack.push_async_callback(ledger.close)
        self.stack.push_async_callback(session.close)
        return session

    async def client(self, name: str = "ann", role: str = "user") -> Client:
        client = Client(await self.session(name, role))
        self.stack.push_async_callback(client.close)
        return client

    async def orchestrate(self, name: str = "orchestrator") -> asyncio.Task[None]:
        """Start an orchestrator; returns its task once it is ready."""
        session = await self.session(name, "service")
        assert isinstance(session.ledger, jetstream.JetStreamLedger)
        orchestrator = Orchestrator(session, session.ledger.machinery())
        return await self._start(orchestrator.run(), orchestrator.ready)

    async def work(self, worker: Worker, name: str = "w1") -> Instance:
        """Start an instance of a worker in this process; returns it once it is ready."""
        instance = Instance(worker, await self.session(name, "worker"))
        task = await self._start(instance.run(), instance.ready, cancel=False)

        async def stop() -> None:
            instance.stop(0.0)
            await asyncio.gather(task, return_exceptions=True)

        self.stack.push_async_callback(stop)
        return instance

    async def kill_broker(self) -> None:
        """SIGKILL, and wait until it is gone. Does no harm if it is dead."""
        self.port = int(self.url.rsplit(":", 1)[1])
        with suppress(ProcessLookupError):
            os.kill(self.server.pid, signal.SIGKILL)
        await self.server.wait()

    async def restart_broker(self) -> None:
        """Start it again on the same port and files."""
        await self.server.stop()
        self.server = broker(self.folder, self.keyring, self.port, self.reaper)
        await self.server.start()
        self.stack.push_async_callback(self.server.stop)

    async def spawn(self, name: str = "w1", concurrency: int = 4) -> WorkerProcess:
        """Start `tests/worker_program.py` as a process of its own; returns it once it takes offers."""
        credential = await self.credential(name, "worker")
        with (self.folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(PROGRAM), self.url, str(credential), str(concurrency)),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        spawned = WorkerProcess(process)
        self.stack.push_async_callback(spawned.end)
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("ready"), (self.folder / f"{name}.log").read_text()
        spawned.instance = line.split()[1]
        return spawned

    async def _start(self, run, ready: asyncio.Event, *, cancel: bool = True) -> asyncio.Task[None]:  # type: ignore[no-untyped-def]
        task = asyncio.create_task(run)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        if task.done():
            task.result()
        assert ready.is_set()

        async def end() -> None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        if cancel:
            self.stack.push_async_callback(end)
        return task


def broker(folder: Path, keyring: Keyring, port: int, reaper: Reaper) -> EmbeddedServer:
    """A real nats-server on this folder's files, not yet started."""
    operator = keyring.operator
    return EmbeddedServer(
        folder / "nats",
        operator_jwt=operator.operator_jwt(),
        system_account=operator.system_account,
        accounts={
            operator.system_account: operator.system_jwt(),
            keyring.owner.account.public: keyring.account_jwt(),
        },
        port=port,
        reaper=reaper,
    )


@asynccontextmanager
async def running_colony(
    folder: Path, *, lease_s: float = 2.0, orchestrate: bool = True, port: int = -1, found: bool = True
) -> AsyncIterator[RunningColony]:
    """A broker with the colony `test` on it, and an orchestrator unless told not to.

    `found=False` takes the ledger as it is, however broken, and writes nothing to it.
    """
    keys = folder / "keys"
    keyring = Keyring.open(keys) if keys.exists() else Keyring.create(keys)
    async with Reaper() as reaper, broker(folder, keyring, port, reaper) as server:
        colony = RunningColony(folder, keyring, server, reaper)
        path = folder / "owner.creds"
        if not path.exists():
            key = KeyPair.new("user")
            Credential.of(keyring.owner.mint("owner", "owner", key.public), key).write(path)
        owner = Credential.read(path)
        if found:
            await founding.found(server.url, keyring.owner, owner, name="test", lease_s=lease_s)
        ledger = await jetstream.connect(server.url, owner)
        colony.owner = await Session(ledger, owner.name, owner.keypair).open()
        async with colony.stack:
            colony.stack.push_async_callback(ledger.close)
            colony.stack.push_async_callback(colony.owner.close)
            if orchestrate:
                await colony.orchestrate()
            yield colony
