"""What travels when somebody joins a colony or changes a key: a request there, an approval back.

    newcomer                                     owner
    makes a key, keeps it, signs a request  ──>  checks it, says `approved` or `rotated` on the ledger
    puts token and key together             <──  gives the approval: a token, and where the colony is

Both are small JSON texts without any secret, so they may go by mail. The key never leaves the machine that
made it: it waits there, in a file of mode 0600, for the approval. A request is signed by the new key (one to
change a key also by the former), so nobody alters it; whose it is, is for the owner to know.

This module never asks a ledger: whether a name is free says `colonies.founding`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from colonies import codec, contexts, jwt
from colonies.core.events import Rotated
from colonies.core.names import member_name, name, shown
from colonies.creds import Credential, read_secret, write_secret
from colonies.errors import Invalid, NotFound
from colonies.nkeys import KeyPair, Kind, kind_of, verify
from colonies.roles import RoleName, role_named

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Somebody asks to be `name` with this key. `colony` is the account key, None if it was not known."""

    name: str
    role: RoleName
    key: str
    colony: str | None
    signature: bytes

    @classmethod
    def of(cls, name: str, role: str, key: KeyPair, colony: str | None) -> JoinRequest:
        """A request, signed. Raises Invalid for a bad name, role or colony."""
        known = role_named(role).name
        checked = member_name(name, "--name")
        if colony is not None:
            _key(colony, "account", "--colony")
        return cls(checked, known, key.public, colony, key.sign(_joining(checked, known, key.public, colony)))

    @property
    def genuine(self) -> bool:
        """Is it as its key signed it?"""
        return verify(self.key, _joining(self.name, self.role, self.key, self.colony), self.signature)

    def text(self) -> str:
        return _text(
            {
                "colonies": "request to join",
                "name": self.name,
                "role": self.role,
                "key": self.key,
                "colony": self.colony,
                "signature": _base64(self.signature),
            }
        )


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """The member `name` asks to have `key` in the place of `former`; both signed `codec.consent_to`."""

    name: str
    former: str
    key: str
    colony: str
    consent: bytes
    former_consent: bytes

    @classmethod
    def of(cls, credential: Credential, key: KeyPair) -> ChangeRequest:
        """The request of whoever holds this credential, signed by both keys."""
        former = credential.keypair
        statement = codec.consent_to(credential.colony, credential.name, former.public, key.public)
        return cls(
            credential.name,
            former.public,
            key.public,
            credential.colony,
            key.sign(statement),
            former.sign(statement),
        )

    @property
    def genuine(self) -> bool:
        """Is it as both keys signed it?"""
        return codec.agreed(self.colony, self.name, self.event())

    def event(self, expires_unix_s: int | None = None) -> Rotated:
        """The event that it asks for."""
        return Rotated(self.key, self.former, self.consent, self.former_consent, expires_unix_s)

    def text(self) -> str:
        return _text(
            {
                "colonies": "request to change a key",
                "name": self.name,
                "former": self.former,
                "key": self.key,
                "colony": self.colony,
                "signature": _base64(self.consent),
                "former_signature": _base64(self.former_consent),
            }
        )


Request = JoinRequest | ChangeRequest


