"""Bytes from strangers: no door breaks, hangs or takes more memory than its limits say, whatever comes in.

The doors and what holds at each are those of the fuzzer (`tests/fuzz/targets.py`); here they are tried with
a few hundred inputs each. Below are the inputs that once broke one, and those made to break a naive reader.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import colonies
from colonies import codec, contexts, files, jwt, values, witness
from colonies.core import when
from colonies.core.events import Completed, Ref
from colonies.core.flow import WorkflowSpec
from colonies.core.node import Node
from colonies.core.spec import Spec
from colonies.creds import MAX_FILE_BYTES, Credential
from colonies.errors import ColoniesError, Invalid, NotFound
from colonies.heartbeats import read_heartbeat
from colonies.ledger import Stored
from colonies.logs import read_log
from tests.fuzz import folding, world
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

LIMIT_S = 20.0  # generous: what is exponential takes for ever


def mutated(seed: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    data = bytearray(seed)
    for at, width, piece in changes:
        at %= len(data) + 1
        data[at : at + width] = piece
    return bytes(data)


def near(target: str) -> st.SearchStrategy[bytes]:
    """Real inputs of a target, some of their bytes changed; and any bytes."""
    change = st.tuples(st.integers(0, 2_000), st.integers(0, 9), st.binary(max_size=9))
    seed = st.sampled_from(seeds(target))
    return st.builds(mutated, seed, st.lists(change, max_size=4)) | seed | st.binary(max_size=300)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
def test_no_door_breaks_whatever_comes_in(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(near(target)))


def test_the_fuzzers_histories_go_everywhere() -> None:
    """Else the fold would be fuzzed in its first state only."""
    states: set[str] = set()
    for seed in seeds("history"):
        for end in (60, 200, 700):
            states |= {process.state for process in folding.fold(seed[:end]).processes.values()}
    assert states >= {"waiting", "running", "successful", "failed", "cancelled"}


def test_every_seed_is_what_it_says() -> None:
    """Else the fuzzer would start from refusals."""
    for seed in seeds("examine"):
        subject, _, payload = seed.partition(b"\n")
        codec.open_(world.ACCOUNT.public, subject.decode(), msgpack.packb([payload, b"\0" * 64])).event()
    for seed in seeds("credential"):
        assert Credential.parse(seed.decode()).role == "user"
    assert sum(read_note(seed) is not None for seed in seeds("note")) == len(seeds("note"))


def read_note(seed: bytes) -> Any:
    return note(msgpack.unpackb(seed[1:]), type=("log.written", "log.refused", "log.stopped")[seed[0] % 3])


def note(data: dict[str, Any], *, type: str = "log.stopped") -> Any:
    """What readers make of a worker's signed heartbeat or log message."""
    beats = "instance" in data
    place = "heartbeat.w1.one" if beats else f"log.{world.PROCESS}.w1"
    kind = "heartbeat" if beats else type
    signed = world.envelope(place, world.KEYS["w1"], "w1", type=kind, data=data, number=3)
    return (read_heartbeat if beats else read_log)(world.colony(), Stored(place, 1, world.START, signed.data))


# --- what once broke a reader -----------------------------------------------------------------------

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
WRITTEN = {"attempt": world.ulid(1), "n": 1, "index": 0, "reason": "late"}
BEAT = {"instance": "one", "runtimetype": "cli", "concurrency": 1, "attempts": {}}


@pytest.mark.parametrize(
    "odd",
    [
        {"reason": b"\xff"},
        {"reason": b""},
        {"error": []},
        {"reason": DEEP},
        {"error": msgpack.Timestamp(1)},
        {"event": 5},
        {"attempt": "\x1b[31m"},
        {"n": -1},
        {"n": 2**63},
        {"index": -1},
    ],
    ids=str,
)
def test_a_workers_note_that_cannot_be_shown_is_nothing(odd: dict[str, Any]) -> None:
    assert note(WRITTEN) is not None
    assert note(WRITTEN | odd) is None


@pytest.mark.parametrize("concurrency", [0, -1, 10_001, 2**63])
def test_a_heartbeat_that_no_worker_would_say_is_nothing(concurrency: int) -> None:
    assert note(BEAT) is not None
    assert note(BEAT | {"concurrency": concurrency}) is None


