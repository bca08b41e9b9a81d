"""The second fence, on what members say: signed by themselves, well formed, and not true, or not theirs.

Most of it passes the broker as it is; what does not is smuggled past it, since the readers must hold alone.
"""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from colonies.core.process import Process, Running, Waiting, derived_id, keyed_id
from colonies.core.workflow import node_id
from tests.hostile import granted
from tests.hostile.attacker import Attacker, digest, ulid
from tests.hostile.field import PYTHON, Field, Job
from tests.hostile.rows import row

pytestmark = pytest.mark.asyncio(loop_scope="package")

LEASE_S = 2.0


def taking(process: Process, **other: Any) -> dict[str, Any]:
    """The data of an `assigned` that takes the process's offer."""
    assert isinstance(process.phase, Waiting | Running)
    return {"offer": process.phase.offer.id, "lease_s": LEASE_S, "instance": "evil", **other}


async def take(job: Job, who: Attacker) -> tuple[str, bytes]:
    """The attacker takes a waiting job, as it may; its attempt's id and the new head."""
    process, subject, id = await job.get(), job.subject("assigned", who.name), ulid()
    data = who.event("process.assigned", subject, prev=process.head, id=id, data=taking(process))
    await who.store(subject, data)
    return id, digest(who.colony, subject, data)


async def give_back(job: Job, who: Attacker, attempt: str, prev: bytes) -> None:
    subject = job.subject("returned", who.name)
    data = who.event("process.returned", subject, prev=prev, data={"attempt": attempt})
    await who.store(subject, data)


# --- who may say what ---------------------------------------------------------------------------------

# What the readers do not take from a role, even if it is true: by the rule's words.
MAY_NOT: dict[str, tuple[str, str]] = {  # event: roles that may not say it, the rule
    "process.queued": ("wbs", "submits no processes"),
    "process.requeued": ("ouwb", "does not offer a process again"),
    "process.assigned": ("oubs", "takes no processes"),
    "process.renewed": ("ouwbs", "holds"),
    "process.returned": ("ouwbs", "holds"),
    "process.completed": ("ouwbs", "holds"),
    "process.failed": ("ouwbs", "holds"),
    "process.poisoned": ("ouwbs", "poison|not lost"),
    "process.expired": ("ouwbs", "expire|no wait"),
    "process.cancelled": ("uwbs", "may cancel|cancels nothing but nodes"),
    "process.submitted": ("wbs", "submits no processes"),
    "process.released": ("oub", "does not decide this about nodes"),
    "process.awaited": ("ouwb", "does not decide this about nodes"),
    "process.skipped": ("ouwb", "does not decide this about nodes"),
    "process.received": ("ouwb", "hands on no signals"),
    "process.signalled": ("wbs", "sends no signals"),
    "workflow.part": ("wbs", "submits no workflows of its own"),
    "workflow.submitted": ("wbs", "submits no workflows of its own"),
    "member.approved": ("uwbs", "only an owner"),
    "member.revoked": ("uwbs", "only an owner"),
    "colony.configured": ("uwbs", "only an owner"),
    "queue.declared": ("wb", "declares no queues"),
    "queue.retired": ("ouwb", "retires no queues"),
    "queue.paused": ("uwbs", "only an owner pauses"),
    "colony.paused": ("uwbs", "only an owner pauses"),
    "member.drained": ("uwbs", "only an owner pauses"),
    "webhook.added": ("uwbs", "only an owner says where events are sent"),
    "webhook.changed": ("uwbs", "only an owner says where events are sent"),
    "webhook.removed": ("uwbs", "only an owner says where events are sent"),
    "worker.started": ("oubs", "a worker speaks"),
    "worker.stopped": ("oubs", "a worker speaks"),
}


