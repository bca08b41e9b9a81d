"""Connections that cost something and bring nothing: too many, half-open, too slow to read.

uvicorn's own timers run between two requests of a connection. Here a connection also has HEAD_S for each
whole request, and whoever does not take what we send for STALL_S is cut off, so that what waits for slow
readers is bounded by the sockets' buffers. Nothing here looks into a request.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_S: Final = 10.0
STALL_S: Final = 20.0
MAX_CONNECTIONS: Final = 500
MAX_HEAD_BYTES: Final = 16_384
IDLE_S: Final = 30


class Connection(H11Protocol):
    """See uvicorn; it makes one for each connection."""

    _head: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self.transport.abort()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._head = _off(self._head)
        else:
            self._expect()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self._stall or self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall = _off(self._stall)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._stall = _off(self._head), _off(self._stall)
        super().connection_lost(exc)

    def _expect(self) -> None:
        """A request, whole, from the first byte of waiting on; not anew with each byte."""
        if not self.transport.is_closing():
            self._head = self._head or self.loop.call_later(HEAD_S, self.transport.abort)


def _off(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer, in the place of this one."""
    if timer is not None:
        timer.cancel()
    return None