def test_a_token_whose_type_is_deep_is_invalid() -> None:
    for depth in (100, 900, 990, 5_000, 100_000):
        header = b'{"typ":' + b"[" * depth + b"]" * depth + b',"alg":"ed25519-nkey"}'
        with pytest.raises(Invalid):
            jwt.decode(f"{jwt._segment(header)}.e30.AA")


@pytest.mark.parametrize("home", ["~nobody-has-this-name/x.creds", "~\x7f", "~a\0b/x"])
def test_a_home_folder_that_there_is_not_is_invalid(home: str) -> None:
    with pytest.raises(Invalid, match="no home folder"):
        files.expanded(home)
    with pytest.raises(Invalid):
        contexts.credential_of(contexts.Context("x", "nats://x", home))


@pytest.mark.parametrize("data", [b"[" * 60_000, b'{"url":"x","creds":"' + b"a" * 70_000 + b'"}', b"\xff"])
def test_a_context_file_of_anything_is_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setenv("COLONIES_CONFIG_DIR", str(tmp_path))
    (tmp_path / "contexts").mkdir()
    (tmp_path / "contexts" / "x.json").write_bytes(data)
    with pytest.raises(Invalid, match="add the context again"):
        contexts.load("x")


@pytest.mark.parametrize(
    "data", [b"[" * 4_000, b'{"sequence":1e999,"digest":"0"}', b'{"sequence":-1,"digest":"0"}', b" " * 10_000]
)
def test_a_high_water_mark_of_anything_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setenv("COLONIES_DATA_DIR", str(tmp_path))
    (tmp_path / "witness").mkdir()
    (tmp_path / "witness" / "A.json").write_bytes(data)
    assert witness.recall("A").sequence == 0


@pytest.mark.parametrize("wait_s", [math.nan, math.inf, -1.0, 1e300])
async def test_a_wait_that_no_clock_can_keep_is_invalid(wait_s: float) -> None:
    async with colonies.memory() as client:
        handle = await client.submit({"func": "f", "conditions": {"runtimetype": "none"}})
        for wait in (handle.wait, handle.result):
            with pytest.raises(Invalid, match="timeout: "):
                await wait(wait_s)
        with pytest.raises(Invalid, match="1001 characters; at most 1000"):
            await handle.cancel("x" * 1_001)
        await handle.cancel("x" * 1_000)


async def test_stored_arguments_that_are_none_are_an_error_of_ours() -> None:
    async with colonies.memory() as client:
        ledger = client.session.ledger
        for value in (1, [1], [1, 2, 3], [{}, []], "ab"):
            data = values.pack(value, "x")
            name = await ledger.put_value(client.name, data)
            ref = Ref(hashlib.sha256(data).hexdigest(), len(data), name)
            with pytest.raises(ColoniesError, match="not a pair of arguments"):
                await values.load_arguments(ledger, ref)


def test_arguments_that_are_too_deep_to_send_are_invalid() -> None:
    worker = colonies.Worker("python")

    @worker.function
    def f(x: Any) -> None: ...

    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(Invalid, match="cannot be sent"):
        f.call(deep)


# --- files ------------------------------------------------------------------------------------------


def test_a_pipe_is_read_to_its_end_and_within_its_limit(tmp_path: Path) -> None:
    def fed(data: bytes) -> bytes:
        read, write = os.pipe()
        feeder = threading.Thread(target=feed, args=(write, data))
        feeder.start()
        try:
            return files.read_small(f"/dev/fd/{read}", 100_000)
        finally:
            os.close(read)
            feeder.join()

    def feed(write: int, data: bytes) -> None:
        try:
            os.write(write, data[:10])
            time.sleep(0.05)
            os.write(write, data[10:])
        except BrokenPipeError:
            pass
        finally:
            os.close(write)

    assert fed(b"x" * 60_000) == b"x" * 60_000
    with pytest.raises(Invalid, match="more than 100000 bytes; allowed: at most 100000"):
        fed(b"x" * 100_001)


def test_a_pipe_that_nobody_writes_to_is_refused_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_SILENCE_S", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(Invalid, match="nothing was written to it"):
        files.read_spec(pipe)
    with pytest.raises(Invalid, match="nothing was written to it"):
        Credential.read(pipe)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    for place, said in [(tmp_path, "directory"), ("/dev/zero", "more than"), ("a\0b", "cannot be a path")]:
        for read in (files.read_spec, lambda path: Credential.read(Path(path))):
            with pytest.raises(Invalid, match=said):
                read(place)
    with pytest.raises(NotFound):
        Credential.read(tmp_path / "none")
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 7))
    with pytest.raises(Invalid, match=f"has {MAX_FILE_BYTES + 7} bytes; allowed: at most {MAX_FILE_BYTES}"):
        Credential.read(tmp_path / "large")


