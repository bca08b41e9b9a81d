"""What the views say: that it is what the ledger says, and that questions are answered as promised."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies import Client
from colonies.core.events import Assigned
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.show import process_object
from tests.harness import RunningColony
from tests.projections.helpers import ALL, ask, dump, folded, ledger_of, projecting

PYTHON = {"runtimetype": "python"}


def spec(func: str, *args: Any, **more: Any) -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": PYTHON, **more}


async def some_life(colony: RunningColony, client: Client) -> list[str]:
    """Processes that end in every way, one that nobody can run; their ids, oldest first."""
    await colony.spawn("w1")
    handles = [
        await client.submit(work)
        for work in (
            spec("sleep", 0.01, label="first", priority=2),
            spec("fail_until", 3, maxretries=3),
            spec("give_up"),
            spec("later", 1),
            spec("there is no such function"),
            spec("sleep", 60),
            {**spec("sleep", 0), "conditions": {"runtimetype": "nobody"}},
        )
    ]
    async for seen in handles[5].events():
        if seen.record is not None and isinstance(seen.record.event, Assigned):
            break
    await handles[5].cancel("enough")
    for handle in handles[:6]:
        await handle.wait(30)
    return [handle.id for handle in handles]


async def test_the_view_of_processes_is_the_fold_of_the_ledger(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        ids = await some_life(colony, client)
        answer = await ask(client.session, "processes")
    processes, _ = await folded(client.session)
    assert answer["items"] == [process_object(processes[id]) for id in reversed(ids)]
    states = [item["state"] for item in answer["items"]]
    assert states == ["waiting", "cancelled", "failed", "successful", "failed", "successful", "successful"]


async def test_a_view_rebuilt_from_nothing_equals_the_live_one(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    live, rebuilt = tmp_path / "live.sqlite", tmp_path / "rebuilt.sqlite"
    async with projecting(session, live, ALL):
        await some_life(colony, client)
        await ask(client.session, "processes")
    async with projecting(session, rebuilt, ALL):
        await ask(client.session, "processes")
    async with projecting(session, live, ALL):  # for what came after, such as the worker's end
        await ask(client.session, "processes")
    assert dump(live) == dump(rebuilt)
    assert dump(live)["verdicts"] == (await folded(client.session))[1]


async def test_filters_limit_and_order(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        ids = await some_life(colony, client)

        async def found(**question: Any) -> list[int]:
            items = (await ask(client.session, "processes", **question))["items"]
            return [ids.index(item["id"]) for item in items]

        assert await found() == [6, 5, 4, 3, 2, 1, 0]
        assert await found(limit=2) == [6, 5]
        assert await found(state="failed") == [4, 2]
        assert await found(state="successful", limit=1) == [3]
        assert await found(func="sleep") == [6, 5, 0]
        assert await found(runtimetype="nobody") == [6]
        assert await found(func="sleep", state="successful", runtimetype="python") == [0]
        assert await found(func="never heard of") == []
        assert await found(func=None) == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"colour": "red"}, "'colour' is no filter; allowed: id, state, func, name,"),
        ({"state": "done"}, "state: 'done' is not one; allowed: blocked, waiting, running, succ"),
        ({"state": 3}, "state: 3 is a whole number; allowed: a string"),
        ({"limit": 0}, "limit: 0; allowed: a whole number from 1 to 1000"),
        ({"limit": 1_001}, "limit: 1001; allowed: a whole number from 1 to 1000"),
        ({"limit": True}, "limit: true; allowed: a whole number from 1 to 1000"),
        ({"func": "\ud800"}, "holds half a character"),
        ({"func": "x" * 20_000}, "at most 16384 are allowed"),
    ],
)
async def test_a_question_that_makes_no_sense_is_answered_with_what_does(
    colony: RunningColony, tmp_path: Path, question: dict[str, Any], error: str
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        answer = await ask(client.session, "processes", **question)
    assert error in answer["error"]
    assert answer.keys() == {"error", "kind"}


async def test_junk_and_late_events_change_no_view_even_after_a_restart(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    path = tmp_path / "views.sqlite"
    async with projecting(session, path, ALL):
        await colony.spawn("w1")
        finished = await client.submit(spec("sleep", 0), key="once")
        await finished.wait(30)
        waiting = await client.submit({**spec("x"), "conditions": {"runtimetype": "nobody"}})
        before = (await ask(client.session, "processes"))["items"]
    ledger = client.ledger
    submission = (await client.session.story(finished.id)).judged[0].stored
    for subject, data in (
        (submission.subject, submission.data),
        (f"ledger.process.{finished.id}.cancelled.ann", b"junk"),
        (f"ledger.process.{waiting.id}.cancelled.ann", submission.data),
        (f"ledger.process.{new_id()}.cancelled.ann", b""),
    ):
        read = await ledger.read(f"ledger.process.{subject.split('.')[2]}.>")
        await ledger.append(Draft(subject, data, read[-1].sequence if read else 0))
    async with projecting(session, path, ALL):
        answer = await ask(client.session, "processes")
        junk = (await ask(client.session, "verdicts", kind="quarantined"))["items"]
        verdicts = dump(path)["verdicts"]
    assert answer["items"] == before
    assert len(junk) == 4
    assert junk[-1]["rule"] == "the process is submitted already"
    assert verdicts == (await folded(client.session))[1]


async def test_a_large_value_is_left_out_of_answers_and_said_to_be(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    path = tmp_path / "views.sqlite"
    async with projecting(await colony.session("viewer", "observer"), path):
        await client.submit(spec("f", "x" * 5_000))
        await client.submit(spec("f", "x" * 200_000))
        items = (await ask(client.session, "processes"))["items"]
    assert [(item["args"], item["left_out"]) for item in items] == [(None, ["args"])] * 2
    (_, text, none), (_, nothing, stored) = dump(path)["processes_values"]
    assert len(text) > 5_000  # all that is on the ledger is in the tables ...
    assert none is None
    assert nothing is None  # ... and of what is not, the name of the object that holds it
    assert stored.startswith("ann.")


async def test_of_many_attempts_the_last_are_shown_and_all_are_kept(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    path = tmp_path / "views.sqlite"
    worker = colonies.Worker("python", backoff_s=0.0)

    @worker.function(maxretries=-1)
    def stubborn() -> None:
        n = colonies.current().n
        raise ValueError(f"not {n}") if n < 12 else colonies.Fail("enough")

    async with projecting(await colony.session("viewer", "observer"), path):
        await colony.work(worker, "w1")
        await (await client.submit(stubborn.call())).wait(60)
        [item] = (await ask(client.session, "processes"))["items"]
    assert [attempt["n"] for attempt in item["attempts"]] == list(range(3, 13))
    said = [f"ValueError: not {n}" for n in range(3, 12)]
    assert [error.partition(" (")[0] for error in item["errors"]] == [*said, "enough"]
    assert item["left_out"] == ["attempts", "errors"]
    assert len(dump(path)["processes_attempts"]) == 12


async def test_an_answer_that_would_be_too_large_is_cut_and_gone_on_with(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        handles = await client.submit_many([spec("f", "x" * 3_500) for _ in range(300)])
        first = await ask(client.session, "processes", limit=1_000)
        rest = await ask(client.session, "processes", limit=1_000, cursor=first["cursor"])
    shown = [item["id"] for item in first["items"]]
    assert 200 < len(shown) < 300
    shown += [item["id"] for item in rest["items"]]
    assert shown == [handle.id for handle in reversed(handles)]
    assert "cursor" not in rest


async def test_a_worker_is_alive_then_stopped_or_lost(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        stopped, lost, alive = [await colony.spawn(name, concurrency=3) for name in ("w1", "w2", "w3")]
        long = await client.submit(
            {"func": "sleep", "args": [60], "conditions": {**PYTHON, "workernames": ["w3"]}}
        )
        stopped.send(signal.SIGTERM)
        lost.send(signal.SIGKILL)
        await asyncio.sleep(5)
        items = (await ask(client.session, "workers"))["items"]
        only = {
            state: [item["name"] for item in (await ask(client.session, "workers", state=state))["items"]]
            for state in ("alive", "lost", "stopped")
        }
        others = (await ask(client.session, "workers", func="no such", runtimetype="python"))["items"]
        some = (await ask(client.session, "workers", func="sleep", limit=2))["items"]
    assert [(item["name"], item["state"]) for item in items] == [
        ("w3", "alive"),
        ("w2", "lost"),
        ("w1", "stopped"),
    ]
    assert only == {"alive": ["w3"], "lost": ["w2"], "stopped": ["w1"]}
    first = items[0]
    assert list(first) == [
        *("name", "instance", "runtimetype", "concurrency", "state", "started_at", "last_seen"),
        *("running", "has", "functions", "drained"),
    ]
    assert first["instance"] == alive.instance
    assert first["concurrency"] == 3
    assert first["running"] == [long.id]
    assert "sleep" in first["functions"]
    assert first["last_seen"] > first["started_at"]
    assert others == []
    assert [item["name"] for item in some] == ["w3", "w2"]


async def test_only_a_members_inbox_is_answered(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        heard: list[str] = []
        listener = ledger_of(colony.owner).client()
        for subject in ("feed.hostile.>", "log.hostile.>"):
            await listener.listen(subject, lambda message: heard.append(message.subject))
        await listener.flush()
        nc = ledger_of(client.session).client()
        asked = (
            "query.processes",
            "query.workers",
            "$SRV.PING",
            "$SRV.INFO.colonies-projector",
            "$SRV.STATS",
        )
        for number, subject in enumerate(asked):
            for reply in ("feed.hostile.", "log.hostile.", "_INBOX.", "$JS.API.STREAM.INFO.LEDGER."):
                await nc.publish(subject, b"", reply=f"{reply}{number}")
        await nc.flush()
        assert "items" in await ask(client.session, "processes")
        ping = await nc.request("$SRV.PING.colonies-projector", b"", timeout=5)
        assert b"ping_response" in ping.data
        await listener.flush()
    assert heard == []
