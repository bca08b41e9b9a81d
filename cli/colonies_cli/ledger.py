"""`colonies ledger`: read the whole ledger, and verify it."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, output
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from colonies.verify import Finding, Report

app = group("Read the colony's ledger, and verify it.\n\nExample: colonies ledger tail -f")


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
    cloudevents: Annotated[
        bool, typer.Option("--cloudevents", help="With -o json: as CloudEvents, with all that events say.")
    ] = False,
) -> Coroutine[Any, Any, None]:
    """Print events of the colony, with verdicts.

    Of filters of one name any must fit, and of each name one.

    Example: colonies ledger tail --from 2h --filter process.failed --filter author=lab -o json
    """
    from colonies_cli import tailing

    return tailing.tail(
        here, start, tailing.wanted(filters or []), follow, tailing.printer(here, cloudevents)
    )


@command(app, "verify")
async def verify(
    here: Here,
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
    from colonies.verify import verify_ledger
    from colonies.witness import HighWater, recall, remember

    async with here.session() as session:
        ledger: Any = session.ledger
        before = HighWater() if from_start else recall(ledger.colony)
        report = await verify_ledger(ledger, high_water=before, progress=_progress())
    _show_report(here, report)
    if not report.clean:
        raise exits.Ended(exits.FAILED)
    remember(ledger.colony, report.high_water)


def _show_report(here: Here, report: Report) -> None:
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


def _progress() -> Callable[[int, int], None] | None:
    """A line on the terminal that is written over, or nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None

    def show(position: int, last: int) -> None:
        end = "\r\x1b[K" if position >= last else ""
        output.raw(f"\rverifying {position} of {last}\x1b[K{end}", sys.stderr)

    return show
