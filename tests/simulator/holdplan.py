"""Lifetimes with pauses, and with limits: what an owner says when, and which processes share a key."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulator.item import Item
from tests.simulator.timeplan import Deed, Script

OWNER_CLIENT = -1  # the owner's, of which there is one


def draw_pauses(random: Random, workers: list[str]) -> list[Script]:
    """What the owner pauses and resumes. The queue is that of most processes."""
    found = []
    for kind in random.sample(["colony", "queue", "worker"], random.choice([1, 1, 2])):
        name = random.choice(workers) if kind == "worker" else ""
        at, deeds = 1.2 * random.random(), []
        for _ in range(random.choice([1, 1, 2])):
            until = at + 0.2 + 3.0 * random.random()
            deeds += [Deed(at, "pause"), Deed(until, "resume")]
            at = until + random.random()
        found.append(Script(OWNER_CLIENT, kind, name, {}, {}, deeds))  # type: ignore[arg-type]
    return found


def limit_all(random: Random, items: list[Item]) -> None:
    """Have these processes share a key, or two."""
    keys: list[dict[str, Any]] = []
    for name in ("one", "two")[: random.choice([1, 1, 2])]:
        kind = random.random()
        limit: dict[str, Any] = {"key": name}
        if kind < 0.75:
            limit["running"] = random.choice([1, 1, 2])
        if kind > 0.5:
            limit |= {"rate": random.choice([1, 2]), "per": "second"}
        keys.append(limit)
    for item in items:
        item.spec.pop("maxwaittime", None)
        item.spec["conditions"].pop("workernames", None)
        item.spec["limits"] = random.sample(keys, random.choice([1, len(keys)]))
