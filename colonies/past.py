"""The ledger as it was: a `Ledger` that ends at a sequence, and what finds that sequence for a time.

Whoever reads through it sees nothing that was stored later, and its clock stands still; so the code that
shows the present shows the past. It writes nothing. What LOGS and HEARTBEATS still hold of that time is
there, by their times; large values are there as they are kept.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from colonies import subjects
from colonies.core.names import shown
from colonies.core.shapes import SECOND
from colonies.core.units import DURATIONS, duration_s
from colonies.errors import Invalid, NotFound
from colonies.ledger import Asked, Ledger, Stored, Subscription
from colonies.read_only import ReadOnly
from colonies.show import rfc3339

MOMENTS = (
    "a sequence, such as 120; a time, such as 2026-11-23T10:00:00Z, or 2026-11-23 10:00 and 2026-11-23 by "
    f"this machine's clock; or an age: {DURATIONS}"
)

_SEQUENCE = re.compile(r"\A[0-9]{1,19}\Z")
_AGE = re.compile(r"\A[0-9]+[smhd]\Z")
_DATE = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}(?:\Z|[T ][0-9])")


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of the past: after the event `sequence`, at the ledger time `time` (ns)."""

    sequence: int
    time: int

    def __str__(self) -> str:
        return f"sequence {self.sequence}, {rfc3339(self.time)}"


async def moment(ledger: Ledger, text: str, where: str = "at") -> Moment:
    """The moment that `text` means, one of MOMENTS; `where` is the option to name in errors.

    Of a time it is the last event at or before it.

    Raises:
        Invalid: it is none of these, or the ledger has nothing there. Unavailable.
    """
    if not _SEQUENCE.match(text):
        return await at_time(ledger, await time_of(ledger, text, where), where)
    last = await ledger.last_sequence()
    if not 1 <= int(text) <= last:
        raise Invalid(f"{where}: there is no sequence {text}; the ledger has those from 1 to {last}")
    return Moment(int(text), (await _event(ledger, int(text))).time)


async def time_of(ledger: Ledger, text: str, where: str = "at") -> int:
    """The time (ns since 1970) that a time or an age means; without a zone it is local. Raises Invalid."""
    if _AGE.match(text):
        return await ledger.now() - duration_s(text, where) * SECOND
    try:
        if _DATE.match(text):
            return ns_of(datetime.fromisoformat(text).astimezone())
    except (ValueError, OverflowError, OSError):
        pass
    raise Invalid(f"{where}: {shown(text)} is no moment; allowed: {MOMENTS}")


async def when(ledger: Ledger, text: str, where: str) -> int:
    """The time (ns since 1970) that one of MOMENTS means; of a sequence it is that of its event.

    Raises Invalid, Unavailable.
    """
    if _SEQUENCE.match(text):
        return (await moment(ledger, text, where)).time
    return await time_of(ledger, text, where)


def is_age(text: str) -> bool:
    """Does it count back from now, so that it means another time each time?"""
    return _AGE.match(text) is not None


async def place(ledger: Ledger, text: str, where: str = "after") -> int:
    """The place in the ledger behind which to go on: a sequence, or what a time or an age has before it.

    0 is before the first. Raises Invalid, Unavailable.
    """
    last = await ledger.last_sequence()
    if _SEQUENCE.match(text):
        if int(text) <= last:
            return int(text)
        raise Invalid(f"{where}: {text}; the ledger has the sequences 1 to {last}, and 0 is before the first")
    time = await time_of(ledger, text, where)
    if time > await ledger.now():
        raise Invalid(f"{where}: {shown(text)} is in the future; leave it out for what comes from now on")
    return await last_before(ledger, time, last)


def ns_of(time: datetime) -> int:
    """An aware datetime as ns since 1970."""
    whole = int(time.replace(microsecond=0).timestamp())
    return whole * SECOND + time.microsecond * 1_000


