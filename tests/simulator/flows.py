"""What must hold of workflows, in words of its own: it asks none of the code's rules, and reads the events.

A `Tale` is a workflow as the ledger tells it, with the lives of its nodes. `wrong` says which promise the
first event of a node breaks, `VOID` of one that was true when it was decided and lost the race with the
workflow's cancel. Whose end is not told yet has not ended.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulator.broker import SECOND

if TYPE_CHECKING:
    from tests.simulator.oracle import Life, Told

FINE = ("successful", "skipped")
VOID = "void"
_PART = re.compile(r"(.*)\[(\d+)\]")
_WHEN = re.compile(r'(!?)"?([a-z/]+)"?(\.n == `1`)?')

Node = dict[str, Any]


@dataclass(slots=True)
class Tale:
    """A workflow. `nodes` are by name, with those added; `parents` and `order` are of all of these; `added`
    is by the label of who added them; `lives` are by label."""

    id: str
    submitter: str
    spec: dict[str, Any]
    sequence: int
    time: int
    head: bytes
    nodes: dict[str, Node] = field(default_factory=dict)
    parents: dict[str, list[str]] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    between: set[str] = field(default_factory=set)
    lives: dict[str, Life] = field(default_factory=dict)
    cancelled_at: int | None = None
    stopped: str | None = None  # why it was
    signals: list[tuple[int, str, str, Any]] = field(default_factory=list)
    source: str | None = None  # the cron or generator that it comes from
    packed: list[Any] | None = None  # what the generator gives to it
    previous: Tale | None = None  # the run of the cron whose outputs it may use

    # --- its nodes -----------------------------------------------------------------------------------

    def learn(self, nodes: list[Node], adder: str | None = None) -> None:
        """Nodes that it has, from the start or added by a process of this label."""
        own = {node["name"] for node in nodes}
        short = _split(adder)[0].rpartition("/")[2] if adder else None
        for said in nodes:
            node = {**said, "adder": adder, "own": own}
            name = f"{adder}/{said['name']}" if adder else said["name"]
            waits = [*said.get("dependencies", []), *_referred(said)]
            places = [self.outer(node, wait) for wait in waits if adder is None or wait != short]
            self.nodes[name] = node
            self.parents[name] = list(dict.fromkeys([*([adder] if adder else []), *places]))
            if adder:
                self.added.setdefault(adder, []).append(name)

    def outer(self, node: Node, name: str) -> str:
        """What another is called by this node, and in the workflow."""
        if node["adder"] is None:
            return name
        return f"{node['adder']}/{name}" if name in node["own"] else str(node["adder"])

    def labels(self, name: str) -> list[str] | None:
        """The processes that a node is; None: that is not known yet."""
        if name not in self.nodes or name in self.lives or "map" not in self.nodes[name]:
            return [name]
        items = self.items(name) if self._has_parts(name) else None
        return [f"{name}[{n}]" for n in range(len(items))] if items is not None else None

    def _has_parts(self, name: str) -> bool:
        """Has a node that maps all it waits for, so that it runs?"""
        node, ends = self.nodes[name], []
        for parent in self.before(name):
            found = self.ends(parent)
            excused = node.get("finally") or self.excused(parent)
            if found is None or not (excused or all(life.state in FINE for life in found)):
                return False
            ends += found
        return self._runs(node, ends) and self.items(name) is not None

    def items(self, name: str) -> list[Any] | None:
        """What a node maps over; None: it is no list, or not there yet."""
        [(kind, text)] = self.nodes[name]["map"].items()
        found: Any = self.packed if kind == "$packed" else self.spec.get("parameters", {}).get(text)
        if kind == "$output":
            source, _, path = text.partition(".")
            life = self.lives.get(self.outer(self.nodes[name], source))
            found = life.output[path] if life is not None and life.state == "successful" else None
        return found if isinstance(found, list) else None

    def before(self, name: str) -> list[str]:
        """Whom it waits for, as far as they are there: nodes, those put between, and of one that runs last
        all others."""
        last = bool(self.nodes[name].get("finally"))
        first = [n for n, node in self.nodes.items() if not node["adder"] and not node.get("finally")]
        found: dict[str, None] = {}
        for parent in first if last else self.parents[name]:
            self._walk(parent, last, self.nodes[name]["adder"], found)
        return list(found)

    def _walk(self, parent: str, last: bool, adder: str | None, found: dict[str, None]) -> None:
        if parent in found:
            return
        found[parent] = None
        for label in self.labels(parent) or []:
            added = self.added.get(label, []) if label != adder else []
            waited_for = {p for name in added for p in self.parents[name]}
            for name in added:
                if last or (label in self.between and name not in waited_for):
                    self._walk(name, last, adder, found)

    def ends(self, parent: str) -> list[Life] | None:
        """The processes of a parent, if all of them have ended."""
        labels = self.labels(parent)
        found = [self.lives.get(label) for label in labels or []]
        if labels is None or any(life is None or not life.final for life in found):
            return None
        return [life for life in found if life is not None]

    def value(self, parent: str) -> Any:
        """What its children get of a parent that has ended."""
        outputs = [life.output if life.state == "successful" else None for life in self.ends(parent) or []]
        return outputs[0] if self.labels(parent) == [parent] else outputs

    def excused(self, parent: str) -> bool:
        return bool(self.nodes[_split(parent)[0]].get("allow_failure"))

    # --- all of it -----------------------------------------------------------------------------------

    def all_labels(self) -> Iterator[str]:
        for name in self.nodes:
            labels = self.labels(name)
            yield from labels if labels is not None else [f"{name}[?]"]

    @property
    def ended(self) -> bool:
        return all(label in self.lives and self.lives[label].final for label in self.all_labels())

    @property
    def ended_at(self) -> int:
        """Of one that has ended: when it did (ns)."""
        return max(self.lives[label].time for label in self.all_labels())

    @property
    def state(self) -> str:
        if not self.ended:
            return "running"
        ends = [self.lives[label] for label in self.all_labels() if not self.excused(label)]
        wrong = [life for life in ends if life.state not in FINE]
        late = [life for life in wrong if self.cancelled_at is not None and life.sequence > self.cancelled_at]
        if any(life.state == "cancelled" for life in late):  # else the cancel came too late for all
            return "cancelled"
        return "failed" if wrong else "successful"

    def outputs(self) -> dict[str, Any]:
        """Its result: the outputs of the nodes on which none of those submitted depends."""
        given = [name for name, node in self.nodes.items() if not node["adder"]]
        waited_for = {parent for name in given for parent in self.parents[name]}
        sinks = [n for n in given if n not in waited_for and not self.nodes[n].get("finally")]
        return {name: self.value(name) for name in sinks}

    # --- the first event of a node -------------------------------------------------------------------

    def wrong(self, told: Told, process: str, role: str) -> str | None:
        """The promise that is broken by it; VOID; None if it is true."""
        label = told.data["node"]
        name, part = _split(label)
        node = self.nodes.get(name)
        if process != node_id(self.id, label):
            return "its id does not derive from workflow and node"
        if node is None and self.cancelled_at is not None and "/" in name:
            return VOID  # what was to add it is void as well
        if node is None or (part is not None and "map" not in node):
            return f"there is no node {label}"
        if told.event == "cancelled" and "map" in node and part is None and self._has_parts(name):
            return VOID  # the last of its parents ended meanwhile
        if part is None and any(_split(other)[0] == name for other in self.lives):
            return f"{label} ends as a whole, and parts of it have begun"
        if part is not None and name in self.lives:
            return f"{label} begins, and {name} has ended as a whole"
        if told.event == "cancelled":
            if part is not None and label not in (self.labels(name) or []):
                return f"there is no part {part} to cancel"
            return self.cancel_wrong(told, label, role)
        if role not in ("service", "worker"):
            return f"a {role} decides about a node"
        if self.cancelled_at is not None and not node.get("finally"):
            return VOID
        if part is None and "map" in node and told.event != "skipped":
            return f"{label} maps, and runs as a whole"
        if part is not None and told.event == "skipped":
            return f"{label} is skipped, and not all of {name}"
        return self._begin_wrong(told, name, part, role)

    def _begin_wrong(self, told: Told, name: str, part: int | None, role: str) -> str | None:
        node, parents = self.nodes[name], self.before(name)
        ends: list[Life] = []
        for parent in parents:
            found = self.ends(parent)
            if found is None:
                return f"{parent} has not ended, and {name} waits for it"
            bad = [life for life in found if life.state not in FINE]
            if bad and not node.get("finally") and not self.excused(parent):
                return f"{bad[0].node} is {bad[0].state}, and {name} runs only after its success"
            ends += found
        decides = {life.sequence for life in (*ends, *self._listed(parents))}
        if told.data["cites"] != [self.sequence, *sorted(decides)]:
            return "it does not cite the workflow and the ends of the parents"
        runs = self._runs(node, ends)
        if runs == (told.event == "skipped"):
            return f"its condition {'holds' if runs else 'does not hold'}"
        if not runs:
            return None
        if told.event != ("awaited" if "wait_signal" in node else "released"):
            return "that is not what the node is"
        if part is not None and part >= len(self.items(name) or []):
            return f"there is no part {part}"
        if told.time < self._from(node, ends):
            return "its delay is not over"
        if role == "worker":
            one = ends[0] if len(ends) == 1 else None
            if one is None or one.state != "successful" or one.attempts[-1].worker != told.author:
                return "a worker releases what does not wait for its own work alone"
        return None

    def _listed(self, parents: list[str]) -> Iterator[Life]:
        """Whose output is the list that a parent has its parts from: so many ends there are."""
        for parent in parents:
            if self.labels(parent) != [parent] and "$output" in self.nodes[parent]["map"]:
                source = self.nodes[parent]["map"]["$output"].partition(".")[0]
                yield self.lives[self.outer(self.nodes[parent], source)]

    def _runs(self, node: Node, ends: list[Life]) -> bool:
        """Does its condition hold? Without one it runs if any of its parents did."""
        if "when" in node:
            match = _WHEN.fullmatch(node["when"])
            assert match is not None
            [parent] = [p for p in self.before(node["name"]) if _seen(node["name"], p) == match[2]]
            value = self.value(parent)
            return not value if match[1] else value is not None and value["n"] == 1
        return bool(node.get("finally") or not ends or any(life.state != "skipped" for life in ends))

    def _from(self, node: Node, ends: list[Life]) -> int:
        """From when on it may run (ns)."""
        after = max((life.time for life in ends), default=self.time)
        cleaning = node.get("finally") and self.cancelled_at is not None
        begins = self.time if cleaning else self.time + _ns(self.spec.get("delay"))
        if not ends:
            after = begins
        return max(begins, after + _ns(node.get("delay")))

    def cancel_wrong(self, told: Told, label: str, role: str) -> str | None:
        """Why this node may not be cancelled so; None if it may."""
        data, name = told.data, _split(label)[0]
        node, cites, cause = self.nodes[name], data.get("cites"), data.get("cause")
        if role == "user":
            return None if told.author == self.submitter else "it is another's"
        if role != "service":
            return f"a {role} cancels a node"
        if not node.get("finally") and cites is not None and cites == self.cancelled_at:
            return None
        if cause is not None:
            return self._cause_wrong(name, cites, cause)
        ends = [life for parent in self.before(name) for life in self.ends(parent) or []]
        if "map" in node and self.items(name) is None and cites == max(life.sequence for life in ends):
            return None
        return "nothing stops the node"

    def _cause_wrong(self, name: str, cites: object, cause: str) -> str | None:
        life, blamed = self.lives.get(cause), _split(cause)[0]
        if life is None or not life.final or life.state in FINE or life.sequence != cites:
            return f"{cause} did not end so"
        if self.excused(cause) or self.nodes[name].get("finally"):
            return f"{cause} stops nobody"
        stops = self.spec.get("on_failure") == "stop" and not self.nodes[blamed].get("finally")
        before = self.before(name)
        return None if stops or blamed in before or cause in before else f"{name} does not wait for {cause}"

    # --- what a node gets ----------------------------------------------------------------------------

    def inputs(self, label: str) -> dict[str, Any]:
        """The outputs of its parents, by name."""
        name = _split(label)[0]
        return {_seen(name, parent): self.value(parent) for parent in self.before(name)}

    def given(self, label: str) -> dict[str, Any] | None:
        """The references in its arguments, with values in their places."""
        node = self.nodes[_split(label)[0]]
        said = node.get("kwargs")
        if said is None:
            return None
        return {key: self._given(node, reference) for key, reference in said["given"].items()}

    def _given(self, node: Node, reference: dict[str, str]) -> Any:
        [(kind, text)] = reference.items()
        if kind == "$packed":
            return (self.packed or [])[int(text)] if text else self.packed
        name, _, path = text.partition(".")
        if kind == "$output":
            value = self.value(self.outer(node, name))
        else:
            value = self.previous.value(name) if self.previous is not None else None
        return value[path] if path and value is not None else value

    def item(self, label: str) -> Any:
        """The item of the list that a part is for; None of what is no part."""
        name, part = _split(label)
        return (self.items(name) or [])[part] if part is not None else None


def node_id(workflow: str, label: str) -> str:
    digest = hashlib.sha256(f"node\0{workflow}\0{label}".encode()).digest()
    return base64.b32encode(digest[:20]).decode().lower()


def spec_of(tale: Tale, label: str) -> dict[str, Any]:
    """What stands for the spec of a node's process."""
    node = tale.nodes[_split(label)[0]]
    if "wait_signal" in node:
        return {"conditions": {}, "maxwaittime": node["wait_signal"].get("timeout")}
    return {"maxwaittime": tale.spec.get("maxwaittime"), **node}


def _split(label: str) -> tuple[str, int | None]:
    found = _PART.fullmatch(label)
    return (found[1], int(found[2])) if found else (label, None)


def _seen(name: str, other: str) -> str:
    """What a node calls another: in a group, or added by one process, they leave out what they have in
    common; and who added them is called by its own name."""
    group = name.rpartition("/")[0]
    if group and _split(other)[0] == _split(group)[0]:
        return _split(other)[0].rpartition("/")[2]
    return other.removeprefix(f"{group}/") if group else other


def _referred(node: Node) -> list[str]:
    """The nodes whose outputs it refers to, in its arguments and then in `map`."""
    references = [*node.get("kwargs", {}).get("given", {}).values(), node.get("map", {})]
    return [r["$output"].partition(".")[0] for r in references if "$output" in r]


def _ns(seconds: float | None) -> int:
    return int((seconds or 0.0) * SECOND)
