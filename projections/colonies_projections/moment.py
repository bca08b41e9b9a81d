"""The time at which a question is answered: now, or when the last event of that moment was stored."""

from __future__ import annotations

from colonies_projections.view import Snapshot


async def moment_us(at: Snapshot) -> int:
    """In microseconds since 1970, by the ledger's clock. Raises NotFound: the ledger lacks the event."""
    if not at.past:
        return await at.ledger.now() // 1_000
    return (await at.ledger.at(at.position)).time // 1_000
