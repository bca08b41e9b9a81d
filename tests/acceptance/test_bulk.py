"""Many at a time, when a broker dies in the middle: what is done is done once, and can be gone on with."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from colonies.bulk import Done, cancelling, each, rerunning
from colonies.errors import Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.verify import verify_ledger
from tests.harness import running_colony

SPEC = {"func": "f", "conditions": {"runtimetype": "nobodys"}}
NUMBER = 600


async def test_a_broker_that_dies_stops_it_and_repeating_it_does_nothing_twice(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        client = await colony.client()
        ids = [handle.id for handle in await client.submit_many([SPEC] * NUMBER)]
        for act, done in ((cancelling(client, "enough"), "cancelled"), (rerunning(client, "k"), "submitted")):
            told: list[Done] = []
            working = asyncio.create_task(each(ids, act, told.append))
            while len(told) < 50:
                await asyncio.sleep(0.001)
                assert not working.done()
            await colony.kill_broker()
            with pytest.raises(Unavailable):
                async with asyncio.timeout(60):
                    await working
            assert 50 <= len(told) < NUMBER
            assert {one.outcome for one in told} == {"done"}
            await colony.restart_broker()
            again: list[Done] = []
            async with asyncio.timeout(60):
                await each(ids, act, again.append)
            assert Counter(one.id for one in again) == Counter(ids)
            if done == "cancelled":
                assert {one.id for one in again if one.outcome == "skipped"} >= {one.id for one in told}
            else:
                made = {one.id: one.new for one in again}
                assert {one.id: one.new for one in told}.items() <= made.items()
                assert len(set(made.values())) == NUMBER
        owner = colony.owner.ledger
        assert isinstance(owner, JetStreamLedger)
        report = await verify_ledger(owner)
        assert report.findings == []
        stories = await asyncio.gather(*(client.session.story(id) for id in ids[:50]))
        assert all(len(story.judged) == 2 for story in stories)
        events = [seen.subject async for batch in owner.scan() for seen in batch]
        assert sum(".cancelled." in subject for subject in events) == NUMBER
        assert sum(".queued." in subject for subject in events) == 2 * NUMBER
