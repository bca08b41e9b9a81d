"""What a part of a ledger needs before it, so that its events can be judged without the rest.

    always          all events that are not of a process or workflow: colony, members, queues, workers,
                    limits, crons, generators
    of what is touched in the part
                    the earlier events of each process and workflow
                    of a node: its workflow
                    of a workflow: all of its nodes, the workflow that it takes results from, and so on, and
                    the run before it, whose outputs it may use

It goes by what events claim, before anybody judged them: too much does no harm. Pure bookkeeping, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from colonies import codec, subjects
from colonies.core.states import ULID
from colonies.core.workflow import node_id
from colonies.ledger import Stored


class Closure:
    """Show it everything up to the part's end, in order, then `close` it; then ask what is needed."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._workflow_of: dict[str, str] = {}  # by process
        self._takes: dict[str, set[str]] = {}  # by workflow: those whose results it has
        self._previous: dict[str, str] = {}
        self._processes: set[str] = set()
        self._workflows: set[str] = set()

    def see(self, stored: Stored) -> None:
        """An event of the ledger, in the part or before it."""
        subject = subjects.parse(stored.subject)
        if subject is None:
            return
        if subject.kind == "process":
            if subject.entity not in self._workflow_of and not ULID.match(subject.entity):
                self._see_node(subject.entity, stored)
            if stored.sequence >= self._first:
                self._processes.add(subject.entity)
        elif subject.kind == "workflow":
            if subject.event == "submitted":
                self._see_submitted(subject.entity, stored)
            if stored.sequence >= self._first:
                self._workflows.add(subject.entity)

    def _see_node(self, process: str, stored: Stored) -> None:
        match _data(stored):
            case {"workflow": str() as workflow, "node": str() as node} if node_id(workflow, node) == process:
                self._workflow_of[process] = workflow

    def _see_submitted(self, workflow: str, stored: Stored) -> None:
        if b"rerun_of" not in stored.data and b"previous" not in stored.data:
            return
        match _data(stored):
            case {"rerun_of": str() as other}:
                self._takes.setdefault(workflow, set()).add(other)
            case {"source": {"previous": str() as previous}}:
                self._previous[workflow] = previous

    def close(self) -> None:
        """Everything was seen."""
        self._workflows |= {self._workflow_of[id] for id in self._processes if id in self._workflow_of}
        left = list(self._workflows)
        while left:
            for other in self._takes.get(left.pop(), ()):
                if other not in self._workflows:
                    self._workflows.add(other)
                    left.append(other)
        self._workflows |= {self._previous[id] for id in self._workflows if id in self._previous}

    def needs(self, stored: Stored) -> bool:
        """Is this event in the part, or needed by it?"""
        if stored.sequence >= self._first:
            return True
        subject = subjects.parse(stored.subject)
        if subject is None:
            return False
        if subject.kind == "process":
            workflow = self._workflow_of.get(subject.entity)
            return subject.entity in self._processes or workflow in self._workflows
        return subject.kind != "workflow" or subject.entity in self._workflows


def entities_of(events: Iterable[Stored]) -> set[str]:
    """The processes that these are of."""
    found = (subjects.parse(stored.subject) for stored in events)
    return {subject.entity for subject in found if subject is not None and subject.kind == "process"}


def _data(stored: Stored) -> dict[str, Any]:
    """What the event says, whoever signed it; empty if it is none."""
    try:
        return codec.open_("", stored.subject, stored.data).data
    except codec.Malformed:
        return {}
