"""Processes as the commands show them: whole, over time, and at their end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from colonies import show_event, values
from colonies.client import Client
from colonies.core.process import CancelledForGood, Process, Successful, evolve
from colonies.core.workflow import Known
from colonies.errors import NotFound
from colonies.history import Judged
from colonies.logs import Follower, LogEntry, missing
from colonies.session import Session
from colonies.show import process_object, rfc3339
from colonies_cli import events, exits, output
from colonies_cli.command import Here
from colonies_cli.output import Output

COMPARED_CHARS = 2 * 1024 * 1024
CUT = "\n[output cut at "  # as the Unix worker says it
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


async def full_object(session: Session, process: Process) -> dict[str, Any]:
    """The process as an object, with what the Object Store keeps of it; what is gone from there is null."""
    args: Any = ...
    result: Any = ...
    try:
        if process.arguments is not None:
            args, _ = await values.load_arguments(session.ledger, process.arguments)
        if isinstance(process.phase, Successful) and process.phase.stored is not None:
            result = await values.load(session.ledger, process.phase.stored)
    except NotFound as error:
        exits.say(str(error))
    return process_object(process, args=args, output=result)


def process_card(shown: dict[str, Any]) -> list[str]:
    """A process object for people: its fields, then its attempts."""
    times = ("submitted_at", "started_at", "ended_at")
    fields = [
        (name, output.seconds(value) if name in times else value)
        for name, value in shown.items()
        if name not in ("attempts", "errors")
    ]
    lines = output.card(fields)
    for attempt in shown["attempts"]:
        ended = output.seconds(attempt["ended_at"]) if attempt["ended_at"] else "now"
        outcome = attempt["outcome"] or "running"
        error = f": {output.cell(attempt['error'])}" if attempt["error"] else ""
        who = f"{attempt['worker']}/{attempt['instance']}"
        span = f"{output.seconds(attempt['started_at'])} to {ended}"
        lines.append(f"attempt {attempt['n']}  {output.cell(who)}  {span}  {outcome}{error}")
    said = {attempt["error"] for attempt in shown["attempts"]}
    lines += [f"error  {output.cell(error)}" for error in shown["errors"] if error not in said]
    return lines


async def watch_process(here: Here, client: Client, id: str, *, redraw: bool) -> Process:
    """Show a process at each change until it is final; the final process.

    For people, `redraw` shows it whole in one place on a terminal; else each event is a line.
    """
    process: Process | None = None
    heading = here.output == Output.table and not (redraw and output.on_terminal())
    async for seen in client.events(id):
        if seen.verdict.valid and seen.record is not None:
            process = evolve(process, seen.record, client.session.knowledge)
        if here.output == Output.name:
            continue
        if here.output == Output.json:
            if seen.verdict.valid and process is not None:
                output.json_line(await full_object(client.session, process))
        elif redraw and output.on_terminal():
            if process is not None:
                card = process_card(await full_object(client.session, process))
                output.line("\n".join([_HOME_AND_CLEAR + card[0], *card[1:]]))
        else:
            if heading:
                output.line(output.spaced(events.HEADER, events.WIDTHS))
                heading = False
            event = show_event.event_object(seen, show_event.attempt_of(seen, process))
            output.line(output.spaced(events.row(event), events.WIDTHS))
    assert process is not None
    if here.output == Output.name:
        output.line(id)
    return process


async def follow_logs(client: Client, id: str) -> AsyncIterator[LogEntry]:
    """The log of a process as it grows, until the process is final and its log is read to the end."""
    async with Follower(client.session, id) as follower:

        async def end() -> None:
            await client.wait(id)
            follower.finish()

        waiting = asyncio.create_task(end(), name="wait for the end")
        waiting.add_done_callback(lambda _: follower.finish())
        try:
            async for entry in follower:
                yield entry
            await waiting
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


def show_log(here: Here, entry: LogEntry, id: str) -> None:
    """Print one log message: as it is, or as an object."""
    if here.output == Output.json:
        output.json_line(
            {
                "time": rfc3339(entry.time),
                "process": id,
                "worker": entry.worker,
                "attempt": entry.n,
                "stream": entry.stream or entry.type.partition(".")[2],
                "text": entry.text or str(entry.data.get("reason", "")),
            }
        )
    elif entry.type != "log.written":
        what = "a result was refused" if entry.type == "log.refused" else "stopped"
        exits.say(f"attempt {entry.n} of {entry.worker}: {what}: {output.cell(entry.data.get('reason'))}")
    else:
        output.raw(entry.text)


async def show(here: Here, client: Client, process: Process) -> None:
    """Print a process as the options say."""
    if here.output == Output.name:
        output.line(process.id)
        return
    shown = await full_object(client.session, process)
    if here.output == Output.json:
        output.json_line(shown)
    else:
        for text in process_card(shown):
            output.line(text)


async def show_submitted(here: Here, client: Client, id: str) -> None:
    """Print a process that is on the ledger and not waited for."""
    if here.output == Output.table:
        output.line(f"process {id} submitted")
    elif here.output == Output.name:
        output.line(id)
    else:
        await show(here, client, await client.process(id).get())


async def show_end(here: Here, client: Client, process: Process, written: str = "") -> None:
    """Show a final process as `submit --wait` and `run` do; ends the command with 3 if it is no success.

    `written` was shown already: the output of a command, which is what it wrote to stdout, is not once more.
    """
    if here.output != Output.table:
        await show(here, client, process)
    elif process.state == "successful":
        value = await client.output(process)
        if not _is_written(value, written):
            output.raw("" if not written or written.endswith("\n") else "\n")
            show_value(value)
    end_of(process)


def _is_written(value: Any, written: str) -> bool:
    """Whether there is nothing in the output that was not shown."""
    if not isinstance(value, str) or not written:
        return value is None
    text, cut, _ = value.partition(CUT)
    return written.startswith(text) if cut else written.removesuffix("\n") == value.removesuffix("\n")


def show_value(value: Any) -> None:
    """Print an output for people: text as it is, nothing for null, all else as JSON."""
    if isinstance(value, str):
        output.raw(value if not value or value.endswith("\n") else value + "\n")
    elif value is not None:
        output.json_line(value)


def end_of(process: Process) -> None:
    """Raises Ended if the process failed or was cancelled, saying why."""
    if process.state == "successful":
        return
    if process.state == "skipped":
        exits.say(f"process {process.id} was skipped: its condition, or that of its parents, did not hold")
        return
    if isinstance(process.phase, CancelledForGood):
        why = f": {process.phase.reason}" if process.phase.reason else ""
        exits.say(f"process {process.id} was cancelled by {process.phase.by}{why}")
    else:
        exits.say(
            f"process {process.id} failed: {process.errors[-1] if process.errors else 'no reason given'}"
        )
    raise exits.Ended(exits.UNSUCCESSFUL)


async def stream_until_final(here: Here, client: Client, id: str) -> str:
    """Pass the log on; what its last attempt wrote to stdout, as much of it as an output can be."""
    written, n = "", 0
    async for entry in follow_logs(client, id):
        if entry.type != "log.written":
            continue
        is_stdout = entry.stream == "stdout"
        if is_stdout:
            written, n = (written if entry.n == n else ""), entry.n
            written += entry.text[: COMPARED_CHARS - len(written)]
        output.raw(entry.text, sys.stdout if is_stdout and here.output == Output.table else sys.stderr)
    return written


def say_missing_logs(judged: Sequence[Judged], entries: Sequence[LogEntry], known: Known) -> None:
    """Compare each ended attempt's log with the digest on the ledger."""
    for seen, n, _ in show_event.numbered(judged, known):
        event: Any = seen.record.event if seen.record is not None and seen.verdict.valid else None
        digest = getattr(event, "logs", None)
        if digest is None or seen.record is None:
            continue
        lacking = missing(entries, seen.record.author, event.attempt, digest)
        if lacking > 0:
            exits.say(f"attempt {n}: {lacking} of its {digest.count} log messages are no longer kept")
        elif lacking < 0:
            exits.say(f"attempt {n}: its log is not the one that its worker signed on the ledger")
