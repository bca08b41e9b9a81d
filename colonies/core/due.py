"""When a cron is due: the times of its expression in its zone, or of its interval.

A cron expression names moments of a wall clock; what they are when that clock is turned is said here, once,
for 5 and 6 fields alike (docs/crons.md). The library (cronsim) only finds the next moment of a clock that is
never turned. Everything is a function of its arguments, and each call is short: strangers' expressions are
evaluated by everybody who verifies a ledger. Times are ledger times (ns); due times are whole seconds, but
for those of an interval.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from colonies.core.names import shown
from colonies.core.shapes import SECOND
from colonies.core.zones import zone_of
from colonies.errors import Invalid

MAX_UNIX_S: Final = 2**33  # no due time is later
CRON_ALLOWED: Final = (
    'five fields (minute, hour, day of the month, month, day of the week), such as "30 6 * * MON-FRI", or '
    "six with the seconds first"
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)  # UTC is the clock that is never turned
_HOURS: Final = 24
_TURN_S: Final = 26 * 3_600  # a clock that is turned shows no time again that is further back than this
_MAX_TURNS: Final = 16  # of the clock, between two due times


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a cron is due: by `cron` in the time zone `zone`, or every `interval_s` seconds. Each run starts
    up to `jitter_s` seconds later."""

    cron: str | None = None
    interval_s: float | None = None
    zone: str = "UTC"
    jitter_s: float = 0.0

    def checked(self) -> Schedule:
        """Itself, if it makes sense. Raises Invalid."""
        if (self.cron is None) == (self.interval_s is None):
            both = "both" if self.cron is not None else "neither"
            raise Invalid(f"a cron has an expression or an interval; this has {both}")
        zone_of(self.zone)
        if self.cron is not None:
            _parsed(self.cron)
        elif self.zone != "UTC":
            raise Invalid("the zone is for an expression; an interval has none")
        return self

    def next(self, after: int, added_at: int) -> int | None:
        """The first due time after this, of a cron that was added then; None: there is none."""
        if self.interval_s is not None:
            step = int(self.interval_s * SECOND)
            found = added_at + (max(0, after - added_at) // step + 1) * step
            return found if found <= MAX_UNIX_S * SECOND else None
        assert self.cron is not None
        second = _next_second(self.cron, self.zone, max(after, added_at) // SECOND + 1)
        return None if second is None else second * SECOND

    def is_due(self, time: int, added_at: int) -> bool:
        """Is this one of its due times?"""
        return self.next(time - 1, added_at) == time

    def last(self, until: int, added_at: int, after: int | None = None) -> int | None:
        """The last due time that is after `after` and not after `until`, if there is one."""
        low = max(added_at, after if after is not None else added_at)
        first = self.next(low, added_at)
        if first is None or first > until:
            return None
        high = until  # the next after `low` is not after `until`; that after `high` is
        while high - low > 1:
            middle = (low + high) // 2
            found = self.next(middle, added_at)
            if found is not None and found <= until:
                low = middle
            else:
                high = middle
        return self.next(low, added_at)

    def starts(self, name: str, added: int, due: int) -> int:
        """The time before which the run that is due then does not start: one for all who ask."""
        return due + self._jitter(name, added, due)

    def _jitter(self, name: str, added: int, due: int) -> int:
        if not self.jitter_s:
            return 0
        digest = hashlib.sha256(f"jitter\0{name}\0{added}\0{due}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % (int(self.jitter_s * SECOND) + 1)


def _parsed(expression: str) -> CronSim:
    """The expression, beginning at 1970. Raises Invalid."""
    try:
        if not expression.isascii():
            raise CronSimError("Not ASCII")
        return CronSim(expression, _EPOCH)
    except CronSimError as error:
        raise Invalid(f"cron: {shown(expression)}: {str(error).lower()}; allowed: {CRON_ALLOWED}") from None
    except (ValueError, TypeError, AssertionError, ArithmeticError):
        raise Invalid(f"cron: {shown(expression)} cannot be read; allowed: {CRON_ALLOWED}") from None


@lru_cache(maxsize=4_096)
def _next_second(expression: str, zone: str, start: int) -> int | None:
    """The first due second that is not before `start` (s since 1970)."""
    clock = zone_of(zone)
    every_hour = len(_parsed(expression).hours) == _HOURS
    try:
        found = (_by_time if every_hour else _by_clock)(expression, clock, start)
    except (OverflowError, ValueError):  # after the year 9999, or before the year 1
        return None
    return found if found is not None and found <= MAX_UNIX_S else None


def _by_time(expression: str, clock: ZoneInfo, start: int) -> int | None:
    """Of an expression that holds in every hour: whenever the clock shows what it says, also twice."""
    for _ in range(_MAX_TURNS):
        offset = _offset(clock, start)
        shows = _matching(expression, start + offset)
        if shows is None:
            return None
        found = shows - offset
        soon = min(found, start + _TURN_S)
        if _offset(clock, soon) != offset:
            start = _turn(clock, start, soon)
        elif soon == found:
            return found
        elif (instant := _instant(clock, shows)) is not None:
            return instant
        else:
            start = _after_gap(clock, shows)
    return None


def _by_clock(expression: str, clock: ZoneInfo, start: int) -> int | None:
    """Of an expression that names hours: each moment once. One that the clock leaves out is due when the
    clock goes on, one that it shows twice the first time."""
    shown_ = start + _offset(clock, start)
    first = _instant(clock, shown_)
    if first is not None and first < start:  # the clock shows it for the second time
        turn = _turn(clock, first, start)
        shown_ = turn + _offset(clock, first)
    # What is left out and due exactly at `start` is before it on the clock.
    if (left_out := _left_out(clock, start)) is not None:
        shown_ = left_out
    for _ in range(_MAX_TURNS):
        shows = _matching(expression, shown_)
        if shows is None:
            return None
        found = _instant(clock, shows)
        if found is None:
            found = _after_gap(clock, shows)
        if found >= start:
            return found
        shown_ = shows + 1
    return None


def _matching(expression: str, start: int) -> int | None:
    """The first moment that the expression names on a clock that is never turned, not before `start`."""
    try:
        found = next(CronSim(expression, _EPOCH + timedelta(seconds=start - 1)))
    except (StopIteration, RuntimeError):
        return None
    return _seconds(found)


def _seconds(clock_shows: datetime) -> int:
    return int((clock_shows - _EPOCH).total_seconds())


def _offset(clock: ZoneInfo, second: int) -> int:
    """By how many seconds the clock is ahead of UTC then."""
    shows = datetime.fromtimestamp(second, UTC).astimezone(clock).replace(tzinfo=UTC)
    return _seconds(shows) - second


def _instant(clock: ZoneInfo, shows: int) -> int | None:
    """When the clock first shows this; None: never."""
    local = (_EPOCH + timedelta(seconds=shows)).replace(tzinfo=clock)
    found = int(local.timestamp())
    return found if found + _offset(clock, found) == shows else None


def _after_gap(clock: ZoneInfo, shows: int) -> int:
    """When the clock was turned forward over what it never shows."""
    local = (_EPOCH + timedelta(seconds=shows)).replace(tzinfo=clock)
    before, after = int(local.replace(fold=1).timestamp()), int(local.timestamp())
    return _turn(clock, before, after)


def _left_out(clock: ZoneInfo, second: int) -> int | None:
    """The first moment that the clock left out, if it was turned forward just then."""
    before, after = _offset(clock, second - 1), _offset(clock, second)
    return second + before if after > before else None


def _turn(clock: ZoneInfo, before: int, after: int) -> int:
    """The second from which the clock goes as it does at `after`, not as it does at `before`."""
    offset = _offset(clock, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(clock, middle) == offset:
            before = middle
        else:
            after = middle
    return after
