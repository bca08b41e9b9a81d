"""Events on the wire: msgpack `[payload, signature]`, sealed by their author, opened by everybody.

The signature covers `colonies/1:<colony key>:`, the subject, a line feed and the payload bytes as they
stand: nothing is encoded again to verify, and nothing moves to another colony or subject. The payload is a
msgpack map `{v, id, type, time, author, prev, data}`. Bytes that are not that are `Malformed`, whatever
they are. Heartbeats and logs travel in the same envelope. Nothing here knows who may say what.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import msgpack
from pydantic import BaseModel, ValidationError

from colonies.core.events import EVENT, Event
from colonies.nkeys import KeyPair, verify

VERSION = 1
MAX_EVENT_BYTES = 1_000_000


class Malformed(ValueError):
    """Not an event of ours. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An event ready to be published: its bytes, and the digest that the next one must name."""

    data: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope taken apart, its signature not yet checked. `time` (ns) is the author's claim."""

    id: str
    type: str
    time: int
    author: str
    prev: bytes | None
    data: dict[str, Any]
    digest: bytes
    signed: bytes
    signature: bytes

    def is_signed_by(self, key: str) -> bool:
        return verify(key, self.signed, self.signature)

    def event(self) -> Event:
        """The event itself.

        Raises:
            Malformed: no such type, or its data is not what the type says.
        """
        try:
            return EVENT.validate_python({"type": self.type, **self.data})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Malformed(f"{self.type}: {where}: {first['msg']}") from None
        except RecursionError:
            raise Malformed(f"{self.type}: nested too deeply") from None


def context(colony: str, subject: str) -> bytes:
    """What is signed before the payload."""
    return f"colonies/{VERSION}:{colony}:{subject}\n".encode()


def seal(
    keypair: KeyPair,
    colony: str,
    subject: str,
    *,
    id: str,
    type: str,
    time: int,
    author: str,
    prev: bytes | None,
    data: dict[str, Any],
) -> Sealed:
    """Sign an envelope for one subject of one colony."""
    payload = msgpack.packb(
        {"v": VERSION, "id": id, "type": type, "time": time, "author": author, "prev": prev, "data": data}
    )
    signed = context(colony, subject) + payload
    return Sealed(msgpack.packb([payload, keypair.sign(signed)]), hashlib.sha256(signed).digest())


def open_(colony: str, subject: str, data: bytes) -> Opened:
    """Take an envelope apart.

    Raises:
        Malformed: these bytes are not an envelope.
    """
    if len(data) > MAX_EVENT_BYTES:
        raise Malformed(f"{len(data)} bytes; an event has at most {MAX_EVENT_BYTES}")
    outer = _unpack(data)
    match outer:
        case [bytes() as payload, bytes() as signature] if len(signature) == 64:
            pass
        case _:
            raise Malformed("not a pair of payload and 64-byte signature")
    match _unpack(payload):
        case {
            "v": 1,
            "id": str() as id,
            "type": str() as type,
            "time": int() as time,
            "author": str() as author,
            "prev": (bytes() | None) as prev,
            "data": dict() as body,
        } as envelope if len(envelope) == 7 and len(id) <= 64 and (prev is None or len(prev) == 32):
            pass
        case _:
            raise Malformed("the payload is not a map of v (1), id, type, time, author, prev and data")
    signed = context(colony, subject) + payload
    digest = hashlib.sha256(signed).digest()
    return Opened(id, type, time, author, prev, body, digest, signed, signature)


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, MemoryError) as error:
        raise Malformed(f"not msgpack: {error or error.__class__.__name__}") from None


def data_of(event: Event) -> dict[str, Any]:
    """The data of an event as plain values; what is None is left out."""
    return {name: value for name, value in _fields(event).items() if name != "type"}


def _fields(value: Any) -> dict[str, Any]:
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: plain(item) for name, item in found.items() if item is not None}


def plain(value: Any) -> Any:
    """Dataclasses and models as maps, tuples as lists, all else as it is."""
    if isinstance(value, BaseModel):
        return value.wire()  # type: ignore[attr-defined]
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
