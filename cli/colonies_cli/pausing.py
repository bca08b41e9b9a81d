"""What pausing, draining and resuming have in common: the owner who says it, the reason, how it is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from colonies_cli import output
from colonies_cli.command import Here

if TYPE_CHECKING:
    from colonies.client import Client


def checked(reason: str) -> str:
    """A reason that an event can hold. Raises Invalid."""
    from colonies.core.events import checked_reason

    return checked_reason(reason, "--reason")


@asynccontextmanager
async def owner_of(here: Here) -> AsyncIterator[Client]:
    """A client of an owner: the context's own credential, or the one that lies with its owner's keys.

    Raises Refused where there is none.
    """
    from colonies.client import Client
    from colonies.connection import session_of
    from colonies_cli import owner

    context = owner.context_of(here)
    async with session_of(context.url, owner.owner_credential(context)) as session:
        yield Client(session)


def said(here: Here, key: str, id: str, done: str, what: str, holds: bool) -> None:
    """Print that `done` holds of something now, or no longer."""
    if here.output == output.Output.json:
        output.json_line({key: id, done: holds})
    else:
        output.line(
            id
            if here.output == output.Output.name
            else f"{what} {id} is {'' if holds else 'no longer '}{done}"
        )


def by(found: dict[str, Any]) -> str:
    """Who paused or drained something, and why."""
    return f"by {found['by']}{': ' if found['reason'] else ''}{found['reason']}"
