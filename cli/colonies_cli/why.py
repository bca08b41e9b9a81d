"""Reasons as `process why` and `workflow why` print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from colonies_cli import output
from colonies_cli.command import Here
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.reasons import Reason

_SHOWN = 6  # sequences in a row


def show(here: Here, reasons: Sequence[Reason]) -> None:
    """Print them: for people, as objects, or their codes only."""
    from colonies.reasons import reason_object

    if here.output == Output.json:
        for reason in reasons:
            output.json_line(reason_object(reason))
    elif here.output == Output.name:
        for code in dict.fromkeys(reason.code for reason in reasons):
            output.line(code)
    else:
        nodes = any(reason.node is not None for reason in reasons)
        header = ("NODE", "REASON", "SEQUENCES", "WHY") if nodes else ("REASON", "SEQUENCES", "WHY")
        output.table(header, (_row(reason, nodes) for reason in reasons))


def _row(reason: Reason, nodes: bool) -> list[object]:
    row: list[object] = [reason.code, _sequences(reason.sequences), reason.text]
    return [reason.node, *row] if nodes else row


def _sequences(found: Sequence[int]) -> str | None:
    """The first and the last of many."""
    found = sorted(set(found))
    if len(found) > _SHOWN:
        return f"{found[0]} ... {found[-1]}"
    return ", ".join(map(str, found)) or None