async def at_time(ledger: Ledger, time: int, where: str = "at") -> Moment:
    """The last event at or before a time (ns). Raises Invalid: it is in the future, or before the first."""
    last = await ledger.last_sequence()
    if last == 0:
        raise Invalid(f"{where}: the ledger is empty")
    if time > await ledger.now():
        newest = await _event(ledger, last)
        raise Invalid(
            f"{where}: {rfc3339(time)} is in the future; the last event of the ledger is {last}, of "
            f"{rfc3339(newest.time)}"
        )
    sequence = await last_before(ledger, time, last)
    if sequence == 0:
        first = await _event(ledger, 1)
        raise Invalid(
            f"{where}: {rfc3339(time)} is before the first event of the ledger, of {rfc3339(first.time)}"
        )
    return Moment(sequence, time)


async def last_before(ledger: Ledger, time: int, last: int) -> int:
    """Of the first `last` events the last one at or before a time (ns), 0 if there is none.

    It reads about as many events as `last` has binary digits. Where the broker's clock went back, there may
    be several such places: it finds one.
    """
    before, after = 0, last + 1
    while after - before > 1:
        middle = (before + after) // 2
        if (await _event(ledger, middle)).time <= time:
            before = middle
        else:
            after = middle
    return before


async def _event(ledger: Ledger, sequence: int) -> Stored:
    """The event at a sequence, or where the broker has lost it, the next one that there is."""
    try:
        return await ledger.at(sequence)
    except NotFound:
        async for batch in ledger.scan(sequence):
            return batch[0]
        raise


class _Silent:
    async def close(self) -> None:
        """Nothing is to be heard of the past."""


class PastLedger(ReadOnly):
    """See `colonies.ledger.Ledger`. It closes the ledger that it stands on."""

    def __init__(self, ledger: Ledger, moment: Moment) -> None:
        super().__init__(f"this is the ledger as it was at {moment}: nothing can be added to it")
        self.colony = ledger.colony
        self.moment = moment
        self._ledger = ledger

    # --- reading -------------------------------------------------------------------------------------

    async def read(self, pattern: str) -> list[Stored]:
        return [stored async for batch in self.scan(0, pattern) for stored in batch]

    async def scan(self, after: int = 0, pattern: str = subjects.EVERYTHING) -> AsyncIterator[list[Stored]]:
        end = self.moment.sequence
        if after >= end:
            return
        async for batch in self._ledger.scan(after, pattern):
            if batch[-1].sequence <= end:
                yield batch
            elif found := [stored for stored in batch if stored.sequence <= end]:
                yield found
            if batch[-1].sequence >= end:
                return

    async def at(self, sequence: int) -> Stored:
        if sequence > self.moment.sequence:
            raise NotFound(f"there is no event {sequence} at {self.moment}")
        return await self._ledger.at(sequence)

    async def last_sequence(self) -> int:
        return self.moment.sequence

    async def last_of(self, patterns: Sequence[str]) -> dict[str, int]:
        found = {pattern: await self.read(pattern) for pattern in patterns}
        return {pattern: messages[-1].sequence for pattern, messages in found.items() if messages}

    async def emitted(self, pattern: str) -> list[Stored]:
        return [stored for stored in await self._ledger.emitted(pattern) if stored.time <= self.moment.time]

    async def get_value(self, name: str, size_bytes: int) -> bytes:
        return await self._ledger.get_value(name, size_bytes)

    async def now(self) -> int:
        return self.moment.time

    async def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> Subscription:
        return _Silent()

    async def ask_service(self, subject: str, body: dict[str, Any], *, wait_s: float) -> dict[str, Any]:
        """As of `JetStreamLedger`; what is asked for is the view as it was (`at`)."""
        asked = {**body, "at": self.moment.sequence}
        return await cast(Asked, self._ledger).ask_service(subject, asked, wait_s=wait_s)

    # --- the connection ------------------------------------------------------------------------------

    @property
    def reconnected_at(self) -> float | None:
        return self._ledger.reconnected_at

    async def lost(self) -> None:
        await self._ledger.lost()

    async def close(self) -> None:
        await self._ledger.close()
