"""What the views answer beside processes and workflows, as types; see `answers`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import Field

from colonies.core.crons import CronState
from colonies.core.shapes import Role
from colonies.core.workflow import WorkflowState
from colonies_projections.http.answers import (
    Count,
    LeftOut,
    Node,
    Pause,
    Process,
    Said,
    Seconds,
    Time,
    WorkflowItem,
)

T = TypeVar("T")

# --- queues, workers, functions ---------------------------------------------------------------------


class Lacking(Said):
    """What a worker lacks to take from a queue."""

    worker: str
    misses: list[str]


class Queue(Said):
    """The processes that need the same thing."""

    id: str
    runtimetype: str
    priority: int
    conditions: dict[str, Any]
    waiting: Count
    oldest: Time | None
    """Since when the oldest waits."""
    running: Count
    blocked: Count
    workers: list[str]
    """Living workers that could take from it."""
    lacking: list[Lacking]
    """If there are none: what the nearest lack."""
    drained: list[str]
    """Those of `workers` that are drained."""
    paused: Pause | None
    last_taken_by: str | None
    last_taken_at: Time | None


class Instance(Said):
    """A running worker, or one that ran."""

    name: str
    instance: str
    runtimetype: str
    concurrency: int
    state: Literal["alive", "lost", "stopped"]
    started_at: Time
    last_seen: Time
    running: list[str]
    """Ids of the processes that it runs."""
    has: dict[str, Any] | None
    """What it has for them: `cpu`, `mem`, `gpus` ..."""
    functions: list[str]
    drained: Pause | None
    left_out: LeftOut = Field(default_factory=list)


class Times(Said):
    """How long something took. Percentiles are at most 3.2 percent off."""

    number: Count
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    sum_s: float = 0.0
    """With `histogram=yes`."""
    histogram: list[tuple[float, int]] = Field(default_factory=list)
    """With `histogram=yes`: pairs of seconds, and how many took less but no less than the pair before."""


class _Ends(Said):
    """Processes by how they ended, and how long their attempts waited and ran."""

    successful: Count
    failed: Count
    cancelled: Count
    skipped: Count
    wait: Times
    run: Times


class Holder(Said):
    """An instance that has a function."""

    worker: str
    instance: str
    state: Literal["alive", "lost", "stopped"]
    schema_: Annotated[str | None, Field(alias="schema")]
    """The digest of what it says of it."""


class FunctionSchema(Said):
    """What workers said of a function."""

    digest: str
    sequence: int
    description: str
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")]
    """A JSON Schema of its arguments."""
    left_out: LeftOut = Field(default_factory=list)


class Function(_Ends):
    """A name and a runtime type that workers have or processes ask for."""

    name: str
    runtimetype: str
    alive: Count
    """Living instances that have it."""
    holders: list[Holder]
    schemas: list[FunctionSchema]
    submitted: Count
    open: Count
    running: Count
    attempts: Count
    failures: Count
    lost: Count
    retries: Count
    first_at: Time | None
    last_at: Time | None


class Statistics(_Ends):
    """What happened in a time."""

    start: Time | None
    """Null: the ledger's beginning."""
    end: Time | None
    """Null: its end."""
    func: str | None
    runtimetype: str | None
    submitted: Count
    started: Count
    retries: Count
    attempts_successful: Count
    attempts_failed: Count
    attempts_timeout: Count
    attempts_later: Count
    attempts_returned: Count
    attempts_lost: Count
    attempts_cancelled: Count


# --- members, crons, generators ---------------------------------------------------------------------


class Member(Said):
    """An identity of the colony."""

    name: str
    role: Role
    state: Literal["active", "expired", "revoked"]
    key: str
    """The public key that counts, or counted last."""
    approved_by: str
    approved_at: Time
    expires_at: Time | None
    rotated_by: str | None
    rotated_at: Time | None
    revoked_by: str | None
    revoked_at: Time | None
    revoked_reason: str | None
    last_said_at: Time | None
    """Its last event on the ledger; null with `at`."""


class _Run(Said):
    """A workflow that was submitted by one of these. What is null is not known by the views."""

    id: str
    state: WorkflowState | None
    submitted_at: Time | None
    ended_at: Time | None