def of_workflows(who: Attacker, held: Process) -> dict[str, tuple[str, bytes | None, dict[str, Any]]]:
    """What begins a workflow or a node of one, of ids of its own."""
    workflow, spec = ulid(), {"func": "job", "args": ["smuggled"], "conditions": PYTHON}
    node = f"ledger.process.{node_id(workflow, 'a')}"
    about = {"workflow": workflow, "node": "a", "cites": [1]}
    nodes = [{"name": "a", **spec}]
    later = {"spec": {**spec, "delay": 1}}
    return {
        "process.submitted": (f"ledger.process.{ulid()}.submitted.{who.name}", None, later),
        "process.released": (f"{node}.queued.{held.queue}.{who.name}", None, about),
        "process.awaited": (f"{node}.awaited.{who.name}", None, about),
        "process.skipped": (f"{node}.skipped.{who.name}", None, about),
        "workflow.part": (f"ledger.workflow.{ulid()}.part.{who.name}", None, {"nodes": nodes}),
        "workflow.submitted": (
            f"ledger.workflow.{workflow}.submitted.{who.name}",
            None,
            {"spec": {"nodes": nodes}},
        ),
    }


def webhook_of(who: Attacker) -> dict[str, Any]:
    """A webhook that sends everything to an address of the attacker's."""
    url, key = "https://evil.example/", who.public
    return {"url": url, "events": ["*"], "service": who.name, "key": key, "secret": bytes(80)}


@row("wrong-role")
@pytest.mark.parametrize("letter", granted.LETTERS)
async def test_what_a_role_may_not_say_nobody_believes(field: Field, letter: str) -> None:
    who = await field.attacker(granted.LETTERS[letter])
    running, waiting = await field.running(), await field.waiting()
    held, offered = await running.get(), await waiting.get()
    attempt = {"attempt": held.attempts[-1].id}
    said: dict[str, tuple[str, bytes | None, dict[str, Any]]] = {
        "process.queued": (
            f"ledger.process.{ulid()}.queued.{held.queue}.{who.name}",
            None,
            {"spec": {"func": "job", "args": ["smuggled"], "conditions": PYTHON}},
        ),
        "process.requeued": (
            waiting.subject(f"queued.{offered.queue}", who.name),
            offered.head,
            {"cites": offered.sequence},
        ),
        "process.assigned": (waiting.subject("assigned", who.name), offered.head, taking(offered)),
        "member.approved": (
            f"ledger.member.m{secrets.token_hex(4)}.approved.{who.name}",
            None,
            {"key": who.public, "role": "owner"},
        ),
        "member.revoked": (f"ledger.member.w1.revoked.{who.name}", await field.head("member", "w1"), {}),
        "colony.configured": (
            f"ledger.colony.configured.{who.name}",
            await field.head("colony", ""),
            {"lease_s": 3600.0},
        ),
        "queue.declared": (
            f"ledger.queue.{'a' * 26}.declared.{who.name}",
            None,
            {"conditions": {"runtimetype": "evil"}, "priority": 9},
        ),
        "queue.retired": (
            f"ledger.queue.{held.queue}.retired.{who.name}",
            await field.head("queue", held.queue),
            {"floor": held.sequence},
        ),
        "worker.started": (
            f"ledger.worker.{who.name}.started.{who.name}",
            None,
            {"instance": "i", "runtimetype": "python", "concurrency": 1, "functions": []},
        ),
        "worker.stopped": (f"ledger.worker.{who.name}.stopped.{who.name}", None, {"instance": "i"}),
        **{
            f"process.{event}": (running.subject(event, who.name), held.head, {**attempt, **data})
            for event, data in {
                "renewed": {},
                "returned": {},
                "completed": {"output": "evil"},
                "failed": {"error": "evil", "kind": "final"},
            }.items()
        },
        **{
            f"process.{event}": (running.subject(event, who.name), held.head, {})
            for event in ("poisoned", "expired", "cancelled")
        },
        **{
            f"webhook.{event}": (f"ledger.webhook.evil.{event}.{who.name}", None, webhook_of(who))
            for event in ("added", "changed")
        },
        "webhook.removed": (f"ledger.webhook.evil.removed.{who.name}", None, {}),
        **of_workflows(who, held),
        "process.received": (running.subject("received", who.name), held.head, {"cites": 1}),
        "process.signalled": (running.subject("signalled", who.name), held.head, {"name": "go"}),
        "queue.paused": (
            f"ledger.queue.{held.queue}.paused.{who.name}",
            await field.head("queue", held.queue),
            {},
        ),
        "colony.paused": (f"ledger.colony.paused.{who.name}", await field.head("colony", ""), {}),
        "member.drained": (f"ledger.member.w1.drained.{who.name}", await field.head("member", "w1"), {}),
    }
    assert said.keys() == MAY_NOT.keys() == granted.EVENTS.keys() & MAY_NOT.keys()
    blamed = {}
    for kind, (subject, prev, data) in said.items():
        roles, rule = MAY_NOT[kind]
        if letter in roles:
            event = who.event(kind, subject, prev=prev, data=data)
            blamed[await field.smuggled(who, subject, event)] = rule
    await field.agree(blamed)
    await running.finish()
    await waiting.serve()
    assert not field.runs["smuggled"]


