"""Which spans the events of the ledger make. Pure: it is given what `evolve` made of a process.

    workflow ──> process (node) ──> wait ... attempt, wait ... attempt
                 process ─────────> wait ... attempt

A span is told by the event that ends it. Its ids derive from the ledger (`colonies.core.trace`), so a span
that is told twice is the same. None holds arguments or outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from colonies.core.events import Record
from colonies.core.node import Node, split
from colonies.core.process import (
    Attempt,
    Awaiting,
    Blocked,
    CancelledForGood,
    FailedForGood,
    Process,
    Waiting,
)
from colonies.core.shapes import SECOND
from colonies.core.trace import Trace, own, span_id
from colonies.core.workflow import Workflow, WorkflowState

MAX_NAME_CHARS = 64
MAX_FUNC_CHARS = 256
MAX_ERROR_CHARS = 200

Given = str | int | float
_WRONG = ("failed", "timeout", "lost")


@dataclass(frozen=True, slots=True)
class Happening:
    """Something at one moment (ns) of a span."""

    name: str
    time: int
    attributes: Mapping[str, Given]


@dataclass(frozen=True, slots=True)
class Span:
    """One span. `at` is its own place in the trace, `parent` the id of the span above it; times in ns.

    `error` says that it went wrong, and how.
    """

    at: Trace
    parent: str | None
    name: str
    start: int
    end: int
    attributes: Mapping[str, Given]
    kind: Literal["internal", "consumer"] = "internal"
    error: str | None = None
    happenings: Sequence[Happening] = field(default=())


def spans_of(colony: str, before: Process | None, after: Process, record: Record) -> list[Span]:
    """The spans of a process that end with this event: `before` it, the process was another.

    `colony` is its public key. None, if whoever began the trace does not record it.
    """
    telling = _Telling(colony, after, record)
    if not telling.base.sampled or before is None:
        return telling.ended() if telling.base.sampled and after.final else []
    found = []
    if isinstance(before.phase, Waiting | Awaiting) and not isinstance(after.phase, Waiting | Awaiting):
        found.append(telling.waited(before.phase.since))
    if before.attempts and before.attempts[-1].ended_at is None:
        last = before.attempts[-1]
        over = [attempt for attempt in after.attempts[-2:] if attempt.id == last.id]
        found += [telling.attempted(attempt) for attempt in over if attempt.ended_at is not None]
    if after.final:
        found += telling.ended()
    return found


class _Telling:
    """Makes the spans of one process at one event."""

    def __init__(self, colony: str, process: Process, record: Record) -> None:
        self._colony = colony
        self._process = process
        self._record = record
        self.base = base_of(colony, process.trace, process.workflow, process.id)
        self._own = span_id(colony, "process", process.id)

    def waited(self, since: int) -> Span:
        """In its queue, or for its signal, until this event."""
        process, record = self._process, self._record
        return Span(
            self.base.at(span_id(self._colony, "wait", record.id)),
            self._own,
            "wait",
            since,
            record.time,
            _known({"colonies.process.id": process.id, "colonies.queue": process.queue or None}),
        )

    def attempted(self, attempt: Attempt) -> Span:
        process = self._process
        assert attempt.ended_at is not None
        happenings = []
        if isinstance(process.phase, Blocked):
            delay_s = (process.phase.until - attempt.ended_at) / SECOND
            happenings.append(Happening("backoff", attempt.ended_at, {"colonies.delay_s": delay_s}))
        return Span(
            self.base.at(span_id(self._colony, "attempt", attempt.id)),
            self._own,
            f"attempt {name_of(process)}",
            attempt.started_at,
            attempt.ended_at,
            _known(
                {
                    "colonies.process.id": process.id,
                    "colonies.attempt.id": attempt.id,
                    "colonies.attempt.n": attempt.n,
                    "colonies.worker": attempt.worker,
                    "colonies.instance": attempt.instance,
                    "colonies.outcome": attempt.outcome,
                }
            ),
            "consumer",
            _line(attempt.error or "") if attempt.outcome in _WRONG else None,
            happenings,
        )

    def ended(self) -> list[Span]:
        """The whole process."""
        process, phase = self._process, self._process.phase
        above = process.trace.span_id if process.trace is not None else None
        if process.workflow is not None:
            above = span_id(self._colony, "workflow", process.workflow)
        by = phase.by if isinstance(phase, CancelledForGood) else None
        return [
            Span(
                self.base.at(self._own),
                above,
                name_of(process),
                process.submitted_at,
                self._record.time,
                {**_described(process), **_known({"colonies.cancelled_by": by})},
                error=_line(phase.error) if isinstance(phase, FailedForGood) else None,
            )
        ]


def span_of_workflow(
    colony: str, workflow: Workflow, nodes: Sequence[Node], state: WorkflowState, end: int
) -> Span:
    """A whole workflow of these nodes and parts, which ended so at `end` (ns)."""
    base = base_of(colony, workflow.trace, workflow.id, "")
    source = f"{workflow.source.kind} {workflow.source.name}" if workflow.source is not None else None
    return Span(
        base.at(span_id(colony, "workflow", workflow.id)),
        workflow.trace.span_id if workflow.trace is not None else None,
        _line(workflow.spec.name or "workflow", MAX_NAME_CHARS),
        workflow.submitted_at,
        end,
        _known(
            {
                "colonies.workflow.id": workflow.id,
                "colonies.label": workflow.spec.label,
                "colonies.submitter": workflow.submitter,
                "colonies.source": source,
                "colonies.rerun_of": workflow.rerun_of,
                "colonies.nodes": len(nodes),
                "colonies.outcome": state,
                "colonies.cancelled_by": workflow.cancelled_by if state == "cancelled" else None,
            }
        ),
        error="a node failed" if state == "failed" else None,
    )


def base_of(colony: str, trace: Trace | None, workflow: str | None, process: str) -> Trace:
    """The trace that a process, or a workflow, is in."""
    if trace is not None:
        return trace
    return own(colony, "process", process) if workflow is None else own(colony, "workflow", workflow)


def name_of(process: Process) -> str:
    """What its spans are called: few names for many processes, as those who search them want it."""
    if process.node is not None:
        return _line(split(process.node)[0], MAX_NAME_CHARS)
    return _line(process.spec.name or process.spec.func, MAX_NAME_CHARS)


def _described(process: Process) -> dict[str, Given]:
    spec = process.spec
    return _known(
        {
            "colonies.process.id": process.id,
            "colonies.func": _line(spec.func, MAX_FUNC_CHARS) or None,
            "colonies.name": spec.name,
            "colonies.label": spec.label,
            "colonies.runtimetype": spec.conditions.runtimetype if process.queue else None,
            "colonies.queue": process.queue or None,
            "colonies.priority": spec.priority,
            "colonies.submitter": process.submitter,
            "colonies.workflow.id": process.workflow,
            "colonies.node": process.node,
            "colonies.attempts": process.attempts[-1].n if process.attempts else 0,
            "colonies.outcome": process.state,
        }
    )


def _known(given: Mapping[str, Given | None]) -> dict[str, Given]:
    return {name: value for name, value in given.items() if value is not None}


def _line(text: str, most: int = MAX_ERROR_CHARS) -> str:
    """The first line of a text, shortened."""
    first = (text.strip().splitlines() or [""])[0]
    return first if len(first) <= most else first[: most - 4] + " ..."
