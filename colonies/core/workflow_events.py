"""What can happen to a workflow, a cron and a generator: one frozen class per fact, named in the past tense.

Who may say it and when it is true is `colonies.core.workflow`, `colonies.core.crons` and
`colonies.core.generators`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from colonies.core.flow import WorkflowSpecField
from colonies.core.node import Label, NodeField
from colonies.core.plain import at_most
from colonies.core.shapes import (
    CONFIG,
    MAX_COUNT,
    Digest,
    Int,
    Name,
    Reason,
    Text,
    Value,
    WorkflowId,
)
from colonies.core.trace import Trace

MAX_PARTS = 64  # of a workflow; each is an event of at most 1,000,000 bytes
MAX_PART_NODES = 10_000
MAX_REUSED = 20_000
MAX_PACKED = 1_000  # arguments in one event
MAX_CRON_CHARS = 256
MAX_ZONE_CHARS = 64
MAX_JITTER_S = 86_400
MAX_INTERVAL_S = 366 * 86_400
MAX_TRIGGER = 100_000  # arguments that one run of a generator takes

Parts = Annotated[list[Digest], at_most(MAX_PARTS)]
Time = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]  # ns


@dataclass(frozen=True, slots=True)
class Source:
    """What a workflow comes from, if not from a member's own hand: a cron or a generator, by the sequence
    of the event that added it.

    Of a cron, `due` (ns) is the time that this run is for; a run that a member wants now has none. `previous`
    is the run whose outputs it may use, `previous_due` the time that that one was for.
    Of a generator, `run` counts its runs from 0, `first` and `count` say which of its arguments, counted
    from 0, this one has, and `packs` are the sequences of the events that hold them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    kind: Literal["cron", "generator"]
    name: Name
    added: Int
    due: Time | None = None
    previous: WorkflowId | None = None
    previous_due: Time | None = None
    run: Int | None = None
    first: Int | None = None
    count: Int | None = None
    packs: Annotated[list[Int], at_most(MAX_TRIGGER)] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes of a workflow that is too large for one event. It means nothing until the workflow is
    submitted. `key` is that of the submission."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    nodes: Annotated[list[NodeField], at_most(MAX_PART_NODES)]
    key: Text | None = None
    type: Literal["workflow.part"] = "workflow.part"


@dataclass(frozen=True, slots=True)
class WorkflowSubmitted:
    """A workflow was submitted: `spec` with its nodes, or, of one that has a `source`, nothing but where it
    is.

    `parts` are the digests of the `part` events before it, whose nodes come before its own. `reuses` says of
    nodes whose results are taken from another workflow which process has them. `key` and `trace` as of a
    process.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    spec: WorkflowSpecField | None = None
    parts: Parts | None = None
    key: Text | None = None
    source: Source | None = None
    rerun_of: WorkflowId | None = None
    reuses: Annotated[dict[Label, WorkflowId], at_most(MAX_REUSED)] | None = None
    trace: Trace | None = None
    type: Literal["workflow.submitted"] = "workflow.submitted"


@dataclass(frozen=True, slots=True)
class WorkflowCancelled:
    """The nodes of a workflow that are not final shall not run, or not go on."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["workflow.cancelled"] = "workflow.cancelled"


@dataclass(frozen=True, slots=True)
class WorkflowSignalled:
    """A member told a workflow something: a name, and what goes with it. Nodes may wait for it."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    name: Name
    data: Value = None
    type: Literal["workflow.signalled"] = "workflow.signalled"


# --- crons and generators ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CronAdded:
    """A workflow shall run at certain times: `cron`, an expression of 5 or 6 fields in the time zone
    `zone`, or every `interval_s` seconds from the event on. Each run starts up to `jitter_s` later."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    spec: WorkflowSpecField
    cron: Annotated[str, Field(strict=True, min_length=1, max_length=MAX_CRON_CHARS)] | None = None
    interval_s: Annotated[float, Field(strict=True, ge=1, le=MAX_INTERVAL_S)] | None = None
    zone: Annotated[str, Field(strict=True, min_length=1, max_length=MAX_ZONE_CHARS)] = "UTC"
    jitter_s: Annotated[float, Field(strict=True, ge=0, le=MAX_JITTER_S)] = 0.0
    wait_previous: bool = False
    catch_up: Literal["none", "one", "all"] = "one"
    type: Literal["cron.added"] = "cron.added"


@dataclass(frozen=True, slots=True)
class CronPaused:
    """A cron shall not run, until it is resumed."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["cron.paused"] = "cron.paused"


@dataclass(frozen=True, slots=True)
class CronResumed:
    """A paused cron shall run again; what was due meanwhile is left out."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    type: Literal["cron.resumed"] = "cron.resumed"


@dataclass(frozen=True, slots=True)
class CronRemoved:
    """A cron is no more; its name may be used again. What it started goes on."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["cron.removed"] = "cron.removed"


@dataclass(frozen=True, slots=True)
class GeneratorAdded:
    """A workflow shall run whenever `trigger` arguments have been packed, or, `timeout_s` after the first of
    them, with those that are there."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    spec: WorkflowSpecField
    trigger: Annotated[int, Field(strict=True, ge=1, le=MAX_TRIGGER)]
    timeout_s: Annotated[float, Field(strict=True, ge=1, le=MAX_INTERVAL_S)] | None = None
    type: Literal["generator.added"] = "generator.added"


@dataclass(frozen=True, slots=True)
class GeneratorPacked:
    """Arguments for a generator's runs; `start` counts those before them, from 0."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    start: Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]
    args: Annotated[list[Value], at_most(MAX_PACKED)]
    type: Literal["generator.packed"] = "generator.packed"


@dataclass(frozen=True, slots=True)
class GeneratorRemoved:
    """A generator is no more; its name may be used again. What it started goes on."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    reason: Reason = ""
    type: Literal["generator.removed"] = "generator.removed"
