"""A small colony for fuzzing: keys that are always the same, and its first events, signed and stored.

Everything is made by code from fixed numbers, so a finding's file means the same on every machine.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, Literal

from ulid import ULID

from colonies import codec, subjects
from colonies.core.colony import Colony
from colonies.core.events import Approved, Event, Genesis, Role
from colonies.core.spec import Spec, queue_of
from colonies.history import History
from colonies.ledger import Stored
from colonies.nkeys import KeyPair

SECOND = 1_000_000_000
START = 1_750_000_000 * SECOND
ROLES: dict[str, Role] = {
    "olga": "owner",
    "ann": "user",
    "bob": "user",
    "w1": "worker",
    "w2": "worker",
    "eye": "observer",
    "orch": "service",
}


def key(name: str, kind: Literal["user", "account"] = "user") -> KeyPair:
    """Always the same key for a name."""
    return KeyPair._of(kind, hashlib.sha256(name.encode()).digest())


ACCOUNT = key("colony", "account")
KEYS = {name: key(name) for name in ROLES}
SPEC = Spec.parse(
    {"func": "resize", "conditions": {"runtimetype": "cli"}, "maxretries": 1, "maxwaittime": 60}
)
QUEUE = queue_of(SPEC.conditions, SPEC.priority)


def ulid(number: int) -> str:
    return str(ULID.from_int(number))


PROCESS = ulid(7)


def sealed(
    event: Event,
    author: str,
    *,
    entity: str = "",
    queue: str | None = None,
    number: int,
    prev: bytes | None = None,
    keypair: KeyPair | None = None,
) -> tuple[str, codec.Sealed]:
    """The event as its author signs it, and its subject."""
    subject = subjects.subject_of(event, entity, author, queue)
    keypair = keypair or KEYS[author]
    return subject, envelope(
        subject,
        keypair,
        author,
        type=event.type,
        data=codec.data_of(event),
        number=number,
        prev=prev,
    )


def envelope(
    subject: str,
    keypair: KeyPair,
    author: str,
    *,
    type: str,
    data: dict[str, Any],
    number: int,
    prev: bytes | None = None,
) -> codec.Sealed:
    return codec.seal(
        keypair,
        ACCOUNT.public,
        subject,
        id=ulid(number),
        type=type,
        time=START,
        author=author,
        prev=prev,
        data=data,
    )


def beginning() -> list[Stored]:
    """The first messages of the ledger: genesis, and everybody's approval."""
    genesis = Genesis("lab", "olga", KEYS["olga"].public, {}, 10.0)
    told: list[tuple[Event, str]] = [(genesis, "")]
    told += [(Approved(KEYS[name].public, role), name) for name, role in ROLES.items() if name != "olga"]
    stored = []
    for sequence, (event, entity) in enumerate(told, start=1):
        subject, signed = sealed(
            event, "olga", entity=entity, number=sequence, keypair=None if entity else ACCOUNT
        )
        stored.append(Stored(subject, sequence, START + sequence, signed.data))
    return stored


def history() -> History:
    """A fold over the beginning, its own to change."""
    found = History(Colony(ACCOUNT.public))
    for stored in beginning_kept():
        verdict = found.add(stored, trusted=True).verdict
        assert verdict.valid, verdict
    return found


@cache
def beginning_kept() -> tuple[Stored, ...]:
    return tuple(beginning())


@cache
def colony() -> Colony:
    """The colony after the beginning. Not to be changed."""
    return history().colony
