"""The grammar of subjects: what is built parses back, and junk parses to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies import codec, subjects
from colonies.core.events import Cancelled, Configured, Declared, Event, Queued, Requeued, WorkerStopped
from colonies.core.spec import Conditions, Spec
from colonies.subjects import Subject

PROCESS = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
QUEUE = "vpl7kf54gwurl2c7mf2hocx4dy"
SPEC = Spec.parse({"func": "f", "conditions": {"runtimetype": "cli"}})

entities = st.text("abcXYZ019_-", min_size=1, max_size=64)
authors = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,31}\Z")
events = st.from_regex(r"\A[a-z]{1,32}\Z")
queues = st.from_regex(r"\A[a-z2-7]{26}\Z")
subject = (
    st.builds(
        Subject,
        st.sampled_from(["process", "workflow", "member", "queue", "worker", "cron", "generator"]),
        entities,
        events.filter(lambda event: event != "queued"),
        authors,
    )
    | st.builds(Subject, st.just("colony"), st.just(""), events, authors)
    | st.builds(Subject, st.just("process"), entities, st.just("queued"), authors, queues)
)


@given(subject)
def test_what_is_built_parses_back(built: Subject) -> None:
    assert subjects.parse(str(built)) == built


@pytest.mark.parametrize(
    ("event", "entity", "queue", "expected"),
    [
        (Queued(SPEC), PROCESS, QUEUE, f"ledger.process.{PROCESS}.queued.{QUEUE}.ann"),
        (Requeued(3), PROCESS, QUEUE, f"ledger.process.{PROCESS}.queued.{QUEUE}.ann"),
        (Cancelled(), PROCESS, None, f"ledger.process.{PROCESS}.cancelled.ann"),
        (Configured(10.0), "", None, "ledger.colony.configured.ann"),
        (WorkerStopped("one"), "ann", None, "ledger.worker.ann.stopped.ann"),
        (Declared(Conditions(runtimetype="cli"), 0), QUEUE, None, f"ledger.queue.{QUEUE}.declared.ann"),
    ],
)
def test_every_kind_of_event_has_its_subject(
    event: Event, entity: str, queue: str | None, expected: str
) -> None:
    built = subjects.subject_of(event, entity, "ann", queue)
    assert built == expected
    parsed = subjects.parse(built)
    assert parsed is not None
    assert subjects.matches(event, parsed)
    assert (parsed.entity, parsed.queue, parsed.author) == (entity, queue, "ann")
    guard = subjects.guard_of(parsed.kind, parsed.entity)
    assert guard == subjects.guard_of_subject(built)
    assert built.startswith(guard.removesuffix(">"))


@given(st.text(max_size=60) | st.builds(".".join, st.lists(st.text(max_size=9), max_size=7)))
def test_junk_parses_to_nothing_or_to_what_it_says(junk: str) -> None:
    for text in (junk, f"ledger.{junk}", f"ledger.process.{junk}", f"ledger.colony.{junk}"):
        parsed = subjects.parse(text)
        assert parsed is None or str(parsed) == text


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "ledger",
        "feed.colony.genesis.olga",
        "ledger.colony.genesis",
        "ledger.colony.x.genesis.olga",
        "ledger.process..cancelled.ann",
        f"ledger.process.{PROCESS}.queued.ann",
        f"ledger.process.{PROCESS}.queued.short.ann",
        f"ledger.process.{PROCESS}.queued.{QUEUE}.ann.more",
        f"ledger.process.{PROCESS}.cancelled.Ann",
        f"ledger.process.{PROCESS}.cancelled.ann\n",
        f"ledger.process.{PROCESS}\n.cancelled.ann",
        f"ledger.process.{PROCESS}.Cancelled.ann",
        f"ledger.process.{PROCESS}.cancel\udc80led.ann",
        f"ledger.process.{'x' * 65}.cancelled.ann",
        f"ledger.process.{PROCESS}.cancelled.{'a' * 33}",
        f"ledger.dragon.{PROCESS}.cancelled.ann",
        "ledger.process.*.cancelled.ann",
        "ledger.process.>",
    ],
)
def test_what_is_not_of_the_grammar_parses_to_nothing(junk: str) -> None:
    assert subjects.parse(junk) is None


def test_a_subject_that_utf_8_cannot_hold_is_no_reason_to_fail() -> None:
    assert codec.context("A", "heartbeat.w1.\udc80") != codec.context("A", "heartbeat.w1.?")
