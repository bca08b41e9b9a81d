"""A service of `nats.micro` that answers questions, and only to a member's own inbox.

The broker lets a service publish to the reply subject of whatever it is asked, and the asker chooses that
subject. So a question whose answer would go to a stream, the feed or the JetStream API is not heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import cast

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.micro.request import Request
from nats.micro.service import Service, ServiceConfig

from colonies.tasks import cancellable

CLOSE_S = 2.0

_INBOX = re.compile(r"_INBOX_U[A-Z2-7]{55}(\.[A-Za-z0-9_-]+)+")

_log = structlog.get_logger("colonies.services")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One subject on which a service is asked. Those of a `group` share its questions."""

    name: str
    subject: str
    handler: Callable[[Request], Awaitable[None]]
    group: str


@contextlib.asynccontextmanager
async def answering(
    client: Client, name: str, description: str, endpoints: Sequence[Endpoint]
) -> AsyncIterator[None]:
    """Answer questions within this block: the broker hands them out before it begins."""
    # nats-py asks datetime for the time in a way that is deprecated from Python 3.12 on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        config = ServiceConfig(name=name, version=_version(), description=description)
        service = Service(cast(Client, _OnlyInboxes(client)), config)
        await cancellable(service.start())
    try:
        for endpoint in endpoints:
            await service.add_endpoint(
                name=endpoint.name,
                subject=endpoint.subject,
                handler=endpoint.handler,
                queue_group=endpoint.group,
                metadata={},
            )
        await cancellable(client.flush())
        yield
    finally:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await cancellable(service.stop())


class _OnlyInboxes:
    """A client as `Service` uses it, which hears only what asks for the answer to a member's inbox."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._nuid = client._nuid

    async def subscribe(
        self, subject: str, queue: str = "", *, cb: Callable[[Msg], Awaitable[None]]
    ) -> Subscription:
        async def guarded(msg: Msg) -> None:
            if not _INBOX.fullmatch(msg.reply):
                _log.debug("not answered: the reply subject is no member's inbox", reply=msg.reply)
                return
            try:
                await cb(msg)
            except NatsError as error:
                _log.debug("answer not sent", error=str(error))

        return await self._client.subscribe(subject, queue=queue, cb=guarded)

    async def flush(self) -> None:
        await self._client.flush()


def _version() -> str:
    """This package's version, if it is one as the protocol wants it."""
    found = re.match(r"\d+\.\d+\.\d+", version("colonies"))
    return found[0] if found else "0.0.0"
