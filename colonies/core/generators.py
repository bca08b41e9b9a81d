"""Generators: what members pack, and which runs that makes.

    added ──> packed* ──> removed        (the name may be added again)

Nobody allots arguments to runs. The packed ones, counted from 0, fall into groups by what the chain and the
ledger's own times say, so every reader finds the same ones: a group is closed when it has `trigger`
arguments, or `timeout_s` after the ledger time of its first. An argument that is stored at that time or later
begins the next group, and no group is empty. Group k is run k, a workflow whose id derives from the
generator and k. What was not closed when the generator was removed never runs.

`judge` and `evolve` as of a workflow; `sourced` says what a run has, or why it is not true. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from colonies.core.colony import Colony
from colonies.core.events import (
    MAX_COUNT,
    SECOND,
    VALID,
    GeneratorAdded,
    GeneratorPacked,
    GeneratorRemoved,
    Record,
    Source,
    Verdict,
    denied,
    quarantined,
    void,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.states import derived_id
from colonies.core.workflow import Sourced
from colonies.errors import Invalid

KIND: Final = "generator"
MAX_REMOVED_KEPT = 100  # of one name: whose last, unfinished run is known to have lost to the removal


@dataclass(frozen=True, slots=True)
class Pack:
    """A packed event: its sequence, and its arguments, of which the first has the number `start`."""

    sequence: int
    start: int
    args: Sequence[Any]


@dataclass(slots=True)
class Group:
    """The arguments of one run: `count` from number `first` on. `ends` (ns): from then on it takes no more.

    It begins in the packed event `since`, whose first argument has the number `start` and whose `prev` is
    `head`; the last of it so far is in the packed event `last`, whose digest is `tail`. `packs` are these
    events, unless a reader keeps none. `taken`: its run was submitted, as far as the reader follows runs.
    """

    run: int
    first: int
    since: int
    start: int
    head: bytes | None
    ends: int | None
    count: int = 0
    last: int = 0
    tail: bytes = b""
    packs: list[Pack] = field(default_factory=list)
    taken: bool = False


@dataclass(slots=True)
class Generator:
    """A generator as the ledger tells it; `added` and `added_at` (ns) are those of the event that added it.

    `total` arguments were packed. `closed` are the groups that are to run, by run, without those that a
    reader has no more use for; `open` is the one that takes what is packed next, `runs` its number.
    `left` is the one that was not closed when the generator was removed.
    """

    name: str
    spec: WorkflowSpec
    trigger: int
    timeout_s: float | None
    submitter: str
    added: int
    added_at: int
    total: int = 0
    runs: int = 0
    closed: dict[int, Group] = field(default_factory=dict)
    open: Group | None = None
    left: Group | None = None
    removed: int | None = None

    def due(self, at: int) -> list[Group]:
        """The groups that are to run at this ledger time (ns), in order."""
        group = self.open
        over = group is not None and not group.taken and group.ends is not None and group.ends <= at
        return [*self.closed.values(), *([group] if over and group is not None else [])]

    def group(self, run: int) -> Group | None:
        if self.open is not None and self.open.run == run:
            return self.open
        return self.closed.get(run)


@dataclass(slots=True)
class Chain:
    """All that was said under a generator's name: `head` and `time` (ns) are those of the last valid event.

    `generator` is the one that there is now, `former` are removed ones, by the sequence that added them.
    `keeps`: with their arguments.
    """

    name: str
    keeps: bool = True
    head: bytes | None = None
    time: int = 0
    generator: Generator | None = None
    former: dict[int, Generator] = field(default_factory=dict)

    def find(self, added: int) -> Generator | None:
        """The generator that was added at this sequence."""
        if self.generator is not None and self.generator.added == added:
            return self.generator
        return self.former.get(added)

    def taken(self, source: Source) -> None:
        """A run was submitted: its arguments are needed no more.

        Its group stays what the chain says: were the broker's clock set back, something might still join it,
        and readers who do not follow runs would count differently.
        """
        found = self.find(source.added)
        if found is None or source.run is None:
            return
        if found.open is not None and found.open.run == source.run:
            found.open.taken, found.open.packs = True, []
        found.closed.pop(source.run, None)

    def all(self) -> Iterable[Generator]:
        yield from self.former.values()
        if self.generator is not None:
            yield self.generator


def run_id(name: str, added: int, run: int) -> str:
    """The id of the workflow that is this run."""
    return derived_id(KIND, name, str(added), str(run))


# --- the chain --------------------------------------------------------------------------------------


def judge(chain: Chain, record: Record, colony: Colony) -> Verdict:
    """Could this event of a generator be true here? Never raises."""
    if record.prev != chain.head:
        return quarantined("its prev is not the digest of the generator's last valid event")
    if record.role not in ("user", "owner"):
        return denied(f"the role {record.role} says nothing of generators")
    match record.event:
        case GeneratorAdded() as event:
            return _added(chain, event, colony)
        case GeneratorPacked() as event:
            return _packed(chain, event)
        case GeneratorRemoved():
            return _removed(chain, record)
    return quarantined(f"{record.event.type} is not an event of a generator")


def _added(chain: Chain, event: GeneratorAdded, colony: Colony) -> Verdict:
    if chain.generator is not None:
        return quarantined("there is a generator of this name")
    try:
        spec = event.spec.checked()
    except Invalid as error:
        return quarantined(str(error).splitlines()[0])
    for node in spec.nodes:
        named = node.spec.colony if node.spec is not None else None
        if named is not None and named not in (colony.name, colony.key):
            return quarantined(f"node {node.name} is for the colony {named}, this is {colony.name}")
    return VALID


def _packed(chain: Chain, event: GeneratorPacked) -> Verdict:
    generator = chain.generator
    if generator is None:
        return quarantined("there is no generator of this name")
    if not event.args:
        return quarantined("it holds no argument")
    if event.start != generator.total:
        return quarantined(f"{generator.total} arguments were packed before it, it says {event.start}")
    if generator.total + len(event.args) > MAX_COUNT:
        return quarantined(f"the generator has {generator.total} arguments, and takes no more")
    return VALID


def _removed(chain: Chain, record: Record) -> Verdict:
    if chain.generator is None:
        return quarantined("there is no generator of this name")
    if record.role != "owner" and record.author != chain.generator.submitter:
        return denied(f"only {chain.generator.submitter} or an owner may remove the generator")
    return VALID


def evolve(chain: Chain, record: Record) -> None:
    """Apply a valid event, in place (a chain has one holder, its reader)."""
    before = chain.head
    chain.head, chain.time = record.digest, max(chain.time, record.time)
    match record.event:
        case GeneratorAdded(spec=spec, trigger=trigger, timeout_s=timeout_s):
            sequence, author = record.sequence, record.author
            chain.generator = Generator(chain.name, spec, trigger, timeout_s, author, sequence, chain.time)
        case GeneratorPacked(args=args):
            assert chain.generator is not None
            pack = Pack(record.sequence, chain.generator.total, args)
            _take(chain, chain.generator, pack, before)
        case GeneratorRemoved():
            assert chain.generator is not None
            _end(chain, chain.generator, record.sequence)
        case _:
            raise AssertionError(f"not an event of a generator: {record.event.type}")


def _take(chain: Chain, generator: Generator, pack: Pack, before: bytes | None) -> None:
    """Put the arguments of a packed event into groups. `before` is the head that it was built on."""
    time = chain.time
    if generator.open is not None and generator.open.ends is not None and time >= generator.open.ends:
        _close(generator)
    left = len(pack.args)
    while left:
        group = generator.open
        if group is None:
            limit = generator.timeout_s
            ends = None if limit is None else time + int(limit * SECOND)
            group = Group(generator.runs, generator.total, pack.sequence, pack.start, before, ends)
            generator.open = group
        taken = min(left, generator.trigger - group.count)
        group.count += taken
        group.last, group.tail = pack.sequence, chain.head or b""
        if chain.keeps and not group.taken:
            group.packs.append(pack)
        generator.total += taken
        left -= taken
        if group.count == generator.trigger:
            _close(generator)


def _close(generator: Generator) -> None:
    assert generator.open is not None
    if not generator.open.taken:
        generator.closed[generator.open.run] = generator.open
    generator.open = None
    generator.runs += 1


def _end(chain: Chain, generator: Generator, sequence: int) -> None:
    """The generator is no more; what was closed before still runs."""
    group = generator.open
    if group is not None and (group.taken or (group.ends is not None and chain.time >= group.ends)):
        _close(generator)
    elif group is not None:
        generator.open, generator.left = None, group
        group.packs = []
    generator.removed = sequence
    chain.generator = None
    chain.former[generator.added] = generator
    if len(chain.former) > MAX_REMOVED_KEPT:
        done = [added for added, one in chain.former.items() if not one.closed]
        for added in done[: len(chain.former) - MAX_REMOVED_KEPT]:
            del chain.former[added]


# --- runs -------------------------------------------------------------------------------------------


class Holding:
    """Finds the packed events of a group again: those that its chain had when it was judged."""

    def __init__(self, group: Group) -> None:
        self.packs: list[Pack] = []
        self._head, self._total = group.head, group.start
        self._tail = group.tail

    @property
    def complete(self) -> bool:
        return self._head == self._tail

    def add(self, record: Record) -> None:
        """The next event of the chain from the group's `since` on. It need not be checked: the digests are,
        from the one before the group to the last of it."""
        event = record.event
        if self.complete or not isinstance(event, GeneratorPacked):
            return
        if record.prev == self._head and event.start == self._total and event.args:
            self.packs.append(Pack(record.sequence, self._total, event.args))
            self._head, self._total = record.digest, self._total + len(event.args)


def arguments(group: Group, packs: Sequence[Pack]) -> tuple[Any, ...]:
    """The arguments of a group, out of the packed events that hold them."""
    found: list[Any] = []
    for pack in packs:
        start = max(group.first - pack.start, 0)
        found += pack.args[start : group.first + group.count - pack.start]
    return tuple(found)


def source_of(generator: Generator, group: Group) -> Source:
    """What the run of a group says of where it is from."""
    packs = [pack.sequence for pack in group.packs]
    return Source(
        KIND,
        generator.name,
        generator.added,
        run=group.run,
        first=group.first,
        count=group.count,
        packs=packs,
    )


def sourced(
    generator: Generator | None, source: Source, record: Record, packs: Sequence[Pack] | None = None
) -> Sourced | Verdict:
    """What this run has of its generator; or why it has nothing. `packs` are those of the group, if the
    generator's reader keeps none."""
    if generator is None or generator.added >= record.sequence:
        return quarantined(f"the generator {source.name} was not added at {source.added}")
    run = source.run
    if run is None or (source.due, source.previous, source.previous_due) != (None, None, None):
        return quarantined("it does not say which run of the generator it is")
    if record.entity != run_id(generator.name, generator.added, run):
        return quarantined("the id does not derive from the generator and the run")
    group = generator.group(run)
    if group is None or group.taken:
        return _never(generator, source, run, record)
    if (source.first, source.count) != (group.first, group.count) or record.sequence <= group.last:
        return quarantined(f"it does not have the arguments of run {run}, all and no others")
    if group.count < generator.trigger and (group.ends is None or record.time < group.ends):
        return quarantined(
            f"run {run} has {group.count} of {generator.trigger} arguments, and its time is not over"
        )
    packs = group.packs if packs is None else packs
    if source.packs != [pack.sequence for pack in packs]:
        return quarantined(f"it does not cite the events that hold the arguments of run {run}")
    return Sourced(generator.spec, generator.submitter, arguments(group, packs))


def _never(generator: Generator, source: Source, run: int, record: Record) -> Verdict:
    """Why there is nothing to run."""
    left = generator.left
    if left is not None and left.run == run and (source.first, source.count) == (left.first, left.count):
        if left.ends is not None and record.time >= left.ends:
            return void("the generator was removed before it")
        return quarantined(f"the generator was removed before run {run} was complete")
    if run < generator.runs or generator.group(run) is not None:
        return quarantined(f"run {run} was submitted already")
    return quarantined(f"run {run} has no arguments yet")
