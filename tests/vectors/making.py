"""Makes the vectors: always the same bytes. `made()` maps each file's name to its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colonies.core.process import Process
from tests.vectors import due, pieces
from tests.vectors.story import told
from tests.vectors.telling import COLONY, Teller

FOLDER = Path(__file__).parent


def made() -> dict[str, str]:
    """The text of every file."""
    teller = told()
    return {
        "keys.json": _text(pieces.keys()),
        "envelopes.json": _text({"colony": COLONY, "envelopes": pieces.envelopes()}),
        "names.json": _text(pieces.names()),
        "due.json": _text({"crons": due.due()}),
        "ledger.json": _text({"colony": COLONY, "messages": teller.rows, **_after(teller)}),
        "notes.json": _text({"colony": COLONY, "notes": pieces.notes(teller.history.colony)}),
    }


def _after(teller: Teller) -> dict[str, Any]:
    """What the ledger says in the end."""
    colony = teller.history.colony
    return {
        "members": [
            {
                "name": m.name,
                "role": m.role,
                "keys": [held.key for held in m.keys],
                "revoked": m.until is not None,
            }
            for m in colony.members.values()
        ],
        "lease_s": colony.lease_s,
        "queues": sorted(colony.queues),
        "processes": [_process(process) for process in teller.history.processes.values()],
    }


def _process(process: Process) -> dict[str, Any]:
    return {
        "process": process.id,
        "state": process.state,
        "submitter": process.submitter,
        "queue": process.queue,
        "head": process.head.hex(),
        "sequence": process.sequence,
        "time": process.time,
        "failures": process.failures,
        "lost_in_a_row": process.lost_in_a_row,
        "attempts": [[a.n, a.id, a.worker, a.outcome] for a in process.attempts],
    }


def _text(found: dict[str, Any]) -> str:
    """JSON with one line for each item of a list."""
    parts = []
    for name, value in found.items():
        if isinstance(value, list):
            lines = ",\n".join(f"    {_line(item)}" for item in value)
            parts.append(f"  {_line(name)}: [\n{lines}\n  ]")
        else:
            parts.append(f"  {_line(name)}: {_line(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
