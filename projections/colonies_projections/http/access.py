"""Who asks, and what a role may see.

A token is held against the ledger as this server has it by now, at each request, and for a feed again while
it lasts. Nothing is remembered of tokens, and nothing of them is ever logged.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from colonies.bearer import Bearer, NotGood, admit
from colonies.core.events import Role
from colonies.core.members import Member
from colonies.errors import Unavailable
from colonies.session import Session
from colonies_projections.http import problems

What = Literal["views", "ledger", "feed"]
"""Answers of projectors; single processes and workflows with their history; events as they come."""

NOW_S = 1.0

_SCHEME = "bearer "
_SEES: dict[Role, frozenset[What]] = {
    role: frozenset(("views", "ledger", "feed"))
    for role in ("owner", "user", "worker", "observer", "service")
}

_log = structlog.get_logger("colonies.http")


def may_see(role: Role, what: What) -> bool:
    """May a member of this role see that? Today each may see all of it, as it may at the broker
    (`colonies.roles`): there are no private processes in a colony. A role that is not known sees nothing."""
    return what in _SEES.get(role, ())


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks, by which token."""

    said: Bearer
    session: Session

    async def member(self) -> Member:
        """The member, as the ledger has it by now. Raises NotGood once the token is none any more."""
        return self.said.member_of(self.session.colony, await _now(self.session))

    async def sees(self, what: What) -> None:
        """Raises Problem unless this member may see it, NotGood as `member`."""
        if not may_see((await self.member()).role, what):
            raise problems.forbidden()


async def _reader(request: Request) -> Reader:
    """Who shows the token in the Authorization header, and nowhere else: a URL is kept in histories and logs.

    Raises Problem, which tells what is wrong with the token as far as whoever has it knows that anyway.
    """
    session: Session = request.app.state.session
    given = request.headers.getlist("authorization")
    if not given:
        raise problems.unauthorized()
    if len(given) != 1 or not given[0].lower().startswith(_SCHEME):
        raise problems.unauthorized(problems.NO_BEARER)
    token = given[0][len(_SCHEME) :].strip(" ")
    try:
        return Reader(admit(token, session.colony, await _now(session)), session)
    except NotGood as error:
        _log.debug("token refused", reason=str(error))
        raise problems.unauthorized(error.told) from None


async def _now(session: Session) -> int:
    """Ledger time (ns); while no broker answers, this machine's."""
    try:
        async with asyncio.timeout(NOW_S):
            return await session.ledger.now()
    except (Unavailable, TimeoutError):
        return time.time_ns()


_scheme = HTTPBearer(
    auto_error=False, description="From `colonies member token NAME`.", bearerFormat="colonies"
)

Asker = Annotated[Reader, Depends(_reader)]
"""A parameter of this type is who asks. `LOCKED` is for the routes that have one."""

LOCKED: dict[str, Any] = {"dependencies": [Depends(_scheme)]}
