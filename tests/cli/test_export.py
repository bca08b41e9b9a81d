"""`colonies ledger export`, `verify FILE`, `import`: a ledger in a file, where no colony is known."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

EVENT = ["sequence", "time", "event", "entity", "author", "attempt", "verdict", "rule", "detail", "data"]


@pytest.fixture
def file(cli: Cli, tmp_path: Path) -> Path:
    """An export of the colony, in which something large was said, and something logged."""
    done = (
        cli.submit("chat", 3, runtimetype="python"),
        cli.submit("repeat", "ab", 100_000, runtimetype="python"),
    )
    for id in done:
        cli.ok("process", "watch", id)
    path = tmp_path / "lab.colonies"
    cli.ok("ledger", "export", str(path), "--logs")
    return path


def key_of(cli: Cli) -> str:
    return str(cli.ok("colony", "get", "-o", "json").one["key"])


def test_an_export_says_what_is_in_it(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "lab.colonies"
    done = cli.ok("ledger", "export", str(path), "-o", "json").one
    assert list(done) == ["file", "colony", "first", "last", "end", "events", "context", "notes", "lost"]
    assert (done["file"], done["colony"], done["first"], done["lost"]) == (str(path), key_of(cli), 1, [])
    assert done["events"] == done["last"] == done["end"]
    part = cli.ok("ledger", "export", str(tmp_path / "part"), "--from", "5", "--to", "7", "-o", "json").one
    assert (part["first"], part["last"], part["events"]) == (5, 7, part["context"] + 3)
    name = cli.ok("ledger", "export", str(tmp_path / "name"), "-o", "name")
    assert name.out == f"{tmp_path / 'name'}\n"
    again = cli("ledger", "export", str(path))
    assert (again.code, again.err) == (
        2,
        f"colonies: {path}: it is there already; say --force to write over it\n",
    )
    cli.ok("ledger", "export", str(path), "--force")


def test_a_part_has_no_logs_from_after_its_end(cli: Cli, tmp_path: Path) -> None:
    id = cli.submit("chat", 3, runtimetype="python")
    cli.ok("process", "watch", id)
    first = cli.ok("process", "history", id, "-o", "json").lines[0]
    log = f"log.{id}.".encode()
    for name, to, there in (("all", (), True), ("part", ("--to", str(first["sequence"])), False)):
        cli.ok("ledger", "export", str(tmp_path / name), "--logs", *to)
        with gzip.open(tmp_path / name) as file:
            assert (log in file.read()) == there


def test_a_file_is_verified_where_no_colony_is_known(file: Path, cli: Cli, alone: Cli) -> None:
    key = key_of(cli)
    done = alone.ok("ledger", "verify", str(file))
    first, second = done.out.splitlines()
    assert first.endswith("valid, no findings")
    assert second == f"verified for the colony {key} (by the file's own word: compare it)"
    known = alone.ok("ledger", "verify", str(file), "--colony", key)
    assert known.out.endswith("(the one that was asked for)\n")
    report = alone.ok("ledger", "verify", str(file), "-o", "json").one
    assert report["events"] == report["valid"] == report["last_sequence"] == report["end"]
    assert (report["colony"], report["name"], report["first"], report["context"]) == (key, "test", 1, 0)
    assert report["cut_after"] is None


def test_a_part_says_what_it_rests_on(cli: Cli, alone: Cli, tmp_path: Path) -> None:
    last = cli.last_sequence()
    cli.ok("ledger", "export", str(tmp_path / "part"), "--from", str(last - 3))
    done = alone.ok("ledger", "verify", str(tmp_path / "part"))
    assert "it rests on the" in done.out
    imported = alone.ok("ledger", "import", str(tmp_path / "part"), "--name", "part")
    rests = f"a part, {last - 3} to {last} of {last}: it rests on the "
    assert [line for line in done.out.splitlines() if line.startswith(rests)]
    assert imported.out.splitlines()[1].startswith(rests)
    assert imported.out.splitlines()[2] == f"lists and numbers lack what else was before {last - 3}"
    again = ("ledger", "import", str(tmp_path / "part"), "--name", "part", "--force", "-o", "json")
    as_json = alone.ok(*again).one
    assert (as_json["first"], as_json["last"], as_json["end"]) == (last - 3, last, last)
    assert as_json["before"] == as_json["events"] - 4
    assert "no findings" in alone.ok("ledger", "verify", "--context", "part").out
    tail = alone.ok("ledger", "tail", "--from", "1", "--context", "part", "-o", "json")
    assert tail.err == ""
    assert [event["sequence"] for event in tail.lines][-4:] == list(range(last - 3, last + 1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--colony", "nonsense"), "--colony nonsense: allowed: a colony's account key"),
        (("--colony", "U" + "A" * 55), "allowed: a colony's account key"),
        (("--colony", "ABJHLOVMPA4CI6R5KLNGOB4GSLNIY7IOUPAJC4YFNDLQVIOBYQGUWVLB"), "the checksum of this"),
        (("--colony", "ABJHLOVMPA4CI6R5KLNGOB4GSLNIY7IOUPAJC4YFNDLQVIOBYQGUWVLA"), "it is of the colony"),
    ],
)
def test_the_colony_that_was_asked_for_must_be_the_files(
    file: Path, alone: Cli, arguments: tuple[str, ...], said: str
) -> None:
    for verb in ("verify", "import"):
        done = alone("ledger", verb, str(file), *arguments)
        assert (done.code, done.out) == (2, "")
        assert said in done.err


def different(items: list[Any]) -> list[str]:
    """The newest two of each kind of process: other tests leave hundreds in their colony, much alike."""
    kinds: dict[tuple[object, ...], list[str]] = {}
    for item in items:
        kind = item["state"], item["runtimetype"], item["workflow"] is None, len(item["attempts"])
        kinds.setdefault(kind, []).append(item["id"])
    return [id for ids in kinds.values() for id in ids[:2]]


def test_an_import_shows_what_the_colony_shows(file: Path, cli: Cli, alone: Cli) -> None:
    last = json.loads(alone.ok("ledger", "import", str(file), "--name", "debug", "-o", "json").out)["last"]
    here = ("--context", "debug", "-o", "json")
    then = ("--at", str(last), "-o", "json")
    tail = ("ledger", "tail", "--from", "1")
    told = [event for event in cli.ok(*tail, "-o", "json").lines if event["sequence"] <= last]
    assert alone.ok(*tail, *here).lines == told
    items = alone.ok("process", "ls", "--limit", "1000", *here).lines
    live = {item["id"]: item for item in cli.ok("process", "ls", "--limit", "1000", "-o", "json").lines}
    assert len(items) > 1
    assert items == [live[item["id"]] for item in items]
    for id in different(items):
        assert alone.ok("process", "get", id, *here).one == cli.ok("process", "get", id, *then).one
        assert (
            alone.ok("process", "logs", id, *here).lines == cli.ok("process", "logs", id, "-o", "json").lines
        )
    for noun in ("member", "queue", "workflow", "cron", "generator"):
        assert alone.ok(noun, "ls", *here).lines == cli.ok(noun, "ls", "-o", "json").lines
    assert alone.ok("process", "history", items[0]["id"], "--context", "debug", "--at", str(last)).err


def test_an_import_is_used_like_a_context_and_nothing_can_be_done_in_it(file: Path, alone: Cli) -> None:
    done = alone.ok("ledger", "import", str(file))
    assert "--context test-import" in done.out
    alone.ok("context", "use", "test-import")
    assert alone.ok("context", "get", "-o", "json").one["colony"] is None
    id = alone.ok("process", "ls", "-o", "name").out.split()[0]
    for words in (
        ("process", "cancel", id),
        ("process", "run", "--runtimetype", "cli", "ls"),
        ("process", "signal", id, "go"),
        ("worker", "start"),
        ("member", "add", "eve", "--role", "user"),
        ("colony", "pause"),
        ("cron", "rm", "x"),
    ):
        refused = alone(*words)
        assert refused.code in (4, 5), (words, refused)
        assert refused.out == ""
    assert "it is only read" in alone("process", "cancel", id).err
    for words in (("ledger", "tail", "-f"), ("process", "get", id, "--watch"), ("log", "search", "x", "-f")):
        refused = alone(*words)
        assert (refused.code, refused.out) == (2, "")
        assert "nothing comes to an imported ledger; leave it out" in refused.err
    for verb in ("ls", "rebuild"):
        nobody = alone("projection", verb)
        assert (nobody.code, "no projector follows an imported ledger" in nobody.err) == (6, True)
    nothing = alone("query", "nothing")
    assert (nothing.code, "an imported ledger has no view 'nothing'; it has" in nothing.err) == (2, True)
    lines = alone.ok("log", "search", "--all", "-o", "json").lines
    assert lines[0]["text"] in alone.ok("process", "logs", lines[0]["process"]).out
    again = alone("ledger", "import", str(file))
    assert (again.code, "say --force" in again.err) == (2, True)
    alone.ok("ledger", "import", str(file), "--force")
    alone.ok("context", "rm", "test-import")
    other = alone("process", "ls", "--context", "test-import")
    assert other.code == 5


def test_an_import_never_takes_the_place_of_a_colonys_context(file: Path, cli: Cli) -> None:
    for more in ((), ("--force",)):
        done = cli("ledger", "import", str(file), "--name", "bob", *more)
        assert done.code == 2
        assert "bob" in done.err
    cli.ok("process", "ls", "--context", "bob")


def test_lines_have_every_event_with_its_verdict_and_its_data(cli: Cli, tmp_path: Path) -> None:
    id = cli.submit("true", label="for-lines")
    cli.ok("process", "watch", id)
    path = tmp_path / "lab.jsonl"
    cli.ok("ledger", "export", str(path), "--format", "jsonl")
    lines: list[Any] = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(list(line) == EVENT for line in lines)
    own = [line for line in lines if line["entity"] == f"process {id}"]
    assert [line["event"] for line in own] == ["process.queued", "process.assigned", "process.completed"]
    assert [line["attempt"] for line in own] == [None, 1, 1]
    assert own[0]["data"]["spec"]["label"] == "for-lines"
    part = cli.ok("ledger", "export", "-", "--format", "jsonl", "--from", str(own[1]["sequence"]))
    assert [json.loads(line) for line in part.out.splitlines()][
        : len(lines) - own[1]["sequence"] + 1
    ] == lines[own[1]["sequence"] - 1 :]
    assert part.err.endswith("events\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "0"), "--from: there is no sequence 0"),
        (("--from", "999999"), "--from: there is no sequence 999999"),
        (("--from", "3", "--to", "2"), "there is nothing from 3 to 2"),
        (("--to", "tomorrow"), "--to: 'tomorrow' is no moment"),
        (("--from", "2000-01-01", "--to", "1"), ""),
        (("--format", "csv"), "--format"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_and_leaves_no_file(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = cli("ledger", "export", str(tmp_path / "x"), *arguments)
    assert done.code == (2 if said else 0)
    assert said in done.err
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".part", "x"))] == ["x"] * (
        not said
    )


@pytest.mark.parametrize("verb", ["verify", "import"])
def test_files_that_are_no_exports_are_refused(file: Path, alone: Cli, tmp_path: Path, verb: str) -> None:
    whole = file.read_bytes()
    for name, data in {
        "cut-head": whole[:100],
        "text": b"hello\n",
        "empty": b"",
        "zip": b"\x1f\x8b\x08",
    }.items():
        (tmp_path / name).write_bytes(data)
        done = alone("ledger", verb, str(tmp_path / name))
        assert (done.code, done.out) == (2, ""), name
        assert str(tmp_path / name) in done.err
    (tmp_path / "cut").write_bytes(whole[:-2_000])
    done = alone("ledger", verb, str(tmp_path / "cut"))
    assert done.code == (1 if verb == "verify" else 2)
    assert "cut off" in done.out + done.err
    if verb == "import":
        assert "`colonies ledger verify FILE` judges what is left of it" in done.err
    for place in (tmp_path, tmp_path / "no", "/dev/zero"):
        done = alone("ledger", verb, str(place))
        assert (done.code, done.out) == (2, "")
    assert not (tmp_path / "data" / "imports").exists() or not list((tmp_path / "data" / "imports").iterdir())


def test_a_file_that_was_cut_off_is_judged_for_what_it_holds(file: Path, alone: Cli, tmp_path: Path) -> None:
    whole, path = file.read_bytes(), tmp_path / "torn"
    last = alone.ok("ledger", "verify", str(file), "-o", "json").one["end"]
    seen = []
    for part in (0.05, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        done = alone("ledger", "verify", str(path), "-o", "json")
        assert (done.code, done.err) == (1, "")
        report = done.lines[-1]
        after = report["cut_after"]
        seen.append(after)
        assert report["events"] == report["valid"] == after, "they are contiguous from 1"
        missing = [(f["sequence"], f["kind"], f.get("last")) for f in report["findings"]]
        words = alone("ledger", "verify", str(path)).out
        if after < last:
            assert missing == [(after + 1, "missing", last)]
            assert words.endswith(
                f"the file was cut off: it holds the events up to {after}; missing are {after + 1} to {last} "
                "and what stood behind them\n"
            )
        else:
            assert {kind for _, kind, _ in missing} == {"missing"}
            assert words.endswith(f"cut off behind its events: it has all of them, up to {last}\n")
    assert seen == sorted(seen)
    assert 0 < seen[0] < last


def test_without_values_an_import_lacks_them_and_says_so(
    file: Path, cli: Cli, alone: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "small.colonies"
    cli.ok("ledger", "export", str(path), "--no-values")
    assert path.stat().st_size < 200_000
    assert alone.ok("ledger", "verify", str(path), "-o", "json").one["findings"] == []
    alone.ok("ledger", "import", str(path), "--name", "small")
    large = [
        item
        for item in alone.ok("process", "ls", "--context", "small", "-o", "json").lines
        if item["func"] == "repeat"
    ]
    done = alone("process", "get", large[0]["id"], "--context", "small", "-o", "json")
    assert (done.code, done.one["output"]) == (0, None)
    assert "is not in the import" in done.err


def test_colony_is_for_files_only(cli: Cli) -> None:
    done = cli("ledger", "verify", "--colony", "A")
    assert (done.code, done.out) == (2, "")
