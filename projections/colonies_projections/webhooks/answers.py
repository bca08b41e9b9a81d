"""What the service answers: how it goes with its webhooks, and what came of an owner's order.

It is asked by whom the colony trusts least, so nothing that it says comes from a receiver but a status.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from colonies.errors import Invalid, NotFound
from colonies.session import Session
from colonies.show import rfc3339
from colonies.webhook_orders import Order, Orders
from colonies.webhooks import secret_of, webhooks
from colonies_projections.webhooks.book import Book, Delivery, Entry
from colonies_projections.webhooks.messages import test_message
from colonies_projections.webhooks.sending import Sender

CATCH_UP_S: Final = 1.5


class Answers:
    """Answers questions to the service. `wake` is told of a webhook that has something to do."""

    def __init__(
        self, session: Session, book: Book, sender: Sender, since: int, wake: Callable[[str], None]
    ) -> None:
        self._session = session
        self._book = book
        self._sender = sender
        self._orders = Orders(session, since)
        self._wake = wake

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        await self._catch_up()
        if "request" in question:
            item = await self._carry_out(await self._orders.take(question["request"]))
            return {"items": [item]}
        name = question.get("webhook")
        entries = [self._entry(name)] if name is not None else list(self._book.entries.values())
        items = [await self._item(entry) for entry in entries]
        if name is not None:
            letters = await self._book.dead(name, question.get("dead", 0))
            items[0]["dead_letters"] = [_letter(letter) for letter in letters]
        return {"items": items, "position": self._book.position.sequence if self._book.position else 0}

    async def _catch_up(self) -> None:
        """Wait, for a moment, until what the ledger has now of our webhooks is known here: whoever adds one
        and asks at once is not told that there is none."""
        ours = [found for found in await webhooks(self._session) if found.service == self._session.name]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_S):
                while any(self._since(found.name) < found.since for found in ours):
                    await self._book.taken.wait()

    def _since(self, name: str) -> int:
        entry = self._book.entries.get(name)
        return entry.said.since if entry is not None else 0

    def _entry(self, name: str) -> Entry:
        entry = self._book.entries.get(name)
        if entry is None:
            raise NotFound(f"{self._session.name} sends for no webhook {name}")
        return entry

    async def _carry_out(self, order: Order) -> dict[str, Any]:
        entry = self._entry(order.webhook)
        if order.verb == "rerun":
            count = await self._book.rerun(order.webhook, order.sequences, time.time_ns())
            self._wake(order.webhook)
            return {"webhook": order.webhook, "rerun": count}
        secret, id, body = test_message(self._session, entry.said)
        outcome = await self._sender.send(entry.said.url, secret, id, body)
        return {"webhook": order.webhook, "status": outcome.status, "seconds": round(outcome.took_s, 3)} | {
            "error": outcome.error
        }

    async def _item(self, entry: Entry) -> dict[str, Any]:
        said, state = entry.said, entry.state
        pending, dead = await self._book.counts(said.name)
        return {
            "name": said.name,
            "url": said.url,
            "state": self._state(entry),
            "delivered": state.delivered,
            "delivered_at": _time(state.delivered_at),
            "pending": pending,
            "dead": dead,
            "dropped": state.dropped,
            "failing_since": _time(state.failing_since),
            "held_until": _time(state.held_until if state.held_until > time.time_ns() else None),
            "error": state.error,
        }

    def _state(self, entry: Entry) -> str:
        try:
            secret_of(self._session, entry.said)
        except Invalid:
            return "locked"
        if entry.state.gone is not None:
            return "gone"
        return "failing" if entry.state.failing_since is not None else "active"


def _letter(letter: Delivery) -> dict[str, Any]:
    return {
        "sequence": letter.sequence,
        "event": letter.type,
        "tries": letter.tries,
        "dead_at": _time(letter.dead),
        "error": letter.error,
    }


def _time(ns: int | None) -> str | None:
    return rfc3339(ns) if ns is not None else None
