"""What a worker is told that it has: options, a file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from colonies_cli import having

from tests.cli.conftest import Cli
from tests.cli.test_worker import running

FILE = """\
name = "lab1"
runtimetype = "lab"
cpu = 4
mem = "64GB"
gpus = ["2xA100:40GB", "T4"]
labels = { site = "north" }
"""


def spec(folder: Path, **conditions: object) -> str:
    path = folder / "spec.json"
    asked = {"runtimetype": "lab", **conditions}
    path.write_text(json.dumps({"func": "echo $CUDA_VISIBLE_DEVICES", "conditions": asked}))
    return str(path)


def test_options_go_before_the_file_and_queue_ls_tells_who_can_serve(
    owner: Cli, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "lab1.toml").write_text(FILE)
    unserved = cli.ok("process", "submit", "--spec", spec(tmp_path, mem="128GB"), "-o", "name").out.strip()
    with running(owner, "--config", str(tmp_path / "lab1.toml"), "--mem", "100GB", "--location", "ice"):
        (item,) = cli.ok("worker", "ls", "--runtimetype", "lab", "--state", "alive", "-o", "json").lines
        assert item["name"] == "lab1"
        has = item["has"]
        assert (has["cpu"], has["mem"], has["location"], has["labels"]) == (
            4,
            10**11,
            "ice",
            {"site": "north"},
        )
        assert [(gpu["id"], gpu["name"], gpu.get("mem")) for gpu in has["gpus"]] == [
            ("0", "A100", 4 * 10**10),
            ("1", "A100", 4 * 10**10),
            ("2", "T4", None),
        ]
        asked = spec(tmp_path, mem="100GB", gpu={"count": 2, "name": "A100"}, labels={"site": "north"})
        assert cli.ok("process", "submit", "--spec", asked, "--wait").code == 0
        queues = cli.ok("queue", "ls", "--runtimetype", "lab", "-o", "json").lines
        assert [(queue["waiting"], queue["workers"]) for queue in queues] == [(1, []), (0, ["lab1"])]
        table = cli.ok("queue", "ls", "--runtimetype", "lab").out.splitlines()
        assert "NONE: lab1: mem: 128GB needed, 100GB there" in table[1]
        assert "NONE" not in table[2]
        assert queues[0]["id"] in cli.ok("queue", "ls", "--unserved", "-o", "name").out.split()
    cli.ok("process", "cancel", unserved)


@pytest.mark.parametrize(
    ("given", "visible", "ids"),
    [
        (["2xA100", "T4"], None, ["0", "1", "2"]),
        (["3=A100:40GB", "GPU-aa=T4"], None, ["3", "GPU-aa"]),
        (["2xA100"], "5,GPU-bb", ["5", "GPU-bb"]),
        (["none"], "5", []),
    ],
)
def test_devices_are_numbered_as_given_or_as_cuda_shows_them(
    monkeypatch: pytest.MonkeyPatch, given: list[str], visible: str | None, ids: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    said = having.said(having.Given(gpus=given), None)
    assert [device.id for device in said.has.gpus] == ids


def test_the_file_of_the_docs_says_what_the_docs_say(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "worker.md").read_text(encoding="utf-8")
    path = tmp_path / "lab1.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    said = having.said(having.Given(), path)
    assert (said.name, said.has.mem, said.has.location) == ("lab1", 64 * 10**9, "ice")
    assert (len(said.has.gpus), said.has.labels) == (2, {"site": "north"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mem", "10XB"], "mem: '10XB' has the unknown unit 'XB'"),
        (["--cpu", "many"], "cpu: 'many'"),
        (["--cpu", "-1"], "cpu: '-1'"),
        (["--gpu", ":"], "--gpu: ':' is not one; allowed: A100"),
        (["--gpu", "none", "--gpu", "A100"], "--gpu: 'none' is not one"),
        (["--gpu", "0xA100"], "--gpu: '0xA100' is not one"),
        (["--gpu", "1=A100", "--gpu", "1=T4"], "--gpu: the device 1 is given twice"),
        (["--label", "a=1", "--label", "a=2"], "--label: a label is given twice"),
        (
            ["--processes", "2000000"],
            "processes: 2000000 is not allowed; allowed: a whole number from 1 to 1000000",
        ),
        (["--label", "site"], "--label: 'site' has no value; allowed: NAME=VALUE"),
        (["--location", " "], "location: ' '"),
        (["--config", "nowhere.toml"], "nowhere.toml: there is no such file"),
    ],
)
def test_what_makes_no_sense_is_refused(owner: Cli, options: list[str], said: str) -> None:
    done = owner("worker", "start", "--name", "never", *options)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mem = ", "not TOML"),
        ("memory = 1", "memory"),
        ("concurrency = 0", "concurrency: 0; allowed"),
        ('name = "No"', "name: 'No'"),
        ('gpus = "A100"', "gpus: 'A100' is not a list"),
        ("labels = { a = 1 }", "labels.a"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(owner: Cli, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "worker.toml"
    path.write_text(text)
    done = owner("worker", "start", "--config", str(path))
    assert done.code == 2
    assert said in done.err
    assert str(path) in done.err
