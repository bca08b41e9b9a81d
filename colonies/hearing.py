"""What a running function says without saying it to its attempt: by `print`, by `warnings`, by `logging`.

While any function runs, `sys.stdout` and `sys.stderr` are stand-ins that hand what is written to the attempt
in whose context it was written, and then to the stream that stood there, as if there were no stand-in. So it
is in the log of the right process also when several run at once, and still on the worker's terminal. What is
written in no attempt's context, by threads that the function starts itself or by other programs, passes by.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast

from colonies.attempt import attempt_here

STREAMS = ("stdout", "stderr")


class Heard:
    """A stand-in for a standard stream. What it does not have itself is that stream's.

    A terminal that is gone, or has no such letters, costs the function nothing: the log has it. A function
    may leave a stream of its own there that writes to a stand-in, so that one stands on another: the first
    that is written to hears it.
    """

    def __init__(self, stood: TextIO | None, name: str) -> None:
        self.stood = stood
        self.under: Any = stood if stood is not None else io.TextIOBase()  # which takes nothing
        self._stream = name

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if _PASSING.on:
            self._pass_on(text)
            return len(text)
        attempt = attempt_here()
        if attempt is not None:
            attempt.printed(text, self._stream)
        _PASSING.on = True
        try:
            self._pass_on(text)
        finally:
            _PASSING.on = False
        return len(text)

    def _pass_on(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            try:
                self.under.write(text)
            except UnicodeEncodeError:
                encoding = self.under.encoding or "ascii"
                self.under.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.under.flush()

    def close(self) -> None:
        """It is the worker's: it stays open."""
        self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)


class _Passing(threading.local):
    """Does this thread hand on what a stand-in has heard already?"""

    on = False


class _Hearing:
    """How many listen, to the streams and to `logging`: the first begins, the last ends."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.logging = 0
        self.handler = _Handler()
        self.lowered = False

    def put_in(self) -> None:
        """Stand-ins for both streams, if they are not there: others put in theirs as well."""
        for name in STREAMS:
            stream = getattr(sys, name)
            if not isinstance(stream, Heard):
                setattr(sys, name, cast(TextIO, Heard(stream, name)))

    def take_out(self) -> None:
        for name in STREAMS:
            stream = getattr(sys, name)
            if isinstance(stream, Heard):
                setattr(sys, name, stream.stood)

    def forked(self) -> None:
        """In a child of a function: its attempt is at work in the parent."""
        self.lock = threading.Lock()
        if self.running:
            self.running = 0
            self.take_out()
        if self.logging:
            self.logging = 0
            logging.getLogger().removeHandler(self.handler)


@contextlib.contextmanager
def hearing() -> Iterator[None]:
    """While a function runs: what it writes to the standard streams is its attempt's too. Any thread."""
    with _HEARING.lock:
        _HEARING.running += 1
        _HEARING.put_in()
    try:
        yield
    finally:
        with _HEARING.lock:
            _HEARING.running = max(0, _HEARING.running - 1)
            if not _HEARING.running:
                _HEARING.take_out()


@contextlib.contextmanager
def logging_to_attempts() -> Iterator[None]:
    """What functions say by Python's own `logging` goes to their processes' logs as well: INFO and above, or
    what passes the levels that this program has set."""
    root = logging.getLogger()
    with _HEARING.lock:
        _HEARING.logging += 1
        if _HEARING.logging == 1:
            if not root.handlers and root.level == logging.WARNING:  # nobody has set it up
                root.setLevel(logging.INFO)
                _HEARING.lowered = True
            root.addHandler(_HEARING.handler)
    try:
        yield
    finally:
        with _HEARING.lock:
            _HEARING.logging = max(0, _HEARING.logging - 1)
            if not _HEARING.logging:
                root.removeHandler(_HEARING.handler)
                if _HEARING.lowered and root.level == logging.INFO:
                    root.setLevel(logging.WARNING)
                _HEARING.lowered = False


class _Handler(logging.Handler):
    """Hands a record to the attempt in whose context it was made. Others go where they would without it."""

    def emit(self, record: logging.LogRecord) -> None:
        attempt = attempt_here()
        last = logging.lastResort
        if attempt is not None:
            try:
                attempt.log(self.format(record))
            except Exception:  # as every handler: what cannot be said costs the function nothing
                self.handleError(record)
        elif len(logging.getLogger().handlers) == 1 and last is not None and record.levelno >= last.level:
            last.handle(record)


_HEARING = _Hearing()
_PASSING = _Passing()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HEARING.forked)
