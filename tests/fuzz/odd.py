"""Real data with odd values in some places: what bytes of msgpack, varied blindly, hardly ever come to."""

from __future__ import annotations

import math
from typing import Any

import msgpack

MAX_CHANGES = 4


class Choices:
    """Bytes, one choice each; 0 when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def below(self, number: int) -> int:
        self._at += 1
        return self._data[self._at - 1] % number if self._at <= len(self._data) else 0


def deep(levels: int) -> Any:
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**53, 2**63, 2**64 - 1, -(2**63), 0.0, 1.5, 1e308, math.nan, math.inf),
    *(
        "",
        " ",
        "x",
        "x" * 65,
        "x" * 300,
        "x" * 70_000,
        "\x1b[31m",
        "\0",
        "a.b",
        "*",
        ">",
        "\U0010ffff",
        "é" * 40,
    ),
    *(b"", b"\xff", [], [[]], [None], ["x"] * 1_100, {}, {"": ""}, {"a": {"a": {}}}, {"type": "x"}),
    *(deep(70), deep(300), msgpack.Timestamp(1), msgpack.ExtType(5, b"x")),
]


def altered(base: dict[str, Any], choices: Choices) -> dict[str, Any]:
    """A copy in which some places, at any depth, hold something odd, nothing, or a field more."""
    found: dict[str, Any] = msgpack.unpackb(msgpack.packb(base))
    for _ in range(choices.below(MAX_CHANGES) + 1):
        holder: Any = found
        while holder:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = keys[choices.below(len(keys))]
            if isinstance(holder[key], dict | list) and choices.below(3):
                holder = holder[key]
                continue
            if choices.below(8) == 7:
                del holder[key]
            elif isinstance(holder, dict) and choices.below(8) == 7:
                holder[f"more{choices.below(9)}"] = ODD[choices.below(len(ODD))]
            else:
                holder[key] = ODD[choices.below(len(ODD))]
            break
    return found
