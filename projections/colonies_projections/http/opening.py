"""What needs no token: whether it is ready, its metrics, and what may be asked.

None of it says an argument, an output, an error or a member's name.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from colonies_projections.http import page
from colonies_projections.http.answers import Health
from colonies_projections.http.description import problems
from colonies_projections.http.health import Health as Looking
from colonies_projections.http.metrics import Metrics


def routes() -> APIRouter:
    router = APIRouter(tags=["open"])
    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "It is not ready."}}
    router.add_api_route(
        "/health",
        _health,
        methods=["GET"],
        operation_id="health",
        summary="Is it ready? 200 if it is, else 503 with reasons",
        response_model=Health,
        responses={**problems(), **not_ready},
    )
    router.add_api_route(
        "/metrics",
        _metrics,
        methods=["GET"],
        operation_id="metrics",
        summary="Counts and times, for Prometheus",
        response_class=PlainTextResponse,
        responses={**problems(), 200: {"description": "Text, as Prometheus reads it."}},
    )
    router.add_api_route("/docs", _docs, methods=["GET"], include_in_schema=False, response_class=Response)
    return router


async def _health(request: Request) -> Response:
    health: Looking = request.app.state.health
    found = await health.look()
    return Response(json.dumps(found.said()), 200 if found.ready else 503, media_type="application/json")


async def _metrics(request: Request) -> Response:
    metrics: Metrics = request.app.state.metrics
    text, media_type = await metrics.text(request.headers.get("accept", ""))
    return Response(text, media_type=media_type)


async def _docs(request: Request) -> Response:
    digest = base64.b64encode(hashlib.sha256(page.STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'"
    return Response(
        page.rendered(request.app.openapi()),
        headers={"Content-Security-Policy": policy},
        media_type="text/html",
    )
