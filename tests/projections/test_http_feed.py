"""Events over HTTP: from any place with no gap, whoever is killed, slow, or far behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from colonies_projections.http import connections, hub, streams

from colonies.client import Client
from colonies.feed import tell
from colonies.ledger import Draft
from colonies.show import rfc3339
from colonies.show_event import cloud_event
from tests.harness import RunningColony, until
from tests.projections.test_http import problem
from tests.projections.test_views import some_life, spec
from tests.projections.web import Feed, Web, serving, token_of

NOBODY = {"conditions": {"runtimetype": "nobody"}}


@pytest.fixture
async def client(colony: RunningColony) -> Client:
    return await colony.client()


@pytest.fixture
async def web(colony: RunningColony) -> AsyncIterator[Web]:
    async with serving(await colony.session("http", "observer")) as web:
        yield web


@pytest.fixture
async def token(client: Client) -> str:
    return await token_of(client.session)


async def submit(client: Client, count: int, size: int = 1) -> int:
    """Submit processes that nobody runs; the ledger's last sequence."""
    for _ in range(count):
        await client.submit({**spec("nothing", "x" * size), **NOBODY})
    return await client.ledger.last_sequence()


async def whole(client: Client) -> list[tuple[int, Any]]:
    """The ledger as the feed is to tell it."""
    told = [told.seen async for told in tell(client.session, 0, live=False)]
    return [(seen.stored.sequence, cloud_event(seen, client.session.colony)) for seen in told]


async def test_the_feed_is_the_ledger_from_its_first_event_and_goes_on(
    colony: RunningColony, client: Client, web: Web, token: str
) -> None:
    await some_life(colony, client)
    async with web.events(token, "?after=0") as feed:
        assert feed.headers["content-type"].startswith("text/event-stream")
        found = await feed.until(await client.ledger.last_sequence())
        last = await submit(client, 3)
        found += await feed.until(last)
    assert [(event.id, event.data) for event in found] == (await whole(client))[: len(found)]
    assert [event.id for event in found] == list(range(1, last + 1))


async def test_after_may_be_a_time_or_an_age(client: Client, web: Web, token: str) -> None:
    last = await submit(client, 2)
    time = rfc3339((await client.ledger.at(last - 1)).time)
    for after, first in (("1h", 1), (time, last), ("2020-01-01", 1), (f"{time[:-1]}%2B00:00", last)):
        async with web.events(token, f"?after={after}") as feed:
            assert feed.status == 200
            assert (await feed.next()).id == first, after


async def test_without_a_place_it_begins_with_what_comes_and_says_where_that_is(
    client: Client, web: Web, token: str
) -> None:
    last = await submit(client, 2)
    await until(lambda: web.service._hub.position >= last, "the server has followed")
    async with web.events(token) as feed:
        first = await feed.block()
        assert first is not None
        assert (first.id, first.data) == (last, None)
        await submit(client, 1)
        assert (await feed.next()).id == last + 1


