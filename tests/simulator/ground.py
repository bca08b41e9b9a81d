"""The one place where the code under test gets another world: clocks, ids, chance, keys, log, disk.

`lay()` is called once, in a process that does nothing but simulate; what `Ground` holds is set anew for every
lifetime. Signatures are made by a fast hash: whether Ed25519 works is not asked here.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from colonies_projections import projector, store

from colonies import (
    codec,
    ids,
    instance,
    limiting,
    nkeys,
    orchestrator,
    outcome,
    packing,
    pulling,
    scheduling,
    subjects,
    witness,
)
from colonies.core.events import Completed
from colonies.core.process import Process
from colonies.witness import HighWater
from tests.simulator.link import Network
from tests.simulator.loop import Task, VirtualLoop

MEMO = 1_024  # what one lifetime asks for again and again
LOOK_S = 1.0  # the orchestrator's: what is not urgent it finds by looking


class Ground:
    """What is behind everything of the lifetime that runs."""

    def __init__(self) -> None:
        self.loop: VirtualLoop | None = None
        self.network: Network | None = None
        self.random = random.Random(0)
        self.count = 0
        self.marks: dict[str, HighWater] = {}
        self.complain: Callable[[str], None] = lambda text: None
        self.adds: Callable[[Process], dict[str, Any]] = lambda process: {}

    def begin(self, loop: VirtualLoop, seed: random.Random, complain: Callable[[str], None]) -> None:
        self.loop, self.random, self.complain = loop, seed, complain
        self.count = 0
        self.marks = {}
        Task.number_anew()


GROUND = Ground()


class ShuffledSet(dict[Any, None]):
    """A set whose order is the seed's, and not that of Python's hashes."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(dict.fromkeys(items))

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        dict.pop(self, item, None)

    def pop(self) -> Any:  # type: ignore[override]
        item = list(self)[GROUND.random.randrange(len(self))]
        del self[item]
        return item

    def __iter__(self) -> Iterator[Any]:
        return iter(list(super().__iter__()))


class _Log:
    """The log of the code under test: what it calls an exception of its own is a failure here."""

    def bind(self, **_: object) -> _Log:
        return self

    def debug(self, event: str, **about: object) -> None:
        pass

    info = warning = error = debug

    def exception(self, event: str, **about: object) -> None:
        error = sys.exc_info()[1]
        GROUND.complain(f"{event}: {type(error).__name__}: {error}")


class _Secrets:
    def choice(self, alphabet: str) -> str:
        return alphabet[int(GROUND.random.random() * len(alphabet))]


class _Random:
    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * GROUND.random.random()


def _now() -> float:
    return GROUND.loop.now if GROUND.loop is not None else 0.0


def new_id() -> str:
    """In the form of a ULID, in the order in which they were asked for."""
    GROUND.count += 1
    return f"0{GROUND.count:025d}"


def _signer(raw_seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    public = hashlib.sha256(raw_seed).digest()
    return public, lambda data: hashlib.blake2b(data, key=public).digest()


def _checker(public: bytes) -> Callable[[bytes, bytes], bool]:
    return lambda signature, data: hashlib.blake2b(data, key=public).digest() == signature


def _remember(colony: str, seen: HighWater) -> None:
    before = GROUND.marks.get(colony, HighWater())
    if seen.sequence > before.sequence:
        GROUND.marks[colony] = seen


def _discard(path: Path) -> None:
    """Nothing in this world makes a file unusable."""
    if (error := sys.exc_info()[1]) is not None:
        GROUND.complain(f"the views are built anew: {error}")
    store.discard(path)


def _adding(outcome_of: Callable[..., Any]) -> Callable[..., Any]:
    """Processes add to their workflows what the plan says: fields of `completed`."""

    async def outcome(worker: Any, session: Any, process: Process, *more: Any) -> Any:
        event = await outcome_of(worker, session, process, *more)
        return replace(event, **GROUND.adds(process)) if isinstance(event, Completed) else event

    return outcome


def lay() -> Ground:
    """Put it beneath the code. Once in a process."""
    time.monotonic = time.time = _now
    structlog.get_logger = lambda *args, **kwargs: _Log()  # for what is imported later
    for module in list(sys.modules.values()):
        if module.__name__.startswith("colonies") and hasattr(module, "_log"):
            module._log = _Log()  # type: ignore[attr-defined]
    ids.ULID = new_id  # type: ignore[assignment,misc]
    ids.secrets = _Secrets()  # type: ignore[assignment]
    instance.outcome_of = _adding(instance.outcome_of)
    outcome.random = _Random()  # type: ignore[assignment]
    nkeys._signer, nkeys._checker = _signer, _checker
    witness.recall = lambda colony: GROUND.marks.get(colony, HighWater())
    witness.remember = _remember
    orchestrator.LOOK_S = LOOK_S
    from tests.simulator import disk

    store.aiosqlite = disk  # type: ignore[assignment]
    projector.discard = _discard
    for module in (limiting, orchestrator, packing, scheduling):
        module.set = ShuffledSet  # type: ignore[attr-defined]
    # What is pure and asked again for the same bytes by every reader is worked out once.
    subjects.parse = functools.lru_cache(MEMO)(subjects.parse)
    store.version = functools.lru_cache(store.version)
    codec.open_ = functools.lru_cache(MEMO)(codec.open_)
    codec.Opened.event = _event_once(codec.Opened.event)  # type: ignore[method-assign]
    codec.Opened.is_signed_by = _signed_once(codec.Opened.is_signed_by)  # type: ignore[method-assign]
    assert pulling.time is time
    assert asyncio is not None
    return GROUND


def _event_once(event: Callable[[codec.Opened], Any]) -> Callable[[codec.Opened], Any]:
    known: dict[bytes, Any] = {}

    def once(opened: codec.Opened) -> Any:
        found = known.get(opened.digest)
        if found is None:
            if len(known) > MEMO:
                known.clear()
            found = known[opened.digest] = event(opened)
        return found

    return once


def _signed_once(check: Callable[[codec.Opened, str], bool]) -> Callable[[codec.Opened, str], bool]:
    good: dict[tuple[bytes, bytes], str] = {}

    def once(opened: codec.Opened, key: str) -> bool:
        known = good.get((opened.digest, opened.signature))
        if known == key:
            return True
        if not check(opened, key):
            return False
        if len(good) > MEMO:
            good.clear()
        good[opened.digest, opened.signature] = key
        return True

    return once
