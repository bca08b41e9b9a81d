"""Everything that can happen in a colony: one frozen class per fact, named in the past tense.

The class says which data an event of its type carries, each with its limit; it never says who may say it or
when it is true (that is `colonies.core.rules` and `colonies.core.colony`). How an event travels is
`colonies.codec`. Times are nanoseconds since 1970 (UTC) unless a name says otherwise; durations end in `_s`
(seconds). Types are strict, so that readers in every language agree on what is an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, TypeAdapter
from pydantic_core import PydanticCustomError

from colonies.core.capacity import Capacity
from colonies.core.plain import at_most, encodable
from colonies.core.spec import Conditions, Spec
from colonies.errors import Invalid

Role = Literal["owner", "user", "worker", "observer", "service"]

MAX_REASON_CHARS = 1_000
MAX_ERROR_CHARS = 16_384
MAX_TEXT_CHARS = 256
MAX_DESCRIPTION_CHARS = 4_096
MAX_DELAY_S = 365 * 86_400
MAX_LEASE_S = 86_400.0
MIN_LEASE_S = 2.0
MAX_STORED_BYTES = 64 * 1024 * 1024
MAX_UNIX_S = 2**33  # in the year 2242; in nanoseconds it still fits into 63 bits
MAX_COUNT = 2**53 - 1  # the largest whole number that JSON readers in every language keep exactly
MAX_CONCURRENCY = 10_000
MAX_FUNCTIONS = 1_000
MAX_SCHEMA_KEYS = 1_000  # at its top
MAX_ROLES = 5
MAX_VALUE_LEVELS = 256  # of lists and objects in a value, so that no reader's stack ends before it


def _plain(value: Any) -> Any:
    """`value`, if it is made of what JSON has: readers of a result must not meet anything else.

    NaN and infinities are let through: Python's JSON has them, and a diverged loss is a result.
    """
    level, inner = 0, [value]
    while inner:
        if level > MAX_VALUE_LEVELS:
            raise PydanticCustomError(
                "nested", "it is nested deeper than {most} levels", {"most": MAX_VALUE_LEVELS}
            )
        level, outer, inner = level + 1, inner, []
        for item in outer:
            kind = type(item)
            if kind is dict:
                if not all(type(key) is str for key in item):
                    raise PydanticCustomError("key", "it has a key that is no text")
                inner += item.values()
            elif kind is list:
                inner += item
            elif item is not None and kind not in _SCALARS:
                raise PydanticCustomError("value", "it holds what JSON has not")
    return value


_SCALARS = frozenset({str, int, float, bool})

Id = Annotated[str, Field(strict=True, pattern=r"\A[0-7][0-9A-HJKMNP-TV-Z]{25}\z")]  # a ULID
Name = Annotated[str, Field(strict=True, pattern=r"\A[A-Za-z0-9_-]{1,64}\z")]
MemberName = Annotated[str, Field(strict=True, pattern=r"\A[a-z0-9][a-z0-9_-]{0,31}\z")]
Text = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_TEXT_CHARS)]
Reason = Annotated[str, Field(strict=True, max_length=MAX_REASON_CHARS)]
Digest = Annotated[str, Field(strict=True, pattern=r"\A[0-9a-f]{64}\z")]  # SHA-256
Key = Annotated[str, Field(strict=True, pattern=r"\A[A-Z2-7]{56}\z")]  # a public nkey; sound: codec
Int = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]
UnixSeconds = Annotated[int, Field(strict=True, ge=1, le=MAX_UNIX_S)]
Signature = Annotated[bytes, Field(strict=True, min_length=64, max_length=64)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=MAX_DELAY_S, allow_inf_nan=False)]
Lease = Annotated[float, Field(strict=True, ge=MIN_LEASE_S, le=MAX_LEASE_S, allow_inf_nan=False)]
Value = Annotated[Any, AfterValidator(_plain)]
Schema = Annotated[dict[str, Any], at_most(MAX_SCHEMA_KEYS), AfterValidator(_plain)]

_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


@dataclass(frozen=True, slots=True)
class Ref:
    """A value that is too large for an event: where the Object Store keeps it, and what it must hash to."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    sha256: Digest
    size_bytes: Annotated[int, Field(strict=True, ge=0, le=MAX_STORED_BYTES)]
    object: Annotated[str, Field(strict=True, pattern=r"\A[a-z0-9_-]{1,32}\.[A-Za-z0-9]{1,32}\z")]


@dataclass(frozen=True, slots=True)
class LogDigest:
    """What an attempt wrote to LOGS: how many messages, and the SHA-256 over their bytes in order."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    count: Int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a worker offers: its description and the JSON schema of its arguments."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    name: Text
    description: Annotated[str, Field(strict=True, max_length=MAX_DESCRIPTION_CHARS)] = ""
    schema: Schema | None = None


# --- the colony and its members ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first event of a ledger, signed by the colony's account key: where trust starts."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    name: Name
    owner: MemberName
    owner_key: Key
    roles: Annotated[dict[Role, Key], at_most(MAX_ROLES)]
    lease_s: Lease
    type: Literal["colony.genesis"] = "colony.genesis"


@dataclass(frozen=True, slots=True)
class Configured:
    """The owner changed the colony's lease."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    lease_s: Lease
    type: Literal["colony.configured"] = "colony.configured"


