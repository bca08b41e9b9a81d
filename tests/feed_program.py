"""Subscribers to be killed, each a process of its own: `python tests/feed_program.py URL CREDS DATABASE`.

For each line on stdin it forks one, prints its pid, waits for its end and prints how it ended: so a test does
not wait a hundred times for Python to start. What a subscriber does with an event and where it goes on from
are one transaction, as docs/feeds.md advises. It stops after the event that the line says; 0: never.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys

import colonies


async def subscribe(url: str, creds: str, path: str, until: int) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")  # what is killed here is the process, not the machine
    (position,) = database.execute("SELECT coalesce(max(sequence), 0) FROM seen").fetchone()
    async with (
        colonies.connect(url=url, creds=creds) as colony,
        contextlib.aclosing(colony.feed(position, verdict=None)) as events,
    ):
        async for event in events:
            with database:
                row = (event.sequence, event.type, event.entity, event.author, event.verdict)
                database.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", row)
            if event.sequence == until:
                return


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(subscribe(sys.argv[1], sys.argv[2], sys.argv[3], int(line)))
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
