"""NATS JWTs, version 2: what an operator, an account and a user may do, signed by the one above.

The form is that of github.com/nats-io/jwt/v2: header `{"typ": "JWT", "alg": "ed25519-nkey"}`, the claims, an
Ed25519 signature over both as they stand; `iss` and `sub` are public nkeys. Tokens made here are read by any
nats-server and by the stock `nats` and `nsc` tools.

The broker tells two account tokens apart by `jti` and by `iat`, which counts whole seconds: of two tokens
with the same `jti` a cluster drops the second. The Go library hashes the envelope only, so two changes within
one second can collide; here `jti` is the hash of all claims.

This module never reads files or the network, and it never decides whether a token is still current: expiry
and revocation are the broker's and the ledger's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from colonies import nkeys
from colonies.errors import Invalid
from colonies.nkeys import KeyPair, Kind, kind_of

Claims = dict[str, Any]

MAX_TOKEN_BYTES = (
    1 << 20
)  # an account with 10,000 revocations takes 0.9 MB; the broker's own payload limit is 1 MB
UNLIMITED = -1

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ISSUERS: dict[Kind, tuple[Kind, ...]] = {
    "operator": ("operator",),
    "account": ("operator", "account"),
    "user": ("account",),
}


def operator_claims(*, subject: str, name: str, system_account: str) -> Claims:
    """Claims of an operator: `subject` and `system_account` are public nkeys.

    Signed by the operator itself.
    """
    _expect(subject, "operator")
    _expect(system_account, "account")
    return _claims(subject, name, {"type": "operator", "version": 2, "system_account": system_account})


def account_claims(
    *,
    subject: str,
    name: str,
    signing_keys: Iterable[str | Mapping[str, Any]] = (),
    revocations: Mapping[str, int] | None = None,
    jetstream: bool = True,
    max_connections: int = UNLIMITED,
    max_store_bytes: int = UNLIMITED,
    exports: Iterable[Mapping[str, Any]] = (),
    imports: Iterable[Mapping[str, Any]] = (),
    mappings: Mapping[str, str] | None = None,
) -> Claims:
    """Claims of an account. Signed by the operator.

    `signing_keys` are account public keys, or scopes made by `scope`. `revocations` maps a user's public key
    to a Unix time in seconds: tokens of that key issued up to then are refused, its live connections dropped.
    A system account needs `jetstream=False`: the broker refuses it otherwise. `exports` and `imports` are
    those of the Go library; `mappings` rename the subject of what a client publishes, before the broker asks
    whether it may, and never what the broker itself sends.
    """
    _expect(subject, "account")
    for key in revocations or {}:
        if key != "*":
            _expect(key, "user")
    limits: dict[str, Any] = {
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
        "imports": UNLIMITED,
        "exports": UNLIMITED,
        "wildcards": True,
        "conn": max_connections,
        "leaf": UNLIMITED,
    }
    if jetstream:
        limits |= {
            "mem_storage": UNLIMITED,
            "disk_storage": max_store_bytes,
            "streams": UNLIMITED,
            "consumer": UNLIMITED,
            "max_ack_pending": UNLIMITED,
            "mem_max_stream_bytes": UNLIMITED,
            "disk_max_stream_bytes": UNLIMITED,
        }
    body: Claims = {
        "type": "account",
        "version": 2,
        "limits": limits,
        "default_permissions": {"pub": {}, "sub": {}},
    }
    if keys := [key if isinstance(key, str) else dict(key) for key in signing_keys]:
        body["signing_keys"] = keys
    if revocations:
        body["revocations"] = dict(revocations)
    if offered := [dict(export) for export in exports]:
        body["exports"] = offered
    if taken := [dict(one) for one in imports]:
        body["imports"] = taken
    if mappings:
        body["mappings"] = {
            source: [{"subject": target, "weight": 100}] for source, target in mappings.items()
        }
    return _claims(subject, name, body)


def scope(*, key: str, role: str, template: Mapping[str, Any]) -> Claims:
    """A scoped signing key for `account_claims`: whom it signs may do what `template` says, nothing else.

    `template` is `{"pub", "sub", "resp"?, "subs", "data", "payload"}`, see `colonies.roles.template`.
    """
    _expect(key, "account")
    return {"kind": "user_scope", "key": key, "role": role, "template": dict(template)}


def user_claims(
    *,
    subject: str,
    name: str,
    issuer_account: str,
    scoped: bool = True,
    expires: int | None = None,
    tags: Iterable[str] = (),
) -> Claims:
    """Claims of a user, signed by a scoped signing key of `issuer_account`; unscoped ones by the account.

    A scoped user carries no limits of its own, the broker refuses it otherwise; an unscoped one may do all
    within its account. `expires` is a Unix time in seconds. `tags` are for people and should be lower-case.
    """
    _expect(subject, "user")
    _expect(issuer_account, "account")
    body: Claims = {"type": "user", "version": 2, "issuer_account": issuer_account}
    if not scoped:
        body |= {"pub": {}, "sub": {}, "subs": UNLIMITED, "data": UNLIMITED, "payload": UNLIMITED}
    if listed := list(tags):
        body["tags"] = listed
    claims = _claims(subject, name, body)
    if expires is not None:
        claims["exp"] = expires
    return claims


def encode(claims: Mapping[str, Any], keypair: KeyPair) -> str:
    """The signed token of `claims`: issuer, time of issue (the clock's) and id are added.

    Raises Invalid if a key of this kind cannot sign such claims.
    """
    kind = claims["nats"]["type"]
    if kind_of(keypair.public) not in _ISSUERS[kind]:
        raise Invalid(f"{_with_article(kind)} token is signed by {_issuers(kind)}, not by {keypair.public}")
    full: Claims = {**claims, "iss": keypair.public, "iat": int(time.time())}
    full["jti"] = _token_id(full)
    signed = f"{_segment(_json(_HEADER))}.{_segment(_json(full))}"
    return f"{signed}.{_segment(keypair.sign(signed.encode('ascii')))}"


def decode(token: str | bytes, verify: bool = True) -> Claims:
    """The claims of a token: a dict with `iss`, `sub`, `name`, `iat`, `jti`, maybe `exp`, and `nats` with its
    `type`.

    Checks the form, the kinds of its keys and, unless told not to, the signature of `iss` over it; not
    whether that issuer is the right one, and not expiry. Raises Invalid, and nothing else, whatever the bytes
    are.
    """
    text = _text(token)
    parts = text.split(".")
    if len(parts) != 3:
        raise Invalid(f"a JWT has three parts joined by dots, this one has {len(parts)}")
    header = _object(_bytes(parts[0], "header"), "header")
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.upper() != "JWT" or header.get("alg") != _HEADER["alg"]:
        raise Invalid(f"the header of a NATS JWT is {_json(_HEADER).decode()}, this one differs")
    claims = _object(_bytes(parts[1], "claims"), "claims")
    _check(claims)
    signature = _bytes(parts[2], "signature")
    if verify and not nkeys.verify(claims["iss"], f"{parts[0]}.{parts[1]}".encode("ascii"), signature):
        raise Invalid(f"the signature of this JWT is not that of its issuer {claims['iss']}")
    return claims


def _check(claims: Claims) -> None:
    for name in ("iss", "sub", "name", "jti"):
        if not isinstance(claims.get(name), str):
            raise Invalid(f"the claims of this JWT lack {name!r} as text")
    for name in ("iat", "exp"):
        if type(claims.get(name, 0)) is not int:
            raise Invalid(f"{name!r} of a JWT is a whole number of Unix seconds")
    body = claims.get("nats")
    kind = body.get("type") if isinstance(body, dict) else None
    if (
        not isinstance(body, dict)
        or not isinstance(kind, str)
        or kind not in _ISSUERS
        or body.get("version") != 2
    ):
        raise Invalid(f"a NATS JWT of version 2 is of type {', '.join(_ISSUERS)}; this one is not")
    _expect(claims["sub"], kind)
    if kind_of(claims["iss"]) not in _ISSUERS[kind]:
        raise Invalid(f"{_with_article(kind)} token is issued by {_issuers(kind)}, not by {claims['iss']}")
    owner = body.get("issuer_account", claims["iss"])
    if kind == "user" and (not isinstance(owner, str) or kind_of(owner) != "account"):
        raise Invalid("'issuer_account' of a user's JWT is the public key of an account")
    tags = body.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise Invalid("'tags' of a JWT is a list of texts")


def _claims(subject: str, name: str, body: Claims) -> Claims:
    return {"sub": subject, "name": name, "nats": body}


def _expect(public: str, kind: Kind) -> None:
    if kind_of(public) != kind:
        raise Invalid(
            f"{public} is the key of {_with_article(kind_of(public))}, expected {_with_article(kind)}'s"
        )


def _with_article(kind: str) -> str:
    return f"{'a' if kind == 'user' else 'an'} {kind}"


def _issuers(kind: Kind) -> str:
    return " or ".join(_with_article(issuer) for issuer in _ISSUERS[kind])


def _token_id(claims: Claims) -> str:
    digest = hashlib.new("sha512_256", _json(claims)).digest()
    return base64.b32encode(digest).decode("ascii").rstrip("=")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _segment(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def _text(token: str | bytes) -> str:
    if len(token) > MAX_TOKEN_BYTES:
        raise Invalid(f"this JWT has {len(token)} bytes, the limit is {MAX_TOKEN_BYTES}")
    if isinstance(token, str):
        return token
    try:
        return token.decode("ascii")
    except UnicodeDecodeError:
        raise Invalid("a JWT is made of A-Z, a-z, 0-9, -, _ and dots; this one has other bytes") from None


def _bytes(segment: str, what: str) -> bytes:
    """Decodes a part strictly: one value has one spelling, so nobody can vary a token without its signer."""
    if not _SEGMENT.fullmatch(segment):
        raise Invalid(f"the {what} of this JWT is not base64url")
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise Invalid(f"the {what} of this JWT is not base64url") from None
    if _segment(raw) != segment:
        raise Invalid(f"the {what} of this JWT is not canonical base64url")
    return raw


def _object(raw: bytes, what: str) -> Claims:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise Invalid(f"the {what} of this JWT is not JSON") from None
    if not isinstance(value, dict):
        raise Invalid(f"the {what} of this JWT is not a JSON object")
    return value
