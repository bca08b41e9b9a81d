"""Members that are revoked, change their key or end by themselves: what the ledger and the broker make of it.

Where there is no operator the broker still lets the former key in: then the ledger alone must do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import colonies
from colonies import founding, jetstream, rotation
from colonies.core.events import Approved, Event, Queued
from colonies.core.members import SECOND
from colonies.core.spec import Spec, queue_of
from colonies.creds import Credential
from colonies.errors import Invalid, Refused
from colonies.ids import new_id
from colonies.joining import ChangeRequest
from colonies.ledger import Draft
from colonies.logs import read_logs
from colonies.nkeys import KeyPair
from colonies.session import Session
from colonies.verify import Finding, verify_ledger
from tests.harness import RunningColony, running_colony

SPEC = Spec.parse({"func": "x", "conditions": {"runtimetype": "nothing-serves-this"}})
WITHIN_S = 1.0  # of the ledger's word the broker drops the connection; the best of three, for busy machines


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony


async def findings(colony: RunningColony) -> list[Finding]:
    ledger = colony.owner.ledger
    assert isinstance(ledger, jetstream.JetStreamLedger)
    return (await verify_ledger(ledger)).findings


async def say(session: Session) -> int:
    """Have the member submit a process, by hand: nothing of ours keeps it from saying what does not hold."""
    id, queue = new_id(), queue_of(SPEC.conditions, SPEC.priority)
    now = await session.ledger.now()
    subject, sealed = session.seal(Queued(SPEC), id, prev=None, id=new_id(), now=now, queue=queue)
    return await session.ledger.append(Draft(subject, sealed.data, 0))


async def operate(colony: RunningColony) -> None:
    operator = founding.Operator(
        await colony.session("desk", "observer"), colony.keyring.operator, colony.url
    )
    await colony._start(operator.run(), _set())


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def lost_after_s(session: Session) -> float:
    """How long (s) until the broker has dropped this member."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        with pytest.raises(Refused):
            await session.ledger.lost()
    return time.monotonic() - began


async def change(colony: RunningColony, name: str) -> KeyPair:
    """Change a member's key on the ledger; the new one."""
    key = KeyPair.new("user")
    request = ChangeRequest.of(Credential.read(colony.folder / f"{name}.creds"), key)
    approval = await founding.approve(colony.owner, colony.keyring.owner, request, url=colony.url)
    approval.credential(key).write(colony.folder / f"{name}.creds")
    return key


# --- at the broker ----------------------------------------------------------------------------------


async def test_a_revoked_member_is_dropped_within_a_second_of_the_ledgers_word(colony: RunningColony) -> None:
    await operate(colony)
    took_s = []
    for name in ("ann", "bob", "eve"):
        session = await colony.session(name, "user")
        await founding.revoke(colony.owner, name)
        took_s.append(await lost_after_s(session))
    assert min(took_s) < WITHIN_S, took_s


async def test_a_former_key_is_dropped_within_a_second_and_the_new_one_is_in(colony: RunningColony) -> None:
    await operate(colony)
    took_s = []
    for name in ("ann", "bob", "eve"):
        session = await colony.session(name, "user")
        await change(colony, name)
        took_s.append(await lost_after_s(session))
        with pytest.raises(Refused, match="replaced by a new key"):
            await jetstream.connect(colony.url, session.ledger._link.credential)  # type: ignore[attr-defined]
        assert await say(await colony.session(name, "user"))
    assert min(took_s) < WITHIN_S, took_s
    assert await findings(colony) == []


