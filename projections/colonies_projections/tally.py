"""Counts and times as the statistics keep them: what is counted, and buckets of times.

A time falls into one of 16 buckets for each doubling of microseconds, found with whole numbers only, so every
machine finds the same. Who takes the middle of its bucket for it is wrong by at most 1/32, 3.2 percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from colonies_projections.view import Row

STATES: Final = ("successful", "failed", "cancelled", "skipped")
OUTCOMES: Final = ("successful", "failed", "timeout", "later", "returned", "lost", "cancelled")
COUNTS: Final = ("submitted", "started", "retries", *STATES, *(f"attempts_{name}" for name in OUTCOMES))
PERCENTILES: Final = (50, 95, 99)
TIMES: Final = ("wait", "run")

_MICROSECONDS: Final = 1_000_000
_FINE: Final = 5  # bits of a time that decide its bucket
_MASK: Final = (1 << _FINE) - 1


def bucket_of(us: int) -> int:
    """The bucket of a time in microseconds; a longer time has no smaller one."""
    shift = max(0, us.bit_length() - _FINE)
    return shift << _FINE | us >> shift


def bounds_of(bucket: int) -> tuple[int, int]:
    """From when on, and up to when (exclusive), a time is in this bucket, in microseconds."""
    shift, least = bucket >> _FINE, bucket & _MASK
    return least << shift, (least + 1) << shift


@dataclass(slots=True)
class Times:
    """Times as numbers in buckets; `total_us` is their exact sum."""

    buckets: dict[int, int] = field(default_factory=dict)
    total_us: int = 0

    def add(self, bucket: int, number: int, total_us: int) -> None:
        self.buckets[bucket] = self.buckets.get(bucket, 0) + number
        self.total_us += total_us

    def percentile(self, percent: int) -> float | None:
        """The time in seconds that so many of a hundred do not exceed, to 1/32; None: there are none."""
        rank = -(-sum(self.buckets.values()) * percent // 100)
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                low, high = bounds_of(bucket)
                return (low + high - 1) / 2 / _MICROSECONDS
        return None

    def wire(self, *, histogram: bool = False) -> dict[str, Any]:
        """`{number, mean_s, p50_s, p95_s, p99_s}`, and `sum_s` and `histogram`, a list of `[less_than_s,
        number]`, if wanted."""
        number = sum(self.buckets.values())
        found: dict[str, Any] = {"number": number}
        found["mean_s"] = round(self.total_us / number / _MICROSECONDS, 6) if number else None
        for percent in PERCENTILES:
            found[f"p{percent}_s"] = self.percentile(percent)
        if histogram:
            found["sum_s"] = self.total_us / _MICROSECONDS
            found["histogram"] = [
                [bounds_of(bucket)[1] / _MICROSECONDS, self.buckets[bucket]]
                for bucket in sorted(self.buckets)
            ]
        return found


@dataclass(slots=True)
class Tally:
    """Everything that is counted of some events: numbers, and how long it waited and ran."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    times: dict[str, Times] = field(default_factory=lambda: {what: Times() for what in TIMES})

    def count(self, row: Mapping[str, Any]) -> None:
        """Add a row of numbers."""
        for name in COUNTS:
            self.counts[name] += row[name] or 0

    def time(self, rows: Iterable[Row]) -> None:
        """Add rows of `{what, bucket, number, total_us}`."""
        for row in rows:
            self.times[TIMES[row["what"]]].add(row["bucket"], row["number"], row["total_us"])

    def wire(self, *, histogram: bool = False) -> dict[str, Any]:
        times = {what: self.times[what].wire(histogram=histogram) for what in TIMES}
        return {**self.counts, **times}
