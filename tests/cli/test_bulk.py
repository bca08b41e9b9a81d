"""Many at a time: `cancel` and `rerun` by ids and by filters, counted, confirmed, resumable."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND, ROOT, Cli


def waiting(cli: Cli, label: str, number: int) -> list[str]:
    """Processes that nobody takes."""
    conditions = {"runtimetype": "nobodys"}
    return [
        cli.submit("sleep", number, runtimetype="nobodys", label=label, conditions=conditions)
        for number in range(number)
    ]


def ended(cli: Cli, label: str, *args: str, func: str = "false") -> str:
    """A process that has ended."""
    id = cli.submit(func, *args, label=label)
    cli.until(lambda: cli.get(id)["state"] in ("failed", "successful"), "it ends")
    return id


def test_what_filters_find_is_counted_and_cancelled_only_when_it_is_confirmed(cli: Cli) -> None:
    ids = waiting(cli, "many", 3)
    shown = cli.ok("process", "cancel", "--label", "many", "--dry-run", "-o", "name")
    assert sorted(shown.out.split()) == sorted(ids)
    before = cli.last_sequence()
    refused = cli("process", "cancel", "--label", "many")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "colonies: 3 processes would be cancelled; say --yes\n"
    assert cli.last_sequence() == before
    done = cli.ok("process", "cancel", "--label", "many", "--reason", "wrong input", "--yes", "-o", "json")
    assert sorted(item["id"] for item in done.lines) == sorted(ids)
    assert {(item["outcome"], item["detail"], item["new"]) for item in done.lines} == {
        ("cancelled", "cancelled", None)
    }
    assert done.err == "colonies: 3 processes: 3 cancelled, 0 left as they are\n"
    for id in ids:
        (last,) = cli.ok("process", "history", id, "-o", "json").lines[-1:]
        assert (last["event"], last["verdict"]) == ("process.cancelled", "valid")
    again = cli.ok("process", "cancel", "--label", "many", "--yes")
    assert again.err == "colonies: no process is such\n"


def test_only_what_would_change_is_counted(cli: Cli) -> None:
    mine, over = waiting(cli, "counted", 2)
    cli.ok("process", "cancel", over)
    cli.until(lambda: cli.ok("process", "ls", "--label", "counted", "--state", "cancelled").out, "seen")
    both = ("--label", "counted", "--state", "waiting,cancelled")
    shown = cli.ok("process", "cancel", *both, "--dry-run", "-o", "name")
    assert shown.out.split() == [mine]
    assert shown.err == "colonies: 1 process left out: cancelled already\n"
    assert cli("process", "cancel", *both).err.endswith("1 process would be cancelled; say --yes\n")
    shown = cli.ok("process", "rerun", *both, "--dry-run")
    assert shown.err == (
        "colonies: 1 process left out: waiting still\ncolonies: 1 process would be submitted\n"
    )
    assert over in shown.out
    assert mine not in shown.out
    done = cli.ok("process", "cancel", "--label", "counted", "--state", "cancelled", "--yes")
    assert (done.out, done.err.splitlines()[-1]) == ("", "colonies: no process is such")
    assert cli.ok("process", "cancel", *both, "--yes").out == "1 process: 1 cancelled, 0 left as they are\n"


def test_to_what_must_be_said_and_said_once(cli: Cli) -> None:
    before = cli.last_sequence()
    for words, said in (
        (("cancel",), "cancel what? allowed: ids, filters such as --state and --since, or --all"),
        (("cancel", "x" * 26, "--label", "a"), "cancel: ids or filters; allowed: one of them, not both"),
        (("cancel", "--all", "--label", "a"), "--all: it stands for no filter at all; leave out it"),
        (("cancel", "x" * 26, "--dry-run"), "--dry-run: it shows what filters find"),
        (("cancel", "--state", "lost", "--yes"), "--state: 'lost' is no state; allowed: blocked"),
        (("rerun",), "rerun what?"),
        (("rerun", "--label", "a", "--key", ""), "--key: it has 0 characters; 1 to 200 are allowed"),
    ):
        done = cli("process", *words)
        assert (done.code, done.out) == (2, ""), words
        assert done.err.startswith(f"colonies: {said}"), done.err
    done = cli("workflow", "rerun", "--name", "a", "--from", "b", "--yes")
    assert (done.code, done.err[:38]) == (2, "colonies: --from, --parameter, --wait:")
    assert cli.last_sequence() == before


def test_of_several_ids_what_has_ended_is_left_and_what_is_anothers_is_refused(cli: Cli) -> None:
    bob = Cli(cli.folder, {"COLONIES_CONTEXT": "bob"})
    mine, over = waiting(cli, "mixed", 2)
    cli.ok("process", "cancel", over)
    (others,) = waiting(bob, "mixed", 1)
    nobody = "01JZY8QK3V5T6W7X8Y9Z0A1B2C"
    done = cli("process", "cancel", mine, over, others, nobody, mine, "-o", "json")
    assert done.code == 1
    found = {item["id"]: (item["outcome"], item["detail"]) for item in done.lines}
    assert found[mine] == ("cancelled", "cancelled")
    assert found[over] == ("skipped", "cancelled")
    assert found[others] == (
        "refused",
        f"process {others}: only bob or an owner may cancel the process",
    )
    assert found[nobody] == ("failed", f"there is no process {nobody} in the colony test")
    assert len(done.lines) == 4
    assert "4 processes: 1 cancelled, 1 left as they are, 1 refused, 1 failed\n" in done.err
    assert bob.ok("process", "cancel", others).out == f"process {others} cancelled\n"


def test_a_process_that_has_ended_runs_again_as_a_new_one_of_mine(cli: Cli) -> None:
    id = ended(cli, "again", "hello", func="echo")
    bob = Cli(cli.folder, {"COLONIES_CONTEXT": "bob"})
    done = bob.ok("process", "rerun", id)
    old, arrow, new = done.out.split()
    assert (old, arrow) == (id, "->")
    shown, before = cli.get(new), cli.get(id)
    assert (shown["submitter"], shown["args"], shown["label"]) == ("bob", ["hello"], "again")
    assert before["submitter"] == "ann"
    assert bob.ok("process", "rerun", id, "-o", "name").out.strip() not in (id, new)
    keyed = [cli.ok("process", "rerun", id, "--key", "k", "-o", "json").one for _ in range(2)]
    assert (keyed[0]["outcome"], keyed[0]["detail"]) == ("submitted", "submitted")
    assert keyed[1] == {**keyed[0], "outcome": "existing", "detail": "submitted before with the key k"}
    assert keyed[0]["id"] == id
    said = cli.ok("process", "rerun", id, "--key", "k").out
    assert said == f"{id} -> {keyed[0]['new']} (submitted before with the key k)\n"
    assert cli.ok("process", "rerun", id, "--key", "k", "-o", "name").out == f"{keyed[0]['new']}\n"
    cli.until(lambda: cli.get(keyed[0]["new"])["state"] == "successful", "it runs again")


def test_what_is_not_over_or_is_a_node_does_not_run_again(cli: Cli, tmp_path: Path) -> None:
    (open_,) = waiting(cli, "open", 1)
    done = cli("process", "rerun", open_)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"colonies: process {open_} is waiting; wait for its end or cancel it, then run it again\n"
    )
    spec = [{"name": "a", "func": "false", "conditions": {"runtimetype": "cli"}, "label": "noded"}]
    id = cli("workflow", "submit", "--spec", "-", "--wait", "-o", "name", stdin=json.dumps(spec)).out.strip()
    (node,) = cli.ok("process", "ls", "--label", "noded", "-o", "name").out.split()
    done = cli("process", "rerun", node)
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith(f"`colonies workflow rerun {id} --from a`\n")
    done = cli("process", "rerun", node, open_, "-o", "json")
    assert done.code == 1
    assert {item["id"]: item["outcome"] for item in done.lines} == {node: "refused", open_: "skipped"}
    left = cli.ok("process", "rerun", "--label", "noded", "--yes")
    assert "1 process left out: nodes run again with their workflow" in left.err
    assert left.err.endswith("colonies: no process is such\n")
    cli.ok("process", "cancel", open_)


def test_a_rerun_that_was_cut_off_is_gone_on_with_by_its_key(cli: Cli) -> None:
    ids = [ended(cli, "cut") for _ in range(3)]
    cli.ok("process", "rerun", ids[0], "--key", "monday")
    words = ("process", "rerun", "--label", "cut", "--key", "monday", "--yes", "-o", "json")
    first = cli.ok(*words).lines
    made = {item["new"] for item in first if item["new"]}
    assert len(made) == 3
    for id in made:
        cli.until(lambda id=id: cli.get(id)["state"] == "failed", "it fails again")
    again = {item["id"]: item for item in cli.ok(*words).lines}
    assert set(again) == set(ids) | made
    assert {again[id]["new"] for id in ids} == made
    assert {again[id]["outcome"] for id in ids} == {"existing"}
    assert {item["outcome"] for item in first if item["id"] in ids[1:]} == {"submitted"}
    said = cli.ok(*words[:-2]).out.splitlines()
    assert {line for line in said if "(submitted before with the key monday)" in line} == set(said[:-1])
    assert said[-1] == "6 processes: 0 submitted, 3 submitted before with this key, 3 left as they are"
    assert {again[id]["outcome"] for id in made} == {"skipped"}
    assert len(cli.ok("process", "ls", "--label", "cut", "-o", "name").out.split()) == 6


def test_workflows_are_cancelled_and_run_again_by_filters_as_well(cli: Cli) -> None:
    node = {"name": "a", "func": "sleep", "conditions": {"runtimetype": "nobodys"}}
    text = json.dumps({"name": "manyflows", "nodes": [node]})
    ids = [
        cli.ok("workflow", "submit", "--spec", "-", "-o", "name", stdin=text).out.strip() for _ in range(2)
    ]
    done = cli.ok("workflow", "cancel", "--name", "manyflows", "--yes")
    assert done.out == "2 workflows: 2 cancelled, 0 left as they are\n"
    for id in ids:
        cli.until(lambda id=id: cli.ok("workflow", "get", id, "-o", "json").one["ended_at"], "it has ended")
    shown = cli.ok("workflow", "cancel", "--name", "manyflows", "--state", "cancelled", "--dry-run")
    assert shown.err == (
        "colonies: 2 workflows left out: cancelled already\ncolonies: 0 workflows would be cancelled\n"
    )
    again = cli.ok("workflow", "rerun", *ids, "-o", "name").out.split()
    assert len(set(again) - set(ids)) == 2
    assert cli.ok("workflow", "cancel", *again, *ids, "-o", "json").err == (
        "colonies: 4 workflows: 2 cancelled, 2 left as they are\n"
    )


def test_what_is_interrupted_counts_what_is_done_and_can_be_gone_on_with(cli: Cli) -> None:
    number = 400
    spec = {"func": "sleep", "label": "cutoff", "conditions": {"runtimetype": "nobodys"}}
    program = (
        "import colonies, sys\n"
        f"with colonies.connect() as colony: colony.submit_many([{spec!r}] * {number})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=cli.env(), cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0
    words = ("process", "cancel", "--label", "cutoff", "--yes", "-o", "json")
    with cli.start(*words) as cutting:
        assert cutting.stdout is not None
        assert cutting.stderr is not None
        first = cutting.stdout.readline()
        cutting.send_signal(signal.SIGINT)
        told = [json.loads(line) for line in (first + cutting.stdout.read()).splitlines()]
        err = cutting.stderr.read()
    assert cutting.returncode == 130, err
    assert 0 < len(told) < number
    assert {item["outcome"] for item in told} == {"cancelled"}
    rest = number - len(told)
    summary = f"{number} processes: {len(told)} cancelled, 0 left as they are, {rest} not tried, or not known"
    assert summary in err
    for item in told[:: max(1, len(told) // 5)]:
        assert cli.get(item["id"])["state"] == "cancelled"
    cli.ok(*words)
    assert cli.ok("process", "ls", "--label", "cutoff", "--state", "waiting", "-o", "name").out == ""


def on_terminal(cli: Cli, answer: bytes, *words: str, seconds: float = 60.0) -> tuple[int, str]:
    """The command on a terminal, answered once it asks; its exit code and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cli.folder)
        os.execve(COMMAND, [COMMAND, *words], cli.env())
    shown, answered, deadline = b"", False, time.monotonic() + seconds
    with suppress(OSError):
        while chunk := os.read(terminal, 4_096):
            shown += chunk
            assert time.monotonic() < deadline, shown
            if not answered and b"[y/N]" in shown:
                answered = True
                if answer == b"\x03":
                    os.kill(pid, signal.SIGINT)
                else:
                    os.write(terminal, answer)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode(errors="replace")


