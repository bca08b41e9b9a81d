"""Who runs what: workers with different machines, processes that need some of them, and what they share."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from colonies_workers.unix import UnixWorker

import colonies
from colonies import machine
from tests.harness import running_colony, until

A100 = {"name": "A100", "mem": "40GB"}


def gpus(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id, **A100} for id in ids]


def where_it_runs(runtimetype: str = "python", **options: Any) -> colonies.Worker:
    """A worker whose function `here` says which worker ran it."""
    worker = colonies.Worker(runtimetype, **options)

    @worker.function
    async def here() -> list[str]:
        attempt = colonies.current()
        return [attempt._session.name, *attempt.devices]

    return worker


def asks(**conditions: Any) -> dict[str, Any]:
    return {"func": "here", "conditions": {"runtimetype": "python", **conditions}}


@pytest.mark.parametrize(
    ("small", "large", "asked"),
    [
        ({"mem": "8GB"}, {"mem": "16GB"}, {"mem": "16GB"}),
        ({"mem": "15.5GB"}, {"mem": "16GB"}, {"mem": "16GB"}),
        ({"cpu": 0.0004}, {"cpu": 1}, {"cpu": 0.0001}),
        ({"walltime": 90}, {"walltime": 120}, {"walltime": 97}),
        ({"cpu": 2}, {"cpu": 4}, {"cpu": 3}),
        ({"storage": "1GB"}, {"storage": "1TB"}, {"storage": "10GB"}),
        ({"gpus": gpus("0")}, {"gpus": gpus("0", "1")}, {"gpu": {"count": 2, "name": "A100"}}),
        ({"gpus": []}, {"gpus": gpus("0")}, {"gpu": {"count": 1, "mem": "40GB"}}),
        ({"location": "attic"}, {"location": "cellar"}, {"location": "cellar"}),
        ({}, {"labels": {"site": "north", "rack": "7"}}, {"labels": {"site": "north"}}),
        ({"nodes": 1}, {"nodes": 4}, {"nodes": 4}),
        ({"processes": 4}, {"processes": 64}, {"processes": 64}),
        ({"walltime": 60}, {"walltime": 7_200}, {"walltime": 3_600}),
    ],
    ids=str,
)
async def test_a_process_runs_where_its_conditions_are_met(
    tmp_path: Path, small: dict[str, Any], large: dict[str, Any], asked: dict[str, Any]
) -> None:
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(where_it_runs(has=small), "small")
        handle = await client.submit(asks(**asked))
        plain = await client.submit(asks())
        assert (await plain.result(30))[0] == "small"
        assert (await handle.get()).state == "waiting"
        await colony.work(where_it_runs(has=large), "large")
        assert (await handle.result(60))[0] == "large"


class Busy:
    """A worker whose processes run until they are told to end; counts what runs."""

    def __init__(self, **options: Any) -> None:
        self.worker = colonies.Worker("python", **options)
        self.running: list[colonies.Attempt] = []
        self.most = 0
        self.go = asyncio.Event()

        @self.worker.function
        async def here() -> list[str]:
            self.running.append(colonies.current())
            self.most = max(self.most, len(self.running))
            await self.go.wait()
            self.running.remove(colonies.current())
            return list(colonies.current().devices)


@pytest.mark.parametrize(
    ("has", "asked", "fit"),
    [
        ({"mem": "16GB"}, {"mem": "5GB"}, 3),
        ({"cpu": 2}, {"cpu": "500m"}, 4),
        ({"storage": "10GB"}, {"storage": "10GB"}, 1),
        ({"cpu": 1}, {"cpu": 0.3}, 3),
        ({"mem": "20Gi"}, {"mem": "10.1Gi"}, 1),
        ({"processes": 8}, {"processes": 3}, 2),
        ({"gpus": gpus("0", "1", "3")}, {"gpu": {"count": 1}}, 3),
    ],
    ids=str,
)
async def test_what_runs_together_never_has_more_than_there_is(
    tmp_path: Path, has: dict[str, Any], asked: dict[str, Any], fit: int
) -> None:
    busy = Busy(concurrency=8, has=has)
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(busy.worker)
        handles = await client.submit_many([asks(**asked)] * 10)
        await until(lambda: len(busy.running) == fit, f"{fit} run together")
        plain = [await client.submit(asks()) for _ in range(2 if fit < 7 else 0)]
        if "processes" not in asked:  # a plain process needs none of it, so it runs beside them
            await until(lambda: len(busy.running) == fit + len(plain), "the plain ones run as well")
        devices = [device for attempt in busy.running for device in attempt.devices]
        assert len(devices) == len(set(devices))
        busy.most = 0
        busy.go.set()
        results = await asyncio.gather(*(handle.result(60) for handle in [*handles, *plain]))
        if "gpu" in asked:
            assert {device for result in results for device in result} == {"0", "1", "3"}


async def test_commands_see_the_devices_that_are_theirs_and_no_others(tmp_path: Path) -> None:
    worker = UnixWorker("cli", concurrency=4, folder=tmp_path / "work", has={"gpus": gpus("0", "1", "3")})
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(worker)
        func = 'echo "gpu=$CUDA_VISIBLE_DEVICES"; while [ ! -e go ]; do sleep 0.05; done'
        func = func.replace("go", str(tmp_path / "go"))
        one = {"func": func, "conditions": {"runtimetype": "cli", "gpu": {"count": 1}}}
        two = {"func": func, "conditions": {"runtimetype": "cli", "gpu": {"count": 2}}}
        none = {"func": func, "conditions": {"runtimetype": "cli"}, "env": {"CUDA_VISIBLE_DEVICES": "7"}}
        handles = [await client.submit(spec) for spec in (one, two, none)]
        await _all_run(handles)
        (tmp_path / "go").touch()
        first, second, third = [(await handle.result(30)).removeprefix("gpu=") for handle in handles]
    assert third == ""
    assert sorted([first, *second.split(",")]) == ["0", "1", "3"]


async def test_a_worker_without_devices_shows_none_whatever_it_sees_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(UnixWorker("cli", folder=tmp_path / "work", has={"gpus": []}))
        func = 'echo "gpu=$CUDA_VISIBLE_DEVICES"'
        handle = await client.submit({"func": func, "conditions": {"runtimetype": "cli"}})
        assert await handle.result(30) == "gpu="


async def _all_run(handles: list[Any]) -> None:
    for handle in handles:
        while (await handle.get()).state != "running":
            await asyncio.sleep(0.05)


async def test_what_a_dead_attempt_had_is_free_again(tmp_path: Path) -> None:
    worker = colonies.Worker("python", concurrency=4, has={"gpus": gpus("0")})

    @worker.function
    async def fails() -> None:
        raise colonies.Fail("on purpose")

    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(worker)
        spec = {"func": "fails", "conditions": {"runtimetype": "python", "gpu": {"count": 1}}}
        for handle in await client.submit_many([spec] * 5):
            assert (await handle.wait(30)).state == "failed"


async def test_what_a_worker_has_is_on_the_ledger(tmp_path: Path) -> None:
    async with running_colony(tmp_path) as colony:
        await colony.work(where_it_runs(has={"mem": "16GB", "gpus": gpus("0"), "labels": {"a": "b"}}))
        (stored,) = await colony.owner.ledger.read("ledger.worker.w1.started.w1")
        seen = await colony.owner.examine(stored)
        assert seen.record is not None
        has = seen.record.event.has  # type: ignore[union-attr]
        assert has is not None
        assert (has.mem, has.labels, [gpu.name for gpu in has.gpus]) == (16 * 10**9, {"a": "b"}, ["A100"])
        assert has.cpu == machine.cores()


# --- fairness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_of_twenty_starts_one_at_least_goes_to_a_lower_queue_that_waits(
    tmp_path: Path, concurrency: int
) -> None:
    """The queue of priority 9 never runs empty while the others wait."""
    worker = colonies.Worker("python", concurrency=concurrency)
    order: list[int] = []

    @worker.function
    async def note(priority: int) -> None:
        order.append(priority)

    def calls(priority: int, count: int) -> list[dict[str, Any]]:
        conditions = {"runtimetype": "python"}
        one = {"func": "note", "args": [priority], "priority": priority, "conditions": conditions}
        return [one] * count

    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        handles = await client.submit_many(calls(0, 15) + calls(9, 400))
        await colony.work(worker)
        await asyncio.gather(*(handle.result(60) for handle in handles))
    while_low_waits = order[: len(order) - order[::-1].index(0)]
    starts = [index for index, priority in enumerate(while_low_waits) if priority == 0]
    assert starts[0] < 20
    assert max(later - before for before, later in pairwise(starts)) <= 20
    assert while_low_waits.count(9) > 5 * while_low_waits.count(0), "urgent work still goes first"


# --- what a machine has -----------------------------------------------------------------------------


def nvidia_smi(folder: Path, says: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)


def test_graphics_processors_are_found_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "0, NVIDIA A100-SXM4-40GB, 40960, GPU-aa11\\n1, NVIDIA A100-SXM4-40GB, 40960, GPU-bb22\\n"
        "2, NVIDIA GB10, [N/A], GPU-cc33\\n"
    )
    nvidia_smi(tmp_path, f"printf '{lines}'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    size = 40960 * 2**20
    assert [(d.id, d.mem) for d in machine.devices()] == [("0", size), ("1", size), ("2", None)]
    for said, ids in {
        "1": ["1"],
        "2,0": ["2", "0"],
        "1,-1,0": ["1"],  # CUDA stops at the first that it does not know
        "": [],
        "GPU-bb22": ["GPU-bb22"],
        "GPU-aa": ["GPU-aa"],
        "MIG-7c": ["MIG-7c"],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert [d.id for d in machine.devices()] == ids, said


@pytest.mark.parametrize("says", ["exit 9", "echo what", "kill -9 $$"])
def test_an_nvidia_smi_that_fails_means_no_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    nvidia_smi(tmp_path, says)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.devices() == []


async def test_the_limits_of_a_cgroup_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.cores() == 0.5
    assert machine.memory_bytes() == 2**30
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.cores() >= 1
    assert machine.memory_bytes() > 2**30
