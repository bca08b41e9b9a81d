"""The orchestrator by itself: what it offers again and what it leaves in its place, what it survives, what
two of them do; and how workers pull what it offers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

import colonies
from colonies import founding, orchestrator, pulling, queueing, sweeping, witness
from colonies.client import Client
from colonies.core import states
from colonies.core.process import Waiting
from colonies.core.states import Offer
from colonies.creds import Credential
from colonies.errors import ProcessFailed, Refused, Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Delivery, Draft, Offers, PullEnded, QueueState
from colonies.orchestrator import Orchestrator
from colonies.queueing import JetStreamMachinery, JetStreamOffers
from colonies.reoffering import LAST_RESORT_S, QueueWatch
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until

PYTHON = {"runtimetype": "python"}
SECOND = 1_000_000_000


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, lease_s=2.0) as colony:
        yield colony
        await verified(colony)


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[RunningColony]:
    """A colony that nobody orchestrates yet."""
    async with running_colony(tmp_path, lease_s=2.0, orchestrate=False) as colony:
        yield colony


async def verified(colony: RunningColony) -> None:
    ledger = colony.owner.ledger
    assert isinstance(ledger, JetStreamLedger)
    assert (await verify_ledger(ledger)).findings == []


def spec(func: str, *args: object, **more: object) -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": PYTHON, **more}


async def becomes(fact: Callable[[], Awaitable[object]], what: str, limit_s: float = 60.0) -> None:
    try:
        async with asyncio.timeout(limit_s):
            while not await fact():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


async def types_of(client: Client, process: str) -> list[str]:
    """The types of its valid events, in order."""
    story = await client.session.story(process)
    valid = [seen.record.event.type for seen in story.judged if seen.record and seen.verdict.valid]
    return [type.removeprefix("process.") for type in valid]


async def is_in(client: Client, process: str, state: str) -> bool:
    return (await client.process(process).get()).state == state


async def service(colony: RunningColony, name: str = "watcher") -> JetStreamMachinery:
    session = await colony.session(name, "service")
    assert isinstance(session.ledger, JetStreamLedger)
    return session.ledger.machinery()


def counted_pulls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Every pull that is sent from now on: its queue, and how long it waits (s)."""
    pulls: list[tuple[str, float]] = []
    pull = JetStreamOffers.pull

    async def counted(self: Offers, queue: str, *, batch: int, wait_s: float, number: int = 0) -> None:
        pulls.append((queue, wait_s))
        await pull(self, queue, batch=batch, wait_s=wait_s, number=number)  # type: ignore[arg-type]

    monkeypatch.setattr(JetStreamOffers, "pull", counted)
    return pulls


class Hand:
    """A worker's rights, used by hand."""

    def __init__(self, offers: Offers) -> None:
        self.offers = offers
        self.kept: list[Delivery] = []

    @staticmethod
    async def of(colony: RunningColony, name: str = "hand") -> Hand:
        return Hand(await (await colony.session(name, "worker")).ledger.offers())

    async def take(self, queue: str, count: int) -> list[Delivery]:
        """Wait until so many offers came from the queue."""
        found: list[Delivery] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                await self.offers.pull(queue, batch=count - len(found), wait_s=5)
                while len(found) < count:
                    arrival = await self.offers.arrival()
                    if isinstance(arrival, PullEnded):
                        await asyncio.sleep(0.1)
                        break
                    found.append(arrival)
        return found

    async def keep(self, deliveries: list[Delivery]) -> None:
        """Hold them for ever, without a word on the ledger."""
        while True:
            for delivery in deliveries:
                await delivery.in_progress()
            await asyncio.sleep(0.3)


# --- offered again, or left in its place ------------------------------------------------------------


@pytest.mark.long
async def test_an_offer_that_went_back_because_no_slot_was_free_keeps_its_place(
    colony: RunningColony,
) -> None:
    order: list[str] = []
    worker = colonies.Worker("python", concurrency=1)

    @worker.function
    async def note(tag: str, pause_s: float = 0.0) -> None:
        order.append(tag)
        await asyncio.sleep(pause_s)

    client = await colony.client()
    await colony.work(worker)
    for priority in (0, 1):  # then a pull is parked in either queue
        await (await client.submit(spec("note", "first", priority=priority))).result(30)
    await asyncio.sleep(0.5)
    long = await client.submit(spec("note", "long", 22.0, priority=1))
    await until(lambda: "long" in order, "the only slot is taken")
    oldest = await client.submit(spec("note", "oldest"))
    await asyncio.sleep(0.5)
    others = await client.submit_many([spec("note", "other")] * 5)
    for handle in [long, oldest, *others]:
        await handle.result(60)
    assert await types_of(client, oldest.id) == ["queued", "assigned", "completed"]
    assert order.index("oldest") < order.index("other")


