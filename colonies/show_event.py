"""Events as people and other programs are shown them: one flat object each, or one CloudEvent each.

`event_object` is what `history` and `ledger tail` print: a verdict and a few words. `cloud_event` is what
feeds hand to other services: the event's own fields, in CloudEvents 1.0. Both are made from a judged message;
they decide nothing, and never fail, whatever a member signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from colonies import codec, subjects
from colonies.core.colony import Colony
from colonies.core.members import SECOND
from colonies.core.process import Process, evolve
from colonies.core.workflow import NOTHING, Known
from colonies.history import Judged
from colonies.show import jsonable, rfc3339, to_the_second

MAX_CLOUD_DATA_BYTES = 1_000_000
MOST_JSON_PER_BYTE = 6  # one byte of an event is at most so many in JSON: a control character, say
OMITTED = "omitted"


def event_object(seen: Judged, attempt: int | None = None) -> dict[str, Any]:
    """A judged message of the ledger as a flat JSON object. `attempt`: the number of the one it speaks of.

    `{sequence, time, event, entity, author, attempt, verdict, rule, detail}`.
    """
    record = seen.record
    event, kind, entity = what(seen)
    return {
        "sequence": seen.stored.sequence,
        "time": rfc3339(seen.stored.time),
        "event": event,
        "entity": f"{kind} {entity}".strip(),
        "author": record.author if record is not None else None,
        "attempt": attempt,
        "verdict": seen.verdict.kind,
        "rule": seen.verdict.rule or None,
        "detail": _detail(record.event) if record is not None else None,
    }


def what(seen: Judged) -> tuple[str, str, str]:
    """What a message says that it is: its type, and the kind and name of what it is about.

    Without a sound signature it is nobody's word: whom the subject names has not said it. What is not of the
    grammar has its whole subject as its type, and is about nothing.
    """
    if seen.record is not None:
        return seen.record.event.type, seen.record.kind, seen.record.entity
    subject = subjects.parse(seen.stored.subject)
    if subject is None:
        return seen.stored.subject, "", ""
    return f"{subject.kind}.{subject.event}", subject.kind, subject.entity


def cloud_event(seen: Judged, colony: Colony) -> dict[str, Any]:
    """A judged message as a CloudEvent 1.0, for JSON.

    `{specversion, id, source, type, subject, time, sequence, eventid, author, verdict, rule, datacontenttype,
    data}`; what there is not is left out. `id` is the sequence as text: an event's own id (`eventid`) is its
    author's choice. `sequence` is the same, with zeros before it, so that it sorts as text. What does not
    count has another type, such as `colonies.quarantined.process.completed`: many look at nothing else.
    """
    record, sequence = seen.record, seen.stored.sequence
    event, kind, entity = what(seen)
    sort = "" if seen.verdict.valid else f"{seen.verdict.kind}."
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(sequence),
        "source": f"colonies:{colony.key}",
        "type": f"colonies.{sort}{event if kind else 'unknown'}",
        "subject": f"{kind}/{entity}".strip("/") or seen.stored.subject,
        "time": rfc3339(seen.stored.time),
        "sequence": f"{sequence:020}",
    }
    if record is not None:
        found |= {"eventid": record.id, "author": record.author}
    found["verdict"] = seen.verdict.kind
    if seen.verdict.rule:
        found["rule"] = seen.verdict.rule
    if record is not None:
        found |= {"datacontenttype": "application/json", "data": event_data(seen)}
    return found


def event_data(seen: Judged) -> dict[str, Any]:
    """The event's own fields as JSON, without those that it does not have; {} if it is no signed event.

    Above MAX_CLOUD_DATA_BYTES of JSON its largest fields are None, and `omitted` has their names.
    """
    if seen.record is None:
        return {}
    try:
        fields = codec.data_of(seen.record.event)
    except RecursionError:
        return {OMITTED: ["data"]}
    found: dict[str, Any] = {name: jsonable(value) for name, value in fields.items()}
    if len(seen.stored.data) * MOST_JSON_PER_BYTE <= MAX_CLOUD_DATA_BYTES:
        return found
    sizes = {name: _size(value) for name, value in found.items()}
    omitted: list[str] = []
    while sum(sizes.values()) > MAX_CLOUD_DATA_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        del sizes[largest]
        found[largest] = None
        omitted.append(largest)
    return {**found, OMITTED: omitted} if omitted else found


def _size(value: Any) -> int:
    """Its JSON in bytes, as `json` writes it by default."""
    try:
        return len(json.dumps(value))
    except RecursionError:
        return MAX_CLOUD_DATA_BYTES + 1


def numbered(
    story: Iterable[Judged], known: Known | None = None
) -> Iterable[tuple[Judged, int | None, Process | None]]:
    """Each event of a process with the number of its attempt, and the process after it. `known` has the
    workflow of a node."""
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
    return "" if unix_s is None else f", until {to_the_second(unix_s * SECOND)}"
