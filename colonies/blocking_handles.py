"""What a client without asyncio holds: processes, workflows and crons, whose calls run on its loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, overload

from colonies.building import Node
from colonies.client import Handle
from colonies.core.process import Process
from colonies.crons import LAST_RUNS, CronHandle, CronNow
from colonies.flows import WorkflowHandle
from colonies.history import Judged, WorkflowStory
from colonies.looking import WorkflowNow
from colonies.reasons import Reason

T = TypeVar("T")


class Runner(Protocol):
    """What runs a coroutine and waits for it."""

    def run(self, work: Coroutine[Any, Any, T]) -> T: ...


class BlockingHandle(Generic[T]):
    """As `Handle`, blocking."""

    def __init__(self, client: Runner, handle: Handle[T]) -> None:
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

    def signal(self, name: str, data: Any = None) -> Process:
        return self._client.run(self._handle.signal(name, data))

    def rerun(self, *, key: str | None = None) -> BlockingHandle[T]:
        return BlockingHandle(self._client, self._client.run(self._handle.rerun(key=key)))

    def why(self) -> list[Reason]:
        return self._client.run(self._handle.why())

    def events(self) -> Iterator[Judged]:
        return each(self._client, self._handle.events())


class BlockingWorkflowHandle:
    """As `WorkflowHandle`, blocking."""

    def __init__(self, client: Runner, handle: WorkflowHandle) -> None:
        self._client = client
        self._handle = handle
        self.id = handle.id

    def __repr__(self) -> str:
        return repr(self._handle)

    def get(self) -> WorkflowNow:
        return self._client.run(self._handle.get())

    def changes(self) -> Iterator[WorkflowNow]:
        return each(self._client, self._handle.changes())

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

    def rerun(
        self, from_node: str | None = None, parameters: Mapping[str, Any] | None = None
    ) -> BlockingWorkflowHandle:
        return BlockingWorkflowHandle(
            self._client, self._client.run(self._handle.rerun(from_node, parameters))
        )

    def why(self, node: str | None = None) -> list[Reason]:
        return self._client.run(self._handle.why(node))

    def story(self) -> WorkflowStory:
        return self._client.run(self._handle.story())


class BlockingCronHandle:
    """As `CronHandle`, blocking."""

    def __init__(self, client: Runner, handle: CronHandle) -> None:
        self._client = client
        self._handle = handle
        self.name = handle.name

    def __repr__(self) -> str:
        return repr(self._handle)

    def get(self) -> CronNow:
        return self._client.run(self._handle.get())

    def runs(self, most: int = LAST_RUNS) -> list[WorkflowNow]:
        return self._client.run(self._handle.runs(most))

    def run(self) -> BlockingWorkflowHandle:
        return BlockingWorkflowHandle(self._client, self._client.run(self._handle.run()))

    def pause(self, reason: str = "") -> None:
        self._client.run(self._handle.pause(reason))

    def resume(self) -> None:
        self._client.run(self._handle.resume())

    def remove(self, reason: str = "") -> None:
        self._client.run(self._handle.remove(reason))


class _Ended(Exception):
    """The events are over (a StopAsyncIteration cannot leave a coroutine)."""


def each(client: Runner, events: AsyncIterator[T]) -> Iterator[T]:
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
