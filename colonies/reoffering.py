"""Which waiting processes will not be handed out any more, as far as their queue's consumer tells.

An offer that went back because no slot was free is still in its queue, before all that is new; to offer its
process again would put it behind the backlog. One that somebody acknowledged without taking it is gone. The
broker does not tell the two apart, so this watches for what only one of them explains. Pure: it reads
nothing and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from colonies.core.process import SECOND, Process, Running, Waiting
from colonies.ledger import QueueState

LAST_RESORT_S = 60.0
LAST_RESORT_LEASES = 3


@dataclass(slots=True)
class QueueWatch:
    """What successive looks at one queue showed.

    `missed_at`: at this ledger time (ns) an offer up to `missed_up_to` that was still to come should have
    come, or was not there. Times of 0 say: never.
    """

    delivered: int = 0
    looked_at: int = 0
    missed_at: int = 0
    missed_up_to: int = 0

    def look(self, state: QueueState, open_: Iterable[Process], at: int) -> None:
        """The queue at a ledger time (ns). `open_`: its processes of that time that are open still, now
        that everything recorded until then is known."""
        if state.delivered < self.delivered:  # it was made anew
            self.looked_at = self.missed_at = self.missed_up_to = 0
        # What comes back goes before what is new (nats-server's getNextMsg). So when a new offer was handed
        # out since the last look, whatever was to come back by then had come back.
        if self.looked_at and state.delivered > self.delivered:
            self.missed_at, self.missed_up_to = self.looked_at, self.delivered
        # The same when a pull waits there: the queue has nothing to give. And honest workers acknowledge an
        # offer after its end is recorded, so if fewer are pending than are open, somebody took one away.
        if state.pulls or state.pending < _handed_out(open_, state):
            self.missed_at, self.missed_up_to = at, state.delivered
        self.delivered, self.looked_at = state.delivered, at

    def lost(self, waiting: Waiting, state: QueueState, now: int, *, lease_s: float, last: bool) -> bool:
        """Will the process's offer not come by itself? Ask before `look`, so that what the last look showed
        is one sweep old: an offer that was on its way then has been taken since.

        `last`: nothing waits behind it in its queue.
        """
        offer = waiting.offer.sequence
        if offer > state.delivered:
            return False
        if offer <= state.acknowledged or not state.pending:
            return True
        if offer <= self.missed_up_to and waiting.reoffer_at() <= self.missed_at:
            return True
        # Nobody was handed anything here, and nobody waits for it: then all may stand as it should, and if
        # there is a backlog, it costs the process its place. Whoever pulls shows the truth within a sweep;
        # only a worker that never parks a pull would not. So wait long, and do it where nobody is overtaken.
        resort_s = LAST_RESORT_S + LAST_RESORT_LEASES * lease_s
        return last and now > waiting.reoffer_at() + int(resort_s * SECOND)


def _handed_out(processes: Iterable[Process], state: QueueState) -> int:
    """How many of them must be pending: handed out, and neither ended nor offered anew."""
    return sum(state.acknowledged < offer_of(process) <= state.delivered for process in processes)


def offer_of(process: Process) -> int:
    """The sequence of the process's current offer, 0 if it has none."""
    return process.phase.offer.sequence if isinstance(process.phase, Waiting | Running) else 0
