"""One question to all services of a kind: each answers for itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from colonies.direct import Message
from colonies.errors import Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.link import read_answer, status_of

GATHER_S = 0.5  # between the answers of several services
MAX_ANSWERS = 1_000


async def ask_all(
    ledger: JetStreamLedger, subject: str, body: dict[str, Any], *, wait_s: float, answers: int | None = None
) -> list[dict[str, Any]]:
    """Their JSON answers, in the order in which they come.

    The first may take `wait_s` seconds, and so may the others if it is known how many `answers` there are;
    else they are waited for as long as one comes now and then, up to MAX_ANSWERS with those that are none.

    Raises:
        Unavailable: no service answers on that subject.
    """
    heard: asyncio.Queue[Message] = asyncio.Queue()
    inbox, client = ledger.new_inbox(), ledger.client()
    listening = await client.listen(inbox, heard.put_nowait)
    found: list[dict[str, Any]] = []
    try:
        await client.publish(subject, json.dumps(body).encode(), reply=inbox)
        with contextlib.suppress(TimeoutError):
            for _ in range(MAX_ANSWERS):
                if len(found) == answers:
                    break
                async with asyncio.timeout(wait_s if answers or not found else GATHER_S):
                    message = await heard.get()
                if status_of(message) == "503":
                    break
                with contextlib.suppress(Unavailable):  # what answers so is no service of ours
                    found.append(read_answer(message.data, subject))
    finally:
        await listening.unsubscribe()
    if not found:
        raise Unavailable(f"no service answers on {subject}")
    return found
