"""How a process of a workflow ended, and what a node that maps finds there.

Data, and the little that can be said of it alone; what follows from it is `colonies.core.dag`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from colonies.core.node import Node
from colonies.core.references import Reference, followed
from colonies.errors import Invalid

NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class End:
    """How one process of a workflow ended: `sequence` and `time` (ns) are those of the event that ended it.

    `output` is null where it is `stored`, and then `items` is the length of the list that is stored. `adds`
    are the nodes that it added; with `between`, its children wait for these.
    """

    process: str
    sequence: int
    time: int
    state: str
    worker: str | None = None
    output: Any = None
    stored: bool = False
    items: int | None = None
    adds: tuple[Node, ...] = ()
    between: bool = False


@dataclass(frozen=True, slots=True)
class Length:
    """A list that is not here."""

    parts: int


def list_of(end: End, reference: Reference) -> Any:
    """The list that a node maps over; of a stored one its length. Raises Invalid."""
    if not end.stored:
        return not_none(followed(end.output if end.state == "successful" else None, reference))
    if reference.path:
        raise Invalid(
            f"{reference}: the output of {reference.name} is too large for an event: map over all of it"
        )
    if end.items is None:
        raise Invalid(f"{reference} is no list")
    return Length(end.items)


def not_none(value: Any) -> Any:
    """The value; for null something that is no list either, and not None."""
    return value if value is not None else NOTHING
