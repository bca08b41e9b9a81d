"""The workflows of a lifetime: small DAGs with all that a node can say, drawn from the seed.

A node that runs something has an item in the plan, whose number is its function's first argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.simulator.item import Action, Item

FIRST_NUMBER = 100  # of a node's item; those below are processes of their own
SIZES = (2, 2, 3, 3, 3, 4, 4, 5, 6, 8)
SIGNALS = ("go", "stop")


@dataclass(slots=True)
class Flow:
    """One workflow to be. `signals` are sent so many seconds after it was submitted: (name, seconds).

    It is cancelled after so many seconds, or as soon as its client heard of so many events.
    """

    number: int
    spec: dict[str, Any]
    submit_at: float
    key: str | None = None
    cancel_after: float | None = None
    cancel_heard: int = 1_000
    signals: list[tuple[str, float]] = field(default_factory=list)


class Drawing:
    """One workflow as it is drawn. `items` gets what its nodes run."""

    def __init__(self, random: Random, items: dict[int, Item], mapped: bool) -> None:
        self.random = random
        self.items = items
        self.maps = mapped
        self.nodes: list[dict[str, Any]] = []
        self.kinds: dict[str, str] = {}  # by name: "work", "map" or "signal"

    def chance(self, of: float) -> bool:
        return self.random.random() < of

    def node(self, name: str, parents: list[str]) -> dict[str, Any]:
        signal = self.chance(0.1)
        found: dict[str, Any] = {"name": name}
        if parents:
            found["dependencies"] = parents
        if signal:
            timeout = {"timeout": self.random.choice([0.5, 2.0, 4.0])}
            found["wait_signal"] = {"name": self.random.choice(SIGNALS), **timeout}
        else:
            self._works(found, parents)
        sources = [parent for parent in parents if self.kinds[parent] == "work"]
        if sources and self.chance(0.2):
            found["when"] = self._condition(name, self.random.choice(sources))
        if self.chance(0.15):
            found["allow_failure"] = True
        self.kinds[name] = "signal" if signal else "map" if "map" in found else "work"
        return found

    def _works(self, found: dict[str, Any], parents: list[str]) -> None:
        random = self.random
        item = self._item()
        found |= {"func": "node", "args": [item.number], "conditions": {"runtimetype": "python"}}
        self._limit(found, item)
        if self.chance(0.1):
            found["delay"] = random.choice([0.3, 1.0, 2.5])
        if self.chance(0.04):
            found["maxwaittime"] = random.choice([0.5, 3.0])
        if self.chance(0.05):
            found["priority"] = 5
        sources = [parent for parent in parents if self.kinds[parent] == "work"]
        if sources and self.chance(0.35):
            self._maps_over(found, {"$output": f"{random.choice(sources)}.list"})
        elif self.maps and self.chance(0.3):
            self._maps_over(found, {"$parameter": "list"})
        if parents and self.chance(0.4):
            chosen = random.sample(parents, min(len(parents), random.choice([1, 2])))
            found["kwargs"] = {"given": {p: {"$output": self._about(p)} for p in chosen}}
            rest = [p for p in parents if p not in chosen]  # a reference is a dependency as well
            found["dependencies"] = rest
            if not rest:
                del found["dependencies"]
        if self.chance(0.15):
            item.adds, item.between = self._added(item), self.chance(0.5)

    def _limit(self, found: dict[str, Any], item: Item) -> None:
        if len(item.actions) > 1 and self.chance(0.7):
            found["maxretries"] = self.random.choice([1, 2, -1])
        if any(what == "hang" for what, _, _ in item.actions):
            found["maxexectime"] = 0.4
            item.actions[-1] = ("ok", 0.0, 0.0)  # the last one can succeed

    def _maps_over(self, found: dict[str, Any], reference: dict[str, str]) -> None:
        found["map"] = reference
        found["args"].append({"$item": ""})

    def _about(self, parent: str) -> str:
        return {"work": f"{parent}.n", "map": parent, "signal": f"{parent}.data"}[self.kinds[parent]]

    def _condition(self, name: str, parent: str) -> str:
        """Of its output: which attempt it is of, or that there is none. A group's name is left out."""
        if name.startswith("q/"):
            parent = parent.removeprefix("q/")
        quoted = f'"{parent}"' if "/" in parent else parent
        return self.random.choice([f"{quoted}.n == `1`", f"{quoted}.n == `1`", f"!{quoted}"])

    def _item(self) -> Item:
        random = self.random
        number = FIRST_NUMBER + len(self.items)
        kind = random.random()
        actions: list[tuple[Action, float, float]] = [("ok", self._takes_s(), 0.0)]
        if kind > 0.75:
            bad: Action = "fail" if kind > 0.88 else "hang" if kind > 0.85 else "error"
            actions.insert(0, (bad, self._takes_s(), 0.0))
            if random.random() < 0.2:
                actions.insert(1, ("later", 0.0, random.choice([0.1, 0.7])))
        item = self.items[number] = Item(number, {}, actions, 0.0)
        item.parts = random.choice([0, 1, 2, 2, 3])
        return item

    def _takes_s(self) -> float:
        kind = self.random.random()
        longest = 0.0 if kind < 0.6 else 0.4 if kind < 0.94 else 3.0 if kind < 0.98 else 12.0
        return longest * self.random.random()

    def _added(self, adder: Item, level: int = 0) -> list[dict[str, Any]]:
        """Nodes as a process adds them: named for themselves."""
        found: list[dict[str, Any]] = []
        first, second = ("xy", "vw", "st")[level]
        for name in (first, second)[: self.random.choice([1, 2])]:
            item = self._item()
            node: dict[str, Any] = {"name": name, "func": "node", "args": [item.number]}
            node["conditions"] = {"runtimetype": "python"}
            self._limit(node, item)
            if self.chance(0.1) and level < 2:
                item.adds, item.between = self._added(item, level + 1), self.chance(0.5)
                _name_adder(self.items, node, name)
            if found and self.chance(0.6):
                if self.chance(0.5):
                    about = first if "map" in found[0] else f"{first}.n"
                    node["kwargs"] = {"given": {first: {"$output": about}}}
                else:
                    node["dependencies"] = [first]
            if self.chance(0.15):
                node["allow_failure"] = True
            if not found and self.chance(0.25):
                self._maps_over(node, {"$output": "SELF.list"})
            found.append(node)
        return found


