"""What the function of a running node adds to its workflow; what becomes of it is `colonies.core.adding`.

    here = colonies.current()
    counts = [here.add(count.call(part)) for part in parts]
    here.add(total.call([count.output for count in counts]), name="total")

Nothing is recorded before the attempt ends well: then the nodes are in its `completed`, and are there exactly
if that attempt counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Unpack, cast, overload

import msgpack

from colonies.building import Node, Nodes, Placement, T, X
from colonies.calls import Call
from colonies.core.adding import EXAMPLE, check, read
from colonies.core.events import MAX_ADDED_NODES
from colonies.core.node import Node as CoreNode
from colonies.core.node import split
from colonies.core.parsing import json_value
from colonies.core.spec import Spec
from colonies.errors import Invalid
from colonies.pending import Pending

MAX_ADDED_BYTES = 700_000  # beside them the event, of at most 1,000,000 bytes, holds an output of 128 KiB


class Adding(Nodes):
    """The nodes that one attempt adds. `label` is that of the node that runs; None: it is no node."""

    def __init__(self, label: str | None) -> None:
        super().__init__(f"added by {label}" if label is not None else "added")
        self._label = label
        self._reserved = split(label or "")[0].rpartition("/")[2]
        self._between: bool | None = None
        self._bytes = 0
        self._adding = threading.RLock()

    @property
    def output(self) -> Any:
        """What this function will return, for the nodes that it adds."""
        return Pending(self, "output", self._reserved)

    @overload
    def add(self, work: Call[T], *, between: bool = False, **options: Unpack[Placement]) -> Node[T]: ...
    @overload
    def add(
        self, work: Spec | dict[str, Any], *, between: bool = False, **options: Unpack[Placement]
    ) -> Node[Any]: ...
    def add(
        self, work: Call[Any] | Spec | dict[str, Any], *, between: bool = False, **options: Any
    ) -> Node[Any]:
        """Add a node to the workflow, to run after this process. `between`: the nodes that wait for this
        process wait for what it adds as well. Any thread.

        Raises:
            Invalid: this process is no node of a workflow, or what is added makes no sense there.
        """
        return self._add(work, cast(Placement, {**options, "between": between}))

    def map(
        self,
        call: Callable[[X], Call[T]],
        items: Iterable[X],
        *,
        between: bool = False,
        **options: Unpack[Placement],
    ) -> Node[list[T]]:
        """As `Workflow.map`, over a list that a node added here gives, or this function's own `output`."""
        return super().map(call, items, **cast(Placement, {**options, "between": between}))

    def _add(
        self,
        work: Call[Any] | Spec | dict[str, Any],
        options: Placement,
        mapped: tuple[Pending, object] | None = None,
    ) -> Node[Any]:
        rest: dict[str, Any] = dict(options)
        between = bool(rest.pop("between", False))
        if self._label is None:
            raise Invalid("only a node of a workflow adds nodes, and this process is none")
        if "last" in rest:
            raise Invalid(f"{self._title}: last: only the nodes that a workflow was submitted with run last")
        with self._adding:
            if self._between not in (None, between):
                raise Invalid(f"{self._title}: between: it holds for all nodes that are added, or for none")
            if len(self._wires) >= MAX_ADDED_NODES:
                raise Invalid(f"{self._title}: more than {MAX_ADDED_NODES} nodes; so many are allowed")
            node = super()._add(work, cast(Placement, rest), mapped)
            self._between = between
            self._bytes += len(msgpack.packb(self._wires[node.name]))
            if self._bytes > MAX_ADDED_BYTES:
                raise Invalid(
                    f"{self._title}: node {node.name}: {self._bytes} bytes in all; at most {MAX_ADDED_BYTES} "
                    "are allowed: give them the place of what is large, not the thing"
                )
            return node

    def add_text(self, text: bytes, where: str) -> None:
        """Add the nodes in a JSON text, which a program wrote that is no Python function. Its form is that of
        `colonies.core.adding.read`. Any thread.

        Raises:
            Invalid: as `add`; then nothing of it is added.
        """
        said = json_value(text, where, EXAMPLE)
        if self._label is None:
            raise Invalid(f"{where}: only a node of a workflow adds nodes, and this process is none")
        nodes, between = read(said, self._label, where)
        if len(nodes) > MAX_ADDED_NODES:
            raise Invalid(f"{where}: {len(nodes)} nodes; at most {MAX_ADDED_NODES} are allowed")
        wires = {node.name: node.wire() for node in nodes}
        size = sum(len(msgpack.packb(wire)) for wire in wires.values())
        if size > MAX_ADDED_BYTES:
            raise Invalid(
                f"{where}: {size} bytes of nodes; at most {MAX_ADDED_BYTES} are allowed: give them the place "
                "of what is large, not the thing"
            )
        with self._adding:
            self._wires, self._between = wires, between

    def added(self) -> tuple[list[CoreNode] | None, bool]:
        """What goes into the attempt's `completed`. Raises Invalid: they make no DAG."""
        with self._adding:
            nodes = [CoreNode.read(wire, where=self._title) for wire in self._wires.values()]
            if self._label is not None:
                check(nodes, self._label)
            return nodes or None, bool(self._between)
