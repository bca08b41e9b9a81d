"""`colonies cron`: workflows that run by the clock."""

from __future__ import annotations

from collections.abc import Coroutine
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, listing, options, output, specs
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.client import Client
    from colonies.core.crons import Cron
    from colonies.core.events import CronAdded
    from colonies.crons import CronNow
    from colonies.looking import WorkflowNow

app = group(
    "Run workflows by the clock: once for each time that a cron is due.\n\n"
    'Example: colonies cron add --name nightly --spec train.json --cron "30 2 * * *" --timezone Europe/Berlin'
)


class CatchUp(StrEnum):
    """What becomes of the times that were missed."""

    none = "none"
    one = "one"
    all = "all"


_Name = Annotated[str, typer.Argument(metavar="NAME", help="The cron's name.", show_default=False)]


@command(app, "add")
def add(
    here: Here,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Its name in the colony.")],
    spec: Annotated[
        str,
        typer.Option("--spec", metavar="FILE", help="A workflow or a process, JSON or YAML; -: stdin."),
    ],
    cron: Annotated[
        str | None,
        typer.Option("--cron", metavar="EXPR", help="When: five fields, or six with the seconds first."),
    ] = None,
    interval: Annotated[
        float | None, typer.Option("--interval", metavar="S", help="Instead: every S seconds from now.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", metavar="TZ", help="The zone of --cron; UTC by default.")
    ] = None,
    jitter: Annotated[
        float, typer.Option("--jitter", metavar="S", help="Each run starts up to S seconds later.")
    ] = 0.0,
    wait_previous: Annotated[
        bool, typer.Option("--wait-previous", help="A run waits until the one before it has ended.")
    ] = False,
    catch_up: Annotated[
        CatchUp, typer.Option("--catch-up", help="Which of the times are run that were missed.")
    ] = CatchUp.one,
) -> Coroutine[Any, Any, None]:
    """Add a cron: a workflow, or one process, that runs when it is due.

    A file that describes one process is a workflow with this one node.

    Example: colonies cron add --name tick --spec examples/cron.json --interval 60
    """
    from colonies import crons
    from colonies.core.names import name as checked_name

    checked_name(name, "--name")
    event = crons.added(
        specs.read_work(spec, crons.NODE),
        cron=cron,
        interval_s=interval,
        zone=timezone,
        jitter_s=jitter,
        wait_previous=wait_previous,
        catch_up=catch_up.value,
    )
    return _add(here, name, event)


async def _add(here: Here, name: str, event: CronAdded) -> None:
    from colonies.crons import add_cron

    async with here.client() as client:
        handle = await add_cron(client, name, event)
        now = await handle.get()
    if here.output == Output.table:
        output.line(f"cron {name} added; due next at {_local(now.cron, now.due[0])}")
    else:
        _show(here, now)


@command(app, "ls", past=True)
async def ls(here: Here) -> None:
    """List the crons of the colony, by name.

    Example: colonies cron ls
    """
    async with here.client() as client:
        found = await client.crons()
    listing.show(
        here, found, ("NAME", "STATE", "WHEN", "NEXT", "MEMBER"), _row, id="name", as_object=cron_object
    )


def _row(now: CronNow) -> tuple[Any, ...]:
    due = _local(now.cron, now.due[0]) if now.due else None
    return now.name, now.state, _when(now.cron), due, now.cron.author


@command(app, "get", past=True)
async def get(here: Here, name: _Name) -> None:
    """Show a cron, the next times that it is due, and how its last runs ended.

    Example: colonies cron get nightly
    """
    async with here.client() as client:
        handle = client.cron(name)
        now = await handle.get()
        runs = await _last_runs(client, now.cron)
    if here.output != Output.table:
        _show(here, now, runs)
        return
    cron = now.cron
    fields = [
        ("name", cron.name),
        ("state", now.state),
        ("when", _when(cron)),
        ("jitter", f"up to {cron.schedule.jitter_s:g} s" if cron.schedule.jitter_s else None),
        ("wait previous", "yes" if cron.wait_previous else "no"),
        ("catch up", cron.catch_up),
        ("nodes", ", ".join(node.name for node in cron.spec.nodes)),
        ("added", f"{_local(cron, cron.added_at)} by {cron.author}"),
        *[("next" if number == 0 else "", _local(cron, due)) for number, due in enumerate(now.due)],
    ]
    for line in output.card(fields):
        output.line(line)
    if runs:
        output.line()
        header = ("DUE", "SUBMITTED", "STATE", "WORKFLOW")
        output.table(header, (_run(cron, run) for run in runs))


