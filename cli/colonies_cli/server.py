"""`colonies server start`: the services of a colony whose broker is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colonies_cli.command import Here, command, group

if TYPE_CHECKING:
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
            "--only", metavar="SERVICE", help="orchestrator, projector, operator or traces; may be repeated."
        ),
    ] = None,
    views: Annotated[
        Path | None,
        typer.Option("--views", metavar="DIR", help="Where the projector keeps its views."),
    ] = None,
    operator_keys: Annotated[
        Path | None,
        typer.Option("--operator-keys", metavar="DIR", help="Where the operator's keys are."),
    ] = None,
) -> None:
    """Run orchestrator, projector and operator until SIGTERM; some of them with --only.

    Where the context holds the owner's keys, each service is enrolled, as orchestrator-HOST for one.
    Elsewhere the credential must be that of the one service to run. Each may run several times, on one host
    or many. Where OTEL_EXPORTER_OTLP_ENDPOINT is set, traces runs as well, which exports to there.

    Example: colonies server start --only orchestrator --creds orchestrator.creds
    """
    from colonies import contexts
    from colonies_cli.services import run_until_stopped

    context = contexts.resolve(here.context, here.url, here.creds)
    services = _services(context, _kinds(only or []), views, operator_keys)
    run_until_stopped(lambda: _serve(context, services))


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
    context: Context, wanted: list[Kind], views: Path | None, operator_keys: Path | None
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
    place = Place(context.url, views, operator, keys)
    if keys is None or credential.role != "owner":
        return [_single(place, credential, wanted)]
    if not wanted:
        wanted = ["orchestrator", "projector"]
        if operator is not None:
            wanted.append("operator")
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


async def _serve(context: Context, services: list[Service]) -> None:
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
            print(f"ready {context.url} context={context.name or '-'} services={kinds}", flush=True)
