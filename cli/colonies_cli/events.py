"""Events as `history` and `ledger tail` show them: one flat object each, with a verdict and a few words.

`{sequence, time, event, entity, author, attempt, verdict, rule, detail}`. What LOGS says beside the ledger
has no sequence. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colonies.core.process import Process
    from colonies.core.workflow import Known
    from colonies.history import Judged
    from colonies.logs import LogEntry

HEADER = ("SEQUENCE", "TIME", "EVENT", "AUTHOR", "ATTEMPT", "VERDICT")
WIDTHS = (8, 20, 22, 14, 7, 60)


def event_object(seen: Judged, attempt: int | None) -> dict[str, Any]:
    """A judged message of the ledger. `attempt` is the number of the attempt that it speaks of."""
    from colonies import subjects
    from colonies.show import rfc3339

    record = seen.record
    subject = subjects.parse(seen.stored.subject)
    # Without a sound signature it is nobody's word: whom the subject names has not said it.
    event, entity = seen.stored.subject, ""
    if record is not None:
        event, entity = record.event.type, f"{record.kind} {record.entity}"
    elif subject is not None:
        event, entity = f"{subject.kind}.{subject.event}", f"{subject.kind} {subject.entity}"
    return {
        "sequence": seen.stored.sequence,
        "time": rfc3339(seen.stored.time),
        "event": event,
        "entity": entity.strip(),
        "author": record.author if record is not None else None,
        "attempt": attempt,
        "verdict": seen.verdict.kind,
        "rule": seen.verdict.rule or None,
        "detail": _detail(record.event) if record is not None else None,
    }


def note_object(entry: LogEntry, process: str) -> dict[str, Any]:
    """A note in LOGS, outside the chain: a result that was refused, or why a run was stopped."""
    from colonies.show import rfc3339

    refused = entry.type == "log.refused"
    said = entry.data.get("event")
    return {
        "sequence": None,
        "time": rfc3339(entry.time),
        "event": said if refused and isinstance(said, str) else entry.type,
        "entity": f"process {process}",
        "author": entry.worker,
        "attempt": entry.n,
        "verdict": "refused" if refused else "noted",
        "rule": str(entry.data.get("reason") or "") or None,
        "detail": str(entry.data["error"]) if entry.data.get("error") else None,
    }


def row(event: dict[str, Any], *, with_entity: bool = False) -> list[str]:
    """An event object as a row under `HEADER`."""
    from colonies_cli.output import cell, seconds

    verdict = ": ".join(filter(None, (event["verdict"], event["rule"] or event["detail"])))
    what = f"{event['event']} {event['entity'].partition(' ')[2]}" if with_entity else event["event"]
    return [
        cell(event["sequence"]),
        seconds(event["time"]),
        cell(what.strip()),
        cell(event["author"]),
        cell(event["attempt"]),
        cell(verdict),
    ]


def numbered(
    story: Iterable[Judged], known: Known | None = None
) -> Iterable[tuple[Judged, int | None, Process | None]]:
    """Each event of a process with the number of its attempt, and the process after it. `known` has the
    workflow of a node."""
    from colonies.core.process import evolve
    from colonies.core.workflow import NOTHING

    process: Process | None = None
    for seen in story:
        if seen.verdict.valid and seen.record is not None:
            process = evolve(process, seen.record, known or NOTHING)
        yield seen, attempt_of(seen, process), process


def attempt_of(seen: Judged, process: Process | None) -> int | None:
    """The number of the attempt that an event speaks of; `process` is as it is after the event."""
    event: Any = seen.record.event if seen.record is not None else None
    if process is None or event is None:
        return None
    if event.type == "process.assigned":
        return len(process.attempts) if seen.verdict.valid else None
    cited = getattr(event, "attempt", None)
    return next((attempt.n for attempt in process.attempts if attempt.id == cited), None)


def _detail(event: Any) -> str | None:
    """A few words on what the event carries."""
    match event.type:
        case "process.released" | "process.awaited" | "process.skipped":
            return f"node {event.node} of workflow {event.workflow}"
        case "process.signalled" | "workflow.signalled":
            return f"signal {event.name}"
        case "workflow.submitted" if event.rerun_of is not None:
            return f"rerun of {event.rerun_of}, {len(event.reuses or {})} results taken over"
        case "workflow.submitted" if event.source is not None:
            return f"a run of the {event.source.kind} {event.source.name}"
        case "workflow.submitted" | "workflow.part":
            nodes = getattr(event, "nodes", None) or (event.spec.nodes if event.spec is not None else ())
            return f"{len(nodes)} nodes"
        case "process.queued":
            return f"{event.spec.func} on {event.spec.conditions.runtimetype}"
        case "process.assigned":
            return f"instance {event.instance}, lease {event.lease_s:g} s"
        case "process.failed":
            return f"{event.kind}: {event.error}"
        case "process.completed" if event.stored is not None:
            return f"output of {event.stored.size_bytes} bytes"
        case "process.cancelled" | "process.returned" | "workflow.cancelled" | "member.revoked":
            return event.reason or None
        case "member.approved":
            return f"{event.role}, {event.key}{_until(event.expires_unix_s)}"
        case "member.rotated":
            return f"{event.key} in the place of {event.former}{_until(event.expires_unix_s)}"
        case "worker.started":
            return f"instance {event.instance}, {event.runtimetype}, concurrency {event.concurrency}"
        case "worker.stopped":
            return f"instance {event.instance}"
        case "colony.genesis":
            return f"colony {event.name}, owner {event.owner}"
        case "colony.configured":
            return f"lease {event.lease_s:g} s"
        case "queue.declared":
            return f"{event.conditions.runtimetype}, priority {event.priority}"
        case _:
            return None


def _until(unix_s: int | None) -> str:
    from colonies.core.members import SECOND
    from colonies.show import to_the_second

    return "" if unix_s is None else f", until {to_the_second(unix_s * SECOND)}"
