"""A hostile member: a plain NATS client, the stock keys, msgpack. Nothing of ours stands between it and the
broker, so it says what it likes.

attacker = await Attacker.login(url, "eve", "worker", credential, colony_key)
sequence = await attacker.store("ledger.process.X.assigned.eve", attacker.event("process.assigned", ...))
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import time
from pathlib import Path
from typing import Any

import msgpack
import nkeys  # type: ignore[import-untyped]
from nats.aio.client import Client
from nats.aio.msg import Msg

ANSWER_S = 5.0
SILENCE_S = 0.3  # where no answer is what we expect

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)


class Rejected(Exception):
    """The broker took the message and did not store it."""


class Denied(Exception):
    """The broker did not take the message."""


def ulid() -> str:
    """An id in the form of a plain process's or an event's."""
    return "01" + "".join(secrets.choice(_CROCKFORD) for _ in range(24))


def digest(colony: str, subject: str, data: bytes) -> bytes:
    """What the next event's `prev` must be: of an event's subject and its bytes on the wire."""
    payload = msgpack.unpackb(data)[0]
    return hashlib.sha256(f"colonies/1:{colony}:{subject}\n".encode() + payload).digest()


class Attacker:
    """One member's key and connection. `denied` holds what the broker said no to."""

    def __init__(self, name: str, role: str, seed: str, public: str, colony: str) -> None:
        self.name = name
        self.role = role
        self.public = public
        self.colony = colony
        self.nc = Client()
        self.denied: list[str] = []
        self._settled: list[str] = []
        self.carriers: list[int] = []  # on the ledger, only to be read out elsewhere
        self.seed = seed
        self._key = nkeys.from_seed(bytearray(seed.encode()))

    @classmethod
    async def login(cls, url: str, name: str, role: str, creds: Path, colony: str) -> Attacker:
        """With a credential file, as any NATS client in any language would."""
        seed = re.findall(r"^SU[A-Z2-7]+$", creds.read_text(), re.MULTILINE)[0]
        public = nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
        self = cls(name, role, seed, public, colony)

        async def on_error(error: Exception) -> None:
            if found := _DENIED.search(str(error)):
                subject = found[2].lower()
                (self._settled if subject.startswith("settled.") else self.denied).append(subject)

        try:
            await self.nc.connect(
                url,
                user_credentials=str(creds),
                inbox_prefix=f"_INBOX_{public}",
                error_cb=on_error,
                allow_reconnect=False,
            )
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self.nc.close()

    # --- making events -------------------------------------------------------------------------------

    def event(
        self,
        type: str,
        subject: str,
        *,
        prev: bytes | None = None,
        data: dict[str, Any] | None = None,
        id: str | None = None,
        at: int | None = None,
        author: str | None = None,
        colony: str | None = None,
        **envelope: Any,
    ) -> bytes:
        """A signed event, in whatever is ours to choose a lie."""
        payload = msgpack.packb(
            {
                "v": 1,
                "id": id or ulid(),
                "type": type,
                "time": time.time_ns() if at is None else at,
                "author": author or self.name,
                "prev": prev,
                "data": data or {},
                **envelope,
            }
        )
        return self.sealed(payload, subject, colony)

    def sealed(self, payload: bytes, subject: str, colony: str | None = None) -> bytes:
        """Any bytes, signed by us for a subject."""
        signed = f"colonies/1:{colony or self.colony}:{subject}\n".encode() + payload
        packed: bytes = msgpack.packb([payload, self._key.sign(signed)])
        return packed

    async def settle(self) -> None:
        """Return when the broker has dealt with all that was sent: it goes by order, and denies this."""
        last = f"settled.{secrets.token_hex(8)}"
        await self.nc.publish(last, b"")
        async with asyncio.timeout(ANSWER_S):
            while last not in self._settled:
                await asyncio.sleep(0.001)
        self._settled.remove(last)

    # --- sending -------------------------------------------------------------------------------------

    async def store(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        """Publish, wait for the broker's word; the sequence. Raises Denied and Rejected."""
        before = len(self.denied)
        inbox = f"_INBOX_{self.public}.{secrets.token_hex(8)}"
        answers = await self.nc.subscribe(inbox)
        try:
            await self.nc.publish(subject, data, reply=inbox, headers=dict(headers or {}) or None)
            await self.settle()
            if len(self.denied) > before:
                raise Denied(self.denied[-1])
            return _sequence(await answers.next_msg(timeout=ANSWER_S))
        finally:
            await answers.unsubscribe()

    async def store_raw(self, subject: str, header: bytes, data: bytes) -> int:
        """As `store`, with a header block of our own making, sound or not."""
        inbox = f"_INBOX_{self.public}.{secrets.token_hex(8)}"
        answers = await self.nc.subscribe(inbox)
        try:
            line = f"HPUB {subject} {inbox} {len(header)} {len(header) + len(data)}\r\n".encode()
            await self.nc._send_command(line + header + data + b"\r\n")
            await self.settle()
            return _sequence(await answers.next_msg(timeout=ANSWER_S))
        finally:
            await answers.unsubscribe()

    async def says_no(self, subject: str, data: bytes = b"", reply: str = "") -> bool:
        """Does the broker refuse this publish?"""
        before = len(self.denied)
        await self.nc.publish(subject, data, reply=reply)
        await self.settle()
        return len(self.denied) > before

    async def ask(self, subject: str, body: object = None) -> dict[str, Any]:
        """One question to the JetStream API, and its JSON answer."""
        before = len(self.denied)
        inbox = f"_INBOX_{self.public}.{secrets.token_hex(8)}"
        answers = await self.nc.subscribe(inbox)
        await self.nc.publish(subject, json.dumps(body).encode() if body is not None else b"", reply=inbox)
        await self.settle()
        if len(self.denied) > before:
            raise Denied(self.denied[-1])
        answer: dict[str, Any] = json.loads((await answers.next_msg(timeout=ANSWER_S)).data)
        return answer

    async def smuggle(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Have the broker publish these bytes on any subject: as the reply to a question of ours.

        nats-server does not check reply subjects. Whoever may store a message anywhere may have it read out
        to where he likes; an observer stores nothing, but may answer what he asked himself.
        """
        if self.role == "observer":
            await self._answer_ourselves(subject, data, headers)
            return
        token = secrets.token_hex(8)
        stream, place = {
            "worker": ("LOGS", f"log.{token}.{self.name}"),
            "service": ("LEDGER", f"ledger.process.{token}.expired.{self.name}"),
        }.get(self.role, ("OBJ_values", f"$O.values.C.{self.name}.{token}"))
        sequence = await self.store(place, data, headers)
        if stream == "LEDGER":
            self.carriers.append(sequence)
        await self.read_out(stream, sequence, subject)

    async def read_out(self, stream: str, sequence: int, subject: str) -> None:
        """Have the broker publish a stored message on a subject of our choice."""
        body = json.dumps({"seq": sequence}).encode()
        await self.nc.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=subject)
        await self.settle()

    async def _answer_ourselves(self, subject: str, data: bytes, headers: dict[str, str] | None) -> None:
        asked = await self.nc.subscribe(f"query.{secrets.token_hex(8)}")
        await self.nc.publish(asked.subject, b"", reply=subject)
        with contextlib.suppress(TimeoutError):  # some reply subjects the broker does not take
            message = await asked.next_msg(timeout=SILENCE_S)
            await self.nc.publish(message.reply, data, headers=dict(headers or {}) or None)
        await self.settle()
        await asked.unsubscribe()

    # --- pulling -------------------------------------------------------------------------------------

    async def pull(self, queue: str, *, batch: int = 1, wait_s: float = ANSWER_S) -> list[Msg]:
        """Take up to `batch` offers; at least one, or TimeoutError."""
        inbox = f"_INBOX_{self.public}.{secrets.token_hex(8)}"
        answers = await self.nc.subscribe(inbox)
        body = {"batch": batch, "expires": int(wait_s * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.LEDGER.{queue}"
        await self.nc.publish(subject, json.dumps(body).encode(), reply=inbox)
        found: list[Msg] = []
        async with asyncio.timeout(wait_s):
            while len(found) < batch:
                message = await answers.next_msg(timeout=wait_s)
                if not message.reply:
                    break
                found.append(message)
        return found


def _sequence(answer: Msg) -> int:
    if not answer.data:
        raise Rejected(str(answer.headers))
    said = json.loads(answer.data)
    if "error" in said:
        raise Rejected(said["error"]["description"])
    return int(said["seq"])
