"""The second look of `ledger verify` at workflows: it finds what is planted, and nothing else.

The ledger is that of the vectors, told up to each event in turn; what is planted is put into the fold behind
the rules' back, as a mistake in them would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.core.audit import doubts
from colonies.core.colony import Colony
from colonies.core.process import Process, Running
from colonies.core.states import FailedForGood, Waiting, derived_id
from colonies.core.workflow import Workflow
from colonies.history import History
from colonies.ledger import Stored
from tests.vectors.story import told
from tests.vectors.telling import COLONY

Step = tuple[Process | None, Process, Workflow, dict[str, Process]]


@cache
def steps() -> tuple[Step, ...]:
    """Every valid event of a node in the story: its process before and after, with all there is then."""
    return tuple(_steps())


def _steps() -> Iterator[Step]:
    history = History(Colony(COLONY))
    for row in told().rows:
        parts = row["subject"].split(".")
        entity = parts[2] if len(parts) > 3 and parts[1] == "process" else ""
        before = history.processes.get(entity)
        stored = Stored(row["subject"], row["sequence"], row["time"], bytes.fromhex(row["data"]))
        valid = history.add(stored).verdict.valid
        process = history.processes.get(entity)
        if valid and process is not None and process.workflow is not None:
            workflow = history.workflow(process.workflow)
            assert workflow is not None
            yield before, process, workflow, dict(history.processes)


def test_nothing_is_doubted_where_the_rules_hold() -> None:
    assert len(steps()) >= 40
    for before, process, workflow, processes in steps():
        assert list(doubts(before, process, workflow, processes)) == []


def parents(step: Step) -> list[str]:
    """The ids of those that a node which just moved on waited for."""
    before, process, workflow, processes = step
    node = workflow.spec.by_name.get(process.node or "")
    begun = before is None or (isinstance(process.phase, Running) and before.attempts != process.attempts)
    if node is None or not begun or process.state == "cancelled":
        return []
    ids = [
        (workflow.reuses or {}).get(name) or derived_id("node", workflow.id, name) for name in node.parents
    ]
    return [id for id in ids if id in processes]


@given(st.data())
def test_a_node_that_goes_on_before_its_parents_ended_well_is_found(data: st.DataObject) -> None:
    step = data.draw(st.sampled_from([found for found in steps() if parents(found)]))
    before, process, workflow, processes = step
    id = data.draw(st.sampled_from(parents(step)))
    parent, offer = processes[id], getattr(process.phase, "offer", None)
    planted: list[Any] = [None, replace(parent, phase=FailedForGood("planted"))]
    if offer is not None:
        planted.append(replace(parent, phase=Waiting(offer, 0)))
    wrong = data.draw(st.sampled_from(planted))
    now = {**processes, id: wrong} if wrong is not None else {k: v for k, v in processes.items() if k != id}
    assert any("goes on, and" in rule for rule in doubts(before, process, workflow, now))


@given(st.data())
def test_what_is_not_the_workflows_node_or_ends_twice_is_found(data: st.DataObject) -> None:
    before, process, workflow, processes = data.draw(st.sampled_from(steps()))
    final = replace(process, phase=FailedForGood("planted"))
    planted = {
        "had ended, and went on": (final, process, workflow),
        "is not that of node": (before, replace(process, id="a" * 32), workflow),
        "has no node": (before, replace(process, node="nowhere"), workflow),
        "of no workflow": (before, process, None),
        "before it": (before, process, replace(workflow, sequence=process.sequence)),
        "from another workflow": (
            before,
            process,
            replace(workflow, reuses={process.node or "": process.id}),
        ),
    }
    said = data.draw(st.sampled_from(sorted(planted)))
    assert any(said in rule for rule in doubts(*planted[said], processes))


@pytest.mark.parametrize("label", ["late", "each[0]", "a/split", "last", "ok"])
def test_every_kind_of_node_is_looked_at(label: str) -> None:
    assert any(process.node == label for _, process, _, _ in steps())
