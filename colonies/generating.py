"""What one session knows of generators: their chains, read on from where it stopped; and how to write them.

A chain may hold millions of arguments, so it is folded without them, each event once; those of a run are read
again, by digest, when the run is judged. Which argument is whose run's is `colonies.core.generators`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from colonies import codec, subjects
from colonies.core import generators as generators_
from colonies.core.events import (
    Event,
    GeneratorAdded,
    GeneratorPacked,
    GeneratorRemoved,
    Record,
    Source,
    Verdict,
    WorkflowSubmitted,
)
from colonies.core.generators import Chain, Group, Holding, Pack, run_id
from colonies.core.workflow import Sourced
from colonies.errors import Unavailable
from colonies.history import examine, judge_generator
from colonies.ids import new_id
from colonies.ledger import Stored
from colonies.recording import record

if TYPE_CHECKING:
    from colonies.session import Session

MAX_CHAINS_KEPT = 1_000
MAX_GROUPS_KEPT = 20_000  # of one generator: an older one is found by reading its chain from the start
MAX_RUNS_KEPT = 256  # whose arguments are at hand
MAX_ARGUMENTS_KEPT = 200_000  # of all of these, but for the last MIN_RUNS_KEPT
MIN_RUNS_KEPT = 128  # more than are judged at once
MAX_TRIES = 1_000  # the others get somewhere each time

GeneratorEvent = GeneratorAdded | GeneratorPacked | GeneratorRemoved
Run = tuple[str, int, int, int]  # name, added, run, count


@dataclass(slots=True)
class Reading:
    """A chain up to a sequence, the last one of it that is stored, valid or not."""

    chain: Chain
    guard: int = 0


class Generators:
    """What a session has learned of generators. `sourced` answers from it and never reads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._readings: OrderedDict[str, Reading] = OrderedDict()
        self._packs: OrderedDict[Run, list[Pack]] = OrderedDict()
        self._kept = 0
        self.awaited: dict[str, int] = {}  # by the id of an event of ours: where it was met, valid

    def sourced(self, source: Source, record: Record) -> Sourced | Verdict:
        reading = self._readings.get(source.name)
        generator = reading.chain.find(source.added) if reading is not None else None
        group = generator.group(source.run) if generator is not None and source.run is not None else None
        packs = self._packs.get(_run(source, group), []) if group is not None else []
        return generators_.sourced(generator, source, record, packs)

    # --- reading -------------------------------------------------------------------------------------

    async def read(self, name: str) -> Reading:
        """All that was said under this name, as the leader has it now."""
        reading = self._readings.setdefault(name, Reading(Chain(name, keeps=False)))
        self._readings.move_to_end(name)
        if len(self._readings) > MAX_CHAINS_KEPT:
            self._readings.popitem(last=False)
        await self._read_on(name, reading)
        for generator in reading.chain.all():
            for run in list(generator.closed)[: max(0, len(generator.closed) - MAX_GROUPS_KEPT)]:
                del generator.closed[run]
        return reading

    async def _read_on(self, name: str, reading: Reading) -> None:
        guard = subjects.guard_of(generators_.KIND, name)
        async for batch in self._session.ledger.scan(reading.guard, guard):
            for stored in batch:
                if stored.sequence <= reading.guard:
                    continue
                seen = await self._session.examine(stored)
                if stored.sequence <= reading.guard:  # meanwhile somebody else has read it
                    continue
                judged = judge_generator(self._session.colony, reading.chain, seen)
                reading.guard = stored.sequence
                if judged.verdict.valid and judged.record is not None and judged.record.id in self.awaited:
                    self.awaited[judged.record.id] = stored.sequence

    async def learn(self, stored: Stored) -> None:
        """Learn what the submission of a workflow comes from, if it is a generator's run."""
        if b"source" not in stored.data:  # most come from nowhere
            return
        record = examine(self._session.colony, stored).record
        event = record.event if record is not None else None
        if not isinstance(event, WorkflowSubmitted) or event.source is None:
            return
        source = event.source
        if source.kind != generators_.KIND or source.run is None:
            return
        # Only one run has this workflow's id: whoever cites others has nothing read.
        if record is not None and record.entity == run_id(source.name, source.added, source.run):
            await self._learn_run(source, source.run)

    async def _learn_run(self, source: Source, run: int) -> None:
        reading = self._readings.get(source.name)
        generator = reading.chain.find(source.added) if reading is not None else None
        group = generator.closed.get(run) if generator is not None else None
        if group is None:
            generator = (await self.read(source.name)).chain.find(source.added)
            if generator is None:
                return
            group = generator.group(run)
            if group is None and run < generator.runs:
                group = await self._old(source, run)
                if group is not None:
                    generator.closed[run] = group
        if group is not None:
            self._keep(_run(source, group), await self.packs(source.name, group))

    async def _old(self, source: Source, run: int) -> Group | None:
        """A group that is not kept any more."""
        reading = Reading(Chain(source.name, keeps=False))
        await self._read_on(source.name, reading)
        found = reading.chain.find(source.added)
        return found.closed.get(run) if found is not None else None

    def _keep(self, run: Run, packs: list[Pack]) -> None:
        if self._packs.pop(run, None) is None:
            self._kept += run[3]
        self._packs[run] = packs
        while len(self._packs) > MAX_RUNS_KEPT or (
            self._kept > MAX_ARGUMENTS_KEPT and len(self._packs) > MIN_RUNS_KEPT
        ):
            (_, _, _, count), _ = self._packs.popitem(last=False)
            self._kept -= count

    async def packs(self, name: str, group: Group) -> list[Pack]:
        """The packed events of a group, read again.

        Raises:
            Unavailable: the broker does not give what it gave before.
        """
        holding = Holding(group)
        async for batch in self._session.ledger.scan(
            group.since - 1, subjects.guard_of(generators_.KIND, name)
        ):
            for stored in batch:
                record = examine(self._session.colony, stored, trusted=True).record
                if record is not None:
                    holding.add(record)
                if holding.complete:
                    return holding.packs
        raise Unavailable(f"generator {name}: the arguments of run {group.run} are not there; try again")

    # --- writing -------------------------------------------------------------------------------------

    async def record(self, name: str, event_of: Callable[[Chain], GeneratorEvent]) -> int:
        """Record an event of a generator, made of what its chain is each time; its sequence.

        Raises:
            Conflict, Refused, Unavailable, Unknown: as `Session.record`; and what `event_of` raises.
        """
        tail = GeneratorTail(self, self._session, name, event_of)
        await tail.read()
        id = new_id()
        self.awaited[id] = 0
        try:
            return await record(self._session, tail, id=id, tries=MAX_TRIES)
        finally:
            del self.awaited[id]


@dataclass(slots=True)
class GeneratorTail:
    """The end of a chain, where the next event goes; gives its sequence. See `recording.Tail`."""

    generators: Generators
    session: Session
    entity: str
    event_of: Callable[[Chain], GeneratorEvent]
    kind: str = generators_.KIND
    reading: Reading = field(init=False)

    @property
    def guard(self) -> int:
        return self.reading.guard

    @property
    def head(self) -> bytes | None:
        return self.reading.chain.head

    @property
    def time(self) -> int:
        return self.reading.chain.time

    def event(self) -> Event:
        event = self.event_of(self.reading.chain)
        codec.check(event)
        return event

    def decide(self, wish: Record) -> None:
        verdict = generators_.judge(self.reading.chain, wish, self.session.colony)
        verdict.require(f"generator {self.entity}")

    async def read(self) -> None:
        self.reading = await self.generators.read(self.entity)

    def found(self, id: str) -> int | None:
        return self.generators.awaited[id] or None

    async def after(self, record: Record) -> int:
        return record.sequence


def _run(source: Source, group: Group) -> Run:
    return source.name, source.added, group.run, group.count
