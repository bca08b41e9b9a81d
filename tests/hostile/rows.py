"""The attacks, one row each: what is tried, with which role, which fence stops it, and what one sees.

The table in docs/security.md is made of these (`python -m tests.hostile.rows`), and each has exactly one
test, which bears its name: `@row("takeover")`. tests/house/test_security.py holds the three together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Row:
    """`fence`: "broker" (it refuses), "readers" (they quarantine), "both", or "work" (harm is made good)."""

    id: str
    attack: str
    role: str
    fence: str
    seen: str


def row(id: str) -> Callable[[Test], Test]:
    """This test is that of the row."""
    assert any(known.id == id for known in ROWS), f"there is no row {id}"
    return lambda test: test


QUARANTINED = "quarantined, with the author's name"
DAMAGED = "`damaged`: nobody's word"
REFUSED = "a refusal to the attacker; nothing is stored"

BROKER = (
    Row(
        "another-name",
        "Say any event in another's name, or one that the role may not say",
        "each",
        "broker",
        REFUSED,
    ),
    Row(
        "stream-orders",
        "Make, change, delete, purge, copy or restore a stream; delete a message",
        "each",
        "broker",
        REFUSED,
    ),
    Row(
        "consumer-orders",
        "Make, change, pause, reset or delete a consumer",
        "each but service",
        "broker",
        REFUSED,
    ),
    Row(
        "account-orders",
        "Ask about or change the account, the cluster, the system",
        "each",
        "broker",
        REFUSED,
    ),
    Row("feed-publish", "Publish on the feed", "each", "broker", REFUSED),
    Row(
        "inbox-listen",
        "Listen to another's inbox, to the ledger's subjects, to everything",
        "each",
        "broker",
        REFUSED,
    ),
    Row("inbox-write", "Publish into another's inbox", "each", "broker", REFUSED),
    Row("note-name", "Heartbeats, logs and stored values in another's name", "each", "broker", REFUSED),
    Row("timers-write", "Set, move or erase timers", "each but service", "broker", REFUSED),
    Row(
        "answer-orders",
        "Have the broker's answer to a read taken for an order to a stream or consumer",
        "each",
        "broker",
        "nothing: it ends where nobody listens",
    ),
    Row("timer-target", "A timer that publishes on the ledger or the feed", "service", "broker", REFUSED),
    Row(
        "bad-token",
        "Log in with the token of another colony, or an expired one",
        "outsider",
        "broker",
        "a refused login",
    ),
)

ROWS: tuple[Row, ...] = BROKER
