"""One reader of the ledger for all who listen: the latest events, judged, in a ring of bounded size.

Whoever listens holds a position and takes from the ring what is behind it; who is further back than the
ring reads the ledger for itself until it is there (`events`). So a slow listener costs nobody memory, and
nothing is ever left out.
"""

from __future__ import annotations

import asyncio
import bisect
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from colonies import feed
from colonies.core.colony import Colony
from colonies.feed import Told
from colonies.session import Session
from colonies.show_event import cloud_event

MAX_RING_EVENTS: Final = 4_096
MAX_RING_BYTES: Final = 33_554_432


@dataclass(slots=True)
class Entry:
    """An event as it goes out. `size_bytes` is what it holds: its message, and its text once it is made."""

    told: Told
    size_bytes: int
    text: bytes = b""

    @property
    def sequence(self) -> int:
        return self.told.seen.stored.sequence


def server_sent(told: Told, colony: Colony) -> bytes:
    """An event as a server-sent one: its sequence as `id`, a CloudEvent in JSON as `data`."""
    text = json.dumps(cloud_event(told.seen, colony), separators=(",", ":"))
    return b"id: %d\ndata: %s\n\n" % (told.seen.stored.sequence, text.encode())


class Hub:
    """The ring. `ready` is set once it follows the ledger; `position` is the last sequence that it saw."""

    def __init__(self, session: Session) -> None:
        self.ready = asyncio.Event()
        self.position = 0
        self.closed = False
        self.taps: list[Callable[[Told], Awaitable[None]]] = []  # who gets every event as it comes
        self._session = session
        self._ring: list[Entry] = []
        self._size_bytes = 0
        self._before = 0  # all behind this sequence is in the ring
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the ledger until cancelled. Raises as `colonies.feed.tell`."""
        self.position = self._before = await self._session.ledger.last_sequence()
        self.ready.set()
        async with aclosing(feed.tell(self._session, self.position)) as events:
            async for told in events:
                for tap in self.taps:
                    await tap(told)
                self._add(Entry(told, len(told.seen.stored.data)))

    def close(self) -> None:
        """All who listen are to leave."""
        self.closed = True
        self._wake()

    def since(self, position: int) -> list[Entry] | None:
        """What is behind this position, maybe nothing; None: the ring does not reach back so far."""
        if not self.reaches(position):
            return None
        return self._ring[bisect.bisect_right(self._ring, position, key=_sequence) :]

    def reaches(self, position: int) -> bool:
        """Does the ring have all that is behind this position?"""
        return position >= self._before

    def text(self, entry: Entry) -> bytes:
        """An entry as text, made once for all who listen."""
        if not entry.text:
            entry.text = server_sent(entry.told, self._session.colony)
            entry.size_bytes += len(entry.text)
            if entry.sequence > self._before:
                self._size_bytes += len(entry.text)
                self._trim()
        return entry.text

    async def change(self) -> None:
        """Wait until there is more, or the hub is closed."""
        if not self.closed:
            await self._changed.wait()

    def _add(self, entry: Entry) -> None:
        self._ring.append(entry)
        self._size_bytes += entry.size_bytes
        self.position = entry.sequence
        self._trim()
        self._wake()

    def _trim(self) -> None:
        """Keep within the limits; a quarter goes at once, so that it is seldom."""
        if len(self._ring) <= MAX_RING_EVENTS and self._size_bytes <= MAX_RING_BYTES:
            return
        gone = 0
        while len(self._ring) - gone > MAX_RING_EVENTS * 3 // 4 or self._size_bytes > MAX_RING_BYTES * 3 // 4:
            self._size_bytes -= self._ring[gone].size_bytes
            self._before = self._ring[gone].sequence
            gone += 1
        del self._ring[:gone]

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _sequence(entry: Entry) -> int:
    return entry.sequence