async def test_whoever_is_killed_a_hundred_times_has_every_event_once(
    client: Client, web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_RING_EVENTS", 8)  # so that most are behind it
    chance = random.Random(5)
    got: list[int] = []
    writing = asyncio.create_task(submit(client, 110))
    kills = 0
    while not writing.done() or not got or got[-1] < writing.result():
        headers = {"Last_Event_ID": str(got[-1])} if got else {}
        async with web.events(token, "?after=0", **headers) as feed:
            for _ in range(chance.randint(0, 2)):
                if not (writing.done() and got and got[-1] == writing.result()):
                    got.append((await feed.next()).id)
        kills += 1
    assert got == list(range(1, writing.result() + 1))
    assert kills > 100


async def test_the_header_goes_before_the_query(client: Client, web: Web, token: str) -> None:
    last = await submit(client, 3)
    async with web.events(token, "?after=1", Last_Event_ID=str(last - 1)) as feed:
        assert (await feed.next()).id == last
    assert problem(await web.get("/v1/events", token, Last_Event_ID="x"))[0] == 400
    assert problem(await web.get("/v1/events", token, Last_Event_ID=str(10**6)))[0] == 400


async def test_filters_choose_by_type_process_workflow_and_author(
    colony: RunningColony, client: Client, web: Web, token: str
) -> None:
    ids = await some_life(colony, client)
    node = {"name": "a", "func": "sleep", "args": [0], "conditions": {"runtimetype": "python"}}
    flow = await client.submit_workflow({"nodes": [node]})
    await flow.wait(30)
    last = await client.ledger.last_sequence()

    async def found(query: str) -> list[Any]:
        async with web.events(token, f"?after=0&{query}") as feed:
            return [event.data for event in await feed.until(last)]

    everything = [data for _, data in await whole(client)][:last]
    completed = [e for e in everything if e["type"] == "colonies.process.completed"]
    assert await found("type=process.completed") == completed
    assert len(completed) > 2
    either = await found("type=process.completed&type=process.cancelled")
    assert len(either) == len(completed) + 1
    assert {e["subject"].split("/")[0] for e in await found("type=worker&type=queue")} == {"worker", "queue"}
    assert {e["subject"] for e in await found(f"process={ids[0]}")} == {f"process/{ids[0]}"}
    of_flow = await found(f"workflow={flow.id}")
    assert [e["type"] for e in of_flow] == [
        f"colonies.{name}"
        for name in ("workflow.submitted", "process.released", "process.assigned", "process.completed")
    ]
    assert {e["author"] for e in await found("author=w1")} == {"w1"}
    assert await found(f"author=w1&process={ids[0]}&type=process.queued") == []


async def test_what_does_not_count_is_told_to_whoever_asks_for_it(
    client: Client, web: Web, token: str
) -> None:
    await submit(client, 2)
    junk = await client.ledger.append(Draft("ledger.process.X.queued.q.ann", b"junk", 0))
    last = await submit(client, 1)
    for after in (0, junk - 1):
        async with web.events(token, f"?after={after}&verdict=quarantined") as feed:
            (event,) = await feed.until(last)
            assert (event.id, event.data["type"]) == (junk, "colonies.quarantined.unknown")
        async with web.events(token, f"?after={after}") as feed:
            ids = [event.id for event in await feed.until(last)]
            assert ids == [n for n in range(after + 1, last + 1) if n != junk]
        async with web.events(token, f"?after={after}&verdict=valid&verdict=quarantined") as feed:
            assert [event.id for event in await feed.until(last)] == list(range(after + 1, last + 1))


async def test_a_filter_that_nothing_meets_still_says_how_far_it_looked(
    client: Client, web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "TELL_S", 0.05)
    async with web.events(token, "?type=cron") as feed:
        last = await submit(client, 3)
        assert await feed.until(last) == []


async def test_who_is_further_back_than_the_ring_reads_for_himself_and_then_shares(
    client: Client, web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_RING_EVENTS", 16)
    monkeypatch.setattr(streams, "TURN_S", 0.3)  # so that many turns are needed
    last = await submit(client, 60)
    await until(lambda: web.service._hub.position >= last, "the server has followed")
    assert web.service._hub.since(last - 20) is None
    assert len(web.service._hub._ring) <= 16

    async def read(feed: Feed) -> list[int]:
        return [event.id for event in await feed.until(last + 20)]

    async with contextlib.AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(web.events(token, "?after=0")) for _ in range(3)]
        reading = [asyncio.create_task(read(feed)) for feed in feeds]
        await submit(client, 20)
        for ids in await asyncio.gather(*reading):
            assert ids == list(range(1, last + 21))


async def test_the_ring_is_bounded_in_bytes_with_the_texts_that_are_made(
    client: Client, web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_RING_BYTES", 100_000)
    async with web.events(token, "?type=process.queued") as feed:
        last = await submit(client, 30, 10_000)
        assert [event.id for event in await feed.until(last)] == list(range(last - 29, last + 1))
    ring = web.service._hub
    assert ring._size_bytes == sum(entry.size_bytes for entry in ring._ring) <= 100_000
    assert all(len(entry.text) + len(entry.told.seen.stored.data) == entry.size_bytes for entry in ring._ring)


async def test_who_does_not_read_is_cut_off_and_goes_on_later_and_nobody_waits_for_him(
    client: Client, web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALL_S", 2.0)
    async with web.events(token, "?after=0") as reading:
        lazy = socket.create_connection(("127.0.0.1", web.door.port))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        host = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        lazy.sendall(f"GET /v1/events?after=0 HTTP/1.1\r\n{host}".encode())
        await until(lambda: web.service._app.state.streams.open.total() == 2, "both are open")
        last = await client.ledger.last_sequence() + 101  # with a queue's declaration
        got = asyncio.create_task(reading.until(last))
        assert await submit(client, 100, 100_000) == last
        assert len(await got) == last
        await until(lambda: web.service._app.state.streams.open.total() == 1, "he is cut off")
        lazy.settimeout(10)
        read = b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.to_thread(lazy.recv, 65_536):
                read += piece
        lazy.close()
    ids = [int(line[4:]) for line in read.split(b"\n\n")[-2].split(b"\n") if line.startswith(b"id: ")]
    assert ids
    assert ids[-1] < last
    async with web.events(token, Last_Event_ID=str(ids[-1])) as feed:
        assert [event.id for event in await feed.until(last)] == list(range(ids[-1] + 1, last + 1))


async def test_it_goes_on_when_the_broker_comes_back(
    colony: RunningColony, client: Client, web: Web, token: str
) -> None:
    async with web.events(token, "?after=0") as feed:
        last = await submit(client, 3)
        found = await feed.until(last)
        await colony.kill_broker()
        await colony.restart_broker()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(Exception):
                    last = await submit(client, 3)
                    break
        found += await feed.until(last)
    assert [event.id for event in found] == list(range(1, last + 1))


# --- how it ends -----------------------------------------------------------------------------------------


async def test_it_ends_when_the_token_does(client: Client, web: Web) -> None:
    token = await token_of(client.session, expires_s=2)
    async with web.events(token) as feed:
        began = time.monotonic()
        await feed.ended()
        assert time.monotonic() - began < 4
    assert (await web.get("/v1/events", token)).status == 401


async def test_it_ends_at_once_when_its_server_stops(colony: RunningColony, client: Client) -> None:
    token = await token_of(client.session)
    async with serving(await colony.session("http", "observer")) as web, web.events(token) as feed:
        web.task.cancel()
        began = time.monotonic()
        await feed.ended()
        await asyncio.wait({web.task})
        assert time.monotonic() - began < 3
    with pytest.raises(ConnectionRefusedError):
        await web.connect()


async def test_there_are_only_so_many_in_all_and_of_one_member(
    colony: RunningColony, client: Client, web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 3)
    monkeypatch.setattr(streams, "MAX_STREAMS_OF_ONE", 2)
    other = await token_of(colony.owner)
    async with web.events(token) as first, web.events(token) as second:
        assert (first.status, second.status) == (200, 200)
        assert problem(await web.get("/v1/events", token))[0] == 503
        async with web.events(other) as third:
            assert third.status == 200
            answer = await web.get("/v1/events", other)
            assert problem(answer)[0] == 503
            assert answer.headers["retry-after"] == "10"
    await until(lambda: not web.service._app.state.streams.open.total(), "all have left")
    async with web.events(token) as again:
        assert again.status == 200


async def test_one_event_is_one_line_of_json(client: Client, web: Web, token: str) -> None:
    await client.submit({**spec("two\nlines\r\n\ndata: {}\u2028", "\x85 \0"), **NOBODY})
    last = await client.ledger.last_sequence()
    async with web.events(token, f"?after={last - 1}") as feed:
        data = (await feed.next()).data
    assert data["data"]["spec"]["args"] == ["\x85 \0"]
    assert json.dumps(data).count("\n") == 0
