"""YAML as specs are written in it: plain values only, and no text that is more than it looks."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from colonies.core import yaml_text
from colonies.core.yaml_text import yaml_value
from colonies.errors import Invalid


def read(text: str | bytes) -> Any:
    return yaml_value(text, "spec.yaml", "{}")


def test_plain_values_are_those_of_yaml_1_2() -> None:
    text = "[no, on, yes, true, FALSE, ~, null, '1', 1, -7, 0o17, 0x1F, 1.5, 1e3, 2027-01-31, 1:30, 1_000]"
    assert read(text) == [
        *("no", "on", "yes", True, False, None, None, "1", 1, -7, 15, 31, 1.5, 1000.0),
        *("2027-01-31", "1:30", "1_000"),
    ]
    assert read("a:") == {"a": None}
    assert read("[.inf, -.INF]") == [math.inf, -math.inf]
    assert math.isnan(read(".nan"))


def test_blocks_of_text_and_aliases_are_read() -> None:
    assert read('func: |-\n  echo a\n  echo b\nenv: &e {A: "1"}\nmore: [*e, *e]\n') == {
        "func": "echo a\necho b",
        "env": {"A": "1"},
        "more": [{"A": "1"}, {"A": "1"}],
    }


REFUSED = {
    "": "empty",
    "# nothing": "empty",
    "a: 1\nb: 2\na: 3": "line 3: the key 'a' is given twice",
    "1: a": "line 1: the key 1 is no text; put it in quotes",
    "true: a": "the key true is no text",
    "? [a]\n: b": "a key is a list or an object",
    "a: &x {b: *x}": r"line 1: \*x: it stands for what it is itself a part of",
    "a: *x": r"\*x: there is no &x before it",
    "x: &x [1]\n? *x\n: 2": "a key is a list or an object",
    "a: !!python/object:os.system {}": "line 1: the tag .* is not allowed",
    "!!str 1": "the tag",
    "! a": "the tag",
    "base: &b {c: 1}\na:\n  <<: *b": "line 3: << .merge. is not of YAML 1.2",
    "a: 1\n---\nb: 2": "a second document",
    "[1": "not YAML: line",
    "a: b: c": "not YAML: line 1, column 5",
    "a: \x00": "not YAML",
    "[" * 65 + "]" * 65: "nested too deeply; allowed: at most 64 levels",
    "a: '\ud800'": "not YAML",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_plain_yaml_is_refused_and_named(text: str) -> None:
    with pytest.raises(Invalid, match=REFUSED[text]) as refused:
        read(text)
    assert str(refused.value).startswith("spec.yaml: ")


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    with pytest.raises(Invalid, match="not UTF-8: byte 3 is 0xff"):
        read(b"a: \xff")
    assert read(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_a_small_text_that_stands_for_much_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(Invalid, match="line 6: more than 1000000 values, aliases counted"):
        read("\n".join(lines))


def test_a_long_text_may_not_stand_in_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MAX_YAML_CHARS", 1_000)
    assert len(read(f"a: &a {'x' * 400}\nb: [*a]")["b"]) == 1
    with pytest.raises(Invalid, match="more than 1000 characters, aliases counted"):
        read(f"a: &a {'x' * 400}\nb: [*a, *a]")


def test_both_loaders_of_the_library_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a: &x [1, no, 'x']\nb: *x", "- a: |-\n    x\n    y\n- b: 1\n"]
    found = [read(text) for text in texts]
    monkeypatch.setattr(yaml_text, "_Loader", yaml.SafeLoader)
    assert [read(text) for text in texts] == found


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text("abc \n:#-é", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(values)
def test_what_json_says_means_the_same_in_yaml(value: Any) -> None:
    assert read(json.dumps(value, ensure_ascii=False)) == value


@given(st.text(max_size=60))
def test_no_text_does_anything_but_be_read_or_refused(text: str) -> None:
    said = "spec.yaml: "
    try:
        read(text)
    except Invalid as error:
        said = str(error)
    assert said.startswith("spec.yaml: ")
