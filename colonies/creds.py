"""Credentials: who a program is in a colony, as the standard NATS `.creds` file.

Such a file holds a user's token and its seed, so any NATS client in any language can log in with it. Whoever
can read it is that member; it is written with mode 0600 and never by halves.

This module never asks the broker: a credential that parses may still be expired or revoked.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from colonies import jwt
from colonies.core.names import member_name
from colonies.errors import Invalid, NotFound
from colonies.files import read_small
from colonies.nkeys import KeyPair
from colonies.roles import INBOX
from colonies.show import to_the_second

MAX_FILE_BYTES = 64 * 1024

_BLOCK = r"-----BEGIN {0}-----\s+(\S+)\s+-{{3,}}END {0}-{{3,}}"
_JWT_BLOCK = re.compile(_BLOCK.format("NATS USER JWT"))
_SEED_BLOCK = re.compile(_BLOCK.format("USER NKEY SEED"))
_ROLE_TAG = "role:"
_FILE = """\
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.
NKEYs are sensitive and should be treated as secrets.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------

*************************************************************
"""


@dataclass(frozen=True, slots=True)
class Credential:
    """A member's name, key and token. `colony` is the account's public key.

    `role` is what the token says for people to read, None if it says nothing; the permissions come from the
    key that signed it. `expires` is a Unix time in seconds, None if it has no end.
    """

    name: str
    jwt: str
    keypair: KeyPair
    colony: str
    role: str | None
    expires: int | None = None

    @classmethod
    def of(cls, token: str, keypair: KeyPair) -> Credential:
        """The credential made of a user's token and key. Raises Invalid if they do not belong together."""
        claims = jwt.decode(token)
        body = claims["nats"]
        if body["type"] != "user":
            raise Invalid(f"this is the token of an {body['type']}, a credential holds a user's")
        if claims["sub"] != keypair.public:
            raise Invalid(f"the token is for {claims['sub']}, but the seed is that of {keypair.public}")
        roles = [tag.removeprefix(_ROLE_TAG) for tag in body.get("tags", []) if tag.startswith(_ROLE_TAG)]
        return cls(
            name=member_name(claims["name"], "name in the token"),
            jwt=token,
            keypair=keypair,
            colony=body.get("issuer_account", claims["iss"]),
            role=roles[0] if roles else None,
            expires=claims.get("exp"),
        )

    @classmethod
    def parse(cls, text: str) -> Credential:
        """The credential in the text of a `.creds` file. Raises Invalid, saying what is missing or broken."""
        if len(text) > MAX_FILE_BYTES:
            raise Invalid(f"it has {len(text)} characters; at most {MAX_FILE_BYTES} are allowed")
        token, seed = _JWT_BLOCK.search(text), _SEED_BLOCK.search(text)
        if token is None or seed is None:
            lacking = "NATS USER JWT" if token is None else "USER NKEY SEED"
            raise Invalid(f"there is no whole block '-----BEGIN {lacking}-----' in it")
        return cls.of(token[1], KeyPair.from_seed(seed[1]))

    @classmethod
    def read(cls, path: Path) -> Credential:
        """The credential in a file. Raises NotFound, or Invalid naming the file and what would be right."""
        try:
            text = read_secret(path, "credential")
        except NotFound as error:
            raise NotFound(
                f"{error}; ask for one with `colonies member request`, or name another with --creds"
            ) from None
        try:
            return cls.parse(text)
        except Invalid as error:
            raise Invalid(
                f"{path} is not a sound .creds file: {error}. Ask the colony's owner for a new one"
            ) from None

    def text(self) -> str:
        """The text of the `.creds` file. It holds the seed."""
        return _FILE.format(jwt=self.jwt, seed=self.keypair.seed)

    def write(self, path: Path) -> None:
        """Writes the `.creds` file, or replaces it. Raises Invalid if the place cannot be written."""
        write_secret(path, self.text())

    def why_refused(self) -> str:
        """Why a broker may not accept it, as far as it tells itself by this machine's clock; what to do."""
        if self.expires is None or time.time() < self.expires:
            return (
                "it is revoked, replaced by a new key, expired or of another colony; install the new one, or "
                "ask an owner for a member of another name (`colonies member request`)"
            )
        ended = to_the_second(max(0, self.expires) * 1_000_000_000)
        return f"it expired at {ended}; ask an owner for a member of another name (`colonies member request`)"

    @property
    def inbox_prefix(self) -> str:
        """The only inbox this member may listen to, as `inbox_prefix` of `nats.connect`."""
        return INBOX.replace("{{subject()}}", self.keypair.public)

    def user_jwt(self) -> bytes:
        """The token as `user_jwt_cb` of `nats.connect` gives it."""
        return self.jwt.encode("ascii")

    def signature(self, nonce: str) -> bytes:
        """The answer to the broker's challenge, in base64, as `signature_cb` of `nats.connect` gives it."""
        return base64.b64encode(self.keypair.sign(nonce.encode()))


def read_secret(path: Path, what: str) -> str:
    """The text of a small file.

    Raises NotFound, or Invalid naming the file; `what` is what it should hold.
    """
    try:
        raw = read_small(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        raise NotFound(f"there is no {what} at {path}") from None
    except Invalid as error:
        raise Invalid(f"{path} holds no {what}: {error}") from None
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise Invalid(f"{path} holds no {what}: it is not plain text") from None


def write_secret(path: Path, text: str) -> None:
    """Writes `text` to a file of mode 0600, whole or not at all; a new folder above it gets mode 0700.

    Raises Invalid, naming the file, if the place cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}") from None


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` survive a power cut.

    Does nothing where folders cannot be opened (Windows).
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
