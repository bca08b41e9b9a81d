"""`colonies workflow`: submit processes that depend on each other, see them, stop them, run them again."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import listing, options, output, signalling, specs
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.core.flow import WorkflowSpec

app = group(
    "Submit workflows, see them, wait for them, cancel them, run them again.\n\n"
    "Example: colonies workflow submit --spec examples/workflow.yaml --wait"
)

STATES = ("running", "successful", "failed", "cancelled")

_Id = Annotated[str, typer.Argument(metavar="ID", help="The workflow's id.", show_default=False)]
_Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", metavar="NAME=JSON", help="A parameter's value; repeatable."),
]
_Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit 3 unless it is successful.")]


@command(app, "submit")
def submit(
    here: Here,
    spec: Annotated[
        str, typer.Option("--spec", metavar="FILE", help="The workflow, JSON or YAML; -: stdin.")
    ],
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="The same key always gives the same workflow.")
    ] = None,
    parameter: _Parameters = None,
    wait: _Wait = False,
    timeout: options.Timeout = None,
) -> Coroutine[Any, Any, None]:
    """Submit a workflow described in a file: a list of specs, or an object with nodes.

    It is whole on the ledger or not there at all. With -o name, prints its id only. Ctrl-C while it waits
    leaves the workflow running.

    Example: colonies workflow submit --spec workflow.yaml --parameter files='["a", "b"]' --wait
    """
    from colonies.core.rerun import changed_spec

    options.check_timeout(wait, timeout)
    given = specs.parameters(parameter or [])
    found, _ = changed_spec(specs.read_workflow(spec), given)
    return _submit(here, found, key, wait, timeout)


async def _submit(here: Here, spec: WorkflowSpec, key: str | None, wait: bool, timeout: float | None) -> None:
    from colonies_cli import flow_showing

    async with here.client(submits=True) as client:
        handle = await client.submit_workflow(spec, key=key)
        await flow_showing.show_submitted(here, handle, "submitted", wait=wait, timeout_s=timeout)


@command(app, "rerun")
def rerun(
    here: Here,
    id: _Id,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="NODE", help="Run this node and all behind it anew.")
    ] = None,
    parameter: _Parameters = None,
    wait: _Wait = False,
    timeout: options.Timeout = None,
) -> Coroutine[Any, Any, None]:
    """Run a workflow again, as a new one that takes over the results of what was successful.

    Anew runs what was not successful, --from and what refers to a changed parameter, and all behind these.

    Example: colonies workflow rerun 01JZY8 --from train --parameter rate=0.2 --wait
    """
    specs.check_id(id)
    options.check_timeout(wait, timeout)
    return _rerun(here, id, from_node, specs.parameters(parameter or []), wait, timeout)


async def _rerun(
    here: Here, id: str, from_node: str | None, given: dict[str, Any], wait: bool, timeout: float | None
) -> None:
    from colonies_cli import flow_showing

    async with here.client(submits=True) as client:
        handle = await client.workflow(id).rerun(from_node, given)
        await flow_showing.show_submitted(here, handle, f"runs {id} again", wait=wait, timeout_s=timeout)


@command(app, "ls", past=True)
async def ls(
    here: Here,
    state: Annotated[str | None, options.state(STATES)] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Only those of this name.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="LABEL", help="Only those with this label.")
    ] = None,
    submitter: Annotated[
        str | None, typer.Option("--submitter", metavar="MEMBER", help="Only those of this member.")
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    text: options.Text = None,
    sort: Annotated[str | None, options.sort("submitted or ended")] = None,
    limit: options.Limit = options.LIMIT,
    all: options.All = False,
    cursor: options.Cursor = None,
) -> None:
    """List workflows, newest first, as the projector has them.

    Example: colonies workflow ls --state running
    """
    listing.check_state(state, STATES)
    items = await listing.asked(
        here,
        "workflows",
        listing.Pages(limit, all, cursor, sort),
        state=state,
        name=name,
        label=label,
        submitter=submitter,
        since=since,
        until=until,
        text=text,
    )
    header = ("ID", "STATE", "DONE", "SUBMITTER", "SUBMITTED", "NAME")
    listing.show(here, items, header, _row, elastic=5)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    failed = f", {item['failed']} failed" if item["failed"] else ""
    return (
        item["id"],
        item["state"],
        f"{item['done']} of {item['nodes']}{failed}",
        item["submitter"],
        output.seconds(item["submitted_at"]),
        item["name"],
    )


@command(app, "get", past=True)
async def get(
    here: Here,
    id: _Id,
    watch: options.Watch = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Each node and part on a line of its own.")
    ] = False,
) -> None:
    """Show one workflow as a tree, as the ledger has it.

    Each node stands under the one that all before it comes from. Many that look alike, and the parts of a
    node that maps, are one line. With --watch, exits with 3 unless the workflow is successful.

    Example: colonies workflow get 01JZY8 --watch
    """
    from colonies_cli import flow_showing

    specs.check_id(id)
    here.check_now("--watch", watch)
    async with here.client() as client:
        handle = client.workflow(id)
        if watch:
            await flow_showing.watch(here, handle, everything=everything)
        else:
            await flow_showing.show(here, handle, await handle.get(), everything=everything)


@command(app, "history", past=True)
async def history(here: Here, id: _Id) -> None:
    """Print every event of a workflow and of all its nodes, in the ledger's order, with verdicts.

    Example: colonies workflow history 01JZY8
    """
    from colonies_cli import flow_showing

    specs.check_id(id)
    async with here.client() as client:
        await flow_showing.show_history(here, client, id)


@command(app, "cancel")
async def cancel(
    here: Here,
    id: _Id,
    reason: options.Reason = "",
) -> None:
    """Cancel a workflow. What runs is stopped by its workers; nodes that run last (finally) still run.

    Example: colonies workflow cancel 01JZY8 --reason "wrong input"
    """
    from colonies_cli import flow_showing

    specs.check_id(id)
    async with here.client() as client:
        handle = client.workflow(id)
        await handle.cancel(reason)
        if here.output == Output.table:
            output.line(f"workflow {id} cancelled")
        else:
            await flow_showing.show(here, handle, await handle.get())


@command(app, "signal")
def signal(
    here: Here,
    id: _Id,
    name: signalling.Name,
    data: signalling.Data = None,
) -> Coroutine[Any, Any, None]:
    """Send a workflow a signal, signed by you. Nodes may wait for it.

    Example: colonies workflow signal 01JZY8 approve --data '{"budget": 500}'
    """
    return signalling.send(here, "workflow", id, name, data)