@row("worker-submission")
async def test_a_worker_submits_nothing(field: Field) -> None:
    """Not even with a process of its own that runs."""
    who = await field.attacker("worker")
    job = await field.waiting()
    attempt, head = await take(job, who)
    queue = (await (await field.running()).get()).queue
    blamed = {}
    for id in (ulid(), derived_id("child", job.id, attempt)):
        subject = f"ledger.process.{id}.queued.{queue}.{who.name}"
        spec = {"func": "job", "args": [f"child {id}"], "conditions": PYTHON}
        event = who.event("process.queued", subject, data={"spec": spec})
        blamed[await field.smuggled(who, subject, event)] = "the role worker submits no processes"
    await give_back(job, who, attempt, head)
    await field.agree(blamed)
    await job.serve()
    assert not [name for name in field.runs if name.startswith("child")]


@row("cancel-anothers")
async def test_a_user_cancels_its_own_only(field: Field) -> None:
    who, job = await field.attacker("user"), await field.running()
    subject = job.subject("cancelled", who.name)
    event = who.event("process.cancelled", subject, prev=(await job.get()).head, data={"reason": "evil"})
    await field.agree({await who.store(subject, event): "only ann or an owner may cancel"})
    await job.finish()


# --- whose attempt it is ------------------------------------------------------------------------------


@row("live-takeover")
async def test_a_live_lease_is_not_taken_over(field: Field) -> None:
    who, job = await field.attacker("worker"), await field.running()
    process, subject = await job.get(), job.subject("assigned", who.name)
    blamed = {}
    for at in (None, process.time + 3_600 * 10**9, 0):
        event = who.event("process.assigned", subject, prev=process.head, at=at, data=taking(process))
        blamed[await who.store(subject, event)] = "attempt 1 of w1 holds it"
    await field.agree(blamed)
    await job.finish()


@row("not-the-holder")
async def test_only_the_holder_ends_or_prolongs_an_attempt(field: Field) -> None:
    who, job = await field.attacker("worker"), await field.running()
    process = await job.get()
    blamed = {}
    for kind, data in {
        "completed": {"output": "evil"},
        "failed": {"error": "evil", "kind": "final"},
        "returned": {},
        "renewed": {},
    }.items():
        subject = job.subject(kind, who.name)
        data = {"attempt": process.attempts[-1].id, **data}
        event = who.event(f"process.{kind}", subject, prev=process.head, data=data)
        blamed[await who.store(subject, event)] = "attempt 1 of w1 holds the process"
    await field.agree(blamed)
    await job.finish()


@row("endless-lease")
async def test_nobody_gives_itself_a_longer_lease(field: Field) -> None:
    who, job = await field.attacker("worker"), await field.waiting()
    process, subject = await job.get(), job.subject("assigned", who.name)
    event = who.event("process.assigned", subject, prev=process.head, data=taking(process, lease_s=86_400.0))
    await field.agree({await who.store(subject, event): "its lease is longer"})
    await job.serve()


@row("not-for-you")
async def test_a_process_for_others_is_not_taken(field: Field) -> None:
    who, job = await field.attacker("worker"), await field.waiting(conditions={"workernames": ["w1"]})
    process, subject = await job.get(), job.subject("assigned", who.name)
    event = who.event("process.assigned", subject, prev=process.head, data=taking(process))
    await field.agree({await who.store(subject, event): "the process is for w1"})
    await job.serve()


