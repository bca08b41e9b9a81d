"""A real HTTP server for tests, and a client that is not ours: h11 over a socket.

async with serving(session) as web:
    answer = await web.get("/v1/processes?state=failed", token)
    async with web.events(token, "?after=0") as feed:
        event = await feed.next()
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11
from colonies_projections.http import Door, Listen, open_door
from colonies_projections.http.service import HttpService

from colonies import bearer
from colonies.nkeys import KeyPair
from colonies.session import Session

LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event. `data` is None for a block that says only how far the ledger is."""

    id: int
    data: Any


class Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=10_000_000)

    async def ask(
        self, target: str, headers: list[tuple[str, str]], method: str = "GET", sent: bytes = b""
    ) -> h11.Response:
        request = h11.Request(method=method, target=target, headers=headers)
        events = [request, *([h11.Data(sent)] if sent else []), h11.EndOfMessage()]
        self.writer.write(b"".join(self._h11.send(event) or b"" for event in events))
        await self.writer.drain()
        event = await self.next()
        assert isinstance(event, h11.Response), event
        return event

    async def next(self) -> Any:
        """What comes next; `ConnectionClosed` also if it was cut off in the middle."""
        async with asyncio.timeout(LIMIT_S):
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                try:
                    self._h11.receive_data(await self.reader.read(65_536))
                except h11.RemoteProtocolError:
                    return h11.ConnectionClosed()
        return event

    async def body(self) -> bytes:
        found = b""
        while isinstance(event := await self.next(), h11.Data):
            found += bytes(event.data)
        return found

    def close(self) -> None:
        self.writer.close()


class Feed:
    """An open feed. `position` is the last id that came."""

    def __init__(self, connection: Connection, response: h11.Response) -> None:
        self.connection = connection
        self.status = response.status_code
        self.headers = {name.decode(): value.decode() for name, value in response.headers}
        self.position: int | None = None
        self.comments: list[str] = []
        self._text = b""

    async def block(self) -> Event | None:
        """The next block; None: it ended."""
        while b"\n\n" not in self._text:
            try:
                event = await self.connection.next()
            except (h11.RemoteProtocolError, ConnectionError):
                return None
            if not isinstance(event, h11.Data):
                return None
            self._text += bytes(event.data)
        block, _, self._text = self._text.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().splitlines())
        self.position = int(fields["id"])
        return Event(self.position, json.loads(fields["data"]) if "data" in fields else None)

    async def next(self) -> Event:
        """The next event."""
        while (found := await self.block()) is not None:
            if found.data is not None:
                return found
        raise AssertionError("the feed ended")

    async def until(self, sequence: int) -> list[Event]:
        """All events up to a sequence, when it was reached, also if that one is not wanted."""
        found: list[Event] = []
        while (self.position or 0) < sequence:
            block = await self.block()
            assert block is not None, "the feed ended"
            if block.data is not None:
                found.append(block)
        return found

    async def ended(self) -> list[Event]:
        """What comes until it ends."""
        found: list[Event] = []
        while (event := await self.block()) is not None:
            found.append(event)
        return found


class Web:
    """A running server, as those see it who ask it."""

    def __init__(self, door: Door, service: HttpService, task: asyncio.Task[None]) -> None:
        self.door = door
        self.service = service
        self.task = task
        self.tls: ssl.SSLContext | None = None

    async def connect(self, host: str = "127.0.0.1") -> Connection:
        return Connection(*await asyncio.open_connection(host, self.door.port, ssl=self.tls))

    async def get(
        self, target: str, token: str | None = None, method: str = "GET", sent: bytes = b"", **headers: str
    ) -> Answer:
        """One question. Header names with _ for -."""
        connection = await self.connect()
        try:
            response = await connection.ask(target, self._headers(token, headers), method, sent)
            body = await connection.body()
        finally:
            connection.close()
        named = {name.decode(): value.decode() for name, value in response.headers}
        return Answer(response.status_code, named, body)

    @asynccontextmanager
    async def events(self, token: str | None, query: str = "", **headers: str) -> AsyncIterator[Feed]:
        connection = await self.connect()
        try:
            target = f"/v1/events{query}"
            yield Feed(connection, await connection.ask(target, self._headers(token, headers)))
        finally:
            connection.close()

    def _headers(self, token: str | None, more: Mapping[str, str]) -> list[tuple[str, str]]:
        found = {"Host": f"127.0.0.1:{self.door.port}", **{k.replace("_", "-"): v for k, v in more.items()}}
        if token is not None:
            found.setdefault("Authorization", f"Bearer {token}")
        return list(found.items())


@asynccontextmanager
async def serving(session: Session, listen: Listen | None = None) -> AsyncIterator[Web]:
    """A server on any free port, until the block ends."""
    with open_door(listen or Listen(port=0)) as door:
        service = HttpService(session, door)
        task = asyncio.create_task(service.run())
        ready = asyncio.create_task(service.ready.wait())
        try:
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT_S)
            if task.done():
                task.result()
            assert service.ready.is_set()
            yield Web(door, service, task)
        finally:
            ready.cancel()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def token_of(
    session: Session, member: str | None = None, *, expires_s: int = 3_600, key: KeyPair | None = None
) -> str:
    """A token for a member, by default for the session's own, signed with the session's key or another."""
    await session.refresh()
    now = await session.ledger.now()
    text, _ = bearer.issue(
        session.colony, key or session.keypair, member or session.name, expires_s=expires_s, now=now
    )
    return text
