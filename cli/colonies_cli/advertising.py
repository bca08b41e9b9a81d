"""The context that leads to a colony of one's own.

The first one is called `dev`. One that runs beside it gets a name of its own, after its folder: what commands
mean never changes under a colony that is alive. A context that somebody added by hand is left as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import sys
from pathlib import Path
from typing import Self

from colonies import contexts
from colonies.contexts import Context
from colonies.errors import ColoniesError

NAME = "dev"
LOCK = "dev.lock"
PASSING = "ephemeral"  # of a colony whose folder has no name that says anything
STEM_CHARS = 48


class Advertised:
    """The context of one run: written when the colony is ready. A temporary one takes it back at its end."""

    def __init__(self, *, take_back: bool) -> None:
        self._take_back = take_back
        self._before: Context | None = None
        self._ours: Context | None = None

    def save(self, folder: Path, context: Context) -> Context:
        """Write it, under the name that it gets; `dev` is the one in use unless the user chose another."""
        name = _free_name(folder, PASSING if self._take_back else _stem(folder))
        context = dataclasses.replace(context, name=name)
        self._before = _load(name)
        self._ours = context
        contexts.save(context)
        if name == NAME and contexts.in_use() in (None, NAME):
            contexts.use(NAME)
        return context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ours = self._ours
        if not self._take_back or ours is None or _load(ours.name) != ours:
            return
        with contextlib.suppress(ColoniesError):
            if self._before is None:
                contexts.remove(ours.name)
            else:
                contexts.save(self._before)


def _free_name(folder: Path, stem: str) -> str:
    """`dev`, unless it is another's; else `stem`, with a number if that is another's as well."""
    if _may_take(NAME, folder, also_idle=True):
        return NAME
    numbered = (f"{stem}-{n}" for n in itertools.count(2))
    names = numbered if stem == NAME else itertools.chain([stem], numbered)
    return next(name for name in names if _may_take(name, folder, also_idle=False))


def _may_take(name: str, folder: Path, *, also_idle: bool) -> bool:
    """Nobody has this context, or the colony in `folder` has, or one that is gone; or that does not run."""
    if not contexts.path_of(name).exists():
        return True
    context = _load(name)
    if context is None:
        return False
    if context.imported is not None or not context.creds:
        return False
    creds = Path(context.creds)
    if creds.parent.resolve() == (folder / "members").resolve():
        return True
    if not creds.exists():
        return True
    lock = creds.parent.parent / LOCK
    return also_idle and lock.exists() and not _is_held(lock)


def _is_held(lock: Path) -> bool:
    """Whether a `colonies dev` runs in the lock's folder."""
    if sys.platform == "win32":
        return True  # not known there, so it is left alone
    import fcntl

    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _stem(folder: Path) -> str:
    """The folder's name, of what may stand in a context's name."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name).strip("-")
    return plain[:STEM_CHARS] or NAME


def _load(name: str) -> Context | None:
    try:
        return contexts.load(name)
    except ColoniesError:
        return None
