"""`colonies context`: which colony a command means, and who one is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, listing, output
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.contexts import Context

app = group(
    "Say which colony the commands mean. An option goes before the environment, the environment before the "
    "context in use.\n\nExample: colonies context add lab --url nats://lab:4222 --creds ann.creds"
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The context's name.", show_default=False)]


@command(app, "add")
def add(
    here: Here,
    name: _Name,
    keys: Annotated[
        str | None,
        typer.Option("--keys", metavar="FOLDER", help="The folder of the owner's keys, if you hold them."),
    ] = None,
) -> None:
    """Add a context, or replace it.

    --url says where the broker is, --creds who you are there. The first context is in use at once.

    Example: colonies context add lab --url nats://lab:4222 --creds ann.creds
    """
    from colonies import contexts
    from colonies.core.names import name as checked
    from colonies.creds import Credential
    from colonies.errors import Invalid
    from colonies.files import expanded
    from colonies.operator import OwnerKeys

    checked(name, "NAME")
    if here.url is None or here.creds is None:
        lacking = " and ".join(
            option for option, value in (("--url", here.url), ("--creds", here.creds)) if value is None
        )
        raise Invalid(f"{lacking}: missing; a context needs the broker's URL and a credential's file")
    creds = expanded(here.creds, "--creds")
    Credential.read(creds)
    folder = expanded(keys, "--keys") if keys is not None else None
    if folder is not None:
        OwnerKeys.open(folder)
    context = contexts.Context(
        name, _checked_url(here.url), str(creds), str(folder) if folder else None, str(creds.parent)
    )
    contexts.save(context)
    if contexts.in_use() is None:
        contexts.use(name)
    _show(here, context)


@command(app, "use")
def use(here: Here, name: _Name) -> None:
    """Make a context the one in use.

    Example: colonies context use lab
    """
    from colonies import contexts

    contexts.use(name)
    _show(here, contexts.load(name))


@command(app, "ls")
def ls(here: Here) -> None:
    """List the contexts.

    Example: colonies context ls -o name
    """
    from colonies import contexts
    from colonies.errors import ColoniesError

    found = []
    for name in contexts.names():
        try:
            found.append(_object(contexts.load(name)))
        except ColoniesError as error:
            exits.say(str(error))
    listing.show(here, found, ("NAME", "IN USE", "URL", "CREDS"), _row, id="name")


def _row(context: dict[str, Any]) -> tuple[Any, ...]:
    return context["name"], "yes" if context["in_use"] else "", context["url"], context["creds"]


@command(app, "get")
def get(
    here: Here,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Default: what commands mean here and now.", show_default=False),
    ] = None,
) -> None:
    """Show a context.

    Without a name, the one that commands mean here, with options and environment.

    Example: colonies context get
    """
    from colonies import contexts

    if name is not None:
        _show(here, contexts.load(name))
    else:
        _show(here, contexts.resolve(here.context, here.url, here.creds))


@command(app, "rm")
def rm(here: Here, name: _Name) -> None:
    """Forget a context. The files that it names stay.

    Example: colonies context rm lab
    """
    from colonies import contexts
    from colonies.errors import NotFound

    if not contexts.path_of(name).exists():
        known = ", ".join(contexts.names()) or "none"
        raise NotFound(f"there is no context {name!r} (known: {known})")
    contexts.remove(name)
    if here.output == Output.json:
        output.json_line({"name": name})
    else:
        output.line(name if here.output == Output.name else f"context {name} removed")


def _checked_url(url: str) -> str:
    from colonies.contexts import checked_url

    return checked_url(url, "--url")


def _object(context: Context) -> dict[str, Any]:
    """A context as JSON: `{name, url, creds, colony, keys, members, in_use}`; `colony` is its key."""
    from colonies import contexts
    from colonies.errors import ColoniesError

    try:
        colony = contexts.credential_of(context).colony
    except ColoniesError:
        colony = None
    return {
        "name": context.name or None,
        "url": context.url,
        "creds": context.creds,
        "colony": colony,
        "keys": context.keys,
        "members": context.members,
        "in_use": bool(context.name) and contexts.in_use() == context.name,
    }


def _show(here: Here, context: Context) -> None:
    shown = _object(context)
    if here.output == Output.json:
        output.json_line(shown)
    elif here.output == Output.name:
        output.line(context.name)
    else:
        for line in output.card(shown.items()):
            output.line(line)
