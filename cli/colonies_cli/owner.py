"""What only an owner can do from here: who holds the owner's keys makes and ends members."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from colonies import contexts
from colonies.connection import session_of
from colonies.contexts import Context
from colonies.creds import Credential
from colonies.errors import ColoniesError, Refused
from colonies.files import expanded
from colonies.operator import OwnerKeys
from colonies.session import Session
from colonies_cli.command import Here


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner's session, the owner's keys, and the folder in which members' credentials are kept."""

    session: Session
    keys: OwnerKeys
    members: Path


def context_of(here: Here) -> Context:
    """The context that the options mean. Raises NotFound, Invalid."""
    return contexts.resolve(here.context, here.url, here.creds)


def members_of(context: Context) -> Path:
    """Where members' credentials are kept: the context's folder for them, else beside its own credential."""
    if context.members is not None:
        return expanded(context.members)
    return expanded(context.creds).parent


def owner_credential(context: Context) -> Credential:
    """An owner's credential: the context's or, where it names the owner's keys, one kept with the members'.

    Raises Refused: nobody acts as owner only because an owner's file lies about.
    """
    own = contexts.credential_of(context)
    if own.role == "owner":
        return own
    for path in sorted(members_of(context).glob("*.creds")) if context.keys is not None else ():
        try:
            found = Credential.read(path)
        except ColoniesError:
            continue
        if found.role == "owner" and found.colony == own.colony:
            return found
    raise Refused(f"{own.name} is no owner; ask the owner of the colony, or give the owner's --creds")


def own_or_owner(context: Context, name: str) -> Credential:
    """The credential of this member, if the context has it, else an owner's. Raises Refused."""
    own = contexts.credential_of(context)
    if own.name == name:
        return own
    try:
        return owner_credential(context)
    except Refused:
        raise Refused(
            f"this is the credential of {own.name}, which is no owner; give the --creds of {name}, or "
            "an owner's"
        ) from None


def owner_keys(context: Context, doing: str) -> OwnerKeys:
    """The owner's keys that the context names. Raises Refused, saying what needs them."""
    if context.imported is not None:
        contexts.credential_of(context)
    if context.keys is None:
        place = f"the context {context.name}" if context.name else "this command line"
        raise Refused(
            f"{doing} needs the owner's keys, and {place} names none; run it where they are kept, or add "
            "them with `colonies context add NAME --url URL --creds FILE --keys FOLDER`"
        )
    return OwnerKeys.open(expanded(context.keys))


@asynccontextmanager
async def owner_of(here: Here, doing: str) -> AsyncIterator[Owner]:
    """The owner, logged in, with the keys. Raises Refused where this context does not hold them."""
    context = context_of(here)
    keys = owner_keys(context, doing)
    async with session_of(context.url, owner_credential(context)) as session:
        yield Owner(session, keys, members_of(context))
