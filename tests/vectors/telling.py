"""A ledger told event by event with fixed keys, ids and times, each message with the verdict it must get."""

from __future__ import annotations

import hashlib
from typing import Any

from ulid import ULID

from colonies import codec, subjects
from colonies.core import colony as colonies_
from colonies.core.colony import Colony
from colonies.core.events import Event
from colonies.core.process import Process
from colonies.history import History
from colonies.ledger import Stored
from colonies.nkeys import KeyPair, Kind

SECOND = 1_000_000_000
NO_EVENT = "it is not an event"  # what follows it is in the words of libraries
START = 1_760_000_000 * SECOND
ROLES = {
    "olga": "owner",
    "ole": "owner",
    "ann": "user",
    "bob": "user",
    "w1": "worker",
    "w2": "worker",
    "eye": "observer",
    "orch": "service",
}


def keypair(name: str, kind: Kind = "user") -> KeyPair:
    """The key of that name: its raw seed is the SHA-256 of `colonies vectors: <name>`."""
    return KeyPair._of(kind, hashlib.sha256(f"colonies vectors: {name}".encode()).digest())


ACCOUNT = keypair("account", "account")
COLONY = ACCOUNT.public


def ulid(number: int) -> str:
    """An id with the time of START and this number in the place of randomness."""
    return str(ULID.from_int(START // 1_000_000 << 80 | number))


class Teller:
    """Writes a ledger: `say` what is well made, `put` what is not. `rows` is what comes out."""

    def __init__(self) -> None:
        self.history = History(Colony(COLONY))
        self.keys = {name: keypair(name) for name in ROLES}
        self.rows: list[dict[str, Any]] = []
        self.now = START
        self.ids = 0

    def new_id(self) -> str:
        self.ids += 1
        return ulid(self.ids)

    def process(self, id: str) -> Process:
        return self.history.processes[id]

    def say(
        self,
        author: str,
        event: Event,
        entity: str = "",
        rule: str = "",
        *,
        after_s: float = 1.0,
        queue: str | None = None,
        subject: str | None = None,
        key: KeyPair | None = None,
        **envelope: Any,
    ) -> str:
        """Store an event that is made as it should be, but for what is given; its verdict has this rule.

        `envelope` may give `id`, `prev`, `type` and `data`. Returns the event's id.
        """
        self.now += int(after_s * SECOND)
        where = subject or subjects.subject_of(event, entity, author, queue)
        made = {
            "id": self.new_id(),
            "type": event.type,
            "time": self.now,
            "author": author,
            "prev": self._prev(event, entity),
            "data": codec.data_of(event),
        } | envelope
        sealed = codec.seal(key or self.keys[author], COLONY, where, **made)
        self.put(where, sealed.data, rule, after_s=0)
        return str(made["id"])

    def put(self, subject: str, data: bytes, rule: str, *, after_s: float = 1.0) -> None:
        """Store these bytes; the verdict must have this rule."""
        self.now += int(after_s * SECOND)
        stored = Stored(subject, len(self.rows) + 1, self.now, data)
        judged = self.history.add(stored)
        found = judged.verdict.rule
        assert found.startswith(rule) if rule else not found, (
            f"{stored.sequence} {subject}: {found!r}, not {rule!r}"
        )
        digest = hashlib.sha256(_signed(subject, data)).hexdigest() if judged.record else None
        self.rows.append(
            {
                "sequence": stored.sequence,
                "time": stored.time,
                "subject": subject,
                "data": data.hex(),
                "digest": digest,
                "verdict": judged.verdict.kind,
                "rule": NO_EVENT if found.startswith(NO_EVENT) else found,
            }
        )

    def again(self, sequence: int, rule: str, subject: str | None = None) -> None:
        """Store what was stored before once more, perhaps elsewhere."""
        row = self.rows[sequence - 1]
        self.put(subject or row["subject"], bytes.fromhex(row["data"]), rule)

    @property
    def last(self) -> int:
        """The sequence of the last message."""
        return len(self.rows)

    def _prev(self, event: Event, entity: str) -> bytes | None:
        kind = event.type.partition(".")[0]
        if kind == "process":
            process = self.history.processes.get(entity)
            return process.head if process is not None and event.type != "process.queued" else None
        if kind == "workflow":
            held = self.history.workflows.get(entity)
            return held.head if held is not None else None
        if kind == "cron":
            cron = self.history.crons.get(entity)
            return cron.head if cron is not None else None
        if kind == "generator":
            chain = self.history.generators.get(entity)
            return chain.head if chain is not None else None
        return colonies_.head(self.history.colony, kind, entity)


def _signed(subject: str, data: bytes) -> bytes:
    return codec.open_(COLONY, subject, data).signed
