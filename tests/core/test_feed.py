"""The feed judges from anywhere as a reader of everything does: on the vectors' ledger, which has every event
and rule. And what is made of each event for other programs can be JSON, whatever is in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies import feed, show_event, subjects
from colonies.core.colony import Colony
from colonies.errors import Invalid
from colonies.history import History, Judged
from colonies.ledger import Stored
from colonies.listening import Wanted
from colonies.memory_ledger import MemoryBroker, MemoryLedger
from colonies.nkeys import KeyPair
from colonies.session import Session
from tests.vectors.making import FOLDER

TOLD = json.loads((FOLDER / "ledger.json").read_text(encoding="utf-8"))
RUNS = {
    row["subject"].split(".")[2] for row in TOLD["messages"] if re.search(r"generator|arguments", row["rule"])
}
DONE = "process.completed"
ATTRIBUTES = {
    *("specversion", "id", "source", "type", "subject", "time", "sequence", "eventid", "author", "verdict"),
    *("rule", "datacontenttype", "data"),
}


def messages() -> list[Stored]:
    return [
        Stored(row["subject"], row["sequence"], row["time"], bytes.fromhex(row["data"]))
        for row in TOLD["messages"]
    ]


@pytest.fixture(scope="module")
def whole() -> list[Judged]:
    """Each message, judged by who reads everything from the first on."""
    history = History(Colony(TOLD["colony"]))
    return [history.add(stored) for stored in messages()]


def add(broker: MemoryBroker, one: Stored) -> None:
    broker.store(one.subject, one.data)
    broker.events[-1] = one
    if (guard := subjects.guard_if_any(one.subject)) is not None:
        broker._entities[guard][-1] = one


def session_on(stored: list[Stored]) -> Session:
    """A session on a ledger in memory that holds these, with their times, which may go back."""
    broker = MemoryBroker(TOLD["colony"])
    for one in stored:
        add(broker, one)
    return Session(MemoryLedger(broker), "reader", KeyPair.new("user"))


def verdict_of(seen: Judged) -> tuple[str, str]:
    """Its kind and rule. Where a generator's run breaks two rules, who reads later may name the other."""
    entity = seen.stored.subject.partition(".workflow.")[2].partition(".")[0]
    return seen.verdict.kind, "" if entity in RUNS else seen.verdict.rule


async def verdicts(session: Session, after: int, **options: Any) -> dict[int, tuple[str, str]]:
    return {
        told.seen.stored.sequence: verdict_of(told.seen)
        async for told in feed.tell(session, after, live=False, **options)
    }


async def test_from_every_position_the_verdicts_are_those_of_who_read_everything(whole: list[Judged]) -> None:
    session = await session_on(messages()).open()
    expected = {seen.stored.sequence: verdict_of(seen) for seen in whole}
    assert {kind for kind, _ in expected.values()} == {"valid", "void", "quarantined"}
    for after in (*range(0, len(whole), 23), len(whole) - 1, len(whole)):
        found = await verdicts(session, after)
        assert list(found) == list(range(after + 1, len(whole) + 1))
        assert found == {n: expected[n] for n in found}, after
    await session.close()


async def test_they_are_the_same_while_the_ledger_grows_and_whatever_else_is_passed_over(
    whole: list[Judged],
) -> None:
    expected = {seen.stored.sequence: verdict_of(seen) for seen in whole}
    for every, batch in ((1, 1), (1, 5), (2, 3), (3, 1), (7, 5)):
        stored = messages()
        session = await session_on(stored[:1]).open()
        broker = session.ledger.broker  # type: ignore[attr-defined]
        reader = feed.Reader(session, 0)
        found: dict[int, tuple[str, str]] = {}
        for one in stored:
            if one.sequence > 1:
                add(broker, one)
            if one.sequence % batch == 0 or one is stored[-1]:
                async for told in reader.read(lambda one, every=every: one.sequence % every == 0):
                    found[told.seen.stored.sequence] = verdict_of(told.seen)
        assert found == {n: verdict for n, verdict in expected.items() if n % every == 0}, (every, batch)
        assert reader._kept_bytes == sum(known.size_bytes for known in reader._processes.values())
        await session.close()


async def test_a_position_that_the_ledger_has_not_reached_is_refused() -> None:
    session = await session_on(messages()).open()
    last = await session.ledger.last_sequence()
    assert await verdicts(session, last) == {}
    for wrong in (last + 1, -1):
        with pytest.raises(Invalid, match=rf"after: {wrong}; .* 1 to {last}"):
            await verdicts(session, wrong)
    await session.close()


