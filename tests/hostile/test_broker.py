"""The first fence: what the broker refuses, for every role, held against a table of its own.

A probe that the broker lets pass does no harm: it names what is not there, or expects what cannot be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import nats.errors
import pytest

from colonies.creds import Credential
from colonies.nkeys import KeyPair
from colonies.operator import Keyring
from tests.hostile import granted
from tests.hostile.attacker import Attacker, Denied, Rejected
from tests.hostile.field import Field
from tests.hostile.rows import row

pytestmark = pytest.mark.asyncio(loop_scope="package")
every_role = pytest.mark.parametrize("letter", granted.LETTERS)

NEVER = {"Nats-Expected-Last-Sequence": "18446744073709551000"}  # so that nothing is stored


async def member(field: Field, letter: str) -> Attacker:
    return await field.attacker(granted.LETTERS[letter])


async def refused(who: Attacker, subjects: Iterable[str]) -> set[str]:
    """Publish on each; those that the broker refused, as we named them."""
    by_name = {subject.lower(): subject for subject in subjects}
    who.denied.clear()
    for subject in by_name.values():
        await who.nc.publish(subject, b"probe", headers=dict(NEVER))
    await who.settle()
    return {by_name.get(denied) or by_name[as_published(denied)] for denied in who.denied}


def as_published(denied: str) -> str:
    """The broker names the subject behind the gate (docs/decisions/0006), or where the feed is led to."""
    return denied.replace("_r_.colonies.api.", "$js.api.").removeprefix("colonies.closed.")


async def hold(who: Attacker, letter: str, table: Mapping[str, str]) -> None:
    """The broker refuses exactly what the table does not grant."""
    assert await refused(who, table) == {
        subject for subject, who_may in table.items() if letter not in who_may
    }


@row("another-name")
@every_role
async def test_a_role_says_its_own_events_and_only_in_its_own_name(field: Field, letter: str) -> None:
    who = await member(field, letter)
    await hold(who, letter, granted.events(who.name))


@row("stream-orders")
@every_role
async def test_nobody_orders_streams_about(field: Field, letter: str) -> None:
    await hold(await member(field, letter), letter, granted.of_streams(granted.OF_STREAMS))


@row("consumer-orders")
@every_role
async def test_only_the_service_has_to_do_with_consumers(field: Field, letter: str) -> None:
    await hold(await member(field, letter), letter, granted.of_streams(granted.OF_CONSUMERS))


@row("account-orders")
@every_role
async def test_nobody_has_to_do_with_the_account_or_the_system(field: Field, letter: str) -> None:
    await hold(await member(field, letter), letter, granted.ACCOUNT)


@row("feed-publish")
@every_role
async def test_nobody_publishes_on_the_feed(field: Field, letter: str) -> None:
    who = await member(field, letter)
    await hold(who, letter, granted.named(granted.FEED, who.name))


@row("inbox-write")
@every_role
async def test_nobody_writes_into_an_inbox(field: Field, letter: str) -> None:
    you = f"_INBOX_{field.ann.session.keypair.public}"
    table = {subject.replace("{you}", you): may for subject, may in granted.INBOXES.items()}
    await hold(await member(field, letter), letter, table)


@row("note-name")
@every_role
async def test_heartbeats_logs_and_values_are_in_ones_own_name(field: Field, letter: str) -> None:
    who = await member(field, letter)
    await hold(who, letter, granted.named(granted.NOTES, who.name))


@row("timers-write")
@every_role
async def test_timers_are_the_services(field: Field, letter: str) -> None:
    await hold(await member(field, letter), letter, granted.TIMERS)


@row("inbox-listen")
@every_role
async def test_everybody_hears_the_feed_and_his_own_inbox(field: Field, letter: str) -> None:
    who = await member(field, letter)
    names = {"{me}": f"_INBOX_{who.public}", "{you}": f"_INBOX_{field.ann.session.keypair.public}"}
    table = {}
    for subject, may in granted.LISTEN.items():
        for short, prefix in names.items():
            subject = subject.replace(short, prefix)
        table[subject] = may
    by_name = {subject.lower(): subject for subject in table}
    who.denied.clear()
    for subject in table:
        heard = await who.nc.subscribe(subject)
        await heard.unsubscribe()
    await who.settle()
    assert {by_name[denied] for denied in who.denied} == {
        subject for subject, may in table.items() if letter not in may
    }


@row("answer-orders")
@every_role
async def test_no_answer_is_taken_for_an_order(field: Field, letter: str) -> None:
    """Whatever one may have the broker publish, orders end where nobody listens."""
    who = await member(field, letter)
    job = await field.waiting()
    queue = (await job.get()).queue
    before = await field.streams()
    for order, body in {
        "STREAM.DELETE.LOGS": b"",
        "STREAM.PURGE.LEDGER": b"",
        "STREAM.MSG.DELETE.LOGS": b'{"seq": 1}',
        "STREAM.UPDATE.LOGS": json.dumps({"name": "LOGS", "subjects": ["log.>"], "max_msgs": 1}).encode(),
        "STREAM.CREATE.EVIL": json.dumps({"name": "EVIL", "subjects": ["evil.>"]}).encode(),
        f"CONSUMER.DELETE.LEDGER.{queue}": b"",
        f"CONSUMER.PAUSE.LEDGER.{queue}": b'{"pause_until": "2100-01-01T00:00:00Z"}',
        "ACCOUNT.PURGE.x": b"",
    }.items():
        await who.smuggle(f"$JS.API.{order}", body)
        await who.smuggle(f"_R_.colonies.api.{order}", body)
    after = await field.streams()
    assert {name: info["config"] for name, info in after.items()} == {
        name: info["config"] for name, info in before.items()
    }
    for name in ("LEDGER", "LOGS", "OBJ_values", "TIMERS"):
        assert after[name]["state"]["messages"] >= before[name]["state"]["messages"]
    await job.serve()


@row("timer-target")
async def test_a_timer_reaches_timers_only(field: Field) -> None:
    who = await field.attacker("service")
    for target in (
        "ledger.process.P.completed.w1",
        "feed.process.P.completed.w1",
        "$JS.API.STREAM.DELETE.LOGS",
    ):
        with pytest.raises(Rejected, match="target is invalid"):
            await who.store(
                "timers.at.P",
                b"due",
                {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": target},
            )
    with pytest.raises(Denied):
        await who.ask(
            "$JS.API.STREAM.UPDATE.TIMERS", {"name": "TIMERS", "republish": {"src": ">", "dest": "feed.>"}}
        )


@row("bad-token")
async def test_who_is_of_another_colony_or_expired_does_not_come_in(field: Field, tmp_path: Path) -> None:
    key = KeyPair.new("user")
    stranger = Keyring.create(tmp_path / "stranger").owner.mint("ann", "owner", key.public)
    late = field.colony.keyring.owner.mint("ann", "owner", key.public, int(time.time()) - 1)
    for token in (stranger, late):
        Credential.of(token, key).write(tmp_path / "evil.creds")
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await Attacker.login(field.colony.url, "ann", "owner", tmp_path / "evil.creds", field.key)
