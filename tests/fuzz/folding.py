"""The history fold, fed with a random sequence of soundly signed events, in and out of order, true and false.

Bytes are choices: who says what of which process, when, naming which event before it. Whatever is chosen,
every message gets a verdict, a final process stays final, and who reads one process alone agrees.
"""

from __future__ import annotations

from typing import Literal

from colonies.core.events import (
    Approved,
    Assigned,
    Cancelled,
    Completed,
    Configured,
    Declared,
    Event,
    Expired,
    Failed,
    LogDigest,
    Poisoned,
    Queued,
    Ref,
    Renewed,
    Requeued,
    Returned,
    Revoked,
    WorkerStarted,
    WorkerStopped,
)
from colonies.core.process import Process, Running, Waiting, keyed_id
from colonies.history import History, fold_process
from colonies.ledger import Stored
from colonies.show import process_object
from tests.fuzz import world
from tests.fuzz.odd import Choices

MAX_STEPS = 60
KEYED = keyed_id("ann", "k")
FAILURES: tuple[Literal["error", "timeout", "final", "later"], ...] = ("error", "timeout", "final", "later")


def fold(data: bytes) -> History:
    """Fold what the bytes choose."""
    choices = Choices(data)
    history = world.history()
    stored_of: dict[str, list[Stored]] = {}
    now, sequence = world.START + world.SECOND, history.position
    digests: list[bytes] = []
    replayed: list[Stored] = []
    for _ in range(MAX_STEPS):
        if not choices.left:
            break
        entity = (world.PROCESS, world.ulid(8), KEYED)[choices.below(3)]
        now += (0, 0, 1, 11, 61, 400, -5, 100_000)[choices.below(8)] * world.SECOND
        sequence += 1
        process = history.processes.get(entity)
        event, author, place = _said(choices, process, entity)
        if replayed and choices.below(16) == 15:
            old = replayed[choices.below(len(replayed))]
            stored = Stored(old.subject, sequence, now, old.data)
            place = old.subject.split(".")[2] if old.subject.startswith("ledger.process") else ""
        else:
            head = process.head if process else None
            if not event.type.startswith("process."):
                head = history.colony.heads.get(f"{event.type.partition('.')[0]}.{place}")
            prev = digests[choices.below(len(digests))] if digests and choices.below(16) == 15 else head
            subject, sealed = world.sealed(
                event, author, entity=place, queue=world.QUEUE, number=1_000 + sequence, prev=prev
            )
            digests.append(sealed.digest)
            stored = Stored(subject, sequence, now, sealed.data)
        replayed.append(stored)
        if stored.subject.startswith("ledger.process."):
            stored_of.setdefault(place, []).append(stored)
        _add(history, stored, place)
    for entity, messages in stored_of.items():
        assert fold_process(history.colony, messages).process == history.processes.get(entity)
    return history


def _add(history: History, stored: Stored, entity: str) -> None:
    before = history.processes.get(entity)
    seen = history.add(stored, trusted=True)  # `fold_process` below checks the signatures
    after = history.processes.get(entity)
    assert seen.verdict.valid or seen.verdict.rule
    if not seen.verdict.valid:
        assert after == before
    if before is not None and before.final:
        assert after == before
    if after is not None:
        process_object(after)


def _likely(choices: Choices, process: Process | None, entity: str) -> tuple[Event, str]:
    """What an honest member might say of the process as it is."""
    worker = ("w1", "w2")[choices.below(2)]
    if process is None:
        return Queued(world.SPEC, key="k" if entity == KEYED else None), "ann"
    match process.phase:
        case Waiting(offer=offer):
            asked = Requeued(process.sequence), Expired(), Cancelled("enough")
            at = choices.below(16)
            if at < len(asked):
                return asked[at], ("orch", "w1", "ann")[at]
            return Assigned(offer.id, 10.0, "one"), worker
        case Running(offer=offer):
            attempt = process.attempts[-1]
            ends: list[Event] = [
                Completed(attempt.id, [1]),
                *(Failed(attempt.id, "broken", kind, 2.0) for kind in FAILURES),
                Renewed(attempt.id),
                Returned(attempt.id, "busy"),
            ]
            if (at := choices.below(16)) < len(ends):
                return ends[at], attempt.worker
            late = Assigned(offer.id, 10.0, "two"), Requeued(process.sequence), Poisoned(), Cancelled("no")
            return late[at % 4], (worker, "orch", "orch", "olga")[at % 4]
        case _:
            return Requeued(process.sequence), "orch"


def _said(choices: Choices, process: Process | None, entity: str) -> tuple[Event, str, str]:
    """An event, who says it, and of what: mostly what could be true of the process now."""
    if choices.below(4):
        return (*_likely(choices, process, entity), entity)
    author = list(world.ROLES)[choices.below(len(world.ROLES))]
    kind = choices.below(20)
    attempt = process.attempts[-1].id if process and process.attempts else world.ulid(5)
    if choices.below(16) == 15:
        attempt = world.ulid(choices.below(200))
    offer = getattr(getattr(process, "phase", None), "offer", None)
    logs = LogDigest(choices.below(3), "0" * 64) if kind == 7 else None
    ref = Ref("0" * 64, choices.below(200), "w1.Ab1") if choices.below(8) == 7 else None
    of_process: list[Event] = [
        Queued(world.SPEC, key="k" if entity == KEYED else None),
        Assigned(offer.id if offer else world.ulid(1), (2.0, 10.0, 60.0)[choices.below(3)], "one"),
        Renewed(attempt),
        Returned(attempt, "busy"),
        Completed(attempt, [choices.below(3)], ref, logs),
        Failed(attempt, "broken", FAILURES[choices.below(4)], float(choices.below(20))),
        Requeued(process.sequence if process else choices.below(40)),
        Poisoned(),
        Expired(),
        Cancelled("enough"),
    ]
    if kind < 2 * len(of_process) - 5:
        return of_process[kind % len(of_process)], author, entity
    name = list(world.ROLES)[choices.below(len(world.ROLES))]
    of_colony: list[tuple[Event, str]] = [
        (Configured(float(2 + choices.below(30))), ""),
        (Approved(world.key(f"new{choices.below(3)}").public, "worker"), f"n{choices.below(3)}"),
        (Revoked("gone"), name),
        (Declared(world.SPEC.conditions, choices.below(10)), world.QUEUE),
        (WorkerStarted("one", "cli", 1, []) if choices.below(2) else WorkerStopped("one"), name),
    ]
    event, place = of_colony[kind % len(of_colony)]
    return event, author, place
