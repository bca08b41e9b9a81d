"""The seam between Colonies and what stores its events: what a ledger can do, and nothing of how.

Two implementations pass one contract test: `colonies.jetstream` (the real one) and `colonies.memory_ledger`
(in one process, for users' tests). Everything above this seam is the same code for both. It moves bytes and
compares sequences; it never looks into an event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import field
from typing import Any, ClassVar, Protocol

from colonies.core.values import struct


@struct
class Stored:
    """A message as its stream holds it: `sequence` and `time` (ns, whole microseconds) are the broker's.

    `alone`: the broker checked that no message of the entity stood before this one when it was stored.
    """

    subject: str
    sequence: int
    time: int
    data: bytes
    alone: bool = False


@struct
class Draft:
    """A message to append: it is stored only if `after` is still the last sequence of its entity."""

    subject: str
    data: bytes
    after: int


class Delivery(Protocol):
    """An offer handed to a worker. It comes again unless it is acknowledged or kept alive in time.

    `deliveries` counts how often it was handed out, `waiting` those in its queue that never were: a hint.
    """

    stored: Stored
    queue: str
    deliveries: int
    waiting: int

    async def ack(self) -> None:
        """The offer is dealt with: never deliver it again."""

    async def nak(self, delay_s: float = 0.0) -> None:
        """Not taken: deliver it again, to anybody, after `delay_s` seconds."""

    async def in_progress(self) -> None:
        """Still at it: the time until redelivery starts anew."""


@struct
class PullEnded:
    """A pull ended: it ran out of offers or time (`missing` False), or the queue has no consumer yet.

    `number` is the pull's own. `status`: the broker's word for it; anything but `EMPTY`, `TIME_UP` and none
    (the connection broke) says that it did not take the pull.
    """

    EMPTY: ClassVar = "404"
    TIME_UP: ClassVar = "408"

    queue: str
    missing: bool = False
    number: int = 0
    status: str = field(default="", compare=False)

    @property
    def refused(self) -> bool:
        return self.status not in ("", self.EMPTY, self.TIME_UP)


Arrival = Delivery | PullEnded


class Offers(Protocol):
    """A worker's side of the queues: pulls go out, `arrivals` brings what they find, in one place."""

    async def pull(self, queue: str, *, batch: int, wait_s: float, number: int = 0) -> None:
        """Ask for up to `batch` offers; 0 s: only those that are there. Ends with one `PullEnded` that bears
        `number`, unless all `batch` offers came."""

    async def arrival(self) -> Arrival:
        """The next offer or ended pull."""

    async def close(self) -> None: ...


class Subscription(Protocol):
    async def close(self) -> None: ...


@struct
class QueueState:
    """A queue's consumer: the last sequence it handed out, and the one up to which all is acknowledged.

    `pending` offers were handed out and are not acknowledged; `pulls` are parked, waiting for one. `sound`:
    its settings are ours, so that it hands out every offer.
    """

    delivered: int
    acknowledged: int
    pending: int = 0
    pulls: int = 0
    sound: bool = True


class Machinery(Protocol):
    """What only the service may do: the queues' consumers, and timers. All of it can be made anew."""

    async def make_queue(self, queue: str, *, start: int, lease_s: float) -> None:
        """Make the queue's consumer, or adjust it; it hands out offers from sequence `start` on.

        One that is not sound is made anew.
        """

    async def queue_state(self, queue: str) -> QueueState | None:
        """How far the queue's consumer is; None: it has none."""

    async def delete_queue(self, queue: str) -> None:
        """Delete the queue's consumer, if it has one; what it handed out is forgotten."""

    async def schedule(self, process: str, at: int) -> None:
        """Make the process due at a ledger time (ns, rounded up to whole seconds). The last one counts."""

    async def due(self) -> list[str]:
        """The processes that are due, waiting for at least one. One may come twice, to anybody."""


class Ledger(Protocol):
    """What a colony's streams can do. `colony` is the account key that events are signed for."""

    colony: str

    async def append(self, draft: Draft) -> int:
        """Store one event; returns its sequence.

        Raises:
            Conflict: the entity has another last sequence. Nothing was stored.
            Refused: the broker does not let this member publish there. Nothing was stored.
            Unknown: no answer came; it may be stored or not.
            Unavailable: it was not sent.
        """

    async def send(self, draft: Draft) -> Awaitable[int]:
        """As `append`, in two steps: when this returns the event is on its way, in order."""

    async def append_all(self, drafts: Sequence[Draft]) -> list[int]:
        """Store all or nothing, at most 1,000; returns their sequences. Raises as `append`."""

    async def read(self, pattern: str) -> list[Stored]:
        """All stored messages under a ledger pattern, in order, as the leader has them."""

    def scan(self, after: int = 0, pattern: str = "ledger.>") -> AsyncIterator[list[Stored]]:
        """Everything stored after a sequence, in order and in batches, up to what is there now."""

    async def at(self, sequence: int) -> Stored:
        """One message of the ledger by its sequence. Raises NotFound: the broker has none there."""

    async def last_sequence(self) -> int:
        """The sequence of the last event stored."""

    async def last_of(self, patterns: Sequence[str]) -> dict[str, int]:
        """The last sequence under each of these guards; a hint, it may be a moment old."""

    async def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> Subscription:
        """Hear what is stored from now on (`feed.>`, `log.>`, `heartbeat.>`). It may lose: see `on_gap`."""

    def on_gap(self, heard: Callable[[], None]) -> None:
        """Call this whenever a subscription may have lost something (reconnect, slow consumer)."""

    async def emit(self, subject: str, data: bytes) -> int:
        """Store a heartbeat or a log message; returns its sequence."""

    async def emitted(self, pattern: str) -> list[Stored]:
        """The stored heartbeats or log messages under a pattern, in order."""

    async def offers(self) -> Offers: ...

    async def now(self) -> int:
        """The broker's clock (ns), as well as it can be known here: never ahead of it by design."""

    async def put_value(self, author: str, data: bytes) -> str:
        """Keep a large value; returns the name under which it is found."""

    async def get_value(self, name: str, size_bytes: int) -> bytes:
        """The first `size_bytes` of a large value; more may have come behind it. The caller checks them.

        Raises:
            NotFound: it is not there.
        """

    @property
    def reconnected_at(self) -> float | None:
        """When the connection last came back (s, `time.monotonic`); None: it never broke."""

    async def lost(self) -> None:
        """Wait for ever, or raise why this member is let in no more (revoked, for example)."""

    async def close(self) -> None: ...


class Asked(Protocol):
    """A ledger over whose connection services can be asked."""

    async def ask_service(self, subject: str, body: dict[str, Any], *, wait_s: float) -> dict[str, Any]:
        """The JSON answer of one of the services on a subject. Raises Unavailable: none answers."""
