"""One running instance of a worker: takes offers, runs them, reports, gives back what it cannot finish.

    offer ──verified, assigned──> held ──executed──> completed or failed, then acknowledged
                                   │ └──cancelled or taken over: killed, noted, acknowledged
                                   └──stopping: returned to the queue

It runs nothing that it does not hold by the ledger's word, and reports nothing as done that is not recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import structlog

from colonies import subjects
from colonies.attempt import Attempt
from colonies.core import events as facts
from colonies.core.capacity import Candidate, Pool, Share
from colonies.core.events import MAX_REASON_CHARS, Assigned, Completed, Failed, Poisoned, Returned
from colonies.core.process import MAX_LOST_IN_A_ROW, Running, Waiting, lost_in_a_row
from colonies.core.spec import Conditions
from colonies.errors import ColoniesError, Conflict, Refused, Unavailable
from colonies.execution import NotHere
from colonies.hearing import logging_to_attempts
from colonies.history import Judged, Story, judge_process
from colonies.ids import new_id, new_token
from colonies.inputs import Inputs
from colonies.ledger import Delivery, Stored
from colonies.liveness import Held, Liveness, lease_left_s
from colonies.outcome import outcome_of
from colonies.pulling import CLOSED_S, Puller
from colonies.registered import Registered
from colonies.releasing import Releases
from colonies.session import Session
from colonies.signals import Signals
from colonies.tasks import first_error
from colonies.worker import Worker

EARLY_S = 0.05
RETURN_WAIT_S = 1.0
MAX_TRIES = 10
STOP_NOTE_S = 2.0

_log = structlog.get_logger("colonies.worker")


class Instance:
    """A worker at work on one session. `id` tells the instances of one name apart."""

    def __init__(self, worker: Worker, session: Session) -> None:
        self.worker = worker
        self.session = session
        self.ledger = session.ledger
        self.id = new_token(8)
        self.ready = asyncio.Event()
        self._held: dict[str, Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._alive = Liveness(session, self.id, worker.runtimetype, worker.concurrency, self._held)
        self._candidate = Candidate(session.name, worker.runtimetype, worker.find_capacity())
        self._pool = Pool(self._candidate.has)
        self._inputs, self._signals = Inputs(session), Signals(session)
        self._registered = Registered(session, worker)
        self._releases = Releases(session)
        self._learning: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by workflow
        self._began = time.monotonic()
        self._puller: Puller | None = None
        self._stopping = asyncio.Event()
        self._grace_s = 0.0
        self._stops, self._returning = 0, False

    def stop(self, grace_s: float = 10.0) -> None:
        """Stop pulling; finish what runs within `grace_s` seconds; a second call gives it back at once."""
        self._stops += 1
        self._grace_s = grace_s if self._stops == 1 else 0.0
        self._stopping.set()

    # --- life ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            Refused: this member is no worker, or is revoked.
        """
        if self.session.role != "worker":
            raise Refused(
                f"{self.session.name} has the role {self.session.role}; only a worker takes processes"
            )
        log = _log.bind(colony=self.session.colony.name, worker=self.session.name, instance=self.id)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.worker.lifespan())
            stack.enter_context(logging_to_attempts())
            cancels = await self.ledger.subscribe(subjects.ALL_CANCELS, self._alive.on_cancel)
            stack.push_async_callback(cancels.close)
            offers = await self.ledger.offers()
            stack.push_async_callback(offers.close)
            puller = self._puller = Puller(
                self.session, self._candidate, offers, room=self._room, take=self._start
            )
            await self._say_started()
            stack.push_async_callback(self._say_stopped)
            stack.push_async_callback(self._abandon)
            if type(self.worker) is Worker and not self.worker.functions:
                log.warning("this worker has no functions: whatever it takes will fail")
            log.info("worker ready", runtimetype=self.worker.runtimetype, slots=self.worker.concurrency)
            self.ready.set()
            await self._work(puller, log)
        log.info("worker stopped")

    async def _work(self, puller: Puller, log: Any) -> None:
        with first_error():
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(puller.receive(), name="receive offers"),
                    group.create_task(puller.sweep(), name="sweep queues"),
                    group.create_task(self._alive.run(), name="stay alive"),
                    group.create_task(self.ledger.lost(), name="watch connection"),
                ]
                await self._stopping.wait()
                puller.stop()
                await self._finish_or_return(log)
                for loop in loops:
                    loop.cancel()

    async def _say_started(self) -> None:
        worker = self.worker
        has = self._candidate.has
        event = facts.WorkerStarted(self.id, worker.runtimetype, worker.concurrency, worker.describe(), has)
        await self.session.record_entity("worker", self.session.name, event)
        await self._alive.beat()

    async def _say_stopped(self) -> None:
        with contextlib.suppress(ColoniesError, TimeoutError):
            async with asyncio.timeout(STOP_NOTE_S):
                event = facts.WorkerStopped(self.id)
                await self.session.record_entity("worker", self.session.name, event)

    async def _finish_or_return(self, log: Any) -> None:
        deadline = time.monotonic() + self._grace_s
        stops = self._stops
        if self._tasks:
            log.info("finishing", running=len(self._tasks), grace_s=self._grace_s)
        while self._tasks and time.monotonic() < deadline and self._stops == stops:
            await asyncio.wait(self._tasks, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
        self._returning = True
        while self._tasks:
            for held in self._held.values():
                held.let_go("returned")
            await asyncio.wait(self._tasks, timeout=0.1)

    async def _abandon(self) -> None:
        """Whatever still runs after an error of our own is killed; its lease will lapse."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- taking --------------------------------------------------------------------------------------

    def _room(self, conditions: Conditions) -> int:
        """How many more processes of a queue with these conditions fit now."""
        slots = self.worker.concurrency - len(self._tasks)
        if slots <= 0 or not self._here_for(conditions):
            return 0
        return self._pool.room(conditions, slots)

    def _here_for(self, conditions: Conditions) -> bool:
        """Will this instance be there for as long as such a process may take?"""
        walltime = self._candidate.has.walltime
        return walltime is None or (conditions.walltime or 0.0) <= walltime - (time.monotonic() - self._began)

    def _start(self, delivery: Delivery, conditions: Conditions) -> bool:
        """Take an offer of a queue with these conditions. False: there is no room for it."""
        share = self._pool.take(conditions) if self._room(conditions) > 0 else None
        if share is None:
            return False
        task = asyncio.create_task(self._take_and_run(delivery, share))
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, share))
        return True

    def _done(self, share: Share, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._pool.give_back(share)
        if self._puller is not None:
            self._puller.wake()

    async def _take_and_run(self, delivery: Delivery, share: Share) -> None:
        try:
            held = await self._assign(delivery, share)
        except Conflict:
            await delivery.nak(EARLY_S)
            return
        except (Unavailable, Refused) as error:
            _log.warning("offer not taken", error=str(error))
            await delivery.nak(1.0)
            return
        except Exception:
            _log.exception("offer not taken")
            await delivery.nak(1.0)
            return
        if held is None:
            return
        if self._returning:
            held.ended = "returned"
            await self._let_go(held, _log.bind(process=held.attempt.process, attempt=held.attempt.n))
            return
        held.task = asyncio.current_task()
        process = held.attempt.process
        self._held[process] = held
        try:
            await self._run(held)
        finally:
            if self._held.get(process) is held:
                del self._held[process]
        if held.finished is not None and held.finished.workflow is not None:
            await self._releases.release_children(held.finished)

    async def _assign(self, delivery: Delivery, share: Share) -> Held | None:
        """Verify the offer and assign its process to us. None: not ours to take; the offer is dealt with."""
        story = await self._untouched(delivery)
        surely_free = story is not None
        if story is None:
            story = await self.session.story(subjects.process_of(delivery.stored.subject))
        for _ in range(MAX_TRIES):
            if not await self._may_take(delivery, story):
                return None
            if self._puller is not None and self._puller.closed(delivery.queue):  # paused this moment
                await delivery.nak(CLOSED_S)
                return None
            process = story.process
            assert process is not None
            assert isinstance(process.phase, Waiting | Running)
            if await self._registered.leaves(delivery, process.spec, self._puller):
                return None
            if lost_in_a_row(process, await self.ledger.now()) >= MAX_LOST_IN_A_ROW:
                await self.session.record(process.id, Poisoned(), at=story)
                await delivery.ack()
                return None
            code = self.worker.code_of(process.spec.func)
            event = Assigned(process.phase.offer.id, self.session.colony.lease_s, self.id, code)
            try:
                # Once: whether its holder lives, should it have one by now, only `_may_take` asks.
                id = new_id()
                story = await self.session.record(process.id, event, at=story, id=id, once=True)
            except Conflict:
                surely_free = False
                story = await self.session.story(process.id)
                continue
            if not surely_free:  # void: by the broker's clock the lease before it had not lapsed, for example
                story = await self.session.story(process.id)
            if _holds(story, id):  # the answer may have taken so long that another has finished it by now
                return self._hold(delivery, story, share)
            surely_free = False
        raise Conflict(
            f"process {subjects.process_of(delivery.stored.subject)}: others were faster, again and again"
        )

    async def _untouched(self, delivery: Delivery) -> Story | None:
        """The story of a process that nobody has touched, from its offer alone, which stood alone."""
        stored = delivery.stored
        own = await self._releases.story_of(stored)
        if not stored.alone or delivery.deliveries > 1:
            return None
        if own is not None:
            return own
        seen = await self.session.examine(stored)
        await self._learn(stored, seen)
        process, seen = judge_process(self.session.colony, None, seen, self.session.knowledge)
        return Story(process, [seen], stored.sequence) if seen.verdict.valid else None

    async def _learn(self, offer: Stored, seen: Judged) -> None:
        """Learn what is needed to judge an offer. Of a workflow that is new here, many may come at once: the
        first of them reads it for all."""
        knowledge = self.session.knowledge
        event = seen.record.event if seen.record is not None else None
        if isinstance(event, facts.Released) and knowledge.workflow(event.workflow) is None:
            async with self._learning.setdefault(event.workflow, asyncio.Lock()):
                if knowledge.workflow(event.workflow) is None:
                    await knowledge.learn([offer], fresh=False)
                    return
        await knowledge.learn([offer], fresh=False)

    async def _may_take(self, delivery: Delivery, story: Story) -> bool:
        """Redelivery by the book (DESIGN.md section 4): taken, put off, or acknowledged and left."""
        process = story.process
        offered = delivery.stored.sequence
        match process.phase if process is not None else None:
            case Waiting(offer=offer) if offer.sequence == offered:
                return True
            case Running(offer=offer) as running if process is not None and offer.sequence == offered:
                held = self._held.get(process.id)
                if held is not None and held.attempt.id == process.attempts[-1].id:
                    held.delivery = delivery
                    await delivery.in_progress()
                    return False
                left_s = await lease_left_s(self.session, process, running)
                if left_s <= 0:
                    return True
                await delivery.nak(left_s + EARLY_S)
                return False
            case _:
                await delivery.ack()
                return False

    def _hold(self, delivery: Delivery, story: Story, share: Share) -> Held:
        assert story.process is not None
        last = story.process.attempts[-1]
        devices = tuple(device.id for device in share.devices)
        process = story.process
        attempt = Attempt(
            *(self.session, process.id, last.n, last.id, process.spec, devices),
            workflow=process.workflow,
            node=process.node,
            signals=self._signals,
            trace=process.trace,
        )
        return Held(story, attempt, delivery, time.monotonic())

    # --- running -------------------------------------------------------------------------------------

    async def _run(self, held: Held) -> None:
        process = held.story.process
        assert process is not None
        log = _log.bind(colony=self.session.colony.name, process=process.id, attempt=held.attempt.n)
        try:
            held.outcome = await outcome_of(self.worker, self.session, process, held.attempt, self._inputs)
            await self._report(held, held.outcome, log)
        except asyncio.CancelledError:
            await asyncio.shield(self._let_go(held, log))
            if held.ended is None:
                raise
        except NotHere as error:
            log.warning("cannot be run here now", error=str(error))
            held.ended = "returned"
            await self._let_go(held, log, str(error), RETURN_WAIT_S)
        except Exception:
            log.exception("attempt ended unexpectedly; its lease will lapse")

    async def _report(self, held: Held, event: Completed | Failed, log: Any) -> None:
        """Record how it ended, for as long as it takes; a result that comes too late is noted as refused."""
        wait_s = 0.1
        while True:
            try:
                held.finished = (
                    await self.session.record(held.attempt.process, event, at=held.story)
                ).process
                break
            except (Conflict, Refused) as error:
                log.warning("result refused", reason=str(error))
                await self._note_refused(held, event, str(error))
                break
            except Unavailable as error:
                log.warning("result not recorded yet", error=str(error))
                await asyncio.sleep(wait_s)
                wait_s = min(2.0, wait_s * 2)
        await held.delivery.ack()

    async def _note_refused(self, held: Held, event: Completed | Failed, reason: str) -> None:
        data: dict[str, Any] = {"event": event.type, "reason": reason}
        if isinstance(event, Failed):
            data["error"] = event.error[:1_000]
        await held.attempt.note("log.refused", data)

    async def _let_go(
        self, held: Held, log: Any, reason: str = "the worker is stopping", wait_s: float = 0.0
    ) -> None:
        """The work was stopped from outside: cancelled, taken over, or we are leaving.

        A result in hand is recorded; only what has none is given back.
        """
        attempt = held.attempt
        with contextlib.suppress(ColoniesError):
            await attempt.flush()
        if held.ended == "returned":
            try:
                event = held.outcome or Returned(attempt.id, reason[:MAX_REASON_CHARS])
                await self.session.record(attempt.process, event, at=held.story)
                if held.outcome is not None:
                    await held.delivery.ack()
                    return
                await held.delivery.nak(wait_s)
                log.info("given back")
            except ColoniesError as error:
                log.warning("not given back; its lease will lapse", error=str(error))
        elif held.ended is not None:
            log.info("stopped", reason=held.ended)
            await attempt.note("log.stopped", {"reason": held.ended})
            await held.delivery.ack()


def _holds(story: Story, id: str) -> bool:
    """Is the attempt whose `assigned` has this id the one that holds the process?"""
    process = story.process
    return process is not None and isinstance(process.phase, Running) and process.attempts[-1].id == id
