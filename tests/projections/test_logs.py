"""The view of logs: lines of what processes wrote, found by words and filters, each message once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import colonies
from colonies.show import rfc3339
from tests.harness import RunningColony
from tests.projections.helpers import ask, ledger_of, projecting
from tests.projections.logged import Writer, all_items, ids, process_of, search, texts


async def test_lines_are_found_by_their_words_with_all_that_says_where_they_come_from(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        process = await process_of(client)
        writer = Writer(session, process)
        await writer.write("starting\nCUDA out of memory\n\nloss=0.25 café\n", stream="stderr")
        [item] = await search(client.session, "MEMORY cuda")
        time, sequence = item.pop("time"), item.pop("sequence")
        assert item == {
            "process": process,
            "func": "train",
            "workflow": None,
            "worker": "w1",
            "attempt": 1,
            "stream": "stderr",
            "text": "CUDA out of memory",
            "line": 1,
        }
        [stored] = await session.ledger.emitted("log.>")
        assert (time, sequence) == (rfc3339(stored.time), stored.sequence)
        for said, found in (
            ('"out of memory"', 1),
            ('"of out memory"', 0),
            ("out-of-memory", 1),
            ("memory-of", 0),
            ("mem*", 1),
            ("mem", 0),
            ('"out of me"*', 1),
            ("loss=0.25", 1),
            ("0.25*", 1),
            ("cafe", 1),
            ("CUDA starting", 0),
            (None, 3),
        ):
            assert len(await search(client.session, said)) == found, said


async def test_filters_find_only_what_they_say(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    workers = {name: await colony.session(name, "worker") for name in ("w1", "w2")}
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        nodes = [{"nodename": "one", **_spec("a")}, {"nodename": "two", **_spec("b")}]
        workflow = await client.submit_workflow(nodes)
        by_func: dict[str, str] = {}
        async with asyncio.timeout(30):
            while len(by_func) < 2:  # until both are released
                members = await ask(client.session, "processes", workflow=workflow.id)
                by_func = {item["func"]: item["id"] for item in members["items"]}
        alone = await process_of(client, "c")
        places = [(by_func["a"], "w1", "stdout"), (by_func["b"], "w2", "stderr"), (alone, "w1", "stderr")]
        for number, (process, worker, stream) in enumerate(places):
            await Writer(workers[worker], process).write(f"line {number}\n", stream=stream)
        for question, found in (
            ({"process": alone}, [2]),
            ({"worker": "w1"}, [0, 2]),
            ({"stream": "stderr"}, [1, 2]),
            ({"func": "b"}, [1]),
            ({"workflow": workflow.id}, [0, 1]),
            ({"workflow": workflow.id, "worker": "w2"}, [1]),
            ({"worker": "w1", "stream": "stderr"}, [2]),
            ({"worker": "line"}, []),
        ):
            said: Any = question
            assert await texts(client.session, "line", **said) == [f"line {n}" for n in found], question
            assert await texts(client.session, **said) == [f"line {n}" for n in found], question


def _spec(func: str) -> dict[str, Any]:
    return {"func": func, "conditions": {"runtimetype": "nobody"}}


async def test_a_line_that_came_in_pieces_is_one(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        writer = Writer(session, await process_of(client))
        await writer.write("first\nhalf a wo")
        assert await texts(client.session) == ["first", "half a wo"]
        before = await ledger_of(client.session).last_sequence()
        await process_of(client)
        await writer.write("between\n", stream="stderr")
        await writer.write("rd and", " its end\nlast")
        assert await texts(client.session) == ["first", "between", "half a word and its end", "last"]
        assert await texts(client.session, "half word end") == ["half a word and its end"]
        assert await texts(client.session, "half") == ["half a word and its end"]
        assert await texts(client.session, at=before) == []
        at = await ledger_of(client.session).last_sequence()
        assert await texts(client.session, at=at) == ["first", "half a wo"]


async def test_pages_are_stable_while_lines_arrive(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        writer = Writer(session, await process_of(client))
        for start in range(0, 40, 10):
            await writer.write("".join(f"line {n}\n" for n in range(start, start + 10)))
        found: list[str] = []
        cursor = None
        while True:
            answer = await ask(client.session, "logs", text="line", limit=7, cursor=cursor)
            found += [item["text"] for item in answer["items"]]
            await writer.write("line of later\n")
            cursor = answer.get("cursor")
            if cursor is None:
                break
        assert found == [f"line {n}" for n in reversed(range(40))]
        upwards = await all_items(client.session, text="line")
        assert ids(upwards) == sorted(ids(upwards))
        assert len(upwards) == 46


async def test_since_and_until_are_times_of_the_lines(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        writer = Writer(session, await process_of(client))
        await writer.write("one\n", "two\n", "three\n")
        times = [item["time"] for item in reversed(await search(client.session))]
        assert await texts(client.session, since=times[1]) == ["two", "three"]
        assert await texts(client.session, until=times[1]) == ["one"]
        assert await texts(client.session, since=times[1], until=times[2]) == ["two"]
        assert await texts(client.session, since="2099-01-01T00:00:00Z") == []


async def test_what_a_process_wrote_before_it_ended_is_found_when_it_has_ended(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        worker = colonies.Worker("python", concurrency=4)

        @worker.function
        def say(text: str) -> None:
            colonies.current().log(text)

        await colony.work(worker)
        for number in range(20):
            handle = await client.submit(
                {"func": "say", "args": [f"word{number}"], "conditions": {"runtimetype": "python"}}
            )
            await handle.wait(30)
            [item] = await search(client.session, f"word{number}")
            assert (item["process"], item["func"]) == (handle.id, "say")


async def test_notes_on_an_attempt_are_found_by_their_reasons(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = await colony.session("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        writer = Writer(session, await process_of(client))
        await writer.say("log.refused", {"event": "process.failed", "reason": "too late", "error": "oh dear"})
        await writer.say("log.stopped", {"reason": "it was cancelled"})
        found = [(item["stream"], item["text"]) for item in reversed(await search(client.session))]
        assert found == [("refused", "too late"), ("refused", "oh dear"), ("stopped", "it was cancelled")]