@dataclass(frozen=True, slots=True)
class Approval:
    """What an owner gives back: the token of the member's key, where the colony is, and what it is called."""

    token: str
    url: str
    colony_name: str

    @property
    def key(self) -> str:
        """The member's public key."""
        return str(jwt.decode(self.token)["sub"])

    def credential(self, key: KeyPair) -> Credential:
        """The credential that token and key make. Raises Invalid if they do not belong together."""
        return Credential.of(self.token, key)

    def text(self) -> str:
        claims = jwt.decode(self.token)
        return _text(
            {
                "colonies": "approval",
                "name": claims["name"],
                "colony_name": self.colony_name,
                "url": self.url,
                "token": self.token,
            }
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """A key that waits on this machine for its approval. `creds`: the file to replace, for a changed key."""

    request: Request
    key: KeyPair
    creds: Path | None = None

    def keep(self) -> Path:
        """Put it on disk, mode 0600."""
        path = _place(self.key.public)
        held = {
            "seed": self.key.seed,
            "request": self.request.text(),
            "creds": str(self.creds) if self.creds else None,
        }
        write_secret(path, json.dumps(held) + "\n")
        return path

    def forget(self) -> None:
        """It is done with: the key is in a credential now."""
        _place(self.key.public).unlink(missing_ok=True)

    @classmethod
    def find(cls, key: str) -> Pending:
        """The one that waits with this public key. Raises NotFound, Invalid."""
        path = _place(key)
        try:
            held = json.loads(read_secret(path, "key"))
            creds = Path(held["creds"]) if held["creds"] is not None else None
            return cls(parse_request(held["request"]), KeyPair.from_seed(held["seed"]), creds)
        except NotFound:
            raise NotFound(
                f"no key waits for this approval: there is no {path}. It is installed already, or the "
                "request was made on another machine, by another user, or with another COLONIES_DATA_DIR"
            ) from None
        except (Invalid, ValueError, KeyError, TypeError):
            raise Invalid(f"{path} is damaged; ask again with `colonies member request`") from None


def read_request(path: Path) -> Request:
    """The request in a file. Raises NotFound, or Invalid naming the file and what is wrong with it."""
    return _read(path, "request", parse_request)


def read_approval(path: Path) -> Approval:
    """The approval in a file. Raises as `read_request`."""
    return _read(path, "approval", parse_approval)


def parse_request(text: str) -> Request:
    """A request taken apart, its signatures checked. Raises Invalid, and nothing else, whatever the text."""
    fields = _fields(text)
    found: Request
    match fields.get("colonies"):
        case "request to join":
            found = _join(fields)
        case "request to change a key":
            found = _change(fields)
        case _:
            raise Invalid(
                "it is no request to join a colony or to change a key; `colonies member request` makes one"
            )
    if not found.genuine:
        raise Invalid("it was altered after it was signed; have it sent again, as it was made")
    return found


def _join(fields: dict[str, Any]) -> JoinRequest:
    _expect(fields, ("name", "role", "key", "signature"), ("colony",))
    return JoinRequest(
        member_name(fields["name"], "name"),
        role_named(fields["role"]).name,
        _key(fields["key"], "user", "key"),
        None if fields["colony"] is None else _key(fields["colony"], "account", "colony"),
        _signature(fields["signature"]),
    )


def _change(fields: dict[str, Any]) -> ChangeRequest:
    _expect(fields, ("name", "former", "key", "colony", "signature", "former_signature"))
    return ChangeRequest(
        member_name(fields["name"], "name"),
        _key(fields["former"], "user", "former"),
        _key(fields["key"], "user", "key"),
        _key(fields["colony"], "account", "colony"),
        _signature(fields["signature"]),
        _signature(fields["former_signature"]),
    )


def parse_approval(text: str) -> Approval:
    """An approval taken apart. Raises Invalid, and nothing else, whatever the text."""
    fields = _fields(text)
    if fields.get("colonies") != "approval":
        raise Invalid("it is no approval; `colonies member approve` makes one")
    _expect(fields, ("name", "colony_name", "url", "token"))
    claims = jwt.decode(fields["token"])
    if claims["nats"]["type"] != "user" or claims["name"] != fields["name"]:
        raise Invalid("it was altered: its token is not that of the member that it names; ask for it again")
    return Approval(
        fields["token"],
        contexts.checked_url(fields["url"], "url"),
        name(fields["colony_name"], "colony_name"),
    )


def _joining(name: str, role: str, key: str, colony: str | None) -> bytes:
    """What a newcomer signs. Its first byte keeps it apart from all else: see `codec.consent_to`."""
    return b"\xff" + f"colonies/{codec.VERSION}:{colony or ''}:join:{name}:{role}:{key}\n".encode()


def _read(path: Path, what: str, parse: Callable[[str], _T]) -> _T:
    text = read_secret(path, what)
    try:
        return parse(text)
    except Invalid as error:
        raise Invalid(f"{path}: {error}") from None


def _fields(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise Invalid("it is not JSON; it was cut or altered: have it sent again") from None
    if not isinstance(found, dict):
        raise Invalid("it is no JSON object; it was cut or altered: have it sent again")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _expect(fields: Mapping[str, Any], texts: Sequence[str], maybe: Sequence[str] = ()) -> None:
    """Raise Invalid unless these fields, and no other, are there: text, those in `maybe` text or null."""
    if unknown := sorted(fields.keys() - {"colonies", *texts, *maybe}):
        raise Invalid(
            f"it has the unknown field {shown(unknown[0])}; it was altered, or made by a later version"
        )
    for field in (*texts, *maybe):
        value = fields.get(field, ...)
        if not isinstance(value, str) and not (value is None and field in maybe):
            raise Invalid(f"it lacks {field!r} as text; it was cut or altered: have it sent again")


def _key(public: str, kind: Kind, where: str) -> str:
    if kind_of(public) != kind:
        raise Invalid(f"{where}: {public} is no {kind}'s key (they start with {kind[0].upper()})")
    return public


def _signature(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("its signature is not base64; it was altered: have it sent again") from None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _text(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, indent=2) + "\n"


def _place(key: str) -> Path:
    return contexts.data_folder() / "requests" / f"{key}.json"
