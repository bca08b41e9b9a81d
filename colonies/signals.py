"""Waiting for a signal from inside a running function: a person's word, on the ledger with their name.

    approval = await colonies.signal("approve", timeout_s=3600)      in `async def`
    approval = colonies.signal("approve").wait()                     in `def`, which runs in a thread

Signals to the process and to its workflow count, from the process's submission on, in ledger order: the first
call for a name gets the first, in a repeated attempt as well. The feed only wakes; what counts is read from
the leader: at the start, after every gap, and every 30 s. It sends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Generator
from typing import Any

from colonies import subjects
from colonies.core.names import name as checked_name
from colonies.core.spec import MAX_SECONDS
from colonies.core.states import Signal
from colonies.errors import Invalid, Unavailable
from colonies.ledger import Stored
from colonies.session import Session

REREAD_S = 30.0
AGAIN_S = 0.5


class Signals:
    """Hears for all attempts of one instance."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: set[asyncio.Event] = set()
        session.ledger.on_gap(self._wake)

    def _wake(self) -> None:
        for changed in self._waiting:
            changed.set()

    async def get(self, process: str, workflow: str | None, name: str, number: int) -> Signal:
        """The signal of this name and number (from 0), once it has come."""
        changed = asyncio.Event()

        def heard(_: Stored) -> None:
            changed.set()

        guards = [("process", process), *([("workflow", workflow)] if workflow is not None else [])]
        async with contextlib.AsyncExitStack() as stack:
            self._waiting.add(changed)
            stack.callback(self._waiting.discard, changed)
            for kind, id in guards:
                feed = subjects.feed_of(subjects.guard_of(kind, id))
                stack.push_async_callback((await self._session.ledger.subscribe(feed, heard)).close)
            while True:
                changed.clear()
                try:
                    found = await self.read(process, workflow, name)
                except Unavailable:
                    await asyncio.sleep(AGAIN_S)
                    continue
                if number < len(found):
                    return found[number]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REREAD_S):
                        await changed.wait()

    async def read(self, process: str, workflow: str | None, name: str) -> list[Signal]:
        """The signals of this name that there are by now, in order."""
        story = await self._session.story(process)
        if story.process is None:
            return []
        begun = next(seen.stored.sequence for seen in story.judged if seen.verdict.valid)
        signals = list(story.process.signals)
        if workflow is not None:
            signals += (await self._session.workflow(workflow)).signals
        found = [signal for signal in signals if signal.name == name and signal.sequence > begun]
        return sorted(found, key=lambda signal: signal.sequence)


class Numbers:
    """Which signal of a name a call is for: the calls are counted, but for those that gave up."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self._free: dict[str, list[int]] = {}

    def take(self, name: str) -> int:
        if free := self._free.get(name):
            return heapq.heappop(free)
        self._next[name] = self._next.get(name, 0) + 1
        return self._next[name] - 1

    def give_back(self, name: str, number: int) -> None:
        heapq.heappush(self._free.setdefault(name, []), number)


class Waiting:
    """A signal that is waited for: `await` it in `async def`, or `wait()` for it in `def`."""

    def __init__(self, name: str, timeout_s: float | None) -> None:
        if timeout_s is not None and not 0 <= timeout_s <= MAX_SECONDS:
            raise Invalid(f"timeout_s: {timeout_s}; 0 to {MAX_SECONDS} are allowed, or none for no limit")
        self._name = checked_name(name, "signal")
        self._timeout_s = timeout_s

    async def _got(self) -> Signal:
        from colonies.attempt import current

        return await current().signal(self._name, self._timeout_s)

    def __await__(self) -> Generator[Any, None, Signal]:
        return self._got().__await__()

    def wait(self) -> Signal:
        """The signal, blocking.

        Raises:
            TimeoutError: it did not come in time.
            ColoniesError: it is called where it would stop everything else.
        """
        from colonies.attempt import current

        return current().run(self._got(), f"signal({self._name!r})")


def signal(name: str, *, timeout_s: float | None = None) -> Waiting:
    """The next signal of this name to the process that the calling function runs in, or to its workflow.

    What comes has `name`, `data`, `by` (the member who sent it), `at` (UTC) and its ledger `sequence`.
    Another worker may go on with the process meanwhile: a repeated attempt gets the same signals.

    Raises:
        TimeoutError: none came within `timeout_s` seconds.
        ColoniesError: it is not called from a function that a worker runs.
    """
    return Waiting(name, timeout_s)
