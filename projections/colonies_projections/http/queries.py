"""Questions to the views: `/v1/processes?state=failed` is `query.processes {"state": "failed"}` and its
answer.

A question goes to a projector as it is; what is allowed is the view's to say. So a view of somebody's own is
asked like ours, as soon as a projector has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from colonies.asking import ask_all
from colonies.core.names import shown
from colonies.errors import Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.past import moment, when
from colonies.querying import NO_PROJECTOR
from colonies.show import rfc3339
from colonies_projections.desk import SERVICE
from colonies_projections.http.access import LOCKED, Asker
from colonies_projections.http.problems import Problem
from colonies_projections.projector import VIEWS
from colonies_projections.standing import REBUILD, SUBJECT
from colonies_projections.view import Filter

ASK_S: Final = 5.0
LOOK_S: Final = 1.0
IN_HEADER: Final = "access_token: a token goes into the Authorization header, and nowhere else"

AT: Final = "As it was: at a sequence, a time (RFC 3339), or an age such as 2h."
TIMES: Final = ("since", "until")

_VIEW = re.compile(r"[a-z][a-z0-9_]{0,31}")
_NUMBERS: Final = ("limit", "at_least")
_STATUS: Final = {"invalid": 400, "refused": 403, "behind": 503, "defect": 500}
_BLANK = re.compile(r"\A([0-9-]{10}T[0-9:.]+) ([0-9]{2}:?[0-9]{2})\Z")
_DIGITS = re.compile(r"[0-9]{1,18}")
_COMMON: Final = {
    "limit": ("integer", "At most so many items, 1 to 1,000; 50 if it is left out."),
    "cursor": ("string", "Go on where an earlier answer ended: its `cursor`."),
    "sort": ("string", "What to sort by; - before it for the largest first."),
    "at": ("string", AT),
    "at_least": ("integer", "Answer only when the view has this sequence of the ledger."),
}


async def ask(ledger: JetStreamLedger, view: str, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of a projector: `{items, position, ...}`.

    Raises Problem: 400, 403 or 503 with the projector's words, 404 for a view that it does not have, 503 if
    none answers.
    """
    try:
        answer = await ledger.ask_service(f"query.{view}", question, wait_s=ASK_S)
    except (Unavailable, ValueError, RecursionError):
        raise await _unanswered(ledger, view) from None
    if "error" in answer:
        status = _STATUS.get(str(answer.get("kind")), 400)
        raise Problem(status, str(answer["error"]), {"Retry-After": "1"} if status == 503 else None)
    return answer


async def _unanswered(ledger: JetStreamLedger, view: str) -> Problem:
    """Is there no such view, or nobody to ask?"""
    try:
        told = await ledger.ask_service(f"$SRV.INFO.{SERVICE}", {}, wait_s=LOOK_S)
        asked = {str(endpoint["subject"]) for endpoint in told["endpoints"]}
    except (Unavailable, ValueError, RecursionError, KeyError, TypeError):
        return Problem(503, NO_PROJECTOR, {"Retry-After": "1"})
    if f"query.{view}" in asked:
        return Problem(503, "the projector is busy; ask again in a moment", {"Retry-After": "1"})
    names = sorted(subject.removeprefix("query.") for subject in asked - {REBUILD})
    return Problem(404, f"there is no view {view}; there are {', '.join(names)}")


def question_of(request: Request) -> dict[str, Any]:
    """The question in a query string: each word once, numbers as numbers. Raises Problem."""
    question: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name == "access_token":
            raise Problem(400, IN_HEADER)
        if name in question:
            raise Problem(400, f"{shown(name)} is given twice; allowed: once")
        if name in _NUMBERS:
            if not _DIGITS.fullmatch(value):
                raise Problem(400, f"{name}: {shown(value)}; allowed: a whole number")
            question[name] = int(value)
        else:
            question[name] = value
    return question


