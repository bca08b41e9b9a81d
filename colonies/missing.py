"""What to say where nobody submitted a process or a workflow of some id: was another thing meant?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from colonies import subjects
from colonies.core.states import is_id
from colonies.errors import NotFound

if TYPE_CHECKING:
    from colonies.session import Session


async def not_found(session: Session, noun: Literal["process", "workflow"], id: str) -> NotFound:
    """The error for this id, which is none of a process (a workflow). Raises Unavailable."""
    text = f"there is no {noun} {id} in the colony {session.colony.name}"
    if not is_id(id):
        return NotFound(f"{text}; the whole id is needed here: all of its 26 or 32 characters")
    other: Literal["process", "workflow"] = "workflow" if noun == "process" else "process"
    if await session.ledger.read(subjects.guard_of(other, id)):
        return NotFound(f"{text}: that is a {other}; `colonies {other} get {id}` shows it")
    return NotFound(text)
