"""The file of an export: what a ledger holds, taken out of its broker (docs/export.md).

gzip around msgpack objects, one after the other: a header, entries `[subject, sequence, time, data]` (the
events in order, then heartbeats and logs, then the stored values in pieces), and a trailer with the counts
and the SHA-256 of all that stands before it. It is written and read in one pass. The file is nobody's word:
what it holds is believed only as far as it is signed. Nothing here looks into an event.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgpack

from colonies.core.names import shown
from colonies.errors import Invalid
from colonies.ledger import Stored
from colonies.nkeys import kind_of

FORMAT: Final = "colonies-export/1"
MAX_ENTRY_BYTES: Final = 64 * 1024 * 1024 + 65_536  # a message of nats-server has at most 64 MiB
MAX_SUBJECT_BYTES: Final = 4_096
PIECE_BYTES: Final = 256 * 1024  # of a stored value
VALUE: Final = "value."  # and the value's name: the subject of its pieces

_READ_BYTES: Final = 64 * 1024
_LEVEL: Final = 1  # of gzip: to 37 % of the size; 6 takes twice as long, and the file is as large
_MAX_TIME_NS: Final = 2**63 - 1


class Broken(Invalid):
    """The file is not what an export is: cut off, changed, or of another kind. The message says where."""


class Cut(Broken):
    """The file ends before its end; what it holds up to there may be sound."""

    def __init__(self, where: str = "it ends before its end: it was cut off") -> None:
        super().__init__(where)


@dataclass(frozen=True, slots=True)
class Header:
    """What an export is of: the events `first` to `last` of the colony with this account key.

    `end` was the last sequence of its ledger at the time `at` (ns). `values` and `notes`: are the stored
    values, and the logs and heartbeats, in it? `by` is the program that wrote it.
    """

    colony: str
    name: str
    first: int
    last: int
    end: int
    at: int
    values: bool
    notes: bool
    by: str = "colonies"

    @property
    def whole(self) -> bool:
        """Does it begin with the ledger's first event?"""
        return self.first == 1


@dataclass(slots=True)
class Counts:
    """How many entries of each kind there are: events, heartbeats and log messages, pieces of values."""

    events: int = 0
    notes: int = 0
    pieces: int = 0

    def count(self, kind: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)


def program() -> str:
    """This program, as the header names it."""
    return f"colonies {version('colonies')}"


def kind_of_entry(subject: str) -> str:
    """Of which of the counts an entry is."""
    if subject.startswith(VALUE):
        return "pieces"
    return "notes" if subject.startswith(("log.", "heartbeat.")) else "events"


class Writer:
    """Writes an export to a binary stream: the header, then what it is given, in order, then `end`."""

    def __init__(self, stream: BinaryIO, header: Header) -> None:
        self.counts = Counts()
        self._gzip = gzip.GzipFile("", "wb", _LEVEL, stream, mtime=0)
        self._digest = hashlib.sha256()
        self._put({"format": FORMAT, **asdict(header)})

    def add(self, stored: Stored) -> None:
        self._put([stored.subject, stored.sequence, stored.time, stored.data])
        self.counts.count(kind_of_entry(stored.subject))

    def end(self) -> None:
        """Write the trailer. The stream is the caller's to close."""
        self._gzip.write(msgpack.packb({**asdict(self.counts), "sha256": self._digest.hexdigest()}))
        self._gzip.close()

    def _put(self, value: Any) -> None:
        packed = msgpack.packb(value)
        self._digest.update(packed)
        self._gzip.write(packed)


