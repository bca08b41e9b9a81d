"""One open feed: its position, what it wants, and the tasks that send, look after the token, and hear it
leave.

It takes from the hub what is behind its position or, further back, reads and judges the ledger itself, in
turns with others. Nothing waits in memory for a slow reader: it is behind, and what it wants is on the
ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from colonies.errors import ColoniesError, NotFound, Refused, Unavailable
from colonies.feed import Reader as LedgerReader
from colonies.feed import Told
from colonies.listening import Wanted
from colonies_projections.http.access import Reader
from colonies_projections.http.hub import Hub, server_sent
from colonies_projections.http.problems import Problem

MAX_STREAMS: Final = 100
MAX_STREAMS_OF_ONE: Final = 20
MAX_CATCHING_UP: Final = 4
MAX_PIECE_BYTES: Final = 262_144
TURN_S: Final = 5.0
CHECK_S: Final = 0.25
KEEP_ALIVE_S: Final = 15.0
TELL_S: Final = 1.0
LAST_WORD_S: Final = 0.5
AGAIN_S: Final = 0.5
RETRY_MS: Final = 2_000


class Streams:
    """The feeds that are open, by member, and the turns to read the ledger for oneself."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.turns = asyncio.Semaphore(MAX_CATCHING_UP)

    def check(self, member: str) -> None:
        """Raises Problem: there are too many."""
        if self.open.total() >= MAX_STREAMS or self.open[member] >= MAX_STREAMS_OF_ONE:
            raise Problem(
                503,
                f"too many feeds are open: {MAX_STREAMS} in all, {MAX_STREAMS_OF_ONE} of one member",
                {"Retry-After": "10"},
            )


def takes(wanted: Wanted, told: Told) -> bool:
    """Is this event wanted?"""
    return wanted.may_be(told.seen.stored) and wanted.is_(told)


class EventStream(Response):
    """The answer to whoever wants events behind the sequence `position`."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, streams: Streams, reader: Reader, position: int, wanted: Wanted) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.position = position
        self._hub = hub
        self._streams = streams
        self._reader = reader
        self._wanted = wanted
        self._waiting: list[bytes] = []
        self._size_bytes = 0
        self._sent_at = time.monotonic()
        self._told = position  # the last id that was sent
        self._send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        member = self._reader.said.sub
        self._streams.check(member)
        self._streams.open[member] += 1
        try:
            await self._run(receive, send)
        finally:
            self._streams.open[member] -= 1

    async def _run(self, receive: Receive, send: Send) -> None:
        self._send = send
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        tasks = [
            asyncio.create_task(self._pump(), name="feed: send"),
            asyncio.create_task(self._watch(), name="feed: token"),
            asyncio.create_task(_gone(receive), name="feed: reader"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(LAST_WORD_S):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, ColoniesError):
                raise end

    # --- its token -----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Ends when the token is none any more, or the hub closes."""
        while not self._hub.closed:
            try:
                await self._reader.sees("feed")
            except (Refused, Problem):
                return
            await asyncio.sleep(CHECK_S)

    # --- sending -------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        await self._put(b"retry: %d\nid: %d\n\n" % (RETRY_MS, self.position), self.position)
        await self._flush(self.position)
        while not self._hub.closed:
            entries = self._hub.since(self.position)
            if entries is None:
                await self._take_turn()
                continue
            for entry in entries:
                if takes(self._wanted, entry.told):
                    await self._put(self._hub.text(entry), entry.sequence)
            if entries:
                await self._flush(entries[-1].sequence)
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Until there is more. Who wants little hears how far the ledger is, a proxy that we are there."""
        due = self._sent_at + (TELL_S if self.position > self._told else KEEP_ALIVE_S)
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._hub.change()
        except TimeoutError:
            await self._keep_alive()

    async def _take_turn(self) -> None:
        """Read the ledger itself for a while, or until the hub has what comes next."""
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._streams.turns.acquire()
                break
            except TimeoutError:
                await self._keep_alive()
        try:
            await self._read_on(time.monotonic() + TURN_S)
        except (Unavailable, NotFound):
            await asyncio.sleep(AGAIN_S)
        finally:
            self._streams.turns.release()

    async def _read_on(self, until: float) -> None:
        session = self._reader.session
        reading = LedgerReader(session, self.position)
        async with aclosing(reading.read(self._wanted.may_be)) as found:
            async for told in found:
                if self._wanted.is_(told):
                    await self._put(server_sent(told, session.colony), reading.position)
                if self._hub.reaches(reading.position) or time.monotonic() > until:
                    break
                if time.monotonic() > self._sent_at + KEEP_ALIVE_S:
                    await self._flush(reading.position)
                    await self._keep_alive()
        await self._flush(reading.position)

    async def _keep_alive(self) -> None:
        """An id alone is no event, but whoever comes again comes with it."""
        await self._put(b"id: %d\n\n" % self.position, self.position)
        await self._flush(self.position)

    async def _put(self, text: bytes, sequence: int) -> None:
        """To be sent with what comes next, or now if that is enough. `sequence` is its id."""
        self._waiting.append(text)
        self._size_bytes += len(text)
        self._told = sequence
        if self._size_bytes >= MAX_PIECE_BYTES:
            await self._flush(sequence)

    async def _flush(self, position: int) -> None:
        """Send what waits; then all up to this position was sent."""
        if self._waiting:
            piece = b"".join(self._waiting)
            self._waiting, self._size_bytes = [], 0
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self._sent_at = time.monotonic()
        self.position = position


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
