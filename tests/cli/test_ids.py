"""Ids of processes and workflows by their beginning: looked up, refused where several begin so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.harness import RunningColony, running_colony


def alike(one: str, other: str) -> int:
    """How many characters they begin with together."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def beginning(id: str, others: list[str]) -> str:
    """The shortest beginning that is of this id only."""
    return id[: max(4, *(alike(id, other) + 1 for other in others if other != id))]


def of(cli: Cli, noun: str) -> list[str]:
    return cli.ok(noun, "ls", "--all", "-o", "name").out.split()


def flow(cli: Cli) -> str:
    node = {"name": "only", "func": "echo", "conditions": {"runtimetype": "nobody"}}
    given = json.dumps({"nodes": [node]})
    return cli.ok("workflow", "submit", "--spec", "-", "-o", "name", stdin=given).out.strip()


def test_each_command_of_a_process_takes_the_beginning_of_its_id(cli: Cli) -> None:
    cli.submit("echo", "other")
    id = cli.submit("echo", "told")
    cli("process", "watch", id)
    short = beginning(id, of(cli, "process"))
    assert len(short) < 26
    assert cli.get(short)["id"] == id
    for verb in ("history", "why", "logs", "watch"):
        assert cli.ok("process", verb, short).out == cli.ok("process", verb, id).out
    assert cli.ok("log", "search", "--process", short, "-o", "json").one["process"] == id
    told = cli.ok("ledger", "tail", "--filter", f"process={short}", "-o", "json").lines
    assert {event["entity"] for event in told} == {f"process {id}"}
    waits = cli.submit("await-me", runtimetype="nobody")
    short = beginning(waits, of(cli, "process"))
    assert cli.ok("process", "signal", short, "go").out == f"process {waits} was sent go\n"
    assert cli.ok("process", "cancel", short).out == f"process {waits} cancelled\n"
    again = cli.ok("process", "rerun", short).out
    assert again.startswith(f"{waits} -> ")
    new = again.split()[-1]
    both = [beginning(one, of(cli, "process")) for one in (new, waits)]
    assert cli.ok("process", "cancel", *both).out == "2 processes: 1 cancelled, 1 left as they are\n"


def test_upper_or_lower_case_counts_for_nothing(cli: Cli) -> None:
    id = cli.submit("echo", "cased")
    spec = json.dumps({"func": "echo", "conditions": {"runtimetype": "cli"}})
    submit = ("process", "submit", "--spec", "-", "--key", "cased", "-o", "name")
    keyed = cli.ok(*submit, stdin=spec).out.strip()
    ids = of(cli, "process")
    assert cli.get(beginning(id, ids).lower())["id"] == id
    assert cli.get(id.lower())["id"] == id
    letters = next(n for n, letter in enumerate(keyed) if letter.isalpha())
    short = keyed[: max(len(beginning(keyed, ids)), letters + 1)].upper()
    assert cli.get(keyed.upper())["id"] == keyed
    if not keyed[0].isdigit():  # else it may be that of a ULID
        assert cli.get(short)["id"] == keyed
    told = cli.ok("ledger", "tail", "--filter", f"process={id.lower()}", "-o", "json").lines
    assert {event["entity"] for event in told} == {f"process {id}"}


def test_an_id_of_the_other_noun_is_named(cli: Cli) -> None:
    workflow, process = flow(cli), cli.submit("echo", "named")
    for verb in ("get", "watch", "why", "logs", "history", "cancel", "rerun"):
        done = cli("process", verb, workflow)
        assert done.code == 5, done
        assert f"that is a workflow; `colonies workflow get {workflow}` shows it" in done.err
    for verb in ("get", "history", "why", "cancel", "rerun"):
        done = cli("workflow", verb, process)
        assert done.code == 5, done
        assert f"that is a process; `colonies process get {process}` shows it" in done.err
    cli.ok("workflow", "cancel", workflow)


