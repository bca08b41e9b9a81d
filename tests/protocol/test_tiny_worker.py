"""The protocol's page is enough: a worker that was written from it alone works with ours."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import msgpack
import pytest

from colonies import Client, ProcessFailed
from colonies.client import Handle
from colonies.jetstream import JetStreamLedger
from colonies.verify import verify_ledger
from tests.harness import RunningColony, WorkerProcess, running_colony, until

TINY = Path(__file__).parent / "tiny_worker.py"
VECTORS = Path(__file__).parents[1] / "vectors"
PYTHON = {"runtimetype": "python"}
LIMIT_S = 60.0
MAX_CODE_LINES = 200  # blank ones not counted

ENTITIES = ("queue", "worker", "workflow", "limit", "cron", "generator", "webhook")
# What it leaves to other readers. None of it makes it run what nobody submitted.
LEFT_TO_OTHERS = (
    "the running attempt may still be alive",
    "the delay is not over",
    "it has not waited for 10 s yet",
    "it has not lost 5 attempts in a row",
    "5 attempts in a row lost their worker",
    "the process has not waited for its maxwaittime",
    "the process has no wait that could be over",
    "the process is failed already",
    "the process is blocked, not offered",
    "its output is in the event or stored, not both",
    "olga is the last owner",
    "gone is no member any more",
    "it is not an event",
    "'W3' is not a member's name",
)


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, lease_s=2.0) as running:
        yield running


def tiny() -> ModuleType:
    """The worker as a module, to ask its verifying functions."""
    found = importlib.util.spec_from_file_location("tiny_worker", TINY)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


async def spawn(colony: RunningColony, name: str) -> WorkerProcess:
    """Start the tiny worker as a process of its own; returns it once it takes offers."""
    credential = await colony.credential(name, "worker")
    with (colony.folder / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(TINY), colony.url, str(credential)),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    spawned = WorkerProcess(process)
    colony.stack.push_async_callback(spawned.end)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        line = (await process.stdout.readline()).decode()
    assert line.startswith("ready"), (colony.folder / f"{name}.log").read_text()
    spawned.instance = line.split()[1]
    return spawned


async def submit(client: Client, func: str, *args: object, **more: object) -> Handle[object]:
    return await client.submit({"func": func, "args": list(args), "conditions": PYTHON, **more})


async def outcomes(handle: Handle[object]) -> list[tuple[str, str | None]]:
    return [(attempt.worker, attempt.outcome) for attempt in (await handle.get()).attempts]


async def check_ledger(colony: RunningColony) -> None:
    ledger = colony.owner.ledger
    assert isinstance(ledger, JetStreamLedger)
    report = await verify_ledger(ledger)
    assert report.findings == []
    assert report.valid == report.events > 0


# --- what it is ---------------------------------------------------------------------------------------


def test_it_imports_nothing_of_ours_and_is_short() -> None:
    text = TINY.read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])
    assert imported - sys.stdlib_module_names == {"nats", "msgpack", "cryptography"}
    assert not imported & {"importlib", "runpy", "subprocess", "ctypes"}
    assert len([line for line in text.splitlines() if line.strip()]) < MAX_CODE_LINES


def type_of(row: dict[str, str]) -> str:
    """The type of an event."""
    said: str = msgpack.unpackb(msgpack.unpackb(bytes.fromhex(row["data"]))[0])["type"]
    return said


def test_it_gives_the_verdicts_of_the_vectors() -> None:
    """Of all that it must know: not LEFT_TO_OTHERS, nor ENTITIES, nodes and specs that it does not serve."""
    told = json.loads((VECTORS / "ledger.json").read_text(encoding="utf-8"))
    ledger = tiny().Ledger(told["colony"])
    checked = {"valid": 0, "quarantined": 0, "void": 0}
    skipped: set[str] = set()
    for row in told["messages"]:
        kind, entity = [*row["subject"].split("."), "", ""][1:3]
        if kind in ENTITIES or row["rule"].startswith(LEFT_TO_OTHERS) or entity in skipped:
            continue
        valid = ledger.judge(row["sequence"], row["time"], row["subject"], bytes.fromhex(row["data"]))
        if row["verdict"] == "valid" and not valid and kind == "process" and entity not in ledger.processes:
            process = next(p for p in told["processes"] if p["process"] == entity)
            served = process["queue"] in {tiny().queue_of(n) for n in range(-9, 10)}
            assert not served or type_of(row) != "process.queued"
            skipped.add(entity)
            continue
        assert valid == (row["verdict"] == "valid"), row
        checked[row["verdict"]] += 1
    assert checked["valid"] > 60
    assert checked["quarantined"] > 50
    for process in told["processes"]:
        if (found := ledger.processes.get(process["process"])) is not None:
            assert found.head.hex() == process["head"]
            assert (found.seq, len(found.attempts)) == (process["sequence"], len(process["attempts"]))


def test_it_names_queues_as_the_vectors_do() -> None:
    told = json.loads((VECTORS / "names.json").read_text(encoding="utf-8"))
    plain = [row for row in told["queues"] if row["conditions"] == PYTHON]
    assert len(plain) == 2
    for row in plain:
        assert tiny().queue_of(row["priority"]) == row["queue"]


# --- what it does -------------------------------------------------------------------------------------


async def test_it_runs_processes_and_its_results_are_believed(colony: RunningColony) -> None:
    client = await colony.client()
    await spawn(colony, "tiny")
    assert await (await submit(client, "double", 21)).result(LIMIT_S) == 42
    echoed = await submit(client, "echo", 1, "é", None, kwargs={"deep": [1.5, True]}, priority=3)
    assert await echoed.result(LIMIT_S) == [[1, "é", None], {"deep": [1.5, True]}]
    with pytest.raises(ProcessFailed, match="boom"):
        await (await submit(client, "boom")).result(LIMIT_S)
    again = await submit(client, "boom", maxretries=1)
    with pytest.raises(ProcessFailed, match="boom"):
        await again.result(LIMIT_S)
    assert await outcomes(again) == [("tiny", "failed"), ("tiny", "failed")]
    await check_ledger(colony)


async def test_it_works_beside_ours_and_nothing_runs_twice(colony: RunningColony, tmp_path: Path) -> None:
    """It extends its lease: for 10 leases, until it renews it, nobody takes what it runs."""
    client = await colony.client()
    await spawn(colony, "tiny")
    held = await submit(client, "wait_for", str(tmp_path), "go")
    await until((tmp_path / "go.1.running").exists, "it runs")
    ours = await colony.spawn("w1")
    async with asyncio.timeout(LIMIT_S):
        while not any(
            "renewed" in seen.stored.subject for seen in (await client.session.story(held.id)).judged
        ):
            await asyncio.sleep(0.2)
    (tmp_path / "go").touch()
    assert await held.result(LIMIT_S) == 1
    assert await outcomes(held) == [("tiny", "successful")]
    assert ours.process.returncode is None
    await check_ledger(colony)


async def test_it_takes_over_from_a_killed_worker_of_ours(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    ours = await colony.spawn("w1")
    handle = await submit(client, "wait_for", str(tmp_path), "go")
    await until((tmp_path / "go.1.running").exists, "the first runs it")
    await spawn(colony, "tiny")
    ours.send(signal.SIGKILL)
    await until((tmp_path / "go.2.running").exists, "it takes over", LIMIT_S)
    (tmp_path / "go").touch()
    assert await handle.result(LIMIT_S) == 2
    assert await outcomes(handle) == [("w1", "lost"), ("tiny", "successful")]
    await check_ledger(colony)


async def test_one_of_ours_takes_over_when_it_is_killed(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    killed = await spawn(colony, "tiny")
    handle = await submit(client, "wait_for", str(tmp_path), "go")
    await until((tmp_path / "go.1.running").exists, "it runs")
    await colony.spawn("w1")
    killed.send(signal.SIGKILL)
    await until((tmp_path / "go.2.running").exists, "one of ours takes over", LIMIT_S)
    (tmp_path / "go").touch()
    assert await handle.result(LIMIT_S) == 2
    assert await outcomes(handle) == [("tiny", "lost"), ("w1", "successful")]
    await check_ledger(colony)


async def test_it_stops_what_is_cancelled_and_what_it_lost(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    asleep = await spawn(colony, "tiny")
    handle = await submit(client, "wait_for", str(tmp_path), "never")
    await until((tmp_path / "never.1.running").exists, "it runs")
    await handle.cancel("not needed")
    assert await (await submit(client, "double", 2)).result(LIMIT_S) == 4  # its one slot is free again
    lost = await submit(client, "wait_for", str(tmp_path), "go")
    await until((tmp_path / "go.1.running").exists, "it runs")
    asleep.send(signal.SIGSTOP)
    await colony.spawn("w1")
    await until((tmp_path / "go.2.running").exists, "one of ours takes over", LIMIT_S)
    (tmp_path / "go").touch()
    asleep.send(signal.SIGCONT)
    assert await lost.result(LIMIT_S) == 2
    assert await outcomes(lost) == [("tiny", "lost"), ("w1", "successful")]
    await check_ledger(colony)
