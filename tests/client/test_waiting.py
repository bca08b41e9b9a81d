"""Several who wait for one process in one client."""

from __future__ import annotations

import asyncio

import pytest

import colonies
from colonies.memory_ledger import MemoryLedger
from colonies.waited import within

worker = colonies.Worker("python", concurrency=4, backoff_s=0.05)


@worker.function(maxretries=5)
async def third_time(word: str) -> str:
    if colonies.current().n < 3:
        raise ValueError("not yet")
    return word


@worker.function
async def hopeless() -> None:
    raise colonies.Fail("there is no way")


async def test_all_who_wait_for_a_process_hear_of_its_end() -> None:
    """After a retry what is heard does not fit together, so it is read; found by the simulator."""
    async with colonies.memory() as colony:
        await colony.work(worker)
        process = await colony.submit(third_time.call("lucky"))

        results = await asyncio.gather(*(process.result(20) for _ in range(4)))

        assert results == ["lucky"] * 4


async def test_an_end_that_is_heard_before_its_submission_is_answered_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker's answer to the submission comes after its worker has failed it (found by the simulator)."""
    answer = MemoryLedger._answer

    async def late(ledger: MemoryLedger, outcome: int | colonies.Conflict) -> int:
        if ledger is colony.ledger:
            async with asyncio.timeout(10):
                while not any(".failed." in stored.subject for stored in ledger.broker.events):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        return await answer(ledger, outcome)

    async with colonies.memory() as colony:
        await colony.work(worker)
        await (await colony.submit(third_time.call("the queue is there"))).cancel()
        monkeypatch.setattr(MemoryLedger, "_answer", late)
        (process,) = await colony.submit_many([hopeless.call()])

        assert (await process.wait(20)).state == "failed"


async def test_a_wait_that_takes_too_long_says_for_what_how_long_and_how_that_stands() -> None:
    async with colonies.memory() as colony:
        process = await colony.submit({"func": "x", "conditions": {"runtimetype": "nobody"}})
        said = f"^process {process.id} was not final after 0.05 s of waiting: it is waiting$"
        for wait in (process.result, process.wait):
            with pytest.raises(TimeoutError, match=said):
                await wait(0.05)
        flow = colonies.Workflow("patient")
        flow.add(third_time.call("lucky"))
        handle = await colony.submit(flow)
        with pytest.raises(TimeoutError, match=f"^workflow {handle.id} was .* it is running$"):
            await handle.result(timeout_s=0.05)
        with pytest.raises(TimeoutError, match=r"^its own$"):
            async with within(5.0, "it", _never):
                raise TimeoutError("its own")


async def _never() -> str:
    raise AssertionError("nobody asks")
