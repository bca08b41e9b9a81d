"""What is said of an exception that a function raised: in a line, and as its traceback.

The line names the deepest frame of the user's own code, so not of the standard library or of what is
installed, where there is one. The traceback has the whole chain, without our own frames and without the
values of variables.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from typing import Final

from colonies.errors import ColoniesError

MAX_TRACEBACK_CHARS: Final = 16_384

_OURS: Final = tuple(
    os.path.join(os.path.dirname(os.path.dirname(__file__)), *names, "")
    for names in (("colonies",), ("colonies_workers",), ("workers", "colonies_workers"))
)  # installed, and in a checkout
_STANDARD: Final = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))
_INSTALLED: Final = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("purelib", "platlib"))
_PACKAGES: Final = ("site-packages", "dist-packages")


def described(error: BaseException) -> str:
    """An exception as one would like to read it: its type and message, and where in the user's code.

    Our own say what there is to say by themselves.
    """
    if isinstance(error, ColoniesError) and str(error):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame)]
    own = [frame for frame in frames if not _is_library(frame)] or frames
    place = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno} in {own[-1].name})" if own else ""
    said = f": {error}" if str(error) else ""
    return f"{type(error).__name__}{said}{place}"


def traceback_of(error: BaseException) -> str | None:
    """Its traceback and that of what it came from, cut in the middle to MAX_TRACEBACK_CHARS.

    None: it has no frames but ours and the standard library's, so it says nothing of the user's code.
    """
    told = traceback.TracebackException.from_exception(error)
    chain = [told]
    for one in chain:
        kept = [frame for frame in one.stack if not _is_ours(frame)]
        one.stack = traceback.StackSummary.from_list(kept)
        chain += [before for before in (one.__cause__, one.__context__) if before is not None]
        chain += one.exceptions or []
    asked = [told] if isinstance(error, ColoniesError) else chain  # ours may come from what we called
    told_of = [frame for one in asked for frame in one.stack if not _is_standard(frame)]
    return _bounded("".join(told.format())) if told_of else None


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OURS)


def _is_library(frame: traceback.FrameSummary) -> bool:
    return _is_standard(frame) or _is_installed(frame)


def _is_standard(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(("<frozen ", *_STANDARD)) and not _is_installed(frame)


def _is_installed(frame: traceback.FrameSummary) -> bool:
    parts = frame.filename.split(os.sep)
    return frame.filename.startswith(_INSTALLED) or any(part in parts for part in _PACKAGES)


def _bounded(text: str) -> str:
    if len(text) <= MAX_TRACEBACK_CHARS:
        return text
    half = (MAX_TRACEBACK_CHARS - 80) // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters of the traceback left out]\n{text[-half:]}"
