"""What tells one version of a function's code from another: a digest that a worker records with each attempt.

It is that of the source file that defines the function, so also of what stands beside it there; what the file
imports is not in it. A function without a file (typed at a prompt) is told by its compiled code. It proves
nothing: the worker says it. It says whether what is run again is what ran.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import types
from collections.abc import Callable
from typing import Any

MAX_SOURCE_BYTES = 16 * 1024 * 1024  # larger files are no source that somebody wrote


def code_digest(function: Callable[..., Any]) -> str | None:
    """The SHA-256 (hex) of the file that defines this function, as it is now; None: it has no code."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    try:
        path = inspect.getsourcefile(function)
    except TypeError:  # an object that can be called
        kind: Any = type(function)
        return code_digest(kind.__call__) if inspect.isfunction(kind.__call__) else None
    if path is not None and (found := _file_digest(path)) is not None:
        return found
    code = getattr(function, "__code__", None)
    return hashlib.sha256(_told(code)).hexdigest() if code is not None else None


def _file_digest(path: str) -> str | None:
    try:
        found = os.stat(path)
        return _digest(path, found.st_mtime_ns, found.st_size) if found.st_size <= MAX_SOURCE_BYTES else None
    except OSError:
        return None


@functools.lru_cache(maxsize=256)
def _digest(path: str, _changed_ns: int, _size_bytes: int) -> str:
    """A module has many functions: it is read once."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _told(code: types.CodeType) -> bytes:
    """What a code object does, in bytes that do not depend on where it was compiled."""
    parts = [code.co_code, repr((code.co_names, code.co_varnames, code.co_freevars)).encode()]
    for constant in code.co_consts:
        parts.append(_told(constant) if isinstance(constant, types.CodeType) else repr(constant).encode())
    return b"\0".join(parts)
