"""What can happen to a colony itself: its settings, its members, its queues and its workers.

One frozen class per fact, named in the past tense. Who may say it and when it is true is
`colonies.core.colony`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from colonies.core.capacity import Capacity
from colonies.core.plain import at_most
from colonies.core.shapes import (
    CONFIG,
    MAX_CONCURRENCY,
    MAX_FUNCTIONS,
    MAX_ROLES,
    Function,
    Int,
    Key,
    Lease,
    MemberName,
    Name,
    Reason,
    Role,
    Signature,
    Text,
    UnixSeconds,
    WorkflowId,
)
from colonies.core.spec import Conditions

MAX_GRANTED = 100  # places in one event

# --- the colony and its members ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first event of a ledger, signed by the colony's account key: where trust starts."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    name: Name
    owner: MemberName
    owner_key: Key
    roles: Annotated[dict[Role, Key], at_most(MAX_ROLES)]
    lease_s: Lease
    type: Literal["colony.genesis"] = "colony.genesis"


@dataclass(frozen=True, slots=True)
class Configured:
    """The owner changed the colony's lease."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    lease_s: Lease
    type: Literal["colony.configured"] = "colony.configured"


@dataclass(frozen=True, slots=True)
class ColonyPaused:
    """Nothing of the colony is handed out from here on; what runs goes on."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["colony.paused"] = "colony.paused"


@dataclass(frozen=True, slots=True)
class ColonyResumed:
    """The colony's work is handed out again."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["colony.resumed"] = "colony.resumed"


@dataclass(frozen=True, slots=True)
class Approved:
    """A key is a member from here on, up to the ledger time `expires_unix_s`. The name is in the subject."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    key: Key
    role: Role
    expires_unix_s: UnixSeconds | None = None
    type: Literal["member.approved"] = "member.approved"


@dataclass(frozen=True, slots=True)
class Rotated:
    """A member changed its key: from here on `key` counts, and `former` no more. Both consented, by signing
    `colonies.codec.consent_to`. Without `expires_unix_s` it ends when the former key would have."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    key: Key
    former: Key
    consent: Signature
    former_consent: Signature
    expires_unix_s: UnixSeconds | None = None
    type: Literal["member.rotated"] = "member.rotated"


@dataclass(frozen=True, slots=True)
class Revoked:
    """A member's key counts no more from here on; what it said before stays valid."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["member.revoked"] = "member.revoked"


# --- queues and workers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declared:
    """A queue exists from here on: what its processes need and how urgent they are."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    conditions: Conditions
    priority: Annotated[int, Field(strict=True, ge=-9, le=9)]
    type: Literal["queue.declared"] = "queue.declared"


@dataclass(frozen=True, slots=True)
class Retired:
    """A queue that nobody used is no more; whoever submits to it declares it again. `floor` is a sequence up
    to which nothing in it is open."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    floor: Int
    type: Literal["queue.retired"] = "queue.retired"


@dataclass(frozen=True, slots=True)
class QueuePaused:
    """Nothing of the queue is handed out from here on; what runs goes on."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["queue.paused"] = "queue.paused"


@dataclass(frozen=True, slots=True)
class QueueResumed:
    """The queue is handed out again."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["queue.resumed"] = "queue.resumed"


@dataclass(frozen=True, slots=True)
class Granted:
    """Processes have places under a key of their limits, by id with the sequence of their last event (0: a
    node that has none yet). They count toward a rate for `window_s` seconds."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    key: Text
    processes: Annotated[dict[WorkflowId, Int], at_most(MAX_GRANTED)]
    window_s: Int | None = None
    type: Literal["limit.granted"] = "limit.granted"


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """An instance of a worker is up: what it runs, what it offers, what it has for all that runs there."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    instance: Name
    runtimetype: Name
    concurrency: Annotated[int, Field(strict=True, ge=1, le=MAX_CONCURRENCY)]
    functions: Annotated[list[Function], at_most(MAX_FUNCTIONS)]
    has: Capacity | None = None
    type: Literal["worker.started"] = "worker.started"


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """An instance of a worker left in good order."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    instance: Name
    type: Literal["worker.stopped"] = "worker.stopped"


@dataclass(frozen=True, slots=True)
class WorkerDrained:
    """All instances of a worker shall take nothing more, from here on and after a restart; what runs goes
    on."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["member.drained"] = "member.drained"


@dataclass(frozen=True, slots=True)
class WorkerResumed:
    """A drained worker shall take processes again."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["member.resumed"] = "member.resumed"
