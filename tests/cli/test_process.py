"""`colonies process`: what a newcomer does all day."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

from tests.cli.conftest import Cli

FIELDS = {
    *("id", "state", "func", "name", "args", "runtimetype", "label", "workflow", "node"),
    *("priority", "submitter", "worker", "attempts"),
    *("submitted_at", "started_at", "ended_at", "output", "errors"),
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def test_run_prints_what_the_command_prints(cli: Cli) -> None:
    done = cli("process", "run", "echo", "hello", "--runtimetype", "cli")
    assert (done.code, done.out) == (0, "hello\n")


def test_run_takes_its_options_before_between_and_after_the_command(cli: Cli) -> None:
    for arguments in (
        ("--runtimetype", "cli", "echo", "hello"),
        ("echo", "--runtimetype", "cli", "hello"),
        ("--runtimetype", "cli", "--", "echo", "hello"),
    ):
        assert cli.ok("process", "run", *arguments).out == "hello\n"


def test_run_never_lets_an_argument_become_syntax(cli: Cli) -> None:
    done = cli.ok("process", "run", "printf", "%s|", "a b", "$HOME; echo x", "--runtimetype", "cli")
    assert done.out == "a b|$HOME; echo x|"


def test_run_takes_one_word_as_a_line_of_shell(cli: Cli) -> None:
    assert cli.ok("process", "run", "echo a | tr a b", "--runtimetype", "cli").out == "b\n"


def test_run_keeps_stdout_and_stderr_apart(cli: Cli) -> None:
    done = cli.ok("process", "run", "echo out; echo err >&2", "--runtimetype", "cli")
    assert done.out == "out\n"
    assert "err\n" in done.err


def test_run_prints_the_output_of_a_function_that_writes_nothing(cli: Cli) -> None:
    assert cli.ok("process", "run", "double", "21", "--runtimetype", "python").out == "42\n"


def test_run_prints_the_output_beside_what_a_function_logs(cli: Cli) -> None:
    done = cli.ok("process", "run", "chat", "2", "--runtimetype", "python")
    assert done.out == "said\n"
    assert "line 0\nline 1\n" in done.err


def test_run_prints_the_output_last_of_a_function_that_prints(cli: Cli) -> None:
    done = cli.ok("process", "run", "loud", "2", "--runtimetype", "python")
    assert done.out == "printed 0\nprinted 1\n[0,1]\n"
    done = cli.ok("process", "run", "loud", "2", "--runtimetype", "python", "-o", "json")
    assert done.one["output"] == [0, 1]
    assert "printed 0\nprinted 1\n" in done.err


def test_run_prints_the_output_of_a_command_that_is_not_what_it_wrote(cli: Cli) -> None:
    line = """printf said; echo '{"a": 1}' > "$COLONIES_OUTPUT" """
    assert cli.ok("process", "run", line, "--runtimetype", "cli").out == 'said\n{"a":1}\n'
    line = "head -c 1200000 /dev/zero | tr '\\0' x"
    done = cli.ok("process", "run", line, "--runtimetype", "cli")
    assert done.out == "x" * 1_200_000  # the output is cut, and not shown again


def test_run_streams_the_log_while_the_command_runs(cli: Cli, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = f"echo first; while [ ! -e '{go}' ]; do sleep 0.05; done; echo second"
    process = cli.start("process", "run", command, "--runtimetype", "cli")
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    go.touch()
    assert process.communicate(timeout=30)[0] == "second\n"
    assert process.returncode == 0


def test_run_gives_the_process_its_flags(cli: Cli) -> None:
    done = cli.ok(
        *("process", "run", "echo $COLOUR", "--runtimetype", "cli", "--env", "COLOUR=red=ish", "-o", "json"),
        *(
            "--label",
            "nightly",
            "--priority",
            "3",
            "--maxexectime",
            "30",
            "--maxretries",
            "2",
            "--name",
            "n1",
        ),
    )
    shown = done.one
    assert shown["output"] == "red=ish"
    assert (shown["label"], shown["priority"], shown["state"]) == ("nightly", 3, "successful")


def test_run_with_json_prints_the_final_process_and_nothing_else_on_stdout(cli: Cli) -> None:
    done = cli("process", "run", "echo out; exit 4", "--runtimetype", "cli", "-o", "json")
    assert done.code == 3
    assert done.one["state"] == "failed"
    assert "out\n" in done.err


def test_a_process_has_exactly_its_fields_in_json(cli: Cli) -> None:
    shown = cli.ok("process", "get", cli.submit("echo hi", label="x"), "-o", "json").one
    assert set(shown) == FIELDS
    id = cli.submit("exit 7")
    cli("process", "watch", id)
    shown = cli.get(id)
    assert set(shown) == FIELDS
    (attempt,) = shown["attempts"]
    assert set(attempt) == {"n", "worker", "instance", "started_at", "ended_at", "outcome", "error", "code"}
    assert (attempt["n"], attempt["worker"], attempt["outcome"]) == (1, "unix1", "failed")
    assert (shown["state"], shown["submitter"], shown["worker"]) == ("failed", "ann", "unix1")
    assert shown["errors"] == [attempt["error"]]
    for name in ("submitted_at", "started_at", "ended_at"):
        assert TIME.fullmatch(shown[name])


def test_submit_prints_the_id_only_with_o_name(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "sayhello.json"
    spec.write_text('{"conditions": {"runtimetype": "cli"}, "func": "echo sayhello"}')
    id = cli.ok("process", "submit", "--spec", str(spec), "-o", "name").out.removesuffix("\n")
    assert ULID.fullmatch(id)
    done = cli.ok("process", "submit", "--spec", str(spec))
    assert re.fullmatch(rf"process {ULID.pattern} submitted\n", done.out)
    assert cli.ok("process", "submit", "--spec", str(spec), "-o", "json").one.keys() == FIELDS


def test_submit_reads_the_spec_from_stdin(cli: Cli) -> None:
    spec = '{"conditions": {"runtimetype": "cli"}, "func": "echo", "args": ["piped"]}'
    done = cli.ok("process", "submit", "--spec", "-", "--wait", "-o", "json", stdin=spec)
    assert done.one["output"] == "piped"


def test_submit_with_wait_prints_the_output(cli: Cli) -> None:
    spec = '{"conditions": {"runtimetype": "cli"}, "func": "echo done"}'
    done = cli.ok("process", "submit", "--spec", "-", "--wait", stdin=spec)
    assert done.out.splitlines()[1:] == ["done"]


def test_submit_with_a_timeout_says_that_the_process_goes_on(cli: Cli) -> None:
    spec = json.dumps({"func": "nobody", "conditions": {"runtimetype": "nothing-serves-this"}})
    done = cli("process", "submit", "--spec", "-", "--wait", "--timeout", "0.1", stdin=spec)
    assert done.code == 1
    assert "is not final after 0.1 s and goes on" in done.err


def test_the_same_key_gives_the_same_process_and_never_another_spec(cli: Cli) -> None:
    key = f"key-{time.time_ns()}"
    spec = '{"conditions": {"runtimetype": "cli"}, "func": "echo once"}'
    ids = {
        cli.ok("process", "submit", "--spec", "-", "--key", key, "-o", "name", stdin=spec).out
        for _ in range(2)
    }
    assert len(ids) == 1
    other = cli("process", "submit", "--spec", "-", "--key", key, stdin=spec.replace("once", "twice"))
    assert other.code == 2
    assert "take a new key" in other.err


def test_ls_lists_the_newest_first_and_filters(cli: Cli) -> None:
    first = cli.submit("nobody", runtimetype="ls-only")
    second = cli.submit("somebody", runtimetype="ls-only")
    listed = cli.ok("process", "ls", "--runtimetype", "ls-only", "-o", "json").lines
    assert [item["id"] for item in listed] == [second, first]
    assert all(set(item) == FIELDS for item in listed)

    def ids(*filters: str) -> list[str]:
        return cli.ok("process", "ls", "--runtimetype", "ls-only", "-o", "name", *filters).out.split()

    assert ids("--func", "nobody") == [first]
    assert ids("--limit", "1") == [second]
    assert ids("--state", "waiting") == [second, first]
    assert ids("--state", "running") == []


def test_ls_shows_what_was_submitted_a_moment_ago(cli: Cli) -> None:
    for _ in range(3):
        id = cli.submit("nobody", runtimetype="ls-now")
        assert (
            cli.ok("process", "ls", "--runtimetype", "ls-now", "--limit", "1", "-o", "name").out == f"{id}\n"
        )


def test_a_table_has_at_most_six_columns_and_cuts_nothing_when_piped(cli: Cli) -> None:
    func = "true " + "x" * 200
    id = cli.submit(func, runtimetype="ls-wide")
    header, row = cli.ok("process", "ls", "--runtimetype", "ls-wide").out.splitlines()
    assert len(header.split()) == 6
    assert id in row
    assert func in row
    assert not set(header + row) & set("│┃|+\x1b")


def test_a_table_spells_out_control_characters(cli: Cli) -> None:
    id = cli.submit("printf", "\x1b[2Jgone", runtimetype="nothing-serves-this")
    assert "\x1b" not in cli.ok("process", "get", id).out


def test_get_resolves_large_arguments_and_outputs(cli: Cli) -> None:
    text = "abcdefgh" * 25_000
    id = cli.submit("repeat", text, 2, runtimetype="python")
    cli.ok("process", "watch", id)
    shown = cli.get(id)
    assert shown["args"] == [text, 2]
    assert shown["output"] == text * 2


def test_watch_shows_each_change_until_the_end(cli: Cli) -> None:
    id = cli.submit("sleep 0.3")
    states = [process["state"] for process in cli.ok("process", "watch", id, "-o", "json").lines]
    assert states == ["waiting", "running", "successful"]
    lines = cli.ok("process", "get", id, "--watch").out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == [
        "process.queued",
        "process.assigned",
        "process.completed",
    ]


def test_cancel_ends_a_waiting_process(cli: Cli) -> None:
    id = cli.submit("nobody", runtimetype="nothing-serves-this")
    done = cli.ok("process", "cancel", id, "--reason", "not needed")
    assert done.out == f"process {id} cancelled\n"
    assert cli.get(id)["state"] == "cancelled"
    watched = cli("process", "watch", id)
    assert watched.code == 3
    assert "cancelled by ann: not needed" in watched.err


def test_cancel_stops_a_running_process(cli: Cli, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    started = time.monotonic()
    process = cli.start("process", "run", f"touch '{begun}'; sleep 60", "--runtimetype", "cli")
    assert process.stderr is not None
    id = process.stderr.readline().split()[2]
    cli.until(begun.exists, "the command began")
    cli.ok("process", "cancel", id)
    process.communicate(timeout=30)
    assert process.returncode == 3
    assert time.monotonic() - started < 30
    assert cli.get(id)["attempts"][0]["outcome"] == "cancelled"
    cli.until(lambda: "log.stopped" in cli.ok("process", "history", id).out, "the worker said it stopped")


def test_cancelling_a_final_process_is_a_conflict(cli: Cli) -> None:
    id = cli.submit("true")
    cli.ok("process", "watch", id)
    done = cli("process", "cancel", id)
    assert done.code == 1
    assert "successful already" in done.err


def test_logs_prints_what_was_written(cli: Cli) -> None:
    id = cli.submit("echo one; sleep 0.3; echo two")
    cli.ok("process", "watch", id)
    assert cli.ok("process", "logs", id).out == "one\ntwo\n"
    entries = cli.ok("process", "logs", id, "-o", "json").lines
    assert "".join(entry["text"] for entry in entries) == "one\ntwo\n"
    assert {entry["stream"] for entry in entries} == {"stdout"}
    assert {entry["worker"] for entry in entries} == {"unix1"}


def test_logs_f_follows_to_the_end(cli: Cli, tmp_path: Path) -> None:
    go = tmp_path / "go"
    id = cli.submit(f"echo begun; while [ ! -e '{go}' ]; do sleep 0.05; done; seq 1 500")
    follower = cli.start("process", "logs", id, "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "begun\n"
    threading.Timer(0.2, go.touch).start()
    assert follower.communicate(timeout=30)[0] == "".join(f"{n}\n" for n in range(1, 501))
    assert follower.returncode == 0


def test_history_shows_every_event_with_its_verdict(cli: Cli) -> None:
    id = cli.submit("exit 1", maxretries=1)
    cli("process", "watch", id)
    events: list[Any] = cli.ok("process", "history", id, "-o", "json").lines
    assert [event["event"] for event in events] == [
        "process.queued",
        "process.assigned",
        "process.failed",
        "process.requeued",
        "process.assigned",
        "process.failed",
    ]
    assert [event["attempt"] for event in events] == [None, 1, 1, None, 2, 2]
    assert {event["verdict"] for event in events} == {"valid"}
    assert [event["author"] for event in events] == [
        *("ann", "unix1", "unix1", "orchestrator", "unix1", "unix1")
    ]
    assert [event["sequence"] for event in events] == sorted(event["sequence"] for event in events)
    assert all(TIME.fullmatch(event["time"]) for event in events)
    assert len(cli.ok("process", "history", id).out.splitlines()) == 7
