"""Ledgers in files: written by `ledger export`, checked by `ledger verify FILE`.

What is written goes to a file, or to stdout and nothing else does then: the summary goes to stderr.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from colonies_cli import exits, output
from colonies_cli.command import Here
from colonies_cli.ledger import progress, show_report
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.export_file import Header
    from colonies.exporting import Exported, Wanted
    from colonies.ledger import Ledger

STDOUT = "-"
MAX_NAMED = 5  # lost values that are named one by one


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for on the command line. `start` and `to` are moments (`colonies.past.MOMENTS`)."""

    file: str
    start: str | None
    to: str | None
    values: bool
    logs: bool
    force: bool


async def export(here: Here, asked: Asked, *, as_lines: bool) -> None:
    """Write an export to a file, or to stdout; say what is in it."""
    from colonies import exporting
    from colonies.errors import Invalid
    from colonies.reading import source_of

    file = asked.file
    if file == STDOUT and not as_lines and output.on_terminal():
        raise Invalid("-: an export is not for a terminal; give a file, or say --format jsonl")
    async with here.session() as session:
        source = source_of(session.ledger)
        wanted = await _wanted(session.ledger, asked)
        await exporting.range_of(source, wanted)
        shown = progress("exporting")
        if as_lines:
            with _stream(file, asked.force) as stream:
                count = await exporting.export_lines(source, wanted, stream, shown)
            _say(here, file, {"file": file, "events": count}, f"{count} events")
            return
        with _stream(file, asked.force) as stream:
            found = await exporting.export(session, source, wanted, stream, shown)
    _say_lost(found)
    _say(here, file, _object(file, found), _words(found))


async def _wanted(ledger: Ledger, asked: Asked) -> Wanted:
    """The moments as sequences; from a time on: from the first event not before it. Raises Invalid."""
    from colonies import past
    from colonies.exporting import Wanted

    first, last = 1, None
    if asked.start is not None and asked.start.isdecimal():
        first = (await past.moment(ledger, asked.start, "--from")).sequence
    elif asked.start is not None:
        time = await past.time_of(ledger, asked.start, "--from")
        first = await past.last_before(ledger, time - 1, await ledger.last_sequence()) + 1
    if asked.to is not None:
        last = (await past.moment(ledger, asked.to, "--to")).sequence
    return Wanted(first, last, asked.values, asked.logs)


@contextlib.contextmanager
def _stream(file: str, force: bool) -> Iterator[BinaryIO]:
    from colonies.export_file import written
    from colonies.files import expanded

    if file == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with written(expanded(file, "FILE"), force=force) as stream:
        yield stream


def _say(here: Here, file: str, fields: dict[str, Any], words: str) -> None:
    if file == STDOUT:
        exits.say(words)
    elif here.output == Output.json:
        output.json_line(fields)
    else:
        output.line(file if here.output == Output.name else f"{file}: {words}")


def _words(found: Exported) -> str:
    header, counts = found.header, found.counts
    parts = [f"{counts.events} events of the colony {header.name}, {header.first} to {header.last}"]
    if found.context:
        parts.append(f"{found.context} of them from before, which these need")
    if header.notes:
        parts.append(f"{counts.notes} log messages and heartbeats")
    return ", ".join(parts)


def _object(file: str, found: Exported) -> dict[str, Any]:
    header, counts = found.header, found.counts
    return {
        "file": file,
        "colony": header.colony,
        "first": header.first,
        "last": header.last,
        "end": header.end,
        "events": counts.events,
        "context": found.context,
        "notes": counts.notes,
        "lost": found.lost,
    }


def _say_lost(found: Exported) -> None:
    if not found.lost:
        return
    named = ", ".join(found.lost[:MAX_NAMED]) + (" ..." if len(found.lost) > MAX_NAMED else "")
    exits.say(f"{len(found.lost)} stored values that events name are not there as they say: {named}")


