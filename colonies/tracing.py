"""Where the running code stands in a distributed trace: what it submits carries that on, and so does what a
worker runs.

OpenTelemetry is no dependency. Where a program uses it, its active span is where the code stands; where not,
W3C `traceparent`s do the same by hand. It makes no spans, and a submission without a trace costs next to
nothing. How the ledger is told as spans is `colonies_projections.traces`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from typing import Any

import structlog

from colonies.core import trace as traces
from colonies.core.trace import Trace
from colonies.errors import Invalid

PARENT, STATE = "TRACEPARENT", "TRACESTATE"
VARIABLES = (PARENT, STATE)

_API = "opentelemetry.trace"
_HERE: ContextVar[Trace | None] = ContextVar("colonies_trace", default=None)

_log = structlog.get_logger("colonies.tracing")


def here() -> Trace | None:
    """Where the calling code stands: at OpenTelemetry's active span, if there is one; else where `traced`, or
    the worker that runs it, says; else, in the command of a Unix worker, where its environment says."""
    api = sys.modules.get(_API)  # not there: then nobody has made a span
    if api is not None and (found := _active(api)) is not None:
        return found
    if (said := _HERE.get()) is not None:
        return said
    return _inherited() if "COLONIES_PROCESS" in os.environ else None


@contextlib.contextmanager
def traced(parent: str, state: str | None = None) -> Iterator[Trace]:
    """What is submitted inside belongs to this trace: the headers `traceparent` and `tracestate` of the W3C.

        with colonies.traced(request.headers["traceparent"]):
            process = await colony.submit(resize.call(7))

    Raises:
        Invalid: `parent` is no traceparent. A `state` that is none is left out.
    """
    with within(traces.read(parent, state)) as found:
        yield found


@contextlib.contextmanager
def within(trace: Trace) -> Iterator[Trace]:
    """Inside, the code stands there, for OpenTelemetry too if it is in use."""
    token = _HERE.set(trace)
    api = _opentelemetry() if _API in sys.modules else None
    attached = api.attach(trace) if api is not None else None
    try:
        yield trace
    finally:
        if api is not None:
            api.detach(attached)
        _HERE.reset(token)


def enter(trace: Trace, *, ready: bool = False) -> None:
    """From here on the calling context stands there: for a task or a program that ends with its context.
    `ready`: for OpenTelemetry too, if it is installed, for it may come into use."""
    _HERE.set(trace)
    if ready and (api := _opentelemetry()) is not None:
        api.attach(trace)


def of_environment(environment: Mapping[str, str]) -> Trace | None:
    """Where the variables TRACEPARENT and TRACESTATE say that a program stands. Raises Invalid."""
    parent = environment.get(PARENT)
    return traces.read(parent, environment.get(STATE), where=PARENT) if parent else None


def variables(trace: Trace) -> dict[str, str]:
    """What `of_environment` reads."""
    return {PARENT: trace.parent, **({STATE: trace.state} if trace.state is not None else {})}


def _inherited() -> Trace | None:
    try:
        return of_environment(os.environ)
    except Invalid as error:
        _log.warning("submitted without a trace", reason=str(error))
        return None


def _active(api: Any) -> Trace | None:
    """OpenTelemetry's active span, if it has one. It may be half imported, by another thread."""
    current = getattr(api, "get_current_span", None)
    context = current().get_span_context() if current is not None else None
    if context is None or not context.is_valid:
        return None
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
    return Trace(parent, traces.kept_state(context.trace_state.to_header()) if context.trace_state else None)


class _OpenTelemetry:
    """The part of `opentelemetry-api` that says where code stands."""

    def __init__(self) -> None:
        from opentelemetry import context, trace

        self._context, self._trace = context, trace

    def attach(self, at: Trace) -> Any:
        api, state = self._trace, traces.kept_state(at.state)  # it complains of what is none
        span = api.SpanContext(
            int(at.trace_id, 16),
            int(at.span_id, 16),
            is_remote=True,
            trace_flags=api.TraceFlags(int(at.parent[53:], 16)),
            trace_state=api.TraceState.from_header([state]) if state else None,
        )
        return self._context.attach(api.set_span_in_context(api.NonRecordingSpan(span)))

    def detach(self, token: Any) -> None:
        self._context.detach(token)


@cache
def _opentelemetry() -> _OpenTelemetry | None:
    """OpenTelemetry, if it is installed."""
    try:
        return _OpenTelemetry()
    except ImportError:
        return None
