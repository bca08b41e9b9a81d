"""The orchestrator: keeps the queues' consumers, ends backoffs, offers again what was lost, lets expire.

It follows the ledger, verifying every event, and holds only the processes that are not final. All it says is
guarded and cites what makes it true, so two orchestrators, or one that repeats itself, do no harm; killed at
any point, it derives everything anew from the ledger. What fails for one queue or process is logged, tried
again, and holds up no other. It never runs work and can invent none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import structlog

from colonies import subjects
from colonies.conducting import Conductor
from colonies.core.events import ProcessEvent, Requeued
from colonies.core.process import SECOND, ULID, Blocked, Process
from colonies.errors import ColoniesError, Conflict, Refused
from colonies.history import History, Story, examine
from colonies.keeping import RETIRE_AFTER_S, QueueKeeper, apart
from colonies.ledger import Machinery, Stored
from colonies.limiting import Limiter
from colonies.packing import Runs
from colonies.scheduling import Scheduler
from colonies.session import Session
from colonies.sweeping import Sweeper
from colonies.tasks import first_error
from colonies.witness import Witness

SWEEP_S = 2.0
LOOK_S = 0.25
LEFT_S = 0.02  # for what workers do themselves: their steps are looked at together
SOON_S = 1.0
WITNESS_S = 1.0
AGAIN_S = 1.0
BEHIND_S = 0.05
UNEXPECTED_S = 1.0
AT_ONCE = 64  # processes offered at a time
MAX_LATER_S = 86_400.0  # then it is looked at again
MAX_FINISHED_KEPT = 100_000  # processes: what comes late of older ones is found out when it matters

# What cannot wait for the next look; all else is found by looking every LOOK_S seconds.
URGENT_FEEDS = (
    "feed.process.*.failed.*",
    "feed.queue.>",
    "feed.limit.>",
    "feed.colony.>",
    "feed.member.>",
    "feed.workflow.>",
    "feed.cron.>",
    "feed.generator.>",
)
ENDS_FEEDS = tuple(
    f"feed.process.*.{event}.*" for event in ("completed", "cancelled", "skipped", "received", "expired")
)
CHECKED_LATER = frozenset({"queued", "assigned", "renewed"})

_log = structlog.get_logger("colonies.orchestrator")


class Orchestrator:
    """One orchestrator, on a session of a member with the role `service`."""

    def __init__(
        self, session: Session, machinery: Machinery, *, retire_after_s: float = RETIRE_AFTER_S
    ) -> None:
        self.session = session
        self.ledger = session.ledger
        self.machinery = machinery
        self.ready = asyncio.Event()
        self._history = History(type(session.colony)(session.ledger.colony), beyond=session.knowledge)
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._limiter = Limiter(
            session,
            self._history.processes,
            lambda: self._history.position,
            self._finished.__contains__,
            self._later,
        )
        self._conductor = Conductor(session, self._history, self._later, self._is_done, self._limiter)
        self._scheduler = Scheduler(session, self._history, self._later)
        self._conductor.on_ended = self._scheduler.on_ended
        self._runs = Runs(session, self._history, self._later)
        self._touched: set[str] = set()
        self._unchecked: dict[str, list[Stored]] = {}
        self._doubted: set[str] = set()
        self._wake = asyncio.Event()
        self._reading = asyncio.Lock()
        self._left: asyncio.TimerHandle | None = None
        self._soon: set[asyncio.TimerHandle] = set()
        self._keeper = QueueKeeper(session, machinery, self._history, retire_after_s)
        self._sweeper = Sweeper(
            session,
            machinery,
            self._history,
            self._keeper,
            self._limiter,
            catch_up=self._catch_up,
            say=self._say,
            touch=self._touched.add,
        )
        self._witness = Witness(session.ledger)

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            Refused: this member is no service, or is revoked.
        """
        if self.session.role != "service":
            raise Refused(
                f"{self.session.name} has the role {self.session.role}; "
                "an orchestrator needs the role service"
            )
        await self._witness.look_for_a_cut()
        self.ledger.on_gap(self._wake.set)
        feeds = [await self.ledger.subscribe(feed, lambda _: self._wake.set()) for feed in URGENT_FEEDS]
        feeds += [await self.ledger.subscribe(feed, self._on_end) for feed in ENDS_FEEDS]
        try:
            with first_error():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow(), name="follow the ledger")
                    group.create_task(self._repeat(self._sweep, SWEEP_S), name="sweep")
                    group.create_task(self._repeat(self._due, 0.0), name="timers")
                    group.create_task(self._repeat(self._witness.bear, WITNESS_S), name="witness")
                    group.create_task(self._repeat(self._retire, self._keeper.pause_s), name="retiring")
                    group.create_task(self.ledger.lost(), name="watch connection")
        finally:
            for timer in (*self._soon, *filter(None, [self._left])):
                timer.cancel()
            await self._witness.bear()
            for feed in feeds:
                await feed.close()

    def _on_end(self, heard: Stored) -> None:
        """What waits for the end of a node, or for its place, cannot wait for the next look."""
        process = subjects.process_of_feed(heard.subject)
        if self._limiter.holds(process):
            self._wake.set()
        elif ULID.match(process) is None:
            if not (self._conductor.leaves(process) and subjects.says(heard.subject, "completed")):
                self._wake.set()
            elif self._left is None:
                self._left = asyncio.get_running_loop().call_later(LEFT_S, self._wake.set)

    async def _repeat(self, step: Callable[[], Awaitable[None]], pause_s: float) -> None:
        await self.ready.wait()
        while True:
            try:
                await step()
            except ColoniesError as error:
                _log.debug("trying again", step=step.__name__, error=str(error))
                await asyncio.sleep(0.5)
            except Exception:
                _log.exception("trying again", step=step.__name__)
                await asyncio.sleep(UNEXPECTED_S)
            await asyncio.sleep(pause_s)

    # --- following -----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            if self._left is not None:
                self._left.cancel()
                self._left = None
            try:
                await self._catch_up()
                await self._keeper.make()
                await self._act_on_touched()
            except ColoniesError as error:  # Refused: who watches our membership ends us
                _log.debug("ledger not followed, tried again", error=str(error))
                await asyncio.sleep(0.2)
                continue
            except Exception:
                _log.exception("ledger not followed, tried again")
                await asyncio.sleep(UNEXPECTED_S)
                continue
            if not self.ready.is_set():
                _log.info(
                    "orchestrator ready", position=self._history.position, open=len(self._history.processes)
                )
                self.ready.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def _catch_up(self) -> None:
        async with self._reading:
            async for batch in self.ledger.scan(self._history.position):
                for stored in batch:
                    try:
                        if stored.subject.startswith(subjects.WORKFLOWS):
                            await self.session.knowledge.learn_sources(self._history.colony, stored)
                        self._fold(stored)
                    except Exception:  # one event must not end it all, nor be met again and again
                        _log.exception("an event was passed over", sequence=stored.sequence)
                        self._history.position = stored.sequence
                self._witness.saw(batch)
                await asyncio.sleep(0)

    def _fold(self, stored: Stored) -> None:
        """Fold one event. Most processes begin and end within a moment: what only moves them on is believed
        until `_check` or their end; what ends them, and all else, is checked at once."""
        subject = subjects.parse(stored.subject)
        is_process = subject is not None and subject.kind == "process"
        # What a node is believed to be, others are released by: nothing of it is checked later.
        plain = is_process and subject is not None and ULID.match(subject.entity) is not None
        later = plain and subject is not None and subject.event in CHECKED_LATER
        judged = self._history.add(stored, trusted=later)
        self._scheduler.on_event(judged)
        if subject is not None and subject.kind == "workflow" and judged.verdict.valid:
            self._conductor.on_workflow(subject.entity)
        if subject is not None and subject.kind == "generator" and judged.verdict.valid:
            self._runs.on_generator(subject.entity)
        if subjects.is_limit(stored.subject):
            self._limiter.on_event(judged)
        if subject is None or not is_process:
            return
        process = subject.entity
        if later:
            self._unchecked.setdefault(process, []).append(stored)
        if process in self._finished:
            self._forget(process)
        elif not judged.verdict.valid:
            if process in self._unchecked:  # perhaps only because of something that was believed
                self._doubted.add(process)
        else:
            self._on_valid(self._history.processes[process])

    def _on_valid(self, process: Process) -> None:
        needed = process.workflow is not None and self._conductor.on_process(process)
        if process.spec.limits:
            self._limiter.gone(process.id) if process.final else self._limiter.on_process(process)
        if not process.final:
            self._touched.add(process.id)
        elif needed:  # by the nodes behind it, until its workflow has ended
            self._unchecked.pop(process.id, None)
            self._touched.discard(process.id)
        else:
            self._is_done(process.id)

    def _is_done(self, process: str) -> None:
        self._finished[process] = None
        if len(self._finished) > MAX_FINISHED_KEPT:
            self._finished.popitem(last=False)
        self._forget(process)

    def _forget(self, process: str) -> None:
        self._history.processes.pop(process, None)
        self._limiter.gone(process)
        self._unchecked.pop(process, None)
        self._touched.discard(process)
        self._doubted.discard(process)

    async def _check(self, process: str) -> Process | None:
        """The process, everything that was believed of it checked; read anew if any of it was not sound."""
        believed = self._unchecked.pop(process, [])
        colony = self._history.colony
        if all(examine(colony, stored).record is not None for stored in believed):
            return self._history.processes.get(process)
        return await self._read_anew(process)

    async def _read_anew(self, process: str) -> Process | None:
        self._unchecked.pop(process, None)
        found = (await self.session.story(process)).process
        held = self._history.processes.get(process)
        if held is not None and self._conductor.conducts(held):
            return found if found is not None and not found.final else None
        if found is None or found.final:
            self._forget(process)
            return None
        self._history.processes[process] = found
        self._limiter.on_process(found)
        return found

    async def _retire(self) -> None:
        for queue in await self._keeper.retire():
            self._sweeper.forget(queue)

    async def _act_on_touched(self) -> None:
        while self._doubted:
            process_id = self._doubted.pop()
            await apart(self._checked(process_id), "checking a process", process=process_id)
        while True:
            now = await self.ledger.now()
            if self._conductor.has_work:
                await self._conductor.act(now)
            if self._scheduler.has_work and (known := await self._known_until()) is not None:
                await self._scheduler.act(known)
                if self._scheduler.has_work:
                    self._wake.set()
            if self._runs.has_work:
                await self._runs.act(now)
                self._wake.set()
            await self._look_at_touched(now)
            if self._limiter.has_work:
                await self._limiter.act(now)
            if not (self._touched or self._conductor.has_work):  # nobody was granted a place just now
                return

    async def _known_until(self) -> int | None:
        """A ledger time (ns) up to which all is folded, by the leader's word: a cron may be paused or removed
        before it is due, and what we follow be behind. None: it is, and we look again soon."""
        now, last = await self.ledger.now(), await self.ledger.last_sequence()
        if self._history.position < last:
            await self._catch_up()
        if self._history.position >= last:
            return now
        self._later(BEHIND_S, lambda: None)
        return None

    async def _look_at_touched(self, now: int) -> None:
        blocked: list[Process] = []
        while self._touched:
            process = self._history.processes.get(self._touched.pop())
            if process is not None and process.queue and process.queue not in self._history.colony.queues:
                declaring = self._keeper.declare_again(process)
                if not await apart(declaring, "declaring a queue", queue=process.queue):
                    self._look_again_in(AGAIN_S, process.id)
            if process is not None and isinstance(process.phase, Blocked):
                blocked.append(process)
        for start in range(0, len(blocked), AT_ONCE):
            await asyncio.gather(*(self._look_at(one, now) for one in blocked[start : start + AT_ONCE]))

    async def _look_at(self, process: Process, now: int) -> None:
        assert isinstance(process.phase, Blocked)
        releasing = self._blocked(process, process.phase.until, now)
        if not await apart(releasing, "releasing a process", process=process.id):
            self._look_again_in(AGAIN_S, process.id)

    async def _checked(self, process: str) -> None:
        await self._check(process)

    async def _blocked(self, process: Process, until: int, now: int) -> None:
        left_s = (until - now) / SECOND
        if left_s <= 0 and process.spec.limits and not self._is_admitted(process, until):
            return
        if left_s <= 0:
            await self._say(process, Requeued(process.sequence))
        elif left_s <= SOON_S:
            self._look_again_in(left_s + 0.002, process.id)
        else:
            await self.machinery.schedule(process.id, until)

    def _is_admitted(self, process: Process, since: int) -> bool:
        """Has it all its places? If not, it lines up, and is touched once it has."""
        id, at = process.id, process.sequence
        return self._limiter.admits(id, process.spec, at, since, lambda: self._touched.add(id))

    def _look_again_in(self, delay_s: float, process: str) -> None:
        self._later(delay_s, lambda: self._touched.add(process))

    def _later(self, delay_s: float, do: Callable[[], None]) -> None:
        def due() -> None:
            self._soon.discard(timer)
            do()
            self._wake.set()

        timer = asyncio.get_running_loop().call_later(min(delay_s, MAX_LATER_S), due)
        self._soon.add(timer)

    async def _due(self) -> None:
        for process in await self.machinery.due():
            self._touched.add(process)
            self._wake.set()

    async def _sweep(self) -> None:
        """What no event brings about."""
        now = await self.ledger.now()
        for process_id in [id for id, seen in self._unchecked.items() if now > seen[0].time + 2 * SECOND]:
            await apart(self._checked(process_id), "checking a process", process=process_id)
            await asyncio.sleep(0)
        await self._sweeper.sweep(now)

    async def _say(self, process: Process, event: ProcessEvent) -> None:
        """Record it; if the process has moved on meanwhile, that is as well."""
        if isinstance(process.phase, Blocked):
            current = await self._check(process.id)
        else:  # perhaps a submission that somebody stored a second time, when we had forgotten how it ended
            current = await self._read_anew(process.id)
        if current is None or current.head != process.head:
            self._touched.add(process.id)
            return
        queue = process.queue if isinstance(event, Requeued) else None
        try:
            at = Story(process, [], process.sequence)
            await self.session.record(process.id, event, at=at, queue=queue, known=self._history)
            _log.info(event.type, process=process.id, colony=self.session.colony.name)
        except Conflict:
            self._wake.set()
