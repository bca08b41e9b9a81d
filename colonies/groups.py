"""Out of a task group comes the error itself, not a group around it: that is what callers handle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from colonies.errors import ColoniesError


@contextlib.contextmanager
def first_error() -> Iterator[None]:
    """Around a TaskGroup: if one of our errors ended it, that one is raised; any other group as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours = group.subgroup(ColoniesError)
        if ours is None:
            raise
        found: BaseException = ours
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None
