"""nats-py's client with a short way in and out: messages go to whoever listens as they are read, and to the
socket without a task between.

nats-py puts each message of each subscription through a queue and a task of its own and parses its headers
before anybody asks for them; that was the largest part of a process's cost here (docs/performance.md). A
listener is called at once, on the loop, and must return at once; what it raises goes to the error callback.
It has no pending limit of its own: a reader that is too slow is the broker's to cut off.

What is published is put together in one piece and written at the end of the loop's round, together with what
else was published in it; if the socket does not take it, nats-py's own way out waits until it does.

This leans on three inner methods of nats-py. If a version of it has another shape, the ordinary way is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

NO_HEADERS: dict[str, str] = {}

_KNOWN = ["self", "sid", "subject", "reply", "data", "headers"]
_SHORT = list(inspect.signature(Client._process_msg).parameters) == _KNOWN
_KNOWN_OUT = ["self", "force_flush"]
_SHORT_OUT = list(inspect.signature(Client._flush_pending).parameters) == _KNOWN_OUT
_KNOWN_SEND = ["self", "subject", "reply", "payload", "payload_size", "headers"]
_SHORT_SEND = list(inspect.signature(Client._send_publish).parameters) == _KNOWN_SEND
MAX_UNSENT_BYTES = 256 * 1024  # in the socket's buffer; beyond that the ordinary way out waits


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

    _will_write = False

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

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, str] | None
    ) -> None:
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]) if headers else ""
        lines = len(headers or ())
        if not _SHORT_SEND or not head.count("\r") == head.count("\n") == lines:  # theirs to mend
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        if head:
            raw = f"NATS/1.0\r\n{head}\r\n".encode()
            command = f"HPUB {subject} {reply} {len(raw)} {len(raw) + payload_size}\r\n".encode()
        else:
            raw, command = b"", f"PUB {subject} {reply} {payload_size}\r\n".encode()
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(b"".join((command, raw, payload, b"\r\n")))
        if not self._writes_soon() and self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        if force_flush or not self._writes_soon():
            return await super()._flush_pending(force_flush)
        flushed = asyncio.get_running_loop().create_future()
        flushed.set_result(None)
        return flushed

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """nats-py writes a ping past what is pending, and its answer would prove nothing of that: whoever
        subscribes and flushes could still miss what is published then."""
        self._write_pending()
        await super()._send_ping(future)

    def _writes_soon(self) -> bool:
        """Is what is pending written at the end of this round?"""
        if self._will_write:
            return True
        transport = self._transport
        if (
            not _SHORT_OUT
            or not self.is_connected
            or not isinstance(transport, TcpTransport)
            or transport._io_writer is None
            or transport._io_writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES
        ):
            return False
        self._will_write = True
        asyncio.get_running_loop().call_soon(self._write_pending)
        return True

    def _write_pending(self) -> None:
        self._will_write = False
        if self.is_connected and self._pending and self._transport is not None:
            pending, self._pending, self._pending_data_size = self._pending, [], 0
            with contextlib.suppress(OSError, RuntimeError):  # the connection is breaking: the reader says so
                self._transport.writelines(pending)

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
