"""What can happen to a process: one frozen class per fact, named in the past tense.

Who may say it and when it is true is `colonies.core.rules`. Times are nanoseconds since 1970 (UTC) unless a
name says otherwise; durations end in `_s` (seconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from colonies.core.node import Label, NodeField
from colonies.core.plain import at_most
from colonies.core.shapes import (
    CONFIG,
    MAX_ERROR_CHARS,
    Digest,
    Id,
    Int,
    Lease,
    LogDigest,
    Name,
    Reason,
    Ref,
    Seconds,
    Text,
    Value,
    WorkflowId,
)
from colonies.core.spec import Spec
from colonies.core.trace import Trace

MAX_ADDED_NODES = 1_000  # by one attempt
MAX_CITES = 20_001  # the workflow's event, and the ends of all of its nodes

Cites = Annotated[list[Int], at_most(MAX_CITES)]


# --- the life of a process --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queued:
    """A process was submitted and offered. `key` is set where the id derives from submitter and key.

    Arguments that are too large for the event are in `arguments`, and then the spec has none. `trace` is
    where its submitter stood in a distributed trace.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    spec: Spec
    key: Text | None = None
    arguments: Ref | None = None
    trace: Trace | None = None
    type: Literal["process.queued"] = "process.queued"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A process was submitted and is not offered yet: its spec has a delay, a time or limits to wait for.

    The fields are those of `Queued`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    spec: Spec
    key: Text | None = None
    arguments: Ref | None = None
    trace: Trace | None = None
    type: Literal["process.submitted"] = "process.submitted"


@dataclass(frozen=True, slots=True)
class Released:
    """A node of a workflow is offered: its parents have ended so that it runs, and its delay is over.

    The spec is the workflow's. `node` is the node's label: its name, or `name[3]` for a part of one that
    maps. `cites` are sequences: that of the workflow's event, then those of the ends that decide,
    ascending.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    workflow: WorkflowId
    node: Label
    cites: Cites
    type: Literal["process.released"] = "process.released"


@dataclass(frozen=True, slots=True)
class Awaited:
    """A node that waits for a signal began to wait. The fields are those of `Released`."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    workflow: WorkflowId
    node: Label
    cites: Cites
    type: Literal["process.awaited"] = "process.awaited"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A node's condition, or that of its parents, does not hold: it does not run. Fields as of `Released`."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    workflow: WorkflowId
    node: Label
    cites: Cites
    type: Literal["process.skipped"] = "process.skipped"


@dataclass(frozen=True, slots=True)
class Received:
    """The signal that a node waits for has come; `cites` is the sequence of that event of the workflow."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    cites: Int
    type: Literal["process.received"] = "process.received"


@dataclass(frozen=True, slots=True)
class Signalled:
    """A member told a process that is not final something: a name, and what goes with it."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    name: Name
    data: Value = None
    type: Literal["process.signalled"] = "process.signalled"


@dataclass(frozen=True, slots=True)
class Requeued:
    """A process was offered again: after a backoff, because nobody took its offer, or its worker fell silent.

    `cites` is the sequence of the valid event that makes this true: the failed attempt, the offer, or the
    holder's last sign.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    cites: Int
    type: Literal["process.requeued"] = "process.requeued"


@dataclass(frozen=True, slots=True)
class Assigned:
    """A worker took an offer (`offer` is that event's id) and has `lease_s` to show a sign of life.

    `code` is the digest of the code that it is going to run, where it is a function with code of its own.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    offer: Id
    lease_s: Lease
    instance: Name
    code: Digest | None = None
    type: Literal["process.assigned"] = "process.assigned"


@dataclass(frozen=True, slots=True)
class Renewed:
    """The holder of an attempt (`attempt` is the id of its `assigned`) is still at it."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    attempt: Id
    type: Literal["process.renewed"] = "process.renewed"


@dataclass(frozen=True, slots=True)
class Returned:
    """A worker gave a running process back unfinished. It does not count as a failure."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    attempt: Id
    reason: Reason = ""
    type: Literal["process.returned"] = "process.returned"


@dataclass(frozen=True, slots=True)
class Completed:
    """An attempt succeeded; the output is here or, when it is large, in `stored`.

    `items` is the length of a stored output that is a list. `adds` are nodes that the process adds to its
    workflow, as its children; with `between`, its other children wait for them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    attempt: Id
    output: Value = None
    stored: Ref | None = None
    logs: LogDigest | None = None
    items: Int | None = None
    adds: Annotated[list[NodeField], at_most(MAX_ADDED_NODES)] | None = None
    between: Literal[True] | None = None
    type: Literal["process.completed"] = "process.completed"


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt failed. `kind` decides what follows:

    `error` and `timeout` count against `maxretries`, `final` ends the process, `later` waits without
    counting. `delay_s` is how long the next attempt waits, chosen by the worker (backoff with jitter).
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
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

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["process.poisoned"] = "process.poisoned"


@dataclass(frozen=True, slots=True)
class Expired:
    """Nobody took the process within its `maxwaittime`: it is failed."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["process.expired"] = "process.expired"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The process shall not run, or not go on.

    Of a node that has no event yet, `workflow` and `node` say which it is. The service says as well, in
    `cites`, the sequence of what makes it true: a parent's end, a failure that stops the workflow, or its
    cancel; and in `cause` the node that ended there, if one did.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    workflow: WorkflowId | None = None
    node: Label | None = None
    cites: Int | None = None
    cause: Label | None = None
    type: Literal["process.cancelled"] = "process.cancelled"