async def test_who_ends_by_itself_is_dropped_and_told_why(colony: RunningColony) -> None:
    path = await founding.enrol(
        colony.owner, colony.keyring.owner, "brief", "user", colony.folder, expires_s=2
    )
    credential = Credential.read(path)
    session = await colony.session("brief", "user")
    sequence = await say(session)
    assert await lost_after_s(session) < 10
    assert credential.expires is not None
    assert await colony.owner.ledger.now() >= credential.expires * SECOND
    while await colony.owner.ledger.now() < (credential.expires + 1) * SECOND:
        await asyncio.sleep(0.02)  # the broker counts whole seconds, and lets it in until the last is over
    with pytest.raises(Refused, match=r"it expired at 20.*colonies member request"):
        await jetstream.connect(colony.url, credential)
    assert colony.owner.colony.members["brief"].expires == credential.expires * SECOND
    assert sequence
    assert await findings(colony) == []


# --- on the ledger ----------------------------------------------------------------------------------


async def test_what_a_former_key_says_counts_no_more_and_what_it_said_before_stays(
    colony: RunningColony,
) -> None:
    session = await colony.session("ann", "user")
    before = await say(session)
    await change(colony, "ann")
    after = await say(session)
    again = await say(await colony.session("ann", "user"))
    [found] = await findings(colony)
    assert (found.sequence, found.kind) == (after, "quarantined")
    assert "signed with a key of ann that does not count here" in found.rule
    assert before < after < again
    await session.refresh()
    with pytest.raises(Refused, match=r"the key of ann was changed.*colonies member install"):
        _ = session.role


async def test_what_is_said_after_the_end_counts_no_more_and_what_was_said_before_stays(
    colony: RunningColony,
) -> None:
    """The token here has no end, as one of a careless owner, so that the broker goes on storing."""
    key, owner = KeyPair.new("user"), colony.owner
    end = await owner.ledger.now() // SECOND + 3
    await owner.record_entity("member", "brief", Approved(key.public, "user", end))
    token = colony.keyring.owner.mint("brief", "user", key.public)
    ledger = await jetstream.connect(colony.url, Credential.of(token, key))
    session = await Session(ledger, "brief", key).open()
    try:
        before = await say(session)
        while await ledger.now() < (end + 1) * SECOND:
            await asyncio.sleep(0.05)
        after = await say(session)
        with pytest.raises(Refused, match="brief was a member until"):
            session.role_at(await ledger.now())
    finally:
        await session.close()
        await ledger.close()
    [found] = await findings(colony)
    assert (found.sequence, found.kind) == (after, "quarantined")
    assert before < after
    with pytest.raises(colonies.errors.Conflict, match="ended by itself"):
        await founding.enrol(owner, colony.keyring.owner, "brief", "user", colony.folder)


async def test_a_member_cannot_change_its_key_by_itself(colony: RunningColony) -> None:
    session = await colony.session("ann", "user")
    key = KeyPair.new("user")
    event = ChangeRequest.of(Credential.read(colony.folder / "ann.creds"), key).event()
    with pytest.raises(Refused, match="only an owner"):
        await session.record_entity("member", "ann", event)
    subject, sealed = session.seal(event, "ann", prev=bytes(32), id=new_id(), now=await session.ledger.now())
    with pytest.raises(Refused, match="may not publish"):
        await session.ledger.append(Draft(subject, sealed.data, 0))


async def test_logs_that_were_written_under_a_former_key_are_still_read(colony: RunningColony) -> None:
    client = await colony.client()
    worker = colonies.Worker("python")

    @worker.function
    def talk() -> None:
        colonies.current().log("said before\n")

    await colony.work(worker, "w1")
    handle = await client.submit(talk.call())
    await handle.result(30)
    await change(colony, "w1")
    await client.session.refresh()
    assert [entry.text for entry in await read_logs(client.session, handle.id)] == ["said before\n"]


async def test_a_client_believes_what_a_worker_says_with_its_new_key_and_a_worker_a_users(
    colony: RunningColony,
) -> None:
    """Both were logged in before the keys were changed."""
    client = await colony.client("bob")
    later, first = colonies.Worker("python"), colonies.Worker("none")

    @later.function
    def double(n: int) -> int:
        return 2 * n

    await colony.work(first, "w1")
    await colony.work(later, "w2")
    waiting = await client.submit(double.call(1))
    assert await waiting.result(30) == 2
    held = await client.submit({"func": "double", "args": [2], "conditions": {"runtimetype": "late"}})
    await colony.credential("ann", "user")
    await change(colony, "w1")
    await change(colony, "ann")
    late = colonies.Worker("late")
    late.functions["double"] = later.functions["double"]
    await colony.work(late, "w1")  # with its new key
    assert await held.result(30) == 4
    assert await (await (await colony.client("ann")).submit(double.call(3))).result(30) == 6
    assert await findings(colony) == []


