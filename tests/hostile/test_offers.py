"""Consumers are a hint, the ledger is the truth: whatever is done to the queues, a waiting process is offered
again within 30 s and a finished one is never run again.

All of these wait for the same seconds to pass, so they are begun together and asked for one by one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from colonies import founding
from colonies.core.process import SECOND, Running, Waiting
from tests.hostile.attacker import Attacker, digest, ulid
from tests.hostile.field import Field, Job
from tests.hostile.rows import row
from tests.hostile.test_said import taking

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(120)]

AGAIN_S = 30
TEN_YEARS_NS = 10 * 365 * 86_400 * SECOND

Attack = Callable[[Field], Awaitable[None]]
ATTACKS: dict[str, Attack] = {}


def attack(name: str) -> Callable[[Attack], Attack]:
    def add(attack: Attack) -> Attack:
        ATTACKS[name] = attack
        return attack

    return add


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def begun(field: Field) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Every attack of this module, under way."""
    tasks = {name: asyncio.create_task(attack(field)) for name, attack in ATTACKS.items()}  # type: ignore[arg-type]
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


async def offered(field: Field) -> tuple[Job, str]:
    """A job that waits in a queue of its own, which has its consumer."""
    job = await field.waiting()
    queue = (await job.get()).queue
    await field.until_queue(queue)
    return job, queue


async def made_good(field: Field, job: Job) -> None:
    """Some honest worker serves the queue from here on: it gets the job in time, and runs it once."""
    since = await field.reader.ledger.now()
    process = await job.serve()
    assert process.attempts[-1].started_at - since < AGAIN_S * SECOND
    assert len(process.attempts) == 1


# --- offers that nobody took --------------------------------------------------------------------------


async def handed_out(field: Field) -> tuple[Job, str, Attacker, Msg]:
    """A job whose offer the attacker has in hand."""
    job, queue = await offered(field)
    who = await field.attacker("worker")
    (offer,) = await who.pull(queue)
    return job, queue, who, offer


async def say(who: Attacker, offer: Msg, what: bytes) -> None:
    await who.nc.publish(offer.reply, what)
    await who.settle()


@attack("ack-anothers")
async def acknowledges(field: Field) -> None:
    job, _, who, offer = await handed_out(field)
    await say(who, offer, b"+ACK")
    await made_good(field, job)


@attack("term-anothers")
async def terminates(field: Field) -> None:
    job, _, who, offer = await handed_out(field)
    await say(who, offer, b"+TERM evil")
    await made_good(field, job)


@attack("nak-for-years")
async def gives_back_for_years(field: Field) -> None:
    job, _, who, offer = await handed_out(field)
    await say(who, offer, f'-NAK {{"delay": {TEN_YEARS_NS}}}'.encode())
    await made_good(field, job)


@attack("keep-for-ever")
async def keeps(field: Field) -> None:
    job, _, who, offer = await handed_out(field)

    async def at_it() -> None:
        while True:
            await say(who, offer, b"+WPI")
            await asyncio.sleep(0.5)

    async with field.meanwhile(at_it()):
        await made_good(field, job)


@attack("steal-the-next")
async def steals_the_next(field: Field) -> None:
    job, _, who, offer = await handed_out(field)
    later = await field.submit(runtimetype=job.runtimetype)
    await who.nc.publish(offer.reply, b'+NXT {"batch": 100}', reply=f"_INBOX_{who.public}.nowhere")
    await who.settle()
    since = await field.reader.ledger.now()
    instance = await field.colony.work(field.worker(job.runtimetype), "w1")
    for process in await asyncio.gather(job.finish(), later.finish()):
        assert process.attempts[-1].started_at - since < AGAIN_S * SECOND
    instance.stop(0.0)


@attack("ack-by-reply")
async def acknowledges_by_reply(field: Field) -> None:
    job, queue, _, offer = await handed_out(field)
    for role in ("user", "observer", "owner"):
        who = await field.attacker(role)
        await who.smuggle(offer.reply, b"+ACK")
    service = await field.attacker("service")
    info = await service.ask(f"$JS.API.CONSUMER.INFO.LEDGER.{queue}")
    assert (info["num_ack_pending"], info["ack_floor"]["consumer_seq"]) == (1, 0)
    await made_good(field, job)


# --- offers of what runs ------------------------------------------------------------------------------


def reply_of(job: Job, queue: str, offer: int) -> str:
    """What a worker would say about the first delivery of this offer: anybody can tell."""
    return f"$JS.ACK.LEDGER.{queue}.1.{offer}.1.1.0"


