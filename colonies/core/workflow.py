"""The life of a workflow, and what readers must know of others to judge one event.

    part* ──> submitted ──> signalled* ──> cancelled
                (a workflow's state is that of its nodes: `state_of`)

`judge` says whether an event of a workflow could be true where it stands, `evolve` applies a valid one and
never refuses. `Known` is what a verifier brings along to judge what cites something: workflows, how
processes ended, crons and generators. The rules of its nodes are `colonies.core.dag`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from colonies.core import rerun
from colonies.core.colony import Colony
from colonies.core.dag import Dag
from colonies.core.ends import End
from colonies.core.events import (
    MAX_PARTS,
    VALID,
    Part,
    Record,
    Source,
    Verdict,
    WorkflowCancelled,
    WorkflowSignalled,
    WorkflowSubmitted,
    denied,
    quarantined,
)
from colonies.core.flow import MAX_NODES, WorkflowSpec
from colonies.core.node import Node, split
from colonies.core.states import (
    ULID,
    Process,
    Signal,
    Successful,
    derived_id,
    keyed_id,
)
from colonies.core.trace import Trace
from colonies.errors import Invalid

if TYPE_CHECKING:
    from colonies.core.crons import Cron

WorkflowState = Literal["running", "successful", "failed", "cancelled"]

MAX_SIGNALS = 1_000  # of one workflow, or of one process
IDS_KEPT = 16_384  # of nodes: each is asked for some ten times in a moment; about 4 MB


@dataclass(frozen=True, slots=True)
class Gathering:
    """Parts of a workflow that is not submitted yet: it is not there."""

    id: str
    head: bytes
    time: int
    parts: tuple[tuple[bytes, tuple[Node, ...]], ...]
    author: str


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow as the ledger tells it. `sequence` and `submitted_at` (ns) are those of its `submitted`,
    `head` and `time` those of its last valid event. `reuses` says by label which process has a result
    already."""

    id: str
    spec: WorkflowSpec
    submitter: str
    sequence: int
    submitted_at: int
    head: bytes
    time: int
    cancelled_at: int | None = None
    cancelled_by: str | None = None
    reason: str = ""
    signals: tuple[Signal, ...] = ()
    key: str | None = None
    source: Source | None = None
    rerun_of: str | None = None
    reuses: Mapping[str, str] | None = None
    packed: tuple[Any, ...] = ()
    trace: Trace | None = None

    def process_of(self, label: str) -> str:
        """The id of the process that is this node or part: its own, or the one whose result it takes."""
        return (self.reuses or {}).get(label) or node_id(self.id, label)

    def signal(self, name: str, before: int | None = None) -> Signal | None:
        """The first signal of that name, if it came before this sequence."""
        for found in self.signals:
            if found.name == name and (before is None or found.sequence < before):
                return found
        return None


class Known(Protocol):
    """What a verifier knows of others than the one it judges, each judged itself."""

    def workflow(self, id: str) -> Workflow | None: ...

    def process(self, id: str) -> Process | None: ...

    def cron(self, name: str) -> Cron | None: ...

    def sourced(self, source: Source, record: Record) -> Sourced | Verdict:
        """What a run of a cron or generator has from it; or why it has nothing."""


@dataclass(frozen=True, slots=True)
class Sourced:
    """What a workflow has from its cron or generator: the spec, who added it, the arguments packed for this
    run."""

    spec: WorkflowSpec
    submitter: str
    packed: tuple[Any, ...] = ()


class Nothing:
    """Knows of nobody."""

    def workflow(self, id: str) -> Workflow | None:
        return None

    def process(self, id: str) -> Process | None:
        return None

    def cron(self, name: str) -> Cron | None:
        return None

    def sourced(self, source: Source, record: Record) -> Sourced | Verdict:
        return quarantined(f"there is no {source.kind} {source.name} before it")


NOTHING = Nothing()


@lru_cache(maxsize=IDS_KEPT)
def node_id(workflow: str, label: str) -> str:
    """The id of the process that a node, or a part of one that maps, is."""
    return derived_id("node", workflow, label)


def end_of(process: Process) -> End | None:
    """How a process ended; None if it has not."""
    phase = process.phase
    if not process.final:
        return None
    common = (process.id, process.sequence, process.time, process.state)
    last = process.attempts[-1].worker if process.attempts else None
    if isinstance(phase, Successful):
        stored = phase.stored is not None
        return End(*common, last, phase.output, stored, phase.items, phase.adds, phase.between)
    return End(*common, last)


