"""Limits of running and rates, held by real orchestrators, of which one is killed."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies.client import Client, Handle
from colonies.core.events import Granted, Record, Released
from colonies.core.limits import digest_of
from colonies.core.process import Running
from colonies.errors import ProcessFailed, Refused
from colonies.history import History, Judged, Story
from colonies.ids import new_id
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Draft
from colonies.session import Session
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until

SECOND = 1_000_000_000


def spec(func: str, *args: object, **more: object) -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": {"runtimetype": "python"}, **more}


def limited(key: str, running: int, func: str = "sleep", *args: object, **more: object) -> dict[str, Any]:
    return spec(func, *args, limits={"key": key, "running": running}, **more)


class Service:
    """An orchestrator in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @staticmethod
    async def of(colony: RunningColony, name: str) -> Service:
        path = await colony.credential(name, "service")
        program = "from colonies_cli.main import run; raise SystemExit(run())"
        how = ("server", "start", "--only", "orchestrator", "--url", colony.url, "--creds", str(path))
        log = (colony.folder / f"{name}.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *how, stdout=log, stderr=log
        )
        log.close()
        found = Service(process)
        colony.stack.push_async_callback(found.kill)
        ready = colony.folder / f"{name}.log"
        await until(lambda: "orchestrator ready" in ready.read_text(), f"{name} is ready")
        return found

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


async def told(client: Client) -> list[tuple[Judged, dict[str, str]]]:
    """Every event of the ledger, and the limits' keys of those that ran when it had been stored."""
    history = History(type(client.session.colony)(client.ledger.colony))
    running: dict[str, str] = {}
    found = []
    async for batch in client.ledger.scan():
        for stored in batch:
            judged = history.add(stored)
            record = judged.record
            if record is not None and judged.verdict.valid and record.kind == "process":
                process = history.processes[record.entity]
                running.pop(process.id, None)
                if isinstance(process.phase, Running) and process.spec.limits:
                    running[process.id] = str(process.spec.limits[0].key)
            found.append((judged, dict(running)))
    return found


async def most(client: Client) -> Counter[str]:
    """How many of each key ran at once, at most."""
    found: Counter[str] = Counter()
    for _, running in await told(client):
        found |= Counter(running.values())
    return found


async def records(client: Client, type_: str) -> list[Record]:
    """All valid events of a type."""
    judged = [judged for judged, _ in await told(client) if judged.verdict.valid]
    return [seen.record for seen in judged if seen.record is not None and seen.record.event.type == type_]


async def verified(colony: RunningColony) -> None:
    ledger = colony.owner.ledger
    assert isinstance(ledger, JetStreamLedger)
    assert (await verify_ledger(ledger)).findings == []


def in_any(times: list[int], window_s: float) -> int:
    """How many of these times (ns, ascending) lie within one window, at most."""
    return max(sum(t <= other < t + window_s * SECOND for other in times) for t in times)


async def test_never_more_than_two_of_a_key_run_with_two_orchestrators_one_of_them_killed(
    tmp_path: Path,
) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        one, _ = await Service.of(colony, "one"), await Service.of(colony, "two")
        client = await colony.client()
        await colony.spawn("w1", concurrency=8)
        await colony.spawn("w2", concurrency=8)
        keys = ["a", "b", "c"]
        work = [limited(key, 2, "sleep", 0.03) for _ in range(40) for key in keys]
        handles = await client.submit_many(work)
        await handles[20].wait(30)
        await one.kill()
        for handle in handles[20:60]:
            await handle.result(60)
        await Service.of(colony, "three")
        for handle in handles:
            await handle.result(60)
        ran = await most(client)
        assert ran == Counter(dict.fromkeys(keys, 2)), "and two at once, or the limit would cost work"
        await verified(colony)


