"""Tasks end: with the error itself, and when they are told to."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from colonies.errors import Refused
from colonies.tasks import cancellable, first_error


async def keeps_it_to_itself() -> str:
    """What a library does that takes a cancellation for its own end."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return "done"


async def test_a_cancellation_that_was_kept_is_raised() -> None:
    task = asyncio.create_task(cancellable(keeps_it_to_itself()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_limit_around_what_keeps_cancellations_is_a_time_limit() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cancellable(keeps_it_to_itself())


async def test_cleaning_up_after_a_cancellation_is_not_cut_short() -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(await cancellable(asyncio.sleep(0, "first")))
            cleaned.append(await cancellable(asyncio.sleep(0, "second")))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == ["first", "second"]


async def test_out_of_a_group_comes_our_error() -> None:
    async def refused() -> None:
        raise Refused("not you")

    async def in_a_group() -> None:
        with first_error():
            async with asyncio.TaskGroup() as group:
                group.create_task(refused())
                group.create_task(asyncio.sleep(60))

    with pytest.raises(Refused, match="not you"):
        await in_a_group()


async def test_an_error_that_is_not_ours_comes_out_as_the_group() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async def in_a_group() -> None:
        with first_error():
            async with asyncio.TaskGroup() as group:
                group.create_task(broken())

    with pytest.raises(ExceptionGroup):
        await in_a_group()
