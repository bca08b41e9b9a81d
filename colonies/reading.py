"""Where a verification gets the events from: a broker's ledger, read on over what the broker cannot read.

A source says how far its ledger goes and hands out what is there, in order. What is between two events that
it hands out is not there. It judges nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from colonies.errors import NotFound, Unavailable, Unknown
from colonies.imported import ImportedLedger
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Ledger, Stored

SILENCE_S = 3.0  # before an answer, be it one of many
TRIES = 3
MAX_NAMED = 1_000  # missing sequences in a row: more are one finding
MAX_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Extent:
    """From which sequence on to which all must be there. What is before the first is there as far as it is
    needed. `lost_bytes`: the broker knows that it lost so many."""

    first: int
    last: int
    lost_bytes: int = 0


class Silent(Exception):
    """There may be more, but nothing that can be read from this sequence on; the message is a finding's.

    `missing_to`: nothing is wrong with what comes up to there, it is just not there.
    """

    def __init__(self, sequence: int, rule: str, missing_to: int | None = None) -> None:
        super().__init__(rule)
        self.sequence = sequence
        self.missing_to = missing_to


class Source(Protocol):
    """`silent` are the sequences of which nothing is known, though something is of their neighbours. `what`
    is it that is read, in findings?"""

    what: str
    colony: str
    silent: set[int]

    async def extent(self) -> Extent:
        """How far it goes, by its own word. Asked before and after reading."""

    async def next(self, position: int) -> list[Stored]:
        """The next events after `position`; empty if nothing readable is left.

        Raises:
            Silent: there may be more.
            Unavailable: it is not to be had at all.
        """


class PlainSource:
    """Any ledger that gives all that it has, as `Source`: one in memory, or an imported one."""

    what = "the ledger"

    def __init__(self, ledger: Ledger, first: int = 1) -> None:
        self.colony = ledger.colony
        self.silent: set[int] = set()
        self._ledger = ledger
        self._first = first

    async def extent(self) -> Extent:
        return Extent(self._first, await self._ledger.last_sequence())

    async def next(self, position: int) -> list[Stored]:
        async for batch in self._ledger.scan(position):
            return batch
        return []


class LedgerSource:
    """A broker's ledger, as `Source`: what a batch leaves out is asked for one by one."""

    what = "the broker"

    def __init__(self, ledger: JetStreamLedger) -> None:
        self.colony = ledger.colony
        self.silent: set[int] = set()
        self._ledger = ledger
        self._end = 0

    async def extent(self) -> Extent:
        for attempt in range(TRIES):
            try:
                info = await self._ledger.stream_info("LEDGER", deleted_details=True)
                break
            except Unknown:
                if attempt == TRIES - 1:
                    raise
        else:
            raise Unavailable("the broker does not describe the ledger")
        state = info["state"]
        lost = state.get("lost") or {}
        self._end = self._end or int(state["last_seq"])
        return Extent(1, int(state["last_seq"]), int(lost.get("bytes") or 0))

    async def next(self, position: int) -> list[Stored]:
        if found := await self._batch(position):
            return found
        # Either nothing is left or the batch stumbled over what it cannot read: ask for the next ones singly.
        first, width, far = position + 1, 1, position + 1 + MAX_NAMED
        while first <= self._end:
            asked = range(first, min(first + width, self._end + 1))
            if found := await self._singly(asked, position):
                return found
            first, width = asked.stop, min(2 * width, MAX_AT_ONCE)
            if first >= far:  # a long gap: a batch may well find where it ends
                if found := await self._batch(first - 1):
                    return found
                far = first + MAX_NAMED
        return []

    async def _batch(self, position: int) -> list[Stored]:
        for _ in range(TRIES):
            try:
                async for batch in self._ledger.scan(position, wait_s=SILENCE_S):
                    return batch
                return []
            except Unknown:
                continue
            except (Unavailable, NotFound):
                return []
        return []

    async def _singly(self, asked: Sequence[int], position: int) -> list[Stored]:
        """Those of them that are there, up to where the broker is silent."""
        found: list[Stored] = []
        for sequence, answer in zip(asked, await asyncio.gather(*map(self._at, asked)), strict=True):
            if isinstance(answer, Stored):
                found.append(answer)
            elif answer == "silent":
                if found:
                    break
                await self._check_neighbours(sequence, position)
                self.silent.add(sequence)
                in_a_row = range(sequence - TRIES + 1, sequence + 1)
                if self.silent.issuperset(in_a_row):
                    self.silent.difference_update(in_a_row)
                    rule = "the broker does not answer for it, nor for what may stand behind it"
                    raise Silent(in_a_row[0], rule)
        return found

    async def _check_neighbours(self, sequence: int, position: int) -> None:
        """Raises Unavailable if the broker does not answer for what is next to a silent sequence either."""
        for neighbour in (position, sequence + 1):
            if 1 <= neighbour <= self._end and await self._at(neighbour) != "silent":
                return
        raise Unavailable(
            f"the broker does not answer (asked for sequence {sequence} of the ledger): try again later"
        )

    async def _at(self, sequence: int) -> Stored | Literal["none", "silent"]:
        for _ in range(TRIES):
            try:
                return await self._ledger.at(sequence, wait_s=SILENCE_S)
            except NotFound:
                return "none"
            except Unavailable:
                continue
        return "silent"


def source_of(ledger: Ledger) -> Source:
    """What reads this ledger as well as it can be read."""
    if isinstance(ledger, JetStreamLedger):
        return LedgerSource(ledger)
    return PlainSource(ledger, ledger.header.first if isinstance(ledger, ImportedLedger) else 1)
