"""An event loop without a clock, sockets or threads: time moves when nothing is left to do at this moment.

Every callback belongs to a machine, the one that was running when it was planned. Those of one machine run in
the order in which they were planned, as asyncio promises; which machine goes next is drawn from the seed, and
so is the order of timers of one moment. A machine that is paused keeps its callbacks for later.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

MAX_STEPS = 400_000  # of one lifetime: more is a loop that does not end

Report = Callable[[str, BaseException | None], None]


class Machine:
    """One computer with one program. `dead`: it crashed, and nothing that it says is heard any more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.ready: deque[Handle] = deque()
        self.listed = False
        self.tasks: list[asyncio.Task[Any]] = []


class Handle:
    """A planned callback, as asyncio's handles and timer handles are."""

    __slots__ = ("_when", "args", "callback", "context", "machine")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        machine: Machine,
        when: float = 0.0,
    ) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context
        self.machine = machine
        self._when = when

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when


class Task(asyncio.Task):  # type: ignore[type-arg]
    """A task with a number, so that sets of tasks have the same order in every process."""

    _numbers = itertools.count()

    def __init__(self, coroutine: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = next(Task._numbers)
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number

    @classmethod
    def number_anew(cls) -> None:
        """For a new lifetime. What asyncio remembers of the tasks before it would only get in the way."""
        cls._numbers = itertools.count()
        asyncio.tasks._all_tasks.data.clear()


class VirtualLoop(asyncio.AbstractEventLoop):
    """`now` is the time (s) that everybody's clocks show; `machine` is the one that is running."""

    def __init__(self, random: Random, report: Report, *, now: float = 1_000.0) -> None:
        self.now = now
        self.nobody = Machine("nobody")
        self.machine = self.nobody
        self.stopping = False
        self.steps = 0
        self._random = random.random
        self._report = report
        self._timers: list[tuple[float, float, int, Handle]] = []
        self._count = 0
        self._runnable: list[Machine] = []

    # --- running -------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Run until that time, or `stopping`, or until nothing is left that could ever happen."""
        asyncio._set_running_loop(self)
        self.stopping = False
        try:
            while not self.stopping:
                if self._runnable:
                    self._step()
                elif not self._advance(until):
                    return
        finally:
            self.machine = self.nobody
            asyncio._set_running_loop(None)

    def _step(self) -> None:
        runnable = self._runnable
        index = int(self._random() * len(runnable)) if len(runnable) > 1 else 0
        machine = runnable[index]
        handle = machine.ready.popleft()
        if not machine.ready:
            machine.listed = False
            runnable[index] = runnable[-1]
            runnable.pop()
        callback = handle.callback
        if callback is None:
            return
        self.machine = machine
        self.steps += 1
        if self.steps > MAX_STEPS:
            self.steps = 0
            self.stopping = True
            self._report(f"{MAX_STEPS} steps and no end", None)
            return
        try:
            handle.context.run(callback, *handle.args)
        except Exception as error:
            self._report(f"a callback of {machine.name} raised", error)

    def _advance(self, until: float) -> bool:
        timers = self._timers
        while timers and timers[0][3].callback is None:
            heapq.heappop(timers)
        if not timers or timers[0][0] > until:
            self.now = max(self.now, until)
            return False
        when = timers[0][0]
        self.now = max(self.now, when)
        while timers and timers[0][0] <= when:
            handle = heapq.heappop(timers)[3]
            if handle.callback is not None:
                self._make_ready(handle)
        return True

    def _make_ready(self, handle: Handle) -> None:
        machine = handle.machine
        machine.ready.append(handle)
        if not machine.listed and not machine.paused:
            machine.listed = True
            self._runnable.append(machine)

    def pause(self, machine: Machine) -> None:
        """As SIGSTOP: what is due waits, and the clock goes on."""
        machine.paused = True
        if machine.listed:
            machine.listed = False
            self._runnable.remove(machine)

    def resume(self, machine: Machine) -> None:
        machine.paused = False
        if machine.ready and not machine.listed:
            machine.listed = True
            self._runnable.append(machine)

    # --- what asyncio asks of a loop -----------------------------------------------------------------

    def time(self) -> float:
        return self.now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        machine = self.machine
        handle = Handle(callback, args, context or contextvars.copy_context(), machine)
        machine.ready.append(handle)
        if not machine.listed and not machine.paused:
            machine.listed = True
            self._runnable.append(machine)
        return handle

    call_soon_threadsafe = call_soon  # there are no threads

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        handle = Handle(callback, args, context or contextvars.copy_context(), self.machine, when)
        self._count += 1
        heapq.heappush(self._timers, (when, self._random(), self._count, handle))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> Task:
        task = Task(coro, loop=self, name=name, context=context)
        self.machine.tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """At once: a file that is written takes no time here."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._report(str(context.get("message")), context.get("exception"))

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False