@row("guardless")
async def test_the_guard_is_a_courtesy_and_prev_is_the_law(field: Field) -> None:
    """Without the header that makes it a compare-and-set: what is true where it stands counts."""
    who, job = await field.attacker("worker"), await field.waiting()
    attempt, head = await take(job, who)
    late = job.subject("assigned", who.name)
    stale = who.event("process.assigned", late, prev=(await job.get()).head, data=taking(await job.get()))
    await give_back(job, who, attempt, head)
    await field.agree({await who.store(late, stale): "its prev is not the digest"})
    await job.serve()

    gone = await field.waiting()
    subject = gone.subject("assigned", who.name)
    stale = who.event(
        "process.assigned", subject, prev=(await gone.get()).head, data=taking(await gone.get())
    )
    await gone.handle.cancel()
    await field.agree({await who.store(subject, stale): "the process is cancelled already"})


@row("two-ends")
async def test_of_two_ends_in_one_batch_the_first_counts(field: Field) -> None:
    """The broker checks no two events of one process against each other within a batch."""
    who, job = await field.attacker("worker"), await field.waiting()
    attempt, head = await take(job, who)
    guard = {
        "Nats-Expected-Last-Subject-Sequence": str((await job.get()).sequence),
        "Nats-Expected-Last-Subject-Sequence-Subject": f"ledger.process.{job.id}.>",
        "Nats-Batch-Id": secrets.token_hex(8),
    }
    said = {"completed": {"output": 1}, "failed": {"error": "no", "kind": "final"}}
    for number, (kind, data) in enumerate(said.items(), start=1):
        subject = job.subject(kind, who.name)
        event = who.event(f"process.{kind}", subject, prev=head, data={"attempt": attempt, **data})
        headers = {**guard, "Nats-Batch-Sequence": str(number)}
        if number == 1:
            await who.nc.publish(subject, event, headers=headers)
        else:
            last = await who.store(subject, event, {**headers, "Nats-Batch-Commit": "1"})
    await field.agree({last: "the process is successful already"})
    assert await job.handle.result() == 1


@row("after-the-end")
async def test_final_is_final(field: Field) -> None:
    job = await field.running()
    held = await job.get()
    done = await job.finish()
    blamed = {}
    for role in ("owner", "worker"):
        who = await field.attacker(role)
        for kind, data in {
            "cancelled": {},
            "failed": {"attempt": held.attempts[-1].id, "error": "evil"},
        }.items():
            subject = job.subject(kind, who.name)
            event = who.event(f"process.{kind}", subject, prev=done.head, data=data)
            blamed[await field.smuggled(who, subject, event)] = "the process is successful already"
    await field.agree(blamed)
    assert await job.handle.result() == f"done {job.name}"


# --- order and time -----------------------------------------------------------------------------------


@row("replayed")
async def test_an_event_that_is_stored_again_counts_once(field: Field) -> None:
    """Whoever reads can have the broker store what it read under its own subject, signature and all."""
    who, job = await field.attacker("observer"), await field.running()
    blamed = await field.replay(who, job.id)
    await field.agree(dict.fromkeys(blamed, "submitted already|its prev is not"))
    await job.finish()
    blamed = await field.replay(who, job.id)
    await field.agree(dict.fromkeys(blamed, "submitted already|successful already"))
    assert field.runs[job.name] == 1


@row("re-subjected")
async def test_an_event_counts_under_its_own_subject_only(field: Field) -> None:
    who, done, job = await field.attacker("worker"), await field.running(), await field.waiting()
    await done.finish()
    blamed = {}
    for stored in await field.reader.ledger.read(f"ledger.process.{done.id}.>"):
        for subject in (
            stored.subject.replace(done.id, job.id),
            stored.subject.rpartition(".")[0] + f".{who.name}",
        ):
            blamed[await field.smuggled(who, subject, stored.data)] = "signature|author"
    await field.agree(blamed, "damaged")
    await job.serve()


@row("reordered")
async def test_an_end_before_its_beginning_is_none(field: Field) -> None:
    who, job = await field.attacker("worker"), await field.waiting()
    process, id = await job.get(), ulid()
    begin, end = job.subject("assigned", who.name), job.subject("completed", who.name)
    assigned = who.event("process.assigned", begin, prev=process.head, id=id, data=taking(process))
    head = digest(who.colony, begin, assigned)
    completed = who.event("process.completed", end, prev=head, data={"attempt": id, "output": "evil"})
    early = await who.store(end, completed)
    await who.store(begin, assigned)
    await field.agree({early: "its prev is not the digest"})
    await give_back(job, who, id, head)
    await job.serve()


