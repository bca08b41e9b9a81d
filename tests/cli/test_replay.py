"""`colonies process replay`: a recorded attempt, run again from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, LIMIT_S, ROOT, Cli

FIELDS = [
    *("id", "attempt", "func", "worker", "same", "outcome", "here", "error", "difference"),
    *("code", "code_here", "same_code"),
]
SHOP = """
import colonies

worker = colonies.Worker("python")

@worker.function
def double(n: int) -> int:
    print("printed", n)
    colonies.current().log("logged")
    return 2 * n

@worker.function(name="repeat")
async def repeated(text: str, times: int) -> str:
    return text * times + "!"

def plain(n):
    return 2 * n

def breaks(n):
    secret = n * 1000
    raise ValueError(f"no {n}")

def stops(n):
    breakpoint()
    return 2 * n

other = colonies.Worker("python")
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the user's module is."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "replay_shop.py").write_text(SHOP)
    return tmp_path / "work"


@pytest.fixture
def doubled(cli: Cli) -> str:
    id = cli.submit("double", 21, runtimetype="python")
    cli.ok("process", "watch", id)
    return id


@pytest.mark.parametrize("place", ["replay_shop:double", "replay_shop:worker", "replay_shop:plain"])
def test_a_function_or_a_worker_ends_as_the_ledger_says(
    cli: Cli, folder: Path, doubled: str, place: str
) -> None:
    before = cli.last_sequence()
    done = cli.ok("process", "replay", doubled, place, cwd=folder)
    assert done.out.endswith(f"attempt 1 of process {doubled}: double, by py1\nthe same: successful\n")
    assert done.err == "colonies: the code is not the one that ran then: its file has another digest\n"
    assert ("printed 21\nlogged\n" in done.out) == (place != "replay_shop:plain")
    events = cli.ok("ledger", "tail", "--from", str(before), "-o", "json").lines
    assert not [event for event in events if doubled in event["entity"] and event["sequence"] > before]


def test_the_code_that_ran_is_told_from_another(cli: Cli, folder: Path, doubled: str) -> None:
    attempt = cli.get(doubled)["attempts"][0]
    here = cli.ok("process", "replay", doubled, "tests.colony_process:double", "-o", "json", cwd=ROOT)
    assert list(here.one) == FIELDS
    assert here.one["same_code"]
    assert here.one["code"] == here.one["code_here"] == attempt["code"]
    assert here.err == ""
    other = cli.ok("process", "replay", doubled, "replay_shop:double", "-o", "json", cwd=folder)
    assert (other.one["same"], other.one["same_code"]) == (True, False)
    assert other.err == "printed 21\nlogged\n"  # stdout is the answer's
    unix = cli.submit("true")
    cli.ok("process", "watch", unix)
    assert cli.get(unix)["attempts"][0]["code"] is None


def test_the_first_difference_is_shown_and_ends_with_1(cli: Cli, folder: Path, doubled: str) -> None:
    id = cli.submit("repeat", "ab", 2, runtimetype="python")
    cli.ok("process", "watch", id)
    done = cli("process", "replay", id, "replay_shop:worker", cwd=folder)
    assert done.code == 1
    assert done.out.splitlines()[1:] == ["different at output", '  ledger: "abab"', '  here:   "abab!"']
    data = cli("process", "replay", id, "replay_shop:repeated", "-o", "json", cwd=folder)
    assert (data.code, data.one["same"]) == (1, False)
    assert data.one["difference"] == {"path": "output", "ledger": "abab", "here": "abab!"}
    broken = cli("process", "replay", doubled, "replay_shop:breaks", cwd=folder)
    assert broken.code == 1
    assert broken.out.splitlines()[1:3] == ["different at outcome", '  ledger: "successful"']
    assert "error: ValueError: no 21 (replay_shop.py:" in broken.out


def test_debug_stops_where_it_raises_and_breakpoints_work(cli: Cli, folder: Path, doubled: str) -> None:
    words = ("process", "replay", doubled)
    done = debugged(cli, folder, *words, "replay_shop:breaks", "--debug", said="p secret\nq\n")
    assert done.returncode == 1
    assert "21000" in done.stdout
    assert "ValueError: no 21" in done.stderr
    same = debugged(cli, folder, *words, "replay_shop:stops", said="p n\nc\n")
    assert (same.returncode, "(Pdb) 21\n" in same.stdout) == (0, True)
    left = debugged(cli, folder, *words, "replay_shop:stops", said="q\n")
    assert left.returncode == 130
    assert "Traceback" not in left.stderr


def debugged(cli: Cli, folder: Path, *words: str, said: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, COMMAND, *words],
        input=said,
        capture_output=True,
        text=True,
        env=cli.env(PYTHONUNBUFFERED="1", PATH=os.environ["PATH"]),
        cwd=folder,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("replay_shop", "allowed: MODULE:FUNCTION, such as shop:resize"),
        ("replay_shop:nothing", "there is no such name in replay_shop; it has: breaks, double, other"),
        ("replay_shop:number", "this is no function in replay_shop"),
        ("replay_nowhere:f", "there is no module replay_nowhere in"),
        ("replay_shop:other", "the worker has no function 'double', which the process is of; it has: none"),
    ],
)
def test_what_is_no_function_is_refused(cli: Cli, folder: Path, doubled: str, place: str, said: str) -> None:
    done = cli("process", "replay", doubled, place, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_what_cannot_be_run_again_is_said(cli: Cli, folder: Path, doubled: str) -> None:
    waiting = cli.submit("double", 1, runtimetype="nobody-has-this")
    for id, more, said in (
        (doubled, ("--attempt", "2"), "has no attempt 2; it has 1 to 1"),
        (waiting, (), "no worker has taken it"),
        ("01JZY8ZZZZZZZZZZZZZZZZZZZZ", (), "there is no process"),
    ):
        done = cli("process", "replay", id, "replay_shop:double", *more, cwd=folder)
        assert (done.code, done.out) == (5, "")
        assert said in done.err
