"""The oracle beside the ledger: what runs, was acknowledged and is believed, and when it must be so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from colonies.ledger import Stored
from tests.simulator.broker import SECOND, START
from tests.simulator.flowwitness import REACH_S, FlowWitness
from tests.simulator.item import Item
from tests.simulator.link import Host
from tests.simulator.loop import VirtualLoop
from tests.simulator.oracle import FINAL, Attempt, Ledger, Life, Told, expected
from tests.simulator.plan import Plan
from tests.simulator.timewitness import TimeWitness

KIND_OF = {"error": ("error",), "fail": ("final",), "later": ("later",), "hang": ("timeout",)}
HEARD_S = 1.0  # from a pause until all who are well have heard of it, and assigned nothing any more
STOP_S = 0.5  # from hearing of a cancel to having stopped, on a machine that nothing happens to


@dataclass(slots=True)
class Run:
    """The function while it runs for one attempt. `what` came of it, None as long as it runs."""

    host: Host
    process: str
    attempt: str
    n: int
    began: float
    what: str | None = None
    ended: float = 0.0


@dataclass(slots=True)
class Seen:
    """What became of one item as its client sees it."""

    item: Item
    id: str | None = None
    cancelled: bool = False
    believed: Any = None
    settled: bool = False
    tries: int = 0


class Witness:
    """All invariants of one lifetime."""

    def __init__(self, plan: Plan, loop: VirtualLoop, colony: str, roles: dict[str, str]) -> None:
        self.plan = plan
        self.loop = loop
        self.failures: list[str] = []
        self.ledger = Ledger(colony, roles, self.broken, plan.slack_s())
        self.lives = self.ledger.lives
        self.runs: dict[str, Run] = {}
        self.seen = [Seen(item) for item in plan.items]
        self.flows = FlowWitness(plan.flows, loop, self.ledger, self.broken)
        self.times = TimeWitness([*plan.scripts, *plan.pauses], loop, self.ledger, self.broken)
        self.on_done: Callable[[], None] = lambda: None
        self.on_broken: Callable[[], None] = lambda: None
        self.plan_check: Callable[..., Any] = lambda when, check, *args: None
        self.hosts: Callable[[], list[Host]] = list
        self._running: dict[str, Run] = {}
        self.junk: set[int] = set()  # sequences of what nobody should believe

    def broken(self, rule: str, about: object = "") -> None:
        self.failures.append(f"{rule} ({about})" if about != "" else rule)
        self.on_broken()

    # --- the ledger ----------------------------------------------------------------------------------

    def stored(self, stored: Stored) -> None:
        found = None if stored.sequence in self.junk else self.ledger.read(stored)
        if found is None:
            return
        life, told = found
        if told.event in ("completed", "failed"):
            self._check_result(life, told)
        if told.event == "assigned":
            self._check_pause(life, told)
        if told.event in ("assigned", "requeued", "poisoned") and len(life.attempts) > 1:
            lost = life.attempts[-2 if told.event == "assigned" else -1]
            if lost.ended == "lost":
                self._check_loss(life, lost)
        if told.event == "cancelled":
            self._soon_stopped(life, f"its process was {told.event}")
        if life.final:
            self._perhaps_done()

    def _check_pause(self, life: Life, told: Told) -> None:
        """Who has heard of a pause, or had the time to, takes nothing more."""
        since = self.ledger.holds.since(life.queue, told.author)
        if since is None or self.plan.faults.lose_feed:
            return
        for host in self.hosts():
            troubled = max((since - START) / SECOND, host.troubled_at)
            if host.instance == told.data["instance"] and self.loop.now > troubled + HEARD_S:
                self.broken(f"{host.name} was assigned what is paused", life.id)

    def item_of(self, life: Life) -> Item:
        return self.plan.item(life.spec["args"][0])

    def _check_result(self, life: Life, told: Told) -> None:
        """A result is that of a run of this attempt, which ended so."""
        attempt = life.attempts[-1]
        run = self.runs.get(attempt.id)
        if run is None or run.what is None:
            self.broken(f"{told.event}, and it did not run to its end", life.id)
            return
        n = len(life.attempts)
        if told.event == "completed":
            given = life.tale.given(life.node) if life.tale is not None else None
            if run.what != "ok" or told.data.get("output") != expected(self.item_of(life), n, given):
                self.broken(f"completed as {told.data.get('output')}; it ended with {run.what}", life.id)
        elif told.data["kind"] not in KIND_OF.get(run.what, ("timeout",)):
            self.broken(f"failed, kind {told.data['kind']}; it ended with {run.what}", life.id)

    def _check_loss(self, life: Life, lost: Attempt) -> None:
        """A worker that nothing happened to keeps what it runs."""
        run = self._running.get(lost.id)
        began = (lost.at - START) / SECOND
        if run is not None and not run.host.dead and run.host.troubled_at < began - 1.0:
            self.broken(f"{run.host.name} was well and lost the attempt that it runs", life.id)
        self._soon_stopped(life, "its lease was lost")

    def _soon_stopped(self, life: Life, why: str) -> None:
        for run in [run for run in self._running.values() if run.process == life.id]:
            if life.final or run.attempt != life.attempts[-1].id:
                self._stop_by(run, self.loop.now + self._unheard_s(), why)

    def _unheard_s(self) -> float:
        """Without hearing of it, a worker finds out by looking, every third of a lease."""
        return 2 * self.plan.lease_s / 3 + 2 * self.plan.faults.stale_s + 1.0

    def _stop_by(self, run: Run, when: float, why: str) -> None:
        self.plan_check(when, self._check_stopped, run, why, self.loop.now)

    def _check_stopped(self, run: Run, why: str, since: float) -> None:
        if run.what is None and not run.host.dead:
            if run.host.paused or not run.host.up or run.host.troubled_at >= since - 1.0:
                self._stop_by(run, self.loop.now + self._unheard_s(), why)
                return
            self.broken(f"{run.host.name} runs on though {why}", run.process)

    def heard_cancel(self, host: Host, process: str) -> None:
        """The feed told a worker of a cancellation."""
        if self.plan.faults.stale_s:
            return  # it may look at once and not yet see it
        for run in self._running.values():
            if run.host is host and run.process == process:
                self._stop_by(run, self.loop.now + STOP_S, "it heard that its process was cancelled")

    # --- what runs -----------------------------------------------------------------------------------

    def began(self, host: Host, process: str, attempt: str, n: int) -> Run:
        life = self.lives.get(process)
        if self.ledger.void_attempts.get(attempt) == process:  # of a release that its workflow's cancel undid
            run = Run(host, process, attempt, n, self.loop.now)
            self.runs[attempt] = self._running[attempt] = run
            self._stop_by(run, self.loop.now + REACH_S + self._unheard_s(), "its workflow was cancelled")
            return run
        known = [] if life is None else [a.id for a in life.attempts]
        if attempt not in known or known.index(attempt) + 1 != n:
            self.broken(f"{host.name} runs what is not assigned", process)
        elif life is not None and life.attempts[n - 1].instance != host.instance:
            self.broken(f"{host.name} runs what is assigned to another", process)
        if attempt in self.runs:
            self.broken("an attempt is run twice", process)
        run = Run(host, process, attempt, n, self.loop.now)
        self.runs[attempt] = self._running[attempt] = run
        if life is not None and known and (life.final or known[-1] != attempt):
            self._stop_by(run, self.loop.now + self._unheard_s(), "it had ended before it began")
        return run

    def ended(self, run: Run, what: str) -> None:
        run.what, run.ended = what, self.loop.now
        self._running.pop(run.attempt, None)
        if what == "ok":
            self._check_once(run)
        self._perhaps_done()

    def _check_once(self, run: Run) -> None:
        """What is done by workers that nothing ever happened to is done once."""
        same = [r for r in self.runs.values() if r.process == run.process and r.what == "ok"]
        if len(same) > 1 and all(r.host.troubled_at < 0 and not r.host.dead for r in same):
            self.broken("it was done twice, by workers that nothing happened to", run.process)

    def crashed(self, host: Host) -> None:
        for run in [run for run in self._running.values() if run.host is host]:
            self.ended(run, "crashed")

    # --- what clients see ----------------------------------------------------------------------------

    def acknowledged(self, seen: Seen, id: str) -> None:
        seen.id = id
        life = self.lives.get(id)
        if life is None:
            self.broken("a submission was acknowledged and is not there", id)
        elif self.item_of(life).spec != seen.item.spec:
            self.broken("a submission was acknowledged and is another one", id)

    def cancel_acknowledged(self, seen: Seen, id: str) -> None:
        seen.cancelled = True
        if self.lives[id].state != "cancelled":
            self.broken(f"a cancel was acknowledged and the process is {self.lives[id].state}", id)

    def cancel_refused(self, id: str) -> None:
        if not self.lives[id].final:
            self.broken(f"a cancel came too late, and the process is {self.lives[id].state}", id)

    def believed(self, seen: Seen, id: str, state: str, output: Any) -> None:
        life = self.lives.get(id)
        if life is None or life.state != state or (state == "successful" and life.output != output):
            self.broken(f"a client believes {state} {output}, it is {life.state if life else None}", id)

    def settle(self, seen: Seen) -> None:
        seen.settled = True
        self._perhaps_done()

    # --- the end -------------------------------------------------------------------------------------

    def _perhaps_done(self) -> None:
        if self.done():
            self.on_done()

    def done(self) -> bool:
        return (
            not self._running
            and all(seen.settled for seen in self.seen)
            and all(life.state in FINAL for life in self.lives.values())
            and self.flows.done()
            and self.times.done()
        )

    def unfinished(self) -> list[str]:
        found = [f"process {life.id} is {life.state}" for life in self.lives.values() if not life.final]
        found += [f"{run.process} still runs on {run.host.name}" for run in self._running.values()]
        found += [f"a client still waits for item {s.item.number}" for s in self.seen if not s.settled]
        return found + self.flows.unfinished() + self.times.unfinished()

    def at_the_end(self) -> None:
        for message in self.unfinished():
            self.broken(f"all is quiet, and {message}")
        self.flows.at_the_end()
        self.times.at_the_end()
        for seen in self.seen:
            if seen.id is not None and seen.cancelled and self.lives[seen.id].state != "cancelled":
                self.broken("a process that was cancelled is not", seen.id)
        for seen in self.seen:
            if seen.item.key is None:
                same = [
                    life.id
                    for life in self.lives.values()
                    if not life.tale and self.item_of(life) is seen.item
                ]
                if len(same) > seen.tries:
                    self.broken(f"submitted {seen.tries} times, and there are {len(same)} processes", same)
        keyed: dict[str, str] = {}
        for seen in self.seen:
            if seen.item.key is not None and seen.id is not None:
                key = seen.item.key
                if keyed.setdefault(key, seen.id) != seen.id:
                    self.broken("one key stands for two processes", key)
