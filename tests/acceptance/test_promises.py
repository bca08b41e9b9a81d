"""What the documents promise and nothing else would notice: each promise kept by a real broker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import nats
import pytest

import colonies
from colonies import codec, contexts, founding, subjects
from colonies.contexts import Context
from colonies.core.events import Assigned, Completed, Failed, Queued, Ref
from colonies.core.process import Waiting
from colonies.core.spec import Spec, queue_of
from colonies.creds import Credential
from colonies.heartbeats import Heartbeat, read_heartbeat
from colonies.history import Story
from colonies.ids import new_id
from colonies.instance import Instance
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Draft
from colonies.liveness import Liveness
from colonies.logs import LogEntry, read_logs
from colonies.nkeys import KeyPair
from colonies.outcome import MAX_BACKOFF_S, backoff_s
from colonies.queueing import _Delivery
from colonies.session import Session
from colonies.verify import Finding, verify_ledger
from tests.harness import RunningColony, running_colony, until

PYTHON = {"runtimetype": "python"}
NOTHING = Story(None, [], 0)


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, lease_s=2.0) as colony:
        yield colony


def jetstream_of(session: Session) -> JetStreamLedger:
    assert isinstance(session.ledger, JetStreamLedger)
    return session.ledger


async def findings(colony: RunningColony) -> list[Finding]:
    return (await verify_ledger(jetstream_of(colony.owner))).findings


async def outcomes(handle: colonies.Handle[Any]) -> list[str | None]:
    return [attempt.outcome for attempt in (await handle.get()).attempts]


async def state_of(handle: colonies.Handle[Any], state: str, limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while (await handle.get()).state != state:
            await asyncio.sleep(0.02)


async def types_of(handle: colonies.Handle[Any], session: Session) -> list[str]:
    story = await session.story(handle.id)
    return [seen.record.event.type for seen in story.judged if seen.record is not None]


async def delivered(session: Session, queue: str) -> int:
    """How often the queue handed out an offer, the same one again included."""
    request = f"$JS.API.CONSUMER.INFO.{subjects.LEDGER}.{queue}"
    info = json.loads((await jetstream_of(session).client().request(request)).data)
    return int(info["delivered"]["consumer_seq"])


# --- what is forged is not run ----------------------------------------------------------------------


def offer_of(session: Session, name: str, process: str, key: KeyPair, now: int) -> Draft:
    """The first offer of `ran(name)` in this member's name, signed with a key that may be another's."""
    event = Queued(Spec.parse({"func": "ran", "args": [name], "conditions": PYTHON}))
    queue = queue_of(event.spec.conditions, event.spec.priority)
    subject = subjects.subject_of(event, process, session.name, queue)
    sealed = codec.seal(
        key,
        session.ledger.colony,
        subject,
        id=new_id(),
        type=event.type,
        time=now,
        author=session.name,
        prev=None,
        data=codec.data_of(event),
    )
    return Draft(subject, sealed.data, 0)


def changed_after_signing(draft: Draft, old: bytes, new: bytes) -> Draft:
    payload, signature = msgpack.unpackb(draft.data)
    assert old in payload
    return Draft(draft.subject, msgpack.packb([payload.replace(old, new), signature]), draft.after)


def for_another_process(draft: Draft, process: str) -> Draft:
    old = subjects.process_of(draft.subject)
    return Draft(draft.subject.replace(old, process), draft.data, draft.after)


@pytest.mark.parametrize("kind", ["signed by another key", "changed after signing", "moved to another id"])
async def test_a_forged_offer_is_never_run_and_is_named_and_work_goes_on(
    colony: RunningColony, kind: str
) -> None:
    client = await colony.client()
    service = await colony.session("watcher", "service")
    worker = colonies.Worker("python", concurrency=1)
    names: list[str] = []

    @worker.function
    def ran(name: str) -> str:
        names.append(name)
        return name

    await colony.work(worker, "w1")
    first = await client.submit(ran.call("honest"))
    assert await first.result(20) == "honest"

    ann, now = client.session, await client.ledger.now()
    honest = offer_of(ann, "honest", new_id(), ann.keypair, now)
    forged = {
        "signed by another key": offer_of(ann, "forged", new_id(), KeyPair.new("user"), now),
        "changed after signing": changed_after_signing(honest, b"honest", b"forged"),
        "moved to another id": for_another_process(honest, new_id()),
    }[kind]
    sequence = await client.ledger.append(forged)
    second = await client.submit(ran.call("after"))

    assert await second.result(20) == "after"
    queue = (await second.get()).queue
    async with asyncio.timeout(20):  # the worker dealt with it: it does not come again and again
        while (state := await jetstream_of(service).machinery().queue_state(queue)) is None or (
            state.acknowledged < sequence
        ):
            await asyncio.sleep(0.02)
    assert names == ["honest", "after"]
    with pytest.raises(colonies.NotFound):
        await client.process(subjects.process_of(forged.subject)).get()
    [found] = await findings(colony)
    assert (found.sequence, found.kind, found.author) == (sequence, "damaged", None)
    assert "its signature is not that of ann" in found.rule


# --- large values -----------------------------------------------------------------------------------


async def test_a_stored_output_that_is_not_what_its_event_says_is_not_believed(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    worker = await colony.session("w1", "worker")
    handle = await client.submit({"func": "large", "conditions": PYTHON})
    story = await worker.story(handle.id)
    assert story.process is not None
    assert isinstance(story.process.phase, Waiting)
    taken = Assigned(story.process.phase.offer.id, 2.0, "hand")
    story = await worker.record(handle.id, taken, at=story)
    assert story.process is not None
    said, kept = msgpack.packb("a" * 200_000), msgpack.packb("b" * 200_000)
    ref = Ref(hashlib.sha256(said).hexdigest(), len(said), await worker.ledger.put_value("w1", kept))
    done = Completed(story.process.attempts[-1].id, None, ref)
    await worker.record(handle.id, done, at=story)

    with pytest.raises(colonies.ColoniesError, match="is not the one that the ledger names"):
        await handle.result(20)
    assert (await handle.get()).state == "successful"  # the event is true; what it points at is not


async def test_stored_arguments_that_are_not_what_the_submission_says_are_not_run(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    worker = colonies.Worker("python")
    ran: list[int] = []

    @worker.function
    def size(text: str) -> int:
        ran.append(len(text))
        return len(text)

    await colony.work(worker, "w1")
    assert await (await client.submit(size.call("x" * 300_000))).result(20) == 300_000

    said, kept = (msgpack.packb([[letter * 200_000], {}]) for letter in "ab")
    ref = Ref(hashlib.sha256(said).hexdigest(), len(said), await client.ledger.put_value("ann", kept))
    spec = Spec.parse({"func": "size", "conditions": PYTHON})
    id = new_id()
    queue = queue_of(spec.conditions, spec.priority)
    await client.session.record(id, Queued(spec, None, ref), at=NOTHING, queue=queue)

    with pytest.raises(colonies.ProcessFailed, match="is not the one that the ledger names"):
        await client.process(id).result(20)
    assert ran == [300_000]


@pytest.mark.parametrize("size", [300_000, 2_000_000])
async def test_large_arguments_and_outputs_come_back_as_they_were(colony: RunningColony, size: int) -> None:
    client = await colony.client()
    worker = colonies.Worker("python")

    @worker.function
    def turned(text: str, *, tail: str) -> dict[str, Any]:
        return {"text": text[::-1], "tail": tail}

    await colony.work(worker, "w1")
    text = "".join(chr(97 + n % 23) for n in range(size))
    handle = await client.submit(turned.call(text, tail="ü" * 10))

    assert await handle.result(30) == {"text": text[::-1], "tail": "ü" * 10}
    stored = await client.ledger.read(subjects.guard_of("process", handle.id))
    assert max(len(event.data) for event in stored) < 10_000  # neither is on the ledger itself
    assert await findings(colony) == []


async def test_an_output_over_64_mib_fails_the_process_for_good_and_says_so(colony: RunningColony) -> None:
    client = await colony.client()
    worker = colonies.Worker("python", backoff_s=0.05)
    size = 64 * 1024 * 1024

    @worker.function(maxretries=5)
    def huge() -> str:
        return "x" * size

    await colony.work(worker, "w1")
    handle = await client.submit(huge.call())

    with pytest.raises(colonies.ProcessFailed, match=rf"{size + 5} bytes; at most {size} \(64 MiB\)"):
        await handle.result(30)
    assert await outcomes(handle) == ["failed"]


# --- what is seen of a running process --------------------------------------------------------------


async def beats(session: Session, instance: Instance) -> list[Heartbeat]:
    stored = await session.ledger.emitted(subjects.heartbeat(instance.session.name, instance.id))
    found = [read_heartbeat(session.colony, one) for one in stored]
    return [beat for beat in found if beat is not None]


async def test_progress_is_seen_in_the_workers_heartbeats(colony: RunningColony) -> None:
    client = await colony.client()
    go_on, done = asyncio.Event(), asyncio.Event()
    worker = colonies.Worker("python", concurrency=3)

    @worker.function
    async def paint() -> None:
        colonies.current().progress(0.25, "a quarter")
        await go_on.wait()
        colonies.current().progress(7, "all of it")
        await done.wait()

    instance = await colony.work(worker, "w1")
    handle = await client.submit(paint.call())
    await state_of(handle, "running")
    attempt = (await handle.get()).attempts[0].id

    async def said(fraction: float, message: str) -> Heartbeat:
        async with asyncio.timeout(20):
            while True:
                for beat in await beats(client.session, instance):
                    if beat.attempts.get(handle.id) == [attempt, fraction, message]:
                        return beat
                await asyncio.sleep(0.02)

    beat = await said(0.25, "a quarter")
    assert (beat.worker, beat.runtimetype, beat.concurrency) == ("w1", "python", 3)
    assert beat.runs(handle.id, attempt)
    go_on.set()
    await said(1.0, "all of it")
    done.set()
    await handle.result(20)
    async with asyncio.timeout(20):  # what is over is in no heartbeat
        while any(beat.attempts for beat in (await beats(client.session, instance))[-1:]):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["in a thread", "on the loop"])
async def test_what_a_function_says_to_pythons_logging_is_in_the_log_of_its_process(
    colony: RunningColony, kind: str
) -> None:
    client = await colony.client()
    worker = colonies.Worker("python", concurrency=2)

    @worker.function
    def in_a_thread(word: str) -> None:
        logging.getLogger("painter").warning("mixing %s", word)

    @worker.function
    async def on_the_loop(word: str) -> None:
        logging.getLogger("painter").warning("mixing %s", word)

    await colony.work(worker, "w1")
    function = in_a_thread if kind == "in a thread" else on_the_loop
    handles = [await client.submit(function.call(word)) for word in ("red", "blue")]
    logging.getLogger("painter").warning("mixing nothing")
    for handle, word in zip(handles, ("red", "blue"), strict=True):
        await handle.result(20)
        text = "".join(entry.text for entry in await read_logs(client.session, handle.id))
        assert f"mixing {word}" in text
        assert text.count("mixing") == 1


# --- leases -----------------------------------------------------------------------------------------


async def run_beside_an_idle_worker(colony: RunningColony, client: colonies.Client) -> int:
    """One process of three leases on `w1` while `w2` idles; returns how often its offer was delivered."""
    slow = colonies.Worker("python", concurrency=1)  # it is full, so a redelivery can only reach `w2`
    idle = colonies.Worker("python", concurrency=1)
    took: list[str] = []

    @slow.function
    async def long(seconds: float) -> str:
        took.append("w1")
        await asyncio.sleep(seconds)
        return "w1"

    @idle.function(name="long")
    async def not_this_one(seconds: float) -> str:
        took.append("w2")
        return "w2"

    await colony.work(slow, "w1")
    handle = await client.submit(long.call(6.0))
    await until(lambda: took, "it runs")
    await colony.work(idle, "w2")

    assert await handle.result(30) == "w1"
    assert took == ["w1"]
    assert await outcomes(handle) == ["successful"]
    assert await findings(colony) == []
    service = await colony.session("watcher", "service")
    return await delivered(service, (await handle.get()).queue)


async def test_a_process_longer_than_its_lease_is_not_even_offered_to_an_idle_worker(
    colony: RunningColony,
) -> None:
    assert await run_beside_an_idle_worker(colony, await colony.client()) == 1


async def test_a_heartbeat_alone_keeps_a_redelivered_process_with_its_worker(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_: _Delivery) -> None:
        """What the worker says to the consumer does not arrive: the consumer is a hint."""

    monkeypatch.setattr(_Delivery, "in_progress", lost)

    assert await run_beside_an_idle_worker(colony, await colony.client()) > 1


async def test_a_long_attempt_renews_itself_on_the_ledger(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colonies.liveness.RENEW_LEASES", 1)
    client = await colony.client()
    worker, go = colonies.Worker("python"), asyncio.Event()

    @worker.function
    async def wait() -> str:
        await go.wait()
        return "done"

    await colony.work(worker, "w1")
    handle = await client.submit(wait.call())
    async with asyncio.timeout(20):
        while (await types_of(handle, client.session)).count("process.renewed") < 2:
            await asyncio.sleep(0.05)
    go.set()

    assert await handle.result(20) == "done"
    process = await handle.get()
    renewed = [
        seen.record.time
        for seen in (await client.session.story(handle.id)).judged
        if seen.record is not None and seen.record.event.type == "process.renewed"
    ]
    times = [process.attempts[0].started_at, *renewed]
    assert all(1.5e9 < after - before < 4e9 for before, after in pairwise(times))
    assert await outcomes(handle) == ["successful"]
    assert await findings(colony) == []


# --- failing, stopping, cancelling ------------------------------------------------------------------


@pytest.mark.parametrize(("failures", "full"), [(0, 2.0), (1, 4.0), (4, 32.0), (7, 256.0)])
def test_a_backoff_is_half_to_all_of_the_base_doubled_for_each_failure(failures: int, full: float) -> None:
    waits = [backoff_s(2.0, failures) for _ in range(500)]

    assert full / 2 <= min(waits) < full * 0.6
    assert full * 0.9 < max(waits) <= full


@pytest.mark.parametrize("failures", [8, 30, 1_000, 10**9])
def test_a_backoff_is_never_longer_than_five_minutes(failures: int) -> None:
    waits = {backoff_s(2.0, failures) for _ in range(100)}

    assert MAX_BACKOFF_S == 300
    assert 150 <= min(waits) < max(waits) <= 300


async def test_each_retry_waits_longer_than_the_one_before(colony: RunningColony) -> None:
    client = await colony.client()
    worker = colonies.Worker("python", backoff_s=0.1)

    @worker.function(maxretries=2)
    async def never() -> None:
        raise ValueError("no")

    await colony.work(worker, "w1")
    handle = await client.submit(never.call())
    with pytest.raises(colonies.ProcessFailed, match="ValueError: no"):
        await handle.result(30)

    story = await client.session.story(handle.id)
    told = [seen.record.event for seen in story.judged if seen.record is not None]
    first, second, _ = [event.delay_s for event in told if isinstance(event, Failed)]
    assert 0.05 <= first <= 0.1
    assert 0.1 <= second <= 0.2


async def test_an_async_function_over_its_maxexectime_is_cancelled_and_may_clean_up(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    worker = colonies.Worker("python")
    seen: list[str] = []

    @worker.function
    async def hang() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("cleaned up")

    await colony.work(worker, "w1")
    handle = await client.submit({"func": "hang", "maxexectime": 0.3, "conditions": PYTHON})

    with pytest.raises(colonies.ProcessFailed, match=r"longer than its maxexectime of 0\.3 s"):
        await handle.result(20)
    assert seen == ["cancelled", "cleaned up"]
    assert await outcomes(handle) == ["timeout"]


async def test_a_second_stop_gives_back_at_once(colony: RunningColony) -> None:
    client = await colony.client()
    worker = colonies.Worker("python")

    @worker.function
    async def long() -> None:
        await asyncio.sleep(600)

    instance = await colony.work(worker, "w1")
    handle = await client.submit(long.call())
    await state_of(handle, "running")
    instance.stop(60.0)
    await asyncio.sleep(0.5)
    assert (await handle.get()).state == "running"
    instance.stop(60.0)

    await state_of(handle, "waiting", limit_s=3.0)
    assert await outcomes(handle) == ["returned"]


async def test_the_note_on_a_refused_result_holds_what_the_attempt_wanted_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Liveness, "on_cancel", lambda *_: None)  # the worker learns it from the ledger only
    async with running_colony(tmp_path, lease_s=30.0) as colony:
        client = await colony.client()
        worker, go = colonies.Worker("python"), asyncio.Event()

        @worker.function
        async def write() -> None:
            await go.wait()
            raise ValueError("the disk is full")

        await colony.work(worker, "w1")
        handle = await client.submit(write.call())
        await state_of(handle, "running")
        await handle.cancel()
        go.set()

        notes: list[LogEntry] = []
        async with asyncio.timeout(20):
            while not notes:
                notes = [e for e in await read_logs(client.session, handle.id) if e.type == "log.refused"]
                await asyncio.sleep(0.02)
        [note] = notes
        process = await handle.get()
        assert (note.worker, note.attempt, note.n) == ("w1", process.attempts[0].id, 1)
        assert note.data["event"] == "process.failed"
        assert "cancelled" in note.data["reason"]
        assert "ValueError: the disk is full" in note.data["error"]
        assert await outcomes(handle) == ["cancelled"]


async def test_a_cancel_is_heard_from_the_feed_long_before_the_next_heartbeat(tmp_path: Path) -> None:
    async with running_colony(tmp_path, lease_s=30.0) as colony:
        client = await colony.client()
        worker, stopped = colonies.Worker("python"), asyncio.Event()

        @worker.function
        async def long() -> None:
            try:
                await asyncio.sleep(600)
            finally:
                stopped.set()

        await colony.work(worker, "w1")
        handle = await client.submit(long.call())
        await state_of(handle, "running")
        await handle.cancel()

        await asyncio.wait_for(stopped.wait(), 5)


# --- members ----------------------------------------------------------------------------------------


async def test_a_running_worker_whose_member_is_revoked_ends_as_refused(colony: RunningColony) -> None:
    client = await colony.client()
    desk = await colony.session("desk", "observer")
    pushing = asyncio.create_task(founding.Operator(desk, colony.keyring.operator, colony.url).run())
    worker, stopped = colonies.Worker("python"), asyncio.Event()

    @worker.function
    async def long() -> str:
        try:
            await asyncio.sleep(600)
        finally:
            stopped.set()
        return "w1"

    instance = Instance(worker, await colony.session("w1", "worker"))
    running = asyncio.create_task(instance.run())
    await asyncio.wait_for(instance.ready.wait(), 20)
    handle = await client.submit(long.call())
    await state_of(handle, "running")

    await founding.revoke(colony.owner, "w1", "its laptop was stolen")

    with pytest.raises(colonies.Refused, match=r"no longer accepts w1|closed the connection of w1"):
        await asyncio.wait_for(running, 20)
    assert stopped.is_set()  # it does not work on in secret
    replacement = colonies.Worker("python")

    @replacement.function(name="long")
    async def short() -> str:
        return "w2"

    await colony.work(replacement, "w2")
    assert await handle.result(30) == "w2"
    assert await outcomes(handle) == ["lost", "successful"]
    assert await findings(colony) == []
    pushing.cancel()


async def test_what_a_revoked_key_says_counts_no_more_and_what_it_said_before_stays(
    colony: RunningColony,
) -> None:
    """There is no operator here, so the broker still lets it in: the ledger alone must do."""
    client = await colony.client()
    worker = await colony.session("w1", "worker")
    finished, begun = [await client.submit({"func": "x", "conditions": PYTHON}) for _ in range(2)]
    stories: list[Story] = []
    for handle in (finished, begun):
        story = await worker.story(handle.id)
        assert story.process is not None
        assert isinstance(story.process.phase, Waiting)
        taken = Assigned(story.process.phase.offer.id, 2.0, "hand")
        stories.append(await worker.record(handle.id, taken, at=story))
    first, second = (story.process for story in stories)
    assert first is not None
    assert second is not None
    await worker.record(finished.id, Completed(first.attempts[-1].id, "before"), at=stories[0])

    await founding.revoke(colony.owner, "w1")
    event = Completed(second.attempts[-1].id, "after")
    now = await worker.ledger.now()
    subject, sealed = worker.seal(event, begun.id, prev=second.head, id=new_id(), now=now)
    sequence = await worker.ledger.append(Draft(subject, sealed.data, stories[1].guard))

    assert await finished.result(20) == "before"
    await client.session.refresh()
    process = await begun.get()
    assert (process.state, process.attempts[0].worker) == ("running", "w1")
    [found] = await findings(colony)
    assert (found.sequence, found.kind) == (sequence, "quarantined")
    assert "w1 is no member at this point" in found.rule
    await worker.refresh()
    with pytest.raises(colonies.Refused, match="w1 was revoked"):
        _ = worker.role


async def test_a_members_creds_file_works_with_the_stock_client(colony: RunningColony) -> None:
    client = await colony.client()
    creds = await colony.credential("eve", "observer")
    inbox = f"_INBOX_{Credential.read(creds).keypair.public}"
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def on_event(msg: Any) -> None:
        heard.put_nowait(msg.subject)

    stock = await nats.connect(colony.url, user_credentials=str(creds), inbox_prefix=inbox)
    try:
        await stock.subscribe("feed.process.>", cb=on_event)
        await stock.flush()
        handle = await client.submit({"func": "x", "conditions": PYTHON})
        subject = await asyncio.wait_for(heard.get(), 10)
        assert subject.startswith(f"feed.process.{handle.id}.queued.")
        assert subject.endswith(".ann")
        info = json.loads((await stock.request("$JS.API.STREAM.INFO.LEDGER")).data)
        assert info["state"]["last_seq"] >= 1
    finally:
        await stock.close()


# --- where and who ----------------------------------------------------------------------------------

HOME = Context("home", "nats://home:1", "home.creds", "home-keys", "home-members")
LAB = Context("lab", "nats://lab:2", "lab.creds", "lab-keys", "lab-members")
URL, CREDS, CONTEXT = "COLONIES_URL", "COLONIES_CREDS", "COLONIES_CONTEXT"


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ({}, {}, HOME),
        ({}, {CONTEXT: "lab"}, LAB),
        ({"context": "home"}, {CONTEXT: "lab"}, HOME),
        ({"context": "lab"}, {}, LAB),
        ({}, {URL: "nats://e:3"}, Context("home", "nats://e:3", "home.creds", "home-keys", "home-members")),
        ({}, {CREDS: "e.creds"}, Context("home", "nats://home:1", "e.creds")),
        ({}, {CONTEXT: "lab", CREDS: "e.creds"}, Context("lab", "nats://lab:2", "e.creds")),
        ({}, {URL: "nats://e:3", CREDS: "e.creds"}, Context("", "nats://e:3", "e.creds")),
        ({"url": "nats://f:4"}, {URL: "nats://e:3", CREDS: "e.creds"}, Context("", "nats://f:4", "e.creds")),
        ({"creds": "f.creds"}, {URL: "nats://e:3", CREDS: "e.creds"}, Context("", "nats://e:3", "f.creds")),
        ({"creds": "f.creds"}, {CREDS: "e.creds"}, Context("home", "nats://home:1", "f.creds")),
        ({}, {CONTEXT: "", URL: "", CREDS: ""}, HOME),
    ],
)
def test_a_flag_goes_before_the_environment_and_that_before_the_context_in_use(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, str], environment: dict[str, str], expected: Context
) -> None:
    for context in (HOME, LAB):
        contexts.save(context)
    contexts.use("home")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert contexts.resolve(**flags) == expected


def test_a_context_of_the_environment_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save(HOME)
    contexts.use("home")
    monkeypatch.setenv(CONTEXT, "moon")
    with pytest.raises(colonies.NotFound, match=r"no context 'moon' \(known: home\)"):
        contexts.resolve()


async def test_the_environment_leads_a_client_without_asyncio_to_its_colony(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = colonies.Worker("python")

    @worker.function
    def double(n: int) -> int:
        return 2 * n

    await colony.work(worker, "w1")
    ann = await colony.credential("ann", "user")
    bob = await colony.credential("bob", "user")
    contexts.save(Context("home", "nats://127.0.0.1:1", str(ann)))  # nobody is there
    contexts.save(Context("lab", colony.url, str(bob)))
    contexts.use("home")

    def use() -> tuple[str, str, int]:
        with colonies.connect() as client:
            return client.name, client.colony, client.submit(double.call(21)).result(20)

    monkeypatch.setenv(URL, colony.url)
    assert await asyncio.to_thread(use) == ("ann", "test", 42)
    monkeypatch.setenv(CREDS, str(bob))
    assert await asyncio.to_thread(use) == ("bob", "test", 42)
    monkeypatch.delenv(URL)
    monkeypatch.delenv(CREDS)
    monkeypatch.setenv(CONTEXT, "lab")
    assert await asyncio.to_thread(use) == ("bob", "test", 42)


# --- one key, one process ---------------------------------------------------------------------------


async def test_the_same_submitter_and_key_give_the_same_process_however_many_ask_at_once(
    colony: RunningColony,
) -> None:
    ann, same, bob = [await colony.client(name) for name in ("ann", "ann", "bob")]
    worker = colonies.Worker("python", concurrency=4)
    runs: list[int] = []

    @worker.function
    def count(n: int) -> int:
        runs.append(n)
        return n

    await colony.work(worker, "w1")
    handles = await asyncio.gather(*((ann, same)[n % 2].submit(count.call(1), key="k") for n in range(10)))
    other = await bob.submit(count.call(2), key="k")

    assert len({handle.id for handle in handles}) == 1
    assert other.id != handles[0].id
    assert [await handle.result(20) for handle in handles] == [1] * 10
    assert await other.result(20) == 2
    again = await ann.submit(count.call(1), key="k")  # finished long ago: still the same
    assert (again.id, await again.result(20)) == (handles[0].id, 1)
    assert sorted(runs) == [1, 2]
    assert (await types_of(again, ann.session)).count("process.queued") == 1
    assert await findings(colony) == []


async def test_of_two_specs_under_one_key_the_first_counts_and_the_other_is_refused(
    colony: RunningColony,
) -> None:
    clients = [await colony.client("ann") for _ in range(2)]
    specs = [{"func": "x", "args": [n % 2], "conditions": PYTHON} for n in range(10)]

    found = await asyncio.gather(
        *(clients[n // 5].submit(spec, key="k") for n, spec in enumerate(specs)), return_exceptions=True
    )

    accepted = [n for n, one in enumerate(found) if isinstance(one, colonies.Handle)]
    refused = [one for one in found if not isinstance(one, colonies.Handle)]
    [id] = {one.id for one in found if isinstance(one, colonies.Handle)}
    winner = (await clients[0].process(id).get()).spec.args[0]
    assert accepted == [n for n in range(10) if n % 2 == winner]
    assert all(isinstance(error, colonies.Invalid) for error in refused)
    assert all(f"the key 'k' stands for process {id}" in str(error) for error in refused)


async def test_a_key_is_good_for_large_arguments_too(colony: RunningColony) -> None:
    client = await colony.client()

    def large(letter: str) -> dict[str, Any]:
        return {"func": "x", "args": [letter * 200_000], "conditions": PYTHON}

    first = await client.submit(large("a"), key="k")
    assert (await client.submit(large("a"), key="k")).id == first.id
    with pytest.raises(colonies.Invalid, match="stands for process"):
        await client.submit(large("b"), key="k")
