"""A colony in memory, for the tests of those who use Colonies: no broker, no files, no network.

    async with colonies.memory() as colony:
        await colony.work(worker)
        process = await colony.submit(double.call(21))
        assert await process.result() == 42

Client, worker, orchestrator, signatures and rules are the real ones; only the ledger beneath them is
another. Nothing of it outlives the block. `with` instead of `async with` does without asyncio.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from types import TracebackType

from colonies.blocking import BlockingClient
from colonies.client import Client
from colonies.core.events import MAX_LEASE_S, MIN_LEASE_S, Approved, Genesis, Role
from colonies.core.names import member_name
from colonies.errors import Invalid
from colonies.instance import Instance
from colonies.memory_ledger import MemoryBroker, MemoryLedger
from colonies.nkeys import KeyPair
from colonies.orchestrator import Orchestrator
from colonies.roles import ROLES
from colonies.session import Session
from colonies.worker import Worker

NAME = "memory"
OWNER = "owner"
TESTER = "tester"


class MemoryClient(Client):
    """A client of a colony in memory, as the user `tester`, that can put workers to work there."""

    def __init__(self, session: Session, members: _Members, stack: AsyncExitStack) -> None:
        super().__init__(session)
        self._members = members
        self._stack = stack
        stack.push_async_callback(super().close)

    async def work(self, worker: Worker, name: str = "worker") -> Instance:
        """Run an instance of a worker here, as the member `name`; returns once it takes processes.

        It ends with the colony, giving back what still runs; `stop()` on what is returned ends it before.

        Raises:
            Invalid: that is no name for a member. Refused: a member of another role has it.
        """
        session = await self._members.session(name, "worker")
        self._stack.push_async_callback(_close, session)
        instance = Instance(worker, session)
        task = await _started(instance.run(), instance.ready, f"worker {name}")
        self._stack.push_async_callback(_stop, instance, task)
        return instance

    async def close(self) -> None:
        """End everything, in order: workers, orchestrator, client. Raises what any of them died of."""
        await self._stack.aclose()


class BlockingMemoryClient(BlockingClient):
    """As `MemoryClient`, blocking."""

    _client: MemoryClient

    def work(self, worker: Worker, name: str = "worker") -> Instance:
        """As `MemoryClient.work`. The worker runs on the client's thread, plain functions on their own."""
        return self.run(self._client.work(worker, name))


class Memory:
    """A colony to be: enter it with `async with` or with `with`."""

    def __init__(self, lease_s: float) -> None:
        if not MIN_LEASE_S <= lease_s <= MAX_LEASE_S:
            raise Invalid(f"lease_s: {lease_s:g}; {MIN_LEASE_S:g} to {MAX_LEASE_S:g} seconds are allowed")
        self._lease_s = lease_s
        self._client: MemoryClient | None = None
        self._blocking: BlockingMemoryClient | None = None

    async def open(self) -> MemoryClient:
        """Found the colony and start its orchestrator. The caller closes the client."""
        async with AsyncExitStack() as stack:
            members = await _found(self._lease_s)
            stack.push_async_callback(_close, members.owner)
            orchestrating = await members.session("orchestrator", "service")
            stack.push_async_callback(_close, orchestrating)
            client = MemoryClient(await members.session(TESTER, "user"), members, stack)
            orchestrator = Orchestrator(orchestrating, MemoryLedger(members.broker))
            task = await _started(orchestrator.run(), orchestrator.ready, "orchestrator")
            stack.push_async_callback(_cancel, task)
            client._stack = stack.pop_all()
            return client

    async def __aenter__(self) -> MemoryClient:
        self._client = await self.open()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()

    def __enter__(self) -> BlockingMemoryClient:
        blocking = BlockingMemoryClient.open(self.open)
        assert isinstance(blocking, BlockingMemoryClient)
        self._blocking = blocking
        return blocking

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._blocking is not None:
            self._blocking.close()


def memory(*, lease_s: float = MIN_LEASE_S) -> Memory:
    """A colony in memory with nothing in it, for tests. `lease_s`: after how many seconds without a sign of
    life a worker's process goes to another."""
    return Memory(lease_s)


class _Members:
    """The members of a colony in memory: who is not one yet is let in by the owner, at once."""

    def __init__(self, broker: MemoryBroker, owner: Session) -> None:
        self.broker = broker
        self.owner = owner
        self._keys = {owner.name: owner.keypair}

    async def session(self, name: str, role: Role) -> Session:
        """An open session of that member. The caller closes it, and its ledger."""
        key = self._keys.get(name)
        if key is None:
            key = KeyPair.new("user")
            approved = Approved(key.public, role)
            await self.owner.record_entity("member", member_name(name, "name"), approved)
            self._keys[name] = key
        return await Session(MemoryLedger(self.broker), name, key).open()


async def _found(lease_s: float) -> _Members:
    account, key = KeyPair.new("account"), KeyPair.new("user")
    roles: dict[Role, str] = {role: KeyPair.new("account").public for role in ROLES}
    ledger = MemoryLedger(MemoryBroker(account.public))
    genesis = Genesis(NAME, OWNER, key.public, roles, lease_s)
    await Session(ledger, OWNER, account).record_genesis(genesis)
    return _Members(ledger.broker, await Session(ledger, OWNER, key).open())


async def _started(run, ready: asyncio.Event, name: str) -> asyncio.Task[None]:  # type: ignore[no-untyped-def]
    """The task of something long-lived, once it is ready. Raises what it dies of before that."""
    task: asyncio.Task[None] = asyncio.create_task(run, name=name)
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        return task
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _stop(instance: Instance, task: asyncio.Task[None]) -> None:
    instance.stop(0.0)
    await task


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _close(session: Session) -> None:
    await session.close()
    await session.ledger.close()
