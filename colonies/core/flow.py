"""What a workflow is asked to be: its nodes, its parameters, and what a failure does to the others.

People's input comes in by `parse` and `parse_text`: a list of specs, or an object with `nodes`, in which a
node may be a workflow itself. `read` takes the plain form that the ledger holds, where all of that is flat.
Both refuse what is no DAG, naming the node. The graph never changes; what processes add to it is
`colonies.core.dag`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from colonies.core.names import name as checked_name
from colonies.core.names import shown
from colonies.core.node import Node
from colonies.core.parsing import json_value, parsed
from colonies.core.plain import MAX_PROBLEMS
from colonies.core.spec import AT_ALLOWED, MAX_SECONDS, At, Kwargs, Seconds, Text
from colonies.core.spec import Name as SpecName
from colonies.core.words import Words
from colonies.errors import Invalid

MAX_NODES: Final = 10_000  # of a workflow as it is submitted
MAX_NESTED: Final = 4  # workflows in workflows
MAX_EDGES: Final = 200_000  # dependencies of all nodes together: each is looked at, and cited
MAX_LAST: Final = 10  # nodes that run last: each waits for all others
MAX_UNFOLDED: Final = 1_000_000  # dependencies on inner workflows, and values of their parameters

EXAMPLE: Final = (
    '[{"name": "split", "func": "split", "conditions": {"runtimetype": "python"}}, {"name": "count", "func": '
    '"count", "conditions": {"runtimetype": "python", "dependencies": ["split"]}}]'
)
_SECONDS: Final = f"seconds, a number up to {MAX_SECONDS}; 0, -1 or nothing: no limit"


class _Rules(Words):
    """What a workflow says beside its nodes."""

    EXAMPLE = '{"name": "train", "nodes": [...]}'

    name: SpecName | None = Field(default=None, description="1 to 64 of A-Z, a-z, 0-9, _ and -")
    label: Text | None = Field(default=None, description="text of 1 to 256 printable characters")
    parameters: Kwargs = Field(default_factory=dict, description="an object of JSON values")
    on_failure: Literal["continue", "stop"] = Field(default="continue", description='"continue" or "stop"')
    delay: Seconds = Field(default=None, description=_SECONDS)
    at: At = Field(default=None, description=AT_ALLOWED)
    maxwaittime: Seconds = Field(default=None, description=_SECONDS)
    output: str | None = Field(default=None, description="the name of a node")


RULES: Final = frozenset(_Rules.model_fields)


@dataclass(frozen=True)
class WorkflowSpec:
    """A workflow as it was asked for. `nodes` are in the order given; `output` names the node whose output
    is the workflow's own; without it, that of all nodes on which no other depends, by name.

    `maxwaittime` is that of each node that says none itself.
    """

    nodes: tuple[Node, ...]
    name: str | None = None
    label: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    on_failure: Literal["continue", "stop"] = "continue"
    delay: float | None = None
    at: float | None = None
    maxwaittime: float | None = None
    output: str | None = None

    @classmethod
    def parse(cls, data: object, *, where: str = "workflow") -> WorkflowSpec:
        """The workflow that a person means, or `Invalid`: one line for each problem, naming the node."""
        said: object = {"nodes": data} if isinstance(data, list) else data
        if not isinstance(said, dict):
            raise Invalid(
                f"{where}: {shown(data)} is no workflow; allowed: a list of nodes, such as {EXAMPLE}"
            )
        return cls.read({**said, "nodes": _flat(said.get("nodes"), where)}, where=where)

    @classmethod
    def parse_text(cls, text: str | bytes, where: str = "workflow") -> WorkflowSpec:
        """The workflow that a JSON text (bytes: UTF-8) means, or `Invalid`."""
        return cls.parse(json_value(text, where, EXAMPLE), where=where)

    @classmethod
    def read(cls, data: object, *, where: str = "workflow", whole: bool = True) -> WorkflowSpec:
        """The plain form. Not `whole`: some nodes stand elsewhere, so the graph is not looked at yet."""
        if not isinstance(data, dict):
            raise Invalid(f"{where}: {shown(data)} is no workflow; allowed: an object with nodes")
        rest = dict(data)
        given = rest.pop("nodes", None)
        if given is None:
            given = []
        if not isinstance(given, list):
            raise Invalid(f"{where}: nodes: {shown(given)} is no list; allowed: a list such as {EXAMPLE}")
        if len(given) > MAX_NODES:
            raise Invalid(f"{where}: nodes: {len(given)} nodes; at most {MAX_NODES} are allowed")
        rules = parsed(_Rules, rest, where)
        nodes: list[Node] = []
        problems: list[str] = []
        for number, item in enumerate(given):
            try:
                nodes.append(
                    item if isinstance(item, Node) else Node.read(item, where=f"{where}: nodes[{number}]")
                )
            except Invalid as error:
                problems.append(str(error))
                if len(problems) == MAX_PROBLEMS:
                    break
        if problems:
            raise Invalid("\n".join(problems))
        found = cls(tuple(nodes), **{name: getattr(rules, name) for name in RULES})
        return found.checked(where) if whole else found

    def checked(self, where: str = "workflow") -> WorkflowSpec:
        """Itself, if its nodes make a DAG. Raises Invalid."""
        # No more are looked for than are said: there may be one for each of a million dependencies.
        problems = list(islice(_problems(self), MAX_PROBLEMS + 1))
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS - 1 :] = ["and more problems"]
        if problems:
            raise Invalid("\n".join(f"{where}: {problem}" for problem in problems))
        return self

    def wire(self) -> dict[str, Any]:
        """The plain form for the ledger."""
        rules = _Rules(**{name: getattr(self, name) for name in RULES}).wire()
        return {**rules, "nodes": [node.wire() for node in self.nodes]}

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """By node: the nodes that depend on it."""
        found: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for parent in node.parents:
                found[parent].append(node.name)
        return found

    @cached_property
    def order(self) -> list[str]:
        """The names of the nodes, parents first."""
        return list(TopologicalSorter({node.name: node.parents for node in self.nodes}).static_order())

    @cached_property
    def sinks(self) -> list[str]:
        """The nodes on which no other depends, but for those that run last, in the order given."""
        return [node.name for node in self.nodes if not self.children[node.name] and not node.last]


def _problems(spec: WorkflowSpec) -> Iterator[str]:
    """What keeps the nodes from being a DAG."""
    if not spec.nodes:
        yield f"nodes: there are none; allowed: 1 to {MAX_NODES}, such as {EXAMPLE}"
    if len(spec.nodes) > MAX_NODES:
        yield f"nodes: {len(spec.nodes)} nodes; at most {MAX_NODES} are allowed"
    edges = sum(len(node.parents) for node in spec.nodes)
    last = sum(node.last for node in spec.nodes)
    if edges > MAX_EDGES:
        yield f"nodes: {edges} dependencies of all nodes together; at most {MAX_EDGES} are allowed"
    if last > MAX_LAST:
        yield f"nodes: {last} nodes run last (finally); at most {MAX_LAST} are allowed"
    seen: dict[str, int] = {}
    for number, node in enumerate(spec.nodes):
        if node.name in seen:
            yield f"node {node.name}: nodes[{seen[node.name]}] has this name as well; each has its own"
        seen.setdefault(node.name, number)
    known = True
    for node in spec.nodes:
        for problem in _of_one(spec, node, seen):
            known = False
            yield problem
    if spec.output is not None and spec.output not in seen:
        yield f"output: there is no node {shown(spec.output)}"
    if known and len(seen) == len(spec.nodes):
        yield from _cycle(spec)


def _of_one(spec: WorkflowSpec, node: Node, names: dict[str, int]) -> Iterator[str]:
    for parent in node.parents:
        if parent not in names:
            near = _near(parent, names)
            yield f"node {node.name}: it depends on {shown(parent)}, and there is no such node{near}"
        elif parent == node.name:
            yield f"node {node.name}: it depends on itself: {node.name} -> {node.name}"
        elif spec.nodes[names[parent]].last:
            yield f"node {node.name}: it depends on {parent}, which runs last (finally): nobody does"
    used = [*node.references, *([node.map] if node.map else [])]
    for reference in used:
        if reference.kind == "parameter" and reference.name not in spec.parameters:
            there = shown(sorted(spec.parameters)) if spec.parameters else "none"
            yield f"node {node.name}: {shown(str(reference))}: there is no such parameter; declared: {there}"


def _near(name: str, names: dict[str, int]) -> str:
    near = get_close_matches(name[:64], list(islice(names, 1_000)), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _cycle(spec: WorkflowSpec) -> Iterator[str]:
    try:
        TopologicalSorter({node.name: node.parents for node in spec.nodes}).prepare()
    except CycleError as error:
        path = error.args[1]
        shown_path = [*path[:8], "...", path[-1]] if len(path) > 9 else path
        yield f"node {path[0]}: it depends on itself by a cycle: {' -> '.join(shown_path)}"


# --- workflows in workflows ---------------------------------------------------------------------------


def _flat(nodes: object, where: str, level: int = 0) -> list[object]:
    """The nodes with those of inner workflows in their places, named `outer/inner`."""
    if not isinstance(nodes, list):
        raise Invalid(f"{where}: nodes: {shown(nodes)} is no list; allowed: a list such as {EXAMPLE}")
    if not any(isinstance(node, dict) and "nodes" in node for node in nodes):
        return list(nodes)
    if level >= MAX_NESTED:
        raise Invalid(f"{where}: workflows nested deeper than {MAX_NESTED}; at most as deep is allowed")
    groups: dict[str, list[str]] = {}
    flat: list[object] = []
    room = _Room(where)
    for number, node in enumerate(nodes):
        if isinstance(node, dict) and "nodes" in node:
            flat += _inner(node, f"{where}: nodes[{number}]", level, groups, room)
        else:
            flat.append(node)
    return [_regrouped(node, groups, room) for node in flat]


class _Room:
    """How much inner workflows may still unfold to: a few bytes of a file could fill the memory."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = MAX_UNFOLDED

    def take(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise Invalid(
                f"{self._where}: inner workflows unfold to more than {MAX_UNFOLDED} dependencies and "
                "values; at most as many are allowed"
            )


def _inner(
    node: dict[str, Any], where: str, level: int, groups: dict[str, list[str]], room: _Room
) -> list[object]:
    """The nodes of one inner workflow; `groups` learns which of them others wait for."""
    name = checked_name(node.get("name"), f"{where}: name")
    unknown = [key for key in node if key not in ("name", "nodes", "dependencies", "parameters")]
    if unknown:
        raise Invalid(
            f"{where} ({name}): {shown(unknown)}: a workflow in a workflow has name, nodes, dependencies "
            "and parameters"
        )
    inside = WorkflowSpec.read(
        {
            "nodes": _flat(node["nodes"], f"{where} ({name})", level + 1),
            "parameters": node.get("parameters") or {},
        },
        where=f"{where} ({name})",
    )
    if any(inner.last for inner in inside.nodes):
        raise Invalid(f"{where} ({name}): finally: only in the outermost workflow")
    own = {inner.name for inner in inside.nodes}
    before = node.get("dependencies") or []
    if not isinstance(before, list):
        raise Invalid(f"{where} ({name}): dependencies: {shown(before)} is no list; allowed: a list of names")
    room.take(len(before) * sum(not inner.parents for inner in inside.nodes))
    groups[name] = [f"{name}/{sink}" for sink in inside.sinks]
    return [
        _renamed(inner.wire(), name, own, inside.parameters, before if not inner.parents else [], room)
        for inner in inside.nodes
    ]


def _renamed(
    wire: dict[str, Any],
    group: str,
    own: set[str],
    parameters: dict[str, Any],
    before: Sequence[str],
    room: _Room,
) -> dict[str, Any]:
    def outer(name: str) -> str:
        return f"{group}/{name}" if name in own else name

    def value(item: Any) -> Any:
        if isinstance(item, list):
            return [value(inner) for inner in item]
        if not isinstance(item, dict) or "$literal" in item:
            return item
        match list(item.items()):
            case [("$output", str(text))]:
                name, dot, path = text.partition(".")
                return {"$output": outer(name) + dot + path}
            case [("$parameter", str(text))] if text.partition(".")[0] in parameters:
                name, _, path = text.partition(".")
                found = _literal(parameters[name], path)
                room.take(_size(found))
                return found
        return {key: value(inner) for key, inner in item.items()}

    found = {**wire, "name": f"{group}/{wire['name']}"}
    for key in ("args", "kwargs", "map"):
        if key in found:
            found[key] = value(found[key])
    if waits := [*map(outer, wire.get("dependencies", [])), *before]:
        found["dependencies"] = waits
    return found


def _literal(value: Any, path: str) -> Any:
    for part in path.split(".") if path else []:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _size(value: Any) -> int:
    """How many values there are in this one."""
    number, left = 0, [value]
    while left:
        item = left.pop()
        number += 1
        left += item if isinstance(item, list) else item.values() if isinstance(item, dict) else ()
    return number


def _regrouped(node: object, groups: dict[str, list[str]], room: _Room) -> object:
    """A node that depends on an inner workflow depends on its last nodes."""
    if not isinstance(node, dict):
        return node
    found = dict(node)
    conditions = found.get("conditions")
    if isinstance(conditions, dict) and isinstance(conditions.get("dependencies"), list):
        found["conditions"] = {**conditions, "dependencies": _each(conditions["dependencies"], groups, room)}
    if isinstance(found.get("dependencies"), list):
        found["dependencies"] = _each(found["dependencies"], groups, room)
    return found


def _each(names: list[Any], groups: dict[str, list[str]], room: _Room) -> list[Any]:
    found: list[Any] = []
    for name in names:
        group = groups.get(name) if isinstance(name, str) else None
        if group is None:
            found.append(name)
        else:
            room.take(len(group))
            found += group
    return found


def _read(value: object) -> WorkflowSpec:
    if isinstance(value, WorkflowSpec):
        return value
    try:
        return WorkflowSpec.read(value, whole=False)
    except Invalid as error:
        raise PydanticCustomError("said", "{text}", {"text": str(error)}) from None


WorkflowSpecField = Annotated[WorkflowSpec, PlainValidator(_read)]
