"""What is answered, as types: the schemas of the OpenAPI description, from which others generate clients.

Nothing is made from these: what a projector or the ledger says goes out as it is. The tests hold real
answers against them. A field that is not always there has a default; a client must bear new fields. The rows
of the other views are in `rows`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from colonies.core.states import Outcome, State
from colonies.core.workflow import WorkflowState

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(description="Seconds.")]
LeftOut = Annotated[
    list[str], Field(description="Fields that are told in part, or not at all, for their size.")
]


class Said(BaseModel):
    """An object as it goes out."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)


class Problem(Said):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    """What is wrong, and what would be right."""


class Health(Said):
    """Whether the server is ready."""

    status: Literal["ready", "not ready"]
    reasons: list[str]
    """Why it is not."""
    last_sequence: int | None
    """The last of the ledger."""
    followed_sequence: int
    """The last that this server has followed."""
    view_sequence: int | None
    """The last that the views have."""


class Pause(Said):
    """Who paused or drained something."""

    by: str
    since: Time
    reason: str | None


# --- processes --------------------------------------------------------------------------------------


class Attempt(Said):
    """One assignment of a process to a worker."""

    n: int
    """Its number, from 1 on."""
    worker: str
    instance: str
    started_at: Time
    ended_at: Time | None
    outcome: Outcome | None
    error: str | None
    code: str | None
    """The digest of the code that was run."""


class Process(Said):
    """One unit of work."""

    id: str
    state: State
    name: str | None
    func: str
    args: list[Any] | None
    """Null: they are in `left_out`."""
    runtimetype: str
    label: str | None
    workflow: str | None
    """The id of the workflow that it is a node of."""
    node: str | None
    """Its name there."""
    priority: int
    submitter: str
    worker: str | None
    """That of the last attempt."""
    attempts: list[Attempt]
    submitted_at: Time
    started_at: Time | None
    ended_at: Time | None
    output: Any
    """Any JSON; null if there is none, or it is in `left_out`."""
    errors: list[str]
    left_out: LeftOut = Field(default_factory=list)


class Event(Said):
    """A message of the ledger with its verdict."""

    sequence: int
    time: Time
    event: str
    """Its type, such as `process.completed`."""
    entity: str
    """What it is about, such as `process 01JZY8...`."""
    author: str | None
    attempt: int | None
    """The number of the attempt that it is of."""
    verdict: Literal["valid", "void", "quarantined"]
    rule: str | None
    """Why it does not count."""
    detail: str | None


class CloudEvent(Said):
    """An event of the feed, as CloudEvents 1.0 has it."""

    specversion: Literal["1.0"]
    id: str
    """Its sequence."""
    source: str
    type: str
    """Such as `colonies.process.completed`; of what does not count, `colonies.void.process.completed`."""
    subject: str
    """Such as `process/01JZY8...`."""
    time: Time
    sequence: str
    """Its sequence with zeros before it, so that it sorts as text."""
    eventid: str = ""
    author: str = ""
    verdict: Literal["valid", "void", "quarantined"]
    rule: str = ""
    datacontenttype: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    """The event's own fields."""


class History(Said):
    """The events of a process, in the order of the ledger."""

    id: str
    events: list[Event]


# --- workflows --------------------------------------------------------------------------------------


class WorkflowItem(Said):
    """A workflow, in short."""

    id: str
    name: str | None
    label: str | None
    state: WorkflowState
    nodes: Count
    """Nodes, and parts of those that map, as far as is known."""
    done: Count
    failed: Count
    submitter: str
    source: str | None
    """What submitted it, such as `cron nightly`."""
    submitted_at: Time
    ended_at: Time | None


class Signal(Said):
    """What somebody told a workflow."""

    time: Time
    by: str
    name: str
    data: Any


class WorkflowProcess(Said):
    """A node of a workflow, or a part of one that maps."""

    node: str
    process: str
    """The id of its process."""
    state: State
    func: str | None
    """Null where it waits for a signal."""
    runtimetype: str | None
    parents: list[str]
    wait_signal: str | None
    finally_: Annotated[bool, Field(alias="finally")]
    attempts: Count
    worker: str | None
    started_at: Time | None
    ended_at: Time | None
    reused: bool
    """Whether its result was taken over from an earlier run."""
    error: str | None


class Workflow(Said):
    """A workflow with all of its nodes."""

    id: str
    name: str | None
    state: WorkflowState
    nodes: Count
    done: Count
    failed: Count
    submitter: str
    submitted_at: Time
    ended_at: Time | None
    label: str | None
    parameters: dict[str, Any]
    on_failure: str
    rerun_of: str | None
    cancelled_by: str | None
    reason: str | None
    signals: list[Signal]
    processes: list[WorkflowProcess]


class Node(Said):
    """A node, or a part of one that maps, as the view of nodes has it."""

    label: str
    """`each[3]` is a part of the node `each`."""
    node: str
    state: State
    process: str
    func: str | None
    """Null where it waits for a signal."""
    runtimetype: str | None
    signal: str | None
    maps: bool
    parents: list[str]
    worker: str | None
    attempts: Count
    submitted_at: Time | None
    started_at: Time | None
    ended_at: Time | None