async def test_an_offer_acknowledged_by_one_who_did_not_take_it_is_offered_again_within_30_s(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    handles = await client.submit_many([spec("sleep", 0)] * 3)
    hand = await Hand.of(colony)
    deliveries = await hand.take((await handles[0].get()).queue, 3)
    lost = handles[1]
    mine = [d for d in deliveries if lost.id in d.stored.subject]
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(hand.keep([d for d in deliveries if d not in mine]))
        await mine[0].ack()  # above the floor: the one before it is still pending

        async def again() -> bool:
            return "requeued" in await types_of(client, lost.id)

        await becomes(again, "it is offered again", 30.0)
        keeping.cancel()
    await colony.spawn("w1")
    for handle in handles:
        await handle.result(60)


async def test_one_who_hides_what_he_acknowledged_behind_a_dead_offer_gains_nothing(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    dead, lost = await client.submit_many([spec("sleep", 0)] * 2)
    hand = await Hand.of(colony)
    deliveries = {d.stored.subject.split(".")[2]: d for d in await hand.take((await dead.get()).queue, 2)}
    await dead.cancel()
    async with asyncio.TaskGroup() as group:
        # As many are pending as are open, so counting them shows nothing.
        keeping = group.create_task(hand.keep([deliveries[dead.id]]))
        await deliveries[lost.id].ack()
        await colony.spawn("w1")
        await lost.result(30)
        keeping.cancel()
    assert "requeued" in await types_of(client, lost.id)


def state(delivered: int, floor: int = 0, pending: int = 1, pulls: int = 0) -> QueueState:
    return QueueState(delivered, floor, pending, pulls)


def waiting(offer: int = 5) -> Waiting:
    return Waiting(Offer("x", offer, 0), 0)


def lost(watch: QueueWatch, state: QueueState, at_s: float, *, offer: int = 5, last: bool = False) -> bool:
    return watch.lost(waiting(offer), state, int(at_s * SECOND), lease_s=2.0, last=last)


def test_what_no_look_explains_otherwise_is_not_lost() -> None:
    watch = QueueWatch()
    assert not lost(watch, state(4), 60), "it is still to be handed out"
    for at_s in range(11, 600, 2):
        assert not lost(watch, state(9), at_s), "nobody pulled: it may stand there"
        watch.look(state(9), [], at_s * SECOND)
    assert lost(watch, state(9), 11 + LAST_RESORT_S + 6, last=True), "nobody is overtaken by it any more"
    assert lost(watch, state(9, floor=5), 11)
    assert lost(watch, state(9, pending=0), 11)


def test_what_was_to_come_back_and_did_not_before_something_new_is_lost() -> None:
    watch = QueueWatch()
    watch.look(state(9), [], 11 * SECOND)
    watch.look(state(12), [], 13 * SECOND)
    assert lost(watch, state(12), 15)
    assert not lost(watch, state(12), 15, offer=10), "it was itself handed out meanwhile"


def test_a_pull_that_waits_shows_that_the_queue_has_nothing_to_give_back() -> None:
    watch = QueueWatch()
    watch.look(state(9, pulls=1), [], 9 * SECOND)
    assert not lost(watch, state(9, pulls=1), 11), "it may have been on its way then"
    watch.look(state(9, pulls=1), [], 11 * SECOND)
    assert lost(watch, state(9, pulls=1), 13)
    watch.look(state(3), [], 15 * SECOND)
    watch.look(state(9), [], 17 * SECOND)
    assert not lost(watch, state(9), 19, offer=5), "a queue that was made anew is looked at anew"


@pytest.mark.long
async def test_a_silent_workers_process_is_offered_again_though_nobody_else_pulls(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    worker = await colony.spawn("w1")
    handle = await client.submit(spec("sleep", 600))
    await becomes(lambda: is_in(client, handle.id, "running"), "it runs")
    running = (await handle.get()).phase
    assert isinstance(running, states.Running)
    await worker.end()
    await becomes(lambda: is_in(client, handle.id, "waiting"), "it waits again")
    process = await handle.get()
    assert isinstance(process.phase, Waiting)
    assert process.phase.since >= running.silent_at()
    assert [attempt.outcome for attempt in process.attempts] == ["lost"]
    await handle.cancel()


async def test_maxwaittime_ends_a_process_that_nobody_takes(colony: RunningColony) -> None:
    client = await colony.client()
    handle = await client.submit(spec("sleep", 0, maxwaittime=1))
    with pytest.raises(ProcessFailed, match="nobody took it within 1 s"):
        await handle.result(30)
    assert await types_of(client, handle.id) == ["queued", "expired"]


# --- timers -----------------------------------------------------------------------------------------


def later_once(delay_s: float) -> colonies.Worker:
    worker = colonies.Worker("python", concurrency=2)

    @worker.function
    async def put_off() -> int:
        if colonies.current().n == 1:
            raise colonies.Later(delay_s, "not yet")
        return colonies.current().n

    return worker


async def test_a_timer_ends_a_backoff_without_the_sweep(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BLOCKED_MARGIN_S", 1e6)
    client = await colony.client()
    await colony.work(later_once(3.0))
    handle = await client.submit(spec("put_off"))
    assert await handle.result(60) == 2


async def test_an_orchestrator_that_starts_derives_the_timers_from_the_ledger(
    quiet: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BLOCKED_MARGIN_S", 1e6)
    client = await quiet.client()
    first, task = await by_hand(quiet)
    handle = await client.submit(spec("put_off"))
    machinery = await service(quiet)
    queue = (await handle.get()).queue

    async def made() -> bool:
        return await machinery.queue_state(queue) is not None

    await becomes(made, "the queue is made")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await first.session.close()
    await first.ledger.close()
    await quiet.work(later_once(4.0))
    await becomes(lambda: is_in(client, handle.id, "blocked"), "it is put off, with no orchestrator to hear")
    await quiet.orchestrate("second")
    assert await handle.result(60) == 2
    await verified(quiet)


# --- what it survives -------------------------------------------------------------------------------


async def test_a_queue_whose_consumer_cannot_be_made_stops_no_other(
    quiet: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await quiet.client()
    stuck = await client.submit(spec("put_off", priority=7))
    queue = (await stuck.get()).queue
    make, refused = JetStreamMachinery.make_queue, [0]

    async def refuses(self: JetStreamMachinery, name: str, *, start: int, lease_s: float) -> None:
        if name == queue:
            refused[0] += 1
            raise Unavailable("the broker does not want it")
        await make(self, name, start=start, lease_s=lease_s)

    with monkeypatch.context() as patch:
        patch.setattr(JetStreamMachinery, "make_queue", refuses)
        await quiet.orchestrate()
        await quiet.work(later_once(0.5))
        assert await (await client.submit(spec("put_off"))).result(30) == 2
        assert refused[0]
    assert await stuck.result(60) == 2


async def by_hand(colony: RunningColony, *, cancel: bool = True) -> tuple[Orchestrator, asyncio.Task[None]]:
    session = await colony.session("orchestrator", "service")
    assert isinstance(session.ledger, JetStreamLedger)
    made = Orchestrator(session, session.ledger.machinery())
    return made, await colony._start(made.run(), made.ready, cancel=cancel)


@pytest.mark.parametrize("error", [Refused("not this one"), RuntimeError("a fault of ours")])
async def test_a_process_of_which_nothing_can_be_said_holds_up_no_other(
    quiet: RunningColony, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    client = await quiet.client()
    made, task = await by_hand(quiet)
    record = made.session.record
    bad: set[str] = set()

    async def refusing(process: str, *args: Any, **kwargs: Any) -> Any:
        if process in bad:
            raise error
        return await record(process, *args, **kwargs)

    monkeypatch.setattr(made.session, "record", refusing)
    await quiet.work(later_once(0.5))
    nobodys = spec("sleep", 0, maxwaittime=1) | {"conditions": {"runtimetype": "nobody"}}
    for _ in range(3):
        bad.add((await client.submit(nobodys)).id)
    bad_one = await client.submit(spec("put_off"))
    bad.add(bad_one.id)
    await becomes(lambda: is_in(client, bad_one.id, "blocked"), "it is put off")
    good = await client.submit(nobodys)
    with pytest.raises(ProcessFailed, match="nobody took it"):
        await good.result(30)
    assert await (await client.submit(spec("put_off"))).result(30) == 2
    assert not task.done()
    bad.clear()
    assert await bad_one.result(30) == 2


async def test_what_an_orchestrator_cannot_fold_or_read_does_not_end_it(
    quiet: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await quiet.client()
    made, task = await by_hand(quiet)
    fold, now = made._history.add, made.ledger.now
    faults: list[str] = []
    bad: list[int] = []

    def failing_add(stored: Any, **kwargs: Any) -> Any:
        if stored.subject.endswith(".declared.ann") and not bad:
            bad.append(stored.sequence)
        if stored.sequence in bad:
            raise RuntimeError("a fault of ours")
        return fold(stored, **kwargs)

    async def failing_now() -> int:
        if faults.count("now") < 3:
            faults.append("now")
            raise RuntimeError("another")
        return await now()

    monkeypatch.setattr(type(made._history), "add", lambda _, stored, **kwargs: failing_add(stored, **kwargs))
    monkeypatch.setattr(made.ledger, "now", failing_now)
    await client.submit(spec("put_off", priority=3))  # its queue is not seen here
    good = await client.submit(spec("put_off"))
    await quiet.work(later_once(0.5))
    assert await good.result(60) == 2
    assert faults.count("now") == 3
    assert bad
    assert not task.done()


async def test_an_orchestrator_that_is_let_in_no_more_ends(quiet: RunningColony) -> None:
    made, task = await by_hand(quiet, cancel=False)
    made.ledger._link._lost = Refused("revoked")  # type: ignore[attr-defined]
    made.ledger._link._gone.set()  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        with pytest.raises(Refused, match="revoked"):
            await task


async def test_it_remembers_few_of_those_that_ended_and_says_nothing_of_the_others(
    quiet: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator, "MAX_FINISHED_KEPT", 3)
    monkeypatch.setattr(states, "REOFFER_AFTER_S", 1)
    client = await quiet.client()
    made, _ = await by_hand(quiet)
    await quiet.spawn("w1")
    handles = await client.submit_many([spec("sleep", 0)] * 10)
    for handle in handles:
        await handle.result(30)
    await until(lambda: len(made._finished) == 3 and not made._history.processes, "all have ended")
    old = next(handle.id for handle in handles if handle.id not in made._finished)
    story = await client.session.story(old)
    first = story.judged[0].stored
    again = await client.ledger.append(Draft(first.subject, first.data, story.guard))
    await until(lambda: old in made._history.processes, "it looks as if it were new")
    await until(lambda: old not in made._history.processes, "it is found out", 60)
    assert (await client.session.story(old)).guard == again, "nothing was said of it"


async def test_two_orchestrators_do_no_harm(colony: RunningColony, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "REOFFER_AFTER_S", 1)
    client = await colony.client()
    await colony.orchestrate("second")
    await colony.work(later_once(1.5))
    hands = {**PYTHON, "workernames": ["hand"]}
    lost_one = await client.submit(spec("sleep", 0) | {"conditions": hands})
    hand = await Hand.of(colony)
    for delivery in await hand.take((await lost_one.get()).queue, 1):
        await delivery.ack()
    handles = await client.submit_many([spec("put_off")] * 20)
    for handle in handles:
        assert await handle.result(60) == 2
        events = await types_of(client, handle.id)
        assert events == ["queued", "assigned", "failed", "requeued", "assigned", "completed"]

    async def again() -> bool:
        return "requeued" in await types_of(client, lost_one.id)

    await becomes(again, "what was lost is offered again")
    await asyncio.sleep(3)
    assert await types_of(client, lost_one.id) == ["queued", "requeued"]


async def test_a_changed_lease_reaches_the_queues_that_are_there(colony: RunningColony) -> None:
    client = await colony.client()
    queue = (await (await client.submit(spec("sleep", 0))).get()).queue
    machinery = await service(colony)

    async def lease_s() -> float | None:
        info = await machinery._info(queue)
        return info["config"]["ack_wait"] / SECOND if info else None

    async def is_lease(wanted: float) -> bool:
        return await lease_s() == wanted

    await becomes(lambda: is_lease(2.0), "the queue has the colony's lease")
    assert (await machinery.queue_state(queue)) is not None
    owner = Credential.read(colony.folder / "owner.creds")
    await founding.found(colony.url, colony.keyring.owner, owner, name="test", lease_s=5.0)
    await becomes(lambda: is_lease(5.0), "the queue has the new lease")


# --- the witness ------------------------------------------------------------------------------------


async def test_a_ledger_that_lost_its_tail_is_noticed(tmp_path: Path) -> None:
    files, copy = tmp_path / "nats", tmp_path / "copy"
    async with running_colony(tmp_path) as colony:
        await colony.client()
        key = colony.owner.ledger.colony
    shutil.copytree(files, copy)
    async with running_colony(tmp_path, found=False) as colony:
        client = await colony.client()
        handles = await client.submit_many([spec("sleep", 0)] * 5)
        last = (await handles[-1].get()).sequence
        await until(lambda: witness.recall(key).sequence >= last, "the witness file is written")
    shutil.rmtree(files)
    shutil.copytree(copy, files)
    with structlog.testing.capture_logs() as logs:
        async with running_colony(tmp_path, found=False) as colony:
            await until(lambda: any("its tail is lost" in log["event"] for log in logs), "the cut is told")
            # It counts on from there: other events stand where those stood that were seen.
            client = await colony.client()
            await client.submit_many([spec("sleep", 1)] * 20)
            await until(lambda: witness.recall(key).sequence > last, "the witness goes on")
        logs.clear()
    assert witness.recall(key).sequence > last


async def test_a_ledger_that_counted_on_after_a_cut_is_noticed(quiet: RunningColony) -> None:
    witness.remember(quiet.owner.ledger.colony, witness.HighWater(2, "00"))
    with structlog.testing.capture_logs() as logs:
        await quiet.orchestrate()
    assert any("the ledger was cut" in log["event"] for log in logs)


# --- how workers pull -------------------------------------------------------------------------------


async def test_queues_of_equal_priority_share(colony: RunningColony) -> None:
    order: list[str] = []
    worker = colonies.Worker("python", concurrency=1)

    @worker.function
    async def note(tag: str) -> None:
        order.append(tag)

    client = await colony.client()
    named = {**PYTHON, "workernames": ["w1"]}
    handles = await client.submit_many([spec("note", "any")] * 60)
    handles += await client.submit_many([{**spec("note", "named"), "conditions": named}] * 60)
    await colony.work(worker, "w1")
    for handle in handles:
        await handle.result(60)
    assert 15 <= order[:50].count("named") <= 35


async def test_a_break_of_the_connection_leaves_one_parked_pull(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "PARK_S", 1.0)
    monkeypatch.setattr(pulling, "SILENT_S", 0.3)
    worker = colonies.Worker("python", concurrency=2)

    @worker.function
    async def sleep(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    client = await colony.client()
    await colony.work(worker)
    await (await client.submit(spec("sleep", 0))).result(30)
    pulls = counted_pulls(monkeypatch)
    await colony.kill_broker()
    await asyncio.sleep(3)  # pulls that are sent now are kept, and go out when the broker is back
    await colony.restart_broker()
    assert await (await client.submit(spec("sleep", 0))).result(60) == 0
    await asyncio.sleep(3)
    pulls.clear()
    await asyncio.sleep(5)
    parked = [wait_s for _, wait_s in pulls if wait_s > 0]
    assert 1 <= len(parked) <= 6, "one pull at a time, parked anew each second"


async def test_a_pull_that_the_broker_refuses_is_not_sent_again_at_once(
    quiet: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "MAX_WAITING", 1)
    await quiet.orchestrate()
    client = await quiet.client()
    await quiet.work(later_once(0.1), "w1")
    await quiet.work(later_once(0.1), "w2")
    assert await (await client.submit(spec("put_off"))).result(30) == 2
    await asyncio.sleep(1)
    pulls = counted_pulls(monkeypatch)
    await asyncio.sleep(4)
    assert 1 <= len(pulls) <= 20
    assert await (await client.submit(spec("put_off"))).result(30) == 2
