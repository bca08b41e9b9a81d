"""The one loop that writes to the ledger: decide, sign, append by compare-and-set, again after a conflict.

What differs between a process, a workflow, a cron and the rest is a `Tail`: the end of a history as far as it
is known, where the next event goes. The loop knows no rule of any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from colonies import codec, subjects
from colonies.core import colony as colonies_
from colonies.core import process as processes_
from colonies.core import workflow as workflows_
from colonies.core.colony import MAX_MEMBERS, Colony
from colonies.core.events import MAX_COUNT, Approved, Event, ProcessEvent, Record, WorkflowEvent
from colonies.core.workflow import Known, Workflow
from colonies.errors import Conflict, Invalid, Unavailable, Unknown
from colonies.history import Judged, Story, WorkflowStory, examine
from colonies.ids import new_id
from colonies.ledger import Draft, Stored

if TYPE_CHECKING:
    from colonies.session import Session

MAX_TRIES = 100

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Tail(Protocol[T_co]):
    """The end of one entity's history. `T_co` is what its writer gets back."""

    kind: str
    entity: str

    @property
    def guard(self) -> int:
        """The sequence of the last message of it that is stored, valid or not; 0 if there is none."""

    @property
    def head(self) -> bytes | None:
        """The digest of its last valid event."""

    @property
    def time(self) -> int:
        """The ledger time (ns) of its last valid event; 0 if there is none."""

    def event(self) -> Event:
        """What is to be said now. Raises what makes it pointless."""

    def decide(self, wish: Record) -> None:
        """Raises Refused or Conflict if this may not be recorded now."""

    async def read(self) -> None:
        """Read it again, as the leader has it now."""

    def found(self, id: str) -> T_co | None:
        """What the writer gets, if the event of this id is stored and counts."""

    async def after(self, record: Record) -> T_co:
        """What the writer gets now that this was stored."""


async def record(
    session: Session,
    tail: Tail[T],
    *,
    queue: str | None = None,
    id: str | None = None,
    once: bool = False,
    tries: int = MAX_TRIES,
) -> T:
    """Record what the tail says, as the session's member.

    `id` is the event's, a new one by default. `once`: not again after a conflict, for what depends on more
    than the ledger tells.

    Raises:
        Conflict: it is not true (any more). Nothing was recorded.
        Refused: this member may not say it.
        Unavailable: the broker does not answer; Unknown: ... and what became of the event is not known.
    """
    id = id or new_id()
    what = f"{tail.kind} {tail.entity}".rstrip()
    for _ in range(tries):
        event = tail.event()
        now = await session.ledger.now()
        prev = tail.head
        role = session.role_at(now)
        wish = Record(
            sequence=MAX_COUNT,  # it will stand after all that we know
            time=max(now, tail.time),
            kind=tail.kind,
            entity=tail.entity,
            queue=queue,
            author=session.name,
            role=role,
            id=id,
            prev=prev,
            digest=b"",
            event=event,
        )
        tail.decide(wish)
        subject, sealed = session.seal(event, tail.entity, prev=prev, id=id, now=now, queue=queue)
        try:
            sequence = await session.ledger.append(Draft(subject, sealed.data, tail.guard))
        except (Conflict, Unknown) as error:
            if once and isinstance(error, Conflict):
                raise Conflict(f"{what}: another event came first") from None
            await _settle(tail, error, what)
            if (found := tail.found(id)) is not None:
                return found
            if once:
                raise Conflict(f"{what}: another event came first") from None
            continue
        return await tail.after(replace(wish, sequence=sequence, digest=sealed.digest))
    raise Conflict(f"{what}: {tries} other events came first, each time")


async def _settle(tail: Tail[T], sent: Conflict | Unknown, what: str) -> None:
    """Read what became of the event that was sent and ended so. Raises Unknown if that cannot be read
    either."""
    try:
        await tail.read()
    except Unavailable as error:
        if not isinstance(sent, Unknown):
            raise
        raise Unknown(
            f"{what}: whether what was sent is stored is not known; look before you repeat it ({error})"
        ) from None