# --- in one step ------------------------------------------------------------------------------------


async def test_an_owner_changes_its_own_key_and_goes_on_with_it(colony: RunningColony) -> None:
    await operate(colony)
    path = colony.folder / "owner.creds"
    former = Credential.read(path)
    fresh = await rotation.rotate(colony.owner, colony.keyring.owner, colony.url, path)
    assert Credential.read(path) == fresh
    assert fresh != former
    assert await lost_after_s(colony.owner) < 30
    ledger = await jetstream.connect(colony.url, fresh)
    colony.owner = await Session(ledger, "owner", fresh.keypair).open()
    try:
        await founding.revoke(colony.owner, "desk")
        assert await findings(colony) == []
    finally:
        await colony.owner.close()
        await ledger.close()


@pytest.mark.parametrize("stored", [True, False])
async def test_who_is_dropped_while_saying_it_looks_with_the_new_key_what_became_of_it(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """The broker drops an owner's former key at once, maybe before its answer is heard."""
    path, say_it = colony.folder / "owner.creds", colony.owner.record_entity
    former = Credential.read(path)

    async def dropped(kind: str, entity: str, event: Event) -> int:
        if stored:
            await say_it(kind, entity, event)
        raise Refused("the broker no longer accepts owner")

    monkeypatch.setattr(colony.owner, "record_entity", dropped)
    if not stored:
        with pytest.raises(Refused):
            await rotation.rotate(colony.owner, colony.keyring.owner, colony.url, path)
        assert Credential.read(path) == former
        return
    fresh = await rotation.rotate(colony.owner, colony.keyring.owner, colony.url, path)
    assert fresh == Credential.read(path) != former


async def test_a_change_that_was_killed_half_way_is_finished_by_the_next(colony: RunningColony) -> None:
    path = await colony.credential("ann", "user")
    draft = path.with_name("ann.creds.new")
    keys = colony.keyring.owner
    # Killed before the ledger had it: the key that lies there is used.
    key = KeyPair.new("user")
    Credential.of(keys.mint("ann", "user", key.public), key).write(draft)
    assert (await rotation.rotate(colony.owner, keys, colony.url, path)).keypair == key
    # Killed after the ledger had it: nothing is said again.
    key = KeyPair.new("user")
    await founding.approve(colony.owner, keys, ChangeRequest.of(Credential.read(path), key), url=colony.url)
    Credential.of(keys.mint("ann", "user", key.public), key).write(draft)
    last = await colony.owner.ledger.last_sequence()
    assert (await rotation.rotate(colony.owner, keys, colony.url, path)).keypair == key
    assert await colony.owner.ledger.last_sequence() == last
    assert Credential.read(path).keypair == key
    assert not draft.exists()
    assert await findings(colony) == []


async def test_a_credential_that_counts_no_more_cannot_be_changed(colony: RunningColony) -> None:
    path = await colony.credential("ann", "user")
    former = path.read_bytes()
    await change(colony, "ann")
    path.write_bytes(former)
    last = await colony.owner.ledger.last_sequence()
    with pytest.raises(Invalid, match="not that of ann; nothing was recorded"):
        await rotation.rotate(colony.owner, colony.keyring.owner, colony.url, path)
    await founding.revoke(colony.owner, "ann")
    with pytest.raises(Invalid, match="no member"):
        await rotation.rotate(colony.owner, colony.keyring.owner, colony.url, path)
    assert await colony.owner.ledger.last_sequence() == last + 1