class Reader:
    """Reads an export. Open it with `opened`; iterate once. It holds one entry at a time.

    `counts` and `context`, how many of the events stand before the first that is asked for, are of what was
    read so far.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._gzip = gzip.GzipFile(fileobj=stream, mode="rb")
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=MAX_ENTRY_BYTES,
            max_str_len=MAX_SUBJECT_BYTES,
            max_bin_len=MAX_ENTRY_BYTES,
            max_array_len=4,
            max_map_len=32,
            max_ext_len=0,
            strict_map_key=True,
        )
        self._unhashed = bytearray()
        self._hashed = 0
        self._digest = hashlib.sha256()
        self.counts = Counts()
        self.context = 0
        self.header = self._header()

    def __iter__(self) -> Iterator[Stored]:
        """All entries; ends only if the trailer is sound.

        Raises:
            Broken: what follows is no entry, or the trailer says something else than was read.
        """
        before = ("events", 0)
        while True:
            digest = self._digest.hexdigest()
            found = self._object()
            if type(found) is dict:
                self._check_trailer(found, digest)
                return
            entry, kind = _entry(found)
            if kind == "events" and not before[1] < entry.sequence <= self.header.last:
                raise Broken(f"event {entry.sequence} stands where it does not belong")
            if _ORDER[kind] < _ORDER[before[0]]:
                raise Broken(f"{shown(entry.subject)} stands behind what belongs behind it")
            before = (kind, entry.sequence)
            self.counts.count(kind)
            self.context += kind == "events" and entry.sequence < self.header.first
            yield entry

    def _header(self) -> Header:
        found = self._object()
        if type(found) is not dict or type(found.get("format")) is not str:
            raise Broken("this is no export of a ledger; allowed: what `colonies ledger export` wrote")
        if found.pop("format") != FORMAT:
            raise Broken(f"this is an export of another kind; this program reads {FORMAT}")
        kinds = {field.name: _KINDS[str(field.type)] for field in fields(Header)}
        if {name: type(value) for name, value in found.items()} != kinds:
            raise Broken("its header has not the fields of an export")
        header = Header(**found)
        with contextlib.suppress(Invalid):
            if (
                1 <= header.first <= header.last <= header.end
                and 0 <= header.at <= _MAX_TIME_NS
                and kind_of(header.colony) == "account"
                and f"{header.name}{header.by}".isprintable()
            ):
                return header
        raise Broken("its header makes no sense")

    def _check_trailer(self, found: dict[Any, Any], digest: str) -> None:
        if found != {**asdict(self.counts), "sha256": digest}:
            raise Broken("its trailer says that something else was written than is there: it was changed")
        try:
            more = bool(self._unhashed) or bool(self._gzip.read(1))
        except EOFError:
            raise Cut from None
        except (OSError, zlib.error) as error:
            raise Broken(_damage(error)) from None
        if more:
            raise Broken("something stands behind its end")

    def _object(self) -> Any:
        while True:
            try:
                found = self._unpacker.unpack()
            except msgpack.OutOfData:
                self._feed()
                continue
            except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
                raise Broken(f"it is damaged: {error or type(error).__name__}") from None
            length = self._unpacker.tell() - self._hashed
            self._digest.update(self._unhashed[:length])
            del self._unhashed[:length]
            self._hashed += length
            return found

    def _feed(self) -> None:
        try:
            data = self._gzip.read1(_READ_BYTES)  # which gives all that can be read of a file that was cut
            if not data:
                raise Cut
            self._unpacker.feed(data)
        except EOFError:
            raise Cut from None
        except (OSError, zlib.error, msgpack.BufferFull) as error:
            raise Broken(_damage(error)) from None
        self._unhashed += data


_ORDER: Final = {"events": 0, "notes": 1, "pieces": 2}
_KINDS: Final[dict[str, type]] = {"str": str, "int": int, "bool": bool}


def _entry(found: Any) -> tuple[Stored, str]:
    match found:
        case [str() as subject, int() as sequence, int() as time, bytes() as data]:
            if 1 <= sequence <= _MAX_TIME_NS and 0 <= time <= _MAX_TIME_NS and type(sequence) is int:
                return Stored(subject, sequence, int(time), data), kind_of_entry(subject)
    raise Broken("there is something in it that is no entry")


def _damage(error: Exception) -> str:
    if isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error):
        return "this is no export of a ledger; allowed: what `colonies ledger export` wrote"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read: {error.strerror}"
    return f"it is damaged: {str(error) or 'an entry is too large'}"


# --- files -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """The export in a file.

    Raises:
        Invalid: there is none, or it is no export; the message names it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "this cannot be a path"
        raise Invalid(f"{_named(path)}: {what}; allowed: the path of an export") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Invalid(f"{_named(path)}: this is no file; allowed: the path of an export")
    with io.FileIO(descriptor, "rb") as raw, io.BufferedReader(raw) as file:
        try:
            yield Reader(file)
        except Broken as error:
            raise type(error)(f"{_named(path)}: {error}") from None


@contextlib.contextmanager
def written(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that is there, whole, when the block ends well, and not there otherwise.

    Raises:
        Invalid: there is one already, and not `force`; or it cannot be written.
    """
    _check_free(path, force)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".part")
    except OSError as error:
        raise Invalid(f"{_named(path)}: it cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _check_free(path, force)
        os.replace(temporary, path)
    except OSError as error:
        raise Invalid(f"{_named(path)}: it cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _named(path: Path) -> str:
    """A path as it can be shown."""
    return str(path) if str(path).isprintable() else shown(str(path))


def _check_free(path: Path, force: bool) -> None:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Invalid(f"{_named(path)}: it cannot be written: {error.strerror}") from None
    if stat.S_ISDIR(there.st_mode):
        raise Invalid(f"{_named(path)}: this is a directory; give the path of a file")
    if not force:
        raise Invalid(f"{_named(path)}: it is there already; say --force to write over it")
