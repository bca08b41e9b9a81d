"""Every documented exit code, from the command itself, with one line on stderr that says what to do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from colonies import contexts
from tests.cli.conftest import COMMAND, Cli
from tests.harness import running_colony


def said(err: str) -> str:
    """The one line on stderr."""
    (line,) = err.splitlines()
    assert line.startswith("colonies: ")
    return line


def test_0_a_process_that_is_successful(cli: Cli) -> None:
    assert cli("process", "run", "true", "--runtimetype", "cli").code == 0


def test_1_a_command_that_failed(cli: Cli) -> None:
    id = cli.submit("true")
    cli.ok("process", "watch", id)
    assert cli("process", "cancel", id).code == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("process", "get"), "see `colonies process get --help`"),
        (("process", "frobnicate"), "see `colonies process --help`"),
        (("process", "ls", "--colour"), "see `colonies process ls --help`"),
        (("process", "ls", "--limit", "many"), "--limit"),
        (("process", "ls", "--limit", "0"), "--limit"),
        (("process", "ls", "--state", "sleeping"), "allowed: blocked, waiting"),
        (("process", "ls", "--limit", "ten"), "'--limit': allowed: a whole number"),
        (("cron", "add", "--name", "c", "--spec", "-", "--interval", "1d"), "allowed: a number of seconds"),
        (("process", "submit", "--spec", "-"), "empty; allowed: one object"),
        (("workflow", "submit", "--spec", "-"), "empty; allowed: a list, such as ["),
        (("process", "get", "a.*"), "is not allowed as a name"),
        (("process", "run", "ls", "-l", "--runtimetype", "cli"), "put -- before a command"),
        (("process", "run", "ls"), "--runtimetype"),
        (("process", "run", "ls", "--runtimetype", "cli", "--env", "novalue"), "allowed: NAME=VALUE"),
        (("process", "run", "ls", "--runtimetype", "cli", "--priority", "10"), "from -9 to 9"),
        (("process", "submit", "--spec", "-", "--timeout", "1"), "--wait"),
        (("worker", "start", "shop"), "allowed: MODULE:WORKER"),
        (("member", "add", "Ann", "--role", "user"), "1 to 32 of a-z"),
        (("member", "add", "carl", "--role", "boss"), "roles are owner, user"),
    ],
)
def test_2_a_command_that_makes_no_sense(cli: Cli, arguments: tuple[str, ...], hint: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert hint in said(done.err)


def test_2_no_command_at_all_shows_the_help_on_stderr(alone: Cli) -> None:
    for arguments in ((), ("process",)):
        done = alone(*arguments)
        assert (done.code, done.out) == (2, "")
        assert "Commands:" in done.err


def test_2_a_bad_log_level(cli: Cli) -> None:
    done = cli("process", "ls", COLONIES_LOG="loud")
    assert done.code == 2
    assert "allowed: debug, info, warning, error" in said(done.err)


def test_3_a_process_that_failed(cli: Cli) -> None:
    spec = '{"conditions": {"runtimetype": "cli"}, "func": "exit 9"}'
    done = cli("process", "submit", "--spec", "-", "--wait", stdin=spec)
    assert done.code == 3
    assert "exit code 9" in done.err
    assert cli("process", "watch", done.out.split()[1]).code == 3
    assert cli("process", "run", "exit 9", "--runtimetype", "cli").code == 3


def test_4_what_is_not_permitted(cli: Cli) -> None:
    id = cli.submit("nobody", runtimetype="nothing-serves-this")
    done = cli("process", "cancel", id, "--context", "bob")
    assert done.code == 4
    assert "only ann or an owner" in said(done.err)
    assert cli("member", "add", "carl", "--role", "user").code == 4


def test_5_what_is_not_there(cli: Cli, alone: Cli) -> None:
    for verb in ("get", "watch", "cancel", "logs", "history"):
        done = cli("process", verb, "01JZY8NOSUCHPROCESS0000000")
        assert done.code == 5
        assert "there is no process 01JZY8NOSUCHPROCESS0000000" in said(done.err)
    assert cli("process", "ls", "--context", "nosuch").code == 5
    nowhere = alone("process", "ls")
    assert nowhere.code == 5
    assert "start a colony of your own with `colonies dev`" in said(nowhere.err)


def test_6_no_broker_answers(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{taken.getsockname()[1]}"
        done = cli("process", "ls", "--url", url)
    assert done.code == 6
    assert "no broker answers at 127.0.0.1" in said(done.err)


async def test_6_no_projector_answers(tmp_path: Path) -> None:
    async with running_colony(tmp_path / "home", orchestrate=False) as colony:
        creds = await colony.credential("ann", "user")
        cli = Cli(tmp_path, {"COLONIES_URL": colony.url, "COLONIES_CREDS": str(creds)})
        for noun in ("process", "worker"):
            done = await asyncio.to_thread(cli, noun, "ls")
            assert done.code == 6
            assert "start one: `colonies dev` runs it" in said(done.err)


@pytest.mark.parametrize("arguments", [("ledger", "tail", "-f"), ("process", "watch", "ID")])
def test_130_interrupted(cli: Cli, arguments: tuple[str, ...]) -> None:
    id = cli.submit("nobody", runtimetype="nothing-serves-this")
    process = cli.start(*(id if word == "ID" else word for word in arguments))
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said(err) == "colonies: interrupted"


def test_130_a_run_that_is_interrupted_says_how_to_stop_the_process(cli: Cli) -> None:
    process = cli.start("process", "run", "nobody", "--runtimetype", "nothing-serves-this")
    assert process.stderr is not None
    id = process.stderr.readline().split()[2]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert f"stop it with `colonies process cancel {id}`" in err
    assert cli.get(id)["state"] == "waiting"


def test_130_an_interrupt_at_any_early_moment_leaves_no_traceback(cli: Cli) -> None:
    for delay_s in (0.05, 0.1, 0.2, 0.3):
        process = cli.start("ledger", "tail", "-f")
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        if process.returncode < 0 or (process.returncode == 1 and "colonies_cli" not in err):
            continue  # Python itself was not up yet
        assert process.returncode == 130
        assert "Traceback" not in err


def test_141_the_reader_left(cli: Cli) -> None:
    for command in ("ledger tail --from 1 -f", "ledger tail --from 1", "process ls --all", "--help"):
        done = subprocess.run(
            ["/bin/sh", "-c", f'{{ "{COMMAND}" {command}; echo $? >&2; }} | true'],
            env=cli.env(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stderr.split() == ["141"], (command, done.stderr)


@pytest.mark.parametrize(
    "what",
    [["process", "ls", "--all"], ["member", "ls", "-o", "json"], ["ledger", "tail", "--from", "1"]],
    ids=" ".join,
)
def test_1_a_full_disk_is_said_once_and_no_traceback(cli: Cli, what: list[str]) -> None:
    if not os.path.exists("/dev/full"):
        return
    with open("/dev/full", "w") as full:
        process = cli.start(*what, stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said(err) == "colonies: No space left on device"


def test_a_closed_stdout_is_no_traceback(cli: Cli) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{COMMAND}" process ls >&- 2>&1'],
        env=cli.env(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_cannot_show_a_character_gets_it_spelled_out(cli: Cli, encoding: str) -> None:
    text = "hé \N{EURO SIGN} \N{GRINNING FACE}"
    done = cli(
        "process", "run", "echo", text, "--runtimetype", "cli", "-o", "json", PYTHONIOENCODING=encoding
    )
    assert done.code == 0
    assert done.one["output"] == text
    assert cli("process", "get", done.one["id"], PYTHONIOENCODING=encoding).code == 0


def test_contexts_of_tests_are_their_own(cli: Cli) -> None:
    assert str(contexts.config_folder()) != cli.env()["COLONIES_CONFIG_DIR"]
