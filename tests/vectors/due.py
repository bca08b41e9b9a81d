"""More vectors: when crons are due, where clocks are turned too, and when their runs start."""

from __future__ import annotations

from typing import Any

from colonies.core.due import Schedule
from tests.vectors.telling import SECOND

SPRING, AUTUMN = 1_743_286_400, 1_761_430_000  # hours before the clock is turned in Berlin, in 2025
SHOWN = 4  # due times of each

ASKED: list[tuple[Schedule, int]] = [
    (Schedule(interval_s=90.5), SPRING),
    (Schedule("30 6 * * MON-FRI"), SPRING),
    (Schedule("*/20 * * * * *"), SPRING),
    (Schedule("0 0 L * *"), SPRING),
    (Schedule("0 0 13 * FRI"), SPRING),
    (Schedule("0 12 * * MON#2"), SPRING),
    *((Schedule("30 2 * * *", zone="Europe/Berlin"), at) for at in (SPRING, AUTUMN)),
    (Schedule("0,20,40 2 * * *", zone="Europe/Berlin"), SPRING),
    *((Schedule("30 * * * *", zone="Europe/Berlin"), at) for at in (SPRING, AUTUMN)),
    *((Schedule("0 */2 * * *", zone="Europe/Berlin"), at) for at in (SPRING, AUTUMN)),
    (Schedule("15 3 * * *", zone="Australia/Lord_Howe", jitter_s=60.0), SPRING),
]


def due() -> list[dict[str, Any]]:
    """For each schedule, of a cron called `nightly`, its first due times and when these runs start (ns)."""
    return [
        {
            "cron": schedule.cron,
            "interval_s": schedule.interval_s,
            "zone": schedule.zone,
            "jitter_s": schedule.jitter_s,
            "added": 7,
            "added_at": at * SECOND,
            "due": (times := _first(schedule, at * SECOND)),
            "starts": [schedule.starts("nightly", 7, time) for time in times],
        }
        for schedule, at in ASKED
    ]


def _first(schedule: Schedule, added_at: int) -> list[int]:
    found: list[int] = []
    while len(found) < SHOWN:
        time = schedule.next(found[-1] if found else added_at, added_at)
        assert time is not None
        found.append(time)
    return found
