"""Logs and searches as nobody in good faith would write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from colonies_projections import log_lines

from colonies import founding, subjects
from colonies.errand import errand
from colonies.ids import new_id
from colonies.session import Session
from tests.harness import RunningColony
from tests.projections.helpers import ask, projecting
from tests.projections.logged import Writer, all_items, process_of, search, texts


async def test_what_no_worker_signed_at_that_time_is_counted_and_left_out(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    one, two = [await colony.session(name, "worker") for name in ("w1", "w2")]
    process = await process_of(client)
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite") as projector:
        honest = Writer(one, process)
        await honest.write("honest\n")
        subject = subjects.log(process, "w1")
        junk = {"attempt": honest.attempt, "n": 1, "index": 9, "stream": "stdout", "text": "forged\n"}
        forger = Session(one.ledger, "w1", two.keypair)
        elsewhere = one.seal_note(subjects.log("X" * 26, "w1"), "log.written", 1, junk)
        for data in (
            forger.seal_note(subject, "log.written", 1, junk),
            b"junk",
            b"",
            elsewhere,
            one.seal_note(subject, "log.written", 1, {**junk, "index": -1}),
            one.seal_note(subject, "log.written", 1, {**junk, "text": 7}),
            one.seal_note(subject, "heartbeat", 1, junk),
        ):
            await one.ledger.emit(subject, data)
        await Writer(one, new_id()).write("of no process\n")
        await one.ledger.emit(subjects.log("a", "w1"), b"x")
        assert await texts(client.session) == ["honest"]
        assert projector.logs.store is not None
        assert projector.logs.store.left_out == 9
        squatter = Writer(two, process, honest.attempt)
        await squatter.write("mine\n", "mine too\n")
        await honest.write("second\n")
        found = [(item["worker"], item["text"]) for item in reversed(await search(client.session))]
        assert found == [("w1", "honest"), ("w2", "mine"), ("w2", "mine too"), ("w1", "second")]


async def test_what_a_worker_wrote_before_it_was_revoked_stays_and_nothing_comes_after(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    viewer = await colony.session("viewer", "observer")
    writer = Writer(session, await process_of(client))
    await writer.write("before\n")
    await viewer.close()  # it hears of nothing from now on, and must look
    await founding.revoke(colony.owner, "w1")
    # What its key signed by then, stored later by whoever may publish there.
    subject = subjects.log(writer.process, "w1")
    late = {"attempt": writer.attempt, "n": 1, "index": 7, "stream": "stdout", "text": "after\n"}
    sealed = session.seal_note(subject, "log.written", 1, late)
    async with errand(colony.url, colony.keyring.owner.admin_credential(), wait_s=10) as tell:
        assert "error" not in json.loads(await tell(subject, sealed))
    async with projecting(viewer, tmp_path / "views.sqlite") as projector:
        assert await texts(client.session) == ["before"]
        assert projector.logs.store is not None
        assert projector.logs.store.left_out == 1


async def test_a_message_that_was_stored_twice_is_there_once(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        writer = Writer(session, await process_of(client))
        for text in ("one\n", "two, brok", "en off\n"):
            sealed = await writer.write(text)
            for _ in range(3):
                await session.ledger.emit(subjects.log(writer.process, "w1"), sealed)
        assert await texts(client.session) == ["one", "two, broken off"]


ODD = (
    "\x1b[31mred\x1b[0m",
    "nul\x00nul",
    "a\u2028b",
    "\ufeffbom",
    "emoji \U0001f600 word",
    "o\u0308 nfd",
    "  x  ",
)


async def test_odd_characters_come_back_as_they_are(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        await Writer(session, await process_of(client)).write("\n".join(ODD) + "\n\n \n\t\n")
        assert await texts(client.session) == list(ODD)
        for word, line in (("red", 0), ("nul", 1), ("word", 4), ("ö", 5)):
            assert ODD[line] in await texts(client.session, word), word


async def test_long_lines_are_found_in_pieces_that_fit_an_answer(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        writer = Writer(session, await process_of(client))
        await writer.write("needle " + "x" * 900_000 + " pin\n")
        await writer.write("".join(f"{n}\n" for n in range(100_000)))
        await writer.write(*["many words in a row " * 300] * 20)
        for word in ("needle", "pin"):
            [found] = await texts(client.session, word)
            assert len(found) <= log_lines.MAX_LINE_CHARS
        found = [item["text"] for item in await all_items(client.session)]
        assert max(map(len, found)) <= log_lines.MAX_LINE_CHARS
        assert "".join(found).count("x") == 900_000
        assert found.count("16382") == 1
        assert "20000" not in found
        assert "".join(found).replace(" ", "").count("manywordsinarow") == 6_000


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('"', "a quote is not closed"),
        ('a "b', "a quote is not closed"),
        ("-", "words of letters or digits"),
        ("- *", "words of letters or digits"),
        ("a*", "at least 2 letters or digits before a *"),
        ('""', "words of letters or digits"),
        (" ", "words of letters or digits"),
        ("", "words of letters or digits"),
        ("word " * 33, "at most 32 words; there are 33"),
        ("half \ud800", "half a character"),
        ("\x00", "words of letters or digits"),
        ("\x1b[31m", "words of letters or digits"),
    ],
)
async def test_a_search_that_makes_no_sense_is_refused(
    colony: RunningColony, tmp_path: Path, text: str, right: str
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        answer = await ask(client.session, "logs", text=text)
        assert answer["kind"] == "invalid"
        assert right in answer["error"]


LITERAL = (
    *(
        "NEAR(a b)",
        "words:secret",
        "words : x",
        "a OR b",
        "NOT x",
        "a AND b",
        "^start",
        "a + b",
        "{words}: x",
    ),
    *(
        "x'; DROP TABLE logs; --",
        "(",
        "about:all",
        "-words : x",
        "a\x00b",
        "\x1b[31mred",
        "'",
        "\\",
        "%",
        "a_b",
        "1.0e-4",
    ),
)


async def test_what_the_index_has_a_meaning_for_is_taken_literally(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        await Writer(session, await process_of(client)).write("\n".join(LITERAL))
        for said in LITERAL:
            answer = await ask(client.session, "logs", text=said)
            if not any(char.isalnum() for char in said):
                assert answer["kind"] == "invalid", said
                continue
            assert said in [item["text"] for item in answer["items"]], said
