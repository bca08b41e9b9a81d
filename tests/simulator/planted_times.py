"""Bugs of crons and generators to be found, as in `planted`. What readers judge, they judge so as well."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from colonies import packing, recording
from colonies.core import crons
from colonies.core import generators as groups
from colonies.core.crons import Cron, Pause
from colonies.core.events import Record
from colonies.core.process import SECOND, derived_id
from colonies.errors import Refused, Unknown
from colonies.generating import Generators
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.packing import Runs
from colonies.scheduling import Place, Scheduler
from tests.simulator.planting import Patch, with_append


class Anything(str):
    """An id that is like any other."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


# --- crons --------------------------------------------------------------------------------------------


def one_run_twice() -> list[Patch]:
    """Each orchestrator has ids of its own for the runs of a cron, and nobody compares them."""

    def run_id(self: Cron, due: int) -> str:
        return Anything(derived_id("cron", self.name, str(self.added), str(due), new_id()))

    return [(Cron, "run_id", run_id)]


def all_that_was_missed() -> list[Patch]:
    """What was missed is run, whatever the cron wants."""
    return [(Place, "catch_up", lambda self, now: None)]


def nothing_that_was_missed() -> list[Patch]:
    """What was missed is left out, whatever the cron wants."""
    return [(Place, "catch_up", lambda self, now: self.advance(now))]


def a_failure_blocks() -> list[Patch]:
    """The next run waits for the success of the one before it."""
    real = Scheduler.on_ended

    def on_ended(self: Scheduler, workflow: Any, state: Any) -> None:
        if state == "successful":
            real(self, workflow, state)

    return [(Scheduler, "on_ended", on_ended)]


def waits_for_nobody() -> list[Patch]:
    """A run begins while the one before it goes on."""
    real = Scheduler._due

    def due(self: Scheduler, place: Place, now: int) -> int | None:
        place.open.clear()
        return real(self, place, now)

    return [(Scheduler, "_due", due)]


def runs_while_paused() -> list[Patch]:
    """A pause is nothing."""
    real = Scheduler._due

    def due(self: Scheduler, place: Place, now: int) -> int | None:
        place.cron = replace(place.cron, pauses=())
        self._history.crons[place.cron.name], kept = place.cron, self._history.crons[place.cron.name]
        try:
            return real(self, place, now)
        finally:
            self._history.crons[place.cron.name] = kept

    never = lambda self, moment: False  # noqa: E731
    return [(Scheduler, "_due", due), (Pause, "leaves_out", never), (Pause, "holds_at", never)]


def pauses_are_missed_time() -> list[Patch]:
    """What was due in a pause is run after it."""
    return [(Pause, "leaves_out", lambda self, due: False)]


