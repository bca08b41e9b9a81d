"""The client without asyncio: the same client, each call run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from datetime import datetime
from typing import Any, TypeVar, Unpack, overload

from colonies.blocking_handles import BlockingCronHandle, BlockingHandle, BlockingWorkflowHandle, each
from colonies.building import Workflow
from colonies.calls import Call
from colonies.client import Client
from colonies.core.colony import Paused
from colonies.core.flow import WorkflowSpec
from colonies.core.process import Process
from colonies.core.spec import Spec
from colonies.crons import CronNow, When
from colonies.errors import ColoniesError
from colonies.generators import GeneratorNow, RunNow
from colonies.history import Judged
from colonies.listening import FeedEvent, Several, Wanted, heard

T = TypeVar("T")


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

    def cancel(self, id: str, reason: str = "") -> Process:
        return self.run(self._client.cancel(id, reason))

    def signal(self, id: str, name: str, data: Any = None) -> Process:
        return self.run(self._client.signal(id, name, data))

    def wait(self, id: str) -> Process:
        return self.run(self._client.wait(id))

    def output(self, process: Process) -> Any:
        return self.run(self._client.output(process))

    def events(self, id: str) -> Iterator[Judged]:
        return each(self, self._client.events(id))

    def feed(
        self,
        after: int | datetime | None = None,
        *,
        type: Several = None,
        process: Several = None,
        workflow: Several = None,
        author: Several = None,
        verdict: Several = "valid",
        live: bool = True,
    ) -> Generator[FeedEvent, None, None]:
        wanted = Wanted(type=type, process=process, workflow=workflow, author=author, verdict=verdict)
        return self._each(heard(self._client, after, wanted, live=live))

    def _each(self, events: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """As `each`; who leaves it before its end leaves nothing open."""
        try:
            yield from each(self, events)
        finally:
            leaving = events.aclose()
            try:
                asyncio.run_coroutine_threadsafe(leaving, self._loop)
            except RuntimeError:  # the client is closed, and with it this
                leaving.close()

    def query(
        self,
        view: str,
        *,
        sort: str | None = None,
        limit: int | None = None,
        at: int | None = None,
        at_least: int | None = None,
        **filters: str | None,
    ) -> Iterator[dict[str, Any]]:
        asked = {"sort": sort, "limit": limit, "at": at, "at_least": at_least}
        return each(self, self._client.query(view, **asked, **filters))  # type: ignore[arg-type]

    # --- crons and generators ------------------------------------------------------------------------

    def add_cron(
        self, name: str, work: Workflow | WorkflowSpec | list[Any] | dict[str, Any], **when: Unpack[When]
    ) -> BlockingCronHandle:
        return BlockingCronHandle(self, self.run(self._client.add_cron(name, work, **when)))

    def crons(self) -> list[CronNow]:
        return self.run(self._client.crons())

    def cron(self, name: str) -> BlockingCronHandle:
        return BlockingCronHandle(self, self._client.cron(name))

    def add_generator(
        self,
        name: str,
        work: WorkflowSpec | Spec | list[Any] | dict[str, Any],
        *,
        trigger: int,
        timeout_s: float | None = None,
    ) -> GeneratorNow:
        return self.run(self._client.add_generator(name, work, trigger=trigger, timeout_s=timeout_s))

    def pack(self, name: str, *args: Any) -> None:
        self.run(self._client.pack(name, *args))

    def generators(self) -> list[GeneratorNow]:
        return self.run(self._client.generators())

    def generator(self, name: str) -> GeneratorNow:
        return self.run(self._client.generator(name))

    def waiting_arguments(self, name: str) -> list[Any]:
        return self.run(self._client.waiting_arguments(name))

    def generator_runs(self, name: str, limit: int = 10) -> list[RunNow]:
        return self.run(self._client.generator_runs(name, limit))

    def remove_generator(self, name: str, reason: str = "") -> None:
        self.run(self._client.remove_generator(name, reason))

    # --- pausing -------------------------------------------------------------------------------------

    def pause_colony(self, reason: str = "") -> Paused:
        return self.run(self._client.pause_colony(reason))

    def resume_colony(self) -> None:
        self.run(self._client.resume_colony())

    def pause_queue(self, queue: str, reason: str = "") -> str:
        return self.run(self._client.pause_queue(queue, reason))

    def resume_queue(self, queue: str) -> str:
        return self.run(self._client.resume_queue(queue))

    def drain_worker(self, name: str, reason: str = "") -> None:
        self.run(self._client.drain_worker(name, reason))

    def resume_worker(self, name: str) -> None:
        self.run(self._client.resume_worker(name))

    def close(self) -> None:
        if self._thread.is_alive():
            try:
                self.run(self._client.close())
            finally:
                _stop(self._loop, self._thread)


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
