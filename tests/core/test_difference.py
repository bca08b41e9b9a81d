"""The first place in which two values differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.difference import NOTHING, Difference, first_difference

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("expected", "got", "path", "values"),
    [
        (1, 2, "output", (1, 2)),
        ({"a": 1}, {"a": 2}, "output.a", (1, 2)),
        ({"a b": [1, {"c": "x"}]}, {"a b": [1, {"c": "y"}]}, "output['a b'][1].c", ("x", "y")),
        ([1, 2], [1], "output[1]", (2, NOTHING)),
        ([1], [1, 2], "output[1]", (NOTHING, 2)),
        ({"a": 1}, {}, "output.a", (1, NOTHING)),
        ({}, {"a": None}, "output.a", (NOTHING, None)),
        ([0, [1, 2], 3], [0, [9, 9], 9], "output[1][0]", (1, 9)),
        ({"b": 1, "a": 2}, {"a": 3, "b": 4}, "output.b", (1, 4)),
        (True, 1, "output", (True, 1)),
        (0, False, "output", (0, False)),
        ("1", 1, "output", ("1", 1)),
        ([], {}, "output", ([], {})),
        (None, [], "output", (None, [])),
    ],
)
def test_it_is_named_with_what_should_be_there_and_what_is(
    expected: Any, got: Any, path: str, values: tuple[Any, Any]
) -> None:
    found = first_difference(expected, got, "output")
    assert found == Difference(path, *values)
    assert found is not None
    assert (type(found.expected), type(found.got)) == (type(values[0]), type(values[1]))


@pytest.mark.parametrize("value", [1.0, float("nan"), [float("nan")], {"a": {"b": [1, 2, None]}}])
def test_what_is_equal_has_none(value: Any) -> None:
    assert first_difference(value, json.loads(json.dumps(value)), "output") is None
    assert first_difference(1, 1.0, "output") is None


@given(VALUES)
def test_every_value_is_equal_to_itself(value: Any) -> None:
    assert first_difference(value, value, "") is None


def test_deep_values_do_not_end_the_program() -> None:
    one: Any = 1
    other: Any = 2
    for _ in range(100_000):
        one, other = [one], [other]
    found = first_difference(one, other, "")
    assert found is not None
    assert (found.expected, found.got) == (1, 2)
