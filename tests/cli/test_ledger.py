"""`colonies ledger`: everything that was said, verified."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from colonies_cli.ledger import finding_object

from colonies import codec, founding
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.verify import Finding
from tests.cli.conftest import Cli
from tests.harness import running_colony

FIELDS = {"sequence", "time", "event", "entity", "author", "attempt", "verdict", "rule", "detail"}


def test_tail_shows_every_event_from_a_sequence_on(cli: Cli) -> None:
    id = cli.submit("true")
    cli.ok("process", "watch", id)
    events = cli.ok("ledger", "tail", "--from", "1", "-o", "json").lines
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert all(set(event) == FIELDS for event in events)
    assert events[0]["event"] == "colony.genesis"
    assert {event["verdict"] for event in events} == {"valid"}
    own = [(event["event"], event["attempt"]) for event in events if event["entity"] == f"process {id}"]
    assert own == [("process.queued", None), ("process.assigned", 1), ("process.completed", 1)]
    last = cli.ok("ledger", "tail", "--from", str(len(events)), "-o", "json").lines
    assert last[0] == events[-1]


def test_tail_shows_the_last_twenty_by_default(cli: Cli) -> None:
    assert len(cli.ok("ledger", "tail", "-o", "json").lines) <= 20
    assert len(cli.ok("ledger", "tail").out.splitlines()) <= 21


def test_tail_shows_the_last_so_many(cli: Cli) -> None:
    everything = cli.ok("ledger", "tail", "--from", "1", "-o", "json").lines
    assert len(everything) > 7
    for number in (1, 3, 7):
        assert cli.ok("ledger", "tail", "-n", str(number), "-o", "json").lines == everything[-number:]
    assert cli.ok("ledger", "tail", "--last", "10000", "-o", "json").lines == everything
    assert cli.ok("ledger", "tail", "-n", "0", "-o", "json").lines == []
    members = [event for event in everything if event["event"].startswith("member.")]
    found = cli.ok("ledger", "tail", "-n", "2", "--filter", "member", "-o", "json").lines
    assert found == members[-2:]
    both = cli("ledger", "tail", "-n", "2", "--from", "1")
    assert (both.code, both.out) == (2, "")
    assert "-n and --from: both say where to begin" in both.err
    with cli.start("ledger", "tail", "-f", "-n", "1", "-o", "json") as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline()) == everything[-1]
        cli.submit("echo", runtimetype="nobody")
        assert json.loads(following.stdout.readline())["sequence"] == everything[-1]["sequence"] + 1
        following.kill()


def test_tail_begins_at_a_sequence_a_time_or_an_age(cli: Cli) -> None:
    first = cli.submit("nobody", runtimetype="nothing-serves-this")
    second = cli.submit("nobody", runtimetype="nothing-serves-this")
    everything = cli.ok("ledger", "tail", "--from", "1", "-o", "json").lines
    (begun,) = [e for e in everything if first in e["entity"]]
    (other,) = [e for e in everything if second in e["entity"]]
    for start in (str(begun["sequence"]), begun["time"]):
        assert cli.ok("ledger", "tail", "--from", start, "-o", "json").lines[0] == begun
    just_after = datetime.fromisoformat(begun["time"]) + timedelta(microseconds=1)
    later = cli.ok("ledger", "tail", "--from", just_after.isoformat(), "-o", "json").lines[0]
    assert begun["sequence"] < later["sequence"] <= other["sequence"]
    assert cli.ok("ledger", "tail", "--from", "365d", "-o", "json").lines[:2] == everything[:2]
    for start, said in (
        ("0", "--from: there is no sequence 0; the ledger has those from 1 to"),
        ("99999999", "--from: there is no sequence 99999999"),
        ("2990-01-01", "--from: 2990-01-01 is in the future; -f waits for what comes"),
        ("late", "--from: 'late' is no moment; allowed: a sequence, such as 120; a time"),
    ):
        done = cli("ledger", "tail", "--from", start)
        assert (done.code, done.out) == (2, ""), done
        assert said in done.err


def test_tail_filters_by_type_and_kind_author_process_workflow_and_verdict(cli: Cli) -> None:
    id = cli.submit("false")
    assert cli("process", "watch", id).code == 3
    spec = '[{"name": "a", "func": "true", "conditions": {"runtimetype": "cli"}}]'
    flow = cli.ok("workflow", "submit", "--spec", "-", "-o", "name", stdin=spec).out.strip()
    cli.ok("workflow", "get", flow, "--watch")

    def tail(*filters: str) -> list[Any]:
        given = [word for text in filters for word in ("--filter", text)]
        found = cli.ok("ledger", "tail", "--from", "1", "-o", "json", *given).lines
        assert [e["sequence"] for e in found] == sorted({e["sequence"] for e in found})
        return found

    everything = tail()
    assert [e["event"] for e in tail(f"process={id}")] == [
        "process.queued",
        "process.assigned",
        "process.failed",
    ]
    assert tail("process.failed") == [e for e in everything if e["event"] == "process.failed"]
    assert tail("member", "colony.genesis") == [
        e for e in everything if e["event"].startswith("member.") or e["event"] == "colony.genesis"
    ]
    assert tail("author=ann", "author=bob", "process") == [
        e for e in everything if e["author"] in ("ann", "bob") and e["event"].startswith("process.")
    ]
    assert [e["event"] for e in tail(f"workflow={flow}")] == [
        "workflow.submitted",
        "process.released",
        "process.assigned",
        "process.completed",
    ]
    assert tail("verdict=void", "verdict=quarantined") == []
    assert tail("verdict=valid") == everything
    assert cli.ok("ledger", "tail", "--filter", "process.failed", "-o", "json").lines[-1]["author"] == "unix1"
    for wrong, said in (
        (
            "process.broken",
            "--filter: type: 'process.broken' is no type of event; allowed: process, process.",
        ),
        ("auther=ann", "--filter: 'auther=ann': there is no filter 'auther'; allowed: a type of event, such"),
        ("verdict=bad", "--filter: verdict: 'bad' is no verdict; allowed: valid, void, quarantined"),
        ("process=*", "--filter: process: '*' is not allowed as a name"),
        ("author=", "--filter: author: '' is not allowed as a name"),
    ):
        done = cli("ledger", "tail", "--filter", wrong)
        assert (done.code, done.out) == (2, ""), done
        assert said in done.err


def test_tail_looks_back_for_the_last_twenty_that_fit(cli: Cli) -> None:
    early = [cli.submit("early", runtimetype="nothing-serves-this") for _ in range(2)]
    last = cli.last_sequence()
    ids = json.dumps({"func": "x", "conditions": {"runtimetype": "nothing-serves-this"}})
    for _ in range(25):
        cli.ok("process", "submit", "--spec", "-", stdin=ids)
    both = [word for id in early for word in ("--filter", f"process={id}")]
    found = cli.ok("ledger", "tail", "-o", "json", *both).lines
    assert [e["entity"] for e in found] == [f"process {id}" for id in early]
    assert found[-1]["sequence"] == last
    many = cli.ok("ledger", "tail", "-o", "json", "--filter", "process.queued").lines
    assert len(many) == 20
    assert many[-1]["sequence"] == cli.last_sequence()


def test_tail_prints_cloudevents(cli: Cli) -> None:
    id = cli.submit("echo", "hello")
    cli.ok("process", "watch", id)
    found = cli.ok("ledger", "tail", "-o", "json", "--cloudevents", "--filter", f"process={id}").lines
    assert [event["type"] for event in found] == [
        "colonies.process.queued",
        "colonies.process.assigned",
        "colonies.process.completed",
    ]
    for event in found:
        assert (event["specversion"], event["subject"]) == ("1.0", f"process/{id}")
        assert int(event["sequence"]) == int(event["id"])
    assert found[0]["data"]["spec"]["args"] == ["hello"]
    refused = cli("ledger", "tail", "--cloudevents")
    assert (refused.code, refused.out) == (2, "")
    assert "--cloudevents: they are JSON; give -o json as well" in refused.err


def test_tail_f_goes_on_with_what_comes(cli: Cli) -> None:
    tail = cli.start("ledger", "tail", "-f", "-o", "json")
    assert tail.stdout is not None
    tail.stdout.readline()
    id = cli.submit("nobody", runtimetype="nothing-serves-this")
    while id not in tail.stdout.readline():
        pass
    tail.kill()
    tail.communicate()


async def test_tail_f_outlives_its_broker_and_ends_when_its_member_is_revoked(tmp_path: Path) -> None:
    async with running_colony(tmp_path / "home", orchestrate=False) as colony:
        desk, ready = await colony.session("desk", "observer"), asyncio.Event()
        ready.set()
        await colony._start(founding.Operator(desk, colony.keyring.operator, colony.url).run(), ready)
        creds = await colony.credential("ann", "user")
        cli = Cli(tmp_path, {"COLONIES_URL": colony.url, "COLONIES_CREDS": str(creds)})
        tail = cli.start("ledger", "tail", "--from", "1", "-f", "-o", "json")
        assert tail.stdout is not None
        lines = [await asyncio.to_thread(tail.stdout.readline)]
        await colony.kill_broker()
        await colony.restart_broker()
        client = await colony.client("bob")
        handle = await client.submit({"func": "x", "conditions": {"runtimetype": "cli"}})
        while handle.id not in lines[-1]:
            lines.append(await asyncio.to_thread(tail.stdout.readline))
        await founding.revoke(colony.owner, "ann", "left")
        rest, said = await asyncio.to_thread(tail.communicate)
        sequences = [json.loads(line)["sequence"] for line in [*lines, *rest.splitlines()]]
        assert sequences == list(range(1, len(sequences) + 1))
        assert tail.returncode == 4, said
        assert "the broker closed the connection of ann for good" in said


def test_verify_counts_every_event_and_finds_nothing_in_a_sound_ledger(cli: Cli) -> None:
    report = cli.ok("ledger", "verify", "-o", "json").one
    assert report["events"] == report["valid"] == report["last_sequence"] > 0
    assert report["findings"] == []
    done = cli.ok("ledger", "verify")
    assert done.out.endswith("valid, no findings\n")
    assert done.err == ""


async def test_verify_and_tail_name_what_is_quarantined(tmp_path: Path) -> None:
    async with running_colony(tmp_path / "home", orchestrate=False) as colony:
        client = await colony.client("ann")
        handle = await client.submit({"func": "x", "conditions": {"runtimetype": "cli"}})
        bad = await _signed_by_nobody(client, handle.id)
        creds = tmp_path / "home" / "ann.creds"
        cli = Cli(tmp_path, {"COLONIES_URL": colony.url, "COLONIES_CREDS": str(creds)})
        done = await asyncio.to_thread(cli, "ledger", "verify", "-o", "json")
        *findings, report = done.lines
        assert done.code == 1
        assert findings == report["findings"]
        assert [finding["sequence"] for finding in findings] == [bad]
        assert (report["events"], report["valid"]) == (bad, bad - 1)
        table = await asyncio.to_thread(cli, "ledger", "verify")
        assert table.code == 1
        assert findings[0]["rule"] in table.out
        for arguments in (("ledger", "tail"), ("process", "history", handle.id)):
            shown = (await asyncio.to_thread(cli, *arguments, "-o", "json")).lines[-1]
            assert (shown["sequence"], shown["verdict"], shown["author"]) == (bad, "quarantined", None)
            assert shown["rule"]


async def test_verify_finds_a_ledger_that_lost_its_tail_since_the_last_time(tmp_path: Path) -> None:
    async with running_colony(tmp_path / "home", orchestrate=False) as colony:
        client = await colony.client("ann")
        creds = tmp_path / "home" / "ann.creds"
        cli = Cli(tmp_path, {"COLONIES_URL": colony.url, "COLONIES_CREDS": str(creds)})
        await client.submit({"func": "x", "conditions": {"runtimetype": "cli"}})
        assert (await asyncio.to_thread(cli, "ledger", "verify")).code == 0
        (memory,) = (tmp_path / "data").rglob(f"{colony.owner.ledger.colony}.json")
        seen = memory.read_text()
        last = await client.ledger.last_sequence()
        memory.write_text(seen.replace(f'"sequence": {last}', f'"sequence": {last + 1}'))
        done = await asyncio.to_thread(cli, "ledger", "verify", "-o", "json")
        assert done.code == 1
        assert done.lines[0]["sequence"] == last + 1
        assert (await asyncio.to_thread(cli, "ledger", "verify", "--from-start")).code == 0


async def _signed_by_nobody(client: object, process: str) -> int:
    """Store a cancellation whose signature is wrong, in ann's own subject; its sequence."""
    session = client.session  # type: ignore[attr-defined]
    story = await session.story(process)
    from colonies.core.events import Cancelled

    subject, sealed = session.seal(
        Cancelled("forged"), process, prev=story.process.head, id=new_id(), now=await session.ledger.now()
    )
    opened = codec.open_(session.ledger.colony, subject, sealed.data)
    data = sealed.data.replace(opened.signature, os.urandom(64))
    return int(await session.ledger.append(Draft(subject, data, story.guard)))


def test_a_long_run_of_missing_sequences_says_where_it_ends() -> None:
    one = finding_object(Finding(7, "missing", "gone"))
    assert one == {"sequence": 7, "kind": "missing", "rule": "gone", "subject": None, "author": None}
    assert finding_object(Finding(7, "missing", "gone", last=9_000)) == {**one, "last": 9_000}
