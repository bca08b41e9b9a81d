"""What this machine has seen of a ledger, kept outside the ledger: its last known event.

A broker that loses the tail of its ledger counts on from there, and nothing inside tells. So whoever verified
a ledger up to some event remembers that event here, one small file per colony; `ledger verify` and the
orchestrator hold the ledger against it. It is a memory, not a proof: receipts and checkpoints are more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from colonies.contexts import data_folder
from colonies.errors import Invalid
from colonies.files import read_small
from colonies.ledger import Ledger, Stored

MAX_WITNESS_BYTES = 4_096

_log = structlog.get_logger("colonies.orchestrator")


@dataclass(frozen=True, slots=True)
class HighWater:
    """The last event that was seen valid: its sequence, and the SHA-256 over its subject and bytes."""

    sequence: int = 0
    digest: str = ""


def digest_of(stored: Stored) -> str:
    """What identifies a stored message: SHA-256 over subject, line feed and bytes, in hex."""
    return hashlib.sha256(stored.subject.encode() + b"\n" + stored.data).hexdigest()


def recall(colony: str) -> HighWater:
    """What was last seen of the colony with this account key; sequence 0 if nothing."""
    try:
        match json.loads(read_small(_path(colony), MAX_WITNESS_BYTES)):
            case {"sequence": int() as sequence, "digest": str() as digest} if sequence >= 0:
                return HighWater(sequence, digest)
    except (OSError, Invalid, ValueError, RecursionError):
        pass
    return HighWater()


def remember(colony: str, seen: HighWater) -> None:
    """Keep it, unless more was seen already. A full disk is no reason to stop: then it is not kept."""
    if seen.sequence <= recall(colony).sequence:
        return
    path = _path(colony)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"sequence": seen.sequence, "digest": seen.digest}, file)
        os.replace(temporary, path)


def _path(colony: str) -> Path:
    return data_folder() / "witness" / f"{colony}.json"


class Witness:
    """Bears witness for whoever follows a ledger from its beginning."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._before = HighWater()  # what was seen by those before us
        self._last: Stored | None = None

    async def look_for_a_cut(self) -> None:
        """Does the ledger go as far as was seen on this machine? Before anything is followed."""
        self._before = recall(self._ledger.colony)
        if await self._ledger.last_sequence() < self._before.sequence:
            _log.error(
                "the ledger ends before an event that was seen here: its tail is lost; run ledger verify",
                seen=self._before.sequence,
            )

    def saw(self, batch: Sequence[Stored]) -> None:
        """These came next. Among them may be what was seen here before; it must be the same."""
        self._last = batch[-1]
        if not batch[0].sequence <= self._before.sequence <= batch[-1].sequence:
            return
        for stored in batch:
            if stored.sequence == self._before.sequence and digest_of(stored) != self._before.digest:
                _log.error("not the event that was seen here: the ledger was cut", sequence=stored.sequence)

    async def bear(self) -> None:
        """Keep outside the ledger how far it went, so that a cut tail is noticed."""
        if self._last is not None:
            seen = HighWater(self._last.sequence, digest_of(self._last))
            await asyncio.to_thread(remember, self._ledger.colony, seen)
