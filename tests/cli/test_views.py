"""`function`, `stats`, `finding` and `query`: what views of the ledger say, now and at any time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import Cli


def done(cli: Cli, *commands: str) -> list[str]:
    """Unix processes, submitted and waited for; their ids."""
    ids = [cli.submit(command) for command in commands]
    for id in ids:
        cli("process", "watch", id)
    return ids


def test_a_function_is_listed_and_shown_with_who_has_it_and_how_it_went(cli: Cli) -> None:
    done(cli, "echo f-1", "echo f-1", "exit 3 # f-2")
    [item] = cli.ok("function", "ls", "--text", "echo f-1", "-o", "json").lines
    assert (item["name"], item["runtimetype"], item["alive"]) == ("echo f-1", "cli", 0)
    assert (item["submitted"], item["successful"], item["open"], item["attempts"]) == (2, 2, 0, 2)
    assert item["run"]["number"] == 2
    assert item["run"]["p50_s"] > 0
    [failed] = cli.ok("function", "get", "exit 3 # f-2", "-o", "json").lines
    assert (failed["failed"], failed["failures"]) == (1, 1)
    table = cli.ok("function", "ls", "--text", " f-", "--runtimetype", "cli").out.splitlines()
    assert table[0].split() == [
        "FUNCTION",
        "RUNTIMETYPE",
        "ALIVE",
        "SUBMITTED",
        "FAILED",
        "RUN",
        "P50",
        "P99",
    ]
    assert [line.split("  ")[0] for line in table[1:]] == ["echo f-1", "exit 3 # f-2"]
    assert cli.ok("function", "ls", "--text", " f-", "--unserved", "-o", "name").out == ""  # unix1 can
    unserved = cli.submit("nobody f-3", runtimetype="deserted")
    assert cli.ok("function", "ls", "--text", " f-", "--unserved", "-o", "name").out == "nobody f-3\n"
    cli.ok("process", "cancel", unserved)
    card = cli.ok("function", "get", "echo f-1").out
    assert "submitted    2\n" in card
    missing = cli("function", "get", "never heard of", "--runtimetype", "cli")
    assert (missing.code, missing.out) == (5, "")
    assert (
        "there is no function never heard of of runtime type cli; see `colonies function ls`" in missing.err
    )


def test_functions_come_in_pages_by_name(cli: Cli) -> None:
    done(cli, *(f"true page-{number}" for number in range(5)))
    asked = ("function", "ls", "--text", "true page-", "--limit", "2", "-o", "name")
    first = cli.ok(*asked)
    cursor = first.err.split("--cursor ")[1].split()[0]
    rest = cli.ok(*asked[:-4], "--all", "--cursor", cursor, "-o", "name")
    assert (first.out + rest.out).splitlines() == [f"true page-{number}" for number in range(5)]
    down = cli.ok(*asked, "--sort", "-first").out.splitlines()
    assert down == ["true page-4", "true page-3"]


def test_stats_are_totals_or_a_line_for_each_minute_and_show_the_past(cli: Cli) -> None:
    before = str(cli.last_sequence())
    func = "true s-1"
    [id, _] = done(cli, func, func)
    [now] = cli.ok("stats", "--func", func, "-o", "json").lines
    assert (now["submitted"], now["started"], now["successful"], now["wait"]["number"]) == (2, 2, 2, 2)
    [then] = cli.ok("stats", "--func", func, "--at", before, "-o", "json").lines
    assert (then["submitted"], then["run"]["number"], then["run"]["p50_s"]) == (0, 0, None)
    [queued, taken, _] = cli.ok("process", "history", id, "-o", "json").lines
    [then] = cli.ok("stats", "--func", func, "--at", str(taken["sequence"]), "-o", "json").lines
    assert (then["started"] >= 1, then["successful"] <= 1) == (True, True)
    assert queued["sequence"] < taken["sequence"]
    minutes = cli.ok("stats", "--func", func, "--every", "1m", "-o", "json").lines
    assert sum(minute["submitted"] for minute in minutes) == 2
    card = cli.ok("stats").out
    assert card.splitlines()[0].startswith("from ")
    assert "leases lost" in card
    table = cli.ok("stats", "--every", "1h").out.splitlines()
    assert table[0].split()[:3] == ["FROM", "SUBMITTED", "SUCCESSFUL"]
    assert len(table) >= 2
    kinds = cli.ok("stats", "--by", "runtimetype", "-o", "json").lines
    assert "cli" in {kind["runtimetype"] for kind in kinds}
    assert cli.ok("stats", "--by", "func").out.startswith("FUNCTION ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("stats", "--every", "1w"), "--every: '1w' is not one; allowed: 1m, 1h, 1d"),
        (("stats", "--by", "colour"), "--by: 'colour' is not one; allowed: func, runtimetype"),
        (("stats", "--by", "func", "--every", "1m"), "--by: it is for the whole time; leave out --every"),
        (("stats", "--since", "yesterday"), "--since: 'yesterday' is no moment"),
        (("finding", "ls", "--verdict", "good"), "--verdict: 'good' is not one; allowed: quarantined, void"),
        (("function", "ls", "--sort", "size"), "sort: 'size' is not one; allowed: name, first"),
        (("query", "no view!"), "no view!: no view is called that; allowed: a-z, 0-9 and _"),
        (("query", "members", "--filter", "role"), "--filter: role; allowed: NAME=VALUE"),
        (("query", "members", "--filter", "role=king"), "role: 'king' is not one; allowed: "),
        (("query", "members", "--filter", "limit=1"), "limit is no filter; allowed: the option --limit"),
        (("query", "members", "--filter", "role=user", "--filter", "role=owner"), "role is given twice"),
        (("query", "nodes"), "workflow: it is missing; say the id of the workflow"),
    ],
)
def test_what_makes_no_sense_is_said_with_what_does(cli: Cli, arguments: tuple[str, ...], error: str) -> None:
    refused = cli(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert error in refused.err
    assert refused.err.count("\n") == 1


def test_any_view_can_be_asked_by_its_name(cli: Cli) -> None:
    members = cli.ok("query", "members", "--filter", "role=user", "--sort", "name", "-o", "json").lines
    assert [member["name"] for member in members][:1] == ["ann"]
    assert cli.ok("query", "members", "--filter", "name=ann", "-o", "name").out == "ann\n"
    table = cli.ok("query", "members", "--filter", "name=ann").out.splitlines()
    assert table[0].split()[:3] == ["NAME", "ROLE", "STATE"]
    none = cli("query", "flowers")
    assert none.code == 5
    assert "no projector has a view flowers; there are: crons, findings, functions, " in none.err


def test_the_nodes_of_a_workflow_are_a_graph(cli: Cli) -> None:
    spec = """
    - {name: first, func: "true", conditions: {runtimetype: cli}}
    - {name: second, func: "true 2", conditions: {runtimetype: cli, dependencies: [first]}}
    """
    id = cli.ok("workflow", "submit", "--spec", "-", "-o", "name", stdin=spec).out.strip()
    cli.ok("workflow", "get", id, "--watch")
    nodes = cli.ok("query", "nodes", "--filter", f"workflow={id}", "-o", "json").lines
    assert [(node["label"], node["func"], node["parents"], node["state"]) for node in nodes] == [
        ("first", "true", [], "successful"),
        ("second", "true 2", ["first"], "successful"),
    ]
    first = cli.ok("workflow", "history", id, "-o", "json").lines[0]["sequence"]
    then: list[Any] = cli.ok(
        "query", "nodes", "--filter", f"workflow={id}", "--at", str(first), "-o", "json"
    ).lines
    assert [(node["state"], node["attempts"], node["ended_at"]) for node in then] == [
        ("blocked", 0, None)
    ] * 2


def test_findings_are_listed_by_verdict_with_their_rule(cli: Cli) -> None:
    found = cli.ok("finding", "ls", "--verdict", "quarantined", "-o", "json").lines
    assert all(item["verdict"] == "quarantined" and item["rule"] for item in found)
    nothing = cli.ok("finding", "ls", "--entity", "01M83K0TD")
    assert nothing.err == "colonies: nothing of 01M83K0TD; --entity takes whole ids and names\n"
    assert cli.ok("finding", "ls", "--at", "1").out.split() == [
        *("SEQUENCE", "TIME", "VERDICT", "EVENT", "AUTHOR", "RULE")
    ]
