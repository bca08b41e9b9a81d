"""`colonies worker`: run workers, see them."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, having, listing, options, output, pausing
from colonies_cli.command import Here, command, group

if TYPE_CHECKING:
    from colonies.worker import Worker

app = group("Start workers, see them.\n\nExample: colonies worker start --name testworker --runtimetype cli")

DEFAULT_RUNTIMETYPE = "cli"
STATES = ("alive", "lost", "stopped")


@command(app, "start", log="info")
def start(
    here: Here,
    place: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:WORKER", help="A colonies.Worker in a module of this folder."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The worker's name. Default: this host's.")
    ] = None,
    runtimetype: Annotated[
        str | None,
        typer.Option(
            "--runtimetype", metavar="T", help="What kind of processes the Unix worker takes. Default: cli."
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", metavar="N", min=1, max=10_000, help="How many at a time."),
    ] = None,
    cpu: having.Cpu = None,
    mem: having.Mem = None,
    storage: having.Storage = None,
    gpu: having.Gpu = None,
    nodes: having.Nodes = None,
    processes: having.Processes = None,
    walltime: having.Walltime = None,
    location: having.Location = None,
    label: having.Label = None,
    config: having.Config = None,
) -> Coroutine[Any, Any, None]:
    """Run a worker until Ctrl-C or SIGTERM.

    It runs Unix commands, or the functions of MODULE:WORKER. Where the context holds the owner's keys, as
    that of `colonies dev` does, the name is enrolled if it is new. Stopped, it finishes what runs within 10
    seconds, or gives it back; stopped again, at once. What it has to give is found on this machine unless
    you say it.

    Example: colonies worker start --name lab1 --mem 64GB --gpu 2xA100:40GB --label site=north
    """
    given = having.Given(
        name=name,
        runtimetype=runtimetype,
        concurrency=concurrency,
        cpu=cpu,
        mem=mem,
        storage=storage,
        gpus=gpu,
        nodes=nodes,
        processes=processes,
        walltime=walltime,
        location=location,
        labels=label,
    )
    said = having.said(given, config)
    return _start(here, _worker(place, said), said.name)


async def _start(here: Here, worker: Worker, name: str | None) -> None:
    url, path = await _identity(here, name)
    await worker.run(context=here.context, url=url, creds=path)


@command(app, "ls", past=True)
async def ls(
    here: Here,
    runtimetype: Annotated[
        str | None, typer.Option("--runtimetype", metavar="T", help="Only workers of this kind.")
    ] = None,
    state: Annotated[str | None, options.state(STATES)] = None,
    func: Annotated[
        str | None, typer.Option("--func", metavar="FUNC", help="Only those that have this function.")
    ] = None,
    limit: options.Limit = options.LIMIT,
) -> None:
    """List the instances of workers, as the projector has them.

    RUNNING is how many processes it has taken and not ended, by the ledger; LAST SEEN its last sign of life.

    Example: colonies worker ls --state alive
    """
    listing.check_state(state, STATES, "state of a worker")
    pages = listing.Pages(limit)
    items = await listing.asked(here, "workers", pages, state=state, runtimetype=runtimetype, func=func)
    header = ("NAME", "INSTANCE", "RUNTIMETYPE", "STATE", "RUNNING", "LAST SEEN")
    listing.show(here, items, header, _row, id="name")


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    drained = f", DRAINED {pausing.by(item['drained'])}" if item.get("drained") else ""
    return (
        item["name"],
        item["instance"],
        item["runtimetype"],
        item["state"] + drained,
        f"{len(item['running'])} of {item['concurrency']}",
        output.seconds(item["last_seen"]),
    )


_Worker = Annotated[str, typer.Argument(metavar="NAME", help="The worker's name.", show_default=False)]


@command(app, "drain")
async def drain(here: Here, name: _Worker, reason: options.Reason = "") -> None:
    """Let all instances of a worker take nothing more, until it is resumed.

    They finish what they run, stay up, and take nothing after a restart either. Needs an owner.

    Example: colonies worker drain lab1 --reason "new disks"
    """
    reason = pausing.checked(reason)
    async with pausing.owner_of(here) as client:
        await client.drain_worker(name, reason)
    pausing.said(here, "name", name, "drained", "worker", True)


@command(app, "resume")
async def resume(here: Here, name: _Worker) -> None:
    """Let a drained worker take processes again.

    Example: colonies worker resume lab1
    """
    async with pausing.owner_of(here) as client:
        await client.resume_worker(name)
    pausing.said(here, "name", name, "drained", "worker", False)


# --- which worker -----------------------------------------------------------------------------------


def _worker(place: str | None, said: having.Said) -> Worker:
    """The worker to run. Raises Invalid."""
    runtimetype, concurrency = said.runtimetype, said.concurrency
    if place is None:
        from colonies_workers.unix import UnixWorker

        from colonies.core.names import name as checked

        wanted = checked(runtimetype or DEFAULT_RUNTIMETYPE, "--runtimetype")
        return UnixWorker(wanted, concurrency=concurrency, has=said.has)
    worker = _imported(place)
    if runtimetype is not None and runtimetype != worker.runtimetype:
        from colonies.errors import Invalid

        raise Invalid(
            f"--runtimetype: {place} is for {worker.runtimetype}; its module says so, change it there"
        )
    worker.concurrency = concurrency or worker.concurrency
    worker.has = worker.has.model_copy(
        update={field: getattr(said.has, field) for field in said.has.model_fields_set}
    )
    return worker


def _imported(place: str) -> Worker:
    """The worker that MODULE:WORKER names, imported from this folder. Raises Invalid, saying why not."""
    from colonies.errors import Invalid
    from colonies.worker import Worker
    from colonies_cli import importing

    module, found = importing.found_at(place, "MODULE:WORKER, such as shop:worker for `worker` in shop.py")
    if not isinstance(found, Worker):
        workers = [name for name, value in vars(module).items() if isinstance(value, Worker)]
        has = f"it has: {', '.join(workers)}" if workers else "it has none"
        attribute = place.partition(":")[2]
        raise Invalid(f"{place}: {attribute} is no colonies.Worker in {module.__name__}; {has}")
    return found


# --- which member -----------------------------------------------------------------------------------


async def _identity(here: Here, name: str | None) -> tuple[str, Path]:
    """The broker's URL and the credential to work with, of a member that is a worker."""
    from colonies import contexts, founding
    from colonies.core.names import member_name
    from colonies.errors import Invalid, Refused
    from colonies.files import expanded
    from colonies_cli import owner

    if name is not None:
        member_name(name, "--name")
    context = owner.context_of(here)
    own = contexts.credential_of(context)
    if own.role == "worker":
        if name not in (None, own.name):
            raise Invalid(f"--name {name}: the credential is that of {own.name}; leave --name out")
        return context.url, expanded(context.creds)
    wanted = name or _host_name()
    if context.keys is None:
        raise Refused(
            f"{own.name} is no worker, and this context does not hold the owner's keys: ask to join with "
            f"`colonies member request --name {wanted} --role worker` and start it with --context {wanted}, "
            "or give the credential of one that is there (--creds FILE or COLONIES_CREDS)"
        )
    async with owner.owner_of(here, "enrolling a worker") as found:
        known = wanted in found.session.colony.members
        path = await founding.enrol(found.session, found.keys, wanted, "worker", found.members)
        if not known:
            exits.say(f"{wanted} is enrolled as a worker of the colony {found.session.colony.name}")
    return context.url, path


def _host_name() -> str:
    from colonies_cli.services import host_name

    return host_name()
