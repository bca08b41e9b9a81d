"""Small files that people name: read whole, within a limit of bytes and of time.

What a person names may be anything: a directory, a device that never ends, a pipe that nobody writes to. So
nothing is read beyond its limit, and what is no regular file is waited for with a limit. Who the reader is
decides what a missing file means.
"""

from __future__ import annotations

import os
import select
import stat
import time
from pathlib import Path
from typing import Final

from colonies.core.flow import WorkflowSpec
from colonies.core.groups import EXAMPLE
from colonies.core.names import shown
from colonies.core.parsing import MAX_SPEC_BYTES, json_value
from colonies.core.spec import Spec
from colonies.core.yaml_text import yaml_value
from colonies.errors import Invalid

MAX_SILENCE_S: Final = 10.0  # of a pipe, before its first byte and between two of them
MAX_PIPE_S: Final = 60.0  # for all that comes through a pipe

MAX_WORKFLOW_BYTES: Final = 16_777_216  # of a workflow's file

STANDARD_INPUT: Final = "standard input"  # what it is called in refusals

_SPEC_ALLOWED: Final = "allowed: the path of a JSON or YAML file"


def expanded(text: str, where: str = "") -> Path:
    """The absolute path that a person or a context names. Raises Invalid for a home that there is not."""
    try:
        return Path(text).expanduser().absolute()
    except (RuntimeError, ValueError):
        at = f"{where}: " if where else ""
        home = Path(text).parts[0]
        raise Invalid(f"{at}{shown(text)}: there is no home folder {shown(home)}; give a full path") from None


def read_small(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """All bytes of a file of at most `most_bytes`; of a pipe, what comes until its writers close it.

    Raises:
        FileNotFoundError: there is none.
        Invalid: the reason, without the path.
    """
    try:
        # A pipe that nobody writes to would hold up a plain open for ever.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise Invalid("this is a directory") from None
    except OSError as error:
        raise Invalid(f"the file cannot be read: {error.strerror}") from None
    except ValueError:
        raise Invalid("this cannot be a path") from None
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise Invalid("this is a directory")
        regular = stat.S_ISREG(found.st_mode)
        data = _read(file, most_bytes, waits=not regular)
    except OSError as error:
        raise Invalid(f"the file cannot be read: {error.strerror}") from None
    finally:
        os.close(file)
    if len(data) > most_bytes:
        has = str(found.st_size) if regular and found.st_size >= len(data) else f"more than {most_bytes}"
        raise Invalid(f"the file has {has} bytes; allowed: at most {most_bytes}")
    return data


def _read(file: int, most_bytes: int, *, waits: bool) -> bytes:
    """Up to one byte more than `most_bytes`."""
    data = bytearray()
    end = time.monotonic() + MAX_PIPE_S
    while len(data) <= most_bytes:
        if waits:
            wait_s = min(MAX_SILENCE_S, end - time.monotonic())
            if wait_s <= 0:
                raise Invalid(f"it has not ended within {MAX_PIPE_S:g} s")
            if not select.select([file], [], [], wait_s)[0]:
                raise Invalid(f"nothing was written to it for {wait_s:.0f} s")
        piece = os.read(file, most_bytes + 1 - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


def read_spec(path: str | os.PathLike[str]) -> Spec:
    """The spec in a JSON or YAML file of at most `MAX_SPEC_BYTES`, or `Invalid`, naming the path."""
    text, where = _read_text(path, MAX_SPEC_BYTES)
    return spec_of(text, where)


def read_workflow(path: str | os.PathLike[str]) -> WorkflowSpec:
    """The workflow in a JSON or YAML file of at most `MAX_WORKFLOW_BYTES`, or `Invalid`, naming the path."""
    text, where = _read_text(path, MAX_WORKFLOW_BYTES)
    return workflow_of(text, where)


def read_work(path: str | os.PathLike[str], name: str) -> WorkflowSpec:
    """As `read_workflow`; the spec of one process is a workflow of one node, by default of that name."""
    text, where = _read_text(path, MAX_WORKFLOW_BYTES)
    return work_of(text, where, name)


def spec_of(text: bytes, where: str) -> Spec:
    """The spec that a file's text means. Raises Invalid."""
    value = _value(text, where, Spec.EXAMPLE)
    if isinstance(value, list):
        raise Invalid(
            f"{where}: a list, and one object is wanted here, such as {Spec.EXAMPLE}; a list of specs is a "
            f"workflow: `colonies workflow submit --spec {_typed(where)}`"
        )
    if isinstance(value, dict) and "nodes" in value and "func" not in value:
        raise Invalid(
            f"{where}: an object with nodes is a workflow, not a process: "
            f"`colonies workflow submit --spec {_typed(where)}`"
        )
    return Spec.parse(value, where=where)


def workflow_of(text: bytes, where: str) -> WorkflowSpec:
    """The workflow that a file's text means. Raises Invalid."""
    value = _value(text, where, EXAMPLE)
    if isinstance(value, dict) and "func" in value and "nodes" not in value:
        raise Invalid(
            f"{where}: one spec, and a list of nodes is wanted here, or an object with nodes; one spec is a "
            f"process: `colonies process submit --spec {_typed(where)}`"
        )
    return WorkflowSpec.parse(value, where=where)


def work_of(text: bytes, where: str, name: str) -> WorkflowSpec:
    """The workflow that a file's text means; of the spec of one process, one of this node. Raises Invalid."""
    return WorkflowSpec.of(_value(text, where, EXAMPLE), name, where=where)


def _typed(where: str) -> str:
    return "-" if where == STANDARD_INPUT else where


def _value(text: bytes, where: str, example: str) -> object:
    """By the file's name JSON or YAML; by any other name it is JSON if it looks like it."""
    name = where.lower()
    is_json = name.endswith(".json") or text.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b'"', b"")
    if name.endswith((".yaml", ".yml")) or not is_json:
        return yaml_value(text, where, example)
    return json_value(text, where, example)


def _read_text(path: str | os.PathLike[str], most_bytes: int) -> tuple[bytes, str]:
    where = os.fspath(path)
    where = where if where.isprintable() else shown(where)
    try:
        return read_small(path, most_bytes), where
    except FileNotFoundError:
        raise Invalid(f"{where}: there is no such file; {_SPEC_ALLOWED}") from None
    except Invalid as error:
        said = str(error)
        if "at most" in said:
            said += " (put large values into files of their own)"
        elif said.startswith("this"):
            said += f"; {_SPEC_ALLOWED}"
        raise Invalid(f"{where}: {said}") from None
