"""Takes a ledger, or a part of it, out of its broker: into a file that can be verified, or as lines of JSON.

It reads as `ledger verify` does, over what the broker cannot read, and writes to nothing but its stream. A
part holds what its judgement needs as well (`colonies.closure`). What is exported is what is there, whatever
it is worth: who reads the file judges it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Protocol

from colonies import codec, subjects
from colonies.closure import Closure
from colonies.core.events import Ref
from colonies.errors import Invalid, NotFound, Unavailable
from colonies.export_file import PIECE_BYTES, VALUE, Counts, Header, Writer, program
from colonies.history import History, Judged
from colonies.ledger import Ledger, Stored
from colonies.reading import Extent, Silent, Source
from colonies.session import Session
from colonies.show_event import attempt_of, event_data, event_object
from colonies.values import is_kept
from colonies.verify import verify

Progress = Callable[[int, int], None]


class Exportable(Ledger, Protocol):
    """A ledger whose logs can be read in batches as well."""

    def scan_emitted(self, pattern: str) -> AsyncIterator[list[Stored]]:
        """As `emitted`, in batches."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported: the events `first` to `last`, the stored values that they name, and logs and
    heartbeats."""

    first: int = 1
    last: int | None = None
    values: bool = True
    notes: bool = False


@dataclass(slots=True)
class Exported:
    """What was written. `lost` are stored values that events name, and that are not there as they say."""

    header: Header
    counts: Counts
    context: int = 0
    lost: list[str] = field(default_factory=list)


async def export(
    session: Session, source: Source, wanted: Wanted, stream: BinaryIO, progress: Progress | None = None
) -> Exported:
    """Write an export. `source` reads the session's ledger.

    Raises:
        Invalid: there are no such events.
        Unavailable: the broker is gone, or does not answer for what may stand in between.
    """
    ledger: Exportable = session.ledger  # type: ignore[assignment]
    first, last, end = await range_of(source, wanted)
    header = Header(
        colony=ledger.colony,
        name=session.colony.name,
        first=first,
        last=last,
        end=end,
        at=await ledger.now(),
        values=wanted.values,
        notes=wanted.notes,
        by=program(),
    )
    closure = Closure(first)
    if first > 1:
        async for stored in _read(source, 0, last, progress):
            closure.see(stored)
        closure.close()
    writer = Writer(stream, header)
    found = Exported(header, writer.counts)
    refs: dict[str, dict[Ref, None]] = {}
    processes: set[str] = set()
    until: int | None = None
    async for stored in _read(source, 0, last, progress):
        if stored.sequence == last < end:
            until = stored.time
        if not closure.needs(stored):
            continue
        writer.add(stored)
        found.context += stored.sequence < first
        for ref in refs_of(stored) if wanted.values else ():
            refs.setdefault(ref.object, {})[ref] = None
        if wanted.notes and stored.subject.startswith("ledger.process."):
            processes.add(subjects.process_of(stored.subject))
    if wanted.notes:
        await _write_notes(ledger, writer, processes, until)
    for name, named in refs.items():
        if not await _write_value(ledger, writer, name, named):
            found.lost.append(name)
    writer.end()
    return found


async def range_of(source: Source, wanted: Wanted) -> tuple[int, int, int]:
    """The first and last sequence of what is wanted, as far as it is there, and the last of the ledger.

    Raises Invalid: none of it is there.
    """
    extent = await source.extent()
    first = max(wanted.first, extent.first)
    last = extent.last if wanted.last is None else min(wanted.last, extent.last)
    if first > last:
        to = "the end" if wanted.last is None else wanted.last
        raise Invalid(f"there is nothing from {wanted.first} to {to}: the ledger ends at {extent.last}")
    return first, last, extent.last


class _UpTo:
    """A source that ends at a sequence."""

    def __init__(self, source: Source, last: int) -> None:
        self.what, self.colony, self.silent = source.what, source.colony, source.silent
        self._source = source
        self._last = last

    async def extent(self) -> Extent:
        return replace(await self._source.extent(), last=self._last)

    async def next(self, position: int) -> list[Stored]:
        return [stored for stored in await self._source.next(position) if stored.sequence <= self._last]


async def export_lines(
    source: Source, wanted: Wanted, stream: BinaryIO, progress: Progress | None = None
) -> int:
    """Write one JSON object for each event, with its verdict; how many were written.

    The fields are those of `show_event.event_object`, and `data`, the event's own. What stands before the
    first is read and judged as well.

    Raises:
        Invalid: there are no such events.
        Unavailable: the broker is gone.
    """
    first, last, _ = await range_of(source, wanted)
    count = 0

    def saw(seen: Judged, history: History) -> None:
        nonlocal count
        if seen.stored.sequence >= first:
            count += 1
            stream.write(_line(seen, history))

    await verify(_UpTo(source, last), progress=progress, saw=saw)
    return count


def _line(seen: Judged, history: History) -> bytes:
    record = seen.record
    is_process = record is not None and record.kind == "process"
    process = history.process(record.entity) if record is not None and is_process else None
    line = {**event_object(seen, attempt_of(seen, process)), "data": event_data(seen)}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


async def _read(source: Source, position: int, last: int, progress: Progress | None) -> AsyncIterator[Stored]:
    """All that can be read after a sequence, up to another."""
    while position < last:
        try:
            batch = await source.next(position)
        except Silent as silent:
            raise Unavailable(f"sequence {silent.sequence}: {silent}") from None
        for stored in batch:
            if stored.sequence <= last:
                yield stored
        if not batch:
            return
        position = batch[-1].sequence
        if progress is not None:
            progress(min(position, last), last)


async def _write_notes(ledger: Exportable, writer: Writer, processes: set[str], until: int | None) -> None:
    """Logs of these processes, and the last heartbeats; none that are later than `until` (ns)."""
    for pattern in ("heartbeat.>", "log.>"):
        async for batch in ledger.scan_emitted(pattern):
            for stored in batch:
                if until is not None and stored.time > until:
                    continue
                if pattern == "heartbeat.>" or stored.subject.split(".")[1] in processes:
                    writer.add(stored)


async def _write_value(ledger: Ledger, writer: Writer, name: str, named: Iterable[Ref]) -> bool:
    """A stored value in pieces, if it is there as events say.

    Anybody may name anybody's value in an event, and say of it what he likes: what is true counts.
    """
    refs = sorted(named, key=lambda ref: ref.size_bytes, reverse=True)
    try:
        data = await ledger.get_value(name, refs[0].size_bytes)
    except NotFound:
        return False
    kept = next((ref.size_bytes for ref in refs if is_kept(data[: ref.size_bytes], ref)), 0)
    for number, start in enumerate(range(0, kept, PIECE_BYTES), start=1):
        writer.add(Stored(f"{VALUE}{name}", number, 0, data[start : min(kept, start + PIECE_BYTES)]))
    return kept > 0


def refs_of(stored: Stored) -> list[Ref]:
    """The stored values that an event names, whoever signed it."""
    if b"size_bytes" not in stored.data:
        return []
    try:
        event = codec.open_("", stored.subject, stored.data).event()
    except codec.Malformed:
        return []
    named = (getattr(event, "arguments", None), getattr(event, "stored", None))
    return [ref for ref in named if isinstance(ref, Ref)]
