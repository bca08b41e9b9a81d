"""Random kills over many small workflows, seeded: nothing is lost, nothing is done twice by the ledger.

The suite runs a short version; `make long` runs the long one (CHAOS_KILLS, CHAOS_WORKFLOWS, CHAOS_SEED).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from colonies.client import Client
from colonies.core.colony import Colony
from colonies.core.workflow import workflow_key
from colonies.history import History
from colonies.jetstream import JetStreamLedger
from colonies.looking import WorkflowNow
from colonies.verify import verify_ledger
from tests.chaos import Victim, kill_one, service, worker
from tests.harness import RunningColony, running_colony

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
WORKFLOWS = int(os.environ.get("CHAOS_WORKFLOWS", "40"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
LEASE_S = 4.0


@pytest.mark.timeout(900)
async def test_random_kills_lose_no_node_and_end_each_once(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    effects = tmp_path / "effects"
    effects.mkdir()
    async with running_colony(tmp_path, lease_s=LEASE_S, orchestrate=False) as colony:
        victims = {
            "worker-1": Victim(lambda: worker(colony, "w1")),
            "worker-2": Victim(lambda: worker(colony, "w2")),
            "orchestrator": Victim(lambda: service(colony, "orchestrator", "service")),
            "orchestrator-2": Victim(lambda: service(colony, "orchestrator", "service")),
        }
        try:
            for victim in victims.values():
                await victim.start()
            await colony.spawn("safe")
            client = await colony.client()
            waits: dict[str, asyncio.Task[WorkflowNow]] = {}
            for kill in range(KILLS):
                for number in range(kill * WORKFLOWS // KILLS, (kill + 1) * WORKFLOWS // KILLS):
                    spec = _workflow(dice, str(effects), number)
                    handle = await client.submit_workflow(spec, key=f"{number}")
                    waits[f"{number}"] = asyncio.create_task(handle.wait())
                await asyncio.sleep(dice.uniform(0.05, 0.35))
                await kill_one(dice, colony, victims)
            await asyncio.wait(waits.values(), timeout=int(os.environ.get("CHAOS_WAIT_S", "240")))
            left = [number for number, wait in waits.items() if not wait.done()]
            for number in left[:3]:
                print("\n".join(await _told(client, int(number))))
            assert not left
            ended = {number: wait.result() for number, wait in waits.items()}
            await _check(colony, client, ended, effects)
        finally:
            for victim in victims.values():
                await victim.kill()


def _node(
    name: str, func: str, args: list[Any], parents: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    conditions = {"runtimetype": "python", "dependencies": list(parents)}
    return {"name": name, "func": func, "args": args, "conditions": conditions, **more}


def _workflow(dice: random.Random, folder: str, number: int) -> dict[str, Any]:
    """Names of what is marked begin with the workflow's number; those that must not run hold `never`."""

    def marked(name: str, *parents: str, **more: Any) -> dict[str, Any]:
        args = [folder, f"{number}-{name}", round(dice.uniform(0, 0.4), 2)]
        return _node(name, "mark", args, parents, **more)

    match number % 5:
        case 0:  # a diamond
            nodes = [marked("a"), marked("b", "a"), marked("c", "a"), marked("d", "b", "c")]
        case 1:  # a chain, of which a middle one is tried again
            again = _node("again", "fail_until", [2], ("a",), maxretries=3)
            nodes = [marked("a"), again, marked("b", "again"), marked("end", "b", **{"finally": False})]
        case 2:  # parts of a list that is known when it runs, and a join
            nodes = [
                _node("list", "names", [folder, f"{number}-list", 3]),
                _node("each", "mark", [folder, {"$item": ""}, 0.1], map={"$output": "list"}),
                _node("all", "join", [folder, f"{number}-all", {"$output": "each"}]),
            ]
        case 3:  # a failure, what cannot run behind it, what may, and what runs last
            nodes = [
                marked("a"),
                _node("bad", "refuse", [folder, f"{number}-bad"], ("a",)),
                marked("never", "bad"),
                marked("other", "a"),
                marked("last", **{"finally": True}),
            ]
        case _:  # a failure that is allowed, and a condition that does not hold
            nodes = [
                _node("bad", "refuse", [folder, f"{number}-bad"], allow_failure=True),
                marked("after", "bad"),
                marked("never", "after", when="after == `7`"),
                marked("end", "after", "never"),
            ]
    return {"name": f"w{number}", "nodes": nodes}


async def _told(client: Client, number: int) -> list[str]:
    """What there is of a workflow that did not end."""
    now = await client.workflow(workflow_key(client.name, f"{number}")).get()
    told = [f"{number} {now.workflow.id} {now.state}"]
    for node in now.nodes:
        story = await client.session.story(node.id)
        told.append(f"{node.label} {node.id} {node.state}")
        told += [f"{seen.stored.sequence} {seen.stored.subject} {seen.verdict}" for seen in story.judged]
    return told


async def _check(colony: RunningColony, client: Client, ended: dict[str, WorkflowNow], effects: Path) -> None:
    assert len(ended) == WORKFLOWS
    for number, now in ended.items():
        poisoned = any("poison" in error for n in now.nodes if n.process for error in n.process.errors)
        wanted = "failed" if int(number) % 5 == 3 or poisoned else "successful"
        assert now.state == wanted, [(n.label, n.state, n.process and n.process.errors) for n in now.nodes]
        for node in now.nodes:
            assert node.process is not None
            assert node.process.final
            if node.label == "never":
                assert node.state == ("cancelled" if int(number) % 5 == 3 else "skipped")
    assert not [path.name for path in effects.iterdir() if "never" in path.name]
    ledger = client.ledger
    assert isinstance(ledger, JetStreamLedger)
    report = await verify_ledger(ledger)
    assert [finding for finding in report.findings if finding.kind != "void"] == []
    history = History(Colony(ledger.colony))
    finals: Counter[str] = Counter()
    async for batch in ledger.scan():
        for stored in batch:
            judged = history.add(stored)
            if judged.verdict.valid and judged.record is not None and judged.record.kind == "process":
                finals[judged.record.entity] += history.processes[judged.record.entity].final
    assert set(finals.values()) == {1}
    assert set(finals) == {node.id for now in ended.values() for node in now.nodes}
