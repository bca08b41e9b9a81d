"""docs/limits.md says what the code does: each limit's number, and no limit without a row."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("colonies", "cli/colonies_cli", "projections/colonies_projections", "workers/colonies_workers")
ROW = re.compile(r"^\| (.+?) \| ([\d,.]+) \| (.+?) \| (.+?) \| `([\w.]+)` \|$", re.MULTILINE)
LIMIT = re.compile(r"MAX_[A-Z_]+|MIN_LEASE_S|[A-Z][A-Z_]*_MAX")


def rows() -> list[tuple[str, str, str]]:
    """(number, unit, constant) of each row."""
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    assert page.count("\n| ") == len(ROW.findall(page)) + 1, "a row that this test cannot read"
    return [(number, unit, constant) for _, number, unit, _, constant in ROW.findall(page)]


def limits() -> Iterator[str]:
    """The limits that modules define for themselves, in full: private ones are nobody else's business."""
    for package in PACKAGES:
        base = (ROOT / package).parent
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(base).with_suffix("").parts)
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                for target in targets:
                    if isinstance(target, ast.Name) and LIMIT.fullmatch(target.id):
                        yield f"{module}.{target.id}"


def test_each_number_on_the_page_is_that_of_the_code() -> None:
    found = rows()
    assert len(found) > 50
    for number, unit, constant in found:
        module, _, name = constant.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        assert Decimal(number.replace(",", "")) == Decimal(str(value)), constant
        for word in ("bytes", "chars", "seconds", "levels"):
            suffix = {"seconds": "_S", "chars": "_CHARS", "levels": "_LEVELS", "bytes": "_BYTES"}[word]
            if name.endswith(suffix):
                assert unit.startswith(word[:4]), f"{constant} is in {word}"


def test_each_limit_of_the_code_is_on_the_page() -> None:
    written = [constant for _, _, constant in rows()]
    assert len(written) == len(set(written))
    assert set(limits()) - set(written) == set()
