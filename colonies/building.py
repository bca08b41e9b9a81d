"""Workflows built in Python: typed calls as nodes, the output of one as an argument of another.

    workflow = colonies.Workflow("train")
    data = workflow.add(fetch.call("s3://data"))
    models = workflow.map(fit.call, data.output["parts"])
    best = workflow.add(choose.call(models.output, rate=workflow.parameter("rate", 0.1)))
    handle = await colony.submit(workflow)
    print(await handle.result(best))

It builds a `WorkflowSpec` and does no I/O. What makes no sense is refused where it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, cast, overload

from pydantic import TypeAdapter, ValidationError

from colonies import pending
from colonies.calls import Call, Function
from colonies.core.flow import WorkflowSpec
from colonies.core.names import NAME, shown
from colonies.core.names import name as checked_name
from colonies.core.node import Node as CoreNode
from colonies.core.references import escaped
from colonies.core.spec import Spec
from colonies.errors import Invalid
from colonies.pending import Pending

T = TypeVar("T")
X = TypeVar("X")

Moment = float | str | datetime  # seconds since 1970, or a time with its zone


class Placement(TypedDict, total=False):
    """How a call is a node. `name`: by default that of its function. `after`: nodes that it waits for beside
    those whose outputs it uses. `when`: a JMESPath condition over its inputs. `allow_failure`: its children
    run even if it fails, and get null. `last`: it runs when all others have ended, however they did. `delay`
    (s) counts from the end of the nodes before it; `at`: not before this moment."""

    name: str
    after: Sequence[Node[Any] | Group]
    when: str
    allow_failure: bool
    last: bool
    delay: float
    at: Moment


class Node(pending.Giver, Generic[T]):
    """A node of a workflow, of a call that gives T. `name` is its name there."""

    def __init__(self, within: Nodes, name: str, returns: TypeAdapter[Any] | None, mapped: bool) -> None:
        self.within = within
        self.name = name
        self._returns = returns
        self._mapped = mapped

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    @property
    def output(self) -> T:
        """What it gives, for the arguments of other nodes. Null where it fails and may, or is skipped."""
        return cast(T, Pending(self.within, "output", self.name))

    @property
    def previous(self) -> T | None:
        """What it gave in the run of its cron before this one; null in the first."""
        return cast(T, Pending(self.within, "previous", self.name))

    def typed(self, output: Any) -> T:
        """An output as its type says. Raises Invalid if it is not of it."""
        try:
            if self._returns is None or output is None:
                return cast(T, output)
            if not self._mapped:
                return cast(T, self._returns.validate_python(output))
            checked = [None if one is None else self._returns.validate_python(one) for one in output]
            return cast(T, checked)
        except ValidationError as error:
            raise Invalid(f"node {self.name}: its output is not what it says: {error}") from None


class Group(pending.Giver):
    """A workflow within another. `name` is the first part of its nodes' names."""

    def __init__(self, within: Workflow, name: str, inner: Workflow) -> None:
        self.within = within
        self.name = name
        self._inner = inner
        self._spec = inner.spec()

    def __repr__(self) -> str:
        return f"<workflow {self.name} in {self.within.name}>"

    @property
    def output(self) -> Any:
        """What it gives: the output of the node that it names as such, or of its only last one."""
        name = self._spec.output
        if name is None and len(self._spec.sinks) == 1:
            name = self._spec.sinks[0]
        if name is None:
            raise Invalid(
                f"workflow {self.name}: it ends in {len(self._spec.sinks)} nodes; say which gives its output "
                "(`workflow.output = node`), or take one (`.node(node).output`)"
            )
        return Pending(self.within, "output", f"{self.name}/{name}")

    def node(self, inner: Node[T]) -> Node[T]:
        """One of its nodes, for the workflow around it."""
        if inner.within is not self._inner:
            raise Invalid(f"node {inner.name} is not one of the workflow {self.name}")
        return Node(self.within, f"{self.name}/{inner.name}", inner._returns, inner._mapped)


