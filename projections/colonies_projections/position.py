"""How far a reader of the ledger is, and whether that still stands: its own file outlives a ledger that was
replaced, or lost its end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from colonies.errors import Unavailable
from colonies.ledger import Ledger, Stored


class Unusable(Exception):
    """The file cannot be gone on with; begin it anew. The message says why."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader is: the last event that it took in, that message's digest, and its time (ns)."""

    sequence: int = 0
    digest: bytes = b""
    time: int = 0

    @classmethod
    def of(cls, stored: Stored) -> Position:
        data = b"%d\n%s\n%s" % (stored.sequence, stored.subject.encode(), stored.data)
        return cls(stored.sequence, hashlib.sha256(data).digest(), stored.time)

    async def confirm(self, ledger: Ledger) -> None:
        """Does it still stand in this ledger?

        Raises:
            Unusable: the ledger was replaced, or cut. Unavailable, NotFound: that cannot be said now.
        """
        if self.sequence == 0:
            return
        async for batch in ledger.scan(self.sequence - 1):
            if Position.of(batch[0]).digest != self.digest:
                raise Unusable(f"the ledger was replaced: event {self.sequence} is another one now")
            return
        last = await ledger.last_sequence()
        if last < self.sequence:
            raise Unusable(f"the ledger was cut: it ends at {last}, this is at {self.sequence}")
        raise Unavailable(f"the broker that answered does not have event {self.sequence} yet; another time")
