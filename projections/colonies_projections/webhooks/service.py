"""The service that sends to webhooks: follows the ledger, keeps what is to be delivered, delivers it.

It is a member with the role `observer`, like a projector: it reads, it is asked, it says nothing on the
ledger. A webhook names the service that sends for it, and its secret is sealed for that one's key, so of
several each does its own. Killed at any point it goes on where its file ends: every event is delivered at
least once, always under the same id. The first time it begins where its first webhook does.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from colonies import subjects
from colonies.core.events import Record, WebhookRemoved
from colonies.core.webhooks import Webhook, evolve
from colonies.errors import NotFound, Refused, Unavailable
from colonies.feed import tell
from colonies.history import Judged
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Stored
from colonies.session import Session
from colonies.tasks import first_error
from colonies.webhooks import webhooks
from colonies_projections.position import Position, Unusable
from colonies_projections.store import discard, locked
from colonies_projections.webhooks.answers import Answers
from colonies_projections.webhooks.book import Book, Changes, Delivery
from colonies_projections.webhooks.desk import open_desk
from colonies_projections.webhooks.line import DELAYS_S, Line, Means
from colonies_projections.webhooks.messages import event_message
from colonies_projections.webhooks.sending import ANSWER_S, Sender, open_sender

MAX_TAKEN: Final = 500  # events that are kept in one go
MAX_SPECS_KEPT: Final = 10_000  # functions and labels of processes
POSITION_EVERY: Final = 1_000  # events: of those that no webhook hears, every so many moves the position
AGAIN_S: Final = 0.5

_log = structlog.get_logger("colonies.webhooks")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of the ledger, and what it brings. See `Changes`."""

    stored: Stored
    webhooks: dict[str, Webhook | None] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)


