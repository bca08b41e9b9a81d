"""The HTTP server as a service: uvicorn on a port that is bound already, beside one reader of the ledger."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

import structlog
import uvicorn

from colonies.errors import Invalid, Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.session import Session
from colonies.tasks import first_error
from colonies_projections.http.app import ENDLESS, make_app
from colonies_projections.http.connections import IDLE_S, MAX_HEAD_BYTES, Connection
from colonies_projections.http.door import Door
from colonies_projections.http.fence import Fence
from colonies_projections.http.hub import Hub

STOP_S: Final = 3
POLL_S: Final = 0.02

_log = structlog.get_logger("colonies.http")


class HttpService:
    """One server, on a session of a member that may read. `ready` is set once it answers."""

    def __init__(self, session: Session, door: Door) -> None:
        if not isinstance(session.ledger, JetStreamLedger):
            raise Invalid("the HTTP server needs a broker: what answers its questions is asked there")
        self.ready = asyncio.Event()
        self._ledger = session.ledger
        self._door = door
        self._hub = Hub(session)
        self._app = make_app(session, session.ledger, self._hub)
        self._server: _Server | None = None

    async def run(self) -> None:
        """Serve until cancelled. Raises as `Hub.run`, and Refused once this member is let in no more."""
        with first_error():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hub.run(), name="http: ledger")
                group.create_task(self._ledger.lost(), name="http: connection")
                await self._hub.ready.wait()
                await self._serve()

    async def _serve(self) -> None:
        config = uvicorn.Config(
            Fence(self._app, self._door, ENDLESS),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # what strangers send is no news, and our own defects `Fence` logs
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=STOP_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        config.load()
        config.ssl = self._door.tls
        server = self._server = _Server(config)
        serving = asyncio.create_task(server.serve([self._door.socket()]), name="http: server")
        try:
            while not server.started:
                await asyncio.wait({serving}, timeout=POLL_S)
                if serving.done():
                    serving.result()
                    raise Unavailable("the HTTP server did not start")
            _log.info("http ready", url=self._door.url)
            self.ready.set()
            await asyncio.wait({serving})
            serving.result()
            raise Unavailable("the HTTP server ended by itself")
        finally:
            self.ready.clear()
            self._hub.close()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=2 * STOP_S)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


class _Server(uvicorn.Server):
    """Signals are the program's, which has other services to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
