"""Logs are believed only if a worker of the colony signed them, and a refused result is shown as refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

from colonies import jetstream, logs, subjects
from colonies.attempt import Attempt
from colonies.core.events import LogDigest
from colonies.creds import Credential
from colonies.session import Session
from tests.cli.conftest import Cli


async def session_of(colony_folder: Path, cli: Cli, name: str) -> Session:
    credential = Credential.read(colony_folder / "home" / f"{name}.creds")
    ledger = await jetstream.connect(cli.ok("context", "get", "-o", "json").one["url"], credential)
    return await Session(ledger, credential.name, credential.keypair).open()


async def test_history_shows_a_late_result_as_refused_outside_the_chain(
    cli: Cli, colony_folder: Path
) -> None:
    id = cli.submit("double", 4, runtimetype="python")
    cli.ok("process", "watch", id)
    session = await session_of(colony_folder, cli, "py1")
    process = await session.process(id)
    attempt = Attempt(session, id, 1, process.attempts[-1].id, process.spec)
    await attempt.note("log.refused", {"event": "process.completed", "reason": "its lease lapsed"})
    last = (await asyncio.to_thread(cli.ok, "process", "history", id, "-o", "json")).lines[-1]
    assert last["sequence"] is None
    assert (last["event"], last["author"], last["attempt"]) == ("process.completed", "py1", 1)
    assert (last["verdict"], last["rule"]) == ("refused", "its lease lapsed")
    shown = await asyncio.to_thread(cli.ok, "process", "history", id)
    assert "refused: its lease lapsed" in shown.out.splitlines()[-1]
    said = await asyncio.to_thread(cli.ok, "process", "logs", id)
    assert "a result was refused: its lease lapsed" in said.err
    await session.close()
    await session.ledger.close()


async def test_a_log_that_its_worker_did_not_sign_is_nothing(cli: Cli, colony_folder: Path) -> None:
    id = cli.submit("chat", 1, runtimetype="python")
    cli.ok("process", "watch", id)
    session = await session_of(colony_folder, cli, "py1")
    other = Credential.read(colony_folder / "home" / "unix1.creds")
    forger = Session(session.ledger, "py1", other.keypair)
    subject = subjects.log(id, "py1")
    entry = {"attempt": "x", "n": 1, "index": 9, "stream": "stdout", "text": "forged\n"}
    now = await session.ledger.now()
    await session.ledger.emit(subject, forger.seal_note(subject, "log.written", now, entry))
    await session.ledger.emit(subject, b"junk")
    await session.ledger.emit(subject, session.seal_note(subject, "log.written", now, {"attempt": "x"}))
    await session.ledger.emit(subject, session.seal_note(subject, "heartbeat", now, entry))
    assert (await asyncio.to_thread(cli.ok, "process", "logs", id)).out == "line 0\n"
    entries = await logs.read_logs(session, id)
    assert [entry.text for entry in entries] == ["line 0\n"]
    await session.close()
    await session.ledger.close()


async def test_a_message_that_was_stored_twice_is_shown_once(cli: Cli, colony_folder: Path) -> None:
    id = cli.submit("chat", 1, runtimetype="python")
    cli.ok("process", "watch", id)
    session = await session_of(colony_folder, cli, "py1")
    (stored,) = await session.ledger.emitted(subjects.logs_of(id))
    await session.ledger.emit(stored.subject, stored.data)
    assert len(await logs.read_logs(session, id)) == 1
    await session.close()
    await session.ledger.close()


async def test_another_worker_cannot_put_its_words_in_the_place_of_a_line(
    cli: Cli, colony_folder: Path
) -> None:
    id = cli.submit("chat", 1, runtimetype="python")
    cli.ok("process", "watch", id)
    squatter = await session_of(colony_folder, cli, "unix1")
    process = await squatter.process(id)
    subject, now = subjects.log(id, "unix1"), await squatter.ledger.now()
    attempt = process.attempts[-1].id
    for index, text in ((0, "mine"), (1, "mine too")):
        entry = {"attempt": attempt, "n": 1, "index": index, "stream": "stdout", "text": f"{text}\n"}
        await squatter.ledger.emit(subject, squatter.seal_note(subject, "log.written", now, entry))
    entries = await logs.read_logs(squatter, id)
    assert [(entry.worker, entry.text) for entry in entries] == [
        ("py1", "line 0\n"),
        ("unix1", "mine\n"),
        ("unix1", "mine too\n"),
    ]
    end = [seen.record for seen in (await squatter.story(id)).judged if seen.record is not None][-1]
    digest = getattr(end.event, "logs", None)
    assert digest is not None
    assert logs.missing(reversed(entries), "py1", attempt, digest) == 0
    await squatter.close()
    await squatter.ledger.close()


def _entry(index: int, sealed: bytes) -> logs.LogEntry:
    return logs.LogEntry(1, 1, "w1", "log.written", "a", 1, index, "log", "", {}, sealed)


def test_what_is_missing_of_a_log_is_counted() -> None:
    import hashlib

    entries = [_entry(0, b"one"), _entry(1, b"two")]
    whole = LogDigest(2, hashlib.sha256(b"onetwo").hexdigest())
    assert logs.missing(entries, "w1", "a", whole) == 0
    assert logs.missing(entries[1:], "w1", "a", whole) == 1
    assert logs.missing([_entry(0, b"ONE"), _entry(1, b"two")], "w1", "a", whole) == -1
    assert logs.missing([*entries, _entry(2, b"a note, later")], "w1", "a", whole) == 0