def too_early() -> list[Patch]:
    """A run starts half a second before its time."""
    real = Cron.starts
    return [(Cron, "starts", lambda self, due: real(self, due) - SECOND // 2)]


def outputs_of_the_first_run() -> list[Patch]:
    """Each run gets the outputs of the first that was successful."""
    real = Scheduler.on_ended

    def on_ended(self: Scheduler, workflow: Any, state: Any) -> None:
        place = self._place(workflow.source)
        before = place.successful if place is not None else None
        real(self, workflow, state)
        if place is not None and before is not None:
            place.successful = before

    return [(Scheduler, "on_ended", on_ended)]


def no_timer() -> list[Patch]:
    """A cron runs when something else happens to it."""
    return [(Scheduler, "_wake_at", lambda self, place, time, now: None)]


def removed_and_running() -> list[Patch]:
    """A cron that was removed runs on."""
    real = Scheduler._on_cron

    def on_cron(self: Scheduler, cron: Cron) -> None:
        if cron.removed is None:
            real(self, cron)

    def due(self: Scheduler, place: Place, now: int) -> int | None:
        current = self._history.crons[place.cron.name]
        self._history.crons[place.cron.name] = place.cron
        try:
            return real_due(self, place, now)
        finally:
            self._history.crons[place.cron.name] = current

    def judged(cron: Cron, due: int, record: Record) -> Any:
        return real_judged(replace(cron, removed=None), due, record)

    real_due, real_judged = Scheduler._due, crons._due
    return [(Scheduler, "_on_cron", on_cron), (Scheduler, "_due", due), (crons, "_due", judged)]


# --- generators ---------------------------------------------------------------------------------------


def one_too_many() -> list[Patch]:
    """A group is closed by the argument that comes after it."""
    real = groups._take

    def take(chain: Any, generator: Any, *more: Any) -> None:
        generator.trigger += 1
        real(chain, generator, *more)
        generator.trigger -= 1

    return [(groups, "_take", take)]


def no_timeout() -> list[Patch]:
    """A group waits until it is full."""
    return [(Runs, "_time", lambda self, name, generator, now: None)]


def timeout_from_the_last() -> list[Patch]:
    """The time of a group begins anew with each argument."""
    real = groups._take

    def take(chain: Any, generator: Any, *more: Any) -> None:
        real(chain, generator, *more)
        if generator.open is not None and generator.timeout_s is not None:
            generator.open.ends = chain.time + int(generator.timeout_s * SECOND)

    return [(groups, "_take", take)]


def in_another_order() -> list[Patch]:
    """The arguments of a run come backwards."""
    real = groups.arguments
    return [(groups, "arguments", lambda group, packs: real(group, packs)[::-1])]


def one_argument_twice() -> list[Patch]:
    """A run has the first argument of the next one as well, if it is there."""

    def arguments(group: Any, packs: Any) -> tuple[Any, ...]:
        found: list[Any] = []
        for pack in packs:
            start = max(group.first - pack.start, 0)
            found += pack.args[start : group.first + group.count + 1 - pack.start]
        return tuple(found)

    return [(groups, "arguments", arguments)]


def _hopeful(self: Any) -> Any:
    """As it is, but what has no answer is taken for stored."""

    async def append(draft: Draft) -> int:
        try:
            return int(await self._session.ledger.append(draft))
        except Unknown:
            return int(self._history.position) + 1

    hopeful = copy.copy(self)
    hopeful._session = with_append(self._session, append)
    return hopeful


def submitted_once_and_forgotten() -> list[Patch]:
    """A run of a generator without an answer is taken for recorded, and not looked for."""
    real = Runs._submit

    async def submit(self: Runs, *about: Any) -> bool:
        return await real(_hopeful(self), *about)

    return [(Runs, "_submit", submit), (Runs, "_check", lambda self, name: None)]


def packed_again() -> list[Patch]:
    """No answer came to a pack: it is packed once more, as another event."""

    async def record(self: Generators, name: str, event_of: Any) -> int:
        async def refused(draft: Draft) -> int:
            try:
                return await ledger.append(draft)
            except Unknown:
                raise Refused("no answer") from None

        hasty, ledger = copy.copy(self), self._session.ledger
        hasty._session = with_append(self._session, refused)
        try:
            return await real(hasty, name, event_of)
        except Refused:
            return await real(self, name, event_of)

    real = Generators.record
    return [(Generators, "record", record)]


def packed_beside_each_other() -> list[Patch]:
    """Who packs does not look whether another was faster."""

    def draft(subject: str, data: bytes, after: int) -> Draft:
        return Draft(subject, data, None if ".packed." in subject else after)  # type: ignore[arg-type]

    return [(recording, "Draft", draft)]


def what_waited_runs() -> list[Patch]:
    """What waited for more when its generator was removed runs as it is."""
    real = groups._end

    def end(chain: Any, generator: Any, sequence: int) -> None:
        if generator.open is not None:
            groups._close(generator)
        real(chain, generator, sequence)

    def sourced(generator: Any, source: Any, record: Record, *more: Any) -> Any:
        return real_sourced(replace_trigger(generator), source, record, *more)

    def replace_trigger(generator: Any) -> Any:
        return replace(generator, trigger=1) if generator is not None and generator.removed else generator

    real_sourced = groups.sourced
    return [(groups, "_end", end), (groups, "sourced", sourced)]


def another_number() -> list[Patch]:
    """The runs of a generator have ids of somebody's own, which nobody compares."""

    def run_id(name: str, added: int, run: int) -> str:
        return Anything(derived_id("generator", name, str(added), str(run), new_id()))

    return [(groups, "run_id", run_id), (packing, "run_id", run_id)]


TIME_BUGS = [
    ("a run of a cron under another id", one_run_twice, 20),
    ("all that was missed is run", all_that_was_missed, 200),
    ("nothing that was missed is run", nothing_that_was_missed, 40),
    ("a failed run blocks its cron", a_failure_blocks, 200),
    ("a run does not wait for the one before it", waits_for_nobody, 200),
    ("a cron runs while it is paused", runs_while_paused, 40),
    ("what was due in a pause is run after it", pauses_are_missed_time, 40),
    ("a run before its time", too_early, 20),
    ("the outputs of another run", outputs_of_the_first_run, 40),
    ("a cron without a timer", no_timer, 20),
    ("a removed cron runs on", removed_and_running, 60),
    ("a group with one argument too many", one_too_many, 40),
    ("a generator that never runs out of time", no_timeout, 200),
    ("the time of a group begins anew", timeout_from_the_last, 200),
    ("arguments in another order", in_another_order, 100),
    ("an argument in two runs", one_argument_twice, 60),
    ("a generator's run that was not recorded is forgotten", submitted_once_and_forgotten, 500),
    ("a pack without an answer is packed again", packed_again, 300),
    ("packed beside each other", packed_beside_each_other, 300),
    ("what waited runs after the removal", what_waited_runs, 100),
    ("a generator's run under another id", another_number, 40),
]
