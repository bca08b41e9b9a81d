"""Bugs of pauses and limits to be found, as in `planted`."""

from __future__ import annotations

from typing import Any

from colonies import limiting
from colonies.core import limits
from colonies.core.colony import Colony
from colonies.core.limits import Places
from colonies.ledger import Draft
from colonies.limiting import Limiter
from colonies.orchestrator import Orchestrator
from colonies.pulling import Puller
from colonies.session import Session
from tests.simulator.planting import Patch

# --- pauses -------------------------------------------------------------------------------------------


def nobody_looks_for_pauses() -> list[Patch]:
    """A worker takes what it is offered."""
    return [(Puller, "closed", lambda self, queue: False)]


def drained_alone() -> list[Patch]:
    """Drained workers take nothing; a paused queue is like any other."""
    return [(Colony, "is_paused", lambda self, queue: False)]


def never_drained() -> list[Patch]:
    """A worker that is drained goes on."""
    return [(Puller, "closed", lambda self, queue: self._session.colony.is_paused(queue))]


def pauses_not_heard() -> list[Patch]:
    """What is paused is found out at the next look, half a minute later."""
    return [(Session, "_keep_fresh", _nothing)]


async def _nothing(*_: Any, **__: Any) -> None:
    return None


# --- limits -------------------------------------------------------------------------------------------


def no_limits() -> list[Patch]:
    """Whoever asks has a place, and nobody says so."""
    return [(Orchestrator, "_is_admitted", lambda self, process, since: True)]


def one_more() -> list[Patch]:
    """There is room for one more than there is."""
    real = Places.room_at

    def room_at(self: Places, limit: Any, now: int, more: int = 0) -> int | None:
        if limit.running is not None:
            limit = limit.model_copy(update={"running": limit.running + 1})
        return real(self, limit, now, more)

    return [(Places, "room_at", room_at)]


def rates_forgotten() -> list[Patch]:
    """What was granted a moment ago counts toward no rate."""
    return [(Places, "count", lambda self, time, number, window_s: None)]


def granted_side_by_side() -> list[Patch]:
    """A place is granted whatever others grant meanwhile."""

    def draft(subject: str, data: bytes, after: int) -> Draft:
        return Draft(subject, data, None)  # type: ignore[arg-type]

    return [(limiting, "Draft", draft)]


def places_given_back_too_early() -> list[Patch]:
    """A process that runs holds no place any more."""
    real = limits.keeps_place

    def keeps_place(process: Any, cites: int) -> bool:
        return real(process, cites) and (process is None or process.state != "running")

    return [(limiting, "keeps_place", keeps_place)]


def never_given_back() -> list[Patch]:
    """A process that ended keeps its place."""
    return [(Limiter, "gone", lambda self, process: None)]


HOLD_BUGS = [
    ("nobody looks for pauses", nobody_looks_for_pauses, 100, 0, "pauses"),
    ("a paused queue is handed out", drained_alone, 60, 0, "pauses"),
    ("a drained worker goes on", never_drained, 60, 0, "pauses"),
    ("a pause is not heard", pauses_not_heard, 100, 0, "pauses"),
    ("limits are ignored", no_limits, 20, 0, "limited"),
    ("one more than there may be", one_more, 40, 0, "limited"),
    ("rates are forgotten", rates_forgotten, 40, 0, "limited"),
    ("granted side by side", granted_side_by_side, 300, 0, "limited"),
    ("places given back too early", places_given_back_too_early, 40, 0, "limited"),
    ("places are never given back", never_given_back, 40, 0, "limited"),
]
