"""`colonies log search`: lines of all processes, for people and for programs."""

from __future__ import annotations

import json
import signal
import uuid
from typing import Any

import pytest

from tests.cli.conftest import Cli


def said(cli: Cli, *words: str) -> str:
    """Run a Unix command to its end; its process."""
    id = cli.submit("sh", "-c", words[0])
    cli.ok("process", "watch", id)
    return id


def word() -> str:
    """One that no other test writes."""
    return f"w{uuid.uuid4().hex}"


def found(cli: Cli, *arguments: str) -> list[dict[str, Any]]:
    return cli.ok("log", "search", *arguments, "-o", "json").lines


def test_lines_of_a_command_are_found_by_words(cli: Cli) -> None:
    own = word()
    id = said(cli, f"echo starting {own}; echo 'CUDA error: out of memory' {own} >&2; echo {own} done")
    [line] = found(cli, own, "out of memory")
    assert line.pop("time").endswith("Z")
    assert line.pop("sequence") > 0
    assert line == {
        "process": id,
        "func": "sh",
        "workflow": None,
        "worker": "unix1",
        "attempt": 1,
        "stream": "stderr",
        "text": f"CUDA error: out of memory {own}",
        "line": 0,
    }
    assert found(cli, own, "memory of out") == []
    assert len(found(cli, own, "memory", "out")) == 1
    assert len(found(cli, own, "mem*")) == 1
    assert {item["text"] for item in found(cli, own, "--stream", "stdout")} == {
        f"starting {own}",
        f"{own} done",
    }
    assert found(cli, own, "--worker", "py1") == []
    assert len(found(cli, own, "--process", id, "--func", "sh", "--since", "1h")) == 3
    assert found(cli, own, "--until", "1h") == []


def test_the_table_is_newest_first_and_names_are_processes(cli: Cli) -> None:
    own = word()
    id = said(cli, f"echo one {own}; sleep 0.3; printf '\\033[1mtwo\\033[0m {own}\\a\\n'")
    done = cli.ok("log", "search", own)
    head, two, one = done.out.splitlines()
    assert head.split() == ["TIME", "PROCESS", "WORKER", "ATTEMPT", "STREAM", "TEXT"]
    assert one.split()[1:] == [id, "unix1", "1", "stdout", "one", own]
    assert two.endswith(f"two {own}\\x07")
    assert cli.ok("log", "search", own, "-o", "name").out == f"{id}\n{id}\n"
    assert next(item["text"][:3] for item in found(cli, own, "--sort", "time")) == "one"


def test_pages_go_on_where_the_list_before_ended(cli: Cli) -> None:
    own = word()
    said(cli, f"for n in 1 2 3 4 5; do echo {own} n$n; done")
    first = cli.ok("log", "search", own, "--limit", "2", "-o", "json")
    assert [line["text"].split()[1] for line in first.lines] == ["n5", "n4"]
    cursor = first.err.split("--cursor ")[1].split()[0]
    rest = found(cli, own, "--cursor", cursor, "--all")
    assert [line["text"].split()[1] for line in rest] == ["n3", "n2", "n1"]


def test_functions_in_python_and_nodes_of_workflows_are_found(cli: Cli) -> None:
    spec = (
        '{"nodes": [{"nodename": "a", "func": "chat", "args": [2], "conditions": {"runtimetype": "python"}}]}'
    )
    done = cli.ok("workflow", "submit", "--spec", "-", "--wait", "-o", "json", stdin=spec)
    id = done.lines[-1]["id"]
    lines = found(cli, "--workflow", id)
    assert [(line["text"], line["worker"], line["func"]) for line in lines] == [
        ("line 1", "py1", "chat"),
        ("line 0", "py1", "chat"),
    ]


def test_the_past_has_the_lines_of_that_time(cli: Cli) -> None:
    own = word()
    said(cli, f"echo {own} one")
    cli.ok("process", "submit", "--spec", "-", stdin='{"func": "x", "conditions": {"runtimetype": "no"}}')
    then = cli.last_sequence()
    said(cli, f"echo {own} two")
    assert [line["text"] for line in found(cli, own)] == [f"{own} two", f"{own} one"]
    assert [line["text"] for line in found(cli, own, "--at", str(then))] == [f"{own} one"]


def test_lines_are_followed_as_they_come(cli: Cli) -> None:
    own = word()
    said(cli, f"echo {own} one; echo {own} two; echo {own} three")
    following = cli.start("log", "search", own, "--follow", "--limit", "2", "-o", "json")
    assert following.stdout is not None
    try:
        texts = [json.loads(following.stdout.readline())["text"] for _ in range(2)]
        for number in range(3):
            said(cli, f"echo {own} {number}; echo nothing")
            texts.append(json.loads(following.stdout.readline())["text"])
    finally:
        following.send_signal(signal.SIGINT)
        rest, error = following.communicate(timeout=30)
    assert texts == [f"{own} {what}" for what in ("two", "three", "0", "1", "2")]
    assert (rest, following.returncode) == ("", 130), error


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (("--", "-"), "words of letters or digits"),
        (('"open',), "a quote is not closed"),
        (("a*",), "at least 2 letters"),
        (("x", "-f", "--until", "1h", "--all"), "leave out --until, --all"),
        (("x", "-f", "--at", "1"), "--follow: it waits for what comes"),
        (("x", "--sort", "text"), "allowed: time"),
        (("x", "--since", "soon"), "--since: 'soon' is no moment"),
        (("x", "--cursor", "junk"), "cursor: it is none of ours"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(cli: Cli, arguments: tuple[str, ...], right: str) -> None:
    done = cli("log", "search", *arguments)
    assert (done.code, done.out) == (2, "")
    assert right in done.err


def test_the_view_of_logs_is_listed_with_its_lag_and_checksum(cli: Cli) -> None:
    said(cli, "echo listed")
    [view] = [item for item in cli.ok("projection", "ls", "-o", "json").lines if item["view"] == "logs"]
    assert view["stream"] == "LOGS"
    assert view["position"] == view["last"] > 0
    assert view["lag_events"] == 0
    assert len(view["checksum"]) == 32
    assert view["rows"] > 0
