"""What asyncio and the libraries on it leave to us when tasks end: the right error, and an end at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from typing import TypeVar

from colonies.errors import ColoniesError

T = TypeVar("T")


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


async def cancellable(awaitable: Awaitable[T]) -> T:
    """Await what may keep a cancellation to itself, and raise it here if it did.

    `asyncio.wait_for` of Python 3.11 drops a cancellation that comes together with the result, and nats-py
    stands on it (and drops one in `close` on purpose). A task that was cancelled only once would live on.
    """
    task = asyncio.current_task()
    assert task is not None
    asked = task.cancelling()
    result = await awaitable
    if task.cancelling() > asked:
        raise asyncio.CancelledError
    return result
