"""What the command prints as JSON is JSON, whatever a function returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from colonies_cli.output import json_text

from tests.cli.conftest import Cli
from tests.cli.test_worker import running

ODD = """\
import colonies

worker = colonies.Worker("odd")


@worker.function
def measure() -> dict[str, object]:
    return {"loss": float("inf"), "rate": float("nan"), "least": [float("-inf")], "seen": {1}, "raw": b"abc"}
"""


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_lacks_are_null_everywhere(owner: Cli, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    wanted = {"loss": None, "rate": None, "least": [None], "seen": [1], "raw": "abc"}
    with running(owner, "odd:worker", "--name", "odd1", cwd=tmp_path):
        assert strict(cli.ok("process", "run", "measure", "--runtimetype", "odd").out) == wanted
        spec = json.dumps({"func": "measure", "conditions": {"runtimetype": "odd"}})
        submit = ("process", "submit", "--spec", "-", "--wait")
        assert strict(cli.ok(*submit, stdin=spec).out.splitlines()[-1]) == wanted
        shown = strict(cli.ok(*submit, "-o", "json", stdin=spec).out)
        assert shown["output"] == wanted
        assert strict(cli.ok("process", "get", shown["id"], "-o", "json").out)["output"] == wanted


@pytest.mark.parametrize(
    ("value", "text"), [([float("nan")], "[null]"), (b"\xff", '"_w=="'), ({"a": 1.5}, '{"a":1.5}')]
)
def test_any_value_of_an_event_is_strict_json(value: Any, text: str) -> None:
    assert json_text(value) == text
