"""The view of logs: what processes wrote, found by its words.

LOGS stands beside the ledger and has sequences of its own, so this follows it by itself: from its own
position, each message verified with the key that its worker had at that time. What nobody signed that may
write a log, or is of no process of the ledger, is counted and left out. What is missing because LOGS aged or
was purged is no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from colonies import subjects
from colonies.errors import ColoniesError, Invalid, Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Stored
from colonies.logs import LogEntry, read_log
from colonies.past import moment
from colonies_projections.listing import microseconds, rfc3339_of
from colonies_projections.log_lines import ALL, expression, token
from colonies_projections.log_store import Line, LogStore, Message, Wanted, checksum, set_aside
from colonies_projections.position import Unusable
from colonies_projections.question import Question
from colonies_projections.standing import while_counting
from colonies_projections.view import Asked, Filter, Page

if TYPE_CHECKING:
    from colonies_projections.projector import Projector

POLL_S = 5.0
GATHER_S = 0.02
AGAIN_S = 0.2
BEHIND_S = 5.0  # how long a question waits until the log is as far as it asks for
MAX_BEGUN_ANEW = 5
VERIFIED_IN_A_ROW = 64

SPECS = "SELECT id, func, workflow FROM processes WHERE id IN (SELECT value FROM json_each(?))"
_SOURCE = ("process", "worker", "stream", "func", "workflow")

_log = structlog.get_logger("colonies.projector")


class Logs:
    """Follows LOGS for one projector, and answers from it.

    `covers` is a sequence of the ledger: every message that was stored before that event is in.
    """

    name: ClassVar[str] = "logs"
    version: ClassVar[int] = 1
    filters: ClassVar[Mapping[str, Filter]] = {
        "text": Filter(read=expression),
        **{name: Filter() for name in _SOURCE},
        "since": Filter(read=microseconds),
        "until": Filter(read=microseconds),
    }
    sorts: ClassVar[Sequence[str]] = ("-time",)

    def __init__(self, projector: Projector) -> None:
        self.path = projector.path.with_name(f"{projector.path.name}.logs")
        self.store: LogStore | None = None
        self.covers = 0
        self._begun = self._done = self._waiting = 0  # times that it caught up; questions that wait for it
        self._sums: tuple[tuple[LogStore, int] | None, tuple[int, str]] = (None, (0, ""))
        self._projector = projector
        self._wake = asyncio.Event()
        self._moved = asyncio.Condition()
        self._broken: Unusable | None = None
        self._begun_anew = 0  # times in a row, with nothing taken in between

    async def run(self) -> None:
        """Work until cancelled. Raises Unavailable: the file is unusable again and again."""
        ledger = self._projector.ledger
        if not isinstance(ledger, JetStreamLedger):
            return
        heard = await ledger.subscribe(subjects.ALL_LOGS, lambda _: self._wake.set())
        try:
            while self._begun_anew < MAX_BEGUN_ANEW:
                try:
                    await self._follow(ledger)
                except Unusable as reason:
                    self._begun_anew += 1
                    aside = await asyncio.to_thread(set_aside, self.path)
                    said = {"path": str(self.path), "aside": str(aside), "reason": str(reason)}
                    _log.warning("the view of logs begins anew; the file was set aside", **said)
            raise Unavailable(f"{self.path} is unusable again and again")
        finally:
            await heard.close()

    # --- following -----------------------------------------------------------------------------------

    async def _follow(self, ledger: JetStreamLedger) -> None:
        """Keep the messages of LOGS until the file is broken: raises Unusable."""
        self.covers, self._broken = 0, None
        store = await asyncio.to_thread(LogStore.open, self.path, ledger.colony)
        self.store = store
        try:
            while True:
                self._wake.clear()
                if self._broken is not None:
                    raise self._broken
                try:
                    await self._catch_up(ledger, store)
                except ColoniesError as error:
                    _log.debug("logs not read", error=str(error))
                    await asyncio.sleep(AGAIN_S)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
                    if not self._waiting:
                        await asyncio.sleep(GATHER_S)
        finally:
            self.store = None
            await asyncio.to_thread(store.close)

    async def _catch_up(self, ledger: JetStreamLedger, store: LogStore) -> None:
        self._begun += 1
        covers = await ledger.last_sequence()
        info = await ledger.stream_info(subjects.LOGS)
        last = int(info["state"]["last_seq"])
        store.confirm(str(info["created"]), last)
        async for batch in ledger.logs(store.position, last):
            await self._take_in(store, batch)
        if store.position < last:  # what stood there aged out or was purged
            await asyncio.to_thread(store.take_in, last, ())
        async with self._moved:
            self.covers, self._done, self._begun_anew = covers, self._begun, 0
            self._moved.notify_all()

    async def _take_in(self, store: LogStore, batch: list[Stored]) -> None:
        # Who was a member when it was stored stands on the ledger by now.
        session = self._projector.session
        await session.refresh()
        entries: list[tuple[str, LogEntry]] = []
        for number, stored in enumerate(batch, start=1):
            entry = read_log(session.colony, stored)
            if entry is not None:
                entries.append((stored.subject.split(".")[1], entry))
            if number % VERIFIED_IN_A_ROW == 0:
                await asyncio.sleep(0)
        specs = await self._specs({process for process, _ in entries})
        messages = [
            message_of(process, entry, specs[process]) for process, entry in entries if process in specs
        ]
        await asyncio.to_thread(store.take_in, batch[-1].sequence, messages, len(batch) - len(messages))

    async def _specs(self, processes: Collection[str]) -> Mapping[str, tuple[str, str | None]]:
        """Function and workflow of those processes that there are. Raises Unavailable."""
        projector = self._projector
        if not any(view.name == "processes" for view in projector.views()):
            return dict.fromkeys(processes, ("", None))
        found: dict[str, tuple[str, str | None]] = {}
        for ahead in (True, False):
            wanted = sorted(set(processes) - set(found))
            rows = await projector.rows(SPECS, (json.dumps(wanted),)) if wanted else []
            found |= {row["id"]: (row["func"], row["workflow"]) for row in rows}
            if ahead and len(found) < len(processes):
                await projector.come_to(await projector.ledger.last_sequence())
        return found

    # --- standing ------------------------------------------------------------------------------------

    async def standing(self, at: int | None) -> list[dict[str, Any]]:
        """How this view stands, as the others in `colonies_projections.standing`, in sequences of LOGS. With
        `at`, a sequence of the ledger, what the messages that it keeps up to that time add up to; nothing if
        it is behind."""
        ledger, store = self._projector.ledger, self.store
        if store is None or not isinstance(ledger, JetStreamLedger):
            return []
        rows, total = None, None
        if at is not None:
            with contextlib.suppress(Unavailable):
                await self._come_to(at)
                if self._sums[0] != (store, at):
                    time = (await moment(ledger, str(at))).time // 1_000
                    with while_counting():
                        self._sums = (store, at), await asyncio.to_thread(checksum, store.path, time)
                rows, total = self._sums[1]
        last = int((await ledger.stream_info(subjects.LOGS))["state"]["last_seq"])
        behind = max(0, last - store.position)
        lag_s = (await ledger.now() // 1_000 - store.time) / 1e6 if behind else 0.0
        return [
            {
                "view": self.name,
                "version": self.version,
                "projector": self._projector.session.name,
                "position": store.position,
                "last": last,
                "lag_events": behind,
                "lag_s": round(max(0.0, lag_s), 3),
                "at_time": rfc3339_of(store.time) if store.time else None,
                "state": "ready",
                "rebuilt": None,
                "rows": rows,
                "checksum": total,
                "counted_at": None if total is None else at,
                "stream": subjects.LOGS,
                "left_out": store.left_out,
            }
        ]

    # --- answering -----------------------------------------------------------------------------------

    async def answer(self, question: Question) -> tuple[Page, int]:
        """Lines: `{time, process, func, workflow, worker, attempt, stream, text, sequence, line}`. `sequence`
        is that of LOGS, `line` the number of the line in its message.

        Raises Invalid, Unavailable.
        """
        at = question.at
        then = None if at is None else (await moment(self._projector.ledger, str(at))).time // 1_000
        await self._come_to(max(question.at_least, at or 0), now=question.at_least > 0)
        store = self.store
        if store is None:
            raise Unavailable("the logs are being read; ask again in a moment")
        covers = self.covers
        try:
            found, more = await asyncio.to_thread(store.find, wanted_of(question.asked, then))
        except (Unusable, sqlite3.ProgrammingError) as error:
            if isinstance(error, Unusable):
                self._broken = error
                self._wake.set()
            elif self.store is store:
                raise
            raise Unavailable("the logs are being read anew; ask again in a moment") from None
        keys = [(line.message["sequence"], line.hit) for line in found]
        return Page(list(map(item_of, found)), keys, more), at or covers

    async def _come_to(self, sequence: int, *, now: bool = False) -> None:
        """Wait until all that was stored before this event is in, and, with `now`, all that is there now.

        Raises Invalid: there is no such event; Unavailable.
        """
        done = self._begun + 1 if now else 0
        if self.covers >= sequence and not now:
            return
        last = await self._projector.ledger.last_sequence()
        if last < sequence:
            raise Invalid(f"there is no event {sequence} yet: the ledger ends at {last}")
        self._waiting += 1
        self._wake.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEHIND_S), self._moved:
                    await self._moved.wait_for(lambda: self.covers >= sequence and self._done >= done)
                    return
        finally:
            self._waiting -= 1
        raise Unavailable(f"the logs are behind: they are read as of {self.covers} of {last}")


def item_of(line: Line) -> dict[str, Any]:
    """A line as an answer has it."""
    message = line.message
    return {
        "time": rfc3339_of(message["time"]),
        **{name: message[name] for name in ("process", "func", "workflow", "worker")},
        "attempt": message["n"],
        "stream": message["stream"],
        "text": line.text,
        "sequence": message["sequence"],
        "line": line.number,
    }


def message_of(process: str, entry: LogEntry, spec: tuple[str, str | None]) -> Message:
    """A verified message as it is kept. What is no output says its reason."""
    written = entry.type == "log.written"
    said = [str(entry.data[word]) for word in ("reason", "error") if entry.data.get(word)]
    return Message(
        sequence=entry.sequence,
        process=process,
        worker=entry.worker,
        attempt=entry.attempt,
        n=entry.n,
        stream=entry.stream if written else entry.type.partition(".")[2],
        place=entry.index,
        time=entry.time // 1_000,
        text=entry.text if written else "".join(f"{text}\n" for text in said),
        func=spec[0] or None,
        workflow=spec[1],
    )


def wanted_of(asked: Asked, then: int | None) -> Wanted:
    """The question as the file takes it; `then` (us) is the moment of the past that is asked for."""
    filters = dict(asked.filters)
    terms = [filters.pop("text")] if "text" in filters else []
    since, until = filters.pop("since", None), filters.pop("until", None)
    if then is not None:
        until = then + 1 if until is None else min(until, then + 1)
    terms += (f"about : {token(name, value)}" for name, value in filters.items())
    after = None if asked.after is None else int(asked.after[1])
    return Wanted(" AND ".join(terms) or f"about : {ALL}", since, until, after, asked.down, asked.limit)
