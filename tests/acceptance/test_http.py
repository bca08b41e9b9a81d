"""HTTP as `colonies dev` runs it: what the page shows works, and it comes back at the same place."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
COLONIES = str(Path(sys.executable).with_name("colonies"))
LIMIT_S = 60.0
CURL = re.compile(r'curl -sf(N?) (?:-H "Authorization: Bearer (\$TOKEN)" )?"http://127\.0\.0\.1:4280(/\S*)"')


@dataclass
class Dev:
    """A colony of `colonies dev`. `url` is where its HTTP is."""

    url: str
    log: Path

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [COLONIES, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def open(self, target: str, token: str | None) -> Any:
        request = urllib.request.Request(f"{self.url}{target}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        return urllib.request.urlopen(request, timeout=LIMIT_S)

    def until(self, target: str, token: str | None) -> Any:
        """Its JSON, once it is answered with 200."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            # HTTPError and URLError are such; the last of them is told.
            late = contextlib.nullcontext() if time.monotonic() > deadline else contextlib.suppress(OSError)
            with late, self.open(target, token) as answer:
                return json.load(answer)
            time.sleep(0.05)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    command = [COLONIES, "dev", "--ephemeral", "--port", "0", "--http-port", "0"]
    with (tmp_path / "dev.log").open("w") as log:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ)
    assert running.stdout is not None
    try:
        ready = running.stdout.readline()
        found = re.search(r" http=(http://127\.0\.0\.1:\d+)$", ready.strip())
        assert found is not None, (tmp_path / "dev.log").read_text()
        yield Dev(found[1], tmp_path / "dev.log")
    finally:
        running.terminate()
        running.wait(LIMIT_S)
        running.stdout.close()
    assert running.returncode == 0
    assert "Traceback" not in (tmp_path / "dev.log").read_text()


@pytest.mark.timeout(180)
def test_what_the_page_shows_is_answered(dev: Dev, tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    first, *lines = block.splitlines()
    dev.run("member", "add", "ann", "--role", "user")
    found = re.fullmatch(r"TOKEN=\$\(colonies (.*)\)", first)
    assert found is not None
    token = dev.run(*found[1].split())
    worker = subprocess.Popen(
        [COLONIES, "worker", "start", "--name", "w", "--runtimetype", "cli"], stderr=subprocess.DEVNULL
    )
    try:
        spec = tmp_path / "hello.json"
        spec.write_text('{"func": "echo hello", "conditions": {"runtimetype": "cli"}}')
        id = dev.run("process", "submit", "--spec", str(spec), "--wait", "-o", "name").splitlines()[-1]
        dev.run("process", "ls", "--state", "successful")  # the views have it
        answers: list[Any] = []
        for line in lines:
            shown = CURL.fullmatch(line)
            assert shown is not None, line
            with dev.open(shown[3].replace("$ID", id), token if shown[2] else None) as answer:
                answers.append([answer.readline() for _ in range(6)] if shown[1] else json.load(answer))
    finally:
        worker.terminate()
        worker.wait(LIMIT_S)
    listed, history, events, health = answers
    assert [item["id"] for item in listed["items"]] == [id]
    assert history["events"][-1]["event"] == "process.completed"
    assert events[3] == b"id: 1\n"
    assert json.loads(events[4].removeprefix(b"data: "))["type"] == "colonies.colony.genesis"
    assert health["status"] == "ready"


@pytest.mark.timeout(180)
def test_each_path_is_on_the_page_and_its_example_is_answered(dev: Dev, tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(/\S+)` \|(?: `(\?\S+)`)? \| .+ \|$", PAGE, re.MULTILINE)
    paths = dev.until("/openapi.json", None)["paths"]
    templates = {re.sub(r"\{\w+\}", "*", path) for path in paths}
    assert {re.sub(r"\b[A-Z]+\b", "*", path) for path, _ in rows} == templates
    work = {"name": "a", "func": "echo hello", "conditions": {"runtimetype": "cli"}}
    (tmp_path / "work.json").write_text(json.dumps([work]))
    workflow = dev.run("workflow", "submit", "--spec", str(tmp_path / "work.json"), "-o", "name")
    (tmp_path / "one.json").write_text(json.dumps(work))
    id = dev.run("process", "submit", "--spec", str(tmp_path / "one.json"), "-o", "name")
    token = dev.run("member", "token", "owner")
    last = dev.until(f"/v1/processes/{id}/history", token)["events"][-1]["sequence"]
    words = {"ID": id, "WORKFLOW": workflow, "VIEW": "processes", "at=100": f"at={last}"}
    for path, example in rows:
        target = re.sub(r"\b(ID|WORKFLOW|VIEW|at=100)\b", lambda word: words[word[0]], path + example)
        try:
            with dev.open(target, None if path in ("/health", "/metrics") else token) as answer:
                if path not in ("/v1/events", "/metrics"):
                    assert json.load(answer), target
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{target}: {error.read().decode()}") from None


@pytest.mark.timeout(180)
def test_it_comes_back_at_the_same_place_under_another_name(dev: Dev) -> None:
    token = dev.run("member", "token", "owner")
    with dev.open("/v1/events?after=0", token) as feed:
        dev.run("member", "revoke", "http", "--yes")
        while feed.readline():
            pass
    assert dev.until("/health", None)["status"] == "ready"
    assert dev.until("/v1/processes", token)["items"] == []
    assert "http-2" in dev.run("member", "ls", "-o", "name").split()
    assert token not in dev.log.read_text()
