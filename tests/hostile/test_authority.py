"""The second fence, on the colony itself: keys, names, the owner, the service, and who is no member."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from colonies import codec, founding
from colonies.core.process import Waiting
from colonies.creds import Credential
from colonies.logs import read_logs
from colonies.nkeys import KeyPair
from tests.hostile.attacker import Attacker, Denied, ulid
from tests.hostile.field import Field
from tests.hostile.rows import row
from tests.hostile.test_said import give_back, take, taking

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def minted(field: Field, folder: Path, name: str, role: str) -> Attacker:
    """Somebody whom a stolen role key let in at the broker; the ledger knows nothing of it."""
    key, roles = KeyPair.new("user"), field.colony.keyring.owner
    if name == "*":  # the broker knows no names, so a thief mints what `OwnerKeys.mint` would not
        from colonies import jwt

        claims = jwt.user_claims(subject=key.public, name=name, issuer_account=roles.account.public)
        token = jwt.encode(claims, roles._roles[role])  # type: ignore[index]
    else:
        token = roles.mint(name, role, key.public)
    creds = folder / f"{secrets.token_hex(4)}.creds"
    Credential("x", token, key, field.key, None).write(creds)
    attacker = await Attacker.login(field.colony.url, name, role, creds, field.key)
    field.colony.stack.push_async_callback(attacker.close)
    return attacker


@row("unapproved-key")
async def test_a_token_alone_makes_no_member(field: Field, tmp_path: Path) -> None:
    who, job = await minted(field, tmp_path, "ghost", "worker"), await field.waiting()
    subject = job.subject("assigned", "ghost")
    process = await job.get()
    event = who.event("process.assigned", subject, prev=process.head, data=taking(process))
    await field.agree({await who.store(subject, event): "ghost is no member at this point"})
    await job.serve()


@row("second-key")
async def test_a_second_key_of_a_name_is_nobodys(field: Field, tmp_path: Path) -> None:
    """The broker lets in two keys of one name, and even the name `*`."""
    job = await field.running()
    process, subject = await job.get(), job.subject("completed", "w1")
    data = {"attempt": process.attempts[-1].id, "output": "evil"}
    blamed = {}
    for name in ("w1", "*"):
        who = await minted(field, tmp_path, name, "worker")
        event = who.event("process.completed", subject, prev=process.head, author="w1", data=data)
        blamed[await who.store(subject, event)] = "signature is not that of w1"
    await field.agree(blamed, "damaged")
    await job.finish()


@row("names")
async def test_names_and_keys_are_used_once_whatever_an_owner_says(field: Field) -> None:
    who = await field.attacker("owner")
    member = field.reader.colony.members["w1"]
    fresh = KeyPair.new("user").public
    said = {
        ("w1", fresh): "the name w1 is taken",
        ("twin", member.key): "this key is a member already",
        ("UPPER", fresh): "is not a member's name",
        ("-dash", fresh): "is not a member's name",
    }
    blamed = {}
    for (name, key), rule in said.items():
        subject = f"ledger.member.{name}.approved.{who.name}"
        prev = await field.head("member", name)
        event = who.event("member.approved", subject, prev=prev, data={"key": key, "role": "worker"})
        blamed[await who.store(subject, event)] = rule
    await field.agree(blamed)
    subjects = [f"ledger.member.{name}.approved.{who.name}" for name in ("*", ">x", "a%", "x" * 65)]
    events = [
        who.event("member.approved", subject, data={"key": fresh, "role": "worker"}) for subject in subjects
    ]
    stored = [await who.store(subject, event) for subject, event in zip(subjects, events, strict=True)]
    await field.agree(dict.fromkeys(stored, "not of the ledger's grammar"), "damaged")


@row("approved-twice")
async def test_a_request_is_approved_once(field: Field) -> None:
    who, key = await field.attacker("owner"), KeyPair.new("user").public
    name = f"new{secrets.token_hex(4)}"
    subject = f"ledger.member.{name}.approved.{who.name}"
    data = {"key": key, "role": "worker"}
    await who.store(subject, who.event("member.approved", subject, data=data))
    again = who.event("member.approved", subject, prev=await field.head("member", name), data=data)
    copied = who.event("member.approved", subject, data=data)
    blamed = {await who.store(subject, again): f"the name {name} is taken"}
    blamed[await who.store(subject, copied)] = "its prev is not"
    await field.agree(blamed)


def _change(field: Field, name: str, former: KeyPair, key: KeyPair, *, by: KeyPair) -> dict[str, object]:
    """The data of a change of key to which `by` consents in the former key's place."""
    statement = codec.consent_to(field.key, name, former.public, key.public)
    consents = {"consent": key.sign(statement), "former_consent": by.sign(statement)}
    return {"key": key.public, "former": former.public, **consents}


