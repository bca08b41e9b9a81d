"""`submit_many`: whatever happens on the way, the caller knows exactly which processes are on the ledger."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies import subjects
from colonies.errors import Invalid
from colonies.ids import new_id
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Draft, Stored
from tests.harness import RunningColony, running_colony

PYTHON = {"runtimetype": "python"}


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        yield colony


def specs(count: int, filling: str = "") -> list[dict[str, Any]]:
    return [{"func": "f", "args": [n, filling], "conditions": PYTHON} for n in range(count)]


async def submitted(colony: RunningColony) -> dict[str, int]:
    """What the ledger holds: each submitted process and its number among the specs."""
    found: dict[str, int] = {}
    offers = "ledger.process.*.queued.>"
    async for batch in colony.owner.ledger.scan(0, offers):
        for stored in batch:
            process = subjects.process_of(stored.subject)
            found[process] = (await colony.owner.process(process)).spec.args[0]
    return found


async def occupy(client: colonies.Client, ids: list[str]) -> None:
    """Put something under these processes' ids, so that the broker refuses their first event."""
    for id in ids:
        await client.ledger.append(Draft(f"ledger.process.{id}.cancelled.{client.name}", b"junk", 0))


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that the client's next processes will have."""
    ids = [new_id() for _ in range(1_100)]
    monkeypatch.setattr("colonies.batch.new_id", iter(ids).__next__)
    return ids


# --- each for itself --------------------------------------------------------------------------------


async def test_of_many_it_is_said_which_were_accepted_and_which_not(
    colony: RunningColony, ids: list[str]
) -> None:
    client = await colony.client()
    bad = [3, 511, 512, 599]  # also at the borders of the window that is under way at a time
    await occupy(client, [ids[n] for n in bad])

    with pytest.raises(
        colonies.PartlySubmitted, match="596 of 600 processes were accepted; number 3: "
    ) as caught:
        await client.submit_many(specs(600))

    error = caught.value
    assert [n for n, _ in error.refused] == bad
    assert all(isinstance(one, colonies.Conflict) for _, one in error.refused)
    assert [n for n, _ in error.accepted] == [n for n in range(600) if n not in bad]
    assert {handle.id: n for n, handle in error.accepted} == await submitted(colony)


async def test_what_the_broker_lets_nobody_of_this_role_say_is_refused_one_by_one(
    colony: RunningColony,
) -> None:
    await (await colony.client("ann")).submit(specs(1)[0])  # the queue is declared
    eve = await colony.client("eve", "observer")

    with pytest.raises(colonies.PartlySubmitted, match="0 of 3 processes were accepted") as caught:
        await eve.submit_many(specs(3))

    assert caught.value.accepted == []
    assert [n for n, _ in caught.value.refused] == [0, 1, 2]
    assert all(isinstance(one, colonies.Refused) for _, one in caught.value.refused)
    assert len(await submitted(colony)) == 1


async def test_a_spec_that_makes_no_sense_keeps_all_from_being_submitted(colony: RunningColony) -> None:
    client = await colony.client()
    works = specs(5)
    works[3] = {**works[3], "env": dict.fromkeys("ABC", "x" * 60_000)}

    with pytest.raises(colonies.Invalid, match="the spec without its arguments is"):
        await client.submit_many(works)
    works[3] = {**specs(1)[0], "colour": "red"}
    with pytest.raises(colonies.Invalid, match="colour"):
        await client.submit_many(works)

    assert await submitted(colony) == {}
    assert await client.submit_many([]) == []


async def said_of(submitting: asyncio.Task[list[colonies.Handle[Any]]]) -> dict[str, int]:
    """What the client says was accepted: each process and its number."""
    [outcome] = await asyncio.gather(submitting, return_exceptions=True)
    if isinstance(outcome, list):
        return {handle.id: n for n, handle in enumerate(outcome)}
    assert isinstance(outcome, colonies.PartlySubmitted), outcome
    assert all(isinstance(error, colonies.Unavailable) for _, error in outcome.refused)
    assert sorted(n for n, _ in (*outcome.accepted, *outcome.refused)) == list(range(500))
    return {handle.id: n for n, handle in outcome.accepted}