async def verify(here: Here, file: str, colony: str | None, *, from_start: bool) -> None:
    """Verify an export; ends with 1 if there is a finding."""
    from colonies.export_check import verify_export
    from colonies.export_file import opened
    from colonies.files import expanded
    from colonies.witness import HighWater, recall

    with opened(expanded(file, "FILE")) as reader:
        header = reader.header
        check_colony(file, header, colony)
        before = HighWater() if from_start else recall(header.colony)
        report = await verify_export(reader, high_water=before, progress=progress("verifying"))
    more = {"colony": header.colony, "name": report.name, "first": header.first, "context": report.context}
    show_report(here, report, **more, end=header.end, cut_after=report.cut_after)
    if here.output == Output.table:
        given = "the one that was asked for" if colony is not None else "by the file's own word: compare it"
        output.line(f"verified for the colony {header.colony} ({given})")
        for line in _limits(header, report.context):
            output.line(line)
        if report.cut_after is not None:
            output.line(_cut(header, report.cut_after))
    if not report.clean:
        raise exits.Ended(exits.FAILED)


def _limits(header: Header, context: int) -> list[str]:
    """What a part of a ledger cannot tell; nothing if it is all of one."""
    said = []
    if not header.whole:
        said.append(
            f"a part, {header.first} to {header.last} of {header.end}: it rests on the {context} events from "
            "before it that are in the file; whether some were left out cannot be seen"
        )
    elif header.last < header.end:
        said.append(f"a part, up to {header.last} of {header.end}: what came after is not in it")
    return said


def _cut(header: Header, after: int) -> str:
    """How far a file goes that was cut off."""
    if after >= header.last:
        return f"the file was cut off behind its events: it has all of them, up to {header.last}"
    first = max(after + 1, header.first)
    there = f"it holds the events up to {after}" if after else "it holds no event"
    behind = " and what stood behind them" if header.values or header.notes else ""
    return f"the file was cut off: {there}; missing are {first} to {header.last}{behind}"


def check_colony(file: str, header: Header, colony: str | None) -> None:
    """Raises Invalid if the file is of another colony than the one that was asked for."""
    from colonies.errors import Invalid
    from colonies.nkeys import kind_of

    if colony is None or colony == header.colony:
        return
    allowed = "allowed: a colony's account key (A and 55 more characters)"
    if not (len(colony) == 56 and colony.startswith("A")):
        raise Invalid(f"--colony {colony}: {allowed}")
    try:
        kind_of(colony)
    except Invalid as error:
        raise Invalid(f"--colony {colony}: {error}") from None
    raise Invalid(f"{file}: it is of the colony {header.colony}, not of {colony}")


def import_(here: Here, file: str, name: str | None, colony: str | None, *, force: bool) -> None:
    """Make an export a context that can be read; say how to use it."""
    from colonies import contexts, imported
    from colonies.errors import Invalid
    from colonies.export_file import Cut, opened
    from colonies.files import expanded

    with opened(expanded(file, "FILE")) as reader:
        header = reader.header
        check_colony(file, header, colony)
        context = name or f"{header.name or 'ledger'}-import"
        folder = contexts.data_folder() / "imports" / context
        if contexts.path_of(context).exists() and not force:
            before = contexts.load(context).imported
            how = "say --force to put this in its place" if before == folder else "take another --name"
            raise Invalid(f"there is a context {context} already; {how}")
        if contexts.path_of(context).exists() and contexts.load(context).imported != folder:
            raise Invalid(f"the context {context} is no import, and stays as it is; take another --name")
        try:
            counts = imported.write(reader, folder, progress("importing"))
        except Cut as cut:
            raise Cut(f"{cut}; `colonies ledger verify FILE` judges what is left of it") from None
    contexts.save(contexts.Context(context, folder.as_uri(), ""))
    fields = {
        "context": context,
        "colony": header.colony,
        "name": header.name,
        "first": header.first,
        "last": header.last,
        "end": header.end,
        "events": counts.events,
        "before": reader.context,
    }
    if here.output == Output.json:
        output.json_line(fields)
    elif here.output == Output.name:
        output.line(context)
    else:
        output.line(f"{counts.events} events of the colony {header.name} ({header.colony})")
        for line in _limits(header, reader.context):
            output.line(line)
        if not header.whole:
            output.line(f"lists and numbers lack what else was before {header.first}")
        output.line(f"read it with --context {context}, such as: colonies process ls --context {context}")
