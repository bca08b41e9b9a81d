"""The life of a webhook, and which events it hears.

    added ──> changed* ──> removed ──> added ...

What is sent is taken from the ledger, so nothing of a delivery stands on it. Only owners say where a colony's
events go: they leave the colony there, and a service of the colony makes the requests, from its own network.
`judge` says whether an event of a webhook could be true where it stands; nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from colonies.core.events import (
    VALID,
    Record,
    Verdict,
    WebhookAdded,
    WebhookEvent,
    WebhookRemoved,
    denied,
    quarantined,
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as the ledger tells it. `added` is the sequence of its `added`, `added_at` (ns) that one's
    time; `since` is the sequence of what was said of it last, by `author`."""

    name: str
    url: str
    events: tuple[str, ...]
    service: str
    key: str
    secret: bytes
    func: str | None
    label: str | None
    author: str
    added: int
    added_at: int
    since: int

    def hears(self, type: str) -> bool:
        """Does a filter name events of this type? `func` and `label` are asked of the process."""
        kind = type.partition(".")[0]
        if (self.func is not None or self.label is not None) and kind != "process":
            return False
        return any(wanted in ("*", type, f"{kind}.*") for wanted in self.events)


def judge(webhooks: Mapping[str, Webhook], record: Record, event: WebhookEvent) -> Verdict:
    """Could this be true, with these webhooks before it? Never raises."""
    if record.role != "owner":
        return denied(f"only an owner says where events are sent, and {record.author} is a {record.role}")
    if isinstance(event, WebhookAdded):
        return quarantined("there is a webhook of this name") if record.entity in webhooks else VALID
    if record.entity not in webhooks:
        return quarantined("there is no webhook of this name")
    return VALID


def evolve(webhooks: dict[str, Webhook], record: Record, event: WebhookEvent) -> None:
    """Apply a valid event, in place."""
    if isinstance(event, WebhookRemoved):
        del webhooks[record.entity]
        return
    before = webhooks.get(record.entity)
    webhooks[record.entity] = Webhook(
        name=record.entity,
        url=event.url,
        events=tuple(event.events),
        service=event.service,
        key=event.key,
        secret=event.secret,
        func=event.func,
        label=event.label,
        author=record.author,
        added=before.added if before is not None else record.sequence,
        added_at=before.added_at if before is not None else record.time,
        since=record.sequence,
    )
