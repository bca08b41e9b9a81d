"""The colony itself as a fold: its members, their roles, its settings, its queues and its workers.

`judge` says whether a colony, member, queue or worker event could be true where it stands; `evolve`
applies a valid one and never refuses. Processes have their own module. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from colonies.core import webhooks as webhooks_
from colonies.core.events import (
    VALID,
    Approved,
    ColonyPaused,
    ColonyResumed,
    Configured,
    Declared,
    Event,
    Genesis,
    Granted,
    QueuePaused,
    QueueResumed,
    Record,
    Retired,
    Revoked,
    Role,
    Rotated,
    Verdict,
    WebhookAdded,
    WebhookChanged,
    WebhookEvent,
    WebhookRemoved,
    WorkerDrained,
    WorkerResumed,
    WorkerStarted,
    WorkerStopped,
    denied,
    quarantined,
)
from colonies.core.limits import digest_of
from colonies.core.members import Held, Member, time_of
from colonies.core.names import MEMBER
from colonies.core.spec import Conditions, queue_of
from colonies.core.webhooks import Webhook

# Revoked ones included. Who approves more is refused; whoever reads takes them all. The broker is told of all
# revoked keys in one message of at most 1 MB, which holds some 11,000.
MAX_MEMBERS = 10_000
MAX_QUEUES = 1_000  # a colony: each costs a consumer, and no other role than the service may tidy up


@dataclass(frozen=True, slots=True)
class Paused:
    """Something that shall not go on for now: by whom, since when (ns), why."""

    by: str
    since: int
    reason: str = ""


@dataclass(slots=True)
class Colony:
    """What the ledger says of the colony so far. `key` is the account key: all trust starts there.

    `holders` says of every key that is or was a member's whose it is. `heads` holds, per entity other than a
    process, the digest of its last valid event. `leases` holds each lease that was longer than all before
    it, with its event's sequence. `paused`, and by name `paused_queues` and `drained` workers, say what shall
    not go on for now. `webhooks` are those that there are, by name.
    """

    key: str
    name: str = ""
    lease_s: float = 0.0
    leases: list[tuple[int, float]] = field(default_factory=list)
    roles: dict[Role, str] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    heads: dict[str, bytes] = field(default_factory=dict)
    paused: Paused | None = None
    paused_queues: dict[str, Paused] = field(default_factory=dict)
    drained: dict[str, Paused] = field(default_factory=dict)
    webhooks: dict[str, Webhook] = field(default_factory=dict)

    def is_paused(self, queue: str) -> bool:
        """Is nothing of this queue to be handed out now?"""
        return self.paused is not None or queue in self.paused_queues

    def flow(self) -> tuple[object, ...]:
        """What decides where work may be taken from: for comparing it with what it is later."""
        return dict(self.queues), self.paused, dict(self.paused_queues), dict(self.drained)

    def key_of(self, kind: str, event: str, author: str, sequence: int, time: int) -> tuple[str, Role] | None:
        """The key that must have signed this event, and its holder's role; None: nobody's at that point.

        `time` (ns) is when the broker stored it: what the broker says of that event alone, so that whoever
        reads less of the ledger comes to the same verdict.
        """
        if (kind, event) == ("colony", "genesis"):
            return self.key, "owner"
        member = self.members.get(author)
        key = member.key_at(sequence, time) if member is not None else None
        return (key, member.role) if member is not None and key is not None else None

    def keys_of(self, name: str) -> tuple[str, ...]:
        """All keys that this member ever held."""
        member = self.members.get(name)
        return tuple(held.key for held in member.keys) if member is not None else ()

    def longest_lease_s(self, sequence: int) -> float:
        """The longest lease that the colony had before this sequence: a worker may not know of a shorter one.

        It depends on the place in the ledger, not on how far we have read: old events keep their verdict.
        """
        return max((lease_s for since, lease_s in self.leases if since < sequence), default=0.0)

    def has_owner_besides(self, name: str) -> bool:
        """Is there another owner left, who does not end by itself?"""
        return any(
            m.role == "owner" and m.until is None and m.expires is None and m.name != name
            for m in self.members.values()
        )


@dataclass(frozen=True, slots=True)
class Queue:
    """A declared queue: what each of its processes needs at most, its priority, where it was declared."""

    id: str
    conditions: Conditions
    priority: int
    declared: int


def head(colony: Colony, kind: str, entity: str) -> bytes | None:
    """The digest that the next event of this entity, not a process, must name as `prev`."""
    return colony.heads.get(f"{kind}.{entity}")


def judge(colony: Colony, record: Record) -> Verdict:
    """Could this event be true here? Rules: DESIGN.md section 3. Never raises, never changes `colony`."""
    if record.prev != head(colony, record.kind, record.entity):
        return quarantined("its prev is not the digest of the entity's last valid event")
    if not colony.name and not isinstance(record.event, Genesis):
        return quarantined("it stands before the colony's genesis")
    rule = _RULES.get(type(record.event))
    if rule is None:
        return quarantined(f"{record.event.type} is not an event of a {record.kind}")
    return rule(colony, record, record.event)


def _genesis(colony: Colony, record: Record, event: Genesis) -> Verdict:
    if colony.name:
        return quarantined("the colony has its genesis already")
    if record.author != event.owner:
        return quarantined("a genesis is said by the owner whom it names")
    return VALID


def _configured(colony: Colony, record: Record, event: Configured) -> Verdict:
    if record.role != "owner":
        return denied("only an owner configures the colony")
    return VALID


def _approved(colony: Colony, record: Record, event: Approved) -> Verdict:
    if record.role != "owner":
        return denied("only an owner approves members")
    if not MEMBER.fullmatch(record.entity):
        return quarantined(f"{record.entity!r} is not a member's name")
    # What a name said stays its own for ever, so neither a name nor a key ever belongs to two.
    if record.entity in colony.members:
        return quarantined(f"the name {record.entity} is taken; names are never used again")
    if event.key in colony.holders:
        return quarantined("this key is a member already")
    return VALID


def _rotated(colony: Colony, record: Record, event: Rotated) -> Verdict:
    member = colony.members.get(record.entity)
    # Only an owner can make the token that goes with the key. That both keys agreed is checked with the
    # signature (`colonies.history`): an owner cannot take a name over, nor a stolen key without the owner.
    if record.role != "owner":
        return denied("only an owner changes a member's key")
    if member is None:
        return quarantined(f"there is no member {record.entity}")
    if member.ended_by(record.time):
        return quarantined(f"{record.entity} is no member any more")
    if event.former != member.key:
        return quarantined(f"the key that it replaces is not that of {record.entity}")
    if event.key in colony.holders:
        return quarantined("this key is a member already")
    if event.expires_unix_s is not None and _is_last_owner(colony, member):
        return quarantined(f"{record.entity} is the last owner, and cannot have an end")
    return VALID


def _is_last_owner(colony: Colony, member: Member) -> bool:
    """Without an owner nobody could ever be approved again."""
    return member.role == "owner" and not colony.has_owner_besides(member.name)


def _revoked(colony: Colony, record: Record, event: Revoked) -> Verdict:
    member = colony.members.get(record.entity)
    if record.role != "owner":
        return denied("only an owner revokes members")
    if member is None:
        return quarantined(f"there is no member {record.entity}")
    if member.until is not None:
        return quarantined(f"{record.entity} is revoked already")
    if _is_last_owner(colony, member):
        return quarantined(f"{record.entity} is the last owner")
    return VALID


def _declared(colony: Colony, record: Record, event: Declared) -> Verdict:
    if record.role not in ("user", "owner", "service"):
        return denied(f"the role {record.role} declares no queues")
    if record.entity in colony.queues:
        return quarantined("the queue is declared already")
    if record.entity != queue_of(event.conditions, event.priority):
        return quarantined("the queue's name is not the digest of its conditions and priority")
    if len(colony.queues) >= MAX_QUEUES:
        return quarantined(f"the colony has {MAX_QUEUES} queues, and cannot have more")
    return VALID


def _retired(colony: Colony, record: Record, event: Retired) -> Verdict:
    # Nothing depends on its being empty: what waits in it has its queue declared again (see Orchestrator).
    if record.role != "service":
        return denied(f"the role {record.role} retires no queues")
    queue = colony.queues.get(record.entity)
    if queue is None:
        return quarantined("there is no such queue")
    if record.entity in colony.paused_queues:
        return quarantined("the queue is paused")
    if event.floor < queue.declared:
        return quarantined("its floor lies before the queue's declaration")
    return VALID


def _pausing(colony: Colony, record: Record, event: Event) -> Verdict:
    # Whose work waits, and on whose machines, is for the owner to decide.
    if record.role != "owner":
        return denied(f"only an owner pauses, drains and resumes, and {record.author} is a {record.role}")
    match event:
        case ColonyPaused() | ColonyResumed():
            what, paused = "the colony", colony.paused
        case QueuePaused() | QueueResumed():
            if record.entity not in colony.queues:
                return quarantined("there is no such queue")
            what, paused = "the queue", colony.paused_queues.get(record.entity)
        case _:
            member = colony.members.get(record.entity)
            if member is None or member.role != "worker":
                return quarantined(f"there is no worker {record.entity}")
            what, paused = "the worker", colony.drained.get(record.entity)
    done = "drained" if record.kind == "member" else "paused"
    pauses = isinstance(event, ColonyPaused | QueuePaused | WorkerDrained)
    if pauses and paused is not None:
        return quarantined(f"{what} is {done} already, by {paused.by}")
    if not pauses and paused is None:
        return quarantined(f"{what} is not {done}")
    return VALID


def _granted(colony: Colony, record: Record, event: Granted) -> Verdict:
    # Whether there was room is not asked here: that takes all processes that ever had the key.
    if record.role != "service":
        return denied(f"the role {record.role} grants no places")
    if record.entity != digest_of(event.key):
        return quarantined("the name is not the digest of the key")
    return VALID


def _webhook(colony: Colony, record: Record, event: WebhookEvent) -> Verdict:
    return webhooks_.judge(colony.webhooks, record, event)


def _worker(colony: Colony, record: Record, event: Event) -> Verdict:
    if record.role != "worker" or record.author != record.entity:
        return denied("a worker speaks of itself only")
    return VALID


_RULES: dict[type[Event], Callable[[Colony, Record, Any], Verdict]] = {
    Genesis: _genesis,
    Configured: _configured,
    Approved: _approved,
    Rotated: _rotated,
    Revoked: _revoked,
    Declared: _declared,
    Retired: _retired,
    ColonyPaused: _pausing,
    ColonyResumed: _pausing,
    QueuePaused: _pausing,
    QueueResumed: _pausing,
    Granted: _granted,
    WorkerDrained: _pausing,
    WorkerResumed: _pausing,
    WorkerStarted: _worker,
    WorkerStopped: _worker,
    WebhookAdded: _webhook,
    WebhookChanged: _webhook,
    WebhookRemoved: _webhook,
}


def evolve(colony: Colony, record: Record) -> None:
    """Apply a valid event, in place (a colony has one holder, its reader)."""
    # A grant stands alone: its guard orders it, and every reader would keep a digest for each key there was.
    if not isinstance(record.event, Granted):
        colony.heads[f"{record.kind}.{record.entity}"] = record.digest
    match record.event:
        case Genesis() as event:
            colony.name, colony.roles = event.name, dict(event.roles)
            _lease(colony, record.sequence, event.lease_s)
            _admit(colony, record, event.owner, event.owner_key, "owner", None)
        case Configured(lease_s=lease_s):
            _lease(colony, record.sequence, lease_s)
        case Approved() as event:
            _admit(colony, record, record.entity, event.key, event.role, event.expires_unix_s)
        case Rotated() as event:
            colony.members[record.entity] = colony.members[record.entity].rekeyed(
                event.key, record.sequence, record.time, time_of(event.expires_unix_s)
            )
            colony.holders[event.key] = record.entity
        case Revoked():
            member = colony.members[record.entity]
            colony.members[record.entity] = member.ended(record.sequence, record.time)
        case Declared(conditions=conditions, priority=priority):
            # Whoever declared it may have said 10 GB; the queue is that of all sizes up to the next rung.
            widest = Conditions.parse(conditions.canonical())
            colony.queues[record.entity] = Queue(record.entity, widest, priority, record.sequence)
        case Retired():
            del colony.queues[record.entity]
            colony.paused_queues.pop(record.entity, None)
        case ColonyPaused(reason=reason):
            colony.paused = Paused(record.author, record.time, reason)
        case ColonyResumed():
            colony.paused = None
        case QueuePaused(reason=reason):
            colony.paused_queues[record.entity] = Paused(record.author, record.time, reason)
        case QueueResumed():
            del colony.paused_queues[record.entity]
        case WorkerDrained(reason=reason):
            colony.drained[record.entity] = Paused(record.author, record.time, reason)
        case WorkerResumed():
            del colony.drained[record.entity]
        case WebhookAdded() | WebhookChanged() | WebhookRemoved() as said:
            webhooks_.evolve(colony.webhooks, record, said)
        case _:
            pass


def _admit(
    colony: Colony, record: Record, name: str, key: str, role: Role, expires_unix_s: int | None
) -> None:
    held = Held(key, record.sequence, record.time, time_of(expires_unix_s))
    colony.members[name] = Member(name, role, (held,))
    colony.holders[key] = name


def _lease(colony: Colony, sequence: int, lease_s: float) -> None:
    colony.lease_s = lease_s
    if not colony.leases or lease_s > colony.leases[-1][1]:
        colony.leases.append((sequence, lease_s))