@row("backdated")
async def test_an_authors_time_is_a_claim(field: Field) -> None:
    job = await field.waiting(maxwaittime=3_600)
    process = await job.get()
    blamed = {}
    for role in ("worker", "service"):
        who = await field.attacker(role)
        subject = job.subject("expired", who.name)
        event = who.event("process.expired", subject, prev=process.head, at=process.time + 7_200 * 10**9)
        blamed[await who.store(subject, event)] = "has not waited for its maxwaittime"
    await field.agree(blamed)
    await job.serve()


@row("other-colony")
async def test_what_was_signed_for_another_colony_does_not_count_here(field: Field) -> None:
    """The same names, the same keys, the same subjects."""
    who, job = await field.attacker("owner"), await field.running()
    other = "A" + "B" * 55
    process = await job.get()
    cancel, approve = job.subject("cancelled", who.name), f"ledger.member.other.approved.{who.name}"
    blamed = {
        await who.store(
            cancel, who.event("process.cancelled", cancel, prev=process.head, colony=other)
        ): "signature",
        await who.store(
            approve,
            who.event("member.approved", approve, data={"key": who.public, "role": "owner"}, colony=other),
        ): "signature",
    }
    await field.agree(blamed, "damaged")
    await job.finish()


# --- ids and names ------------------------------------------------------------------------------------


def submission(who: Attacker, id: str, queue: str, **data: Any) -> tuple[str, bytes]:
    subject = f"ledger.process.{id}.queued.{queue}.{who.name}"
    spec = {"func": "job", "args": ["squatted"], "conditions": PYTHON}
    return subject, who.event("process.queued", subject, data={"spec": spec, **data})


@row("keyed-id")
async def test_the_id_of_anothers_key_cannot_be_taken(field: Field) -> None:
    who, key = await field.attacker("user"), secrets.token_hex(8)
    queue = (await (await field.running()).get()).queue
    id = keyed_id("ann", key)
    plain, keyed = submission(who, id, queue), submission(who, id, queue, key=key)
    await field.agree(
        {
            await who.store(*plain): "the id of a plain process is a ULID",
            await who.store(*keyed): "does not derive from the submitter and the key",
        }
    )
    job = await field.running(key=key)
    assert job.id == id
    await job.finish()
    assert not field.runs["squatted"]


@row("derived-id")
async def test_an_id_in_the_form_of_a_derived_one_cannot_be_taken(field: Field) -> None:
    who = await field.attacker("user")
    queue = (await (await field.running()).get()).queue
    blamed = {}
    for id in (derived_id("workflow", "w", "node"), derived_id("cron", "c", "1"), "short", "8" + "Z" * 25):
        blamed[await who.store(*submission(who, id, queue))] = "the id of a plain process is a ULID"
    await field.agree(blamed)
    assert not field.runs["squatted"]


@row("taken-id")
async def test_a_process_belongs_to_whoever_was_first(field: Field) -> None:
    who, job = await field.attacker("user"), await field.running()
    event = submission(who, job.id, (await job.get()).queue)
    await field.agree({await who.store(*event): "the process is submitted already"})
    process = await job.finish()
    assert process.submitter == "ann"
    assert not field.runs["squatted"]


@row("lying-submission")
async def test_a_submission_is_for_this_colony_and_its_own_queue(field: Field) -> None:
    who = await field.attacker("user")
    queue = (await (await field.running()).get()).queue
    conditions = {"runtimetype": "python", "workernames": ["nobody"]}
    blamed = {}
    for spec, rule in (
        ({"conditions": conditions}, "the queue is not that"),
        ({"conditions": PYTHON, "priority": 9}, "the queue is not that"),
        ({"conditions": PYTHON, "colony": "other"}, "the spec is for the colony other"),
    ):
        data = {"spec": {"func": "job", "args": ["squatted"], **spec}}
        blamed[await who.store(*submission(who, ulid(), queue, **data))] = rule
    declared = f"ledger.queue.{'b' * 26}.declared.{who.name}"
    event = who.event("queue.declared", declared, data={"conditions": PYTHON, "priority": 1})
    blamed[await who.store(declared, event)] = "the queue's name is not the digest"
    await field.agree(blamed)
    assert not field.runs["squatted"]
