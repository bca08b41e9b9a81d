"""What stands in arguments for a value that is known only when the workflow runs.

`train.output` is one, and `train.output["path"]` a part of it. They have the type of the value for whoever
checks types, and travel in a spec as references (`colonies.core.references`). They hold no value: whatever
needs one here and now is told so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from pydantic_core import PydanticSerializationError, to_jsonable_python

from colonies.core import references
from colonies.core.references import Kind
from colonies.errors import Invalid

_MARK = "\0"  # before the key of our own references; what else looks like one is data


class Pending:
    """A value that is not known yet: an item, a parameter, what a node gives, or, by `[key]` or `.field`, a
    part of these. `scope` is what it is known in: the nodes of one workflow, or the parts of one node."""

    __slots__ = ("_kind", "_name", "_path", "_scope")

    def __init__(self, scope: object, kind: Kind, name: str, path: tuple[str, ...] = ()) -> None:
        self._scope = scope
        self._kind: Kind = kind
        self._name = name
        self._path = path

    def __getitem__(self, key: str | int) -> Pending:
        if isinstance(key, int) and not isinstance(key, bool) and key >= 0:
            key = str(key)
        if not isinstance(key, str) or not key or "." in key:
            raise Invalid(
                f"{self!r}[{key!r}]: not a part that can be named; allowed: a key without a dot, or a number "
                "from 0"
            )
        return Pending(self._scope, self._kind, self._name, (*self._path, key))

    def __getattr__(self, name: str) -> Pending:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __repr__(self) -> str:
        return f"<${self._kind} {self._text}>".replace(" >", ">")

    @property
    def _text(self) -> str:
        return ".".join(part for part in (self._name, *self._path) if part)

    def _is_not_known(self, *_: object, **__: object) -> NoReturn:
        raise Invalid(
            f"{self!r} is known only when the workflow runs: give it to a node as it is, map over it "
            "(`workflow.map`), or let a node be skipped by a condition (`when=`)"
        )

    __bool__ = __call__ = __contains__ = __format__ = __iter__ = __len__ = __str__ = _is_not_known
    __add__ = __radd__ = __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = _is_not_known


class Giver:
    """What gives an output that stands in arguments: a node, or a workflow in the workflow."""

    __slots__ = ()


def holds(value: object) -> bool:
    """Is there one in this value?"""
    return next(_within(value), None) is not None


def _within(value: object) -> Iterator[Pending]:
    if isinstance(value, Pending):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _within(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _within(inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _within(getattr(value, field.name, None))


def plain(value: object) -> tuple[Any, tuple[Pending, ...]]:
    """A value as JSON has it, our own references marked, and what is pending in it.

    Raises:
        PydanticSerializationError, ValueError, RecursionError: there is something else in it that JSON cannot
            say.
        Invalid: there is a node in it, in the place of its output.
    """
    found: list[Pending] = []

    def fallback(item: object) -> dict[str, str]:
        if isinstance(item, Giver):
            raise Invalid(f"{item!r} is no value; allowed: what it gives, its `.output`")
        if not isinstance(item, Pending):
            raise PydanticSerializationError(f"Unable to serialize unknown type: {type(item)}")
        found.append(item)
        return {f"{_MARK}${item._kind}": item._text}

    return to_jsonable_python(value, fallback=fallback), tuple(found)


def escaped(value: object) -> Any:
    """What `plain` gave, for a workflow: data that looks like a reference is said to be data. Raises
    Invalid."""
    return references.escaped(value, _MARK)


def foreign(uses: tuple[Pending, ...], *scopes: object) -> Pending | None:
    """The first that is not known in any of these scopes."""
    for pending in uses:
        if not any(pending._scope is scope for scope in scopes):
            return pending
    return None


def reference(pending: Pending) -> dict[str, str]:
    """It, as a node's `map` names it."""
    return {f"${pending._kind}": pending._text}


def kind(pending: Pending) -> Kind:
    return pending._kind
