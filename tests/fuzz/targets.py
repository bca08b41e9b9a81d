"""What is fuzzed: one function of bytes for each door that strangers' bytes come in by.

A target returns, whatever the bytes are. It swallows the error that its door documents, after a look at the
message; any other exception, and any assertion that does not hold, is a finding. `SEEDS` are made by code.
Nothing here needs the fuzzer: `python -m tests.fuzz TARGET FILE` runs one input in plain Python.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgpack
from colonies_cli import events as shown_events
from colonies_cli import output
from colonies_cli.dev import lease_s
from colonies_projections.processes import Processes
from colonies_projections.question import read_question
from colonies_projections.view import MAX_LIMIT
from colonies_projections.webhooks import desk, sending
from colonies_projections.workers import Workers, _item

from colonies import bearer, codec, contexts, jwt, nkeys, sealing, show_event, subjects, webhooks, witness
from colonies.core import events, references, units, when
from colonies.core import trace as traces
from colonies.core.colony import Colony
from colonies.core.flow import WorkflowSpec
from colonies.core.node import Node
from colonies.core.spec import Conditions, Spec, queue_of
from colonies.creds import Credential
from colonies.errors import Invalid, NotFound, Refused
from colonies.export_file import Broken, Header, Reader, Writer
from colonies.heartbeats import read_heartbeat
from colonies.history import History, examine
from colonies.ledger import Stored
from colonies.logs import read_log
from tests.fuzz import folding, odd, samples, world

Target = Callable[[bytes], object]

MAX_MESSAGE_CHARS = 20_000
OF_ANN = f"ledger.process.{world.PROCESS}.completed.ann"
TYPES = sorted(kind.__dataclass_fields__["type"].default for kind in get_args(events.Event))


def _unpacked(data: bytes) -> Any:
    """The value that these bytes are in msgpack; None if they are none."""
    try:
        return msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return None


@contextlib.contextmanager
def only(*documented: type[Exception]) -> Iterator[None]:
    """What is raised inside is a documented error, and can be shown to a person."""
    try:
        yield
    except documented as error:
        text = str(error)
        text.encode()
        assert text.strip(), "an error without a word"
        assert len(text) <= MAX_MESSAGE_CHARS, f"a message of {len(text)} characters"


# --- bytes of the ledger ----------------------------------------------------------------------------


def envelope(data: bytes) -> None:
    """Any bytes as a message; and as the payload of one."""
    for message in (data, msgpack.packb([data, b"\0" * 64])):
        with only(codec.Malformed):
            opened = codec.open_(world.ACCOUNT.public, OF_ANN, message)
            assert opened.signed.endswith(msgpack.unpackb(message)[0])
            assert not opened.is_signed_by(world.KEYS["ann"].public)
            opened.event()


def event(data: bytes) -> None:
    """Any msgpack map as the data of each type of event; what is one comes back as it was."""
    body = _unpacked(data[1:])
    if isinstance(body, dict):
        _read_event(TYPES[data[0] % len(TYPES)], body)


def odd_event(data: bytes) -> None:
    """A real event's data, altered."""
    choices = odd.Choices(data)
    told = samples.EVENTS[choices.below(len(samples.EVENTS))][0]
    _read_event(told.type, odd.altered(codec.data_of(told), choices))


def _read_event(type_: str, body: dict[Any, Any]) -> None:
    try:
        message = world.envelope(OF_ANN, world.KEYS["ann"], "ann", type=type_, data=body, number=1).data
    except (TypeError, ValueError, OverflowError, Invalid):
        return  # it cannot be said
    with only(codec.Malformed):
        _again(codec.open_(world.ACCOUNT.public, OF_ANN, message).event())


def _again(found: Any) -> None:
    """An event that was read can be said again, and is then the same."""
    codec.check(found)
    with only(Invalid):
        subject, sealed = world.sealed(found, "ann", entity="x", queue=world.QUEUE, number=2)
        again = codec.open_(world.ACCOUNT.public, subject, sealed.data).event()
        assert codec.data_of(again) == codec.data_of(found) or repr(again) == repr(found)


