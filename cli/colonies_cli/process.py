"""`colonies process`: submit work, see it, wait for it, stop it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import events, exits, ids, listing, options, output, signalling, specs
from colonies_cli import filters as filters_
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.core.spec import Spec

app = group(
    "Submit processes, see them, wait for them, cancel them.\n\n"
    "Example: colonies process run echo hello --runtimetype cli"
)

_Id = Annotated[
    str, typer.Argument(metavar="ID", help="The process's id, or its beginning.", show_default=False)
]


@command(app, "submit")
def submit(
    here: Here,
    spec: Annotated[str, typer.Option("--spec", metavar="FILE", help="The spec, JSON or YAML; -: stdin.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="The same key always gives the same process.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; exit 3 if it failed or was cancelled.")
    ] = False,
    timeout: options.Timeout = None,
) -> Coroutine[Any, Any, None]:
    """Submit a process described in a file.

    With -o name, prints its id only.

    Example: colonies process submit --spec sayhello.json --wait
    """
    options.check_timeout(wait, timeout)
    return _submit(here, specs.read_spec(spec), key, wait, timeout)


async def _submit(here: Here, spec: Spec, key: str | None, wait: bool, timeout: float | None) -> None:
    from colonies_cli.showing import show_end, show_submitted

    async with here.client(submits=True) as client:
        handle = await client.submit(spec, key=key)
        if not wait:
            await show_submitted(here, client, handle.id)
            return
        if here.output == Output.table:
            output.line(f"process {handle.id} submitted")
        try:
            process = await handle.wait(timeout)
        except TimeoutError:
            exits.say(
                f"process {handle.id} is not final after {timeout:g} s and goes on; "
                f"see it with `colonies process get {handle.id}`"
            )
            raise exits.Ended(exits.FAILED) from None
        await show_end(here, client, process)


@command(app, "run")
async def run(
    here: Here,
    words: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="The function and its arguments.", show_default=False),
    ],
    runtimetype: Annotated[
        str, typer.Option("--runtimetype", metavar="T", help="The kind of worker that it needs.")
    ],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="A name for people.")] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="LABEL", help="A tag for filters.")] = None,
    priority: Annotated[
        int, typer.Option("--priority", metavar="N", help="From -9 to 9; higher goes first.")
    ] = 0,
    maxwaittime: Annotated[
        float | None, typer.Option("--maxwaittime", metavar="S", help="Fails if not taken within S seconds.")
    ] = None,
    maxexectime: Annotated[
        float | None, typer.Option("--maxexectime", metavar="S", help="Seconds that one attempt may take.")
    ] = None,
    maxretries: Annotated[
        int,
        typer.Option("--maxretries", metavar="N", help="Further attempts after a failed one; -1: no limit."),
    ] = 0,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="K=V", help="An environment variable; repeatable.")
    ] = None,
) -> None:
    """Submit a command, show its log, wait for its end, show its output.

    What it writes to stdout goes to stdout as it comes, and the output last, as --wait shows it; of a Unix
    command the two are the same, and shown once. Its stderr and log go to stderr. With -o json or name,
    stdout has the final process only.

    One word is a function or a line of shell; of several, the first is the function and the others are its
    arguments, each quoted. Put -- before a command that has options of its own. Exits with 3 if the process
    failed or was cancelled. Ctrl-C leaves the process running.

    Example: colonies process run --runtimetype cli -- ls -l /tmp
    """
    from colonies.core.spec import Spec
    from colonies_cli.showing import show_end, stream_until_final

    spec = Spec.parse(
        {
            "func": words[0],
            "args": words[1:],
            "name": name,
            "label": label,
            "priority": priority,
            "maxwaittime": maxwaittime,
            "maxexectime": maxexectime,
            "maxretries": maxretries,
            "env": _variables(env or []),
            "conditions": {"runtimetype": runtimetype},
        },
        where="process run",
    )
    async with here.client(submits=True) as client:
        handle = await client.submit(spec)
        exits.say(f"process {handle.id} submitted")
        try:
            written = await stream_until_final(here, client, handle.id)
        except BaseException:
            exits.say(f"process {handle.id} goes on; stop it with `colonies process cancel {handle.id}`")
            raise
        await show_end(here, client, await handle.get(), written)


@command(app, "ls", past=True)
async def ls(
    here: Here,
    filters: filters_.ProcessFilters,
    sort: Annotated[str | None, options.sort("submitted, ended or id")] = None,
    limit: options.Limit = options.LIMIT,
    all: options.All = False,
    cursor: options.Cursor = None,
) -> None:
    """List processes, newest first, as the projector has them.

    --text finds words, or how they begin, in function, name, label, arguments and errors.

    Example: colonies process ls --state failed --since 1h --text timeout
    """
    pages = listing.Pages(limit, all, cursor, sort)
    items = await listing.asked(here, "processes", pages, **filters.given())
    last = "FUNC (NAME)" if any(item.get("name") for item in items) else "FUNC"
    header = ("ID", "STATE", "RUNTIMETYPE", "WORKER", "SUBMITTED", last)
    listing.show(here, items, header, _row, elastic=5)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    name = f" ({item['name']})" if item.get("name") else ""
    return (
        item["id"],
        item["state"],
        item["runtimetype"],
        item["worker"],
        output.seconds(item["submitted_at"]),
        f"{item['func']}{name}",
    )


@command(app, "get", past=True)
async def get(
    here: Here,
    id: _Id,
    watch: options.Watch = False,
) -> None:
    """Show one process, as the ledger has it.

    Example: colonies process get 01JZY8 --watch -o json
    """
    from colonies_cli.showing import end_of, show, watch_process

    ids.check(id)
    here.check_now("--watch", watch)
    async with here.client() as client:
        id = await ids.whole(client.session.ledger, "process", id)
        if watch:
            end_of(await watch_process(here, client, id, redraw=True))
        else:
            await show(here, client, await client.process(id).get())


@command(app, "watch")
async def watch(here: Here, id: _Id) -> None:
    """Show each event of a process as it happens.

    Ends when the process is final: with exit code 3 if it failed or was cancelled. With -o json, prints the
    process after each event.

    Example: colonies process watch 01JZY8
    """
    from colonies_cli.showing import end_of, watch_process

    ids.check(id)
    async with here.client() as client:
        id = await ids.whole(client.session.ledger, "process", id)
        end_of(await watch_process(here, client, id, redraw=False))


@command(app, "why", past=True)
async def why(here: Here, id: _Id) -> None:
    """Say why a process waits, is blocked, runs long, was taken over, failed or was cancelled.

    Each reason names the sequences of the events that show it. With -o name, prints the reasons' codes only.

    Example: colonies process why 01JZY8
    """
    from colonies_cli import why as reasons

    ids.check(id)
    async with here.client() as client:
        id = await ids.whole(client.session.ledger, "process", id)
        reasons.show(here, await client.process(id).why())


@command(app, "signal")
def signal(
    here: Here,
    id: _Id,
    name: signalling.Name,
    data: signalling.Data = None,
) -> Coroutine[Any, Any, None]:
    """Send a process a signal, signed by you. Its function may wait for it.

    Example: colonies process signal 01JZY8 approve --data '{"budget": 500}'
    """
    return signalling.send(here, "process", id, name, data)


@command(app, "logs", past=True)
async def logs(
    here: Here,
    id: _Id,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the process is final.")] = False,
) -> None:
    """Print what a process wrote, verified. stdout and stderr both go to stdout.

    Example: colonies process logs 01JZY8 -f
    """
    from colonies.logs import read_logs
    from colonies_cli.showing import follow_logs, show_log

    ids.check(id)
    here.check_now("--follow", follow)
    async with here.client() as client:
        id = await ids.whole(client.session.ledger, "process", id)
        process = await client.process(id).get()
        if follow:
            async for entry in follow_logs(client, id):
                show_log(here, entry, id)
            return
        for entry in await read_logs(client.session, process.id):
            show_log(here, entry, id)


@command(app, "history", past=True)
async def history(here: Here, id: _Id) -> None:
    """Print every event of a process, with verdicts.

    Then what its log says outside the chain: results that were refused, runs that were stopped.

    Example: colonies process history 01JZY8
    """
    from colonies import show_event
    from colonies.logs import read_logs
    from colonies.missing import not_found
    from colonies_cli.showing import say_missing_logs

    ids.check(id)
    async with here.session() as session:
        id = await ids.whole(session.ledger, "process", id)
        story = await session.story(id)
        if not story.judged:
            raise await not_found(session, "process", id)
        entries = await read_logs(session, id)
        numbered = show_event.numbered(story.judged, session.knowledge)
        objects = [show_event.event_object(seen, n) for seen, n, _ in numbered]
        notes = [entry for entry in entries if entry.type != "log.written"]
        objects += [events.note_object(entry, id) for entry in notes]
        if here.output == Output.table:
            output.table(events.HEADER, (events.row(event) for event in objects))
        elif here.output == Output.json:
            for event in objects:
                output.json_line(event)
        else:
            for seen in story.judged:
                output.line(seen.record.id if seen.record else str(seen.stored.sequence))
        say_missing_logs(story.judged, entries, session.knowledge)


@command(app, "replay")
def replay(
    here: Here,
    id: _Id,
    place: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="A function or a worker in a module of this folder.",
            show_default=False,
        ),
    ],
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", metavar="N", min=1, help="Default: the last that ended by itself."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Where it raises, look around with Python's debugger (pdb).")
    ] = False,
) -> Coroutine[Any, Any, None]:
    """Run a recorded attempt here, and compare how it ends with the ledger.

    It gets the arguments and inputs that its worker got. Exit 0 if it ends the same, 1 if not: then the first
    difference is shown. Nothing is written to the ledger; what the function does elsewhere, it does again.
    breakpoint() in it works.

    Example: colonies process replay 01JZY8 shop:resize --debug
    """
    from colonies_cli import replaying

    ids.check(id)
    return replaying.run(here, id, replaying.worker_of(place), attempt, debug=debug)


# --- what was given ------------------------------------------------------------------------------


def _variables(given: list[str]) -> dict[str, str]:
    from colonies.errors import Invalid

    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise Invalid(f"--env {text}: it has no =; allowed: NAME=VALUE")
        found[name] = value
    return found
