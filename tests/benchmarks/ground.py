"""What is measured on: a broker, a colony on it, and the parts in processes of their own.

The process that measures is the client. Everything is in a temporary folder and ends with the `async with`
block; parts that are started see their stdin end when this process dies, and the broker has a reaper.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from colonies import founding, jetstream, jwt
from colonies.client import Client
from colonies.creds import Credential
from colonies.nkeys import KeyPair
from colonies.operator import Keyring
from colonies.reaper import Reaper
from colonies.server import EmbeddedServer
from colonies.session import Session
from tests.benchmarks import bare

READY_S = 30.0
ROOT = Path(__file__).parents[2]


class Part:
    """A started part. `pid` is its process's."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    def kill(self) -> None:
        """SIGKILL, now."""
        self._process.kill()

    async def stop(self) -> None:
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                async with asyncio.timeout(10):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        await self._process.wait()


class Ground:
    """A colony `bench`: its broker, its owner, a client, and whatever is started on it."""

    def __init__(self, *, lease_s: float = 10.0, profile: Path | None = None, watch: str = "") -> None:
        """`watch`: `meter` or `marks`, which every part then keeps in a file of the folder."""
        self.lease_s = lease_s
        self.watch = watch
        self.server: EmbeddedServer
        self.folder: Path
        self.parts: dict[str, Part] = {}  # the last one started of each kind
        self._profile = profile
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="colonies-bench-")))
        self._keyring = keyring = Keyring.create(self.folder / "keys")
        operator, account = keyring.operator, keyring.owner.account
        reaper = await self._stack.enter_async_context(Reaper())
        self.server = await self._stack.enter_async_context(
            EmbeddedServer(
                self.folder / "nats",
                operator_jwt=operator.operator_jwt(),
                system_account=operator.system_account,
                accounts={
                    operator.system_account: operator.system_jwt(),
                    account.public: keyring.account_jwt(),
                },
                port=-1,
                reaper=reaper,
            )
        )
        key = KeyPair.new("user")
        credential = Credential.of(keyring.owner.mint("owner", "owner", key.public), key)
        await founding.found(self.url, keyring.owner, credential, name="bench", lease_s=self.lease_s)
        self._owner = credential

    @property
    def url(self) -> str:
        return self.server.url

    async def member(self, name: str, role: str) -> Path:
        """The credential file of a member, enrolled if need be."""
        session = await self._session(self._owner)
        try:
            return await founding.enrol(session, self._keyring.owner, name, role, self.folder)
        finally:
            await session.close()
            await session.ledger.close()

    async def _session(self, credential: Credential) -> Session:
        ledger = await jetstream.connect(self.url, credential)
        return await Session(ledger, credential.name, credential.keypair).open()

    async def client(self, name: str = "ann") -> Client:
        """A client in this process, closed with the ground."""
        client = Client(await self._session(Credential.read(await self.member(name, "user"))))
        self._stack.push_async_callback(client.close)
        return client

    async def session(self, name: str, role: str) -> Session:
        """Any other member's session in this process, closed with the ground."""
        session = await self._session(Credential.read(await self.member(name, role)))
        self._stack.push_async_callback(session.ledger.close)
        self._stack.push_async_callback(session.close)
        return session

    async def bare(self) -> bare.Publisher:
        """The limit's two sides: its worker in a process of its own, its publisher here."""
        credential = self._unrestricted()
        path = self.folder / "bare.creds"
        credential.write(path)
        client = await bare.connect(self.url, credential)
        self._stack.push_async_callback(client.close)
        await bare.prepare(client)
        other = self._unrestricted()
        other.write(self.folder / "bare-worker.creds")
        await self.start("bare", creds=self.folder / "bare-worker.creds")
        return await bare.Publisher(client, 256).open()

    def _unrestricted(self) -> Credential:
        key = KeyPair.new("user")
        account = self._keyring.owner.account
        claims = jwt.user_claims(
            subject=key.public, name="bare", issuer_account=account.public, scoped=False, expires=None
        )
        return Credential.of(jwt.encode(claims, account), key)

    async def worker(self, name: str, *, concurrency: int | None = None, runtimetype: str = "bench") -> Part:
        creds = await self.member(name, "worker")
        return await self.start("worker", creds=creds, concurrency=concurrency, runtimetype=runtimetype)

    async def orchestrator(self) -> Part:
        return await self.start("orchestrator", creds=await self.member("orchestrator", "service"))

    def watched(self, part: str) -> Path:
        """Where a part keeps its meter or marks."""
        return self.folder / f"{part}.{self.watch}"

    async def projector(self) -> Part:
        return await self.start("projector", creds=await self.member("viewer", "observer"))

    async def start(self, part: str, *, creds: Path, **given: Any) -> Part:
        """Start a part and wait until it is ready."""
        given |= {"part": part, "url": self.url, "creds": str(creds)}
        if self._profile is not None:
            given["profile"] = str(self._profile / f"{part}.prof")
        if self.watch:
            given[self.watch] = str(self.watched(part))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.benchmarks.actor",
            json.dumps(given),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        started = self.parts[part] = Part(process)
        self._stack.push_async_callback(started.stop)
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            if (await process.stdout.readline()).strip() != b"ready":
                raise RuntimeError(f"the part {part} did not start; see above")
        return started


def cpu_s(pid: int) -> float:
    """The processor time that a process has used so far, in seconds; nan where the system does not tell."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
    except OSError:
        pass  # a thread ended at this moment, or a kernel without it: in ticks of 10 ms, then
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> float:
    """The memory that a process has in use; nan where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