async def _last_runs(client: Client, cron: Cron) -> list[WorkflowNow]:
    """Its last runs, those included that members asked for, the latest first.

    What was due is found by its id. The others have ids of their own, which the projector knows; what it
    says is read again from the ledger.
    """
    from colonies.crons import LAST_RUNS
    from colonies.errors import Unavailable
    from colonies_cli.command import ask

    found = {run.workflow.id: run for run in await client.cron(cron.name).runs()}
    asked = {"source": f"cron {cron.name}", "limit": LAST_RUNS}
    try:
        items = (await ask(client.ledger, "workflows", asked)).items
    except Unavailable as error:
        exits.say(f"runs by `colonies cron run` are not shown: {error}")
        items = []
    for id in {item["id"] for item in items} - set(found):
        run = await client.workflow(id).get()
        source = run.workflow.source
        if source is not None and (source.kind, source.name, source.added) == ("cron", cron.name, cron.added):
            found[id] = run
    return sorted(found.values(), key=lambda run: run.workflow.sequence, reverse=True)[:LAST_RUNS]


@command(app, "run")
async def run(here: Here, name: _Name) -> None:
    """Run a cron's workflow now, whenever it is due. With -o name, prints the workflow's id only.

    Example: colonies cron run nightly
    """
    async with here.client() as client:
        handle = await client.cron(name).run()
    if here.output == Output.table:
        output.line(f"workflow {handle.id} submitted")
    elif here.output == Output.name:
        output.line(handle.id)
    else:
        output.json_line({"id": handle.id, "cron": name})


@command(app, "pause")
async def pause(here: Here, name: _Name, reason: options.Reason = "") -> None:
    """Let a cron not run until it is resumed; what is due meanwhile is left out.

    Example: colonies cron pause nightly
    """
    async with here.client() as client:
        await client.cron(name).pause(reason)
    _done(here, name, "paused")


@command(app, "resume")
async def resume(here: Here, name: _Name) -> None:
    """Let a paused cron run again.

    Example: colonies cron resume nightly
    """
    async with here.client() as client:
        await client.cron(name).resume()
    _done(here, name, "active")


@command(app, "rm")
async def rm(here: Here, name: _Name, reason: options.Reason = "") -> None:
    """Remove a cron: its name may be used again, and what it started goes on.

    Example: colonies cron rm nightly
    """
    async with here.client() as client:
        await client.cron(name).remove(reason)
    _done(here, name, "removed")


# --- how it is shown --------------------------------------------------------------------------------


def _done(here: Here, name: str, state: str) -> None:
    if here.output == Output.table:
        output.line(f"cron {name} is {state}")
    elif here.output == Output.name:
        output.line(name)
    else:
        output.json_line({"name": name, "state": state})


def cron_object(now: CronNow) -> dict[str, Any]:
    """A cron without its runs."""
    from colonies.show import rfc3339

    cron, schedule = now.cron, now.cron.schedule
    return {
        "name": cron.name,
        "state": now.state,
        "cron": schedule.cron,
        "interval_s": schedule.interval_s,
        "timezone": schedule.zone,
        "jitter_s": schedule.jitter_s,
        "wait_previous": cron.wait_previous,
        "catch_up": cron.catch_up,
        "nodes": [node.name for node in cron.spec.nodes],
        "member": cron.author,
        "added_at": rfc3339(cron.added_at),
        "due": [rfc3339(due) for due in now.due],
    }


def _show(here: Here, now: CronNow, runs: list[WorkflowNow] | None = None) -> None:
    if here.output == Output.name:
        output.line(now.name)
        return
    shown = cron_object(now)
    if runs is not None:
        shown["runs"] = [_run_object(run) for run in runs]
    output.json_line(shown)


def _run_object(run: WorkflowNow) -> dict[str, Any]:
    from colonies.show import rfc3339

    due = _due_of(run)
    return {
        "id": run.workflow.id,
        "due": rfc3339(due) if due is not None else None,
        "submitted_at": rfc3339(run.workflow.submitted_at),
        "member": run.workflow.submitter,
        "state": run.state,
    }


def _run(cron: Cron, run: WorkflowNow) -> tuple[str, str, str, str]:
    due = _due_of(run)
    return (
        _local(cron, due) if due is not None else f"now, by {run.workflow.submitter}",
        _local(cron, run.workflow.submitted_at),
        run.state,
        run.workflow.id,
    )


def _due_of(run: WorkflowNow) -> int | None:
    """When a run was due (ns); None: a member asked for it."""
    assert run.workflow.source is not None
    return run.workflow.source.due


def _when(cron: Cron) -> str:
    schedule = cron.schedule
    return f"every {schedule.interval_s:g} s" if schedule.cron is None else f"{schedule.cron} {schedule.zone}"


def _local(cron: Cron, time: int) -> str:
    """A ledger time (ns) by the cron's own clock, to the second."""
    from datetime import datetime

    from colonies.core.zones import zone_of

    return datetime.fromtimestamp(time // 1_000_000_000, zone_of(cron.schedule.zone)).isoformat(" ")
