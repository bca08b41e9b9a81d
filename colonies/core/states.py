"""What a process can be: one class per phase, its attempts, its id. Data only.

A waiting process has an offer, a running one a lease, a final one neither: what does not fit a phase cannot
be written down. How one becomes the other is `colonies.core.process`, when it may is `colonies.core.rules`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import Any, Literal

from colonies.core.node import Node
from colonies.core.shapes import SECOND, Ref
from colonies.core.spec import Spec
from colonies.core.trace import Trace
from colonies.core.values import struct

MAX_LOST_IN_A_ROW = 5  # attempts
REOFFER_AFTER_S = 10
MAX_ATTEMPTS_KEPT = 1_000  # in a `Process`: the last ones. The ledger has them all

# The holder of a long attempt renews it on the ledger after so many leases or so many seconds, whichever is
# less; two leases later it has failed to.
RENEW_LEASES = 10
RENEW_MAX_S = 300.0
RENEW_MARGIN_LEASES = 2

ULID = re.compile(r"\A[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")
_DERIVED = re.compile(r"\A[a-z2-7]{32}\Z")

State = Literal["blocked", "waiting", "running", "successful", "failed", "cancelled", "skipped"]


@struct
class Offer:
    """The event that put the process into its queue: its id, its sequence, its ledger time (ns)."""

    id: str
    sequence: int
    time: int


@struct
class Blocked:
    """Not offered: a backoff or a delay lasts until `until` (ns)."""

    until: int
    state: Literal["blocked"] = "blocked"


@struct
class Waiting:
    """Offered and not taken, since `since` (ns); being offered again does not start that anew."""

    offer: Offer
    since: int
    state: Literal["waiting"] = "waiting"

    def reoffer_at(self) -> int:
        """The ledger time (ns) from which it may be offered again."""
        return max(self.offer.time, self.since) + REOFFER_AFTER_S * SECOND


@struct
class Running:
    """Taken: the last of the process's attempts holds it. `signed_at` (ns) is its last sign on the ledger."""

    offer: Offer
    lease_s: float
    signed_at: int
    state: Literal["running"] = "running"

    def lapses_at(self) -> int:
        """The ledger time (ns) from which another worker may take over: it has looked at the heartbeats."""
        return self.signed_at + int(self.lease_s * SECOND)

    def silent_at(self) -> int:
        """The ledger time (ns) from which the ledger alone shows the holder gone: it has not renewed."""
        renews_s = min(RENEW_LEASES * self.lease_s, RENEW_MAX_S)
        return self.signed_at + int((renews_s + RENEW_MARGIN_LEASES * self.lease_s) * SECOND)


@struct
class Successful:
    """Final: the output is here or, when it is large, in `stored`. What it added to its workflow, as
    it is named there: see `Completed`."""

    output: Any = None
    stored: Ref | None = None
    items: int | None = None
    adds: tuple[Node, ...] = ()
    between: bool = False
    state: Literal["successful"] = "successful"


@struct
class FailedForGood:
    """Final: no attempt will follow. `error` is the last one's."""

    error: str
    state: Literal["failed"] = "failed"


@struct
class CancelledForGood:
    """Final: somebody did not want it any more."""

    by: str
    reason: str
    state: Literal["cancelled"] = "cancelled"


@struct
class SkippedForGood:
    """Final: a node whose condition did not hold."""

    state: Literal["skipped"] = "skipped"


@struct
class Awaiting:
    """A node that waits for a signal since `since` (ns): nobody runs it."""

    since: int
    state: Literal["waiting"] = "waiting"


Phase = (
    Blocked | Waiting | Awaiting | Running | Successful | FailedForGood | CancelledForGood | SkippedForGood
)
Final = (Successful, FailedForGood, CancelledForGood, SkippedForGood)

Outcome = Literal["successful", "failed", "timeout", "later", "returned", "lost", "cancelled"]


@struct
class Attempt:
    """One assignment. `id` is its `assigned` event's id; times are ledger times (ns); `n` counts from 1.

    `code` is the digest of the code that its worker said it runs; None: it said none.
    """

    n: int
    id: str
    worker: str
    instance: str
    started_at: int
    ended_at: int | None = None
    outcome: Outcome | None = None
    error: str | None = None
    logs: int = 0
    code: str | None = None


@struct
class Signal:
    """A signal as it was stored: who sent it, when (ns), what with."""

    sequence: int
    time: int
    by: str
    name: str
    data: Any = None

    @property
    def at(self) -> datetime:
        """When it was stored (UTC)."""
        return datetime.fromtimestamp(self.time / SECOND, UTC)


@struct
class Process:
    """A process as the ledger tells it. `head` and `sequence` are those of its last valid event, `first` is
    the sequence of its first one.

    `failures` counts failed and timed-out attempts, `lost_in_a_row` the lost ones since one last ended in
    any other way. A node of a `workflow` has its label in `node`; one that waits for a signal has neither
    spec nor queue of its own: its spec is empty. `trace` is where its submitter stood.
    """

    id: str
    spec: Spec
    queue: str
    submitter: str
    submitted_at: int
    phase: Phase
    head: bytes
    sequence: int
    time: int
    arguments: Ref | None = None
    attempts: tuple[Attempt, ...] = ()
    failures: int = 0
    lost_in_a_row: int = 0
    workflow: str | None = None
    node: str | None = None
    signals: tuple[Signal, ...] = ()
    trace: Trace | None = None
    first: int = 0

    @property
    def state(self) -> State:
        return self.phase.state

    @property
    def final(self) -> bool:
        return isinstance(self.phase, Final)

    @property
    def waits_since(self) -> int | None:
        """Since when (ns) it has waited to be taken; None: it does not. One with limits waits from when on
        it could be offered."""
        match self.phase:
            case Waiting(since=since) | Awaiting(since=since):
                return since
            case Blocked(until=until) if self.spec.limits:
                return until
        return None

    @property
    def ended_at(self) -> int | None:
        return self.time if self.final else None

    @property
    def errors(self) -> list[str]:
        """The errors of all attempts, oldest first, and what ended the process if no attempt did."""
        found = [attempt.error for attempt in self.attempts if attempt.error]
        if isinstance(self.phase, FailedForGood) and self.phase.error not in found:
            found.append(self.phase.error)
        return found


def is_id(text: str) -> bool:
    """Has this the form of the whole id of a process or a workflow?"""
    return ULID.match(text) is not None or _DERIVED.match(text) is not None


def derived_id(*sources: str) -> str:
    """The id of a process that derives from something: 32 characters, lower case, so never a ULID."""
    digest = hashlib.sha256("\0".join(sources).encode()).digest()
    return base64.b32encode(digest[:20]).decode().lower()


def keyed_id(submitter: str, key: str) -> str:
    """The id that a submitter's idempotency key stands for."""
    return derived_id("key", submitter, key)
