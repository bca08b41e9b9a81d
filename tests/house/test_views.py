"""docs/views.md says what the views are: each one's filters, sorts and tables, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import VIEWS

PAGE = (Path(__file__).parents[2] / "docs" / "views.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def row(view: str, name: str) -> list[str]:
    """The words in code of a row of the view's table, without those in brackets."""
    found = re.search(rf"^\| {name} \| (.*) \|$", SECTIONS[view], re.MULTILINE)
    return re.findall(r"`([^`]+)`", re.sub(r"\([^()]*\)", "", found[1])) if found else []


def test_each_view_has_its_section() -> None:
    assert set(SECTIONS) == {make().name for make in VIEWS}


@pytest.mark.parametrize("view", [make() for make in VIEWS], ids=lambda view: view.name)
def test_the_filters_sorts_and_tables_of_a_view_are_on_the_page(view: Any) -> None:
    assert set(row(view.name, "filters")) == set(view.filters)
    assert row(view.name, "sorts") == list(view.sorts)
    tables = re.findall(r"CREATE (?:VIRTUAL )?TABLE (\w+)", view.tables)
    assert row(view.name, "tables") == tables
