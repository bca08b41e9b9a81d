"""When a cron is due: expressions, zones whose clocks are turned, intervals, jitter.

The oracle walks over every minute of some days and looks at the clock; it shares nothing with the library
that finds due times in one step.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonies.core.due import Schedule
from colonies.core.process import SECOND
from colonies.core.zones import zone_names, zone_of
from colonies.errors import Invalid

BERLIN = "Europe/Berlin"
# Clocks that are turned by an hour, by half an hour, at midnight, by a whole day, and never.
TURNS = (
    (BERLIN, datetime(2025, 3, 30, tzinfo=UTC)),
    (BERLIN, datetime(2025, 10, 26, tzinfo=UTC)),
    ("America/Havana", datetime(2025, 3, 9, tzinfo=UTC)),
    ("America/Havana", datetime(2025, 11, 2, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2025, 4, 5, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2025, 10, 4, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2025, 6, 1, tzinfo=UTC)),
)


def at(text: str, zone: str = BERLIN) -> int:
    """A moment by a zone's clock, or with its offset, as a ledger time."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone_of(zone))
    return int(moment.timestamp()) * SECOND


def due(schedule: Schedule, after: int, count: int, zone: str = BERLIN, added: int = 0) -> list[str]:
    """The next due times, as the zone's clock shows them."""
    found = []
    for _ in range(count):
        following = schedule.next(after, added)
        assert following is not None
        assert following > after
        found.append(datetime.fromtimestamp(following / SECOND, zone_of(zone)).isoformat()[:22])
        after = following
    return found


def cron(expression: str, zone: str = BERLIN) -> Schedule:
    return Schedule(cron=expression, zone=zone).checked()


@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
def test_a_moment_that_the_clock_leaves_out_is_due_when_the_clock_goes_on(expression: str) -> None:
    assert due(cron(expression), at("2025-03-29T03:00"), 2) == [
        "2025-03-30T03:00:00+02",
        "2025-03-31T02:30:00+02",
    ]


@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
def test_a_moment_that_the_clock_shows_twice_is_due_once_the_first_time(expression: str) -> None:
    assert due(cron(expression), at("2025-10-25T03:00"), 2) == [
        "2025-10-26T02:30:00+02",
        "2025-10-27T02:30:00+01",
    ]
    between = at("2025-10-26T02:10:00+01:00")  # the clock shows 2:10 for the second time
    assert due(cron(expression), between, 1) == ["2025-10-27T02:30:00+01"]


def test_an_hour_that_the_clock_shows_twice_is_over_after_the_first_time() -> None:
    between = at("2025-10-26T02:10:00+01:00")
    assert due(cron("* * 2 * * *"), between, 1) == ["2025-10-27T02:00:00+01"]


def test_what_holds_in_every_hour_goes_by_time_that_passes() -> None:
    forward = due(cron("30 * * * *"), at("2025-03-30T01:00"), 3)
    assert forward == ["2025-03-30T01:30:00+01", "2025-03-30T03:30:00+02", "2025-03-30T04:30:00+02"]
    back = due(cron("30 * * * *"), at("2025-10-26T01:45"), 3)
    assert back == ["2025-10-26T02:30:00+02", "2025-10-26T02:30:00+01", "2025-10-26T03:30:00+01"]
    assert due(cron("30 0-23 * * *"), at("2025-10-26T01:45"), 3) == back


def test_several_moments_that_the_clock_leaves_out_are_due_once() -> None:
    assert due(cron("0,20,40 2,3 * * *"), at("2025-03-30T00:00"), 4) == [
        "2025-03-30T03:00:00+02",
        "2025-03-30T03:20:00+02",
        "2025-03-30T03:40:00+02",
        "2025-03-31T02:00:00+02",
    ]


def test_six_fields_begin_with_the_second() -> None:
    assert due(cron("5,10 0 12 * * *"), at("2026-06-01T00:00"), 2) == [
        "2026-06-01T12:00:05+02",
        "2026-06-01T12:00:10+02",
    ]


