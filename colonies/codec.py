"""Events on the wire: msgpack `[payload, signature]`, sealed by their author, opened by everybody.

The signature covers `colonies/1:<colony key>:`, the subject, a line feed and the payload bytes as they
stand: nothing is encoded again to verify, and nothing moves to another colony or subject. The payload is a
msgpack map `{v, id, type, time, author, prev, data}`. Bytes that are not that are `Malformed`, whatever
they are, and so is what readers might understand differently (a key given twice): all must agree on every
event. Heartbeats and logs travel in the same envelope. Nothing here knows who may say what.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import msgpack
from pydantic import BaseModel, ValidationError

from colonies.core.events import EVENT, Approved, Event, Genesis, Rotated, WebhookAdded, WebhookChanged
from colonies.core.flow import WorkflowSpec
from colonies.core.names import shown
from colonies.core.node import Node
from colonies.core.values import struct
from colonies.errors import Invalid
from colonies.nkeys import KeyPair, Kind, kind_of, verify

VERSION = 1
MAX_EVENT_BYTES = 1_000_000
MAX_TYPE_CHARS = 64
MAX_TIME_NS = 2**63 - 1

_PLAIN = frozenset({str, int, float, bool, bytes, dict})
_ID = re.compile(r"\A[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")  # a ULID


class Malformed(ValueError):
    """Not an event of ours. The message says what is wrong with it."""


@struct
class Sealed:
    """An event ready to be published: its bytes, and the digest that the next one must name."""

    data: bytes
    digest: bytes


@struct
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
        if "type" in self.data:
            raise Malformed("its data names a type, which is the envelope's to name")
        try:
            event = EVENT.validate_python({**self.data, "type": self.type})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"][1:])
            what = "no such type" if first["type"] == "union_tag_invalid" else first["msg"]
            raise Malformed(f"{shown(self.type)}: {shown(where)}: {' '.join(what.split())[:200]}") from None
        except RecursionError:
            raise Malformed(f"{shown(self.type)}: nested too deeply") from None
        _check_keys(event)
        return event


def context(colony: str, subject: str) -> bytes:
    """What is signed before the payload."""
    return f"colonies/{VERSION}:{colony}:{subject}\n".encode(errors="surrogatepass")


def consent_to(colony: str, name: str, former: str, key: str) -> bytes:
    """What both keys sign when the member `name` changes its key from `former` to `key`.

    To log in, a member signs whatever text the broker sends. So this is no text: no UTF-8 has its first byte.
    """
    return b"\xff" + f"colonies/{VERSION}:{colony}:consent:{name}:{former}:{key}\n".encode()


def agreed(colony: str, name: str, event: Rotated) -> bool:
    """Did both keys consent to this change?"""
    statement = consent_to(colony, name, event.former, event.key)
    return verify(event.key, statement, event.consent) and verify(
        event.former, statement, event.former_consent
    )


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
    """Sign an envelope for one subject of one colony.

    Raises:
        Invalid: it would be larger than readers take.
    """
    payload = msgpack.packb(
        {"v": VERSION, "id": id, "type": type, "time": time, "author": author, "prev": prev, "data": data}
    )
    signed = context(colony, subject) + payload
    sealed: bytes = msgpack.packb([payload, keypair.sign(signed)])
    if len(sealed) > MAX_EVENT_BYTES:
        raise Invalid(f"{type}: {len(sealed)} bytes; an event has at most {MAX_EVENT_BYTES}")
    return Sealed(sealed, hashlib.sha256(signed).digest())


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
            "v": int() as version,
            "id": str() as id,
            "type": str() as type,
            "time": int() as time,
            "author": str() as author,
            "prev": (bytes() | None) as prev,
            "data": dict() as body,
        } as envelope if len(envelope) == 7:
            pass
        case _:
            raise Malformed("the payload is not a map of v, id, type, time, author, prev and data")
    if version is True or version != VERSION:
        raise Malformed(f"version {shown(version)}; this program reads version {VERSION}")
    if not _ID.match(id):
        raise Malformed("its id is not a ULID")
    if len(type) > MAX_TYPE_CHARS:
        raise Malformed(f"its type has {len(type)} characters; at most {MAX_TYPE_CHARS}")
    if isinstance(time, bool) or not 0 <= time <= MAX_TIME_NS:
        raise Malformed("its time is not in nanoseconds since 1970")
    if prev is not None and len(prev) != 32:
        raise Malformed("its prev is not a SHA-256")
    signed = context(colony, subject) + payload
    digest = hashlib.sha256(signed).digest()
    return Opened(id, type, time, author, prev, body, digest, signed, signature)


def is_signed_by(colony: str, subject: str, data: bytes, key: str) -> bool:
    """Is this an envelope that the holder of `key`, a sound public nkey, signed? No more is looked at."""
    try:
        match _unpack(data):
            case [bytes() as payload, bytes() as signature]:
                return verify(key, context(colony, subject) + payload, signature)
    except (Malformed, Invalid):
        pass
    return False


def _check_keys(event: Event) -> None:
    """A key that is none would end every verifier that tries to check a signature with it."""
    keys: list[tuple[str, Kind]] = []
    match event:
        case Approved(key=key) | WebhookAdded(key=key) | WebhookChanged(key=key):
            keys = [(key, "user")]
        case Rotated(key=key, former=former):
            keys = [(key, "user"), (former, "user")]
        case Genesis(owner_key=key, roles=roles):
            keys = [(key, "user"), *((role_key, "account") for role_key in roles.values())]
        case _:
            return
    for key, kind in keys:
        try:
            found = kind_of(key)
        except Invalid as error:
            raise Malformed(f"{event.type}: {error}") from None
        if found != kind:
            raise Malformed(f"{event.type}: {key} is the key of an {found}, not of an {kind}")


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, strict_map_key=True, object_pairs_hook=_unique)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, MemoryError) as error:
        raise Malformed(f"not msgpack: {error or error.__class__.__name__}") from None


def _unique(pairs: list[tuple[str | bytes, Any]]) -> dict[str | bytes, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice in one map")
    return found


def check(event: Event) -> None:
    """Raise Invalid if readers would not take this event as one."""
    try:
        EVENT.validate_python({"type": event.type, **data_of(event)})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise Invalid(f"{event.type}: {where}: {first['msg']}") from None


def data_of(event: Event) -> dict[str, Any]:
    """The data of an event as plain values; what is None is left out."""
    found = _fields(event)
    del found["type"]
    return found


def _fields(value: Any) -> dict[str, Any]:
    found = {name: getattr(value, name) for name in _names(value.__class__)}
    return {name: plain(item) for name, item in found.items() if item is not None}


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def plain(value: Any) -> Any:
    """Dataclasses and models as maps, tuples as lists, all else as it is."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, BaseModel | Node | WorkflowSpec):
        return value.wire()  # type: ignore[union-attr]
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
