"""What a client hears of its colony: events, those that it asks for, live or from a point of the past on.

Each is judged, and by default only what counts is told. Nothing is lost and nothing comes twice to whoever
goes on from the sequence of the last event that it has dealt with.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from colonies import past, subjects
from colonies.core.colony import Colony
from colonies.core.events import Event
from colonies.core.names import member_name, name, shown
from colonies.core.states import ULID, is_id
from colonies.errors import Invalid
from colonies.feed import Told, tell
from colonies.history import Judged
from colonies.ledger import Ledger, Stored
from colonies.show_event import cloud_event, event_data, what

if TYPE_CHECKING:
    from colonies.client import Client

Several = str | Collection[str] | None
"""One, or any of several; None where it does not matter."""

VERDICTS = ("valid", "void", "quarantined")
FILTERS = ("process", "workflow", "author", "verdict")


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event of the ledger. `sequence` is its place, `time` the broker's, in UTC.

    `type`: such as `process.completed`; `kind` and `entity` are what it is about, such as `process` and its
    id ("" for the colony). `author` is the member that signed it, None if nobody's signature fits. `verdict`:
    `valid`, `void` or `quarantined`, and by which `rule`, unless valid. `attempt`: the number of the attempt
    that it speaks of; `workflow`: the one that it is about, or that its process is a node of.
    """

    sequence: int
    time: datetime
    type: str
    kind: str
    entity: str
    author: str | None
    verdict: Literal["valid", "void", "quarantined"]
    rule: str
    attempt: int | None
    workflow: str | None
    seen: Judged = field(repr=False, compare=False)
    _colony: Colony = field(repr=False, compare=False)

    @property
    def data(self) -> dict[str, Any]:
        """The event's own fields, as JSON; {} where no member signed. See `show_event.event_data`."""
        return event_data(self.seen)

    def cloud_event(self) -> dict[str, Any]:
        """As a CloudEvent 1.0, for JSON. See `show_event.cloud_event`."""
        return cloud_event(self.seen, self._colony)


class Wanted:
    """Which events are wanted. Raises Invalid: there is no such type or verdict, or that is no name."""

    def __init__(
        self,
        *,
        type: Several = None,
        process: Several = None,
        workflow: Several = None,
        author: Several = None,
        verdict: Several = None,
    ) -> None:
        self._types = _types(type)
        self._processes = _all(process, "process", _id)
        self._workflows = _all(workflow, "workflow", _id)
        self._authors = _all(author, "author", member_name)
        self._verdicts = _all(verdict, "verdict", _verdict)
        self._wire = {_on_wire(one) for one in self._types} if self._types is not None else None

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Wanted:
        """What filters of the forms TYPE and NAME=VALUE ask for; NAME is one of FILTERS. Raises Invalid."""
        given: dict[str, list[str]] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                given.setdefault("type", []).append(text)
            elif name in FILTERS:
                given.setdefault(name, []).append(value)
            else:
                raise Invalid(
                    f"{shown(text)}: there is no filter {shown(name)}; allowed: a type of event, such as "
                    f"process.failed, a kind, such as process, or {', '.join(f'{one}=' for one in FILTERS)}"
                )
        return cls(**given)

    def may_be(self, stored: Stored) -> bool:
        """Can this message be wanted, by its subject?"""
        subject = subjects.parse(stored.subject)
        if subject is None:
            named = (self._types, self._processes, self._workflows, self._authors)
            return all(values is None for values in named)
        kind, entity = subject.kind, subject.entity
        if self._wire is not None and (kind, subject.event) not in self._wire:
            return False
        if self._authors is not None and subject.author not in self._authors:
            return False
        if self._processes is not None and (kind != "process" or entity not in self._processes):
            return False
        if self._workflows is None or (kind == "workflow" and entity in self._workflows):
            return True
        return kind == "process" and not ULID.match(entity)  # perhaps a node

    def is_(self, told: Told) -> bool:
        """Is this message wanted, as it was judged? It may be, by its subject."""
        author = told.seen.record.author if told.seen.record is not None else None
        return (
            (self._types is None or what(told.seen)[0] in self._types)
            and (self._authors is None or author in self._authors)
            and (self._workflows is None or told.workflow in self._workflows)
            and (self._verdicts is None or told.seen.verdict.kind in self._verdicts)
        )