async def test_a_backlog_of_one_key_does_not_delay_another(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.spawn("w1", concurrency=4)
        backlog = await client.submit_many([limited("a", 1, "sleep", 0.2)] * 1_000)
        await backlog[0].result(60)
        other = await client.submit(limited("b", 1, "sleep", 0))
        await other.result(60)
        begun = await records(client, "process.assigned")
        assert len(begun) < 100, "the backlog is there still"
        (asked,) = [
            one.sequence for one in await records(client, "process.submitted") if one.entity == other.id
        ]
        (began,) = [one.sequence for one in begun if one.entity == other.id]
        between = [one for one in begun if asked < one.sequence < began]
        assert len(between) < 15, "two of the backlog's processes at most, by a wide margin"
        assert await most(client) == Counter(a=1, b=1)


async def test_a_rate_of_five_a_second_is_kept_in_every_window(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        await colony.orchestrate("one")
        await colony.orchestrate("two")
        client = await colony.client()
        await colony.spawn("w1", concurrency=20)
        rate = {"key": "api", "rate": 5, "per": "second"}
        handles = await client.submit_many([spec("sleep", 0, limits=rate)] * 18)
        began = time.monotonic()
        for handle in handles:
            await handle.result(60)
        grants = await records(client, "limit.granted")
        times = [grant.time for grant in grants for _ in grant.event.processes]  # type: ignore[union-attr]
        assert len(times) == 18
        assert in_any(times, 1.0) == 5
        assert 3.0 <= (times[-1] - times[0]) / SECOND < 10
        assert time.monotonic() - began < 12, "nobody waits for much longer than he must"
        await verified(colony)


async def test_within_a_key_the_most_urgent_goes_first_then_the_oldest(tmp_path: Path) -> None:
    order: list[str] = []
    worker = colonies.Worker("python", concurrency=4)

    @worker.function
    async def note(tag: str) -> None:
        order.append(tag)

    async with running_colony(tmp_path, orchestrate=False) as colony:
        client = await colony.client()
        tags = ["first", "second", "third"]
        handles = [await client.submit(limited("a", 1, "note", tag)) for tag in tags]
        handles.append(await client.submit(limited("a", 1, "note", "urgent", priority=5)))
        await colony.work(worker)
        await colony.orchestrate()
        for handle in handles:
            await handle.result(30)
        assert order == ["urgent", *tags]


async def test_what_waits_for_its_backoff_gives_its_place_to_another(tmp_path: Path) -> None:
    worker = colonies.Worker("python", concurrency=4)
    ran: list[str] = []

    @worker.function
    async def put_off(tag: str) -> int:
        ran.append(tag)
        if tag == "slow" and colonies.current().n == 1:
            raise colonies.Later(3.0, "not yet")
        return colonies.current().n

    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(worker)
        slow = await client.submit(limited("a", 1, "put_off", "slow"))
        await until(lambda: ran == ["slow"], "it runs")
        quick = await client.submit(limited("a", 1, "put_off", "quick"))
        assert await quick.result(30) == 1
        assert not (await slow.get()).final
        assert await slow.result(30) == 2
        assert ran == ["slow", "quick", "slow"]
        assert len(await records(client, "limit.granted")) == 3


async def test_several_limits_of_one_process_hold_at_once_and_nothing_stands_still(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        await colony.orchestrate("one")
        await colony.orchestrate("two")
        client = await colony.client()
        await colony.spawn("w1", concurrency=8)
        both = [
            [
                {"key": "a", "running": 1},
                {"key": "b", "running": 2},
                {"by": "func", "rate": 20, "per": "second"},
            ],
            [{"key": "b", "running": 2}, {"key": "a", "running": 1}],
        ]
        work = [spec("sleep", 0.02, limits=limits) for _ in range(10) for limits in both]
        work += [limited("b", 2, "sleep", 0.02)] * 10
        handles = await client.submit_many(work)
        for handle in handles:
            await handle.result(60)
        for _, running in await told(client):
            alive = [(await handle.get()).spec for handle in handles if handle.id in running]
            held = [limit.key for found in alive for limit in found.limits]
            assert held.count("a") <= 1
            assert held.count("b") <= 2
        await verified(colony)


async def test_the_nodes_of_a_workflow_keep_to_their_limits(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        await colony.orchestrate("one")
        await colony.orchestrate("two")
        client = await colony.client()
        await colony.spawn("w1", concurrency=8)
        nodes = [{**spec("sleep", 0.01), "name": "root"}]
        for number in range(12):
            node = {**limited("a", 2, "sleep", 0.05), "name": f"n{number}", "dependencies": ["root"]}
            nodes.append(node)
        nodes.append(
            {**limited("a", 2), "name": "mapped", "map": {"$parameter": "times"}, "args": [{"$item": ""}]}
        )
        work = {"name": "many", "parameters": {"times": [0.01] * 5}, "nodes": nodes}
        workflow = await client.submit_workflow(work)
        now = await workflow.wait(60)
        assert now.state == "successful"
        assert await most(client) == Counter(a=2)
        await verified(colony)


async def test_what_is_cancelled_or_expires_before_its_turn_frees_the_line(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        (tmp_path / "folder").mkdir()
        await colony.spawn("w1")
        running = await client.submit(limited("a", 1, "wait_for", str(tmp_path / "folder"), "go"))
        await until((tmp_path / "folder" / "go.1.running").exists, "it runs")
        cancelled = await client.submit(limited("a", 1, "sleep", 0))
        hurried = await client.submit(limited("a", 1, "sleep", 0, maxwaittime=2))
        last = await client.submit(limited("a", 1, "sleep", 0))
        await cancelled.cancel("not needed")
        with pytest.raises(ProcessFailed, match="nobody took it within 2 s"):
            await hurried.result(30)
        assert (await last.get()).state == "blocked"
        (tmp_path / "folder" / "go").touch()
        await running.result(30)
        await last.result(30)
        assert await most(client) == Counter(a=1)
        await verified(colony)


async def test_an_orchestrator_goes_on_where_another_was_killed_between_grant_and_offer(
    tmp_path: Path,
) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        client = await colony.client()
        await colony.spawn("w1")
        first, second = [await client.submit(limited("a", 1, "sleep", 0)) for _ in range(2)]
        gone = await colony.session("gone", "service")
        await _grant(gone, "a", second)
        await colony.orchestrate()
        await second.result(30)
        await first.result(30)
        assert len(await records(client, "limit.granted")) == 2, "its place was its place"
        assert await most(client) == Counter(a=1)
        ends = [record.entity for record in await records(client, "process.completed")]
        assert ends == [second.id, first.id]


async def _grant(session: Session, key: str, handle: Handle[Any]) -> None:
    process = await handle.get()
    event = Granted(key, {process.id: process.sequence})
    now = await session.ledger.now()
    subject, sealed = session.seal(event, digest_of(key), prev=None, id=new_id(), now=now)
    await session.ledger.append(Draft(subject, sealed.data, 0))


async def test_processes_without_limits_are_offered_when_they_are_submitted(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        plain = await client.submit(spec("sleep", 0))
        story = await client.session.story(plain.id)
        assert [seen.record.event.type for seen in story.judged if seen.record] == ["process.queued"]


async def test_a_worker_releases_no_node_with_limits(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        worker = await colony.session("w1", "worker")
        program = await colony.spawn("w1")
        (tmp_path / "folder").mkdir()
        held = await client.submit(limited("a", 1, "wait_for", str(tmp_path / "folder"), "go"))
        await until((tmp_path / "folder" / "go.1.running").exists, "the only place is taken")
        nodes = [
            {**spec("sleep", 0), "name": "root"},
            {**limited("a", 1, "sleep", 0), "name": "child", "dependencies": ["root"]},
        ]
        workflow = await client.submit_workflow(nodes)
        async with asyncio.timeout(60):
            while (await workflow.get()).nodes[0].state != "successful":
                await asyncio.sleep(0.05)
        root, child = (await workflow.get()).nodes
        done = await client.process(root.id).wait(30)
        workflow_now = await client.session.workflow(workflow.id)
        await worker.knowledge.workflow_now(workflow.id)
        worker.knowledge.remember(done)
        release = Released(workflow.id, "child", [workflow_now.sequence, done.sequence])
        queue = done.queue
        with pytest.raises(Refused, match="a worker releases no node with limits"):
            await worker.record(child.id, release, at=Story(None, [], 0), queue=queue, once=True)
        (tmp_path / "folder" / "go").touch()
        await held.result(30)
        assert (await workflow.wait(30)).state == "successful"
        assert program.process.returncode is None
        await verified(colony)
