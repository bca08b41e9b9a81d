"""The short ways in and out of nats-py's client, and the ordinary ones where it has another shape."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import colonies
from colonies import direct
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Draft
from tests.harness import running_colony

WAYS = ("_SHORT", "_SHORT_OUT", "_SHORT_SEND")


@pytest.mark.parametrize("closed", [(), *[(way,) for way in WAYS], WAYS], ids=str)
async def test_processes_run_whichever_ways_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: tuple[str, ...]
) -> None:
    assert all(getattr(direct, way) for way in WAYS), "this nats-py has another shape"
    for way in closed:
        monkeypatch.setattr(direct, way, False)
    worker = colonies.Worker("python", concurrency=2)

    @worker.function
    async def double(n: int) -> int:
        return 2 * n

    async with running_colony(tmp_path) as colony:
        client = await colony.client()
        await colony.work(worker)
        handles = await client.submit_many([double.call(n) for n in range(20)])
        assert [await handle.result(60) for handle in handles] == [2 * n for n in range(20)]


async def test_what_the_socket_does_not_take_waits_and_is_all_sent_in_the_end(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        ledger = (await colony.client()).ledger
        assert isinstance(ledger, JetStreamLedger)
        drafts = [Draft(f"ledger.process.P{n}.queued.q.ann", bytes(900_000), 0) for n in range(40)]
        os.kill(colony.server.pid, signal.SIGSTOP)
        try:
            under_way = []
            for draft in drafts:
                under_way.append(await ledger.send(draft))
                await asyncio.sleep(0)
            writer = ledger.client()._transport._io_writer  # type: ignore[union-attr]
            assert writer.transport.get_write_buffer_size() > direct.MAX_UNSENT_BYTES
        finally:
            os.kill(colony.server.pid, signal.SIGCONT)
        sequences = await asyncio.gather(*under_way)
        assert sequences == sorted(sequences)
        assert len(set(sequences)) == len(drafts)


@pytest.mark.parametrize("closed", [(), ("_SHORT_OUT",)], ids=str)
async def test_what_was_subscribed_is_heard_by_the_broker_before_a_flush_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: tuple[str, ...]
) -> None:
    for way in closed:
        monkeypatch.setattr(direct, way, False)
    async with running_colony(tmp_path, orchestrate=False) as colony:
        ledger = (await colony.client()).ledger
        assert isinstance(ledger, JetStreamLedger)
        client = ledger.client()
        writer, sent = client._transport._io_writer, bytearray()  # type: ignore[union-attr]
        monkeypatch.setattr(
            writer, "write", lambda data, write=writer.write: (sent.extend(data), write(data))
        )
        many = writer.writelines
        monkeypatch.setattr(writer, "writelines", lambda all: (sent.extend(b"".join(all)), many(all)))
        await client.listen("feed.x", lambda _: None)
        await client.flush()
        assert 0 <= bytes(sent).index(b"SUB feed.x") < bytes(sent).index(b"PING")
