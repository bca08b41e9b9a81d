"""Everything that can happen in a colony: the door to all events, and what is made of a stored one.

The class says which data an event of its type carries, each with its limit; it never says who may say it or
when it is true (that is `colonies.core.rules`, `colonies.core.workflow` and `colonies.core.colony`). How an
event travels is `colonies.codec`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, TypeAdapter

from colonies.core.colony_events import (
    MAX_GRANTED,
    Approved,
    ColonyPaused,
    ColonyResumed,
    Configured,
    Declared,
    Genesis,
    Granted,
    QueuePaused,
    QueueResumed,
    Retired,
    Revoked,
    Rotated,
    WorkerDrained,
    WorkerResumed,
    WorkerStarted,
    WorkerStopped,
)
from colonies.core.plain import encodable
from colonies.core.process_events import (
    MAX_ADDED_NODES,
    MAX_CITES,
    Assigned,
    Awaited,
    Cancelled,
    Completed,
    Expired,
    Failed,
    Poisoned,
    Queued,
    Received,
    Released,
    Renewed,
    Requeued,
    Returned,
    Signalled,
    Skipped,
    Submitted,
)
from colonies.core.shapes import (
    MAX_CONCURRENCY,
    MAX_COUNT,
    MAX_DELAY_S,
    MAX_DESCRIPTION_CHARS,
    MAX_ERROR_CHARS,
    MAX_FUNCTIONS,
    MAX_LEASE_S,
    MAX_REASON_CHARS,
    MAX_ROLES,
    MAX_SCHEMA_KEYS,
    MAX_STORED_BYTES,
    MAX_TEXT_CHARS,
    MAX_UNIX_S,
    MAX_VALUE_LEVELS,
    MIN_LEASE_S,
    SECOND,
    Digest,
    Function,
    Id,
    Int,
    Key,
    Lease,
    LogDigest,
    MemberName,
    Name,
    Reason,
    Ref,
    Role,
    Schema,
    Seconds,
    Signature,
    Text,
    UnixSeconds,
    Value,
    WorkflowId,
)
from colonies.core.trace import Trace, TraceParent
from colonies.core.values import struct
from colonies.core.webhook_events import (
    MAX_SEALED_BYTES,
    MAX_WEBHOOK_FILTERS,
    MAX_WEBHOOK_URL_CHARS,
    MIN_SEALED_BYTES,
    Filter,
    SealedSecret,
    WebhookAdded,
    WebhookChanged,
    WebhookEvent,
    WebhookRemoved,
    WebhookUrl,
)
from colonies.core.workflow_events import (
    MAX_CRON_CHARS,
    MAX_INTERVAL_S,
    MAX_JITTER_S,
    MAX_PACKED,
    MAX_PART_NODES,
    MAX_PARTS,
    MAX_REUSED,
    MAX_TRIGGER,
    MAX_ZONE_CHARS,
    CronAdded,
    CronPaused,
    CronRemoved,
    CronResumed,
    GeneratorAdded,
    GeneratorPacked,
    GeneratorRemoved,
    Part,
    Source,
    WorkflowCancelled,
    WorkflowSignalled,
    WorkflowSubmitted,
)
from colonies.errors import Conflict, Invalid, Refused

__all__ = [
    "EVENT",
    "MAX_ADDED_NODES",
    "MAX_CITES",
    "MAX_CONCURRENCY",
    "MAX_COUNT",
    "MAX_CRON_CHARS",
    "MAX_DELAY_S",
    "MAX_DESCRIPTION_CHARS",
    "MAX_ERROR_CHARS",
    "MAX_FUNCTIONS",
    "MAX_GRANTED",
    "MAX_INTERVAL_S",
    "MAX_JITTER_S",
    "MAX_LEASE_S",
    "MAX_PACKED",
    "MAX_PARTS",
    "MAX_PART_NODES",
    "MAX_REASON_CHARS",
    "MAX_REUSED",
    "MAX_ROLES",
    "MAX_SCHEMA_KEYS",
    "MAX_SEALED_BYTES",
    "MAX_STORED_BYTES",
    "MAX_TEXT_CHARS",
    "MAX_TRIGGER",
    "MAX_UNIX_S",
    "MAX_VALUE_LEVELS",
    "MAX_WEBHOOK_FILTERS",
    "MAX_WEBHOOK_URL_CHARS",
    "MAX_ZONE_CHARS",
    "MIN_LEASE_S",
    "MIN_SEALED_BYTES",
    "SECOND",
    "VALID",
    "Approved",
    "Assigned",
    "Awaited",
    "Cancelled",
    "ColonyEvent",
    "ColonyPaused",
    "ColonyResumed",
    "Completed",
    "Configured",
    "CronAdded",
    "CronPaused",
    "CronRemoved",
    "CronResumed",
    "Declared",
    "Digest",
    "Event",
    "Expired",
    "Failed",
    "Filter",
    "Function",
    "GeneratorAdded",
    "GeneratorPacked",
    "GeneratorRemoved",
    "Genesis",
    "Granted",
    "Id",
    "Int",
    "Key",
    "Lease",
    "LogDigest",
    "MemberName",
    "Name",
    "Part",
    "PlaceEvent",
    "Poisoned",
    "ProcessEvent",
    "QueuePaused",
    "QueueResumed",
    "Queued",
    "Reason",
    "Received",
    "Record",
    "Ref",
    "Released",
    "Renewed",
    "Requeued",
    "Retired",
    "Returned",
    "Revoked",
    "Role",
    "Rotated",
    "ScheduleEvent",
    "Schema",
    "SealedSecret",
    "Seconds",
    "Signalled",
    "Signature",
    "Skipped",
    "Source",
    "Submitted",
    "Text",
    "Trace",
    "TraceParent",
    "UnixSeconds",
    "Value",
    "Verdict",
    "WebhookAdded",
    "WebhookChanged",
    "WebhookEvent",
    "WebhookRemoved",
    "WebhookUrl",
    "WorkerDrained",
    "WorkerResumed",
    "WorkerStarted",
    "WorkerStopped",
    "WorkflowCancelled",
    "WorkflowEvent",
    "WorkflowId",
    "WorkflowSignalled",
    "WorkflowSubmitted",
    "checked_reason",
    "denied",
    "quarantined",
    "void",
]

ProcessEvent = (
    Queued
    | Submitted
    | Released
    | Awaited
    | Skipped
    | Received
    | Signalled
    | Requeued
    | Assigned
    | Renewed
    | Returned
    | Completed
    | Failed
    | Poisoned
    | Expired
    | Cancelled
)
ColonyEvent = Genesis | Configured | ColonyPaused | ColonyResumed | Approved | Rotated | Revoked
PlaceEvent = (
    Declared
    | Retired
    | QueuePaused
    | QueueResumed
    | Granted
    | WorkerStarted
    | WorkerStopped
    | WorkerDrained
    | WorkerResumed
)
WorkflowEvent = Part | WorkflowSubmitted | WorkflowCancelled | WorkflowSignalled
ScheduleEvent = (
    CronAdded | CronPaused | CronResumed | CronRemoved | GeneratorAdded | GeneratorPacked | GeneratorRemoved
)
Event = ProcessEvent | ColonyEvent | PlaceEvent | WorkflowEvent | ScheduleEvent | WebhookEvent

EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Discriminator("type")])


@struct
class Record:
    """A stored event, its signature checked, where it stands in the ledger.

    `sequence` and `time` (ns) are the broker's; `digest` is what the next event's `prev` must name.
    """

    sequence: int
    time: int
    kind: str
    entity: str
    queue: str | None
    author: str
    role: Role
    id: str
    prev: bytes | None
    digest: bytes
    event: Event


@struct
class Verdict:
    """What a verifier makes of a stored event: `valid`, `void` or `quarantined`, and by which rule.

    `denied`: the rule is about who said it, not about when.
    """

    kind: Literal["valid", "void", "quarantined"]
    rule: str = ""
    denied: bool = False

    @property
    def valid(self) -> bool:
        return self.kind == "valid"

    def require(self, what: str) -> None:
        """Nothing, if the event may be recorded now. `what` it is of goes into the message.

        Raises:
            Refused: its author may not say it.
            Conflict: it is not true of what it is said of, as that stands.
        """
        if self.denied:
            raise Refused(f"{what}: {self.rule}")
        if not self.valid:
            raise Conflict(f"{what}: {self.rule}")


VALID = Verdict("valid")


def checked_reason(reason: str, where: str = "reason") -> str:
    """A reason that an event can hold. Raises Invalid."""
    if len(reason) > MAX_REASON_CHARS:
        raise Invalid(f"{where}: it has {len(reason)} characters; at most {MAX_REASON_CHARS} are allowed")
    if not encodable(reason):
        raise Invalid(f"{where}: it holds half a surrogate pair; allowed: text that UTF-8 can hold")
    return reason


def quarantined(rule: str) -> Verdict:
    """The verdict on an event that could never be true. `rule` says which rule it breaks, in a sentence."""
    return Verdict("quarantined", rule)


def denied(rule: str) -> Verdict:
    """The verdict on an event that its author may not say at all."""
    return Verdict("quarantined", rule, denied=True)


def void(rule: str) -> Verdict:
    """The verdict on an event that was true when its author decided, and lost a race. Nobody is to blame."""
    return Verdict("void", rule)
