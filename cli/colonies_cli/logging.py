"""What the command says while it works: structlog on stderr, for people on a terminal, else as JSON Lines.

`COLONIES_LOG` is the level: `warning` for commands, `info` for whatever runs until stopped. Who logs binds
the colony, the process and the attempt. Nothing here ever writes to stdout: that is for data.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import Any, TextIO, cast

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Unfailing(io.TextIOBase):
    """A stream whose reader may leave, as a terminal does that is closed: what is said then is lost, and
    whoever says it goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure(default: str) -> None:
    """Set up structlog, and Python's own logging beside it. Raises Invalid for an unknown level."""
    import structlog

    level = _level(default)
    stderr = cast(TextIO, Unfailing(sys.stderr))
    for_people = sys.stderr is not None and sys.stderr.isatty()
    renderer: Any
    if for_people:
        renderer = structlog.dev.ConsoleRenderer(
            colors="NO_COLOR" not in os.environ, exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=not _is_utf8())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not for_people:
        # Without what the variables held: arguments of members, tokens, the secrets of webhooks.
        traced = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        shared.append(structlog.processors.ExceptionRenderer(traced))
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_ours, renderer])
    )
    root = logging.getLogger()
    handler.setLevel(level)
    root.handlers[:] = [handler]
    # What functions say is for their logs: this says no more of it, and keeps nothing from them.
    root.setLevel(min(level, LEVELS["info"]))
    # What asyncio says of tasks that nobody awaited is for those who look for defects.
    logging.getLogger("asyncio").setLevel(level if level <= LEVELS["debug"] else logging.CRITICAL)


def _level(default: str) -> int:
    wanted = os.environ.get("COLONIES_LOG") or default
    try:
        return LEVELS[wanted.lower()]
    except KeyError:
        from colonies.errors import Invalid

        raise Invalid(f"COLONIES_LOG: {wanted!r} is no level; allowed: {', '.join(LEVELS)}") from None


def _is_utf8() -> bool:
    return (sys.stderr.encoding or "").lower().replace("-", "") == "utf8" if sys.stderr else False


def _ours(_: Any, __: str, event: Any) -> Any:
    """Without the record that ProcessorFormatter carries along."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event
