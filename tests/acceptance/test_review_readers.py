"""Clients and workers that missed something, or were told something false, on the way to a result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies import watching
from colonies.core.events import Assigned, Completed, Configured, Failed
from colonies.core.process import Process, Waiting
from colonies.errors import Invalid
from colonies.ids import new_id
from colonies.ledger import Draft
from colonies.session import Session
from tests.harness import RunningColony, running_colony, until

SPEC: dict[str, Any] = {"func": "f", "conditions": {"runtimetype": "nobody"}}
LARGE = SPEC | {"args": ["x" * 200_000]}


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony


async def take(session: Session, id: str) -> Process:
    """Record, by hand, that this worker has it."""
    story = await session.story(id)
    assert story.process is not None
    assert isinstance(story.process.phase, Waiting)
    event = Assigned(story.process.phase.offer.id, session.colony.lease_s, "by-hand")
    process = (await session.record(id, event, at=story)).process
    assert process is not None
    return process


async def forge(session: Session, id: str) -> None:
    """A result of somebody who does not run the process."""
    story = await session.story(id)
    assert story.process is not None
    now, event = await session.ledger.now(), Completed(new_id(), "forged")
    subject, sealed = session.seal(event, id, prev=story.process.head, id=new_id(), now=now)
    await session.ledger.append(Draft(subject, sealed.data, story.guard))


# --- one key, one process ---------------------------------------------------------------------------


async def test_a_key_stands_for_one_process_with_large_arguments_too(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await colony.client()
    first = await client.submit(LARGE, key="k")
    stored: list[str] = []
    put_value = client.ledger.put_value

    async def counted(author: str, data: bytes) -> str:
        stored.append(author)
        return await put_value(author, data)

    monkeypatch.setattr(client.ledger, "put_value", counted)
    assert (await client.submit(LARGE, key="k")).id == first.id
    assert stored == []  # what is kept already is not kept again

    with pytest.raises(Invalid, match="another spec"):
        await client.submit(SPEC | {"args": ["y" * 200_000]}, key="k")


async def test_two_submissions_at_once_with_one_key_are_one_process(colony: RunningColony) -> None:
    clients = [await colony.client() for _ in range(4)]

    handles = await asyncio.gather(*(client.submit(LARGE, key="k") for client in clients))

    assert len({handle.id for handle in handles}) == 1


# --- rules that changed unheard ---------------------------------------------------------------------


async def test_a_session_that_missed_a_change_of_the_rules_looks_before_it_judges(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await colony.client()
    first, second = await colony.session("w1", "worker"), await colony.session("w2", "worker")
    for subscription in second._subscriptions:
        await subscription.close()  # the feed loses a message
    handle = await client.submit(SPEC)
    await colony.owner.record_entity("colony", "", Configured(60.0))
    await until(lambda: first.colony.lease_s == 60.0, "the new lease is known", 5)
    await take(first, handle.id)

    story = await second.story(handle.id)

    assert [seen.verdict.rule for seen in story.judged] == ["", ""]
    assert story.process is not None
    assert (story.process.state, story.process.attempts[-1].worker) == ("running", "w1")

    # What stays invalid by all rules is not looked up again and again.
    await forge(second, handle.id)
    await second.story(handle.id)
    looked: list[int] = []
    refresh = second.refresh

    async def counted() -> None:
        looked.append(1)
        await refresh()

    monkeypatch.setattr(second, "refresh", counted)
    assert not (await second.story(handle.id)).judged[-1].verdict.valid
    assert looked == []


# --- a client that is told something false ----------------------------------------------------------


async def test_a_forged_end_does_not_make_a_client_deaf(colony: RunningColony) -> None:
    client = await colony.client()
    worker, forger = await colony.session("w1", "worker"), await colony.session("w2", "worker")
    handle = await client.submit(SPEC)
    await forge(forger, handle.id)
    await until(lambda: client._watcher._watched[handle.id].done, "the forged end is heard", 5)

    waiting = asyncio.create_task(handle.wait())
    await asyncio.sleep(0.3)
    process = await take(worker, handle.id)
    completed = Completed(process.attempts[-1].id, "true")
    await worker.record(handle.id, completed, at=await worker.story(handle.id))
    started = time.monotonic()
    async with asyncio.timeout(10):
        found = await waiting

    assert found.state == "successful"
    assert await client.output(found) == "true"
    assert time.monotonic() - started < 5


async def test_what_fails_for_good_unattended_needs_no_subscription(colony: RunningColony) -> None:
    client = await colony.client()
    worker = await colony.session("w1", "worker")
    handle = await client.submit(SPEC)
    watched = client._watcher._watched[handle.id]
    assert watched.subscription is not None

    process = await take(worker, handle.id)
    failed = Failed(process.attempts[-1].id, "broken", "final")
    await worker.record(handle.id, failed, at=await worker.story(handle.id))

    await until(lambda: watched.done and watched.subscription is None, "the subscription is given up", 5)
    assert client._watcher._live == 0
    assert (await handle.wait(5)).state == "failed"


async def test_an_error_of_ours_does_not_end_the_rereading(
    colony: RunningColony, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailsOnce(dict[str, watching.Watched]):
        failed = False

        def values(self) -> Any:
            if not self.failed:
                self.failed = True
                raise RuntimeError("of our own making")
            return super().values()

    monkeypatch.setattr(watching, "REREAD_S", 0.2)
    client = await colony.client()
    watched = client._watcher._watched = FailsOnce()
    worker = colonies.Worker("python")

    @worker.function
    def f() -> int:
        return 7

    handle = await client.submit(f.call())
    subscription = watched[handle.id].subscription
    assert subscription is not None
    await subscription.close()  # the feed loses everything
    waiting = asyncio.create_task(handle.result(10))
    await until(lambda: watched.failed, "the error", 5)
    await colony.work(worker)

    assert await waiting == 7
