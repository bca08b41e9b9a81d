"""The routes in one application, and what they need to answer. See `fence` for what stands before them."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from colonies.client import Client
from colonies.errors import ColoniesError
from colonies.jetstream import JetStreamLedger
from colonies.session import Session
from colonies_projections.http import events, lookups, opening, problems, queries
from colonies_projections.http.description import Described
from colonies_projections.http.health import Health
from colonies_projections.http.hub import Hub
from colonies_projections.http.metrics import Metrics
from colonies_projections.http.streams import Streams

TITLE = "Colonies"
DESCRIPTION = (
    "What a colony's ledger and its views say, read only. Show a bearer token in the Authorization header; "
    "`colonies member token NAME` makes one.\n\n"
    "Errors are application/problem+json (RFC 9457). Times are RFC 3339 in UTC, durations are seconds, what "
    "is not there is null. A sequence is a place in the ledger."
)
ENDLESS = (events.PATH,)


def make_app(session: Session, ledger: JetStreamLedger, hub: Hub) -> FastAPI:
    """The application. What its routes need is in its `state`."""
    # FastAPI's own pages load scripts from elsewhere; ours is in `opening`.
    app = Described(
        title=TITLE,
        description=DESCRIPTION,
        version=version("colonies"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.streams, app.state.lookups = Streams(), asyncio.Semaphore(lookups.MAX_LOOKUPS)
    app.state.session, app.state.ledger, app.state.hub = session, ledger, hub
    app.state.client = Client(session)
    app.state.health = Health(session, ledger, hub)
    app.state.metrics = Metrics(ledger, hub, app.state.streams, app.state.health)
    for routes in (opening.routes, events.routes, lookups.routes, queries.routes):
        app.include_router(routes())
    for kind in (problems.Problem, HTTPException, ColoniesError, Exception):
        app.add_exception_handler(kind, problems.answered)
    app.add_exception_handler(RequestValidationError, _not_valid)
    return app


async def _not_valid(_: object, __: Exception) -> Response:
    return problems.Problem(400, "a parameter of this path is not of the right kind; see /docs").response()