class Nodes:
    """Nodes that belong together: those of a workflow, or those that a running process adds to its own."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._wires: dict[str, dict[str, Any]] = {}
        self._nodes: dict[str, Node[Any]] = {}
        self._reserved = ""  # a name that none of them may have

    def _add(
        self,
        work: Call[Any] | Spec | dict[str, Any],
        options: Placement,
        mapped: tuple[Pending, object] | None = None,
    ) -> Node[Any]:
        unknown = sorted(set(options) - set(Placement.__annotations__))
        if unknown:
            allowed = ", ".join(Placement.__annotations__)
            hint = f"; a spec's fields go to the function: `@worker.function({unknown[0]}=...)`"
            of_spec = hint if unknown[0] in Spec.model_fields else ""
            raise Invalid(
                f"{self._title}: {', '.join(unknown)}: no option of a node; allowed: {allowed}{of_spec}"
            )
        wire, uses, returns = _plain(work)
        name = self._name(options.get("name") or wire.pop("name", None), wire.get("func"))
        where = f"{self._title}: node {name}"
        strange = pending.foreign(uses, self, mapped[1] if mapped else self)
        if strange is not None:
            raise Invalid(f"{where}: {strange!r} is of another workflow, or of the items of another node")
        wire |= {"name": name, **self._placed(options, where)}
        if mapped is not None:
            wire["map"] = pending.reference(mapped[0])
        CoreNode.read(wire, where=self._title)
        self._wires[name] = wire
        node: Node[Any] = Node(self, name, returns, mapped is not None)
        self._nodes[name] = node
        return node

    def _placed(self, options: Placement, where: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if after := options.get("after"):
            found["dependencies"] = [self._own(node, where).name for node in _several(after, where)]
        if (at := options.get("at")) is not None:
            found["at"] = _moment(at)
        if options.get("last"):
            found["finally"] = True
        for key in ("when", "allow_failure", "delay"):
            if options.get(key) is not None:
                found[key] = options.get(key)
        return found

    def _own(self, node: object, where: str) -> Node[Any] | Group:
        if not isinstance(node, Node | Group):
            raise Invalid(f"{where}: {shown(node)} is no node; allowed: what `add` or `map` gave")
        if node.within is not self:
            raise Invalid(f"{where}: {node.name} is a node of another workflow")
        return node

    def _name(self, said: str | None, func: str | None) -> str:
        """The name as it was said; or the function's, with a number if that is taken."""
        if said is not None:
            checked_name(said, f"{self._title}: node")
            if said in self._wires or said == self._reserved:
                raise Invalid(f"{self._title}: node {said}: there is one of this name; each has its own")
            return said
        if func is None or not NAME.match(func):
            raise Invalid(f"{self._title}: {shown(func)} is no name for a node; give it one with name=")
        name, number = func, 1
        while name in self._wires or name == self._reserved:
            number += 1
            name = f"{func}-{number}"
        return checked_name(name, f"{self._title}: node")

    def map(
        self, call: Callable[[X], Call[T]], items: Iterable[X], **options: Unpack[Placement]
    ) -> Node[list[T]]:
        """A node that is a process for each item of a list that another gives, or that is a parameter.

        `call` makes the call for one item: `resize.call`, or `lambda item: resize.call(item, width=100)`.
        Its output is the list of theirs, in the order of the items. Raises Invalid.
        """
        if isinstance(call, Function):
            raise Invalid(f"{self._title}: map: say what is called for an item: {call.name}.call")
        if isinstance(items, pending.Giver):
            raise Invalid(f"{self._title}: map: {items!r} is no list; allowed: what it gives, its `.output`")
        if not isinstance(items, Pending) or pending.kind(items) == "item":
            raise Invalid(
                f"{self._title}: map: {shown(items)} is known now: add a node for each of its items, or make "
                "it a parameter"
            )
        if pending.foreign((items,), self) is not None:
            raise Invalid(f"{self._title}: map: {items!r} is of another workflow")
        scope = object()
        made = call(cast(X, Pending(scope, "item", "")))
        if not isinstance(made, Call):
            raise Invalid(f"{self._title}: map: {shown(made)} is no call; allowed: such as `resize.call`")
        return self._add(made, options, (items, scope))


