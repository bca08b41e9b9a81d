"""Where two values, as JSON has them, first differ. It goes through both once and stops there."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final


class _Nothing:
    """There is no value at this place."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final = _Nothing()

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Difference:
    """At `path`, such as `output.rows[3].name`, there should be `expected`, and `got` is there. Either may be
    `NOTHING`."""

    path: str
    expected: Any
    got: Any


def first_difference(expected: Any, got: Any, path: str) -> Difference | None:
    """The first place, in the order of what is expected, where `got` is another value; None: they are equal.

    1 and 1.0 are equal, true and 1 are not, and NaN is equal to NaN. Without recursion: values may be deep.
    """
    left = [(expected, got, path)]
    while left:
        one, other, place = left.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            keys = [*one, *(key for key in other if key not in one)]
            inner = [(one.get(key, NOTHING), other.get(key, NOTHING), _at(place, key)) for key in keys]
        elif isinstance(one, list) and isinstance(other, list):
            most = max(len(one), len(other))
            inner = [(_item(one, n), _item(other, n), f"{place}[{n}]") for n in range(most)]
        elif _same(one, other):
            continue
        else:
            return Difference(place, one, other)
        left += reversed(inner)
    return None


def _item(values: list[Any], n: int) -> Any:
    return values[n] if n < len(values) else NOTHING


def _at(path: str, key: Any) -> str:
    return f"{path}.{key}" if isinstance(key, str) and _WORD.fullmatch(key) else f"{path}[{key!r}]"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return bool(one == other)
