"""`make demo`, as a newcomer runs it: it keeps its promises, fits a terminal and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
LIMIT_S = 120.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo puts its folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def demo(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-u", DEMO],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        yield running
        running.kill()


def left_behind(temporary: Path) -> list[str]:
    """Files, and processes that name the folder on their command lines."""
    found = [str(path) for path in temporary.iterdir()]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(temporary) in line and path.parent.name != str(os.getpid()):
            found.append(line)
    return found


def test_it_does_what_it_promises(demo: subprocess.Popen[str], temporary: Path, tmp_path: Path) -> None:
    said, _ = demo.communicate(timeout=LIMIT_S)

    assert demo.returncode == 0, said
    for shown in (
        r"\$ colonies dev",
        r"ready nats://",
        r"\$ colonies process submit --spec sayhello.json",
        r"\$ colonies worker start --name testworker --runtimetype cli",
        r"testworker: sayhello",
        r"\$ kill -9 \d+",
        r"helper: done",
        r"process\.completed +helper +2 +valid",
        r"\d+ events, \d+ valid, no findings",
        r"pipx install \.",
    ):
        assert re.search(shown, said), f"{shown} in:\n{said}"
    assert max(map(len, said.splitlines())) <= 80
    assert left_behind(temporary) == []
    assert not (tmp_path / "config").exists()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_takes_everything_with_it(
    demo: subprocess.Popen[str], temporary: Path, number: int
) -> None:
    assert demo.stdout is not None
    while "testworker: sayhello" not in demo.stdout.readline():
        assert demo.poll() is None

    demo.send_signal(number)
    said, _ = demo.communicate(timeout=LIMIT_S)

    assert demo.returncode == 130, said
    deadline = time.monotonic() + LIMIT_S
    while left := left_behind(temporary):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_a_broken_promise_is_an_error(temporary: Path) -> None:
    """Without a shell to run commands in, the worker has nothing to show."""
    script = f"""
import runpy, sys
demo = runpy.run_path({str(DEMO)!r})
demo["main"].__globals__["expect"] = lambda what, found, promised: demo["main"].__globals__["refuse"](what)
def refuse(what):
    raise demo["Broken"](what)
demo["main"].__globals__["refuse"] = refuse
sys.exit(demo["main"]())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )

    assert done.returncode == 1
    assert "Not as promised: the output" in done.stderr
    assert left_behind(temporary) == []
