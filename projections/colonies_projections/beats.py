"""The last heartbeats, for views that show who is alive: read at most once a second, each verified once."""

from __future__ import annotations

from dataclasses import dataclass, field

from colonies.core.colony import Colony
from colonies.core.process import SECOND
from colonies.heartbeats import Heartbeat, read_heartbeat
from colonies.ledger import Ledger

BEATS_AGE_NS = 1 * SECOND


@dataclass(slots=True)
class Beats:
    """The last verified heartbeat of each instance, by `<worker>.<instance>`; read at most once a second."""

    read_at: int = 0
    verified: dict[int, Heartbeat] = field(default_factory=dict)

    async def read(self, ledger: Ledger, colony: Colony, now: int) -> dict[str, Heartbeat]:
        if now - self.read_at >= BEATS_AGE_NS:
            verified: dict[int, Heartbeat] = {}
            for stored in await ledger.emitted("heartbeat.*.*"):
                beat = self.verified.get(stored.sequence) or read_heartbeat(colony, stored)
                if beat is not None:
                    verified[stored.sequence] = beat
            self.verified, self.read_at = verified, now
        return {f"{beat.worker}.{beat.instance}": beat for beat in self.verified.values()}
