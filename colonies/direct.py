"""nats-py's client with a short way in: messages go to whoever listens as they are read.

nats-py puts each message of each subscription through a queue and a task of its own and parses its headers
before anybody asks for them; that was the largest part of a process's cost here (docs/performance.md). A
listener is called at once, on the loop, and must return at once; what it raises goes to the error callback.
It has no pending limit of its own: a reader that is too slow is the broker's to cut off.

This leans on one inner method of nats-py. If a version of it has another shape, the ordinary way is taken.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

NO_HEADERS: dict[str, str] = {}

_KNOWN = ["self", "sid", "subject", "reply", "data", "headers"]
_SHORT = list(inspect.signature(Client._process_msg).parameters) == _KNOWN


class Message:
    """A message as it came. Its headers are parsed when they are first asked for."""

    __slots__ = ("_headers", "_raw", "data", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, raw: bytes | None) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self._raw = raw
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers; the broker's own status is under `Status`."""
        if self._headers is None:
            self._headers = NO_HEADERS if not self._raw else _parsed(self._raw)
        return self._headers


Listener = Callable[[Message], None]


class _Direct(asyncio.Future[None]):
    """What a subscription carries that has a listener. It is never done."""

    listener: Listener


class DirectClient(Client):
    """`listen` is `subscribe` the short way; all else is nats-py's."""

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        """Call `listener` with every message on `subject`, in order, from now on."""
        if not _SHORT:

            async def heard(msg: Msg) -> None:
                message = Message(msg.subject, msg.reply, msg.data, None)
                message._headers = msg.headers or NO_HEADERS
                listener(message)

            return await self.subscribe(subject, cb=heard, pending_msgs_limit=-1, pending_bytes_limit=-1)
        direct = _Direct()
        direct.listener = listener
        return await self.subscribe(subject, future=direct)

    async def _process_msg(self, sid: int, subject: Any, reply: Any, data: Any, headers: Any) -> None:
        subscription = self._subs.get(sid)
        direct = subscription._future if subscription is not None else None
        if not isinstance(direct, _Direct):
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            direct.listener(Message(subject.decode(), reply.decode(), data, headers))
        except Exception as error:
            await self._error_cb(error)


def _parsed(raw: bytes) -> dict[str, str]:
    """`NATS/1.0[ <status>[ <description>]]`, then a `Name: value` in each line."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    status = first[8:].strip()
    if status:
        headers["Status"], _, headers["Description"] = status.partition(" ")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers
