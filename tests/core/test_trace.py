"""Trace contexts are those of the standard; spans derive from the ledger alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies import codec
from colonies.core import trace as traces
from colonies.core.events import EVENT, Queued, Trace
from colonies.core.process import evolve, judge
from colonies.core.spec import Spec, queue_of
from colonies.errors import Invalid
from tests.core.telling import Telling, new_id, record_of

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
COLONY = "A" * 56
SPEC = Spec.parse({"func": "f", "conditions": {"runtimetype": "cli"}})


@pytest.mark.parametrize(
    ("parent", "why"),
    [
        (None, "null is not a traceparent"),
        ("", "'' is not a traceparent"),
        (PARENT.upper(), "is not a traceparent"),
        (PARENT[:-1], "is not a traceparent"),
        (f"{PARENT}-more", "is not a traceparent"),
        (f"{PARENT}\n", "is not a traceparent"),
        (f" {PARENT}", "is not a traceparent"),
        (PARENT.replace("00-4", "ff-4"), "is not a traceparent"),
        (PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), "its trace id is all zeros"),
        (PARENT.replace("00f067aa0ba902b7", "0" * 16), "its span id is all zeros"),
    ],
)
def test_what_is_no_traceparent_is_refused_with_what_would_be_right(parent: str | None, why: str) -> None:
    with pytest.raises(Invalid, match=why) as refused:
        traces.read(parent, where="TRACEPARENT")
    assert str(refused.value).startswith("TRACEPARENT: ")
    assert traces.EXAMPLE in str(refused.value)


def test_a_traceparent_of_a_later_version_is_read_as_the_standard_wants_it() -> None:
    assert traces.read("cc" + PARENT[2:-2] + "ff-what-comes-then").parent == PARENT
    assert traces.read(PARENT[:-2] + "03").parent == PARENT[:-2] + "03"
    assert traces.read(PARENT[:-2] + "03").sampled
    assert not traces.read(PARENT[:-2] + "02").sampled


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (None, None),
        ("", None),
        ("a=1", "a=1"),
        (" a=1 ,\tb@c=x y ,, ", "a=1,b@c=x y"),
        ("a=1,a=2", None),
        ("A=1", None),
        ("a", None),
        ("a=", None),
        ("a=é", None),
        ("a=b=c", None),
        (",".join(f"k{n}=1" for n in range(40)), ",".join(f"k{n}=1" for n in range(32))),
        ("a=" + "x" * 256 + ",b=" + "y" * 250 + ",c=1", "a=" + "x" * 256 + ",b=" + "y" * 250),
        ("a=" + "x" * 257, None),
    ],
)
def test_of_a_tracestate_its_first_members_are_kept_or_nothing(state: str | None, kept: str | None) -> None:
    assert traces.read(PARENT, state).state == kept


@given(st.text(max_size=700))
def test_whatever_is_given_as_a_tracestate_an_event_can_hold_what_is_kept(state: str) -> None:
    codec.check(Queued(SPEC, trace=traces.read(PARENT, state)))


def test_a_trace_travels_in_the_submission_and_is_the_processs() -> None:
    event = Queued(SPEC, trace=traces.read(PARENT, "a=1"))
    assert EVENT.validate_python({"type": event.type, **codec.data_of(event)}) == event
    telling = Telling()
    queue = queue_of(SPEC.conditions, 0)
    record = record_of(event, "ann", role="user", kind="process", entity=new_id(), sequence=9, queue=queue)
    assert judge(None, record, telling.colony).valid
    assert evolve(None, record).trace == Trace(PARENT, "a=1")
    assert "trace" not in codec.data_of(Queued(SPEC))  # what needs none is as it was


def test_spans_are_told_apart_by_colony_kind_and_id() -> None:
    ids = {
        traces.span_id(colony, what, id)
        for colony in (COLONY, "B" * 56)
        for what in ("workflow", "process", "attempt", "wait")
        for id in ("one", "two")
    }
    assert len(ids) == 16
    assert all(len(id) == 16 for id in ids)
    assert traces.span_id(COLONY, "process", "one") == traces.span_id(COLONY, "process", "one")


def test_a_function_stands_at_its_attempts_span_in_the_submitters_trace_or_in_one_of_its_own() -> None:
    span = traces.span_id(COLONY, "attempt", "a1")
    given = traces.at_attempt(COLONY, Trace(PARENT[:-1] + "0", "a=1"), None, "p", "a1")
    assert given == Trace(f"{PARENT[:36]}{span}-00", "a=1")
    own = traces.at_attempt(COLONY, None, None, "p", "a1")
    assert (own.span_id, own.sampled, own.state) == (span, True, None)
    assert own.trace_id == traces.own(COLONY, "process", "p").trace_id
    node = traces.at_attempt(COLONY, None, "flow", "p", "a1")
    assert node.trace_id == traces.own(COLONY, "workflow", "flow").trace_id != own.trace_id
