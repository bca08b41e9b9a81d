"""`colonies worker`: a worker that enrols by itself, runs what people submit, and leaves in good order."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.conftest import Cli

SHOP = """\
import colonies

worker = colonies.Worker("shop", concurrency=2)
number = 7


@worker.function
def add(a: int, b: int) -> int:
    return a + b
"""


@contextmanager
def running(cli: Cli, *arguments: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A worker that takes offers; killed at the end if it still runs."""
    process = cli.start("worker", "start", *arguments, cwd=cwd)
    try:
        assert process.stderr is not None
        said = ""
        while "worker ready" not in said:
            line = process.stderr.readline()
            assert line, f"it ended: {said}"
            said += line
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_worker_enrols_its_name_runs_commands_and_stops_with_0(owner: Cli, cli: Cli) -> None:
    with running(owner, "--name", "testworker", "--runtimetype", "here") as worker:
        assert cli.ok("process", "run", "echo", "hello", "--runtimetype", "here").out == "hello\n"
        alive = {
            item["name"]: item for item in cli.ok("worker", "ls", "--state", "alive", "-o", "json").lines
        }
        assert alive["testworker"]["runtimetype"] == "here"
        worker.send_signal(signal.SIGINT)
        out, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert out == "hello\n"  # what its processes print is on the worker's own terminal too
    (member,) = [m for m in cli.ok("member", "ls", "-o", "json").lines if m["name"] == "testworker"]
    assert (member["role"], member["state"]) == ("worker", "active")
    states = [i["state"] for i in cli.ok("worker", "ls", "--runtimetype", "here", "-o", "json").lines]
    assert states == ["stopped"]


def test_a_worker_that_is_enrolled_starts_again_under_its_name(owner: Cli, cli: Cli) -> None:
    for _ in range(2):
        with running(owner, "--name", "again", "--runtimetype", "again") as worker:
            worker.send_signal(signal.SIGTERM)
            worker.communicate(timeout=30)
        assert worker.returncode == 0
    assert cli.ok("worker", "ls", "--runtimetype", "again", "-o", "name").out == "again\nagain\n"


def test_a_module_in_the_current_folder_is_a_worker(owner: Cli, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with running(owner, "shop:worker", "--name", "shop1", "--concurrency", "3", cwd=tmp_path):
        assert cli.ok("process", "run", "add", "40", "2", "--runtimetype", "shop").out == "42\n"
        (item,) = cli.ok("worker", "ls", "--runtimetype", "shop", "-o", "json").lines
        assert (item["name"], item["concurrency"]) == ("shop1", 3)


def test_a_module_that_cannot_be_used_is_refused_by_its_line(owner: Cli, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "broken.py").write_text("x = 1\nraise KeyError('nowhere')\n")
    (tmp_path / "lacking.py").write_text("import no_such_package\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    for place, says in (
        ("shop:number", "number is no colonies.Worker in shop; it has: worker"),
        ("shop:nothing", "it has: worker"),
        ("nosuch:worker", f"there is no module nosuch in {tmp_path}"),
        ("broken:worker", "broken.py:2: KeyError: 'nowhere'"),
        ("lacking:worker", "lacking imports no_such_package, which is not installed"),
        ("wrong:worker", "SyntaxError"),
    ):
        done = owner("worker", "start", place, cwd=tmp_path)
        assert done.code == 2, done.err
        assert says in done.err
    assert owner("worker", "start", "shop:worker", "--runtimetype", "cli", cwd=tmp_path).code == 2


def test_a_credential_of_a_worker_is_used_as_it_is(owner: Cli, cli: Cli, tmp_path: Path) -> None:
    creds = tmp_path / "given.creds"
    owner.ok("member", "add", "given", "--role", "worker", "--out", str(creds))
    with running(cli, "--creds", str(creds), "--runtimetype", "given"):
        assert cli.ok("process", "run", "echo ok", "--runtimetype", "given").out == "ok\n"
    done = cli("worker", "start", "--creds", str(creds), "--name", "other")
    assert done.code == 2
    assert "the credential is that of given" in done.err


def test_who_holds_no_keys_is_told_what_to_ask_for(cli: Cli) -> None:
    done = cli("worker", "start", "--name", "mine")
    assert done.code == 4
    assert "`colonies member request --name mine --role worker`" in done.err
    assert "COLONIES_CREDS" in done.err


def test_a_name_that_is_another_members_is_not_taken(owner: Cli) -> None:
    done = owner("worker", "start", "--name", "ann")
    assert done.code == 1
    assert "take another name" in done.err
