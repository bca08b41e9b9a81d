"""The file of the log: what it keeps when views are built anew, LOGS ages and files break, and how much."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import log_store
from colonies_projections.position import Unusable

from colonies import streams, subjects
from colonies.asking import ask_all
from colonies.errand import errand
from tests.harness import RunningColony, until
from tests.projections.helpers import ask, ledger_of, projecting
from tests.projections.logged import Writer, process_of, texts


async def test_projectors_agree_on_the_log_at_every_sequence(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    ledger = ledger_of(client.session)
    one, two = [await colony.session(name, "observer") for name in ("one", "two")]
    async with projecting(one, tmp_path / "1.sqlite"):
        for number in range(5):
            await Writer(session, await process_of(client)).write(f"a\nb{number}", "c\n")
        async with projecting(two, tmp_path / "2.sqlite"):
            last = await ledger.last_sequence()
            sums: list[tuple[int, str]] = []
            for at in (last - 2, last):
                question = {"at": at, "checksums": True}
                answers = await ask_all(ledger, "query.projections", question, wait_s=60, answers=2)
                items = [item for answer in answers for item in answer["items"] if item["view"] == "logs"]
                assert len(items) == 2
                assert {item["counted_at"] for item in items} == {at}
                assert {(item["position"], item["last"], item["lag_events"]) for item in items} == {
                    (10, 10, 0)
                }
                [agreed] = {(item["rows"], item["checksum"]) for item in items}
                sums.append(agreed)
            assert [rows for rows, _ in sums] == [4, 8]
            with closing(sqlite3.connect(tmp_path / "2.sqlite.logs")) as db:
                db.execute("UPDATE logs SET text = 'another' WHERE sequence = 1")
                db.commit()
    changed = log_store.checksum(tmp_path / "2.sqlite.logs", 2**62)
    right = log_store.checksum(tmp_path / "1.sqlite.logs", 2**62)
    assert changed[0] == right[0] == 10
    assert changed[1] != right[1]


async def test_views_built_anew_keep_what_the_stream_lost(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    path = tmp_path / "views.sqlite"
    viewer = await colony.session("viewer", "observer")
    process = await process_of(client)
    writer = Writer(session, process)
    async with projecting(viewer, path) as projector:
        await writer.write("one\n", "two\n")
        assert await texts(client.session) == ["one", "two"]
        await _purge(colony)
        await writer.write("three\n")
        former = projector.build
        projector.rebuild()
        await until(lambda: projector.build not in (None, former), "the swap")
        assert await texts(client.session) == ["one", "two", "three"]
    path.unlink()
    async with projecting(viewer, path):
        assert await texts(client.session) == ["one", "two", "three"]


async def test_a_gap_is_no_error(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    writer = Writer(await colony.session("w1", "worker"), await process_of(client))
    viewer = await colony.session("viewer", "observer")
    async with projecting(viewer, tmp_path / "views.sqlite"):
        await writer.write("one\n")
        assert await texts(client.session) == ["one"]
    await writer.write("two\n", "three\n")
    await _purge(colony)
    async with projecting(viewer, tmp_path / "views.sqlite") as projector:
        assert await texts(client.session) == ["one"]
        assert projector.logs.store is not None
        assert projector.logs.store.position == 3
        await writer.write("four\n")
        assert await texts(client.session) == ["one", "four"]


async def _purge(colony: RunningColony) -> None:
    """What the age limit does, at once; with the rights of whoever runs the broker."""
    await _told(colony, f"$JS.API.STREAM.PURGE.{subjects.LOGS}")


async def _told(colony: RunningColony, subject: str) -> None:
    async with errand(colony.url, colony.keyring.owner.admin_credential(), wait_s=10) as tell:
        assert "error" not in json.loads(await tell(subject, b""))


async def test_another_stream_begins_another_file_and_the_former_is_set_aside(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    writer = Writer(await colony.session("w1", "worker"), await process_of(client))
    viewer = await colony.session("viewer", "observer")
    async with projecting(viewer, tmp_path / "views.sqlite"):
        await writer.write("one\n", "two\n")
        assert await texts(client.session) == ["one", "two"]
        await _told(colony, f"$JS.API.STREAM.DELETE.{subjects.LOGS}")
        await streams.create(colony.url, colony.keyring.owner.admin_credential())
        await writer.write("three\n")
        assert await texts(client.session) == ["three"]
    aside = tmp_path / "views.sqlite.logs.old"
    with closing(sqlite3.connect(aside)) as db:
        assert db.execute("SELECT text FROM logs").fetchall() == [("one\n",), ("two\n",)]


async def test_it_follows_a_broker_that_was_killed_and_started_again(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        writer = Writer(session, await process_of(client))
        await writer.write("one\n")
        assert await texts(client.session) == ["one"]
        await colony.kill_broker()
        await colony.restart_broker()
        await process_of(client)
        await writer.write("two\n")
        assert await texts(client.session) == ["one", "two"]
    assert not (tmp_path / "views.sqlite.logs.old").exists()


def _garbage(path: Path) -> None:
    path.write_bytes(b"x" * 10_000)


def _other_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE logs_state SET version = 99")
        db.commit()


def _no_index(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE logs_text")
        db.commit()


@pytest.mark.parametrize("harm", [_garbage, _other_version, _no_index])
async def test_a_file_that_cannot_be_gone_on_with_is_set_aside_and_read_anew(
    colony: RunningColony, tmp_path: Path, harm: Any
) -> None:
    client = await colony.client()
    writer = Writer(await colony.session("w1", "worker"), await process_of(client))
    viewer = await colony.session("viewer", "observer")
    path = tmp_path / "views.sqlite"
    async with projecting(viewer, path):
        await writer.write("one\n")
        assert await texts(client.session) == ["one"]
    harm(tmp_path / "views.sqlite.logs")
    async with projecting(viewer, path):
        await writer.write("two\n")
        async with asyncio.timeout(30):
            while (await ask(client.session, "logs")).get("kind") == "behind":
                pass
        assert await texts(client.session) == ["one", "two"]
    assert (tmp_path / "views.sqlite.logs.old").exists()


def message(n: int, text: str = "some text of \x1b[1mmessage\x1b[0m {}\n") -> log_store.Message:
    said = text.format(n)
    return log_store.Message(n, "p", "w", "a", 1, "stdout", n, n, said, "train", None)


def said(store: log_store.LogStore, words: str) -> list[str]:
    found, _ = store.find(log_store.Wanted(words, None, None, None, True, 1_000))
    return [line.text for line in found]


def test_the_oldest_messages_make_room(tmp_path: Path) -> None:
    size = 40 * (log_store.MESSAGE_BYTES + 30)
    store = log_store.LogStore.open(tmp_path / "logs", "colony", size)
    for start in range(1, 200, 10):
        store.take_in(start + 9, [message(n) for n in range(start, start + 10)])
    found = said(store, "words : some")
    assert 30 < len(found) <= 42
    assert found == [f"some text of \x1b[1mmessage\x1b[0m {200 - n}" for n in range(len(found))]
    assert said(store, "about : all") == found
    store.close()
    with closing(sqlite3.connect(tmp_path / "logs")) as db:
        [(kept,)] = db.execute("SELECT sum(bytes) FROM logs")
        assert db.execute("SELECT bytes FROM logs_state").fetchall() == [(kept,)]
        assert kept <= size
        db.execute("INSERT INTO logs_text (logs_text) VALUES ('integrity-check')")
        indexed = db.execute("SELECT count(*) FROM logs_text WHERE logs_text MATCH 'message'").fetchone()
    assert indexed == (len(found),)


@pytest.mark.parametrize(
    ("stream", "last", "same"),
    [("a", 7, True), ("a", 8, True), ("a", 6, False), ("b", 7, False), ("b", 90, False)],
)
def test_a_stream_is_the_same_if_it_was_made_then_and_is_no_shorter(
    tmp_path: Path, stream: str, last: int, same: bool
) -> None:
    store = log_store.LogStore.open(tmp_path / "logs", "colony")
    store.confirm("a", 7)
    store.take_in(7, [message(7)])
    store.close()
    store = log_store.LogStore.open(tmp_path / "logs", "colony")
    with contextlib.nullcontext() if same else pytest.raises(Unusable, match="LOGS is another one"):
        store.confirm(stream, last)
    store.close()


def test_sources_that_have_no_message_left_go_as_well(tmp_path: Path) -> None:
    store = log_store.LogStore.open(tmp_path / "logs", "colony", 5 * log_store.MESSAGE_BYTES)
    for n in range(1, 50):
        part = {**{f: getattr(message(n), f) for f in message(n).__dataclass_fields__}, "process": f"p{n}"}
        store.take_in(n, [log_store.Message(**part)])
    store.close()
    with closing(sqlite3.connect(tmp_path / "logs")) as db:
        assert db.execute("SELECT count(*) FROM logs_sources").fetchone()[0] <= 5


def test_an_answer_reads_a_bounded_part_of_large_messages(tmp_path: Path) -> None:
    store = log_store.LogStore.open(tmp_path / "logs", "colony")
    large = "word\n" + "x" * 900_000 + "\n"
    store.take_in(40, [message(n, large) for n in range(1, 41)])
    seen: list[int] = []
    after = None
    while True:
        found, more = store.find(log_store.Wanted("words : word", None, None, after, True, 1_000))
        assert 0 < len(found) < 25
        seen += [line.message["sequence"] for line in found]
        after = found[-1].hit
        if not more:
            break
    assert seen == list(range(40, 0, -1))
    store.close()


async def test_a_search_as_long_as_a_question_may_be_is_answered(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        await Writer(session, await process_of(client)).write("a a a a")
        assert await texts(client.session, f'"{"a " * 8_000}"') == []
        assert await texts(client.session, f"{'a.' * 8_000}") == []
        assert await texts(client.session, " ".join(["aa*"] * 32)) == []
