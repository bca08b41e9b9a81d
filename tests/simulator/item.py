"""What one process does when it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["ok", "error", "fail", "later", "hang"]


@dataclass(slots=True)
class Item:
    """One process to be. `actions`: what each of its attempts does (what, seconds, delay of a `later`)."""

    number: int
    spec: dict[str, Any]
    actions: list[tuple[Action, float, float]]
    submit_at: float
    key: str | None = None
    cancel_after: float | None = None
    together: int = 0  # the number of the batch that it is submitted in, 0: alone
    parts: int | None = None  # of a node: how long the list in its output is, or one longer
    adds: list[dict[str, Any]] = field(default_factory=list)  # nodes, to its workflow
    between: bool = False  # they stand between it and its other children

    def action(self, n: int) -> tuple[Action, float, float]:
        """What attempt `n`, from 1, does."""
        return self.actions[min(n, len(self.actions)) - 1]
