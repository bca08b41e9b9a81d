"""A colony of seven for pure tests, and one process whose story is told to the rules event by event.

No keys, no bytes, no broker: records as verifiers see them once signatures are checked.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import count

from ulid import ULID

from colonies.core import colony as colonies_
from colonies.core.colony import Colony
from colonies.core.events import (
    MAX_COUNT,
    Approved,
    Assigned,
    Completed,
    Configured,
    Event,
    Failed,
    Genesis,
    ProcessEvent,
    Queued,
    Record,
    Requeued,
    Role,
    Verdict,
)
from colonies.core.process import SECOND, Offer, Process, Running, Waiting, evolve, judge
from colonies.core.spec import Spec, queue_of

ACCOUNT = "A" + "A" * 55
START = 1_750_000_000 * SECOND
LEASE_S = 10.0
MEMBERS: dict[str, Role] = {
    "olga": "owner",
    "ann": "user",
    "bob": "user",
    "w1": "worker",
    "w2": "worker",
    "eye": "observer",
    "orch": "service",
}

_numbers = count(1)


def new_id() -> str:
    return str(ULID.from_int(next(_numbers)))


def key(number: int) -> str:
    return "U" + str(number).translate(str.maketrans("0123456789", "ABCDEFGHIJ")).rjust(55, "A")


def record_of(
    event: Event,
    author: str,
    *,
    role: Role,
    kind: str,
    entity: str = "",
    sequence: int,
    time: int = START,
    prev: bytes | None = None,
    queue: str | None = None,
    id: str | None = None,
) -> Record:
    id = id or new_id()
    digest = hashlib.sha256(repr((id, kind, entity, prev, event)).encode()).digest()
    return Record(sequence, time, kind, entity, queue, author, role, id, prev, digest, event)


def a_colony(lease_s: float = LEASE_S) -> Colony:
    """The colony `lab` with its members, at sequence 7."""
    colony = Colony(ACCOUNT)
    keys = {name: key(number) for number, name in enumerate(MEMBERS)}
    genesis = Genesis("lab", "olga", keys["olga"], {}, lease_s)
    tell_colony(colony, genesis, "olga", sequence=1)
    for sequence, (name, role) in enumerate(list(MEMBERS.items())[1:], start=2):
        verdict = tell_colony(
            colony, Approved(keys[name], role), "olga", kind="member", entity=name, sequence=sequence
        )
        assert verdict.valid, verdict
    return colony


def tell_colony(
    colony: Colony,
    event: Event,
    author: str,
    *,
    kind: str = "colony",
    entity: str = "",
    sequence: int = 100,
    time: int = START,
    prev: bytes | type | None = str,
) -> Verdict:
    """Judge an event of the colony, a member, a queue or a worker, and fold it if it is valid."""
    before = colonies_.head(colony, kind, entity) if prev is str else prev
    assert before is None or isinstance(before, bytes)
    member = colony.members.get(author)
    role: Role = member.role if member else "owner"
    record = record_of(
        event, author, role=role, kind=kind, entity=entity, sequence=sequence, time=time, prev=before
    )
    verdict = colonies_.judge(colony, record)
    if verdict.valid:
        colonies_.evolve(colony, record)
    return verdict


def a_spec(**fields: object) -> Spec:
    return Spec.parse({"func": "resize", "conditions": {"runtimetype": "cli"}, **fields})


class Telling:
    """One process, its colony, and the broker's clock (ns), which the test moves."""

    def __init__(self, **spec: object) -> None:
        self.colony = a_colony()
        self.id = new_id()
        self.spec = a_spec(**spec)
        self.queue = queue_of(self.spec.conditions, self.spec.priority)
        self.now = START
        self.sequence = 100
        self.process: Process | None = None
        self.valid: list[Record] = []

    @property
    def it(self) -> Process:
        """The process, which is submitted."""
        assert self.process is not None
        return self.process

    @property
    def offer(self) -> Offer:
        """The current offer of the process, which is waiting or running."""
        phase = self.it.phase
        assert isinstance(phase, Waiting | Running)
        return phase.offer

    def record(
        self,
        author: str,
        event: ProcessEvent,
        *,
        id: str | None = None,
        prev: bytes | type | None = str,
        queue: str | None = None,
    ) -> Record:
        """The event as it would stand on the ledger now."""
        head = self.process.head if self.process else None
        before = head if prev is str else prev
        assert before is None or isinstance(before, bytes)
        self.sequence += 1
        offers = isinstance(event, Queued | Requeued)
        found = record_of(
            event,
            author,
            role=MEMBERS[author],
            kind="process",
            entity=self.id,
            sequence=self.sequence,
            time=self.now,
            prev=before,
            queue=(queue or self.queue) if offers else None,
            id=id,
        )
        return replace(found, time=max(found.time, self.process.time)) if self.process else found

    def tell(self, record: Record) -> Verdict:
        """Judge it, and fold it if it is valid."""
        verdict = judge(self.process, record, self.colony)
        if verdict.valid:
            self.process = evolve(self.process, record)
            self.valid.append(record)
        return verdict

    def say(self, author: str, event: ProcessEvent, **options: object) -> Verdict:
        return self.tell(self.record(author, event, **options))  # type: ignore[arg-type]

    def require(self, record: Record) -> None:
        """As a writer asks before the fact: raises if it may not be recorded."""
        after = self.process.time if self.process is not None else 0
        wish = replace(record, sequence=MAX_COUNT, time=max(self.now, after), digest=b"")
        judge(self.process, wish, self.colony).require(f"process {record.entity}")

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    # --- the usual course ----------------------------------------------------------------------------

    def submit(self, author: str = "ann") -> Telling:
        self._must(self.say(author, Queued(self.spec)))
        return self

    def take(self, worker: str = "w1", lease_s: float = LEASE_S, instance: str = "one") -> str:
        """The worker takes the process; the attempt's id."""
        self._must(self.say(worker, Assigned(self.offer.id, lease_s, instance)))
        return self.it.attempts[-1].id

    def fail(self, attempt: str, kind: str = "error", delay_s: float = 0.0) -> None:
        worker = self.it.attempts[-1].worker
        self._must(self.say(worker, Failed(attempt, "broken", kind, delay_s)))  # type: ignore[arg-type]

    def requeue(self) -> None:
        self._must(self.say("orch", Requeued(self.it.sequence)))

    def complete(self, attempt: str, output: object = None) -> None:
        self._must(self.say(self.it.attempts[-1].worker, Completed(attempt, output)))

    def configure(self, lease_s: float) -> None:
        self.sequence += 1
        self._must(tell_colony(self.colony, Configured(lease_s), "olga", sequence=self.sequence))

    @staticmethod
    def _must(verdict: Verdict) -> None:
        assert verdict.valid, verdict
