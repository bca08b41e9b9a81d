"""`colonies member`: who belongs to the colony."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, output
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from colonies.contexts import Context
    from colonies.core.colony import Member
    from colonies.creds import Credential
    from colonies_cli.owner import Owner

app = group("Say who belongs to the colony.\n\nExample: colonies member add ann --role user --out ann.creds")

OPERATOR_WAIT_S = 2.0

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The member's name.", show_default=False)]


@command(app, "add")
async def add(
    here: Here,
    name: _Name,
    role: Annotated[
        str, typer.Option("--role", metavar="R", help="owner, user, worker, observer or service.")
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Where to put the credential. Default: with the others."),
    ] = None,
) -> None:
    """Make somebody a member.

    That is a new key, approved on the ledger, in a credential file. Whoever holds that file is the member:
    hand it over with care. Needs the owner's keys.

    Example: colonies member add w1 --role worker --out w1.creds
    """
    from colonies import founding
    from colonies.core.names import member_name
    from colonies.files import expanded
    from colonies.roles import role_named
    from colonies_cli import owner

    member_name(name, "NAME")
    role_named(role)
    async with owner.owner_of(here, "adding a member") as found:
        if out is None:
            path = await founding.enrol(found.session, found.keys, name, role, found.members)
        else:
            path = await _add_into(found, name, role, expanded(out, "--out"))
        member = found.session.colony.members[name]
    if here.output == Output.json:
        output.json_line({**_object(member), "creds": str(path)})
    elif here.output == Output.name:
        output.line(name)
    else:
        output.line(f"{name} is a {role} of {found.session.colony.name}; credential: {path}")


async def _add_into(found: Owner, name: str, role: str, path: Path) -> Path:
    """As `founding.enrol`, into a file of its own. The key is on disk before the ledger knows it."""
    from colonies.core.events import Approved
    from colonies.errors import ColoniesError, Unavailable
    from colonies.roles import role_named

    key = _draft(found, name, role, path)
    try:
        await found.session.record_entity("member", name, Approved(key, role_named(role).name))
    except Unavailable:
        exits.say(f"{path} may or may not be good: see `colonies member ls`")
        raise
    except ColoniesError:
        _remove(path)
        raise
    return path


def _draft(found: Owner, name: str, role: str, path: Path) -> str:
    """Write a new credential that is not good yet; its public key. Raises Invalid if there is a file."""
    from colonies.creds import Credential
    from colonies.errors import Invalid
    from colonies.nkeys import KeyPair

    if path.exists():
        raise Invalid(f"--out {path}: there is a file already; give another place")
    key = KeyPair.new("user")
    Credential.of(found.keys.mint(name, role, key.public), key).write(path)
    return key.public


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@command(app, "ls")
async def ls(here: Here) -> None:
    """List the members, revoked ones too.

    Example: colonies member ls -o json
    """
    async with here.session() as session:
        members = sorted(session.colony.members.values(), key=lambda member: member.since)
    objects = [_object(member) for member in members]
    if here.output == Output.table:
        output.table(
            ("NAME", "ROLE", "STATE", "APPROVED", "REVOKED", "KEY"),
            (
                (
                    member["name"],
                    member["role"],
                    member["state"],
                    output.seconds(member["approved_at"]),
                    output.seconds(member["revoked_at"]),
                    member["key"],
                )
                for member in objects
            ),
        )
        return
    for member in objects:
        output.line(member["name"]) if here.output == Output.name else output.json_line(member)


@command(app, "revoke")
def revoke(
    here: Here,
    name: _Name,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept on the ledger.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Coroutine[Any, Any, None]:
    """End a membership, for ever.

    What the member says from now on is not valid, and its name is used up. The ledger says so first; then
    the operator has the broker drop the member's connections.

    Example: colonies member revoke w1 --reason "laptop lost" --yes
    """
    from colonies.core.events import checked_reason
    from colonies.core.names import member_name
    from colonies_cli import owner

    member_name(name, "NAME")
    checked_reason(reason, "--reason")
    context = owner.context_of(here)
    credential = owner.owner_credential(context)
    if not yes:
        _confirm(name)
    return _revoke(here, context, credential, name, reason)


async def _revoke(here: Here, context: Context, credential: Credential, name: str, reason: str) -> None:
    from colonies import founding
    from colonies_cli import owner

    async with owner.session_of(context, credential) as session:
        await founding.revoke(session, name, reason)
        member = session.colony.members[name]
    if here.output == Output.json:
        output.json_line(_object(member))
    else:
        output.line(name if here.output == Output.name else f"{name} is revoked")
    exits.say(await _dropped(context, member))


def _confirm(name: str) -> None:
    from colonies.errors import Invalid

    if sys.stdin is None or not sys.stdin.isatty():
        raise Invalid(f"revoking {name} cannot be undone; say --yes")
    try:
        agreed = typer.confirm(f"Revoke {name}? It cannot be undone.", err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if not agreed:
        exits.say("nothing was done")
        raise exits.Ended(exits.FAILED)


async def _dropped(context: Context, member: Member) -> str:
    """Whether the broker still lets the member in, as far as can be told from here."""
    import asyncio
    import time

    from colonies import jetstream
    from colonies.creds import Credential
    from colonies.errors import ColoniesError, Refused
    from colonies_cli.owner import members_of

    unknown = "the broker drops it as soon as the operator has seen this"
    try:
        credential = Credential.read(members_of(context) / f"{member.name}.creds")
    except ColoniesError:
        return unknown
    if credential.keypair.public != member.key:
        return unknown
    deadline = time.monotonic() + OPERATOR_WAIT_S
    while time.monotonic() < deadline:
        try:
            ledger = await jetstream.connect(context.url, credential)
        except Refused:
            return f"the broker no longer lets {member.name} in"
        except ColoniesError:
            return unknown
        await ledger.close()
        await asyncio.sleep(0.1)
    return (
        f"the broker still lets {member.name} in: no operator has acted yet; `colonies dev` runs it, or "
        "`colonies server start --only operator`"
    )


def _object(member: Member) -> dict[str, Any]:
    """A member as JSON: `{name, role, key, state, approved_at, revoked_at}`."""
    from colonies.show import rfc3339

    return {
        "name": member.name,
        "role": member.role,
        "key": member.key,
        "state": "active" if member.until is None else "revoked",
        "approved_at": rfc3339(member.since_time),
        "revoked_at": rfc3339(member.until_time) if member.until_time is not None else None,
    }
