"""Who may say where events go, and who may have requests sent: owners, once, and not too often."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from colonies_projections.webhooks.book import Book

from colonies import subjects
from colonies.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from colonies.requests import FRESH_S
from colonies.session import Session
from colonies.webhook_orders import Order, TooSoon, ask_about, sealed_order
from colonies.webhooks import (
    MAX_WEBHOOKS,
    add_webhook,
    change_webhook,
    checked_filters,
    checked_url,
    is_plain,
    remove_webhook,
)
from tests.webhooks.ground import Ground, ground

TEST = Order("test", "ops")


async def told(at: Ground, question: dict[str, Any]) -> dict[str, Any]:
    return await ask_about(at.owner, "webhooks", question, wait_s=20)


async def order_of(
    session: Session, *, ago_s: float = 0.0, service: str = "webhooks", **data: Any
) -> dict[str, Any]:
    """An order made by hand."""
    now = await session.ledger.now() - int(ago_s * 1e9)
    said = {"verb": "test", "webhook": "ops", **data}
    note = session.seal_note(subjects.webhooks_at(service), "request", now, said)
    return {"request": base64.b64encode(note).decode()}


async def test_a_test_event_is_sent_now_and_the_answer_is_shown(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops", "status/503", events=["process.failed"])
        said = await at.order(TEST)
        assert (said["status"], said["error"]) == (503, "answered 503")
        assert said["seconds"] < 15
        (event,) = at.receiver.events()
        assert event["type"] == "colonies.webhook.test"
        assert "secret of this network" not in json.dumps(said)


async def test_who_asks_at_once_is_not_told_that_there_is_no_webhook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Book.take

    async def slow(book: Book, *given: Any) -> None:
        await asyncio.sleep(0.3)
        await take(book, *given)

    monkeypatch.setattr(Book, "take", slow)
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops", events=["process.failed"])
        assert (await at.ask("ops"))["state"] == "active"
        await change_webhook(at.owner, "ops", url=at.receiver.url("status/201"))
        assert (await at.order(TEST))["status"] == 201


async def test_only_an_owner_orders_and_each_order_counts_once(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops", events=["process.failed"])
        ann, service = await at.colony.session("ann", "user"), await at.colony.session("w", "worker")
        for session in (ann, service):
            with pytest.raises(Refused, match="only an owner may order this"):
                await told(at, await sealed_order(session, "webhooks", TEST))
        await asyncio.sleep(1.0)
        good = await sealed_order(at.owner, "webhooks", TEST)
        assert (await told(at, good))["items"][0]["status"] == 200
        with pytest.raises(Invalid, match="heard already"):
            await told(at, good)
        with pytest.raises(TooSoon, match="one order in 1 s"):
            await at.order(TEST)
        assert len(at.receiver.requests()) == 1


async def test_an_order_that_is_old_forged_or_anothers_is_refused(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops")
        for ago_s in (FRESH_S + 5, -FRESH_S - 5):
            with pytest.raises(Invalid, match=f"more than {FRESH_S} s old"):
                await told(at, await order_of(at.owner, ago_s=ago_s))
        with pytest.raises(Invalid, match="older than this service"):
            await told(at, await order_of(at.owner, ago_s=FRESH_S - 5))
        with pytest.raises(Refused, match="not signed by a member"):
            await told(at, await order_of(at.owner, service="webhooks-2"))
        for junk in ("", "x", None, 7, base64.b64encode(b"\xc0" * 90).decode(), "ä"):
            with pytest.raises(Invalid, match="not a signed request"):
                await told(at, {"request": junk})
        rerun = {"verb": "rerun"}
        for data in (
            {"more": 1},
            {"sequences": [1]},
            {"verb": "stop"},
            {"webhook": 7},
            *({**rerun, "sequences": given} for given in ([-1], ["1"], [True], [1] * 1_001, 7)),
        ):
            with pytest.raises(Invalid, match="no order"):
                await told(at, await order_of(at.owner, **data))
        with pytest.raises(NotFound, match="no webhook other"):
            await at.order(Order("test", "other"))
        assert not at.receiver.requests()


@pytest.mark.parametrize(
    "question", [{"webhook": 7}, {"dead": 1}, {"x": 1}, {"webhook": "ops", "dead": "all"}]
)
async def test_what_is_no_question_is_said_to_be_none(tmp_path: Path, question: dict[str, Any]) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        with pytest.raises(Invalid, match="no question"):
            await told(at, question)


async def test_only_an_owner_says_where_events_go(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.enrol()
        ann = await at.colony.session("ann", "user")
        with pytest.raises(Refused, match="only an owner says where events are sent"):
            await add_webhook(ann, "ops", at.receiver.url())
        await at.add("ops")
        with pytest.raises((Refused, Conflict)):
            await add_webhook(ann, "ops", at.receiver.url("stolen"))
        with pytest.raises(Refused):
            await change_webhook(ann, "ops", url=at.receiver.url("stolen"))
        with pytest.raises(Refused):
            await remove_webhook(ann, "ops")
        assert (await at.webhook("ops")).url == at.receiver.url()


async def test_a_name_is_that_of_one_webhook_at_a_time(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.enrol()
        with pytest.raises(NotFound, match="there is no webhook ops"):
            await change_webhook(at.owner, "ops")
        await at.add("ops")
        with pytest.raises(Conflict, match="there is a webhook ops"):
            await at.add("ops")
        await remove_webhook(at.owner, "ops")
        with pytest.raises(NotFound):
            await remove_webhook(at.owner, "ops")
        await at.add("ops")
        with pytest.raises(Invalid, match="not allowed as a name"):
            await at.add("a.b")


async def test_a_colony_has_a_limited_number_of_webhooks(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.enrol()
        for number in range(MAX_WEBHOOKS):
            await at.add(f"w{number}")
        with pytest.raises(Invalid, match="at most 100"):
            await at.add("more")


async def test_the_service_that_sends_is_found_or_named(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        with pytest.raises(Unavailable, match="no service of this colony sends"):
            await at.add("ops")
        await at.enrol("webhooks-one")
        await at.add("ops")
        assert (await at.webhook("ops")).service == "webhooks-one"
        await at.enrol("webhooks-two")
        with pytest.raises(Invalid, match="webhooks-one, webhooks-two that can send: say which with --via"):
            await at.add("more")
        await at.add("more", service="webhooks-two")
        assert (await at.webhook("more")).service == "webhooks-two"
        await at.colony.credential("ann", "user")
        for name in ("ann", "nobody"):
            with pytest.raises(NotFound, match="with the role observer"):
                await at.add("third", service=name)


async def test_each_service_sends_for_its_own_webhooks_and_a_change_moves_one(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        at.file = tmp_path / "second.sqlite"
        await at.send("webhooks-2")
        await at.add("one", "ok/one", service="webhooks", events=["process.*"])
        await at.add("two", "ok/two", service="webhooks-2", events=["process.*"])
        first = await at.submit(3)
        await at.heard(first, "ok/one")
        await at.heard(first, "ok/two")
        await change_webhook(at.owner, "one", url=at.receiver.url("ok/moved"), service="webhooks-2")
        later = await at.submit(3)
        await at.heard(later, "ok/moved")
        await at.heard(later, "ok/two")
        assert at.receiver.sequences("ok/one") == first
        assert at.receiver.sequences("ok/two") == [*first, *later]
        with pytest.raises(NotFound):
            await at.ask("one")
        assert (await at.ask("one", service="webhooks-2"))["delivered"] == 3


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Example.com/A?b=C", "https://example.com/A?b=C"),
        ("HTTP://example.com", "http://example.com"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("https://example.com?x", "https://example.com?x"),
    ],
)
def test_an_address_is_written_in_one_way(given: str, kept: str) -> None:
    assert checked_url(given) == kept


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "ftp://example.com/", "https://", "https:///x", "https://example.com/#part"),
        *("https://exa mple.com/", "https://example.com/\n", "https://bücher.example/", "http://x:0/"),
        *("http://x:65536/", "http://[zz]/", "http://[127.0.0.1]/", "https://x/" + "y" * 2_048),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="url: "):
        checked_url(url)


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(Invalid, match="it holds a user") as refused:
        checked_url("https://user:hunter2@example.com/")
    assert "hunter2" not in str(refused.value)


def test_filters_are_types_that_there_are() -> None:
    assert checked_filters(["process.failed", "workflow.*", "*", "*"]) == [
        "process.failed",
        "workflow.*",
        "*",
    ]
    for wrong in (
        ["process"],
        ["proc.*"],
        ["process.fails"],
        ["*.failed"],
        [],
        ["*"] * 65,
        ["process.failed\n"],
    ):
        with pytest.raises(Invalid, match="events: "):
            checked_filters(wrong)


def test_what_can_be_read_on_its_way_is_known() -> None:
    assert is_plain("http://example.com/")
    assert is_plain("http://10.0.0.1/")
    for safe in ("https://example.com/", "http://localhost:1/", "http://127.0.0.1/", "http://[::1]/"):
        assert not is_plain(safe)
