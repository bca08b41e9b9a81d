"""The view of logs of an imported ledger: the log messages that are in its export, found by their words.

The file is that of a projector, and so are the answers. Whoever asks first makes it, or goes on with one
that was left in the middle. Each message is verified with the key that its worker had at that time.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import ClassVar

from colonies.errors import Invalid, Unavailable
from colonies.imported import ImportedLedger
from colonies.ledger import Stored
from colonies.logs import read_log
from colonies.past import moment
from colonies_projections.build import Build
from colonies_projections.log_store import LINE_BITS, LogStore
from colonies_projections.logs import SPECS, Logs, item_of, message_of, wanted_of
from colonies_projections.position import Unusable
from colonies_projections.question import Question
from colonies_projections.store import discard
from colonies_projections.view import Filter, Page

NO_LOGS = "the export that was imported has no logs; export it anew with --logs, and import that"

_END = 2 ** (63 - LINE_BITS)  # no stream comes so far, but a file may say so


class ImportedLogs:
    """Answers from the logs of one imported ledger; `build` has its views, of the whole of it."""

    name: ClassVar[str] = Logs.name
    version: ClassVar[int] = Logs.version
    filters: ClassVar[Mapping[str, Filter]] = Logs.filters
    sorts: ClassVar[Sequence[str]] = Logs.sorts

    def __init__(self, ledger: ImportedLedger, build: Build) -> None:
        self._ledger = ledger
        self._build = build
        self._path = build.store.path.with_name(f"{build.store.path.name}.logs")

    async def answer(self, question: Question) -> tuple[Page, int]:
        """As `Logs.answer`.

        Raises Invalid: the export has no logs. Unavailable: the file cannot be written.
        """
        if not self._ledger.header.notes:
            raise Invalid(NO_LOGS)
        last = self._ledger.header.last
        if (wanted := max(question.at_least, question.at or 0)) > last:
            raise Invalid(f"there is no event {wanted}: the imported ledger ends at {last}")
        then = None
        if question.at is not None:
            then = (await moment(self._ledger, str(question.at))).time // 1_000
        try:
            try:
                store = await self._filled()
            except Unusable:
                discard(self._path)
                store = await self._filled()
            try:
                found, more = await asyncio.to_thread(store.find, wanted_of(question.asked, then))
            finally:
                await asyncio.to_thread(store.close)
        except (Unusable, sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self._path} cannot be read or written: {error}; ask again") from None
        keys = [(line.message["sequence"], line.hit) for line in found]
        return Page(list(map(item_of, found)), keys, more), question.at or last

    async def _filled(self) -> LogStore:
        store = await asyncio.to_thread(LogStore.open, self._path, self._ledger.colony)
        try:
            async for batch in self._ledger.logs(store.position):
                await self._take_in(store, batch)
        except BaseException:
            await asyncio.to_thread(store.close)
            raise
        return store

    async def _take_in(self, store: LogStore, batch: list[Stored]) -> None:
        after, entries = store.position, []
        for stored in batch:
            entry = read_log(self._build.colony, stored) if after < stored.sequence < _END else None
            if entry is not None:
                entries.append((stored.subject.split(".")[1], entry))
                after = stored.sequence
        asked = json.dumps(sorted({process for process, _ in entries}))
        async with self._build.store.snapshot() as (_, select):
            specs = {row["id"]: (row["func"], row["workflow"]) for row in await select(SPECS, (asked,))}
        kept = [message_of(process, entry, specs[process]) for process, entry in entries if process in specs]
        await asyncio.to_thread(store.take_in, batch[-1].sequence, kept, len(batch) - len(kept))
