"""Crons as a client holds them: added, looked at, run now, paused, resumed, removed.

When a cron is due, and what its runs must be, is `colonies.core`; that they run is the orchestrator's. Runs
that were due are found by their ids, which derive from the cron and the time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast

import msgpack

from colonies import subjects
from colonies.building import Workflow
from colonies.core.crons import Cron, CronState, schedule_of
from colonies.core.events import (
    MAX_CRON_CHARS,
    MAX_INTERVAL_S,
    MAX_JITTER_S,
    CronAdded,
    CronPaused,
    CronRemoved,
    CronResumed,
    Source,
    WorkflowSubmitted,
    checked_reason,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.names import name as checked_name
from colonies.core.names import shown
from colonies.errors import Conflict, Invalid, NotFound
from colonies.flows import PART_BYTES, WorkflowHandle, declare_queues
from colonies.history import CronStory, WorkflowStory, fold_cron
from colonies.ids import new_id
from colonies.ledger import Stored
from colonies.looking import WorkflowNow, workflow_now
from colonies.schedules import CronEvent

if TYPE_CHECKING:
    from colonies.client import Client

NEXT_TIMES = 5
LAST_RUNS = 5
MAX_LOOKED_AT = 200  # due times, for the runs that there are
AT_ONCE = 10
NODE = "main"  # what the node of a cron that is one process is called, if it has no name
CATCH_UPS = ("none", "one", "all")


@dataclass(frozen=True, slots=True)
class CronNow:
    """A cron as it is: `due` are its next due times (ns), those that it will run at if nothing changes."""

    cron: Cron
    due: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.cron.name

    @property
    def state(self) -> CronState:
        return self.cron.state


class CronHandle:
    """A cron as a client holds it. `name` is its name; nothing else is kept here."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = checked_name(name, "cron")

    def __repr__(self) -> str:
        return f"<cron {self.name}>"

    async def get(self) -> CronNow:
        """The cron as the ledger has it now. Raises NotFound."""
        cron = await self._cron()
        return _now(cron, await self._client.ledger.now())

    async def runs(self, most: int = LAST_RUNS) -> list[WorkflowNow]:
        """Its last runs that were due, the latest first. Raises NotFound."""
        cron = await self._cron()
        found: list[WorkflowNow] = []
        async with contextlib.aclosing(self._back(cron)) as runs:
            async for run in runs:
                if len(found) >= most:
                    break
                found.append(run)
        return found

    async def _back(self, cron: Cron) -> AsyncGenerator[WorkflowNow, None]:
        """Its runs that were due, the latest first, as far back as it is worth looking."""
        until = await self._client.ledger.now()
        looked_at = 0
        while looked_at < MAX_LOOKED_AT:
            times: list[int] = []
            while len(times) < AT_ONCE and (due := cron.last_due(until, cron.added_at)) is not None:
                times.append(due)
                until = due - 1
            for run in await asyncio.gather(*(self._run(cron, due) for due in times)):
                if run is not None:
                    yield run
            looked_at += AT_ONCE
            if len(times) < AT_ONCE:
                return

    async def _run(self, cron: Cron, due: int) -> WorkflowNow | None:
        try:
            return await workflow_now(self._client, cron.run_id(due))
        except NotFound:
            return None

    async def run(self) -> WorkflowHandle:
        """Run it now, as this member, whenever it is due. Raises NotFound, Refused."""
        cron = await self._cron()
        previous = await self._last_successful(cron)
        source = Source("cron", cron.name, cron.added)
        if previous is not None:
            source = Source("cron", cron.name, cron.added, None, cron.run_id(previous), previous)
        id = new_id()
        event = WorkflowSubmitted(source=source)
        await self._client.session.record_workflow(id, event, at=WorkflowStory(None, [], 0))
        return WorkflowHandle(self._client, id)

    async def _last_successful(self, cron: Cron) -> int | None:
        if not any(ref.kind == "previous" for node in cron.spec.nodes for ref in node.references):
            return None
        async with contextlib.aclosing(self._back(cron)) as runs:
            async for run in runs:
                if run.state == "successful" and run.workflow.source is not None:
                    return run.workflow.source.due
        return None

    async def pause(self, reason: str = "") -> None:
        """Let it not run until it is resumed. Raises NotFound, Conflict if it is paused, Refused."""
        await self._record(CronPaused(checked_reason(reason)))

    async def resume(self) -> None:
        """Let it run again; what was due meanwhile is left out. Raises NotFound, Conflict, Refused."""
        await self._record(CronResumed())

    async def remove(self, reason: str = "") -> None:
        """Remove it: its name may be used again, and what it started goes on. Raises NotFound, Refused."""
        await self._record(CronRemoved(checked_reason(reason)))

    async def _record(self, event: CronEvent) -> None:
        story = await self._story()
        await self._client.session.knowledge.schedules.record(self.name, event, at=story)

    async def _cron(self) -> Cron:
        cron = (await self._story()).cron
        assert cron is not None
        return cron

    async def _story(self) -> CronStory:
        story = await self._client.session.knowledge.schedules.read(self.name)
        if story.cron is None or story.cron.removed is not None:
            raise NotFound(f"there is no cron {self.name} in the colony {self._client.colony}")
        return story


