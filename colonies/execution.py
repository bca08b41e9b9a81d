"""How a Python function is run: arguments checked, coroutines on the loop, everything else in a thread.

A blocking function never costs its worker the lease: heartbeats go on beside it. A thread cannot be killed;
one that outlives its time is left to itself and its result is thrown away.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colonies import tracing
from colonies.attempt import Attempt
from colonies.calls import Function
from colonies.core.spec import Spec
from colonies.errors import ColoniesError
from colonies.hearing import hearing


class Fail(Exception):
    """Raise it in a function: the process is failed for good, whatever `maxretries` says."""


class Later(Exception):
    """Raise it in a function: try again in `delay_s` seconds, without counting it as a failure."""

    def __init__(self, delay_s: float, reason: str = "") -> None:
        super().__init__(reason or f"later, in {delay_s:g} s")
        self.delay_s = float(delay_s)


class NotHere(ColoniesError):
    """This worker cannot run it now, through no fault of the process: it goes back to its queue."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be run: the spec, its arguments in full, and the attempt that it belongs to.

    `inputs` are the outputs of the node's parents, by name.
    """

    spec: Spec
    args: list[Any]
    kwargs: dict[str, Any]
    attempt: Attempt
    inputs: dict[str, Any] = field(default_factory=dict)


async def run_function(functions: Mapping[str, Function[Any, Any, Any]], work: Work) -> Any:
    """Run the function that the spec names.

    Raises:
        Invalid: the arguments do not fit. LookupError: there is no such function here.
    """
    function = functions.get(work.spec.func)
    if function is None:
        offered = ", ".join(sorted(functions)) or "none"
        raise LookupError(
            f"this worker has no function {work.spec.func!r}; it has: {offered}; no living worker of its "
            "runtime type has registered it"
        )
    bound = function.bind(work.args, work.kwargs)
    work.attempt.inputs = work.inputs
    work.attempt.enter()
    tracing.enter(work.attempt.trace, ready=True)
    try:
        with hearing():
            if function.is_async:
                return await function.function(*bound.args, **bound.kwargs)
            return await in_thread(lambda: function.function(*bound.args, **bound.kwargs))
    except SystemExit as error:
        raise RuntimeError(f"the function called sys.exit({error.code!r})") from error
    except KeyboardInterrupt as error:
        raise RuntimeError("the function raised KeyboardInterrupt") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # we are being stopped
        raise RuntimeError("the function was cancelled from inside") from error
    finally:
        work.attempt.leave()


async def in_thread(call: Callable[[], Any]) -> Any:
    """As `asyncio.to_thread`, in a thread of its own that does not keep the program from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(call)
        except StopIteration as stop:
            error = RuntimeError(f"the function raised StopIteration: {stop}")
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name="colonies function", daemon=True).start()
    return await future
