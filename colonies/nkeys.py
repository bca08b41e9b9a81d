"""NATS nkeys: Ed25519 keys in the text form that NATS uses, so that one key logs in and signs events.

An nkey is a prefix byte that says what the key is for, the 32 raw bytes and a CRC-16, in base32. A public key
starts with O (operator), A (account) or U (user); a seed with SO, SA or SU. The form is that of
https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth.

Whether a signature is good must not depend on who checks it, or with which library: verifiers would disagree
about the ledger for ever. OpenSSL accepts keys and signatures built on points of small order, libsodium does
not; so they are refused here, above the library. Both then apply the same rule of RFC 8032 without the
cofactor.

This module never reads or writes files and never shows a seed unless it is asked for it by name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from colonies.errors import Invalid

Kind = Literal["operator", "account", "user"]

KINDS: tuple[Kind, ...] = get_args(Kind)
SIGNATURE_BYTES = 64
CACHED_KEYS = 4_096  # decoded public keys kept by `verify`: the members of a large colony, about 2 MB

_PREFIX: dict[Kind, int] = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_KIND: dict[int, Kind] = {prefix: kind for kind, prefix in _PREFIX.items()}
_SEED_PREFIX = 18 << 3
_BASE32 = re.compile(r"[A-Z2-7]+", re.ASCII)
_PUBLIC_CHARS = 56
_SEED_CHARS = 58

_P = 2**255 - 19
_Y_MASK = 2**255 - 1  # the highest bit of an encoded point is the sign of x
_Y_OF_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER = frozenset({0, 1, _P - 1, _Y_OF_ORDER_8, _P - _Y_OF_ORDER_8})


# The seam: the only functions that know which library does the arithmetic, and what it calls things.


def _signer(raw_seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The raw public key that belongs to a raw seed, and what signs with it."""
    private = Ed25519PrivateKey.from_private_bytes(raw_seed)
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), private.sign


def _checker(raw_public: bytes) -> Callable[[bytes, bytes], bool]:
    """What checks (signature, data) against a raw public key."""
    check = Ed25519PublicKey.from_public_bytes(raw_public).verify

    def good(signature: bytes, data: bytes) -> bool:
        try:
            check(signature, data)
        except InvalidSignature:
            return False
        return True

    return good


def _shared(scalar: bytes, theirs: bytes) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise Invalid("there is nothing to be shared with this key: its point is of small order") from None


