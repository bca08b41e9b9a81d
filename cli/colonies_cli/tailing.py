"""What `ledger tail` prints: a line for each event, as it is read."""

from __future__ import annotations

from typing import Any

from colonies.feed import Told
from colonies.show_event import event_object
from colonies_cli import events, output
from colonies_cli.command import Here
from colonies_cli.output import Output

_WIDTHS = (8, 20, 50, 14, 7, 60)


def show_header(here: Here) -> None:
    if here.output == Output.table:
        output.line(output.spaced(events.HEADER, _WIDTHS))


def show(here: Here, told: Told) -> None:
    if here.output == Output.name:
        record = told.seen.record
        output.line(record.id if record is not None else str(told.seen.stored.sequence))
        return
    event: dict[str, Any] = event_object(told.seen, told.attempt)
    if here.output == Output.json:
        output.json_line(event)
    else:
        output.line(output.spaced(events.row(event, with_entity=True), _WIDTHS))
