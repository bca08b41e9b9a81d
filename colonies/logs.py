"""The log of a process as its readers see it: what its attempts wrote, and notes on what came of them.

LOGS stands beside the ledger: its messages are signed by the worker that wrote them, and age out. A message
that no worker of the colony signed at that time is nothing. `log.written` is output; `log.refused` is a
result that the ledger did not take, `log.stopped` says why a run was stopped. What ends an attempt on the
ledger holds the count and digest of its log, so a reader can tell whether all of it is still there.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from colonies import codec, subjects
from colonies.core.colony import Colony
from colonies.core.events import MAX_COUNT, LogDigest
from colonies.core.members import Member
from colonies.errors import Unavailable
from colonies.ledger import Stored
from colonies.session import Session

REREAD_S = 30.0

Type = Literal["log.written", "log.refused", "log.stopped"]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One verified message. `attempt` is an attempt's id, `n` its number, `index` the message's place in its
    log; `time` (ns) is the broker's, or the worker's claim for one that was just heard (`sequence` 0).

    `stream` and `text` are those of `log.written`; `data` is what the other types say.
    """

    sequence: int
    time: int
    worker: str
    type: Type
    attempt: str
    n: int
    index: int
    stream: str
    text: str
    data: dict[str, Any]
    sealed: bytes


def read_log(colony: Colony, stored: Stored) -> LogEntry | None:
    """A verified log message, or None."""
    match stored.subject.split("."):
        case ["log", _, worker]:
            pass
        case _:
            return None
    member = colony.members.get(worker)
    key = _key_at(member, stored.time) if member is not None and member.role == "worker" else None
    if key is None:
        return None
    try:
        opened = codec.open_(colony.key, stored.subject, stored.data)
    except codec.Malformed:
        return None
    if opened.author != worker or opened.type not in get_args(Type) or not opened.is_signed_by(key):
        return None
    match opened.data:
        case {"attempt": str() as attempt, "n": int() as n, "index": int() as index, **data} if (
            _is_id(attempt) and 0 <= n <= MAX_COUNT and 0 <= index <= MAX_COUNT and _can_be_shown(data)
        ):
            pass
        case _:
            return None
    stream, text = data.get("stream"), data.get("text")
    if opened.type == "log.written" and not (isinstance(stream, str) and isinstance(text, str)):
        return None
    return LogEntry(
        sequence=stored.sequence,
        time=stored.time or opened.time,
        worker=worker,
        type=opened.type,  # type: ignore[arg-type]
        attempt=attempt,
        n=n,
        index=index,
        stream=stream if isinstance(stream, str) else "",
        text=text if isinstance(text, str) else "",
        data=data,
        sealed=stored.data,
    )


def _key_at(member: Member, time: int) -> str | None:
    """Its key at that time (ns; 0: just now). LOGS has sequences of its own, so times must do."""
    if time > 0:
        return member.key_at_time(time)
    return member.key if member.until is None else None


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[0-9A-Z]{26}", text) is not None


def _can_be_shown(data: dict[str, Any]) -> bool:
    """What is printed of a note is text: a worker signs what it likes, bytes and deep lists too."""
    return all(isinstance(data.get(word, ""), str | None) for word in ("event", "reason", "error"))


async def read_logs(session: Session, process: str) -> list[LogEntry]:
    """What LOGS holds of a process, in order, each message once. Raises Unavailable."""
    entries: list[LogEntry] = []
    known: set[tuple[str, str, int]] = set()
    found = await session.ledger.emitted(subjects.logs_of(process))
    if any(stored.subject.rsplit(".", 1)[1] not in session.colony.members for stored in found):
        await session.refresh()
    for stored in found:
        entry = read_log(session.colony, stored)
        # A worker that got no answer says it again: the same index twice. Another worker's is another log.
        if entry is not None and (entry.worker, entry.attempt, entry.index) not in known:
            known.add((entry.worker, entry.attempt, entry.index))
            entries.append(entry)
    return entries


def missing(entries: Iterable[LogEntry], worker: str, attempt: str, digest: LogDigest) -> int:
    """How many messages of an attempt's log are no longer there; -1: they are there, but are not the same.

    `digest` is what the attempt's end says on the ledger. Notes written after that end do not count.
    """
    by_index = {entry.index: entry for entry in entries if (entry.worker, entry.attempt) == (worker, attempt)}
    found = [by_index[index] for index in range(digest.count) if index in by_index]
    if len(found) < digest.count:
        return digest.count - len(found)
    whole = hashlib.sha256(b"".join(entry.sealed for entry in found)).hexdigest()
    return 0 if whole == digest.sha256 else -1


class Follower:
    """The log of one process as it grows. `async with` it, then iterate; `finish` ends the iteration.

    It hears the log live, which may lose, and reads again after a jump in the numbering, a gap in the
    connection or a long silence. Each message comes once, in its attempt's order.
    """

    def __init__(self, session: Session, process: str) -> None:
        self._session = session
        self._process = process
        self._heard: asyncio.Queue[Stored | None] = asyncio.Queue()
        self._next: dict[tuple[str, str], int] = {}
        self._ending = False

    async def __aenter__(self) -> Follower:
        ledger = self._session.ledger
        pattern = subjects.logs_of(self._process)
        self._subscription = await ledger.subscribe(pattern, self._heard.put_nowait)
        ledger.on_gap(self._look_again)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._subscription.close()

    def finish(self) -> None:
        """The process is final: read what is left of its log, then stop."""
        self._ending = True
        self._look_again()

    def _look_again(self) -> None:
        self._heard.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[LogEntry]:
        for entry in await self._read():
            yield entry
        while True:
            ending = self._ending
            stored = None if ending else await self._hear()
            if stored is not None:
                live = read_log(self._session.colony, stored)
                if live is None:
                    continue
                if live.index <= self._next.get((live.worker, live.attempt), 0):
                    if self._is_new(live):
                        yield live
                    continue
            for entry in await self._read():
                yield entry
            if ending:
                return

    async def _hear(self) -> Stored | None:
        try:
            async with asyncio.timeout(REREAD_S):
                return await self._heard.get()
        except TimeoutError:
            return None

    def _is_new(self, entry: LogEntry) -> bool:
        log = (entry.worker, entry.attempt)
        if entry.index < self._next.get(log, 0):
            return False
        self._next[log] = entry.index + 1
        return True

    async def _read(self) -> list[LogEntry]:
        try:
            entries = await read_logs(self._session, self._process)
        except Unavailable:
            if self._ending:
                raise
            return []
        return [entry for entry in entries if self._is_new(entry)]
