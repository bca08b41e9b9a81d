"""`colonies workflow`: submit processes that depend on each other, see them, stop them, run them again."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import filters as filters_
from colonies_cli import ids, listing, options, output, signalling, specs
from colonies_cli.command import Here, command, group

if TYPE_CHECKING:
    from colonies.core.flow import WorkflowSpec

app = group(
    "Submit workflows, see them, wait for them, cancel them, run them again.\n\n"
    "Example: colonies workflow submit --spec examples/workflow.yaml --wait"
)

_Id = Annotated[
    str, typer.Argument(metavar="ID", help="The workflow's id, or its beginning.", show_default=False)
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", metavar="NAME=JSON", help="A parameter's value; repeatable."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit 3 unless it is successful.")]


@command(app, "submit")
def submit(
    here: Here,
    spec: Annotated[
        str, typer.Option("--spec", metavar="FILE", help="The workflow, JSON or YAML; -: stdin.")
    ],
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="The same key always gives the same workflow.")
    ] = None,
    parameter: Parameters = None,
    wait: Wait = False,
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


@command(app, "ls", past=True)
async def ls(
    here: Here,
    filters: filters_.WorkflowFilters,
    sort: Annotated[str | None, options.sort("submitted, ended or id")] = None,
    limit: options.Limit = options.LIMIT,
    all: options.All = False,
    cursor: options.Cursor = None,
) -> None:
    """List workflows, newest first, as the projector has them.

    Example: colonies workflow ls --state running
    """
    pages = listing.Pages(limit, all, cursor, sort)
    items = await listing.asked(here, "workflows", pages, **filters.given())
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

    ids.check(id)
    here.check_now("--watch", watch)
    async with here.client() as client:
        handle = client.workflow(await ids.whole(client.session.ledger, "workflow", id))
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

    ids.check(id)
    async with here.client() as client:
        id = await ids.whole(client.session.ledger, "workflow", id)
        await flow_showing.show_history(here, client, id)


@command(app, "why", past=True)
async def why(
    here: Here,
    id: _Id,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NODE", help="Only of this node, or part of one.")
    ] = None,
) -> None:
    """Say why a workflow runs still, failed or was cancelled, with the sequences of the events that show it.

    It tells of the nodes that have begun and not ended, or that ended wrong; --node tells of any.

    Example: colonies workflow why 01JZY8 --node train
    """
    from colonies_cli import why as reasons

    ids.check(id)
    async with here.client() as client:
        id = await ids.whole(client.session.ledger, "workflow", id)
        reasons.show(here, await client.workflow(id).why(node))


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