def draw_flow(random: Random, number: int, items: dict[int, Item]) -> Flow:
    """One workflow."""
    mapped = random.random() < 0.08
    drawing = Drawing(random, items, mapped)
    nested = random.random() < 0.1
    count = random.choice(SIZES)
    names = [("q/" if nested and n % 2 else "") + "abcdefgh"[n] for n in range(count)]
    for n, name in enumerate(names):
        before = names[:n]
        parents = random.sample(before, min(n, random.choice([0, 1, 1, 1, 1, 2, 2, 3])))
        node = drawing.node(name, sorted(parents, key=before.index))
        drawing.nodes.append(node)
        _name_adder(items, node, name)
    if random.random() < 0.2:
        last = drawing.node("last", [])
        drawing.nodes.append({**last, "finally": True})
        _name_adder(items, last, "last")
    if random.random() < 0.3:
        random.shuffle(drawing.nodes)
    spec: dict[str, Any] = {"name": f"flow{number}", "nodes": drawing.nodes}
    if mapped:
        spec["parameters"] = {"list": [7, 8, 9][: random.choice([0, 1, 2, 3])]}
    if random.random() < 0.25:
        spec["on_failure"] = "stop"
    if random.random() < 0.06:
        spec["delay"] = random.choice([0.4, 2.0])
    if random.random() < 0.04:
        spec["maxwaittime"] = 3.0
    signals = [(name, 4.0 * random.random() ** 2) for name in SIGNALS if random.random() < 0.6]
    key = f"flow{number}" if random.random() < 0.5 else None
    if key is not None:  # who has it sends its signals, so they can be waited for without an end
        for node in drawing.nodes:
            if node.get("wait_signal", {}).get("name") in dict(signals) and random.random() < 0.5:
                del node["wait_signal"]["timeout"]
    hasty = random.random() < 0.15
    return Flow(
        number,
        spec,
        submit_at=random.random() ** 2 * 1.5,
        key=key,
        cancel_after=3.0 if hasty else random.random() ** 2 * 3.0 if random.random() < 0.12 else None,
        cancel_heard=random.randrange(1, 3 * count) if hasty else 1_000,
        signals=signals,
    )


def _name_adder(items: dict[int, Item], node: dict[str, Any], name: str) -> None:
    """What a process adds may map over its own output, by its own short name."""
    if "args" not in node:
        return
    for added in items[node["args"][0]].adds:
        if added.get("map") == {"$output": "SELF.list"}:
            added["map"] = {"$output": f"{name.rpartition('/')[2]}.list"}
