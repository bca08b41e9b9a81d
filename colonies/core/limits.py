"""Places under a key: how many there are, who holds them, when there is room. Pure.

A place is held from the service's `granted` on, while its process is offered or runs; see
docs/decisions/0013-limits.md. Whoever folds the whole ledger comes to the same places.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from colonies.core.shapes import SECOND
from colonies.core.spec import Limit, Spec
from colonies.core.states import Blocked, Process

WINDOWS_S = {"second": 1, "minute": 60, "hour": 3_600}


def digest_of(key: str) -> str:
    """The name of a key in subjects: 26 of a-z, 2-7."""
    return base64.b32encode(hashlib.sha256(key.encode()).digest()[:16]).decode().rstrip("=").lower()


def limits_of(spec: Spec) -> list[tuple[str, Limit]]:
    """The limits of a process with their keys, in the order in which it takes its places.

    All take them in one order, those that are held before those that only count, so none wait in a circle.
    """
    found = [(limit.key_for(spec.func, spec.label), limit) for limit in spec.limits]
    return sorted(found, key=lambda one: (one[1].running is None, one[0]))


def window_s(limits: Iterable[Limit]) -> int | None:
    """For how long grants under these limits count, at most."""
    return max((WINDOWS_S[limit.per] for limit in limits if limit.per is not None), default=None)


def keeps_place(process: Process | None, cites: int) -> bool:
    """Does a grant that cites this event of the process hold? None: a node of which there is no event."""
    if process is None:
        return cites == 0
    if isinstance(
        process.phase, Blocked
    ):  # not offered yet; or after a failed attempt: then it lines up anew
        return process.sequence == cites
    return not process.final


@dataclass(slots=True)
class Places:
    """What is known of one key. `holders` are the processes that hold a place, each with what its grant
    cites; `grants` those grants that may count toward a rate: when they were stored (ns), until when they
    count."""

    holders: dict[str, int] = field(default_factory=dict)
    grants: deque[tuple[int, int]] = field(default_factory=deque)

    def room_at(self, limit: Limit, now: int, more: int = 0) -> int | None:
        """From which ledger time (ns) on there is room for one, after `more` that are granted now; None: when
        a place is given back."""
        if limit.running is not None and len(self.holders) + more >= limit.running:
            return None
        if limit.rate is None or limit.per is None:
            return now
        window = WINDOWS_S[limit.per] * SECOND
        if more >= limit.rate:
            return now + window
        if len(self.grants) + more < limit.rate:
            return now
        return max(now, self.grants[more - limit.rate][0] + window)

    def count(self, time: int, number: int, window_s: int) -> None:
        """So many were granted at this ledger time (ns)."""
        if self.grants:
            time = max(time, self.grants[-1][0])
        self.grants.extend([(time, time + window_s * SECOND)] * number)

    def forget(self, now: int) -> None:
        """Drop the grants that count no longer."""
        while self.grants and self.grants[0][1] <= now:
            self.grants.popleft()