class CronRun(_Run):
    """A run of a cron."""

    due: Time | None
    """Null: somebody ran it by hand."""


class Cron(Said):
    """What submits workflows by time."""

    sequence: int
    name: str
    state: CronState
    author: str
    cron: str | None
    interval_s: float | None
    timezone: str | None
    jitter_s: float | None
    wait_previous: bool
    catch_up: str | None
    nodes: list[str]
    added_at: Time
    changed_by: str | None
    changed_at: Time | None
    reason: str | None
    next: Time | None
    """When it is due next; null if it is not active."""
    runs: list[CronRun]
    """The last 5."""


class GeneratorRun(_Run):
    """A run of a generator."""

    run: int
    count: int
    """Arguments that went into it."""


class Generator(Said):
    """What submits workflows by count."""

    sequence: int
    name: str
    state: Literal["active", "removed"]
    author: str
    trigger: int
    timeout_s: float | None
    nodes: list[str]
    packed: Count
    packed_at: Time | None
    added_at: Time
    removed_by: str | None
    removed_at: Time | None
    reason: str | None
    submitted: Count
    """Arguments that went into runs."""
    runs_submitted: Count
    runs: list[GeneratorRun]
    """The last 5."""


# --- findings, logs, projectors ---------------------------------------------------------------------


class Finding(Said):
    """A message of the ledger that does not count. Nothing in it is believed."""

    sequence: int
    verdict: Literal["void", "quarantined"]
    time: Time
    kind: str | None
    entity: str | None
    event: str
    subject: str
    author: str | None
    """Who signed it; null if no member of that point did."""
    rule: str
    size_bytes: int


class LogLine(Said):
    """A line of what a process wrote."""

    time: Time
    process: str
    func: str | None
    workflow: str | None
    worker: str
    attempt: int
    stream: str
    """`stdout`, `stderr`, `log`, or what the function called it; `refused`, `stopped`: the worker's."""
    text: str
    sequence: int
    """Of its message in LOGS."""
    line: int
    """Its place in the message, from 0 on."""


class Standing(Said):
    """How one view of one projector stands."""

    view: str
    version: int
    projector: str
    position: int
    """The last sequence that it has."""
    last: int
    lag_events: Count
    lag_s: Seconds
    at_time: Time | None
    state: Literal["ready", "rebuilding", "broken"]
    rebuilt: int | None
    """How far the views are that are being built beside it."""
    error: str | None = None
    rows: int | None
    checksum: str | None
    counted_at: int | None
    stream: str = ""
    """Of what stands beside the ledger: the stream that its sequences are of."""
    left_out: int = 0
    """Of logs: messages that are not believed."""


# --- lists ------------------------------------------------------------------------------------------


class Page(Said, Generic[T]):
    """Items of a view."""

    items: list[T]
    position: int
    """The sequence of the ledger up to which the view knows it."""
    cursor: str = ""
    """If there is more: what to ask with, to go on."""
    cut: bool = False
    """There is more, and this view has no pages: ask for fewer."""


class Standings(Said):
    """How each view of each projector stands."""

    items: list[Standing]


class ProcessPage(Page[Process]): ...


class InstancePage(Page[Instance]): ...


class QueuePage(Page[Queue]): ...


class WorkflowPage(Page[WorkflowItem]): ...


class NodePage(Page[Node]): ...


class StatisticsPage(Page[Statistics]): ...


class FunctionPage(Page[Function]): ...


class MemberPage(Page[Member]): ...


class CronPage(Page[Cron]): ...


class GeneratorPage(Page[Generator]): ...


class FindingPage(Page[Finding]): ...


class LogPage(Page[LogLine]): ...


class AnyPage(Page[dict[str, Any]]): ...


PAGES: Final[dict[str, type[Page[Any]]]] = {
    "processes": ProcessPage,
    "workers": InstancePage,
    "queues": QueuePage,
    "workflows": WorkflowPage,
    "nodes": NodePage,
    "statistics": StatisticsPage,
    "functions": FunctionPage,
    "members": MemberPage,
    "crons": CronPage,
    "generators": GeneratorPage,
    "findings": FindingPage,
    "logs": LogPage,
}
"""What a page of each of our views is."""
