"""Workflows that go every way there is, for tests of views: by a real worker, and by hand where it has to be
exact."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import colonies
from colonies import Client
from colonies.core.colony import Colony
from colonies.core.events import Assigned, Cancelled, Completed, ProcessEvent, Released, WorkflowSubmitted
from colonies.core.flow import WorkflowSpec
from colonies.core.node import Node
from colonies.core.process import Awaiting, Process, Waiting
from colonies.core.workflow import dag_of, end_of, node_id, state_of
from colonies.flows import WorkflowHandle
from colonies.history import History, Story, WorkflowStory
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.looking import WorkflowNow
from colonies.session import Session
from tests.harness import RunningColony

LIMIT_S = 60.0


def worker() -> colonies.Worker:
    made = colonies.Worker("python", concurrency=8)

    @made.function
    async def one(n: int = 1) -> int:
        return n

    @made.function
    async def some(n: int) -> list[int]:
        return list(range(n))

    @made.function
    async def total(items: list[int]) -> int:
        return sum(items)

    @made.function
    async def boom() -> int:
        raise colonies.Fail("boom")

    @made.function
    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)

    return made


def node(name: str, func: str, *after: str, runtimetype: str = "python", **more: Any) -> dict[str, Any]:
    conditions = {"runtimetype": runtimetype, "dependencies": list(after)}
    return {"name": name, "func": func, "conditions": conditions, **more}


def by_hand(name: str, *after: str, **more: Any) -> dict[str, Any]:
    return node(name, "by_hand", *after, runtimetype="hand", **more)


async def seen(handle: WorkflowHandle, fact: Callable[[dict[str, str]], bool]) -> WorkflowNow:
    """The workflow once something is true of the states of its nodes, by label."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            now = await handle.get()
            if fact({node.label: node.state for node in now.nodes}):
                return now
            await asyncio.sleep(0.02)


async def finish(hand: Session, handle: WorkflowHandle, label: str, **said: Any) -> None:
    """Take a node once it is offered, and complete it."""
    id = node_id(handle.id, label)
    async with asyncio.timeout(LIMIT_S):
        while not isinstance((story := await hand.story(id)).process and story.process.phase, Waiting):
            await asyncio.sleep(0.02)
    assert story.process is not None
    assert isinstance(story.process.phase, Waiting)
    attempt = new_id()
    taken = Assigned(story.process.phase.offer.id, 2.0, "i1")
    story = await hand.record(id, taken, at=story, id=attempt)
    await hand.record(id, Completed(attempt, **said), at=story)


async def all_ways(colony: RunningColony, client: Client) -> list[WorkflowHandle]:
    """Workflows that have come to every end, oldest first; the last one is open still."""
    await colony.work(worker(), "w1")
    items = {"map": {"$output": "l"}, "args": [{"$item": ""}]}
    handles = [
        await client.submit_workflow({"nodes": nodes, **more} if more else nodes)
        for nodes, more in (
            (
                [node("l", "some", args=[5]), node("m", "one", **items), node("t", "one", "m")],
                {"name": "map"},
            ),
            ([node("l", "some", args=[0]), node("m", "one", **items)], {"name": "nothing", "label": "x"}),
            ([node("a", "boom"), node("b", "one", "a"), node("z", "one"), node("f", "one", **LAST)], {}),
            ([node("a", "boom", allow_failure=True), node("b", "one", "a")], {}),
            ([node("a", "one"), node("b", "one", "a", when="a > `5`"), node("c", "one", "b")], {}),
            ([node("a", "boom"), node("z", "one", delay=300)], {"on_failure": "stop"}),
            ([node("l", "some", args=[3]), *chained()], {}),
        )
    ]
    handles.append(await signalled(client))
    hand = await colony.session("hand", "worker")
    handles += [await added(client, hand), await cut_off(client), await rerun(client, handles[2])]
    handles.append(await stopped_by_hand(client, hand))
    handles += await by_others(client)
    for handle in handles:
        await handle.wait(LIMIT_S)
    handles.append(await client.submit_workflow([node("a", "one"), by_hand("b", "a")]))
    await seen(handles[-1], lambda states: states == {"a": "successful", "b": "waiting"})
    return handles


