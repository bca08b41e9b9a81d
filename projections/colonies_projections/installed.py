"""Views that other packages bring: found by the entry point group `colonies.views`, checked, fenced in.

A view of somebody's own must not cost what everybody else has. One that cannot be loaded, or is none, is said
in the log and left out. One that fails later, at a batch, is left out from there on until its package says
another `version` or other `tables`; one that fails at a question fails that question.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

import structlog

from colonies.errors import ColoniesError, Unavailable
from colonies_projections.view import Asked, Batch, Filter, Page, Snapshot, View, Write

GROUP: Final = "colonies.views"
MAX_ERROR_CHARS: Final = 500

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
# Questions and tables that are no view's.
_OURS = ("projections", "rebuild", "logs", "webhooks", "projector", "folded", "broken")
_MADE = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"

_log = structlog.get_logger("colonies.projector")


class Guest:
    """A view of another package, in its fence: whatever it raises, it raises alone."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.name: str = view.name
        self.version: int = view.version
        self.tables: str = view.tables
        self.filters: Mapping[str, Filter] = view.filters
        self.sorts: Sequence[str] = view.sorts

    def fold(self, batch: Batch) -> Iterable[Write]:
        """May raise anything: whoever asks it knows that it is a guest."""
        return self._view.fold(batch)

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """Raises Unavailable for whatever is wrong with the view."""
        try:
            page = await self._view.answer(asked, at)
            if not isinstance(page, Page):
                raise TypeError(f"its answer is {type(page).__name__}; a Page is wanted")
        except ColoniesError:
            raise
        except Exception as error:
            _log.exception("a view has no answer", view=self.name)
            raise Unavailable(f"the view {self.name} failed: {said(error)}") from None
        return page


def said(error: BaseException) -> str:
    """An error of somebody else's code in one line."""
    return f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS].splitlines()[0]


def installed_views(ours: Sequence[Callable[[], View]]) -> list[Callable[[], View]]:
    """What makes each view that an installed package brings, by name. What is wrong is said in the log."""
    taken = {make().name for make in ours}
    found: list[Callable[[], View]] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            made = _checked(entry, taken)
        except (Exception, SystemExit) as error:
            package = entry.dist.name if entry.dist is not None else None
            _log.error("a view was left out", view=entry.name, package=package, reason=said(error))
            continue
        found.append(made)
        taken.add(entry.name)
    return found


def _checked(entry: EntryPoint, taken: set[str]) -> Callable[[], View]:
    """What makes this view. Raises anything."""
    make = entry.load()
    view = make()
    name = getattr(view, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _OURS:
        raise ValueError(f"its name is {name!r}; allowed: a-z, 0-9 and _, at most 32, none of {_OURS}")
    if name != entry.name:
        raise ValueError(f"its entry point is called {entry.name}, it calls itself {name}")
    clash = next((other for other in sorted(taken) if _within(name, other) or _within(other, name)), None)
    if clash is not None:
        raise ValueError(f"there is a view {clash}, whose tables would be taken for its own")
    for attribute, kind in (("version", int), ("tables", str), ("filters", Mapping), ("sorts", Sequence)):
        if not isinstance(getattr(view, attribute, None), kind):
            raise TypeError(f"its {attribute} is no {kind.__name__}")
    if not all(isinstance(filter_, Filter) for filter_ in view.filters.values()):
        raise TypeError("its filters are no Filter each")
    _check_tables(view)
    list(view.fold(Batch([])))
    return lambda: cast(View, Guest(make()))


def _within(name: str, other: str) -> bool:
    """Do its tables look like those of the other?"""
    return name == other or name.startswith(f"{other}_")


def _check_tables(view: Any) -> None:
    """Raises sqlite3.Error, or ValueError: it makes something that does not begin with its name."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(f"BEGIN; {view.tables}")
        if not db.in_transaction:
            raise ValueError("its tables end the transaction in which they are made")
        for (made,) in db.execute(_MADE):
            if not _within(made, view.name):
                raise ValueError(f"it makes {made}; all that it makes begins with {view.name}")
