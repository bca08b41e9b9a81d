"""Changing a member's key in one step, where the credential and the owner's keys are on one machine.

    w1.creds       holds the key that counts
    w1.creds.new   the next one, on disk before the ledger knows it; takes the place of the other when it does

Killed at any point, it is just done again: whatever the ledger says by then decides which file is good.
Elsewhere the change is asked for and approved: `colonies.joining`.
"""

from __future__ import annotations

from pathlib import Path

from colonies.connection import session_of
from colonies.core.members import unix_s_of
from colonies.creds import Credential, sync_folder
from colonies.errors import ColoniesError, Conflict, Invalid, NotFound
from colonies.joining import ChangeRequest
from colonies.nkeys import KeyPair
from colonies.operator import OwnerKeys
from colonies.session import Session


async def rotate(session: Session, keys: OwnerKeys, url: str, path: Path) -> Credential:
    """Give the member whose credential is in `path` another key. `session` is an owner's, maybe its own.

    Returns the new credential, which is in `path` by then.

    Raises:
        Invalid: it is no member any more, or that file's key is not its key. Refused: we are no owner.
    """
    former = Credential.read(path)
    await session.refresh()
    fresh = _draft(session, keys, former, path)
    if session.colony.holders.get(fresh.keypair.public) != former.name:
        request = ChangeRequest.of(former, fresh.keypair)
        try:
            await session.record_entity("member", former.name, request.event())
        except ColoniesError as error:
            # An owner that changes its own key is dropped by the broker as soon as it has said so.
            if not await _holds(url, fresh):
                if isinstance(error, Conflict):
                    raise Invalid(f"{error}; nothing was recorded") from None
                raise
    _beside(path).replace(path)
    sync_folder(path.parent)
    return fresh


def _draft(session: Session, keys: OwnerKeys, former: Credential, path: Path) -> Credential:
    """The next credential, on disk: a new one, or the one that a killed run left there."""
    member = session.colony.members.get(former.name)
    if member is None or member.until is not None:
        raise Invalid(f"{former.name} is no member of the colony {session.colony.name} (any more)")
    try:
        left = Credential.read(_beside(path))
        if left.name == former.name and left.colony == former.colony:
            return left
    except (NotFound, Invalid):
        pass
    key = KeyPair.new("user")
    token = keys.mint(member.name, member.role, key.public, unix_s_of(member.expires))
    fresh = Credential.of(token, key)
    fresh.write(_beside(path))
    return fresh


async def _holds(url: str, credential: Credential) -> bool:
    """Is this key its member's by now? Raises Unavailable if the broker does not answer."""
    async with session_of(url, credential) as session:
        return session.colony.holders.get(credential.keypair.public) == credential.name


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")
