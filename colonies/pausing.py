"""Pausing and draining: what an owner says so that work is not handed out for a while, and then is again.

Each is one signed event, so it takes effect wherever the feed is heard, and stays in effect whatever is
restarted. What runs goes on; what waits keeps its place; submitting is still possible, and a process's
`maxwaittime` goes on counting. Nothing here stops a process: that is `cancel`.
"""

from __future__ import annotations

from colonies.core.colony import Paused
from colonies.core.events import (
    ColonyPaused,
    ColonyResumed,
    Event,
    QueuePaused,
    QueueResumed,
    WorkerDrained,
    WorkerResumed,
    checked_reason,
)
from colonies.core.names import shown
from colonies.errors import Invalid, NotFound
from colonies.session import Session

MIN_PREFIX_CHARS = 4


class Pausing:
    """What a client whose member is an owner can do to the flow of work.

    Each raises Refused for whoever is no owner, and Conflict where it is so already: of two owners who say
    the same at once, one is told that the other was first.
    """

    session: Session

    async def pause_colony(self, reason: str = "") -> Paused:
        """Nothing of the colony is handed out from here on."""
        await self._say("colony", "", ColonyPaused(checked_reason(reason)))
        return self.session.colony.paused or Paused(self.session.name, 0, reason)

    async def resume_colony(self) -> None:
        """The colony's work is handed out again, but for queues that are paused themselves."""
        await self._say("colony", "", ColonyResumed())

    async def pause_queue(self, queue: str, reason: str = "") -> str:
        """Nothing of a queue is handed out from here on. `queue` is its id, or how one id begins; its id.

        Raises:
            NotFound: there is no such queue. Invalid: several begin with this.
        """
        id = await self._queue(queue)
        await self._say("queue", id, QueuePaused(checked_reason(reason)))
        return id

    async def resume_queue(self, queue: str) -> str:
        """The queue is handed out again. As `pause_queue`."""
        id = await self._queue(queue)
        await self._say("queue", id, QueueResumed())
        return id

    async def drain_worker(self, name: str, reason: str = "") -> None:
        """All instances of a worker take nothing more, also after a restart; what runs there goes on.

        Raises NotFound: there is no such worker.
        """
        await self._worker(name)
        await self._say("member", name, WorkerDrained(checked_reason(reason)))

    async def resume_worker(self, name: str) -> None:
        """A drained worker takes processes again. Raises as `drain_worker`."""
        await self._worker(name)
        await self._say("member", name, WorkerResumed())

    async def _say(self, kind: str, entity: str, event: Event) -> None:
        await self.session.record_entity(kind, entity, event)

    async def _queue(self, said: str) -> str:
        await self.session.refresh()
        queues = self.session.colony.queues
        if said in queues:
            return said
        found = [id for id in queues if id.startswith(said)]
        if not found or not said:
            raise NotFound(f"there is no queue {shown(said)}; see `colonies queue ls`")
        if len(said) < MIN_PREFIX_CHARS:
            raise Invalid(
                f"queue {said}: that is short; allowed: an id, or at least its first {MIN_PREFIX_CHARS} "
                "characters"
            )
        if len(found) > 1:
            raise Invalid(f"queue {said}: {len(found)} queues begin with this; give more of the id")
        return found[0]

    async def _worker(self, name: str) -> None:
        await self.session.refresh()
        member = self.session.colony.members.get(name)
        if member is None or member.role != "worker":
            what = f"{name} is no worker but {member.role}" if member else f"there is no worker {shown(name)}"
            raise NotFound(f"{what}; see `colonies member ls`")
