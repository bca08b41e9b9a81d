"""What must hold of crons and generators, in words of its own: it asks none of the code's rules.

`Times` reads their events and the submissions of their runs. Each due time, and each group of arguments, has
one run, whose id derives from it; when a run must be there at all is `timewitness`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulator.broker import SECOND
from tests.simulator.flows import VOID, Tale

if TYPE_CHECKING:
    from tests.simulator.oracle import Told

# The seconds of a minute at which the expressions of `timeplan` are due, in every time zone.
SECONDS = {
    "* * * * * *": range(60),
    "*/2 * * * * *": range(0, 60, 2),
    "1/3 * * * * *": range(1, 60, 3),
    "5,10,15,40,45,50,55 * * * * *": (5, 10, 15, 40, 45, 50, 55),
    "* * * * *": (0,),
}


@dataclass(slots=True)
class Pause:
    """From `since` on (ns) until `until`; None: it lasts."""

    since: int
    until: int | None = None

    def has(self, time: int) -> bool:
        return self.since <= time and (self.until is None or time < self.until)


@dataclass(slots=True)
class CronTale:
    """A cron as the ledger tells it. Times are ns; `runs` are by due time, `now` those that a member wanted
    at once."""

    name: str
    author: str
    data: dict[str, Any]
    added: int
    added_at: int
    pauses: list[Pause] = field(default_factory=list)
    removed_at: int | None = None
    runs: dict[int, Tale] = field(default_factory=dict)
    now: list[Tale] = field(default_factory=list)

    @property
    def paused(self) -> bool:
        return bool(self.pauses) and self.pauses[-1].until is None

    @property
    def jitter(self) -> int:
        return int(self.data.get("jitter_s", 0.0) * SECOND)

    @property
    def catch_up(self) -> str:
        return str(self.data.get("catch_up", "one"))

    @property
    def waits(self) -> bool:
        return bool(self.data.get("wait_previous"))

    def next(self, after: int) -> int:
        """The next time of its schedule, whatever pauses say."""
        interval_s = self.data.get("interval_s")
        if interval_s is not None:
            step = int(interval_s * SECOND)
            return self.added_at + ((max(after, self.added_at) - self.added_at) // step + 1) * step
        second = max(after, self.added_at) // SECOND + 1
        while second % 60 not in SECONDS[self.data["cron"]]:
            second += 1
        return second * SECOND

    def next_wanted(self, after: int) -> int | None:
        """The next time at which it is to run, as far as one knows."""
        due = self.next(after)
        while (pause := next((pause for pause in self.pauses if pause.has(due)), None)) is not None:
            if pause.until is None:
                return None
            due = self.next(pause.until - 1)
        return due

    def open_runs(self) -> list[Tale]:
        return [tale for tale in (*self.runs.values(), *self.now) if not tale.ended]


@dataclass(slots=True)
class Group:
    """The arguments of one run of a generator. `ends` (ns): from then on it takes no more."""

    run: int
    first: int
    ends: int | None
    args: list[Any] = field(default_factory=list)
    packs: list[int] = field(default_factory=list)
    full: bool = False
    left: bool = False  # not closed when its generator was removed
    tale: Tale | None = None

    def closed(self, time: int) -> bool:
        return not self.left and (self.full or (self.ends is not None and self.ends <= time))


@dataclass(slots=True)
class GeneratorTale:
    """A generator as the ledger tells it."""

    name: str
    author: str
    data: dict[str, Any]
    added: int
    total: int = 0
    groups: list[Group] = field(default_factory=list)
    removed_at: int | None = None


class Times:
    """The fold. `broken(rule, about)` is called for what an honest member must never store."""

    def __init__(self, broken: Callable[..., None], void: Callable[[int], None], slack: int) -> None:
        self.crons: dict[str, list[CronTale]] = {}  # by name, those removed before it
        self.generators: dict[str, list[GeneratorTale]] = {}
        self.on_cron: Callable[[CronTale], None] = lambda cron: None
        self.on_run: Callable[[CronTale, int, int], None] = lambda cron, due, time: None
        self.on_group: Callable[[GeneratorTale, Group, int], None] = lambda generator, group, when: None
        self._heads: dict[tuple[str, str], bytes] = {}
        self._broken = broken
        self._void = void
        self._slack = slack  # for so long what is stored may be unknown to who speaks (ns)

    def cron(self, name: str) -> CronTale | None:
        """The cron of this name that there is now."""
        found = self.crons.get(name, [])
        return found[-1] if found and found[-1].removed_at is None else None

    def generator(self, name: str) -> GeneratorTale | None:
        found = self.generators.get(name, [])
        return found[-1] if found and found[-1].removed_at is None else None

    # --- their own events ----------------------------------------------------------------------------

    def read(self, kind: str, name: str, told: Told, role: str) -> None:
        """An event of a cron or generator."""
        if told.prev != self._heads.get((kind, name)):
            self._broken(f"{told.event} does not follow the {kind}'s last event", name)
        if role != "user":
            self._broken(f"{told.event} of a {kind} by a {role}", name)
        self._heads[kind, name] = told.digest
        there = self.cron(name) if kind == "cron" else self.generator(name)
        if (there is None) != (told.event == "added"):
            self._broken(f"{told.event} of a {kind} that {'is not' if there is None else 'is'} there", name)
        elif kind == "cron":
            self._of_cron(name, told)
        else:
            self._of_generator(name, told)

    def _of_cron(self, name: str, told: Told) -> None:
        if told.event == "added":
            cron = CronTale(name, told.author, told.data, told.sequence, told.time)
            self.crons.setdefault(name, []).append(cron)
            self.on_cron(cron)
            return
        cron = self.crons[name][-1]
        if told.event == "removed":
            cron.removed_at = told.time
        elif cron.paused != (told.event == "resumed"):
            self._broken(f"{told.event}, and the cron was so before", name)
        elif told.event == "paused":
            cron.pauses.append(Pause(told.time))
        else:
            cron.pauses[-1].until = told.time

    def _of_generator(self, name: str, told: Told) -> None:
        if told.event == "added":
            one = GeneratorTale(name, told.author, told.data, told.sequence)
            self.generators.setdefault(name, []).append(one)
            return
        generator = self.generators[name][-1]
        if told.event == "packed":
            self._pack(generator, told)
            return
        generator.removed_at = told.time
        for group in generator.groups[-1:]:
            group.left = not group.closed(told.time)

    def _pack(self, generator: GeneratorTale, told: Told) -> None:
        if told.data["start"] != generator.total or not told.data["args"]:
            self._broken(f"packed from {told.data['start']} on, after {generator.total}", generator.name)
        timeout_s = generator.data.get("timeout_s")
        for arg in told.data["args"]:
            group = generator.groups[-1] if generator.groups else None
            if group is None or group.closed(told.time):
                ends = None if timeout_s is None else told.time + int(timeout_s * SECOND)
                group = Group(len(generator.groups), generator.total, ends)
                generator.groups.append(group)
                if ends is not None:
                    self.on_group(generator, group, ends)
            group.args.append(arg)
            generator.total += 1
            if told.sequence not in group.packs:
                group.packs.append(told.sequence)
            if len(group.args) == generator.data["trigger"]:
                group.full = True
                self.on_group(generator, group, told.time)

    # --- runs ----------------------------------------------------------------------------------------

    def submitted(self, id: str, told: Told, role: str) -> Tale | None:
        """A run was submitted. None: it is void, or broke a promise."""
        source = told.data["source"]
        if told.data.get("spec") is not None:
            self._broken("a run holds a spec of its own", id)
        kind, name, added = source["kind"], source["name"], source["added"]
        found: list[Any] = [*(self.crons if kind == "cron" else self.generators).get(name, [])]
        [one] = [tale for tale in found if tale.added == added] or [None]
        if one is None:
            self._broken(f"a run of a {kind} that nobody added", id)
            return None
        tale = Tale(id, one.author, one.data["spec"], told.sequence, told.time, told.digest)
        tale.source = f"{kind} {name}"
        if kind == "generator":
            wrong = self._group_wrong(one, id, source, told, role, tale)
        elif source.get("due") is None:
            wrong = self._now_wrong(one, source, told, role, tale)
        else:
            wrong = self._due_wrong(one, id, source, told, role, tale)
        if wrong == VOID:
            self._void(told.sequence)
        elif wrong is not None:
            self._broken(f"a run of the {kind} {name}: {wrong}", id)
        return tale if wrong is None else None

    def _due_wrong(
        self, cron: CronTale, id: str, source: dict[str, Any], told: Told, role: str, tale: Tale
    ) -> str | None:
        due = source["due"]
        if role != "service":
            return f"a {role} says that it is due"
        if id != _derived("cron", cron.name, cron.added, due):
            return "its id does not derive from the cron and its due time"
        if due in cron.runs:
            return "this due time was run before"
        if cron.next(due - 1) != due or due <= cron.added_at:
            return "it is not due then"
        if told.time < due:
            return "it is before its time"
        if cron.removed_at is not None:
            return VOID if due <= cron.removed_at else "the cron was removed before it was due"
        if any(pause.has(due) for pause in cron.pauses):
            return "the cron was paused when it was due"
        if cron.paused:
            return VOID
        if (wrong := self._previous_wrong(cron, source, told, tale)) is not None:
            return wrong
        cron.runs[due] = tale
        self.on_run(cron, due, told.time)
        return self._too_soon(cron, due, told)

    def _too_soon(self, cron: CronTale, due: int, told: Told) -> str | None:
        """Of a cron that waits: does a run go on that who said this must have known of?"""
        for other, tale in cron.runs.items():
            if cron.waits and other < due and tale.time < told.time - self._slack and not tale.ended:
                return f"that of {other} goes on, and it waits for that"
        return None

    def _now_wrong(
        self, cron: CronTale, source: dict[str, Any], told: Told, role: str, tale: Tale
    ) -> str | None:
        if role != "user":
            return f"a {role} runs it before it is due"
        if cron.removed_at is not None:
            return VOID
        cron.now.append(tale)
        return self._previous_wrong(cron, source, told, tale)

    def _previous_wrong(self, cron: CronTale, source: dict[str, Any], told: Told, tale: Tale) -> str | None:
        """It has the outputs of the last successful run that was due."""
        before, due = source.get("previous_due"), source.get("due")
        if before is not None:
            tale.previous = cron.runs.get(before)
            if tale.previous is None or source["previous"] != tale.previous.id:
                return "the run before it is none"
            if tale.previous.state != "successful" or (due is not None and before >= due):
                return f"the run before it is {tale.previous.state}, of {before}"
        for other, run in cron.runs.items():
            later = other > (before or 0) and (due is None or other < due)
            if later and run.state == "successful" and run.ended_at < told.time - self._slack:
                return f"it has the outputs of {before}, and those of {other} are there"
        return None

    def _group_wrong(
        self, generator: GeneratorTale, id: str, source: dict[str, Any], told: Told, role: str, tale: Tale
    ) -> str | None:
        run = source["run"]
        if role != "service":
            return f"a {role} runs it"
        if id != _derived("generator", generator.name, generator.added, run):
            return "its id does not derive from the generator and its number"
        if run >= len(generator.groups):
            return f"nothing was packed for run {run}"
        group = generator.groups[run]
        if (source["first"], source["count"]) != (group.first, len(group.args)):
            return f"it takes {source['count']} from {source['first']} on, it has {group.args}"
        if source["packs"] != group.packs:
            return "it cites other events than those with its arguments"
        if group.tale is not None:
            return "this was run before"
        if group.left:
            return VOID if group.ends is not None and group.ends <= told.time else "it was not closed"
        if not group.closed(told.time):
            return "its group is not closed"
        group.tale, tale.packed = tale, list(group.args)
        return None

    # --- all of it -----------------------------------------------------------------------------------

    def all_groups(self) -> Iterator[tuple[GeneratorTale, Group]]:
        for tales in self.generators.values():
            for generator in tales:
                for group in generator.groups:
                    yield generator, group


def _derived(kind: str, name: str, added: int, number: int) -> str:
    digest = hashlib.sha256(f"{kind}\0{name}\0{added}\0{number}".encode()).digest()
    return base64.b32encode(digest[:20]).decode().lower()
