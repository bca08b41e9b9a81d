"""Bad specs: each is refused with exit code 2 and names the field and what is allowed; nothing is recorded.

That a refusal comes before any broker is asked shows on a machine that knows no colony: there everything
else ends with 5.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

GOOD: dict[str, Any] = {"func": "echo hi", "conditions": {"runtimetype": "cli"}}


def but(**fields: Any) -> str:
    return json.dumps({**GOOD, **fields})


def with_conditions(**fields: Any) -> str:
    return but(conditions={"runtimetype": "cli", **fields})


BAD = {
    "unknown field": (but(colour="red"), ["colour: unknown field", "allowed:"]),
    "unknown condition": (with_conditions(colour="red"), ["conditions.colour: unknown field", "allowed:"]),
    "wrong type": (but(args="x"), ["args:", "a string"]),
    "wrong type of a number": (but(maxretries="3"), ["maxretries:", "allowed: a whole number"]),
    "no func": (json.dumps({"conditions": {"runtimetype": "cli"}}), ["func: missing"]),
    "no conditions": (json.dumps({"func": "x"}), ["conditions: missing"]),
    "no runtimetype": (json.dumps({"func": "x", "conditions": {}}), ["conditions.runtimetype: missing"]),
    "empty func": (but(func=""), ["func:", "allowed:"]),
    "bad runtimetype": (but(conditions={"runtimetype": "a b"}), ["runtimetype:", "A-Z, a-z, 0-9"]),
    "long runtimetype": (but(conditions={"runtimetype": "a" * 65}), ["runtimetype:", "1 to 64"]),
    "bad name": (but(name="a.b"), ["name:", "A-Z, a-z, 0-9"]),
    "negative time": (but(maxexectime=-2), ["maxexectime:", "-1 or nothing: no limit"]),
    "priority too high": (but(priority=10), ["priority:", "from -9 to 9"]),
    "priority too low": (but(priority=-10), ["priority:", "from -9 to 9"]),
    "unparsable size": (with_conditions(mem="10XB"), ["conditions.mem:", "10XB", "10GB"]),
    "empty": ("", ["empty", "allowed: one object"]),
    "broken": ('{"func": "x",\n  "args": [1, }', ["not JSON: line 2, column"]),
    "a list": (json.dumps([GOOD]), ["a list", "one object is wanted"]),
    "a string": ('"echo"', ["a string", "an object is wanted"]),
    "too large": (but(args=["x" * 1_100_000]), ["at most 1048576"]),
    "another colony": (but(colony="a b"), ["colony:", "A-Z, a-z, 0-9"]),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD.keys())
def test_a_bad_spec_is_refused_before_anybody_is_asked(
    alone: Cli, tmp_path: Path, text: str, says: list[str]
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    done = alone("process", "submit", "--spec", str(path))
    assert done.code == 2, done.err
    assert done.out == ""
    assert all(line.startswith("colonies: ") for line in done.err.splitlines())
    for word in [*says, "spec.json"]:
        assert word in done.err


def test_a_bad_spec_from_stdin_is_refused_as_well(alone: Cli) -> None:
    for name in ("unknown field", "broken", "empty", "too large"):
        text, says = BAD[name]
        done = alone("process", "submit", "--spec", "-", stdin=text)
        assert done.code == 2
        assert all(word in done.err for word in [*says, "standard input"])


def test_a_spec_file_that_is_not_there_is_refused(alone: Cli) -> None:
    done = alone("process", "submit", "--spec", "nosuch.json")
    assert done.code == 2
    allowed = "allowed: the path of a JSON or YAML file"
    assert done.err == f"colonies: nosuch.json: there is no such file; {allowed}\n"
    assert alone("process", "submit", "--spec", ".").code == 2


def test_a_good_spec_needs_a_colony(alone: Cli) -> None:
    assert alone("process", "submit", "--spec", "-", stdin=json.dumps(GOOD)).code == 5


def test_nothing_of_a_refused_spec_is_recorded(cli: Cli, tmp_path: Path) -> None:
    before = cli.last_sequence()
    for text in (
        BAD["unknown field"][0],
        BAD["broken"][0],
        but(colony="elsewhere"),
        with_conditions(dependencies=["other"], runtimetype="never-declared"),
    ):
        path = tmp_path / "spec.json"
        path.write_text(text)
        assert cli("process", "submit", "--spec", str(path)).code == 2
    assert cli.last_sequence() == before