@pytest.mark.parametrize("after", [1, 50])
async def test_what_a_broker_killed_on_the_way_did_not_answer_is_settled_by_reading(
    colony: RunningColony, after: int
) -> None:
    client = await colony.client()
    await client.submit(before := {**specs(1)[0], "args": [-1]})  # the queue is declared
    heard: list[Stored] = []
    killed = asyncio.Event()

    def kill(stored: Stored) -> None:
        heard.append(stored)
        if len(heard) == after:
            os.kill(colony.server.pid, signal.SIGKILL)
            killed.set()

    colony.port = int(colony.url.rsplit(":", 1)[1])
    await colony.owner.ledger.subscribe("feed.process.>", kill)
    submitting = asyncio.create_task(client.submit_many(specs(500, "x" * 20_000)))
    await asyncio.wait_for(killed.wait(), 20)
    await colony.server.wait()
    await colony.restart_broker()

    said = await asyncio.wait_for(said_of(submitting), 60)
    await client.submit(before)  # whatever was still on its way has come
    on_ledger = {id: n for id, n in (await submitted(colony)).items() if n >= 0}
    assert said == on_ledger
    assert after <= len(said) <= 500


# --- all or nothing ---------------------------------------------------------------------------------


async def test_a_batch_is_accepted_whole(colony: RunningColony) -> None:
    client = await colony.client()

    handles = await client.submit_many(specs(1_000), atomic=True)

    assert {handle.id: n for n, handle in enumerate(handles)} == await submitted(colony)


@pytest.mark.parametrize("bad", [0, 500, 999])
async def test_a_batch_of_which_one_is_refused_is_refused_whole(
    colony: RunningColony, ids: list[str], bad: int
) -> None:
    client = await colony.client()
    await occupy(client, [ids[bad]])

    with pytest.raises(colonies.Conflict):
        await client.submit_many(specs(1_000), atomic=True)

    assert await submitted(colony) == {}
    handles = await client.submit_many(specs(10), atomic=True)  # the connection is as good as before
    assert len(await submitted(colony)) == len(handles)


async def test_more_than_a_thousand_in_a_batch_are_refused(colony: RunningColony) -> None:
    client = await colony.client()
    last = await client.ledger.last_sequence()

    with pytest.raises(colonies.Invalid, match="1001 processes in one batch; at most 1000 are accepted"):
        await client.submit_many(specs(1_001), atomic=True)

    assert await client.ledger.last_sequence() == last  # not even their queue was declared


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.1])
async def test_a_batch_under_way_when_the_broker_is_killed_is_there_whole_or_not_at_all(
    colony: RunningColony, delay_s: float
) -> None:
    client = await colony.client()
    await client.submit(specs(1)[0])
    ledger = client.ledger
    assert isinstance(ledger, JetStreamLedger)
    submitting = asyncio.create_task(client.submit_many(specs(300, "x" * 20_000), atomic=True))
    await asyncio.sleep(delay_s)
    await colony.kill_broker()
    await colony.restart_broker()

    try:
        handles = await asyncio.wait_for(submitting, 60)
    except colonies.Unavailable:
        handles = []
    await client.submit(specs(1)[0])

    found = await submitted(colony)
    assert len(found) == 2 + len(handles)
    assert {handle.id for handle in handles} <= found.keys()


async def test_what_makes_no_sense_among_many_is_named_by_its_number_and_nothing_is_recorded() -> None:
    async with colonies.memory() as colony:
        fine = {"func": "job", "conditions": {"runtimetype": "python"}}
        with pytest.raises(Invalid, match=r"number 1: spec: func"):
            await colony.submit_many([fine, {"conditions": {"runtimetype": "python"}}])
        with pytest.raises(Invalid, match=r"number 2: colony: the spec is for 'other'"):
            await colony.submit_many([fine, fine, {**fine, "colony": "other"}])
        assert not await colony.ledger.read("ledger.process.>")
