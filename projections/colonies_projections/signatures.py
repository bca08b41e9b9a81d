"""Checking signatures on other processors, for a projector that is far behind.

A signature's arithmetic is the larger half of what an event costs, and Python does it on one processor at a
time. So while there is much to catch up with, helpers check signatures ahead,
each with the key that its author had last. What they say is only that a key signed some bytes: whether that
key is the one that counts there is decided where events are judged, and checked there again if it is not.
A helper has no key, no connection and no file; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass, field
from typing import BinaryIO

import msgpack
import structlog

from colonies import codec, subjects
from colonies.core.colony import Colony
from colonies.ledger import Stored

WORTH_IT = 20_000  # events to catch up with: a helper takes half a second to begin
AHEAD = 3  # batches that are read before they are needed
MAX_HELPERS = 7

_LENGTH = struct.Struct(">I")
_PROGRAM = f"from {__name__} import main; main()"

_log = structlog.get_logger("colonies.projector")

Checked = dict[int, str]
"""Of each sequence that was checked, the key that signed it."""


def helpers_for(events: int) -> int:
    """How many helpers are worth it to catch up with so many events."""
    if events < WORTH_IT:
        return 0
    return min(MAX_HELPERS, (os.cpu_count() or 1) - 1)


@dataclass(slots=True)
class _Helper:
    process: asyncio.subprocess.Process
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self, request: bytes) -> bytes:
        """One byte for each signature: is it that key's?"""
        reader, writer = self.process.stdout, self.process.stdin
        assert reader is not None
        assert writer is not None
        async with self.busy:
            writer.write(_LENGTH.pack(len(request)) + request)
            await writer.drain()
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            return await reader.readexactly(length)


class Helpers:
    """Some helper processes: `async with`. Without any it checks nothing, and whoever judges does it all."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._started: list[_Helper] = []
        self._helpers: list[_Helper] = []
        self._turn = 0

    async def __aenter__(self) -> Helpers:
        for _ in range(self._number):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _PROGRAM),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is ours; it ends with its input
            )
            self._started.append(_Helper(process))
        self._helpers = list(self._started)
        return self

    async def __aexit__(self, *_: object) -> None:
        for helper in self._started:
            with contextlib.suppress(ProcessLookupError):
                helper.process.kill()
            await helper.process.wait()
        self._helpers.clear()

    async def check(self, colony: Colony, batch: list[Stored]) -> Checked:
        """Which of these events are signed by the key that their author had last, as far as is known."""
        if not self._helpers:
            return {}
        asked: list[tuple[int, str, bytes, str]] = []
        for stored in batch:
            subject = subjects.parse(stored.subject)
            member = colony.members.get(subject.author) if subject is not None else None
            if member is not None:
                asked.append((stored.sequence, stored.subject, stored.data, member.key))
        self._turn = (self._turn + 1) % len(self._helpers)
        helper = self._helpers[self._turn]
        request = msgpack.packb([colony.key, [[subject, data, key] for _, subject, data, key in asked]])
        try:
            said = await helper.check(request)
        except (OSError, asyncio.IncompleteReadError, EOFError) as error:
            if helper in self._helpers:  # else it was noticed already
                _log.warning("a helper that checks signatures ended", error=repr(error))
                self._helpers.remove(helper)
            return {}
        return {sequence: key for (sequence, _, _, key), good in zip(asked, said, strict=True) if good}


async def checked_ahead(
    batches: AsyncIterable[list[Stored]], helpers: Helpers, colony: Colony
) -> AsyncGenerator[tuple[list[Stored], Checked], None]:
    """The batches in order, each with what helpers say of it; some are read before they are asked for."""
    under_way: deque[tuple[list[Stored], asyncio.Task[Checked]]] = deque()
    try:
        async for batch in batches:
            task = asyncio.create_task(helpers.check(colony, batch), name="check signatures")
            under_way.append((batch, task))
            while len(under_way) > AHEAD:
                batch, task = under_way[0]
                checked = await task
                under_way.popleft()
                yield batch, checked
        while under_way:
            batch, task = under_way[0]
            checked = await task
            under_way.popleft()
            yield batch, checked
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


# --- the helper -------------------------------------------------------------------------------------


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
        colony, asked = msgpack.unpackb(requests.read(*_LENGTH.unpack(head)))
        said = bytes(codec.is_signed_by(colony, subject, data, key) for subject, data, key in asked)
        answers.write(_LENGTH.pack(len(said)) + said)
        answers.flush()


def main() -> None:
    serve(sys.stdin.buffer, sys.stdout.buffer)
