"""The life of a cron, and which runs of it are true: the rules, told event by event."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonies.core import crons
from colonies.core.crons import MAX_LIVES, MAX_PAUSES, Cron
from colonies.core.events import (
    CronAdded,
    CronPaused,
    CronRemoved,
    CronResumed,
    Record,
    Source,
    Verdict,
    WorkflowSubmitted,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.process import SECOND
from colonies.core.workflow import NOTHING, Sourced, judge
from tests.core.telling import MEMBERS, START, a_colony, new_id, record_of

COLONY = a_colony()
SPEC = WorkflowSpec.parse([{"name": "main", "func": "tick", "conditions": {"runtimetype": "cli"}}])
ADDED = CronAdded(SPEC, interval_s=60.0)
MINUTE = 60 * SECOND


class Telling:
    """The crons of one name, told event by event; times are seconds after the start."""

    def __init__(self) -> None:
        self.cron: Cron | None = None
        self.sequence = 100

    def record(self, event: object, author: str, at_s: float) -> Record:
        self.sequence += 1
        prev = self.cron.head if self.cron is not None else None
        return record_of(
            event,  # type: ignore[arg-type]
            author,
            role=MEMBERS[author],
            kind="cron",
            entity="tick",
            sequence=self.sequence,
            time=START + int(at_s * SECOND),
            prev=prev,
        )

    def say(self, event: object, author: str = "ann", at_s: float = 0) -> Verdict:
        record = self.record(event, author, at_s)
        verdict = crons.judge(self.cron, record, COLONY)
        if verdict.valid:
            self.cron = crons.evolve(self.cron, record)
        return verdict

    def run(
        self, due_s: float | None, at_s: float, *, author: str = "orch", id: str | None = None, **more: object
    ) -> Verdict | Sourced:
        """What a run has, said now."""
        assert self.cron is not None
        cron = self.cron.life(more.pop("added", self.cron.added)) or self.cron  # type: ignore[arg-type]
        due = None if due_s is None else START + int(due_s * SECOND)
        source = replace(Source("cron", "tick", cron.added, due), **more)  # type: ignore[arg-type]
        self.sequence += 1
        found = new_id() if due is None else cron.run_id(due)
        record = record_of(
            WorkflowSubmitted(source=source),
            author,
            role=MEMBERS[author],
            kind="workflow",
            entity=id or found,
            sequence=self.sequence,
            time=START + int(at_s * SECOND),
        )
        return crons.sourced(self.cron, source, record)


@pytest.fixture
def tick() -> Telling:
    """A cron that ann added, every minute."""
    telling = Telling()
    assert telling.say(ADDED).valid
    return telling


def kind(found: Verdict | Sourced) -> str:
    return "true" if isinstance(found, Sourced) else found.kind


# --- its life ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("author", ["ann", "olga"])
def test_who_added_a_cron_and_an_owner_say_what_becomes_of_it(tick: Telling, author: str) -> None:
    for event, state in ((CronPaused("x"), "paused"), (CronResumed(), "active"), (CronRemoved(), "removed")):
        assert tick.say(event, author).valid
        assert tick.cron is not None
        assert tick.cron.state == state


@pytest.mark.parametrize("author", ["bob", "w1", "eye", "orch"])
@pytest.mark.parametrize("event", [CronPaused(), CronRemoved()])
def test_nobody_else_does(tick: Telling, author: str, event: object) -> None:
    assert tick.say(event, author).denied


@pytest.mark.parametrize("author", ["w1", "eye", "orch"])
def test_only_users_and_owners_add_crons(author: str) -> None:
    assert Telling().say(ADDED, author).denied


def test_a_name_stands_for_one_cron_until_it_is_removed(tick: Telling) -> None:
    assert "there is a cron of this name" in tick.say(ADDED, "bob").rule
    assert tick.say(CronRemoved()).valid
    assert tick.say(CronPaused()).rule == "there is no cron of this name"
    assert tick.say(ADDED, "bob").valid
    assert tick.cron is not None
    assert tick.cron.author == "bob"
    assert tick.cron.state == "active"
    assert tick.cron.life(101) is not None


def test_a_cron_is_paused_and_resumed_by_turns(tick: Telling) -> None:
    assert not tick.say(CronResumed()).valid
    assert tick.say(CronPaused()).valid
    assert not tick.say(CronPaused()).valid
    assert tick.say(CronResumed()).valid


def test_an_event_that_does_not_follow_the_last_one_is_quarantined(tick: Telling) -> None:
    record = replace(tick.record(CronPaused(), "ann", 1), prev=None)
    assert crons.judge(tick.cron, record, COLONY).kind == "quarantined"


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (replace(ADDED, cron="* * * * *"), "both"),
        (replace(ADDED, interval_s=None), "neither"),
        (replace(ADDED, interval_s=None, cron="61 * * * *"), "bad minute"),
        (replace(ADDED, interval_s=None, cron="* * * * *", zone="Mars/Olympus"), "no time zone"),
        (replace(ADDED, interval_s=None, cron="0 0 */32 * MON#5"), "never due"),
        (replace(ADDED, spec=replace(SPEC, nodes=())), "there are none"),
    ],
)
def test_a_cron_that_makes_no_sense_is_quarantined(event: CronAdded, why: str) -> None:
    verdict = Telling().say(event)
    assert verdict.kind == "quarantined"
    assert why in verdict.rule


def test_a_cron_of_another_colony_is_quarantined() -> None:
    other = WorkflowSpec.parse(
        [{"name": "main", "func": "f", "colony": "other", "conditions": {"runtimetype": "cli"}}]
    )
    assert "for the colony other" in Telling().say(replace(ADDED, spec=other)).rule


def test_pauses_and_lives_have_limits(tick: Telling) -> None:
    for _ in range(MAX_PAUSES):
        assert tick.say(CronPaused()).valid
        assert tick.say(CronResumed()).valid
    assert "is not again" in tick.say(CronPaused()).rule
    lives = Telling()
    for _ in range(MAX_LIVES):
        assert lives.say(ADDED).valid
        assert lives.say(CronRemoved()).valid
    assert "take another name" in lives.say(ADDED).rule


# --- its runs ---------------------------------------------------------------------------------------


def test_a_run_is_true_from_when_it_is_due(tick: Telling) -> None:
    assert kind(tick.run(60, 59.9)) == "quarantined"
    found = tick.run(60, 60)
    assert found == Sourced(SPEC, "ann")
    assert kind(tick.run(60, 1e9)) == "true"


@pytest.mark.parametrize("due_s", [0, -60, 30, 60.000000001, 61])
def test_a_time_that_is_not_in_the_schedule_is_quarantined(tick: Telling, due_s: float) -> None:
    assert kind(tick.run(due_s, 1_000)) == "quarantined"


@pytest.mark.parametrize("author", ["ann", "olga", "w1", "eye"])
def test_only_the_service_says_that_a_run_is_due(tick: Telling, author: str) -> None:
    found = tick.run(60, 60, author=author)
    assert isinstance(found, Verdict)
    assert found.denied


def test_a_run_under_another_id_is_quarantined(tick: Telling) -> None:
    assert kind(tick.run(60, 60, id=new_id())) == "quarantined"
    assert tick.cron is not None
    assert kind(tick.run(60, 120, id=tick.cron.run_id(START + 120 * SECOND))) == "quarantined"


def test_a_run_of_no_cron_is_quarantined() -> None:
    source = Source("cron", "tick", 101, START + MINUTE)
    record = record_of(
        WorkflowSubmitted(source=source), "orch", role="service", kind="workflow", entity="x", sequence=200
    )
    assert kind(crons.sourced(None, source, record)) == "quarantined"
    assert not judge(None, record, COLONY, NOTHING).valid


def test_a_run_before_its_cron_was_added_is_quarantined(tick: Telling) -> None:
    assert tick.cron is not None
    tick.sequence = tick.cron.added - 2
    assert kind(tick.run(60, 60)) == "quarantined"


def test_a_run_that_a_removal_or_a_pause_overtook_is_void(tick: Telling) -> None:
    assert tick.say(CronPaused(), at_s=61).valid
    assert kind(tick.run(60, 62)) == "void"
    assert tick.say(CronRemoved(), at_s=121).valid
    assert kind(tick.run(60, 122)) == "void"


def test_a_run_that_was_due_after_a_removal_or_within_a_pause_is_quarantined(tick: Telling) -> None:
    assert tick.say(CronPaused(), at_s=30).valid
    assert kind(tick.run(60, 62)) == "quarantined"
    assert tick.say(CronResumed(), at_s=130).valid
    assert kind(tick.run(120, 131)) == "quarantined"
    assert kind(tick.run(180, 181)) == "true"
    assert tick.say(CronRemoved(), at_s=200).valid
    assert kind(tick.run(240, 241)) == "quarantined"


def test_what_was_due_before_a_pause_may_be_run_after_it(tick: Telling) -> None:
    tick.say(CronPaused(), at_s=61)
    tick.say(CronResumed(), at_s=90)
    assert kind(tick.run(60, 91)) == "true"


def test_later_words_do_not_change_what_was_true(tick: Telling) -> None:
    """A session may know more than stood there."""
    place = tick.sequence = tick.sequence + 1
    tick.say(CronPaused(), at_s=61)
    tick.say(CronRemoved(), at_s=62)
    tick.say(ADDED, at_s=63)
    tick.sequence = place - 1
    assert kind(tick.run(60, 60, added=101)) == "true"


def test_a_run_of_a_cron_that_was_removed_and_added_again_is_void_not_the_new_ones(tick: Telling) -> None:
    tick.say(CronRemoved(), at_s=61)
    tick.say(ADDED, "bob", at_s=62)
    assert kind(tick.run(60, 63, added=101)) == "void"


def test_a_run_does_not_start_before_its_jitter() -> None:
    telling = Telling()
    telling.say(replace(ADDED, jitter_s=30.0))
    assert telling.cron is not None
    due = START + MINUTE
    starts_s = (telling.cron.starts(due) - START) / SECOND
    assert 60 < starts_s < 90
    assert kind(telling.run(60, starts_s - 0.001)) == "quarantined"
    assert kind(telling.run(60, starts_s + 0.001)) == "true"


def test_a_member_runs_it_now_and_is_its_submitter(tick: Telling) -> None:
    assert tick.run(None, 5, author="bob") == Sourced(SPEC, "bob")
    tick.say(CronPaused(), at_s=6)
    assert kind(tick.run(None, 7, author="ann")) == "true"
    for author in ("orch", "w1", "eye"):
        assert kind(tick.run(None, 7, author=author)) == "quarantined"
    assert tick.cron is not None
    assert kind(tick.run(None, 7, author="ann", id=tick.cron.run_id(START + MINUTE))) == "quarantined"
    tick.say(CronRemoved(), at_s=8)
    assert kind(tick.run(None, 9, author="ann")) == "void"


def test_the_run_before_is_one_of_the_cron_and_was_due_before(tick: Telling) -> None:
    assert tick.cron is not None
    first, second = START + MINUTE, START + 2 * MINUTE

    def after(previous: str | None, due: int | None) -> str:
        return kind(tick.run(120, 120, previous=previous, previous_due=due))

    assert tick.cron is not None
    run_id = tick.cron.run_id
    assert after(run_id(first), first) == "true"
    assert after(run_id(second), second) == "quarantined"
    assert after(run_id(first + 1), first + 1) == "quarantined"
    assert after(new_id(), first) == "quarantined"
    assert after(run_id(first), None) == "quarantined"
    assert after(None, first) == "quarantined"


def test_what_belongs_to_generators_is_quarantined(tick: Telling) -> None:
    for more in ({"run": 0}, {"first": 0}, {"count": 1}, {"packs": [1]}):
        assert kind(tick.run(60, 60, **more)) == "quarantined"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 200)), max_size=8), st.integers(0, 1_500))
def test_the_due_times_of_a_cron_are_those_that_may_be_run(words: list[tuple[bool, int]], end_s: int) -> None:
    """Whatever pauses there were: next, last and the verdict agree."""
    tick = Telling()
    tick.say(ADDED)
    now = 0
    for _, wait_s in words:
        now += wait_s
        assert tick.cron is not None
        tick.say(CronResumed() if tick.cron.paused else CronPaused(), at_s=now)
    end_s = max(end_s, now)
    assert tick.cron is not None
    cron = tick.cron
    found, after = [], START
    while (due := cron.next_due(after)) is not None and due <= START + end_s * SECOND:
        assert due > after
        assert cron.last_due(due, after) == due
        found.append((due - START) // SECOND)
        after = due
    assert cron.last_due(START + end_s * SECOND, START) == (found[-1] * SECOND + START if found else None)
    if not cron.paused:
        true = [s for s in range(60, end_s + 1, 60) if kind(tick.run(s, end_s)) == "true"]
        assert true == found