def dag_of(workflow: Workflow, known: Known, *, before: int | None = None) -> Dag:
    """The workflow's rules as they were before this sequence."""

    def ends(label: str) -> End | None:
        process = known.process(workflow.process_of(label))
        if process is None or not process.final or (before is not None and process.sequence >= before):
            return None
        return end_of(process)

    cancelled = workflow.cancelled_at
    if cancelled is not None and before is not None and cancelled >= before:
        cancelled = None
    return Dag(workflow.spec, workflow.sequence, workflow.submitted_at, ends, cancelled, workflow.packed)


def state_of(workflow: Workflow, ends: Iterable[tuple[Node, End | None]]) -> WorkflowState:
    """The state of a workflow of these nodes and parts, each with its end if it has one."""
    ended = list(ends)
    if any(end is None for _, end in ended):
        return "running"
    wrong = [
        end
        for node, end in ended
        if end is not None and not node.allow_failure and end.state in ("failed", "cancelled")
    ]
    cancelled = [end.sequence for end in wrong if end.state == "cancelled"]
    # A cancel that came when all had ended changes nothing: final is final.
    if workflow.cancelled_at is not None and max(cancelled, default=0) > workflow.cancelled_at:
        return "cancelled"
    return "failed" if wrong else "successful"


# --- the workflow's own events ----------------------------------------------------------------------

Held = Gathering | Workflow


def judge(held: Held | None, record: Record, colony: Colony, known: Known) -> Verdict:
    """Could this event of a workflow be true here? Never raises."""
    event = record.event
    if record.prev != (held.head if held is not None else None):
        return quarantined("its prev is not the digest of the workflow's last valid event")
    if isinstance(event, Part | WorkflowSubmitted):
        if isinstance(held, Workflow):
            return quarantined("the workflow is submitted already")
        if held is not None and held.author != record.author:
            return quarantined(f"its parts are those of {held.author}")
        if isinstance(event, Part):
            return _part(held, record, event)
        return _submitted(held, record, event, colony, known)
    if not isinstance(held, Workflow):
        return quarantined("the workflow has no valid submission before it")
    if isinstance(event, WorkflowCancelled):
        return _cancelled(held, record)
    if isinstance(event, WorkflowSignalled):
        if record.role not in ("user", "owner"):
            return denied(f"the role {record.role} sends no signals")
        if len(held.signals) >= MAX_SIGNALS:
            return quarantined(f"the workflow has {MAX_SIGNALS} signals, and takes no more")
        return VALID
    return quarantined(f"{event.type} is not an event of a workflow")


def _part(held: Gathering | None, record: Record, event: Part) -> Verdict:
    if record.role not in ("user", "owner"):
        return denied(f"the role {record.role} submits no workflows of its own")
    if (wrong := _wrong_id(record, event.key)) is not None:
        return wrong
    before = held.parts if held is not None else ()
    if len(before) >= MAX_PARTS:
        return quarantined(f"the workflow has {MAX_PARTS} parts, and takes no more")
    if sum(len(nodes) for _, nodes in before) + len(event.nodes) > MAX_NODES:
        return quarantined(f"its parts have more than {MAX_NODES} nodes")
    return VALID


def _wrong_id(record: Record, key: str | None) -> Verdict | None:
    # One form of id for each origin, so that nobody takes the place of another's keyed workflow in advance.
    if key is None and not ULID.match(record.entity):
        return quarantined("the id of a plain workflow is a ULID")
    if key is not None and record.entity != workflow_key(record.author, key):
        return quarantined("the id does not derive from the submitter and the key")
    return None


def _submitted(
    held: Gathering | None, record: Record, event: WorkflowSubmitted, colony: Colony, known: Known
) -> Verdict:
    if event.source is not None:
        return _sourced(held, record, event, known)
    if record.role not in ("user", "owner"):
        return denied(f"the role {record.role} submits no workflows of its own")
    if (wrong := _wrong_id(record, event.key)) is not None:
        return wrong
    try:
        spec = _whole(held, event)
    except Invalid as error:
        return quarantined(f"it is no workflow: {str(error).splitlines()[0]}")
    for node in spec.nodes:
        named = node.spec.colony if node.spec is not None else None
        if named is not None and named not in (colony.name, colony.key):
            return quarantined(f"node {node.name} is for the colony {named}, this is {colony.name}")
    return _reusing(record, event, spec, known)