class Workflow(Nodes):
    """A workflow to be submitted (`Client.submit`). `delay` and `maxwaittime` are seconds.

    `on_failure`: "stop" cancels what still runs as soon as a node fails; else what does not depend on it runs
    on. `output`, a node, is what the whole gives; without it, all nodes on which no other depends, by name.
    """

    def __init__(
        self,
        name: str,
        *,
        label: str | None = None,
        on_failure: Literal["continue", "stop"] = "continue",
        delay: float | None = None,
        at: Moment | None = None,
        maxwaittime: float | None = None,
    ) -> None:
        self.name = checked_name(name, "workflow")
        super().__init__(f"workflow {self.name}")
        self.output: Node[Any] | Group | None = None
        self._parameters: dict[str, Any] = {}
        self._part_of: str | None = None
        moment = _moment(at) if at is not None else None
        rules = {"label": label, "on_failure": on_failure, "delay": delay, "at": moment}
        self._rules = {**rules, "maxwaittime": maxwaittime}
        # What makes no sense is said here, not when it is submitted.
        WorkflowSpec.read({"name": name, **self._rules, "nodes": []}, where=self._title, whole=False)

    def __repr__(self) -> str:
        return f"<workflow {self.name}: {len(self._wires)} nodes>"

    def parameter(self, name: str, value: T) -> T:
        """A parameter with its value, which a rerun may replace, for the arguments of nodes. Raises
        Invalid."""
        checked_name(name, f"{self._title}: parameter")
        if name in self._parameters:
            raise Invalid(f"{self._title}: parameter {name}: there is one of this name; each has its own")
        where = f"{self._title}: parameter {name}"
        found, uses = _json(value, where, data=False)
        if uses:
            raise Invalid(f"{where}: {uses[0]!r} is known only when the workflow runs; a parameter is before")
        self._parameters[name] = found
        return cast(T, Pending(self, "parameter", name))

    @property
    def packed(self) -> Any:
        """The list of the arguments that a generator gives to a run, for the arguments of nodes."""
        return Pending(self, "packed", "")

    @overload
    def add(self, work: Call[T], **options: Unpack[Placement]) -> Node[T]: ...
    @overload
    def add(self, work: Spec | dict[str, Any], **options: Unpack[Placement]) -> Node[Any]: ...
    @overload
    def add(
        self,
        work: Workflow,
        *,
        name: str = ...,
        after: Sequence[Node[Any] | Group] = ...,
        parameters: dict[str, Any] = ...,
    ) -> Group: ...
    def add(self, work: Call[Any] | Spec | dict[str, Any] | Workflow, **options: Any) -> Node[Any] | Group:
        """Add a node; or all nodes of another workflow, whose names then begin with its `name` and a slash,
        and whose `parameters` may be replaced, also by outputs of nodes.

        Raises:
            Invalid: it makes no sense there; the message says what would.
        """
        if self._part_of is not None:
            raise Invalid(f"{self._title}: it is part of {self._part_of} already and cannot change any more")
        if isinstance(work, Workflow):
            return self._include(work, **options)
        return self._add(work, cast(Placement, options))

    def _include(
        self,
        inner: Workflow,
        *,
        name: str | None = None,
        after: Sequence[Node[Any] | Group] = (),
        parameters: dict[str, Any] | None = None,
    ) -> Group:
        name = self._name(name, inner.name)
        where = f"{self._title}: workflow {name}"
        if inner is self:
            raise Invalid(f"{where}: it cannot be part of itself")
        wrong = sorted(set(parameters or {}) - set(inner._parameters))
        if wrong:
            declared = ", ".join(sorted(inner._parameters)) or "none"
            raise Invalid(f"{where}: {', '.join(wrong)}: there is no such parameter; declared: {declared}")
        given, uses = _json(parameters or {}, f"{where}: parameters")
        if (strange := pending.foreign(uses, self)) is not None:
            raise Invalid(f"{where}: {strange!r} is of another workflow")
        unfit = [rule for rule, value in inner._rules.items() if value not in (None, "continue")]
        if unfit:
            raise Invalid(f"{where}: {', '.join(unfit)}: only the outermost workflow has that")
        group = Group(self, name, inner)
        wire: dict[str, Any] = {"name": name, "nodes": list(inner._wires.values())}
        wire["parameters"] = {**escaped(inner._parameters, "\0"), **given}
        if after:
            wire["dependencies"] = [self._own(node, where).name for node in _several(after, where)]
        for path, node in inner._nodes.items():
            self._nodes[f"{name}/{path}"] = Node(self, f"{name}/{path}", node._returns, node._mapped)
        inner._part_of = self.name
        self._wires[name] = wire
        return group

    def wait_signal(
        self, signal: str, *, timeout_s: float | None = None, **options: Unpack[Placement]
    ) -> Node[dict[str, Any]]:
        """A node that waits for a signal to its workflow: it runs nothing, and gives the signal's `data` and
        who sent it, `by`. Without one within `timeout_s` seconds it fails. Raises Invalid."""
        said = {"wait_signal": {"name": checked_name(signal, "signal"), "timeout": timeout_s}}
        return self._add(said, {"name": signal, **options})

    def spec(self) -> WorkflowSpec:
        """What is submitted. Raises Invalid."""
        wire = {"name": self.name, **self._rules, "parameters": self._parameters}
        if self.output is not None:
            own = self._own(self.output, f"{self._title}: output")
            wire["output"] = pending.reference(cast(Pending, own.output))["$output"]
        return WorkflowSpec.parse({**wire, "nodes": list(self._wires.values())}, where=self._title)

    def typed(self, name: str, output: Any) -> Any:
        """The output of the node of this name, as its type says. Raises Invalid."""
        node = self._nodes.get(name)
        return node.typed(output) if node is not None else output


