"""`--at`: what every reading command shows of the past, by sequence, time and age; and what has no past."""

from __future__ import annotations

import time
from typing import Any

import pytest
from colonies_cli import tree

from tests.cli.conftest import Cli

# What reads the ledger, or views of it, and needs no more than a name.
READING = (
    ("colony", "get"),
    ("cron", "ls"),
    ("generator", "ls"),
    ("member", "ls"),
    ("function", "ls"),
    ("finding", "ls"),
    ("stats",),
    ("query", "members"),
    ("webhook", "ls"),
)


def events_of(cli: Cli, id: str) -> list[Any]:
    return cli.ok("process", "history", id, "-o", "json").lines


def test_a_process_is_shown_as_it_was_after_each_of_its_events(cli: Cli) -> None:
    id = cli.submit("echo", "hello")
    cli.ok("process", "watch", id)
    told = events_of(cli, id)
    assert [event["event"] for event in told] == ["process.queued", "process.assigned", "process.completed"]
    for number, (event, state) in enumerate(zip(told, ("waiting", "running", "successful"), strict=True), 1):
        then = cli.ok("process", "get", id, "--at", str(event["sequence"]), "-o", "json")
        assert (then.one["state"], len(then.one["attempts"])) == (state, min(number - 1, 1))
        assert then.err == f"colonies: as of sequence {event['sequence']}, {event['time']}\n"
        by_time = cli.ok("process", "get", id, "--at", event["time"], "-o", "json")
        assert by_time.one == then.one
        history = cli.ok("process", "history", id, "--at", str(event["sequence"]), "-o", "json").lines
        assert history == told[:number]
    before = cli("process", "get", id, "--at", str(told[0]["sequence"] - 1))
    assert (before.code, before.out) == (5, "")
    assert f"there is no process {id}" in before.err
    assert cli.ok("process", "logs", id, "--at", str(told[1]["sequence"])).out == ""
    assert cli.ok("process", "logs", id, "--at", str(told[2]["sequence"])).out == "hello\n"


def test_a_workflow_is_shown_as_it_was_with_its_nodes_and_end(cli: Cli) -> None:
    spec = """
    - {name: first, func: echo, args: [one], conditions: {runtimetype: cli}}
    - name: second
      func: echo
      args: [two]
      conditions: {runtimetype: cli, dependencies: [first]}
    """
    id = cli.ok("workflow", "submit", "--spec", "-", "-o", "name", stdin=spec).out.strip()
    cli.ok("workflow", "get", id, "--watch")
    told = cli.ok("workflow", "history", id, "-o", "json").lines
    seen = []
    for number, event in enumerate(told, 1):
        at = ("--at", str(event["sequence"]))
        then = cli.ok("workflow", "get", id, *at, "-o", "json").one
        seen.append((then["state"], then["done"], [node["state"] for node in then["processes"]]))
        assert (then["ended_at"] is None) == (number < len(told))
        assert cli.ok("workflow", "history", id, *at, "-o", "json").lines == told[:number]
    assert seen == [
        ("running", 0, ["blocked", "blocked"]),
        ("running", 0, ["waiting", "blocked"]),
        ("running", 0, ["running", "blocked"]),
        ("running", 1, ["successful", "blocked"]),
        ("running", 1, ["successful", "waiting"]),
        ("running", 1, ["successful", "running"]),
        ("successful", 2, ["successful", "successful"]),
    ]
    assert cli.ok("workflow", "get", id, "--at", str(told[3]["sequence"])).out.count("blocked  ") == 1
    assert cli("workflow", "get", id, "--at", str(told[0]["sequence"] - 1)).code == 5


