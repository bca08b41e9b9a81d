"""The witness of crons and generators: what clients were told, and by when a run must be there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.simulator.broker import SECOND, START
from tests.simulator.link import Host
from tests.simulator.loop import VirtualLoop
from tests.simulator.oracle import Ledger
from tests.simulator.timeplan import Deed, Script
from tests.simulator.times import CronTale, GeneratorTale, Group

SLACK_S = 3.0  # from when a run is to be said until it is, if an orchestrator is well
BEGUN_S = 2.0  # so long before it an orchestrator that misses nothing has begun
LAG_S = 0.3  # a clock may be so far behind


@dataclass(slots=True)
class Acts:
    """How far a client is with its script."""

    script: Script
    step: int = 0
    settled: bool = False


class TimeWitness:
    """All that must hold of the crons and generators of one lifetime."""

    def __init__(
        self, scripts: Iterable[Script], loop: VirtualLoop, ledger: Ledger, broken: Callable[..., None]
    ) -> None:
        self.seen = [Acts(script) for script in scripts]
        self.orchestrators: Callable[[], list[Host]] = list
        self.plan_check: Callable[..., Any] = lambda when, check, *args: None
        self.ran: list[tuple[float, float]] = []  # from when to when an orchestrator's machine was there (s)
        self._up: dict[Host, float] = {}
        self._begun: dict[Host, float] = {}
        self._loop = loop
        self._ledger = ledger
        self._times = ledger.times
        self._broken = broken
        self._acknowledged: dict[str, list[list[int]]] = {}
        self._times.on_cron = lambda cron: self._expect(cron, cron.added_at)
        self._times.on_run = self._check_missed
        self._times.on_group = self._expect_group

    # --- orchestrators -------------------------------------------------------------------------------

    def boots(self, host: Host) -> None:
        self._up[host] = self._loop.now

    def is_gone(self, host: Host) -> None:
        if host in self._up:
            self.ran.append((self._up.pop(host), self._loop.now))

    def _is_well(self, since: float, begun: float | None = None) -> bool:
        """Is there an orchestrator to which nothing has happened since, and that looked after crons then?"""
        well = [host for host in self.orchestrators() if self._is_well_host(host, since)]
        return any(begun is None or self._begun.get(host, begun + 1) <= begun for host in well)

    def _note_begun(self) -> None:
        """Who is well by now has begun. It may be late from here on, and leaves nothing out."""
        for host in self.orchestrators():
            if host not in self._begun and self._is_well_host(host, self._loop.now - BEGUN_S):
                self._begun[host] = self._loop.now

    def _is_well_host(self, host: Host, since: float) -> bool:
        return host.troubled_at < since and host.up and not host.dead and not host.paused

    def _next_boot(self, since: float) -> float | None:
        """When the first orchestrator came up after this, if there was none then; None: there was one."""
        spans = [*self.ran, *((up, float("inf")) for up in self._up.values())]
        if any(up <= since + LAG_S and down > since for up, down in spans):
            return None
        return min((up for up, _ in spans if up > since), default=None)

    # --- crons ---------------------------------------------------------------------------------------

    def _check_missed(self, cron: CronTale, due: int, time: int) -> None:
        """A run of what was missed while nobody ran is as its cron wants it."""
        boot = self._next_boot(_virtual(due))
        if boot is None:
            return
        if cron.catch_up == "none":
            self._broken("a due time that was missed was run, and the cron wants none of them", cron.name)
        later = cron.next_wanted(due)
        if cron.catch_up == "one" and later is not None and _virtual(later) + LAG_S < boot:
            self._broken("of the due times that were missed not only the latest was run", cron.name)

    def _expect(self, cron: CronTale, after: int) -> None:
        due = cron.next(after)
        self.plan_check(max(self._loop.now, _virtual(due)), self._note_begun)
        at = max(self._loop.now, _virtual(due + cron.jitter) + SLACK_S)
        self.plan_check(at, self._check_due, cron, due, True)

    def _check_due(self, cron: CronTale, due: int, first: bool) -> None:
        """Is the run of this due time there, if it must be?"""
        if first and cron.removed_at is None:
            self._expect(cron, due)
        stopped = cron.removed_at is not None or any(
            pause.until is None or pause.until > due for pause in cron.pauses
        )
        if due in cron.runs or stopped:
            return
        now, soon = self._loop.now, _virtual(due)
        attended = self._is_well(soon - BEGUN_S) or self._is_well(now - SLACK_S, begun=soon)
        if not attended and not self._is_well(now - SLACK_S):
            self.plan_check(now + SLACK_S, self._check_due, cron, due, False)
            return
        if cron.waits:
            if any(not run.ended or _virtual(run.ended_at) > now - SLACK_S for run in self._runs(cron)):
                self.plan_check(now + SLACK_S, self._check_due, cron, due, False)
                return
            if any(run.ended_at >= due for run in self._runs(cron)):  # it was held up
                attended = False
        later = any(other > due for other in cron.runs) and not self._is_last_missed(cron, due)
        if attended or cron.catch_up == "all" or (cron.catch_up == "one" and not later):
            self._broken(f"the due time {due} is over, and its run is not there", cron.name)

    def _is_last_missed(self, cron: CronTale, due: int) -> bool:
        """Was this the last that was missed before an orchestrator came up that was well ever since?"""
        boot, later = self._next_boot(_virtual(due)), cron.next(due)
        if boot is None or _virtual(later) < boot + 1.0:
            return False
        return any(up == boot and self._is_well_host(host, boot + 1e-6) for host, up in self._up.items())

    def _runs(self, cron: CronTale) -> list[Any]:
        return [*cron.runs.values(), *cron.now]

    # --- generators ----------------------------------------------------------------------------------

    def _expect_group(self, generator: GeneratorTale, group: Group, when: int) -> None:
        at = max(self._loop.now, _virtual(when)) + SLACK_S
        self.plan_check(at, self._check_group, generator, group, at - SLACK_S)

    def _check_group(self, generator: GeneratorTale, group: Group, since: float) -> None:
        if group.left or group.tale is not None:
            return
        if not self._is_well(since - BEGUN_S):
            now = self._loop.now
            self.plan_check(now + 2 * SLACK_S, self._check_group, generator, group, now + SLACK_S)
            return
        self._broken(f"group {group.run} is closed, and its run is not there", generator.name)

    # --- what clients see ----------------------------------------------------------------------------

    def said(self, script: Script, deed: Deed) -> None:
        """It was acknowledged, or known to be so."""
        name, cron = script.name, self._times.cron(script.name)
        if script.kind in ("colony", "queue", "worker"):
            kind = "member" if script.kind == "worker" else script.kind
            if ((kind, name) in self._ledger.holds.paused) != (deed.what == "pause"):
                self._broken(f"{deed.what} was acknowledged, and it is not so", (kind, name))
            return
        there = cron if script.kind == "cron" else self._times.generator(name)
        if (there is not None) != (deed.what != "remove"):
            self._broken(f"{deed.what} was acknowledged, and it is not so", name)
        elif deed.what in ("pause", "resume") and cron is not None and cron.paused != (deed.what == "pause"):
            self._broken(f"{deed.what} was acknowledged, and the cron is not so", name)

    def run_acknowledged(self, id: str) -> None:
        if id not in self._ledger.tales:
            self._broken("a run was acknowledged and is not there", id)

    def packed(self, name: str, args: list[int]) -> None:
        self._acknowledged.setdefault(name, []).append(args)
        if self._packed(name).count(args[0]) != 1:
            self._broken("arguments were acknowledged and are not there", args)

    def is_over(self, name: str) -> bool:
        """Is there nothing under this name, and never will be?"""
        left = [
            deed for acts in self.seen if acts.script.name == name for deed in acts.script.deeds[acts.step :]
        ]
        return self._times.generator(name) is None and all(deed.what != "add" for deed in left)

    def _packed(self, name: str) -> list[Any]:
        return [a for g, group in self._times.all_groups() if g.name == name for a in group.args]

    # --- the end -------------------------------------------------------------------------------------

    def done(self) -> bool:
        now = START + int(self._loop.now * SECOND)
        groups = self._times.all_groups() if self.seen else ()
        return all(acts.settled for acts in self.seen) and not any(
            group.closed(now) and group.tale is None for _, group in groups
        )

    def unfinished(self) -> list[str]:
        found = [f"a client is not done with {a.script.name}" for a in self.seen if not a.settled]
        return found + [
            f"group {group.run} of {generator.name} is closed and does not run"
            for generator, group in self._times.all_groups()
            if group.full and not group.left and group.tale is None
        ]

    def at_the_end(self) -> None:
        """What was packed is there once, and in the order in which it was given."""
        for name, many in self._acknowledged.items():
            there = self._packed(name)
            for args in many:
                if [arg for arg in there if arg in args] != args:
                    self._broken(f"{args} were acknowledged, and there is {there}", name)
        for acts in self.seen:
            there = self._packed(acts.script.name)
            if len(set(there)) != len(there):
                self._broken(f"something was packed twice: {there}", acts.script.name)


def _virtual(time: int) -> float:
    """A ledger time (ns) on the virtual clock (s)."""
    return (time - START) / SECOND
