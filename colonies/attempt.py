"""One attempt from inside: what the running function, and the worker around it, say of it.

Log lines are gathered for a moment and stored signed in LOGS; their count and digest go into the event that
ends the attempt. Progress travels in the worker's heartbeats. `current()` gives the running function its
attempt, without a parameter for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from colonies import subjects
from colonies.core.events import LogDigest
from colonies.core.spec import Spec
from colonies.errors import ColoniesError, Unavailable
from colonies.session import Session

FLUSH_S = 0.1
FLUSH_CHARS = 32 * 1024
MAX_BUFFER_CHARS = 4 * 1024 * 1024

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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is: a fraction from 0 to 1, and a word on it."""

    fraction: float
    message: str = ""


class Attempt:
    """A running attempt. `process` is its process's id, `n` its number from 1, `id` its event's id."""

    def __init__(self, session: Session, process: str, n: int, id: str, spec: Spec) -> None:
        self.process = process
        self.n = n
        self.id = id
        self.spec = spec
        self.last_progress: Progress | None = None
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._pending: list[tuple[str, str]] = []
        self._pending_chars = 0
        self._dropped_chars = 0
        self._lock = threading.Lock()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushing = asyncio.Lock()
        self._flushes: set[asyncio.Task[None]] = set()
        self._count = 0
        self._digest = hashlib.sha256()

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far it is (0 to 1). Seen in heartbeats, kept no longer than the attempt. Any thread."""
        self.last_progress = Progress(min(1.0, max(0.0, float(fraction))), message[:200])

    def log(self, text: str, stream: str = "log") -> None:
        """Add to the process's log. `stream` is `log`, `stdout` or `stderr`. Any thread."""
        with self._lock:
            if self._pending_chars > MAX_BUFFER_CHARS:
                self._dropped_chars += len(text)
                return
            self._pending.append((stream, text))
            self._pending_chars += len(text)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._plan_flush)

    def _plan_flush(self) -> None:
        if self._pending_chars >= FLUSH_CHARS:
            self._start_flush()
        elif self._flush_timer is None:
            self._flush_timer = self._loop.call_later(FLUSH_S, self._start_flush)

    def _start_flush(self) -> None:
        self._flush_timer = None
        task = asyncio.create_task(self._flush_quietly())
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _flush_quietly(self) -> None:
        with contextlib.suppress(ColoniesError):
            await self.flush()

    async def flush(self) -> None:
        """Store what is gathered. Raises Unavailable; what is not stored stays gathered."""
        async with self._flushing:
            while True:
                with self._lock:
                    entries = _merged(self._pending)
                    self._pending.clear()
                    self._pending_chars = 0
                    if self._dropped_chars:
                        entries.append(("log", f"[{self._dropped_chars} characters of log left out]"))
                        self._dropped_chars = 0
                if not entries:
                    return
                for index, (stream, text) in enumerate(entries):
                    try:
                        await self._write("log.written", {"stream": stream, "text": text})
                    except Unavailable:
                        with self._lock:
                            self._pending[:0] = entries[index:]
                        raise

    async def _write(self, type: str, data: dict[str, Any]) -> None:
        subject = subjects.log(self.process, self._session.name)
        now = await self._session.ledger.now()
        entry = {"attempt": self.id, "n": self.n, "index": self._count, **data}
        sealed = self._session.seal_note(subject, type, now, entry)
        await self._session.ledger.emit(subject, sealed)
        self._count += 1
        self._digest.update(sealed)

    async def close(self) -> LogDigest | None:
        """Store the rest, best effort; the digest of all that was stored, None if nothing was."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        if self._pending or self._flushes:
            with contextlib.suppress(ColoniesError):
                await self.flush()
        return LogDigest(self._count, self._digest.hexdigest()) if self._count else None

    async def note(self, type: str, data: dict[str, Any]) -> None:
        """Store a note on the attempt outside its chain (a refused result, a stopped run), best effort."""
        with contextlib.suppress(ColoniesError):
            await self._write(type, data)

    def enter(self) -> None:
        """Make this the `current()` attempt of the calling context."""
        _CURRENT.set(self)


def _merged(entries: list[tuple[str, str]]) -> list[tuple[str, str]]:
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


class LogHandler(logging.Handler):
    """Python's own logging, while a function runs, goes to the process's log as well."""

    def emit(self, record: logging.LogRecord) -> None:
        attempt = _CURRENT.get(None)
        if attempt is not None:
            attempt.log(self.format(record) + "\n")
