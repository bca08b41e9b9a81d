"""docs/history.md, run from top to bottom as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "history.md"
COLONIES = Path(sys.executable).with_name("colonies")
LIMIT_S = 60.0


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{COLONIES.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("dev")
def test_the_history_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```(python|sh)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert [kind for kind, _ in blocks][:2] == ["python", "sh"]
    module = tmp_path / "shop.py"
    module.write_text(blocks[0][1])
    with (tmp_path / "worker.log").open("w") as log:
        start = [COLONIES, "worker", "start", "shop:worker", "--name", "lab"]
        worker = subprocess.Popen(start, cwd=tmp_path, stdout=log, stderr=log)
    ids = {"GOOD": "", "BAD": ""}
    ran = 0
    try:
        for kind, block in blocks[1:]:
            if kind == "python":
                module.write_text(module.read_text() + block)
                continue
            for line in block.splitlines():
                expected = int(found[1]) if (found := re.search(r"# exits with (\d+)$", line)) else 0
                done = run(re.sub(r"\b(GOOD|BAD)\b", lambda name: ids[name[0]], line), tmp_path)
                assert done.returncode == expected, f"{line}: {done.stdout}{done.stderr}"
                if key := re.search(r"--key (\w+)", line):
                    newest = run("colonies process ls --limit 1 -o json", tmp_path)
                    ids[key[1].upper()] = json.loads(newest.stdout)["id"]
                ran += 1
    finally:
        worker.terminate()
        worker.wait(LIMIT_S)
    assert ran > 15
