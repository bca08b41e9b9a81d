"""Bearer tokens: whoever shows one over HTTP may read, for a while, what its member may read.

    <header>.<claims>.<signature>        each part base64url without padding, as in a JWT

    header     {"typ":"colonies-bearer","alg":"ed25519-nkey"}, these bytes and no others
    claims     aud, colony, sub (the member), key (its public key), iss (the key that signed), iat, exp, jti
    signature  by `iss`: of a byte that no text has, a word of what this is, the colony, both parts

Nobody keeps a list of them: a token is good as long as the ledger makes it so. `key` must still be its
member's key and `iss` that of the member or of an owner, none of them revoked, ended or changed. So a
change of keys or a revocation ends all tokens of a member, and nothing ends one of them alone but its time.

It lets nobody log in at the broker and is no event: NATS takes no such header, and what is signed begins with
0xFF, as no event, no NATS token and no challenge of a broker does. This module knows no HTTP and no clock.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import asdict, dataclass
from typing import Final

from colonies import nkeys
from colonies.core.colony import Colony
from colonies.core.members import SECOND, Member
from colonies.errors import Invalid, NotFound, Refused
from colonies.ids import new_id
from colonies.nkeys import KeyPair

MAX_TOKEN_CHARS: Final = 2_048
MAX_TOKEN_S: Final = 30 * 86_400
SKEW_S: Final = 60  # of what the one who signed took for the broker's clock

# What its bearer is told of a token that is not good. Only plain ASCII without quotes: it goes into a header.
GARBLED: Final = "that is no whole token of Colonies: it was cut or changed, or is something else"
FOREIGN: Final = "the token is for another colony"
EXPIRED: Final = "the token has expired; `colonies member token NAME` makes another"
ENDLESS: Final = "the token lasts longer than 30 days, or is of the future"
UNSIGNED: Final = "no member of this colony signed the token as it is"
REVOKED: Final = "the token's member was revoked"
OVER: Final = "the token's member was let in for a time that is over"
REKEYED: Final = "the token's member has another key by now; `colonies member token NAME` makes another"
UNMADE: Final = "who made the token is no owner any more, or has another key by now"

_HEADER: Final = '{"typ":"colonies-bearer","alg":"ed25519-nkey"}'
_AUDIENCE: Final = "colonies-http"
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


class NotGood(Refused):
    """A token that is not good. The message is not for strangers; `told` is what whoever shows it may hear.

    That is what the text says by itself, or, of one that a member's key did sign, what became of that key.
    Nobody learns from it who is a member, or what became of another.
    """

    def __init__(self, message: str, told: str) -> None:
        super().__init__(message)
        self.told = told


@dataclass(frozen=True, slots=True)
class Bearer:
    """What a token says. Times are Unix times in seconds; `jti` is the token's id."""

    colony: str
    sub: str
    key: str
    iss: str
    iat: int
    exp: int
    jti: str
    aud: str = _AUDIENCE

    def member_of(self, colony: Colony, now: int) -> Member:
        """The member that may read by this, as the ledger has it; `now` is ledger time (ns).

        The signature is not looked at. Raises NotGood.
        """
        if self.colony != colony.key or self.aud != _AUDIENCE:
            raise NotGood("it is for another colony, or for something else", FOREIGN)
        if not now < self.exp * SECOND:
            raise NotGood("it has expired", EXPIRED)
        if self.exp - self.iat > MAX_TOKEN_S or self.iat * SECOND > now + SKEW_S * SECOND:
            raise NotGood("it lasts too long, or is of the future", ENDLESS)
        try:
            member = _active(colony, self.sub, self.key, now)
            signer = _active(colony, colony.holders.get(self.iss, ""), self.iss, now)
            if signer.name != member.name and signer.role != "owner":
                raise Refused(f"{signer.name} cannot make tokens for {member.name}")
        except Refused as error:
            raise NotGood(str(error), self._became(colony, now)) from None
        return member

    def _became(self, colony: Colony, now: int) -> str:
        """What became of its member or its maker; told to nobody whose key did not sign it."""
        signer = colony.members.get(colony.holders.get(self.iss, ""))
        member = colony.members.get(self.sub)
        if signer is None or member is None or (signer is not member and signer.role != "owner"):
            return UNSIGNED
        if signer is not member and (signer.key != self.iss or signer.ended_by(now)):
            return UNMADE
        if member.until is not None:
            return REVOKED
        return OVER if member.ended_by(now) else REKEYED