def _plain(
    work: Call[Any] | Spec | dict[str, Any],
) -> tuple[dict[str, Any], tuple[Pending, ...], TypeAdapter[Any] | None]:
    """What is to run, as a node holds it: what it uses, and the type of what it gives."""
    if isinstance(work, Call):
        return _data(work.spec, bool(work.uses)), work.uses, work.returns
    if isinstance(work, Spec):
        return _data(work, False), (), None
    if not isinstance(work, dict):
        raise Invalid(
            f"{shown(work)} is nothing that a node can run; allowed: a call (`resize.call(...)`), a spec, a "
            "workflow"
        )
    wire, uses = _json(work, "node", data=False)
    return wire, uses, None


def _data(spec: Spec, referring: bool) -> dict[str, Any]:
    wire = spec.wire()
    if not referring:  # then nothing in it is a reference, whatever it looks like
        for key in ("args", "kwargs"):
            if key in wire:
                wire[key] = escaped(wire[key], "\0")
    return wire


def _json(value: Any, where: str, *, data: bool = True) -> tuple[Any, tuple[Pending, ...]]:
    """A value as JSON has it, and what is pending in it. `data`: nothing else in it is a reference, whatever
    it looks like."""
    try:
        found, uses = pending.plain(value)
        return (pending.escaped(found) if data else _unmarked(found)), uses
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{where}: it cannot be sent: {error}") from None


def _unmarked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    if isinstance(value, dict):
        return {key.removeprefix("\0"): _unmarked(item) for key, item in value.items()}
    return value


def _several(nodes: object, where: str) -> Iterable[object]:
    if isinstance(nodes, Node | Group):
        raise Invalid(f"{where}: after: {nodes!r} stands alone; allowed: a list of nodes")
    return cast(Iterable[object], nodes)


def _moment(at: Moment) -> float | str:
    return at.isoformat() if isinstance(at, datetime) else at
