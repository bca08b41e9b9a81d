"""Values: quick to make, equal by their fields, and the same as dataclasses to whoever asks."""

from __future__ import annotations

import pickle
from dataclasses import fields, is_dataclass

import pytest

from colonies.core.states import Attempt
from colonies.core.values import changed, struct


@struct
class Point:
    """A place on a plane."""

    x: int
    y: int = 0


@struct
class Mark:
    """A value of one field."""

    name: str


def test_what_is_changed_is_another_value_and_the_first_stays_as_it_was() -> None:
    point = Point(1, 2)
    assert changed(point, y=5) == Point(1, 5)
    assert point == Point(1, 2)
    assert changed(point) == point
    assert changed(Mark("a"), name="b") == Mark("b")


def test_the_type_checker_is_the_guard() -> None:
    point = Point(1)
    point.x = 2  # type: ignore[misc]  # mypy refuses an ignore that it does not need
    assert point == Point(2)


def test_a_field_that_is_not_there_cannot_be_changed() -> None:
    with pytest.raises(KeyError, match="z"):
        changed(Point(1), z=3)
    with pytest.raises(AttributeError):
        Point(1).z = 3  # type: ignore[attr-defined]


def test_values_are_dataclasses_with_a_hash_and_can_be_pickled() -> None:
    attempt = Attempt(1, "id", "w1", "i1", started_at=5)
    assert is_dataclass(Attempt)
    assert [field.name for field in fields(Point)] == ["x", "y"]
    assert {attempt, changed(attempt, logs=0)} == {attempt}
    assert pickle.loads(pickle.dumps(attempt)) == attempt