def test_of_every_event_a_cloud_event_is_made_whose_id_is_its_place(whole: list[Judged]) -> None:
    colony = Colony(TOLD["colony"])
    made = [json.loads(json.dumps(show_event.cloud_event(seen, colony))) for seen in whole]
    assert [int(event["id"]) for event in made] == [seen.stored.sequence for seen in whole]
    assert sorted(event["sequence"] for event in made) == [event["sequence"] for event in made]
    for seen, event in zip(whole, made, strict=True):
        assert set(event) <= ATTRIBUTES
        assert (event["specversion"], event["source"]) == ("1.0", f"colonies:{TOLD['colony']}")
        assert all(value is not None and value != "" for value in event.values())
        assert event["verdict"] == seen.verdict.kind
        counts = re.fullmatch(
            r"colonies\.(process|workflow|cron|generator|member|colony|queue|worker|limit|webhook)"
            r"\.[a-z]+",
            event["type"],
        )
        assert bool(counts) == seen.verdict.valid, event["type"]
        assert ("author" in event) == ("data" in event) == (seen.record is not None)
    done = next(event for event in made if event["type"] == "colonies.process.completed")
    assert done["subject"].startswith("process/")
    assert set(done["data"]) >= {"attempt", "output"}


def test_the_cloud_event_on_the_page_has_the_fields_of_one(whole: list[Judged]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "feeds.md").read_text(encoding="utf-8")
    shown = json.loads(page.partition("```json\n")[2].partition("```")[0])
    colony = Colony(TOLD["colony"])
    made = [show_event.cloud_event(seen, colony) for seen in whole]
    one = next(event for event in made if event["type"] == shown["type"] and "output" in event["data"])
    assert list(shown) == list(one)
    assert set(shown["data"]) <= set(one["data"])
    attributes = re.findall(r"^\| (`[a-z`, ]+`) \|", page.partition("| attribute |")[2], re.MULTILINE)
    told = {name for cell in attributes for name in re.findall("[a-z]+", cell)}
    assert told == ATTRIBUTES - {"specversion", "datacontenttype"}


def test_a_message_that_nobody_signed_names_no_author(whole: list[Judged]) -> None:
    seen = next(seen for seen in whole if seen.verdict.valid and seen.stored.subject.endswith(".w1"))
    forged = replace(seen.stored, data=seen.stored.data[:-1] + bytes([seen.stored.data[-1] ^ 1]))
    history = History(Colony(TOLD["colony"]))
    for stored in messages()[: seen.stored.sequence - 1]:
        history.add(stored)
    event = show_event.cloud_event(history.add(forged), history.colony)
    assert (event["verdict"], event.get("author"), event.get("data")) == ("quarantined", None, None)
    assert event["rule"] == "its signature is not that of w1"
    shown = show_event.event_object(history.add(forged))
    assert (shown["author"], shown["detail"]) == (None, None)


def test_data_is_bounded_and_says_what_it_leaves_out(whole: list[Judged]) -> None:
    seen = next(seen for seen in whole if seen.record is not None and seen.record.event.type == DONE)
    assert seen.record is not None
    size = show_event.MAX_CLOUD_DATA_BYTES
    large = replace(seen.record.event, output="\x00" * (size // 6 + 1))  # type: ignore[call-arg]
    stored = replace(seen.stored, data=b"x" * (size // 6 + 1))
    data = show_event.event_data(replace(seen, stored=stored, record=replace(seen.record, event=large)))
    assert (data["output"], data["omitted"]) == (None, ["output"])
    assert data["attempt"] == seen.record.event.attempt  # type: ignore[union-attr]
    assert len(json.dumps(data)) < 1_000
    small = show_event.event_data(seen)
    assert "omitted" not in small


@pytest.mark.parametrize("value", [float("nan"), b"\xff", 2**63, {b"k": 1}, msgpack.ExtType(5, b"x")])
def test_whatever_a_member_signs_can_be_shown(value: Any, whole: list[Judged]) -> None:
    seen = next(seen for seen in whole if seen.record is not None and seen.record.event.type == DONE)
    assert seen.record is not None
    deep: Any = value
    for _ in range(5_000):
        deep = [deep]
    for output in (value, [value], deep):
        event = replace(seen.record.event, output=output)  # type: ignore[call-arg]
        odd = replace(seen, record=replace(seen.record, event=event))
        assert json.dumps(show_event.cloud_event(odd, Colony(TOLD["colony"])), allow_nan=False)


@given(st.lists(st.text(max_size=30) | st.from_regex(r"\A[a-z.]{1,12}=?[a-zA-Z.*>]{0,12}\Z"), max_size=3))
def test_whatever_is_given_for_a_filter_is_one_or_is_refused_in_a_line(texts: list[str]) -> None:
    said = ""
    try:
        Wanted.parse(texts)
    except Invalid as error:
        said = str(error)
    assert re.fullmatch(r"[^\n]{0,1500}", said)
