"""Grants places under the keys of limits, for the orchestrator that folds `history`.

Whoever wants places stands in one line: that of the first of its keys without room. A line is served when its
key has room again, by priority, then submission. A grant is appended only by one who has folded all grants
of the key that stand before it; another's, and each end of a process, comes back through the fold. It
releases nothing itself: it tells whoever asked. See docs/decisions/0013-limits.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

import structlog

from colonies import subjects
from colonies.core.events import MAX_GRANTED, Granted
from colonies.core.limits import Places, digest_of, keeps_place, limits_of, window_s
from colonies.core.process import SECOND, Process
from colonies.core.spec import Limit, Spec
from colonies.errors import ColoniesError, Conflict
from colonies.history import Judged
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.session import Session

AT_ONCE = 64  # keys served at a time
MAX_LOOKS = 1_000  # at one line in a row
AGAIN_S = 0.2
TIDY_S = 60.0

Order = tuple[int, int, int]
Later = Callable[[float, Callable[[], None]], None]

_log = structlog.get_logger("colonies.orchestrator")


@dataclass(slots=True)
class Want:
    """A process that wants places, standing at the event `cites`. `keys` are digests, keys and limits in the
    order in which it takes them; `at` is in whose line it stands."""

    id: str
    cites: int
    order: Order
    keys: list[tuple[str, str, Limit]]
    granted: Callable[[], None]
    at: str = ""


@dataclass(slots=True)
class Key:
    """A key that is in use. `last` is the last sequence of its subject, None if that is not known; `unseen`
    the sequence of our grant that was not folded yet."""

    places: Places = field(default_factory=Places)
    line: list[tuple[Order, str]] = field(default_factory=list)
    last: int | None = None
    unseen: int = 0
    is_busy: bool = False
    has_timer: bool = False

    @property
    def is_idle(self) -> bool:
        unused = not self.line and not self.places.holders and not self.places.grants
        return unused and not self.unseen and not self.is_busy


class Limiter:
    """`processes` are those that the fold holds, `position` how far it is; `ended` says of one that it does
    not hold whether it ended. `later` has something done after so many seconds."""

    def __init__(
        self,
        session: Session,
        processes: Mapping[str, Process],
        position: Callable[[], int],
        ended: Callable[[str], bool],
        later: Later,
    ) -> None:
        self._session = session
        self._processes = processes
        self._position = position
        self._ended = ended
        self._later = later
        self._keys: dict[str, Key] = {}  # by digest
        self._wanting: dict[str, Want] = {}
        self._held: dict[str, set[str]] = {}  # by process: where it holds places
        self._dirty: set[str] = set()
        self._lined_up = 0
        self._tidied_at = 0

    # --- what the fold tells -------------------------------------------------------------------------

    def on_event(self, judged: Judged) -> None:
        """An event of a key was folded, valid or not."""
        subject = subjects.parse(judged.stored.subject)
        if subject is None:
            return
        key = self._keys.setdefault(subject.entity, Key())
        key.last = judged.stored.sequence
        if key.unseen <= key.last:
            key.unseen = 0
        self._dirty.add(subject.entity)
        record = judged.record
        if record is None or not judged.verdict.valid or not isinstance(record.event, Granted):
            return
        for id, cites in record.event.processes.items():
            if not self._ended(id) and keeps_place(self._processes.get(id), cites):
                self._hold(subject.entity, key, id, cites)
        if record.event.window_s:
            key.places.count(record.time, len(record.event.processes), record.event.window_s)

    def on_process(self, process: Process) -> None:
        """An event of an open process was folded."""
        for digest in list(self._held.get(process.id, ())):
            if not keeps_place(process, self._keys[digest].places.holders[process.id]):
                self._free(digest, process.id)
        want = self._wanting.get(process.id)
        if want is not None and want.cites != process.sequence:
            self._leave(want)

    def gone(self, process: str) -> None:
        """A process ended, or is not known any more."""
        for digest in list(self._held.get(process, ())):
            self._free(digest, process)
        if (want := self._wanting.get(process)) is not None:
            self._leave(want)

    def holds(self, process: str) -> bool:
        return process in self._held

    def waits(self, process: str) -> bool:
        return process in self._wanting

    def _hold(self, digest: str, key: Key, process: str, cites: int) -> None:
        key.places.holders[process] = cites
        self._held.setdefault(process, set()).add(digest)

    def _free(self, digest: str, process: str) -> None:
        del self._keys[digest].places.holders[process]
        held = self._held[process]
        held.discard(digest)
        if not held:
            del self._held[process]
        self._dirty.add(digest)

    def _leave(self, want: Want) -> None:
        del self._wanting[want.id]
        self._dirty.add(want.at)  # its line may have waited behind it

    # --- who wants places ----------------------------------------------------------------------------

    def admits(self, process: str, spec: Spec, cites: int, since: int, granted: Callable[[], None]) -> bool:
        """Does this process, standing at the event `cites`, hold all of its places? If not it lines up as of
        `since` (ns), and `granted` is called once it does."""
        keys = [(digest_of(key), key, limit) for key, limit in limits_of(spec)]
        if not self._missing(process, cites, keys):
            return True
        before = self._wanting.get(process)
        if before is None or before.cites != cites:
            self._lined_up += 1
            want = Want(process, cites, (-spec.priority, since, self._lined_up), keys, granted)
            self._wanting[process] = want
            self._line_up(want, keys[0][0])
        return False

    def _missing(
        self, process: str, cites: int, keys: list[tuple[str, str, Limit]]
    ) -> list[tuple[str, Limit]]:
        held = self._held.get(process, ())
        return [
            (digest, limit)
            for digest, _, limit in keys
            if digest not in held or self._keys[digest].places.holders[process] != cites
        ]

    def _line_up(self, want: Want, digest: str) -> None:
        want.at = digest
        heappush(self._keys.setdefault(digest, Key()).line, (want.order, want.id))
        self._dirty.add(digest)

    # --- serving -------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(self._dirty)

    async def act(self, now: int) -> None:
        """Grant what there is room for at this ledger time (ns)."""
        dirty, self._dirty = sorted(self._dirty), set()
        for start in range(0, len(dirty), AT_ONCE):
            await asyncio.gather(*(self._serve(digest, now) for digest in dirty[start : start + AT_ONCE]))
        if now > self._tidied_at + TIDY_S * SECOND:
            self._tidied_at = now
            dirty += list(self._keys)
        for digest in dirty:
            key = self._keys.get(digest)
            if key is not None:
                key.places.forget(now)
                if key.is_idle:
                    del self._keys[digest]

    async def _serve(self, digest: str, now: int) -> None:
        key = self._keys.get(digest)
        if key is None or key.unseen or key.is_busy or not key.line:
            return
        key.is_busy = True
        try:
            if chosen := self._choose(digest, key, now):
                await self._grant(digest, key, chosen)
        except Conflict:  # another was faster: our fold will tell
            key.last = None
            self._again(digest)
        except ColoniesError as error:
            _log.warning("failed, tried again", doing="granting places", error=str(error))
            key.last = None
            self._again(digest)
        except Exception:
            _log.exception("failed, tried again", doing="granting places")
            key.last = None
            self._again(digest)
        finally:
            key.is_busy = False

    def _choose(self, digest: str, key: Key, now: int) -> list[Want]:
        """Who gets a place now, first in line first. Whoever waits for another key goes into its line."""
        key.places.forget(now)
        chosen: list[Want] = []
        for _ in range(MAX_LOOKS):
            if not key.line or len(chosen) == MAX_GRANTED:
                break
            order, id = key.line[0]
            want = self._wanting.get(id)
            if want is None or want.at != digest or want.order != order:
                heappop(key.line)  # it left, or stands elsewhere now
                continue
            missing = self._missing(want.id, want.cites, want.keys)
            if not missing:  # another service granted it
                heappop(key.line)
                self._has_all(want)
                continue
            full = next((one for one in missing if self._room_at(one, now, digest, len(chosen)) != now), None)
            elsewhere = full[0] if full is not None else missing[0][0]
            if elsewhere != digest:
                heappop(key.line)
                self._line_up(want, elsewhere)
            elif full is not None:
                self._wait_for_room(digest, key, self._room_at(full, now, digest, len(chosen)), now)
                return chosen
            else:
                heappop(key.line)
                chosen.append(want)
        if key.line and not chosen:  # else what becomes of these marks it
            self._dirty.add(digest)
        return chosen

    def _room_at(self, wanted: tuple[str, Limit], now: int, here: str, more: int) -> int | None:
        digest, limit = wanted
        key = self._keys.get(digest)
        places = key.places if key is not None else Places()
        return places.room_at(limit, now, more if digest == here else 0)

    def _wait_for_room(self, digest: str, key: Key, at: int | None, now: int) -> None:
        """A rate makes room by itself; all else is made by what ends, and marks the key."""
        if at is None or key.has_timer:
            return
        key.has_timer = True

        def due() -> None:
            key.has_timer = False
            self._dirty.add(digest)

        self._later(max(0.0, (at - now) / SECOND) + 0.001, due)

    def _again(self, digest: str) -> None:
        self._later(AGAIN_S, lambda: self._dirty.add(digest))

    async def _grant(self, digest: str, key: Key, chosen: list[Want]) -> None:
        """Record their places. Raises as `Ledger.append`, with all of them back in line."""
        try:
            sequence = await self._append(digest, key, chosen)
        except BaseException:
            for want in chosen:
                self._back(want, digest)
            raise
        if sequence == 0:  # not all that stands there was folded yet
            for want in chosen:
                self._back(want, digest)
            self._again(digest)
            return
        key.last = sequence
        if self._position() < sequence:  # else the fold has told already what became of it
            key.unseen = sequence
            for want in chosen:
                if self._wanting.get(want.id) is want:
                    self._hold(digest, key, want.id, want.cites)
        for want in chosen:
            if self._wanting.get(want.id) is not want:
                continue
            if missing := self._missing(want.id, want.cites, want.keys):
                self._line_up(want, missing[0][0])
            else:
                self._has_all(want)

    def _has_all(self, want: Want) -> None:
        del self._wanting[want.id]
        want.granted()

    async def _append(self, digest: str, key: Key, chosen: list[Want]) -> int:
        """The sequence of the grant; 0: there may be grants that are not folded yet."""
        guard = subjects.guard_of("limit", digest)
        if key.last is None:
            last = (await self._session.ledger.last_of([guard])).get(guard, 0)
            if last > self._position():
                return 0
            key.last = last
        [name, *_] = [key for want in chosen for of, key, _ in want.keys if of == digest]
        limits = [limit for want in chosen for of, _, limit in want.keys if of == digest]
        event = Granted(name, {want.id: want.cites for want in chosen}, window_s(limits))
        now = await self._session.ledger.now()
        subject, sealed = self._session.seal(event, digest, prev=None, id=new_id(), now=now)
        return await self._session.ledger.append(Draft(subject, sealed.data, key.last))

    def _back(self, want: Want, digest: str) -> None:
        if self._wanting.get(want.id) is want:
            self._line_up(want, digest)