class Webhooks:
    """The service, on a session of a member with the role `observer`; its file is `path`.

    `ready` is set once it is asked and sends. `delays_s`: after each failed try but the last.
    """

    def __init__(
        self,
        session: Session,
        path: Path,
        *,
        public_only: bool = False,
        delays_s: Sequence[float] = DELAYS_S,
        wait_s: float = ANSWER_S,
    ) -> None:
        assert isinstance(session.ledger, JetStreamLedger)
        self.session = session
        self.ledger = session.ledger
        self.path = path
        self.ready = asyncio.Event()
        self._public_only = public_only
        self._delays_s = delays_s
        self._wait_s = wait_s
        self._book: Book
        self._sender: Sender
        self._said: dict[str, Webhook] = {}
        self._lines: dict[tuple[str, int], Line] = {}  # by name and `added`
        self._specs: OrderedDict[str, tuple[str, str | None]] = OrderedDict()

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            Refused: this member is no observer, or is revoked.
            Unavailable: another has the file, or it cannot be written.
        """
        if self.session.role != "observer":
            raise Refused(f"{self.session.name} is a {self.session.role}; to send it needs the role observer")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(self.path):
                await self._work()
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self.path} cannot be written: {error}") from None
        finally:
            self.ready.clear()

    async def _work(self) -> None:
        async with AsyncExitStack() as stack:
            book = self._book = await self._open_book()
            stack.push_async_callback(book.close)
            self._said = {name: entry.said for name, entry in book.entries.items()}
            self._sender = await stack.enter_async_context(
                open_sender(wait_s=self._wait_s, public_only=self._public_only)
            )
            answers = Answers(self.session, book, self._sender, await self.ledger.now(), self._wake)
            position = book.position.sequence if book.position else await self._beginning()
            with first_error():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.ledger.lost(), name="connection")
                    self._open_lines(group)
                    desk = open_desk(self.ledger.client(), self.session.name, answers.answer, group)
                    await stack.enter_async_context(desk)
                    self.ready.set()
                    _log.info("sending to webhooks", path=str(self.path), position=position)
                    await self._follow(position, group)

    # --- following -----------------------------------------------------------------------------------

    async def _open_book(self) -> Book:
        """The file, if it is of this ledger, else a new one: then all is sent again, under the same ids."""
        for _ in range(2):
            try:
                book = await Book.open(self.path, self.ledger.colony)
            except Unusable as reason:
                self._discard(reason)
                continue
            try:
                await (book.position or Position()).confirm(self.ledger)
            except BaseException as error:
                await book.close()
                if not isinstance(error, Unusable):
                    raise
                self._discard(error)
                continue
            return book
        raise Unavailable(f"{self.path} is unusable again and again")

    def _discard(self, reason: Unusable) -> None:
        _log.warning("the file is begun anew", path=str(self.path), reason=str(reason))
        discard(self.path)

    async def _beginning(self) -> int:
        """Where a new file begins: before the first webhook of this service."""
        last = await self.ledger.last_sequence()
        ours = [found.since for found in await webhooks(self.session) if found.service == self.session.name]
        return min(ours) - 1 if ours else last

    async def _follow(self, position: int, group: asyncio.TaskGroup) -> None:
        waiting: asyncio.Queue[Heard] = asyncio.Queue(MAX_TAKEN)

        async def read() -> None:
            async with aclosing(tell(self.session, position, wanted=self._wanted)) as feed:
                async for told in feed:
                    await waiting.put(await self._heard(told.seen))

        group.create_task(read(), name="ledger")
        while True:
            taken = [await waiting.get()]
            while not waiting.empty() and len(taken) < MAX_TAKEN:
                taken.append(waiting.get_nowait())
            changes = Changes()
            for heard in taken:
                changes.webhooks |= heard.webhooks
                changes.deliveries += heard.deliveries
            await self._book.take(Position.of(taken[-1].stored), changes, time.time_ns())
            self._open_lines(group)
            for name in {delivery.webhook for delivery in changes.deliveries} | set(changes.webhooks):
                self._wake(name)

    def _wanted(self, stored: Stored) -> bool:
        """By its subject: could a webhook hear it, or is it about one?"""
        if stored.sequence % POSITION_EVERY == 0:
            return True
        subject = subjects.parse(stored.subject)
        if subject is None:
            return False
        if subject.kind == "webhook":
            return True
        types = subjects.types_of(subject)
        return any(webhook.hears(type) for webhook in self._said.values() for type in types)

    async def _heard(self, seen: Judged) -> Heard:
        """What a message brings. It is asked of one after the other: each may change who hears the next."""
        heard = Heard(seen.stored)
        record = seen.record
        if record is None or not seen.verdict.valid:
            return heard
        if record.kind == "webhook":
            heard.webhooks[record.entity] = self._say(record)
        for webhook in self._said.values():
            if webhook.added < record.sequence and await self._hears(webhook, record):
                heard.deliveries.append(Delivery(webhook.name, record.sequence, record.event.type))
        return heard

    def _say(self, record: Record) -> Webhook | None:
        """A webhook as it is from here on, if it is one of this service."""
        event: Any = record.event
        if record.entity in self._said or not isinstance(event, WebhookRemoved):
            evolve(self._said, record, event)
        found = self._said.get(record.entity)
        if found is not None and found.service != self.session.name:
            del self._said[record.entity]
            return None
        return found

    async def _hears(self, webhook: Webhook, record: Record) -> bool:
        if not webhook.hears(record.event.type):
            return False
        if webhook.func is None and webhook.label is None:
            return True
        func, label = await self._spec(record.entity)
        return webhook.func in (None, func) and webhook.label in (None, label)

    async def _spec(self, process: str) -> tuple[str, str | None]:
        """The function and the label of a process."""
        found = self._specs.get(process)
        if found is None:
            spec = (await self._patiently(lambda: self.session.process(process))).spec
            found = self._specs[process] = spec.func, spec.label
            if len(self._specs) > MAX_SPECS_KEPT:
                self._specs.popitem(last=False)
        return found

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """What is read, however long the broker is away."""
        while True:
            try:
                return await read()
            except (Unavailable, NotFound) as error:
                _log.debug("not read", error=str(error))
                await asyncio.sleep(AGAIN_S)

    # --- sending -------------------------------------------------------------------------------------

    def _open_lines(self, group: asyncio.TaskGroup) -> None:
        """A line for each webhook that has none."""
        means = Means(self._book, self._sender, partial(event_message, self.session), self._delays_s)
        for name, entry in self._book.entries.items():
            which = name, entry.said.added
            if which not in self._lines:
                line = self._lines[which] = Line(*which, means)
                task = group.create_task(line.run(), name=f"webhook {name}")
                task.add_done_callback(partial(self._line_ended, which))

    def _wake(self, name: str) -> None:
        for line in self._lines.values():
            if line.name == name:
                line.wake()

    def _line_ended(self, which: tuple[str, int], _: asyncio.Task[None]) -> None:
        self._lines.pop(which, None)
