"""One connection to the broker: logged in, kept for ever, with thousands of requests under way.

Requests share one reply inbox and are told apart by a token. What was under way when the connection broke
ends as `Unknown`; a denied publish, which the broker tells only by an asynchronous error, ends as `Refused`.
It knows nothing of streams and events, and it never decides whether to try again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import structlog
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError

from colonies import subjects
from colonies.creds import Credential
from colonies.direct import DirectClient, Message
from colonies.errors import ColoniesError, Conflict, NotFound, Refused, Unavailable, Unknown
from colonies.ids import new_token
from colonies.roles import gated
from colonies.tasks import cancellable

ANSWER_S = 10.0
REFUSED_S = 0.5  # a broker that is being restarted is back by then
PENDING_BYTES = 64 * 1024 * 1024

# Wrong last sequence: of one message, of a message in a batch, and among those still in flight.
_CONFLICTS = {10071, 10163, 10164}

_log = structlog.get_logger("colonies.ledger")


class _Request:
    """One request under way: where its answers go, and when the last one came (s, `time.monotonic`)."""

    __slots__ = ("answers", "future", "heard", "subject", "timer", "wait_s")

    def __init__(
        self, subject: str, future: asyncio.Future[Any], answers: list[Message] | None, wait_s: float
    ) -> None:
        self.subject = subject
        self.future = future
        self.answers = answers
        self.wait_s = wait_s
        self.heard = 0.0
        self.timer: asyncio.TimerHandle | None = None


class Link:
    """A member's connection. `nc` is the client itself, `inbox` the prefix of what it may subscribe."""

    def __init__(self, url: str, credential: Credential) -> None:
        self.url = url
        self.credential = credential
        self.nc = DirectClient()
        self.inbox = f"_INBOX_{credential.keypair.public}"
        self.reconnected_at: float | None = None
        # Not to be guessed: a member can have the broker send an answer anywhere (see `colonies.roles`).
        self._replies = f"{self.inbox}.r.{new_token()}"
        self._requests: dict[str, _Request] = {}
        self._count = 0
        self._gap_heard: list[Callable[[], None]] = []
        self._opened = False
        self._closing = False
        self._connected = asyncio.Event()
        self._lost: ColoniesError | None = None
        self._gone = asyncio.Event()

    async def open(self, wait_s: float) -> None:
        """Log in. Raises Unavailable if nobody answers within `wait_s` seconds, Refused if not let in."""
        credential = self.credential
        try:
            async with asyncio.timeout(wait_s):
                await _somebody_listens(self.url)
                await cancellable(
                    self.nc.connect(
                        self.url,
                        name=f"colonies {credential.name}",
                        user_jwt_cb=lambda: bytearray(credential.jwt.encode()),
                        signature_cb=lambda nonce: base64.b64encode(credential.keypair.sign(nonce.encode())),
                        inbox_prefix=self.inbox,
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=0.2,  # type: ignore[arg-type]  # a float is fine: it is slept
                        connect_timeout=2,
                        ping_interval=10,
                        max_outstanding_pings=2,
                        pending_size=PENDING_BYTES,
                        error_cb=self._on_error,
                        disconnected_cb=self._on_disconnect,
                        reconnected_cb=self._on_reconnect,
                        closed_cb=self._on_closed,
                        allow_reconnect=True,
                    )
                )
        except (TimeoutError, OSError, NatsError, Refused) as error:
            await self._abandon()
            if "authorization" in str(error).lower() or isinstance(self._lost, Refused):
                raise Refused(
                    f"the broker at {where(self.url)} does not accept the credential of "
                    f"{credential.name}: {credential.why_refused()}"
                ) from None
            raise Unavailable(
                f"no broker answers at {where(self.url)}; "
                "start one with `colonies dev`, or name yours with --url"
            ) from None
        except asyncio.CancelledError:
            await self._abandon()
            raise
        if urlsplit(self.url).scheme == "tls" and not self.nc._server_info.get("tls_required"):
            await self._abandon()
            raise Unavailable(f"the broker at {where(self.url)} does not speak TLS, as tls:// asks for")
        self._opened = True
        self._connected.set()
        await self.nc.listen(f"{self._replies}.*", self._on_answer)

    async def _abandon(self) -> None:
        self._closing = True
        with contextlib.suppress(Exception):
            await cancellable(self.nc.close())

    async def close(self) -> None:
        """Send what is to be sent, and leave."""
        if self._closing:
            return
        self._closing = True
        self._fail_requests(Unavailable("the connection is being closed"))
        try:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                if self.nc.is_connected:
                    await cancellable(self.nc.flush(2))
        finally:
            with contextlib.suppress(NatsError, OSError):
                await cancellable(self.nc.close())

    async def lost(self) -> None:
        """Wait for ever, or raise why this member is let in no more."""
        await self._gone.wait()
        raise self._lost or Unavailable("the connection is closed")

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if isinstance(error, SlowConsumerError):
            self._gap()
        elif "permissions violation for publish" in text.lower():
            self._refuse_publish(text)
        elif "authorization" in text.lower() or "authentication" in text.lower():
            self._lost = Refused(
                f"the broker no longer accepts {self.credential.name}: {self.credential.why_refused()}"
            )
            if not self._opened:
                raise self._lost  # out of the attempt to connect: asking again would not help
        elif not self._closing:
            _log.debug("broker error", error=text)

    def _refuse_publish(self, text: str) -> None:
        denied = text.split('"')[1].lower() if '"' in text else ""
        for token, request in list(self._requests.items()):
            if denied in (request.subject.lower(), gated(request.subject).lower()):
                self._finish(
                    token, error=Refused(f"{self.credential.name} may not publish on {request.subject}")
                )
                return

    async def _on_disconnect(self) -> None:
        self._connected.clear()
        self._fail_requests(Unknown("the connection to the broker broke before its answer came"))

    async def _on_reconnect(self) -> None:
        self._connected.set()
        self.reconnected_at = time.monotonic()
        self._gap()

    async def _on_closed(self) -> None:
        self._connected.set()  # nobody waits for it any more: see `_raise_if_gone`
        if not self._closing and self._lost is None:
            self._lost = Refused(
                f"the broker closed the connection of {self.credential.name} for good: "
                f"{self.credential.why_refused()}"
            )
        self._stop_reconnecting()
        self._fail_requests(self._lost or Unavailable("the connection is closed"))
        self._gone.set()
        self._gap()

    def _stop_reconnecting(self) -> None:
        """nats-py goes on knocking after it was told that it is not let in."""
        task = getattr(self.nc, "_reconnection_task", None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def on_gap(self, heard: Callable[[], None]) -> None:
        """Call this whenever a subscription may have lost something."""
        self._gap_heard.append(heard)

    def _gap(self) -> None:
        for heard in self._gap_heard:
            heard()

    # --- requests ------------------------------------------------------------------------------------

    async def start(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        *,
        many: bool = False,
        wait_s: float = ANSWER_S,
    ) -> asyncio.Future[Any]:
        """Send a request, waiting for the connection if need be; the future brings its answer, a Message,
        or, with `many`, the list of its answers and the headers of what ended it. `wait_s` limits the
        silence before each answer, not the time of all of them: a slow link is not a dead broker."""
        if not self.nc.is_connected:
            await self.wait_connected(wait_s)
        loop = asyncio.get_running_loop()
        self._count += 1
        token = str(self._count)
        request = _Request(subject, loop.create_future(), [] if many else None, wait_s)
        request.timer = loop.call_later(wait_s, self._expire, token)
        self._requests[token] = request
        try:
            await self.nc.publish(subject, payload, reply=f"{self._replies}.{token}", headers=headers)
        except (NatsError, OSError) as error:
            self._finish(token, error=Unavailable(f"not sent: {error}"))
        return request.future

    async def wait_connected(self, wait_s: float) -> None:
        """Return once there is a connection. Raises Unavailable, or why there will be none."""
        self._raise_if_gone()
        try:
            async with asyncio.timeout(wait_s):
                await self._connected.wait()
        except TimeoutError:
            raise Unavailable(
                f"the broker at {where(self.url)} does not answer; it is tried again for ever"
            ) from None
        self._raise_if_gone()

    def _raise_if_gone(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._closing:
            raise Unavailable("the connection is closed")

    def _expire(self, token: str) -> None:
        request = self._requests.get(token)
        if request is not None:
            rest_s = request.heard + request.wait_s - time.monotonic()
            if rest_s > 0:
                request.timer = asyncio.get_running_loop().call_later(rest_s, self._expire, token)
                return
        self._finish(token, error=Unknown("the broker gave no answer in time"))

    def _finish(self, token: str, value: Any = None, error: BaseException | None = None) -> None:
        request = self._requests.pop(token, None)
        if request is None:
            return
        if request.timer is not None:
            request.timer.cancel()
        if request.future.done():
            return
        if error is None:
            request.future.set_result(value)
        else:
            request.future.set_exception(error)

    def _fail_requests(self, error: ColoniesError) -> None:
        for token in list(self._requests):
            self._finish(token, error=type(error)(*error.args))

    def _on_answer(self, msg: Message) -> None:
        token = msg.subject.rsplit(".", 1)[1]
        request = self._requests.get(token)
        if request is None:
            return
        if request.answers is None:
            self._finish(token, msg)
        elif subjects.STORED_SEQUENCE not in msg.headers:  # an author may have put a `Status` into his
            self._finish(token, (request.answers, msg.headers))
        else:
            request.answers.append(msg)
            request.heard = time.monotonic()

    async def ask(self, subject: str, body: object, *, wait_s: float = ANSWER_S) -> dict[str, Any]:
        """One JetStream API request; a JSON answer. Raises NotFound and Unavailable."""
        msg = await (await self.start(subject, json.dumps(body).encode() if body else b"", wait_s=wait_s))
        if status_of(msg) == "503":
            raise Unavailable(f"nobody answers on {subject}: JetStream or the stream is missing")
        answer: dict[str, Any] = json.loads(msg.data)
        error = answer.get("error")
        if error is None:
            return answer
        if error["code"] == 404:
            raise NotFound(f"{subject}: {error['description']}")
        raise Unavailable(f"{subject}: {error['description']}")

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send without asking for an answer. Raises Unavailable."""
        try:
            await self.nc.publish(subject, data, reply=reply, headers=headers)
        except (NatsError, OSError) as error:
            raise Unavailable(f"not sent: {error}") from None


async def _somebody_listens(url: str) -> None:
    """Return unless nobody does, for nats-py would go on knocking. Raises OSError after REFUSED_S seconds."""
    parts = urlsplit(url)
    if "," in url or parts.hostname is None:
        return
    until = time.monotonic() + REFUSED_S
    while True:
        try:
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
            continue
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return


def where(url: str) -> str:
    """A URL as it may be shown: without anything secret in it."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 4222}"


def read_answer(data: bytes, subject: str) -> dict[str, Any]:
    """What a service answers on this subject. Raises Unavailable: it is no answer of ours."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable(f"what answers on {subject} is no service of ours")
    return answer


def status_of(msg: Message) -> str | None:
    """The broker's own status of an empty message, such as 503; None for an ordinary one."""
    return None if msg.data else msg.headers.get("Status")


def sequence_of(msg: Message, subject: str) -> int:
    """The sequence in a publish acknowledgement."""
    if status_of(msg) == "503":
        raise Unavailable(f"no stream takes {subject}: the colony's streams are missing")
    answer = json.loads(msg.data)
    error = answer.get("error")
    if error is not None:
        if error.get("err_code") in _CONFLICTS:
            raise Conflict(error["description"])
        raise Unavailable(f"not stored: {error['description']}")
    if answer.get("duplicate"):
        raise Unavailable("not stored: the broker took it for a duplicate")
    return int(answer["seq"])