def _looked_up(
    zone: str, start: datetime, days: int, minutes: set[int], hours: set[int], *, by_time: bool
) -> list[int]:
    """Due seconds, by looking at the clock every minute."""
    clock = zone_of(zone)
    found: set[int] = set()
    before: datetime | None = None
    seen: set[datetime] = set()
    for step in range(days * 24 * 60):
        second = int((start + timedelta(minutes=step)).timestamp())
        shows = datetime.fromtimestamp(second, clock).replace(tzinfo=None)
        left_out = [shows]
        if before is not None and not by_time:
            gap = int((shows - before).total_seconds()) // 60
            left_out = [shows - timedelta(minutes=back) for back in range(max(1, gap))]
        before = shows
        for moment in left_out:
            if moment.minute in minutes and moment.hour in hours and (by_time or moment not in seen):
                found.add(second)
            seen.add(moment)
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(
    place=st.sampled_from(TURNS),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.one_of(st.sets(st.integers(0, 23), min_size=1, max_size=6), st.just(set(range(24)))),
)
def test_due_times_are_those_that_one_sees_on_the_clock(
    place: tuple[str, datetime], minutes: set[int], hours: set[int]
) -> None:
    zone, day = place
    start = day - timedelta(days=1)
    by_time = len(hours) == 24
    # The first day is only walked over, so that the oracle knows what the clock has shown.
    expected = _looked_up(zone, start - timedelta(days=1), 4, minutes, hours, by_time=by_time)
    expected = [second for second in expected if second > start.timestamp()]
    schedule = cron(f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *", zone)
    found, after = [], int(start.timestamp()) * SECOND
    while (following := schedule.next(after, 0)) is not None and following < (expected[-1] + 1) * SECOND:
        assert following > after
        assert schedule.is_due(following, 0)
        assert schedule.last(following + 1, 0, after) == following
        found.append(following // SECOND)
        after = following
    assert found == expected


@settings(max_examples=200, deadline=None)
@given(
    second=st.integers(1_700_000_000, 1_900_000_000),
    zone=st.sampled_from(sorted(zone_names())),
    expression=st.sampled_from(
        [
            "* * * * *",
            "*/7 3-5 * * *",
            "30 2 * * SUN",
            "0 0 1 * *",
            "15 30 2 * * *",
            "0 0 L * *",
            "0 12 29 2 *",
        ]
    ),
)
def test_the_next_due_time_is_the_same_from_wherever_one_looks(
    second: int, zone: str, expression: str
) -> None:
    schedule = cron(expression, zone)
    start = second * SECOND
    first = schedule.next(start, 0)
    assert first is not None
    assert first > start
    between = start + (first - start) // 3
    assert schedule.next(between, 0) == first
    assert schedule.next(first - 1, 0) == first
    assert schedule.last(first, 0, start) == first
    assert schedule.last(first - 1, 0, start) is None
    following = schedule.next(first, 0)
    assert following is not None
    assert schedule.last(following, 0, start) == following


@given(interval_s=st.floats(1, 1_000), added=st.integers(0, 2**60), after=st.integers(-(10**12), 10**12))
def test_an_interval_counts_from_when_the_cron_was_added(interval_s: float, added: int, after: int) -> None:
    schedule = Schedule(interval_s=interval_s).checked()
    first = schedule.next(added + after, added)
    assert first is not None
    assert first > max(added, added + after)
    assert (first - added) % int(interval_s * SECOND) == 0
    assert schedule.is_due(first, added)
    assert not schedule.is_due(first + 1, added)
    assert schedule.last(first, added) == first


def test_nothing_is_due_when_it_was_added_or_before() -> None:
    schedule = cron("* * * * *", "UTC")
    noon = at("2026-06-01T12:00", "UTC")
    assert schedule.next(noon - 10**12, noon) == noon + 60 * SECOND
    assert not schedule.is_due(noon, noon)


def test_the_last_of_many_missed_times_is_found_at_once() -> None:
    schedule = cron("* * * * * *", "UTC")
    noon = at("2026-06-01T12:00", "UTC")
    assert schedule.last(noon + SECOND // 2, noon - 10**9 * SECOND) == noon


@given(due=st.integers(0, 2**62), jitter_s=st.floats(0, 86_400))
def test_jitter_is_the_same_for_all_who_ask_and_within_its_limit(due: int, jitter_s: float) -> None:
    schedule = Schedule(interval_s=60.0, jitter_s=jitter_s)
    starts = schedule.starts("tick", 7, due)
    assert 0 <= starts - due <= jitter_s * SECOND
    assert starts == schedule.starts("tick", 7, due)


def test_jitter_spreads_the_crons_that_are_due_at_once() -> None:
    schedule = Schedule(interval_s=60.0, jitter_s=10.0)
    starts = {schedule.starts(f"tick{number}", 7, 0) // SECOND for number in range(200)}
    assert starts == set(range(10))


@pytest.mark.parametrize(
    "expression",
    [
        *("", "x", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *"),
        *(
            "* * * * 8",
            "*/0 * * * *",
            "5-1 * * * *",
            "@daily",
            "1,,2 * * * *",
            "\u0661 * * * *",
            "0 0 30 2 *",
        ),
        *("* * * * 1L/2", "9" * 200 + " * * * *", "- * * * *", "* * L-3 * *", "* * * * 1#6", "* * LW/x * *"),
    ],
)
def test_an_expression_that_makes_no_sense_is_refused_saying_what_would(expression: str) -> None:
    with pytest.raises(Invalid, match="five fields"):
        Schedule(cron=expression).checked()


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789*/,-L#W MONSUJA", max_size=40))
def test_strangers_expressions_are_refused_or_answered_in_no_time(expression: str) -> None:
    schedule = Schedule(cron=expression, zone=BERLIN)
    try:
        schedule.checked()
    except Invalid:
        return
    first = schedule.next(at("2026-01-01T00:00"), 0)
    assert first is None or schedule.is_due(first, 0)


@pytest.mark.parametrize("expression", ["0 0 */32 * MON#5", "0 0 */32 2 MON#5", "59 59 23 31 12 */9"])
def test_an_expression_that_never_holds_is_never_due(expression: str) -> None:
    found = cron(expression).next(at("2026-01-01T00:00"), 0)
    assert found is None or expression.startswith("59")


@pytest.mark.parametrize(
    ("zone", "meant"),
    [
        ("berlin", BERLIN),
        ("europe/berlin", BERLIN),
        ("Europe/Berln", BERLIN),
        ("new york", "America/New_York"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_ones_that_are_near(zone: str, meant: str) -> None:
    with pytest.raises(Invalid, match=meant):
        Schedule(cron="* * * * *", zone=zone).checked()


@pytest.mark.parametrize("zone", ["", "../../etc/passwd", "/etc/localtime", "Mars/Olympus", "x" * 64])
def test_a_zone_is_one_of_the_list_and_never_a_path(zone: str) -> None:
    with pytest.raises(Invalid, match="no time zone"):
        zone_of(zone)


def test_a_cron_has_an_expression_or_an_interval_and_a_zone_is_for_an_expression() -> None:
    for schedule in (
        Schedule(),
        Schedule(cron="* * * * *", interval_s=60.0),
        Schedule(interval_s=60.0, zone=BERLIN),
    ):
        with pytest.raises(Invalid):
            schedule.checked()
