"""The door: from a context to an open client.

`connect()` serves both `async with` and plain `with`; the second runs the first on a thread of its own.
"""

from __future__ import annotations

import os
from types import TracebackType

from colonies import contexts, jetstream
from colonies.blocking import BlockingClient
from colonies.client import Client
from colonies.session import Session


async def open_session(
    *, context: str | None = None, url: str | None = None, creds: str | os.PathLike[str] | None = None
) -> Session:
    """Log in and read who is who. Raises NotFound, Invalid, Unavailable, Refused."""
    found = contexts.resolve(context, url, creds)
    credential = contexts.credential_of(found)
    ledger = await jetstream.connect(found.url, credential)
    session = Session(ledger, credential.name, credential.keypair)
    try:
        return await session.open()
    except BaseException:
        await session.close()
        await ledger.close()
        raise


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
