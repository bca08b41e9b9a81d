"""What a workflow is asked to be: its nodes, its parameters, and what a failure does to the others.

People's input comes in by `parse` and `parse_text`: a list of specs, or an object with `nodes`, in which a
node may be a workflow itself. `read` takes the plain form that the ledger holds, where all of that is flat.
Both refuse what is no DAG, naming the node. The graph never changes; what processes add to it is
`colonies.core.dag`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from colonies.core import when
from colonies.core.groups import EXAMPLE, flat
from colonies.core.names import shown
from colonies.core.node import Node, seen_from, split
from colonies.core.parsing import json_value, parsed
from colonies.core.plain import MAX_PROBLEMS
from colonies.core.references import Kind
from colonies.core.spec import AT_ALLOWED, MAX_SECONDS, At, Kwargs, Seconds, Spec, Text
from colonies.core.spec import Name as SpecName
from colonies.core.words import Words
from colonies.errors import Invalid

MAX_NODES: Final = 10_000  # of a workflow as it is submitted
MAX_EDGES: Final = 200_000  # dependencies of all nodes together: each is looked at, and cited
MAX_LAST: Final = 10  # nodes that run last: each waits for all others

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
        nodes, parameters = flat(said.get("nodes"), where, inner=cls.read, parameters=said.get("parameters"))
        rest = {**said, "nodes": nodes}
        found = cls.read(rest if parameters is None else {**rest, "parameters": parameters}, where=where)
        return found.sensible(where)

    @classmethod
    def of(cls, data: object, name: str, *, where: str = "spec") -> WorkflowSpec:
        """As `parse`; and one spec of a process is the workflow with this one node, by default of that
        name."""
        if not isinstance(data, dict) or "nodes" in data:
            return cls.parse(data, where=where)
        said = {key: value for key, value in data.items() if value is not None}
        if not said.keys() & {"func", "funcname", "wait_signal"}:
            raise Invalid(
                f"{where}: an object without func is no process, and one without nodes no workflow; allowed: "
                f"one object such as {Spec.EXAMPLE}, or a list of nodes such as {EXAMPLE}"
            )
        if not said.keys() & {"name", "nodename"}:
            said["name"] = name
        return cls((Node.read(said, where=where),)).checked(where).sensible(where)

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
        rules = parsed(_Rules, rest, where, beside=("nodes",))
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
        if self._found:
            raise Invalid("\n".join(f"{where}: {problem}" for problem in self._found))
        return self

    @cached_property
    def _found(self) -> list[str]:
        """What keeps the nodes from being a DAG."""
        # No more are looked for than are said: there may be one for each of a million dependencies.
        problems = list(islice(_problems(self), MAX_PROBLEMS + 1))
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS - 1 :] = ["and more problems"]
        return problems

    def sensible(self, where: str = "workflow") -> WorkflowSpec:
        """Itself, if conditions look at parents of their nodes only, and `$previous` at nodes that there are:
        what else they name is null for ever.

        It is asked of what people give, and not in `checked`, by which readers judge what is recorded: there
        such a condition is one that does not hold, and all must go on to say the same of old events. Raises
        Invalid.
        """
        if problems := list(islice(_senseless(self), MAX_PROBLEMS)):
            raise Invalid("\n".join(f"{where}: {problem}" for problem in problems))
        return self

    def without(self, kind: Kind, why: str) -> WorkflowSpec:
        """Itself, if no node has a reference of this kind, for which there is never a value; `why`. Raises
        Invalid."""
        for node in self.nodes:
            for reference in (*node.references, *([node.map] if node.map else [])):
                if reference.kind == kind:
                    raise Invalid(f"node {node.name}: {shown(str(reference))}: {why}")
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
    outer = node.name
    while (outer := outer.rpartition("/")[0]) and outer not in names:
        pass
    if outer:
        yield f"node {node.name}: there is a node {outer}, and what it may add has such names; take another"
    used = [*node.references, *([node.map] if node.map else [])]
    for reference in used:
        if reference.kind == "parameter" and reference.name not in spec.parameters:
            there = shown(sorted(spec.parameters)) if spec.parameters else "none"
            yield f"node {node.name}: {shown(str(reference))}: there is no such parameter; declared: {there}"


def _senseless(spec: WorkflowSpec) -> Iterator[str]:
    """What can be recorded, and never means anything."""
    every = [node.name for node in spec.nodes if not node.last]
    for node in spec.nodes:
        yield from misread(node, every if node.last else node.parents, spec.by_name)
        for reference in node.references:
            if reference.kind == "previous" and not _adder_or_node(reference.name, spec):
                near = _near(reference.name, spec.by_name)
                yield f"node {node.name}: {shown(str(reference))}: there is no such node{near}"


def _adder_or_node(label: str, spec: WorkflowSpec) -> bool:
    """Is it a node, a part of one, or perhaps added by one? The names of what is added are not known."""
    steps = label.split("/")
    return any(split("/".join(steps[:end]))[0] in spec.by_name for end in range(1, len(steps) + 1))


def misread(node: Node, parents: Sequence[str], others: Collection[str] = ()) -> Iterator[str]:
    """What is wrong with the names in a node's condition. `others`: nodes that might be made its parents."""
    if node.when is None:
        return
    seen = list(dict.fromkeys(seen_from(node, parent) for parent in parents))
    for name in when.unknown(node.when, seen):
        more = ", ..." if len(seen) > 5 else ""
        there = f"its parents: {', '.join(seen[:5])}{more}" if seen else "it has none"
        hint = f"; to look at it, let {node.name} depend on {name}" if name in others else ""
        wrong = f"{shown(name)} is no parent, and a condition sees parents"
        yield f"node {node.name}: when: {wrong}; {there}{hint}"


def _near(name: str, names: Collection[str]) -> str:
    near = get_close_matches(name[:64], list(islice(names, 1_000)), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _cycle(spec: WorkflowSpec) -> Iterator[str]:
    try:
        TopologicalSorter({node.name: node.parents for node in spec.nodes}).prepare()
    except CycleError as error:
        path = error.args[1]
        shown_path = [*path[:8], "...", path[-1]] if len(path) > 9 else path
        yield f"node {path[0]}: it depends on itself by a cycle: {' -> '.join(shown_path)}"


def _read(value: object) -> WorkflowSpec:
    if isinstance(value, WorkflowSpec):
        return value
    try:
        return WorkflowSpec.read(value, whole=False)
    except Invalid as error:
        raise PydanticCustomError("said", "{text}", {"text": str(error)}) from None


WorkflowSpecField = Annotated[WorkflowSpec, PlainValidator(_read)]
