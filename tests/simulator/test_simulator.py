"""The simulator: the lifetimes of every `make test`, that seeds replay, that planted bugs are found.

It runs in processes of its own, for it puts another world beneath the code.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.plan import draw
from tests.simulator.planted import BUGS

ROOT = Path(__file__).parents[2]
LIFETIMES = 20_000
LIMIT_S = 1_200  # it lets others go first
NAMES = [bug.name for bug in BUGS]
pytestmark = pytest.mark.timeout(LIMIT_S)


def simulator(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulator", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_twenty_thousand_lifetimes_keep_every_promise() -> None:
    done = simulator("--seeds", str(LIFETIMES))

    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
    assert f"{LIFETIMES} lifetimes" in done.stdout
    assert "none failed" in done.stdout


def test_in_a_thousand_lifetimes_a_subscriber_is_told_every_event_once() -> None:
    done = simulator("--subscribed", "--seeds", "1000")

    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
    assert "none failed" in done.stdout


def test_a_seed_replays_exactly_whatever_the_process_and_its_hashes() -> None:
    runs = [simulator("--digests", "--seeds", "120", "--from", "480", PYTHONHASHSEED=h) for h in ("1", "2")]

    assert [run.returncode for run in runs] == [0, 0], runs[0].stdout + runs[0].stderr
    assert len(runs[0].stdout.splitlines()) == 120
    assert runs[0].stdout == runs[1].stdout
    plans = [draw(seed) for seed in range(480, 600)]
    assert any(plan.projector is not None for plan in plans)
    for kind in ("flows", "scripts", "pauses", "limited"):
        assert any(getattr(plan, kind) for plan in plans), kind


def test_a_seed_tells_its_lifetime_in_full() -> None:
    told = simulator("--replay", "7")

    assert told.returncode == 0, told.stderr
    assert re.search(r"^ +\d+\.\d{6} +ledger +#\d+ ledger\.process\.\S+\.queued\.", told.stdout, re.MULTILINE)
    assert re.search(r"seed 7: \d+ events, .* digest [0-9a-f]{16}", told.stdout)


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """What the simulator found of each planted bug."""
    done = simulator("--planted")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(BUGS), done.stderr[-2_000:]
    return {line["bug"]: line for line in lines}


def test_there_are_enough_planted_bugs() -> None:
    assert len(set(NAMES)) == len(BUGS) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_bug_is_found(found: dict[str, dict[str, Any]], name: str) -> None:
    assert found[name]["seed"] is not None, f"{name}: not found within {found[name]['within']} seeds"
    assert not re.search(r"died of|Error: ", found[name]["by"]), (
        "found by a breakdown, not by a broken promise"
    )


def test_a_failure_is_told_with_what_replays_it() -> None:
    """The same seed with a planted bug fails, says by which promise, and how to see it again."""
    bug = NAMES.index("one retry too many")
    seed = next(
        json.loads(line)["seed"] for line in simulator("--planted", NAMES[bug]).stdout.splitlines() if line
    )
    told = simulator("--replay", str(seed), "--plant", NAMES[bug])

    assert told.returncode == 1
    assert "BROKEN: requeued: the process is failed already" in told.stdout
    assert simulator("--replay", str(seed)).returncode == 0