def issue(colony: Colony, keypair: KeyPair, member: str, *, expires_s: int, now: int) -> tuple[str, Bearer]:
    """A token for a member, signed by it or by an owner; and what it says. `now` is ledger time (ns).

    Raises NotFound (no such member), Invalid (too long a time) or Refused (not for this key to say).
    """
    if not 1 <= expires_s <= MAX_TOKEN_S:
        raise Invalid(f"a token lasts 1 to {MAX_TOKEN_S} seconds, not {expires_s}")
    found = colony.members.get(member)
    if found is None:
        raise NotFound(f"there is no member {member} in the colony {colony.name}")
    iat = now // SECOND
    said = Bearer(colony.key, member, found.key, keypair.public, iat, iat + expires_s, new_id())
    said.member_of(colony, now)
    parts = f"{_segment(_HEADER.encode())}.{_segment(_json(said))}"
    return f"{parts}.{_segment(keypair.sign(_signed(colony.key, parts)))}", said


def admit(text: str, colony: Colony, now: int) -> Bearer:
    """What a token says, if it is good here and now (ledger time, ns).

    Raises NotGood whatever the text is. The arithmetic of a signature is done for members' keys only, also
    former ones.
    """
    try:
        said = read(text)
    except Invalid as error:
        raise NotGood(str(error), GARBLED) from None
    try:
        said.member_of(colony, now)
    except NotGood as error:
        if error.told in (FOREIGN, EXPIRED, ENDLESS) or _is_signed(text, said, colony):
            raise
        raise NotGood(str(error), UNSIGNED) from None
    if not _is_signed(text, said, colony):
        raise NotGood("its signature is not that of its issuer", UNSIGNED)
    return said


def _is_signed(text: str, said: Bearer, colony: Colony) -> bool:
    """Did its issuer sign it, with a key that a member has or had?"""
    if said.iss not in colony.holders:
        return False
    parts, _, signature = text.rpartition(".")
    try:
        return nkeys.verify(said.iss, _signed(colony.key, parts), _bytes(signature))
    except Invalid:
        return False


def read(text: str) -> Bearer:
    """What a token says, whoever signed it. Raises Invalid."""
    if len(text) > MAX_TOKEN_CHARS or not _FORM.fullmatch(text):
        raise Invalid(f"a token is three parts joined by dots, at most {MAX_TOKEN_CHARS} characters")
    header, claims, _ = text.split(".")
    if _bytes(header) != _HEADER.encode():
        raise Invalid("its header is not that of a token of ours")
    try:
        said = json.loads(_bytes(claims))
    except (ValueError, RecursionError):
        raise Invalid("its claims are not JSON") from None
    kinds = Bearer.__dataclass_fields__
    if not isinstance(said, dict) or said.keys() != kinds.keys():
        raise Invalid("its claims are not those of a token of ours")
    for name, value in said.items():
        if type(value) is not (int if name in ("iat", "exp") else str):
            raise Invalid(f"its {name} is of the wrong kind")
    return Bearer(**said)


def _active(colony: Colony, name: str, key: str, now: int) -> Member:
    member = colony.members.get(name)
    if member is None or member.key != key or member.ended_by(now):
        raise Refused(f"{name or 'who signed it'} is no member with this key (any more)")
    return member


def _signed(colony: str, parts: str) -> bytes:
    """What is signed; see `codec.consent_to` for its first byte."""
    return b"\xff" + f"colonies/1:{colony}:bearer:{parts}\n".encode()


def _json(said: Bearer) -> bytes:
    return json.dumps(asdict(said), separators=(",", ":")).encode()


def _segment(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def _bytes(segment: str) -> bytes:
    """One value has one spelling. Raises Invalid."""
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise Invalid("a part of it is not base64url") from None
    if _segment(raw) != segment:
        raise Invalid("a part of it is not canonical base64url")
    return raw
