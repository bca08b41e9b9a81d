"""Where processor time goes inside a part: counts of calls, and what some of them took.

A meter wraps functions of the library from outside, in benchmarks only. Every call is counted; one in SAMPLE
is timed by the processor time of its thread, which costs too much for all (0.8 us a reading). With it the
calls inside it are timed, so that each function is charged only with what it did itself. Coroutines are timed
step by step: what they wait for costs nothing. The numbers lie in a file that is mapped into memory, so that
whoever measures can read them while the part works.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import mmap
import time
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

from nats.protocol.parser import Parser

from colonies import (
    codec,
    direct,
    history,
    jetstream,
    link,
    nkeys,
    orchestrator,
    queueing,
    session,
    subjects,
    watching,
)
from colonies.client import Client, Handle
from colonies.core import process as processes
from colonies.instance import Instance
from colonies.pulling import Puller

SAMPLE = 17  # a prime: what alternates must not hide behind it
CALIBRATION = 20_000  # calls
_BYTES = 24  # for each function: calls, timed calls, ns of these

# What is metered, by what it is for; a function is named wherever its callers look it up. Only what is called
# about as often as processes end: of what is called rarely, one in SAMPLE says nothing.
FUNCTIONS: dict[str, list[tuple[Any, str]]] = {
    "sign": [(nkeys.KeyPair, "sign")],
    "verify": [(codec, "verify")],
    "encode": [(codec, "seal"), (codec, "data_of")],
    "decode": [
        (codec, "open_"),
        (codec.Opened, "event"),
        (subjects, "parse"),
        (direct, "_parsed"),
        (jetstream, "_from_headers"),
        *((module, "examine") for module in (history, session, watching, orchestrator)),
    ],
    "judge": [(processes, "judge"), (processes, "evolve"), (watching, "evolve")],
    "read": [(Parser, "parse"), (direct.DirectClient, "_process_msg")],
    "publish": [
        (direct.DirectClient, "publish"),
        (link.Link, "start"),
        (link.Link, "_on_answer"),
        (jetstream, "sequence_of"),
        (direct.DirectClient, "_write_pending"),
    ],
    "pull": [
        (queueing.JetStreamOffers, "_on_message"),
        (queueing.JetStreamOffers, "pull"),
        (Puller, "receive"),
        (Puller, "sweep"),
    ],
    "ack": [(queueing._Delivery, "ack")],
    "own": [
        (Instance, "_take_and_run"),
        (Client, "prepare"),
        (Handle, "result"),
        (watching.Watcher, "_on_event"),
        (orchestrator.Orchestrator, "_fold"),
        (history.History, "add"),
    ],
}
SLOTS = [(kind, owner, name) for kind, found in FUNCTIONS.items() for owner, name in found]


class Meter:
    """Counts and times into the file `path`."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_BYTES * (len(SLOTS) + 1)))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self._timing = False  # is a call around this one being timed?
        self._inner_ns = 0  # spent so far in metered calls inside the one that is being timed
        self._itself_ns = self._around_ns = 0
        self._calibrate()

    def _calibrate(self) -> None:
        """What timing a call adds to it, and besides to the call around it."""
        empty = self._timed(len(SLOTS), lambda: None)
        self._timing = True
        started = time.thread_time_ns()
        for _ in range(CALIBRATION):
            empty()
        whole_ns = time.thread_time_ns() - started
        self._timing = False
        itself_ns = self._numbers[3 * len(SLOTS) + 2]
        self._itself_ns = itself_ns // CALIBRATION
        self._around_ns = (whole_ns - itself_ns) // CALIBRATION

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Wrap everything, until the block is left."""
        with contextlib.ExitStack() as stack:
            for slot, (_, owner, name) in enumerate(SLOTS):
                function = getattr(owner, name)
                stack.callback(setattr, owner, name, function)
                wrap = self._stepped if inspect.iscoroutinefunction(function) else self._timed
                setattr(owner, name, wrap(slot, function))
            yield

    def _timed(self, slot: int, function: Callable[..., Any]) -> Callable[..., Any]:
        numbers, calls = self._numbers, 3 * slot

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            numbers[calls] += 1
            if not self._timing and numbers[calls] % SAMPLE:
                return function(*args, **kwargs)
            before = self._begin()
            started = time.thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                self._end(calls, time.thread_time_ns() - started, before)

        return run

    def _begin(self) -> tuple[bool, int]:
        before = self._timing, self._inner_ns
        self._timing, self._inner_ns = True, 0
        return before

    def _end(self, calls: int, whole_ns: int, before: tuple[bool, int]) -> None:
        self._numbers[calls + 1] += 1
        self._numbers[calls + 2] += max(0, whole_ns - self._inner_ns - self._itself_ns)
        self._timing, self._inner_ns = before[0], before[1] + whole_ns + self._around_ns

    def _stepped(self, slot: int, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            return await steps(function(*args, **kwargs))

        @types.coroutine
        def steps(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
            step: Callable[..., tuple[bool, Any]] = send
            given: tuple[Any, Any] = coroutine, None
            while True:
                ended, value = step(*given)
                if ended:
                    return value
                try:
                    step, given = send, (coroutine, (yield value))
                except BaseException as error:
                    step, given = throw, (coroutine, error)

        def sent(coroutine: Coroutine[Any, Any, Any], value: Any) -> tuple[bool, Any]:
            try:
                return False, coroutine.send(value)
            except StopIteration as end:
                return True, end.value

        def thrown(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> tuple[bool, Any]:
            try:
                return False, coroutine.throw(error)
            except StopIteration as end:
                return True, end.value

        send, throw = self._timed(slot, sent), self._timed(slot, thrown)
        return run


Reading = list[tuple[int, int, int]]


def reading(path: Path) -> Reading:
    """The numbers of a meter now."""
    numbers = memoryview(path.read_bytes()).cast("q").tolist()
    return [(numbers[at], numbers[at + 1], numbers[at + 2]) for at in range(0, 3 * len(SLOTS), 3)]


def spent_us(before: Reading, after: Reading) -> dict[str, float]:
    """Processor time (us) between two readings, by what it was for."""
    spent = dict.fromkeys(FUNCTIONS, 0.0)
    for (kind, _, _), first, last in zip(SLOTS, before, after, strict=True):
        calls, timed, ns = (new - old for old, new in zip(first, last, strict=True))
        if timed:
            spent[kind] += calls * ns / timed / 1e3
    return spent
