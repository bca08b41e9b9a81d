"""The client without asyncio: the same client, each call run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, Generic, TypeVar, overload

from colonies.building import Node, Workflow
from colonies.calls import Call
from colonies.client import Client, Handle
from colonies.core.flow import WorkflowSpec
from colonies.core.process import Process
from colonies.core.spec import Spec
from colonies.errors import ColoniesError
from colonies.flows import WorkflowHandle
from colonies.history import Judged
from colonies.looking import WorkflowNow

T = TypeVar("T")


class BlockingHandle(Generic[T]):
    """As `Handle`, blocking."""

    def __init__(self, client: BlockingClient, handle: Handle[T]) -> None:
        self._client = client
        self._handle = handle
        self.id = handle.id

    def __repr__(self) -> str:
        return repr(self._handle)

    def get(self) -> Process:
        return self._client.run(self._handle.get())

    def wait(self, timeout_s: float | None = None) -> Process:
        return self._client.run(self._handle.wait(timeout_s))

    def result(self, timeout_s: float | None = None) -> T:
        return self._client.run(self._handle.result(timeout_s))

    def cancel(self, reason: str = "") -> Process:
        return self._client.run(self._handle.cancel(reason))

    def signal(self, name: str, data: Any = None) -> None:
        self._client.run(self._handle.signal(name, data))

    def events(self) -> Iterator[Judged]:
        return _each(self._client, self._handle.events())


class BlockingWorkflowHandle:
    """As `WorkflowHandle`, blocking."""

    def __init__(self, client: BlockingClient, handle: WorkflowHandle) -> None:
        self._client = client
        self._handle = handle
        self.id = handle.id

    def __repr__(self) -> str:
        return repr(self._handle)

    def get(self) -> WorkflowNow:
        return self._client.run(self._handle.get())

    def changes(self) -> Iterator[WorkflowNow]:
        return _each(self._client, self._handle.changes())

    def wait(self, timeout_s: float | None = None) -> WorkflowNow:
        return self._client.run(self._handle.wait(timeout_s))

    @overload
    def result(self, *, timeout_s: float | None = None) -> Any: ...
    @overload
    def result(self, node: Node[T], *, timeout_s: float | None = None) -> T: ...
    def result(self, node: Node[Any] | None = None, *, timeout_s: float | None = None) -> Any:
        if node is None:
            return self._client.run(self._handle.result(timeout_s=timeout_s))
        return self._client.run(self._handle.result(node, timeout_s=timeout_s))

    def cancel(self, reason: str = "") -> None:
        self._client.run(self._handle.cancel(reason))

    def signal(self, name: str, data: Any = None) -> None:
        self._client.run(self._handle.signal(name, data))


class BlockingClient:
    """As `Client`, blocking. Open one with `with colonies.connect() as colony:`."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self._client = client
        self._loop = loop
        self._thread = thread

    @classmethod
    def open(cls, opening: Callable[[], Awaitable[Client]]) -> BlockingClient:
        """Start the thread and log in. Raises as `connect` does."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="colonies client", daemon=True)
        thread.start()

        async def opened() -> Client:
            return await opening()

        try:
            client = asyncio.run_coroutine_threadsafe(opened(), loop).result()
        except BaseException:
            _stop(loop, thread)
            raise
        return cls(client, loop, thread)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the client's loop and wait for it; Ctrl-C cancels it."""
        if not self._thread.is_alive():
            work.close()
            raise ColoniesError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    @property
    def name(self) -> str:
        return self._client.name

    @property
    def colony(self) -> str:
        return self._client.colony

    @overload
    def submit(self, work: Call[T], *, key: str | None = None) -> BlockingHandle[T]: ...
    @overload
    def submit(self, work: Spec | dict[str, Any], *, key: str | None = None) -> BlockingHandle[Any]: ...
    @overload
    def submit(self, work: Workflow, *, key: str | None = None) -> BlockingWorkflowHandle: ...
    def submit(
        self, work: Call[Any] | Spec | dict[str, Any] | Workflow, *, key: str | None = None
    ) -> BlockingHandle[Any] | BlockingWorkflowHandle:
        if isinstance(work, Workflow):
            return BlockingWorkflowHandle(self, self.run(self._client.submit(work, key=key)))
        return BlockingHandle(self, self.run(self._client.submit(work, key=key)))

    def submit_workflow(
        self, work: WorkflowSpec | list[Any] | dict[str, Any], *, key: str | None = None
    ) -> BlockingWorkflowHandle:
        return BlockingWorkflowHandle(self, self.run(self._client.submit_workflow(work, key=key)))

    def submit_many(
        self, works: Iterable[Call[Any] | Spec | dict[str, Any]], *, atomic: bool = False
    ) -> list[BlockingHandle[Any]]:
        handles = self.run(self._client.submit_many(works, atomic=atomic))
        return [BlockingHandle(self, handle) for handle in handles]

    def process(self, id: str) -> BlockingHandle[Any]:
        return BlockingHandle(self, self._client.process(id))

    def workflow(self, id: str) -> BlockingWorkflowHandle:
        return BlockingWorkflowHandle(self, self._client.workflow(id))

    def close(self) -> None:
        if self._thread.is_alive():
            try:
                self.run(self._client.close())
            finally:
                _stop(self._loop, self._thread)


class _Ended(Exception):
    """The events are over (a StopAsyncIteration cannot leave a coroutine)."""


def _each(client: BlockingClient, events: AsyncIterator[T]) -> Iterator[T]:
    while True:
        try:
            yield client.run(_next(events))
        except _Ended:
            return


async def _next(events: AsyncIterator[T]) -> T:
    try:
        return await anext(events)
    except StopAsyncIteration:
        raise _Ended from None


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    async def finish() -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await loop.shutdown_asyncgens()

    asyncio.run_coroutine_threadsafe(finish(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
