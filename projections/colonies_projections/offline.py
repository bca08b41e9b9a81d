"""Answers questions about an imported ledger, where no projector runs: in the program that asks.

The views are the projector's own, in a file beside the imported ledger. They are built by whoever asks first,
and then they are there: an imported ledger never goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from colonies import imported
from colonies.core.names import shown
from colonies.errors import Unavailable
from colonies.imported import ImportedLedger
from colonies_projections.build import Build
from colonies_projections.desk import reply
from colonies_projections.logs_imported import ImportedLogs
from colonies_projections.position import Unusable
from colonies_projections.projector import VIEWS
from colonies_projections.question import Question
from colonies_projections.store import discard, locked
from colonies_projections.view import Asking, Page

FILE = "views.sqlite"
QUERY = "query."
BUSY_S = 600.0  # another program builds them
AGAIN_S = 0.1


def answer_here() -> None:
    """From now on this program answers its own questions about imported ledgers (`client.query`)."""
    imported.answers = answer


async def answer(
    ledger: ImportedLedger,
    subject: str,
    body: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The answer of the view that `subject` (`query.<view>`) is of, as a projector would give it. While the
    views are built, `progress` is called with (sequence, last sequence) now and then.

    Raises:
        Unavailable: the file of the views cannot be written.
    """
    name = subject.removeprefix(QUERY)
    async with _built(ledger, progress) as build:
        logs = ImportedLogs(ledger, build)
        views = {view.name: view for view in build.views}
        asked: Asking | None = logs if name == logs.name else views.get(name)
        if asked is None or not subject.startswith(QUERY):
            names = ", ".join(sorted([*views, logs.name]))
            return {
                "error": f"an imported ledger has no view {shown(name)}; it has {names}",
                "kind": "invalid",
            }

        async def said(_: str, question: Question) -> tuple[Page, int]:
            if name == logs.name:
                return await logs.answer(question)
            return await build.answer(views[name], question.asked, question.at)

        found: dict[str, Any] = json.loads(await reply(asked, json.dumps(body).encode(), said))
        return found


@contextlib.asynccontextmanager
async def _built(ledger: ImportedLedger, progress: Callable[[int, int], None] | None) -> AsyncIterator[Build]:
    """The views, of the whole ledger."""
    path = ledger.folder / FILE
    try:
        async with contextlib.AsyncExitStack() as stack:
            await _lock(stack, path)
            build = await _opened(ledger, path)
            stack.push_async_callback(build.close)
            async for batch in ledger.scan(build.position.sequence):
                await build.take_in(batch)
                if progress is not None:
                    progress(batch[-1].sequence, ledger.header.last)
            yield build
    except Unusable as error:  # by another program, this moment
        raise Unavailable(f"{path}: {error}; ask again") from None
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"{path} cannot be written: {error}") from None


async def _lock(stack: contextlib.AsyncExitStack, path: Path) -> None:
    try:
        async with asyncio.timeout(BUSY_S):
            while True:
                try:
                    return stack.enter_context(locked(path))
                except Unavailable:
                    await asyncio.sleep(AGAIN_S)
    except TimeoutError:
        raise Unavailable(f"{path} is in use by another program; try again") from None


async def _opened(ledger: ImportedLedger, path: Path) -> Build:
    try:
        return await Build.open(ledger, path, [make() for make in VIEWS])
    except Unusable:
        discard(path)
        return await Build.open(ledger, path, [make() for make in VIEWS])