def is_there(judged: list[Judged], id: str) -> bool:
    """Is the event of this id among them, and valid?"""
    return any(seen.record is not None and seen.record.id == id and seen.verdict.valid for seen in judged)


@dataclass(slots=True)
class ProcessTail:
    """Of a process; gives its story."""

    session: Session
    entity: str
    said: ProcessEvent
    story: Story
    known: Known
    kind: str = "process"

    @property
    def guard(self) -> int:
        return self.story.guard

    @property
    def head(self) -> bytes | None:
        return self.story.process.head if self.story.process is not None else None

    @property
    def time(self) -> int:
        return self.story.process.time if self.story.process is not None else 0

    def event(self) -> Event:
        return self.said

    def decide(self, wish: Record) -> None:
        verdict = processes_.judge(self.story.process, wish, self.session.colony, self.known)
        verdict.require(f"process {self.entity}")

    async def read(self) -> None:
        self.story = await self.session.story(self.entity)

    def found(self, id: str) -> Story | None:
        return self.story if is_there(self.story.judged, id) else None

    async def after(self, record: Record) -> Story:
        process = processes_.evolve(self.story.process, record, self.known)
        return Story(process, self.story.judged, record.sequence)


@dataclass(slots=True)
class WorkflowTail:
    """Of a workflow; gives its story."""

    session: Session
    entity: str
    said: WorkflowEvent
    story: WorkflowStory
    known: Known
    kind: str = "workflow"

    @property
    def guard(self) -> int:
        return self.story.guard

    @property
    def head(self) -> bytes | None:
        return self.story.held.head if self.story.held is not None else None

    @property
    def time(self) -> int:
        return self.story.held.time if self.story.held is not None else 0

    def event(self) -> Event:
        codec.check(self.said)
        return self.said

    def decide(self, wish: Record) -> None:
        verdict = workflows_.judge(self.story.held, wish, self.session.colony, self.known)
        verdict.require(f"workflow {self.entity}")

    async def read(self) -> None:
        self.story = await self.session.knowledge.story(self.entity)

    def found(self, id: str) -> WorkflowStory | None:
        return self.story if is_there(self.story.judged, id) else None

    async def after(self, record: Record) -> WorkflowStory:
        held = workflows_.evolve(self.story.held, record, self.known)
        workflow = held if isinstance(held, Workflow) else None
        return WorkflowStory(workflow, self.story.judged, record.sequence, held)


class EntityTail:
    """Of the colony, a member, a queue, a worker or a webhook; gives the sequence. Read it before use."""

    time = 0  # their rules ask for no order in time

    def __init__(self, session: Session, kind: str, entity: str, event: Event) -> None:
        self.kind, self.entity = kind, entity
        self._session, self._event = session, event
        self._messages: list[Stored] = []
        self._view: Colony = session.colony

    @property
    def guard(self) -> int:
        return self._messages[-1].sequence if self._messages else 0

    @property
    def head(self) -> bytes | None:
        return colonies_.head(self._view, self.kind, self.entity)

    def event(self) -> Event:
        members = len(self._session.colony.members)
        if isinstance(self._event, Approved) and members >= MAX_MEMBERS:
            raise Invalid(
                f"member {self.entity}: number {members + 1} of this colony, revoked ones included; "
                f"at most {MAX_MEMBERS} are allowed"
            )
        codec.check(self._event)
        return self._event

    def decide(self, wish: Record) -> None:
        colonies_.judge(self._view, wish).require(f"{self.kind} {self.entity}".rstrip())

    async def read(self) -> None:
        session = self._session
        self._messages = await session.ledger.read(subjects.guard_of(self.kind, self.entity))
        await session.refresh()
        self._view = session.colony
        if self.kind in ("worker", "webhook"):  # whose chains sessions do not follow
            self._view = replace(session.colony, heads={}, webhooks={})
            for stored in self._messages:
                session.fold(self._view, stored)

    def found(self, id: str) -> int | None:
        for stored in self._messages:
            seen = examine(self._session.colony, stored)
            if seen.record is not None and seen.record.id == id:
                return stored.sequence
        return None

    async def after(self, record: Record) -> int:
        await self._session.refresh()
        return record.sequence
