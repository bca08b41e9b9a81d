"""Events as `history` and `ledger tail` print them: rows of `colonies.show_event.event_object`, and of what
LOGS says beside the ledger, which has no sequence. Nothing here decides anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colonies.logs import LogEntry

HEADER = ("SEQUENCE", "TIME", "EVENT", "AUTHOR", "ATTEMPT", "VERDICT")
WIDTHS = (8, 20, 22, 14, 7, 60)


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
