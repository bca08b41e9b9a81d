"""What receives traces in tests: OTLP over HTTP on loopback, parsed by OpenTelemetry's own messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LIMIT_S = 60.0


@dataclass(frozen=True)
class Received:
    """A span as it was received; ids in hexadecimal, times in ns."""

    trace: str
    id: str
    parent: str | None
    state: str
    scope: str
    name: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    error: str | None
    events: list[tuple[str, dict[str, Any]]]
    resource: dict[str, Any] = field(repr=False)


class Receiver:
    """Takes spans. `answer` says what becomes of a request: its HTTP status, by its spans."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._spans: list[Received] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[list[Received]], int] = lambda _: 200

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def all(self) -> list[Received]:
        """Every span that was taken, repeated ones too."""
        with self._lock:
            return list(self._spans)

    @property
    def spans(self) -> dict[str, Received]:
        """By id. What was taken twice was the same."""
        found: dict[str, Received] = {}
        for span in self.all:
            assert found.setdefault(span.id, span) == span
        return found

    def of(self, process: str) -> list[Received]:
        """The spans of one process, in the order of their ends; its own is the last."""
        spans = [s for s in self.spans.values() if s.attributes.get("colonies.process.id") == process]
        return sorted(spans, key=lambda span: (span.end, "colonies.attempts" in span.attributes))

    def until(self, fact: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while not (found := fact()):
            assert time.monotonic() < deadline, f"never received: {what}; there is {self.all}"
            time.sleep(0.02)
        return found

    def take(self, path: str, body: bytes) -> int:
        request = ExportTraceServiceRequest.FromString(body)
        spans = list(_spans(request))
        status = self.answer(spans) if path == "/v1/traces" else 404
        with self._lock:
            self.bodies.append(body)
            if status == 200:
                self._spans += spans
        return status


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver, listening on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/x-protobuf"
            self.send_response(receiver.take(self.path, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    receiver = Receiver(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(LIMIT_S)


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for of_resource in request.resource_spans:
        resource = _plain(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Received(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex() or None,
                    span.trace_state,
                    of_scope.scope.name,
                    span.name,
                    span.kind,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _plain(span.attributes),
                    span.status.message if span.status.code == 2 else None,
                    [(event.name, _plain(event.attributes)) for event in span.events],
                    resource,
                )


def _plain(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}
