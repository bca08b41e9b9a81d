"""Which arguments make which run: every one in exactly one, in order, the same for every reader."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.core.events import (
    SECOND,
    Event,
    GeneratorAdded,
    GeneratorPacked,
    GeneratorRemoved,
    Record,
    Source,
    Verdict,
    WorkflowSubmitted,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.generators import (
    Chain,
    Generator,
    Group,
    Holding,
    Pack,
    arguments,
    evolve,
    judge,
    run_id,
    source_of,
    sourced,
)
from colonies.core.workflow import Sourced
from colonies.errors import Conflict, Refused
from tests.core.telling import MEMBERS, START, a_colony, record_of

SPEC = WorkflowSpec.parse(
    [{"name": "all", "func": "f", "args": [{"$packed": ""}], "conditions": {"runtimetype": "python"}}]
)
COLONY = a_colony()


class Story:
    """One generator's chain, told event by event to two readers: one that keeps the arguments and one that
    does not."""

    def __init__(self, trigger: int = 3, timeout_s: float | None = None) -> None:
        self.chain, self.light = Chain("g"), Chain("g", keeps=False)
        self.records: list[Record] = []
        self.sequence = 100
        self.time = START
        self.add(trigger, timeout_s)

    def add(self, trigger: int, timeout_s: float | None, author: str = "ann") -> Verdict:
        return self.say(GeneratorAdded(SPEC, trigger, timeout_s), author)

    def pack(
        self, *args: Any, author: str = "bob", after_s: float = 0.0, start: int | None = None
    ) -> Verdict:
        generator = self.chain.generator
        start = start if start is not None else generator.total if generator is not None else 0
        return self.say(GeneratorPacked(start, list(args)), author, after_s=after_s)

    def say(self, event: Event, author: str, *, after_s: float = 0.0, prev: bytes | None = None) -> Verdict:
        self.sequence += 1
        self.time += int(after_s * SECOND)
        record = record_of(
            event,
            author,
            role=MEMBERS[author],
            kind="generator",
            entity="g",
            sequence=self.sequence,
            time=self.time,
            prev=prev or self.chain.head,
        )
        self.records.append(record)
        verdict = judge(self.chain, record, COLONY)
        assert judge(self.light, record, COLONY) == verdict
        if verdict.valid:
            evolve(self.chain, record)
            evolve(self.light, record)
        return verdict

    @property
    def generator(self) -> Generator:
        assert self.chain.generator is not None
        return self.chain.generator

    def run(
        self, number: int = 0, *, after_s: float = 0.0, generator: Generator | None = None, **other: Any
    ) -> Sourced | Verdict:
        """What a run has that is said now, of what its group is now or of something else."""
        self.sequence += 1
        self.time += int(after_s * SECOND)
        generator = generator or self.generator
        group = generator.group(number)
        source = Source("generator", "g", generator.added, run=number, first=0, count=1, packs=[])
        if group is not None:
            source = source_of(generator, group)
        id = other.pop("id", run_id("g", generator.added, number))
        return self.judged(replace(source, **other), id)

    def judged(self, source: Source, id: str) -> Sourced | Verdict:
        record = record_of(
            WorkflowSubmitted(source=source),
            "orch",
            role="service",
            kind="workflow",
            entity=id,
            sequence=self.sequence,
            time=self.time,
        )
        found = sourced(self.chain.find(source.added), source, record)
        light = self.light.find(source.added)
        group = light.group(source.run) if light is not None and source.run is not None else None
        packs = held(group, self.records) if group is not None else []
        assert sourced(light, source, record, packs) == found
        return found


def held(group: Group, records: list[Record]) -> list[Pack]:
    """The packed events of a group, as a reader who kept none finds them again."""
    holding = Holding(group)
    for record in records:
        if record.sequence >= group.since:
            holding.add(record)
    assert holding.complete
    return holding.packs


def packed_of(found: Sourced | Verdict) -> list[Any]:
    assert isinstance(found, Sourced), found
    return list(found.packed)


def rule_of(found: Sourced | Verdict) -> str:
    assert isinstance(found, Verdict)
    assert found.kind == "quarantined"
    return found.rule


# --- the partition ------------------------------------------------------------------------------------

EVENTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), max_size=30)  # arguments, seconds before
TIMEOUTS = st.sampled_from([None, 1.0, 3.0, 5.0])


def naive(times: list[int], trigger: int, timeout_s: float | None) -> list[list[int]]:
    """The groups of arguments stored at these times, one argument after the other."""
    groups: list[list[int]] = []
    for number, time in enumerate(times):
        last = groups[-1] if groups else None
        over = last is not None and timeout_s is not None and time >= times[last[0]] + timeout_s * SECOND
        if last is None or len(last) == trigger or over:
            groups.append([number])
        else:
            last.append(number)
    return groups


def groups_of(generator: Generator) -> list[Group]:
    return [*generator.closed.values(), *([generator.open] if generator.open is not None else [])]


@given(EVENTS, st.integers(1, 7), TIMEOUTS)
def test_every_argument_is_in_exactly_one_group_in_order(
    events: list[tuple[int, int]], trigger: int, timeout_s: float | None
) -> None:
    story = Story(trigger, timeout_s)
    times: list[int] = []
    for count, after_s in events:
        first = len(times)
        assert story.pack(*range(first, first + count), after_s=after_s).valid
        times += [story.time] * count
    wanted = naive(times, trigger, timeout_s)
    found = groups_of(story.generator)
    assert [list(arguments(group, group.packs)) for group in found] == wanted
    assert [group.run for group in found] == list(range(len(wanted)))
    assert all(len(group) == trigger for group in wanted[:-1]) or timeout_s is not None
    light = story.light.generator
    assert light is not None
    assert [list(arguments(group, held(group, story.records))) for group in groups_of(light)] == wanted


@given(EVENTS, st.integers(1, 7), TIMEOUTS)
def test_it_does_not_matter_how_arguments_are_cut_into_events(
    events: list[tuple[int, int]], trigger: int, timeout_s: float | None
) -> None:
    whole, single = Story(trigger, timeout_s), Story(trigger, timeout_s)
    for count, after_s in events:
        whole.pack(*range(count), after_s=after_s)
        single.time += after_s * SECOND
        for number in range(count):
            single.pack(number)
    shapes = [
        [(group.first, group.count, group.ends) for group in groups_of(one.generator)]
        for one in (whole, single)
    ]
    assert shapes[0] == shapes[1]


@given(EVENTS, st.integers(1, 5), TIMEOUTS, st.data())
def test_a_run_is_true_when_its_group_is_closed_and_stays_so(
    events: list[tuple[int, int]], trigger: int, timeout_s: float | None, data: st.DataObject
) -> None:
    """One orchestrator says each run as early as it may, at times that are drawn; whoever reads later, all
    of the chain at once, finds the same ones true and no other."""
    story = Story(trigger, timeout_s)
    said: list[tuple[Record, Source]] = []
    ran: list[Any] = []
    total = 0

    def look() -> None:
        nonlocal ran
        for group in story.generator.due(story.time):
            source = source_of(story.generator, group)
            story.sequence += 1
            found = story.judged(source, run_id("g", story.generator.added, group.run))
            ran += packed_of(found)
            record = record_of(
                WorkflowSubmitted(source=source),
                "orch",
                role="service",
                kind="workflow",
                entity=run_id("g", story.generator.added, group.run),
                sequence=story.sequence,
                time=story.time,
            )
            said.append((record, source))
            story.chain.taken(source)

    for count, after_s in events:
        story.pack(*range(total, total + count), after_s=after_s)
        total += count
        if data.draw(st.booleans()):
            story.time += data.draw(st.integers(0, 3)) * SECOND
            look()
    story.time += 10 * SECOND
    look()
    group = story.generator.open
    waiting = group.count if group is not None and not group.taken else 0
    assert ran == list(range(total - waiting))
    assert waiting == 0 or timeout_s is None
    assert not story.generator.closed  # nothing is kept of what ran
    late = Chain("g")
    for record in story.records:
        evolve(late, record)
    assert late.generator is not None
    for record, source in said:
        assert isinstance(sourced(late.generator, source, record), Sourced)


# --- runs that are not true -----------------------------------------------------------------------------


def test_a_run_has_the_arguments_of_its_group() -> None:
    story = Story(3)
    story.pack("a", "b")
    story.pack("c", "d", "e", "f", "g")
    assert packed_of(story.run(0)) == ["a", "b", "c"]
    found = story.run(1)
    assert packed_of(found) == ["d", "e", "f"]
    assert isinstance(found, Sourced)
    assert (found.spec, found.submitter) == (SPEC, "ann")


def test_a_run_said_too_early_is_not_true() -> None:
    story = Story(3, timeout_s=10)
    assert rule_of(story.run(0)) == "run 0 has no arguments yet"
    story.pack("a", "b")
    early = story.run(0, after_s=9.9)
    assert rule_of(early) == "run 0 has 2 of 3 arguments, and its time is not over"
    assert packed_of(story.run(0, after_s=0.1)) == ["a", "b"]


def test_without_a_timeout_a_group_waits_for_ever() -> None:
    story = Story(3)
    story.pack("a", "b")
    assert "2 of 3" in rule_of(story.run(0, after_s=1e6))


def test_what_comes_when_the_time_is_over_is_the_next_runs() -> None:
    story = Story(3, timeout_s=10)
    story.pack("a")
    story.pack("b", after_s=10)
    assert packed_of(story.run(0)) == ["a"]
    assert "1 of 3" in rule_of(story.run(1))


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        ({"first": 1}, "all and no others"),
        ({"count": 2}, "all and no others"),
        ({"count": 4}, "all and no others"),
        ({"packs": []}, "does not cite the events"),
        ({"packs": [102, 103]}, "does not cite the events"),
        ({"run": None}, "which run"),
        ({"due": 5}, "which run"),
        ({"previous": "a" * 32}, "which run"),
        ({"previous_due": 5}, "which run"),
        ({"added": 99}, "was not added at 99"),
        ({"run": 1}, "does not derive"),
        ({"id": "a" * 32}, "does not derive"),
    ],
)
def test_a_run_that_says_something_else_is_not_true(other: dict[str, Any], rule: str) -> None:
    story = Story(3)
    story.pack("a", "b", "c", "d")
    assert rule in rule_of(story.run(0, **other))
    assert packed_of(story.run(0)) == ["a", "b", "c"]


def test_a_run_said_before_its_last_argument_is_not_true_for_whoever_comes_late_either() -> None:
    story = Story(2)
    story.pack("a")
    story.sequence += 1
    before = story.sequence
    story.pack("b")
    story.sequence, after = before, story.sequence
    assert "all and no others" in rule_of(story.run(0, generator=None))
    story.sequence = after
    assert packed_of(story.run(0)) == ["a", "b"]


def test_a_run_is_submitted_once() -> None:
    story = Story(1)
    story.pack("a")
    source = source_of(story.generator, story.generator.closed[0])
    story.chain.taken(source)
    record = record_of(
        WorkflowSubmitted(source=source),
        "orch",
        role="service",
        kind="workflow",
        entity=run_id("g", story.generator.added, 0),
        sequence=1_000,
        time=story.time,
    )
    assert rule_of(sourced(story.generator, source, record)) == "run 0 was submitted already"


def test_a_clock_that_is_set_back_does_not_move_later_groups() -> None:
    """An argument that comes after its group's run, at a time before its end, is in no run. All readers count
    it in the same group, so those behind it are the same for all."""
    story = Story(3, timeout_s=10)
    story.pack("a")
    source = source_of(story.generator, groups_of(story.generator)[0])
    story.chain.taken(source)  # said at a later time than what comes now
    assert story.generator.due(story.time + 100 * SECOND) == []
    story.pack("late")
    story.pack("b", "c", "d", "e", after_s=10)
    assert packed_of(story.run(1)) == ["b", "c", "d"]
    assert story.light.generator is not None
    assert [group.first for group in groups_of(story.light.generator)] == [0, 2, 5]
    assert [group.first for group in groups_of(story.generator)] == [2, 5]
    assert story.say(GeneratorRemoved(), "ann").valid


# --- who may say what, and when --------------------------------------------------------------------------


def test_only_members_who_submit_say_anything_of_generators() -> None:
    story = Story(3)
    for author in ("w1", "eye", "orch"):
        assert story.pack("a", author=author).denied
        assert story.say(GeneratorRemoved(), author).denied
    assert story.pack("a", author="olga").valid


def test_a_name_is_one_generators_until_it_is_removed() -> None:
    story = Story(3)
    assert story.add(5, None, "bob").rule == "there is a generator of this name"
    assert story.say(GeneratorRemoved(), "bob").rule == "only ann or an owner may remove the generator"
    assert story.say(GeneratorRemoved(), "olga").valid
    assert story.say(GeneratorRemoved(), "ann").rule == "there is no generator of this name"
    assert story.pack("a").rule == "there is no generator of this name"
    assert story.add(5, None, "bob").valid
    assert story.pack("a").valid


def test_packed_arguments_count_on_from_those_before() -> None:
    story = Story(3)
    assert story.pack("a", "b").valid
    assert "2 arguments were packed before it, it says 1" in story.pack("c", start=1).rule
    assert "2 arguments were packed before it, it says 3" in story.pack("c", start=3).rule
    assert story.pack().rule == "it holds no argument"
    assert story.pack("c", start=2).valid


def test_what_stands_on_another_event_is_not_true() -> None:
    story = Story(3)
    story.pack("a")
    assert "prev" in story.say(GeneratorPacked(1, ["b"]), "bob", prev=b"another").rule
    assert groups_of(story.generator)[0].count == 1


def test_a_full_group_still_runs_when_its_generator_is_removed() -> None:
    story = Story(2, timeout_s=10)
    story.pack("a", "b", "c")
    before = story.generator
    assert story.say(GeneratorRemoved(), "ann").valid
    assert packed_of(story.run(0, generator=before)) == ["a", "b"]
    assert story.add(2, None).valid
    assert packed_of(story.run(0, generator=before)) == ["a", "b"]
    source = Source("generator", "g", before.added, run=1, first=2, count=1, packs=[102])
    early = story.judged(source, run_id("g", before.added, 1))
    assert rule_of(early) == "the generator was removed before run 1 was complete"
    story.time += 10 * SECOND
    late = story.judged(source, run_id("g", before.added, 1))
    assert isinstance(late, Verdict)
    assert (late.kind, late.rule) == ("void", "the generator was removed before it")


def test_a_group_whose_time_was_over_runs_though_the_generator_is_removed() -> None:
    story = Story(5, timeout_s=10)
    story.pack("a", "b")
    before = story.generator
    assert story.say(GeneratorRemoved(), "ann", after_s=10).valid
    assert packed_of(story.run(0, generator=before)) == ["a", "b"]


def test_deciding_raises_what_a_member_can_act_on() -> None:
    story = Story(3)
    wish = replace(story.records[-1], prev=story.chain.head, event=GeneratorPacked(4, ["a"]))
    with pytest.raises(Conflict, match="generator g: 0 arguments were packed"):
        judge(story.chain, wish, COLONY).require("generator g")
    with pytest.raises(Refused, match="generator g: the role worker"):
        judge(story.chain, replace(wish, role="worker"), COLONY).require("generator g")


def test_packs_are_read_again_from_where_their_group_begins() -> None:
    story = Story(4)
    story.pack("a", "b", "c")
    assert not story.pack("x", "y", start=0).valid
    story.pack("d", "e")
    light = story.light.generator
    assert light is not None
    found = held(light.closed[0], story.records)
    assert [pack.sequence for pack in found] == [102, 104]
    assert arguments(light.closed[0], found) == ("a", "b", "c", "d")
    assert arguments(light.closed[0], [Pack(102, 0, ["a", "b", "c"])]) == ("a", "b", "c")
