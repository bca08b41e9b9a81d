"""Sizes as people write them (`10GB`, `1.5Gi`), read as whole bytes; durations (`90s`, `1h`) as seconds.

It never guesses: `512m` (milli in Kubernetes, mebi in Docker) and `10Gb` (bits) are refused. The reading is
exact, without floats; only a fraction of a byte is rounded, up, because a size says what is needed at least.

The table is our own because nothing kept does exactly this: pydantic's `ByteSize` refuses `10Gi` and takes
true as 1 and `10Gbit` as bits; bitmath 2.1 reads either `10GB` as 10**9 or `10Gi` at all, in floats.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil

from colonies.core.names import kind, shown
from colonies.errors import Invalid

MAX_SIZE_BYTES = 2**60

UNITS: dict[str, int] = {"B": 1} | {
    f"{prefix}{end}": base**power
    for power, prefixes in enumerate(("kK", "M", "G", "T", "P"), start=1)
    for prefix in prefixes
    for base, ends in ((1_000, ("", "B")), (1_024, ("i", "iB")))
    for end in ends
    if (prefix, base) != ("k", 1_024)
}
SIZES = (
    "a whole number of bytes, or text: a number and one of B, K, KB, Ki, KiB, and so with M, G, T, P "
    "(K is 1,000, Ki is 1,024), such as 10GB or 1.5Gi; at most 1024Pi"
)

MAX_DURATION_S = 365 * 86_400
DURATIONS = "a whole number and one of s, m, h, d, such as 90s or 12h; 1s to 365d"
SECONDS: dict[str, int] = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_DURATION = re.compile(r"\A([0-9]{1,9})([smhd])\Z")
_SHOWN = {unit: n for unit, n in UNITS.items() if re.fullmatch(r"[KMGTP](i|B)", unit)}
_SIZE = re.compile(r"\A([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([A-Za-z]*)\Z")


def size(value: object, where: str = "size") -> int:
    """The bytes that `value` means: a whole number, digits, or a number with a unit.

    `where` is the field to name in the `Invalid`; with an empty one the message begins with the value.
    """
    found = _bytes(value)
    if isinstance(found, int) and 0 <= found <= MAX_SIZE_BYTES:
        return found
    wrong = found if isinstance(found, str) else "is negative" if found < 0 else "is too large"
    at = f"{where}: " if where else ""
    raise Invalid(f"{at}{shown(value)} {wrong}; allowed: {SIZES}")


def duration_s(value: str, where: str) -> int:
    """The seconds that `value` means. `where` is the option to name in the `Invalid`."""
    match = _DURATION.match(value)
    found = int(match[1]) * SECONDS[match[2]] if match else 0
    if not 1 <= found <= MAX_DURATION_S:
        raise Invalid(f"{where}: {shown(value)} is not allowed; allowed: {DURATIONS}")
    return found


def text(size_bytes: int) -> str:
    """A size as people read it: exact where a unit divides it, else with two digits after the point."""
    for unit, bytes_ in sorted(_SHOWN.items(), key=lambda item: -item[1]):
        if size_bytes >= bytes_ and size_bytes % bytes_ == 0:
            return f"{size_bytes // bytes_}{unit}"
    for unit, bytes_ in sorted(_SHOWN.items(), key=lambda item: -item[1]):
        if bytes_ % 1_000 == 0 and size_bytes >= bytes_:
            return f"{size_bytes / bytes_:.2f}{unit}"
    return f"{size_bytes}B"


def rung(size_bytes: int) -> int:
    """The next step of the ladder at or above `size_bytes`: eight steps for each doubling.

    Queues are told apart by these steps, so that 10GB and 10.1GB wait in one queue (both 10 GiB). A step is
    at most 12.5 % above the size. `rung` keeps order: what is not enough on the ladder is not enough.
    """
    low_bits = max(0, size_bytes.bit_length() - 4)
    return -(-size_bytes >> low_bits) << low_bits


def _bytes(value: object) -> int | str:
    """The bytes, of whatever sign and size, or what is wrong with `value`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if not isinstance(value, str):
        return f"is {kind(value)}, not a size"
    match = _SIZE.match(value)
    if not match:
        return "is negative" if value.startswith("-") else "is not a size"
    number, unit = Fraction(match[1]), match[2]
    if unit not in UNITS and unit:
        return f"has the unknown unit {shown(unit)}"
    if not unit and "." in match[1]:
        return "is a fraction without a unit"
    return ceil(number * UNITS.get(unit, 1))
