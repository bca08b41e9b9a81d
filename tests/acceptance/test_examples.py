"""The examples of workflows and signals run as they stand: a real broker, the worker a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
COLONIES = Path(sys.executable).with_name("colonies")
LIMIT_S = 60.0


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("dev")
@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("workflow", "[26, 30, 28] 84"),
        ("map_reduce", "{'the': 3, 'cat': 1, 'dog': 1, 'and': 1, 'bird': 1}"),
        ("approval", "about us, approved by "),
    ],
)
def test_an_example_does_what_it_says(name: str, printed: str, tmp_path: Path) -> None:
    with (tmp_path / "worker.log").open("w") as log:
        start = [COLONIES, "worker", "start", f"{name}:worker", "--name", "w1"]
        running = subprocess.Popen(start, cwd=EXAMPLES, stdout=log, stderr=log)
    try:
        done = subprocess.run(
            [sys.executable, f"{name}.py"],
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.stdout.startswith(printed), done.stderr + (tmp_path / "worker.log").read_text()
    finally:
        running.terminate()
        running.wait(LIMIT_S)
