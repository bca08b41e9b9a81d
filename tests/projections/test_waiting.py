"""Asking a projector that is slow, one that hangs, and one that is not there."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest
from colonies_projections import Asked, Page, Snapshot

from colonies import querying
from colonies.errors import Unavailable
from tests.harness import RunningColony
from tests.projections.helpers import VIEWS, Verdicts, projecting
from tests.projections.test_projector import PROGRAM


class Slow(Verdicts):
    """A view that takes its time, longer than anybody is left without a word."""

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        await asyncio.sleep(querying.QUIET_S + 2)
        return await super().answer(asked, at)


async def test_a_projector_that_hangs_is_not_waited_for_as_one_that_is_slow(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    credential = await colony.credential("viewer", "observer")
    said: list[float] = []
    command = (str(PROGRAM), colony.url, str(credential), str(tmp_path / "views.sqlite"))
    running = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert running.stdout is not None
    try:
        assert await running.stdout.readline() == b"ready\n"
        waiting = lambda: said.append(time.monotonic())  # noqa: E731
        await querying.ask(client.ledger, "processes", {}, waiting=waiting)
        assert not said
        running.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no projector answers; start one"):
            await querying.ask(client.ledger, "processes", {}, wait_s=300, waiting=waiting)
        assert len(said) == 1
        assert said[0] - began < querying.QUIET_S + querying.PING_S
        running.send_signal(signal.SIGCONT)
        await querying.ask(client.ledger, "processes", {})
    finally:
        running.kill()
        await running.wait()
    with pytest.raises(Unavailable, match="no projector answers; start one"):
        await querying.ask(client.ledger, "processes", {})


async def test_a_projector_that_is_slow_is_waited_for_and_told_from_none(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    said: list[bool] = []
    session = await colony.session("viewer", "observer")
    async with projecting(session, tmp_path / "views.sqlite", (*VIEWS, Slow)):
        answer = await querying.ask(client.ledger, "verdicts", {}, waiting=lambda: said.append(True))
        assert answer.items
        assert said == [True]
        with pytest.raises(Unavailable, match=r"a projector is there and has no answer after 3\.5 s"):
            await querying.ask(client.ledger, "verdicts", {}, wait_s=querying.QUIET_S + 1.5)
