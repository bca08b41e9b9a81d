"""One set of views under way: its file, its memory, and how far it is.

It takes in events and answers questions; where the events come from, and what is asked, is the projector's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from colonies import subjects
from colonies.core.colony import Colony
from colonies.core.events import Record, WorkflowSubmitted
from colonies.errors import Invalid, Unavailable
from colonies.history import Judged
from colonies.ledger import Ledger, Stored
from colonies_projections.installed import Guest
from colonies_projections.memory import Memory
from colonies_projections.position import Position
from colonies_projections.progress import Progresses
from colonies_projections.signatures import Checked, Helpers, checked_ahead, helpers_for
from colonies_projections.store import Store
from colonies_projections.view import Asked, Batch, Page, Snapshot, Step, View

EVENTS_IN_A_ROW = 64
FAR = 4_096  # events: whoever took in so many without a pause may have many more before it

_NOTHING: Checked = {}


class Build:
    """Views in one file, opened by `open`. `position` is that of the last event that they took in."""

    def __init__(self, ledger: Ledger, views: Sequence[View], store: Store, stack: AsyncExitStack) -> None:
        self.ledger = ledger
        self.views = views
        self.store = store
        self.confirmed = False
        self._stack = stack
        self._memory: Memory
        self._progresses: Progresses

    @classmethod
    async def open(cls, ledger: Ledger, path: Path, views: Sequence[View]) -> Build:
        """Go on with the file, or begin it.

        Raises Unusable, and OSError or sqlite3.Error if it cannot be read or written at all.
        """
        async with AsyncExitStack() as stack:
            store = await Store.open(path, ledger.colony, views)
            stack.push_async_callback(store.close)
            build = cls(ledger, views, store, stack)
            await build.remember()
            build._stack = stack.pop_all()
        return build

    async def remember(self) -> None:
        """Begin with an empty memory: what is always in it is recalled."""
        self._memory = await Memory(self.store).open()
        self._progresses = Progresses(self._memory)

    async def close(self) -> None:
        await self._stack.aclose()

    @property
    def position(self) -> Position:
        return self.store.position

    @property
    def colony(self) -> Colony:
        """The colony as of there."""
        return self._memory.history.colony

    async def confirm(self) -> None:
        """Does our position still stand in this ledger? Looks again once `confirmed` was taken back.

        Raises Unusable if not, and Unavailable or NotFound if that cannot be said now.
        """
        if not self.confirmed:
            await self.position.confirm(self.ledger)
            self.confirmed = True

    async def catch_up(self) -> AsyncGenerator[int, None]:
        """Take in what stands on the ledger, batch by batch; gives the position after each.

        Raises Unusable, and Unavailable or NotFound if the ledger cannot be read.
        """
        taken = 0
        async for batch in self.ledger.scan(self.position.sequence):
            await self.take_in(batch)
            taken += len(batch)
            yield self.position.sequence
            if taken >= FAR:
                break
        else:
            return
        behind = await self.ledger.last_sequence() - self.position.sequence
        async with Helpers(helpers_for(behind)) as helpers:
            scan = self.ledger.scan(self.position.sequence)
            batches = checked_ahead(scan, helpers, self._memory.history.colony)
            async with contextlib.aclosing(batches):
                async for batch, checked in batches:
                    await self.take_in(batch, checked)
                    yield self.position.sequence

    # --- taking in -----------------------------------------------------------------------------------

    async def take_in(self, batch: list[Stored], checked: Checked = _NOTHING) -> None:
        """Judge the next events of the ledger, and keep what they change, all in one transaction."""
        memory, progresses = self._memory, self._progresses
        held = memory.held
        named = await memory.begin(batch)
        judged: list[Judged] = []
        steps: list[Step] = []
        for number, stored in enumerate(batch, start=1):
            id = _process_of(stored)
            before = held["process"].get(id)
            seen = await memory.take(stored, checked.get(stored.sequence))
            await progresses.after(seen, before)
            judged.append(seen)
            if id and seen.record is not None and seen.verdict.valid:
                steps.append(Step(seen.record, before, held["process"][id]))
            if number % EVENTS_IN_A_ROW == 0:
                await asyncio.sleep(0)
        valid = [seen.record for seen in judged if seen.record is not None and seen.verdict.valid]
        touched = {(record.kind, record.entity) for record in valid if record.kind in held}
        touched |= {("generator", name) for name in map(_generator_of, valid) if name is not None}
        touched |= {("progress", id) for id in progresses.touched}
        touched |= {(kind, id) for kind, id in named if kind == "voids" and id in held[kind]}
        others = [record for record in valid if record.kind != "process"]
        changed = Batch(judged, steps, progresses.steps, progresses.rows, others, memory.history)
        await self.store.commit(
            Position.of(batch[-1]),
            memory.packed(touched),
            memory.history.colony if any(record.kind not in held for record in valid) else None,
            [write for view in self.views if not isinstance(view, Guest) for write in view.fold(changed)],
            [
                (view.name, partial(view.fold, changed))
                for view in self.views
                if isinstance(view, Guest) and view.name not in self.store.broken
            ],
        )
        memory.forget(named)
        progresses.forget()

    # --- answering -----------------------------------------------------------------------------------

    async def answer(self, view: View, asked: Asked, at: int | None) -> tuple[Page, int]:
        """The answer, and the sequence that it is of. Raises Invalid: nobody knows the future."""
        if at is not None and at > self.position.sequence:
            raise Invalid(f"at: {at}; the views have come to {self.position.sequence}")
        if view.name in self.store.broken:
            sequence, error = self.store.broken[view.name]
            raise Unavailable(f"the view {view.name} is left out since sequence {sequence}: {error}")
        async with self.store.snapshot(at) as (position, select):
            colony = self._memory.history.colony
            snapshot = Snapshot(position, at is not None, select, colony, self.ledger)
            return await view.answer(asked, snapshot), position


def _process_of(stored: Stored) -> str:
    """The process that a message is of, if it is of one."""
    subject = subjects.parse(stored.subject)
    return subject.entity if subject is not None and subject.kind == "process" else ""


def _generator_of(record: Record) -> str | None:
    """The generator whose arguments this takes."""
    source = record.event.source if isinstance(record.event, WorkflowSubmitted) else None
    return source.name if source is not None and source.kind == "generator" else None