# --- bombs: little to send, much to hold ------------------------------------------------------------


@contextmanager
def bounded(mb: int) -> Iterator[None]:
    """What runs inside is quick, and never holds more than so much memory at once."""
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < LIMIT_S
    assert peak < mb * 1_000_000, f"{peak // 1_000_000} MB"


def of_event(type: str, data: bytes) -> bytes:
    """A message whose event has these bytes of msgpack as its data."""
    head = msgpack.packb(
        {"v": 1, "id": world.ulid(1), "type": type, "time": 1, "author": "ann", "prev": None, "data": 0}
    )
    return msgpack.packb([head[:-1] + data, b"\0" * 64])


def promise(kind: bytes, count: int) -> bytes:
    return kind + count.to_bytes(4, "big")


ENTRIES = msgpack.packb({f"{number:05x}": 0 for number in range(60_000)})
ROOM = codec.MAX_EVENT_BYTES - 1_000
ZEROS = promise(b"\xdd", ROOM - 200) + b"\0" * (ROOM - 200)
BOMBS = {
    "lists that promise more": promise(b"\xdd", ROOM // 2) * 1_000 + b"\xc0" * (ROOM - 5_000),
    "maps that promise more": (promise(b"\xdf", ROOM // 3) + b"\xa0") * 500 + b"\xc0" * (ROOM - 3_000),
    "text that promises more": promise(b"\xdb", 2**32 - 1),
    "an endless list": b"\x91" * ROOM,
    "many unknown fields": of_event("process.queued", ENTRIES),
    "many variables": of_event("process.queued", b"\x81\xa4spec\x81\xa3env" + ENTRIES),
    "many roles": of_event("colony.genesis", b"\x81\xa5roles" + ENTRIES),
    "many functions": of_event("worker.started", b"\x81\xa9functions" + ZEROS),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_on_the_ledger_is_malformed_and_goes_off_nowhere(bomb: bytes) -> None:
    assert len(bomb) <= codec.MAX_EVENT_BYTES
    with bounded(150), pytest.raises(codec.Malformed):
        codec.open_(world.ACCOUNT.public, "x", bomb).event()


def test_the_most_that_an_event_can_unfold_to_is_bounded() -> None:
    """A million empty lists in one valid event: 64 bytes and more each. It is no bomb, but must stay so."""
    lists = promise(b"\xdd", ROOM - 200) + b"\x90" * (ROOM - 200)
    data = b"\x82\xa7attempt\xba" + world.ulid(1).encode() + b"\xa6output" + lists
    with bounded(250):
        event = codec.open_(world.ACCOUNT.public, "x", of_event("process.completed", data)).event()
    assert isinstance(event, Completed)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 200_000,
        json.dumps({f"{number:05x}": 0 for number in range(40_000)}),
        json.dumps({"func": "f", "env": {f"{number:05x}": 0 for number in range(40_000)}}),
        json.dumps({"func": "f", "conditions": {"dependencies": [0] * 300_000}}),
        '{"func":"f","priority":' + "9" * 1_000_000 + "}",
        '{"func":"f","maxwaittime":1e' + "9" * 1_000_000 + "}",
    ],
    ids=["lists", "objects", "fields", "variables", "dependencies", "digits", "exponent"],
)
def test_a_bomb_of_a_spec_is_invalid_in_a_few_lines(text: str) -> None:
    with bounded(200), pytest.raises(Invalid) as refused:
        Spec.parse_text(text)
    assert len(str(refused.value)) < 5_000


def test_a_stored_value_of_too_many_lists_is_neither_kept_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_CONTAINERS", 100_000)
    many = promise(b"\xdd", 5_000_000) + b"\x90" * 5_000_000
    with bounded(60), pytest.raises(ValueError, match="more than 100000 lists and objects"):
        values._unpacked(many)
    with pytest.raises(Invalid, match=r"the output cannot be stored: .*more than 100000 lists and objects"):
        values.pack([[]] * 100_001, "the output")
    assert values.pack([[]] * 99_999, "the output")


RUNS: dict[str, Any] = {"func": "f", "conditions": {"runtimetype": "cli"}}
LONG = "k" * 100_000


def inner(nodes: int, **more: Any) -> dict[str, Any]:
    return {"name": "g", "nodes": [{"name": f"n{n}", **RUNS} for n in range(nodes)], **more}


DEEPEST = inner(1)
for _ in range(5):
    DEEPEST = {"name": "g", "nodes": [DEEPEST]}
FLOWS: dict[str, Any] = {
    "unknown parents": [{"name": f"n{n}", **RUNS, "dependencies": ["x" * 60] * 9} for n in range(2_000)],
    "many dependencies": [
        {"name": f"n{n}", **RUNS, "dependencies": [f"n{m}" for m in range(max(0, n - 50), n)]}
        for n in range(5_000)
    ],
    "many that run last": [{"name": f"n{n}", **RUNS, "finally": True} for n in range(2_000)],
    "a name twice": [{"name": "a", **RUNS}] * 5_000,
    "a long circle": [{"name": f"n{n}", **RUNS, "dependencies": [f"n{(n + 1) % 900}"]} for n in range(900)],
    "groups that groups wait for": [
        inner(2_000),
        *({"name": f"n{n}", **RUNS, "dependencies": ["g"]} for n in range(2_000)),
    ],
    "one parameter everywhere": [
        inner(1, parameters={"p": [[]] * 100_000})
        | {"nodes": [{"name": f"n{n}", **RUNS, "args": [{"$parameter": "p"}]} for n in range(500)]}
    ],
    "groups in groups": [DEEPEST],
    "references": [{"name": "a", **RUNS, "args": [{"$output": "b"}] * 50_000}],
    "a key before many values": [{"name": "a", **RUNS, "kwargs": {LONG: [{"$x": 1}] * 100_000}}],
    "many parameters": {"nodes": [{"name": "a", **RUNS, "args": [{"$parameter": "p"}]}],
                        "parameters": {f"{n:05x}": LONG for n in range(50_000)}},
    "no text for a key": [{"name": "a", "wait_signal": "go", b"k": 1, "k": 2}],
    "no list of dependencies": [inner(1, dependencies=5)],
    "a deep condition": [{"name": "a", **RUNS, "when": "(" * 400 + "a" + ")" * 400}],
    "a deep negation": [{"name": "a", **RUNS, "when": "!" * 400 + "a"}],
    "half a character": [{"name": "a", **RUNS, "when": "a == '\ud800'"}],
}  # fmt: skip


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())
def test_a_bomb_of_a_workflow_is_invalid_in_a_few_lines(flow: Any) -> None:
    for read in (WorkflowSpec.parse, WorkflowSpec.read):
        given = {"nodes": flow} if isinstance(flow, list) else flow
        with bounded(300), pytest.raises(Invalid) as refused:
            read(given)
        assert len(str(refused.value)) < 20_000


def test_long_keys_before_many_values_cost_nothing_but_themselves() -> None:
    with bounded(300):
        node = Node.read({"name": "a", **RUNS, "kwargs": {LONG: [[]] * 300_000}})
    assert node.references == ()


def test_nodes_that_a_worker_adds_with_keys_that_are_no_text_are_no_event() -> None:
    for odd in ({"wait_signal": "go", b"k": 1, "k": 2}, {b"name": 1}, {"conditions": {b"x": 1}}):
        data = {"attempt": world.ulid(1), "adds": [{"name": "a", **odd}]}
        with pytest.raises(codec.Malformed):
            codec.open_(world.ACCOUNT.public, "x", of_event("process.completed", msgpack.packb(data))).event()


def test_whether_a_condition_is_one_does_not_depend_on_the_stack_of_its_reader() -> None:
    def at(depth: int, expression: str) -> object:
        if depth:
            return at(depth - 1, expression)
        with suppress(Invalid):
            when.check(expression, "when")
            return when.holds(expression, {"a": 1})
        return "invalid"

    for expression in ("(" * 100 + "a" + ")" * 100, "!" * 100 + "a", "a" + "||a" * 50, "a" + ".a" * 400):
        when._compiled.cache_clear()
        here = at(0, expression)
        when._compiled.cache_clear()
        assert at(400, expression) == here != "invalid"


@pytest.mark.parametrize("literal", ["`foo`", "`NaN`", "`-Infinity`", "``", "`{a: 1}`"])
def test_a_literal_of_a_condition_is_json(literal: str) -> None:
    with pytest.raises(Invalid):
        when.check(f"a == {literal}", "when")
    when.check(f"a == '{literal}' || \"{literal}\" || `1`", "when")
