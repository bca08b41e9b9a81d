"""`colonies workflow`: processes that depend on each other, as a person submits, watches and mends them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

EXAMPLE = Path(__file__).parents[2] / "examples" / "workflow.yaml"
FIELDS = {
    *("id", "name", "state", "nodes", "done", "failed", "submitter", "submitted_at", "ended_at", "label"),
    *("parameters", "on_failure", "rerun_of", "cancelled_by", "reason", "signals", "processes"),
    "output",
}
NODE_FIELDS = {
    *("node", "process", "state", "func", "runtimetype", "parents", "wait_signal", "finally", "attempts"),
    *("worker", "started_at", "ended_at", "reused", "error"),
}
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def node(name: str, func: str, *parents: str, runtimetype: str = "cli", **fields: Any) -> dict[str, Any]:
    conditions = {"runtimetype": runtimetype, "dependencies": list(parents)}
    return {"name": name, "func": func, "conditions": conditions, **fields}


def wait(cli: Cli, nodes: list[Any], *arguments: str, code: int = 0, **fields: Any) -> Any:
    """Submit a workflow and wait for its end; the workflow object."""
    spec = json.dumps({"nodes": nodes, **fields})
    done = cli("workflow", "submit", "--spec", "-", "--wait", "-o", "json", *arguments, stdin=spec)
    assert done.code == code, done.err
    return done.one


def submit(cli: Cli, nodes: list[Any], **fields: Any) -> str:
    spec = json.dumps({"nodes": nodes, **fields})
    return cli.ok("workflow", "submit", "--spec", "-", "-o", "name", stdin=spec).out.strip()


def get(cli: Cli, id: str) -> Any:
    return cli.ok("workflow", "get", id, "-o", "json").one


def states(shown: Any) -> dict[str, str]:
    return {found["node"]: found["state"] for found in shown["processes"]}


def taken(shown: Any) -> set[str]:
    return {found["node"] for found in shown["processes"] if found["reused"]}


# --- submitting -----------------------------------------------------------------------------------------


def test_the_example_runs(cli: Cli) -> None:
    done = cli.ok("workflow", "submit", "--spec", str(EXAMPLE), "--wait")
    assert re.fullmatch(rf"workflow {ULID.pattern} submitted\n9 words\n", done.out)
    few = cli.ok(
        "workflow", "submit", "--spec", str(EXAMPLE), "--wait", "-o", "json", "--parameter", 'lines=["a b"]'
    )
    assert states(few.one) == {
        "count[0]": "successful",
        "total": "successful",
        "many": "skipped",
        "report": "successful",
        "goodbye": "successful",
    }
    assert few.one["parameters"] == {"lines": ["a b"]}


def test_submit_prints_the_id_only_with_o_name_and_the_workflow_with_json(cli: Cli) -> None:
    spec = json.dumps([node("a", "nobody", runtimetype="nothing-serves-this")])
    assert ULID.fullmatch(cli.ok("workflow", "submit", "--spec", "-", "-o", "name", stdin=spec).out.strip())
    shown = cli.ok("workflow", "submit", "--spec", "-", "-o", "json", stdin=spec).one
    assert set(shown) == FIELDS
    assert set(shown["processes"][0]) == NODE_FIELDS
    assert (shown["state"], shown["nodes"], shown["done"], shown["submitter"]) == ("running", 1, 0, "ann")
    assert cli.ok("workflow", "submit", "--spec", "-", stdin=spec).out.endswith(" submitted\n")


def test_the_same_key_gives_the_same_workflow_and_never_another(cli: Cli) -> None:
    key = f"key-{time.time_ns()}"
    spec = json.dumps([node("a", "true")])
    ids = {
        cli.ok("workflow", "submit", "--spec", "-", "--key", key, "-o", "name", stdin=spec).out for _ in "12"
    }
    assert len(ids) == 1
    other = cli("workflow", "submit", "--spec", "-", "--key", key, stdin=spec.replace("true", "false"))
    assert other.code == 2
    assert "take a new key" in other.err


def test_wait_says_how_far_it_is_and_exits_with_3_naming_the_node_that_failed(cli: Cli) -> None:
    spec = json.dumps([node("a", "echo no >&2; exit 3"), node("b", "true", "a"), node("c", "true")])
    done = cli("workflow", "submit", "--spec", "-", "--wait", stdin=spec)
    assert done.code == 3
    assert "running: 0 of 3 done, " in done.err
    assert "failed: 3 of 3 done, 1 failed, 1 cancelled" in done.err
    assert "node a failed: the command ended with exit code 3" in done.err
    assert "\x1b" not in done.err


def test_wait_with_a_timeout_says_that_the_workflow_goes_on(cli: Cli) -> None:
    spec = json.dumps([node("a", "nobody", runtimetype="nothing-serves-this")])
    done = cli("workflow", "submit", "--spec", "-", "--wait", "--timeout", "0.2", stdin=spec)
    assert done.code == 1
    assert "is not final after 0.2 s" in done.err
    id = done.out.split()[1]
    assert f"workflow {id} goes on" in done.err
    assert get(cli, id)["state"] == "running"


def test_ctrl_c_while_it_waits_leaves_the_workflow_running(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "w.json"
    spec.write_text(json.dumps([node("a", "nobody", runtimetype="nothing-serves-this")]))
    process = cli.start("workflow", "submit", "--spec", str(spec), "--wait")
    assert process.stdout is not None
    assert process.stderr is not None
    id = process.stdout.readline().split()[1]
    assert "running: 0 of 1 done" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"workflow {id} goes on; stop it with `colonies workflow cancel {id}`" in err
    assert get(cli, id)["state"] == "running"


def test_on_a_terminal_progress_is_one_line_that_is_redrawn(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "w.json"
    spec.write_text(json.dumps([node("a", "true"), node("b", "true", "a")]))
    ours, theirs = pty.openpty()
    process = cli.start("workflow", "submit", "--spec", str(spec), "--wait", stderr=theirs)
    os.close(theirs)
    process.communicate(timeout=60)
    seen = os.read(ours, 65_536).decode()
    os.close(ours)
    assert process.returncode == 0
    assert seen.startswith("\r\x1b[Kworkflow ")
    assert "successful: 2 of 2 done\r\n" in seen
    assert seen.count("\n") == 1


# --- refused before anybody is asked ----------------------------------------------------------------------

BAD = {
    "cycle": ([node("a", "f", "b"), node("b", "f", "a")], "it depends on itself by a cycle: "),
    "unknown": (
        [node("train", "f"), node("b", "f", "trian")],
        "node b: it depends on 'trian', and there is no",
    ),
    "twice": ([node("a", "f"), node("a", "f")], "node a: nodes[0] has this name as well"),
    "missing": ([{"func": "f", "conditions": {"runtimetype": "cli"}}], "nodes[0]: name: missing"),
    "too many": ([node("a", "f")] * 10_001, "10001 nodes; at most 10000 are allowed"),
    "parameter": ([node("a", "f", args=[{"$parameter": "x"}])], "'$parameter x': there is no such parameter"),
    "a process": ({"func": "f", "conditions": {"runtimetype": "cli"}}, "`colonies process submit --spec "),
    "nothing": ([], "nodes: there are none"),
    "text": ("words", "is no workflow"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_workflow_is_refused_naming_file_and_node(alone: Cli, tmp_path: Path, case: str) -> None:
    given, says = BAD[case]
    spec = tmp_path / "flow.json"
    spec.write_text(json.dumps(given))
    done = alone("workflow", "submit", "--spec", str(spec))
    assert done.code == 2, done.err
    assert str(spec) in done.err
    assert says in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--spec", "FILE", "--parameter", "rate"), "--parameter rate: allowed: NAME=JSON"),
        (("--spec", "FILE", "--parameter", "rate=x"), "--parameter rate: not JSON"),
        (("--spec", "FILE", "--parameter", "rat=1"), "there is no such parameter; did you mean rate?"),
        (("--spec", "FILE", "--parameter", "rate=1", "--parameter", "rate=2"), "it is given twice"),
        (("--spec", "FILE", "--timeout", "3"), "--timeout: it limits how long --wait waits"),
        (("--spec", "FILE", "--wait", "--timeout", "nan"), "timeout"),
        (("--spec", "nowhere.yaml"), "nowhere.yaml: there is no such file"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    alone: Cli, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    spec = tmp_path / "flow.yaml"
    spec.write_text("parameters: {rate: 1}\nnodes: [{name: a, func: f, conditions: {runtimetype: cli}}]\n")
    done = alone("workflow", "submit", *(str(spec) if word == "FILE" else word for word in arguments))
    assert done.code == 2, done.err
    assert says in done.err


def test_yaml_is_read_by_its_name_and_from_stdin_by_its_look(alone: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "bad.yml"
    spec.write_text("nodes:\n- name: a\n  name: b\n")
    done = alone("workflow", "submit", "--spec", str(spec))
    assert (done.code, f"{spec}: line 3: the key 'name' is given twice" in done.err) == (2, True)
    done = alone("workflow", "submit", "--spec", "-", stdin="nodes:\n- {name: a, func: f}\n")
    assert (done.code, "standard input: nodes[0] (a): conditions: missing" in done.err) == (2, True)
    done = alone("workflow", "submit", "--spec", "-", stdin="[1,")
    assert (done.code, "standard input: not JSON" in done.err) == (2, True)


def test_process_submit_takes_yaml_and_sends_lists_to_where_they_belong(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "hello.yaml"
    spec.write_text("func: |-\n  echo hello\nconditions: {runtimetype: cli}\n")
    assert cli.ok("process", "submit", "--spec", str(spec), "--wait").out.endswith("\nhello\n")
    spec.write_text("- {name: a}\n")
    done = cli("process", "submit", "--spec", str(spec))
    assert done.code == 2
    assert f"a list of specs is a workflow: `colonies workflow submit --spec {spec}`" in done.err
    done = cli("process", "submit", "--spec", "-", stdin='{"nodes": []}')
    assert (done.code, "`colonies workflow submit --spec -`" in done.err) == (2, True)


# --- looking ------------------------------------------------------------------------------------------------


def test_get_shows_a_tree_with_states_and_attempts(cli: Cli) -> None:
    nodes = [
        node("root", "true"),
        node("left", "true", "root"),
        node("right", "exit 4", "root", allow_failure=True),
        node("join", "true", "left", "right"),
        node("never", "true", "join", when="join == `1`"),
        node("last", "true", **{"finally": True}),
    ]
    id = wait(cli, nodes)["id"]
    card, _, tree = cli.ok("workflow", "get", id).out.partition("\n\n")
    assert re.search(r"^nodes +6 of 6 done, 1 failed, 1 skipped$", card, re.MULTILINE)
    rows = [re.split(r"  +", line.strip()) for line in tree.splitlines()]
    assert rows[0] == ["NODE", "STATE", "ATTEMPTS", "STARTED", "TOOK", "NOTE"]
    assert [(row[0], row[1], row[2]) for row in rows[1:]] == [
        ("root", "successful", "1"),
        ("├─ left", "successful", "1"),
        ("├─ right", "failed", "1"),
        ("└─ join", "successful", "1"),
        ("→ never", "skipped", "-"),
        ("last", "successful", "1"),
    ]
    assert "the command ended with exit code 4" in rows[3][-1]
    assert rows[4][-1] == "after left, right; on unix1"
    assert rows[6][-1] == "runs last; on unix1"


def test_many_alike_and_parts_are_one_line_unless_all_is_asked_for(cli: Cli) -> None:
    nodes = [
        node("list", "echo '[1, 2, 3, 4, 5, 6, 7, 8]' > $COLONIES_OUTPUT"),
        node("each", "true", map={"$output": "list"}, args=[{"$item": ""}]),
        *(node(f"f{n}", "true", "list") for n in range(20)),
        node("join", "true", *(f"f{n}" for n in range(20))),
        *(node(f"c{n}", "true", f"c{n - 1}" if n else "join") for n in range(8)),
    ]
    id = wait(cli, nodes)["id"]
    tree = cli.ok("workflow", "get", id).out.partition("\n\n")[2].splitlines()[1:]
    assert [re.split(r"  +", line.strip("│├└─→ "))[0] for line in tree] == [
        *("list", "each", "f0 … f19 (20 nodes)", "join", "c0 → … → c7 (8 nodes)")
    ]
    assert "8 parts: 8 successful" in tree[1]
    assert "after f0, f1, f2 and 17 more" in tree[3]
    everything = cli.ok("workflow", "get", id, "--all").out.partition("\n\n")[2].splitlines()[1:]
    assert len(everything) == 1 + 1 + 8 + 20 + 1 + 8
    plain = cli.ok("workflow", "get", id, PYTHONIOENCODING="ascii").out
    assert "|- f0 ... f19 (20 nodes)" in plain
    assert plain.isascii()


def test_get_with_json_has_its_fields_and_true_times(cli: Cli) -> None:
    shown = wait(
        cli, [node("a", "true"), node("b", "exit 1", "a", maxretries=1)], code=3, name="n", label="l"
    )
    assert set(shown) == FIELDS
    assert all(set(found) == NODE_FIELDS for found in shown["processes"])
    assert (shown["name"], shown["label"], shown["state"]) == ("n", "l", "failed")
    assert (shown["nodes"], shown["done"], shown["failed"]) == (2, 2, 1)
    first, second = shown["processes"]
    assert (second["parents"], second["attempts"], second["worker"]) == (["a"], 2, "unix1")
    assert (
        shown["submitted_at"]
        < first["started_at"]
        < first["ended_at"]
        < second["ended_at"]
        == shown["ended_at"]
    )
    assert "exit code 1" in second["error"]
    # The submitter knew the broker's time of its own event only to about a millisecond.
    assert {**get(cli, shown["id"]), "submitted_at": shown["submitted_at"]} == shown


def test_watch_shows_each_change_until_the_end(cli: Cli, tmp_path: Path) -> None:
    go = tmp_path / "go"
    id = submit(cli, [node("a", f"while [ ! -e '{go}' ]; do sleep 0.05; done"), node("b", "true", "a")])
    process = cli.start("workflow", "get", id, "--watch")
    assert process.stdout is not None
    assert " running: 0 of 2 done" in process.stdout.readline()
    go.touch()
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    assert lines[-1] == "b  successful"
    assert "a  successful" in lines
    objects = cli.ok("workflow", "get", id, "--watch", "-o", "json").lines
    assert objects[-1]["state"] == "successful"


def test_a_node_says_its_workflow_wherever_a_process_is_shown(cli: Cli) -> None:
    shown = wait(cli, [node("a", "echo hi"), node("b", "echo ho", "a")])
    process = shown["processes"][1]["process"]
    found = cli.get(process)
    assert (found["workflow"], found["node"], found["submitter"]) == (shown["id"], "b", "ann")
    assert re.search(r"^node +b$", cli.ok("process", "get", process).out, re.MULTILINE)
    events = cli.ok("process", "history", process, "-o", "json").lines
    assert [event["event"] for event in events] == [
        *("process.released", "process.assigned", "process.completed")
    ]
    assert cli.ok("process", "watch", process, "-o", "json").lines[-1]["state"] == "successful"
    assert cli.ok("process", "logs", process).out == "ho\n"


def test_a_skipped_process_is_final_everywhere(cli: Cli) -> None:
    shown = wait(cli, [node("a", "true"), node("b", "true", "a", when="`false`")])
    process = shown["processes"][1]["process"]
    assert cli.get(process)["state"] == "skipped"
    done = cli.ok("process", "watch", process)
    assert f"process {process} was skipped" in done.err
    cli.ok("process", "ls", "--state", "skipped")


def test_history_shows_the_events_of_the_workflow_and_its_nodes_in_order(cli: Cli) -> None:
    shown = wait(cli, [node("a", "exit 1", maxretries=1), node("b", "true", "a")], code=3)
    events = cli.ok("workflow", "history", shown["id"], "-o", "json").lines
    assert [event["sequence"] for event in events] == sorted(event["sequence"] for event in events)
    assert {event["verdict"] for event in events} == {"valid"}
    assert [(event["event"], event["node"], event["attempt"]) for event in events] == [
        ("workflow.submitted", None, None),
        ("process.released", "a", None),
        ("process.assigned", "a", 1),
        ("process.failed", "a", 1),
        ("process.requeued", "a", None),
        ("process.assigned", "a", 2),
        ("process.failed", "a", 2),
        ("process.cancelled", "b", None),
    ]
    lines = cli.ok("workflow", "history", shown["id"]).out.splitlines()
    assert lines[0].split() == ["SEQUENCE", "TIME", "EVENT", "NODE", "AUTHOR", "VERDICT"]
    assert "process.assigned (2)" in lines[6]
    assert "its parent a failed" in lines[8]


def test_what_is_not_there_is_not_found(cli: Cli) -> None:
    id = "01JZY800000000000000000000"
    for verb in (("get",), ("history",), ("cancel",), ("rerun",), ("signal", "go"), ("get", "--watch")):
        done = cli("workflow", verb[0], id, *verb[1:])
        assert done.code == 5, (verb, done.err)
        assert f"there is no workflow {id}" in done.err
        assert "goes on" not in done.err
    assert cli("workflow", "get", "a.*").code == 2
    assert cli("workflow", "ls", "--state", "skipped").code == 2


# --- acting -------------------------------------------------------------------------------------------------


def test_cancel_reaches_running_nodes_and_lets_the_last_ones_run(cli: Cli, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    id = submit(
        cli,
        [
            node("a", f"touch '{begun}'; sleep 600"),
            node("b", "true", "a"),
            node("z", "true", **{"finally": True}),
        ],
    )
    cli.until(begun.exists, "the command began")
    assert cli.ok("workflow", "cancel", id, "--reason", "enough").out == f"workflow {id} cancelled\n"
    done = cli("workflow", "get", id, "--watch", "-o", "json")
    assert done.code == 3
    assert f"workflow {id} was cancelled by ann: enough" in done.err
    shown = done.lines[-1]
    assert states(shown) == {"a": "cancelled", "b": "cancelled", "z": "successful"}
    assert (shown["cancelled_by"], shown["reason"]) == ("ann", "enough")
    again = cli("workflow", "cancel", id)
    assert (again.code, "cancelled already" in again.err) == (1, True)


def test_what_has_ended_is_neither_cancelled_nor_sent_signals(cli: Cli) -> None:
    shown = wait(cli, [node("a", "echo 5 > $COLONIES_OUTPUT"), node("z", "true", **{"finally": True})])
    assert shown["output"] == {"a": 5}
    for verb in (("cancel",), ("signal", "go")):
        done = cli("workflow", verb[0], shown["id"], *verb[1:])
        assert (done.code, done.out) == (1, "")
        assert "the workflow is successful already" in done.err
    after = get(cli, shown["id"])
    assert (after["output"], after["cancelled_by"], after["signals"]) == ({"a": 5}, None, [])


def test_another_user_may_not_cancel(cli: Cli) -> None:
    id = submit(cli, [node("a", "nobody", runtimetype="nothing-serves-this")])
    done = cli("workflow", "cancel", id, "--context", "bob")
    assert (done.code, "only ann or an owner may cancel the workflow" in done.err) == (4, True)


def test_a_signal_lets_the_node_go_on_that_waits_for_it(cli: Cli) -> None:
    id = submit(
        cli,
        [
            {"name": "ok", "wait_signal": "approve"},
            node("spend", "cat $COLONIES_INPUTS > $COLONIES_OUTPUT", "ok"),
        ],
        output="spend",
    )
    cli.until(lambda: states(get(cli, id))["ok"] == "waiting", "it waits for its signal")
    assert "waits for the signal approve" in cli.ok("workflow", "get", id).out
    sent = cli.ok("workflow", "signal", id, "approve", "--data", '{"budget": 5}', "--context", "bob")
    assert sent.out == f"workflow {id} was sent approve\n"
    shown = cli.ok("workflow", "get", id, "--watch", "-o", "json").lines[-1]
    assert shown["signals"][0]["data"] == {"budget": 5}
    spent = cli.get(shown["processes"][1]["process"])
    assert spent["output"] == {"ok": {"by": "bob", "data": {"budget": 5}}}
    for arguments, code in ((("go", "--data", "{"), 2), (("a b",), 2)):
        assert cli("workflow", "signal", id, *arguments).code == code


def test_a_signal_to_a_process_is_on_the_ledger_in_its_senders_name(cli: Cli) -> None:
    id = cli.submit("nobody", runtimetype="nothing-serves-this")
    sent = cli.ok("process", "signal", id, "approve", "--data", "[1]", "--context", "bob")
    assert sent.out == f"process {id} was sent approve\n"
    event = cli.ok("process", "history", id, "-o", "json").lines[-1]
    assert (event["event"], event["author"], event["detail"]) == (
        "process.signalled",
        "bob",
        "signal approve",
    )
    cli.ok("process", "cancel", id)
    done = cli("process", "signal", id, "approve")
    assert (done.code, "cancelled already" in done.err) == (1, True)


# --- again --------------------------------------------------------------------------------------------------


def test_a_rerun_takes_over_what_was_successful(cli: Cli, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    nodes = [
        node("a", "echo once"),
        node("b", f"test -e '{mended}'", "a"),
        node("c", "cat $COLONIES_INPUTS", "b"),
        node("d", "echo beside"),
    ]
    before = wait(cli, nodes, code=3)
    assert cli("workflow", "rerun", before["id"], "--wait").code == 3
    mended.touch()
    done = cli.ok("workflow", "rerun", before["id"], "--wait", "-o", "json")
    shown = done.one
    assert shown["id"] != before["id"]
    assert (shown["state"], shown["rerun_of"]) == ("successful", before["id"])
    assert taken(shown) == {"a", "d"}
    assert shown["processes"][0]["process"] == before["processes"][0]["process"]
    assert "taken over" in cli.ok("workflow", "get", shown["id"]).out
    history = cli.ok("workflow", "history", shown["id"])
    assert f"2 results were taken over; see `colonies workflow history {before['id']}`" in history.err
    assert "rerun of" in history.out
    third = cli.ok("workflow", "rerun", shown["id"], "--from", "c", "--wait", "-o", "json").one
    assert (third["state"], taken(third)) == ("successful", {"a", "b", "d"})
    assert {event["verdict"] for event in cli.ok("workflow", "history", third["id"], "-o", "json").lines} == {
        "valid"
    }


def test_a_rerun_with_another_parameter_runs_what_refers_to_it(cli: Cli) -> None:
    nodes = [
        node("a", "echo a"),
        node("b", "echo", args=[{"$parameter": "rate"}]),
        node("c", "echo", args=[{"$output": "a"}, {"$output": "b"}]),
    ]
    before = wait(cli, nodes, parameters={"rate": 1}, output="c")
    done = cli.ok("workflow", "rerun", before["id"], "--parameter", "rate=2", "--wait")
    assert done.out.splitlines() == [f"workflow {done.out.split()[1]} runs {before['id']} again", "a 2"]
    assert taken(get(cli, done.out.split()[1])) == {"a"}
    same = cli.ok("workflow", "rerun", before["id"], "--parameter", "rate=1", "--wait", "-o", "json").one
    assert taken(same) == {"a", "b", "c"}
    assert same["state"] == "successful"


def test_a_rerun_takes_over_parts_one_by_one(cli: Cli, tmp_path: Path) -> None:
    nodes = [
        node("list", 'echo \'["x", "y", "z"]\' > $COLONIES_OUTPUT'),
        node(
            "each",
            f"f() {{ test $1 != y || test -e '{tmp_path}/go'; echo $1; }}; f",
            map={"$output": "list"},
            args=[{"$item": ""}],
        ),
        node("join", "cat $COLONIES_INPUTS > $COLONIES_OUTPUT", "each"),
    ]
    nodes[1]["func"] = nodes[1]["func"].replace("; echo $1", " && echo $1")
    before = wait(cli, nodes, code=3)
    assert states(before)["each[1]"] == "failed"
    (tmp_path / "go").touch()
    shown = cli.ok("workflow", "rerun", before["id"], "--wait", "-o", "json").one
    assert taken(shown) == {"list", "each[0]", "each[2]"}
    assert cli.get(shown["processes"][-1]["process"])["output"] == {"each": ["x", "y", "z"]}


def test_a_rerun_that_makes_no_sense_is_refused(cli: Cli) -> None:
    running = submit(cli, [node("a", "nobody", runtimetype="nothing-serves-this")])
    done = cli("workflow", "rerun", running)
    assert (done.code, "is running; wait for its end or cancel it" in done.err) == (1, True)
    for arguments, says in (
        (("--from", "b"), "node 'b': the workflow has no such node"),
        (("--parameter", "x=1"), "there is no such parameter; declared: none"),
    ):
        done = cli("workflow", "rerun", running, *arguments)
        assert (done.code, says in done.err) == (2, True), done.err


def test_the_ledger_of_all_this_is_clean(cli: Cli) -> None:
    wait(cli, [node("a", "true")])
    assert cli.ok("ledger", "verify", "-o", "json").lines[-1]["findings"] == []