@attack("nak-what-runs")
async def gives_back_what_runs(field: Field) -> None:
    job, queue = await offered(field)
    who = await field.attacker("worker")
    first = await field.colony.work(field.worker(job.runtimetype), "w1")
    await field.until(lambda: field.runs[job.name], "it runs")
    second = await field.colony.work(field.worker(job.runtimetype), "w2")
    phase = (await job.get()).phase
    assert isinstance(phase, Running)
    since = await field.reader.ledger.now()
    deliveries = 1
    while deliveries == 1 or await field.reader.ledger.now() < since + 2.5 * phase.lease_s * SECOND:
        reply = f"$JS.ACK.LEDGER.{queue}.{deliveries}.{phase.offer.sequence}.{deliveries}.1.0"
        await who.nc.publish(reply, b"-NAK")
        await asyncio.sleep(0.2)
        service = await field.attacker("service")
        info = await service.ask(f"$JS.API.CONSUMER.INFO.LEDGER.{queue}")
        deliveries = info["delivered"]["consumer_seq"]
    assert deliveries > 1
    await job.finish()
    assert len((await job.get()).attempts) == 1
    first.stop(0.0)
    second.stop(0.0)


@attack("displaced")
async def displaces_what_runs(field: Field) -> None:
    """The offer given back, and the heartbeat overwritten by way of a reply, past the lease."""
    who = await field.attacker("worker")

    async def one(old: bool) -> None:
        job, queue = await offered(field)
        first = await field.colony.work(field.worker(job.runtimetype), "w1")
        await field.until(lambda: field.runs[job.name], "it runs")
        second = await field.colony.work(field.worker(job.runtimetype), "w2")
        process = await job.get()
        phase, place = process.phase, f"heartbeat.w1.{process.attempts[-1].instance}"
        assert isinstance(phase, Running)
        (beat,) = await field.reader.ledger.emitted(place)
        deliveries = 1
        over = phase.lapses_at() + int(1.5 * phase.lease_s * SECOND)
        while deliveries == 1 or await field.reader.ledger.now() < over:
            await who.smuggle(place, beat.data if old else b"junk")
            reply = f"$JS.ACK.LEDGER.{queue}.{deliveries}.{phase.offer.sequence}.{deliveries}.1.0"
            await who.nc.publish(reply, b"-NAK")
            await who.settle()
            service = await field.attacker("service")
            info = await service.ask(f"$JS.API.CONSUMER.INFO.LEDGER.{queue}")
            deliveries = info["delivered"]["consumer_seq"]
        assert deliveries > 1
        await job.finish()
        assert [attempt.instance for attempt in (await job.get()).attempts] == [first.id]
        first.stop(0.0)
        second.stop(0.0)

    await asyncio.gather(one(old=False), one(old=True))


@attack("ack-what-runs")
async def settles_what_runs(field: Field) -> None:
    who = await field.attacker("worker")
    for word in (b"+ACK", b"+TERM", b'+NXT {"batch": 1}'):
        job, queue = await offered(field)
        instance = await field.colony.work(field.worker(job.runtimetype), "w1")
        await field.until(lambda job=job: field.runs[job.name], "it runs")  # type: ignore[misc]
        phase = (await job.get()).phase
        assert isinstance(phase, Running)
        await who.nc.publish(reply_of(job, queue, phase.offer.sequence), word)
        await who.settle()
        await job.finish()
        assert len((await job.get()).attempts) == 1
        instance.stop(0.0)


@attack("lapsed-takeover")
async def takes_over_what_lives(field: Field) -> None:
    """A lease without a word on the ledger is enough: heartbeats are not on it."""
    who, job = await field.attacker("worker"), await field.running()
    process = await job.get()
    phase = process.phase
    assert isinstance(phase, Running)
    while await field.reader.ledger.now() <= phase.lapses_at():
        await asyncio.sleep(0.05)
    subject, id = job.subject("assigned", who.name), ulid()
    data = who.event("process.assigned", subject, prev=process.head, id=id, data=taking(process))
    await who.store(subject, data)
    end = job.subject("completed", who.name)
    prev = digest(who.colony, subject, data)
    await who.store(
        end, who.event("process.completed", end, prev=prev, data={"attempt": id, "output": "evil"})
    )
    assert await job.handle.result(AGAIN_S) == "evil"
    attempts = (await job.get()).attempts
    assert [(attempt.worker, attempt.outcome) for attempt in attempts] == [
        ("w1", "lost"),
        (who.name, "successful"),
    ]


# --- consumers ----------------------------------------------------------------------------------------


