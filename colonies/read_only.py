"""What ledgers have in common that are only read: every way of writing says why not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from colonies.errors import Refused
from colonies.ledger import Draft, Offers


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
