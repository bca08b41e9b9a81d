"""Options that several commands have, and what is wrong with their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

LIMIT = 50
PAGE = 1_000  # items in one answer

Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=PAGE, help="At most N.")]
All = Annotated[bool, typer.Option("--all", help="All there are, however many.")]
Cursor = Annotated[
    str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where the list before ended.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only those submitted at this time or later, or age: 1h."),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only those submitted before this time, or age.")
]
Text = Annotated[str | None, typer.Option("--text", metavar="WORDS", help="Only those with these words.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept on the ledger.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="S", min=0, help="With --wait: at most S seconds.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Again at every change, until it is final.")]


def state(allowed: Sequence[str]) -> Any:
    """The option that takes one of these states; `listing.check_state` says no to others."""
    return typer.Option("--state", metavar="STATE", help=f"Only those in this state: {', '.join(allowed)}.")


def states(allowed: Sequence[str]) -> Any:
    """The option that takes one of these states or several."""
    which = f"Only those in this state: {', '.join(allowed)}; repeatable, or with commas."
    return typer.Option("--state", metavar="STATE", help=which)


def sort(allowed: str) -> Any:
    """The option for the order of a list."""
    return typer.Option("--sort", metavar="KEY", help=f"By {allowed}; - before it: the largest first.")


def check_timeout(wait: bool, timeout: float | None) -> None:
    """Raises Invalid: a limit without --wait, or one that no clock can keep."""
    if timeout is None:
        return
    if not wait:
        from colonies.errors import Invalid

        raise Invalid("--timeout: it limits how long --wait waits; give both")
    from colonies.client import checked_wait

    checked_wait(timeout)
