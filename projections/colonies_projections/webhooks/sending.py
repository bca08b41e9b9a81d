"""One request to a receiver: signed, within a time, and what came of it.

It does not follow redirects, keeps no cookies, takes no proxy from the environment (the address could not be
checked behind one), verifies certificates, and reads little of the answer and shows none of it: that would
let whoever adds a webhook read what only this machine can. It never decides whether to try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import structlog

from colonies.webhooks import signature
from colonies_projections.webhooks.addresses import NotAllowed, socket_maker

ANSWER_S: Final = 15.0  # for all of a request
READ_S: Final = 1.0  # of what follows the first line of an answer
MAX_READ_BYTES: Final = 65_536  # of an answer: then the connection is used again
MAX_RETRY_AFTER_S: Final = 86_400
IDLE_S: Final = 30.0  # of a connection
MEDIA_TYPE: Final = "application/cloudevents+json"

_log = structlog.get_logger("colonies.webhooks")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status` is None if no answer came; `error` is None if all is well. `retry_after_s`: as the receiver
    asks (429 and 503)."""

    status: int | None
    took_s: float
    error: str | None = None
    retry_after_s: float | None = None

    @property
    def gone(self) -> bool:
        """The receiver wants nothing any more."""
        return self.status == 410


class Sender:
    """Sends, over connections that it keeps. See `open_sender`."""

    def __init__(self, client: aiohttp.ClientSession, wait_s: float) -> None:
        self._client = client
        self._wait_s = wait_s

    async def send(self, url: str, secret: bytes, id: str, body: bytes) -> Outcome:
        """Post a body. `id` is the same however often it is sent."""
        now = int(time.time())
        headers = {
            "content-type": MEDIA_TYPE,
            "webhook-id": id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(secret, id, now, body),
        }
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._wait_s):
                try:
                    return await self._post(url, headers, body)
                except aiohttp.ClientConnectorError:
                    raise
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    # It ended a connection that was kept, while we took it up again. It may have the event.
                    return await self._post(url, headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            return Outcome(None, time.monotonic() - began, self._said(error))
        except Exception:  # a receiver is a stranger: nothing that it answers may end the service
            _log.exception("not sent by an error that is ours", id=id)
            return Outcome(None, time.monotonic() - began, "an error that is ours; the log has more")

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        began = time.monotonic()
        async with self._client.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            outcome = _outcome(answer, time.monotonic() - began)
            await _read_some(answer)
            return outcome

    def _said(self, error: Exception) -> str:
        match error:
            case aiohttp.ClientConnectorCertificateError():
                return f"its certificate is not accepted: {_words(error.certificate_error)}"
            case aiohttp.ClientConnectorDNSError():
                return "its host is not known"
            case aiohttp.ServerDisconnectedError():
                return "it ended the connection without an answer"
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        match cause:
            case NotAllowed():
                return f"not sent: {cause}"
            case TimeoutError():
                return f"no answer within {self._wait_s:g} s"
            case ssl.SSLError():
                return f"no TLS: {_words(cause)}"
            case OSError() if cause.errno is not None and cause.errno > 0:
                return f"not connected: {os.strerror(cause.errno)}"
        return f"no answer that is HTTP: {_words(cause)}"


async def _read_some(answer: aiohttp.ClientResponse) -> None:
    """Read the answer to its end if it is short, so that its connection may be used again; else end that.

    What it says came in its first line: what is wrong with the rest does not matter."""
    left = MAX_READ_BYTES
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(READ_S):
            while left > 0:
                chunk = await answer.content.read(left)
                if not chunk:
                    return
                left -= len(chunk)
    answer.close()


def _outcome(answer: aiohttp.ClientResponse, took_s: float) -> Outcome:
    status = answer.status
    if 200 <= status < 300:
        return Outcome(status, took_s)
    after_s = retry_after_s(answer.headers.get("Retry-After", "")) if status in (429, 503) else None
    more = " (redirects are not followed)" if 300 <= status < 400 else ""
    return Outcome(status, took_s, f"answered {status}{more}", after_s)


def retry_after_s(text: str) -> float | None:
    """The seconds of a `Retry-After`, which gives them or a date; None: it says nothing that is one."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), MAX_RETRY_AFTER_S))
    try:
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        wait_s = (at - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(wait_s, 0.0), float(MAX_RETRY_AFTER_S))


def _words(error: object) -> str:
    """What an error says, short, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@asynccontextmanager
async def open_sender(*, wait_s: float = ANSWER_S, public_only: bool = False) -> AsyncIterator[Sender]:
    """A sender within this block. It trusts the authorities that this machine does (or SSL_CERT_FILE)."""
    connector = aiohttp.TCPConnector(
        limit=0,  # who sends has limits of its own, one for each receiver
        keepalive_timeout=IDLE_S,
        use_dns_cache=False,
        ssl=await asyncio.to_thread(ssl.create_default_context),
        socket_factory=socket_maker(public_only=public_only),
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=wait_s, sock_read=wait_s),
        headers={"user-agent": "colonies-webhooks"},
        skip_auto_headers=("accept", "accept-encoding"),
    ) as client:
        yield Sender(client, wait_s)
