"""Workflows as the commands show them: whole, over time, and at their end."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from colonies import show_event
from colonies.client import Client
from colonies.errors import NotFound
from colonies.flows import WorkflowHandle
from colonies.history import Judged
from colonies.looking import WorkflowNow, why_ended
from colonies.missing import not_found
from colonies.show_workflow import summary, workflow_object
from colonies_cli import events, exits, flow_tree, output
from colonies_cli.command import Here
from colonies_cli.output import Output
from colonies_cli.showing import show_value

_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_TO_LINE_START = "\r\x1b[K"
LINE_EVERY_S = 1.0  # of progress, where it cannot be redrawn
AT_ONCE = 64
HISTORY = ("SEQUENCE", "TIME", "EVENT", "NODE", "AUTHOR", "VERDICT")
LEFT_OUT = ("processes", "signals", "parameters", "nodes", "done", "failed")


class Progress:
    """One line on stderr that says how far a workflow is: redrawn on a terminal, else a new one at a
    change."""

    def __init__(self) -> None:
        self._redraws = sys.stderr is not None and sys.stderr.isatty()
        self._said = ""
        self._at = 0.0

    def show(self, now: WorkflowNow) -> None:
        text = f"workflow {now.workflow.id} {summary(now)}"
        if text == self._said:
            return
        if self._redraws:
            room = shutil.get_terminal_size().columns - 1
            self._write(_TO_LINE_START + text[:room])
        elif not now.final and time.monotonic() - self._at < LINE_EVERY_S:
            return
        else:
            exits.say(text)
        self._said, self._at = text, time.monotonic()

    def end(self) -> None:
        """Leave the line."""
        if self._redraws and self._said:
            self._write("\n")

    def _write(self, text: str) -> None:
        output.raw(text, sys.stderr)


@contextmanager
def _going_on(id: str) -> Iterator[None]:
    """Whatever ends the waiting in here does not end the workflow, and it is said."""
    try:
        yield
    except NotFound:
        raise
    except BaseException:
        exits.say(f"workflow {id} goes on; stop it with `colonies workflow cancel {id}`")
        raise


async def show_submitted(
    here: Here, handle: WorkflowHandle, what: str, *, wait: bool, timeout_s: float | None
) -> None:
    """Print a workflow that is on the ledger; with `wait`, how it goes and how it ends."""
    if here.output == Output.table:
        output.line(f"workflow {handle.id} {what}")
    if wait:
        now = await _wait(handle, timeout_s)
        await _show_end(here, handle, now)
    elif here.output == Output.name:
        output.line(handle.id)
    elif here.output == Output.json:
        await show(here, handle, await handle.get())


async def _wait(handle: WorkflowHandle, timeout_s: float | None) -> WorkflowNow:
    progress = Progress()
    try:
        with _going_on(handle.id):
            async with asyncio.timeout(timeout_s):
                return await _last(handle, progress)
    except TimeoutError:
        exits.say(
            f"workflow {handle.id} is not final after {timeout_s:g} s; "
            f"see it with `colonies workflow get {handle.id}`"
        )
        raise exits.Ended(exits.FAILED) from None
    finally:
        progress.end()


async def _last(handle: WorkflowHandle, progress: Progress) -> WorkflowNow:
    async with aclosing(handle.changes()) as changes:
        async for now in changes:
            progress.show(now)
            if now.final:
                return now
    raise AssertionError("it ends only when it is final")


async def _show_end(here: Here, handle: WorkflowHandle, now: WorkflowNow) -> None:
    """Show a final workflow as `--wait` does; ends the command with 3 if it is no success."""
    if here.output != Output.table:
        await show(here, handle, now)
    elif now.state == "successful":
        from colonies.flows import output_of

        show_value(await output_of(handle, now))
    end_of(now)


def end_of(now: WorkflowNow) -> None:
    """Raises Ended unless the workflow is successful, saying why."""
    if now.state != "successful":
        exits.say(why_ended(now))
        raise exits.Ended(exits.UNSUCCESSFUL)


async def show(here: Here, handle: WorkflowHandle, now: WorkflowNow, *, everything: bool = False) -> None:
    """Print a workflow as the options say."""
    if here.output == Output.name:
        output.line(now.workflow.id)
    elif here.output == Output.json:
        from colonies.flows import output_of

        output.json_line({**workflow_object(now), "output": await output_of(handle, now)})
    else:
        for text in _card(now):
            output.line(text)
        output.line()
        output.table(flow_tree.HEADER, _rows(now, everything), elastic=5)


def _rows(now: WorkflowNow, everything: bool) -> Iterator[list[str]]:
    encoding = ((sys.stdout.encoding if sys.stdout else None) or "").lower().replace("-", "")
    return flow_tree.rows(now, everything=everything, ascii_only=encoding != "utf8")


def _card(now: WorkflowNow) -> list[str]:
    shown = workflow_object(now)
    times = ("submitted_at", "ended_at")
    fields = [
        (name, output.seconds(value) if name in times else value)
        for name, value in shown.items()
        if name not in LEFT_OUT and (value is not None or name in ("name", "ended_at"))
    ]
    fields.insert(3, ("nodes", summary(now).partition(": ")[2]))
    if shown["parameters"]:
        fields.append(("parameters", shown["parameters"]))
    fields += [
        (f"signal {signal['name']}", f"{output.seconds(signal['time'])} by {signal['by']}")
        for signal in shown["signals"]
    ]
    return output.card(fields)


async def watch(here: Here, handle: WorkflowHandle, *, everything: bool) -> None:
    """Show a workflow at each change until it is final: whole in one place on a terminal, else as a line for
    each node that changed. Ends the command with 3 unless it is successful."""
    states: dict[str, str] = {}
    now: WorkflowNow | None = None
    with _going_on(handle.id):
        async with aclosing(handle.changes()) as changes:
            async for now in changes:
                if here.output == Output.json:
                    await show(here, handle, now)
                elif here.output == Output.table and output.on_terminal():
                    output.raw(_HOME_AND_CLEAR)
                    await show(here, handle, now, everything=everything)
                elif here.output == Output.table:
                    _show_changes(now, states)
    assert now is not None
    if here.output == Output.name:
        output.line(handle.id)
    end_of(now)


def _show_changes(now: WorkflowNow, states: dict[str, str]) -> None:
    """A line for each node whose state is another than before."""
    if not states:
        output.line(f"workflow {now.workflow.id} {summary(now)}")
    for node in now.nodes:
        if states.get(node.label, "blocked") != node.state:
            output.line(f"{node.label}  {node.state}")
        states[node.label] = node.state


# --- history ----------------------------------------------------------------------------------------


async def show_history(here: Here, client: Client, id: str) -> None:
    """Print the events of a workflow and of all its nodes that are its own, in the ledger's order."""
    handle = client.workflow(id)
    story = await client.session.knowledge.workflow_now(id)
    if not story.judged:
        raise await not_found(client.session, "workflow", id)
    found = [(seen, show_event.event_object(seen, None) | {"node": None}) for seen in story.judged]
    taken = 0
    if story.workflow is not None:
        now = await handle.get()
        own = [node for node in now.nodes if node.label not in (now.workflow.reuses or {})]
        taken = len(now.nodes) - len(own)
        async for label, judged in _stories(client, {node.label: node.id for node in own}):
            numbered = show_event.numbered(judged, client.session.knowledge)
            found += [(seen, show_event.event_object(seen, n) | {"node": label}) for seen, n, _ in numbered]
    found.sort(key=lambda pair: pair[0].stored.sequence)
    if here.output == Output.table:
        output.table(HISTORY, (_row(event) for _, event in found))
    for seen, event in found:
        if here.output == Output.json:
            output.json_line(event)
        elif here.output == Output.name:
            output.line(seen.record.id if seen.record else str(seen.stored.sequence))
    if taken and story.workflow is not None:
        exits.say(
            f"{taken} results were taken over; see `colonies workflow history {story.workflow.rerun_of}`"
        )


def _row(event: dict[str, Any]) -> list[str]:
    sequence, time_, what, author, attempt, verdict = events.row(event)
    again = f" ({attempt})" if event["attempt"] is not None and event["attempt"] > 1 else ""
    return [sequence, time_, f"{what}{again}", output.cell(event["node"]), author, verdict]


async def _stories(client: Client, ids: dict[str, str]) -> AsyncIterator[tuple[str, list[Judged]]]:
    """The events of these processes, by label, each judged."""
    pairs = list(ids.items())
    for start in range(0, len(pairs), AT_ONCE):
        some = pairs[start : start + AT_ONCE]
        stories = await asyncio.gather(*(client.session.story(id) for _, id in some))
        for (label, _), story in zip(some, stories, strict=True):
            yield label, story.judged
