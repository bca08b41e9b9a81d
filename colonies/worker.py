"""The worker: pulls offers of every queue that it serves, runs them, reports what came of them.

    worker = colonies.Worker("python")

    @worker.function
    def double(n: int) -> int:
        return 2 * n

A function returns (successful), raises (tried again if the spec allows), raises `Fail` (failed for good) or
`Later` (waits, not counted). It verifies what it runs, runs nothing that it does not hold, and kills what it
no longer holds. It never decides what is true: the ledger does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

import structlog

from colonies import machine
from colonies.calls import Function
from colonies.core import events as facts
from colonies.core.capacity import Capacity
from colonies.core.events import MAX_CONCURRENCY
from colonies.core.names import name as checked_name
from colonies.core.names import shown
from colonies.errors import Invalid, Refused
from colonies.execution import Work, run_function

if TYPE_CHECKING:
    from colonies.instance import Instance

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

MAX_BACKOFF_S = 300.0
MAX_GRACE_S = 86_400
_log = structlog.get_logger("colonies.worker")
_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
]  # `nohup` has SIGHUP ignored: then it stays


class Offering(Protocol):
    """What `worker.function(name=...)` gives: the decorator for one function."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Function[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Function[P, R, R]: ...


class Worker:
    """A worker of one runtime type. `concurrency`: how many processes it runs at a time, by default one for
    each core. `has` is what it has for them, as `Capacity` or its plain form; what that leaves out is looked
    up on this machine when the worker starts."""

    def __init__(
        self,
        runtimetype: str = "python",
        *,
        concurrency: int | None = None,
        backoff_s: float = 1.0,
        has: Capacity | dict[str, Any] | None = None,
    ) -> None:
        if concurrency is not None and not 1 <= concurrency <= MAX_CONCURRENCY:
            raise Invalid(f"concurrency: {concurrency}; 1 to {MAX_CONCURRENCY} are allowed")
        if not 0 <= backoff_s <= MAX_BACKOFF_S:
            raise Invalid(f"backoff_s: {backoff_s} s; 0 to {MAX_BACKOFF_S:g} are allowed")
        self.runtimetype = checked_name(runtimetype, "runtimetype")
        self.concurrency = concurrency or os.cpu_count() or 1
        self.backoff_s = backoff_s
        self.has = has if isinstance(has, Capacity) else Capacity.parse(has or {}, where="has")
        self.functions: dict[str, Function[Any, Any, Any]] = {}

    @overload
    def function(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Function[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def function(self, function: Callable[P, R], /) -> Function[P, R, R]: ...
    @overload
    def function(self, *, name: str | None = None, **options: Any) -> Offering: ...
    def function(
        self, function: Callable[P, R] | None = None, *, name: str | None = None, **options: Any
    ) -> Any:
        """Offer a function.

        `options` are spec fields that `function.call(...)` starts from, `maxretries=3` for one. What is
        submitted otherwise, by the command or as a spec of its own, does not have them: its spec counts.
        """

        def offer(function: Callable[P, R]) -> Function[P, R, Any]:
            made: Function[P, R, Any] = Function(function, self.runtimetype, name, **options)
            if len(made.name) > facts.MAX_TEXT_CHARS:
                raise Invalid(
                    f"{shown(made.name)}: a function's name of {len(made.name)} characters; at most "
                    f"{facts.MAX_TEXT_CHARS} are allowed"
                )
            if len(self.functions) >= facts.MAX_FUNCTIONS:
                raise Invalid(
                    f"{made.name}: function number {len(self.functions) + 1} of this worker; at most "
                    f"{facts.MAX_FUNCTIONS} are allowed"
                )
            if made.name in self.functions:
                raise Invalid(f"{made.name}: this worker has a function of that name already")
            self.functions[made.name] = made
            return made

        return offer(function) if function is not None else offer

    def find_capacity(self) -> Capacity:
        """What this worker has: as it was told, and for the rest what this machine has. It stays so."""
        self.has = machine.complete(self.has, self.concurrency)
        return self.has

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """What must be there while the worker runs. Other kinds of workers open and close it here."""
        yield

    async def execute(self, work: Work) -> Any:
        """Run one attempt; returns its output. Other kinds of workers say here what running means."""
        return await run_function(self.functions, work)

    def lacks(self, func: str) -> bool:
        """Has it no function of this name? Workers that run things in a way of their own lack none."""
        return type(self).execute is Worker.execute and func not in self.functions

    def code_of(self, func: str) -> str | None:
        """The digest of the code that a function of this name runs here; None: it has none of its own."""
        function = self.functions.get(func)
        return function.code if function is not None else None

    def describe(self) -> list[facts.Function]:
        """The functions as they are published on the ledger."""
        most = facts.MAX_DESCRIPTION_CHARS
        return [facts.Function(f.name, f.description[:most], f.schema) for f in self.functions.values()]

    async def run(
        self,
        *,
        context: str | None = None,
        url: str | None = None,
        creds: str | os.PathLike[str] | None = None,
        grace_s: float = 10.0,
    ) -> None:
        """Work until SIGTERM, SIGINT or SIGHUP; then finish within `grace_s` seconds or give back.

        If the member's key is changed meanwhile, and its credential with it (`colonies member rotate`), it
        goes on with the new one; what it ran is lost, and taken again when its lease is over.
        """
        from colonies.connection import open_session, rekeyed
        from colonies.instance import Instance

        if not 0 <= grace_s <= MAX_GRACE_S:
            raise Invalid(f"grace_s: {grace_s} s; 0 to {MAX_GRACE_S} are allowed")
        place = {"context": context, "url": url, "creds": creds}
        session = await open_session(**place)  # type: ignore[arg-type]
        with _Stopping(grace_s) as stopping:
            while True:
                stopping.instance = Instance(self, session)
                try:
                    return None if stopping.asked else await stopping.instance.run()
                except Refused:
                    if stopping.asked or not await rekeyed(session, **place):  # type: ignore[arg-type]
                        raise
                    _log.warning("the key was changed; going on with the new one", worker=session.name)
                finally:
                    await session.close()
                    await session.ledger.close()
                session = await open_session(**place)  # type: ignore[arg-type]


class _Stopping:
    """While it lasts, signals stop `instance`."""

    def __init__(self, grace_s: float) -> None:
        self.asked = False
        self.instance: Instance | None = None
        self._grace_s = grace_s
        self._heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def _stop(self) -> None:
        self.asked = True
        if self.instance is not None:
            self.instance.stop(self._grace_s)

    def __enter__(self) -> _Stopping:
        for number in self._heard:
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                asyncio.get_running_loop().add_signal_handler(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._heard:
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                asyncio.get_running_loop().remove_signal_handler(number)