LAST = {"finally": True}


def chained() -> list[dict[str, Any]]:
    """Nodes that map over what others map."""
    each = {"map": {"$output": "m"}, "args": [{"$item": ""}]}
    return [
        node("m", "one", map={"$output": "l"}, args=[{"$item": ""}]),
        node("n", "one", **each),
        node("o", "one", "n", map={"$output": "l"}, args=[1]),
        node("end", "one", map={"$output": "l"}, args=[1], when="`false`"),
    ]


async def signalled(client: Client) -> WorkflowHandle:
    handle = await client.submit_workflow(
        [node("a", "one"), {"name": "ok", "wait_signal": "go", "dependencies": ["a"]}, node("c", "one", "ok")]
    )
    now = await seen(handle, lambda states: states["ok"] == "waiting")
    assert isinstance(now.nodes[1].process and now.nodes[1].process.phase, Awaiting)
    await handle.signal("go", {"by": "hand"})
    return handle


async def added(client: Client, hand: Session) -> WorkflowHandle:
    """One whose node adds others, some between itself and its child, one of which maps and one adds more."""
    handle = await client.submit_workflow([by_hand("split"), node("after", "one", "split")])
    adds = [
        node("x", "one"),
        node("each", "one", "x", map={"$output": "split"}, args=[{"$item": ""}]),
        by_hand("more", "each"),
    ]
    await finish(hand, handle, "split", output=[1, 2, 3], adds=[Node.read(add) for add in adds], between=True)
    last = Node.read(node("last", "one", map={"$output": "more"}, args=[{"$item": ""}]))
    await finish(hand, handle, "split/more", output=[1, 2], adds=[last], between=True)
    return handle


async def cut_off(client: Client) -> WorkflowHandle:
    """Cancelled while the parts of a node run, and some are through."""
    nodes = [
        node("l", "some", args=[4]),
        node("m", "nap", map={"$output": "l"}, args=[60]),
        node("t", "one", "m"),
        node("f", "one", **LAST),
    ]
    handle = await client.submit_workflow(nodes)
    await seen(handle, lambda states: states.get("m[3]") == "running")
    await handle.cancel("enough")
    return handle


async def rerun(client: Client, before: WorkflowHandle) -> WorkflowHandle:
    now = await before.wait(LIMIT_S)
    reuses = {node.label: node.id for node in now.nodes if node.state == "successful" and node.label == "z"}
    event = WorkflowSubmitted(now.workflow.spec, rerun_of=before.id, reuses=reuses)
    id = new_id()
    await client.session.record_workflow(id, event, at=WorkflowStory(None, [], 0))
    return client.workflow(id)


async def stopped_by_hand(client: Client, hand: Session) -> WorkflowHandle:
    """A node that maps is cancelled before it has parts, another's part is when it has."""
    each = {"map": {"$output": "l"}, "args": [{"$item": ""}]}
    nodes = [
        by_hand("l"),
        node("m", "one", **each, allow_failure=True),
        by_hand("n", "m", **each, allow_failure=True),
        node("o", "one", "n", map={"$output": "l"}),
    ]
    handle = await client.submit_workflow(nodes)
    await born_cancelled(client, handle, "m")
    await finish(hand, handle, "l", output=[1, 2])
    await seen(handle, lambda states: states.get("n[1]") == "waiting")
    await client.cancel(node_id(handle.id, "n[1]"))
    await finish(hand, handle, "n[0]", output=1)
    return handle


async def by_others(client: Client) -> list[WorkflowHandle]:
    """Runs of a generator, of which one argument is left over, and of a cron that is removed then."""
    await client.add_generator(
        "g", {"name": "packs", "nodes": [node("a", "one", args=[{"$packed": "0"}])]}, trigger=2
    )
    for arguments in ((1, 2, 3), (4,), (5,)):
        await client.pack("g", *arguments)
    cron = await client.add_cron("c", [node("a", "one")], interval_s=1.0)
    async with asyncio.timeout(LIMIT_S):
        while not (runs := await cron.runs()):
            await asyncio.sleep(0.1)
        while len(packed := await client.generator_runs("g")) < 2 or any(r.state == "due" for r in packed):
            await asyncio.sleep(0.1)
    await cron.pause()
    await cron.remove()
    return [client.workflow(id) for id in (packed[0].workflow, packed[1].workflow, runs[0].workflow.id)]


