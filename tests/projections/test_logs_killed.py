"""A projector that is killed over and over while workers write: each line is there, and once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from colonies import subjects
from tests.harness import RunningColony, until
from tests.projections.helpers import ALL, projecting
from tests.projections.logged import Writer, all_items, process_of
from tests.projections.test_projector import PROGRAM

KILLS = 12
LINES = "".join(f"line {n} of many that a worker writes\n" for n in range(200))


def position(path: Path) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db,
    ):
        for (found,) in db.execute("SELECT position FROM logs_state"):
            return int(found)
    return 0


def kept(path: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM logs ORDER BY sequence").fetchall()


@pytest.mark.timeout(240)
async def test_killed_while_workers_write_it_has_every_line_exactly_once(
    colony: RunningColony, tmp_path: Path
) -> None:
    chance = random.Random(5)
    client = await colony.client()
    sessions = [await colony.session(name, "worker") for name in ("w1", "w2")]
    writers = [Writer(sessions[n % 2], await process_of(client, f"f{n}")) for n in range(4)]
    credential = await colony.credential("viewer", "observer")
    killed = tmp_path / "killed.sqlite"
    written = {writer.process: 0 for writer in writers}

    async def keep_writing(writer: Writer) -> None:
        """The lines over and over, as they come out of a pipe: cut anywhere, some messages stored twice."""
        while True:
            rest = LINES
            while rest:
                size = chance.choice((7, 40, 300))
                sealed = await writer.write(rest[:size], stream="stdout")
                rest = rest[size:]
                if chance.random() < 0.1:
                    await writer.session.ledger.emit(
                        subjects.log(writer.process, writer.session.name), sealed
                    )
                await asyncio.sleep(0.01)  # what is written must be taken in on a busy machine as well
            written[writer.process] += 1

    busy = [asyncio.create_task(keep_writing(writer)) for writer in writers]
    positions = [0]
    for number in range(KILLS):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", str(PROGRAM), colony.url, str(credential), str(killed)),
            stdout=asyncio.subprocess.PIPE,
        )
        if number % 3:  # while it takes messages in; else perhaps while it starts
            last = positions[-1]
            await until(lambda last=last: position(_logs(killed)) > last, "the projector goes on")
        await asyncio.sleep(chance.uniform(0, 0.4))
        process.kill()
        await process.communicate()
        positions.append(position(_logs(killed)))
    await until(lambda: min(written.values()) >= 1, "all was written once")
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    session = await colony.session("viewer", "observer")
    async with projecting(session, killed, ALL):
        for writer in writers:
            found = [item["text"] for item in await all_items(client.session, process=writer.process)]
            expected = LINES.splitlines() * (written[writer.process] + 1)
            assert found[:-1] == expected[: len(found) - 1]
            assert expected[len(found) - 1].startswith(found[-1])
            assert len(found) >= 200
    anew = tmp_path / "anew.sqlite"
    async with projecting(session, anew, ALL):
        await all_items(client.session)
    assert kept(_logs(killed)) == kept(_logs(anew))
    assert not _logs(killed).with_name("killed.sqlite.logs.old").exists()
    assert positions == sorted(positions)
    assert len(set(positions)) > KILLS // 2


def _logs(path: Path) -> Path:
    return path.with_name(f"{path.name}.logs")
