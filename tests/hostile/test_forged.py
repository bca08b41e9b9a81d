"""The second fence, on bytes: unsigned, broken, too large, with headers that lie, put where no member may put
them by way of a reply subject. Nobody is blamed for what nobody signed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets

import msgpack
import pytest
from colonies_cli import ids

from colonies import values
from colonies.core.process import Running
from colonies.errors import NotFound, Unavailable
from colonies.heartbeats import read_heartbeat
from colonies.logs import read_logs
from tests.hostile import granted
from tests.hostile.attacker import Attacker, Rejected, ulid
from tests.hostile.field import PYTHON, Field, Job
from tests.hostile.rows import row
from tests.hostile.test_said import give_back, take, taking
from tests.projections.helpers import ask

pytestmark = pytest.mark.asyncio(loop_scope="package")

IN_A_PROCESS = ("assigned", "renewed", "returned", "completed", "failed", "cancelled", "poisoned", "expired")


async def of_nobody(field: Field, sequences: list[int], rule: str = "") -> None:
    """Everybody calls them damaged, and nobody their author."""
    await field.agree(dict.fromkeys(sequences, rule), "damaged")


# --- junk ---------------------------------------------------------------------------------------------


@row("junk")
async def test_junk_on_its_subjects_does_not_stop_a_process(field: Field) -> None:
    """Whatever each role may publish there, while it waits and while it runs; also in its queue."""
    waiting, running = await field.waiting(), await field.running()
    stored = []
    for job in (waiting, running):
        queue = (await job.get()).queue
        for role, events in {
            "user": ("cancelled", f"queued.{queue}"),
            "worker": IN_A_PROCESS[:5] + IN_A_PROCESS[6:],
            "service": ("poisoned", "expired", f"queued.{queue}"),
        }.items():
            who = await field.attacker(role)
            stored += [await who.store(job.subject(event, who.name), b"junk") for event in events]
    await of_nobody(field, stored)
    await waiting.serve()
    await running.finish()


@row("flood")
async def test_a_flood_on_its_subjects_does_not_stop_a_process(field: Field) -> None:
    job = await field.waiting()
    last = await field.reader.ledger.last_sequence()

    async def flood(role: str, event: str) -> None:
        who = await field.attacker(role)
        for _ in range(500):
            await who.nc.publish(job.subject(event, who.name), b"junk")
            await asyncio.sleep(0)
        await who.settle()

    async with field.meanwhile(flood("user", "cancelled")):
        await job.begin()
    await flood("worker", "renewed")
    await job.finish()
    junk = [s async for b in field.reader.ledger.scan(last, f"ledger.process.{job.id}.>") for s in b]
    await of_nobody(field, [s.sequence for s in junk if s.data == b"junk"])


@row("malformed")
async def test_what_is_not_quite_an_event_is_none(field: Field) -> None:
    who, job = await field.attacker("worker"), await field.waiting()
    process, subject = await job.get(), job.subject("assigned", who.name)
    data = taking(process)
    whole = {"id": ulid(), "type": "process.assigned", "time": 1, "author": who.name, "prev": process.head}
    whole |= {"v": 1, "data": data}
    twice = msgpack.packb(whole)[:1].replace(b"\x87", b"\x88") + msgpack.packb(whole)[1:]
    twice += msgpack.packb("v") + msgpack.packb(1)

    def event(**other: object) -> bytes:
        return who.sealed(msgpack.packb({**whole, **other}), subject)

    broken = [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff",
        msgpack.packb([b"payload"]),
        msgpack.packb([msgpack.packb(whole), b"too short"]),
        msgpack.packb([msgpack.packb(whole), b"\0" * 64]),
        event()[:-1],
        event() + b"more",
        who.sealed(twice, subject),
        who.sealed(b"\x91" * 1_100, subject),
        event(v=2),
        event(v=True),
        event(id="no ulid"),
        event(time=-1),
        event(prev=b"short"),
        event(more=1),
        event(type="process.unheard"),
        event(type="process.completed"),
        event(author="w1"),
        event(data={**data, "type": "process.assigned"}),
        event(data={**data, "more": 1}),
        event(data={**data, "lease_s": "2.0"}),
        event(data={**data, "lease_s": float("nan")}),
        event(data={**data, "instance": "a b"}),
        event(data={"offer": process.attempts}),
        event(data={**data, "instance": msgpack.ExtType(5, b"x")}),
    ]
    await of_nobody(field, [await who.store(subject, data) for data in broken])
    await job.serve()


@row("oversize")
async def test_the_largest_message_stops_no_reader(field: Field) -> None:
    who, job = await field.attacker("user"), await field.running()
    subject = job.subject("cancelled", who.name)
    most = who.nc.max_payload
    stored = [await who.store(subject, b"x" * most), await who.store(subject, b"x" * 1_000_001)]
    header = "NATS/1.0\r\nX: {}\r\n\r\n".format("x" * 60_000).encode()
    stored.append(await who.store_raw(subject, header, b"x" * (most - len(header))))
    await of_nobody(field, stored, "an event has at most|not msgpack")
    await job.finish()


# --- headers ------------------------------------------------------------------------------------------


def lying(job: Job) -> list[bytes]:
    """Header blocks that say where the message stands, or are not headers at all."""
    where = f"Nats-Subject: {job.subject('completed', 'w1')}\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 1970\r\n"
    return [
        f"NATS/1.0\r\n{where}\r\n".encode(),
        f"NATS/1.0\r\n{where}X".encode(),
        f"NATS/1.0 503\r\n{where}\r\n".encode(),
        b"NATS/1.0 100\r\n\r\n",
        b"NATS/1.0\r\nStatus: 404\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 1\r\n\r\n",
        b"NATS/1.0\r\nNats-Num-Pending: junk\r\nNats-Required-Api-Level: 99\r\n\r\n",
        b"NATS/1.0\r\nX: \xff\xfe\0\r\n\r\n",
        b"NATS/1.0\r\nNo colon\r\n\r\n",
        b"NATS/1.0\r\n\r\nAfter: the end\r\n",
        b"NATS/1.0\r\nNot: ended",
        b"no headers at all",
        b"\r\n\r\n",
    ]


@row("lying-headers")
async def test_headers_are_believed_by_nobody(field: Field) -> None:
    who, job = await field.attacker("user"), await field.running()
    subject = job.subject("cancelled", who.name)
    await of_nobody(field, [await who.store_raw(subject, header, b"junk") for header in lying(job)])
    await job.finish()


@row("lying-guard")
async def test_an_offer_that_lies_about_standing_alone_is_read_up(field: Field) -> None:
    """The guard missing, doubled, ill written: the worker that is handed the offer looks at the ledger."""
    who, job = await field.attacker("user"), await field.running()
    queue = (await job.get()).queue
    subject = job.subject(f"queued.{queue}", who.name)
    data = {"spec": {"func": "job", "args": ["squatted"], "conditions": PYTHON}}
    name, of = "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject"
    last = await field.reader.ledger.last_of([f"ledger.process.{job.id}.>"])
    stored = []
    for lines in (
        [],
        [f" {name}: 0", f" {of}: ledger.process.{job.id}.>"],
        [f"X: {name}", f" {name}: 0", f" {of}: ledger.process.{job.id}.>"],
        [f"{name}: 0", f"{of}: ledger.process.{ulid()}.>"],
        [f"{name}: {max(last.values())}", f"{of}: ledger.process.{job.id}.>", f"{name}: 0"],
    ):
        header = "".join(f"{line}\r\n" for line in ("NATS/1.0", *lines, "")).encode()
        event = who.event("process.queued", subject, data=data)
        with contextlib.suppress(Rejected):  # what the broker does check, it checks
            stored.append(await who.store_raw(subject, header, event))
    assert len(stored) >= 3
    await field.agree(dict.fromkeys(stored, "the process is submitted already"))
    await job.finish()
    assert not field.runs["squatted"]


@row("ruinous-headers")
async def test_no_header_removes_moves_or_counts_events(field: Field) -> None:
    who, job = await field.attacker("user"), await field.running()
    subject = job.subject("cancelled", who.name)
    for headers in (
        {"Nats-Rollup": "all"},
        {"Nats-Rollup": "sub"},
        {"Nats-TTL": "1s"},
        {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": job.subject("completed", "w1")},
        {"Nats-Incr": "1"},
        {"Nats-Batch-Id": "x", "Nats-Batch-Sequence": "7"},
    ):
        with pytest.raises(Rejected, match=r"not permitted|disabled|incomplete"):
            await who.store(subject, b"", headers)
    await field.agree({})
    await job.finish()


@row("squatted-msg-id")
async def test_a_message_id_swallows_its_owners_messages_only(field: Field) -> None:
    who, job = await field.attacker("user"), await field.waiting()
    offered = (await job.get()).phase
    subject = job.subject("cancelled", who.name)
    for id in (job.id, offered.offer.id):  # type: ignore[union-attr]
        first = await who.store(subject, b"junk", {"Nats-Msg-Id": id})
        assert await who.store(subject, b"more", {"Nats-Msg-Id": id}) == first  # not stored: it was there
        await of_nobody(field, [first])
    await job.serve()


@row("hoarded-batches")
async def test_who_opens_all_batches_stops_no_ordinary_submission(field: Field) -> None:
    who, job = await field.attacker("user"), await field.running()
    subject = job.subject("cancelled", who.name)
    for number in range(60):
        headers = {"Nats-Batch-Id": f"{secrets.token_hex(4)}{number}", "Nats-Batch-Sequence": "1"}
        await who.nc.publish(subject, b"junk", headers=headers)
    await who.settle()
    work = {"func": "job", "args": ["batched"], "conditions": PYTHON}
    last = await field.reader.ledger.last_sequence()
    with pytest.raises(Unavailable, match="too many inflight"):
        await field.ann.submit_many([work] * 3, atomic=True)
    assert [s async for s in field.reader.ledger.scan(last, "ledger.process.*.queued.*.ann")] == []
    await job.finish()
    await (await field.running()).finish()
    await field.agree({})


# --- by way of a reply --------------------------------------------------------------------------------


@row("unsigned-by-reply")
@pytest.mark.parametrize("letter", granted.LETTERS)
async def test_unsigned_bytes_in_anothers_name_are_nobodys(field: Field, letter: str) -> None:
    who, job = await field.attacker(granted.LETTERS[letter]), await field.running()
    subjects = [job.subject(event, "w1") for event in IN_A_PROCESS]
    subjects += ["ledger.member.w1.revoked.owner", "ledger.colony.configured.owner", "ledger.x"]
    await of_nobody(field, [await field.smuggled(who, subject, b"junk") for subject in subjects])
    await job.finish()


@row("forged-by-reply")
async def test_a_forged_event_that_fits_is_believed_by_nobody(field: Field) -> None:
    """All is right but the signature: `assigned` to w1, and then its result."""
    who, job = await field.attacker("observer"), await field.waiting()
    process, subject = await job.get(), job.subject("assigned", "w1")
    forged = who.event(
        "process.assigned", subject, prev=process.head, author="w1", data=taking(process, instance="i")
    )
    stored = [await field.smuggled(who, subject, forged)]
    subject = job.subject("completed", "w1")
    payload = msgpack.unpackb(forged)[0]
    prev = hashlib.sha256(
        f"colonies/1:{field.key}:{job.subject('assigned', 'w1')}\n".encode() + payload
    ).digest()
    data = {"attempt": msgpack.unpackb(payload)["id"], "output": "evil"}
    forged = who.event("process.completed", subject, prev=prev, author="w1", data=data)
    stored.append(await field.smuggled(who, subject, forged))
    await of_nobody(field, stored, "signature is not that of w1")
    assert (await job.get()).state == "waiting"
    await job.serve()


@row("heartbeat-erased")
async def test_who_overwrites_a_heartbeat_takes_no_work_away(field: Field) -> None:
    """HEARTBEATS keeps the last of each instance: junk in its place, or an old one once more."""
    who, job = await field.attacker("observer"), await field.running()
    process = await job.get()
    place = f"heartbeat.w1.{process.attempts[-1].instance}"
    (beat,) = await field.reader.ledger.emitted(place)
    assert read_heartbeat(field.reader.colony, beat) is not None
    for data in (b"junk", beat.data):
        await who.smuggle(place, data)
        (now,) = await field.reader.ledger.emitted(place)
        found = read_heartbeat(field.reader.colony, now)
        assert found is None or found.time <= beat.time
    phase = (await job.get()).phase
    assert isinstance(phase, Running)
    await job.finish()
    assert len((await job.get()).attempts) == 1


@row("log-forged")
async def test_a_forged_log_is_not_shown(field: Field) -> None:
    who, thief, job = await field.attacker("observer"), await field.attacker("worker"), await field.running()
    place = f"log.{job.id}.w1"
    data = {
        "attempt": (await job.get()).attempts[-1].id,
        "n": 1,
        "index": 0,
        "stream": "stdout",
        "text": "evil",
    }
    forged = thief.event("log.written", place, author="w1", data=data)
    for sealed in (b"junk", forged):
        await who.smuggle(place, sealed)
        await thief.smuggle(place, sealed)
    assert len(await field.reader.ledger.emitted(place)) >= 4
    await job.finish()
    assert await read_logs(field.ann.session, job.id) == []


@row("value-spoiled")
async def test_what_is_stored_behind_a_large_value_does_not_spoil_it(field: Field) -> None:
    text = "x" * 400_000
    handle = await field.ann.submit({"func": "job", "args": [text], "conditions": {"runtimetype": "nobody"}})
    ref = (await handle.get()).arguments
    assert ref is not None
    for role in ("observer", "user", "worker"):
        who = await field.attacker(role)
        await who.smuggle(f"$O.values.C.{ref.object}", b"junk")
        await who.smuggle(f"$O.values.M.{secrets.token_hex(8)}", b"junk")
    assert await values.load(field.worker_session.ledger, ref) == [[text], {}]
    await handle.cancel()


@row("timers-erased")
async def test_work_goes_on_without_its_timers(field: Field) -> None:
    """A rollup by way of a reply empties TIMERS: whoever is due is found by looking."""
    who, worker = await field.attacker("observer"), await field.attacker("worker")
    job = await field.waiting()
    attempt, head = await take(job, worker)
    subject = job.subject("failed", worker.name)
    data = {"attempt": attempt, "error": "later", "kind": "later", "delay_s": 2.0}
    await worker.store(subject, worker.event("process.failed", subject, prev=head, data=data))
    await field.timer_set(job.id)
    await who.smuggle("timers.at.x", b"junk", {"Nats-Rollup": "all"})
    assert job.id not in await field.timers()
    await job.serve()


@row("feed-forged")
async def test_the_feed_is_what_was_stored_and_nothing_else(field: Field) -> None:
    """What could be led onto it: an observer's answer, an answer of the broker, a delivery from a queue."""
    observer, user = await field.attacker("observer"), await field.attacker("user")
    worker, service = await field.attacker("worker"), await field.attacker("service")
    job = await field.waiting()
    queue, ended = (await job.get()).queue, job.subject("completed", "w1")
    feed = ended.replace("ledger.", "feed.")
    where = {"Nats-Subject": ended, "Nats-Sequence": "99999999", "Nats-Time-Stamp": "2026-01-01T00:00:00Z"}
    heard: list[int] = []
    subscription = await field.ann.ledger.subscribe(
        f"feed.process.{job.id}.>", lambda s: heard.append(s.sequence)
    )
    await field.until_queue(queue)

    await observer.smuggle(feed, b"forged", where)
    await worker.smuggle(feed, b"forged", where)
    await user.smuggle(feed, b"forged", where)
    subject = job.subject(f"queued.{queue}", user.name)
    stored = [await user.store(subject, b"forged", where) for _ in range(3)]
    pull = json.dumps({"batch": 10, "no_wait": True}).encode()
    await worker.nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.LEDGER.{queue}", pull, reply=feed)
    await worker.settle()
    name = f"push{secrets.token_hex(4)}"
    config = {"name": name, "deliver_subject": feed, "deliver_policy": "all", "ack_policy": "none"}
    config["filter_subject"] = f"ledger.process.{job.id}.>"
    body = {"stream_name": "LEDGER", "config": config}
    answer = await service.ask(f"$JS.API.CONSUMER.CREATE.LEDGER.{name}.{config['filter_subject']}", body)
    assert "error" not in answer
    true = await user.store(job.subject("cancelled", user.name), b"the last")
    await field.until(lambda: true in heard, "the true ones are heard")
    await service.ask(f"$JS.API.CONSUMER.DELETE.LEDGER.{name}")

    assert sorted(set(heard)) == [*stored, true]
    await subscription.close()
    await of_nobody(field, [*stored, true])
    await job.serve()


