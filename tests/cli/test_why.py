"""`process why` and `workflow why`, as they are printed."""

from __future__ import annotations

import json

from tests.cli.conftest import Cli


def test_why_prints_a_table_objects_or_codes(cli: Cli) -> None:
    id = cli.submit("false", runtimetype="attic", maxwaittime=3_600)
    told = cli.ok("process", "why", id, "-o", "json").lines
    assert [reason["reason"] for reason in told] == ["unserved", "expires"]
    for reason in told:
        assert set(reason) == {*("process", "node", "reason", "text", "sequences", "since", "until", "data")}
        assert reason["sequences"]
    alive = told[0]["data"]["alive"]
    assert alive >= 2  # the colony's own, and what other tests left behind a moment ago
    assert f"needs runtimetype=attic; 0 of {alive} workers have it; nearest: " in told[0]["text"]
    assert told[1]["until"] > told[1]["since"]
    table = cli.ok("process", "why", id).out.splitlines()
    assert table[0].split() == ["REASON", "SEQUENCES", "WHY"]
    assert table[1].endswith(told[0]["text"])
    assert cli.ok("process", "why", id, "-o", "name").out == "unserved\nexpires\n"
    cli.ok("process", "cancel", id, "--reason", "no attic")
    assert "cancelled by ann at " in cli.ok("process", "why", id).out
    then = cli.ok("process", "why", id, "--at", str(told[0]["sequences"][-1]), "-o", "name")
    assert then.out == "unserved\nexpires\n"
    nobody = cli("process", "why", "01JZY8QK3V5T6W7X8Y9Z0A1B2C")
    assert (nobody.code, nobody.out) == (5, "")


def test_why_of_a_workflow_names_the_nodes_that_failed(cli: Cli) -> None:
    conditions = {"runtimetype": "cli"}
    spec = [
        {"name": "a", "func": "echo broken >&2; exit 3", "conditions": conditions},
        {"name": "b", "func": "true", "conditions": conditions, "dependencies": ["a"]},
    ]
    done = cli("workflow", "submit", "--spec", "-", "--wait", "-o", "name", stdin=json.dumps(spec))
    id = done.out.strip()
    told = cli.ok("workflow", "why", id, "-o", "json").lines
    assert [(reason["node"], reason["reason"]) for reason in told] == [
        (None, "workflow_failed"),
        ("a", "retries_used_up"),
    ]
    assert told[0]["text"] == "failed: 2 nodes: 1 failed, 1 cancelled"
    (stopped,) = cli.ok("workflow", "why", id, "--node", "b", "-o", "json").lines
    assert stopped["reason"] == "stopped_by_node"
    assert "since node a failed (sequence " in stopped["text"]
    assert "NODE" in cli.ok("workflow", "why", id).out.splitlines()[0]
    wrong = cli("workflow", "why", id, "--node", "c")
    assert (wrong.code, wrong.out) == (2, "")
