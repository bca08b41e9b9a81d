"""The file of an export, from strangers: whatever it is, it is read to its end or refused in our words."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from colonies.errors import Invalid
from colonies.export_file import (
    FORMAT,
    MAX_ENTRY_BYTES,
    PIECE_BYTES,
    Broken,
    Counts,
    Header,
    Reader,
    Writer,
    opened,
    written,
)
from colonies.ledger import Stored
from colonies.nkeys import KeyPair

COLONY = KeyPair.new("account").public
HEADER = Header(COLONY, "lab", 3, 5, 9, 1_000, True, True, "colonies 0.1")
ENTRIES = [
    Stored("ledger.colony.genesis.olga", 1, 10, b"one"),
    Stored("ledger.process.x.queued.q.ann", 3, 20, b""),
    Stored("ledger.junk", 5, 2**63 - 1, b"\x00\xff"),
    Stored("heartbeat.w1.i1", 7, 30, b"beat"),
    Stored("log.x.w1", 2, 40, b"line"),
    Stored("value.w1.Ab0", 1, 0, b"first"),
    Stored("value.w1.Ab0", 2, 0, b"second"),
]


def file_of(header: Header = HEADER, entries: list[Stored] = ENTRIES) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream, header)
    for entry in entries:
        writer.add(entry)
    writer.end()
    return stream.getvalue()


def plain_of(*objects: Any, trailer: dict[str, Any] | None = None) -> bytes:
    """An export with any objects in it, whose trailer is sound unless it is given."""
    packed = b"".join(msgpack.packb(each) for each in objects)
    counts = Counts()
    for each in objects[1:]:
        subject = each[0] if isinstance(each, list) and each and isinstance(each[0], str) else "ledger"
        counts.count("pieces" if subject.startswith("value.") else "events")
    sound = {**asdict(counts), "sha256": hashlib.sha256(packed).hexdigest()}
    return gzip.compress(packed + msgpack.packb(sound if trailer is None else trailer))


def read(data: bytes) -> list[Stored]:
    return list(Reader(io.BytesIO(data)))


def refusal(data: bytes) -> str:
    with pytest.raises(Broken) as refused:
        read(data)
    return str(refused.value)


def test_what_was_written_is_read() -> None:
    reader = Reader(io.BytesIO(file_of()))
    assert reader.header == HEADER
    assert list(reader) == ENTRIES
    assert reader.counts == Counts(events=3, notes=2, pieces=2)
    assert not HEADER.whole
    assert file_of() == file_of()


def test_it_is_plain_msgpack_in_gzip_which_any_language_reads() -> None:
    raw = gzip.decompress(file_of())
    found = list(msgpack.Unpacker(io.BytesIO(raw)))
    assert found[0] == {"format": FORMAT, **asdict(HEADER)}
    assert [tuple(entry) for entry in found[1:-1]] == [
        (e.subject, e.sequence, e.time, e.data) for e in ENTRIES
    ]
    trailer = msgpack.packb(found[-1])
    assert found[-1] == {
        "events": 3,
        "notes": 2,
        "pieces": 2,
        "sha256": hashlib.sha256(raw[: -len(trailer)]).hexdigest(),
    }


def test_a_file_cut_off_anywhere_is_refused() -> None:
    whole = file_of()
    for length in range(len(whole)):
        assert refusal(whole[:length])


def test_a_file_cut_off_before_it_was_packed_is_refused_at_every_object() -> None:
    raw = gzip.decompress(file_of())
    for length in range(len(raw)):
        assert "ends before its end" in refusal(gzip.compress(raw[:length])), length


def test_a_changed_byte_is_found_wherever_it_is() -> None:
    raw = bytearray(gzip.decompress(file_of()))
    for place in range(len(raw)):
        raw[place] ^= 1
        assert refusal(gzip.compress(bytes(raw))), place
        raw[place] ^= 1


def test_a_changed_byte_of_the_file_itself_changes_nothing_that_is_read() -> None:
    whole = bytearray(file_of())
    silent = []
    for place in range(10, len(whole)):  # before it stand flags and the system, which say nothing
        whole[place] ^= 0x10
        try:
            assert read(bytes(whole)) == ENTRIES
            silent.append(place)
        except Broken:
            pass
        whole[place] ^= 0x10
    assert len(silent) <= 1  # bits that fill up the last byte


HEAD = {"format": FORMAT, **asdict(HEADER)}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends before its end"),
        (b"not an export", "no export"),
        (gzip.compress(b"not an export", mtime=0), "damaged|no export"),
        (gzip.compress(b"", mtime=0), "ends before its end"),
        (plain_of({"hello": 1}), "no export"),
        (plain_of([]), "no export"),
        (plain_of({**HEAD, "format": "colonies-export/2"}), "of another kind"),
        (plain_of({**HEAD, "more": 1}), "fields"),
        (plain_of({**HEAD, "first": "3"}), "fields"),
        (plain_of({**HEAD, "first": True}), "fields"),
        (plain_of({**HEAD, "first": 0}), "no sense"),
        (plain_of({**HEAD, "first": 6}), "no sense"),
        (plain_of({**HEAD, "end": 4}), "no sense"),
        (plain_of({**HEAD, "colony": "AAAA"}), "no sense"),
        (plain_of({**HEAD, "colony": KeyPair.new("user").public}), "no sense"),
        (plain_of({**HEAD, "name": "a\x1b[2J"}), "no sense"),
        (plain_of(HEAD, 1), "no entry"),
        (plain_of(HEAD, ["ledger.a", 3, 1]), "no entry"),
        (plain_of(HEAD, ["ledger.a", "3", 1, b""]), "no entry"),
        (plain_of(HEAD, ["ledger.a", True, 1, b""]), "no entry"),
        (plain_of(HEAD, ["ledger.a", 0, 1, b""]), "no entry"),
        (plain_of(HEAD, ["ledger.a", 3, -1, b""]), "no entry"),
        (plain_of(HEAD, ["ledger.a", 3, 1, "text"]), "no entry"),
        (plain_of(HEAD, ["ledger.a", 2**64 - 1, 1, b""]), "no entry"),
        (plain_of(HEAD, ["ledger.a", 4, 1, b""], ["ledger.a", 4, 1, b""]), "does not belong"),
        (plain_of(HEAD, ["ledger.a", 4, 1, b""], ["ledger.a", 3, 1, b""]), "does not belong"),
        (plain_of(HEAD, ["ledger.a", 6, 1, b""]), "does not belong"),
        (plain_of(HEAD, ["value.a", 1, 1, b""], ["ledger.a", 3, 1, b""]), "belongs"),
        (plain_of(HEAD, ["ledger.a", 3, 1, b""], trailer={"events": 1}), "changed"),
        (plain_of(HEAD, ["ledger.a", 3, 1, b""], trailer={}), "changed"),
        (plain_of(HEAD, ["l" * 5_000, 3, 1, b""]), "damaged"),
        (file_of() + b"more", "damaged|behind|no export"),
        (file_of() + file_of(), "behind"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused_saying_why(data: bytes, said: str) -> None:
    assert re.search(said, refusal(data)), refusal(data)


@pytest.mark.parametrize(
    "bomb",
    [
        msgpack.packb(HEAD) + b"\xc6\xff\xff\xff\xff",  # four gigabytes of bytes, it says
        msgpack.packb(HEAD) + b"\x94\xa1a\x01\x01\xc6" + (MAX_ENTRY_BYTES + 1).to_bytes(4, "big"),
        msgpack.packb(HEAD) + b"\xdd\xff\xff\xff\xff",  # four thousand million items
        msgpack.packb(HEAD) + b"\xdf\xff\xff\xff\xff",
        msgpack.packb(HEAD) + b"\x91" * 1_000_000,  # lists in lists
        msgpack.packb(HEAD) + b"\xc7\x08\xff" + bytes(8),
        b"\xdb\xff\xff\xff\xff",
    ],
)
def test_lengths_that_somebody_made_up_cost_nothing(bomb: bytes) -> None:
    data = gzip.compress(bomb)
    tracemalloc.start()
    try:
        assert refusal(data)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_large_value_takes_pieces_and_one_piece_of_memory() -> None:
    pieces = [Stored("value.w1.big", n, 0, bytes(PIECE_BYTES)) for n in range(1, 257)]
    data = file_of(entries=pieces)
    tracemalloc.start()
    try:
        assert sum(len(entry.data) for entry in Reader(io.BytesIO(data))) == 64 * 1024 * 1024
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


# --- on disk -----------------------------------------------------------------------------------------


def half_written(path: Path, end: type[BaseException]) -> None:
    with written(path, force=True) as stream:
        stream.write(b"half")
        raise end


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.colonies"
    with pytest.raises(KeyboardInterrupt):
        half_written(path, KeyboardInterrupt)
    assert list(tmp_path.iterdir()) == []
    with written(path, force=False) as stream:
        stream.write(file_of())
    assert [p.name for p in tmp_path.iterdir()] == ["x.colonies"]
    assert path.stat().st_mode & 0o077 == 0
    with opened(path) as reader:
        assert reader.header == HEADER


def test_a_file_that_is_there_stays_unless_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.colonies"
    path.write_bytes(b"mine")
    with pytest.raises(Invalid, match="--force"), written(path, force=False):
        pytest.fail("it was begun")
    with pytest.raises(RuntimeError):
        half_written(path, RuntimeError)
    assert path.read_bytes() == b"mine"
    with written(path, force=True) as stream:
        stream.write(b"other")
    assert path.read_bytes() == b"other"


@pytest.mark.parametrize("name", ["", "no/x.colonies", "x" * 300])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(Invalid) as refused, written(path, force=False):
        pytest.fail("it was begun")
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("what", ["nothing", "a folder", "a pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.colonies"
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    with pytest.raises(Invalid, match=r"x\.colonies"), opened(path):
        pytest.fail("it was opened")


def test_a_whole_export_begins_with_the_first_event() -> None:
    assert replace(HEADER, first=1).whole
