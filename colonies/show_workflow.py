"""A workflow as people and other programs are shown it: one JSON object with stable fields.

As `colonies.show` for a process. It is made from what a client has read and verified, and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from colonies.core.process import CancelledForGood, Process
from colonies.core.workflow import is_final
from colonies.show import jsonable, rfc3339

if TYPE_CHECKING:
    from colonies.looking import NodeNow, WorkflowNow


def workflow_object(now: WorkflowNow) -> dict[str, Any]:
    """The workflow as a JSON object: that of `workflow ls`, what was asked for, and all of its processes.

    `nodes` counts nodes and parts of those that map, `done` those that ended, `failed` those that failed.
    """
    workflow, spec = now.workflow, now.workflow.spec
    states = Counter(node.state for node in now.nodes)
    done = sum(count for state, count in states.items() if is_final(state))
    return {
        "id": workflow.id,
        "name": spec.name,
        "state": now.state,
        "nodes": len(now.nodes),
        "done": done,
        "failed": states["failed"],
        "submitter": workflow.submitter,
        "submitted_at": rfc3339(workflow.submitted_at),
        "ended_at": ended_at(now),
        "label": spec.label,
        "parameters": jsonable(spec.parameters),
        "on_failure": spec.on_failure,
        "rerun_of": workflow.rerun_of,
        "cancelled_by": workflow.cancelled_by,
        "reason": workflow.reason or None,
        "signals": [
            {
                "time": rfc3339(signal.time),
                "by": signal.by,
                "name": signal.name,
                "data": jsonable(signal.data),
            }
            for signal in workflow.signals
        ],
        "processes": [node_object(node, now) for node in now.nodes],
    }


def ended_at(now: WorkflowNow) -> str | None:
    """When the last of its nodes ended, or when it took all results over; None while it runs."""
    if not now.final:
        return None
    ends = [node.process.time for node in now.nodes if node.process is not None]
    return rfc3339(max([now.workflow.submitted_at, *ends]))


def node_object(found: NodeNow, now: WorkflowNow) -> dict[str, Any]:
    """A node, or a part of one that maps, as a JSON object; `state` is `blocked` until something was
    decided about it."""
    node, process = found.node, found.process
    attempts = process.attempts if process is not None else ()
    return {
        "node": found.label,
        "process": found.id,
        "state": found.state,
        "func": node.spec.func if node.spec is not None else None,
        "runtimetype": node.spec.conditions.runtimetype if node.spec is not None else None,
        "parents": list(node.parents),
        "wait_signal": node.wait_signal.name if node.wait_signal is not None else None,
        "finally": node.last,
        "attempts": attempts[-1].n if attempts else 0,
        "worker": attempts[-1].worker if attempts else None,
        "started_at": rfc3339(attempts[0].started_at) if attempts else None,
        "ended_at": rfc3339(process.ended_at) if process is not None and process.ended_at else None,
        "reused": is_reused(found, now),
        "error": error_of(process),
    }


def is_reused(found: NodeNow, now: WorkflowNow) -> bool:
    """Is its result taken over from the workflow that this one is a rerun of?"""
    return found.label in (now.workflow.reuses or {})


def error_of(process: Process | None) -> str | None:
    """Why it failed or was cancelled, in a line; None if it was not."""
    if process is None:
        return None
    if isinstance(process.phase, CancelledForGood):
        return process.phase.reason or f"cancelled by {process.phase.by}"
    return process.errors[-1] if process.state == "failed" and process.errors else None


def summary(now: WorkflowNow) -> str:
    """Where it stands, in a line: `running: 3 of 8 done, 1 failed, 2 running, 3 blocked`."""
    states = Counter(node.state for node in now.nodes)
    done = sum(count for state, count in states.items() if is_final(state))
    told = [
        f"{states[state]} {state}"
        for state in ("failed", "cancelled", "skipped", "running", "waiting", "blocked")
        if states[state]
    ]
    return f"{now.state}: {', '.join([f'{done} of {len(now.nodes)} done', *told])}"
