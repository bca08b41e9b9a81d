"""New ids: the only place where randomness enters. Ids that derive from something are the core's."""

from __future__ import annotations

import secrets

from ulid import ULID

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_id() -> str:
    """A ULID: 26 characters, sorts by the time it was made (ms)."""
    return str(ULID())


def new_token(length: int = 12) -> str:
    """A short random name, letters and digits only."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def new_secret(size_bytes: int = 32) -> bytes:
    """Random bytes that nobody can guess."""
    return secrets.token_bytes(size_bytes)
