"""How a colony comes to be, and how it gets and loses members.

Ledger first, token second, for both: `found` makes streams and genesis, `approve` and `revoke` speak on the
ledger before any credential is good or void. Everything may be repeated after a crash at any point.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import structlog

from colonies import streams
from colonies.core.events import Approved, Configured, Genesis, Revoked, Role, checked_reason
from colonies.creds import Credential
from colonies.errors import Conflict, Invalid, NotFound
from colonies.jetstream import connect
from colonies.nkeys import KeyPair
from colonies.operator import ColonyKeys, OperatorKeys, OwnerKeys
from colonies.roles import role_named
from colonies.session import Session

DEFAULT_LEASE_S = 10.0

_log = structlog.get_logger("colonies.founding")


async def found(
    url: str,
    keys: OwnerKeys,
    owner: Credential,
    *,
    name: str,
    lease_s: float | None = None,
    replicas: int = 1,
) -> None:
    """Make the colony's streams and its genesis, if they are not there.

    `lease_s` None: 10 s for a new colony, and an old one keeps its own; else its lease becomes this one.
    """
    await streams.create(url, keys.admin_credential(), replicas=replicas)
    ledger = await connect(url, owner)
    session = Session(ledger, owner.name, owner.keypair)
    try:
        await session.open()
        if not session.colony.name:
            genesis = Genesis(
                name, owner.name, owner.keypair.public, dict(keys.public().roles), lease_s or DEFAULT_LEASE_S
            )
            founding = Session(ledger, owner.name, keys.account)
            await founding.record_genesis(genesis)
            await session.refresh()
        if lease_s is not None and session.colony.lease_s != lease_s:
            await session.record_entity("colony", "", Configured(lease_s))
    finally:
        await session.close()
        await ledger.close()


async def approve(session: Session, keys: OwnerKeys, name: str, role: str, key: KeyPair) -> Credential:
    """Make a key a member, on the ledger first, and give its credential.

    Raises:
        Invalid: a bad name or role. Conflict: the name or the key is taken. Refused: we are no owner.
    """
    known: Role = role_named(role).name
    token = keys.mint(name, known, key.public)
    await session.record_entity("member", name, Approved(key.public, known))
    return Credential.of(token, key)


async def enrol(session: Session, keys: OwnerKeys, name: str, role: str, folder: Path) -> Path:
    """A member's credential file in `folder`: the one that is there, or a new member's.

    The key is on disk before the ledger knows it, so that a crash in between loses nobody's name.
    """
    path = folder / f"{name}.creds"
    try:
        credential = Credential.read(path)
    except NotFound:
        key = KeyPair.new("user")
        draft = Credential.of(keys.mint(name, role, key.public), key)
        credential = _first(path, draft)
    member = session.colony.members.get(name)
    if member is not None and member.until is not None:
        raise Conflict(f"{name} was revoked, and names are never used again; take another name")
    if member is not None and member.key != credential.keypair.public:
        raise Conflict(f"{name} is a member already, with another key than {path} has; take another name")
    if member is not None and member.role != role:
        raise Conflict(f"{name} is a member already, as {member.role}; take another name")
    if member is None:
        try:
            await session.record_entity(
                "member", name, Approved(credential.keypair.public, role_named(role).name)
            )
        except Conflict:
            await session.refresh()
            if (
                name not in session.colony.members
                or session.colony.members[name].key != credential.keypair.public
            ):
                raise
    return path


def _first(path: Path, draft: Credential) -> Credential:
    """Put the file there unless somebody else just did; whichever is there counts."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    draft.write(temporary)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return Credential.read(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return draft


async def revoke(session: Session, name: str, reason: str = "") -> int:
    """End a membership on the ledger; the operator voids the token. Returns the event's sequence."""
    checked_reason(reason)
    if name not in session.colony.members:
        await session.refresh()
    if name not in session.colony.members:
        raise NotFound(f"there is no member {name} in the colony {session.colony.name}")
    return await session.record_entity("member", name, Revoked(reason))


def revocations_of(session: Session) -> dict[str, int]:
    """All revoked keys, each with the time (Unix, s) up to which its tokens are void: the broker's form."""
    return {
        member.key: (member.until_time or 0) // 1_000_000_000 + 1
        for member in session.colony.members.values()
        if member.until is not None
    }


class Operator:
    """Follows the ledger's revocations and has the broker void those members' tokens.

    It holds the operator's keys and reads as an ordinary member; that the owner signed a `revoked` event is
    its order. The colony's public keys are in its genesis.
    """

    def __init__(self, session: Session, keys: OperatorKeys, url: str) -> None:
        self.session = session
        self._keys = keys
        self._url = url
        self._pushed: dict[str, int] | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.push()
            except Exception as error:
                if isinstance(error, Invalid):
                    raise
                _log.debug("revocations not pushed", error=str(error))
                await asyncio.sleep(0.5)
                continue
            await self.session.changed.wait()
            self.session.changed.clear()

    async def push(self) -> None:
        """Bring the broker's list of revoked keys up to the ledger's."""
        wanted = revocations_of(self.session)
        colony = ColonyKeys(self.session.colony.key, self.session.colony.roles)
        if wanted != self._pushed:
            await self._keys.push_account(self._url, self._keys.account_jwt(colony, wanted))
            self._pushed = wanted
            if wanted:
                _log.info("revocations pushed", keys=len(wanted))
