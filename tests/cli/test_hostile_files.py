"""Whatever a person names as a file or says as a value: one clear line, exit code 2, in bounded time."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path

import pytest

from colonies.files import MAX_SILENCE_S
from tests.cli.conftest import COMMAND, LIMIT_S, Cli

GOOD = {"func": "f", "conditions": {"runtimetype": "cli"}}
MAX_MEMORY_BYTES = 1_500_000_000  # of addresses, of which the command, its libraries and threads take most


def spec(text: str) -> bytes:
    return json.dumps(GOOD).replace('"f"', text, 1).encode()


CONTENTS = {
    "invalid UTF-8": (b'{"func": "\xff"}', "not UTF-8: byte 10 is 0xff"),
    "deep lists": (b"[" * 1_000_000, "nested too deeply"),
    "deep arguments": (spec('"f", "args": ' + "[" * 70 + "]" * 70), "nested too deeply; allowed: at most 64"),
    "NaN": (spec('"f", "args": [NaN]'), "args[0]: nan is not allowed"),
    "Infinity": (spec('"f", "maxwaittime": Infinity'), "maxwaittime: inf is not allowed"),
    "a huge number": (spec('"f", "priority": ' + "9" * 500_000), "priority: 9999"),
    "a huge argument": (spec('"f", "args": [' + "9" * 500_000 + "]"), "args[0]: 9999"),
    "a huge fraction": (spec('"f", "maxwaittime": 1e' + "9" * 500_000), "maxwaittime: inf is not allowed"),
    "a key twice": (spec('"f", "func": "g"'), "'func' is given twice"),
    "half a character": (spec('"\\ud800"'), "func: '\\ud800' is not allowed"),
    "too large": (b" " * 1_048_577, "has 1048577 bytes; allowed: at most 1048576"),
}


@pytest.mark.parametrize(("content", "said"), CONTENTS.values(), ids=CONTENTS.keys())
def test_a_file_of_anything_is_refused_in_a_line(
    alone: Cli, tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(content)
    done = alone("process", "submit", "--spec", str(path))
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err) < 500
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("process", "submit", "--spec"),
        ("process", "ls", "--url", "nats://127.0.0.1:1", "--creds"),
    ],
    ids=["a spec", "a credential"],
)
def test_what_is_no_file_is_refused_in_a_line_with_little_memory(
    alone: Cli, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))

    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    for place, said in {
        "/dev/zero": "more than",
        str(tmp_path / "huge"): "1099511627776 bytes; allowed: at most",
        str(tmp_path): "this is a directory",
        str(tmp_path / "pipe"): f"nothing was written to it for {MAX_SILENCE_S:g} s",
        "~nobody-has-this-name/x": "x" if arguments[-1] == "--spec" else "no home folder",
    }.items():
        done = subprocess.run(
            [COMMAND, *arguments, place],
            capture_output=True,
            text=True,
            env=alone.env(),
            cwd=tmp_path,
            timeout=LIMIT_S,
            check=False,
            preexec_fn=limited,
        )
        assert (done.returncode, done.stdout) == (2, ""), f"{place}: {done.stderr}"
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("colonies: ")


def test_a_spec_may_come_through_a_pipe(alone: Cli) -> None:
    read, write = os.pipe()
    os.write(write, json.dumps(GOOD).encode())
    os.close(write)
    done = subprocess.run(
        [COMMAND, "process", "submit", "--spec", f"/dev/fd/{read}"],
        capture_output=True,
        env=alone.env(),
        timeout=LIMIT_S,
        check=False,
        pass_fds=[read],
    )
    os.close(read)
    assert done.returncode == 5  # the spec is good; on this machine there is no colony


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("process", "submit", "--spec", "SPEC", "--wait", "--timeout", "nan"), "'--timeout'"),
        (("process", "submit", "--spec", "SPEC", "--wait", "--timeout", "inf"), "timeout: inf s; 0 to"),
        (("process", "run", "--runtimetype", "cli", "--maxwaittime", "nan", "x"), "maxwaittime: nan is not"),
        (("process", "run", "--runtimetype", "cli", "--priority", "9" * 4_000, "x"), "an integer of"),
        (("process", "run", "--runtimetype", "cli", "--priority", "9" * 9_000, "x"), "'--priority'"),
        (("process", "ls", "--limit", "9" * 400), "'--limit'"),
        (("process", "get", "x" * 65), "has 65 characters; allowed: 1 to 64"),
        (("process", "cancel", "x", "--reason", "y" * 1_001), "1001 characters; at most 1000"),
        (("member", "add", "x" * 33, "--role", "user"), "has 33 characters; allowed: 1 to 32"),
        (("dev", "--lease", "9" * 400), "give a duration from 2s to 24h"),
    ],
    ids=range(10),
)
def test_a_value_of_anything_is_refused(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(GOOD))
    before = cli.last_sequence()
    done = cli(*(str(path) if word == "SPEC" else word for word in arguments))
    assert (done.code, done.out) == (2, ""), done.err
    assert said in done.err
    assert "defect" not in done.err
    assert cli.last_sequence() == before


def test_a_reason_that_is_too_long_to_keep_is_refused_before_anybody_is_revoked(owner: Cli) -> None:
    done = owner("member", "revoke", "ann", "--yes", "--reason", "y" * 1_001)
    assert (done.code, done.err) == (
        2,
        "colonies: --reason: it has 1001 characters; at most 1000 are allowed\n",
    )
