"""The service that exports spans: follows the ledger, tells what ended, and goes on when that was taken.

It needs no consumer and writes nothing to the ledger. While nobody takes its spans it reads no further: the
ledger is its buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from colonies.errors import Invalid, Refused
from colonies.execution import in_thread
from colonies.feed import follow
from colonies.ledger import Stored
from colonies.session import Session
from colonies.tasks import first_error
from colonies_projections.store import locked
from colonies_projections.traces import why_not
from colonies_projections.traces.position import Exported, exported
from colonies_projections.traces.spans import Span
from colonies_projections.traces.telling import Teller

if TYPE_CHECKING:
    from colonies_projections.traces.otlp import Otlp

MAX_SPANS = 512  # in one request
MAX_AHEAD = 2_048  # events that were told and whose spans were not taken yet
GATHER_S = 0.5
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0

_log = structlog.get_logger("colonies.traces")


class Exporter:
    """One exporter, on a session of a member with the role `observer`; how far it is stands in the file
    `path`.

    `ready` is set once it is known where to begin: what ends from then on is exported.
    """

    def __init__(self, session: Session, path: Path) -> None:
        self.session = session
        self.path = path
        self.ready = asyncio.Event()
        self._told: asyncio.Queue[tuple[Stored, list[Span]]] = asyncio.Queue(MAX_AHEAD)

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            Refused: this member is no observer, or is revoked.
            Invalid: there is nowhere to export to, or what exports is not installed.
            Unavailable: another exporter has the file, or it cannot be used.
        """
        if self.session.role != "observer":
            raise Refused(f"{self.session.name} is a {self.session.role}; exporting needs the role observer")
        if (reason := why_not()) is not None:
            raise Invalid(f"traces: {reason}")
        from colonies_projections.traces.otlp import Otlp

        async with AsyncExitStack() as stack:
            file = await stack.enter_async_context(exported(self.path, self.session.ledger))
            stack.enter_context(locked(self.path))
            after = await file.begin()
            self.ready.set()
            _log.info("exporting spans", path=str(self.path), position=after)
            otlp = Otlp(self.session.ledger.colony, self.session.colony.name)
            stack.callback(otlp.close)
            with first_error():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._tell(after), name="tell spans")
                    group.create_task(self._export(file, otlp), name="export spans")

    async def _tell(self, after: int) -> None:
        teller = Teller(self.session)
        async with aclosing(follow(self.session, after)) as feed:
            async for seen in feed:
                await self._told.put((seen.stored, await teller.take(seen)))

    async def _export(self, file: Exported, otlp: Otlp) -> None:
        while True:
            last, spans = await self._told.get()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    while len(spans) < MAX_SPANS:
                        last, more = await self._told.get()
                        spans += more
            for start in range(0, len(spans), MAX_SPANS):
                await _sent(otlp, spans[start : start + MAX_SPANS])
            await file.done(last)


async def _sent(otlp: Otlp, spans: Sequence[Span]) -> None:
    """Send these until they are taken. What is refused for good is sent one by one, and left out."""
    loop = asyncio.get_running_loop()
    pause_s, since, said = FIRST_PAUSE_S, loop.time(), False
    while True:
        answer = await in_thread(lambda: otlp.send(spans))
        if answer == "refused" and len(spans) > 1:
            half = len(spans) // 2
            await _sent(otlp, spans[:half])
            return await _sent(otlp, spans[half:])
        if answer == "refused":
            _log.warning("a span is refused and left out", span=spans[0].at.span_id, reason=otlp.reason)
            return None
        if answer == "taken":
            if said:
                _log.info("spans are taken again", away_s=round(loop.time() - since))
            return None
        if not said:
            said = True
            _log.warning("spans are not taken; it is tried again", host=otlp.host, reason=otlp.reason)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)
