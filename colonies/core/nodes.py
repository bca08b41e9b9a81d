"""When it is true that a node of a workflow was released, skipped, cancelled, or got its signal.

Each of these is a process's first event or its end, said by the service, or by the worker that just finished
a node's only parent. It is true by what `colonies.core.dag` says of the ends that stand before it: whoever
says it was trusted with nothing.
"""

from __future__ import annotations

from dataclasses import replace

from colonies.core.dag import Await, Dag, Run, Say, Skip, Stop
from colonies.core.events import (
    VALID,
    Awaited,
    Cancelled,
    Received,
    Record,
    Released,
    Skipped,
    Verdict,
    denied,
    quarantined,
    void,
)
from colonies.core.node import Node, adder_of, split
from colonies.core.spec import Conditions, Spec, queue_of
from colonies.core.states import Awaiting, Process
from colonies.core.workflow import Known, Workflow, dag_of, node_id

_PARTS = "a node that maps is one process until its parts are known, and from then on these"


def spec_of(workflow: Workflow, node: Node) -> Spec:
    """The spec of a node's process: the workflow's `maxwaittime` holds where the node has none of its own."""
    if node.wait_signal is not None:
        conditions = Conditions(runtimetype="signal")
        limit_s = node.wait_signal.timeout
        return Spec(func=f"signal {node.wait_signal.name}", conditions=conditions, maxwaittime=limit_s)
    assert node.spec is not None
    if node.spec.maxwaittime is None and workflow.spec.maxwaittime is not None:
        return node.spec.model_copy(update={"maxwaittime": workflow.spec.maxwaittime})
    return node.spec


def born(
    process: Process | None, record: Record, event: Released | Awaited | Skipped, known: Known
) -> Verdict:
    """May a node's process begin with this event?"""
    if record.role != "service" and (record.role != "worker" or not isinstance(event, Released)):
        return denied(f"the role {record.role} does not decide this about nodes")
    if process is not None:
        return quarantined("something was decided about the node already")
    found = _place(record, event.workflow, event.node, known)
    if isinstance(found, Verdict):
        return found
    workflow, dag, node = found
    # Whoever said it could not know yet of a cancel that came just before; but all else must hold.
    uncancelled = dag if node.last else replace(dag, cancelled_at=None)
    verdict = _decided(record, event, workflow, uncancelled, node)
    if dag.cancelled_at is None or node.last or verdict.denied:
        return verdict
    # An end that came after the cancel may be that of a node whose release was void: then its worker did not
    # know of the cancel either when it released a child.
    if verdict.valid or any(cited > dag.cancelled_at for cited in event.cites):
        return void("its workflow was cancelled before it")
    return verdict


def _decided(
    record: Record, event: Released | Awaited | Skipped, workflow: Workflow, dag: Dag, node: Node
) -> Verdict:
    """Is this what was to be said of the node?"""
    say = dag.decide(event.node)
    if say is None and (misplaced := _misplaced(dag, node, event.node)) is not None:
        return misplaced
    wanted = {Released: Run, Awaited: Await, Skipped: Skip}[type(event)]
    if not isinstance(say, wanted):
        return _instead(say)
    assert isinstance(say, Run | Await | Skip)
    if tuple(event.cites) != say.cites:
        return quarantined("it does not cite the workflow's event and the ends that decide")
    if isinstance(say, Run | Await) and record.time < say.until:
        return quarantined("the delay is not over")
    if isinstance(event, Released):
        spec = spec_of(workflow, node)
        if record.queue != queue_of(spec.conditions, spec.priority):
            return quarantined("the queue is not that of the spec's conditions and priority")
    return _by_worker(record, dag, node) if record.role == "worker" else VALID


def never_born(record: Record, event: Cancelled, known: Known) -> Verdict:
    """May a node be cancelled about which nothing was decided yet?"""
    if event.workflow is None or event.node is None:
        return quarantined("it names no node of a workflow")
    found = _place(record, event.workflow, event.node, known)
    if isinstance(found, Verdict):
        return found
    workflow, dag, node = found
    misplaced = _misplaced(dag, node, event.node)
    if misplaced is not None:
        return misplaced
    if record.role == "service":
        return _stopped(dag, event.node, event)
    if record.role == "owner" or (record.role == "user" and record.author == workflow.submitter):
        return VALID
    return denied(f"only {workflow.submitter} or an owner may cancel the process")


