"""What is sent to a webhook, to a real receiver: signed as its library checks it, in order, and again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import standardwebhooks
from colonies_projections.webhooks.line import DELAYS_S

from colonies.core.events import WebhookAdded
from colonies.webhook_orders import Order
from colonies.webhooks import change_webhook, remove_webhook, shown_secret
from tests.harness import until
from tests.webhooks.ground import SPEC, ground

NEVER = (3_600.0,)


async def test_an_event_comes_as_a_cloud_event_that_a_receivers_library_believes(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        secret = await at.add("ops")
        (sequence,) = await at.submit()
        await at.heard([sequence])
        request = next(r for r in at.receiver.requests() if json.loads(r["body"])["id"] == str(sequence))
        library = standardwebhooks.Webhook(shown_secret(secret))
        said = library.verify(request["body"], request["headers"])
        assert request["headers"]["content-type"] == "application/cloudevents+json"
        assert (said["specversion"], said["type"]) == ("1.0", "colonies.process.queued")
        assert said["source"] == f"colonies:{at.owner.colony.key}"
        assert (said["author"], said["verdict"]) == ("ann", "valid")
        assert said["data"]["spec"]["args"] == SPEC["args"]
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            library.verify(request["body"].replace("hello", "hullo"), request["headers"])
        other = standardwebhooks.Webhook(shown_secret(bytes(32)))
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            other.verify(request["body"], request["headers"])


async def test_a_webhook_hears_what_its_filters_name_from_when_it_was_added(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.submit()
        await at.add("all", "ok/all")
        await at.add("some", "ok/some", events=["process.queued", "queue.*"])
        await at.add("echo", "ok/echo", events=["*"], func="echo", label="tagged")
        plain = await at.submit()
        tagged = await at.submit(label="tagged")
        await at.submit(label="tagged", func="other")
        client = await at.colony.client("ann")
        process = (await at.owner.ledger.at(tagged[0])).subject.split(".")[2]  # type: ignore[attr-defined]
        await client.process(process).cancel()
        last = await at.owner.ledger.last_sequence()
        await at.heard([last], "ok/all")
        await at.heard([last], "ok/echo")
        added = (await at.webhook("all")).added
        assert at.receiver.sequences("ok/all") == list(range(added + 1, last + 1))
        assert {event["type"] for event in at.receiver.events("ok/some")} == {"colonies.process.queued"}
        assert at.receiver.sequences("ok/some")[:2] == [*plain, *tagged]
        assert at.receiver.sequences("ok/echo") == [*tagged, last]


async def test_what_is_not_valid_is_not_sent(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops")
        ann = await at.colony.session("ann", "user")
        key = at.owner.keypair.public
        forged = WebhookAdded(at.receiver.url("stolen"), ["*"], "webhooks", key, bytes(80))
        subject, sealed = ann.seal(forged, "evil", prev=None, id="0" * 26, now=await ann.ledger.now())
        from colonies.ledger import Draft

        with pytest.raises(Exception, match="may not publish"):
            await ann.ledger.append(Draft(subject, sealed.data, 0))
        first, second = [(await at.submit())[0] for _ in range(2)]
        stored = await at.owner.ledger.at(first)  # type: ignore[attr-defined]
        again = await ann.ledger.append(Draft(stored.subject, stored.data, first))
        last = (await at.submit())[0]
        await at.heard([first, second, last])
        assert again not in at.receiver.sequences()
        assert not at.receiver.requests("stolen")


async def test_first_tries_go_in_order_and_what_failed_comes_again_under_the_same_id(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send(delays_s=(0.2, 0.2, 0.2))
        await at.add("ops", "fails/2", events=["process.*"])
        sequences = await at.submit(20)
        await until(lambda: len(at.receiver.requests()) >= 60, "60 requests")
        await at.until("ops", lambda said: said["pending"] == 0, "nothing is left")
        ids: dict[int, set[str]] = {}
        firsts: list[int] = []
        for request in at.receiver.requests():
            sequence = int(json.loads(request["body"])["id"])
            if sequence not in ids:
                firsts.append(sequence)
            ids.setdefault(sequence, set()).add(request["headers"]["webhook-id"])
        assert firsts == sequences
        assert len(at.receiver.requests()) == 60
        assert all(len(same) == 1 for same in ids.values())
        assert len(set.union(*ids.values())) == 20


async def test_a_receiver_that_was_away_gets_all_of_it(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send(delays_s=(0.1,) * 300)
        await at.add("ops", events=["process.*"])
        await at.receiver.kill()
        sequences = await at.submit(30)
        said = await at.until("ops", lambda said: said["failing_since"], "it fails")
        assert said["state"] == "failing"
        assert "refused" in said["error"].lower()
        await at.receiver.start()
        await at.heard(sequences)
        said = await at.until("ops", lambda said: said["pending"] == 0, "nothing is left")
        assert (said["state"], said["delivered"], said["dead"]) == ("active", 30, 0)
        assert said["error"] is None


async def test_what_fails_to_the_end_is_a_dead_letter_and_can_be_sent_again(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        (at.receiver.folder / "status").write_text("500")
        await at.add("ops", "file", events=["process.*"])
        sequences = await at.submit(3)
        said = await at.until("ops", lambda said: said["dead"] == 3, "three dead letters")
        assert said["pending"] == 0
        assert [letter["sequence"] for letter in said["dead_letters"]] == sequences[::-1]
        assert {letter["tries"] for letter in said["dead_letters"]} == {4}
        assert {letter["error"] for letter in said["dead_letters"]} == {"answered 500"}
        assert "secret of this network" not in json.dumps(said)
        assert len(at.receiver.requests()) == 12
        (at.receiver.folder / "status").write_text("200")
        assert (await at.order(Order("rerun", "ops", (sequences[1],))))["rerun"] == 1
        await at.until("ops", lambda said: said["delivered"] == 1, "one is delivered")
        await asyncio.sleep(1.1)  # one order in a second
        assert (await at.order(Order("rerun", "ops")))["rerun"] == 2
        said = await at.until("ops", lambda said: said["delivered"] == 3, "all are delivered")
        assert (said["dead"], said["state"]) == (0, "active")


def test_the_tries_last_for_about_a_day() -> None:
    assert 24 <= sum(DELAYS_S) / 3_600 <= 36
    assert list(DELAYS_S) == sorted(DELAYS_S)


async def test_a_slow_receiver_delays_no_other(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send(wait_s=2.0, delays_s=NEVER)
        await at.add("mute", "mute", events=["process.*"])
        await at.add("ops", "ok", events=["process.*"])
        sequences = await at.submit(40)
        await at.heard(sequences, "ok")
        assert len(at.receiver.requests("mute")) < 40
        said = await at.until("mute", lambda said: said["error"], "it fails")
        assert said["error"] == "no answer within 2 s"


async def test_who_answers_410_hears_no_more_until_an_owner_says_so(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send(delays_s=(0.1,) * 100)
        (at.receiver.folder / "status").write_text("410")
        await at.add("ops", "file", events=["process.*"])
        await at.add("other", "ok", events=["process.*"])
        sequences = await at.submit(3)
        said = await at.until("ops", lambda said: said["state"] == "gone", "it is gone")
        later = await at.submit()
        await at.heard(later, "ok")
        said = await at.until("ops", lambda said: said["dead"] + said["pending"] == 4, "all are kept")
        assert len(at.receiver.requests("file")) == 1
        (at.receiver.folder / "status").write_text("200")
        await at.order(Order("rerun", "ops"))
        await at.heard([*sequences, *later], "file")
        said = await at.until("ops", lambda said: said["delivered"] == 4, "it is back")
        assert said["state"] == "active"


async def test_a_receiver_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops", "later/3", events=["process.*"])
        sequences = await at.submit(3)
        said = await at.until("ops", lambda said: said["held_until"], "it is held")
        assert said["error"] == "answered 429"
        await at.heard(sequences)
        times = [request["at"] for request in at.receiver.requests()]
        assert times[1] - times[0] >= 2.9


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops", "redirect", events=["process.*"])
        await at.submit()
        said = await at.until("ops", lambda said: said["dead"] == 1, "a dead letter")
        assert said["error"] == "answered 307 (redirects are not followed)"
        assert not at.receiver.requests("ok")


async def test_a_removed_webhook_hears_nothing_more_and_its_name_is_free(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send(delays_s=(0.1,) * 300)
        await at.add("ops", "status/500", events=["process.*"])
        before = await at.submit()
        await at.heard(before)
        await remove_webhook(at.owner, "ops", "moved")
        await at.submit()
        await at.add("ops", "ok", events=["process.*"])
        after = await at.submit()
        await at.heard(after, "ok")
        assert at.receiver.sequences("ok") == after
        said = await at.ask("ops")
        assert (said["pending"], said["delivered"], said["error"]) == (0, 1, None)


async def test_another_webhook_of_the_name_does_not_wait_for_what_the_former_has_under_way(
    tmp_path: Path,
) -> None:
    async with ground(tmp_path) as at:
        await at.send(wait_s=60.0)
        await at.add("ops", "mute", events=["process.*"])
        await at.heard(await at.submit(), "mute")
        await remove_webhook(at.owner, "ops")
        await at.add("ops", "ok", events=["process.*"])
        await at.heard(await at.submit(), "ok")
        assert len(at.receiver.requests("mute")) == 1


async def test_a_changed_webhook_keeps_what_is_still_to_be_delivered(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send(delays_s=(0.2,) * 300)
        await at.add("ops", "status/500", events=["process.*"])
        before = await at.submit(3)
        await at.heard(before)
        secret = bytes(range(32))
        await change_webhook(at.owner, "ops", url=at.receiver.url("ok"), secret=secret)
        after = await at.submit()
        await at.heard([*before, *after], "ok")
        library = standardwebhooks.Webhook(shown_secret(secret))
        for request in at.receiver.requests("ok"):
            library.verify(request["body"], request["headers"])


async def test_an_answer_without_an_end_is_an_answer(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops", "endless", events=["process.*"])
        await at.submit(3)
        said = await at.until("ops", lambda said: said["delivered"] == 3, "all are delivered")
        assert len(at.receiver.requests()) == 3
        assert said["error"] is None
