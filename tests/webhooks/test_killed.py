"""The service killed at any point, its file lost, the broker gone: every event comes at least once."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.harness import until
from tests.webhooks.ground import HERE, SPEC, Ground, ground, stopped

KILLS = 12
PROCESSES = 400


class Killed:
    """The service in a process of its own, killed and started again."""

    def __init__(self, at: Ground, credential: Path) -> None:
        self._at = at
        self._credential = credential
        self.log = at.colony.folder / "service.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(HERE / "service_program.py"), self._at.colony.url),
                *(str(self._credential), str(self._at.file), "0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1"),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(90):
            assert await self._process.stdout.readline() == b"ready\n", self.log.read_text()

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@pytest.mark.timeout(600)
async def test_a_service_killed_again_and_again_under_load_skips_nothing(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        credential = await at.colony.credential("webhooks", "observer")
        await at.owner.refresh()
        secret = await at.add("ops", "fails/1", events=["process.queued"])
        await at.add("other", "ok", events=["process.*"])
        service = Killed(at, credential)
        ann = await at.colony.client("ann")

        async def load() -> None:
            for _ in range(PROCESSES // 20):
                await asyncio.gather(*(ann.submit(SPEC) for _ in range(20)))
                await asyncio.sleep(0.4)

        dice = random.Random(7)
        loading = asyncio.create_task(load())
        try:
            for _ in range(KILLS):
                await service.start()
                await asyncio.sleep(dice.uniform(0.0, 0.5))
                await service.kill()
            await loading
            await service.start()
            stored = await at.owner.ledger.read("ledger.process.*.queued.*.*")
            wanted = {each.sequence for each in stored}
            assert len(wanted) == PROCESSES
            await at.heard(list(wanted), "ok")
            await at.until("ops", lambda said: said["pending"] == 0, "nothing is left")
            await at.until("other", lambda said: said["pending"] == 0, "nothing is left")
        finally:
            loading.cancel()
            await service.kill()
        for path in ("fails/1", "ok"):
            ids = defaultdict(set)
            for request in at.receiver.requests(path):
                ids[int(json.loads(request["body"])["id"])].add(request["headers"]["webhook-id"])
            assert set(ids) == wanted
            assert all(len(same) == 1 for same in ids.values())
            assert len(set.union(*ids.values())) == PROCESSES
        assert b"whsec" not in service.log.read_bytes()
        assert secret.hex().encode() not in service.log.read_bytes()


async def test_a_service_that_lost_its_file_begins_where_its_first_webhook_did(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        task = await at.send()
        await at.add("ops", events=["process.*"])
        sequences = await at.submit(5)
        await at.until("ops", lambda said: said["delivered"] == 5, "all are delivered")
        await stopped(task)
        at.file.write_bytes(b"no database at all" * 1_000)
        await at.send()
        await until(lambda: len(at.receiver.requests()) >= 10, "all of it again")
        ids = [request["headers"]["webhook-id"] for request in at.receiver.requests()]
        assert ids[5:] == ids[:5]
        assert at.receiver.sequences()[:5] == sequences


async def test_a_file_of_another_ledger_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with ground(tmp_path / "one") as at:
        await at.send()
        await at.add("ops", events=["process.*"])
        await at.heard(await at.submit())
        former = at.file
    async with ground(tmp_path / "two") as at:
        shutil.copy(former, at.file)
        await at.enrol()
        await at.add("ops", events=["process.*"])
        sequences = await at.submit()
        await at.send()
        await at.heard(sequences)
        said = await at.until("ops", lambda said: not said["pending"], "nothing is left to send")
        assert said["delivered"] == 1


async def test_a_service_that_comes_back_goes_on_where_it_was(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        task = await at.send()
        await at.add("ops", events=["process.*"])
        before = await at.submit(2)
        await at.until("ops", lambda said: said["delivered"] == 2, "two are delivered")
        await stopped(task)
        meanwhile = await at.submit(3)
        await at.add("late", "ok/late", events=["process.*"])
        later = await at.submit(1)
        await at.send()
        await at.heard([*meanwhile, *later], "ok")
        await at.heard(later, "ok/late")
        assert at.receiver.sequences("ok") == [*before, *meanwhile, *later]
        assert at.receiver.sequences("ok/late") == later


async def test_a_broker_that_dies_costs_no_event(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops", "slow/0.1", events=["process.*"])
        before = await at.submit(10)
        await at.colony.kill_broker()
        await at.colony.restart_broker()
        after = await at.submit(2)
        await at.heard([*before, *after])
        said = await at.until("ops", lambda said: said["pending"] == 0, "nothing is left")
        assert (said["delivered"], said["dead"]) == (12, 0)


async def test_two_do_not_work_on_one_file(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        with pytest.raises(Exception, match="another"):
            await at.send("webhooks-2")


async def test_what_no_webhook_hears_moves_the_position_now_and_then(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        task = await at.send()
        await at.add("ops", events=["colony.configured"])
        ann = await at.colony.client("ann")
        for _ in range(11):
            await ann.submit_many([SPEC] * 100)
        last = await at.owner.ledger.last_sequence()
        await until(lambda: _position(at.file) >= last // 1_000 * 1_000, "the position moved")
        await stopped(task)


def _position(file: Path) -> int:
    with sqlite3.connect(file) as db:
        (position,) = db.execute("SELECT position FROM service").fetchone()
    db.close()
    return int(position)
