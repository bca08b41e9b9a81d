"""Reading all that stands under one entity, without walking the rest of the ledger.

A broker that is asked for the next message under a filter walks on until it finds one, to the ledger's end
after the last. But it knows at once the last message of each subject, and its leader how many each has. Most
processes have one message of a subject: then the last ones are all. It never guesses: what does not add up is
not said.
"""

from __future__ import annotations

from typing import Any, Protocol

from colonies import subjects
from colonies.ledger import Stored

KINDS = ("ledger.process.", "ledger.workflow.")  # others have many messages of one subject
MAX_EVENTS = 1_024  # what the broker gives of the last ones in one answer


class Reads(Protocol):
    """What it asks the broker."""

    async def get_many(self, body: dict[str, Any]) -> list[Stored] | None:
        """What a direct get brings, from any replica, perhaps not all; None: too many for one answer."""

    async def counts(self, pattern: str) -> dict[str, int]:
        """How many messages each subject under a pattern has, as the leader has it."""


async def whole(reads: Reads, pattern: str) -> list[Stored] | None:
    """All messages under the guard of one entity, in order, as the leader has them; None: read on."""
    if not pattern.startswith(KINDS) or "*" in pattern or pattern != subjects.guard_of_subject(pattern):
        return None
    lasts = await reads.get_many({"multi_last": [pattern], "batch": MAX_EVENTS})
    if lasts is None:
        return None
    # Asked after them: where a subject has one message now, the last that we got was its only one.
    counts = await reads.counts(pattern)
    if {stored.subject for stored in lasts} == counts.keys() and set(counts.values()) <= {1}:
        return sorted(lasts, key=lambda stored: stored.sequence)
    total = sum(counts.values())
    if not 0 < total <= MAX_EVENTS:
        return [] if total == 0 else None
    # As many as there are, so that it does not look for another. A replica that is behind has fewer.
    found = await reads.get_many({"seq": 1, "batch": total, "next_by_subj": pattern})
    return found if found is not None and len(found) == total else None
