"""Reading all of one process at once: right or not at all, whatever is stored between two requests."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from colonies.ledger import Stored
from colonies.whole import whole

GUARD = "ledger.process.A.>"


class Broker:
    """Messages of one process, and replicas that are behind by some. After each request more are stored."""

    def __init__(self, names: list[str], later: list[list[str]], behind: list[int]) -> None:
        self.stored: list[Stored] = []
        self.later = list(later)
        self.behind = list(behind)
        self.add(names)

    def add(self, names: list[str]) -> None:
        for name in names:
            sequence = len(self.stored) + 1
            self.stored.append(Stored(f"ledger.process.A.{name}.w1", sequence, sequence, b""))

    def next(self) -> None:
        if self.later:
            self.add(self.later.pop(0))

    async def get_many(self, body: dict[str, Any]) -> list[Stored] | None:
        seen = self.stored[: max(0, len(self.stored) - (self.behind.pop(0) if self.behind else 0))]
        self.next()
        if "multi_last" in body:
            lasts = {stored.subject: stored for stored in seen}
            return sorted(lasts.values(), key=lambda stored: stored.sequence)
        return seen[: body["batch"]]

    async def counts(self, pattern: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for stored in self.stored:
            found[stored.subject] = found.get(stored.subject, 0) + 1
        self.next()
        return found


STORIES = ([], ["queued"], ["queued", "assigned"], ["queued", "assigned", "failed", "assigned"])
MORE = ([], ["assigned"], ["returned", "assigned"])


@pytest.mark.parametrize("story", STORIES, ids=len)
async def test_it_is_all_that_the_leader_had_or_nothing_is_said(story: list[str]) -> None:
    for later, behind in product(product(MORE, repeat=2), product((0, 1), repeat=2)):
        broker = Broker(story, [list(names) for names in later], list(behind))
        found = await whole(broker, GUARD)
        if found is not None:
            sequences = [stored.sequence for stored in found]
            assert sequences == list(range(1, len(found) + 1)), (later, behind)
            assert len(found) >= len(story), (later, behind)
        elif not any(later) and not any(behind):
            pytest.fail("nothing stood in the way")


async def test_only_the_guard_of_one_process_or_workflow_is_read_so() -> None:
    broker = Broker(["queued"], [], [])
    assert await whole(broker, GUARD) is not None
    for pattern in (
        "ledger.process.>",
        "ledger.process.*.>",
        "ledger.limit.A.>",
        "ledger.process.A.queued.>",
    ):
        assert await whole(broker, pattern) is None, pattern
