"""One lifetime: machines with the real programs on them, what befalls them, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from colonies_projections.projector import Projector

from colonies import codec, current
from colonies.batch import PartlySubmitted
from colonies.client import Client
from colonies.core.capacity import Capacity
from colonies.core.node import Node
from colonies.core.process import Process
from colonies.errors import ColoniesError, Conflict, Unavailable, Unsuccessful
from colonies.execution import Fail, Later
from colonies.history import History
from colonies.instance import Instance
from colonies.ledger import Stored
from colonies.orchestrator import Orchestrator
from colonies.session import Session
from colonies.worker import Worker
from tests.simulator.broker import Broker
from tests.simulator.flowclient import FlowClient
from tests.simulator.flowwitness import SeenFlow
from tests.simulator.founding import MEMBERS, Founded, founded
from tests.simulator.ground import GROUND, new_id
from tests.simulator.link import Host, Network, SimLedger, SimSubscription
from tests.simulator.loop import VirtualLoop
from tests.simulator.oracle import Life, expected
from tests.simulator.plan import Mishap, Plan, draw
from tests.simulator.subscriber import Subscriber
from tests.simulator.timeclient import TimeClient
from tests.simulator.timewitness import Acts
from tests.simulator.views import ALL, Views
from tests.simulator.witness import Seen, Witness

JUNK = "mallory"
LOOK_S = 0.1
FOLLOW_S = 30.0  # from then on until the projector has read it all, at most
QUIET_S = 400.0  # from the last misfortune to the end of all work, at most
RESTART_S = 0.05
BACKOFF_S = 0.2

worker_of: dict[int, Worker] = {}


def _worker(concurrency: int) -> Worker:
    """The program of every worker: it does what the plan says of the attempt."""
    if concurrency not in worker_of:
        worker = worker_of[concurrency] = Worker("python", concurrency=concurrency, backoff_s=BACKOFF_S)

        @worker.function(name="work")
        async def work(item: int) -> dict[str, Any]:
            return await _work(item)

        @worker.function(name="node")
        async def node(item: int, part: Any = None, given: Any = None) -> dict[str, Any]:
            return await _work(item, part, given, node=True)

        described = worker.describe()  # the schemas, which take pydantic most of a millisecond
        worker.describe = lambda: described  # type: ignore[method-assign]
        worker.find_capacity = Capacity  # type: ignore[method-assign]  # not that of the machine this runs on
    return worker_of[concurrency]


async def _work(number: int, part: Any = None, given: Any = None, *, node: bool = False) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, World)
    attempt = current()
    item = loop.plan.item(number)
    what, seconds, delay_s = item.action(attempt.n)
    if node:
        loop.witness.flows.got(attempt.process, attempt.inputs, given, part)
    run = loop.witness.began(loop.machine, attempt.process, attempt.id, attempt.n)  # type: ignore[arg-type]
    outcome = "stopped"
    try:
        if seconds or what == "hang":
            await asyncio.sleep(1e6 if what == "hang" else seconds)
        outcome = what
    finally:
        if run.what is None:
            over = outcome == "stopped" and what == "hang"
            loop.witness.ended(run, "hang" if over else outcome)
    match what:
        case "error" | "hang":
            raise RuntimeError("not this time")
        case "fail":
            raise Fail("never")
        case "later":
            raise Later(delay_s)
    return expected(item, attempt.n, given)


@dataclass(slots=True)
class Result:
    """What came of a lifetime. `events` were stored; `seconds` of virtual time went by."""

    seed: int
    failures: list[str]
    events: int
    seconds: float
    steps: int
    trace: list[str] = field(default_factory=list)


class World(VirtualLoop):
    """A loop with a broker and machines on it."""

    def __init__(self, plan: Plan, *, tracing: bool = False, subscribed: bool = False) -> None:
        self.plan = plan
        self.trace: list[str] = []
        self._seed = Random(plan.seed ^ 0x5EED)
        super().__init__(self._seed, self._on_error)
        self.began = self.now
        GROUND.begin(self, self._seed, lambda text: self.witness.broken(text))  # noqa: PLW0108
        GROUND.adds = self._adds
        self.founded: Founded = founded(plan.lease_s, plan.declared)
        self.broker = Broker(self, self.founded.colony, self.founded.events)
        self.network = GROUND.network = Network(self, self.broker, plan.faults, self._seed)
        self.views = Views() if plan.projector is not None else None
        self.subscriber = Subscriber(plan.seed, len(self.founded.events)) if subscribed else None
        self.witness = Witness(plan, self, self.founded.colony, MEMBERS)
        self.network.crash = self.crash
        self.broker.on_stored = self._stored
        self.witness.on_done = self._stop
        self.witness.on_broken = self._stop
        self.witness.plan_check = self.witness.flows.plan_check = self.broker.plan
        self.witness.times.plan_check = self.broker.plan
        self.witness.hosts = lambda: [host for host, _ in self._programs]
        self.witness.flows.orchestrators = self.witness.times.orchestrators = self._orchestrators
        self._over = False
        self._programs: list[tuple[Host, Callable[[Host], Coroutine[Any, Any, None]]]] = []
        self._instances: dict[str, Instance] = {}
        self._crashes = {machine: [(call, after)] for machine, call, after, _ in plan.crashes}
        if tracing:
            self.network.trace = self._note

    def _orchestrators(self) -> list[Host]:
        return [host for host, _ in self._programs if host.member == "orch"]

    def _adds(self, process: Process) -> dict[str, Any]:
        """What a process adds to its workflow as it completes."""
        item = self.plan.item(process.spec.args[0])
        if not item.adds:
            return {}
        return {"adds": [Node.read(said) for said in item.adds], "between": item.between or None}

    # --- telling -------------------------------------------------------------------------------------

    def _note(self, who: str, what: str, *about: object) -> None:
        said = " ".join(_shown(one) for one in about)
        self.trace.append(f"{self.now - self.began:10.6f}  {who:<8} {what} {said}")

    def note(self, who: str, what: str, *about: object) -> None:
        if self.network.trace is not None:
            self._note(who, what, *about)

    def _on_error(self, what: str, error: BaseException | None) -> None:
        if isinstance(error, ColoniesError | asyncio.CancelledError) and "never retrieved" in what:
            return
        self.witness.broken(f"{what}: {type(error).__name__}: {error}")

    def _stored(self, stored: Stored) -> None:
        self.note("ledger", f"#{stored.sequence}", stored.subject)
        self.witness.stored(stored)
        self.network.publish(stored)

    def _stop(self) -> None:
        self.stopping = True

    # --- machines ------------------------------------------------------------------------------------

    def build(self) -> None:
        plan = self.plan
        for number, member in enumerate(plan.instances):
            self._add(f"{member}.{number}", member, self._be_worker)
        for number in range(plan.orchestrators):
            self._add(f"orch.{number}", "orch", self._be_orchestrator)
        for number in range(plan.clients):
            mine = [s for s in self.witness.seen if _at_client(s, plan.clients) == number]
            flows = [s for s in self.witness.flows.seen if s.flow.number % plan.clients == number]

            acts = [acts for acts in self.witness.times.seen if acts.script.client == number]
            self._add(f"u1.{number}", "u1", partial(self._be_client, mine=mine, flows=flows, acts=acts))
        if plan.pauses:
            acts = [acts for acts in self.witness.times.seen if acts.script in plan.pauses]
            self._add("olga.0", "olga", partial(self._be_client, mine=[], flows=[], acts=acts))
        if plan.projector is not None:
            self._crashes[len(self._programs)] = list(plan.projector)
            self._add("obs.0", "obs", self._be_projector)
        if self.subscriber is not None:
            self._crashes[len(self._programs)] = self.subscriber.crashes
            self._add("obs.1", "obs", partial(self.subscriber.run, session_of=self.session))
        for mishap in plan.mishaps:
            self.broker.plan(self.began + mishap.at, self._befall, mishap)
        if plan.calm_at:
            self.broker.plan(self.began + plan.calm_at, self._calm)

    def _add(self, name: str, member: str, program: Callable[[Host], Coroutine[Any, Any, None]]) -> None:
        index = len(self._programs)
        host = Host(name, member)
        self._programs.append((host, program))
        self._start(index, host)

    def _start(self, index: int, host: Host) -> None:
        crashes = self._crashes.get(index)
        if crashes:
            host.crash_at, host.crash_after = crashes.pop(0)
        host.lag_ns = int(self.plan.faults.lag_s * self._seed.random() * 1e6) * 1_000
        self._programs[index] = (host, self._programs[index][1])
        self.network.later(host, self.now, self._boot, index, host)

    def _boot(self, index: int, host: Host) -> None:
        if not host.dead:
            self.note(host.name, "starts")
            if host.member == "orch":
                self.witness.times.boots(host)
            self.create_task(self._supervised(index, host))

    async def _supervised(self, index: int, host: Host) -> None:
        """A program ends when it is told to, or when the broker is away as it starts: begun again."""
        program = self._programs[index][1]
        while not host.dead:
            try:
                await program(host)
                return
            except Unavailable:
                host.trouble(self.now)
                await asyncio.sleep(RESTART_S)
            except Exception as raised:
                error: BaseException = raised
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                if not host.dead:
                    self.witness.broken(f"{host.name} died of {type(error).__name__}: {error}")
                return

    def crash(self, host: Host, down_s: float | None = None) -> None:
        """The machine is gone: its programs end without another word, and start anew later."""
        if host.dead:
            return
        self.note(host.name, "CRASHES")
        host.dead = True
        for link in host.links:
            link.broke(self._seed.random() < 0.5)
        for close in host.on_crash:
            close()
        self.witness.crashed(host)
        self.witness.times.is_gone(host)
        index = next(i for i, (found, _) in enumerate(self._programs) if found is host)
        if host.paused:
            self.resume(host)
        self.network.later(host, self.now, _end_all, host)
        soon = 4 if host.member == "obs" else 1  # where its last event may be too new for a stale read
        down = 2.0 * self._seed.random() ** soon if down_s is None else down_s
        self.broker.plan(self.now + down, self._start_anew, index, host)

    def _start_anew(self, index: int, before: Host) -> None:
        if self._over:
            return
        host = Host(before.name, before.member)
        host.trouble(self.now)
        self._start(index, host)

    # --- misfortune ----------------------------------------------------------------------------------

    def _befall(self, mishap: Mishap) -> None:
        host = self._programs[mishap.target % len(self._programs)][0]
        queues = sorted(self.broker.queues)
        if "queue" in mishap.what:
            if queues:
                self._befall_queue(mishap.what, queues[mishap.target % len(queues)])
        elif mishap.what == "junk":
            self._junk(mishap.target + int(mishap.lasts * 1_000))
        elif mishap.what == "broker":
            self._stop_broker(mishap.lasts)
        elif host.dead or host.paused or not host.up:
            return
        elif mishap.what == "crash":
            self.crash(host, mishap.lasts)
        elif mishap.what == "stop":
            if host.name in self._instances:
                self.note(host.name, "is told to stop")
                host.trouble(self.now)
                self.network.later(host, self.now, self._instances[host.name].stop, mishap.lasts / 4)
        elif mishap.what == "pause":
            self.note(host.name, "is paused")
            self.pause(host)
            host.trouble(self.now)
            self.broker.plan(self.now + mishap.lasts, self._wake_up, host)
        else:
            noticed = mishap.lasts < 1.0
            self.note(host.name, "is disconnected")
            self.network.disconnect(host, noticed=noticed)
            self.broker.plan(self.now + mishap.lasts, self.network.reconnect, host)

    def _stop_broker(self, lasts: float) -> None:
        """Nobody has a connection, and all see so."""
        self.note("world", "the broker stops")
        for host, _ in self._programs:
            if host.up and not host.dead:
                self.network.disconnect(host, noticed=True)
                self.broker.plan(self.now + lasts, self.network.reconnect, host)

    def _wake_up(self, host: Host) -> None:
        if host.paused:
            self.note(host.name, "wakes up")
            host.trouble(self.now)
            self.resume(host)

    def _befall_queue(self, what: str, name: str) -> None:
        self.note("queue", what, name)
        queue = self.broker.queues[name]
        if what == "delete queue":
            self.broker.delete_queue(name)
        elif what == "skip queue":
            queue.skip_all()
        else:
            queue.begin(1)
            queue.serve()

    def _junk(self, number: int) -> None:
        """What a hostile member or a lying broker puts among a process's events, without a guard."""
        lives = sorted(self.witness.lives)
        if not lives:
            return
        life = self.witness.lives[lives[number // 4 % len(lives)]]
        subject = f"ledger.process.{life.id}.{{}}"
        if life.state == "running" and number % 4:
            last = life.attempts[-1]
            event = "renewed" if number % 4 == 1 else "completed"
            about: dict[str, Any] = {"attempt": last.id}
            if event == "completed":
                about["output"] = {"item": -1, "n": len(life.attempts)}
            subject = subject.format(f"{event}.{last.worker}")
            data = self._forged(subject, life, event, **about)
        elif life.state == "waiting" and number % 4:
            subject = subject.format("assigned.w1")
            data = self._forged(subject, life, "assigned", offer=life.offer, lease_s=2.0, instance="x")
        else:
            subject, data = subject.format(f"assigned.{JUNK}"), b"\x92\xc0\xc0"
        self.witness.junk.add(len(self.broker.events) + 1)
        self.broker.store(subject, data, None)

    def _forged(self, subject: str, life: Life, event: str, **data: Any) -> bytes:
        """An event that could be true, but for its signature."""
        key = self.founded.keys["u1"]
        sealed = codec.seal(
            key,
            self.founded.colony,
            subject,
            id=new_id(),
            type=f"process.{event}",
            time=self.broker.now(),
            author=subject.rsplit(".", 1)[1],
            prev=life.head,
            data=data,
        )
        return sealed.data

    def _calm(self) -> None:
        """From here on nothing befalls anybody; what is broken heals."""
        self.note("world", "is calm")
        self.network.calm = True
        self.plan.faults.stale_s = min(self.plan.faults.stale_s, 0.05)

    # --- programs ------------------------------------------------------------------------------------

    async def session(self, host: Host) -> tuple[Session, SimLedger]:
        ledger = SimLedger(self.network, host)
        session = Session(ledger, host.member, self.founded.keys[host.member])
        if (
            not self.network.faults.trouble
        ):  # it has read the beginning before: what differs is the time it takes
            session.colony, session._position = self.founded.view(), len(self.founded.events)
        return await session.open(), ledger

    async def _be_worker(self, host: Host) -> None:
        while True:
            session, ledger = await self.session(host)
            ledger.subscribe = self._hearing(host, ledger.subscribe)  # type: ignore[method-assign]
            instance = Instance(_worker(self.plan.concurrency), session)
            self._instances[host.name], host.instance = instance, instance.id
            try:
                await instance.run()
            finally:
                await session.close()
                await ledger.close()
            await asyncio.sleep(RESTART_S)

    def _hearing(self, host: Host, subscribe: Callable[..., Any]) -> Callable[..., Any]:
        """The witness is told of the cancellations that a worker hears."""

        async def subscribed(pattern: str, heard: Callable[[Stored], None]) -> SimSubscription:
            def told(stored: Stored) -> None:
                if ".cancelled." in stored.subject:
                    self.witness.heard_cancel(host, stored.subject.split(".")[2])
                heard(stored)

            subscription: SimSubscription = await subscribe(pattern, told)
            return subscription

        return subscribed

    async def _be_orchestrator(self, host: Host) -> None:
        session, ledger = await self.session(host)
        orchestrator = Orchestrator(session, ledger)
        if not self.network.faults.trouble:
            history = orchestrator._history
            history.colony, history.position = self.founded.view(), len(self.founded.events)
        try:
            await orchestrator.run()
        finally:
            await session.close()
            await ledger.close()

    async def _be_projector(self, host: Host) -> None:
        assert self.views is not None
        session, ledger = await self.session(host)
        try:
            await Projector(session, self.views.path, ALL).run()
        finally:
            await session.close()
            await ledger.close()

    async def _be_client(self, host: Host, mine: list[Seen], flows: list[SeenFlow], acts: list[Acts]) -> None:
        session, _ = await self.session(host)
        client = Client(session)
        async with asyncio.TaskGroup() as group:
            together = [seen for seen in mine if seen.item.together]
            if together:
                group.create_task(self._many(host, client, together))
            for seen in mine:
                if not seen.item.together and not seen.settled:
                    group.create_task(self._one(host, client, seen))
            for of in flows:
                if not of.settled:
                    group.create_task(FlowClient(self, host, client, of).run())
            for act in acts:
                if not act.settled:
                    group.create_task(TimeClient(self, host, client, act).run())
        await client.close()

    async def until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, self.began + at - self.now))

    async def _one(self, host: Host, client: Client, seen: Seen) -> None:
        item = seen.item
        await self.until(item.submit_at)
        while seen.id is None:
            self.note(host.name, "submits item", item.number)
            seen.tries += 1
            try:
                handle = await client.submit(item.spec, key=item.key)
            except Unavailable:
                if item.key is None:  # it may be there or not: nobody promised anything
                    self.witness.settle(seen)
                    return
                await asyncio.sleep(0.3)
                continue
            self.witness.acknowledged(seen, handle.id)
        await self._wait(host, client, seen, seen.id)

    async def _many(self, host: Host, client: Client, together: list[Seen]) -> None:
        await self.until(together[0].item.submit_at)
        fresh = [seen for seen in together if seen.id is None and not seen.settled]
        if fresh:
            for seen in fresh:
                seen.settled = True  # until it is acknowledged
                seen.tries += 1
            accepted: list[tuple[int, Any]] = []
            try:
                works = [seen.item.spec for seen in fresh]
                handles = await client.submit_many(works, atomic=fresh[0].item.together == 2)
                accepted = list(enumerate(handles))
            except PartlySubmitted as partly:
                accepted = partly.accepted
            except (Unavailable, Conflict):
                pass
            for index, handle in accepted:
                fresh[index].settled = False
                self.witness.acknowledged(fresh[index], handle.id)
        async with asyncio.TaskGroup() as group:
            for seen in together:
                if seen.id is not None and not seen.settled:
                    group.create_task(self._wait(host, client, seen, seen.id))
        self.witness._perhaps_done()

    async def _wait(self, host: Host, client: Client, seen: Seen, id: str) -> None:
        async with asyncio.TaskGroup() as group:
            if seen.item.cancel_after is not None and not seen.cancelled:
                group.create_task(self._cancel(host, client, seen, id))
            process = await client.wait(id)
            output = None
            with contextlib.suppress(Unsuccessful):
                output = await client.output(process)
            self.note(host.name, "believes", process.id, process.state)
            self.witness.believed(seen, id, process.state, output)
        self.witness.settle(seen)

    async def _cancel(self, host: Host, client: Client, seen: Seen, id: str) -> None:
        await asyncio.sleep(seen.item.cancel_after or 0.0)
        while True:
            self.note(host.name, "cancels", id)
            try:
                process: Process = await client.cancel(id, "enough")
            except Conflict:
                self.witness.cancel_refused(id)
                return
            except Unavailable:
                await asyncio.sleep(0.2)
                continue
            if process.state == "cancelled":
                self.witness.cancel_acknowledged(seen, id)
            return

    # --- the whole -----------------------------------------------------------------------------------

    def live(self) -> Result:
        self.build()
        bound_s = self.plan.bound_s()
        until = self.began + (QUIET_S + self.plan.calm_at if bound_s is None else bound_s)
        self._work(until)
        self._let_views_follow(until)
        if not self.witness.failures:
            self.witness.at_the_end()
            self._verify()
        result = Result(
            self.plan.seed,
            self.witness.failures,
            len(self.broker.events),
            self.now - self.began,
            self.steps,
            self.trace,
        )
        self._power_off()
        return result

    def _work(self, until: float) -> None:
        while not self.witness.failures and not self.witness.done() and self.now < until:
            self.run(until)

    def _let_views_follow(self, until: float) -> None:
        """Who reads has some time to read the end of it. What comes late meanwhile may be new work."""
        if self.views is None and self.subscriber is None:
            return
        # A feed that lost what would have woken it looks again after 30 s; a projector does so sooner.
        follow_s = FOLLOW_S if self.subscriber is None else 2 * FOLLOW_S
        followed_by = max(self.now, self.began + self.plan.calm_at) + follow_s
        while not self.witness.failures and self.now < followed_by:
            if all(position == len(self.broker.events) for position in self._read_up_to()):
                return
            self.run(self.now + LOOK_S)
            if not self.witness.done():
                self._work(until)
                followed_by = max(self.now, followed_by) + follow_s

    def _read_up_to(self) -> list[int]:
        return [
            *([self.views.position()] if self.views is not None else []),
            *([self.subscriber.position] if self.subscriber is not None else []),
        ]

    def _verify(self) -> None:
        """The real fold finds nothing wrong either, and agrees with ours on every process."""
        history, fold = History(self.founded.view()), []
        for stored in self.broker.events[len(self.founded.events) :]:
            judged = history.add(stored)
            fold.append(judged)
            expected = "quarantined" if stored.sequence in self.witness.junk else "valid"
            if stored.sequence in self.witness.ledger.void:
                expected = "void"
            if judged.verdict.kind != expected:
                self.witness.broken(f"verify: {judged.verdict.rule}", stored.subject)
        for id, life in self.witness.lives.items():
            found = history.processes.get(id)
            if found is None or found.state != life.state or found.failures != life.failures:
                self.witness.broken(f"verify says {found.state if found else None}, it is {life.state}", id)
        last = len(self.broker.events)
        if self.subscriber is not None:
            self.subscriber.check(fold, last, self.witness.broken)
        if self.views is not None:
            self.views.check(last, fold, history, self.witness.lives, self.witness.broken)

    def _power_off(self) -> None:
        self._over = True
        failures = list(self.witness.failures)
        self.network.trace = None
        self.witness.on_broken = self.witness.on_done = lambda: None
        self.network.calm = True
        for host, _ in self._programs:
            host.dead = True
            if host.paused:
                self.resume(host)
            _end_all(host)
        for _ in range(100):
            self.run(self.now + 0.5)
            if not any(not task.done() for host, _ in self._programs for task in host.tasks):
                break
        else:
            left = [task for host, _ in self._programs for task in host.tasks if not task.done()]
            failures.append(f"{left[0]} does not end")
        for host, _ in self._programs:
            for close in host.on_crash:
                close()
        if self.views is not None:
            self.views.close()
        self.witness.failures[:] = failures


def _end_all(host: Host) -> None:
    for task in host.tasks:
        if not task.done():
            task.cancel()


def _at_client(seen: Seen, clients: int) -> int:
    return 0 if seen.item.together else seen.item.number % clients


def _shown(one: object) -> str:
    if isinstance(one, bytes):
        return f"<{len(one)} bytes>"
    if isinstance(one, Stored):
        return f"#{one.sequence}"
    if isinstance(one, tuple):
        return "(" + " ".join(_shown(item) for item in one) + ")"
    if isinstance(one, list):
        return "[" + " ".join(_shown(item) for item in one) + "]"
    if callable(one):
        return ""
    return str(one)


def lifetime(seed: int, *, tracing: bool = False, subscribed: bool = False) -> Result:
    """Live the lifetime of a seed; `subscribed`: with a subscriber in the place of a projector."""
    plan = draw(seed)
    if subscribed:
        plan.projector = None
    return World(plan, tracing=tracing, subscribed=subscribed).live()
