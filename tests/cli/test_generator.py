"""`colonies generator`, as people run it."""

from __future__ import annotations

import json
from itertools import count

import pytest

from tests.cli.conftest import Cli

SPEC = {"func": "echo", "args": [{"$packed": "0"}, {"$packed": "1"}], "conditions": {"runtimetype": "cli"}}
_numbers = count(1)


@pytest.fixture
def name() -> str:
    """A name that nobody had."""
    return f"g{next(_numbers)}"


def add(cli: Cli, name: str, trigger: int = 2, *more: str) -> None:
    arguments = ("generator", "add", "--name", name, "--spec", "-", "--trigger", str(trigger), *more)
    cli.ok(*arguments, stdin=json.dumps(SPEC))


def last_sequence(cli: Cli) -> int:
    return int(cli.ok("ledger", "verify", "-o", "json").lines[-1]["last_sequence"])


def test_what_is_packed_runs(cli: Cli, name: str) -> None:
    add(cli, name)
    done = cli.ok("generator", "pack", name, '{"path": "a.png"}', "plain text", "3")
    assert done.out == f"3 arguments packed for generator {name}\n"

    def ran() -> bool:
        runs = cli.ok("generator", "get", name, "-o", "json").one["last_runs"]
        return bool(runs) and runs[0]["state"] in ("running", "successful")

    cli.until(ran, "the run is submitted")
    found = cli.ok("generator", "get", name, "-o", "json").one
    assert (found["name"], found["trigger"], found["timeout_s"]) == (name, 2, None)
    assert (found["packed"], found["runs"], found["waiting"], found["arguments"]) == (3, 1, 1, [3])
    assert [(run["run"], run["first"], run["count"]) for run in found["last_runs"]] == [(0, 0, 2)]
    assert found["spec"]["nodes"][0]["name"] == name
    table = cli.ok("generator", "get", name).out
    assert "waiting" in table
    assert found["last_runs"][0]["workflow"] in table
    assert cli.ok("generator", "get", name, "-o", "name").out == f"{name}\n"


def test_the_list_and_the_end_of_a_generator(cli: Cli, name: str) -> None:
    add(cli, name, 5, "--timeout", "600")
    assert name in cli.ok("generator", "ls", "-o", "name").out.split()
    row = next(line for line in cli.ok("generator", "ls").out.splitlines() if line.startswith(name))
    assert row.split() == [name, "5", "600", "s", "0", "0", "ann"]
    listed = {found["name"]: found for found in cli.ok("generator", "ls", "-o", "json").lines}
    assert set(listed[name]) == {
        *("name", "trigger", "timeout_s", "added_by", "added_at", "packed", "runs", "waiting", "ends_at")
    }
    assert cli.ok("generator", "rm", name, "--reason", "done").out == f"generator {name} removed\n"
    assert name not in cli.ok("generator", "ls", "-o", "name").out.split()
    for arguments in (("get", name), ("rm", name), ("pack", name, "1")):
        done = cli("generator", *arguments)
        assert (done.code, done.out) == (5, "")
        assert f"there is no generator {name}" in done.err


def test_arguments_come_in_by_lines(cli: Cli, name: str) -> None:
    add(cli, name, 100_000)
    lines = "".join(f'{{"n": {n}}}\n' for n in range(1_500)) + "\n"
    done = cli.ok("generator", "pack", name, "-", "-o", "json", stdin=lines)
    assert done.one == {"name": name, "packed": 1_500}
    found = cli.ok("generator", "get", name, "-o", "json").one
    assert found["arguments"] == [{"n": n} for n in range(1_500)]


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("pack", "g", "-"), '{"n": 1}\nnot json\n', "standard input, line 2: not JSON"),
        (("pack", "g", "-"), "\n", "standard input: it is empty"),
        (("pack", "g", '{"a": 1, "a": 2}'), "", "the key 'a' is given twice"),
        (("pack", "g.x", "1"), "", "'g.x' is not allowed as a name"),
        (("pack", "g", "[" * 100_000), "", "nested too deeply"),
        (
            ("add", "--name", "g", "--spec", "-", "--trigger", "2"),
            "{}",
            "an object without func is no process",
        ),
        (("add", "--name", "g", "--spec", "none.json", "--trigger", "2"), "", "there is no such file"),
        (("add", "--name", "g", "--spec", "-", "--trigger", "0"), json.dumps(SPEC), "trigger: 0"),
        (("add", "--name", "g", "--spec", "-", "--trigger", "1"), json.dumps(SPEC), "at most 1 argument"),
        (("add", "--name", "g", "--spec", "-", "--trigger", "x"), "", "'--trigger'"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, arguments: tuple[str, ...], stdin: str, said: str) -> None:
    before = last_sequence(cli)
    done = cli("generator", *arguments, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert last_sequence(cli) == before


def test_an_argument_that_is_too_large_is_refused_with_both_numbers(cli: Cli, name: str) -> None:
    add(cli, name)
    done = cli("generator", "pack", name, "-", stdin=json.dumps("x" * 200_000))
    assert done.code == 2
    assert "argument 0: 200005 bytes; at most 131072 are allowed" in done.err


def test_the_tail_of_the_ledger_shows_what_is_said_of_generators(cli: Cli, name: str) -> None:
    add(cli, name, 100)
    start = last_sequence(cli)
    cli.ok("generator", "pack", name, "1", "2")
    cli.ok("generator", "rm", name)
    lines = cli.ok("ledger", "tail", "--from", str(start + 1), "-o", "json").lines
    found = [(line["event"], line["verdict"]) for line in lines if line["entity"] == f"generator {name}"]
    assert found == [("generator.packed", "valid"), ("generator.removed", "valid")]


def test_others_do_not_remove_a_generator(cli: Cli, name: str) -> None:
    add(cli, name)
    done = cli("generator", "rm", name, "--context", "bob")
    assert done.code == 4
    assert "only ann or an owner may remove the generator" in done.err
    cli.ok("generator", "rm", name, "--context", "owner")
