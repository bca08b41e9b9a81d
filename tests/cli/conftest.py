"""The installed command, run for real against a real colony that all tests of this folder share."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.cli.zygote import Zygote

ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).with_name("colonies"))
LIMIT_S = 60.0
_OF_PYTHON = ("PYTHON", "LC_", "LANG")  # variables that the interpreter reads when it starts


@cache
def zygote() -> Zygote:
    """What the commands of this process's tests are forked from; it ends with this process."""
    started = Zygote.start()
    atexit.register(started.end)
    return started


@dataclass
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """stdout as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def one(self) -> Any:
        (line,) = self.lines
        return line


@dataclass
class Cli:
    """Runs `colonies` with an environment of its own."""

    folder: Path
    environment: dict[str, str | None] = field(default_factory=dict)

    def env(self, **more: str | None) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("COLONIES_")}
        merged: dict[str, str | None] = {
            **clean,
            "COLONIES_CONFIG_DIR": str(self.folder / "config"),
            "COLONIES_DATA_DIR": str(self.folder / "data"),
            **self.environment,
            **more,
        }
        return {key: value for key, value in merged.items() if value is not None}

    def __call__(
        self, *arguments: str, stdin: str | bytes = b"", cwd: Path | None = None, **more: str | None
    ) -> Done:
        env, cwd = self.env(**more), cwd or self.folder
        given = stdin.encode() if isinstance(stdin, str) else stdin
        if any(name.startswith(_OF_PYTHON) for name in more):
            command = [COMMAND, *arguments]
            done = subprocess.run(
                command, input=given, capture_output=True, env=env, cwd=cwd, timeout=LIMIT_S, check=False
            )
        else:
            done = zygote().run(list(arguments), env, cwd, given, LIMIT_S)
        found = Done(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        assert "Traceback" not in found.err, found.err
        return found

    def start(self, *arguments: str, cwd: Path | None = None, **more: Any) -> subprocess.Popen[str]:
        """The command under way, its streams as pipes of text."""
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen(
            [COMMAND, *arguments], env=self.env(), cwd=cwd or self.folder, text=True, **options
        )

    def ok(self, *arguments: str, **more: Any) -> Done:
        done = self(*arguments, **more)
        assert done.code == 0, f"{arguments}: {done.code}: {done.err}"
        return done

    def get(self, id: str) -> Any:
        return self.ok("process", "get", id, "-o", "json").one

    def submit(self, func: str, *args: Any, runtimetype: str = "cli", **fields: Any) -> str:
        """Submit a process; its id."""
        spec = {"func": func, "args": list(args), "conditions": {"runtimetype": runtimetype}, **fields}
        return self.ok("process", "submit", "--spec", "-", "-o", "name", stdin=json.dumps(spec)).out.strip()

    def last_sequence(self) -> int:
        return int(self.ok("ledger", "tail", "-o", "json").lines[-1]["sequence"])

    def until(self, fact: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while not (found := fact()):
            assert time.monotonic() < deadline, f"never happened: {what}"
            time.sleep(0.05)
        return found


@pytest.fixture(scope="session")
def colony_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running colony: its `config` holds the contexts `owner`, `ann` (in use) and `bob`."""
    folder = tmp_path_factory.mktemp("colony")
    (folder / "home").mkdir()
    environment = {
        **os.environ,
        "COLONIES_CONFIG_DIR": str(folder / "config"),
        "COLONIES_DATA_DIR": str(folder / "data"),
    }
    with (folder / "colony.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.colony_process", str(folder / "home")],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == "ready\n", (folder / "colony.log").read_text()
            yield folder
        finally:
            process.communicate(timeout=30)


@pytest.fixture
def cli(colony_folder: Path) -> Cli:
    """The command as `ann`, a user of the running colony."""
    return Cli(colony_folder)


@pytest.fixture
def owner(colony_folder: Path) -> Cli:
    """The command as the colony's owner, who holds the keys."""
    return Cli(colony_folder, {"COLONIES_CONTEXT": "owner"})


def machine(folder: Path) -> Cli:
    """The command as another user on another machine: a HOME of its own, and no colony known there."""
    folder.mkdir()
    others = ("COLONIES_CONFIG_DIR", "COLONIES_DATA_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    return Cli(folder, {"HOME": str(folder), **dict.fromkeys(others)})


@pytest.fixture
def alone(tmp_path: Path) -> Cli:
    """The command on a machine that knows no colony."""
    return Cli(tmp_path)