def test_each_command_of_a_workflow_takes_the_beginning_of_its_id(cli: Cli) -> None:
    id = flow(cli)
    short = beginning(id, [*of(cli, "workflow"), "0000"])
    assert cli.ok("workflow", "get", short, "-o", "json").one["id"] == id
    for verb in ("history", "why"):
        assert cli.ok("workflow", verb, short).out == cli.ok("workflow", verb, id).out
    assert cli.ok("workflow", "signal", short, "go").out == f"workflow {id} was sent go\n"
    [node] = cli.ok("process", "ls", "--workflow", short, "-o", "json").lines
    assert node["workflow"] == id
    assert cli.ok("process", "why", node["id"][:8]).out == cli.ok("process", "why", node["id"]).out
    assert cli.ok("workflow", "cancel", short).out == f"workflow {id} cancelled\n"
    again = cli.ok("workflow", "rerun", short).out
    assert again.endswith(f" runs {id} again\n")
    cli.ok("workflow", "cancel", again.split()[1])


def test_several_that_begin_so_are_listed_and_nothing_is_done(cli: Cli) -> None:
    ids = [cli.submit("one-of-many", runtimetype="nobody", name="many") for _ in range(11)]
    some = cli("process", "cancel", ids[0][:4])
    assert (some.code, some.out) == (2, "")
    first, *listed = some.err.splitlines()
    assert first == (
        f"colonies: ID: more than 10 processes begin with {ids[0][:4]}; give more of the one that is meant:"
    )
    assert len(listed) == 10
    assert all(" waiting " in line and "one-of-many" in line for line in listed)
    assert {line.split()[1] for line in listed} < set(ids)
    both = ids[0][: alike(*ids[:2])]
    if len(both) < 25:
        few = cli("process", "get", both)
        assert few.code == 2
        assert all(id in few.err for id in ids if id.startswith(both)) or "more than 10" in few.err
    assert cli.ok("process", "cancel", *ids).out == "11 processes: 11 cancelled, 0 left as they are\n"


def test_none_is_not_found_and_what_the_other_noun_has_is_named(cli: Cli) -> None:
    nothing = cli("process", "get", "7ZZZZZ")
    assert (nothing.code, nothing.out) == (5, "")
    assert nothing.err == "colonies: no process begins with 7ZZZZZ; see `colonies process ls`\n"
    id = flow(cli)
    short = beginning(id, [*of(cli, "process"), *of(cli, "workflow")])
    other = cli("process", "why", short)
    assert other.code == 5
    assert (
        f"no process begins with {short}, but the workflow {id} does: see `colonies workflow get {id}`"
        in (other.err)
    )
    cli.ok("workflow", "cancel", id)


@pytest.mark.parametrize("given", ["a", "01J", "ab.d", "a*cd"])
def test_what_is_no_beginning_is_refused(cli: Cli, given: str) -> None:
    done = cli("process", "get", given)
    assert (done.code, done.out) == (2, "")
    assert "ID: " in done.err
    assert "allowed: " in done.err


def test_a_beginning_is_looked_up_as_it_was(cli: Cli) -> None:
    before = str(cli.last_sequence())
    id = cli.submit("echo", "later")
    short = beginning(id, of(cli, "process"))
    assert cli("process", "get", short, "--at", before).code == 5
    there = str(cli.ok("process", "history", id, "-o", "json").lines[0]["sequence"])
    assert cli.ok("process", "get", short, "--at", there, "-o", "json").one["state"] == "waiting"


async def test_a_whole_id_needs_no_projector_and_a_beginning_says_what_to_start(
    tmp_path: Path,
) -> None:
    async with running_colony(tmp_path / "colony") as colony:
        await _asked_without_a_projector(colony, tmp_path)


async def _asked_without_a_projector(colony: RunningColony, tmp_path: Path) -> None:
    credential = await colony.credential("zoe", "user")
    client = await colony.client()
    id = (await client.submit({"func": "f", "conditions": {"runtimetype": "nobody"}})).id
    cli = Cli(tmp_path, {"COLONIES_URL": colony.url, "COLONIES_CREDS": str(credential)})
    whole = await asyncio.to_thread(cli, "process", "get", id, "-o", "name")
    assert (whole.code, whole.out) == (0, f"{id}\n")
    short = await asyncio.to_thread(cli, "process", "get", id[:8])
    assert (short.code, short.out) == (6, "")
    assert short.err == (
        f"colonies: {id[:8]} is the beginning of an id, which is looked up in the views, and no projector "
        "answers; start one: `colonies dev` runs it, or `colonies server start --only projector`; a whole id "
        "needs none\n"
    )