def only(request: Request, *names: str) -> None:
    """Raises Problem: a word in the query string that means nothing here."""
    for name in request.query_params:
        if name == "access_token":
            raise Problem(400, IN_HEADER)
        if name not in names:
            allowed = ", ".join(names) or "nothing"
            raise Problem(400, f"{shown(name)} is no parameter of this path; allowed: {allowed}")


def with_plus(text: str) -> str:
    """A time whose zone begins with +, which a query string has for a blank unless it is written as %2B."""
    return _BLANK.sub(r"\1+\2", text)


def json_response(value: Any) -> Response:
    return Response(json.dumps(value, separators=(",", ":")), media_type="application/json")


def routes() -> APIRouter:
    """One route for each of our views, with its filters in the schema, and one for all others."""
    router = APIRouter(prefix="/v1", tags=["views"], **LOCKED)
    for make in VIEWS:
        view = make()
        router.add_api_route(
            f"/{view.name}",
            _asking(view.name, view.filters),
            methods=["GET"],
            name=f"ask_{view.name}",
            summary=f"The view of {view.name}",
            description=f"As `query.{view.name}` over NATS: `items`, in the order of the view; `position`, "
            "the sequence up to which it knows the ledger; `cursor`, if there is more.",
            openapi_extra={"parameters": _parameters(view.filters, view.sorts)},
        )
    router.add_api_route(
        "/projections",
        _projections,
        methods=["GET"],
        summary="How each projector stands: how far its views are behind the ledger",
    )
    router.add_api_route(
        "/{view}",
        _any_view,
        methods=["GET"],
        name="ask_any",
        summary="Any other view that a projector has",
        openapi_extra={"parameters": _parameters({}, ())},
    )
    return router


def _asking(view: str, filters: Mapping[str, Filter]) -> Callable[..., Any]:
    times = tuple(name for name in TIMES if name in filters)

    async def asking(request: Request, asker: Asker) -> Response:
        return await _answer(request, asker, view, times)

    return asking


async def _any_view(view: str, request: Request, asker: Asker) -> Response:
    if not _VIEW.fullmatch(view) or f"query.{view}" == REBUILD:  # which is no question
        raise Problem(404, "there is no such view")
    return await _answer(request, asker, view, TIMES)


async def _answer(request: Request, asker: Asker, view: str, times: Sequence[str]) -> Response:
    await asker.sees("views")
    ledger: JetStreamLedger = request.app.state.ledger
    question = question_of(request)
    if "at" in question:
        question["at"] = (await moment(ledger, with_plus(question["at"]))).sequence
    for name in times:
        if name in question:
            question[name] = rfc3339(await when(ledger, with_plus(question[name]), name))
    return json_response(await ask(ledger, view, question))


async def _projections(request: Request, asker: Asker) -> Response:
    only(request)
    await asker.sees("views")
    try:
        answers = await ask_all(request.app.state.ledger, SUBJECT, {}, wait_s=LOOK_S)
    except (Unavailable, ValueError, RecursionError):
        raise Problem(503, NO_PROJECTOR, {"Retry-After": "1"}) from None
    return json_response({"items": [item for answer in answers for item in answer.get("items") or ()]})


def _parameters(filters: Mapping[str, Filter], sorts: Sequence[str]) -> list[dict[str, Any]]:
    """Of a view's filters and sorts, as OpenAPI has parameters."""
    found: list[dict[str, Any]] = []
    for name, filter in filters.items():
        values = {} if filter.allowed is None else {"enum": list(filter.allowed)}
        found.append({"name": name, "in": "query", "schema": {"type": "string", **values}})
    for name, (kind, description) in _COMMON.items():
        schema: dict[str, Any] = {"type": kind}
        if name == "sort" and sorts:
            names = [sort.removeprefix("-") for sort in sorts]
            schema["enum"] = [*names, *(f"-{name}" for name in names)]
        found.append({"name": name, "in": "query", "description": description, "schema": schema})
    return found