class When(TypedDict, total=False):
    """When a cron is due, and what becomes of what it missed: `cron`, an expression of 5 or 6 fields in the
    time zone `zone` (default UTC), or every `interval_s` seconds; each run up to `jitter_s` seconds later.
    `wait_previous`: after the run before it has ended. `catch_up`: of what was due while nothing ran, run
    none, one (the latest; the default) or all."""

    cron: str | None
    interval_s: float | None
    zone: str | None
    jitter_s: float
    wait_previous: bool
    catch_up: Literal["none", "one", "all"]


class CronClient:
    """What a client does with crons."""

    async def add_cron(
        self, name: str, work: Workflow | WorkflowSpec | list[Any] | dict[str, Any], **when: Unpack[When]
    ) -> CronHandle:
        """Have a workflow, or one process, run by the clock; `when` is `crons.When`.

        Raises:
            Invalid: the work or the times make no sense. Conflict: there is a cron of this name.
            Refused, Unavailable, Unknown: as `submit`.
        """
        return await add_cron(_client(self), name, added(work, **when))

    async def crons(self) -> list[CronNow]:
        """The crons of the colony, by name."""
        return await crons(_client(self))

    def cron(self, name: str) -> CronHandle:
        """A handle on a cron that was added before, here or elsewhere. Raises Invalid: that is no name."""
        return CronHandle(_client(self), name)


def _client(self: CronClient) -> Client:
    """The client that it is a part of."""
    return cast("Client", self)


async def add_cron(client: Client, name: str, event: CronAdded) -> CronHandle:
    """Add a cron. Raises Invalid, Conflict if there is one of this name, Refused."""
    handle = CronHandle(client, name)
    event.spec.checked()
    schedule = schedule_of(event).checked()
    now = await client.ledger.now()
    if schedule.next(now, now) is None:
        raise Invalid(f"cron {name}: {shown(event.cron)} is never due")
    size = len(msgpack.packb(event.spec.wire()))
    if size > PART_BYTES:
        raise Invalid(f"cron {name}: its workflow is {size} bytes; at most {PART_BYTES} are allowed")
    await declare_queues(client, event.spec)
    schedules = client.session.knowledge.schedules
    story = await schedules.read(name)
    if story.cron is not None and story.cron.removed is None:
        raise Conflict(
            f"there is a cron {name} in the colony {client.colony}; take another name, or remove it first "
            f"(`colonies cron rm {name}`)"
        )
    await schedules.record(name, event, at=story)
    return handle


def added(work: Workflow | WorkflowSpec | list[Any] | dict[str, Any], **when: Unpack[When]) -> CronAdded:
    """What is asked for, as the event that says it. Raises Invalid.

    `work` is a workflow, or the spec of one process: a workflow of one node, called `NODE` if it
    has no name.
    """
    if isinstance(work, Workflow):
        spec = work.spec()
    else:
        spec = work if isinstance(work, WorkflowSpec) else WorkflowSpec.of(work, NODE)
    spec.without("packed", 'nothing is packed for a cron; allowed: a parameter, {"$parameter": "name"}')
    interval_s, jitter_s = when.get("interval_s"), when.get("jitter_s", 0.0)
    event = CronAdded(
        spec,
        when.get("cron"),
        None if interval_s is None else float(interval_s),
        when.get("zone") or "UTC",
        float(jitter_s),
        when.get("wait_previous", False),
        when.get("catch_up", "one"),
    )
    _limits(event, zoned=when.get("zone") is not None)
    schedule_of(event).checked()
    return event


def _limits(event: CronAdded, *, zoned: bool) -> None:
    cron, interval_s = event.cron, event.interval_s
    if cron is not None and interval_s is not None:
        raise Invalid("a cron has an expression or an interval; these are both")
    if cron is None and interval_s is None:
        raise Invalid('a cron needs an expression, such as "30 6 * * MON-FRI", or an interval in seconds')
    if cron is not None and not 1 <= len(cron) <= MAX_CRON_CHARS:
        raise Invalid(f"cron: it has {len(cron)} characters; 1 to {MAX_CRON_CHARS} are allowed")
    if interval_s is not None and not 1 <= interval_s <= MAX_INTERVAL_S:
        raise Invalid(f"interval: {interval_s:g} s; 1 to {MAX_INTERVAL_S} seconds are allowed")
    if interval_s is not None and zoned:
        raise Invalid("timezone: it is for a cron expression; an interval has none")
    if not 0 <= event.jitter_s <= MAX_JITTER_S:
        raise Invalid(f"jitter: {event.jitter_s:g} s; 0 to {MAX_JITTER_S} seconds are allowed")
    if event.catch_up not in CATCH_UPS:
        raise Invalid(f"catch-up: {shown(event.catch_up)}; allowed: {', '.join(CATCH_UPS)}")


async def crons(client: Client, *, removed: bool = False) -> list[CronNow]:
    """All crons of the colony, by name."""
    messages: dict[str, list[Stored]] = {}
    async for batch in client.ledger.scan(0, subjects.CRONS):
        for stored in batch:
            if (subject := subjects.parse(stored.subject)) is not None:
                messages.setdefault(subject.entity, []).append(stored)
    await client.session.refresh()
    now = await client.ledger.now()
    found = []
    for name in sorted(messages):
        cron = fold_cron(client.session.colony, messages[name]).cron
        if cron is not None and (removed or cron.removed is None):
            found.append(_now(cron, now))
        await asyncio.sleep(0)
    return found


def _now(cron: Cron, now: int) -> CronNow:
    due: list[int] = []
    after = now
    while cron.state == "active" and len(due) < NEXT_TIMES:
        following = cron.next_due(after)
        if following is None:
            break
        due.append(following)
        after = following
    return CronNow(cron, tuple(due))
