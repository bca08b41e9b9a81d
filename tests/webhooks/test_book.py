"""What the service keeps: bounded, whole after any end, and of one ledger only."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from colonies_projections.position import Position, Unusable
from colonies_projections.webhooks import book as book_
from colonies_projections.webhooks.book import Book, Changes, Delivery

from colonies.core.webhooks import Webhook
from colonies.errors import NotFound

OPS = Webhook(
    name="ops",
    url="https://example.com/",
    events=("*",),
    service="webhooks",
    key="U",
    secret=bytes(80),
    func=None,
    label=None,
    author="olga",
    added=10,
    added_at=1,
    since=10,
)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Book]:
    book = await Book.open(path, "A")
    try:
        yield book
    finally:
        await book.close()


def deliveries(*sequences: int, name: str = "ops") -> list[Delivery]:
    return [Delivery(name, sequence, "process.queued") for sequence in sequences]


async def add(book: Book, webhook: Webhook, *sequences: int) -> None:
    changes = Changes({webhook.name: webhook}, deliveries(*sequences, name=webhook.name))
    await book.take(Position(max(sequences, default=webhook.since), b"d"), changes, 1_000)


async def test_what_is_kept_is_there_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "book") as book:
        assert book.position is None
        await add(book, OPS, 11, 12, 13)
        (first, *_) = await book.firsts("ops", 0, 10)
        await book.delivered(first, 2_000)
    async with opened(tmp_path / "book") as book:
        assert book.position == Position(13, b"d")
        entry = book.entries["ops"]
        assert (entry.said, entry.pending, entry.state.delivered) == (OPS, 2, 1)
        assert [d.sequence for d in await book.firsts("ops", 0, 10)] == [12, 13]
        assert [d.sequence for d in await book.firsts("ops", 12, 10)] == [13]


async def test_a_delivery_that_is_there_is_not_there_twice(tmp_path: Path) -> None:
    async with opened(tmp_path / "book") as book:
        await add(book, OPS, 11)
        await book.take(Position(11, b"d"), Changes(deliveries=deliveries(11)), 1_000)
        assert len(await book.firsts("ops", 0, 10)) == 1


async def test_what_is_too_much_is_a_dead_letter_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_, "MAX_PENDING", 3)
    async with opened(tmp_path / "book") as book:
        await add(book, OPS, 11, 12)
        await book.take(Position(15, b"d"), Changes(deliveries=deliveries(13, 14, 15)), 1_000)
        assert [d.sequence for d in await book.firsts("ops", 0, 10)] == [11, 12, 13]
        dead = await book.dead("ops", 10)
        assert [(d.sequence, d.dead, d.error) for d in dead] == [
            (15, 1_000, "3 deliveries were waiting already"),
            (14, 1_000, "3 deliveries were waiting already"),
        ]
        assert await book.counts("ops") == (3, 2)


async def test_of_too_many_dead_letters_the_oldest_go_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_, "MAX_DEAD", 3)
    async with opened(tmp_path / "book") as book:
        await add(book, OPS, *range(11, 17))
        for delivery in await book.firsts("ops", 0, 5):
            await book.failed(delivery, "answered 500", 2_000, None)
        assert [d.sequence for d in await book.dead("ops", 10)] == [15, 14, 13]
        assert book.entries["ops"].state.dropped == 2
        await book.gone("ops", 3_000)
        assert [d.sequence for d in await book.dead("ops", 10)] == [16, 15, 14]
        assert (book.entries["ops"].state.dropped, book.entries["ops"].pending) == (3, 0)
        for asked, named in (([13], "13"), ([14, 999, 13], "13, 999"), (range(10), "0, 1, 2, 3, 4 ...")):
            with pytest.raises(NotFound, match=f"webhook ops has no dead letter {named}; nothing"):
                await book.rerun("ops", asked, 4_000)
        assert book.entries["ops"].pending == 0
        assert await book.rerun("ops", None, 4_000) == 3
        assert book.entries["ops"].pending == 3
        assert [d.sequence for d in await book.retries("ops", 10)] == [14, 15, 16]


async def test_the_webhooks_of_one_stretch_are_those_at_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path / "book") as book:
        await add(book, OPS, 11, 12)
        again = replace(OPS, added=20, since=20)
        await book.take(Position(25, b"d"), Changes({"ops": again}, deliveries(15, 25)), 1_000)
        assert [d.sequence for d in await book.firsts("ops", 0, 10)] == [25]
        changed = replace(again, since=30, url="https://example.org/")
        await book.take(Position(30, b"d"), Changes({"ops": changed}), 1_000)
        assert [d.sequence for d in await book.firsts("ops", 0, 10)] == [25]
        await book.take(Position(31, b"d"), Changes({"ops": None}, deliveries(31)), 1_000)
        assert book.entries == {}
        assert await book.counts("ops") == (0, 0)


async def test_what_came_of_a_removed_webhook_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "book") as book:
        await add(book, OPS, 11, 12)
        first, second = await book.firsts("ops", 0, 10)
        again = replace(OPS, added=20, since=20)
        await book.take(Position(20, b"d"), Changes({"ops": again}), 1_000)
        await book.delivered(first, 2_000)
        await book.failed(second, "answered 500", 2_000, 3_000)
        await book.failed(second, "answered 500", 2_000, None)
        state = book.entries["ops"].state
        assert (state.delivered, state.failing_since, state.error) == (0, None, None)
        assert await book.counts("ops") == (0, 0)


async def test_a_cancelled_stretch_leaves_nothing_half(tmp_path: Path) -> None:
    async with opened(tmp_path / "book") as book:
        await add(book, OPS, 11)
        for number in range(50):
            sequence = 100 + number
            task = asyncio.create_task(
                book.take(Position(sequence, b"d"), Changes(deliveries=deliveries(sequence)), 1_000)
            )
            for _ in range(number % 10):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    async with opened(tmp_path / "book") as book:
        there = [d.sequence for d in await book.firsts("ops", 0, 100)]
        assert book.position is not None
        assert there[-1] == book.position.sequence


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE service SET version = 99",
        "UPDATE service SET colony = 'B'",
        "DROP TABLE webhook",
        "UPDATE webhook SET said = 'x'",
    ],
)
async def test_a_file_that_is_not_to_be_trusted_is_not_gone_on_with(tmp_path: Path, spoil: str) -> None:
    async with opened(tmp_path / "book") as book:
        await add(book, OPS, 11)
    with sqlite3.connect(tmp_path / "book") as db:
        db.execute(spoil)
    db.close()
    with pytest.raises(Unusable):
        await Book.open(tmp_path / "book", "A")
