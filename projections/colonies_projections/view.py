"""What a view is: tables, a fold from judged events to rows, and an answer to questions about them.

The projector reads, verifies, judges and folds; a view only says which rows that makes. It does no I/O in
its fold, keeps nothing in memory that its rows depend on (a restarted projector starts with an empty one),
and writes the same rows however the ledger is cut into batches.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from colonies.core.colony import Colony
from colonies.core.names import kind, shown
from colonies.core.process import Process
from colonies.core.workflow import Workflow
from colonies.errors import Invalid
from colonies.history import Judged
from colonies.ledger import Ledger
from colonies_projections.progress import NodeRow, Progress

DEFAULT_LIMIT = 50
MAX_LIMIT = 1_000
MAX_QUESTION_BYTES = 16 * 1024

Write = tuple[str, Sequence[Sequence[Any]]]
"""A statement, and the rows of parameters to run it with."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events in a row, each with its verdict, and what they left behind.

    `processes` are those that had a valid event in this batch, as they are after it; `workflows` those of
    which anything changed, with how far they are. `nodes` is what changed of their nodes, in order.
    """

    judged: list[Judged]
    processes: Mapping[str, Process]
    workflows: Mapping[str, tuple[Workflow, Progress]] = field(default_factory=dict)
    nodes: Sequence[NodeRow] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that makes sense: only filters that the view has, a limit from 1 to MAX_LIMIT."""

    filters: Mapping[str, str]
    limit: int = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The views at one position, to answer from. `colony` and `ledger` may be some events further."""

    position: int
    select: Callable[[str, Sequence[Any]], Awaitable[list[Mapping[str, Any]]]]
    colony: Colony
    ledger: Ledger


class View(Protocol):
    """One view. `name` names it in `query.<name>`; its tables begin with it.

    A changed `version` or `tables` makes every projector build its views anew. `filters` says what may be
    asked for: the values that are allowed, or None where any text is.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    tables: ClassVar[str]
    filters: ClassVar[Mapping[str, Sequence[str] | None]]

    def fold(self, batch: Batch) -> Iterable[Write]:
        """What a batch changes, in the order in which it is to be written."""

    async def answer(self, asked: Asked, at: Snapshot) -> list[dict[str, Any]]:
        """Items, newest first, as JSON objects of a bounded size."""


def read_question(view: View, data: bytes) -> Asked:
    """The question in a request. Raises Invalid, naming what is allowed."""
    if len(data) > MAX_QUESTION_BYTES:
        raise Invalid(f"the question has {len(data)} bytes; at most {MAX_QUESTION_BYTES} are allowed")
    try:
        said = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        raise Invalid('the question is not JSON; allowed: an object such as {"limit": 10}') from None
    if not isinstance(said, dict):
        raise Invalid(f'the question is {kind(said)}; allowed: an object such as {{"limit": 10}}')
    limit = said.pop("limit", None)
    if limit is None:
        limit = DEFAULT_LIMIT
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"limit: {shown(limit)}; allowed: a whole number from 1 to {MAX_LIMIT}")
    filters: dict[str, str] = {}
    for name, value in said.items():
        if name not in view.filters:
            raise Invalid(f"{shown(name)} is no filter; allowed: {', '.join((*view.filters, 'limit'))}")
        if value is not None:
            filters[name] = _filter(name, value, view.filters[name])
    return Asked(filters, limit)


def _filter(name: str, value: object, allowed: Sequence[str] | None) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{name}: {shown(value)} is {kind(value)}; allowed: a string")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise Invalid(f"{name}: {shown(value)} holds half a character; allowed: text that UTF-8 can write")
    if allowed is not None and value not in allowed:
        raise Invalid(f"{name}: {shown(value)} is not one; allowed: {', '.join(allowed)}")
    return value
