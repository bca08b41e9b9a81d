"""A secret on the ledger: for one member's eyes, among all who read it.

    sealed = X25519 public key (32 bytes), made for this one | ChaCha20-Poly1305 of the secret (and 16 bytes)
    key    = HKDF-SHA-256 of what that key and the member's share, salted with both public keys

The member opens it with the key that it signs with, so nothing has to be asked of it, and who could answer in
its place is told nothing. `about` says what the secret is for; nobody can move it elsewhere. Whoever gets
hold of the member's seed, also later, can open it; whoever sealed it cannot.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from colonies.errors import Invalid
from colonies.ids import new_secret
from colonies.nkeys import KeyPair, agree

PUBLIC_BYTES = 32
_INFO = b"colonies/1 sealed"
_NONCE = bytes(12)  # each key is used once


def seal(secret: bytes, public: str, about: bytes) -> bytes:
    """The secret for the holder of a public nkey only. Raises Invalid: that is no sound public nkey."""
    return sealed_with(new_secret(), secret, public, about)


def sealed_with(private: bytes, secret: bytes, public: str, about: bytes) -> bytes:
    """As `seal`, with a private key that must never be used again."""
    ours, shared = agree(public, private)
    return ours + _cipher(shared, ours, public).encrypt(_NONCE, secret, about)


def open_sealed(sealed: bytes, keypair: KeyPair, about: bytes) -> bytes:
    """The secret again. Raises Invalid: it was sealed for another key, or about something else."""
    theirs, rest = sealed[:PUBLIC_BYTES], sealed[PUBLIC_BYTES:]
    try:
        return _cipher(keypair.shared_with(theirs), theirs, keypair.public).decrypt(_NONCE, rest, about)
    except (InvalidTag, ValueError):
        raise Invalid("this was sealed for another key, or about something else") from None


def _cipher(shared: bytes, ours: bytes, public: str) -> ChaCha20Poly1305:
    salt = ours + public.encode()
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt, _INFO).derive(shared))
