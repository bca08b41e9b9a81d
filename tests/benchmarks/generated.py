"""A ledger that nobody lived through: events of a colony with users, workers and any number of processes,
signed and true, made one after the other without a broker.

Four of five processes succeed at once, others fail and are tried again, are cancelled or still wait. It is
the same ledger for the same number of processes, but for its keys and ids.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from colonies import codec, subjects
from colonies.core.events import (
    Approved,
    Assigned,
    Cancelled,
    Completed,
    Declared,
    Event,
    Failed,
    Genesis,
    Queued,
    Requeued,
    Role,
    WorkerStarted,
)
from colonies.core.shapes import Function
from colonies.core.spec import Spec, queue_of
from colonies.ids import new_id
from colonies.ledger import Stored
from colonies.nkeys import KeyPair
from colonies.roles import ROLES

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND  # the first of January 2026
FUNCTIONS = ("resize", "train", "evaluate", "embed", "transcode", "crawl", "index", "report")
LABELS = ("nightly", "demo", "paper-7", None, None)
WORKERS = 8
UNDER_WAY = 50  # processes at a time, so that their events stand between each other


@dataclass(slots=True)
class Generated:
    """The ledger. `colony` is its account key."""

    processes: int
    seed: int = 1
    account: KeyPair = field(default_factory=lambda: KeyPair.new("account"))
    sequence: int = 0
    time: int = START
    _keys: dict[str, KeyPair] = field(default_factory=dict)
    _heads: dict[str, bytes] = field(default_factory=dict)
    _queues: dict[int, str] = field(default_factory=dict)
    _ids: dict[int, str] = field(default_factory=dict)

    @property
    def colony(self) -> str:
        return self.account.public

    def stored(self) -> Iterator[Stored]:
        """Every event, in order."""
        chance = random.Random(self.seed)
        yield from self._founding()
        lives: list[Iterator[Stored]] = []
        for number in range(self.processes):
            lives.append(self._life(number, chance))
            while len(lives) >= UNDER_WAY:
                yield from self._step(lives, chance)
        while lives:
            yield from self._step(lives, chance)

    def _step(self, lives: list[Iterator[Stored]], chance: random.Random) -> Iterator[Stored]:
        life = chance.choice(lives)
        event = next(life, None)
        if event is None:
            lives.remove(life)
        else:
            yield event

    def _founding(self) -> Iterator[Stored]:
        owner = self._keys["owner"] = KeyPair.new("user")
        roles: dict[Role, str] = {role: KeyPair.new("account").public for role in ROLES}
        genesis = Genesis("bench", "owner", owner.public, roles, 30.0)
        yield self._said("owner", genesis, "", key=self.account)
        members: list[tuple[str, Role]] = [("ann", "user"), ("bob", "user"), ("orchestrator", "service")]
        members += [(f"w{number}", "worker") for number in range(WORKERS)]
        for name, role in members:
            self._keys[name] = KeyPair.new("user")
            yield self._said("owner", Approved(self._keys[name].public, role), name)
        functions = [Function(name) for name in FUNCTIONS]
        for number in range(WORKERS):
            yield self._said(f"w{number}", WorkerStarted("i1", "python", 8, functions), f"w{number}")
        for priority in (0, 3):
            spec = Spec.parse({"func": "x", "priority": priority, "conditions": {"runtimetype": "python"}})
            queue = self._queues[priority] = queue_of(spec.conditions, spec.priority)
            yield self._said("ann", Declared(spec.conditions, priority), queue)

    def _life(self, number: int, chance: random.Random) -> Iterator[Stored]:
        """One process, event by event."""
        process, submitter = new_id(), chance.choice(("ann", "bob"))
        priority = 3 if chance.random() < 0.1 else 0
        spec = Spec.parse(
            {
                "func": chance.choice(FUNCTIONS),
                "args": [f"s3://bucket/{number:07}.png", chance.randrange(1_000)],
                "label": chance.choice(LABELS),
                "priority": priority,
                "maxretries": 3,
                "conditions": {"runtimetype": "python"},
            }
        )
        queue, ends = self._queues[priority], chance.random()
        offer = self._said(submitter, Queued(spec), process, queue=queue)
        yield offer
        if ends < 0.01:
            yield self._said(submitter, Cancelled("not wanted any more"), process)
            return
        failures = chance.choice((1, 2, 4)) if ends < 0.1 else 0
        failed_before = 0
        while True:
            if ends > 0.99:  # it still waits
                return
            worker = f"w{chance.randrange(WORKERS)}"
            took = self._said(worker, Assigned(self._ids.pop(offer.sequence), 30.0, "i1"), process)
            yield took
            attempt = self._ids.pop(took.sequence)
            if failures == 0:
                yield self._said(worker, Completed(attempt, {"ok": True, "size": number % 977}), process)
                return
            failures -= 1
            error = f"TimeoutError: no answer from shard {chance.randrange(64)}"
            failed = self._said(worker, Failed(attempt, error, delay_s=0.0), process)
            yield failed
            failed_before += 1
            if failed_before > 3:
                return
            offer = self._said("orchestrator", Requeued(failed.sequence), process, queue=queue)
            yield offer

    def _said(
        self, author: str, event: Event, entity: str, *, queue: str | None = None, key: KeyPair | None = None
    ) -> Stored:
        self.sequence += 1
        self.time += 1_000_000  # a thousand events a second
        subject = subjects.subject_of(event, entity, author, queue)
        id = new_id()
        about = f"{subject.split('.')[1]}.{entity}"
        sealed = codec.seal(
            key or self._keys[author],
            self.colony,
            subject,
            id=id,
            type=event.type,
            time=self.time,
            author=author,
            prev=self._heads.get(about),
            data=codec.data_of(event),
        )
        self._heads[about] = sealed.digest
        if isinstance(event, Completed | Cancelled):
            del self._heads[about]
        if isinstance(event, Queued | Requeued | Assigned):
            self._ids[self.sequence] = id
        return Stored(subject, self.sequence, self.time, sealed.data)
