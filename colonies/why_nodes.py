"""Why a node of a workflow has not begun, and why a workflow is as it is. Pure: facts in, reasons out
(`colonies.reasons`); what may be said of a node is `colonies.core.dag`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from colonies.core.dag import Await, Dag, Map, Run, Skip, Stop
from colonies.core.node import Node, split
from colonies.core.process import Awaiting, Blocked, Process, Running, Waiting
from colonies.looking import NodeNow, WorkflowNow
from colonies.reasons import MAX_IN_DATA, PlaceNow, Reason, named, plural
from colonies.show import to_the_second
from colonies.why_waiting import places

_CITED = 20


def not_begun(
    dag: Dag, found: Mapping[str, NodeNow], label: str, now: int, wanted: Sequence[PlaceNow] = ()
) -> Iterator[Reason]:
    """Of a node of which there is no event yet. `wanted` are the places that it wants, if it has limits."""
    node = dag.node(label)
    assert node is not None
    say = dag.decide(label)
    match say:
        case (
            Run(until=until, cites=cites) | Await(until=until, cites=cites) | Map(until=until, cites=cites)
        ) if until > now:
            text = f"blocked: it has a delay until {to_the_second(until)}"
            yield Reason("delay", text, tuple(cites[-_CITED:]), until=until)
        case Run() if any(place.granted is None for place in wanted):
            yield from places(wanted, now)
        case Run(cites=cites) | Await(cites=cites) | Map(cites=cites) | Skip(cites=cites):
            text = (
                "blocked: what it waits for has ended; an orchestrator is to release it, and none has yet "
                "(`colonies server start --only orchestrator`)"
            )
            yield Reason("release_due", text, tuple(cites[-_CITED:]))
        case Stop(cites=cited, reason=reason):
            yield _to_be_cancelled(dag, found, node, cited, reason)
        case None:
            yield _waits(dag, found, node)


def _to_be_cancelled(dag: Dag, found: Mapping[str, NodeNow], node: Node, cited: int, reason: str) -> Reason:
    """It can run no more; the service says so when all before it have ended."""
    open_ = [text for text, ended, _ in (_parent(found, name) for name in dag.parents(node)) if not ended]
    then = (
        f"when these have ended as well: {named(open_)}" if open_ else "by an orchestrator, which has not yet"
    )
    text = f"blocked: it cannot run, since {reason}; it is cancelled {then}"
    return Reason("cancel_due", text, (cited,), data={"why": reason, "open": len(open_)})


def _waits(dag: Dag, found: Mapping[str, NodeNow], node: Node) -> Reason:
    """It waits for others: what each of them does, those that have not ended first."""
    told = [_parent(found, name) for name in dag.parents(node)]
    open_ = [text for text, ended, _ in told if not ended]
    wrong = [text for text, ended, states in told if ended and states & {"failed", "cancelled"}]
    cites = _cited(found, dag.parents(node))
    if node.last:
        text = f"runs last: waits for {plural(len(open_), 'node')} of {len(told)} to end: {named(open_)}"
    else:
        ended = len(told) - len(open_) - len(wrong)
        rest = f"; {plural(ended, 'other has', 'others have')} ended" if ended else ""
        text = f"waits for parents: {named([*open_, *wrong])}{rest}"
    parents = list(dag.parents(node))
    data = {"parents": parents[:MAX_IN_DATA], "open": len(open_), "of": len(told)}
    return Reason("waits_for_parents", f"blocked: {text}", cites, data=data)


def _parent(found: Mapping[str, NodeNow], name: str) -> tuple[str, bool, set[str]]:
    """A node that another waits for: what it does, whether it has ended, the states of its processes."""
    own = found.get(name)
    if own is not None:
        ended = own.process is not None and own.process.final
        return f"{name} ({_does(own.process)})", ended, {own.state}
    parts = [now for now in found.values() if split(now.label)[0] == name]
    states = [now.state for now in parts]
    done = sum(now.process is not None and now.process.final for now in parts)
    return f"{name} ({done} of {len(parts)} parts have ended)", done == len(parts), set(states)


def _does(process: Process | None) -> str:
    if process is None:
        return "not begun"
    match process.phase:
        case Running():
            attempt = process.attempts[-1]
            return f"running since {to_the_second(attempt.started_at)} on {attempt.worker}"
        case Waiting(since=since):
            return f"waiting since {to_the_second(since)}"
        case Awaiting(since=since):
            return f"waiting for a signal since {to_the_second(since)}"
        case Blocked(until=until):
            n = process.attempts[-1].n if process.attempts else 0
            return f"blocked, attempt {n + 1}, backing off until {to_the_second(until)}"
    return process.state


def _cited(found: Mapping[str, NodeNow], names: Sequence[str]) -> tuple[int, ...]:
    own = [found[name].process for name in names if name in found]
    return tuple(sorted(process.sequence for process in own if process is not None)[-_CITED:])


# --- the workflow -------------------------------------------------------------------------------------


def workflow(now: WorkflowNow) -> Iterator[Reason]:
    """Of the workflow itself."""
    found = now.workflow
    since = found.submitted_at
    if found.cancelled_at is not None and now.state in ("running", "cancelled"):
        why = f": {found.reason}" if found.reason else ""
        text = f"cancelled by {found.cancelled_by}{why}"
        data = {"by": found.cancelled_by, "why": found.reason}
        yield Reason("workflow_cancelled", text, (found.cancelled_at,), data=data)
    states = [node.state for node in now.nodes]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    text = f"{now.state}: {plural(len(states), 'node')}: {told}"
    yield Reason(f"workflow_{now.state}", text, (found.sequence,), since, data={"nodes": counts})


def telling(now: WorkflowNow) -> list[NodeNow]:
    """The nodes that decide about the workflow: of one that runs those that have begun and not ended, else
    those that ended wrong, in the order in which they did."""
    begun = [node for node in now.nodes if node.process is not None]
    if not now.final:
        return [node for node in begun if node.process is not None and not node.process.final]
    wrong = [node for node in begun if node.state == "failed" and not node.node.allow_failure]
    if not wrong and now.state == "failed":
        wrong = [node for node in begun if node.state == "cancelled" and not node.node.allow_failure]
    return sorted(wrong, key=lambda node: node.process.sequence if node.process is not None else 0)


def untold(now: WorkflowNow, told: int, waiting: int) -> Iterator[Reason]:
    """How many nodes there are that were not told of, one by one."""
    more = len(telling(now)) - told
    if more > 0:
        yield Reason(
            "more_nodes", f"{plural(more, 'node')} more: `--node LABEL` tells of one", data={"count": more}
        )
    if waiting > 0:
        text = f"{plural(waiting, 'node waits', 'nodes wait')} for others: `--node LABEL` tells of one"
        yield Reason("nodes_wait", text, data={"count": waiting})
