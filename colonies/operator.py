"""The keys of the authorities: the operator's half, the owner's half, and what each signs with them.

    <folder>/operator/operator.nk   signs account tokens: which colonies there are, whose members are revoked
                      system.nk     the system account, over which account tokens reach the broker
                      system.creds  a user of it
    <folder>/owner/account.nk       the colony itself: trust starts at this key
                   roles/<role>.nk  one scoped signing key per role: signs the tokens of its members

The halves know nothing of each other's secrets: an owner gives the operator public keys (`OwnerKeys.public`),
nothing else, and either folder works alone on a machine of its own. `.nk` files hold an nkey seed, mode 0600.

This module never decides who may become a member: that is the ledger's, which speaks first; tokens follow.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colonies import jwt
from colonies.core.names import member_name
from colonies.creds import Credential, read_secret, sync_folder, write_secret
from colonies.errand import errand
from colonies.errors import Invalid, Refused, Unavailable
from colonies.nkeys import KeyPair, Kind, kind_of
from colonies.roles import API, CLOSED, GATE, ROLES, RoleName, gate_mappings, role_named, template

ADMIN_SECONDS = 120  # how long the unrestricted credential for setting up a colony is good
PUSH_SECONDS = 5.0  # how long handing an account's token to the broker may take
ABANDONED_SECONDS = 60.0  # a half-built folder this old belongs to a creation that was killed

ADMIN_NAME = "bootstrap"
SYSTEM_NAME = "system"

_PUSH_SUBJECT = "$SYS.REQ.CLAIMS.UPDATE"


@dataclass(frozen=True, slots=True)
class ColonyKeys:
    """What an operator must know of a colony: the public keys of its account and of its role signing keys."""

    account: str
    roles: Mapping[RoleName, str]


class OperatorKeys:
    """The operator's half. Signs account tokens and hands them to the broker."""

    def __init__(self, operator: KeyPair, system: KeyPair, system_user: Credential) -> None:
        self._operator = operator
        self._system = system
        self._system_user = system_user

    @classmethod
    def create(cls, folder: Path) -> OperatorKeys:
        """Makes the keys and their folder, whole or not at all. Raises Invalid if the folder exists."""
        _build(folder, cls._write)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> OperatorKeys:
        """Reads the keys. Raises NotFound or Invalid, naming the file."""
        return cls(
            _read_key(folder / "operator.nk", "operator"),
            _read_key(folder / "system.nk", "account"),
            Credential.read(folder / "system.creds"),
        )

    @staticmethod
    def _write(folder: Path) -> None:
        system, user = KeyPair.new("account"), KeyPair.new("user")
        claims = jwt.user_claims(
            subject=user.public, name=SYSTEM_NAME, issuer_account=system.public, scoped=False
        )
        _write_key(folder / "operator.nk", KeyPair.new("operator"))
        _write_key(folder / "system.nk", system)
        Credential.of(jwt.encode(claims, system), user).write(folder / "system.creds")

    @property
    def system_account(self) -> str:
        """The public key of the system account."""
        return self._system.public

    def operator_jwt(self) -> str:
        """The operator's own token, for the broker's config."""
        claims = jwt.operator_claims(
            subject=self._operator.public, name="colonies", system_account=self._system.public
        )
        return jwt.encode(claims, self._operator)

    def system_jwt(self) -> str:
        """The system account's token, for the broker's config."""
        claims = jwt.account_claims(
            subject=self._system.public,
            name="SYS",
            jetstream=False,
            exports=[{"name": "closed", "subject": f"{CLOSED}.>", "type": "service"}],
        )
        return jwt.encode(claims, self._operator)

    def account_jwt(self, colony: ColonyKeys, revocations: Mapping[str, int] | None = None) -> str:
        """The token of a colony's account.

        It must name *all* revocations, not the new ones: each maps a user's public key to a Unix time in
        seconds, up to which its tokens are void. Raises Invalid for a broken key.
        """
        claims = jwt.account_claims(
            subject=colony.account,
            name=colony.account,
            signing_keys=[
                jwt.scope(key=key, role=role, template=template(role)) for role, key in colony.roles.items()
            ],
            revocations=revocations,
            imports=[self._api(at=GATE, to=API), self._api(at=API, to=CLOSED)],
            mappings=gate_mappings(),
        )
        return jwt.encode(claims, self._operator)

    def _api(self, *, at: str, to: str) -> dict[str, Any]:
        """What a colony's account has of the system account's `to`, and where; see `colonies.roles`.

        An import of its own at API is what keeps the broker from adding the one that it gives every account.
        """
        return {
            "name": to,
            "subject": f"{to}.>",
            "account": self._system.public,
            "local_subject": f"{at}.>",
            "type": "service",
            "share": True,  # JetStream must know who asks
        }

    async def push_account(self, url: str, account_jwt: str) -> None:
        """Hands an account's token to the broker at `url`; it takes effect on live connections at once.

        Raises Invalid for what is no account's token, Refused if the broker will not have it, Unavailable if
        it does not answer (the token may have arrived: push it again).
        """
        claims = jwt.decode(account_jwt)
        if claims["nats"]["type"] != "account":
            raise Invalid("only the token of an account can be pushed")
        if claims["iss"] != self._operator.public:  # the broker would store it and then let no member in
            raise Invalid(f"this account's token is signed by {claims['iss']}, not by this operator")
        async with errand(url, self._system_user, wait_s=PUSH_SECONDS) as ask:
            answer = await ask(_PUSH_SUBJECT, account_jwt.encode("ascii"))
        _check_answer(answer)


