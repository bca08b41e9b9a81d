"""Questions to the views: `/v1/processes?state=failed` is `query.processes {"state": "failed"}` and its
answer.

A question goes to a projector as it is; what is allowed is the view's to say. So a view of somebody's own is
asked like ours, as soon as a projector has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from colonies.asking import ask_all
from colonies.core.names import shown
from colonies.errors import Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.past import moment
from colonies.querying import NO_PROJECTOR
from colonies_projections.desk import SERVICE
from colonies_projections.http.access import LOCKED, Asker
from colonies_projections.http.description import parameters, problems
from colonies_projections.http.problems import Problem
from colonies_projections.http.rows import PAGES, AnyPage, Standings
from colonies_projections.logs import Logs
from colonies_projections.projector import VIEWS
from colonies_projections.question import as_time
from colonies_projections.standing import REBUILD, SUBJECT
from colonies_projections.view import Filter, View

ASK_S: Final = 5.0
LOOK_S: Final = 1.0
IN_HEADER: Final = "access_token: a token goes into the Authorization header, and nowhere else"

TIMES: Final = ("since", "until")

_VIEW = re.compile(r"[a-z][a-z0-9_]{0,31}")
_View = Annotated[str, Path(description="Its name.")]
_NUMBERS: Final = ("limit", "at_least")
_STATUS: Final = {"invalid": 400, "refused": 403, "behind": 503, "defect": 500}
_BLANK = re.compile(r"\A([0-9-]{10}T[0-9:.]+) ([0-9]{2}:?[0-9]{2})\Z")
_DIGITS = re.compile(r"[0-9]{1,18}")


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
    """One route for each of our views, with its filters and rows in the schema, and one for all others."""
    router = APIRouter(prefix="/v1", tags=["views"], **LOCKED)
    views: list[type[Logs] | View] = [*(make() for make in VIEWS), Logs]
    for view in views:
        router.add_api_route(
            f"/{view.name}",
            _asking(view.name, view.filters),
            methods=["GET"],
            operation_id=f"list_{view.name}",
            summary=f"The view of {view.name}",
            description=f"As `query.{view.name}` over NATS: `items`, in the order of the view; `position`, "
            "the sequence up to which it knows the ledger; `cursor`, if there is more.",
            response_model=PAGES[view.name],
            responses=problems(400, 401, 403, 503),
            openapi_extra={"parameters": parameters(view)},
        )
    router.add_api_route(
        "/projections",
        _projections,
        methods=["GET"],
        operation_id="list_projections",
        summary="How each projector stands: how far its views are behind the ledger",
        response_model=Standings,
        responses=problems(400, 401, 403, 503),
    )
    router.add_api_route(
        "/{view}",
        _any_view,
        methods=["GET"],
        operation_id="list_any",
        summary="Any other view that a projector has",
        description="Its filters are parameters too.",
        response_model=AnyPage,
        responses=problems(400, 401, 403, 404, 503),
        openapi_extra={"parameters": parameters(None)},
    )
    return router


def _asking(view: str, filters: Mapping[str, Filter]) -> Callable[..., Any]:
    times = tuple(name for name in TIMES if name in filters)

    async def asking(request: Request, asker: Asker) -> Response:
        return await _answer(request, asker, view, times)

    return asking


async def _any_view(view: _View, request: Request, asker: Asker) -> Response:
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
            text = with_plus(question[name])
            question[name] = await as_time(ledger, name, text, name, question.get("cursor"))
    return json_response(await ask(ledger, view, question))


async def _projections(request: Request, asker: Asker) -> Response:
    only(request)
    await asker.sees("views")
    try:
        answers = await ask_all(request.app.state.ledger, SUBJECT, {}, wait_s=LOOK_S)
    except (Unavailable, ValueError, RecursionError):
        raise Problem(503, NO_PROJECTOR, {"Retry-After": "1"}) from None
    return json_response({"items": [item for answer in answers for item in answer.get("items") or ()]})
