"""Heartbeats as their readers see them: who is alive, what it runs, how far it is.

A heartbeat is signed by its worker; one that is not, or is of nobody's, is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colonies import codec
from colonies.core.colony import Colony
from colonies.core.events import MAX_CONCURRENCY
from colonies.ledger import Stored


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life at `time` (ns). `attempts` maps a process's id to [attempt id, fraction, message]."""

    worker: str
    instance: str
    time: int
    runtimetype: str
    concurrency: int
    attempts: dict[str, Any]

    def runs(self, process: str, attempt: str | None = None) -> bool:
        """Does it say that it runs this process (this very attempt of it)?"""
        said = self.attempts.get(process)
        if not isinstance(said, list) or not said:
            return False
        return attempt is None or said[0] == attempt


def read_heartbeat(colony: Colony, stored: Stored) -> Heartbeat | None:
    """A verified heartbeat, or None."""
    match stored.subject.split("."):
        case ["heartbeat", worker, instance]:
            pass
        case _:
            return None
    member = colony.members.get(worker)
    if member is None or member.ended_by(stored.time) or member.role != "worker":
        return None
    try:
        opened = codec.open_(colony.key, stored.subject, stored.data)
    except codec.Malformed:
        return None
    if opened.author != worker or opened.type != "heartbeat" or not opened.is_signed_by(member.key):
        return None
    match opened.data:
        case {
            "instance": str() as said,
            "runtimetype": str() as runtimetype,
            "concurrency": int() as concurrency,
            "attempts": dict() as attempts,
        } if said == instance and 1 <= concurrency <= MAX_CONCURRENCY and len(attempts) <= MAX_CONCURRENCY:
            # Not later than its author says: an old heartbeat that is stored again is still an old one.
            time = min(stored.time or opened.time, opened.time)
            return Heartbeat(worker, instance, time, runtimetype, concurrency, attempts)
        case _:
            return None
