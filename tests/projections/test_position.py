"""Where a reader is, and whether that still stands in the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from colonies_projections.position import Position, Unusable

from colonies.ledger import Ledger, Stored
from tests.harness import RunningColony

NOBODY = {"func": "x", "conditions": {"runtimetype": "nobody"}}


class WithoutOne:
    """A ledger as a broker gives it that lost one event for good."""

    def __init__(self, ledger: Ledger, lost: int) -> None:
        self._ledger, self._lost = ledger, lost

    async def scan(self, after: int = 0) -> AsyncIterator[list[Stored]]:
        async for batch in self._ledger.scan(after):
            yield [stored for stored in batch if stored.sequence != self._lost]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


async def test_a_position_stands_as_long_as_its_event_does(colony: RunningColony) -> None:
    client = await colony.client()
    await client.submit_many([NOBODY] * 3)
    ledger = client.ledger
    middle = await ledger.last_sequence() - 1
    position = Position.of(await ledger.at(middle))

    await Position().confirm(ledger)
    await position.confirm(ledger)

    with pytest.raises(Unusable, match=f"the ledger was replaced: event {middle} is another one now"):
        await Position(middle, b"\0" * 32, position.time).confirm(ledger)
    with pytest.raises(Unusable, match=f"the ledger was cut: it ends at {middle + 1}, this is at 999"):
        await Position(999, position.digest, position.time).confirm(ledger)
    with pytest.raises(Unusable, match=f"event {middle} is another one now"):  # not waited for for ever
        await position.confirm(cast(Ledger, WithoutOne(ledger, middle)))