@pytest.mark.parametrize(("answer", "code", "state"), [(b"n\n", 1, "waiting"), (b"\x03", 130, "waiting")])
def test_on_a_terminal_it_asks_and_no_is_no(cli: Cli, answer: bytes, code: int, state: str) -> None:
    (id,) = waiting(cli, f"asked{code}", 1)
    found, shown = on_terminal(cli, answer, "process", "cancel", "--label", f"asked{code}")
    assert found == code, shown
    assert "1 process; cancel it? [y/N]" in shown
    assert cli.get(id)["state"] == state
    found, shown = on_terminal(cli, b"y\n", "process", "cancel", "--label", f"asked{code}")
    assert found == 0, shown
    assert "cancel: 1 of 1" in shown
    assert "1 process: 1 cancelled, 0 left as they are" in shown
    assert cli.get(id)["state"] == "cancelled"


def test_ls_and_cancel_have_the_same_filters(cli: Cli) -> None:
    from colonies_cli.filters import ProcessFilters, WorkflowFilters

    from tests.cli.test_help import commands

    found: dict[str, Any] = commands()
    for noun, filters in (("process", ProcessFilters), ("workflow", WorkflowFilters)):
        names = set(filters.__dataclass_fields__)
        assert len(names) > 5
        for verb in ("ls", "cancel", "rerun"):
            assert names <= {parameter.name for parameter in found[f"colonies {noun} {verb}"].params}
