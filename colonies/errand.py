"""A connection for a few requests, such as those that set up a broker: not kept, not made again.

What a member does goes through `colonies.link`; this is for the few things that are said in another name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from nats.aio.client import Client
from nats.errors import Error as NatsError

from colonies.creds import Credential
from colonies.errors import Unavailable
from colonies.tasks import cancellable

Ask = Callable[[str, bytes], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def errand(url: str, credential: Credential, *, wait_s: float) -> AsyncIterator[Ask]:
    """Log in for the length of this block; it gets `ask(subject, body)`, which returns the answer.

    Raises:
        Unavailable: nobody answers at `url`, lets us in or answers a request within `wait_s` seconds each.
    """
    client = Client()
    doing = f"log in as {credential.name}"

    async def ask(subject: str, body: bytes) -> bytes:
        nonlocal doing
        doing = f"get an answer on {subject}"
        message = await cancellable(client.request(subject, body, timeout=wait_s))
        return bytes(message.data)

    try:
        async with asyncio.timeout(wait_s):  # by itself the client would try to connect for minutes
            await cancellable(
                client.connect(
                    url,
                    user_jwt_cb=credential.user_jwt,
                    signature_cb=credential.signature,
                    inbox_prefix=credential.inbox_prefix,
                    allow_reconnect=False,
                    error_cb=_quiet,
                )
            )
        yield ask
    except (OSError, TimeoutError, NatsError) as error:
        said = str(error) or f"no answer within {wait_s:g} s"
        raise Unavailable(f"cannot {doing} at {url}: {said}") from error
    finally:
        with contextlib.suppress(OSError, NatsError):
            await cancellable(client.close())


async def _quiet(_: Exception) -> None:
    """What goes wrong comes out of the request."""