@row("false-answers")
async def test_a_false_answer_to_a_question_changes_no_result(field: Field) -> None:
    """An observer may answer questions, so it may lie: views are a convenience, the ledger is the truth."""
    who, job = await field.attacker("observer"), await field.running()
    lie = {"items": [{"id": job.id, "state": "failed"}], "position": 10**9}
    said = await who.nc.subscribe("query.processes")

    async def answers() -> Attacker:
        while True:
            asked = await said.next_msg(timeout=10)
            await asked.respond(json.dumps(lie).encode())

    async with field.meanwhile(answers()):
        await field.until_answer("processes", lambda answer: answer == lie)
        with pytest.raises(NotFound, match="no process begins with 7ZZZ"):
            await ids.whole(field.reader.ledger, "process", "7ZZZ")
        assert (await job.get()).state == "running"
        await job.finish()
    await said.unsubscribe()
    await who.nc.flush()
    await field.until_answer("processes", lambda answer: answer != lie)
    assert (await ask(field.reader, "processes", limit=1))["items"]


@row("name-in-bytes")
async def test_who_gives_back_another_takes_nothing(field: Field) -> None:
    """An attempt is named by its id: two attempts of one id, one of them another's."""
    who, job = await field.attacker("worker"), await field.waiting()
    attempt, head = await take(job, who)
    await give_back(job, who, attempt, head)
    process, subject = await job.get(), job.subject("assigned", who.name)
    again = who.event("process.assigned", subject, prev=process.head, id=attempt, data=taking(process))
    await field.agree({await who.store(subject, again): "its id is that of an earlier attempt"})
    await job.serve()
