"""`colonies ledger`: everything that was said, verified."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from colonies_cli.ledger import finding_object

from colonies import codec
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


def test_tail_f_goes_on_with_what_comes(cli: Cli) -> None:
    tail = cli.start("ledger", "tail", "-f", "-o", "json")
    assert tail.stdout is not None
    tail.stdout.readline()
    id = cli.submit("nobody", runtimetype="nothing-serves-this")
    while id not in tail.stdout.readline():
        pass
    tail.kill()
    tail.communicate()


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
