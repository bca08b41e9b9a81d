"""What is sent for one webhook: every event first in its turn, and what failed again, beside that.

First tries go one at a time, in the order of the ledger; when more than BEHIND wait, up to FIRSTS_AT_ONCE
begin in that order. What is tried again holds up none of them, and is not more than RETRIES_AT_ONCE requests.
Each webhook has a line of its own, so a slow receiver delays no other. A line lasts as long as its webhook
does, whatever is changed about that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from colonies.core.webhooks import Webhook
from colonies_projections.webhooks.book import Book, Delivery, Entry
from colonies_projections.webhooks.sending import Outcome, Sender

# After each failed try: 5 s, 5 min, half an hour, 2 h, 5 h, 10 h, 10 h, as Standard Webhooks advises; then,
# some 28 hours after the first, it is a dead letter. Jitter makes each up to a fifth longer.
DELAYS_S: Final[tuple[float, ...]] = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 36_000.0)
JITTER: Final = 0.2
FIRSTS_AT_ONCE: Final = 8  # requests of one webhook
RETRIES_AT_ONCE: Final = 4  # and beside these
BEHIND: Final = 100  # deliveries
READ_AHEAD: Final = 100  # deliveries
LOOK_AGAIN_S: Final = 60.0  # clocks may be set
UNSENT_S: Final = 1.0  # before what could not even be tried is looked at again

_log = structlog.get_logger("colonies.webhooks")


class NotNow(Exception):
    """It could not even be tried: nothing is known of the receiver by that. The message says why."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all lines use. `request` makes what is sent of a delivery: the secret, an id, the body. It raises
    NotNow, or LookupError where there is nothing to send any more."""

    book: Book
    sender: Sender
    request: Callable[[Webhook, Delivery], Awaitable[tuple[bytes, str, bytes]]]
    delays_s: Sequence[float] = DELAYS_S


class Line:
    """The line of the webhook `name` that was added with the sequence `added`: not of another of its name."""

    def __init__(self, name: str, added: int, means: Means) -> None:
        self.name = name
        self._added = added
        self._means = means
        self._book = means.book
        self._news = asyncio.Event()  # set, and another in its place, when there is some
        self._firsts_flying: set[int] = set()
        self._flying: set[int] = set()  # of the others

    async def run(self) -> None:
        """Send until the webhook is no more."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_firsts(group), name=f"first tries of {self.name}")
            await self._send_again(group)

    def wake(self) -> None:
        """There may be something to do."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _wait(self, news: asyncio.Event, most_s: float = LOOK_AGAIN_S) -> None:
        """Wait for what came since `news` was looked at, or for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(most_s, LOOK_AGAIN_S))):
                await news.wait()

    # --- first tries ---------------------------------------------------------------------------------

    async def _send_firsts(self, group: asyncio.TaskGroup) -> None:
        async for delivery in self._firsts():
            self._firsts_flying.add(delivery.sequence)
            group.create_task(self._try(delivery, self._firsts_flying), name=f"first try of {self.name}")
            while len(self._firsts_flying) >= self._width():
                await self._wait(self._news)

    def _width(self) -> int:
        """How many first tries may be under way."""
        entry = self._entry
        return FIRSTS_AT_ONCE if entry is not None and entry.pending > BEHIND else 1

    async def _firsts(self) -> AsyncIterator[Delivery]:
        """Those never tried, in order, each when it may be tried."""
        after = 0
        while await self._open():
            news = self._news
            ahead = await self._book.firsts(self.name, after, READ_AHEAD)
            if not ahead:
                await self._wait(news)
            for delivery in ahead:
                if self._closed_s() > 0:
                    break
                yield delivery
                after = delivery.sequence

    async def _open(self) -> bool:
        """Wait until the receiver may be sent to; False: there is no such webhook any more."""
        while self._entry is not None:
            news, closed_s = self._news, self._closed_s()
            if closed_s <= 0:
                return True
            await self._wait(news, closed_s)
        return False

    def _closed_s(self) -> float:
        """For how long nothing is to be sent."""
        entry = self._entry
        if entry is None or entry.state.gone is not None:
            return LOOK_AGAIN_S
        return (entry.state.held_until - time.time_ns()) / 1e9

    @property
    def _entry(self) -> Entry | None:
        entry = self._book.entries.get(self.name)
        return entry if entry is not None and entry.said.added == self._added else None

    # --- tries after the first -----------------------------------------------------------------------

    async def _send_again(self, group: asyncio.TaskGroup) -> None:
        room = asyncio.Semaphore(RETRIES_AT_ONCE)
        while await self._open():
            await room.acquire()
            delivery = await self._due()
            if delivery is None:
                room.release()
                continue
            self._flying.add(delivery.sequence)
            task = group.create_task(self._try(delivery, self._flying), name=f"retry of {self.name}")
            task.add_done_callback(lambda _: room.release())

    async def _due(self) -> Delivery | None:
        """What is due now and not under way; None, after a wait, if that is nothing."""
        news, wait_s = self._news, LOOK_AGAIN_S
        for delivery in await self._book.retries(self.name, RETRIES_AT_ONCE + 1):
            if delivery.sequence in self._flying:
                continue
            wait_s = (delivery.due - time.time_ns()) / 1e9
            if wait_s <= 0:
                return delivery
            break
        await self._wait(news, wait_s)
        return None

    # --- one try -------------------------------------------------------------------------------------

    async def _try(self, delivery: Delivery, flying: set[int]) -> None:
        """Send it, and keep what came of it, which it waits for even if it cannot be sent for long."""
        try:
            while (entry := self._entry) is not None:
                news = self._news
                try:
                    secret, id, body = await self._means.request(entry.said, delivery)
                except NotNow as reason:
                    _log.debug("not sent", webhook=self.name, sequence=delivery.sequence, reason=str(reason))
                    await self._wait(news, UNSENT_S)
                    continue
                except LookupError as error:
                    await self._book.failed(delivery, str(error), time.time_ns(), None)
                    return
                await self._keep(delivery, await self._means.sender.send(entry.said.url, secret, id, body))
                return
        finally:
            flying.discard(delivery.sequence)
            self.wake()

    async def _keep(self, delivery: Delivery, outcome: Outcome) -> None:
        now = time.time_ns()
        if outcome.error is None:
            await self._book.delivered(delivery, now)
            return
        delays_s = self._means.delays_s
        due = held_until = None
        if outcome.retry_after_s is not None:
            held_until = now + int(outcome.retry_after_s * 1e9)
        if delivery.tries < len(delays_s):
            wait_s = delays_s[delivery.tries] * random.uniform(1, 1 + JITTER)
            due = max(now + int(wait_s * 1e9), held_until or 0)
        _log.info(
            "not delivered",
            webhook=self.name,
            sequence=delivery.sequence,
            tries=delivery.tries + 1,
            error=outcome.error,
        )
        await self._book.failed(delivery, outcome.error, now, due, held_until or 0)
        if outcome.gone:
            await self._book.gone(self.name, now)
