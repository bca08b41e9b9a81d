"""Values on their way into events and back: small ones inside, large ones in the colony's Object Store.

The event names a stored value by its SHA-256, so whoever reads it can tell that nobody changed it. Values
are what JSON can say; everything richer is turned into that, or refused with its type's name.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgpack
from pydantic_core import PydanticSerializationError, to_jsonable_python

from colonies.core.events import Ref
from colonies.errors import ColoniesError, Invalid, NotFound
from colonies.ledger import Ledger

MAX_INLINE_BYTES = 128 * 1024
MAX_VALUE_BYTES = 64 * 1024 * 1024
MAX_CONTAINERS = 2_000_000  # lists and objects in a value: about 0.5 GB of memory
AGAIN_S = 0.5  # a replica that is behind has caught up by then


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
    if len(data) > MAX_CONTAINERS:  # else it cannot hold so many
        try:
            _unpacked(data)
        except ValueError as error:
            raise Invalid(f"{what} cannot be stored: {error}") from None
    return data


async def store(ledger: Ledger, author: str, value: Any, what: str) -> tuple[Any, Ref | None]:
    """The value for the event itself, or, when it is over 128 KiB, None and where it is kept."""
    data = pack(value, what)
    if len(data) <= MAX_INLINE_BYTES:
        return msgpack.unpackb(data), None
    name = await ledger.put_value(author, data)
    return None, Ref(hashlib.sha256(data).hexdigest(), len(data), name)


def is_kept(data: bytes, ref: Ref | None) -> bool:
    """Are these bytes what is kept there?"""
    return ref is not None and (len(data), hashlib.sha256(data).hexdigest()) == (ref.size_bytes, ref.sha256)


def same(one: Ref | None, other: Ref | None) -> bool:
    """Do both name the same bytes, wherever they are kept?"""
    if one is None or other is None:
        return one is other
    return (one.sha256, one.size_bytes) == (other.sha256, other.size_bytes)


async def load(ledger: Ledger, ref: Ref) -> Any:
    """A stored value.

    Raises:
        NotFound: it is gone.
        ColoniesError: what is kept is not what the event says, or is not what JSON can say.
    """
    try:
        # Whoever may read can have the broker store an answer anywhere, so also behind a whole value.
        data = await ledger.get_value(ref.object, ref.size_bytes)
    except NotFound:
        data = b""
    if not is_kept(data, ref):
        await asyncio.sleep(AGAIN_S)
        data = await ledger.get_value(ref.object, ref.size_bytes)
    if not is_kept(data, ref):
        raise ColoniesError(f"the stored value {ref.object} is not the one that the ledger names")
    if len(data) > MAX_VALUE_BYTES:
        raise ColoniesError(f"the stored value {ref.object} has {len(data)} bytes; at most {MAX_VALUE_BYTES}")
    try:
        value = _unpacked(data)
        _check_plain(value)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError, MemoryError) as error:
        raise ColoniesError(
            f"the stored value {ref.object} is not what JSON can say: {error or error.__class__.__name__}"
        ) from None
    return value


async def load_arguments(ledger: Ledger, ref: Ref) -> tuple[list[Any], dict[str, Any]]:
    """Stored arguments. Raises as `load`, and ColoniesError if they are none."""
    match await load(ledger, ref):
        case [list() as args, dict() as kwargs]:
            return args, kwargs
    raise ColoniesError(f"the stored value {ref.object} is not a pair of arguments by place and by name")


def _unpacked(data: bytes) -> Any:
    """The value. Raises ValueError for more lists and objects than MAX_CONTAINERS, and as msgpack does.

    An empty list takes one byte there and 64 here, so bytes alone bound no memory.
    """
    count = 0

    def counted(found: Any) -> Any:
        nonlocal count
        count += 1
        if count > MAX_CONTAINERS:
            raise ValueError(
                f"it holds more than {MAX_CONTAINERS} lists and objects; at most as many are allowed"
            )
        return found

    return msgpack.unpackb(data, strict_map_key=True, list_hook=counted, object_hook=counted)


def _check_plain(value: Any) -> None:
    """Raises TypeError unless all of it is what JSON can say. Without recursion: it may be deep."""
    left = [value]
    while left:
        item = left.pop()
        if type(item) is dict:
            left += item.keys()  # `strict_map_key` lets bytes through
            left += item.values()
        elif type(item) is list:
            left += item
        elif item is not None and type(item) not in (str, int, float, bool):
            raise TypeError(f"there is a {type(item).__name__} in it")
