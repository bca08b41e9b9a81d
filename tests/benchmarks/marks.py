"""When each step of a round trip began and ended, in both of its processes, by one clock.

Marks are set from outside, in benchmarks only: a name and the time (ns, CLOCK_MONOTONIC, which all processes
of a machine share) before or after a function of the library. A trip is the way of one process from `submit`
to its verified result; `legs` cuts it at the marks, so that the legs add up to all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colonies import codec, instance, link, queueing, watching
from colonies.direct import DirectClient

Mark = tuple[str, int]

# Name, owner, function: `NAME+` is marked before it, `NAME-` after it.
_BOTH: list[tuple[str, Any, str]] = [
    ("read", asyncio.StreamReader, "feed_data"),
    ("seal", codec, "seal"),
    ("write", DirectClient, "_write_pending"),
]
CLIENT = [*_BOTH, ("event", watching.Watcher, "_on_event"), ("verify", codec, "verify")]
WORKER = [
    *_BOTH,
    ("offer", queueing.JetStreamOffers, "_on_message"),
    ("verify", codec, "verify"),
    ("answer", link.Link, "_on_answer"),
    ("run", instance, "outcome_of"),
]

# The way there and back: the side, the mark that ends a leg, and what the leg is called. Of several marks
# of a name the first after the leg before counts; of `read+` the last before the mark that follows it.
WAY: list[tuple[str, str, str]] = [
    ("client", "seal+", "client_prepare"),
    ("client", "seal-", "client_encode_sign"),
    ("client", "write-", "client_publish"),
    ("worker", "read+", "broker_store_deliver"),
    ("worker", "offer+", "worker_wake_pull"),
    ("worker", "verify+", "worker_decode"),
    ("worker", "verify-", "worker_verify"),
    ("worker", "seal+", "worker_judge"),
    ("worker", "seal-", "worker_encode_sign"),
    ("worker", "write-", "worker_publish"),
    ("worker", "read+", "broker_store_assigned"),
    ("worker", "answer+", "worker_wake_assigned"),
    ("worker", "run+", "worker_evolve"),
    ("worker", "run-", "worker_run"),
    ("worker", "seal+", "worker_judge_result"),
    ("worker", "seal-", "worker_encode_sign_result"),
    ("worker", "write-", "worker_publish_result"),
    ("client", "read+", "broker_store_result"),
    ("client", "event+", "client_wake"),
    ("client", "verify+", "client_decode"),
    ("client", "verify-", "client_verify"),
    ("client", "end", "client_judge_return"),
]


class Marks:
    """The marks of this process."""

    def __init__(self, where: list[tuple[str, Any, str]]) -> None:
        self.made: list[Mark] = []
        self._where = where

    def make(self, name: str) -> None:
        self.made.append((name, time.monotonic_ns()))

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, owner, attribute in self._where:
                function = getattr(owner, attribute)
                stack.callback(setattr, owner, attribute, function)
                setattr(owner, attribute, self._marking(name, function))
            yield

    @contextlib.contextmanager
    def kept(self, path: Path) -> Iterator[None]:
        """As `installed`; leaves the marks in the file."""
        try:
            with self.installed():
                yield
        finally:
            path.write_text(json.dumps(self.made))

    def _marking(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        make, before, after = self.make, f"{name}+", f"{name}-"
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wait(*args: Any, **kwargs: Any) -> Any:
                make(before)
                try:
                    return await function(*args, **kwargs)
                finally:
                    make(after)

            return wait

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            make(before)
            try:
                return function(*args, **kwargs)
            finally:
                make(after)

        return call


def legs(client: list[Mark], worker: list[Mark]) -> list[dict[str, float]]:
    """The trips, from `begin` to `end`, cut into legs (us). One with a mark missing or out of order is left
    out: something else came in between, such as a heartbeat."""
    trips = []
    begins = [ns for name, ns in client if name == "begin"]
    ends = [ns for name, ns in client if name == "end"]
    for began, ended in zip(begins, ends, strict=True):
        within = [[mark for mark in side if began <= mark[1] <= ended] for side in (client, worker)]
        trip = _trip(dict(zip(("client", "worker"), within, strict=True)), began)
        if trip is not None:
            trips.append(trip)
    return trips


def _trip(sides: dict[str, list[Mark]], began: int) -> dict[str, float] | None:
    found: dict[str, float] = {}
    at = began
    for number, (side, wanted, leg) in enumerate(WAY):
        marks = sides[side]
        if wanted == "read+":
            end = _first(marks, WAY[number + 1][1], at)
            read = [ns for name, ns in marks if name == "read+" and ns <= (end or 0)]
            until = read[-1] if read else None
        else:
            until = _first(marks, wanted, at)
        if until is None or until < at:
            return None
        found[leg], at = (until - at) / 1e3, until
    return found


def _first(marks: list[Mark], wanted: str, at: int) -> int | None:
    """The time of the first mark of this name that is not before `at`."""
    return next((ns for name, ns in marks if name == wanted and ns >= at), None)
