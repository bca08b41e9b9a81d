"""One attempt from inside: what the running function, and the worker around it, say of it.

Log lines are gathered for a moment and stored signed in LOGS; their count and digest go into the event that
ends the attempt. Progress travels in the worker's heartbeats. `current()` gives the running function its
attempt, without a parameter for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import threading
from collections import deque
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from colonies import subjects
from colonies.adding import Adding
from colonies.core.events import LogDigest
from colonies.core.spec import Spec
from colonies.core.states import Signal
from colonies.core.trace import Trace, at_attempt
from colonies.errors import ColoniesError
from colonies.session import Session
from colonies.signals import Numbers, Signals

T = TypeVar("T")

FLUSH_S = 0.1
FLUSH_AGAIN_S = 1.0
FLUSH_CHARS = 32 * 1024
MAX_MESSAGE_CHARS = 200
MAX_STREAM_CHARS = 64
MAX_BUFFER_CHARS = 4 * 1024 * 1024

_log = structlog.get_logger("colonies.worker")
_CURRENT: ContextVar[Attempt] = ContextVar("colonies_attempt")


def current() -> Attempt:
    """The attempt that the calling function runs in.

    Raises:
        ColoniesError: it is not called from a function that a worker runs.
    """
    try:
        return _CURRENT.get()
    except LookupError:
        raise ColoniesError("current() works only inside a function that a worker runs") from None


def attempt_here() -> Attempt | None:
    """The attempt that the calling function runs in; None: it runs in none."""
    return _CURRENT.get(None)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is: a fraction from 0 to 1, and a word on it."""

    fraction: float
    message: str = ""


