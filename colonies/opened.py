"""A workflow that has not ended, with the counters by which its conductor knows what to look at.

An end costs what hangs on it, however large the workflow is: a node is looked at when the last of its parents
has ended. Pure: it reads nothing and says nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from colonies.core.dag import Dag
from colonies.core.node import Node, split
from colonies.core.workflow import Workflow


@dataclass(slots=True)
class Open:
    """By name: how many parents a node still waits for, who waits for it, how many parts of it are still to
    end. `ready` are the nodes to look at, `left` counts the names that have not ended, `said` is what was
    said already, `contested` what met another event, and `stopped` what stops it: a sequence, why, which
    node."""

    workflow: Workflow
    dag: Dag
    waits: dict[str, int] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    ready: deque[str] = field(default_factory=deque)
    ended: set[str] = field(default_factory=set)
    last: list[str] = field(default_factory=list)
    said: set[tuple[str, str]] = field(default_factory=set)
    contested: set[tuple[str, str]] = field(default_factory=set)
    left: int = 0
    stopped: tuple[int, str, str | None] | None = None

    def names(self) -> Iterable[str]:
        """All nodes that have not ended and do not run last."""
        return [name for name in self.waits if name not in self.ended and name not in self.last]

    def add(self, node: Node) -> None:
        """One more node; its parents are known by name."""
        parents = list(self.dag.parents(node))
        if node.last:
            self.last.append(node.name)
        self.left += 1
        waiting = [parent for parent in parents if parent not in self.ended]
        self.waits[node.name] = len(waiting)
        for parent in waiting:
            self.children.setdefault(parent, []).append(node.name)
        if not waiting:
            self.ready.append(node.name)

    def add_more(self, adder: str, adds: Iterable[Node], *, between: bool) -> None:
        """What a process, the node or part `adder`, added when it ended."""
        added = list(adds)
        for node in added:
            self.add(node)
        waited_for = {parent for node in added for parent in node.parents}
        ends = [node.name for node in added if node.name not in waited_for]
        children = self.children.get(split(adder)[0], []) if between else []
        for child in children:
            if child in {node.name for node in added}:
                continue
            self.waits[child] += len(ends)
            for name in ends:
                self.children.setdefault(name, []).append(child)
        for child in self.last:
            self.waits[child] += len(added)
            for node in added:
                self.children.setdefault(node.name, []).append(child)

    def ended_label(self, label: str) -> None:
        """A process ended, or a part of one that maps: perhaps its node has."""
        name, part = split(label)
        if part is not None:
            self._over(label)  # for what it added itself
            left = self.parts.get(name)
            if left is None:  # the parts are counted when the node is looked at
                return
            self.parts[name] = left - 1
            if left > 1:
                return
        self.ended_name(name)

    def ended_name(self, name: str) -> None:
        """A node ended, with all of its parts."""
        if name in self.ended:
            return
        self.left -= 1
        self._over(name)

    def _over(self, ended: str) -> None:
        """Nobody need wait for this node or part any more."""
        self.ended.add(ended)
        for child in self.children.pop(ended, ()):
            self.waits[child] -= 1
            if self.waits[child] == 0:
                self.ready.append(child)

    def stop(self, sequence: int, reason: str, cause: str | None) -> None:
        """Nothing more of it begins; all that has not ended is looked at."""
        self.stopped = (sequence, reason, cause)
        self.ready.extend(self.names())
