"""A node of a workflow: the spec of its process, and what in the workflow decides whether and when it runs.

People's input comes in by `Node.read`; `Node.wire` is the plain form that the ledger holds: the spec's fields
and the node's own, in one object. A node is judged for its own sense only; what it is together with others is
`colonies.core.flow`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from colonies.core import names, references
from colonies.core.names import shown
from colonies.core.parsing import parsed
from colonies.core.plain import at_most
from colonies.core.references import MAX_REFERENCES, Reference
from colonies.core.spec import MAX_DEPENDENCIES, MAX_SECONDS, Seconds, Spec
from colonies.core.spec import Name as SpecName
from colonies.core.when import MAX_WHEN_CHARS, WHEN_ALLOWED
from colonies.core.when import check as check_when
from colonies.core.words import Words
from colonies.errors import Invalid

MAX_NODE_LEVELS: Final = 8  # of a name, between slashes
MAX_NODE_CHARS: Final = 256
MAX_MAPPED: Final = 10_000  # parts of a node that maps

NODE_ALLOWED: Final = f"{names.NAME_ALLOWED}, up to {MAX_NODE_LEVELS} of these joined by /"
_NODE: Final = re.compile(r"\A[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,7}\Z")
_LABEL: Final = (
    r"\A[A-Za-z0-9_-]{1,64}(\[(0|[1-9][0-9]{0,4})\])?(/[A-Za-z0-9_-]{1,64}(\[(0|[1-9][0-9]{0,4})\])?){0,7}\z"
)
_PART: Final = re.compile(r"\[([0-9]+)\]\Z")

Label = Annotated[str, Field(strict=True, max_length=MAX_NODE_CHARS, pattern=_LABEL)]


def _node_name(value: object) -> object:
    if not isinstance(value, str) or len(value) > MAX_NODE_CHARS or not _NODE.match(value):
        raise PydanticCustomError("not_allowed", "not allowed")
    return value


def _signal(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


NodeName = Annotated[str, BeforeValidator(_node_name)]


class WaitSignal(Words):
    """A node that waits for a signal to its workflow instead of running anything."""

    EXAMPLE = '{"name": "approve", "timeout": 3600}'

    name: SpecName = Field(description=names.NAME_ALLOWED)
    timeout: Seconds = Field(
        default=None, description=f"seconds, a number up to {MAX_SECONDS}; 0, -1 or nothing: no limit"
    )


class NodeRules(Words):
    """What a node says beside the spec of its process."""

    EXAMPLE = '{"name": "train"}'

    name: NodeName = Field(description=NODE_ALLOWED)
    dependencies: Annotated[list[str], at_most(MAX_DEPENDENCIES)] = Field(
        default_factory=list, description=f"a list of at most {MAX_DEPENDENCIES} names of nodes"
    )
    when: Annotated[str, Field(max_length=MAX_WHEN_CHARS)] | None = Field(
        default=None, description=WHEN_ALLOWED
    )
    map: dict[str, str] | None = Field(
        default=None, description='a reference to a list, such as {"$output": "list.files"}'
    )
    wait_signal: Annotated[WaitSignal | None, BeforeValidator(_signal)] = Field(
        default=None,
        description='a signal\'s name, or an object such as {"name": "approve", "timeout": 3600}',
    )
    allow_failure: bool = Field(default=False, description="true or false")
    last: bool = Field(default=False, description="true or false")


RULES: Final = frozenset(NodeRules.model_fields) - {"last"} | {"finally"}


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `spec` is None where it waits for a signal. `parents` are the names of the nodes that it
    depends on, by `dependencies` or by reference, in that order, each once; `last` is what people write as
    `finally`."""

    name: str
    spec: Spec | None
    parents: tuple[str, ...]
    dependencies: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    when: str | None = None
    map: Reference | None = None
    wait_signal: WaitSignal | None = None
    allow_failure: bool = False
    last: bool = False

    @classmethod
    def read(cls, data: object, *, where: str = "node") -> Node:
        """The node that `data` means, or `Invalid`. Dependencies may stand in `conditions`, as in a spec."""
        if not isinstance(data, dict):
            raise Invalid(
                f'{where}: {shown(data)} is no node; allowed: an object such as {{"name": "train", ...}}'
            )
        said = dict(data)
        if "nodename" in said and "name" not in said:
            said["name"] = said.pop("nodename")
        if isinstance(name := said.get("name"), str) and _NODE.match(name):
            where = f"{where} ({name})"
        said, within = _dependencies_of(said, where)
        rules = {("last" if key == "finally" else key): said.pop(key) for key in list(said) if key in RULES}
        given = parsed(NodeRules, rules | ({"dependencies": within} if within is not None else {}), where)
        spec = _spec_of(said, given, where)
        return cls._made(given, spec, where)

    @classmethod
    def _made(cls, given: NodeRules, spec: Spec | None, where: str) -> Node:
        mapped = references.read(given.map, f"{where}: map") if given.map is not None else None
        if given.map is not None and (mapped is None or mapped.kind not in ("output", "parameter", "packed")):
            raise Invalid(
                f"{where}: map: {shown(given.map)} is not allowed; allowed: a reference to a list, "
                'such as {"$output": "list.files"}, {"$parameter": "files"} or {"$packed": ""}'
            )
        if given.when is not None:
            check_when(given.when, f"{where}: when")
        found = _references(spec, where)
        if mapped is None and any(reference.kind == "item" for reference in found):
            raise Invalid(
                f'{where}: $item: this node maps over nothing; add "map": {{"$output": "list.files"}}'
            )
        named = [r.name for r in (*found, *([mapped] if mapped else [])) if r.kind == "output"]
        return cls(
            given.name,
            spec,
            tuple(dict.fromkeys((*given.dependencies, *named))),
            tuple(dict.fromkeys(given.dependencies)),
            tuple(found),
            given.when,
            mapped,
            given.wait_signal,
            given.allow_failure,
            given.last,
        )

    def wire(self) -> dict[str, Any]:
        """The plain form for the ledger."""
        spec = self.spec.wire() if self.spec is not None else {}
        found: dict[str, Any] = {**spec, "name": self.name}
        if self.dependencies:
            found["dependencies"] = list(self.dependencies)
        if self.when is not None:
            found["when"] = self.when
        if self.map is not None:
            named = [self.map.name] if self.map.name else []
            found["map"] = {f"${self.map.kind}": ".".join([*named, *self.map.path])}
        if self.wait_signal is not None:
            found["wait_signal"] = self.wait_signal.wire()
        if self.allow_failure:
            found["allow_failure"] = True
        if self.last:
            found["finally"] = True
        return found