class Attempt(Adding):
    """A running attempt. `process` is its process's id, `n` its number from 1, `id` its event's id.

    `devices` are the graphics processors that are its own while it runs, as CUDA_VISIBLE_DEVICES names them.
    `trace` is where its function stands in a distributed trace: at the attempt's own span.
    Of a node, `workflow` is the id of its workflow, `node` its label there, and `inputs` are the outputs of
    its parents by name; `add` and `map` add nodes that run after it.
    """

    def __init__(
        self,
        session: Session,
        process: str,
        n: int,
        id: str,
        spec: Spec,
        devices: tuple[str, ...] = (),
        *,
        workflow: str | None = None,
        node: str | None = None,
        signals: Signals | None = None,
        trace: Trace | None = None,
    ) -> None:
        super().__init__(node)
        self.process = process
        self.workflow = workflow
        self.node = node
        self.n = n
        self.id = id
        self.spec = spec
        self.devices = devices
        self.inputs: dict[str, Any] = {}
        self.trace = at_attempt(session.ledger.colony, trace, workflow, process, id)
        self.last_progress: Progress | None = None
        self._session = session
        self._subject = subjects.log(process, session.name)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._pending: list[tuple[str, io.StringIO]] = []
        self._entries: deque[tuple[str, str]] = deque()
        self._unsent: tuple[bytes, int] | None = None
        self._gathered_chars = 0
        self._dropped_chars = 0
        self._woken = False  # since something was gathered: the loop knows that there is something
        self._left = False
        self._lock = threading.RLock()  # a finalizer or a signal's handler may print while we hold it
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushing = asyncio.Lock()
        self._flush_task: asyncio.Task[None] | None = None
        self._count = 0
        self._digest = hashlib.sha256()
        self._signals = signals or Signals(session)
        self._numbers = Numbers()
        self._waits: set[Future[Any]] = set()

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far it is (0 to 1). Seen in heartbeats, kept no longer than the attempt. Any thread."""
        self.last_progress = Progress(
            min(1.0, max(0.0, float(fraction))), _plain(message)[:MAX_MESSAGE_CHARS]
        )

    def log(self, text: str, stream: str = "log") -> None:
        """Add to the process's log: a line, or, with `stream` `stdout` or `stderr`, output as it came.
        Any thread."""
        text, stream = _plain(text), _plain(stream)[:MAX_STREAM_CHARS]
        if stream == "log" and not text.endswith("\n"):
            text += "\n"
        with self._lock:
            kept = text[: max(0, MAX_BUFFER_CHARS - self._gathered_chars)]
            self._dropped_chars += len(text) - len(kept)
            if not kept:
                return
            if not self._pending or self._pending[-1][0] != stream:
                self._pending.append((stream, io.StringIO()))
            self._pending[-1][1].write(kept)
            self._gathered_chars += len(kept)
            wake = not self._woken or self._gathered_chars - len(kept) < FLUSH_CHARS <= self._gathered_chars
            self._woken = True
        if wake:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._plan_flush)

    def printed(self, text: str, stream: str) -> None:
        """Its function, which has not ended yet, wrote this to `stdout` or `stderr`. Any thread."""
        if not self._left:
            self.log(text, stream)

    def _plan_flush(self, wait_s: float = FLUSH_S) -> None:
        if self._flush_task is not None:
            return
        if self._gathered_chars >= FLUSH_CHARS and wait_s == FLUSH_S:
            self._start_flush()
        elif self._flush_timer is None:
            self._flush_timer = self._loop.call_later(wait_s, self._start_flush)

    def _start_flush(self) -> None:
        self._flush_timer = None
        if self._flush_task is None:
            self._flush_task = asyncio.create_task(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        wait_s = FLUSH_S
        try:
            await self.flush()
        except ColoniesError:
            wait_s = FLUSH_AGAIN_S
        finally:
            self._flush_task = None
        if self._gathered_chars:
            self._plan_flush(wait_s)

    async def flush(self) -> None:
        """Store what is gathered. Raises Unavailable; what is not stored stays gathered."""
        async with self._flushing:
            while True:
                if self._unsent is None:
                    if not self._entries:
                        self._entries.extend(self._gathered())
                    if not self._entries:
                        return
                    stream, text = self._entries[0]
                    sealed = await self._seal("log.written", {"stream": stream, "text": text})
                    self._unsent = (sealed, len(text))
                    self._entries.popleft()
                await self._send()

    def _gathered(self) -> list[tuple[str, str]]:
        with self._lock:
            self._woken = False
            entries = _merged((stream, said.getvalue()) for stream, said in self._pending)
            self._pending.clear()
            if self._dropped_chars:
                entries.append(("log", f"[{self._dropped_chars} characters of log left out]"))
                self._dropped_chars = 0
        return entries

    async def _seal(self, type: str, data: dict[str, Any]) -> bytes:
        now = await self._session.ledger.now()
        entry = {"attempt": self.id, "n": self.n, "index": self._count, **data}
        return self._session.seal_note(self._subject, type, now, entry)

    async def _send(self) -> None:
        """Send the message under way; after an unknown outcome the same bytes, for the digest covers them."""
        assert self._unsent is not None
        sealed, chars = self._unsent
        await self._session.ledger.emit(self._subject, sealed)
        self._unsent = None
        self._count += 1
        self._digest.update(sealed)
        with self._lock:
            self._gathered_chars = max(0, self._gathered_chars - chars)

    async def close(self) -> LogDigest | None:
        """Store the rest, best effort; the digest of what was stored, None if nothing was. Never raises."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        try:
            await self.flush()
        except Exception as error:
            _log.warning("the end of the log is not stored", process=self.process, error=str(error))
        return LogDigest(self._count, self._digest.hexdigest()) if self._count else None

    async def note(self, type: str, data: dict[str, Any]) -> None:
        """Store a note on the attempt outside its chain (a refused result, a stopped run), best effort."""
        with contextlib.suppress(ColoniesError):
            async with self._flushing:
                if self._unsent is not None:
                    await self._send()
                self._unsent = (await self._seal(type, data), 0)
                await self._send()

    def enter(self) -> None:
        """Make this the `current()` attempt of the calling context."""
        _CURRENT.set(self)

    def leave(self) -> None:
        """The function has ended, or nobody waits for it any more: nor does it for anything."""
        self._left = True
        for wait in list(self._waits):
            wait.cancel()

    # --- signals -------------------------------------------------------------------------------------

    async def signal(self, name: str, timeout_s: float | None) -> Signal:
        """See `colonies.signal`."""
        number = self._numbers.take(name)
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await self._signals.get(self.process, self.workflow, name, number)
        except BaseException as error:
            self._numbers.give_back(name, number)
            if limit.expired() and isinstance(error, TimeoutError):
                raise TimeoutError(f"the signal {name} did not come within {timeout_s:g} s") from None
            raise

    def run(self, waiting: Coroutine[Any, Any, T], what: str) -> T:
        """Run it on the worker's loop while the calling thread waits. Raises ColoniesError on the loop
        itself."""
        if threading.get_ident() == self._thread:
            waiting.close()
            raise ColoniesError(f"{what}.wait() would stop this whole worker: in `async def`, await {what}")
        wait = asyncio.run_coroutine_threadsafe(waiting, self._loop)
        self._waits.add(wait)
        wait.add_done_callback(self._waits.discard)
        return wait.result()


def _plain(text: object) -> str:
    """Text that UTF-8 can say: half characters, as in odd file names, are replaced."""
    return str(text).encode("utf-8", "replace").decode()


def _merged(entries: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one stream as one entry each, of at most FLUSH_CHARS characters."""
    merged: list[tuple[str, str]] = []
    for stream, text in entries:
        for start in range(0, len(text), FLUSH_CHARS):
            piece = text[start : start + FLUSH_CHARS]
            if merged and merged[-1][0] == stream and len(merged[-1][1]) + len(piece) <= FLUSH_CHARS:
                merged[-1] = (stream, merged[-1][1] + piece)
            else:
                merged.append((stream, piece))
    return merged
