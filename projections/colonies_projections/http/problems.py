"""What goes wrong, as RFC 9457 has it: one JSON object of `type`, `title`, `status`, `detail`, for every
error.

Our own error tree decides the status in one place. What is told of a token is a constant of
`colonies.bearer`: what its text says, and of one that a member signed, what became of that member's key.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from colonies.bearer import NotGood
from colonies.errors import ColoniesError, Conflict, Invalid, NotFound, Unavailable

MEDIA_TYPE = "application/problem+json"
NO_TOKEN = "show a bearer token in the header Authorization: `colonies member token NAME` makes one"
NO_BEARER = "the header Authorization is not one `Bearer TOKEN`; `colonies member token NAME` makes a token"
NO_PATH = "there is no such path; /docs has those that there are"
NO_RIGHT = "this member's role may not see that"
DEFECT = "a defect of this server; its log says more"

_STATUS: tuple[tuple[type[ColoniesError], int], ...] = (
    (Invalid, 400),
    (NotFound, 404),
    (Conflict, 409),
)


class Problem(Exception):
    """An answer that is an error. `detail` says what is wrong and what would be right."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    def body(self) -> bytes:
        said: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return json.dumps(said).encode()

    def response(self) -> Response:
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)


def unauthorized(told: str | None = None) -> Problem:
    """No token, or one that is not good, and what of it is `told` (RFC 6750, section 3)."""
    return Problem(401, told or NO_TOKEN, _challenge("invalid_token", told) if told else _challenge())


def forbidden() -> Problem:
    return Problem(403, NO_RIGHT, _challenge("insufficient_scope", NO_RIGHT))


def _challenge(error: str = "", told: str = "") -> dict[str, str]:
    more = f', error="{error}", error_description="{told}"' if error else ""
    return {"WWW-Authenticate": f'Bearer realm="colonies"{more}'}


def of(error: Exception) -> Problem:
    """The problem that an error is."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return Problem(404, NO_PATH)
        return Problem(error.status_code, str(error.detail), dict(error.headers or {}))
    if isinstance(error, NotGood):
        return unauthorized(error.told)
    if isinstance(error, Unavailable):
        return Problem(503, str(error), {"Retry-After": "1"})
    if isinstance(error, ColoniesError):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
        # Refused: it is this server that may not, and that is nobody else's business.
        return Problem(status, str(error)) if status else Problem(503, "this server is not ready")
    return Problem(500, DEFECT)


async def answered(_: Request, error: Exception) -> Response:
    """For FastAPI: what an exception is answered with."""
    return of(error).response()
