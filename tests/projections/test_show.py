"""How a process is shown. Pure: no broker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from colonies.core.process import Attempt, Blocked, Process, Successful
from colonies.core.spec import Spec
from colonies.show import UNSHOWABLE, jsonable, process_object, rfc3339

NOON = 1_767_268_800_000_000_000


def process(**changes: Any) -> Process:
    spec = Spec.parse({"func": "f", "args": [1], "label": "l", "conditions": {"runtimetype": "cli"}})
    given = {
        "id": "P",
        "spec": spec,
        "queue": "q",
        "submitter": "ann",
        "submitted_at": NOON,
        "phase": Blocked(0),
        "head": b"",
        "sequence": 7,
        "time": NOON,
    }
    return Process(**{**given, **changes})


def test_times_are_rfc_3339_with_microseconds() -> None:
    assert rfc3339(NOON) == "2026-01-01T12:00:00.000000Z"
    assert rfc3339(NOON + 250_999) == "2026-01-01T12:00:00.000250Z"


def test_a_process_is_shown_with_these_fields_in_this_order() -> None:
    attempt = Attempt(1, "id", "w1", "i1", NOON + 1_000, NOON + 2_000, "successful", code="c0" * 32)
    shown = process_object(
        process(phase=Successful({"a": 1}), attempts=(attempt,), time=NOON + 2_000),
    )
    assert list(shown) == [
        *(
            "id",
            "state",
            "func",
            "name",
            "args",
            "runtimetype",
            "label",
            "workflow",
            "node",
            "priority",
            "submitter",
            "worker",
            "attempts",
        ),
        *("submitted_at", "started_at", "ended_at", "output", "errors"),
    ]
    assert shown["attempts"] == [
        {
            "n": 1,
            "worker": "w1",
            "instance": "i1",
            "started_at": "2026-01-01T12:00:00.000001Z",
            "ended_at": "2026-01-01T12:00:00.000002Z",
            "outcome": "successful",
            "error": None,
            "code": "c0" * 32,
        }
    ]
    assert (shown["worker"], shown["output"], shown["ended_at"]) == (
        "w1",
        {"a": 1},
        shown["attempts"][0]["ended_at"],
    )


def test_what_is_not_there_yet_is_none() -> None:
    shown = process_object(process())
    assert [name for name, value in shown.items() if value is None] == [
        *("name", "workflow", "node", "worker", "started_at", "ended_at", "output")
    ]


def test_loaded_values_take_the_place_of_stored_ones() -> None:
    shown = process_object(process(), output=[1], args=["large"])
    assert (shown["output"], shown["args"]) == ([1], ["large"])


def _deep(levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), None),
        (b"\xff", "_w=="),
        ({b"\xff": 1}, {"_w==": 1}),
        (2**64 - 1, 2**64 - 1),
        (_deep(900), UNSHOWABLE),
    ],
)
def test_whatever_a_worker_signed_can_be_shown(value: Any, shown: Any) -> None:
    assert jsonable(value) == shown
    json.dumps(shown, allow_nan=False)
