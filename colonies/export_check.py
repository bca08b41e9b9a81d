"""Verifies an export without a broker: the same judgement as of a live ledger, over what is in the file.

A part rests on its context: what stands before its first event is as complete as whoever exported it made it.
Times and sequences are the broker's word and in no signature, so they are whoever's the file is.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colonies import subjects
from colonies.core.events import Ref
from colonies.export_file import VALUE, Broken, Cut, Reader, kind_of_entry
from colonies.exporting import refs_of
from colonies.history import History, Judged
from colonies.ledger import Stored
from colonies.reading import Extent, Silent
from colonies.verify import Finding, Report, verify
from colonies.witness import HighWater

BATCH = 512  # events judged before anybody else has a turn


class FileSource:
    """The events of an export, as `colonies.reading.Source`; `last` is the sequence of the last one. `take`
    then gives the other entries."""

    what = "the file"

    def __init__(self, reader: Reader) -> None:
        self.colony = reader.header.colony
        self.silent: set[int] = set()
        self.last = 0
        self._header = reader.header
        self._entries = iter(reader)
        self._next: Stored | None = None
        self._broken: Broken | None = None

    async def extent(self) -> Extent:
        return Extent(self._header.first, self._header.last)

    async def next(self, position: int) -> list[Stored]:
        await asyncio.sleep(0)
        found: list[Stored] = []
        while len(found) < BATCH and (entry := self.take()) is not None:
            if kind_of_entry(entry.subject) != "events":
                self._next = entry
                break
            found.append(entry)
            self.last = entry.sequence
        if not found and isinstance(self._broken, Cut):
            first, last = max(position + 1, self._header.first), self._header.last
            raise Silent(first, f"the file was cut off: it has none of {first} to {last}", last)
        if not found and self._broken is not None:
            raise Silent(position + 1, f"the file is of no use from here on: {self._broken}")
        return found

    def take(self) -> Stored | None:
        """The next entry; None: there is none, or `broken` says why nothing more can be read."""
        if self._next is not None:
            entry, self._next = self._next, None
            return entry
        try:
            return next(self._entries, None) if self._broken is None else None
        except Broken as error:
            self._broken = error
            return None

    @property
    def broken(self) -> Broken | None:
        return self._broken


async def verify_export(
    reader: Reader,
    *,
    high_water: HighWater | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Judge every event in an export, and hold the stored values in it against the events that name them.

    A file that was cut off is judged as far as it goes; what should be there is missing. `high_water` is an
    event that was seen of this ledger: where the file has that sequence, it must be the same. `progress` as
    of `verify`.
    """
    header = reader.header
    values: dict[str, dict[Ref, _Value]] = {}

    def saw(seen: Judged, _: History) -> None:
        for ref in refs_of(seen.stored) if seen.verdict.valid else ():
            values.setdefault(ref.object, {}).setdefault(ref, _Value(seen.stored))

    source = FileSource(reader)
    before = high_water if high_water is not None and high_water.sequence <= header.last else None
    report = await verify(source, high_water=before, progress=progress, saw=saw)
    ended = source.broken is not None
    await _read_values(source, values)
    cut = isinstance(source.broken, Cut)
    if source.broken is not None and not ended:
        lost = "it was cut off behind its events: of logs and stored values not all is there"
        what = lost if cut else str(source.broken)
        report.findings.append(Finding(0, "missing" if cut else "damaged", f"the file: {what}"))
    report.cut_after = source.last if cut else None
    if header.values and not ended and (source.broken is None or cut):
        told = [value.finding(ref, cut) for named in values.values() for ref, value in named.items()]
        report.findings += [finding for finding in told if finding is not None]
    return report


@dataclass(slots=True)
class _Value:
    """What is in the file of a stored value that a valid event names: the bytes that it says it has."""

    stored: Stored
    size_bytes: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, ref: Ref, data: bytes) -> None:
        data = data[: ref.size_bytes - self.size_bytes]
        self.size_bytes += len(data)
        self.digest.update(data)

    def finding(self, ref: Ref, cut: bool) -> Finding | None:
        """What is wrong with it, in a file that may have been `cut` off."""
        sequence, subject = self.stored.sequence, self.stored.subject
        author = subjects.author_of(subject)
        if not self.size_bytes or (cut and self.size_bytes < ref.size_bytes):
            rule = f"the stored value {ref.object} that it names is not in the file"
            return Finding(sequence, "missing", rule, subject, author)
        if (self.size_bytes, self.digest.hexdigest()) != (ref.size_bytes, ref.sha256):
            rule = f"the stored value {ref.object} in the file is not the one that it names"
            return Finding(sequence, "damaged", rule, subject, author)
        return None


async def _read_values(source: FileSource, values: Mapping[str, dict[Ref, _Value]]) -> None:
    """Read the rest of the file. Of what is stored, only what a valid event names is looked at."""
    while (entry := source.take()) is not None:
        if entry.subject.startswith(VALUE):
            for ref, value in values.get(entry.subject[len(VALUE) :], {}).items():
                value.add(ref, entry.data)
            await asyncio.sleep(0)
