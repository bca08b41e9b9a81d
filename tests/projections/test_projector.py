"""The projector itself: killed, restarted, given a broken file or another ledger, and always right."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import Projector
from colonies_projections.standing import checksums
from structlog.testing import capture_logs

from colonies import founding
from colonies.errors import Refused, Unavailable
from tests.harness import RunningColony, running_colony, until
from tests.projections.helpers import ALL, ask, dump, folded, projecting, tables_in

PROGRAM = Path(__file__).parent / "projector_program.py"
WITHOUT = {"crons", "generators", "nodes", "workflows", "findings"}  # there are none of these here
NOBODY = {"func": "x", "conditions": {"runtimetype": "nobody"}}
PYTHON = {"runtimetype": "python"}
KILLS = 10


def position(path: Path) -> int:
    with contextlib.suppress(sqlite3.Error, KeyError, IndexError):
        return int(dump(path)["projector"][0][2])
    return 0


async def test_killed_at_any_point_it_takes_every_event_in_exactly_once(
    colony: RunningColony, tmp_path: Path
) -> None:
    chance = random.Random(7)
    client = await colony.client()
    killed, rebuilt = tmp_path / "killed.sqlite", tmp_path / "rebuilt.sqlite"
    credential = await colony.credential("viewer", "observer")
    await colony.spawn("w1", concurrency=20)
    await client.submit_many([NOBODY] * 500)

    async def keep_busy() -> None:
        while True:
            work = {"func": "fail_until", "args": [2], "maxretries": 1, "conditions": PYTHON}
            await client.submit_many([work] * 5)
            await asyncio.sleep(0.05)

    busy = asyncio.create_task(keep_busy())
    positions = [0]
    for number in range(KILLS):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", str(PROGRAM), colony.url, str(credential), str(killed)),
            stdout=asyncio.subprocess.PIPE,
        )
        if number % 3:  # while it takes events in; else perhaps before, while it starts
            last = positions[-1]
            await until(lambda last=last: position(killed) > last, "the projector goes on")
        await asyncio.sleep(chance.uniform(0, 0.4))
        process.kill()
        said, _ = await process.communicate()
        assert b"built anew" not in said
        positions.append(position(killed))
    busy.cancel()
    await asyncio.sleep(1)
    session = await colony.session("viewer", "observer")
    with capture_logs() as logs:
        async with projecting(session, killed, ALL):
            await ask(client.session, "processes")
    assert not [entry for entry in logs if entry["log_level"] == "warning"]
    async with projecting(session, rebuilt, ALL):
        await ask(client.session, "processes")
    async with projecting(session, killed, ALL):
        await ask(client.session, "processes")
    assert dump(killed) == dump(rebuilt)
    assert agreed(killed, rebuilt) == {make().name for make in ALL}
    assert positions == sorted(positions)
    assert len(set(positions)) > KILLS // 2


def agreed(one: Path, other: Path) -> set[str]:
    """The views whose rows add up to the same in both files, at moments all over the ledger."""
    names, found = [make().name for make in ALL], set()
    for at in range(1, position(one) + 1, max(1, position(one) // 20)):
        sums = [checksums(path, tables_in(path), names, at) for path in (one, other)]
        assert sums[0] == sums[1], at
        found |= {name for name, (rows, _) in sums[0].items() if rows or name in WITHOUT}
    return found


async def test_a_restart_goes_on_from_its_position_and_reads_nothing_again(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    path = tmp_path / "views.sqlite"
    async with projecting(session, path, ALL):
        first = await client.submit(NOBODY)
        await ask(client.session, "processes")
    await first.cancel()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM verdicts")
        db.commit()
    async with projecting(session, path, ALL):
        await ask(client.session, "processes", state="cancelled")
    assert dump(path)["verdicts"] == (await folded(client.session))[1][-1:]


async def test_it_follows_a_broker_that_was_killed_and_started_again(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite") as projector:
        before = await client.submit(NOBODY)
        await ask(client.session, "processes")
        await colony.kill_broker()
        await asyncio.sleep(0.5)
        await colony.restart_broker()
        after = await client.submit(NOBODY)
        answer = await ask(client.session, "processes")
        assert [item["id"] for item in answer["items"]] == [after.id, before.id]
        assert projector.ready.is_set()


def _garbage_everywhere(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def _garbage_within(path: Path) -> None:
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8_192)
        file.write(random.Random(1).randbytes(size_bytes - 8_192))


def _half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _changed(statement: str) -> object:
    def change(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(statement)

    return change


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (_garbage_everywhere, "it is broken"),
        (_garbage_within, "it is broken"),
        (_half, "it is broken"),
        (_changed("DROP TABLE processes"), "it is broken: no such table: processes"),
        (_changed("DELETE FROM projector"), "it is not finished"),
        (_changed("UPDATE projector SET folded = x'c1'"), "what it holds of the fold makes no sense"),
        (_changed("UPDATE projector SET schema = 'old'"), "another version"),
        (_changed("UPDATE projector SET colony = 'AAAA'"), "another colony"),
        (_changed("UPDATE projector SET digest = x'00'"), "the ledger was replaced"),
        (_changed("UPDATE projector SET position = position + 1000"), "the ledger was cut"),
        (_changed("UPDATE projector SET position = position - 3"), "the ledger was replaced: event"),
    ],
)
async def test_a_file_that_is_not_to_be_trusted_is_built_anew(
    colony: RunningColony, tmp_path: Path, break_it: object, reason: str
) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    path = tmp_path / "views.sqlite"
    handles = await client.submit_many([NOBODY] * 40)
    async with projecting(session, path):
        await ask(client.session, "processes")
    right = dump(path)
    assert callable(break_it)
    break_it(path)
    with capture_logs() as logs:
        async with projecting(session, path):
            answer: dict[str, Any] = {}
            for _ in range(100):  # some damage is found by the first question, and that one is refused
                with contextlib.suppress(Unavailable):
                    answer = await ask(client.session, "processes", limit=1_000)
                if "items" in answer:
                    break
                await asyncio.sleep(0.05)
    assert [item["id"] for item in answer["items"]] == [handle.id for handle in reversed(handles)]
    said = [entry["reason"] for entry in logs if entry["log_level"] == "warning"]
    assert len(said) == 1
    assert reason in said[0]
    assert dump(path) == right


@pytest.mark.parametrize(
    ("submitted", "reason"), [(0, "the ledger was cut"), (50, "the ledger was replaced")]
)
async def test_a_new_ledger_in_the_old_ones_place_is_noticed(
    tmp_path: Path, submitted: int, reason: str
) -> None:
    path = tmp_path / "views.sqlite"
    async with running_colony(tmp_path, orchestrate=False) as colony:
        client = await colony.client()
        await client.submit_many([NOBODY] * 20)
        async with projecting(await colony.session("viewer", "observer"), path):
            await ask(client.session, "processes")
    shutil.rmtree(tmp_path / "nats")
    async with running_colony(tmp_path, orchestrate=False) as colony:
        client = await colony.client("bob")
        handles = await client.submit_many([NOBODY] * (submitted or 1))
        with capture_logs() as logs:
            async with projecting(await colony.session("other", "observer"), path):
                answer = await ask(client.session, "processes", limit=1_000)
    assert len(answer["items"]) == len(handles)
    said = [entry["reason"] for entry in logs if entry["log_level"] == "warning"]
    assert len(said) == 1
    assert reason in said[0]


async def test_a_second_projector_on_one_file_says_so_and_ends(colony: RunningColony, tmp_path: Path) -> None:
    session = await colony.session("viewer", "observer")
    path = tmp_path / "views.sqlite"
    async with projecting(session, path):
        with pytest.raises(Unavailable, match=r"another projector works on .*views\.sqlite"):
            await Projector(session, path).run()
    async with projecting(session, path):
        pass


async def test_several_projectors_share_the_questions(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    one, two = [await colony.session(name, "observer") for name in ("one", "two")]
    async with projecting(one, tmp_path / "1.sqlite"):
        async with projecting(two, tmp_path / "2.sqlite"):
            assert "items" in await ask(client.session, "processes")
        assert "items" in await ask(client.session, "processes")


async def test_a_file_that_cannot_be_written_is_said(colony: RunningColony, tmp_path: Path) -> None:
    session = await colony.session("viewer", "observer")
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be written"):
        await Projector(session, tmp_path / "file" / "views.sqlite").run()


async def test_only_an_observer_is_a_projector(colony: RunningColony, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="a projector needs the role observer"):
        await Projector(await colony.session("ann", "user"), tmp_path / "views.sqlite").run()


async def test_a_revoked_projector_ends_and_says_why(colony: RunningColony, tmp_path: Path) -> None:
    projector = Projector(await colony.session("viewer", "observer"), tmp_path / "views.sqlite")
    task = asyncio.create_task(projector.run())
    await projector.ready.wait()
    await founding.revoke(colony.owner, "viewer")
    keyring = colony.keyring
    await founding.Operator(colony.owner, keyring.operator, colony.url).push()
    with pytest.raises(Refused, match="viewer"):
        await asyncio.wait_for(task, 20)
    assert not projector.ready.is_set()
