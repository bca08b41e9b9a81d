"""Every NATS subject, stream and header of Colonies, built and parsed here and nowhere else.

The grammar is DESIGN.md section 3. A subject that does not follow it parses to None, never to an error:
anybody may publish junk within their permissions, and readers go on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from colonies.core.events import Event
from colonies.core.values import struct

LEDGER = "LEDGER"
HEARTBEATS = "HEARTBEATS"
LOGS = "LOGS"
TIMERS = "TIMERS"
VALUES_BUCKET = "values"
VALUES = f"OBJ_{VALUES_BUCKET}"

EVERYTHING = "ledger.>"
ALL_LOGS = "log.>"
TRUST = ("ledger.colony.>", "ledger.member.>")
QUEUES = "ledger.queue.>"
WORKFLOWS = "ledger.workflow."
CRONS = "ledger.cron.>"
WORKERS = "ledger.worker.>"
GENERATORS_ADDED = "ledger.generator.*.added.*"
WEBHOOKS = "ledger.webhook.>"
PROCESSES = "ledger.process.>"

EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"
STORED_SUBJECT = "Nats-Subject"
STORED_SEQUENCE = "Nats-Sequence"
STORED_TIME = "Nats-Time-Stamp"
SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"
SCHEDULE_TTL = "Nats-Schedule-TTL"

_QUEUED = {"queued", "requeued", "released"}
_ENTITY = r"([A-Za-z0-9_-]{1,64})"
_EVENT = r"([a-z]{1,32})"
_QUEUE = r"([a-z2-7]{26})"
_AUTHOR = r"([a-z0-9][a-z0-9_-]{0,31})"
_OF_COLONY = re.compile(rf"ledger\.colony\.{_EVENT}\.{_AUTHOR}")
_OFFER = re.compile(rf"ledger\.process\.{_ENTITY}\.queued\.{_QUEUE}\.{_AUTHOR}")
_OF_ENTITY = re.compile(rf"ledger\.([a-z]+)\.{_ENTITY}\.{_EVENT}\.{_AUTHOR}")
_KINDS = frozenset(
    {"process", "workflow", "member", "queue", "worker", "limit", "cron", "generator", "webhook"}
)


@struct
class Subject:
    """A ledger subject taken apart. `queue` is set for offers only; `entity` is "" for the colony."""

    kind: str
    entity: str
    event: str
    author: str
    queue: str | None = None

    def __str__(self) -> str:
        entity = f".{self.entity}" if self.entity else ""
        queue = f".{self.queue}" if self.queue else ""
        return f"ledger.{self.kind}{entity}.{self.event}{queue}.{self.author}"


def subject_of(event: Event, entity: str, author: str, queue: str | None = None) -> str:
    """The subject that this event is published on. Offers of both types are `queued`."""
    kind, name = event.type.split(".")
    if name in _QUEUED:
        return f"ledger.process.{entity}.queued.{queue}.{author}"
    return str(Subject(kind, entity, name, author))


def matches(event: Event, subject: Subject) -> bool:
    """Is this the kind of event that the subject says?"""
    kind, name = event.type.split(".")
    return kind == subject.kind and event_of(name) == subject.event


def event_of(name: str) -> str:
    """How a subject names an event of this name: offers are all `queued`."""
    return "queued" if name in _QUEUED else name


def types_of(subject: Subject) -> tuple[str, ...]:
    """The types of events that may stand on a subject."""
    names = sorted(_QUEUED) if subject.event == "queued" and subject.kind == "process" else [subject.event]
    return tuple(f"{subject.kind}.{name}" for name in names)


@lru_cache(maxsize=1_024)
def parse(subject: str) -> Subject | None:
    """A ledger subject taken apart, or None when it is not of the grammar. Each is asked for again soon."""
    if found := _OF_ENTITY.fullmatch(subject):
        kind, entity, event, author = found.groups()
        if kind in _KINDS and (kind, event) != ("process", "queued"):
            return Subject(kind, entity, event, author)
    elif found := _OFFER.fullmatch(subject):
        entity, queue, author = found.groups()
        return Subject("process", entity, "queued", author, queue)
    elif found := _OF_COLONY.fullmatch(subject):
        event, author = found.groups()
        return Subject("colony", "", event, author)
    return None


@lru_cache(maxsize=4_096)
def guard_of(kind: str, entity: str) -> str:
    """The filter under which all events of an entity stand: identical for all of its writers."""
    return f"ledger.{kind}.{entity}.>" if entity else f"ledger.{kind}.>"


def guard_of_subject(subject: str) -> str:
    """The guard of the entity that this well-formed ledger subject belongs to."""
    parts = subject.split(".", 3)
    return "ledger.colony.>" if parts[1] == "colony" else f"ledger.{parts[1]}.{parts[2]}.>"


def guard_if_any(subject: str) -> str | None:
    """The guard of a stored subject; None for junk that belongs to no entity."""
    tokens = subject.split(".", 3)
    whole = len(tokens) == 4 or (len(tokens) == 3 and tokens[1] == "colony")
    return guard_of_subject(subject) if whole else None


@lru_cache(maxsize=4_096)
def matcher(pattern: str) -> Callable[[str], object]:
    """What tells whether a subject matches a NATS pattern."""
    tokens = {"*": "[^.]+", ">": ".+"}
    return re.compile(r"\.".join(tokens.get(t, re.escape(t)) for t in pattern.split("."))).fullmatch


def feed_of(pattern: str) -> str:
    """Where the broker republishes what it stores under this ledger subject or pattern."""
    return "feed" + pattern.removeprefix("ledger")


def process_of_feed(subject: str) -> str:
    """The process id in `feed.process.<id>....`; cheap, for dispatch only."""
    return subject.split(".", 3)[2]


def says(subject: str, event: str) -> bool:
    """Is this event the one of a well-formed ledger subject? Cheap, for dispatch only."""
    return subject.split(".", 4)[3] == event


def author_of(subject: str) -> str:
    """The last token of a well-formed ledger subject; cheap, for comparing only."""
    return subject[subject.rindex(".") + 1 :]


def is_limit(subject: str) -> bool:
    """Is it about a key of limits? Cheap, for dispatch only."""
    return subject.startswith("ledger.limit.")


def offers_of(queue: str) -> str:
    """The filter of a queue's consumer."""
    return f"ledger.process.*.queued.{queue}.*"


