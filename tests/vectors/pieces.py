"""The other vectors: keys, envelopes, names that derive, heartbeats and log messages, each good or bad."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgpack

from colonies import codec
from colonies.core import units
from colonies.core.colony import Colony
from colonies.core.limits import digest_of
from colonies.core.process import keyed_id
from colonies.core.spec import Conditions, queue_of
from colonies.core.states import derived_id
from colonies.core.trace import SpanOf, own, span_id
from colonies.errors import Invalid
from colonies.heartbeats import read_heartbeat
from colonies.ledger import Stored
from colonies.logs import read_log
from colonies.nkeys import KeyPair, _encoded, kind_of, verify
from tests.vectors.telling import ACCOUNT, COLONY, ROLES, START, keypair, ulid

SPANS: tuple[SpanOf, ...] = ("workflow", "process", "attempt", "wait")
SUBJECT = "ledger.process.01M7XNKA00000000000000000A.cancelled.ann"
P = 2**255 - 19
WEAK = _encoded(b"\xa0" + bytes(32))


def keys() -> dict[str, Any]:
    """The seeds of all who speak in the vectors; texts that are no keys; signatures, good and bad."""
    ann = keypair("ann")
    names = [*ROLES, "brief", "gone", "ghost", "mallory", "bob, second"]
    members = {name: {"seed": keypair(name).seed, "public": keypair(name).public} for name in names}
    good = ann.sign(b"hello")
    order = 2**252 + 27742317777372353535851937790883648493
    high = (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    weak = [_encoded(b"\xa0" + y.to_bytes(32, "little")) for y in (0, 1, P - 1, P, P + 1)]
    tried = [
        ann.public,
        ACCOUNT.public,
        ann.public[:-1],
        ann.public[:-1] + "A",
        ann.public.lower(),
        ann.seed,
        *weak,
    ]
    signatures = [good, good[::-1], good[:63], good[:32] + high, bytes([1]) + bytes(31) + good[32:]]
    return {
        "account": {"seed": ACCOUNT.seed, "public": ACCOUNT.public},
        "members": members,
        "texts": [{"text": text, "kind": _kind(text)} for text in tried],
        "signatures": [
            {
                "key": ann.public,
                "signed": b"hello".hex(),
                "signature": s.hex(),
                "good": verify(ann.public, b"hello", s),
            }
            for s in signatures
        ],
        "consent": codec.consent_to(
            COLONY, "bob", keypair("bob").public, keypair("bob, second").public
        ).hex(),
    }


def _kind(text: str) -> str | None:
    try:
        return kind_of(text)
    except Invalid:
        return None


def envelopes() -> list[dict[str, Any]]:
    """Bytes on one subject: are they an event, and what is signed there."""
    ann = keypair("ann")
    whole = {
        "v": 1,
        "id": ulid(1),
        "type": "process.cancelled",
        "time": START,
        "author": "ann",
        "prev": None,
        "data": {},
    }

    def sealed(payload: bytes) -> bytes:
        return bytes(msgpack.packb([payload, ann.sign(codec.context(COLONY, SUBJECT) + payload)]))

    def of(**changed: Any) -> bytes:
        return sealed(msgpack.packb({**whole, **changed}))

    body = msgpack.packb(whole)
    reason = msgpack.packb("reason")
    twice = body[:-1] + b"\x82" + reason + msgpack.packb("a") + reason + msgpack.packb("b")
    tried: list[tuple[str, bytes]] = [
        ("as it should be", of()),
        ("keys in another order", sealed(msgpack.packb(dict(reversed(whole.items()))))),
        ("numbers and lengths in longer forms", b"\xdc\x00\x02" + sealed(body)[1:]),
        ("with a prev and a reason", of(prev=bytes(range(32)), data={"reason": "not needed"})),
        ("nil for what has a default", of(data={"reason": None})),
        ("nil for what is optional", of(type="process.completed", data={"attempt": ulid(2), "stored": None})),
        ("a reason that is too long", of(data={"reason": "x" * 1_001})),
        ("an unknown field", of(data={"reasons": "x"})),
        ("a key given twice", sealed(twice)),
        ("data that names a type", of(data={"type": "process.cancelled"})),
        ("an unknown type", of(type="process.forgotten")),
        ("a type that is too long", of(type="x" * 65)),
        ("version 2", of(v=2)),
        ("true for the version", of(v=True)),
        ("an id that is no ULID", of(id=ulid(1).lower())),
        ("an id that is too large", of(id="8" + ulid(1)[1:])),
        ("a time before 1970", of(time=-1)),
        ("a time as a float", of(time=1.0)),
        ("a prev of 31 bytes", of(prev=bytes(31))),
        ("a prev as text", of(prev="0" * 32)),
        ("one key more", sealed(msgpack.packb({**whole, "more": 1}))),
        ("one key less", sealed(msgpack.packb({k: v for k, v in whole.items() if k != "prev"}))),
        ("a byte behind the end", of() + b"\x00"),
        ("a byte behind the payload", sealed(body + b"\x00")),
        ("cut short", of()[:-1]),
        ("nothing", b""),
        ("no array", msgpack.packb("text")),
        ("a payload as text", msgpack.packb(["text", bytes(64)])),
        ("a signature of 63 bytes", msgpack.packb([body, bytes(63)])),
        ("a weak key", of(type="member.approved", data={"role": "user", "key": WEAK})),
        ("the key of an account", of(type="member.approved", data={"role": "worker", "key": ACCOUNT.public})),
        ("a number where text is wanted", of(data={"reason": 1})),
        ("a lease below the least", of(type="colony.configured", data={"lease_s": 1.5})),
        ("a lease that is a whole number", of(type="colony.configured", data={"lease_s": 10})),
        ("true for a lease", of(type="colony.configured", data={"lease_s": True})),
        ("a lease that is not a number", of(type="colony.configured", data={"lease_s": float("nan")})),
    ]  # fmt: skip
    return [{"what": what, "subject": SUBJECT, "data": data.hex(), **_opened(data)} for what, data in tried]


def _opened(data: bytes) -> dict[str, Any]:
    try:
        found = codec.open_(COLONY, SUBJECT, data)
        found.event()
    except codec.Malformed:
        return {"event": False}
    assert found.is_signed_by(keypair("ann").public)
    return {
        "event": True,
        "signed": found.signed.hex(),
        "digest": found.digest.hex(),
        "id": found.id,
        "type": found.type,
    }


def names() -> dict[str, Any]:
    """Queue names with their canonical conditions, rungs, and the ids of keyed processes."""
    asked: list[tuple[dict[str, Any], int]] = [
        ({"runtimetype": "python"}, 0),
        ({"runtimetype": "python"}, -9),
        ({"runtimetype": "python", "nodes": 1, "processes": 1, "dependencies": ["a"]}, 0),
        ({"runtimetype": "python", "workernames": ["w2", "w1", "w2"]}, 0),
        ({"runtimetype": "cli", "cpu": 2.0}, 0),
        ({"runtimetype": "cli", "cpu": "500m"}, 0),
        ({"runtimetype": "cli", "mem": "10GB"}, 0),
        ({"runtimetype": "cli", "mem": "10Gi", "storage": "1.5Ti"}, 0),
        ({"runtimetype": "cli", "walltime": 60.5}, 3),
        ({"runtimetype": "cli", "walltime": -1, "mem": 0}, 3),
        ({"runtimetype": "cli", "gpu": {"mem": "40GB", "name": "A100", "count": 2}}, 9),
        (
            {
                "runtimetype": "cli",
                "labels": {"site": "north", "Zone": "1", "ähnlich": ""},
                "location": "ice",
            },
            0,
        ),
    ]
    queues = []
    for conditions, priority in asked:
        parsed = Conditions.parse(conditions)
        packed = msgpack.packb([parsed.canonical(), priority])
        queues.append(
            {
                "conditions": conditions,
                "priority": priority,
                "packed": packed.hex(),
                "queue": queue_of(parsed, priority),
            }
        )
    sizes = [0, 1, 7, 8, 15, 16, 17, 18, 31, 33, 1_000, 10**9, 10**10, 10_100_000_000, 10 * 2**30, 2**60]
    runs = [("cron", "nightly", 7, START), ("generator", "frames", 7, 0)]
    ids = ["01K742SG000000000000000001", keyed_id("ann", "invoice 7")]
    keyed = [("ann", "invoice 7"), ("bob", "invoice 7"), ("ann", "Grüße")]
    return {
        "queues": queues,
        "rungs": [[size, units.rung(size)] for size in sizes],
        "keyed": [{"submitter": who, "key": key, "process": keyed_id(who, key)} for who, key in keyed],
        "limits": [{"key": key, "limit": digest_of(key)} for key in ("customer-7", "func:größe")],
        "colony": COLONY,
        "spans": [{"of": what, "id": id, "span": span_id(COLONY, what, id)} for what in SPANS for id in ids],
        "traces": [{"id": id, "trace": own(COLONY, "process", id).trace_id} for id in ids],
        "runs": [
            {"kind": k, "name": n, "added": a, "of": o, "workflow": derived_id(k, n, str(a), str(o))}
            for k, n, a, o in runs
        ],
    }


def notes(colony: Colony) -> list[dict[str, Any]]:
    """Heartbeats and log messages, read by the colony at the end of `ledger.json`: do they count?"""
    w1, attempt, process = keypair("w1"), ulid(7), ulid(8)
    beat = {
        "instance": "i1",
        "runtimetype": "python",
        "concurrency": 4,
        "attempts": {process: [attempt, 0.5, "half"]},
    }
    line = {"attempt": attempt, "n": 1, "index": 0, "stream": "stdout", "text": "hello\n"}
    log = f"log.{process}.w1"
    tried: list[tuple[str, str, str, str, KeyPair, dict[str, Any]]] = [
        ("a heartbeat", "heartbeat.w1.i1", "heartbeat", "w1", w1, beat),
        ("of another instance", "heartbeat.w1.i2", "heartbeat", "w1", w1, beat),
        ("in another's name", "heartbeat.w2.i1", "heartbeat", "w1", w1, beat),
        ("signed by another", "heartbeat.w1.i1", "heartbeat", "w1", keypair("w2"), beat),
        ("of a revoked member", "heartbeat.gone.i1", "heartbeat", "gone", keypair("gone"), beat),
        ("of a user", "heartbeat.ann.i1", "heartbeat", "ann", keypair("ann"), beat),
        ("output", log, "log.written", "w1", w1, line),
        (
            "a refused result",
            log,
            "log.refused",
            "w1",
            w1,
            {**line, "event": "process.completed", "reason": "late"},
        ),
        ("a stopped run", log, "log.stopped", "w1", w1, {**line, "reason": "cancelled"}),
        ("text that is none", log, "log.written", "w1", w1, {**line, "text": b"hello"}),
        ("of no attempt", log, "log.written", "w1", w1, {**line, "attempt": ""}),
        ("another type", log, "log.erased", "w1", w1, line),
    ]
    made = []
    for what, subject, type, author, key, data in tried:
        sealed = codec.seal(
            key, COLONY, subject, id=ulid(9), type=type, time=START, author=author, prev=None, data=data
        ).data
        read: Callable[[Colony, Stored], object] = (
            read_heartbeat if subject.startswith("heartbeat.") else read_log
        )
        counts = read(colony, Stored(subject, 1, START + 10**9, sealed)) is not None
        made.append(
            {"what": what, "subject": subject, "time": START + 10**9, "data": sealed.hex(),
             "sha256": hashlib.sha256(sealed).hexdigest(), "counts": counts}
        )  # fmt: skip
    return made