def examining(data: bytes) -> None:
    """A payload, soundly signed by a member, on a subject of the ledger: judged, whatever it says."""
    head, _, payload = data.partition(b"\n")
    subject = head.decode("utf-8", "replace")
    author = subject.rpartition(".")[2]
    keypair = world.KEYS.get(author, world.KEYS["ann"])
    signature = keypair.sign(codec.context(world.ACCOUNT.public, subject) + payload)
    stored = Stored(subject, 100, world.START, msgpack.packb([payload, signature]))
    seen = examine(world.colony(), stored)
    assert (seen.record is None) == (not seen.verdict.valid)
    assert len(seen.verdict.rule) < 1_000
    seen.verdict.rule.encode()
    unsigned = examine(
        world.colony(), Stored(subject, 100, world.START, msgpack.packb([payload, b"\1" * 64]))
    )
    assert unsigned.record is None
    output.json_text(show_event.cloud_event(seen, world.colony())).encode()
    object_ = show_event.event_object(seen)
    output.json_text(object_).encode()
    shown_events.row(object_, with_entity=True)
    if seen.record is not None:
        world.history().add(stored)


def subject_text(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = subjects.parse(text)
    if found is None:
        return
    assert str(found) == text
    assert text.isascii()
    assert text.startswith(subjects.guard_of(found.kind, found.entity).removesuffix(">"))
    assert subjects.guard_of_subject(text) == subjects.guard_of(found.kind, found.entity)


def note(data: bytes) -> None:
    """The data of a heartbeat or a log message, soundly signed by a worker, as its readers show it."""
    body = _unpacked(data[1:])
    if isinstance(body, dict):
        _read_note(data[0], body)


def odd_note(data: bytes) -> None:
    """A real note's data, altered."""
    choices = odd.Choices(data)
    head, body = samples.NOTES[choices.below(len(samples.NOTES))]
    _read_note(head, odd.altered(body, choices))


def _read_note(head: int, body: dict[Any, Any]) -> None:
    place = f"log.{world.PROCESS}.w1" if head < 0x80 else "heartbeat.w1.one"
    type_ = ("log.written", "log.refused", "log.stopped")[head % 3] if head < 0x80 else "heartbeat"
    try:
        message = world.envelope(place, world.KEYS["w1"], "w1", type=type_, data=body, number=3).data
    except (ValueError, TypeError, OverflowError, Invalid):
        return
    stored = Stored(place, 1, world.START, message)
    entry = read_log(world.colony(), stored)
    if entry is not None:
        note_ = shown_events.note_object(entry, world.PROCESS)
        output.json_text(note_).encode()
        shown_events.row(note_)
        output.cell(entry.data.get("reason"))
        str(entry.data.get("reason", "")).encode()
    beat = read_heartbeat(world.colony(), stored)
    if beat is not None:
        beat.runs(world.PROCESS)
        beat.runs(world.PROCESS, world.ulid(1))
        row = {"name": "w1", "instance": "one", "runtimetype": "cli", "concurrency": 1, "state": "alive"}
        times: dict[str, Any] = {"started_at": 2_026, "stopped_at": None, "functions": "[]"}
        running = sorted(map(str, beat.attempts))
        json.dumps(_item(row | times | {"has": None}, beat, running)).encode()


# --- what people and programs give ------------------------------------------------------------------


def spec_text(data: bytes) -> None:
    with only(Invalid):
        _check_spec(Spec.parse_text(data))


def spec_msgpack(data: bytes) -> None:
    value = _unpacked(data)
    with only(Invalid):
        _check_spec(Spec.parse(value))
    with only(Invalid):
        Conditions.parse(value)


def odd_spec(data: bytes) -> None:
    """A full spec, altered."""
    choices = odd.Choices(data)
    value = odd.altered(samples.SPECS[choices.below(len(samples.SPECS))], choices)
    with only(Invalid):
        _check_spec(Spec.parse(value))


def _check_spec(spec: Spec) -> None:
    wire = spec.wire()
    again = Spec.parse(wire)
    assert again == spec
    assert again.wire() == wire
    assert Spec.parse(msgpack.unpackb(msgpack.packb(wire))) == spec
    queue = queue_of(spec.conditions, spec.priority)
    widest = Conditions.parse(spec.conditions.canonical())
    assert queue_of(widest, spec.priority) == queue


def workflow_text(data: bytes) -> None:
    with only(Invalid):
        _check_workflow(WorkflowSpec.parse_text(data))


def workflow_msgpack(data: bytes) -> None:
    value = _unpacked(data)
    for read in (WorkflowSpec.parse, WorkflowSpec.read, Node.read):
        with only(Invalid):
            read(value)
    with only(Invalid):
        _check_workflow(WorkflowSpec.parse(value))


def odd_workflow(data: bytes) -> None:
    """A full workflow, altered."""
    choices = odd.Choices(data)
    value = odd.altered(samples.WORKFLOWS[choices.below(len(samples.WORKFLOWS))], choices)
    with only(Invalid):
        _check_workflow(WorkflowSpec.parse(value))


def _check_workflow(spec: WorkflowSpec) -> None:
    """What was accepted is on the ledger as it was asked for, and can be looked at from all sides."""
    wire = spec.wire()
    again = WorkflowSpec.read(msgpack.unpackb(msgpack.packb(wire)))
    assert again == spec
    assert again.wire() == wire
    assert sorted(spec.order) == sorted(spec.by_name) == sorted(spec.children)


def condition(data: bytes) -> None:
    """An expression, and after a NUL the inputs that it looks at."""
    head, _, rest = data.partition(b"\0")
    expression, inputs = head.decode("utf-8", "surrogateescape"), _unpacked(rest)
    try:
        with only(Invalid):
            when.check(expression, "when")
            for given in (inputs if isinstance(inputs, dict) else {}, {"a": {"b": [1, "x", None]}}):
                found = when.holds(expression, given)
                assert isinstance(found, bool) or (found and len(found) < 1_000)
    except RecursionError as error:
        raise AssertionError(f"{expression[:60]}: how deep it is must not be found out so") from error


def reference(data: bytes) -> None:
    value = _unpacked(data)
    with only(Invalid):
        found = list(references.found(value, "args"))
        references.resolved(value, str, "args")
        for one in found:
            with only(Invalid):
                references.followed({"a": [{"b": 1}], "0": []}, one)


def size(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for value in (text, int.from_bytes(data[:2_000], "big", signed=True)):
        with only(Invalid):
            found = units.size(value)
            assert found <= units.rung(found) <= found * 9 // 8 + 1
            assert units.size(found) == found
    with only(Invalid):
        assert lease_s(text) >= 2
    with only(Invalid):
        contexts.checked_url(text, "--url")


def trace(data: bytes) -> None:
    """A traceparent, and after a line feed a tracestate, as an environment or a request has them."""
    parent, _, state = data.decode("utf-8", "surrogateescape").partition("\n")
    with only(Invalid):
        found = traces.read(parent, state)
        assert traces.read(found.parent, found.state) == found
        codec.check(events.Queued(world.SPEC, trace=found))


def token(data: bytes) -> None:
    for given in (data, data.decode("latin-1")):
        with only(Invalid):
            jwt.decode(given)
    with only(Invalid):
        jwt.decode(data, verify=False)


def claims(data: bytes) -> None:
    """Any bytes as the claims of a token; those of a user's, as a credential."""
    account = world.ACCOUNT
    signed = f"{jwt._segment(jwt._json(jwt._HEADER))}.{jwt._segment(data)}"
    signature = jwt._segment(account.sign(signed.encode()))
    with only(Invalid):
        found = jwt.decode(f"{signed}.{signature}")
        assert found["iss"] == account.public
        with only(Invalid):
            Credential.of(f"{signed}.{signature}", world.KEYS["ann"])
    with only(Invalid):
        jwt.decode(f"{jwt._segment(data)}.{jwt._segment(jwt._json({}))}.{signature}")


def bearer_token(data: bytes) -> None:
    """Any bytes as a bearer token, and as the header, and as the claims of one that ann signed well."""
    ann, colony = world.KEYS["ann"], _colony()
    texts = [data.decode("latin-1")]
    for header, body in ((bearer._HEADER.encode(), data), (data, b"{}")):
        parts = f"{bearer._segment(header)}.{bearer._segment(body)}"
        texts.append(f"{parts}.{bearer._segment(ann.sign(bearer._signed(colony.key, parts)))}")
    for text in texts:
        with only(Refused):
            found = bearer.admit(text, colony, 0)
            assert (found.sub, found.colony) == ("ann", colony.key)
            assert bearer.read(text) == found


@functools.cache
def _colony() -> Colony:
    history = History(Colony(world.ACCOUNT.public))
    for stored in world.beginning():
        history.add(stored)
    return history.colony


def credential(data: bytes) -> None:
    with only(Invalid):
        found = Credential.parse(data.decode("utf-8", "surrogateescape"))
        assert Credential.parse(found.text()) == found
    path = _file("x.creds", data)
    with only(Invalid):
        Credential.read(path)


def nkey(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for given in (text, nkeys._encoded(data[:33]), nkeys._encoded(data[:34])):
        with only(Invalid):
            kind = nkeys.kind_of(given)
            assert kind in nkeys.KINDS
            nkeys.verify(given, b"x", data[:64])
            nkeys.verify(given, data, data[-64:])
        with only(Invalid):
            pair = nkeys.KeyPair.from_seed(given)
            assert pair.seed == given
            assert nkeys.verify(pair.public, data, pair.sign(data))


def question(data: bytes) -> None:
    for view in (Processes(), Workers()):
        with only(Invalid):
            asked = read_question(view, data).asked
            assert 1 <= asked.limit <= MAX_LIMIT
            assert asked.filters.keys() <= view.filters.keys()
            for value in asked.filters.values():
                str(value).encode()


def webhook(data: bytes) -> None:
    """What an owner gives, what is sealed on the ledger, what the service is asked, what receivers say."""
    text = data.decode("utf-8", "replace")
    with only(Invalid):
        assert webhooks.checked_url(webhooks.checked_url(text)) == webhooks.checked_url(text)
    with only(Invalid):
        assert webhooks.checked_filters(text.split(","))
    with only(Invalid):
        secret = webhooks.read_secret(text)
        assert webhooks.read_secret(webhooks.shown_secret(secret)) == secret
    with only(Invalid):
        sealing.open_sealed(data, world.KEYS["ann"], b"ops")
    with only(Invalid):
        assert desk._question(data).keys() <= {"request", "webhook", "dead"}
    after_s = sending.retry_after_s(text)
    assert after_s is None or 0 <= after_s <= sending.MAX_RETRY_AFTER_S


def small_files(data: bytes) -> None:
    """The files that the command keeps for itself, as anybody may have left them."""
    os.environ["COLONIES_CONFIG_DIR"] = os.environ["COLONIES_DATA_DIR"] = str(_folder())
    _file("contexts/x.json", data)
    with only(Invalid, NotFound):
        context = contexts.load("x")
        with only(Invalid, NotFound, Refused):
            contexts.credential_of(context)
    _file("current", data)
    with only(Invalid, NotFound):
        contexts.resolve()
    _file("witness/x.json", data)
    assert witness.recall("x").sequence >= 0


def export(data: bytes) -> None:
    """Any bytes as the file of an export, as what is packed in it, and as what follows a sound header."""
    for file in (data, gzip.compress(data), gzip.compress(export_head() + data)):
        with only(Broken):
            for entry in Reader(io.BytesIO(file)):
                assert entry.sequence > 0
                assert isinstance(entry.data, bytes)


def export_head() -> bytes:
    """The header of an export as it stands in the file."""
    stream = io.BytesIO()
    Writer(stream, Header(world.ACCOUNT.public, "lab", 1, 9, 9, 1, True, True)).end()
    raw = gzip.decompress(stream.getvalue())
    unpacker = msgpack.Unpacker(io.BytesIO(raw))
    unpacker.skip()
    return raw[: unpacker.tell()]


_FOLDER: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> Path:
    if not _FOLDER:
        _FOLDER.append(tempfile.TemporaryDirectory())
    return Path(_FOLDER[0].name)


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


TARGETS: dict[str, Target] = {
    "envelope": envelope,
    "event": event,
    "odd-event": odd_event,
    "examine": examining,
    "history": folding.fold,
    "subject": subject_text,
    "note": note,
    "odd-note": odd_note,
    "spec-text": spec_text,
    "spec-msgpack": spec_msgpack,
    "odd-spec": odd_spec,
    "workflow-text": workflow_text,
    "workflow-msgpack": workflow_msgpack,
    "odd-workflow": odd_workflow,
    "condition": condition,
    "reference": reference,
    "size": size,
    "trace": trace,
    "token": token,
    "claims": claims,
    "bearer": bearer_token,
    "credential": credential,
    "nkey": nkey,
    "question": question,
    "webhook": webhook,
    "small-files": small_files,
    "export": export,
}
