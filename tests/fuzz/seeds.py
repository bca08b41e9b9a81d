"""Where the fuzzer starts from: real events, tokens and specs, made by code. No file of bytes is kept."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable

import msgpack

from colonies import codec, jwt
from colonies.core.events import (
    Assigned,
    Cancelled,
    Completed,
    Declared,
    Event,
    Failed,
    Function,
    LogDigest,
    Queued,
    Ref,
    Renewed,
    Requeued,
    Returned,
    WorkerStarted,
    WorkerStopped,
)
from colonies.core.spec import Spec
from colonies.creds import Credential
from tests.fuzz import world
from tests.fuzz.targets import TARGETS, TYPES

FULL_SPEC = {
    "func": "resize",
    "args": ["in.png", 2, 1.5, None, [True, {"a": []}]],
    "kwargs": {"to": "out.png"},
    "name": "resizing",
    "label": "nightly",
    "priority": 3,
    "maxwaittime": 60,
    "maxexectime": 1.5,
    "maxretries": -1,
    "env": {"HOME": "/tmp", "EMPTY": ""},
    "colony": "lab",
    "conditions": {
        "runtimetype": "cli",
        "workernames": ["w1", "w2"],
        "location": "north",
        "labels": {"zone": "a"},
        "cpu": "500m",
        "mem": "1.5Gi",
        "storage": "10GB",
        "gpu": {"count": 1, "name": "A100", "mem": "40GB"},
        "nodes": 2,
        "processes": 4,
        "walltime": 3_600,
        "dependencies": ["a", "b"],
    },
}
ALIASED = {"funcname": "f", "conditions": {"executortype": "cli", "colonyname": "lab", "runtimeids": ["w"]}}


def real_events() -> list[tuple[Event, str, str]]:
    """Events as they are in a life: each with its author and its entity."""
    attempt, ref = world.ulid(20), Ref("0" * 64, 200_000, "w1.Ab12")
    full = {**FULL_SPEC, "conditions": {**FULL_SPEC["conditions"], "dependencies": []}}  # type: ignore[dict-item]
    of_process: list[tuple[Event, str]] = [
        (Queued(world.SPEC), "ann"),
        (Queued(Spec.parse(full), key="k"), "ann"),
        (Queued(world.SPEC, arguments=ref), "bob"),
        (Assigned(world.ulid(9), 10.0, "one"), "w1"),
        (Renewed(attempt), "w1"),
        (Returned(attempt, "stopping"), "w1"),
        (Completed(attempt, {"n": [1, 2.5, None]}, logs=LogDigest(2, "0" * 64)), "w1"),
        (Completed(attempt, None, ref), "w2"),
        (Failed(attempt, "broken", "later", 2.0), "w2"),
        (Requeued(12), "orch"),
        (Cancelled("enough"), "ann"),
    ]
    function = Function("f", "does it", {"type": "object", "properties": {"n": {"type": "integer"}}})
    return [(event, author, world.PROCESS) for event, author in of_process] + [
        (Declared(world.SPEC.conditions, 0), "ann", world.QUEUE),
        (WorkerStarted("one", "cli", 2, [function]), "w1", "w1"),
        (WorkerStopped("one"), "w1", "w1"),
    ]


def _messages() -> list[tuple[str, bytes]]:
    """(subject, message) of real events."""
    found = [(stored.subject, stored.data) for stored in world.beginning()]
    for number, (event, author, entity) in enumerate(real_events(), start=100):
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


def _claims() -> list[bytes]:
    middle = _token().split(".")[1]
    user = base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))
    account = jwt.account_claims(subject=world.ACCOUNT.public, name="lab", revocations={"*": 1})
    return [
        user,
        json.dumps({**account, "iss": world.ACCOUNT.public, "iat": 1, "exp": 2, "jti": "x"}).encode(),
    ]


def _specs() -> list[dict[str, object]]:
    return [FULL_SPEC, ALIASED, world.SPEC.wire(), {"func": 1, "conditions": []}, {}]


def _datas() -> list[bytes]:
    return [
        bytes([TYPES.index(event.type)]) + msgpack.packb(codec.data_of(event))
        for event, _, _ in real_events()
    ]


def _notes() -> list[bytes]:
    head = {"attempt": world.ulid(20), "n": 1, "index": 0}
    refused = {**head, "event": "process.completed", "reason": "too late", "output": [1]}
    beat = {
        "instance": "one",
        "runtimetype": "cli",
        "concurrency": 2,
        "attempts": {world.PROCESS: [world.ulid(20), 0.5, "half"]},
    }
    return [
        b"\x00" + msgpack.packb({**head, "stream": "stdout", "text": "hello\n"}),
        b"\x01" + msgpack.packb(refused),
        b"\x02" + msgpack.packb({**head, "reason": "cancelled", "error": "x"}),
        b"\x80" + msgpack.packb(beat),
    ]


def _examined() -> list[bytes]:
    return [subject.encode() + b"\n" + msgpack.unpackb(data)[0] for subject, data in _messages()]


def _questions() -> list[bytes]:
    asked = [{}, {"limit": 10, "state": "failed", "func": "f"}, {"state": "alive", "runtimetype": "cli"}]
    return [json.dumps(question).encode() for question in asked]


def _contexts() -> list[bytes]:
    context = {"url": "nats://127.0.0.1:4222", "creds": "~/ann.creds", "keys": "k", "members": "m"}
    return [json.dumps(said).encode() for said in (context, {"sequence": 9, "digest": "00"})] + [b"x\n"]


# Choices of `tests.fuzz.folding`, the same each time.
_LIVES = [random.Random(number).randbytes(700) for number in range(8)]

_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "envelope": lambda: [part for _, data in _messages() for part in (data, msgpack.unpackb(data)[0])],
    "event": _datas,
    "examine": _examined,
    "history": lambda: _LIVES,
    "subject": lambda: [subject.encode() for subject, _ in _messages()],
    "note": _notes,
    "spec-text": lambda: [json.dumps(spec).encode() for spec in _specs()],
    "spec-msgpack": lambda: [msgpack.packb(spec) for spec in _specs()],
    "size": lambda: [b"10GB", b"1.5Gi", b"512", b"2s", b"1m", b"nats://host:4222", b"wss://[::1]:1"],
    "token": lambda: [_token().encode()],
    "claims": _claims,
    "credential": lambda: [Credential.of(_token(), world.KEYS["ann"]).text().encode()],
    "nkey": lambda: [key.encode() for pair in world.KEYS.values() for key in (pair.public, pair.seed)],
    "question": _questions,
    "small-files": _contexts,
}
assert _SEEDS.keys() == TARGETS.keys()


def seeds(target: str) -> list[bytes]:
    """Inputs for a target to start from, the same each time."""
    return _SEEDS[target]()