class OwnerKeys:
    """The owner's half. Signs the tokens of members."""

    def __init__(self, account: KeyPair, roles: Mapping[RoleName, KeyPair]) -> None:
        self._account = account
        self._roles = dict(roles)

    @classmethod
    def create(cls, folder: Path) -> OwnerKeys:
        """Makes the keys and their folder, whole or not at all. Raises Invalid if the folder exists."""
        _build(folder, cls._write)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> OwnerKeys:
        """Reads the keys. Raises NotFound or Invalid, naming the file."""
        roles = {role: _read_key(_role_file(folder, role), "account") for role in ROLES}
        return cls(_read_key(folder / "account.nk", "account"), roles)

    @staticmethod
    def _write(folder: Path) -> None:
        _write_key(folder / "account.nk", KeyPair.new("account"))
        for role in ROLES:
            _write_key(_role_file(folder, role), KeyPair.new("account"))

    @property
    def account(self) -> KeyPair:
        """The colony's own key: signs `genesis`."""
        return self._account

    def public(self) -> ColonyKeys:
        """What the operator, and `genesis`, need to know."""
        return ColonyKeys(self._account.public, {role: key.public for role, key in self._roles.items()})

    def mint(self, name: str, role: str, public_user_key: str, expires: int | None = None) -> str:
        """The token that makes a key a member of that name and role, for the broker.

        `expires` is a Unix time in seconds. The ledger is not asked: whether the name is free, and the key
        approved, must be settled before. Raises Invalid for a bad name, role or key.
        """
        known = role_named(role)
        claims = jwt.user_claims(
            subject=public_user_key,
            name=member_name(name, "name"),
            issuer_account=self._account.public,
            expires=expires,
            tags=[f"role:{known.name}"],
        )
        return jwt.encode(claims, self._roles[known.name])

    def admin_credential(self) -> Credential:
        """An unrestricted user of the colony, good for ADMIN_SECONDS: it sets up the streams."""
        user = KeyPair.new("user")
        claims = jwt.user_claims(
            subject=user.public,
            name=ADMIN_NAME,
            issuer_account=self._account.public,
            scoped=False,
            expires=int(time.time()) + ADMIN_SECONDS,
        )
        return Credential.of(jwt.encode(claims, self._account), user)


class Keyring:
    """Both halves in one folder, as `colonies dev` has them: `operator` and `owner`."""

    def __init__(self, operator: OperatorKeys, owner: OwnerKeys) -> None:
        self.operator = operator
        self.owner = owner

    @classmethod
    def create(cls, folder: Path) -> Keyring:
        """Makes all keys and their folder, whole or not at all. Raises Invalid if the folder exists."""
        _build(folder, cls._write)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Keyring:
        """Reads all keys. Raises NotFound or Invalid, naming the file."""
        return cls(OperatorKeys.open(folder / "operator"), OwnerKeys.open(folder / "owner"))

    @staticmethod
    def _write(folder: Path) -> None:
        OperatorKeys._write(folder / "operator")
        OwnerKeys._write(folder / "owner")

    def account_jwt(self, revocations: Mapping[str, int] | None = None) -> str:
        """The token of this colony's account, see `OperatorKeys.account_jwt`."""
        return self.operator.account_jwt(self.owner.public(), revocations)


def _role_file(folder: Path, role: RoleName) -> Path:
    return folder / "roles" / f"{role}.nk"


def _read_key(path: Path, kind: Kind) -> KeyPair:
    try:
        key = KeyPair.from_seed(read_secret(path, f"{kind} seed").strip())
    except Invalid as error:
        raise Invalid(f"{path} is not a sound {kind} seed: {error}. Restore it from your copy") from None
    if kind_of(key.public) != kind:
        raise Invalid(f"{path} holds the seed of a key of kind {kind_of(key.public)}, it should be {kind}")
    return key


def _write_key(path: Path, key: KeyPair) -> None:
    write_secret(path, key.seed + "\n")


def _build(folder: Path, write: Callable[[Path], None]) -> None:
    """Fills a folder beside `folder` and renames it, so that `folder` is there whole or not at all."""
    if folder.exists():
        raise Invalid(
            f"{folder} exists already: open it, or choose another folder. Keys are never overwritten"
        )
    _sweep(folder)
    fresh = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    try:
        fresh.mkdir(mode=0o700, parents=True)
        write(fresh)
        sync_folder(fresh)
        fresh.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise Invalid(f"the keys cannot be put into {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes what creations that were killed half-way left beside `folder`: keys that nobody uses."""
    for left in folder.parent.glob(f".{folder.name}.*.new"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)


def _check_answer(data: bytes) -> None:
    try:
        answer: Any = json.loads(data)
        error = answer.get("error")
        code = answer["data"]["code"] if error is None else error["code"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unavailable(
            f"the broker answered the account's token with {data[:200]!r}: is this a nats-server?"
        ) from None
    if error is not None or code != 200:
        said = (error or answer["data"]).get("description", code)
        raise Refused(
            f"the broker refused the account's token: {said}. Is it signed by this broker's operator?"
        )
