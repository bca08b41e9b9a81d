"""The crons and generators of a lifetime: when they are due, and what their clients do with them.

What is done with one of them by one client, in order, is a `Script`. Packed
arguments are numbers that are given once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from tests.simulator.item import Action, Item

FIRST_NUMBER = 300  # of the items of their nodes
LEFT_S = 6.0  # before the end nothing is packed
EXPRESSIONS = ("* * * * * *", "*/2 * * * * *", "1/3 * * * * *", "5,10,15,40,45,50,55 * * * * *", "* * * * *")
INTERVALS_S = (1.0, 1.5, 2.0, 2.5, 3.0)

What = Literal["add", "pause", "resume", "run", "remove", "pack"]


@dataclass(slots=True)
class Deed:
    """What a client does at `at` (s). `args` are packed together."""

    at: float
    what: What
    args: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    """What one client does with what has this name. `when`: with which a cron or generator is added."""

    client: int
    kind: Literal["cron", "generator", "colony", "queue", "worker"]
    name: str
    spec: dict[str, Any]
    when: dict[str, Any]
    deeds: list[Deed]


class Drawing:
    """The crons and generators as they are drawn. `items` gets what their nodes run."""

    def __init__(self, random: Random, clients: int, items: dict[int, Item]) -> None:
        self.random = random
        self.clients = clients
        self.items = items
        self.scripts: list[Script] = []
        self.end = 10.0 + 3.0 * random.random()

    def chance(self, of: float) -> bool:
        return self.random.random() < of

    def draw(self) -> list[Script]:
        kind = self.random.random()
        if kind < 0.6:
            self._cron("tick")
        if kind < 0.08:
            self._cron("tock")
        if kind > 0.54:
            self._generator("heap")
        return self.scripts

    # --- crons ---------------------------------------------------------------------------------------

    def _cron(self, name: str) -> None:
        random = self.random
        when: dict[str, Any] = {"catch_up": random.choice(["none", "one", "one", "all", "all"])}
        if self.chance(0.35):
            when["cron"] = random.choice(EXPRESSIONS)
            if self.chance(0.3):
                when["zone"] = "Asia/Kathmandu"  # a quarter of an hour, and no seconds, from full hours
        else:
            when["interval_s"] = random.choice(INTERVALS_S)
        if self.chance(0.25):
            when["jitter_s"] = random.choice([0.5, 2.0])
        if self.chance(0.4):
            when["wait_previous"] = True
        end = self.end + 8.0 if when.get("cron") == "* * * * *" else self.end
        deeds = [Deed(0.4 * random.random(), "add")]
        if self.chance(0.3):
            at = 1.0 + 4.0 * random.random()
            deeds += [Deed(at, "pause"), Deed(at + 4.0 * random.random() ** 1.5, "resume")]
        if self.chance(0.3):
            deeds.append(Deed(6.0 * random.random(), "run"))
        if self.chance(0.12):
            at = 2.0 + 4.0 * random.random()
            deeds += [Deed(at, "remove"), Deed(at + random.choice([0.0, 2.0]), "add")]
        deeds.sort(key=lambda deed: deed.at)
        if [deed.what for deed in deeds].index("add") or _mixed(deeds):  # run or paused before it is there
            deeds = [deeds[0] if deeds[0].what == "add" else Deed(0.0, "add")]
        deeds.append(Deed(end, "remove"))
        spec = {"name": name, "nodes": self._nodes({"p": {"$previous": "a.count"}})}
        client = random.randrange(self.clients)
        self.scripts.append(Script(client, "cron", name, spec, when, deeds))

    def _nodes(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        first = self._node("a", given)
        if self.chance(0.25):
            return [first, self._node("b", {"a": {"$output": "a.n"}})]
        return [first]

    def _node(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        item = self._item()
        node: dict[str, Any] = {"name": name, "func": "node", "args": [item.number]}
        node |= {"conditions": {"runtimetype": "python"}, "kwargs": {"given": given}}
        if len(item.actions) > 1 and self.chance(0.5):
            node["maxretries"] = 1
        return node

    def _item(self) -> Item:
        random = self.random
        number = FIRST_NUMBER + len(self.items)
        takes_s = random.random() * random.choice([0.0, 0.0, 0.3, 2.5])
        actions: list[tuple[Action, float, float]] = [("ok", takes_s, 0.0)]
        if self.chance(0.2):
            actions.insert(0, (random.choice(["error", "fail"]), 0.3 * random.random(), 0.0))
        item = self.items[number] = Item(number, {}, actions, 0.0)
        return item

    # --- generators ----------------------------------------------------------------------------------

    def _generator(self, name: str) -> None:
        random = self.random
        when: dict[str, Any] = {"trigger": random.choice([1, 2, 2, 3, 3, 4, 5])}
        if self.chance(0.6):
            when["timeout_s"] = random.choice([1.0, 1.5, 3.0])
        deeds = [Deed(0.3 * random.random(), "add")]
        if self.chance(0.1):
            at = 2.0 + 4.0 * random.random()
            deeds += [Deed(at, "remove"), Deed(at + random.choice([0.0, 1.0]), "add")]
        deeds.append(Deed(self.end, "remove"))
        node = self._node("a", {"g": {"$packed": ""}, "first": {"$packed": "0"}})
        nodes = [node]
        if self.chance(0.4):
            node["map"] = {"$packed": ""}
            node["args"].append({"$item": ""})
        if self.chance(0.2):
            about = "a" if "map" in node else "a.n"
            nodes.append(self._node("b", {"a": {"$output": about}}))
        spec = {"name": name, "nodes": nodes}
        self.scripts.append(Script(random.randrange(self.clients), "generator", name, spec, when, deeds))
        for packer in range(random.choice([1, 1, 2, 3, 4])):
            packing, number = [], 1_000 * (packer + 1)
            for _ in range(random.choice([1, 1, 2, 3])):
                count = random.choice([1, 1, 2, 3, 7])
                at = 0.3 + (self.end - LEFT_S) * random.random() ** 2
                packing.append(Deed(at, "pack", list(range(number, number + count))))
                number += count
            packing.sort(key=lambda deed: deed.at)
            self.scripts.append(Script(packer % self.clients, "generator", name, {}, {}, packing))


def _mixed(deeds: list[Deed]) -> bool:
    """Is it paused when it is removed, or not there when it is paused or run?"""
    there = paused = False
    for deed in deeds:
        if deed.what == "add":
            there, paused = True, False
        elif not there or (deed.what in ("pause", "resume") and (deed.what == "resume") != paused):
            return True
        elif deed.what in ("pause", "resume"):
            paused = deed.what == "pause"
        elif deed.what == "remove":
            there = False
    return False


def draw_times(random: Random, clients: int, items: dict[int, Item]) -> list[Script]:
    """The crons and generators of a lifetime."""
    return Drawing(random, clients, items).draw()
