"""What an owner has the service of a webhook do: try the address now, send dead letters again.

An order makes the service send requests, so it is signed by an owner, for this one service, and counts once
and for a minute only: whoever repeats it, or asks for more of them than one a second, is refused. It is a
note, not an event: what it brings about is nothing that the ledger should know.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from colonies import codec, subjects
from colonies.core.events import MAX_COUNT, SECOND
from colonies.errors import ColoniesError, Invalid, NotFound, Refused, Unavailable
from colonies.session import Session

GOOD_S: Final = 60  # how old an order may be, or how far ahead its author's clock
MAX_ORDERED: Final = 1_000  # dead letters that one order names
MIN_PAUSE_S: Final = 1.0  # between two orders for one webhook
MAX_KNOWN: Final = 10_000  # orders of the last minutes that are known to have been carried out

Verb = Literal["test", "rerun"]
_KINDS: dict[str, type[ColoniesError]] = {kind.__name__: kind for kind in (Invalid, NotFound, Refused)}
_TYPES: dict[str, Verb] = {"order.test": "test", "order.rerun": "rerun"}


@dataclass(frozen=True, slots=True)
class Order:
    """`sequences` are the dead letters that are sent again; None: all of them."""

    verb: Verb
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
    kind = _KINDS.get(str(answer.get("kind")), Unavailable)
    raise kind(f"{service}: {answer['error']}")


async def sealed_order(session: Session, service: str, order: Order) -> dict[str, Any]:
    """The question to a service that carries an order of this member."""
    data: dict[str, Any] = {"webhook": order.webhook}
    if order.sequences is not None:
        if len(order.sequences) > MAX_ORDERED:
            raise Invalid(f"{len(order.sequences)} dead letters; at most {MAX_ORDERED} are named at once")
        data["sequences"] = list(order.sequences)
    now = await session.ledger.now()
    note = session.seal_note(subjects.webhooks_at(service), f"order.{order.verb}", now, data)
    return {"order": base64.b64encode(note).decode()}


@dataclass(slots=True)
class Orders:
    """The orders that a service took. `since` (ns, ledger time): what was said before it began counts no
    more, so it need not remember over a restart."""

    session: Session
    since: int
    _known: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _last: dict[str, int] = field(default_factory=dict)

    async def take(self, text: object) -> Order:
        """The order, which counts from now on no more.

        Raises:
            Invalid: it is none. Refused: not by an owner, too old, repeated, or one too many.
        """
        opened, order = self._read(text)
        member = self.session.colony.members.get(opened.author)
        if member is None or not opened.is_signed_by(member.key):  # perhaps too new to be known here
            await self.session.refresh()
            member = self.session.colony.members.get(opened.author)
        now = await self.session.ledger.now()
        if member is None or member.ended_by(now) or not opened.is_signed_by(member.key):
            raise Refused(f"{opened.author} is no member, or did not sign this")
        if member.role != "owner":
            raise Refused(f"only an owner may order this, and {member.name} is a {member.role}")
        if opened.time < self.since or abs(now - opened.time) > GOOD_S * SECOND:
            raise Refused(f"this order is older than {GOOD_S} s or than this service; give it again")
        self._once(opened.id, order.webhook, now)
        return order

    def _read(self, text: object) -> tuple[codec.Opened, Order]:
        try:
            if not isinstance(text, str):
                raise ValueError
            data = base64.b64decode(text, validate=True)
            where = subjects.webhooks_at(self.session.name)
            opened = codec.open_(self.session.colony.key, where, data)
        except (binascii.Error, ValueError):
            raise Invalid("this is no order") from None
        verb = _TYPES.get(opened.type)
        match opened.data:
            case {"webhook": str() as name, **rest} if verb is not None:
                return opened, Order(verb, name, _sequences(rest))
        raise Invalid("this is no order")

    def _once(self, id: str, webhook: str, now: int) -> None:
        while self._known and next(iter(self._known.values())) < now - 2 * GOOD_S * SECOND:
            self._known.popitem(last=False)
        if id in self._known:
            raise Refused("this order was carried out before")
        if now - self._last.get(webhook, 0) < MIN_PAUSE_S * SECOND or len(self._known) >= MAX_KNOWN:
            raise Refused(f"one order in {MIN_PAUSE_S:g} s for a webhook; give it again in a moment")
        self._known[id] = now
        self._last = {name: at for name, at in self._last.items() if now - at < MIN_PAUSE_S * SECOND}
        self._last[webhook] = now


def _sequences(rest: dict[str, Any]) -> tuple[int, ...] | None:
    match rest:
        case _ if not rest:
            return None
        case {"sequences": [*found]} if len(rest) == 1 and len(found) <= MAX_ORDERED:
            if all(type(each) is int and 0 <= each <= MAX_COUNT for each in found):
                return tuple(found)
    raise Invalid("this is no order")
