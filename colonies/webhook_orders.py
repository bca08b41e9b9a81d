"""What an owner has the service of a webhook do: try the address now, send dead letters again.

An order makes the service send requests to elsewhere, so it is signed by an owner, for this one service, and
counts once (`colonies.requests`); and there is one a second for a webhook. It is no event: what it brings
about is nothing that the ledger should know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from colonies import subjects
from colonies.core.events import MAX_COUNT, SECOND
from colonies.errors import ColoniesError, Invalid, NotFound, Refused, Unavailable
from colonies.requests import Request, Requests, sealed_request
from colonies.session import Session

MAX_ORDERED: Final = 1_000  # dead letters that one order names
MIN_PAUSE_S: Final = 1.0  # between two orders for one webhook


class TooSoon(Unavailable):
    """The order came within MIN_PAUSE_S of the one before; nothing was done. Give it again in a moment."""


KINDS: Final[dict[str, type[ColoniesError]]] = {
    "invalid": Invalid,
    "refused": Refused,
    "missing": NotFound,
    "soon": TooSoon,
}


@dataclass(frozen=True, slots=True)
class Order:
    """`sequences` are the dead letters that are sent again; None: all of them."""

    verb: Literal["test", "rerun"]
    webhook: str
    sequences: tuple[int, ...] | None = None


async def ask_about(
    session: Session, service: str, question: dict[str, Any], *, wait_s: float
) -> dict[str, Any]:
    """What the service of a webhook answers.

    Raises:
        Unavailable: it does not answer; and whatever it refuses.
    """
    ledger: Any = session.ledger
    answer = await ledger.ask_service(subjects.webhooks_at(service), question, wait_s=wait_s)
    if "error" not in answer:
        return dict(answer)
    kind = KINDS.get(str(answer.get("kind")), Unavailable)
    raise kind(f"{service}: {answer['error']}")


async def give_order(session: Session, service: str, order: Order, *, wait_s: float) -> dict[str, Any]:
    """What came of an order of this member. Raises as `ask_about`."""
    answer = await ask_about(session, service, await sealed_order(session, service, order), wait_s=wait_s)
    return dict(answer["items"][0])


async def sealed_order(session: Session, service: str, order: Order) -> dict[str, Any]:
    """The question to a service that carries an order of this member."""
    data: dict[str, Any] = {"verb": order.verb, "webhook": order.webhook}
    if order.sequences is not None:
        if len(order.sequences) > MAX_ORDERED:
            raise Invalid(f"{len(order.sequences)} dead letters; at most {MAX_ORDERED} are named at once")
        data["sequences"] = list(order.sequences)
    return {"request": await sealed_request(session, subjects.webhooks_at(service), data)}


@dataclass(slots=True)
class Orders:
    """The orders that a service takes, since it began at the ledger time `since` (ns)."""

    session: Session
    since: int
    _requests: Requests = field(init=False)
    _last: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._requests = Requests(subjects.webhooks_at(self.session.name), self.since)

    async def take(self, said: object) -> Order:
        """The order, which counts from now on no more.

        Raises:
            Invalid: it is none, or too old, or was heard before. Refused: not by an owner. TooSoon.
        """
        now = await self.session.ledger.now()
        try:
            request = self._requests.read(self.session.colony, said, now)
        except Refused:  # the member or its key may be too new to be known here
            await self.session.refresh()
            request = self._requests.read(self.session.colony, said, now)
        if request.role != "owner":
            raise Refused(f"only an owner may order this, and {request.author} is a {request.role}")
        order = _read(request)
        if now - self._last.get(order.webhook, 0) < MIN_PAUSE_S * SECOND:
            raise TooSoon(f"one order in {MIN_PAUSE_S:g} s for a webhook; give it again in a moment")
        self._last = {name: at for name, at in self._last.items() if now - at < MIN_PAUSE_S * SECOND}
        self._last[order.webhook] = now
        return order


def _read(request: Request) -> Order:
    match request.data:
        case {"verb": "test", "webhook": str() as name} if len(request.data) == 2:
            return Order("test", name)
        case {"verb": "rerun", "webhook": str() as name} if len(request.data) == 2:
            return Order("rerun", name)
        case {"verb": "rerun", "webhook": str() as name, "sequences": [*found]} if len(request.data) == 3:
            if len(found) <= MAX_ORDERED and all(
                type(each) is int and 0 <= each <= MAX_COUNT for each in found
            ):
                return Order("rerun", name, tuple(found))
    raise Invalid("this is no order to the service of a webhook")
