"""Is the server ready? The broker answers, the ledger is followed, a projector answers and is not far
behind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from colonies.errors import ColoniesError
from colonies.jetstream import JetStreamLedger
from colonies.session import Session
from colonies_projections.http import queries
from colonies_projections.http.hub import Hub
from colonies_projections.http.problems import Problem

FRESH_S: Final = 1.0
LOOK_S: Final = 2.0
MAX_LAG_EVENTS: Final = 10_000
CHECKED_VIEW: Final = "processes"


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the ledger is, and how far a projector's views are, in sequences and in seconds."""

    last: int
    position: int
    seconds: float

    @property
    def events(self) -> int:
        return max(0, self.last - self.position)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found. `lag` is None where it cannot be told."""

    reasons: tuple[str, ...] = ()
    last: int | None = None
    followed: int = 0
    lag: Lag | None = None

    @property
    def ready(self) -> bool:
        return not self.reasons

    def said(self) -> dict[str, Any]:
        """`{status, reasons, last_sequence, followed_sequence, view_sequence}`."""
        return {
            "status": "ready" if self.ready else "not ready",
            "reasons": list(self.reasons),
            "last_sequence": self.last,
            "followed_sequence": self.followed,
            "view_sequence": self.lag.position if self.lag is not None else None,
        }


@dataclass(slots=True)
class Health:
    """Looks at most once in FRESH_S, however many ask."""

    session: Session
    ledger: JetStreamLedger
    hub: Hub
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _found: Found = field(default_factory=Found)
    _looked_at: float = -FRESH_S

    async def look(self) -> Found:
        async with self._looking:
            if time.monotonic() - self._looked_at >= FRESH_S:
                self._found = await self._look()
                self._looked_at = time.monotonic()
            return self._found

    async def _look(self) -> Found:
        reasons: list[str] = []
        last: int | None = None
        lag: Lag | None = None
        followed = self.hub.position
        try:
            async with asyncio.timeout(LOOK_S):
                last = await self.ledger.last_sequence()
        except (ColoniesError, TimeoutError):
            reasons.append("the broker does not answer")
        if last is not None and last - followed > MAX_LAG_EVENTS:
            reasons.append(f"the ledger is followed {last - followed} events late")
        if last is not None:
            try:
                async with asyncio.timeout(LOOK_S):
                    lag = await self._lag(last)
            except (Problem, ColoniesError, TimeoutError, KeyError, TypeError, ValueError):
                reasons.append("no projector answers")
        if lag is not None and lag.events > MAX_LAG_EVENTS:
            reasons.append(f"the views are {lag.events} events late")
        return Found(tuple(reasons), last, followed, lag)

    async def _lag(self, last: int) -> Lag:
        answer = await queries.ask(self.ledger, CHECKED_VIEW, {"limit": 1})
        position = int(answer["position"])
        seconds = 0.0
        if position < last:
            # Since when the first event that the views do not have yet is there.
            waiting = await self.ledger.at(position + 1)
            seconds = max(0.0, (await self.ledger.now() - waiting.time) / 1e9)
        return Lag(last, position, seconds)