def _sourced(held: Gathering | None, record: Record, event: WorkflowSubmitted, known: Known) -> Verdict:
    """What comes from a cron or generator holds nothing of its own."""
    assert event.source is not None
    if record.role not in ("service", "user", "owner"):
        return denied(f"the role {record.role} submits no workflows")
    own = event.spec or event.parts or event.key or event.reuses or event.rerun_of or event.trace
    if held is not None or own:
        return quarantined("what comes from a cron or generator has no spec of its own")
    found = known.sourced(event.source, record)
    return found if isinstance(found, Verdict) else VALID


def _reusing(record: Record, event: WorkflowSubmitted, spec: WorkflowSpec, known: Known) -> Verdict:
    """Results are taken from processes of one other workflow that were successful, each for its own node."""
    if not event.reuses:
        return VALID
    before = known.workflow(event.rerun_of) if event.rerun_of is not None else None
    if before is None or before.sequence >= record.sequence:
        return quarantined("it takes results from a workflow that is not there")
    for label, process in event.reuses.items():
        if process != before.process_of(label):
            return quarantined(f"node {label}: {process} is not that node of workflow {before.id}")
        found = known.process(process)
        if found is None or found.sequence >= record.sequence or found.state not in ("successful", "skipped"):
            return quarantined(f"node {label}: process {process} was not successful")
    # Else somebody would show what was never run as the work of whoever ran something else.
    old = rerun.unpacked(before.spec, before.packed)
    for name in dict.fromkeys(split(label)[0] for label in event.reuses):
        if (why := rerun.another(name, spec, old, event.reuses)) is not None:
            return quarantined(f"node {name}: {why}")
    return VALID


def _cancelled(held: Workflow, record: Record) -> Verdict:
    if held.cancelled_at is not None:
        return quarantined("the workflow is cancelled already")
    if record.role == "owner" or (record.role == "user" and record.author == held.submitter):
        return VALID
    return denied(f"only {held.submitter} or an owner may cancel the workflow")


def workflow_key(submitter: str, key: str) -> str:
    """The workflow id that a submitter's idempotency key stands for."""
    return keyed_id(submitter, f"workflow\0{key}")


def _whole(held: Gathering | None, event: WorkflowSubmitted) -> WorkflowSpec:
    """The spec with the nodes of its parts. Raises Invalid."""
    if event.spec is None:
        raise Invalid("it has neither a spec nor a source")
    if not event.parts:
        return event.spec.checked()
    there = {digest.hex(): nodes for digest, nodes in (held.parts if held is not None else ())}
    missing = [digest for digest in event.parts if digest not in there]
    if missing:
        raise Invalid(f"its part {missing[0]} is not before it")
    before = tuple(node for digest in event.parts for node in there[digest])
    return replace(event.spec, nodes=(*before, *event.spec.nodes)).checked()


def evolve(held: Held | None, record: Record, known: Known) -> Held:
    """The workflow after a valid event."""
    event, head, time = record.event, record.digest, record.time
    match event:
        case Part(nodes=nodes):
            before = held.parts if isinstance(held, Gathering) else ()
            parts = (*before, (head, tuple(nodes)))
            return Gathering(record.entity, head, time, parts, record.author)
        case WorkflowSubmitted():
            return _begun(held, record, event, known)
        case WorkflowCancelled(reason=reason):
            assert isinstance(held, Workflow)
            return replace(
                held,
                head=head,
                time=time,
                cancelled_at=record.sequence,
                cancelled_by=record.author,
                reason=reason,
            )
        case WorkflowSignalled(name=name, data=data):
            assert isinstance(held, Workflow)
            signal = Signal(record.sequence, time, record.author, name, data)
            return replace(held, head=head, time=time, signals=(*held.signals, signal))
        case _:
            raise AssertionError(f"not an event of a workflow: {event.type}")


def _begun(held: Held | None, record: Record, event: WorkflowSubmitted, known: Known) -> Workflow:
    packed: tuple[Any, ...] = ()
    if event.source is not None:
        found = known.sourced(event.source, record)
        assert not isinstance(found, Verdict)
        spec, submitter, packed = found.spec, found.submitter, found.packed
    else:
        assert not isinstance(held, Workflow)
        spec, submitter = _whole(held, event), record.author
    return Workflow(
        id=record.entity,
        spec=spec,
        submitter=submitter,
        sequence=record.sequence,
        submitted_at=record.time,
        head=record.digest,
        time=record.time,
        key=event.key,
        source=event.source,
        rerun_of=event.rerun_of,
        reuses=event.reuses,
        packed=packed,
        trace=event.trace,
    )


def is_final(state: str) -> bool:
    return state in ("successful", "failed", "cancelled", "skipped")
