"""What must hold of pauses and of limits, in words of its own: it asks none of the code's rules.

`Holds` reads who paused what, and who was granted places under which key. A process has its place from the
grant on, until it ends or an attempt of it fails: see docs/concurrency.md.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulator.broker import SECOND

if TYPE_CHECKING:
    from tests.simulator.oracle import Life, Told

PAUSES = ("paused", "drained")
Held = tuple[str, str]  # what is paused: ("colony", ""), ("queue", its name) or ("member", its name)


@dataclass(slots=True)
class Key:
    """What was granted under one key: processes with the sequence that their grant cites, and when (ns)."""

    places: dict[str, int] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)


class Holds:
    """The fold. `broken(rule, about)` is called for what must never be stored."""

    def __init__(self, broken: Callable[..., None], lives: dict[str, Life]) -> None:
        self.paused: dict[Held, int] = {}  # since when (ns)
        self._keys: dict[str, Key] = {}
        self._broken = broken
        self._lives = lives

    # --- pauses --------------------------------------------------------------------------------------

    def read(self, kind: str, entity: str, told: Told, role: str) -> None:
        """An event of the colony, a queue or a member; most are of no interest here."""
        if told.event not in (*PAUSES, "resumed"):
            return
        held = kind, entity
        if role != "owner":
            self._broken(f"{told.event} by a {role}", held)
        if (held in self.paused) == (told.event in PAUSES):
            self._broken(f"{told.event}, and it was so before", held)
        if told.event == "resumed":
            self.paused.pop(held, None)
        else:
            self.paused[held] = told.time

    def since(self, queue: str, worker: str) -> int | None:
        """Since when this worker takes nothing of this queue; None: it does."""
        found = [("colony", ""), ("queue", queue), ("member", worker)]
        return min((self.paused[held] for held in found if held in self.paused), default=None)

    # --- limits --------------------------------------------------------------------------------------

    def granted(self, digest: str, told: Told, role: str) -> None:
        """Places were granted."""
        name = told.data["key"]
        if role != "service" or digest != _digest(name):
            self._broken(f"granted by a {role}, for another key", name)
        key = self._keys.setdefault(name, Key())
        for process, cites in told.data["processes"].items():
            life = self._lives.get(process)
            if life is None or life.final or (life.state == "blocked" and life.sequence != cites):
                continue  # it has moved on, and the grant is none
            if life.state == "blocked":
                key.times.append(told.time)
            key.places[process] = cites
        self._check_rate(name, key)
        self.check(name)

    def _limits(self, name: str) -> Iterator[dict[str, Any]]:
        """What those say of a key who have it; all say the same."""
        for life in self._lives.values():
            for limit in _limits_of(life):
                if limit["key"] == name:
                    yield limit
                    return

    def _check_rate(self, name: str, key: Key) -> None:
        for limit in self._limits(name):
            rate = limit.get("rate")
            if rate is not None and len(key.times) > rate and key.times[-1] < key.times[-1 - rate] + SECOND:
                self._broken(f"more than {rate} places were granted within a second", name)

    def check(self, name: str) -> None:
        """Are no more in workers' hands, on their way there, or granted a place, than may be?"""
        places = self._keys[name].places if name in self._keys else {}
        there = [
            life.id
            for life in self._lives.values()
            if any(limit["key"] == name for limit in _limits_of(life))
            and (
                life.state in ("waiting", "running")
                or (life.state == "blocked" and places.get(life.id) == life.sequence)
            )
        ]
        for limit in self._limits(name):
            running = limit.get("running")
            if running is not None and len(there) > running:
                self._broken(f"{len(there)} have a place, and {running} may", there)

    def moved(self, life: Life) -> None:
        """An event of this process was folded."""
        for limit in _limits_of(life):
            self.check(limit["key"])

    def offer_wrong(self, life: Life) -> str | None:
        """Is it offered, after its submission or a failure, without a place?"""
        for limit in _limits_of(life):
            key = self._keys.get(limit["key"])
            if key is None or key.places.get(life.id) != life.sequence:
                return f"it has no place under {limit['key']}"
        return None


def _limits_of(life: Life) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = life.spec.get("limits") or []
    return found


def _digest(key: str) -> str:
    return base64.b32encode(hashlib.sha256(key.encode()).digest()[:16]).decode().rstrip("=").lower()
