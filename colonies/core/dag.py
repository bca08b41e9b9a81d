"""The rules of a workflow: what may be said of a node, given how the nodes before it ended.

    all parents ended well      released, after its delay (or awaited, where it waits for a signal)
    its condition does not hold, or all parents were skipped      skipped
    a parent failed or was cancelled, and may not      cancelled, naming it
    the workflow was cancelled, or stops at a failure      cancelled

`decide` is asked by the orchestrator before the fact and by every reader after it, so what one says the
other accepts. Pure: ends come in by label, and nothing here knows where from. A node may be a *part* of one
that maps (`each[3]`), or one that a process added to its workflow when it completed (`split/count`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from colonies.core import when
from colonies.core.ends import End, Length, list_of, not_none
from colonies.core.flow import WorkflowSpec
from colonies.core.names import shown
from colonies.core.node import MAX_MAPPED, Node, adder_of, label_of, seen_from, split
from colonies.core.process_events import MAX_CITES
from colonies.core.references import Reference, followed
from colonies.core.shapes import MAX_REASON_CHARS, SECOND
from colonies.errors import Invalid

FINE = ("successful", "skipped")


Ends = Callable[[str], End | None]


@dataclass(frozen=True, slots=True)
class Run:
    """Release it, from `until` (ns) on, citing these sequences."""

    until: int
    cites: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Await:
    """Let it wait for its signal, from `until` (ns) on, citing these sequences."""

    until: int
    cites: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Map:
    """It has this many parts, and each of them is to be released, from `until` (ns) on, citing these
    sequences."""

    parts: int
    until: int
    cites: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Skip:
    """Skip it, citing these sequences."""

    cites: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel it, citing this sequence, the end of `cause` where a node caused it. `reason` is for people."""

    cites: int
    reason: str
    cause: str | None = None


Say = Run | Await | Map | Skip | Stop


@dataclass(frozen=True, slots=True)
class Input:
    """One parent as its child sees it: how its process, or each of its parts, ended. `label` is the
    first's."""

    name: str
    ends: tuple[End, ...]
    mapped: bool = False
    allow_failure: bool = False

    def failure(self) -> tuple[str, End] | None:
        """The first part that did not end well, by label."""
        if self.allow_failure:
            return None
        for number, end in enumerate(self.ends):
            if end.state not in FINE:
                return (label_of(self.name, number) if self.mapped else self.name), end
        return None

    def value(self) -> Any:
        """What its child gets: null for what has no output."""
        values = [end.output if end.state == "successful" else None for end in self.ends]
        return values if self.mapped else values[0]


