"""Workflows in workflows: how people write them, and the flat nodes that they mean.

A node with `nodes` of its own is a *group*. Its nodes take its place, named `group/node`; who depends on it
depends on its last nodes, and a reference to it is an object of their outputs by their inner names. Its
parameters stand in place of references to them; a list that it maps over becomes the workflow's parameter
`group/name`. The ledger knows no groups, and nothing here looks at more than names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from colonies.core import references, when
from colonies.core.names import name as checked_name
from colonies.core.names import shown
from colonies.core.plain import MAX_DEPTH_LEVELS
from colonies.errors import Invalid

if TYPE_CHECKING:
    from colonies.core.flow import WorkflowSpec

MAX_NESTED: Final = 4  # workflows in workflows
MAX_UNFOLDED: Final = 1_000_000  # dependencies on inner workflows, and values of their parameters

EXAMPLE: Final = (
    '[{"name": "split", "func": "split", "conditions": {"runtimetype": "python"}}, {"name": "count", "func": '
    '"count", "conditions": {"runtimetype": "python", "dependencies": ["split"]}}]'
)
_ALLOWED: Final = frozenset({"name", "nodes", "dependencies", "parameters"})
_OUTPUT: Final = "$output"
_PARAMETER: Final = "$parameter"
_LITERAL: Final = "$literal"

Inner = Callable[..., "WorkflowSpec"]


@dataclass(slots=True)
class _Groups:
    """The groups of one level: by name, the inner names of the nodes that others wait for."""

    inner: Inner
    where: str
    level: int
    last: dict[str, list[str]] = field(default_factory=dict)
    mapped: dict[str, Any] = field(default_factory=dict)  # parameters for this level, by their names there
    left: int = MAX_UNFOLDED

    def take(self, number: int) -> None:
        """Make room for so many more. A few bytes of a file could fill the memory."""
        self.left -= number
        if self.left < 0:
            raise Invalid(
                f"{self.where}: inner workflows unfold to more than {MAX_UNFOLDED} dependencies and values; "
                "at most as many are allowed"
            )


def flat(
    nodes: object, where: str, *, inner: Inner, parameters: object = None, level: int = 0
) -> tuple[list[object], Any]:
    """The nodes with those of groups in their places, and `parameters` with those that are only theirs.
    `inner` reads the plain form of a group's own nodes.

    Raises:
        Invalid: a group makes no sense. What a node says of itself is not looked at.
    """
    if not isinstance(nodes, list):
        raise Invalid(f"{where}: nodes: {shown(nodes)} is no list; allowed: a list such as {EXAMPLE}")
    if not any(isinstance(node, dict) and "nodes" in node for node in nodes):
        return list(nodes), parameters
    if level >= MAX_NESTED:
        raise Invalid(f"{where}: workflows nested deeper than {MAX_NESTED}; at most as deep is allowed")
    groups = _Groups(inner, where, level)
    found: list[object] = []
    for number, node in enumerate(nodes):
        if isinstance(node, dict) and "nodes" in node:
            found += _members(node, f"{where}: nodes[{number}]", groups)
        else:
            found.append(node)
    plain = [node for node in nodes if isinstance(node, dict) and "nodes" not in node]
    names = {name for node in plain if isinstance(name := node.get("name"), str)}
    for node in plain:
        _check_when(node, groups.last.keys() - names, groups)
    if groups.mapped and isinstance(parameters := parameters or {}, dict):
        if level == 0:  # here they are data, and elsewhere values that may hold references
            groups.mapped = {name: _plain(value) for name, value in groups.mapped.items()}
        parameters = {**parameters, **groups.mapped}
    return [_regrouped(node, groups) for node in found], parameters


def _members(node: dict[str, Any], where: str, groups: _Groups) -> list[object]:
    """The nodes of one group, renamed; `groups` learns which of them others wait for."""
    name = checked_name(node.get("name"), f"{where}: name")
    where = f"{where} ({name})"
    unknown = [shown(key) for key in node if key not in _ALLOWED]
    if unknown:
        raise Invalid(
            f"{where}: {', '.join(unknown[:5])}: a workflow in a workflow has name, nodes, dependencies "
            "and parameters"
        )
    if name in groups.last:
        raise Invalid(f"{where}: another workflow in this one has this name as well; each has its own")
    before = node.get("dependencies") or []
    if not isinstance(before, list):
        raise Invalid(f"{where}: dependencies: {shown(before)} is no list; allowed: a list of names of nodes")
    nodes, parameters = flat(
        node["nodes"],
        where,
        inner=groups.inner,
        parameters=node.get("parameters"),
        level=groups.level + 1,
    )
    inside = groups.inner({"nodes": nodes, "parameters": parameters or {}}, where=where)
    if any(inner.last for inner in inside.nodes):
        raise Invalid(f"{where}: finally: only in the outermost workflow")
    groups.take(len(before) * sum(not inner.parents for inner in inside.nodes))
    groups.last[name] = inside.sinks
    renaming = _Renaming(name, frozenset(inside.by_name), inside.parameters, where, groups)
    return [renaming.node(inner.wire(), [] if inner.parents else before) for inner in inside.nodes]


@dataclass(frozen=True, slots=True)
class _Renaming:
    """What the nodes of one group are called outside, with its parameters in place of references to them."""

    group: str
    own: frozenset[str]
    parameters: dict[str, Any]
    where: str
    groups: _Groups

    def node(self, wire: dict[str, Any], before: list[Any]) -> dict[str, Any]:
        found = {**wire, "name": self._outer(wire["name"])}
        for key in ("args", "kwargs"):
            if key in found:
                found[key] = self._value(found[key])
        if "map" in found:
            found["map"] = self._mapped(found["map"])
        if waits := [*map(self._outer, wire.get("dependencies", [])), *before]:
            found["dependencies"] = waits
        return found

    def _outer(self, name: str) -> str:
        return f"{self.group}/{name}" if name in self.own else name

    def _value(self, item: Any) -> Any:
        if isinstance(item, list):
            return [self._value(inner) for inner in item]
        if not isinstance(item, dict) or _LITERAL in item:
            return item
        match list(item.items()):
            case [(("$output" | "$previous") as word, str(text))]:
                name, dot, path = text.partition(".")
                return {word: self._outer(name) + dot + path}
            case [("$parameter", str(text))] if text.partition(".")[0] in self.parameters:
                found = self._parameter(text)
                self.groups.take(_size(found))
                return found
        return {key: self._value(inner) for key, inner in item.items()}

    def _mapped(self, said: dict[str, Any]) -> Any:
        """What a node maps over: a reference. So what is none has to be a parameter outside as well."""
        value = self._value(said)
        if isinstance(value, dict) and value.keys() & {_OUTPUT, _PARAMETER, "$packed"}:
            return value
        text = said[_PARAMETER]
        name = text.partition(".")[0]
        whole = self.parameters[name]
        where = f"{self.where}: map: $parameter {text}"
        for reference in references.found(whole, where):
            raise Invalid(f"{where}: there is {reference} in it; allowed: a list of values, or a reference")
        if not isinstance(_plain(value), list):
            raise Invalid(f"{where}: {shown(_plain(value))} is no list")
        self.groups.mapped[f"{self.group}/{name}"] = whole
        return {_PARAMETER: f"{self.group}/{text}"}

    def _parameter(self, text: str) -> Any:
        """The value itself; where it is a reference, that reference and the rest of the path."""
        name, *path = text.split(".")
        value = self.parameters[name]
        for done, part in enumerate(path):
            match value:
                case {"$output": str(to)} | {"$parameter": str(to)} if len(value) == 1:
                    return {next(iter(value)): ".".join((to, *path[done:]))}
                case dict() if part in value:
                    value = value[part]
                case list() if part.isdecimal() and int(part) < len(value):
                    value = value[int(part)]
                case _:
                    raise Invalid(f"{self.where}: $parameter {text}: there is no {shown(part)} in it")
        return value


def _regrouped(node: object, groups: _Groups) -> object:
    """A node that depends on a group depends on its last nodes, by name and by reference."""
    if not isinstance(node, dict):
        return node
    found = dict(node)
    conditions = found.get("conditions")
    if isinstance(conditions, dict) and isinstance(conditions.get("dependencies"), list):
        found["conditions"] = {**conditions, "dependencies": _each(conditions["dependencies"], groups)}
    if isinstance(found.get("dependencies"), list):
        found["dependencies"] = _each(found["dependencies"], groups)
    where = f"{groups.where}: node {shown(found.get('name'))}"
    for key in ("args", "kwargs", "map"):
        if key in found:
            found[key] = _referring(found[key], groups, f"{where}: {key}")
    return found


def _check_when(node: dict[str, Any], names: set[str], groups: _Groups) -> None:
    """Conditions see outputs by the names of nodes: of a group, by one of these names, there is nothing."""
    for name in when.names(node.get("when")) & names:
        nodes = ", ".join(f'"{name}/{inner}"' for inner in groups.last[name][:5])
        raise Invalid(
            f"{groups.where}: node {shown(node.get('name'))}: when: {shown(name)} is a workflow, and a "
            f"condition sees its last nodes, in quotes; allowed: {nodes}"
        )


def _plain(value: Any) -> Any:
    """A value without references as the data that it means."""
    return references.resolved(value, lambda reference: None, "")


def _each(names: list[Any], groups: _Groups) -> list[Any]:
    return [inner for name in names for inner in _last_of(name, groups)]


def _size(value: Any) -> int:
    """How many values there are in this one."""
    number, left = 0, [value]
    while left:
        item = left.pop()
        number += 1
        left += item if isinstance(item, list) else item.values() if isinstance(item, dict) else ()
    return number


def _last_of(name: object, groups: _Groups) -> list[Any]:
    if not isinstance(name, str) or name not in groups.last:
        return [name]
    groups.take(len(groups.last[name]))
    return [f"{name}/{inner}" for inner in groups.last[name]]


def _referring(item: Any, groups: _Groups, where: str, level: int = 1) -> Any:
    """A value with references to groups written out. What is too deep is left for others to refuse."""
    if level > MAX_DEPTH_LEVELS:
        return item
    if isinstance(item, list):
        return [_referring(inner, groups, where, level + 1) for inner in item]
    if not isinstance(item, dict) or _LITERAL in item:
        return item
    match list(item.items()):
        case [("$output", str(text))] if (name := text.partition(".")[0]) in groups.last:
            return _outputs(name, text.split(".")[1:], groups, where)
    return {key: _referring(inner, groups, where, level + 1) for key, inner in item.items()}


def _outputs(group: str, path: list[str], groups: _Groups, where: str) -> Any:
    """What a reference to a group stands for: one node's output, or an object of some, by inner names."""
    inside = last = groups.last[group]
    groups.take(len(last))
    done = 0
    while done < len(path):
        name = "/".join(path[: done + 1])
        done += 1
        if name in last:
            return {_OUTPUT: ".".join((f"{group}/{name}", *path[done:]))}
        inside = [inner for inner in last if inner.startswith(f"{name}/")]
        if not inside:
            raise Invalid(
                f"{where}: $output {'.'.join((group, *path))}: {shown(path[0])} is no last node of "
                f"{group}; allowed: {', '.join(inner.replace('/', '.') for inner in last[:5])}"
            )
    if where.endswith(": map"):
        raise Invalid(
            f"{where}: $output {'.'.join((group, *path))}: an object of outputs; allowed: a list, such as "
            f"{group}.{inside[0].replace('/', '.')}"
        )
    found: dict[str, Any] = {}
    for inner in inside:
        *outer, own = inner.split("/")[done:]
        place = found
        for name in outer:
            place = place.setdefault(name, {})
        place[own] = {_OUTPUT: f"{group}/{inner}"}
    return found
