"""The worker: pulls offers of every queue that it serves, runs them, reports what came of them.

    worker = colonies.Worker("python")

    @worker.function
    def double(n: int) -> int:
        return 2 * n

A function returns (successful), raises (tried again if the spec allows), raises `Fail` (failed for good) or
`Later` (waits, not counted). It verifies what it runs, runs nothing that it does not hold, and kills what it
no longer holds. It never decides what is true: the ledger does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, overload

import structlog

from colonies import subjects, values
from colonies.attempt import Attempt
from colonies.calls import Function
from colonies.core import events as facts
from colonies.core.events import (
    MAX_DELAY_S,
    MAX_ERROR_CHARS,
    Assigned,
    Completed,
    Failed,
    Poisoned,
    Renewed,
    Returned,
)
from colonies.core.process import (
    MAX_LOST_IN_A_ROW,
    SECOND,
    Process,
    Running,
    Waiting,
    lost_in_a_row,
)
from colonies.core.spec import serves
from colonies.errors import ColoniesError, Conflict, Invalid, Refused, Unavailable
from colonies.execution import Fail, Later, Work, run_function
from colonies.history import Story, judge_process
from colonies.ids import new_token
from colonies.ledger import Delivery, Offers, PullEnded, Stored
from colonies.session import Session

P = ParamSpec("P")
R = TypeVar("R")

PARK_S = 30.0
EXTRA_WAIT_S = 0.05
MISSING_WAIT_S = 0.05
MAX_BACKOFF_S = 300.0
RENEW_LEASES = 10
RENEW_MAX_S = 300.0
BOTTOM_SWEEP_EVERY = 10

_log = structlog.get_logger("colonies.worker")


@dataclass(slots=True)
class _Held:
    """An attempt that this instance holds: the story it knows, its delivery, the task that runs it."""

    story: Story
    attempt: Attempt
    delivery: Delivery
    renewed: float
    task: asyncio.Task[None] | None = None
    ended: str | None = None


@dataclass(slots=True)
class _Queues:
    """Which of the served queues may have offers (`ready`) and which were found empty (`parked`)."""

    served: dict[str, int] = field(default_factory=dict)
    parked: set[str] = field(default_factory=set)
    retry_at: dict[str, float] = field(default_factory=dict)
    pulling: str | None = None


class Worker:
    """A worker of one runtime type. `concurrency`: how many processes it runs at a time, by default one for
    each core."""

    def __init__(
        self, runtimetype: str = "python", *, concurrency: int | None = None, backoff_s: float = 1.0
    ) -> None:
        if concurrency is not None and not 1 <= concurrency <= 10_000:
            raise Invalid(f"concurrency: {concurrency}; 1 to 10000 are allowed")
        self.runtimetype = runtimetype
        self.concurrency = concurrency or os.cpu_count() or 1
        self.backoff_s = backoff_s
        self.functions: dict[str, Function[Any, Any]] = {}

    @overload
    def function(self, function: Callable[P, R], /) -> Function[P, R]: ...
    @overload
    def function(
        self, *, name: str | None = None, **options: Any
    ) -> Callable[[Callable[P, R]], Function[P, R]]: ...
    def function(
        self, function: Callable[P, R] | None = None, *, name: str | None = None, **options: Any
    ) -> Any:
        """Offer a function. `options` are spec fields that its calls start from, `maxretries=3` for one."""

        def offer(function: Callable[P, R]) -> Function[P, R]:
            made = Function(function, self.runtimetype, name, **options)
            if made.name in self.functions:
                raise Invalid(f"{made.name}: this worker has a function of that name already")
            self.functions[made.name] = made
            return made

        return offer(function) if function is not None else offer

    async def execute(self, work: Work) -> Any:
        """Run one attempt; returns its output. Other kinds of workers say here what running means."""
        return await run_function(self.functions, work)

    def describe(self) -> list[facts.Function]:
        """The functions as they are published on the ledger."""
        return [facts.Function(f.name, f.description[:4_096], f.schema) for f in self.functions.values()]

    async def run(
        self,
        *,
        context: str | None = None,
        url: str | None = None,
        creds: str | os.PathLike[str] | None = None,
        grace_s: float = 10.0,
    ) -> None:
        """Work until SIGTERM or SIGINT, then finish within `grace_s` seconds or give back what still runs."""
        from colonies.connection import open_session

        session = await open_session(context=context, url=url, creds=creds)
        instance = Instance(self, session)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, instance.stop, grace_s)
        try:
            await instance.run()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                    loop.remove_signal_handler(number)
            await session.close()
            await session.ledger.close()


class Instance:
    """One running instance of a worker, on one session."""

    def __init__(self, worker: Worker, session: Session) -> None:
        self.worker = worker
        self.session = session
        self.ledger = session.ledger
        self.id = new_token(8)
        self.ready = asyncio.Event()
        self._held: dict[str, _Held] = {}
        self._taking = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._queues = _Queues()
        self._sweeps = 0
        self._stopping = asyncio.Event()
        self._grace_s = 10.0
        self._stops = 0
        self._wake = asyncio.Event()
        self._check_held = asyncio.Event()
        self._last_beat = time.monotonic()

    @property
    def lease_s(self) -> float:
        return self.session.colony.lease_s

    def stop(self, grace_s: float = 10.0) -> None:
        """Stop pulling; finish what runs within `grace_s` seconds; a second call gives it back at once."""
        self._stops += 1
        self._grace_s = grace_s if self._stops == 1 else 0.0
        self._stopping.set()
        self._wake.set()

    # --- life ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            Refused: this member is no worker, or is revoked.
        """
        if self.session.role != "worker":
            raise Refused(f"{self.session.name} is a {self.session.role}; only a worker takes processes")
        log = _log.bind(colony=self.session.colony.name, worker=self.session.name, instance=self.id)
        self.ledger.on_gap(self._check_held.set)
        cancels = await self.ledger.subscribe(subjects.ALL_CANCELS, self._on_cancel)
        offers = await self.ledger.offers()
        await self.session.record_entity(
            "worker",
            self.session.name,
            facts.WorkerStarted(
                self.id, self.worker.runtimetype, self.worker.concurrency, self.worker.describe()
            ),
        )
        await self._beat()
        log.info("worker ready", runtimetype=self.worker.runtimetype, concurrency=self.worker.concurrency)
        self.ready.set()
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(self._receive(offers), name="receive"),
                    group.create_task(self._pull(offers), name="pull"),
                    group.create_task(self._keep_alive(), name="keep alive"),
                    group.create_task(self._watch_connection(), name="connection"),
                ]
                await self._stopping.wait()
                helpers[1].cancel()
                await self._finish_or_return(log)
                for helper in helpers:
                    helper.cancel()
        except* ColoniesError as group_error:
            raise group_error.exceptions[0] from None
        finally:
            await self._abandon()
            await cancels.close()
            await offers.close()
            with contextlib.suppress(ColoniesError, TimeoutError):
                async with asyncio.timeout(2):
                    await self.session.record_entity(
                        "worker", self.session.name, facts.WorkerStopped(self.id)
                    )
            log.info("worker stopped")

    async def _finish_or_return(self, log: Any) -> None:
        deadline = time.monotonic() + self._grace_s
        running = {held.task for held in self._held.values() if held.task is not None} | self._tasks
        if running:
            log.info("finishing", running=len(running), grace_s=self._grace_s)
        stops = self._stops
        while running and time.monotonic() < deadline and self._stops == stops:
            await asyncio.wait(running, timeout=0.1)
            running = {task for task in running if not task.done()}
        for held in list(self._held.values()):
            if held.task is not None and not held.task.done():
                held.ended = "returned"
                held.task.cancel()
        tasks = [held.task for held in self._held.values() if held.task is not None]
        await asyncio.gather(*tasks, *self._tasks, return_exceptions=True)

    async def _abandon(self) -> None:
        """Whatever still runs after an error of our own is killed; its lease will lapse."""
        tasks = [held.task for held in self._held.values() if held.task is not None] + list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch_connection(self) -> None:
        while True:
            lost = getattr(self.ledger, "lost", None)
            if lost is not None:
                raise lost
            await asyncio.sleep(0.5)

    # --- pulling -------------------------------------------------------------------------------------

    @property
    def _free(self) -> int:
        return self.worker.concurrency - len(self._held) - self._taking

    def _refresh_queues(self) -> None:
        self.session.queues_changed.clear()
        served = {
            queue.id: queue.priority
            for queue in self.session.colony.queues.values()
            if serves(queue.conditions, name=self.session.name, runtimetype=self.worker.runtimetype)
        }
        self._queues.served = served

    async def _pull(self, offers: Offers) -> None:
        queues = self._queues
        self._refresh_queues()
        while True:
            self._wake.clear()
            if self.session.queues_changed.is_set():
                self._refresh_queues()
            now = time.monotonic()
            if self._free > 0 and queues.pulling is None:
                queue = self._next_queue(now)
                if queue is not None:
                    queues.pulling = queue
                    await offers.pull(queue, batch=self._free, wait_s=0)
            delays = [at - now for at in queues.retry_at.values()]
            waits = [self._wake.wait(), self.session.queues_changed.wait()]
            await _first(waits, timeout=max(0.0, min(delays)) if delays else None)

    def _next_queue(self, now: float) -> str | None:
        """The most urgent queue that may have offers; now and then the least urgent, so nothing starves."""
        queues = self._queues
        for queue in [queue for queue, at in queues.retry_at.items() if at <= now]:
            del queues.retry_at[queue]
        ready = [q for q in queues.served if q not in queues.parked and q not in queues.retry_at]
        if not ready:
            return None
        self._sweeps += 1
        pick = min if self._sweeps % BOTTOM_SWEEP_EVERY == 0 else max
        return pick(ready, key=lambda queue: queues.served[queue])

    async def _receive(self, offers: Offers) -> None:
        while True:
            arrival = await offers.arrival()
            queues = self._queues
            if isinstance(arrival, PullEnded):
                await self._pull_ended(offers, arrival)
                continue
            queues.parked.discard(arrival.queue)
            if queues.pulling == arrival.queue:
                queues.pulling = None
            if self._free <= 0 or self._stopping.is_set():
                await arrival.nak()
                continue
            self._taking += 1
            task = asyncio.create_task(self._take(arrival))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._wake.set()

    async def _pull_ended(self, offers: Offers, ended: PullEnded) -> None:
        queues = self._queues
        swept = queues.pulling == ended.queue
        if swept:
            queues.pulling = None
        was_parked = ended.queue in queues.parked
        queues.parked.discard(ended.queue)
        if ended.missing:
            queues.retry_at[ended.queue] = time.monotonic() + MISSING_WAIT_S
        elif swept or was_parked:
            if not self._stopping.is_set() and ended.queue in queues.served:
                queues.parked.add(ended.queue)
                await offers.pull(ended.queue, batch=1, wait_s=PARK_S)
        self._wake.set()

    # --- taking --------------------------------------------------------------------------------------

    async def _take(self, delivery: Delivery) -> None:
        held: _Held | None = None
        try:
            held = await self._assign(delivery)
            if held is not None:
                self._held[held.attempt.process] = held
        except (Unavailable, Refused) as error:
            _log.warning("offer not taken", error=str(error))
            await delivery.nak(1.0)
        except Exception:
            _log.exception("offer not taken")
            await delivery.nak(1.0)
        finally:
            self._taking -= 1
            self._wake.set()
        if held is not None:
            held.task = asyncio.current_task()
            await self._run(held)

    async def _assign(self, delivery: Delivery) -> _Held | None:
        """Verify the offer and assign the process to us; None: not ours to take, and the offer is dealt with."""
        story = await self._first_story(delivery)
        if story is None:
            story = await self.session.story(subjects.process_of_feed(delivery.stored.subject))
        for _ in range(10):
            if not await self._may_take(delivery, story):
                return None
            process = story.process
            assert process is not None and isinstance(process.phase, Waiting | Running)
            takeover = isinstance(process.phase, Running)
            if lost_in_a_row(process, await self.ledger.now()) >= MAX_LOST_IN_A_ROW:
                await self.session.record(process.id, Poisoned(), at=story)
                await delivery.ack()
                return None
            event = Assigned(process.phase.offer.id, self.lease_s, self.id)
            try:
                story = await self.session.record(process.id, event, at=story)
            except Conflict:
                story = await self.session.story(process.id)
                continue
            if takeover:
                mine = story.process
                story = await self.session.story(process.id)
                if mine is None or story.process is None or story.process.attempts[-1:] != mine.attempts[-1:]:
                    if not self._holds_last(story):
                        continue
            return self._hold(delivery, story)
        await delivery.nak(1.0)
        return None

    def _holds_last(self, story: Story) -> bool:
        process = story.process
        return (
            process is not None
            and isinstance(process.phase, Running)
            and process.attempts[-1].instance == self.id
            and process.attempts[-1].worker == self.session.name
        )

    def _hold(self, delivery: Delivery, story: Story) -> _Held:
        process = story.process
        assert process is not None
        last = process.attempts[-1]
        attempt = Attempt(self.session, process.id, last.n, last.id, process.spec)
        return _Held(story, attempt, delivery, time.monotonic())

    async def _first_story(self, delivery: Delivery) -> Story | None:
        """The story of a process that was never touched, from its offer alone: the broker said it stood alone."""
        stored = delivery.stored
        if not stored.alone or delivery.deliveries > 1:
            return None
        seen = await self.session.examine(stored)
        process, seen = judge_process(self.session.colony, None, seen)
        return Story(process, [seen], stored.sequence) if seen.verdict.valid else None

    async def _may_take(self, delivery: Delivery, story: Story) -> bool:
        """Redelivery by the book (DESIGN.md section 4): taken, put off, or acknowledged and left."""
        process = story.process
        offered = delivery.stored.sequence
        match process.phase if process else None:
            case Waiting(offer=offer) if offer.sequence == offered:
                return True
            case Running(offer=offer) as running if process and offer.sequence == offered:
                held = self._held.get(process.id)
                if held is not None and held.attempt.id == process.attempts[-1].id:
                    held.delivery = delivery
                    await delivery.in_progress()
                    return False
                left_s = await self._lease_left_s(process, running)
                if left_s <= 0:
                    return True
                await delivery.nak(left_s + EXTRA_WAIT_S)
                return False
            case _:
                await delivery.ack()
                return False

    async def _lease_left_s(self, process: Process, running: Running) -> float:
        """How long the holder's lease still lasts: from its last sign on the ledger or its last heartbeat."""
        last = process.attempts[-1]
        now = await self.ledger.now()
        alive_until = running.lapses_at()
        for beat in await self.ledger.emitted(subjects.heartbeat(last.worker, last.instance)):
            if process.id in self._beating(beat):
                alive_until = max(alive_until, beat.time + int(running.lease_s * SECOND))
        return (alive_until - now) / SECOND

    def _beating(self, beat: Stored) -> dict[str, Any]:
        from colonies.heartbeats import read_heartbeat

        found = read_heartbeat(self.session.colony, beat)
        return found.attempts if found else {}

    # --- running -------------------------------------------------------------------------------------

    async def _run(self, held: _Held) -> None:
        process = held.story.process
        assert process is not None
        attempt = held.attempt
        log = _log.bind(colony=self.session.colony.name, process=process.id, attempt=attempt.n)
        log.debug("running", func=process.spec.func)
        try:
            event = await self._outcome(process, held)
            if event is not None:
                await self._report(held, event, log)
        except asyncio.CancelledError:
            await asyncio.shield(self._gone(held, log))
            if held.ended is None:
                raise
        except Exception:
            log.exception("attempt ended unexpectedly")
        finally:
            self._held.pop(process.id, None)
            self._wake.set()

    async def _outcome(self, process: Process, held: _Held) -> Completed | Failed | None:
        """Run it; the event that says how it ended."""
        attempt = held.attempt
        limit_s = process.spec.maxexectime
        stored = None
        try:
            args, kwargs = list(process.spec.args), dict(process.spec.kwargs)
            if process.arguments is not None:
                args, kwargs = await values.load(self.ledger, process.arguments)
            work = Work(process.spec, args, kwargs, attempt)
            async with asyncio.timeout(limit_s):
                output = await self.worker.execute(work)
            output, stored = await values.store(self.ledger, self.session.name, output, "the output")
            return Completed(attempt.id, output, stored, await attempt.close())
        except TimeoutError as error:
            timed_out = limit_s is not None and error.__class__ is TimeoutError and not error.args
            if timed_out:
                text, kind = f"timed out: it ran longer than its maxexectime of {limit_s:g} s", "timeout"
            else:
                text, kind = _described(error), "error"
        except Later as later:
            delay = min(max(0.0, later.delay_s), MAX_DELAY_S)
            return Failed(
                attempt.id, str(later)[:MAX_ERROR_CHARS], "later", delay, logs=await attempt.close()
            )
        except (Fail, Invalid) as error:
            text, kind = str(error) or type(error).__name__, "final"
        except Unavailable:
            raise
        except Exception as error:
            text, kind = _described(error), "error"
        delay = self._backoff_s(process.failures)
        return Failed(
            attempt.id,
            text[:MAX_ERROR_CHARS],
            kind,
            delay if kind != "final" else 0.0,
            None,
            await attempt.close(),
        )

    def _backoff_s(self, failures: int) -> float:
        """Exponential, with jitter: between half and all of `backoff_s` doubled per failure, at most 5 min."""
        full = min(MAX_BACKOFF_S, self.worker.backoff_s * 2.0 ** min(failures, 30))
        return round(full * random.uniform(0.5, 1.0), 3)

    async def _report(self, held: _Held, event: Completed | Failed, log: Any) -> None:
        """Record how it ended, for as long as it takes; a result that comes too late is noted as refused."""
        wait_s = 0.1
        while True:
            try:
                await self.session.record(held.attempt.process, event, at=held.story)
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

    async def _note_refused(self, held: _Held, event: Completed | Failed, reason: str) -> None:
        data: dict[str, Any] = {"event": event.type, "reason": reason}
        if isinstance(event, Failed):
            data["error"] = event.error[:1_000]
        await held.attempt.note("log.refused", data)

    async def _gone(self, held: _Held, log: Any) -> None:
        """The task was stopped from outside: the process was cancelled, taken over, or we are leaving."""
        attempt = held.attempt
        with contextlib.suppress(ColoniesError):
            await attempt.flush()
        if held.ended == "returned":
            try:
                await self.session.record(
                    attempt.process, Returned(attempt.id, "the worker is stopping"), at=held.story
                )
                await held.delivery.nak()
                log.info("given back")
            except ColoniesError as error:
                log.warning("not given back; its lease will lapse", error=str(error))
        elif held.ended is not None:
            log.info("stopped", reason=held.ended)
            await attempt.note("log.stopped", {"reason": held.ended})
            await held.delivery.ack()

    # --- staying alive -------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        """Every third of a lease: extend, beat, and look whether we still hold what we run."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._check_held.wait(), self.lease_s / 3)
            self._check_held.clear()
            try:
                await self._drop_what_is_lost()
                for held in list(self._held.values()):
                    await held.delivery.in_progress()
                await self._beat()
                await self._renew()
            except Unavailable as error:
                _log.debug("no heartbeat", error=str(error))
                await asyncio.sleep(0.1)

    async def _beat(self) -> None:
        subject = subjects.heartbeat(self.session.name, self.id)
        attempts: dict[str, Any] = {}
        for held in self._held.values():
            progress = held.attempt.last_progress
            attempts[held.attempt.process] = [
                held.attempt.id,
                *([progress.fraction, progress.message] if progress else []),
            ]
        data = {
            "instance": self.id,
            "runtimetype": self.worker.runtimetype,
            "concurrency": self.worker.concurrency,
            "attempts": attempts,
        }
        now = await self.ledger.now()
        await self.ledger.emit(subject, self.session.seal_note(subject, "heartbeat", now, data))
        self._last_beat = time.monotonic()

    async def _drop_what_is_lost(self) -> None:
        """Compare the last sequences of all we run with what we know; read those that moved."""
        if not self._held:
            return
        guards = {subjects.guard_of("process", process): held for process, held in self._held.items()}
        for guard, sequence in (await self.ledger.last_of(list(guards))).items():
            held = guards.get(guard)
            if held is None or sequence <= held.story.guard or held.ended is not None:
                continue
            story = await self.session.story(held.attempt.process)
            process = story.process
            if (
                process is not None
                and isinstance(process.phase, Running)
                and process.attempts[-1].id == held.attempt.id
            ):
                held.story = story
            elif process is not None:
                self._let_go(held, f"the process is {process.state}" if process.final else "its lease lapsed")

    def _let_go(self, held: _Held, reason: str) -> None:
        if held.ended is None and held.task is not None and not held.task.done():
            held.ended = reason
            held.task.cancel()

    def _on_cancel(self, stored: Stored) -> None:
        """A hint from the feed; the ledger is asked before anything is stopped."""
        if subjects.process_of_feed(stored.subject) in self._held:
            self._check_held.set()

    async def _renew(self) -> None:
        after_s = min(RENEW_LEASES * self.lease_s, RENEW_MAX_S)
        for held in list(self._held.values()):
            if time.monotonic() - held.renewed < after_s or held.ended is not None:
                continue
            try:
                held.story = await self.session.record(
                    held.attempt.process, Renewed(held.attempt.id), at=held.story
                )
                held.renewed = time.monotonic()
            except Conflict:
                self._check_held.set()


def _described(error: BaseException) -> str:
    """An exception as one would like to read it: its type and message, and where in the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if os.sep + "colonies" + os.sep not in frame.filename]
    place = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno} in {own[-1].name})" if own else ""
    return f"{type(error).__name__}: {error}{place}" if str(error) else f"{type(error).__name__}{place}"


async def _first(waits: list[Any], timeout: float | None) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
