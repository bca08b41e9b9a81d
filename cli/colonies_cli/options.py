"""Options that several commands have, and what is wrong with their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1_000, help="At most N.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept on the ledger.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="S", min=0, help="With --wait: at most S seconds.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Again at every change, until it is final.")]


def state(allowed: Sequence[str]) -> Any:
    """The option that takes one of these states; `listing.check_state` says no to others."""
    return typer.Option("--state", metavar="STATE", help=f"Only those in this state: {', '.join(allowed)}.")


def check_timeout(wait: bool, timeout: float | None) -> None:
    """Raises Invalid: a limit without --wait, or one that no clock can keep."""
    if timeout is None:
        return
    if not wait:
        from colonies.errors import Invalid

        raise Invalid("--timeout: it limits how long --wait waits; give both")
    from colonies.client import checked_wait

    checked_wait(timeout)
