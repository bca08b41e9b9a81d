"""How projectors stand: checksums that agree wherever views were built, lags, who may have them rebuilt."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import VIEWS, Projector

from colonies.asking import ask_all
from colonies.core.events import Assigned, Cancelled, Completed, ProcessEvent
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.requests import sealed_request
from colonies.session import Session
from tests.harness import RunningColony, running_colony, until
from tests.projections.flows import all_ways
from tests.projections.helpers import ask, ledger_of, projecting

NOBODY = {"func": "x", "conditions": {"runtimetype": "nobody"}}


async def sums(colony: RunningColony, at: int, projectors: int) -> dict[str, set[tuple[int, str]]]:
    ledger = ledger_of((await colony.client()).session)
    question = {"at": at, "checksums": True}
    answers = await ask_all(ledger, "query.projections", question, wait_s=60, answers=projectors)
    assert len(answers) == projectors
    found: dict[str, set[tuple[int, str]]] = {}
    for item in (item for answer in answers for item in answer["items"]):
        assert item["counted_at"] == at
        found.setdefault(item["view"], set()).add((item["rows"], item["checksum"]))
    return found


@pytest.mark.timeout(240)
async def test_projectors_built_apart_agree_at_every_sequence(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    one, two = [await colony.session(name, "observer") for name in ("one", "two")]
    async with projecting(one, tmp_path / "1.sqlite"):
        await all_ways(colony, client)
        last = await ledger_of(client.session).last_sequence()
        async with projecting(two, tmp_path / "2.sqlite") as second:
            await until(
                lambda: second.build is not None and second.build.position.sequence >= last, "caught up"
            )
            await ask(client.session, "processes")
            for at in (1, last // 3, last // 2, last):
                found = await sums(colony, at, 2)
                assert set(found) >= {make().name for make in VIEWS}
                assert {view: len(agreed) for view, agreed in found.items()} == dict.fromkeys(found, 1), at


async def test_what_should_not_count_gets_its_verdict_and_reason_and_changes_no_other_view(
    tmp_path: Path,
) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        client = await colony.client()
        ann, bob = client.session, await colony.session("bob", "user")
        worker = await colony.session("hand", "worker")
        async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
            running = await client.submit(NOBODY)
            attempt = new_id()
            story = await ann.story(running.id)
            offer = story.judged[0].record
            assert offer is not None
            await worker.record(running.id, Assigned(offer.id, 2.0, "i1"), at=story, id=attempt)
            taken = (await ann.story(running.id)).judged[-1].record
            assert taken is not None
            waiting = await client.submit(NOBODY)
            await ask(ann, "processes")
            before = await ledger_of(ann).last_sequence()

            async def say(
                by: Session, event: ProcessEvent, id: str, prev: bytes, broken: bool = False, key: Any = None
            ) -> None:
                forger = by if key is None else Session(by.ledger, by.name, key)
                subject, sealed = forger.seal(event, id, prev=prev, id=new_id(), now=0)
                data = sealed.data[:40] + bytes([sealed.data[40] ^ 1]) + sealed.data[41:]
                guard = await by.ledger.last_of([f"ledger.process.{id}.>"])
                draft = Draft(subject, data if broken else sealed.data, max(guard.values()))
                await by.ledger.append(draft)

            head = (await ann.story(waiting.id)).judged[-1].record
            assert head is not None
            await say(ann, Cancelled("corrupted"), waiting.id, head.digest, broken=True)
            await say(ann, Cancelled("forged"), waiting.id, head.digest, key=bob.keypair)
            await say(worker, Completed(attempt, "too early"), running.id, offer.digest)
            await say(worker, Completed(new_id(), "of nobody"), running.id, taken.digest)
            items = (await ask(ann, "findings", sort="sequence"))["items"]
            after = await ledger_of(ann).last_sequence()
            then, now = await sums(colony, before, 1), await sums(colony, after, 1)
    assert after == before + 4
    assert [(item["verdict"], item["author"], item["event"]) for item in items] == [
        ("quarantined", None, "process.cancelled"),
        ("quarantined", None, "process.cancelled"),
        ("quarantined", "hand", "process.completed"),
        ("quarantined", "hand", "process.completed"),
    ]
    reasons = (
        "it is not an event|its signature",
        "its signature is not that of ann",
        "its prev is",
        "attempt",
    )
    for item, reason in zip(items, reasons, strict=True):
        assert re.search(reason, item["rule"]), item
    assert [view for view in then if then[view] != now[view]] == ["findings"]
    assert {make().name for make in VIEWS} <= set(then)


async def test_a_row_that_was_changed_by_hand_shows_in_the_checksum(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    path = tmp_path / "views.sqlite"
    async with projecting(session, path):
        await client.submit(NOBODY)
        await ask(client.session, "processes")
        last = await ledger_of(client.session).last_sequence()
        right = await sums(colony, last, 1)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE processes SET func = 'another'")
        db.commit()
    async with projecting(session, path):
        wrong = await sums(colony, last, 1)
    assert [view for view in right if right[view] != wrong[view]] == ["processes"]


async def test_the_lag_is_what_stands_on_the_ledger_and_not_in_the_views(
    colony: RunningColony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await colony.client()
    ledger = ledger_of(client.session)
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite") as projector:
        await ask(client.session, "processes")

        async def slow(*_: Any) -> None:
            await asyncio.sleep(3600)

        monkeypatch.setattr(projector, "_catch_up", slow)
        await asyncio.sleep(0)
        await client.submit_many([NOBODY] * 5)
        [answer] = await ask_all(ledger, "query.projections", {}, wait_s=10)
    [item] = [item for item in answer["items"] if item["view"] == "processes"]
    assert item["lag_events"] == item["last"] - item["position"] >= 5
    assert item["lag_s"] > 0


@pytest.mark.parametrize(("role", "allowed"), [("owner", True), ("user", False), ("worker", False)])
async def test_views_are_rebuilt_for_those_who_may_ask_and_once(
    colony: RunningColony, tmp_path: Path, role: str, allowed: bool
) -> None:
    asker = colony.owner if role == "owner" else await colony.session("asker", role)
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite") as projector:
        former = projector.build
        request = {"request": await sealed_request(asker, "query.rebuild", {})}
        [answer] = await ask_all(ledger_of(asker), "query.rebuild", request, wait_s=10)
        if not allowed:
            assert answer["kind"] == "refused"
            return
        assert answer["items"] == [{"projector": "viewer", "state": "rebuilding"}]
        await until(lambda: projector.build not in (None, former), "the swap")
        [again] = await ask_all(ledger_of(asker), "query.rebuild", request, wait_s=10)
        assert again == {"error": "the request was heard already; ask again", "kind": "invalid"}


@pytest.mark.parametrize("request_", [None, 7, "", "bm90IGEgcmVxdWVzdA==", "*"])
async def test_what_is_no_request_is_refused(colony: RunningColony, tmp_path: Path, request_: object) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite") as projector:
        former = projector.build
        said = {"request": request_}
        [answer] = await ask_all(ledger_of(client.session), "query.rebuild", said, wait_s=10)
        assert answer["kind"] == "invalid"
        assert projector.build is former
    assert isinstance(projector, Projector)
