"""Plain JSON values: copied out of whatever a caller gives, or refused, naming all that is none by its path.

What comes out shares nothing with what went in, and both JSON and the ledger's msgpack hold it as it is:
whole numbers of 64 bits, finite floats, text that UTF-8 can hold, at most 64 levels deep. It mends nothing.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

from pydantic import BeforeValidator, JsonValue
from pydantic_core import PydanticCustomError

from colonies.core.names import NAME, kind, shown
from colonies.errors import Invalid

MAX_DEPTH_LEVELS: Final = 64  # of lists and objects, the value itself counted as the first
MAX_VALUES: Final = 1_000_000  # also ends the walk through a self-containing list
MAX_PROBLEMS: Final = 10  # listed at once

_JSON: Final = "null, true, false, numbers, strings, lists, objects"


def encodable(text: str) -> bool:
    """False for text with half a surrogate pair, which JSON can write and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def at_most(most: int) -> BeforeValidator:
    """Of a list or an object: refused by its length, before anything in it is looked at."""

    def check(value: object) -> object:
        if isinstance(value, list | dict):
            limited(len(value), most, "entries")
        return value

    return BeforeValidator(check)


def limited(given: int, most: int, unit: str) -> None:
    """Refuse, inside a validator, what there is too much of: with both numbers, and without the value."""
    if given > most:
        numbers = {"given": given, "most": most, "unit": unit}
        raise PydanticCustomError("limit", "{given} {unit}; at most {most}", numbers)


def step(part: int | str, *, first: bool = False) -> str:
    """One step of a path: `.name`, `[3]` or `['any key']`."""
    if isinstance(part, str) and NAME.match(part):
        return part if first else f".{part}"
    return shown(part) if first else f"[{shown(part)}]"


def copied(value: object) -> JsonValue:
    """A plain copy of a JSON value; what in it is none is listed by path in a PydanticCustomError."""
    copying = _Copying()
    found = copying.copy(value, (), 1)
    if copying.problems:
        raise PydanticCustomError("values", "not JSON values", {"problems": copying.problems})
    return found


def checked_value(value: object, where: str) -> JsonValue:
    """As `copied`, for what is given on its own. Raises Invalid."""
    try:
        return copied(value)
    except PydanticCustomError as error:
        problems = (error.context or {}).get("problems", [])
        raise Invalid("\n".join(f"{where}{path}: {problem}" for path, problem in problems)) from None


class _Copying:
    """One walk through a value. A place is a pair of the place around it and the step from there."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []
        self.values = 0

    def copy(self, value: object, place: tuple[Any, ...], depth: int) -> JsonValue:
        self.values += 1
        problem = self._problem(value, depth)
        if problem:
            self._refuse(place, problem)
            return None
        match value:
            case str():
                return str.__str__(value)
            case None | bool():
                return value
            case int():
                return int(value)
            case float():
                return float(value)
            case list():
                each = enumerate(value)
                return [self.copy(item, (place, at), depth + 1) for at, item in each if self._goes_on()]
            case dict():
                return {
                    str.__str__(key): self.copy(item, (place, key), depth + 1)
                    for key, item in value.items()
                    if self._goes_on() and self._is_key(key, place)
                }
        self._refuse(place, f"{shown(value)}, {kind(value)}, is not allowed; allowed: {_JSON}")
        return None

    def _problem(self, value: object, depth: int) -> str | None:
        if self.values > MAX_VALUES:
            return f"too many values; allowed: at most {MAX_VALUES}"
        match value:
            case str() if not encodable(value):
                return _half(value)
            case int() if not -(2**63) <= value < 2**63:
                return f"{shown(value)} is too large; allowed: whole numbers of 64 bits, signed"
            case float() if not isfinite(value):
                return f"{value} is not allowed; allowed: finite numbers"
            case list() | dict() if depth > MAX_DEPTH_LEVELS:
                return f"nested too deeply; allowed: at most {MAX_DEPTH_LEVELS} levels"
        return None

    def _goes_on(self) -> bool:
        return len(self.problems) < MAX_PROBLEMS and self.values <= MAX_VALUES

    def _is_key(self, key: object, place: tuple[Any, ...]) -> bool:
        if not isinstance(key, str):
            self._refuse(place, f"the key {shown(key)} is {kind(key)}; allowed: strings")
        elif not encodable(key):
            self._refuse(place, _half(key))
        else:
            return True
        return False

    def _refuse(self, place: tuple[Any, ...], problem: str) -> None:
        path = ""
        while place:
            place, part = place
            path = step(part) + path
        self.problems.append((path, problem))


def _half(text: str) -> str:
    return f"{shown(text)} holds half a surrogate pair; allowed: text that UTF-8 can hold"