def process_of(subject: str) -> str:
    """The process id in a `ledger.process.<id>....` subject."""
    return subject.split(".", 3)[2]


def process_events(process: str) -> str:
    """Feed pattern of a process's events other than its offers."""
    return f"feed.process.{process}.*.*"


ALL_PROCESS_EVENTS = "feed.process.*.*.*"
ALL_OFFERS = "feed.process.*.queued.*.*"
ALL_CANCELS = "feed.process.*.cancelled.*"


def heartbeat(member: str, instance: str) -> str:
    return f"heartbeat.{member}.{instance}"


def log(process: str, member: str) -> str:
    return f"log.{process}.{member}"


def logs_of(process: str) -> str:
    return f"log.{process}.*"


def timer(process: str) -> str:
    """Where a process's schedule stands in TIMERS; the last one counts."""
    return f"timers.at.{process}"


def timer_due(process: str) -> str:
    """Where the broker publishes when a process's schedule is due."""
    return f"timers.due.{process}"


def value_chunks(name: str) -> str:
    """Where the chunks of a stored value stand (`name` is `<author>.<nuid>`)."""
    return f"$O.{VALUES_BUCKET}.C.{name}"


def value_meta(encoded_name: str) -> str:
    return f"$O.{VALUES_BUCKET}.M.{encoded_name}"


def webhooks_at(service: str) -> str:
    """Where the service that sends to webhooks, the member of this name, is asked about them."""
    return f"query.webhooks.{service}"