def _base(scalar: bytes) -> bytes:
    public = X25519PrivateKey.from_private_bytes(scalar).public_key()
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """A public key and the secret that belongs to it. Equal to another if the public keys are.

    Its repr shows the public key only.
    """

    public: str
    _raw_seed: bytes = field(compare=False)
    _sign: Callable[[bytes], bytes] = field(compare=False)

    @classmethod
    def new(cls, kind: Kind) -> KeyPair:
        """A fresh key from the operating system's randomness. Raises Invalid for an unknown kind."""
        return cls._of(kind, os.urandom(32))

    @classmethod
    def from_seed(cls, seed: str) -> KeyPair:
        """The key of a seed in text form (`SUA...`, 58 characters).

        Raises Invalid, without repeating the seed.
        """
        if len(seed) != _SEED_CHARS:
            raise Invalid(f"an nkey seed has {_SEED_CHARS} characters, this one has {len(seed)}")
        raw = _decoded(seed, "nkey seed")
        if raw[0] & 0xF8 != _SEED_PREFIX:
            raise Invalid(
                "this is not an nkey seed: a seed starts with SO, SA or SU; a public key is no seed"
            )
        prefix = (raw[0] & 0x07) << 5 | raw[1] >> 3
        kind = _KIND.get(prefix)
        if kind is None or raw[1] & 0x07:
            raise Invalid(f"this nkey seed is of an unknown kind; known are {', '.join(KINDS)} (SO, SA, SU)")
        return cls._of(kind, raw[2:34])

    @classmethod
    def _of(cls, kind: Kind, raw_seed: bytes) -> KeyPair:
        if kind not in _PREFIX:
            raise Invalid(f"there is no nkey of kind {kind!r}; kinds are {', '.join(KINDS)}")
        raw_public, sign = _signer(raw_seed)
        return cls(_encoded(bytes([_PREFIX[kind]]) + raw_public), raw_seed, sign)

    @property
    def seed(self) -> str:
        """The secret in text form. Whoever has it is this member: write it to files of mode 0600 only."""
        prefix = _PREFIX[kind_of(self.public)]
        head = bytes([_SEED_PREFIX | prefix >> 5, (prefix & 0x1F) << 3])
        return _encoded(head + self._raw_seed)

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature of `data`: 64 bytes."""
        return self._sign(data)

    def shared_with(self, theirs: bytes) -> bytes:
        """What this key and the holder of an X25519 public key share: 32 bytes, to be hashed before use.

        The private half is the scalar that signs, as RFC 8032 makes it of the seed. Raises Invalid for a
        point of small order.
        """
        return _shared(hashlib.sha512(self._raw_seed).digest()[:32], theirs)

    def __repr__(self) -> str:
        return f"KeyPair({self.public})"


def agree(public: str, scalar: bytes) -> tuple[bytes, bytes]:
    """The X25519 public key of a private one (32 random bytes), and what it shares with the holder of a
    public nkey. Raises Invalid if `public` is no sound public nkey.

    A point of Ed25519 is one of X25519 by RFC 7748, section 4.1: u = (1 + y) / (1 - y).
    """
    kind_of(public)
    y = int.from_bytes(_decoded(public, "public nkey")[1:33], "little") & _Y_MASK
    theirs = (1 + y) * pow(1 - y, -1, _P) % _P
    return _base(scalar), _shared(scalar, theirs.to_bytes(32, "little"))


def kind_of(public: str) -> Kind:
    """What a public key is for. Raises Invalid if it is no sound public nkey."""
    return _public(public)[0]


def verify(public: str, data: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is that of `data` by the holder of the public nkey.

    Raises Invalid only if `public` is no sound public nkey; anything wrong with the signature is False.
    """
    good = _public(public)[1]
    if len(signature) != SIGNATURE_BYTES or _is_small(signature[:32]):
        return False
    return good(signature, data)


@lru_cache(maxsize=CACHED_KEYS)
def _public(text: str) -> tuple[Kind, Callable[[bytes, bytes], bool]]:
    if len(text) != _PUBLIC_CHARS:
        raise Invalid(f"a public nkey has {_PUBLIC_CHARS} characters, {_shown(text)} has {len(text)}")
    raw = _decoded(text, "public nkey")
    kind = _KIND.get(raw[0])
    if kind is None:
        raise Invalid(
            f"{_shown(text)} is not a public key of an {', '.join(KINDS)} (they start with O, A, U)"
        )
    point = raw[1:33]
    if int.from_bytes(point, "little") & _Y_MASK >= _P or _is_small(point):
        raise Invalid(f"{_shown(text)} is a weak key: anybody can sign for it. Make a new one")
    return kind, _checker(point)


def _is_small(point: bytes) -> bool:
    return (int.from_bytes(point, "little") & _Y_MASK) % _P in _SMALL_ORDER


def _shown(public: str) -> str:
    """A public key as messages show it. A seed put in a public key's place by mistake is not shown."""
    return "the one given" if public.startswith("S") else repr(public[:60])


def _encoded(raw: bytes) -> str:
    crc = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + crc).decode("ascii").rstrip("=")


def _decoded(text: str, what: str) -> bytes:
    """The bytes before the CRC. `text` has the right length, so that they have."""
    if not _BASE32.fullmatch(text):
        raise Invalid(f"this {what} has characters other than A-Z and 2-7")
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    body = raw[:-2]
    if _encoded(body) != text:
        raise Invalid(f"the checksum of this {what} is wrong: a character was lost or changed; copy it again")
    return body
