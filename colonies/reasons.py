"""What is asked when somebody asks why: the facts about one process, and the reasons made of them. Data only.

The facts of the ledger are verified, and each has its sequence. What only views say (who lives, what they
run, how much waits) stands apart, in `Views`, with the sequence that it is of. Times are ledger times (ns).
`colonies.why` makes reasons of facts; `colonies.explaining` reads the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from colonies.core.capacity import Capacity
from colonies.core.colony import Queue
from colonies.core.events import Record
from colonies.core.process import Process
from colonies.core.shapes import SECOND
from colonies.core.spec import Limit
from colonies.core.workflow import Workflow
from colonies.heartbeats import Heartbeat
from colonies.history import Judged
from colonies.show import jsonable, rfc3339

NAMED = 5  # in one sentence; `data` has more
MAX_IN_DATA = 100
FUNC_CHARS = 60


@dataclass(frozen=True, slots=True)
class Reason:
    """One answer. `code` is stable; `sequences` are the events that it stands on; `since` and `until` are
    from when it holds and up to when, if that is known; `data` has what the text says, for programs.

    `process` and `node` say of whom it is said, where that is one of many.
    """

    code: str
    text: str
    sequences: tuple[int, ...] = ()
    since: int | None = None
    until: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    process: str | None = None
    node: str | None = None


def reason_object(reason: Reason) -> dict[str, Any]:
    """A reason as a JSON object.

    `{process, node, reason, text, sequences, since, until, data}`.
    """
    return {
        "process": reason.process,
        "node": reason.node,
        "reason": reason.code,
        "text": reason.text,
        "sequences": list(reason.sequences),
        "since": rfc3339(reason.since) if reason.since is not None else None,
        "until": rfc3339(reason.until) if reason.until is not None else None,
        "data": jsonable(dict(reason.data)),
    }


@dataclass(frozen=True, slots=True)
class Step:
    """A valid event of the process, and the process after it."""

    record: Record
    after: Process


@dataclass(frozen=True, slots=True)
class Stop:
    """The colony or a queue is paused, or a worker drained: by whom, since when, why; the event that says it,
    None if it was not found."""

    what: Literal["colony", "queue", "worker"]
    name: str
    by: str
    since: int
    reason: str
    sequence: int | None


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A living instance of a worker. `running` is how many processes it runs, `has` what it has for all of
    them; of its walltime, what is left. `more_functions`: it has others than these as well."""

    name: str
    instance: str
    runtimetype: str
    concurrency: int
    running: int
    functions: tuple[str, ...]
    has: Capacity
    more_functions: bool = False

    def lacks(self, func: str) -> bool:
        """Has it surely no such function? A worker that names none runs anything."""
        return bool(self.functions) and not self.more_functions and func not in self.functions


@dataclass(frozen=True, slots=True)
class Ahead:
    """What waits before a process: those submitted earlier in the same queue (`more`: and others), and those
    of higher priority that its workers could take."""

    same: int
    more: bool
    higher: int


@dataclass(frozen=True, slots=True)
class Usual:
    """How long (s) the last successful processes of one function ran: how many, their median, the most."""

    count: int
    median_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Views:
    """What the views say, as of the sequence `position`. `more`: there are other workers as well."""

    position: int
    workers: tuple[WorkerNow, ...] = ()
    more: bool = False
    ahead: Ahead | None = None
    usual: Usual | None = None


@dataclass(frozen=True, slots=True)
class PlaceNow:
    """A key under which a process wants a place. `holders` are processes that hold one, with the sequences of
    their grants; `room_at` is from when on there is room (None: when a place is given back); `granted` is the
    grant to this process, if it has one. `grants` are those that count toward a rate."""

    key: str
    limit: Limit
    holders: tuple[tuple[str, int], ...]
    room_at: int | None
    grants: tuple[int, ...] = ()
    granted: int | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """The node whose end ended another; `process` is None if it is not known here."""

    label: str
    process: Process | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one process at the ledger time `now`.

    `refused` are messages under its name that do not count. `views` is None where nobody answered for them,
    and then `silence` says so. `cause` is the node that ended this one.
    """

    process: Process
    steps: Sequence[Step]
    now: int
    refused: Sequence[Judged] = ()
    queue: Queue | None = None
    stops: Sequence[Stop] = ()
    places: Sequence[PlaceNow] = ()
    views: Views | None = None
    silence: str = ""
    beat: Heartbeat | None = None
    workflow: Workflow | None = None
    cause: Cause | None = None

    def sequence_of(self, event_id: str) -> tuple[int, ...]:
        """The sequence of the process's event of this id."""
        return tuple(step.record.sequence for step in self.steps if step.record.id == event_id)


def named(names: Sequence[str], most: int = NAMED) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def called(func: str) -> str:
    """A function, or how a script begins."""
    first = func.strip().splitlines()[0][:FUNC_CHARS]
    return first if first == func else f"{first} ..."


def lasted(ns: int) -> str:
    """A span of time as people read it."""
    seconds = max(0, ns) / SECOND
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3_600
    return (
        f"{minutes:.0f} min" if minutes < 120 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"
    )


def plural(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
