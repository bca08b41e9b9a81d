"""What a view is: tables, a fold from judged events to rows, and an answer to questions about them.

The projector reads, verifies, judges and folds; a view only says which rows that makes. It does no I/O in
its fold, keeps nothing in memory that its rows depend on (a restarted projector starts with an empty one),
and writes the same rows however the ledger is cut into batches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from colonies.core.colony import Colony
from colonies.core.events import Record
from colonies.core.process import Process
from colonies.core.values import struct
from colonies.history import History, Judged
from colonies.ledger import Ledger
from colonies_projections.progress import NodeRow, WorkflowStep

DEFAULT_LIMIT = 50
MAX_LIMIT = 1_000

Write = tuple[str, Sequence[Sequence[Any]]]
"""A statement, and the rows of parameters to run it with."""

Row = Mapping[str, Any]


@struct
class Step:
    """A valid event of a process, and what it made of it; `before` is None if it is the first."""

    record: Record
    before: Process | None
    after: Process


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events in a row, each with its verdict, and step by step what they changed.

    `steps` are those of processes; `workflows` those of workflows, with how far they are, and `nodes` what
    changed of their nodes. `others` are the valid events that are not of processes. `history` is the fold as
    it is after the batch: of what a view's rows depend on, only what the events themselves say is the same
    however the ledger is cut.
    """

    judged: Sequence[Judged]
    steps: Sequence[Step] = ()
    workflows: Sequence[WorkflowStep] = ()
    nodes: Sequence[NodeRow] = ()
    others: Sequence[Record] = ()
    history: History | None = None

    def valid(self) -> Iterable[Record]:
        """The valid events, in order."""
        for judged in self.judged:
            if judged.record is not None and judged.verdict.valid:
                yield judged.record


@dataclass(frozen=True, slots=True)
class Filter:
    """What may be asked for: one of the values that are `allowed`, or any text. `read` makes of it what the
    view compares with, and raises ValueError with what would be right. `several`: also one or the other, with
    commas between; the view gets a tuple then."""

    allowed: Sequence[str] | None = None
    read: Callable[[str], Any] = str
    several: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that makes sense: only filters that the view has, with what they read.

    `sort` is one of the view's, `down` whether the largest come first; `after` is the key of the item after
    which to go on.
    """

    filters: Mapping[str, Any] = field(default_factory=dict)
    limit: int = DEFAULT_LIMIT
    sort: str = ""
    down: bool = True
    after: Sequence[Any] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Items as JSON objects of a bounded size. `keys` holds for each the key after which to go on, or nothing
    if this view has no pages. `more`: there are others behind them."""

    items: Sequence[dict[str, Any]]
    keys: Sequence[Sequence[Any]] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The views at one position, to answer from. `past`: it was asked for; the ledger goes on from there, and
    `colony` and `ledger` may be further."""

    position: int
    past: bool
    select: Callable[[str, Sequence[Any]], Awaitable[list[Row]]]
    colony: Colony
    ledger: Ledger


class Asking(Protocol):
    """What can be asked on `query.<name>`.

    `filters` and `sorts` say what may be asked for; the first of `sorts` is the usual one, `-` before it
    means the largest first.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    filters: ClassVar[Mapping[str, Filter]]
    sorts: ClassVar[Sequence[str]]


class View(Asking, Protocol):
    """One view. Its tables begin with its name.

    A changed `version` or `tables` makes every projector build its views anew.
    """

    tables: ClassVar[str]

    def fold(self, batch: Batch) -> Iterable[Write]:
        """What a batch changes, in the order in which it is to be written."""

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        """What was asked for."""
