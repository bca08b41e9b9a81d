"""What ledgers have in common that are only read: every way of writing says why not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NoReturn

from colonies import subjects
from colonies.errors import Refused
from colonies.ledger import Draft, Ledger, Offers, Stored, Subscription


class ReadOnly:
    """The writing half of `colonies.ledger.Ledger`, refused. `why` is what whoever tries is told."""

    def __init__(self, why: str) -> None:
        self.why = why

    def _refuse(self) -> NoReturn:
        raise Refused(self.why)

    async def append(self, draft: Draft) -> int:
        self._refuse()

    async def send(self, draft: Draft) -> Awaitable[int]:
        self._refuse()

    async def append_all(self, drafts: Sequence[Draft]) -> list[int]:
        self._refuse()

    async def emit(self, subject: str, data: bytes) -> int:
        self._refuse()

    async def put_value(self, author: str, data: bytes) -> str:
        self._refuse()

    async def offers(self) -> Offers:
        self._refuse()

    def on_gap(self, heard: Callable[[], None]) -> None:
        """Nothing that is only read is lost."""


class ReadingLedger(ReadOnly):
    """A ledger of whose methods only those that read are left."""

    def __init__(self, ledger: Ledger, why: str) -> None:
        super().__init__(why)
        self.colony = ledger.colony
        self._ledger = ledger

    async def read(self, pattern: str) -> list[Stored]:
        return await self._ledger.read(pattern)

    def scan(self, after: int = 0, pattern: str = subjects.EVERYTHING) -> AsyncIterator[list[Stored]]:
        return self._ledger.scan(after, pattern)

    async def at(self, sequence: int) -> Stored:
        return await self._ledger.at(sequence)

    async def last_sequence(self) -> int:
        return await self._ledger.last_sequence()

    async def last_of(self, patterns: Sequence[str]) -> dict[str, int]:
        return await self._ledger.last_of(patterns)

    async def subscribe(self, pattern: str, heard: Callable[[Stored], None]) -> Subscription:
        return await self._ledger.subscribe(pattern, heard)

    def on_gap(self, heard: Callable[[], None]) -> None:
        self._ledger.on_gap(heard)

    async def emitted(self, pattern: str) -> list[Stored]:
        return await self._ledger.emitted(pattern)

    async def now(self) -> int:
        return await self._ledger.now()

    async def get_value(self, name: str, size_bytes: int) -> bytes:
        return await self._ledger.get_value(name, size_bytes)

    @property
    def reconnected_at(self) -> float | None:
        return self._ledger.reconnected_at

    async def lost(self) -> None:
        await self._ledger.lost()

    async def close(self) -> None:
        await self._ledger.close()