class FeedClient:
    """What a client does to hear of its colony."""

    def feed(
        self,
        after: int | datetime | None = None,
        *,
        type: Several = None,
        process: Several = None,
        workflow: Several = None,
        author: Several = None,
        verdict: Several = "valid",
        live: bool = True,
    ) -> AsyncGenerator[FeedEvent, None]:
        """The events of the colony, in order: those after a sequence or a time, then, if `live`, what comes.

        `after` None: from now on, that is from when the first one is asked for. Each filter takes one value
        or several, and an event has to fit all filters. A `type` is one as `process.failed`, or a kind of
        thing, as `process`; a `workflow` is its own events and those of its nodes. `verdict` None: also what
        does not count.

        It waits while the broker is away. Raises:
            Invalid: a filter makes no sense, or the ledger does not reach as far as `after`.
            Refused: this member was revoked meanwhile. Unavailable: the client was closed.
        """
        wanted = Wanted(type=type, process=process, workflow=workflow, author=author, verdict=verdict)
        return heard(cast("Client", self), after, wanted, live=live)


async def heard(
    client: Client, after: int | datetime | None, wanted: Wanted, *, live: bool
) -> AsyncGenerator[FeedEvent, None]:
    """The events that are wanted. See `FeedClient.feed`."""
    session = client.session
    if not isinstance(after, int | datetime | None):
        raise Invalid(f"after: {shown(after)}; allowed: a sequence, a datetime, or None for from now on")
    start = await position(session.ledger, after) if isinstance(after, datetime) else after
    async with aclosing(tell(session, start, wanted=wanted.may_be, live=live)) as feed:
        async for told in feed:
            if wanted.is_(told):
                yield feed_event(told, session.colony)


async def position(ledger: Ledger, after: datetime) -> int:
    """The sequence of the last event at or before a time; 0 if there is none. Raises Invalid."""
    if after.utcoffset() is None:
        raise Invalid(f"after: {after} has no time zone; give it one, such as datetime.now(UTC)")
    time, last = past.ns_of(after), await ledger.last_sequence()
    if time > await ledger.now():
        raise Invalid(f"after: {after} is in the future; None is from now on")
    return await past.last_before(ledger, time, last)


def feed_event(told: Told, colony: Colony) -> FeedEvent:
    seen = told.seen
    type, kind, entity = what(seen)
    return FeedEvent(
        sequence=seen.stored.sequence,
        time=datetime.fromtimestamp(seen.stored.time // 1_000_000_000, UTC).replace(
            microsecond=seen.stored.time // 1_000 % 1_000_000
        ),
        type=type,
        kind=kind,
        entity=entity,
        author=seen.record.author if seen.record is not None else None,
        verdict=seen.verdict.kind,
        rule=seen.verdict.rule,
        attempt=told.attempt,
        workflow=told.workflow,
        seen=seen,
        _colony=colony,
    )


@cache
def types() -> tuple[str, ...]:
    """The type of every event that there is."""
    return tuple(sorted(one.__dataclass_fields__["type"].default for one in get_args(Event)))


@cache
def kinds() -> tuple[str, ...]:
    """What events are about."""
    return tuple(sorted({one.partition(".")[0] for one in types()}))


def _types(given: Several) -> frozenset[str] | None:
    asked = _all(given, "type", _type)
    if asked is None:
        return None
    return frozenset(one for one in types() if one in asked or one.partition(".")[0] in asked)


def _type(given: object, where: str) -> str:
    if isinstance(given, str) and given in (*types(), *kinds()):
        return given
    kind = given.partition(".")[0] if isinstance(given, str) else ""
    allowed = [one for one in types() if one.startswith(f"{kind}.")]
    raise Invalid(
        f"{where}: {shown(given)} is no type of event; allowed: "
        + (", ".join((kind, *allowed)) if allowed else f"{', '.join(kinds())}, or one such as process.failed")
    )


def _id(given: object, where: str) -> str:
    id = name(given, where)
    if not is_id(id):
        raise Invalid(f"{where}: {shown(id)} is no whole id; allowed: all of its 26 or 32 characters")
    return id


def _verdict(given: object, where: str) -> str:
    if isinstance(given, str) and given in VERDICTS:
        return given
    raise Invalid(f"{where}: {shown(given)} is no verdict; allowed: {', '.join(VERDICTS)}")


def _all(given: object, where: str, check: Callable[[Any, str], str]) -> frozenset[str] | None:
    if given is None:
        return None
    values = list(given) if isinstance(given, Collection) and not isinstance(given, str) else [given]
    if not values:
        raise Invalid(f"{where}: none is given, so nothing would ever fit; leave it out for all")
    return frozenset(check(value, where) for value in values)


def _on_wire(type: str) -> tuple[str, str]:
    """The kind and event that the subject of an event of this type names."""
    kind, _, event = type.partition(".")
    return kind, subjects.event_of(event)
