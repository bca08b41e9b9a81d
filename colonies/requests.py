"""Requests to a service, signed: who asks is proven, and a request counts once, while it is fresh.

Questions to a service need no proof, since every member may ask them. What changes something there, or costs
much, is sealed like an event for the subject that it is sent to; it is not on the ledger.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from colonies import codec
from colonies.core.colony import Colony
from colonies.core.events import Role
from colonies.core.process import SECOND
from colonies.errors import Invalid, Refused
from colonies.session import Session

FRESH_S = 30
MAX_REMEMBERED = 10_000

_TYPE = "request"


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks, with which role, for what."""

    author: str
    role: Role
    data: dict[str, Any]


async def sealed_request(session: Session, subject: str, data: dict[str, Any]) -> str:
    """The request as text, to be sent to that subject."""
    sealed = session.seal_note(subject, _TYPE, await session.ledger.now(), data)
    return base64.b64encode(sealed).decode()


@dataclass(slots=True)
class Requests:
    """Reads requests that come to one service, and knows those that it has read. What was asked before
    `since` (ns, ledger time), when it began, counts no more: it need not remember that over a restart."""

    subject: str
    since: int = 0
    _seen: dict[str, int] = field(default_factory=dict)

    def read(self, colony: Colony, said: object, now: int) -> Request:
        """The request, at ledger time `now` (ns).

        Raises:
            Invalid: it is no request, or an old one, or one that was read before.
            Refused: it is not signed by a member.
        """
        try:
            sealed = base64.b64decode(said, validate=True) if isinstance(said, str) else b""
            opened = codec.open_(colony.key, self.subject, sealed)
        except (binascii.Error, ValueError, codec.Malformed):
            raise Invalid("it is not a signed request for this service") from None
        member = colony.members.get(opened.author)
        if (
            opened.type != _TYPE
            or member is None
            or member.ended_by(now)
            or not opened.is_signed_by(member.key)
        ):
            raise Refused(f"the request is not signed by a member of the colony {colony.name}")
        if abs(now - opened.time) > FRESH_S * SECOND:
            raise Invalid(f"the request is more than {FRESH_S} s old; set this machine's clock, ask again")
        if opened.time < self.since:
            raise Invalid("the request is older than this service; ask again")
        for id in [id for id, time in self._seen.items() if now - time > 2 * FRESH_S * SECOND]:
            del self._seen[id]
        if opened.id in self._seen or len(self._seen) >= MAX_REMEMBERED:
            raise Invalid("the request was heard already; ask again")
        self._seen[opened.id] = opened.time
        return Request(opened.author, member.role, opened.data)
