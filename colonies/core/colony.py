"""The colony itself as a fold: its members, their roles, its settings, its queues and its workers.

`judge` says whether a colony, member, queue or worker event could be true where it stands; `evolve`
applies a valid one and never refuses. Processes have their own module. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from colonies.core.events import (
    MIN_LEASE_S,
    VALID,
    Approved,
    Configured,
    Declared,
    Event,
    Genesis,
    Record,
    Revoked,
    Role,
    Verdict,
    WorkerStarted,
    WorkerStopped,
    denied,
    quarantined,
)
from colonies.core.names import MEMBER
from colonies.core.spec import Conditions, queue_of


@dataclass(frozen=True, slots=True)
class Member:
    """A key under a name, from the sequence of its approval to that of its revocation (ns for times)."""

    name: str
    key: str
    role: Role
    since: int
    since_time: int
    until: int | None = None
    until_time: int | None = None

    def counts_at(self, sequence: int) -> bool:
        """Is an event at this sequence covered by this membership?"""
        return self.since < sequence and (self.until is None or sequence < self.until)


@dataclass(slots=True)
class Colony:
    """What the ledger says of the colony so far. `key` is the account key: all trust starts there.

    `heads` holds, per entity other than a process, the digest of its last valid event.
    """

    key: str
    name: str = ""
    lease_s: float = 0.0
    longest_lease_s: float = 0.0
    roles: dict[Role, str] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    heads: dict[str, bytes] = field(default_factory=dict)

    def key_of(self, kind: str, event: str, author: str, sequence: int) -> tuple[str, Role] | None:
        """The key that must have signed this event, and its holder's role; None: nobody's at that point."""
        if (kind, event) == ("colony", "genesis"):
            return self.key, "owner"
        member = self.members.get(author)
        if member is None or not member.counts_at(sequence):
            return None
        return member.key, member.role

    def has_owner_besides(self, name: str) -> bool:
        """Is there another owner left?"""
        return any(m.role == "owner" and m.until is None and m.name != name for m in self.members.values())


@dataclass(frozen=True, slots=True)
class Queue:
    """A declared queue: its conditions, its priority, and where in the ledger it was declared."""

    id: str
    conditions: Conditions
    priority: int
    declared: int


def head(colony: Colony, kind: str, entity: str) -> bytes | None:
    """The digest that the next event of this entity must name as `prev`."""
    return colony.heads.get(f"{kind}.{entity}")


def judge(colony: Colony, record: Record) -> Verdict:
    """Could this event be true here? Rules: DESIGN.md section 3. Never raises, never changes `colony`."""
    if record.prev != head(colony, record.kind, record.entity):
        return quarantined("its prev is not the digest of the entity's last valid event")
    if not colony.name and not isinstance(record.event, Genesis):
        return quarantined("it stands before the colony's genesis")
    return _RULES[type(record.event)](colony, record, record.event)


def _genesis(colony: Colony, record: Record, event: Genesis) -> Verdict:
    if colony.name:
        return quarantined("the colony has its genesis already")
    if record.author != event.owner or not MEMBER.fullmatch(event.owner):
        return quarantined("a genesis is said by the owner whom it names")
    if event.lease_s < MIN_LEASE_S:
        return quarantined(f"a lease is at least {MIN_LEASE_S:g} s")
    return VALID


def _configured(colony: Colony, record: Record, event: Configured) -> Verdict:
    if record.role != "owner":
        return denied("only an owner configures the colony")
    if event.lease_s < MIN_LEASE_S:
        return quarantined(f"a lease is at least {MIN_LEASE_S:g} s")
    return VALID


def _approved(colony: Colony, record: Record, event: Approved) -> Verdict:
    if record.role != "owner":
        return denied("only an owner approves members")
    if not MEMBER.fullmatch(record.entity):
        return quarantined(f"{record.entity!r} is not a member's name")
    if record.entity in colony.members:
        return quarantined(f"the name {record.entity} is taken; names are never used again")
    if any(member.key == event.key for member in colony.members.values()):
        return quarantined("this key is a member already")
    return VALID


def _revoked(colony: Colony, record: Record, event: Revoked) -> Verdict:
    member = colony.members.get(record.entity)
    if record.role != "owner":
        return denied("only an owner revokes members")
    if member is None:
        return quarantined(f"there is no member {record.entity}")
    if member.until is not None:
        return quarantined(f"{record.entity} is revoked already")
    if member.role == "owner" and not colony.has_owner_besides(member.name):
        return quarantined(f"{record.entity} is the last owner")
    return VALID


def _declared(colony: Colony, record: Record, event: Declared) -> Verdict:
    if record.role not in ("user", "owner", "service"):
        return denied(f"a {record.role} declares no queues")
    if record.entity in colony.queues:
        return quarantined("the queue is declared already")
    if record.entity != queue_of(event.conditions, event.priority):
        return quarantined("the queue's name is not the digest of its conditions and priority")
    return VALID


def _worker(colony: Colony, record: Record, event: Event) -> Verdict:
    if record.role != "worker" or record.author != record.entity:
        return denied("a worker speaks of itself only")
    return VALID


_RULES: dict[type, Any] = {
    Genesis: _genesis,
    Configured: _configured,
    Approved: _approved,
    Revoked: _revoked,
    Declared: _declared,
    WorkerStarted: _worker,
    WorkerStopped: _worker,
}


def evolve(colony: Colony, record: Record) -> None:
    """Apply a valid event, in place (a colony has one holder, its reader)."""
    colony.heads[f"{record.kind}.{record.entity}"] = record.digest
    match record.event:
        case Genesis() as event:
            colony.name, colony.roles = event.name, dict(event.roles)
            colony.lease_s = colony.longest_lease_s = event.lease_s
            colony.members[event.owner] = Member(
                event.owner, event.owner_key, "owner", record.sequence, record.time
            )
        case Configured(lease_s=lease_s):
            colony.lease_s = lease_s
            colony.longest_lease_s = max(colony.longest_lease_s, lease_s)
        case Approved(key=key, role=role):
            colony.members[record.entity] = Member(record.entity, key, role, record.sequence, record.time)
        case Revoked():
            member = colony.members[record.entity]
            colony.members[record.entity] = replace(member, until=record.sequence, until_time=record.time)
        case Declared(conditions=conditions, priority=priority):
            colony.queues[record.entity] = Queue(record.entity, conditions, priority, record.sequence)
        case _:
            pass