@attack("queue-deleted")
async def deletes_the_queue(field: Field) -> None:
    job, queue = await offered(field)
    who = await field.attacker("service")
    assert (await who.ask(f"$JS.API.CONSUMER.DELETE.LEDGER.{queue}"))["success"]
    await made_good(field, job)


@attack("queue-changed")
async def changes_the_queue(field: Field) -> None:
    who = await field.attacker("service")
    tricks = {
        "filter": {"filter_subject": "ledger.process.*.queued.nothing.*"},
        "pause": {"pause_until": "2100-01-01T00:00:00Z"},
        "future": {"deliver_policy": "by_start_sequence", "opt_start_seq": 10**9},
        "push": {"deliver_subject": "nowhere", "max_waiting": 0},
        "limit": {"max_deliver": 1, "headers_only": True},
    }

    async def one(trick: dict[str, object]) -> None:
        job, queue = await offered(field)
        await who.ask(f"$JS.API.CONSUMER.DELETE.LEDGER.{queue}")
        config = {
            "name": queue,
            "durable_name": queue,
            "ack_policy": "explicit",
            "filter_subject": f"ledger.process.*.queued.{queue}.*",
            "max_waiting": 10,
            **trick,
        }
        subject = f"$JS.API.CONSUMER.CREATE.LEDGER.{queue}.{config['filter_subject']}"
        made = await who.ask(subject, {"stream_name": "LEDGER", "config": config})
        assert "error" not in made, made
        await made_good(field, job)

    await asyncio.gather(*map(one, tricks.values()))


@attack("hoarded-pulls")
async def hoards_pulls(field: Field) -> None:
    who = await field.attacker("worker", "hoarder")
    job, queue = await offered(field)
    body = json.dumps({"batch": 1_000, "expires": 3_600 * SECOND}).encode()
    for _ in range(100):
        inbox = f"_INBOX_{who.public}.hoard"
        await who.nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.LEDGER.{queue}", body, reply=inbox)
    hoard = await who.nc.subscribe(f"_INBOX_{who.public}.hoard")
    await who.settle()
    instance = await field.colony.work(field.worker(job.runtimetype), "w1")
    more = await field.submit(runtimetype=job.runtimetype)
    await hoard.next_msg(timeout=AGAIN_S)
    assert isinstance((await more.get()).phase, Waiting | Running)

    await founding.revoke(field.colony.owner, "hoarder")
    keyring, owner = field.colony.keyring, field.colony.owner
    await keyring.operator.push_account(field.colony.url, keyring.account_jwt(founding.revocations_of(owner)))
    await job.finish()
    await more.finish()
    instance.stop(0.0)


# --- and all of it is good ----------------------------------------------------------------------------


async def good(field: Field, begun: dict[str, asyncio.Task[None]], name: str) -> None:
    await begun[name]
    await field.agree({})


@row("ack-anothers")
async def test_an_acknowledged_offer_comes_again(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "ack-anothers")


@row("term-anothers")
async def test_a_terminated_offer_comes_again(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "term-anothers")


@row("nak-for-years")
async def test_an_offer_given_back_for_years_comes_again(
    field: Field, begun: dict[str, asyncio.Task[None]]
) -> None:
    await good(field, begun, "nak-for-years")


@row("keep-for-ever")
async def test_an_offer_that_is_kept_comes_again(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "keep-for-ever")


@row("steal-the-next")
async def test_a_stolen_offer_comes_again(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "steal-the-next")


@row("ack-by-reply")
async def test_nobody_acknowledges_by_reply(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "ack-by-reply")


@row("nak-what-runs")
async def test_what_runs_is_not_run_twice(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "nak-what-runs")


@row("displaced")
async def test_who_erases_heartbeats_and_gives_back_offers_takes_no_work_away(
    field: Field, begun: dict[str, asyncio.Task[None]]
) -> None:
    await good(field, begun, "displaced")


@row("ack-what-runs")
async def test_what_runs_ends_without_its_offer(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "ack-what-runs")


@row("queue-deleted")
async def test_a_deleted_queue_is_made_anew(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "queue-deleted")


@row("queue-changed")
async def test_a_changed_queue_is_made_anew(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "queue-changed")


@row("hoarded-pulls")
async def test_a_revoked_hoarder_lets_go(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "hoarded-pulls")


@row("lapsed-takeover")
async def test_a_takeover_after_a_lease_is_seen(field: Field, begun: dict[str, asyncio.Task[None]]) -> None:
    await good(field, begun, "lapsed-takeover")