@row("taken-name")
async def test_an_owner_cannot_take_over_a_name(field: Field) -> None:
    who, victim = await field.attacker("owner"), await field.attacker("worker", f"v{secrets.token_hex(4)}")
    former, fresh, other = (KeyPair.from_seed(victim.seed), KeyPair.new("user"), KeyPair.new("user"))
    subject = f"ledger.member.{victim.name}.rotated.{who.name}"
    prev = await field.head("member", victim.name)
    blamed = {}
    for data in (
        _change(field, victim.name, former, fresh, by=fresh),
        {**_change(field, victim.name, former, fresh, by=former), "key": other.public},
        _change(field, "another", former, fresh, by=former),
    ):
        event = who.event("member.rotated", subject, prev=prev, data=data)
        blamed[await who.store(subject, event)] = "not both keys consented"
    await field.agree(blamed, "damaged")


@row("former-key")
async def test_a_former_key_says_nothing_any_more(field: Field) -> None:
    who, victim = await field.attacker("owner"), await field.attacker("worker", f"v{secrets.token_hex(4)}")
    running = await field.running()
    process = await running.get()
    former, fresh = KeyPair.from_seed(victim.seed), KeyPair.new("user")
    subject = f"ledger.member.{victim.name}.rotated.{who.name}"
    prev = await field.head("member", victim.name)
    data = _change(field, victim.name, former, fresh, by=former)
    await who.store(subject, who.event("member.rotated", subject, prev=prev, data=data))
    blamed = {}
    for at in (None, 0):
        said = running.subject("completed", victim.name)
        event = victim.event("process.completed", said, prev=process.head, at=at, data={"attempt": ulid()})
        blamed[await field.smuggled(who, said, event)] = "that does not count here"
    await field.agree(blamed)
    await running.finish()


@row("genesis-again")
async def test_a_colony_begins_once_and_by_its_own_key(field: Field) -> None:
    who = await field.attacker("owner")
    subject = f"ledger.colony.genesis.{who.name}"
    roles = dict(field.colony.keyring.owner.public().roles)
    data = {"name": "mine", "owner": who.name, "owner_key": who.public, "roles": roles, "lease_s": 2.0}
    event = who.event("colony.genesis", subject, prev=await field.head("colony", ""), data=data)
    await field.agree({await who.store(subject, event): "that does not count here"})


@row("after-revocation")
async def test_what_a_revoked_member_says_is_nothing(field: Field) -> None:
    """On the ledger at once. The broker drops it when its operator has heard: here there is none."""
    who, job = await field.attacker("worker", "leaver"), await field.waiting()
    attempt, head = await take(job, who)
    await give_back(job, who, attempt, head)
    assert (await job.get()).attempts[0].worker == "leaver"
    process, subject = await job.get(), job.subject("assigned", who.name)
    event = who.event("process.assigned", subject, prev=process.head, at=0, data=taking(process))
    await founding.revoke(field.colony.owner, "leaver")
    blamed = {await who.store(subject, event): "leaver is no member at this point"}
    await who.store(f"log.{job.id}.leaver", b"x")
    await field.agree(blamed)
    await job.serve()
    assert (await job.get()).attempts[0].worker == "leaver"  # what it said before stays
    assert await read_logs(field.ann.session, job.id) == []


