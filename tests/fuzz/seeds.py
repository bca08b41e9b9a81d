"""Where the fuzzer starts from: real events, tokens and specs, made by code. No file of bytes is kept."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
from collections.abc import Callable

import msgpack

from colonies import bearer, codec, jwt, sealing
from colonies.creds import Credential
from colonies.export_file import Header, Writer
from colonies.ledger import Stored
from tests.fuzz import samples, world
from tests.fuzz.targets import TARGETS, TYPES, export_head


def _messages() -> list[tuple[str, bytes]]:
    """(subject, message) of real events."""
    found = [(stored.subject, stored.data) for stored in world.beginning()]
    for number, (event, author, entity) in enumerate(samples.EVENTS, start=100):
        subject, sealed = world.sealed(event, author, entity=entity, queue=world.QUEUE, number=number)
        found.append((subject, sealed.data))
    return found


def _token() -> str:
    claims = jwt.user_claims(
        subject=world.KEYS["ann"].public, name="ann", issuer_account=world.ACCOUNT.public, tags=["role:user"]
    )
    full = {**claims, "iss": world.ACCOUNT.public, "iat": 1_750_000_000, "jti": "X"}
    signed = f"{jwt._segment(jwt._json(jwt._HEADER))}.{jwt._segment(jwt._json(full))}"
    return f"{signed}.{jwt._segment(world.ACCOUNT.sign(signed.encode()))}"


def _bearers() -> list[bytes]:
    ann = world.KEYS["ann"]
    said = bearer.Bearer(world.ACCOUNT.public, "ann", ann.public, ann.public, 0, 60, "X")
    parts = f"{bearer._segment(bearer._HEADER.encode())}.{bearer._segment(bearer._json(said))}"
    signature = ann.sign(bearer._signed(world.ACCOUNT.public, parts))
    return [f"{parts}.{bearer._segment(signature)}".encode(), bearer._json(said)]


def _claims() -> list[bytes]:
    middle = _token().split(".")[1]
    user = base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))
    account = jwt.account_claims(subject=world.ACCOUNT.public, name="lab", revocations={"*": 1})
    return [
        user,
        json.dumps({**account, "iss": world.ACCOUNT.public, "iat": 1, "exp": 2, "jti": "x"}).encode(),
    ]


def _specs() -> list[dict[str, object]]:
    return [*samples.SPECS, {"func": 1, "conditions": []}, {}]


def _datas() -> list[bytes]:
    return [
        bytes([TYPES.index(event.type)]) + msgpack.packb(codec.data_of(event))
        for event, _, _ in samples.EVENTS
    ]


def _notes() -> list[bytes]:
    return [bytes([head]) + msgpack.packb(body) for head, body in samples.NOTES]


def _examined() -> list[bytes]:
    return [subject.encode() + b"\n" + msgpack.unpackb(data)[0] for subject, data in _messages()]


def _questions() -> list[bytes]:
    asked = [{}, {"limit": 10, "state": "failed", "func": "f"}, {"state": "alive", "runtimetype": "cli"}]
    return [json.dumps(question).encode() for question in asked]


def _contexts() -> list[bytes]:
    context = {"url": "nats://127.0.0.1:4222", "creds": "~/ann.creds", "keys": "k", "members": "m"}
    return [json.dumps(said).encode() for said in (context, {"sequence": 9, "digest": "00"})] + [b"x\n"]


def _conditions() -> list[bytes]:
    inputs = msgpack.packb({"a": {"b": [1, 2.5, "x", None, True]}, "x/y": {}})
    expressions = (
        *("a.b[0] > `1`", "!(a.b == 'x') && contains(a.b, `\"x\"`) || @", '"x/y"', "length(a.b) >= `2`"),
        *("a.b[-1]", "starts_with(a.c, 'x')", "ceil(a.b[1]) == abs(`-3`)", "type(a) != 'null'", "a[*].b"),
    )
    return [expression.encode() + b"\0" + inputs for expression in expressions]


def _webhooks() -> list[bytes]:
    return [
        *(b"https://example.com:8443/a?b=c", b"http://[::1]/", b"process.failed,workflow.*,*"),
        *(b"whsec_" + base64.b64encode(bytes(32)), b"120", b"Wed, 21 Oct 2026 07:28:00 GMT"),
        sealing.sealed_with(bytes([7]) * 32, bytes(32), world.KEYS["ann"].public, b"ops"),
        *(json.dumps(asked).encode() for asked in ({"webhook": "ops", "dead": 5}, {"request": "AAAA"})),
    ]


# Choices, the same each time.
_LIVES = [random.Random(number).randbytes(700) for number in range(8)]


def _exports() -> list[bytes]:
    """Exports whole, unpacked, and without their headers."""
    stream = io.BytesIO()
    writer = Writer(stream, Header(world.ACCOUNT.public, "lab", 1, 9, 9, 1, True, True))
    for sequence, (subject, data) in enumerate(_messages()[:9], start=1):
        writer.add(Stored(subject, sequence, sequence, data))
    writer.add(Stored("log.x.w1", 1, 1, b"line"))
    writer.add(Stored("value.w1.Ab0Cd1Ef2Gh3", 1, 0, b"piece"))
    writer.end()
    raw = gzip.decompress(stream.getvalue())
    return [stream.getvalue(), raw, raw.removeprefix(export_head())]


_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "envelope": lambda: [part for _, data in _messages() for part in (data, msgpack.unpackb(data)[0])],
    "event": _datas,
    "odd-event": lambda: _LIVES,
    "examine": _examined,
    "history": lambda: _LIVES,
    "subject": lambda: [subject.encode() for subject, _ in _messages()],
    "note": _notes,
    "odd-note": lambda: _LIVES,
    "spec-text": lambda: [json.dumps(spec).encode() for spec in _specs()],
    "spec-msgpack": lambda: [msgpack.packb(spec) for spec in _specs()],
    "odd-spec": lambda: _LIVES,
    "workflow-text": lambda: [json.dumps(spec).encode() for spec in samples.WORKFLOWS],
    "workflow-msgpack": lambda: [msgpack.packb(spec) for spec in samples.WORKFLOWS],
    "odd-workflow": lambda: _LIVES,
    "condition": _conditions,
    "reference": lambda: [
        msgpack.packb([{"$output": "a.b.0"}, {"$literal": {"$x": 1}}, {"k": [{"$item": ""}]}])
    ],
    "trace": lambda: [b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\na=1,b@c=x y"],
    "size": lambda: [b"10GB", b"1.5Gi", b"512", b"2s", b"1m", b"nats://host:4222", b"wss://[::1]:1"],
    "token": lambda: [_token().encode()],
    "claims": _claims,
    "bearer": _bearers,
    "credential": lambda: [Credential.of(_token(), world.KEYS["ann"]).text().encode()],
    "nkey": lambda: [key.encode() for pair in world.KEYS.values() for key in (pair.public, pair.seed)],
    "question": _questions,
    "webhook": _webhooks,
    "small-files": _contexts,
    "export": _exports,
}
assert _SEEDS.keys() == TARGETS.keys()


def seeds(target: str) -> list[bytes]:
    """Inputs for a target to start from, the same each time."""
    return _SEEDS[target]()
