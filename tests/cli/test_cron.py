"""`colonies cron` as people type it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

ECHO = {"func": "echo tick", "conditions": {"runtimetype": "cli"}}
EXAMPLE = Path(__file__).parents[2] / "examples" / "cron.json"


@pytest.fixture
def tick(cli: Cli) -> Iterator[str]:
    """A cron that is due once a year."""
    add(cli, "tick", "--cron", "0 0 1 1 *")
    yield "tick"
    cli("cron", "rm", "tick")


def add(cli: Cli, name: str, *more: str, spec: Any = ECHO) -> Any:
    return cli.ok(
        "cron", "add", "--name", name, "--spec", "-", "-o", "json", *more, stdin=json.dumps(spec)
    ).one


def test_a_cron_runs_and_get_shows_its_next_times_and_last_runs(cli: Cli) -> None:
    added = add(cli, "seconds", "--cron", "* * * * * *", "--timezone", "Europe/Berlin", "--wait-previous")
    try:
        assert added["state"] == "active"
        assert added["nodes"] == ["main"]
        assert added["wait_previous"] is True
        assert len(added["due"]) == 5

        def ran() -> Any:
            found = cli.ok("cron", "get", "seconds", "-o", "json").one
            return found if any(run["state"] == "successful" for run in found["runs"]) else None

        found = cli.until(ran, "a run of the cron")
        times = [datetime.fromisoformat(time) for time in found["due"]]
        assert all((later - earlier).total_seconds() == 1 for earlier, later in pairwise(times))
        assert cli.ok("cron", "get", "seconds").out.count("next") == 1
        cli.ok("cron", "pause", "seconds")  # so that the last runs stay the last
        last = cli.ok("cron", "get", "seconds", "-o", "json").one["runs"]
        text = cli.ok("cron", "get", "seconds").out
        for shown in ("* * * * * * Europe/Berlin", "paused", "DUE", *(run["id"] for run in last)):
            assert shown in text
        assert "valid: a run of the cron seconds\n" in cli.ok("workflow", "history", last[0]["id"]).out
    finally:
        cli.ok("cron", "rm", "seconds")
    assert cli("cron", "get", "seconds").code == 5


def test_ls_shows_the_crons_of_the_colony(cli: Cli, tick: str) -> None:
    (found,) = cli.ok("cron", "ls", "-o", "json").lines
    assert (found["name"], found["cron"], found["interval_s"], found["member"]) == (
        tick,
        "0 0 1 1 *",
        None,
        "ann",
    )
    assert found["due"][0].endswith("-01-01T00:00:00.000000Z")
    assert cli.ok("cron", "ls", "-o", "name").out == "tick\n"
    header, row = cli.ok("cron", "ls").out.splitlines()
    assert header.split() == ["NAME", "STATE", "WHEN", "NEXT", "MEMBER"]
    assert row.split()[:3] == ["tick", "active", "0"]


def test_get_shows_the_runs_that_members_asked_for(cli: Cli, tick: str) -> None:
    mine = cli.ok("cron", "run", tick, "-o", "name").out.strip()
    bob = Cli(cli.folder, {"COLONIES_CONTEXT": "bob"})
    his = bob.ok("cron", "run", tick, "-o", "name").out.strip()

    def ended() -> Any:
        runs = cli.ok("cron", "get", tick, "-o", "json").one["runs"]
        return runs if [run["state"] for run in runs] == ["successful"] * 2 else None

    runs = cli.until(ended, "both runs have ended")
    assert [(run["id"], run["due"], run["member"]) for run in runs] == [
        (his, None, "bob"),
        (mine, None, "ann"),
    ]
    lines = cli.ok("cron", "get", tick).out.splitlines()
    assert lines[-3].split() == ["DUE", "SUBMITTED", "STATE", "WORKFLOW"]
    assert lines[-2].startswith("now, by bob  ")
    assert lines[-2].split()[-2:] == ["successful", his]
    cli.ok("cron", "rm", tick)
    add(cli, tick, "--cron", "0 0 1 1 *")
    assert cli.ok("cron", "get", tick, "-o", "json").one["runs"] == []


def test_run_pause_resume_and_rm(cli: Cli, tick: str) -> None:
    id = cli.ok("cron", "run", tick, "-o", "name").out.strip()
    assert cli.ok("cron", "run", tick).out.startswith("workflow ")
    assert len(id) == 26
    assert cli.ok("cron", "pause", tick, "--reason", "holidays").out == "cron tick is paused\n"
    assert cli.ok("cron", "get", tick, "-o", "json").one["due"] == []
    done = cli("cron", "pause", tick)
    assert (done.code, "paused already" in done.err) == (1, True)
    assert cli.ok("cron", "resume", tick, "-o", "json").one == {"name": "tick", "state": "active"}
    assert cli("cron", "resume", tick).code == 1
    bob = Cli(cli.folder, {"COLONIES_CONTEXT": "bob"})
    done = bob("cron", "rm", tick)
    assert (done.code, "only ann or an owner" in done.err) == (4, True)
    assert cli.ok("cron", "rm", tick).out == "cron tick is removed\n"
    for verb in ("get", "run", "pause", "resume", "rm"):
        done = cli("cron", verb, tick)
        assert (done.code, "there is no cron tick" in done.err) == (5, True)


def test_an_interval_a_jitter_and_the_example(cli: Cli) -> None:
    more = ("--interval", "3600", "--jitter", "60", "--catch-up", "all")
    found = cli.ok("cron", "add", "--name", "hourly", "--spec", str(EXAMPLE), *more, "-o", "json").one
    try:
        assert (found["interval_s"], found["jitter_s"], found["catch_up"]) == (3600, 60, "all")
        assert found["nodes"] == ["count"]
        text = cli.ok("cron", "get", "hourly").out
        assert "every 3600 s" in text
        assert "up to 60 s" in text
    finally:
        cli.ok("cron", "rm", "hourly")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "needs an expression"),
        (("--cron", "* * * * *", "--interval", "60"), "both"),
        (("--cron", "61 * * * *"), "bad minute; allowed: five fields"),
        (("--cron", "* * *"), "wrong number of fields"),
        (("--cron", "0 0 */32 * MON#5"), "is never due"),
        (("--cron", "* * * * *", "--timezone", "berlin"), "did you mean Europe/Berlin?"),
        (("--interval", "60", "--timezone", "UTC"), "an interval has none"),
        (("--interval", "0.5"), "1 to 31622400 seconds"),
        (("--interval", "nan"), "1 to 31622400 seconds"),
        (("--interval", "60", "--jitter", "-1"), "0 to 86400 seconds"),
        (("--interval", "60", "--jitter", "nan"), "0 to 86400 seconds"),
        (("--interval", "60", "--catch-up", "two"), "two"),
        (("--interval", "60", "--name", "a.b"), "--name"),
        (("--interval", "60", "--spec", "/nowhere/x.json"), "there is no such file"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_recorded(
    cli: Cli, options: tuple[str, ...], said: str
) -> None:
    before = cli.last_sequence()
    done = cli("cron", "add", "--name", "odd", "--spec", "-", *options, stdin=json.dumps(ECHO))
    assert done.code == 2
    assert said in done.err
    assert cli.last_sequence() == before


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("[]", "nodes: there are none"),
        ("{", "standard input"),
        ('{"func": "x"}', "conditions"),
        (
            '[{"name": "a", "func": "x", "conditions": {"runtimetype": "cli", "dependencies": ["b"]}}]',
            "no such node",
        ),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(cli: Cli, spec: str, said: str) -> None:
    done = cli("cron", "add", "--name", "odd", "--spec", "-", "--interval", "60", stdin=spec)
    assert (done.code, said in done.err) == (2, True), done.err


def test_a_name_that_is_taken_is_refused(cli: Cli, tick: str) -> None:
    done = cli("cron", "add", "--name", tick, "--spec", "-", "--interval", "60", stdin=json.dumps(ECHO))
    assert (done.code, "there is a cron tick" in done.err) == (1, True)


def test_the_names_of_crons_are_checked_before_anybody_is_asked(alone: Cli) -> None:
    for verb in ("get", "run", "pause", "resume", "rm"):
        assert alone("cron", verb, "a.*").code in (2, 5)
