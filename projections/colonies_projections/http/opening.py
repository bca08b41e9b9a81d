"""What needs no token: whether it is ready, its metrics, and what may be asked.

None of it says an argument, an output, an error or a member's name.
"""

from __future__ import annotations

import base64
import hashlib
import json

from fastapi import APIRouter, Request
from fastapi.responses import Response

from colonies_projections.http import page
from colonies_projections.http.health import Health
from colonies_projections.http.metrics import Metrics


def routes() -> APIRouter:
    router = APIRouter(tags=["open"])
    for path, endpoint, summary in (
        ("/health", _health, "Is it ready? 200 if it is, else 503 with reasons"),
        ("/metrics", _metrics, "Counts and times, for Prometheus"),
    ):
        router.add_api_route(path, endpoint, methods=["GET"], summary=summary, response_class=Response)
    router.add_api_route("/docs", _docs, methods=["GET"], include_in_schema=False, response_class=Response)
    return router


async def _health(request: Request) -> Response:
    health: Health = request.app.state.health
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
