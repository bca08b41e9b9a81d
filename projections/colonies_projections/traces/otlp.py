"""Spans on their way out: OTLP over HTTP, by OpenTelemetry's own packages, which its environment variables
configure (endpoint, headers, certificates, compression, time limit, resource).

What the receiver makes of a request is one of three: it took it, it refuses it for good, or it is not there
(not now, or not for us), which is tried again by whoever sends.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode

from colonies.core.trace import kept_state
from colonies_projections.traces import ENDPOINT
from colonies_projections.traces.spans import Span

Answer = Literal["taken", "refused", "away"]

NAME = "colonies"
MAX_REASON_CHARS = 300
_NEVER = (400, 413, 422)  # the request itself is not what the receiver takes
_CREDENTIALS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
)
_KINDS = {"internal": SpanKind.INTERNAL, "consumer": SpanKind.CONSUMER}
_LOGGER = "opentelemetry.exporter.otlp"
_NOBODY = logging.NullHandler()  # hears what a thread that was left to itself says at the end


class Otlp:
    """Sends spans of a colony. Its methods block: call them in a thread. `host` is where to, `reason` why the
    last request was not taken."""

    def __init__(self, colony: str, name: str) -> None:
        self.reason = ""
        self.host = _host()
        self._status: int | None = None
        self._resource = _resource(colony, name)
        self._exporter = OTLPSpanExporter(session=self._session())
        self._scope = InstrumentationScope(NAME)
        # What the exporter says goes into our log, once a while, and not to the terminal each time.
        self._listening = _Reason(self)
        logger = logging.getLogger(_LOGGER)
        logger.propagate = False
        logger.addHandler(self._listening)
        logger.addHandler(_NOBODY)

    def send(self, spans: Sequence[Span]) -> Answer:
        """Send these in one request."""
        self._status, self.reason = None, ""
        sent = self._exporter.export([self._readable(span) for span in spans])
        if sent is SpanExportResult.SUCCESS:
            return "taken"
        return "refused" if self._status in _NEVER else "away"

    def close(self) -> None:
        """End what is under way, as far as that can be."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        logging.getLogger(_LOGGER).removeHandler(self._listening)

    def _session(self) -> requests.Session | None:
        if any(map(os.environ.get, _CREDENTIALS)):
            return None  # the exporter's own
        session = requests.Session()
        session.hooks["response"].append(self._answered)
        return session

    def _answered(self, response: requests.Response, *_: Any, **__: Any) -> None:
        self._status = response.status_code

    def _readable(self, span: Span) -> ReadableSpan:
        where = _context(span.at.trace_id, span.at.span_id, span)
        above = None if span.parent is None else _context(span.at.trace_id, span.parent, span, remote=True)
        wrong = span.error is not None
        return ReadableSpan(
            span.name,
            where,
            above,
            self._resource,
            dict(span.attributes),
            [Event(h.name, dict(h.attributes), h.time) for h in span.happenings],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if wrong else Status(StatusCode.UNSET),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=self._scope,
        )


class _Reason(logging.Handler):
    def __init__(self, otlp: Otlp) -> None:
        super().__init__()
        self._otlp = otlp

    def emit(self, record: logging.LogRecord) -> None:
        """The last of its tries says more than that it gave up."""
        if record.levelno < logging.ERROR or not self._otlp.reason:
            self._otlp.reason = record.getMessage()[:MAX_REASON_CHARS]


def _context(trace: str, span: str, of: Span, *, remote: bool = False) -> api.SpanContext:
    state = kept_state(of.at.state)  # whatever a member signed
    return api.SpanContext(
        int(trace, 16),
        int(span, 16),
        is_remote=remote,
        trace_flags=api.TraceFlags(int(of.at.parent[53:], 16)),
        trace_state=api.TraceState.from_header([state]) if state else None,
    )


def _host() -> str:
    """Host and port of the endpoint; what else is in its URL may be a secret."""
    said = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get(ENDPOINT, "")
    return urlsplit(said).netloc.rpartition("@")[2] or said.partition("/")[0]


def _resource(colony: str, name: str) -> Resource:
    """What the spans are of: the colony, and what the environment says."""
    given: dict[str, str] = {"colonies.colony": name, "colonies.colony.key": colony}
    if SERVICE_INSTANCE_ID not in os.environ.get(OTEL_RESOURCE_ATTRIBUTES, ""):
        given[SERVICE_INSTANCE_ID] = colony  # else it is random, and a span that is told again another one
    found = Resource.create(given)
    if str(found.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: NAME}))
    return found
