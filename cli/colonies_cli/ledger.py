"""`colonies ledger`: read the whole ledger, and verify it."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, output
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from colonies.verify import Finding, Report

app = group("Read the colony's ledger, and verify it.\n\nExample: colonies ledger tail -f")


MAX_LAST = 10_000


class Format(StrEnum):
    """What an export is written as."""

    colonies = "colonies"
    jsonl = "jsonl"


@command(app, "tail")
def tail(
    here: Here,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SEQ|TIME", help="From this sequence, time or age on. Default: the last 20."
        ),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="TYPE|NAME=VALUE",
            help="Only process.failed, say, or process=, workflow=, author=, verdict=; repeatable.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    last: Annotated[
        int | None,
        typer.Option("-n", "--last", metavar="N", min=0, max=MAX_LAST, help="The last N, instead of 20."),
    ] = None,
    cloudevents: Annotated[
        bool, typer.Option("--cloudevents", help="With -o json: as CloudEvents, with all that events say.")
    ] = False,
) -> Coroutine[Any, Any, None]:
    """Print events of the colony, with verdicts: the last 20, or N, or all from some point on.

    It ends there, unless it is to --follow. Of filters of one name any must fit, and of each name one.

    Example: colonies ledger tail --from 2h --filter process.failed --filter author=lab -o json
    """
    from colonies_cli import tailing

    tailing.check(filters or [])
    here.check_now("--follow", follow)
    where = tailing.begin(start, last)
    return tailing.tail(here, where, filters or [], follow, tailing.printer(here, cloudevents))


@command(app, "verify")
async def verify(
    here: Here,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="An export, instead of a colony's ledger; no broker is asked.",
            show_default=False,
        ),
    ] = None,
    colony: Annotated[
        str | None,
        typer.Option("--colony", metavar="KEY", help="Of FILE: the colony's account key that it must be of."),
    ] = None,
    from_start: Annotated[
        bool,
        typer.Option(
            "--from-start", help="Do not hold it against what was seen of it earlier on this machine."
        ),
    ] = False,
) -> None:
    """Check every event from the first on.

    Its signature, its chain, its author's role, its transition; exit 1 if there is a finding. A ledger that
    is shorter than an earlier verification saw it, or has another event there, is a finding. A void event
    (it lost a race) is shown and is nobody's fault. With -o json: an object for each finding, then one with
    events, valid, findings, last_sequence.

    Example: colonies ledger verify -o json
    """
    from colonies.errors import Invalid
    from colonies.imported import ImportedLedger
    from colonies.reading import source_of
    from colonies.verify import verify as judged
    from colonies.witness import HighWater, recall, remember
    from colonies_cli import ledger_file

    if file is not None:
        await ledger_file.verify(here, file, colony, from_start=from_start)
        return
    if colony is not None:
        raise Invalid("--colony: it says what FILE must be of; the ledger of a context is its colony's")
    async with here.session() as session:
        ledger = session.ledger
        before = HighWater() if from_start else recall(ledger.colony)
        if isinstance(ledger, ImportedLedger) and before.sequence > ledger.header.last:
            before = HighWater()  # it is of a time before
        report = await judged(source_of(ledger), high_water=before, progress=progress("verifying"))
    show_report(here, report)
    if not report.clean:
        raise exits.Ended(exits.FAILED)
    if not isinstance(ledger, ImportedLedger):  # which nobody has to have had from the broker
        remember(ledger.colony, report.high_water)


@command(app, "export")
async def export(
    here: Here,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Where to; -: standard output.", show_default=False)
    ],
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SEQ|TIME", help="From this sequence, time or age on. Default: the first."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="SEQ|TIME", help="Up to this sequence, time or age. Default: the last."),
    ] = None,
    format: Annotated[
        Format,
        typer.Option("--format", help="colonies: to verify and import; jsonl: a JSON object per event."),
    ] = Format.colonies,
    values: Annotated[
        bool,
        typer.Option("--values/--no-values", help="Also arguments and outputs too large for an event."),
    ] = True,
    logs: Annotated[
        bool, typer.Option("--logs", help="Also the logs that are still there, and the last heartbeats.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write the ledger, or a part of it, to a file.

    A part holds what its verification needs as well. The file has what this member may read: arguments,
    outputs, and with --logs what functions printed. It is there whole, or not at all.

    Example: colonies ledger export lab.colonies
    """
    from colonies_cli import ledger_file

    asked = ledger_file.Asked(file, start, to, values, logs, force)
    await ledger_file.export(here, asked, as_lines=format == Format.jsonl)


@command(app, "import")
def import_(
    here: Here,
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Of the context. Default: the colony's, and -import."),
    ] = None,
    colony: Annotated[
        str | None,
        typer.Option("--colony", metavar="KEY", help="The colony's account key that it must be of."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="In place of an import of the same name that is there.")
    ] = False,
) -> None:
    """Make an export readable by all commands, offline: as a context of its own.

    It is the colony's ledger as it was, with its sequences and times. No broker runs, nobody is logged in,
    and nothing can be written to it. What is read is judged as always; `colonies ledger verify FILE` judges
    all of it.

    Example: colonies ledger import lab.colonies --name lab-in-may
    """
    from colonies_cli import ledger_file

    ledger_file.import_(here, file, name, colony, force=force)


def show_report(here: Here, report: Report, **more: Any) -> None:
    """Findings, then a summary; with `more` fields of its own as JSON."""
    findings = [finding_object(finding) for finding in report.findings]
    if here.output == Output.json:
        for finding in findings:
            output.json_line(finding)
        output.json_line(
            {
                "events": report.events,
                "valid": report.valid,
                "findings": findings,
                "last_sequence": report.last_sequence,
                **more,
            }
        )
    elif here.output == Output.name:
        for finding in findings:
            output.line(str(finding["sequence"]))
    else:
        if findings:
            output.table(
                ("SEQUENCE", "KIND", "AUTHOR", "SUBJECT", "RULE"),
                ((f["sequence"], f["kind"], f["author"], f["subject"], f["rule"]) for f in findings),
            )
        number = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
        output.line(f"{report.events} events, {report.valid} valid, {number if findings else 'no findings'}")


def finding_object(finding: Finding) -> dict[str, Any]:
    """A finding as JSON; `last` only where it stands for a long run of sequences."""
    found: dict[str, Any] = {
        "sequence": finding.sequence,
        "kind": finding.kind,
        "rule": finding.rule,
        "subject": finding.subject,
        "author": finding.author,
    }
    return found if finding.last is None else {**found, "last": finding.last}


def progress(doing: str) -> Callable[[int, int], None] | None:
    """A line on the terminal that is written over, or nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None

    def show(position: int, last: int) -> None:
        end = "\r\x1b[K" if position >= last else ""
        output.raw(f"\r{doing} {position} of {last}\x1b[K{end}", sys.stderr)

    return show
