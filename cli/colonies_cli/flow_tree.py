"""A workflow as a tree for people: each node under the last node that everything before it comes from.

So a fan-out and its join stand under the node that began it, whatever the graph. Chains keep their column.
Subtrees that look alike, and parts of a node that maps, are one line, unless all is asked for. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from colonies.core.node import split
from colonies.core.workflow import is_final
from colonies.looking import NodeNow, WorkflowNow
from colonies.show_workflow import error_of, is_reused

HEADER = ("NODE", "STATE", "ATTEMPTS", "STARTED", "TOOK", "NOTE")
ALIKE = 5  # more than so many are one line
MAX_INDENT_CHARS = 40
NAMES_SHOWN = 3

_ORDER = ("failed", "running", "waiting", "blocked", "cancelled", "skipped", "successful")


@dataclass(slots=True)
class _Item:
    """A node with its parts, or the one process that it is."""

    name: str
    parts: list[NodeNow]
    after: list[str] = field(default_factory=list)
    children: list[_Item] = field(default_factory=list)
    over: _Item | None = None
    depth: int = 0
    own: Any = None
    key: int = 0
    size: int = 1

    @property
    def mapped(self) -> bool:
        return self.parts[0].label != self.name


@dataclass(frozen=True, slots=True)
class _Signs:
    """What the tree is drawn with."""

    fork: str
    last: str
    down: str
    then: str
    dots: str


_DRAWN = _Signs("├─ ", "└─ ", "│  ", "→ ", "…")
_ASCII = _Signs("|- ", "`- ", "|  ", "> ", "...")


def rows(now: WorkflowNow, *, everything: bool = False, ascii_only: bool = False) -> Iterator[list[str]]:
    """The rows of the tree, under `HEADER`. `everything`: nothing is folded."""
    signs = _ASCII if ascii_only else _DRAWN
    items = _items(now)
    roots = _trees(items)
    _keys(items)
    # What is left to show: what stands before its first line and before those below it, and what look alike.
    left = [("", "", group) for group in reversed(_alike(roots, everything))]
    while left:
        first, rest, group = left.pop()
        group, is_run = _run(group) if not everything else (group, False)
        yield _row(now, group, _indented(first) + _told(group, is_run, signs))
        if everything and group[0].mapped:
            for part in group[0].parts:
                yield _row(now, [_Item(part.label, [part])], _indented(rest) + signs.down + part.label)
        below = _alike(group[-1 if is_run else 0].children, everything)
        if len(below) == 1 and (is_run or len(group) == 1):
            left.append((rest + signs.then, rest, below[0]))
            continue
        for number, inner in reversed(list(enumerate(below))):  # of subtrees that look alike the first one's
            if number == len(below) - 1:
                left.append((rest + signs.last, rest + "   ", inner))
            else:
                left.append((rest + signs.fork, rest + signs.down, inner))


def _told(group: list[_Item], is_run: bool, signs: _Signs) -> str:
    """What a line says that it is about."""
    head, last = group[0], group[-1]
    if len(group) == 1:
        return head.name
    if is_run:
        return f"{head.name} {signs.then}{signs.dots} {signs.then}{last.name} ({len(group)} nodes)"
    each = f" of {head.size} nodes each" if head.size > 1 else " nodes"
    return f"{head.name} {signs.dots} {last.name} ({len(group)}{each})"


def _run(group: list[_Item]) -> tuple[list[_Item], bool]:
    """A chain of nodes that look alike, if one begins here and is long."""
    found = [group[0]]
    while (
        len(group) == 1
        and len(found[-1].children) == 1
        and found[-1].children[0].own == group[0].own
        and not group[0].mapped
    ):
        found.append(found[-1].children[0])
    return (found, True) if len(found) > ALIKE else (group, False)


def _indented(prefix: str) -> str:
    return prefix if len(prefix) <= MAX_INDENT_CHARS else f"(+{len(prefix) // 3}) {prefix[-9:]}"


def _items(now: WorkflowNow) -> dict[str, _Item]:
    """All nodes by name, parents first; those that run last at the end."""
    found: dict[str, _Item] = {}
    for node in sorted(now.nodes, key=lambda node: node.node.last):
        name = node.node.name
        if name in found:
            found[name].parts.append(node)
        else:
            found[name] = _Item(name, [node])
    return found


def _trees(items: dict[str, _Item]) -> list[_Item]:
    """Put each item under the nearest one through which all ways to it lead; those under none."""
    roots: list[_Item] = []
    for item in items.values():
        node = item.parts[0].node
        parents = [] if node.last else [_parent(name, items) for name in node.parents]
        known = list({id(parent): parent for parent in parents if parent is not None}.values())
        item.after = [parent.name for parent in known]
        over: _Item | None = known[0] if known else None
        for parent in known[1:]:
            over = _common(over, parent)
        item.over = over
        item.depth = over.depth + 1 if over is not None else 0
        (over.children if over is not None else roots).append(item)
    return roots


def _parent(name: str, items: dict[str, _Item]) -> _Item | None:
    return items.get(name) or items.get(split(name)[0])


def _common(one: _Item | None, other: _Item | None) -> _Item | None:
    while one is not other:
        if one is None or other is None:
            return None
        if one.depth >= other.depth:
            one = one.over
        else:
            other = other.over
    return one


def _keys(items: dict[str, _Item]) -> None:
    """Number the items so that those whose subtrees look alike have the same number."""
    numbers: dict[Any, int] = {}
    for item in reversed(list(items.values())):
        node = item.parts[0].node
        what = (node.spec.func, node.spec.conditions.runtimetype) if node.spec else str(node.wait_signal)
        states = tuple(sorted(Counter(part.state for part in item.parts).items()))
        below = tuple(sorted(child.key for child in item.children))
        item.own = (what, states, node.last, node.map is not None, len(item.after) > 1)
        item.key = numbers.setdefault((item.own, below), len(numbers))
        item.size = 1 + sum(child.size for child in item.children)


def _alike(items: Sequence[_Item], everything: bool) -> list[list[_Item]]:
    """The items in groups that make one line each."""
    groups: dict[int, list[_Item]] = {}
    for item in items:
        groups.setdefault(item.key, []).append(item)
    found: list[list[_Item]] = []
    for item in items:
        group = groups[item.key]
        if everything or len(group) <= ALIKE:
            found.append([item])
        elif item is group[0]:
            found.append(group)
    return found


def _row(now: WorkflowNow, group: list[_Item], text: str) -> list[str]:
    parts = [part for item in group for part in item.parts]
    processes = [part.process for part in parts if part.process is not None]
    attempts = [process.attempts for process in processes if process.attempts]
    started = min((found[0].started_at for found in attempts), default=None)
    ended = max((process.time for process in processes), default=None)
    over = bool(processes) and len(processes) == len(parts) and all(process.final for process in processes)
    return [
        text,
        _state(parts),
        str(sum(found[-1].n for found in attempts)) if attempts else "-",
        _clock(started),
        f"{(ended - started) / 1e9:.1f} s" if over and started is not None and ended is not None else "-",
        "; ".join(_notes(now, group, parts)),
    ]


def _state(parts: Sequence[NodeNow]) -> str:
    """The state of one, or what of all of them stands out."""
    states = {part.state for part in parts}
    if len(states) == 1:
        return states.pop()
    open_ = [state for state in _ORDER if state in states and not is_final(state)]
    return "running" if open_ else next(state for state in _ORDER if state in states)


def _notes(now: WorkflowNow, group: list[_Item], parts: Sequence[NodeNow]) -> Iterator[str]:
    from colonies_cli.output import cell

    head = group[0]
    node = head.parts[0].node
    states = Counter(part.state for part in parts)
    if head.mapped or len(parts) > 1:
        told = ", ".join(f"{states[state]} {state}" for state in _ORDER if states[state])
        yield f"{len(parts)} parts: {told}" if head.mapped and len(group) == 1 else told
    if len(head.after) > 1 and len(group) == 1:
        more = f" and {len(head.after) - NAMES_SHOWN} more" if len(head.after) > NAMES_SHOWN else ""
        yield f"after {', '.join(head.after[:NAMES_SHOWN])}{more}"
    if node.last:
        yield "runs last"
    if node.wait_signal is not None and not is_final(parts[0].state):
        yield f"waits for the signal {node.wait_signal.name}"
    taken = sum(is_reused(part, now) for part in parts)
    if taken:
        yield "taken over" if taken == len(parts) else f"{taken} taken over"
    wrong = next((part for part in parts if part.state in ("failed", "cancelled")), None)
    if wrong is not None:
        own = f"{wrong.label}: " if len(parts) > 1 else ""
        if (error := error_of(wrong.process)) is not None:
            yield cell(f"{own}{error}".splitlines()[0])
    elif len(parts) == 1 and parts[0].process is not None and parts[0].process.attempts:
        yield f"on {parts[0].process.attempts[-1].worker}"


def _clock(ns: int | None) -> str:
    from colonies.show import to_the_second

    return to_the_second(ns) if ns is not None else "-"
