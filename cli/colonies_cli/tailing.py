"""Reading the ledger from some point on, each event judged, without folding what stands before it.

What the colony is (members, queues, workers) is folded from the first event, for it is little; a process is
read whole when the first of its events comes by. So the cost is that of what is shown.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from colonies import subjects
from colonies.core.colony import Colony
from colonies.core.events import Cancelled, Received
from colonies.core.process import Process
from colonies.history import History, Judged, examine, judge_process
from colonies.ledger import Stored
from colonies.session import Session
from colonies_cli import events, output
from colonies_cli.command import Here
from colonies_cli.output import Output

LOOK_AGAIN_S = 30.0
MAX_PROCESSES = 10_000
_COLONY_PATTERNS = (*subjects.TRUST, subjects.QUEUES, "ledger.worker.>")


class _Known:
    """A process that came by: it as of `guard`, and the verdicts on what was read of it."""

    def __init__(
        self, process: Process | None, guard: int, judged: dict[int, tuple[Judged, int | None]]
    ) -> None:
        self.process = process
        self.guard = guard
        self.judged = judged


class Tail:
    """The ledger from the sequence `start` on."""

    def __init__(self, session: Session, start: int) -> None:
        self._session = session
        self._position = start - 1
        self._history = History(Colony(session.ledger.colony))
        self._judged: dict[int, Judged] = {}
        self._processes: OrderedDict[str, _Known] = OrderedDict()

    async def run(self, here: Here, *, follow: bool) -> None:
        """Print what is there, then, to `follow`, what comes, until cancelled.

        Raises:
            Refused: this member was revoked meanwhile.
        """
        await self._fold_colony()
        if here.output == Output.table:
            output.line(output.spaced(events.HEADER, _WIDTHS))
        if not follow:
            await self._print_new(here)
            return
        ledger = self._session.ledger
        woken = asyncio.Event()
        subscription = await ledger.subscribe("feed.>", lambda _: woken.set())
        ledger.on_gap(woken.set)
        lost = asyncio.create_task(ledger.lost(), name="connection")
        try:
            while True:
                woken.clear()
                await self._print_new(here)
                waking = asyncio.create_task(woken.wait(), name="feed")
                await asyncio.wait({waking, lost}, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
                if lost.done():
                    await lost
        finally:
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)
            await subscription.close()

    async def _print_new(self, here: Here) -> None:
        async for batch in self._session.ledger.scan(self._position):
            for stored in batch:
                seen, attempt = await self._judge(stored)
                _show(here, seen, attempt)
                self._position = stored.sequence

    async def _fold_colony(self) -> None:
        found: list[Stored] = []
        for pattern in _COLONY_PATTERNS:
            async for batch in self._session.ledger.scan(0, pattern):
                found += batch
        for stored in sorted(found, key=lambda stored: stored.sequence):
            seen = self._history.add(stored)
            if stored.sequence > self._position:
                self._judged[stored.sequence] = seen

    async def _judge(self, stored: Stored) -> tuple[Judged, int | None]:
        seen = self._judged.pop(stored.sequence, None)
        if seen is not None:
            return seen, None
        subject = subjects.parse(stored.subject)
        if subject is not None and subject.kind == "workflow":
            return await self._judge_of_workflow(subject.entity, stored), None
        if subject is None or subject.kind != "process":
            return self._history.add(stored), None
        return await self._judge_of_process(subject.entity, stored)

    async def _judge_of_workflow(self, id: str, stored: Stored) -> Judged:
        story = await self._session.knowledge.workflow_now(id)
        found = [seen for seen in story.judged if seen.stored.sequence == stored.sequence]
        return found[0] if found else examine(self._history.colony, stored)

    async def _judge_of_process(self, id: str, stored: Stored) -> tuple[Judged, int | None]:
        known = self._processes.get(id)
        if known is None:
            known = self._processes[id] = await self._read(id)
            if len(self._processes) > MAX_PROCESSES:
                self._processes.popitem(last=False)
        if stored.sequence in known.judged:
            return known.judged.pop(stored.sequence)
        if stored.sequence <= known.guard:  # shown before
            known = self._processes[id] = await self._read(id)
            return known.judged[stored.sequence]
        event = examine(self._history.colony, stored)
        if event.record is not None and isinstance(event.record.event, Cancelled | Received):
            known = self._processes[id] = await self._read(id)  # of a node it cites others
            return known.judged.pop(stored.sequence)
        known.process, seen = judge_process(
            self._history.colony, known.process, event, self._session.knowledge
        )
        known.guard = stored.sequence
        return seen, events.attempt_of(seen, known.process)

    async def _read(self, id: str) -> _Known:
        story, known = await self._session.story(id), self._session.knowledge
        judged: dict[int, tuple[Judged, int | None]] = {
            seen.stored.sequence: (seen, n) for seen, n, _ in events.numbered(story.judged, known)
        }
        return _Known(story.process, story.guard, judged)


_WIDTHS = (8, 20, 50, 14, 7, 60)


def _show(here: Here, seen: Judged, attempt: int | None) -> None:
    if here.output == Output.name:
        output.line(seen.record.id if seen.record is not None else str(seen.stored.sequence))
        return
    event: Any = events.event_object(seen, attempt)
    if here.output == Output.json:
        output.json_line(event)
    else:
        output.line(output.spaced(events.row(event, with_entity=True), _WIDTHS))
