"""Waiting with an end: a time-out that says what was waited for, how long, and how it stands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from colonies.errors import ColoniesError

LOOK_S: Final = 2.0  # for a look at how it stands, once the time is over


@contextlib.asynccontextmanager
async def within(
    timeout_s: float | None, what: str, state: Callable[[], Awaitable[str]]
) -> AsyncIterator[None]:
    """Do what is in this block within a time. Raises TimeoutError: `what` is not final yet."""
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        now = ""
        with contextlib.suppress(ColoniesError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                now = f": it is {await state()}"
        raise TimeoutError(f"{what} was not final after {timeout_s:g} s of waiting{now}") from None
