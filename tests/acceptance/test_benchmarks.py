"""What the benchmarks say is what they measured: sums come out, legs are in order, nothing counts twice."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks import meter
from tests.benchmarks.marks import WAY, Mark, legs
from tests.benchmarks.meter import FUNCTIONS, SAMPLE, SLOTS, Meter, reading, spent_us

ROOT = Path(__file__).parents[2]


def figures(*names: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return {figure["name"]: figure for figure in map(json.loads, done.stdout.splitlines())}


def test_the_costs_of_a_part_add_up_to_its_processor_time_and_the_legs_to_the_trip() -> None:
    found = figures("costs", "trip")

    for part in ("client", "worker", "orchestrator", "projector"):
        kinds = [f"cost_{part}_{kind}" for kind in (*FUNCTIONS, "rest")]
        pieces = [found[kind]["value"] for kind in kinds if kind in found]
        whole = found[f"cost_{part}"]["value"]
        assert sum(pieces) == pytest.approx(whole, rel=0.01)
        assert max(pieces) < whole
    parts = ("client", "worker", "orchestrator", "projector", "broker")
    assert found["cost_all"]["value"] == pytest.approx(
        sum(found[f"cost_{part}"]["value"] for part in parts), rel=0.01
    )
    assert found["cost_worker_sign"]["value"] > 0
    assert found["cost_client_verify"]["value"] > 0
    assert {"limit", "ratio"} <= found["cost_all"].keys() & found["trip"].keys()

    each = [found[f"trip_{leg}"]["value"] for _, _, leg in WAY]
    assert min(each) >= 0
    assert sum(each) == pytest.approx(found["trip_legs"]["value"], rel=0.01)
    # Medians of legs do not add up to the median of the whole on a machine that others use too.
    assert 0.3 < found["trip_legs"]["value"] / found["trip"]["value"] < 2


def test_growth_is_measured_beside_the_bare_broker() -> None:
    found = figures("signatures", "ledger_size", "queues", "instances", "cold")

    assert found.keys() == {
        "sign_per_s",
        "verify_per_s",
        "processes_per_s_at_2000_events",
        "processes_per_s_over_5_queues",
        "processes_per_s_by_2_instances",
        "ends_per_s_warm",
        "ends_per_s_cold",
    }
    assert all(figure["value"] > 0 and figure["limit"] > 0 for figure in found.values())


def test_workflows_and_crons_are_measured_beside_the_bare_broker() -> None:
    found = figures("workflows", "large_workflow", "crons")

    assert found.keys() == {
        "workflow_1_50_1",
        "workflow_chain_of_20",
        "workflow_step",
        "workflow_of_300_submit",
        "workflow_of_300",
        "workflow_of_300_memory",
        "workflow_step_first_quarter",
        "workflow_step_last_quarter",
        "crons_20_by_1_submitted",
        "crons_20_by_1_ended",
        "crons_20_by_1_cpu",
    }
    assert all(figure["value"] > 0 for figure in found.values())
    for name in ("workflow_1_50_1", "workflow_chain_of_20", "workflow_step", "crons_20_by_1_ended"):
        assert found[name]["limit"] > 0


def test_a_name_that_is_no_benchmark_is_refused_with_those_that_are() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "there is no benchmark 'nonsense'" in done.stderr
    assert "ledger_size" in done.stderr


# --- the meter --------------------------------------------------------------------------------------


def burn(ms: float) -> None:
    until = time.thread_time() + ms / 1e3
    while time.thread_time() < until:
        pass


class Burning:
    def outer(self) -> None:
        burn(1.0)
        self.inner()

    def inner(self) -> None:
        burn(3.0)

    async def waiting(self) -> None:
        burn(1.0)
        await asyncio.sleep(0.005)
        burn(1.0)


def burned(monkeypatch: pytest.MonkeyPatch, path: Path) -> Meter:
    slots = [("judge", Burning, "outer"), ("sign", Burning, "inner"), ("own", Burning, "waiting")]
    monkeypatch.setattr(meter, "SLOTS", slots)
    return Meter(path)


def test_a_metered_call_is_charged_with_what_it_did_itself_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metering = burned(monkeypatch, tmp_path / "meter")
    before = reading(tmp_path / "meter")
    with metering.installed():
        for _ in range(SAMPLE):
            Burning().outer()
    spent = spent_us(before, reading(tmp_path / "meter"))

    assert spent["judge"] == pytest.approx(SAMPLE * 1_000, rel=0.3)
    assert spent["sign"] == pytest.approx(SAMPLE * 3_000, rel=0.3)


async def test_a_metered_coroutine_is_charged_with_its_steps_and_not_with_its_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metering = burned(monkeypatch, tmp_path / "meter")
    before = reading(tmp_path / "meter")
    with metering.installed():
        for _ in range(SAMPLE):
            await Burning().waiting()
    spent = spent_us(before, reading(tmp_path / "meter"))

    assert spent["own"] == pytest.approx(SAMPLE * 2_000, rel=0.3)


def test_what_was_metered_is_itself_again_afterwards(tmp_path: Path) -> None:
    def now() -> list[object]:
        return [getattr(owner, name) for _, owner, name in SLOTS]

    before = now()
    with Meter(tmp_path / "meter").installed():
        assert all(wrapped is not was for wrapped, was in zip(now(), before, strict=True))

    assert all(left is was for left, was in zip(now(), before, strict=True))


# --- the marks --------------------------------------------------------------------------------------


def trip(start: int) -> dict[str, list[Mark]]:
    """One trip whose legs each take 10 us more than the one before, in ns from `start` on."""
    sides: dict[str, list[Mark]] = {"client": [("begin", start)], "worker": []}
    at = start
    for number, (side, mark, _) in enumerate(WAY, start=1):
        at += number * 10_000
        sides[side].append((mark, at))
    return sides


def test_a_trip_is_cut_into_legs_that_add_up_to_it() -> None:
    sides = trip(1_000)
    (found,) = legs(sides["client"], sides["worker"])

    assert list(found) == [leg for _, _, leg in WAY]
    assert list(found.values()) == [10.0 * number for number in range(1, len(WAY) + 1)]
    assert math.isclose(sum(found.values()), (sides["client"][-1][1] - 1_000) / 1e3)


def test_a_trip_with_a_mark_missing_is_left_out_and_the_next_one_is_not_shifted() -> None:
    first, second = trip(1_000), trip(100_000_000)
    worker = [mark for mark in first["worker"] if mark[0] != "run+"] + second["worker"]
    found = legs(first["client"] + second["client"], worker)

    assert len(found) == 1
    assert found[0]["client_prepare"] == 10.0
