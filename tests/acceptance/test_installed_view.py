"""A view that another package brings is there when `colonies dev` starts; a broken one harms nobody."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLONIES = Path(sys.executable).with_name("colonies")
LIMIT_S = 60.0


def install(site: Path, package: str, code: str, entry: str) -> None:
    """Put a package where an installer would: its module, and what is said of it."""
    about = site / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (site / f"{package}.py").write_text(code)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[colonies.views]\n{entry}\n")


@pytest.mark.timeout(180)
def test_a_view_of_the_readme_is_asked_by_the_command_once_it_is_installed(tmp_path: Path) -> None:
    readme = (ROOT / "projections" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (entry,) = re.findall(r'^(submitters = "my_views:Submitters")$', readme, re.MULTILINE)
    install(tmp_path / "site", "my_views", code, entry.replace('"', ""))
    install(tmp_path / "site", "bad_views", "import no_such_module", "bad = bad_views:Bad")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *_python_path()])}

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [COLONIES, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            env=env,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    log = tmp_path / "dev.log"
    with log.open("w") as stderr:
        command = [COLONIES, "dev", "--port", "0"]
        dev = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env)
    assert dev.stdout is not None
    try:
        assert dev.stdout.readline().startswith("ready "), log.read_text()
        spec = '{"func": "true", "conditions": {"runtimetype": "cli"}}'
        for _ in range(2):
            run("process", "submit", "--spec", "-", stdin=spec)
        [item] = map(json.loads, run("query", "submitters", "-o", "json").splitlines())
        assert item["processes"] == 2
        assert run("query", "submitters").split() == ["MEMBER", "PROCESSES", item["member"], "2"]
        views = {json.loads(line)["view"] for line in run("projection", "ls", "-o", "json").splitlines()}
        assert "submitters" in views
        assert "bad" not in views
    finally:
        dev.terminate()
        dev.wait(LIMIT_S)
        dev.stdout.close()
    said = [line for line in log.read_text().splitlines() if "a view was left out" in line]
    assert len(said) == 1
    assert "no_such_module" in said[0]


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