@dataclass(frozen=True, slots=True)
class Approved:
    """A key is a member from here on, up to the ledger time `expires_unix_s`. The name is in the subject."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    key: Key
    role: Role
    expires_unix_s: UnixSeconds | None = None
    type: Literal["member.approved"] = "member.approved"


@dataclass(frozen=True, slots=True)
class Rotated:
    """A member changed its key: from here on `key` counts, and `former` no more. Both consented, by signing
    `colonies.codec.consent_to`. Without `expires_unix_s` it ends when the former key would have."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    key: Key
    former: Key
    consent: Signature
    former_consent: Signature
    expires_unix_s: UnixSeconds | None = None
    type: Literal["member.rotated"] = "member.rotated"


@dataclass(frozen=True, slots=True)
class Revoked:
    """A member's key counts no more from here on; what it said before stays valid."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    reason: Reason = ""
    type: Literal["member.revoked"] = "member.revoked"


# --- queues and workers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declared:
    """A queue exists from here on: what its processes need and how urgent they are."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    conditions: Conditions
    priority: Annotated[int, Field(strict=True, ge=-9, le=9)]
    type: Literal["queue.declared"] = "queue.declared"


@dataclass(frozen=True, slots=True)
class Retired:
    """A queue that nobody used is no more; whoever submits to it declares it again. `floor` is a sequence up
    to which nothing in it is open."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    floor: Int
    type: Literal["queue.retired"] = "queue.retired"


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """An instance of a worker is up: what it runs, what it offers, what it has for all that runs there."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    instance: Name
    runtimetype: Name
    concurrency: Annotated[int, Field(strict=True, ge=1, le=MAX_CONCURRENCY)]
    functions: Annotated[list[Function], at_most(MAX_FUNCTIONS)]
    has: Capacity | None = None
    type: Literal["worker.started"] = "worker.started"


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """An instance of a worker left in good order."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    instance: Name
    type: Literal["worker.stopped"] = "worker.stopped"


# --- the life of a process --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queued:
    """A process was submitted and offered. `key` is set where the id derives from submitter and key.

    Arguments that are too large for the event are in `arguments`, and then the spec has none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    spec: Spec
    key: Text | None = None
    arguments: Ref | None = None
    type: Literal["process.queued"] = "process.queued"


@dataclass(frozen=True, slots=True)
class Requeued:
    """A process was offered again: after a backoff, because nobody took its offer, or its worker fell silent.

    `cites` is the sequence of the valid event that makes this true: the failed attempt, the offer, or the
    holder's last sign.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    cites: Int
    type: Literal["process.requeued"] = "process.requeued"


@dataclass(frozen=True, slots=True)
class Assigned:
    """A worker took an offer (`offer` is that event's id) and has `lease_s` to show a sign of life."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    offer: Id
    lease_s: Lease
    instance: Name
    type: Literal["process.assigned"] = "process.assigned"


@dataclass(frozen=True, slots=True)
class Renewed:
    """The holder of an attempt (`attempt` is the id of its `assigned`) is still at it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    attempt: Id
    type: Literal["process.renewed"] = "process.renewed"


@dataclass(frozen=True, slots=True)
class Returned:
    """A worker gave a running process back unfinished. It does not count as a failure."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    attempt: Id
    reason: Reason = ""
    type: Literal["process.returned"] = "process.returned"


@dataclass(frozen=True, slots=True)
class Completed:
    """An attempt succeeded; the output is here or, when it is large, in `stored`."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    attempt: Id
    output: Value = None
    stored: Ref | None = None
    logs: LogDigest | None = None
    type: Literal["process.completed"] = "process.completed"


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt failed. `kind` decides what follows:

    `error` and `timeout` count against `maxretries`, `final` ends the process, `later` waits without
    counting. `delay_s` is how long the next attempt waits, chosen by the worker (backoff with jitter).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    attempt: Id
    error: Annotated[str, Field(strict=True, max_length=MAX_ERROR_CHARS)]
    kind: Literal["error", "timeout", "final", "later"] = "error"
    delay_s: Seconds = 0.0
    stored: Ref | None = None
    logs: LogDigest | None = None
    type: Literal["process.failed"] = "process.failed"


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Too many attempts in a row lost their worker: the process is failed."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    type: Literal["process.poisoned"] = "process.poisoned"


@dataclass(frozen=True, slots=True)
class Expired:
    """Nobody took the process within its `maxwaittime`: it is failed."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    type: Literal["process.expired"] = "process.expired"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The process shall not run, or not go on."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG
    reason: Reason = ""
    type: Literal["process.cancelled"] = "process.cancelled"


ProcessEvent = (
    Queued | Requeued | Assigned | Renewed | Returned | Completed | Failed | Poisoned | Expired | Cancelled
)
ColonyEvent = Genesis | Configured | Approved | Rotated | Revoked
Event = ProcessEvent | ColonyEvent | Declared | Retired | WorkerStarted | WorkerStopped

EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Discriminator("type")])


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