def _dependencies_of(said: dict[str, Any], where: str) -> tuple[dict[str, Any], object]:
    """What is said without its dependencies, and these, wherever they stand."""
    conditions = said.get("conditions")
    if not isinstance(conditions, dict) or "dependencies" not in conditions:
        return said, said.pop("dependencies", None)
    if said.get("dependencies") is not None and conditions["dependencies"] is not None:
        raise Invalid(
            f"{where}: dependencies and conditions.dependencies say the same thing; allowed: one of them"
        )
    conditions = dict(conditions)
    within = conditions.pop("dependencies")
    return {**said, "conditions": conditions, "dependencies": None}, within


def _spec_of(said: dict[str, Any], given: NodeRules, where: str) -> Spec | None:
    if given.wait_signal is None:
        return parsed(Spec, {**said, "name": None}, where, beside=(*RULES, "nodes"))
    said = {key: value for key, value in said.items() if value is not None}
    if said.get("conditions") == {}:
        del said["conditions"]
    if said:
        raise Invalid(
            f"{where}: {shown(list(said))}: a node that waits for a signal runs nothing; allowed: "
            "name, dependencies, wait_signal, when, allow_failure"
        )
    if given.map is not None:
        raise Invalid(f"{where}: map: a node that waits for a signal has no parts")
    return None


def _references(spec: Spec | None, where: str) -> list[Reference]:
    if spec is None:
        return []
    found: list[Reference] = []
    for name, value in (("args", spec.args), ("kwargs", spec.kwargs)):
        for reference in references.found(value, f"{where}: {name}"):
            found.append(reference)
            if len(found) > MAX_REFERENCES:
                raise Invalid(f"{where}: more than {MAX_REFERENCES} references; at most as many are allowed")
    return found


def _read(value: object) -> Node:
    if isinstance(value, Node):
        return value
    try:
        return Node.read(value)
    except Invalid as error:
        raise PydanticCustomError("said", "{text}", {"text": str(error)}) from None


NodeField = Annotated[Node, PlainValidator(_read)]


# --- labels -----------------------------------------------------------------------------------------


def label_of(name: str, part: int | None = None) -> str:
    """What tells the processes of a workflow apart: the node's name, and of one that maps the part's
    number."""
    return name if part is None else f"{name}[{part}]"


@lru_cache(maxsize=16_384)
def split(label: str) -> tuple[str, int | None]:
    """A label's node name and part number."""
    found = _PART.search(label)
    return (label[: found.start()], int(found[1])) if found else (label, None)


def adder_of(name: str) -> str | None:
    """The label under whose name a node was added, if it was; None for a name without a slash."""
    adder, slash, _ = name.rpartition("/")
    return adder if slash else None


def seen_from(node: Node, name: str) -> str:
    """A node's name as another says it: without the workflow, or the adding process, that both are in."""
    group, slash, _ = node.name.rpartition("/")
    if not slash:
        return name
    if split(group)[0] == split(name)[0]:
        return split(name)[0].rpartition("/")[2]
    return name.removeprefix(group + slash)


def fits(name: str) -> bool:
    """Is there room for a node of this name, and for the numbers of its parts?"""
    return name.count("/") < MAX_NODE_LEVELS and len(label_of(name, MAX_MAPPED)) <= MAX_NODE_CHARS