@row("revoked-is-dropped")
async def test_a_revoked_member_is_dropped_by_the_broker(field: Field) -> None:
    who = await field.attacker("user", "goner")
    await founding.revoke(field.colony.owner, "goner")
    revocations = founding.revocations_of(field.colony.owner)
    keyring = field.colony.keyring
    await keyring.operator.push_account(field.colony.url, keyring.account_jwt(revocations))
    await field.until(lambda: who.nc.is_closed, "the broker drops it")
    with pytest.raises(Exception, match="Authorization Violation"):
        await Attacker.login(
            field.colony.url, "goner", "user", field.colony.folder / "goner.creds", field.key
        )
    await (await field.running()).finish()


# --- the service, trusted least -----------------------------------------------------------------------


@row("forged-release")
async def test_a_release_cites_what_makes_it_true(field: Field) -> None:
    service, worker = await field.attacker("service"), await field.attacker("worker")
    waiting, running, blocked = await field.waiting(), await field.running(), await field.waiting()
    attempt, head = await take(blocked, worker)
    subject = blocked.subject("failed", worker.name)
    later = {"attempt": attempt, "error": "later", "kind": "later", "delay_s": 3_600.0}
    await worker.store(subject, worker.event("process.failed", subject, prev=head, data=later))
    assert (await blocked.get()).state == "blocked"
    blamed = {}
    for job, cites, queue, rule in (
        (waiting, None, None, "it has not waited for 10 s yet"),
        (waiting, 0, None, "does not cite"),
        (waiting, 10**9, None, "does not cite"),
        (running, None, None, "may still be alive"),
        (blocked, None, None, "the delay is not over"),
        (blocked, None, (await running.get()).queue, "the queue is not that of the process"),
    ):
        process = await job.get()
        subject = job.subject(f"queued.{queue or process.queue}", service.name)
        data = {"cites": process.sequence if cites is None else cites}
        event = service.event("process.requeued", subject, prev=process.head, data=data)
        blamed[await service.store(subject, event)] = rule
    await field.agree(blamed)
    process = await waiting.get()
    subject = waiting.subject(f"queued.{process.queue}", service.name)
    event = service.event("process.requeued", subject, prev=process.head)
    await field.agree({await service.store(subject, event): "cites"}, "damaged")
    assert isinstance((await waiting.get()).phase, Waiting)
    await waiting.serve()
    await running.finish()
    await blocked.handle.cancel()


@row("forged-end")
async def test_a_service_ends_nothing_that_has_not_ended(field: Field) -> None:
    who = await field.attacker("service")
    waiting, running = await field.waiting(maxwaittime=3_600), await field.running()
    blamed = {}
    for job in (waiting, running):
        process = await job.get()
        for kind, rule in {
            "expired": "has not waited|no wait",
            "poisoned": "not lost 5 attempts",
            "cancelled": "cancels nothing but nodes of workflows",
        }.items():
            subject = job.subject(kind, who.name)
            event = who.event(f"process.{kind}", subject, prev=process.head)
            blamed[await who.store(subject, event)] = rule
        subject = job.subject("completed", who.name)
        with pytest.raises(Denied):
            await who.store(subject, b"")
        data = {"attempt": process.attempts[-1].id if process.attempts else ulid(), "output": "evil"}
        event = who.event("process.completed", subject, prev=process.head, data=data)
        blamed[await field.smuggled(who, subject, event)] = "the role service holds no attempts"
    await field.agree(blamed)
    await waiting.serve()
    await running.finish()


@row("invented-work")
async def test_a_service_invents_no_work(field: Field) -> None:
    who = await field.attacker("service")
    queue = (await (await field.running()).get()).queue
    blamed = {}
    for data, rule in (
        (
            {"spec": {"func": "job", "args": ["invented"], "conditions": {"runtimetype": "python"}}},
            "submits no",
        ),
    ):
        subject = f"ledger.process.{ulid()}.queued.{queue}.{who.name}"
        blamed[await who.store(subject, who.event("process.queued", subject, data=data))] = rule
    subject = f"ledger.process.{ulid()}.queued.{queue}.{who.name}"
    event = who.event("process.requeued", subject, data={"cites": 5})
    blamed[await who.store(subject, event)] = "no valid submission before it"
    await field.agree(blamed)
    await (await field.running()).finish()
    assert not field.runs["invented"]
