"""What `ledger tail` prints: a line for each event that is asked for, from some point of the ledger on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from colonies import past
from colonies.core.colony import Colony
from colonies.errors import Invalid
from colonies.feed import Told, tell
from colonies.ledger import Ledger
from colonies.listening import Wanted
from colonies.session import Session
from colonies.show_event import cloud_event, event_object
from colonies_cli import events, ids, output
from colonies_cli.command import Here
from colonies_cli.output import Output

LAST = 20
WIDER = 8
NOUNS: tuple[ids.Noun, ...] = ("process", "workflow")

_WIDTHS = (8, 20, 50, 14, 7, 60)

Printer = Callable[[Told, Colony], None]


def wanted(filters: list[str]) -> Wanted:
    """What --filter asks for, ids whole. Raises Invalid."""
    try:
        return Wanted.parse(filters)
    except Invalid as error:
        raise Invalid(f"--filter: {error}") from None


def check(filters: list[str]) -> None:
    """Raises Invalid: there are no such filters. Ids may be beginnings."""
    given = [text.partition("=") for text in filters]
    for name, equals, value in given:
        if equals and name in NOUNS:
            ids.check(value, f"--filter: {name}")
    wanted([text for text, (name, _, _) in zip(filters, given, strict=True) if name not in NOUNS])


def printer(here: Here, cloudevents: bool) -> Printer:
    """What prints an event, as the options say. Raises Invalid."""
    if cloudevents and here.output != Output.json:
        raise Invalid("--cloudevents: they are JSON; give -o json as well")

    def show(told: Told, colony: Colony) -> None:
        record = told.seen.record
        if cloudevents:
            output.json_line(cloud_event(told.seen, colony))
        elif here.output == Output.json:
            output.json_line(event_object(told.seen, told.attempt))
        elif here.output == Output.name:
            output.line(record.id if record is not None else str(told.seen.stored.sequence))
        else:
            event: dict[str, Any] = event_object(told.seen, told.attempt)
            output.line(output.spaced(events.row(event, with_entity=True), _WIDTHS))

    return show


async def _wanted(ledger: Ledger, filters: list[str]) -> Wanted:
    """What --filter asks for, where ids may be beginnings. Raises as `ids.whole`."""
    whole = []
    for text in filters:
        name, _, value = text.partition("=")
        for noun in NOUNS:
            if name == noun and value:
                text = f"{noun}={await ids.whole(ledger, noun, value, f'--filter: {noun}')}"
        whole.append(text)
    return wanted(whole)


def begin(start: str | None, last: int | None) -> str | int:
    """Where to begin: a moment, or so many events before the end. Raises Invalid."""
    if start is not None and last is not None:
        raise Invalid("-n and --from: both say where to begin; allowed: one of them")
    return start if start is not None else LAST if last is None else last


async def tail(here: Here, start: str | int, filters: list[str], follow: bool, show: Printer) -> None:
    """Print what is there, then, to `follow`, what comes, until cancelled.

    Raises:
        Invalid: the ledger has no such `start`, a moment or a number of events before its end. Refused: this
        member was revoked meanwhile. What `ids.whole` does.
    """
    async with here.session() as session:
        wanted = await _wanted(session.ledger, filters)
        last = await session.ledger.last_sequence()
        after = await _before(session.ledger, start) if isinstance(start, str) else last
        if here.output == Output.table:
            output.line(output.spaced(events.HEADER, _WIDTHS))
        if isinstance(start, int):
            for told in await _last(session, last, wanted, start):
                show(told, session.colony)
            if not follow:
                return
        async with aclosing(tell(session, after, wanted=wanted.may_be, live=follow)) as feed:
            async for told in feed:
                if wanted.is_(told):
                    show(told, session.colony)


async def _before(ledger: Ledger, start: str) -> int:
    """The last sequence before the first that --from asks for. One that comes next may be waited for."""
    last = await ledger.last_sequence()
    if start.isascii() and start.isdigit():
        if int(start) == last + 1:
            return last
        return (await past.moment(ledger, start, "--from")).sequence - 1
    time = await past.time_of(ledger, start, "--from")
    if time > await ledger.now():
        raise Invalid(f"--from: {start} is in the future; -f waits for what comes")
    return await past.last_before(ledger, time - 1, last)


async def _last(session: Session, last: int, wanted: Wanted, number: int) -> list[Told]:
    """The last events that are wanted, so many, found by looking back further and further."""
    span = number
    while number:
        after = max(0, last - span)
        found = [
            told
            async for told in tell(session, after, wanted=wanted.may_be, live=False)
            if told.seen.stored.sequence <= last and wanted.is_(told)
        ]
        if len(found) >= number or after == 0:
            return found[-number:]
        span *= WIDER
    return []
