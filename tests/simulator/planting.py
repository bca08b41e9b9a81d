"""What planted bugs are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from colonies.ledger import Draft
from colonies.session import Session

Patch = tuple[Any, str, Any]  # where, the name, what stands there instead


class _Ledger:
    """A ledger with another `append`."""

    def __init__(self, ledger: Any, append: Callable[[Draft], Any]) -> None:
        self._ledger = ledger
        self.append = append

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


def with_append(before: Session, append: Callable[[Draft], Any]) -> Session:
    after = copy.copy(before)
    after.ledger = _Ledger(before.ledger, append)  # type: ignore[assignment]
    return after
