"""Random workflows, and a small loop that plays one with nothing but the rules of `colonies.core.dag`.

What a node does when it runs (ends well or not, with which output, adding what) is drawn from a seed and its
label alone, so whoever else plays the same workflow gives the same outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from colonies.core.adding import placed
from colonies.core.dag import Await, Dag, Run, Skip, Stop
from colonies.core.ends import End
from colonies.core.flow import WorkflowSpec
from colonies.core.node import Node, split

FINE = ("successful", "skipped")
PYTHON = {"runtimetype": "python"}


@dataclass
class Outcome:
    """What a process does. It gives `output`; it adds these, as plain nodes."""

    fails: bool
    output: Any
    adds: list[dict[str, Any]] = field(default_factory=list)
    between: bool = False


def outcome_of(seed: int, label: str) -> Outcome:
    """What the process of this label does in the workflow of this seed."""
    chance = Random(f"{seed} {label}")
    found = Outcome(chance.random() < 0.15, list(range(chance.randrange(4))))
    if label.count("/") < 2 and chance.random() < 0.25:
        letter, own = "xyz"[label.count("/")], split(label)[0].rpartition("/")[2]
        found.adds = nodes_of(chance, chance.randrange(1, 4), letter, seed, adder=own)
        found.between = chance.random() < 0.5
    return found


def nodes_of(
    chance: Random, count: int, letter: str, seed: int, *, adder: str | None = None
) -> list[dict[str, Any]]:
    """Plain nodes that make a DAG."""
    runs = {"func": "act", "kwargs": {"seed": seed}, "conditions": PYTHON}
    found: list[dict[str, Any]] = []
    for number in range(count):
        before = [node["name"] for node in found]
        parents = chance.sample(before, chance.randrange(0, min(3, len(before)) + 1))
        node: dict[str, Any] = {"name": f"{letter}{number}", "dependencies": parents}
        sources = [*before, *([adder] if adder else [])]
        kind = chance.random()
        if kind < 0.1 and adder is None:
            node["wait_signal"] = "go"
        else:
            node |= runs
            if kind < 0.35 and sources:
                node["map"] = {"$output": chance.choice(sources)}
        if parents and chance.random() < 0.25:
            node["when"] = f"length({parents[0]} || `[]`) > `1`"
        if chance.random() < 0.25:
            node["allow_failure"] = True
        found.append(node)
    if adder is None and chance.random() < 0.5:
        found.append({"name": "tidy", **runs, "finally": True})
    return found


def workflow_of(seed: int, **rules: Any) -> WorkflowSpec:
    chance = Random(seed)
    nodes = nodes_of(chance, chance.randrange(1, 7), "n", seed)
    return WorkflowSpec.parse({"nodes": nodes, **rules})


@dataclass
class Player:
    """Plays a workflow to its end, in an order drawn from `order`. `begun` tells what was known to have ended
    when a label began to run; `stopped` is the sequence of what stopped it."""

    seed: int
    spec: WorkflowSpec
    order: Random
    cancels: bool = False
    ends: dict[str, End] = field(default_factory=dict)
    begun: dict[str, dict[str, End]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    stopped: int | None = None
    cancelled_at: int | None = None
    begun_at: dict[str, int] = field(default_factory=dict)
    sequence: int = 10

    @property
    def dag(self) -> Dag:
        return Dag(self.spec, 1, 0, self.ends.get, self.cancelled_at)

    def play(self) -> Player:
        for _ in range(5_000):
            moves = list(self._moves())
            if not moves:
                return self
            label, move = self.order.choice(moves)
            self.sequence += 1
            self._make(label, move)
        raise AssertionError("it never ends")

    def _moves(self) -> list[tuple[str, Any]]:
        dag = self.dag
        moves: list[tuple[str, Any]] = []
        for label, node in dag.labels():
            if label in self.ends:
                continue
            assert dag.stands(label)
            stops = self.stopped is not None and not node.last
            if label in self.running:
                moves.append((label, "end"))
            say = dag.decide(label)
            if stops:
                moves.append((label, "stop"))
            elif label not in self.running and isinstance(say, Run | Await | Skip | Stop):
                moves.append((label, say))
        if self.cancels and self.cancelled_at is None and moves and self.order.random() < 0.1:
            return [("", "cancel")]
        return moves

    def _make(self, label: str, move: Any) -> None:
        match move:
            case "cancel":
                self.cancelled_at = self.stopped = self.sequence
            case "stop" | Stop():
                self._end(label, "cancelled")
            case Skip():
                self._end(label, "skipped")
            case Run() | Await():
                self.running.add(label)
                self.begun[label] = dict(self.ends)
                self.begun_at[label] = self.sequence
            case _:
                does = outcome_of(self.seed, label)
                node = self.dag.node(label)
                assert node is not None
                if node.wait_signal is not None:
                    self._end(label, "successful", {"by": "ann", "data": None})
                elif does.fails:
                    self._end(label, "failed")
                else:
                    adds = placed([Node.read(one) for one in does.adds], label) if does.adds else ()
                    self._end(label, "successful", does.output, adds, does.between)

    def _end(
        self,
        label: str,
        state: str,
        output: Any = None,
        adds: tuple[Node, ...] = (),
        between: bool = False,
    ) -> None:
        assert label not in self.ends, f"{label} ended twice"
        node = self.dag.node(label)
        assert node is not None
        self.running.discard(label)
        self.ends[label] = End(label, self.sequence, 0, state, "w1", output, adds=adds, between=between)
        fatal = state in ("failed", "cancelled") and not node.allow_failure and not node.last
        if fatal and self.spec.on_failure == "stop" and self.stopped is None:
            self.stopped = self.sequence
