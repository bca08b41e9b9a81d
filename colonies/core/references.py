"""References: what in the arguments of a process stands for a value that is known only when it runs.

An object with one key that begins with `$` is a reference: `{"$output": "train.path"}`. `found` lists them,
`resolved` puts values in their place. Both are pure and know nothing of where the values come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from colonies.core.names import shown
from colonies.core.plain import encodable, step
from colonies.errors import Invalid

Kind = Literal["output", "parameter", "item", "previous", "packed"]

MAX_REFERENCE_CHARS: Final = 1_000
MAX_REFERENCES: Final = 1_000  # in one node
LITERAL: Final = "$literal"

_WORDS: Final[dict[str, Kind]] = {
    "$output": "output",
    "$parameter": "parameter",
    "$item": "item",
    "$previous": "previous",
    "$packed": "packed",
}
_EXAMPLES: Final[dict[str, str]] = {
    "$output": '{"$output": "train.path"}: of the output of the node train, its path',
    "$parameter": '{"$parameter": "rate"}: a parameter of the workflow',
    "$item": '{"$item": ""}: the item that this part of a mapping node is for, or "name": a part of it',
    "$previous": '{"$previous": "train.path"}: as $output, of the cron\'s run before this one',
    "$packed": '{"$packed": ""}: the arguments that a generator gives to this run, or "0": one of them',
    LITERAL: '{"$literal": ...}: what is in it, as it stands',
}
_LEVEL: Final = r"[A-Za-z0-9_-]{1,64}(\[[0-9]{1,5}\])?"  # with the number of a part, of one that added nodes
_NODE: Final = re.compile(rf"\A{_LEVEL}(/{_LEVEL}){{0,7}}\Z")
_INDEX: Final = re.compile(r"\A(0|[1-9][0-9]{0,8})\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference: the node, parameter or nothing that it is about, and the way from there to the value."""

    kind: Kind
    name: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        text = ".".join(part for part in (self.name, *self.path) if part)
        return f"${self.kind} {text}".rstrip()


def read(value: object, where: str) -> Reference | None:
    """The reference that this object is; None if it is none.

    Raises:
        Invalid: it has a key that begins with `$` and is no reference.
    """
    if not isinstance(value, dict) or not _marked(value):
        return None
    allowed = "; ".join(_EXAMPLES.values())
    if len(value) != 1:
        raise Invalid(f"{where}: {shown(value)}: a reference has one key; allowed: {allowed}")
    [(word, text)] = value.items()
    if word == LITERAL:
        return None
    kind = _WORDS.get(word)
    if kind is None:
        raise Invalid(f"{where}: {shown(word)} is no reference; allowed: {allowed}")
    if not isinstance(text, str) or len(text) > MAX_REFERENCE_CHARS or not encodable(text):
        raise Invalid(f"{where}: {word}: {shown(text)} is not allowed; allowed: {_EXAMPLES[word]}")
    if kind in ("item", "packed"):
        return Reference(kind, "", tuple(text.split(".")) if text else ())
    name, *path = text.split(".")
    if not _NODE.match(name):
        raise Invalid(f"{where}: {word}: {shown(name)} is no name; allowed: {_EXAMPLES[word]}")
    return Reference(kind, name, tuple(path))


def _marked(value: dict[Any, Any]) -> bool:
    return any(isinstance(key, str) and key.startswith("$") for key in value)


def found(value: object, where: str) -> Iterator[Reference]:
    """All references in a value, in the order in which they stand there. Raises Invalid.

    A place is written out only where it is named: one text for each value would fill the memory.
    """
    left: list[tuple[object, tuple[Any, ...]]] = [(value, ())]
    while left:
        item, at = left.pop()
        if isinstance(item, list):
            inner = [(value, (at, n)) for n, value in enumerate(item) if isinstance(value, list | dict)]
            left += reversed(inner)
        elif isinstance(item, dict):
            if _marked(item):
                reference = read(item, _path(where, at))
                if reference is not None:
                    yield reference
            else:
                each = item.items()
                inner = [(value, (at, key)) for key, value in each if isinstance(value, list | dict)]
                left += reversed(inner)


def _path(where: str, place: tuple[Any, ...]) -> str:
    path = ""
    while place and len(path) < MAX_REFERENCE_CHARS:
        place, part = place
        path = step(part) + path
    return f"{where}{path}" if len(path) <= 100 else f"{where}{path[:60]}...{path[-30:]}"


def resolved(value: object, look_up: Callable[[Reference], Any], where: str) -> Any:
    """A copy of the value with what each reference stands for. Raises Invalid, and what `look_up` raises."""
    if isinstance(value, list):
        return [resolved(item, look_up, where) for item in value]
    if not isinstance(value, dict):
        return value
    if list(value) == [LITERAL]:
        return value[LITERAL]
    reference = read(value, where)
    if reference is not None:
        return look_up(reference)
    return {key: resolved(item, look_up, where) for key, item in value.items()}


def followed(value: Any, reference: Reference) -> Any:
    """What stands at the end of the reference's path in a value. Raises Invalid, naming the step that is
    not there."""
    for done, part in enumerate(reference.path):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and _INDEX.match(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            before = ".".join((reference.name, *reference.path[:done])).strip(".") or "it"
            held = f"keys {shown(sorted(map(str, value))[:5])}" if isinstance(value, dict) else shown(value)
            there = f"there is no {shown(part)} in {shown(before)}"
            raise Invalid(f"{shown(str(reference))}: {there}, which is {held}")
    return value


def renamed(value: object, name_of: Callable[[str], str]) -> Any:
    """A copy of the value with the nodes of its `$output` references under other names."""
    if isinstance(value, list):
        return [renamed(item, name_of) for item in value]
    if not isinstance(value, dict) or LITERAL in value:
        return value
    if isinstance(text := value.get("$output"), str) and len(value) == 1:
        name, dot, path = text.partition(".")
        return {"$output": name_of(name) + dot + path}
    return {key: renamed(item, name_of) for key, item in value.items()}


def escaped(value: object, mark: str) -> Any:
    """A copy of plain data in which nothing is taken for a reference, but for the objects whose one key
    begins with `mark`: these become the references that stand behind it.

    Raises:
        Invalid: data with a key that begins with `$` holds a reference, which nobody would look for there.
    """
    if isinstance(value, list):
        return [escaped(item, mark) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith(mark):
        return {key.removeprefix(mark): text for key, text in value.items()}
    if not any(key.startswith("$") for key in value):
        return {key: escaped(item, mark) for key, item in value.items()}
    if _has_key(value, mark):
        raise Invalid(f"{shown(value)}: an object with a key that begins with $ cannot hold a node's output")
    return {LITERAL: value}


def _has_key(value: object, mark: str) -> bool:
    if isinstance(value, list):
        return any(_has_key(item, mark) for item in value)
    return isinstance(value, dict) and any(
        key.startswith(mark) or _has_key(item, mark) for key, item in value.items()
    )
