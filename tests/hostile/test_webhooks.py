"""The second fence, on what leaves the colony: owners say where events go, and when requests are sent."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from colonies_projections.webhooks import Webhooks

from colonies import subjects
from colonies.errors import Invalid, Refused
from colonies.history import examine
from colonies.session import Session
from colonies.webhook_orders import Order, ask_about, sealed_order
from colonies.webhooks import add_webhook, remove_webhook
from tests.hostile.field import Field
from tests.hostile.rows import row
from tests.webhooks.ground import Receiver, stopped

pytestmark = pytest.mark.asyncio(loop_scope="package")

ROLES = ("user", "worker", "observer", "service")


@asynccontextmanager
async def sending(field: Field, folder: Path) -> AsyncIterator[tuple[Receiver, Session]]:
    """A receiver, and the service that sends, while this lasts."""
    receiver = Receiver(folder / "receiver")
    await receiver.start()
    session = await field.colony.session("webhooks", "observer")
    service = Webhooks(session, folder / "webhooks.sqlite", delays_s=(0.1,) * 100)
    task = await field.colony._start(service.run(), service.ready)
    await field.colony.owner.refresh()
    try:
        yield receiver, session
    finally:
        await stopped(task)
        await receiver.kill()


@row("events-abroad")
async def test_events_go_where_an_owner_said_and_nowhere_else(field: Field, tmp_path: Path) -> None:
    owner = field.colony.owner
    async with sending(field, tmp_path) as (receiver, service):
        await add_webhook(owner, "ops", receiver.url("ok/ops"), events=["process.*"])
        await add_webhook(owner, "former", receiver.url("ok/former"))
        await remove_webhook(owner, "former")
        said = await owner.ledger.read(subjects.guard_of("webhook", "former"))
        blamed = {}
        for role in ROLES:
            who = await field.attacker(role)
            for name, event, head in (
                ("evil", "added", None),
                ("ops", "changed", await heads(field, "ops")),
                ("ops", "removed", await heads(field, "ops")),
            ):
                subject = f"ledger.webhook.{name}.{event}.{who.name}"
                data: dict[str, Any] = {}
                if event != "removed":
                    key = service.keypair.public
                    data = {"url": receiver.url("stolen"), "events": ["*"], "service": "webhooks", "key": key}
                    data["secret"] = bytes(80)
                forged = who.event(f"webhook.{event}", subject, prev=head, data=data)
                rule = "only an owner says where events are sent"
                blamed[await field.smuggled(who, subject, forged)] = rule
        user = await field.attacker("user")
        again = await field.smuggled(user, said[0].subject, said[0].data)
        blamed[again] = "its prev is not the digest of the entity's last valid event"
        job = await field.running()
        await field.agree(blamed)
        await job.finish()
        last = (await owner.ledger.read(subjects.guard_of("process", job.id)))[-1].sequence
        await field.until(lambda: last in receiver.sequences("ok/ops"), "the honest webhook heard the end")
        assert {request["path"] for request in receiver.requests()} <= {"/ok/ops", "/ok/former"}
        await remove_webhook(owner, "ops")


async def heads(field: Field, name: str) -> bytes | None:
    """What the next event of a webhook must name as `prev`."""
    stored = await field.reader.ledger.read(subjects.guard_of("webhook", name))
    records = [examine(field.reader.colony, each).record for each in stored]
    return next((r.digest for r in reversed(records) if r is not None and r.role == "owner"), None)


@row("ordered-requests")
async def test_the_service_sends_what_an_owner_orders_once(field: Field, tmp_path: Path) -> None:
    owner = field.colony.owner
    async with sending(field, tmp_path) as (receiver, _):
        await add_webhook(owner, "ops", receiver.url("ok"), events=["colony.configured"])
        order = await sealed_order(owner, "webhooks", Order("test", "ops"))
        assert (await ask_about(owner, "webhooks", order, wait_s=20))["items"][0]["status"] == 200
        await asyncio.sleep(1.1)  # so that it is not refused for being one too many
        for role in ("user", "worker", "observer"):
            who = await field.attacker(role)
            subject = subjects.webhooks_at("webhooks")
            own = who.event("request", subject, data={"verb": "test", "webhook": "ops"})
            session = await field.colony.session(f"asks-{role}", role)
            for question in (order, {"request": base64.b64encode(own).decode()}):
                with pytest.raises((Invalid, Refused), match=r"heard already|only an owner"):
                    await ask_about(session, "webhooks", question, wait_s=20)
        assert len(receiver.requests()) == 1
        await remove_webhook(owner, "ops")