@dataclass(slots=True)
class Unfolded:
    """The parents of a node as far as they have ended, and the labels of those that have not. `mapped` are
    the parents that have parts unless it is known that they ended as a whole."""

    inputs: list[Input] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)
    cites: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Dag:
    """A workflow with what is known of its ends. `sequence` and `time` are those of its event; `packed` are
    the arguments of a generator's run."""

    spec: WorkflowSpec
    sequence: int
    time: int
    ends: Ends
    cancelled_at: int | None = None
    packed: Sequence[Any] = ()

    def node(self, label: str) -> Node | None:
        """The node of a label; None if there is none, as far as is known."""
        name, part = split(label)
        found = self.spec.by_name.get(name) or self._added(name)
        return found if found is not None and (part is None or found.map is not None) else None

    def _added(self, name: str) -> Node | None:
        adder = adder_of(name)
        if adder is None:
            return None
        end = self.ends(adder)
        for node in end.adds if end is not None else ():
            if node.name == name:
                return node
        return None

    def parents(self, node: Node) -> Sequence[str]:
        """The names of those that it waits for, as far as they are known by name."""
        if node.last:
            return [other.name for other in self.spec.nodes if not other.last]
        return node.parents

    def unfold(self, node: Node, empty: dict[str, bool] | None = None) -> Unfolded:
        """How its parents ended, those included that were put between. `empty`: what `_is_through` knows."""
        found = Unfolded()
        empty = {} if empty is None else empty
        adder = adder_of(node.name)  # what it put between itself and others is not before these
        left = list(reversed(self.parents(node)))
        seen = set(left)
        while left:
            name = left.pop()
            parent = self.node(name)
            if parent is None:
                found.missing.append(adder_of(name) or name)
                continue
            one = split(name)[1] is not None or parent.map is None or self.ends(name) is not None
            ends = self._end_of(name, found) if one else self._ends_of(parent, found, empty)
            if ends is not None:
                mapped = not one
                found.inputs.append(Input(name, ends, mapped, parent.allow_failure))
                more = [
                    n
                    for number, end in enumerate(ends)
                    if end.adds and (end.between or node.last)
                    if (label_of(name, number) if mapped else name) != adder
                    for n in _last_of(end, node.last)
                ]
                left += [n for n in reversed(more) if n not in seen]
                seen.update(more)
        return found

    def _end_of(self, label: str, found: Unfolded) -> tuple[End] | None:
        end = self.ends(label)
        if end is None:
            found.missing.append(label)
            return None
        found.cites.add(end.sequence)
        return (end,)

    def _ends_of(self, parent: Node, found: Unfolded, empty: dict[str, bool]) -> tuple[End, ...] | None:
        """The ends of a parent's parts; None if one is missing."""
        found.mapped.append(parent.name)
        parts = self.parts(parent, found)
        if not isinstance(parts, int) or (parts == 0 and not self._is_through(parent.name, empty)):
            found.missing.append(parent.name)
            return None
        ends = []
        for number in range(parts):
            label = label_of(parent.name, number)
            end = self.ends(label)
            if end is None:
                found.missing.append(label)
            else:
                found.cites.add(end.sequence)
                ends.append(end)
        if len(ends) == parts:
            return tuple(ends)
        found.missing.append(parent.name)  # perhaps it ended as a whole
        return None

    def _is_through(self, name: str, known: dict[str, bool]) -> bool:
        """Has a node ended that maps over an empty list? No event says so: it has when it would run.

        Its parents may be such nodes as well, so they are looked at first, whatever their number.
        """
        left = [] if name in known else [name]
        while left:
            node = self.node(left[-1])
            assert node is not None
            before = [
                parent for parent in self.parents(node) if parent not in known and self._is_empty(parent)
            ]
            if before:
                left += before
                continue
            known[left.pop()] = isinstance(self._by_parents(node, known), Map)
        return known[name]

    def _is_empty(self, name: str) -> bool:
        node = self.node(name)
        return (
            node is not None
            and node.map is not None
            and split(name)[1] is None
            and self.ends(name) is None
            and self.parts(node) == 0
        )

    def parts(self, node: Node, found: Unfolded | None = None) -> int | str | None:
        """How many parts a node has that maps; text: why it cannot be said; None: it is not known yet."""
        assert node.map is not None
        try:
            value = self._mapped_over(node.map, found)
        except Invalid as error:
            return str(error)
        if value is None:
            return None
        count = value.parts if isinstance(value, Length) else len(value) if isinstance(value, list) else None
        if count is None:
            return f"{shown(str(node.map))} is no list"
        return (
            count
            if count <= MAX_MAPPED
            else f"{shown(str(node.map))} has {count} items; at most {MAX_MAPPED} are allowed"
        )

    def _mapped_over(self, reference: Reference, found: Unfolded | None) -> Any:
        """What a node maps over, or its length; None: it is not known yet. Raises Invalid."""
        while reference.kind == "output":
            end, path = self.ends(reference.name), reference
            source = self.node(reference.name) if end is None else None
            if source is not None and source.map is not None:  # the list of what its parts give
                if not reference.path:
                    reference = source.map
                    continue
                name, *rest = reference.path
                end = self.ends(f"{reference.name}[{name}]")
                path = Reference("output", f"{reference.name}[{name}]", tuple(rest))
            if end is None:
                if found is not None:
                    found.missing.append(reference.name)
                return None
            if found is not None:
                found.cites.add(end.sequence)
            return list_of(end, path)
        if reference.kind == "parameter":
            return not_none(followed(self.spec.parameters[reference.name], reference))
        return not_none(followed(list(self.packed), reference))

    def decide(self, label: str) -> Say | None:
        """What may be said of the node or part now; None: nothing yet, or there is no such process."""
        node = self.node(label)
        say = self.by_parents(label)
        part = split(label)[1]
        there = node is not None and (part is None or say is not None)
        if there and node is not None and self.cancelled_at is not None and not node.last:
            return say if isinstance(say, Map) else Stop(self.cancelled_at, "its workflow was cancelled")
        return say

    def by_parents(self, label: str) -> Say | None:
        """As `decide`, whether the workflow was cancelled or not."""
        node = self.node(label)
        if node is None:
            return None
        part = split(label)[1]
        say = self._by_parents(node, {})
        if part is None:
            return say
        # A node that maps is one process until its parts are known. From then on it is these and not itself.
        if not isinstance(say, Map) or part >= say.parts or self.ends(node.name) is not None:
            return None
        return Run(say.until, say.cites)

    def stands(self, label: str) -> bool:
        """Is there to be a process of this label, as far as is known?"""
        node = self.node(label)
        if node is None:
            return False
        part, parts = split(label)[1], self.mapped(node)
        return part is None if parts is None else part is not None and part < parts

    def mapped(self, node: Node) -> int | None:
        """How many parts the node has; None: it maps over nothing, not yet, or ended as a whole."""
        if node.map is None or self.ends(node.name) is not None:
            return None
        say = self._by_parents(node, {})
        return say.parts if isinstance(say, Map) else None

    def _by_parents(self, node: Node, empty: dict[str, bool]) -> Say | None:
        """What may be said of the node by how its parents ended, whatever was cancelled."""
        unfolded = self.unfold(node, empty)
        if not node.last and (failure := _failure(unfolded.inputs)) is not None:
            cause, end = failure
            return Stop(end.sequence, f"its parent {cause} {_was(end)}", cause)
        return None if unfolded.missing else self._ready(node, unfolded)

    def _ready(self, node: Node, unfolded: Unfolded) -> Say:
        cites = (self.sequence, *sorted(unfolded.cites))
        if len(cites) > MAX_CITES:
            return Stop(cites[-1], f"it waits for {len(cites) - 1} ends; at most {MAX_CITES - 1} are allowed")
        ends = [end for given in unfolded.inputs for end in given.ends]
        if node.when is not None:
            inputs = {seen_from(node, given.name): given.value() for given in unfolded.inputs}
            holds = when.holds(node.when, inputs)
            if isinstance(holds, str):
                return Stop(cites[-1], f"its condition cannot be evaluated: {holds}"[:MAX_REASON_CHARS])
            if not holds:
                return Skip(cites)
        elif ends and not node.last and all(end.state == "skipped" for end in ends):
            return Skip(cites)
        until = self._until(node, ends)
        if node.map is not None:
            parts = self.parts(node)
            if isinstance(parts, int):
                return Map(parts, until, cites)
            why = parts or f"{shown(str(node.map))}: there is no such part"
            return Stop(cites[-1], f"map: {why}"[:MAX_REASON_CHARS])
        return Await(until, cites) if node.wait_signal is not None else Run(until, cites)

    def _until(self, node: Node, ends: Sequence[End]) -> int:
        """The ledger time (ns) before which it does not run."""
        begun = self.time + _ns(self.spec.delay)
        if self.spec.at is not None:
            begun = max(begun, _ns(self.spec.at))
        if node.last and self.cancelled_at is not None:
            begun = self.time  # it cleans up: nothing delays that
        after = max((end.time for end in ends), default=begun)
        if node.spec is not None:
            after = max(after + _ns(node.spec.delay), _ns(node.spec.at))
        return max(begun, after)

    def walk(self) -> Iterator[tuple[Node, int | None, list[str]]]:
        """Every node there is, as far as is known, with its number of parts (see `mapped`) and the labels
        of its processes: parents first, of what was given."""
        left = [self.spec.by_name[name] for name in reversed(self.spec.order)]
        while left:
            node = left.pop()
            parts = self.mapped(node)
            labels = [node.name] if parts is None else [label_of(node.name, n) for n in range(parts)]
            yield node, parts, labels
            for label in labels:
                end = self.ends(label)
                if end is not None:
                    left += reversed(end.adds)

    def labels(self) -> Iterator[tuple[str, Node]]:
        """Every node and part there is, in the order of `walk`."""
        for node, _, labels in self.walk():
            for label in labels:
                yield label, node


def _failure(inputs: Sequence[Input]) -> tuple[str, End] | None:
    """The parent that ended wrong first."""
    failures = [found for given in inputs if (found := given.failure()) is not None]
    return min(failures, key=lambda found: found[1].sequence, default=None)


def _was(end: End) -> str:
    return "failed" if end.state == "failed" else "was cancelled"


def _last_of(end: End, everything: bool) -> list[str]:
    """The names of the nodes that were added with this end: all of them, or those on which no other
    depends."""
    if everything:
        return [node.name for node in end.adds]
    waited_for = {parent for node in end.adds for parent in node.parents}
    return [node.name for node in end.adds if node.name not in waited_for]


def _ns(seconds: float | None) -> int:
    return int((seconds or 0.0) * SECOND)
