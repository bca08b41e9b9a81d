"""`cancel` and `rerun`, of processes and of workflows: of one, of some, or of all that filters find."""

from __future__ import annotations

import functools
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from colonies_cli import bulk, ids, options, output, process, specs, workflow
from colonies_cli.command import Here, command
from colonies_cli.filters import ProcessFilters, WorkflowFilters
from colonies_cli.output import Output

PROCESSES, WORKFLOWS = process.app, workflow.app

_Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Their ids, or how these begin.", show_default=False),
]
_NODES = "nodes run again with their workflow (`colonies workflow rerun ID --from NODE`)"


# --- processes ----------------------------------------------------------------------------------------


@command(process.app, "cancel")
def cancel(
    here: Here,
    filters: ProcessFilters,
    ids: _Ids = None,
    reason: options.Reason = "",
    everything: bulk.All = False,
    yes: bulk.Yes = False,
    dry_run: bulk.DryRun = False,
) -> Coroutine[Any, Any, None] | None:
    """Cancel processes: those of these ids, or all that filters find and that are not final.

    They are final when this returns; running ones are stopped by their workers. With filters, says how many
    there are and asks; without a terminal, --yes must be said. Exits with 1 if some could not be cancelled.

    Example: colonies process cancel --state waiting --func train --since 1h
    """
    from colonies.bulk import cancelling
    from colonies.core.events import checked_reason

    checked_reason(reason, "--reason")
    chosen = bulk.Chosen(ids or [], filters.given(), everything, yes, dry_run)
    if (id := chosen.one) is not None:
        return _cancel(here, id, reason)
    act = functools.partial(cancelling, reason=reason)
    return bulk.run(
        here, bulk.processes("cancel", "cancelled", ("blocked", "waiting", "running"), act), chosen
    )


async def _cancel(here: Here, id: str, reason: str) -> None:
    from colonies_cli.showing import show

    async with here.client() as client:
        id = await ids.whole(client.session.ledger, "process", id)
        found = await client.cancel(id, reason)
        if here.output == Output.table:
            output.line(f"process {found.id} {found.state}")
        else:
            await show(here, client, found)


@command(process.app, "rerun")
def rerun(
    here: Here,
    filters: ProcessFilters,
    ids: _Ids = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="Repeated with the same key, nothing runs again twice."),
    ] = None,
    everything: bulk.All = False,
    yes: bulk.Yes = False,
    dry_run: bulk.DryRun = False,
) -> Coroutine[Any, Any, None] | None:
    """Run processes again: those of these ids, or all that filters find and that failed or were cancelled.

    Each is a new one, and yours. Large arguments are taken by reference. Nodes run again with their workflow
    only: `workflow rerun`. If it is interrupted, repeat it with the same --key: what was run again already is
    not once more.

    Example: colonies process rerun --state failed --since 1h --key monday
    """
    from colonies.bulk import rerunning
    from colonies.rerunning import checked_key

    checked_key(key, "--key")
    chosen = bulk.Chosen(ids or [], filters.given(), everything, yes, dry_run)
    if (id := chosen.one) is not None:
        return _rerun(here, id, key)
    act = functools.partial(rerunning, key=key)
    verb = bulk.processes("rerun", "submitted", ("failed", "cancelled"), act)
    return bulk.run(here, verb, chosen, leave=lambda item: _NODES if item["workflow"] is not None else None)


async def _rerun(here: Here, id: str, key: str | None) -> None:
    from colonies.bulk import run_again

    async with here.client(submits=True) as client:
        done = await run_again(client, await ids.whole(client.session.ledger, "process", id), key)
    if here.output == Output.json:
        output.json_line(bulk.as_object(done, "submitted"))
    else:
        output.line(str(done.new) if here.output == Output.name else bulk.arrow(done))


# --- workflows ----------------------------------------------------------------------------------------


@command(workflow.app, "cancel")
def cancel_workflows(
    here: Here,
    filters: WorkflowFilters,
    ids: _Ids = None,
    reason: options.Reason = "",
    everything: bulk.All = False,
    yes: bulk.Yes = False,
    dry_run: bulk.DryRun = False,
) -> Coroutine[Any, Any, None] | None:
    """Cancel workflows: those of these ids, or all that filters find and that are running.

    What runs is stopped by its workers; nodes that run last (finally) still run. With filters, says how many
    there are and asks; without a terminal, --yes must be said. Exits with 1 if some could not be cancelled.

    Example: colonies workflow cancel 01JZY8 --reason "wrong input"
    """
    from colonies.bulk import cancelling_workflows
    from colonies.core.events import checked_reason

    checked_reason(reason, "--reason")
    chosen = bulk.Chosen(ids or [], filters.given(), everything, yes, dry_run)
    if (id := chosen.one) is not None:
        return _cancel_workflow(here, id, reason)
    act = functools.partial(cancelling_workflows, reason=reason)
    return bulk.run(here, bulk.workflows("cancel", "cancelled", ("running",), act), chosen)


async def _cancel_workflow(here: Here, id: str, reason: str) -> None:
    from colonies_cli import flow_showing

    async with here.client() as client:
        id = await ids.whole(client.session.ledger, "workflow", id)
        handle = client.workflow(id)
        await handle.cancel(reason)
        if here.output == Output.table:
            output.line(f"workflow {id} cancelled")
        else:
            await flow_showing.show(here, handle, await handle.get())


@command(workflow.app, "rerun")
def rerun_workflows(
    here: Here,
    filters: WorkflowFilters,
    ids: _Ids = None,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="NODE", help="Run this node and all behind it anew.")
    ] = None,
    parameter: workflow.Parameters = None,
    wait: workflow.Wait = False,
    timeout: options.Timeout = None,
    everything: bulk.All = False,
    yes: bulk.Yes = False,
    dry_run: bulk.DryRun = False,
) -> Coroutine[Any, Any, None] | None:
    """Run workflows again: those of these ids, or all that filters find and that failed or were cancelled.

    Each is a new one that takes over the results of what was successful. Anew runs what was not, --from and
    what refers to a changed parameter, and all behind these.

    Example: colonies workflow rerun 01JZY8 --from train --parameter rate=0.2 --wait
    """
    from colonies.bulk import rerunning_workflows
    from colonies.errors import Invalid

    options.check_timeout(wait, timeout)
    given = specs.parameters(parameter or [])
    chosen = bulk.Chosen(ids or [], filters.given(), everything, yes, dry_run)
    if (id := chosen.one) is not None:
        return _rerun_workflow(here, id, from_node, given, wait, timeout)
    if from_node is not None or given or wait:
        raise Invalid("--from, --parameter, --wait: they are for one workflow; allowed: one id")
    verb = bulk.workflows("rerun", "submitted", ("failed", "cancelled"), rerunning_workflows)
    return bulk.run(here, verb, chosen)


async def _rerun_workflow(
    here: Here, id: str, from_node: str | None, given: dict[str, Any], wait: bool, timeout: float | None
) -> None:
    from colonies_cli import flow_showing

    async with here.client(submits=True) as client:
        id = await ids.whole(client.session.ledger, "workflow", id)
        handle = await client.workflow(id).rerun(from_node, given)
        await flow_showing.show_submitted(here, handle, f"runs {id} again", wait=wait, timeout_s=timeout)
