"""Reads what `colonies.why` needs: the ledger, verified, and the views, if a projector answers for them.

What views say is a hint, and is told as such, with the sequence that it is of. Nothing here writes or waits
for anything.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from colonies import querying, subjects, why_nodes
from colonies.core import colony as colonies_
from colonies.core.capacity import Capacity
from colonies.core.colony import Paused
from colonies.core.events import Cancelled, ColonyPaused, Granted, QueuePaused, Record, WorkerDrained
from colonies.core.limits import Places, digest_of, keeps_place, limits_of
from colonies.core.names import shown
from colonies.core.process import SECOND, Blocked, FailedForGood, Process, Running, Waiting
from colonies.core.spec import Limit, Spec
from colonies.core.workflow import dag_of
from colonies.errors import Invalid, NotFound, Unavailable
from colonies.heartbeats import read_heartbeat
from colonies.history import Story, examine
from colonies.looking import NodeNow, workflow_now
from colonies.missing import not_found
from colonies.reasons import Ahead, Cause, Facts, PlaceNow, Reason, Step, Stop, Usual, Views, WorkerNow
from colonies.show import rfc3339
from colonies.show_event import numbered
from colonies.why import why

if TYPE_CHECKING:
    from colonies.client import Client
    from colonies.session import Session

_ASKED = 1_000  # items in one answer of a view
MAX_GRANTS_READ = 2_000  # the last ones under one key
MAX_LOOKED_AT = 1_000  # processes, for who holds the places under a key
AT_ONCE = 64
USUAL = 20  # of the last processes of a function
MAX_NODES_TOLD = 20
MAX_FUNC_CHARS = 1_000  # longer ones are not compared with others


async def explain(client: Client, id: str) -> list[Reason]:
    """Why a process is as it is. Raises NotFound."""
    story = await client.session.story(id)
    if story.process is None:
        error = await not_found(client.session, "process", id)
        raise NotFound(
            f"{error}; of a node that has not begun tells `colonies workflow why WORKFLOW --node NODE`"
        )
    return why(await _Reader(client.session).facts(story.process, story))


async def explain_workflow(client: Client, id: str, node: str | None = None) -> list[Reason]:
    """Why a workflow, or this node or part of it, is as it is. Raises NotFound; Invalid: no such node."""
    now = await workflow_now(client, id)
    reader = _Reader(client.session)
    found = {one.label: one for one in now.nodes}
    dag = dag_of(now.workflow, client.session.knowledge)
    at = await client.session.ledger.now()

    async def of(one: NodeNow) -> list[Reason]:
        if one.process is not None:
            told = why(await reader.facts(one.process, await client.session.story(one.id)))
        else:
            spec = one.node.spec
            wanted = await reader.places(one.id, None, spec) if spec is not None else []
            told = list(why_nodes.not_begun(dag, found, one.label, at, wanted))
        return [replace(reason, process=one.id, node=one.label) for reason in told]

    if node is not None:
        return await of(_named(found, node, id))
    reasons = list(why_nodes.workflow(now))
    told = why_nodes.telling(now)[:MAX_NODES_TOLD]
    for one in told:
        reasons += await of(one)
    unborn = [one for one in now.nodes if one.process is None]
    shown_ = unborn if len(unborn) + len(told) <= MAX_NODES_TOLD else _ready(dag, unborn)[:MAX_NODES_TOLD]
    for one in shown_:
        reasons += await of(one)
    return [*reasons, *why_nodes.untold(now, len(told), len(unborn) - len(shown_))]


def _ready(dag: Any, unborn: Sequence[NodeNow]) -> list[NodeNow]:
    """Those that wait for no other node."""
    return [one for one in unborn if dag.decide(one.label) is not None]


def _named(found: Mapping[str, NodeNow], label: str, id: str) -> NodeNow:
    if label in found:
        return found[label]
    parts = [name for name in found if name.startswith(f"{label}[")]
    if parts:
        raise Invalid(f"node {label} has parts; name one: {parts[0]} to {parts[-1]}")
    near = get_close_matches(label[:256], found, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(list(found)[:10])}"
    raise Invalid(f"workflow {id} has no node {shown(label)}{hint}")


@dataclass(slots=True)
class _Reader:
    """Reads facts for one answer; what it asked the views once, it does not ask again."""

    session: Session
    _asked: dict[str, querying.Answer] = field(default_factory=dict)

    async def facts(self, process: Process, story: Story) -> Facts:
        session = self.session
        steps = [
            Step(seen.record, after)
            for seen, _, after in numbered(story.judged, session.knowledge)
            if seen.verdict.valid and seen.record is not None and after is not None
        ]
        workflow = session.knowledge.workflow(process.workflow) if process.workflow is not None else None
        found = Facts(
            process=process,
            steps=steps,
            now=await session.ledger.now(),
            refused=[seen for seen in story.judged if not seen.verdict.valid],
            queue=session.colony.queues.get(process.queue),
            workflow=workflow,
        )
        match process.phase:
            case Waiting() | Blocked():
                found = replace(found, stops=await self._stops(process.queue))
                if isinstance(process.phase, Blocked) and process.phase.until <= found.now:
                    found = replace(found, places=await self.places(process.id, process, process.spec))
            case Running():
                found = replace(found, beat=await self._beat(process))
        if workflow is not None and isinstance(steps[-1].record.event, Cancelled):
            label = steps[-1].record.event.cause
            cause = session.knowledge.process(workflow.process_of(label)) if label is not None else None
            found = replace(found, cause=Cause(label, cause) if label is not None else None)
        return await self._with_views(found)

    # --- the ledger ----------------------------------------------------------------------------------

    async def _stops(self, queue: str) -> list[Stop]:
        """What is paused around this queue."""
        colony = self.session.colony
        found: list[tuple[Any, str, Paused, str, type]] = []
        if colony.paused is not None:
            found.append(("colony", colony.name, colony.paused, "", ColonyPaused))
        if (paused := colony.paused_queues.get(queue)) is not None:
            found.append(("queue", queue, paused, queue, QueuePaused))
        return [
            Stop(
                what, name, said.by, said.since, said.reason, await self._sequence(what, entity, said, event)
            )
            for what, name, said, entity, event in found
        ]

    async def _drained(self, workers: Sequence[WorkerNow]) -> list[Stop]:
        """Which of these workers are drained."""
        drained = self.session.colony.drained
        names = dict.fromkeys(worker.name for worker in workers if worker.name in drained)
        return [
            Stop(
                *("worker", name, drained[name].by, drained[name].since, drained[name].reason),
                await self._sequence("member", name, drained[name], WorkerDrained),
            )
            for name in names
        ]

    async def _sequence(self, kind: str, entity: str, said: Paused, event: type) -> int | None:
        """Where on the ledger that stands which the colony's fold has."""
        for stored in reversed(await self.session.ledger.read(subjects.guard_of(kind, entity))):
            record = examine(self.session.colony, stored).record
            if record is None or not isinstance(record.event, event):
                continue
            if (record.author, record.time) == (said.by, said.since):
                return record.sequence
        return None

    async def _beat(self, process: Process) -> Any:
        """The last sign of life of the instance that has it."""
        last = process.attempts[-1]
        for stored in await self.session.ledger.emitted(subjects.heartbeat(last.worker, last.instance)):
            found = read_heartbeat(self.session.colony, stored)
            if found is not None:
                return found
        return None

    async def places(self, id: str, process: Process | None, spec: Spec) -> list[PlaceNow]:
        """The places that it wants under the keys of its limits, in the order in which it takes them."""
        return [await self._place(id, process, key, limit) for key, limit in limits_of(spec)]

    async def _place(self, id: str, process: Process | None, key: str, limit: Limit) -> PlaceNow:
        grants = await self._grants(key)
        now = await self.session.ledger.now()
        last: dict[str, tuple[int, int]] = {}  # by process: what its last grant cites, and where that stands
        counting = Places()
        rated: deque[tuple[int, int]] = deque()
        for record in grants:
            event = record.event
            assert isinstance(event, Granted)
            for one, cites in event.processes.items():
                last.pop(one, None)
                last[one] = cites, record.sequence
            if event.window_s:
                counting.count(record.time, len(event.processes), event.window_s)
                until = record.time + event.window_s * SECOND
                rated.extend([(until, record.sequence)] * len(event.processes))
        counting.forget(now)
        own = last.pop(id, None)
        granted = own[1] if own is not None and keeps_place(process, own[0]) else None
        holders = await self._holders(last, limit.running or 0)
        counting.holders = {one: 0 for one, _ in holders}
        return PlaceNow(
            key,
            limit,
            tuple(holders),
            counting.room_at(limit, now),
            tuple(sequence for until, sequence in rated if until > now),
            granted,
        )

    async def _grants(self, key: str) -> list[Record]:
        """The last grants under a key, each verified."""
        kept: deque[Any] = deque(maxlen=MAX_GRANTS_READ)
        async for batch in self.session.ledger.scan(0, subjects.guard_of("limit", digest_of(key))):
            kept.extend(batch)
        records = [examine(self.session.colony, stored).record for stored in kept]
        return [
            record
            for record in records
            if record is not None
            and isinstance(record.event, Granted)
            and colonies_.judge(self.session.colony, record).valid
        ]

    async def _holders(self, last: dict[str, tuple[int, int]], most: int) -> list[tuple[str, int]]:
        """Which of these processes hold their places still, the last granted first; `most` are enough."""
        found: list[tuple[str, int]] = []
        ids = list(reversed(last))[:MAX_LOOKED_AT]
        for start in range(0, len(ids) if most else 0, AT_ONCE):
            some = ids[start : start + AT_ONCE]
            stories = await asyncio.gather(*map(self.session.story, some))
            for one, story in zip(some, stories, strict=True):
                cites, sequence = last[one]
                if keeps_place(story.process, cites):
                    found.append((one, sequence))
            if len(found) >= most:
                break
        return found

    # --- the views -----------------------------------------------------------------------------------

    async def _with_views(self, facts: Facts) -> Facts:
        process = facts.process
        try:
            match process.phase:
                case Waiting():
                    views = await self._of_waiting(process)
                    stops = [*facts.stops, *await self._drained(views.workers)]
                    return replace(facts, views=views, stops=stops)
                case Running():
                    return replace(facts, views=await self._of_running(process))
                case FailedForGood(error=error) if "has no function" in error:
                    return replace(facts, views=await self._workers())
        except Unavailable as error:
            unknown = "which workers could take it, what they run and what waits before it is not known here"
            return replace(facts, silence=f"{unknown}: {error}")
        return facts

    async def _of_waiting(self, process: Process) -> Views:
        views = await self._workers()
        runtimetype = process.spec.conditions.runtimetype
        queues = await self._ask("queues", runtimetype=runtimetype, limit=_ASKED)
        own = next((item for item in queues.items if item["id"] == process.queue), None)
        serving = set(own["workers"]) if own is not None else set()
        higher = sum(
            item["waiting"]
            for item in queues.items
            if item["priority"] > process.spec.priority and serving & set(item["workers"])
        )
        until = rfc3339(process.submitted_at)
        waits = await self._ask("processes", queue=process.queue, state="waiting", until=until, limit=_ASKED)
        same = len([item for item in waits.items if item["id"] != process.id])
        return replace(views, ahead=Ahead(same, waits.cursor is not None, higher))

    async def _of_running(self, process: Process) -> Views | None:
        if len(process.spec.func) > MAX_FUNC_CHARS:  # a script: no other runs the very same
            return None
        answer = await self._ask(
            "processes", func=process.spec.func, state="successful", sort="-ended", limit=USUAL
        )
        spans = [span for item in answer.items if (span := _span_s(item)) is not None]
        if not spans:
            return Views(answer.position)
        usual = Usual(len(spans), round(statistics.median(spans), 3), round(max(spans), 3))
        return Views(answer.position, usual=usual)

    async def _workers(self) -> Views:
        answer = await self._ask("workers", state="alive", limit=_ASKED)
        now = await self.session.ledger.now()
        more = answer.cut or len(answer.items) == _ASKED
        return Views(answer.position, tuple(_worker(item, now) for item in answer.items), more)

    async def _ask(self, view: str, **question: Any) -> querying.Answer:
        """What a view says as of all that is on the ledger now; if it is far behind, as of where it is."""
        asked = f"{view} {question}"
        if asked in self._asked:
            return self._asked[asked]
        answer = self._asked[asked] = await querying.ask_now(self.session.ledger, view, question)
        return answer


def _worker(item: Mapping[str, Any], now: int) -> WorkerNow:
    """An instance as the view of workers shows it."""
    has = Capacity.parse(item["has"] or {})
    if has.walltime is not None:
        started = datetime.fromisoformat(item["started_at"]).timestamp()
        has = has.model_copy(update={"walltime": max(0.001, has.walltime - (now / SECOND - started))})
    return WorkerNow(
        item["name"],
        item["instance"],
        item["runtimetype"],
        item["concurrency"],
        len(item["running"]),
        tuple(item["functions"]),
        has,
        "functions" in item.get("left_out", ()),
    )


def _span_s(item: Mapping[str, Any]) -> float | None:
    """How long the attempt ran that was successful (s)."""
    attempts = item["attempts"]
    if not attempts or attempts[-1]["ended_at"] is None:
        return None
    started, ended = (datetime.fromisoformat(attempts[-1][name]) for name in ("started_at", "ended_at"))
    return (ended - started).total_seconds()
