"""Logs for tests: attempts that write them, members that forge them, and searching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from colonies import subjects
from colonies.client import Client
from colonies.ids import new_id
from colonies.session import Session
from tests.projections.helpers import ask

NOBODY = {"func": "train", "conditions": {"runtimetype": "nobody"}}


@dataclass
class Writer:
    """A worker as far as LOGS can tell: it signs what it likes, for a process."""

    session: Session
    process: str
    attempt: str = field(default_factory=new_id)
    index: int = 0

    async def write(self, *texts: str, stream: str = "stdout", **more: Any) -> bytes:
        """Store each as a message; the last one's bytes."""
        sealed = b""
        for text in texts:
            sealed = await self.say("log.written", {"stream": stream, "text": text, **more})
        return sealed

    async def say(self, type: str, data: dict[str, Any]) -> bytes:
        said = {"attempt": self.attempt, "n": 1, "index": self.index, **data}
        self.index += 1
        subject = subjects.log(self.process, self.session.name)
        now = await self.session.ledger.now()
        sealed = self.session.seal_note(subject, type, now, said)
        await self.session.ledger.emit(subject, sealed)
        return sealed


async def search(session: Session, text: str | None = None, **question: Any) -> list[dict[str, Any]]:
    """The lines found, newest first."""
    answer = await ask(session, "logs", text=text, **question)
    assert "items" in answer, answer
    return list(answer["items"])


async def texts(session: Session, text: str | None = None, **question: Any) -> list[str]:
    """What they say, oldest first."""
    return [item["text"] for item in reversed(await search(session, text, **question))]


async def all_items(session: Session, **question: Any) -> list[dict[str, Any]]:
    """All pages, oldest first."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        answer = await ask(session, "logs", sort="time", limit=1_000, cursor=cursor, **question)
        items += answer["items"]
        cursor = answer.get("cursor")
        if cursor is None:
            return items


async def process_of(client: Client, func: str = "train", **more: Any) -> str:
    """A new process that nobody runs."""
    return (await client.submit({**NOBODY, "func": func, **more})).id


def ids(items: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(item["sequence"], item["line"]) for item in items]