def test_crons_generators_members_and_the_colony_are_shown_as_they_were(cli: Cli, owner: Cli) -> None:
    spec = '{"func": "true", "conditions": {"runtimetype": "cli"}}'
    before = str(cli.last_sequence())
    cli.ok("cron", "add", "--name", "then", "--spec", "-", "--cron", "0 0 1 1 *", stdin=spec)
    added = str(cli.last_sequence())
    cli.ok("generator", "add", "--name", "gather", "--spec", "-", "--trigger", "9", stdin=spec)
    cli.ok("generator", "pack", "gather", "1", "2")
    packed = str(cli.last_sequence())
    cli.ok("generator", "pack", "gather", "3")
    cli.ok("cron", "rm", "then")
    owner.ok("colony", "pause", "--reason", "to look back")
    paused = str(cli.last_sequence())
    owner.ok("colony", "resume")

    assert "then" not in cli.ok("cron", "ls", "-o", "name", "--at", before).out.split()
    assert "then" in cli.ok("cron", "ls", "-o", "name", "--at", added).out.split()
    assert cli.ok("cron", "get", "then", "-o", "json", "--at", packed).one["state"] == "active"
    assert cli("cron", "get", "then").code == 5
    assert cli("generator", "get", "gather", "--at", added).code == 5
    then = cli.ok("generator", "get", "gather", "-o", "json", "--at", packed).one
    assert (then["packed"], then["arguments"]) == (2, [1, 2])
    assert cli.ok("generator", "get", "gather", "-o", "json").one["packed"] == 3
    assert "gather" in cli.ok("generator", "ls", "-o", "name", "--at", packed).out.split()
    assert cli.ok("colony", "get", "-o", "json", "--at", paused).one["paused"]["reason"] == "to look back"
    assert cli.ok("colony", "get", "-o", "json", "--at", packed).one["paused"] is None
    first = cli.ok("member", "ls", "-o", "name", "--at", "2").out.split()
    assert len(first) < len(cli.ok("member", "ls", "-o", "name").out.split())
    cli.ok("generator", "rm", "gather")


def test_a_crons_runs_are_shown_as_far_as_they_had_come(cli: Cli) -> None:
    spec = '{"func": "true", "conditions": {"runtimetype": "cli"}}'
    cli.ok("cron", "add", "--name", "rerun", "--spec", "-", "--cron", "0 0 1 1 *", stdin=spec)
    before = str(cli.last_sequence())
    id = cli.ok("cron", "run", "rerun", "-o", "name").out.strip()
    begun = str(cli.ok("workflow", "history", id, "-o", "json").lines[0]["sequence"])
    cli.ok("workflow", "get", id, "--watch")
    ended = str(cli.last_sequence())
    for at, runs in ((before, []), (begun, [(id, "running")]), (ended, [(id, "successful")])):
        shown = cli.ok("cron", "get", "rerun", "-o", "json", "--at", at).one
        assert [(run["id"], run["state"]) for run in shown["runs"]] == runs, at
    cli.ok("cron", "rm", "rerun")


def test_an_age_is_counted_back_from_now(cli: Cli) -> None:
    id = cli.submit("nobody", runtimetype="nothing-serves-this")
    cli.until(lambda: cli("process", "get", id, "--at", "1s", "-o", "name").code == 0, "a second is over")
    began = time.time()
    said = cli.ok("colony", "get", "--at", "1s").err
    assert said.startswith("colonies: as of sequence ")
    assert time.time() - began < 30


@pytest.mark.parametrize("words", READING)
def test_what_is_no_moment_is_refused_by_every_command(cli: Cli, words: tuple[str, ...]) -> None:
    for at, said in (
        ("999999999", "--at: there is no sequence 999999999; the ledger has those from 1 to"),
        ("2990-01-01", "is in the future; the last event of the ledger is"),
        ("2020-01-01T00:00:00Z", "is before the first event of the ledger, of 2"),
        ("soon", "--at: 'soon' is no moment; allowed: a sequence, such as 120; a time, such as 2026-"),
    ):
        done = cli(*words, "--at", at)
        assert (done.code, done.out) == (2, ""), done
        assert said in done.err


def test_the_past_is_not_waited_for(cli: Cli) -> None:
    id = cli.submit("nobody", runtimetype="nothing-serves-this")
    for words in (
        ("process", "get", id, "--watch"),
        ("process", "logs", id, "-f"),
        ("workflow", "get", id, "--watch"),
    ):
        done = cli(*words, "--at", "3")
        assert (done.code, done.out) == (2, "")
        assert "nothing comes to the past; leave out --at" in done.err


def test_every_command_that_reads_the_ledger_and_writes_nothing_has_a_past() -> None:

    found: dict[str, bool] = {}

    def walk(command: Any, words: str) -> None:
        subs = getattr(command, "commands", None)
        for name, sub in (subs or {}).items():
            walk(sub, f"{words} {name}".strip())
        if subs is None:
            found[words] = any("--at" in parameter.opts for parameter in command.params)

    walk(tree.whole(), "")
    verbs = ("get", "ls", "history", "logs", "why", "search", "stats", "query")
    reading = {words for words in found if words.split()[-1] in verbs}
    assert {words for words in reading if not found[words]} == {"context ls", "context get"}
    assert not [words for words, has in found.items() if has and words not in reading]