async def born_cancelled(client: Client, handle: WorkflowHandle, label: str) -> None:
    event = Cancelled("by hand", workflow=handle.id, node=label)
    await handle.get()  # learns what the event's place depends on
    await client.session.record(node_id(handle.id, label), event, at=Story(None, [], 0))


async def untrue(colony: RunningColony, client: Client) -> None:
    """What nobody should say: a release too early, an end of a part that there never is, and of a
    node that has parts; and events on top of that."""
    service = await colony.session("liar", "service")
    hand = await colony.session("hand", "worker")
    handle = await client.submit_workflow([by_hand("a"), by_hand("b", "a"), by_hand("c")])
    now = await seen(handle, lambda states: states == {"a": "waiting", "b": "blocked", "c": "waiting"})
    a = next(node.process for node in now.nodes if node.label == "a")
    assert a is not None
    sequence = now.workflow.sequence
    await say(service, handle, "b", Released(handle.id, "b", [sequence, a.sequence]), a.queue)
    await handle.cancel()
    other = await client.submit_workflow([by_hand("l"), by_hand("m", map={"$output": "l"})])
    await say(client.session, other, "m[7]", Cancelled(workflow=other.id, node="m[7]"))
    await finish(hand, other, "l", output=[1])
    await seen(other, lambda states: states.get("m[0]") == "waiting")
    void = await say(client.session, other, "m", Cancelled(workflow=other.id, node="m"))
    await say(hand, other, "m", Assigned(new_id(), 2.0, "i1"), prev=void)
    await say(hand, other, "m", Assigned(new_id(), 2.0, "i1"), prev=b"x" * 32)
    await finish(hand, other, "m[0]")
    for one in (handle, other):
        await one.wait(LIMIT_S)


async def say(
    session: Session,
    handle: WorkflowHandle,
    label: str,
    event: ProcessEvent,
    queue: str | None = None,
    prev: bytes | None = None,
) -> bytes:
    """Have an event stored, true or not; its digest."""
    id = node_id(handle.id, label)
    now = await session.ledger.now()
    while True:
        guard = await session.ledger.last_of([f"ledger.process.{id}.>"])
        subject, sealed = session.seal(event, id, prev=prev, id=new_id(), now=now, queue=queue)
        try:
            await session.ledger.append(Draft(subject, sealed.data, max(guard.values(), default=0)))
        except colonies.Conflict:
            continue
        return sealed.digest


# --- what is to be seen of them -------------------------------------------------------------------------


def told(history: History) -> tuple[list[Any], list[Any]]:
    """The rows of workflows (in part) and of their nodes, from a fold of everything, by the library's own
    rules."""
    rows, nodes = [], []
    for id, workflow in history.workflows.items():
        assert not isinstance(workflow, tuple)
        found = history.workflow(id)
        if found is None:
            continue
        processes: list[tuple[str, Node, str, Process | None]] = []
        for label, node in dag_of(found, history).labels():
            of = found.process_of(label)
            processes.append((label, node, of, history.process(of)))
        ends = [(node, end_of(process) if process else None) for _, node, _, process in processes]
        states = [process.state if process else "blocked" for *_, process in processes]
        done = sum(end is not None for _, end in ends)
        rows.append((id, state_of(found, ends), len(processes), done, states.count("failed")))
        nodes += [(id, label, of, state) for (label, _, of, _), state in zip(processes, states, strict=True)]
    return sorted(rows), sorted(nodes)


def many(count: int) -> WorkflowSpec:
    """One node, `count` that depend on it, and one that depends on all of these."""
    root = [node("root", "one")]
    between = [node(f"n{number}", "one", "root") for number in range(count)]
    join = node("join", "one", *(str(one["name"]) for one in between))
    return replace(WorkflowSpec.parse([*root, *between, join]), name="many")


def whole(colony: str) -> History:
    return History(Colony(colony))
