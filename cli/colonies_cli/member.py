"""`colonies member`: who belongs to the colony."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, listing, options, output
from colonies_cli.command import Here, command, confirm, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from colonies.contexts import Context
    from colonies.core.members import Member
    from colonies.creds import Credential
    from colonies_cli.owner import Owner

app = group(
    "Say who belongs to the colony.\n\nTo join without sharing a key: request, approve, install."
    "\n\nExample: colonies member request --name w1 --role worker"
)

OPERATOR_WAIT_S = 2.0

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The member's name.", show_default=False)]
ROLE = typer.Option("--role", metavar="R", help="owner, user, worker, observer or service.")
EXPIRES = typer.Option(
    "--expires",
    metavar="DURATION",
    help="The member ends by itself after this time, such as 1h. Default: never.",
)


@command(app, "add")
async def add(
    here: Here,
    name: _Name,
    role: Annotated[str, ROLE],
    expires: Annotated[str | None, EXPIRES] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Where to put the credential. Default: with the others."),
    ] = None,
) -> None:
    """Make somebody a member.

    That is a new key, approved on the ledger, in a credential file. Whoever holds that file is the member:
    hand it over with care, or have the newcomer make the key (`colonies member request`). Needs the owner's
    keys.

    Example: colonies member add w1 --role worker --expires 12h --out w1.creds
    """
    from colonies import founding
    from colonies.core.names import member_name
    from colonies.files import expanded
    from colonies.roles import role_named
    from colonies.show import to_the_second
    from colonies_cli import owner

    member_name(name, "NAME")
    role_named(role)
    expires_s = seconds_of(expires)
    async with owner.owner_of(here, "adding a member") as found:
        if out is None:
            path = await founding.enrol(
                found.session, found.keys, name, role, found.members, expires_s=expires_s
            )
        else:
            path = await _add_into(found, name, role, expanded(out, "--out"), expires_s)
        member = found.session.colony.members[name]
        now = await found.session.ledger.now()
    if here.output == Output.json:
        output.json_line({**member_object(member, now), "creds": str(path)})
    elif here.output == Output.name:
        output.line(name)
    else:
        until = f" until {to_the_second(member.expires)}" if member.expires is not None else ""
        output.line(f"{name} has the role {role} in {found.session.colony.name}{until}; credential: {path}")


def seconds_of(expires: str | None) -> int | None:
    """What --expires says. Raises Invalid."""
    from colonies.core.units import duration_s

    return None if expires is None else duration_s(expires, "--expires")


async def _add_into(found: Owner, name: str, role: str, path: Path, expires_s: int | None) -> Path:
    """As `founding.enrol`, into a file of its own. The key is on disk before the ledger knows it."""
    from colonies import founding
    from colonies.core.events import Approved
    from colonies.errors import ColoniesError, Unavailable
    from colonies.roles import role_named

    end = await founding.end_of(found.session, expires_s)
    key = _draft(found, name, role, path, end)
    try:
        await found.session.record_entity("member", name, Approved(key, role_named(role).name, end))
    except Unavailable:
        exits.say(f"{path} may or may not be good: see `colonies member ls`")
        raise
    except ColoniesError:
        _remove(path)
        raise
    return path


def _draft(found: Owner, name: str, role: str, path: Path, end: int | None) -> str:
    """Write a new credential that is not good yet; its public key. Raises Invalid if there is a file."""
    from colonies.creds import Credential
    from colonies.errors import Invalid
    from colonies.nkeys import KeyPair

    if path.exists():
        raise Invalid(f"--out {path}: there is a file already; give another place")
    key = KeyPair.new("user")
    Credential.of(found.keys.mint(name, role, key.public, end), key).write(path)
    return key.public


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@command(app, "ls", past=True)
async def ls(here: Here) -> None:
    """List the members, also those that were revoked or have ended by themselves.

    UNTIL is when a member was revoked, or ends by itself.

    Example: colonies member ls -o json
    """
    async with here.session() as session:
        members = sorted(session.colony.members.values(), key=lambda member: member.since)
        now = await session.ledger.now()
    objects = [member_object(member, now) for member in members]
    listing.show(here, objects, ("NAME", "ROLE", "STATE", "SINCE", "UNTIL", "KEY"), _row, id="name")


def _row(member: dict[str, Any]) -> tuple[Any, ...]:
    return (
        member["name"],
        member["role"],
        member["state"],
        output.seconds(member["approved_at"]),
        output.seconds(member["revoked_at"] or member["expires_at"]),
        member["key"],
    )


@command(app, "revoke")
def revoke(
    here: Here,
    name: _Name,
    reason: options.Reason = "",
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
        confirm(f"Revoke {name}? It cannot be undone.", otherwise=f"revoking {name} cannot be undone")
    return _revoke(here, context, credential, name, reason)


async def _revoke(here: Here, context: Context, credential: Credential, name: str, reason: str) -> None:
    from colonies import founding
    from colonies.connection import session_of
    from colonies.creds import Credential
    from colonies.errors import ColoniesError
    from colonies_cli.owner import members_of

    async with session_of(context.url, credential) as session:
        await founding.revoke(session, name, reason)
        member = session.colony.members[name]
        now = await session.ledger.now()
    if here.output == Output.json:
        output.json_line(member_object(member, now))
    else:
        output.line(name if here.output == Output.name else f"{name} is revoked")
    try:
        gone = Credential.read(members_of(context) / f"{name}.creds")
    except ColoniesError:
        gone = None
    exits.say(
        await dropped(context, gone if gone is not None and gone.keypair.public == member.key else None)
    )


async def dropped(context: Context, credential: Credential | None) -> str:
    """Whether the broker still lets in who holds this credential, as far as can be told from here."""
    import asyncio
    import time

    from colonies import jetstream
    from colonies.errors import ColoniesError, Refused

    unknown = "the broker drops it as soon as the operator has seen this"
    if credential is None:
        return unknown
    which = f"{credential.name} with the key {credential.keypair.public[:8]}..."
    deadline = time.monotonic() + OPERATOR_WAIT_S
    while time.monotonic() < deadline:
        try:
            ledger = await jetstream.connect(context.url, credential)
        except Refused:
            return f"the broker no longer lets {which} in"
        except ColoniesError:
            return unknown
        await ledger.close()
        await asyncio.sleep(0.1)
    return (
        f"the broker still lets {which} in: no operator has acted yet; `colonies dev` runs it, or "
        "`colonies server start --only operator`"
    )


def member_object(member: Member, now: int) -> dict[str, Any]:
    """A member as JSON, at a ledger time (ns).

    `{name, role, key, state, approved_at, key_since, expires_at, revoked_at}`; the state is active, expired
    or revoked.
    """
    from colonies.show import rfc3339

    ended = "revoked" if member.until is not None else "expired"
    return {
        "name": member.name,
        "role": member.role,
        "key": member.key,
        "state": ended if member.ended_by(now) else "active",
        "approved_at": rfc3339(member.since_time),
        "key_since": rfc3339(member.keys[-1].since_time),
        "expires_at": rfc3339(member.expires) if member.expires is not None else None,
        "revoked_at": rfc3339(member.until_time) if member.until_time is not None else None,
    }
