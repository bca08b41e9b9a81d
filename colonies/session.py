"""One member at one ledger: what the client, the worker and the orchestrator have in common.

It knows the colony (members, queues, settings) as of a moment ago, reads and judges processes, and records
events: decide, seal, append by compare-and-set, and again after a conflict. It holds no processes and runs
no work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog

from colonies import codec, subjects
from colonies.core import colony as colonies_
from colonies.core.colony import Colony
from colonies.core.events import (
    Event,
    Genesis,
    ProcessEvent,
    Queued,
    Record,
    Role,
    Submitted,
    WorkflowEvent,
)
from colonies.core.process import Process
from colonies.core.workflow import Known, Workflow
from colonies.errors import NotFound, Refused, Unavailable
from colonies.history import Judged, Story, WorkflowStory, examine, fold_process
from colonies.ids import new_id
from colonies.knowing import Knowledge
from colonies.ledger import Draft, Ledger, Stored, Subscription
from colonies.missing import not_found
from colonies.nkeys import KeyPair
from colonies.recording import EntityTail, ProcessTail, WorkflowTail, record
from colonies.show import to_the_second

REFRESH_S = 30.0
AGAIN_S = 0.5
UNEXPECTED_S = 5.0  # after an error of our own: it is logged each time
_COLONY_PATTERNS = (*subjects.TRUST, subjects.QUEUES)

_log = structlog.get_logger("colonies.session")


class Session:
    """A member's view of its colony, kept up to date until `close`. From the sequence `complete_from` on
    every event of the ledger is to be there."""

    complete_from = 1

    def __init__(self, ledger: Ledger, name: str, keypair: KeyPair) -> None:
        self.ledger = ledger
        self.name = name
        self.keypair = keypair
        self.colony = Colony(ledger.colony)
        self.stale = asyncio.Event()
        self.ears: set[Callable[[], None]] = set()  # called when the feed may have lost something
        self.on_queues: list[Callable[[], None]] = []
        self.changed = asyncio.Event()
        self.knowledge = Knowledge(self)
        self._position = 0
        self._refreshing = asyncio.Lock()
        self._subscriptions: list[Subscription] = []
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> Session:
        """Read who is a member and what is declared, and follow both from here.

        Raises:
            Unavailable: the broker does not answer.
            Refused: this member is not one of the colony.
        """
        for pattern in _COLONY_PATTERNS:
            feed = subjects.feed_of(pattern)
            self._subscriptions.append(await self.ledger.subscribe(feed, lambda _: self.stale.set()))
        self.ledger.on_gap(self._on_gap)
        await self.refresh()
        self._keeper = asyncio.create_task(self._keep_fresh(), name="colony keeper")
        return self

    def _on_gap(self) -> None:
        self.stale.set()
        for hear in list(self.ears):
            hear()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    @property
    def role(self) -> Role:
        """This member's role.

        Raises:
            Refused: it is no member, or no longer.
        """
        member = self.colony.members.get(self.name)
        if member is None or self.colony.holders.get(self.keypair.public) != self.name:
            raise Refused(
                f"{self.name} is not a member of this colony with this key; ask an owner to approve it "
                "(`colonies member request`)"
            )
        if member.until is not None:
            raise Refused(f"{self.name} was revoked; ask an owner for a new member")
        if member.key != self.keypair.public:
            raise Refused(
                f"the key of {self.name} was changed, and this credential holds the former one; use the new "
                "one (where the change was asked for: `colonies member install FILE`), and start again"
            )
        return member.role

    def role_at(self, now: int) -> Role:
        """This member's role, if it has not ended by `now` (ledger time, ns). Raises Refused."""
        role = self.role
        expires = self.colony.members[self.name].expires
        if expires is not None and now >= expires:
            raise Refused(
                f"{self.name} was a member until {to_the_second(expires)}; "
                "ask an owner to approve another name (`colonies member request`)"
            )
        return role

    async def refresh(self) -> None:
        """Fold what the ledger says of the colony since the last time."""
        async with self._refreshing:
            self.stale.clear()
            last = await self.ledger.last_sequence()
            found: list[Stored] = []
            for pattern in _COLONY_PATTERNS:
                # Complete up to what the leader has (see `scan`): whatever is left out is never read again.
                async for batch in self.ledger.scan(self._position, pattern):
                    found += [stored for stored in batch if stored.sequence <= last]
            before = self.colony.flow()
            for stored in sorted(found, key=lambda stored: stored.sequence):
                self.fold(self.colony, stored)
            self._position = max(self._position, last)
            if found:
                self.changed.set()
            if self.colony.flow() != before:
                for heard in self.on_queues:
                    heard()

    def fold(self, view: Colony, stored: Stored) -> None:
        """Fold an event of the colony into a view of it, if it is one and true there."""
        seen = examine(self.colony, stored)
        if seen.record is not None and colonies_.judge(view, seen.record).valid:
            colonies_.evolve(view, seen.record)

    async def _keep_fresh(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self.stale.wait()
            try:
                await self.refresh()
            except (Unavailable, NotFound, Refused) as error:
                _log.debug("colony not refreshed", error=str(error))
                await asyncio.sleep(AGAIN_S)
                self.stale.set()
            except Exception:
                _log.exception("colony not refreshed")
                await asyncio.sleep(UNEXPECTED_S)
                self.stale.set()

    # --- reading -------------------------------------------------------------------------------------

    async def examine(self, stored: Stored) -> Judged:
        """As `history.examine`, having looked again for members and keys too new to be known here."""
        seen = examine(self.colony, stored)
        if seen.stranger or (seen.record is None and stored.sequence > self._position):
            await self.refresh()
            seen = examine(self.colony, stored)
        return seen

    async def story(self, process: str) -> Story:
        """One process, read from the leader, every event judged.

        What is not valid may be so only by rules that are old: the feed may lose what changes them. So before
        anybody decides on it, the colony is read up to there.
        """
        messages = await self.ledger.read(subjects.guard_of("process", process))
        await self.knowledge.learn(messages)
        story = fold_process(self.colony, messages, self.knowledge)
        if await self.caught_up(story.judged):
            await self.knowledge.learn(messages)
            story = fold_process(self.colony, messages, self.knowledge)
        return story

    async def caught_up(self, judged: list[Judged]) -> bool:
        """Was the colony read on because of what is not valid, so that it must be judged again?"""
        if not any(not s.verdict.valid and s.stored.sequence > self._position for s in judged):
            return False
        await self.refresh()
        return True

    async def workflow(self, id: str) -> Workflow:
        """One workflow as it is now.

        Raises:
            NotFound: nobody submitted it.
        """
        found = (await self.knowledge.workflow_now(id)).workflow
        if found is None:
            raise await not_found(self, "workflow", id)
        return found

    async def process(self, process: str) -> Process:
        """One process as it is now.

        Raises:
            NotFound: nobody submitted it.
        """
        found = (await self.story(process)).process
        if found is None:
            raise await not_found(self, "process", process)
        return found

    # --- writing -------------------------------------------------------------------------------------

    def seal(
        self, event: Event, entity: str, *, prev: bytes | None, id: str, now: int, queue: str | None = None
    ) -> tuple[str, codec.Sealed]:
        """The event signed by this member, and the subject it is signed for."""
        subject = subjects.subject_of(event, entity, self.name, queue)
        return subject, codec.seal(
            self.keypair,
            self.ledger.colony,
            subject,
            id=id,
            type=event.type,
            time=now,
            author=self.name,
            prev=prev,
            data=codec.data_of(event),
        )

    def seal_first(
        self, event: Queued | Submitted, process: str, queue: str | None, now: int
    ) -> tuple[Draft, Record]:
        """A submission to send, and the record that it will be (its sequence is not known yet)."""
        id = new_id()
        subject, sealed = self.seal(event, process, prev=None, id=id, now=now, queue=queue)
        record = Record(
            0, now, "process", process, queue, self.name, self.role_at(now), id, None, sealed.digest, event
        )
        return Draft(subject, sealed.data, 0), record

    def seal_note(self, subject: str, type: str, now: int, data: dict[str, Any]) -> bytes:
        """A heartbeat or log message, signed by this member."""
        return codec.seal(
            self.keypair,
            self.ledger.colony,
            subject,
            id=new_id(),
            type=type,
            time=now,
            author=self.name,
            prev=None,
            data=data,
        ).data

    async def record(
        self,
        process: str,
        event: ProcessEvent,
        *,
        at: Story,
        queue: str | None = None,
        id: str | None = None,
        once: bool = False,
        known: Known | None = None,
    ) -> Story:
        """Record an event of a process, starting from what is known of it. See `recording.record`.

        `known` has what the event cites, by default what this session knows.

        Returns the process after it (its last time is our estimate; the ledger's is a moment later).
        """
        tail = ProcessTail(self, process, event, at, known or self.knowledge)
        return await record(self, tail, queue=queue, id=id, once=once)

    async def record_workflow(
        self,
        id: str,
        event: WorkflowEvent,
        *,
        at: WorkflowStory,
        known: Known | None = None,
        once: bool = False,
    ) -> WorkflowStory:
        """Record an event of a workflow, starting from what is known of it. As `record`."""
        return await record(self, WorkflowTail(self, id, event, at, known or self.knowledge), once=once)

    async def record_genesis(self, genesis: Genesis) -> int:
        """Record the colony's first event. This session's keypair must be the account's."""
        now = await self.ledger.now()
        subject, sealed = self.seal(genesis, "", prev=None, id=new_id(), now=now)
        return await self.ledger.append(Draft(subject, sealed.data, 0))

    async def record_entity(self, kind: str, entity: str, event: Event) -> int:
        """Record an event of the colony, a member, a queue or a worker; its sequence. As `record`."""
        tail = EntityTail(self, kind, entity, event)
        await tail.read()
        return await record(self, tail)
