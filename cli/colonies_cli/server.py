"""`colonies server start`: the services of a colony whose broker is elsewhere."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colonies_cli.command import Here, command, group

if TYPE_CHECKING:
    from colonies_projections.http import Door, Listen

    from colonies.contexts import Context
    from colonies.creds import Credential
    from colonies.operator import OperatorKeys
    from colonies_cli.services import Kind, Place, Service

app = group("Run the services of a colony whose broker is elsewhere.\n\nExample: colonies server start")

_OF_ROLE: dict[str, Kind] = {"service": "orchestrator", "observer": "projector"}


@command(app, "start", log="info")
def start(
    here: Here,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="SERVICE",
            help="orchestrator, projector, webhooks, operator, http or traces; may be repeated.",
        ),
    ] = None,
    views: Annotated[
        Path | None,
        typer.Option("--views", metavar="DIR", help="Where the projector keeps its views."),
    ] = None,
    public_only: Annotated[
        bool, typer.Option("--public-only", help="Webhooks reach public addresses only, not this network.")
    ] = False,
    operator_keys: Annotated[
        Path | None,
        typer.Option("--operator-keys", metavar="DIR", help="Where the operator's keys are."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Serve HTTP here; port 0: any free one. Default with --only http: 127.0.0.1:4280.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="The certificate for HTTPS, as PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="The key of the certificate, as PEM.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let others in without TLS: they send their tokens for all to read."),
    ] = False,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="A name under which HTTP is asked too; repeatable."),
    ] = None,
) -> None:
    """Run orchestrator, projector, webhooks and operator until SIGTERM; with --only some; HTTP with --listen.

    Where the context holds the owner's keys, each service is enrolled, as orchestrator-HOST for one.
    Elsewhere the credential must be that of the one service to run. Each may run several times, on one host
    or many. Where OTEL_EXPORTER_OTLP_ENDPOINT is set, traces runs as well, which exports to there.

    Example: colonies server start --only orchestrator --creds orchestrator.creds
    """
    from colonies_projections.http import open_door

    from colonies import contexts
    from colonies_cli.services import check_endpoint, run_until_stopped

    if "traces" in (only or []):
        check_endpoint()
    context = contexts.resolve(here.context, here.url, here.creds)
    kinds = _kinds(only or [])
    http = _listen(kinds, listen, (tls_cert, tls_key), insecure, host or [])
    with contextlib.ExitStack() as stack:
        door = None if http is None else stack.enter_context(open_door(http))
        services = _services(context, kinds, views, operator_keys, door, public_only)
        run_until_stopped(lambda: _serve(context, services, door))


def _listen(
    kinds: list[Kind],
    listen: str | None,
    tls: tuple[Path | None, Path | None],
    insecure: bool,
    hosts: list[str],
) -> Listen | None:
    """Where HTTP is to be served, if it is. Raises Invalid."""
    from colonies_projections.http.door import DEFAULT_PORT, Listen, address, host_name

    from colonies.errors import Invalid

    if "http" not in kinds and (listen is None or kinds):
        given = listen is not None or insecure or hosts or any(tls)
        if given:
            raise Invalid(
                "--listen and what goes with it are for HTTP; add --only http, or --listen HOST:PORT"
            )
        return None
    place, port = address(listen or f"127.0.0.1:{DEFAULT_PORT}")
    return Listen(place, port, *tls, insecure, tuple(map(host_name, hosts)))


def _kinds(only: list[str]) -> list[Kind]:
    """The services named. Raises Invalid."""
    from colonies.errors import Invalid
    from colonies_cli.services import ROLES

    wanted: list[Kind] = []
    for name in only:
        kind = next((kind for kind in ROLES if kind == name), None)
        if kind is None:
            raise Invalid(f"--only {name}: there are {', '.join(ROLES)}")
        if kind not in wanted:
            wanted.append(kind)
    return wanted


def _services(
    context: Context,
    wanted: list[Kind],
    views: Path | None,
    operator_keys: Path | None,
    door: Door | None,
    public_only: bool,
) -> list[Service]:
    """The services to run. Raises Invalid if this context cannot run what is asked for."""
    from colonies import contexts
    from colonies.errors import Invalid
    from colonies.files import expanded
    from colonies.operator import OwnerKeys
    from colonies_cli.services import Place, exports_traces

    credential = contexts.credential_of(context)
    keys = None if context.keys is None else OwnerKeys.open(expanded(context.keys))
    operator = _operator(context, operator_keys)
    views = views or contexts.data_folder() / "views" / (context.name or credential.colony)
    try:
        views.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"{views} cannot be used: {error.strerror}; name another with --views") from None
    place = Place(context.url, views, operator, keys, door, public_only)
    if keys is None or credential.role != "owner":
        return [_single(place, credential, wanted or (["http"] if door is not None else []))]
    if not wanted:
        wanted = ["orchestrator", "projector", "webhooks"]
        if operator is not None:
            wanted.append("operator")
        if door is not None:
            wanted.append("http")
        if exports_traces():
            wanted.append("traces")
    return [_enrolled(kind, context, place) for kind in wanted]


def _operator(context: Context, folder: Path | None) -> OperatorKeys | None:
    """The operator's keys: those named, else those beside the owner's, as `colonies dev` puts them."""
    from colonies.files import expanded
    from colonies.operator import OperatorKeys

    if folder is None and context.keys is not None:
        beside = expanded(context.keys).with_name("operator")
        folder = beside if beside.is_dir() else None
    return None if folder is None else OperatorKeys.open(expanded(str(folder), "--operator-keys"))


def _enrolled(kind: Kind, context: Context, place: Place) -> Service:
    """A service that the owner's keys make a member, named after this host."""
    from colonies import contexts
    from colonies.files import expanded
    from colonies_cli.services import Service, enrolled, host_name

    folder = contexts.data_folder() / "members" / context.name
    if context.members is not None:
        folder = expanded(context.members)

    async def credential() -> Credential:
        assert place.owner is not None
        owner = contexts.credential_of(context)  # each time: its key may have been changed meanwhile
        return await enrolled(context.url, owner, place.owner, f"{kind}-{host_name()}", kind, folder)

    return Service(kind, place, credential)


def _single(place: Place, credential: Credential, wanted: list[Kind]) -> Service:
    """The one service that a credential of its own is good for."""
    from colonies.errors import Invalid
    from colonies_cli.services import ROLES, Service

    kinds = wanted or [kind for role, kind in _OF_ROLE.items() if role == credential.role]
    if len(kinds) != 1 or ROLES[kinds[0]] != credential.role:
        raise Invalid(
            f"the credential of {credential.name} ({credential.role}) cannot run "
            f"{', '.join(kinds) or 'a service'}: an orchestrator needs one of role service, the "
            "others one of role observer. Name one with --creds and the service with --only, or use a "
            "context that holds the owner's keys"
        )

    async def own() -> Credential:
        return credential

    return Service(kinds[0], place, own)


async def _serve(context: Context, services: list[Service], door: Door | None) -> None:
    """Keep the services running until cancelled; say `ready` once all are."""
    import asyncio

    from colonies.tasks import first_error

    with first_error():
        async with asyncio.TaskGroup() as tasks:
            for service in services:
                tasks.create_task(service.keep(give_up=True), name=service.kind)
            for service in services:
                await service.ready.wait()
            kinds = ",".join(service.kind for service in services)
            http = f" http={door.url}" if door is not None else ""
            print(f"ready {context.url} context={context.name or '-'} services={kinds}{http}", flush=True)
