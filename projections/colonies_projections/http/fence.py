"""What every request passes first, and every answer last: who is asked, how much, how long, in what wrapping.

It knows nothing of what is asked. Only GET is answered, nothing that is sent along is read, and all but a
feed has ANSWER_S. Whatever goes wrong further in comes out as a problem without a word of what it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colonies_projections.http import problems
from colonies_projections.http.door import Door
from colonies_projections.http.problems import Problem

ANSWER_S: Final = 10.0
MAX_TARGET_BYTES: Final = 8_192  # of the path and the question behind it

_WRAPPING: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NO_CONTENT: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

_log = structlog.get_logger("colonies.http")


class Fence:
    """Around an ASGI application. `endless` are the paths that may take as long as they like."""

    def __init__(self, app: ASGIApp, door: Door, endless: Iterable[str] = ()) -> None:
        self._app = app
        self._door = door
        self._endless = frozenset(endless)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        wrapped = _Wrapped(send)
        try:
            self._look(scope)
            async with asyncio.timeout(None if scope["path"] in self._endless else ANSWER_S):
                await self._app(scope, receive, wrapped)
        except TimeoutError:
            await _answer(scope, wrapped, Problem(503, f"there is no answer within {ANSWER_S:g} s"))
        except Problem as problem:
            await _answer(scope, wrapped, problem)
        except Exception:
            _log.exception("request not answered: a defect", path=scope["path"])
            await _answer(scope, wrapped, Problem(500, problems.DEFECT))

    def _look(self, scope: Scope) -> None:
        """Raises Problem: this is not even looked at."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._door.admits(hosts[0]):
            raise Problem(421, "the Host header names no host of this server; --host NAME adds one")
        if scope["method"] != "GET":
            raise Problem(405, "there is only GET here", {"Allow": "GET"})
        if any(n == b"transfer-encoding" or (n == b"content-length" and v != b"0") for n, v in headers):
            raise Problem(413, "nothing may be sent along with a question", {"Connection": "close"})
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            raise Problem(414, f"path and question have more than {MAX_TARGET_BYTES} bytes")


class _Wrapped:
    """`send`, with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.done = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": _with_wrapping(list(message["headers"]))}
        elif not message.get("more_body", False):
            self.done = True
        await self._send(message)


def _with_wrapping(headers: list[tuple[bytes, bytes]]) -> list[Any]:
    has = {name.lower() for name, _ in headers}
    return [*headers, *(pair for pair in (*_WRAPPING, _NO_CONTENT) if pair[0] not in has)]


async def _answer(scope: Scope, send: _Wrapped, problem: Problem) -> None:
    if send.done:  # whoever raised this has answered as well
        return
    if send.begun:  # too late for another word; the connection is closed in the middle, which is one
        raise ConnectionError("the answer was cut off")
    await problem.response()(scope, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
