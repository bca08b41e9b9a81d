"""The door: from a context to an open client.

`connect()` serves both `async with` and plain `with`; the second runs the first on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType

from colonies import contexts, jetstream, past
from colonies.blocking import BlockingClient
from colonies.client import Client
from colonies.creds import Credential
from colonies.errors import ColoniesError
from colonies.ledger import Ledger
from colonies.nkeys import KeyPair
from colonies.read_only import ReadingLedger
from colonies.session import Session

NEW_KEY_S = 2.0
POLL_S = 0.05

_ONLY_READING: list[str] = []  # why nobody in this program may write


@contextlib.asynccontextmanager
async def session_of(url: str, credential: Credential) -> AsyncIterator[Session]:
    """A session of this member. Raises Unavailable, Refused, NotFound (there is no colony yet)."""
    session = await _open(url, credential)
    try:
        yield session
    finally:
        await session.close()
        await session.ledger.close()


async def open_session(
    *,
    context: str | None = None,
    url: str | None = None,
    creds: str | os.PathLike[str] | None = None,
    at: str | None = None,
) -> Session:
    """Log in and read who is who; `at` a moment of the past (`past.MOMENTS`), then the ledger ends there.

    Of an imported ledger nobody is asked: it is read.

    Raises:
        NotFound, Invalid, Unavailable, Refused.
    """
    found = contexts.resolve(context, url, creds)
    if (folder := found.imported) is not None:
        from colonies.imported import READER, ImportedLedger, ImportSession

        imported = ImportedLedger(folder)
        session = await _opened(ImportSession, imported, READER, KeyPair.new("user"), at)
        session.complete_from = imported.header.first
        return session
    return await _open(found.url, contexts.credential_of(found), at)


async def _open(url: str, credential: Credential, at: str | None = None) -> Session:
    ledger: Ledger = await jetstream.connect(url, credential)
    if _ONLY_READING:
        ledger = ReadingLedger(ledger, _ONLY_READING[-1])
    return await _opened(Session, ledger, credential.name, credential.keypair, at)


async def _opened(
    make: Callable[[Ledger, str, KeyPair], Session],
    ledger: Ledger,
    name: str,
    keypair: KeyPair,
    at: str | None,
) -> Session:
    """The session, reading; without one the ledger is closed."""
    if at is not None:
        try:
            ledger = past.PastLedger(ledger, await past.moment(ledger, at, "--at"))
        except BaseException:
            await ledger.close()
            raise
    session = make(ledger, name, keypair)
    try:
        return await session.open()
    except BaseException:
        await session.close()
        await ledger.close()
        raise


@contextlib.contextmanager
def only_reading(why: str) -> Iterator[None]:
    """While this lasts, whoever connects in this program may read and nothing else, and is told `why`."""
    _ONLY_READING.append(why)
    try:
        yield
    finally:
        _ONLY_READING.pop()


async def rekeyed(
    session: Session,
    *,
    context: str | None = None,
    url: str | None = None,
    creds: str | os.PathLike[str] | None = None,
) -> bool:
    """Is there another key of this member where its credential was, so that it can go on with that?

    Asked when the broker let it in no more; a change of keys replaces the file a moment after the ledger has
    it, so it waits up to NEW_KEY_S seconds.
    """
    deadline = time.monotonic() + NEW_KEY_S
    while True:
        with contextlib.suppress(ColoniesError):
            found = contexts.credential_of(contexts.resolve(context, url, creds))
            if found.name == session.name and found.keypair != session.keypair:
                return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S)


class Connecting:
    """A connection to be: enter it with `async with` for a `Client`, with `with` for a `BlockingClient`."""

    def __init__(self, context: str | None, url: str | None, creds: str | os.PathLike[str] | None) -> None:
        self._wanted = (context, url, creds)
        self._client: Client | None = None
        self._blocking: BlockingClient | None = None

    async def open(self) -> Client:
        """Log in. The caller closes the client."""
        context, url, creds = self._wanted
        return Client(await open_session(context=context, url=url, creds=creds))

    async def __aenter__(self) -> Client:
        self._client = await self.open()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()

    def __enter__(self) -> BlockingClient:
        self._blocking = BlockingClient.open(self.open)
        return self._blocking

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._blocking is not None:
            self._blocking.close()


def connect(
    context: str | None = None, *, url: str | None = None, creds: str | os.PathLike[str] | None = None
) -> Connecting:
    """Connect to a colony: the context named, else that of the environment, else the one in use."""
    return Connecting(context, url, creds)
