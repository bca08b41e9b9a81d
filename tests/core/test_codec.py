"""Events as bytes: what goes in comes out, all else is refused, and nothing can be moved or changed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from colonies import codec, values
from colonies.codec import MAX_EVENT_BYTES, Malformed, Opened, Sealed
from colonies.core.capacity import Capacity
from colonies.core.events import (
    MAX_COUNT,
    MAX_DELAY_S,
    MAX_ERROR_CHARS,
    MAX_LEASE_S,
    MAX_STORED_BYTES,
    MAX_UNIX_S,
    MAX_VALUE_LEVELS,
    Approved,
    Assigned,
    Awaited,
    Cancelled,
    ColonyPaused,
    ColonyResumed,
    Completed,
    Configured,
    CronAdded,
    CronPaused,
    CronRemoved,
    CronResumed,
    Declared,
    Event,
    Expired,
    Failed,
    Function,
    GeneratorAdded,
    GeneratorPacked,
    GeneratorRemoved,
    Genesis,
    Granted,
    LogDigest,
    Part,
    Poisoned,
    Queued,
    QueuePaused,
    QueueResumed,
    Received,
    Ref,
    Released,
    Renewed,
    Requeued,
    Retired,
    Returned,
    Revoked,
    Role,
    Rotated,
    Signalled,
    Skipped,
    Source,
    Submitted,
    WebhookAdded,
    WebhookChanged,
    WebhookRemoved,
    WorkerDrained,
    WorkerResumed,
    WorkerStarted,
    WorkerStopped,
    WorkflowCancelled,
    WorkflowSignalled,
    WorkflowSubmitted,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.node import Node
from colonies.core.spec import Conditions, Spec
from colonies.errors import Invalid
from colonies.ids import new_id
from colonies.nkeys import KeyPair

ANN = KeyPair.new("user")
BOB = KeyPair.new("user")
ACCOUNT = KeyPair.new("account").public
SUBJECT = f"ledger.process.{new_id()}.completed.ann"
SPEC = Spec.parse({"func": "resize", "conditions": {"runtimetype": "cli"}})


def seal(
    type: str = "process.completed",
    data: Any = None,
    *,
    subject: str = SUBJECT,
    keypair: KeyPair = ANN,
    **envelope: Any,
) -> Sealed:
    data = {"attempt": new_id()} if data is None else data
    given_or_usual = {"id": new_id(), "time": 1, "author": "ann", "prev": None, **envelope}
    return codec.seal(keypair, ACCOUNT, subject, type=type, data=data, **given_or_usual)


def opened(sealed: Sealed, subject: str = SUBJECT) -> Opened:
    return codec.open_(ACCOUNT, subject, sealed.data)


def raw(payload: Any, *, encoded: bool = False) -> bytes:
    """An envelope, properly signed, around any payload."""
    inner = payload if encoded else msgpack.packb(payload)
    return msgpack.packb([inner, ANN.sign(codec.context(ACCOUNT, SUBJECT) + inner)])


def refusal(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        codec.open_(ACCOUNT, SUBJECT, data).event()
    text = str(caught.value)
    assert len(text) < 500
    assert text.isprintable()
    return text


def refused(type: str, data: Any) -> str:
    return refusal(seal(type, data).data)


def payload(**fields: Any) -> dict[str, Any]:
    usual = {"v": 1, "id": new_id(), "type": "process.expired", "time": 1, "author": "w1", "prev": None}
    return {**usual, "data": {}, **fields}


# --- round trip -------------------------------------------------------------------------------------

ids = st.integers(0, 2**128 - 1).map(lambda number: str(ULID.from_int(number)))
names = st.text("abcXYZ019_-", min_size=1, max_size=64)
member_names = st.text("abc019", min_size=1, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
some_text = texts.filter(bool)
reasons = texts
leases = st.floats(2, MAX_LEASE_S) | st.integers(2, int(MAX_LEASE_S)).map(float)
delays = st.floats(0, MAX_DELAY_S)
counts = st.integers(0, MAX_COUNT)
ends = st.integers(1, MAX_UNIX_S)
signatures = st.binary(min_size=64, max_size=64)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
user_keys = st.sampled_from([KeyPair.new("user").public for _ in range(3)])
account_keys = st.sampled_from([KeyPair.new("account").public for _ in range(3)])
roles = st.sampled_from(get_args(Role))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
refs = st.builds(
    Ref, digests, st.integers(0, MAX_STORED_BYTES), st.builds("{}.{}".format, member_names, st.just("Ab1"))
)
log_digests = st.builds(LogDigest, counts, digests)
specs = st.builds(
    lambda fields: Spec.parse({**SPEC.wire(), **fields}),
    st.fixed_dictionaries(
        {},
        optional={
            "func": st.sampled_from(["resize", "cat <<END\nhi\nEND\n"]),
            "args": st.lists(st.integers(-9, 9) | st.text("ab"), max_size=3),
            "kwargs": st.dictionaries(st.text("ab", max_size=3), st.integers(), max_size=0),
            "label": st.just("nightly"),
            "delay": st.floats(0.001, 1e6),
            "at": st.floats(1, 2**33),
            "priority": st.integers(-9, 9),
            "maxwaittime": st.floats(0.001, 1e6),
            "maxretries": st.integers(-1, 9),
            "env": st.just({"A": "b"}),
        },
    ),
)
conditions = st.builds(
    lambda fields: Conditions.parse({"runtimetype": "cli", **fields}),
    st.fixed_dictionaries(
        {},
        optional={
            "workernames": st.lists(names, max_size=3),
            "mem": st.integers(1, 2**40),
            "labels": st.just({"zone": "north"}),
            "gpu": st.just({"count": 2, "mem": "40Gi"}),
        },
    ),
)
functions = st.builds(
    Function, some_text, texts, st.none() | st.dictionaries(st.text("ab", max_size=3), json_values)
)
capacities = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.sampled_from([0.5, 4.0]),
        "mem": st.integers(1, 2**40),
        "gpus": st.just([{"id": "0", "name": "A100", "mem": 2**30}]),
        "labels": st.just({"zone": "north"}),
        "walltime": st.just(60.0),
    },
).map(Capacity.parse)
runs = {"func": "resize", "conditions": {"runtimetype": "cli"}}
node_names = st.text("abc01_-", min_size=1, max_size=9)
labels = st.builds("{}[{}]/{}".format, node_names, st.integers(0, 9_999), node_names) | node_names
workflow_ids = ids | st.text("abc234567", min_size=32, max_size=32)
texts_of_paths = st.sampled_from(["", ".", "a", "a.b", "..", "0.é"])
nodes = st.builds(
    lambda name, fields, kind: Node.read({"name": name, **kind, **fields}),
    node_names,
    st.fixed_dictionaries(
        {},
        optional={
            "dependencies": st.lists(node_names, max_size=3),
            "when": st.sampled_from(["a > `1`", "'x' == a.b[0]", '!contains(a, `"x"`)']),
            "allow_failure": st.booleans(),
        },
    ),
    st.sampled_from([runs, {"wait_signal": {"name": "go", "timeout": 1.5}}])
    | st.builds(
        lambda path, kind: {
            **runs,
            "map": {f"${kind}": f"{'' if kind == 'packed' else 'list'}{path and '.'}{path}"},
            "args": [{"$item": path}, {"$literal": {"$x": 1}}],
        },
        texts_of_paths,
        st.sampled_from(["output", "parameter", "packed"]),
    ),
)
workflow_specs = st.builds(
    lambda given, fields: WorkflowSpec.read({"nodes": given, **fields}, whole=False),
    st.lists(nodes, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "name": names,
            "parameters": st.just({"list": [1]}),
            "on_failure": st.sampled_from(["continue", "stop"]),
            "delay": st.floats(0.001, 1e6),
            "at": st.floats(1, 2**33),
            "output": st.just("a"),
        },
    ),
)
sources = st.builds(
    Source,
    st.sampled_from(["cron", "generator"]),
    names,
    counts,
    st.none() | st.integers(0, 2**63 - 1),
    st.none() | workflow_ids,
    st.none() | st.integers(0, 2**63 - 1),
    st.none() | counts,
    st.none() | counts,
    st.none() | counts,
    st.none() | st.lists(counts, max_size=3),
)
of_a_node = (workflow_ids, labels, st.lists(counts, max_size=4))
intervals = st.none() | st.floats(1, 366 * 86_400)
zones = st.sampled_from(["UTC", "Europe/Berlin"])
attempt_ends = {"attempt": ids, "stored": st.none() | refs, "logs": st.none() | log_digests}
of_a_webhook = (
    st.sampled_from(["https://example.com", "http://[::1]:8080/hook?a=b", "https://a-b.example/%20"]),
    st.lists(st.sampled_from(["*", "process.*", "workflow.submitted"]), min_size=1, max_size=3),
    member_names,
    user_keys,
    st.binary(min_size=72, max_size=112),
    st.none() | some_text,
    st.none() | some_text,
)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    Genesis: st.builds(
        Genesis, names, member_names, user_keys, st.dictionaries(roles, account_keys, max_size=5), leases
    ),
    Configured: st.builds(Configured, leases),
    Approved: st.builds(Approved, user_keys, roles, st.none() | ends),
    Rotated: st.builds(Rotated, user_keys, user_keys, signatures, signatures, st.none() | ends),
    Revoked: st.builds(Revoked, reasons),
    Declared: st.builds(Declared, conditions, st.integers(-9, 9)),
    Retired: st.builds(Retired, counts),
    WorkerStarted: st.builds(
        WorkerStarted,
        names,
        names,
        st.integers(1, 10_000),
        st.lists(functions, max_size=3),
        st.none() | capacities,
    ),
    WorkerStopped: st.builds(WorkerStopped, names),
    Queued: st.builds(Queued, specs, st.none() | some_text, st.none() | refs),
    Requeued: st.builds(Requeued, counts),
    Assigned: st.builds(Assigned, ids, leases, names),
    Renewed: st.builds(Renewed, ids),
    Returned: st.builds(Returned, ids, reasons),
    Completed: st.builds(
        Completed,
        output=json_values,
        items=st.none() | counts,
        adds=st.none() | st.lists(nodes, max_size=2),
        between=st.none() | st.just(True),
        **attempt_ends,
    ),
    Failed: st.builds(
        Failed,
        error=texts,
        kind=st.sampled_from(["error", "timeout", "final", "later"]),
        delay_s=delays,
        **attempt_ends,
    ),
    Poisoned: st.just(Poisoned()),
    Expired: st.just(Expired()),
    Cancelled: st.builds(
        Cancelled, reasons, *(st.none() | given for given in (workflow_ids, labels, counts, labels))
    ),
    Submitted: st.builds(Submitted, specs, st.none() | some_text, st.none() | refs),
    Released: st.builds(Released, *of_a_node),
    Awaited: st.builds(Awaited, *of_a_node),
    Skipped: st.builds(Skipped, *of_a_node),
    Received: st.builds(Received, counts),
    Signalled: st.builds(Signalled, names, json_values),
    ColonyPaused: st.builds(ColonyPaused, reasons),
    ColonyResumed: st.just(ColonyResumed()),
    QueuePaused: st.builds(QueuePaused, reasons),
    QueueResumed: st.just(QueueResumed()),
    Granted: st.builds(
        Granted, some_text, st.dictionaries(workflow_ids, counts, max_size=3), st.none() | counts
    ),
    WorkerDrained: st.builds(WorkerDrained, reasons),
    WorkerResumed: st.just(WorkerResumed()),
    Part: st.builds(Part, st.lists(nodes, max_size=3), st.none() | some_text),
    WorkflowSubmitted: st.builds(
        WorkflowSubmitted,
        st.none() | workflow_specs,
        st.none() | st.lists(digests, max_size=3),
        st.none() | some_text,
        st.none() | sources,
        st.none() | workflow_ids,
        st.none() | st.dictionaries(labels, workflow_ids, max_size=3),
    ),
    WorkflowCancelled: st.builds(WorkflowCancelled, reasons),
    WorkflowSignalled: st.builds(WorkflowSignalled, names, json_values),
    CronAdded: st.builds(
        CronAdded,
        workflow_specs,
        st.none() | st.just("0 3 * * *"),
        intervals,
        zones,
        st.floats(0, 86_400),
        st.booleans(),
        st.sampled_from(["none", "one", "all"]),
    ),
    CronPaused: st.builds(CronPaused, reasons),
    CronResumed: st.just(CronResumed()),
    CronRemoved: st.builds(CronRemoved, reasons),
    GeneratorAdded: st.builds(GeneratorAdded, workflow_specs, st.integers(1, 100_000), intervals),
    GeneratorPacked: st.builds(GeneratorPacked, counts, st.lists(json_values, max_size=3)),
    GeneratorRemoved: st.builds(GeneratorRemoved, reasons),
    WebhookAdded: st.builds(WebhookAdded, *of_a_webhook),
    WebhookChanged: st.builds(WebhookChanged, *of_a_webhook),
    WebhookRemoved: st.builds(WebhookRemoved, reasons),
}


def test_every_type_of_event_is_tried_here() -> None:
    assert set(BY_TYPE) == set(get_args(Event))


@pytest.mark.parametrize("kind", BY_TYPE, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_event_comes_out_as_it_went_in(kind: type, data: st.DataObject) -> None:
    event = data.draw(BY_TYPE[kind])
    sealed = seal(event.type, codec.data_of(event), prev=bytes(32), time=17)
    found = opened(sealed)
    assert found.event() == event
    assert (found.author, found.time, found.prev, found.digest) == ("ann", 17, bytes(32), sealed.digest)
    assert found.is_signed_by(ANN.public)
    assert not found.is_signed_by(BOB.public)


@given(json_values)
def test_whatever_can_be_stored_as_a_result_is_a_result_on_the_ledger(value: Any) -> None:
    """Else an honest worker would say what every verifier refuses, and its process would loop."""
    inline = msgpack.unpackb(values.pack(value, "the output"))
    assert opened(seal(data=codec.data_of(Completed(new_id(), inline)))).event()


def test_the_strangest_results_that_can_be_stored_are_results_on_the_ledger() -> None:
    def storable(value: Any) -> bool:
        try:
            return bool(values.pack(value, "the output"))
        except Invalid:
            return False

    deepest: Any = 0
    while storable([deepest]):
        deepest = [deepest]
    for value in (deepest, math.inf, 2**64 - 1, {"": [None]}):
        inline = msgpack.unpackb(values.pack(value, "the output"))
        event = opened(seal(data=codec.data_of(Completed(new_id(), inline)))).event()
        assert isinstance(event, Completed)
        assert event.output == value
    nan = opened(seal(data=codec.data_of(Completed(new_id(), math.nan)))).event()
    assert isinstance(nan, Completed)
    assert math.isnan(nan.output)


# --- bytes that are no event ------------------------------------------------------------------------


def only_malformed(data: bytes) -> None:
    try:
        codec.open_(ACCOUNT, SUBJECT, data).event()
    except Malformed as refused:
        text = str(refused)
        assert len(text) < 500
        text.encode()


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_malformed(data: bytes) -> None:
    only_malformed(data)
    only_malformed(raw(data, encoded=True))


@given(
    st.sampled_from([kind.__dataclass_fields__["type"].default for kind in BY_TYPE]),
    st.dictionaries(
        st.sampled_from(["spec", "attempt", "output", "key", "roles", "type", "lease_s", "instance"]) | texts,
        json_values | st.binary(max_size=5),
        max_size=5,
    ),
)
def test_any_data_is_an_event_or_malformed(type: str, data: dict[str, Any]) -> None:
    only_malformed(seal(type, data).data)


@given(st.data())
def test_an_event_with_some_bytes_changed_is_an_event_or_malformed(data: st.DataObject) -> None:
    event = data.draw(st.one_of(list(BY_TYPE.values())))
    inner = bytearray(msgpack.unpackb(seal(event.type, codec.data_of(event)).data)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(inner) - 1))
        inner[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        inner = inner or bytearray(1)
    only_malformed(raw(bytes(inner), encoded=True))


DEEP = b"\x91" * 900 + b"\xc0"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not msgpack"),
        (b"\x91" * 100_000, "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"\xdd\xff\xff\xff\xff", "not msgpack"),
        (b"\xdf\xff\xff\xff\xff", "not msgpack"),
        (msgpack.packb([b"", b"\0" * 63]), "not a pair"),
        (msgpack.packb([b"", b"\0" * 64, 1]), "not a pair"),
        (msgpack.packb({"payload": 1}), "not a pair"),
        (msgpack.packb([b"\xc0", b"\0" * 64]) + b"\xc0", "not msgpack"),
        (bytes(MAX_EVENT_BYTES + 1), "1000001 bytes; an event has at most 1000000"),
        (raw([]), "not a map"),
        (raw({"v": 1}), "not a map"),
        (raw({**payload(), "more": 1}), "not a map"),
        (raw(payload(data=[])), "not a map"),
        (raw(payload(id=b"x")), "not a map"),
        (raw(payload(prev="x")), "not a map"),
        (raw(payload(v=2)), "version 2; this program reads version 1"),
        (raw(payload(v=True)), "version true"),
        (raw(payload(v=1.0)), "not a map"),
        (raw(payload(id="7" * 25)), "not a ULID"),
        (raw(payload(id="\x1b[31m")), "not a ULID"),
        (raw(payload(id="8" + "0" * 25)), "not a ULID"),
        (raw(payload(time=-1)), "its time"),
        (raw(payload(time=2**63)), "its time"),
        (raw(payload(time=True)), "its time"),
        (raw(payload(prev=b"x" * 31)), "not a SHA-256"),
        (raw(payload(type="x" * 65)), "its type has 65 characters"),
        (raw(payload(type="process.eaten")), "no such type"),
        (raw(payload(type="\x1b[31m")), "no such type"),
        (raw(payload(data={"type": "process.poisoned"})), "names a type"),
        (raw(payload(data={1: 2})), "not msgpack"),
        (raw(payload(data={b"x": 2})), "process.expired"),
        (raw(payload(data={"x" * 9_000: 2})), "Unexpected keyword argument"),
        (raw(payload(type="process.completed", data={"attempt": new_id(), "output": {b"k": 1}})), "no text"),
        (raw(b"\xa4\xed\xa0\x80\x80", encoded=True), "not msgpack"),
        (raw(b"\xd6\xff\xff\xff\xff", encoded=True), "not msgpack"),
    ],
    ids=range(36),
)
def test_what_is_no_event_is_refused_in_one_short_line(data: bytes, said: str) -> None:
    assert said in refusal(data)


def test_a_key_given_twice_is_refused_since_readers_would_differ_on_which_counts() -> None:
    twice = b"\x82\xa1a\x01\xa1a\x02"
    inner = msgpack.packb(payload(type="process.completed", data=0))[:-1] + twice
    assert "given twice" in refusal(raw(inner, encoded=True))


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (b"bytes", "JSON has not"),
        ([{"a": msgpack.ExtType(5, b"x")}], "JSON has not"),
        (msgpack.Timestamp(1, 2), "JSON has not"),
    ],
)
def test_a_result_holds_only_what_json_has(output: Any, said: str) -> None:
    assert said in refused("process.completed", {"attempt": new_id(), "output": output})


def test_a_result_is_not_nested_deeper_than_any_reader_can_follow() -> None:
    inner = msgpack.packb(payload(type="process.completed", data={"attempt": new_id(), "output": None}))
    assert f"deeper than {MAX_VALUE_LEVELS} levels" in refusal(raw(inner[:-1] + DEEP, encoded=True))


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("process.assigned", {"offer": "x", "lease_s": 10.0, "instance": "one"}),
        ("process.assigned", {"offer": new_id(), "lease_s": 1.9, "instance": "one"}),
        ("process.assigned", {"offer": new_id(), "lease_s": MAX_LEASE_S + 1, "instance": "one"}),
        ("process.assigned", {"offer": new_id(), "lease_s": math.nan, "instance": "one"}),
        ("process.assigned", {"offer": new_id(), "lease_s": "10", "instance": "one"}),
        ("process.assigned", {"offer": new_id(), "lease_s": True, "instance": "one"}),
        ("process.assigned", {"offer": new_id(), "lease_s": 10.0, "instance": ">"}),
        ("process.assigned", {"offer": new_id(), "lease_s": 10.0, "instance": ""}),
        ("process.assigned", {"offer": new_id(), "lease_s": 10.0, "instance": "a.b"}),
        ("process.requeued", {"cites": -1}),
        ("process.requeued", {"cites": 2**63}),
        ("process.requeued", {"cites": 1.0}),
        ("process.failed", {"attempt": new_id(), "error": "x" * (MAX_ERROR_CHARS + 1)}),
        ("process.failed", {"attempt": new_id(), "error": "x", "kind": "other"}),
        ("process.failed", {"attempt": new_id(), "error": "x", "delay_s": -1.0}),
        ("process.failed", {"attempt": new_id(), "error": "x", "delay_s": MAX_DELAY_S + 1.0}),
        ("process.completed", {"attempt": new_id(), "logs": {"count": 2**64 - 1, "sha256": "0" * 64}}),
        ("process.completed", {"attempt": new_id(), "logs": {"count": 1, "sha256": "0" * 63}}),
        (
            "process.completed",
            {"attempt": new_id(), "stored": {"sha256": "0" * 64, "size_bytes": 2**40, "object": "w1.a"}},
        ),
        (
            "process.completed",
            {"attempt": new_id(), "stored": {"sha256": "0" * 64, "size_bytes": 1, "object": "../a"}},
        ),
        ("process.cancelled", {"reason": "x" * 1_001}),
        ("process.queued", {"spec": SPEC.wire(), "key": ""}),
        ("process.queued", {"spec": {**SPEC.wire(), "nonsense": 1}}),
        ("worker.started", {"instance": "one", "runtimetype": "cli", "concurrency": 0, "functions": []}),
        (
            "worker.started",
            {
                "instance": "one",
                "runtimetype": "cli",
                "concurrency": 1,
                "functions": [{"name": "f", "schema": {"a": b"x"}}],
            },
        ),
    ],
    ids=range(25),
)
def test_what_is_over_its_limit_or_of_another_type_is_no_event(type: str, data: dict[str, Any]) -> None:
    assert type in refused(type, data)


NO_USERS = ["U" * 56, "UAAA", KeyPair.new("account").public, ANN.seed[:56], ANN.public.lower()]


@pytest.mark.parametrize("key", NO_USERS, ids=range(5))
def test_a_key_that_nobody_can_check_a_signature_with_is_never_approved(key: str) -> None:
    assert "member.approved" in refused("member.approved", {"key": key, "role": "user"})
    genesis = codec.data_of(Genesis("lab", "olga", ANN.public, {"user": ACCOUNT}, 10.0))
    assert "colony.genesis" in refused("colony.genesis", {**genesis, "owner_key": key})
    if not key.startswith("A"):
        assert "colony.genesis" in refused("colony.genesis", {**genesis, "roles": {"user": key}})


def test_a_refused_spec_does_not_show_its_environment() -> None:
    spec = {**SPEC.wire(), "env": {"TOKEN": "hunter2\0"}}
    assert "hunter2" not in refused("process.queued", {"spec": spec})


# --- signatures -------------------------------------------------------------------------------------


def test_what_is_signed_is_the_colony_the_subject_and_the_bytes_as_they_stand() -> None:
    sealed = seal()
    inner, signature = msgpack.unpackb(sealed.data)
    expected = f"colonies/1:{ACCOUNT}:{SUBJECT}\n".encode() + inner
    assert opened(sealed).signed == expected
    assert ANN.sign(expected) == signature


def test_a_signature_does_not_hold_in_another_colony_or_on_another_subject() -> None:
    sealed = seal()
    assert not codec.open_(KeyPair.new("account").public, SUBJECT, sealed.data).is_signed_by(ANN.public)
    assert not opened(sealed, SUBJECT.replace("completed", "failed")).is_signed_by(ANN.public)
    assert opened(sealed).digest != opened(sealed, SUBJECT + "x").digest


def test_the_same_content_encoded_in_another_way_is_another_event() -> None:
    longer = msgpack.packb(payload(time=1))
    assert longer.count(b"\xa4time\x01") == 1
    same = longer.replace(b"\xa4time\x01", b"\xa4time\xcc\x01")
    first, second = (codec.open_(ACCOUNT, SUBJECT, raw(data, encoded=True)) for data in (longer, same))
    assert replace(first, signed=b"", signature=b"", digest=b"") == replace(
        second, signed=b"", signature=b"", digest=b""
    )
    assert first.digest != second.digest
    assert not replace(first, signature=second.signature).is_signed_by(ANN.public)
