"""Values on their way into events and back: small ones inside, large ones in the colony's Object Store.

The event names a stored value by its SHA-256, so whoever reads it can tell that nobody changed it. Values
are what JSON can say; everything richer is turned into that, or refused with its type's name.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgpack
from pydantic_core import PydanticSerializationError, to_jsonable_python

from colonies.core.events import Ref
from colonies.errors import ColoniesError, Invalid
from colonies.ledger import Ledger

MAX_INLINE_BYTES = 128 * 1024
MAX_VALUE_BYTES = 64 * 1024 * 1024


def pack(value: Any, what: str) -> bytes:
    """A value as bytes.

    Raises:
        Invalid: it cannot be stored, or is over 64 MiB. `what` opens the message.
    """
    try:
        data: bytes = msgpack.packb(to_jsonable_python(value))
    except (PydanticSerializationError, OverflowError, ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"{what} cannot be stored: {error}; it must be what JSON can say") from None
    if len(data) > MAX_VALUE_BYTES:
        raise Invalid(f"{what} is {len(data)} bytes; at most {MAX_VALUE_BYTES} (64 MiB) can be stored")
    return data


async def store(ledger: Ledger, author: str, value: Any, what: str) -> tuple[Any, Ref | None]:
    """The value for the event itself, or, when it is over 128 KiB, None and where it is kept."""
    data = pack(value, what)
    if len(data) <= MAX_INLINE_BYTES:
        return msgpack.unpackb(data), None
    name = await ledger.put_value(author, data)
    return None, Ref(hashlib.sha256(data).hexdigest(), len(data), name)


async def load(ledger: Ledger, ref: Ref) -> Any:
    """A stored value.

    Raises:
        NotFound: it is gone.
        ColoniesError: what is kept is not what the event says.
    """
    data = await ledger.get_value(ref.object)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise ColoniesError(f"the stored value {ref.object} is not the one that the ledger names")
    return msgpack.unpackb(data)
