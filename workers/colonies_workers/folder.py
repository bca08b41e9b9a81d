"""The working folder of one attempt of a process, with its inputs and output, and the nodes it adds, as JSON.

    BASE/<process>-<attempt>/inputs.json     what the process was given
    BASE/<process>-<attempt>/output.json     JSON that the command writes here is its output
    BASE/<process>-<attempt>/adds.json       JSON that it writes here are nodes that it adds to its workflow
    BASE/<process>-<attempt>.lock            locked as long as the attempt's worker lives

The folder of a successful attempt is removed; the others are kept for whoever wants to know why, the newest
20 of them. The kernel frees the lock of a dead worker, so its folders are found and count as ended. This
module never touches a folder that is locked or that it did not make.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from colonies.errors import Invalid, Unavailable

KEPT_FOLDERS = 20
OUTPUT_FILE_BYTES_MAX = 64 * 1024 * 1024
ADDS_FILE_BYTES_MAX = 4 * 1024 * 1024

_PROCESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class ProcessFolder:
    """`BASE/<process>-<attempt>`: made by `make`, then ended by `remove` or `keep`."""

    def __init__(self, base: Path, process: str, attempt: int) -> None:
        if not _PROCESS.fullmatch(process):
            raise Invalid(f"{process!r} is not a process id, so it gets no folder")
        self.path = base.absolute() / f"{process}-{attempt:d}"
        self.inputs = self.path / "inputs.json"
        self.output = self.path / "output.json"
        self.adds = self.path / "adds.json"
        self._lock = _lock_of(self.path)
        self._lock_fd = -1

    def make(self, inputs: object) -> None:
        """Make the folder and write inputs.json. `Invalid` if the inputs are not JSON, `Unavailable` if
        another worker works on the same attempt or the folder cannot be made."""
        try:
            text = json.dumps(inputs, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise Invalid(f"the inputs cannot be written as JSON: {error}") from error
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _try_lock(self._lock_fd):
                raise Unavailable(f"{self.path} is in use by another worker")
            _delete(self.path)
            self.path.mkdir(mode=0o700)
            self.inputs.write_bytes(text)
        except OSError as error:
            self.keep()
            raise Unavailable(f"cannot make the working folder {self.path}: {error}") from error
        except Unavailable:
            self.keep()
            raise

    def read_output(self, limit_bytes: int = OUTPUT_FILE_BYTES_MAX) -> tuple[object] | None:
        """What the command wrote to output.json, or None if there is no such file.

        Raises `Invalid`, naming the file and what is wrong with it: where the JSON is broken (line and
        column), too long, not a regular file.
        """
        data = _read(self.output, "output file", limit_bytes)
        return (self._parse(data),) if data is not None else None

    def read_adds(self, limit_bytes: int = ADDS_FILE_BYTES_MAX) -> bytes | None:
        """What the command wrote to adds.json, or None if there is no such file. `Invalid` if it is too long
        or not a regular file; nor may it be a link to one."""
        return _read(self.adds, "file COLONIES_ADDS", limit_bytes, os.O_NOFOLLOW)

    def remove(self) -> None:
        """Delete the folder and let go of it."""
        _delete(self.path)
        if not self.path.exists():
            self._lock.unlink(missing_ok=True)
        self._unlock()

    def keep(self) -> None:
        """Let go of the folder; `prune` deletes it when it is no longer among the newest."""
        with suppress(OSError):
            os.utime(self._lock)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _parse(self, data: bytes) -> object:
        try:
            return json.loads(data.decode(), parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno} column {error.colno}"
            raise Invalid(f"the output file {self.output} is not JSON: {where}: {error.msg}") from error
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - data.rfind(b"\n", 0, error.start)
            where = f"line {line} column {column}"
            raise Invalid(f"the output file {self.output} is not UTF-8: {where}") from error
        except RecursionError:
            raise Invalid(f"the output file {self.output} is nested too deeply") from None
        except ValueError as error:
            raise Invalid(f"the output file {self.output} is not JSON: {error}") from error


def prune(base: Path, keep: int = KEPT_FOLDERS) -> None:
    """Delete the folders of ended attempts under `base`, but for the newest `keep`. Never raises OSError."""
    ended: list[tuple[float, Path, int]] = []
    try:
        for lock in base.glob("*.lock"):
            with suppress(OSError):
                fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
                if _try_lock(fd):
                    ended.append((os.fstat(fd).st_mtime, lock, fd))
                else:
                    os.close(fd)
        ended.sort(reverse=True)
        for _, lock, _ in ended[keep:]:
            folder = lock.with_suffix("")
            _delete(folder)
            if not folder.exists():
                lock.unlink(missing_ok=True)
    except OSError:
        pass
    finally:
        for _, _, fd in ended:
            os.close(fd)


def _read(path: Path, what: str, limit_bytes: int, flags: int = 0) -> bytes | None:
    """All of a regular file; None if there is none. Raises Invalid."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink() and flags & os.O_NOFOLLOW:
            raise Invalid(f"the {what} {path} is a link; allowed: a regular file") from None
        raise Invalid(f"cannot read the {what} {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Invalid(f"the {what} {path} is not a regular file")
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise Invalid(f"the {what} {path} is longer than the limit of {limit_bytes} bytes")
    return data


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _delete(folder: Path) -> None:
    """Delete it with all that is in it, read-only folders included; links are not followed."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    for root, folders, _ in os.walk(folder):
        for path in [root, *(os.path.join(root, name) for name in folders)]:
            with suppress(OSError):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
