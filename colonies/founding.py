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
from colonies.core.colony import Colony
from colonies.core.events import Approved, Configured, Event, Genesis, Revoked, checked_reason
from colonies.core.members import SECOND, unix_s_of
from colonies.creds import Credential
from colonies.errors import Conflict, Invalid, NotFound
from colonies.jetstream import connect
from colonies.joining import Approval, ChangeRequest, JoinRequest, Request
from colonies.nkeys import KeyPair
from colonies.operator import ColonyKeys, OperatorKeys, OwnerKeys
from colonies.roles import role_named
from colonies.session import Session
from colonies.show import to_the_second

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


async def approve(
    session: Session, keys: OwnerKeys, request: Request, *, url: str, expires_s: int | None = None
) -> Approval:
    """Do what a request asks for, on the ledger first; then give the approval that goes back.

    `url` is where the member will find the broker. `expires_s` seconds from now the member ends by itself;
    None: it has no end, or, for a change of keys, the end that it had.

    Raises:
        Invalid: it cannot be approved; nothing was recorded. Refused: we are no owner.
    """
    await session.refresh()
    _check_keys(session.colony, keys)
    check_request(session.colony, request)
    end = await end_of(session, expires_s)
    event: Event
    match request:
        case JoinRequest(role=role, key=key):
            event = Approved(key, role, end)
        case ChangeRequest():
            event = request.event(end)
    try:
        await session.record_entity("member", request.name, event)
    except Conflict as error:
        raise Invalid(f"{error}; nothing was recorded") from None
    return approval_of(session, keys, request, url=url)


def approval_of(session: Session, keys: OwnerKeys, request: Request, *, url: str) -> Approval:
    """The approval of a request that the ledger has approved. Raises Invalid if it has not."""
    _check_keys(session.colony, keys)
    member = session.colony.members.get(request.name)
    if member is None or member.key != request.key or member.until is not None:
        raise Invalid(f"the key of this request is not that of a member {request.name}; approve it first")
    token = keys.mint(member.name, member.role, member.key, unix_s_of(member.expires))
    return Approval(token, url, session.colony.name)


def _check_keys(colony: Colony, keys: OwnerKeys) -> None:
    """Raise Invalid unless these are the keys of this colony: tokens made with them would be of no use."""
    if keys.account.public != colony.key:
        raise Invalid(
            f"the owner's keys here are those of the colony {keys.account.public}, this one is {colony.key}; "
            "name the context that belongs to it (--context)"
        )


async def end_of(session: Session, expires_s: int | None) -> int | None:
    """The Unix time (s) that lies `expires_s` seconds ahead by the broker's clock, which will decide."""
    return None if expires_s is None else -(-await session.ledger.now() // SECOND) + expires_s


def check_request(colony: Colony, request: Request) -> None:
    """Raise Invalid, saying what is wrong and what would be right, unless this can be approved."""
    if request.colony not in (None, colony.key):
        raise Invalid(
            f"this request is for the colony {request.colony}, this one is {colony.key} ({colony.name}); "
            "approve it there, or have it made anew for this one (--colony)"
        )
    member = colony.members.get(request.name)
    holder = colony.holders.get(request.key)
    if member is not None and holder == request.name:
        raise Invalid(
            f"this request was approved already, and {request.name} has the key; nothing was recorded. "
            "If the approval got lost, say --again"
        )
    if holder is not None:
        raise Invalid(
            f"the key of this request is that of {holder} already; a newcomer makes a key of its own with "
            "`colonies member request`"
        )
    match request:
        case JoinRequest() if member is not None:
            state = "is" if member.until is None else "was"
            raise Invalid(
                f"the name {request.name} is taken: {request.name} {state} a {member.role} since "
                f"{to_the_second(member.since_time)}, and names are never used again. Have another name "
                "asked for (--name), or, for another key of the same member, `colonies member rotate`"
            )
        case ChangeRequest() if member is None:
            raise Invalid(
                f"there is no member {request.name} whose key could be changed; `colonies member request`"
            )
        case ChangeRequest(former=former) if member is not None and member.key != former:
            raise Invalid(
                f"{request.name} has another key by now than the one that this request replaces; have it "
                "made anew, with the credential that is good now (`colonies member rotate`)"
            )


async def enrol(
    session: Session, keys: OwnerKeys, name: str, role: str, folder: Path, *, expires_s: int | None = None
) -> Path:
    """A member's credential file in `folder`: the one that is there, or a new member's.

    A new one ends `expires_s` seconds from now by itself, if given.

    The key is on disk before the ledger knows it, so that a crash in between loses nobody's name.
    """
    path = folder / f"{name}.creds"
    try:
        credential = Credential.read(path)
    except NotFound:
        key = KeyPair.new("user")
        token = keys.mint(name, role, key.public, await end_of(session, expires_s))
        credential = _first(path, Credential.of(token, key))
    member = session.colony.members.get(name)
    if member is not None and member.ended_by(await session.ledger.now()):
        how = "was revoked" if member.until is not None else "ended by itself"
        raise Conflict(f"{name} {how}, and names are never used again; take another name")
    if member is not None and member.key != credential.keypair.public:
        raise Conflict(f"{name} is a member already, with another key than {path} has; take another name")
    if member is not None and member.role != role:
        raise Conflict(f"{name} is a member already, as {member.role}; take another name")
    if member is None:
        approved = Approved(credential.keypair.public, role_named(role).name, credential.expires)
        try:
            await session.record_entity("member", name, approved)
        except Conflict:
            await session.refresh()
            if session.colony.holders.get(credential.keypair.public) != name:
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
    """All keys that were revoked or replaced, each with the time (Unix, s) up to which its tokens are void:
    the broker's form. What ends by itself is in the token."""
    return {
        held.key: (held.until_time or 0) // SECOND + 1
        for member in session.colony.members.values()
        for held in member.keys
        if held.until is not None
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
