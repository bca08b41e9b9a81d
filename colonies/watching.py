"""Waiting for processes: hear the feed, believe what is verified, read where the feed was silent.

The feed may lose; so after every gap, and every 30 s, what somebody waits for is read from the leader. A few
processes have a subscription each; many share one for all processes, which is lighter for everybody. What is
heard of a process that nobody waits for yet is kept for a while, so that a result which is already there
needs no reading.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from colonies import subjects
from colonies.core.colony import Colony
from colonies.core.events import Record
from colonies.core.process import Process, evolve
from colonies.errors import Unavailable
from colonies.history import Judged, Story, examine, judge_process
from colonies.ledger import Stored, Subscription
from colonies.missing import not_found
from colonies.session import Session

REREAD_S = 30.0
AGAIN_S = 0.5
MANY = 64
MAX_UNATTENDED = 4_096

_ENDS = frozenset({"completed", "cancelled", "poisoned", "expired"})
_MAY_END = _ENDS | {"failed"}

_log = structlog.get_logger("colonies.watching")


class Watched:
    """A process that is, or may soon be, waited for: its story so far and what was heard since.

    `ahead` is the process after events that are believed for now (`pending`): they count once an event of the
    same author covers them by its `prev` and is checked. `users` counts who waits, `followers` those of them
    who want to see every event; `done` says that its end was heard, so no subscription is needed any more.
    """

    __slots__ = (
        "ahead",
        "changed",
        "done",
        "followers",
        "heard",
        "pending",
        "story",
        "subscription",
        "users",
    )

    def __init__(self, story: Story | None) -> None:
        self.story = story
        self.heard: list[Stored] = []
        self.ahead: Process | None = None
        self.pending: Stored | None = None
        self.changed = asyncio.Event()
        self.users = 0
        self.followers = 0
        self.done = False
        self.subscription: Subscription | None = None

    @property
    def believed(self) -> int:
        """The sequence of the last event that `ahead`, or else the story, has."""
        if self.pending is not None:
            return self.pending.sequence
        return 0 if self.story is None else self.story.guard

    def restart(self, story: Story | None) -> None:
        """Go on from this story; None: it must be read."""
        self.story, self.ahead, self.pending = story, None, None


class Watcher:
    """What one client waits for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ledger = session.ledger
        self._watched: dict[str, Watched] = {}
        self._live = 0
        self._closed = False
        self._all: Subscription | None = None
        self._unneeded: asyncio.Queue[Subscription] = asyncio.Queue()
        self._tasks = [
            asyncio.create_task(self._close_unneeded(), name="subscription closer"),
            asyncio.create_task(self._reread(), name="rereader"),
        ]
        session.ledger.on_gap(self._wake_all)

    async def close(self) -> None:
        """Hear nothing more; whoever still waits gets `Unavailable`."""
        self._closed = True
        self._wake_all()
        for watched in self._watched.values():
            if watched.subscription is not None:
                await watched.subscription.close()
        if self._all is not None:
            await self._all.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def expect(self, processes: int) -> None:
        """So many are about to be submitted."""
        if processes >= MANY:
            await self._watch_everything()

    def submitted(self, record: Record, sequence: int) -> None:
        """What we submitted ourselves need not be read again by whoever waits for it."""
        watched = self._watched.get(record.entity)
        if watched is not None and watched.story is None:
            process = evolve(None, replace(record, sequence=sequence))
            watched.restart(Story(process, [], sequence))

    # --- waiting -------------------------------------------------------------------------------------

    async def wait(self, id: str) -> Process:
        """The process once it is final. Raises NotFound; a broker that is away is waited for."""
        async with self.watching(id, until_left=True) as watched:
            while True:
                watched.changed.clear()
                process = self._catch_up(watched)
                if process is None:
                    story = await self._story_of(id)
                    if watched.story is None or watched.story.guard <= story.guard:  # others read as well
                        watched.restart(story)
                    process = watched.story.process if watched.story is not None else None
                if process is not None and process.final:
                    return process
                await watched.changed.wait()

    async def _story_of(self, id: str) -> Story:
        while not self._closed:
            try:
                story = await self._session.story(id)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
                continue
            if story.process is None:
                raise await not_found(self._session, "process", id)
            return story
        raise Unavailable("this client is closed")

    def _catch_up(self, watched: Watched) -> Process | None:
        """Fold what was heard. None: something is missing or not valid, so it must be read.

        A signature is checked unless the next event, of the same author, covers it by its `prev`. Until that
        one is checked, nothing is kept of what it covers: somebody else may be waiting for this process too.
        """
        if watched.story is None:  # what was heard counts once there is one
            return None
        heard, watched.heard = watched.heard, []
        process = watched.ahead or watched.story.process
        for stored in heard:
            if process is None:
                break
            if stored.sequence > watched.believed:
                process = _fold(self._session.colony, watched, process, stored)
        if process is None:
            watched.restart(None)
        return process

    async def events(self, id: str) -> AsyncIterator[Judged]:
        """Every event of the process with its verdict, the past first, then live until it is final."""
        async with self.watching(id, until_left=True, follow=True) as watched:
            shown = 0
            while True:
                watched.changed.clear()
                watched.heard.clear()
                story = await self._story_of(id)
                watched.restart(story)
                for seen in story.judged:
                    if seen.stored.sequence > shown:
                        shown = seen.stored.sequence
                        yield seen
                if story.process is not None and story.process.final:
                    return
                await watched.changed.wait()

    # --- hearing -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def watching(
        self, id: str, *, until_left: bool = False, follow: bool = False
    ) -> AsyncIterator[Watched]:
        """Hear this process from now on, every event of it with `follow`, and, unless `until_left`, also
        after the block for whoever asks later."""
        watched = await self._watch(id)
        watched.followers += follow
        try:
            yield watched
        finally:
            watched.followers -= follow
            watched.users -= 1
            if until_left and watched.users == 0:
                self._unwatch(id)

    async def hear(self, id: str) -> None:
        """Keep what happens to this process from now on for whoever waits for it later."""
        (await self._watch(id)).users -= 1

    async def _watch(self, id: str) -> Watched:
        watched = self._watched.get(id)
        if watched is None:
            watched = self._watched[id] = Watched(None)
            await self._listen(id, watched)
            if len(self._watched) > MAX_UNATTENDED:
                self._forget_one()
        elif watched.done and not self._has_ended(watched):  # what was heard as its end is none
            watched.done = False
            await self._listen(id, watched)
        watched.users += 1
        return watched

    async def _listen(self, id: str, watched: Watched) -> None:
        self._live += 1
        if self._all is None and len(self._watched) >= MANY:
            await self._watch_everything()
        if self._all is None:
            watched.subscription = await self._ledger.subscribe(subjects.process_events(id), self._on_event)
        watched.restart(None)  # whoever read it meanwhile heard nothing yet
        watched.changed.set()

    def _has_ended(self, watched: Watched) -> bool:
        """Is it final by what was heard and holds? If something does not, its story is to be read."""
        process = self._catch_up(watched)
        return process is not None and process.final

    def _forget_one(self) -> None:
        """Of those that nobody waits for, let the oldest go: who asks for it later reads it."""
        for id, watched in self._watched.items():
            if watched.users == 0 and watched.story is not None:
                self._unwatch(id)
                return

    async def _watch_everything(self) -> None:
        """One subscription for all processes is lighter than very many for one each."""
        if self._all is None:
            self._all = await self._ledger.subscribe(subjects.ALL_PROCESS_EVENTS, self._on_event)

    def _unwatch(self, id: str) -> None:
        watched = self._watched.pop(id, None)
        if watched is not None:
            self._need_no_more(watched)

    def _need_no_more(self, watched: Watched) -> None:
        if not watched.done:
            watched.done = True
            self._live -= 1
        if watched.subscription is not None:
            self._unneeded.put_nowait(watched.subscription)
            watched.subscription = None
        if self._all is not None and self._live == 0:
            self._unneeded.put_nowait(self._all)
            self._all = None

    async def _close_unneeded(self) -> None:
        while True:
            subscription = await self._unneeded.get()
            try:
                await subscription.close()
            except Exception:
                _log.exception("subscription not closed")

    def _on_event(self, stored: Stored) -> None:
        watched = self._watched.get(subjects.process_of_feed(stored.subject))
        if watched is None:
            return
        watched.heard.append(stored)
        event = stored.subject.split(".", 4)[3]
        if watched.users > 0 and watched.story is not None and event not in _MAY_END:
            self._catch_up(watched)  # there is time for it now
        if watched.followers or event in _MAY_END:
            watched.changed.set()
        if watched.users == 0 and (event in _ENDS or (event == "failed" and self._has_ended(watched))):
            self._need_no_more(watched)

    async def _reread(self) -> None:
        """The feed may lose without a word: what is waited for is read now and then."""
        while True:
            await asyncio.sleep(REREAD_S)
            try:
                self._read_again()
            except Exception:
                _log.exception("what is waited for is not read again")

    def _read_again(self) -> None:
        for watched in self._watched.values():
            if watched.users > 0:
                watched.restart(None)
                watched.changed.set()

    def _wake_all(self) -> None:
        for watched in self._watched.values():
            watched.restart(None)
            watched.changed.set()


def _fold(colony: Colony, watched: Watched, process: Process, stored: Stored) -> Process | None:
    """The process after one more event; None if it, or one that was believed, is not sound."""
    pending = watched.pending
    covered = pending is None or subjects.author_of(pending.subject) == subjects.author_of(stored.subject)
    if pending is not None and not covered and not examine(colony, pending).verdict.valid:
        return None
    ends = stored.subject.split(".", 4)[3] in _MAY_END
    after, seen = judge_process(colony, process, examine(colony, stored, trusted=not ends))
    if not seen.verdict.valid or after is None:
        return None
    watched.ahead, watched.pending = after, stored
    if ends:
        watched.restart(Story(after, [], stored.sequence))
    return after
