"""`cron add` and `generator add` read what runs as all other commands do: JSON or YAML, a file or stdin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colonies import files
from colonies.errors import Invalid
from tests.cli.conftest import Cli

PROCESS = {"func": "echo", "conditions": {"runtimetype": "cli"}}
NODE = {"name": "a", **PROCESS}
CHILD = {"name": "b", "func": "echo", "conditions": {"runtimetype": "cli", "dependencies": ["a"]}}
ADDING = {"cron": ("--interval", "86400"), "generator": ("--trigger", "2")}


def yaml(value: Any) -> str:
    """YAML that is not JSON: a comment, and blocks at the top."""
    if isinstance(value, list):
        return "# nodes\n" + "".join(f"- {json.dumps(item)}\n" for item in value)
    return "# one\n" + "".join(f"{key}: {json.dumps(item)}\n" for key, item in value.items())


GOOD: list[tuple[str, str, list[str]]] = [
    ("a.yaml", yaml(PROCESS), ["DEFAULT"]),
    ("-", yaml(NODE), ["a"]),
    ("b.json", json.dumps([NODE, CHILD]), ["a", "b"]),
    ("c.yml", yaml({"name": "both", "on_failure": "stop", "nodes": [NODE, CHILD]}), ["a", "b"]),
    ("-", yaml([{"name": "in", "nodes": [NODE, CHILD]}]), ["in/a", "in/b"]),
]


@pytest.mark.parametrize("noun", ADDING)
def test_a_process_and_a_workflow_may_be_json_or_yaml_in_a_file_or_on_stdin(
    cli: Cli, tmp_path: Path, noun: str
) -> None:
    for number, (place, text, nodes) in enumerate(GOOD):
        name = f"file{number}"
        if place != "-":
            (tmp_path / place).write_text(text)
        cli.ok(noun, "add", "--name", name, "--spec", place, *ADDING[noun], cwd=tmp_path, stdin=text)
        found = cli.ok(noun, "get", name, "-o", "json").one
        said = found["nodes"] if noun == "cron" else [node["name"] for node in found["spec"]["nodes"]]
        assert said == (nodes if nodes != ["DEFAULT"] else ["main" if noun == "cron" else name])
        cli.ok(noun, "rm", name)


BAD = {
    "neither": ("node: []", ["an object without func", "a list of nodes such as [{"]),
    "a field": ("func: x\ncolour: red\nconditions: {runtimetype: cli}", ["(g): colour: unknown field"]),
    "a node's field": ("- {name: a, funk: x}", ["nodes[0] (a): funk: unknown field; did you mean func?"]),
    "conditions": ("func: x", ["(g): conditions: missing"]),
    "a parent": ("- {name: a, func: x, conditions: {runtimetype: cli, dependencies: [b]}}", ["node a: it"]),
    "no map": ("func: x\nargs: [{$item: ''}]\nconditions: {runtimetype: cli}", ["$item", 'add "map": {']),
    "twice": ("func: x\nfunc: y", ["line 2: the key 'func' is given twice"]),
    "broken": ("func: [x", ["not YAML: line 2, column 1"]),
    "a text": ("echo", ["'echo' is no workflow; allowed: a list of nodes, such as [{"]),
    "empty": ("", ["allowed:"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_naming_it_the_place_and_what_is_right(case: str) -> None:
    text, said = BAD[case]
    for where in ("work.yaml", files.STANDARD_INPUT):
        with pytest.raises(Invalid) as refused:
            files.work_of(text.encode(), where, "g")
        for word in [where, *said]:
            assert word in str(refused.value)


@pytest.mark.parametrize("noun", ADDING)
def test_a_bad_file_is_refused_before_anybody_is_asked(alone: Cli, tmp_path: Path, noun: str) -> None:
    text, said = BAD["a node's field"]
    (tmp_path / "work.yaml").write_text(text)
    for place, where in (("work.yaml", "work.yaml: "), ("-", "standard input: ")):
        done = alone(noun, "add", "--name", "g", "--spec", place, *ADDING[noun], cwd=tmp_path, stdin=text)
        assert (done.code, done.out) == (2, ""), done.err
        for word in [where, *said]:
            assert word in done.err


@pytest.mark.parametrize("noun", ADDING)
def test_files_that_cannot_be_read_are_refused(alone: Cli, tmp_path: Path, noun: str) -> None:
    (tmp_path / "large.yaml").write_text("# " + "x" * 17_000_000)
    allowed = "; allowed: the path of a JSON or YAML file"
    for place, said in (
        ("none.yaml", f"none.yaml: there is no such file{allowed}"),
        (".", f".: this is a directory{allowed}"),
        ("large.yaml", "large.yaml: the file has 17000002 bytes; allowed: at most 16777216"),
    ):
        done = alone(noun, "add", "--name", "g", "--spec", place, *ADDING[noun], cwd=tmp_path)
        assert (done.code, said in done.err) == (2, True), done.err


def test_references_that_never_have_a_value_are_refused(cli: Cli) -> None:
    before = cli.last_sequence()
    for noun, word, said in (
        ("cron", "$packed", "node main: '$packed 0': nothing is packed for a cron; allowed: a parameter"),
        ("generator", "$previous", "node g: '$previous 0': there is no such node"),
    ):
        text = json.dumps({**PROCESS, "args": [{word: "0"}]})
        done = cli(noun, "add", "--name", "g", "--spec", "-", *ADDING[noun], stdin=text)
        assert (done.code, said in done.err) == (2, True), done.err
    text = json.dumps({**NODE, "args": [{"$previous": "a"}]})
    done = cli("generator", "add", "--name", "g", "--spec", "-", "--trigger", "2", stdin=text)
    assert (done.code, "node a: '$previous a': only runs of a cron have one" in done.err) == (2, True), (
        done.err
    )
    assert cli.last_sequence() == before
