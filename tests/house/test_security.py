"""The security page, its table of attacks and the tests of tests/hostile say the same."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import get_args

from colonies.core.events import Event
from colonies.roles import ROLES
from tests.hostile import granted, rows

ROOT = Path(__file__).parents[2]
HOSTILE = ROOT / "tests" / "hostile"


def rows_of_tests() -> Counter[str]:
    """How many tests bear the name of each row."""
    found: Counter[str] = Counter()
    for path in HOSTILE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_"):
                names = [d for d in node.decorator_list if isinstance(d, ast.Call) and _name(d) == "row"]
                assert len(names) == 1, f"{path.name}: {node.name} is the test of {len(names)} rows"
                (argument,) = names[0].args
                assert isinstance(argument, ast.Constant)
                found[argument.value] += 1
    return found


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def test_every_attack_has_one_test_and_every_test_its_attack() -> None:
    assert rows_of_tests() == Counter(row.id for row in rows.ROWS)
    assert len(rows.ROWS) > 50


def test_the_table_on_the_security_page_is_that_of_the_tests() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    assert rows.table() in page, "run: python -m tests.hostile.rows, and put it into docs/security.md"


def test_every_event_and_every_role_is_in_the_table_of_what_is_granted() -> None:
    kinds = {kind.__dataclass_fields__["type"].default for kind in get_args(Event)}
    assert kinds <= granted.EVENTS.keys()
    assert set(granted.LETTERS.values()) == ROLES.keys()
    assert "".join(granted.LETTERS) == granted.ALL


def test_every_grant_is_probed() -> None:
    """A role that is given one subject more needs a line in the table of what is granted."""
    for letter, name in granted.LETTERS.items():
        mine = [s for s, may in granted.everything("me1").items() if letter in may]
        heard = [s.replace("{me}", "_INBOX_K") for s, may in granted.LISTEN.items() if letter in may]
        role = ROLES[name]
        for patterns, probes in ((role.publish, mine), (role.subscribe, heard)):
            for pattern in patterns:
                pattern = pattern.replace("{{name()}}", "me1").replace("{{subject()}}", "K")
                assert any(_covers(pattern, probe) for probe in probes), f"{name}: {pattern} is not probed"


def _covers(pattern: str, subject: str) -> bool:
    """Whether a NATS pattern takes in a subject, or a narrower pattern."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given) >= len(wanted) and _covers(
            ".".join(wanted[:-1]), ".".join(given[: len(wanted) - 1])
        )
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))
