"""A figure: what was measured, and beside it what the same machine can do at best in the same minutes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`limit` is the same run's limit in the same unit; `reach` and `aim` are wanted of value / limit.

    Where there is no limit they are wanted of the value itself. `note` says how it was measured.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    reach: float | None = None
    aim: float | None = None
    note: str = ""

    def line(self) -> str:
        """The figure as one JSON line."""
        ratio = self.value / self.limit if self.limit else None
        found = {
            "name": self.name,
            "value": _short(self.value),
            "unit": self.unit,
            "limit": _short(self.limit),
            "ratio": _short(ratio),
            "reach": self.reach,
            "aim": self.aim,
            "note": self.note,
        }
        return json.dumps({key: value for key, value in found.items() if value not in (None, "")})


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