def _misplaced(dag: Dag, node: Node, label: str) -> Verdict | None:
    """A node that maps ends as a whole before it has parts, and then each of them by itself."""
    part = split(label)[1]
    parts = dag.mapped(node)
    if part is None and parts is not None:  # the last of its parents ended meanwhile
        return void("it has parts, and each of them ends by itself")
    if part is not None and (parts is None or part >= parts):
        return quarantined(f"there is no part {part} of {node.name} at this point")
    return None


def may_stop(process: Process, record: Record, event: Cancelled, known: Known) -> Verdict:
    """May the service cancel a node that has begun?"""
    if process.workflow is None or process.node is None:
        return denied("the service cancels nothing but nodes of workflows")
    workflow = known.workflow(process.workflow)
    if workflow is None:
        return quarantined("its workflow has no valid submission before it")
    return _stopped(dag_of(workflow, known, before=record.sequence), process.node, event)


def received(process: Process, record: Record, event: Received, known: Known) -> Verdict:
    """Has the signal come that the node waits for?"""
    if record.role != "service":
        return denied(f"the role {record.role} hands on no signals")
    workflow = known.workflow(process.workflow) if process.workflow is not None else None
    if workflow is None or process.node is None or not isinstance(process.phase, Awaiting):
        return quarantined("the process waits for no signal")
    node = dag_of(workflow, known, before=record.sequence).node(process.node)
    assert node is not None
    assert node.wait_signal is not None
    signal = workflow.signal(node.wait_signal.name, record.sequence)
    if signal is None or signal.sequence != event.cites:
        return quarantined(f"it does not cite the first signal {node.wait_signal.name} to the workflow")
    return VALID


def _place(record: Record, id: str, label: str, known: Known) -> tuple[Workflow, Dag, Node] | Verdict:
    """Where in which workflow a node's first event stands."""
    if record.prev is not None:
        return quarantined("a node's first event has no event before it")
    # The id derives from workflow and label, so nobody takes the place of another's node.
    if record.entity != node_id(id, label):
        return quarantined("the id does not derive from the workflow and the node")
    workflow = known.workflow(id)
    if workflow is None or workflow.sequence >= record.sequence:
        return quarantined("its workflow has no valid submission before it")
    if label in (workflow.reuses or {}):
        return quarantined("the node has its result from another workflow")
    dag = dag_of(workflow, known, before=record.sequence)
    node = dag.node(label)
    if node is None and dag.cancelled_at is not None and adder_of(split(label)[0]) is not None:
        return void("its workflow was cancelled before it")  # what was to add it may be void as well
    if node is None:
        return quarantined(f"the workflow has no node {label} at this point")
    return workflow, dag, node


def _instead(say: Say | None) -> Verdict:
    match say:
        case None:
            return quarantined("its parents have not all ended")
        case Stop(reason=reason):
            return quarantined(f"the node cannot run: {reason}")
        case Skip():
            return quarantined("the node is to be skipped")
        case _:
            return quarantined("the node is not to be dealt with in this way")


def _by_worker(record: Record, dag: Dag, node: Node) -> Verdict:
    """A worker says it of children of what it just finished, when that is all they wait for."""
    if node.spec is not None and node.spec.limits:
        return denied("a worker releases no node with limits")
    inputs = dag.unfold(node).inputs
    ends = [end for given in inputs for end in given.ends]
    if len(ends) != 1 or ends[0].worker != record.author or ends[0].state != "successful":
        return denied("a worker releases only a child whose only parent it finished")
    return VALID


def _stopped(dag: Dag, label: str, event: Cancelled) -> Verdict:
    """Is it true that the node can no longer run, by what the event cites?"""
    node = dag.node(label)
    if node is None or event.cites is None:
        return quarantined("it cites nothing that stops the node")
    if not dag.stands(label):
        return void(_PARTS)
    if not node.last and event.cites == dag.cancelled_at:
        return VALID
    say = dag.by_parents(label)  # its parents stop it whatever was said of the workflow meanwhile
    if isinstance(say, Stop) and say.cites == event.cites:
        return VALID
    if not node.last and dag.spec.on_failure == "stop" and event.cause is not None:
        end, cause = dag.ends(event.cause), dag.node(event.cause)
        fatal = cause is not None and not cause.allow_failure and not cause.last
        if end is not None and fatal and end.sequence == event.cites and end.state in ("failed", "cancelled"):
            return VALID
    return quarantined("what it cites does not stop the node")
