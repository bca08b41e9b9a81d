"""Signatures checked ahead by helpers: the verdicts are those of somebody who checks everything himself."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from colonies_projections import build as build_module
from colonies_projections.build import Build
from colonies_projections.projector import VIEWS
from colonies_projections.signatures import Helpers, serve

from colonies import codec
from colonies.core.colony import Colony
from colonies.history import History
from colonies.ledger import Ledger, Stored
from tests.benchmarks.generated import Generated
from tests.projections.helpers import ALL, dump

SIZE = 600


class Given:
    """A ledger that is there as a list."""

    def __init__(self, colony: str, events: list[Stored]) -> None:
        self.colony = colony
        self.events = events

    async def last_sequence(self) -> int:
        return self.events[-1].sequence

    async def scan(self, after: int = 0, pattern: str = "") -> AsyncIterator[list[Stored]]:
        for start in range(after, len(self.events), 100):
            yield self.events[start : start + 100]


def spoiled() -> Given:
    """A ledger with all that can be wrong with a signature, beside what is right."""
    made = Generated(SIZE)
    events = list(made.stored())
    for place in range(100, len(events), 37):
        stored = events[place]
        data = bytearray(stored.data)
        data[-1 - place % 60] ^= 1  # within the signature
        events[place] = Stored(stored.subject, stored.sequence, stored.time, bytes(data))
    for place in range(110, len(events), 53):
        other = events[place - 30]
        events[place] = Stored(other.subject, events[place].sequence, events[place].time, other.data)
    for place in range(120, len(events), 71):
        events[place] = Stored(events[place].subject, events[place].sequence, events[place].time, b"junk")
    return Given(made.colony, events)


async def built(ledger: Given, path: Path, monkeypatch: pytest.MonkeyPatch, helpers: int) -> dict[str, Any]:
    monkeypatch.setattr(build_module, "FAR", 50)
    monkeypatch.setattr(build_module, "helpers_for", lambda events: helpers)
    build = await Build.open(cast(Ledger, ledger), path, [make() for make in ALL])
    try:
        async for _ in build.catch_up():
            pass
    finally:
        await build.close()
    return dump(path)


def test_a_generated_ledger_is_true() -> None:
    made = Generated(SIZE)
    history = History(Colony(made.colony))
    states = set()
    for stored in made.stored():
        assert history.add(stored).verdict.valid
    states = {process.state for process in history.processes.values()}
    assert states == {"waiting", "successful", "failed", "cancelled"}
    assert len(history.processes) == SIZE


async def test_the_rows_are_the_same_with_helpers_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = spoiled()
    alone = await built(ledger, tmp_path / "alone.sqlite", monkeypatch, 0)
    helped = await built(ledger, tmp_path / "helped.sqlite", monkeypatch, 2)
    assert helped == alone
    kinds = [kind for _, kind, _ in alone["verdicts"]]
    assert 50 < kinds.count("quarantined") < len(kinds) // 2
    rules = {rule for _, _, rule in alone["verdicts"]}
    assert any("its signature is not that of" in rule for rule in rules)


async def test_a_helper_that_is_killed_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = spoiled()
    alone = await built(ledger, tmp_path / "alone.sqlite", monkeypatch, 0)
    check, checked = Helpers.check, 0

    async def deadly(self: Helpers, colony: Colony, batch: list[Stored]) -> Any:
        nonlocal checked
        checked += 1
        if checked == 5:
            os.kill(self._helpers[0].process.pid, signal.SIGKILL)
        return await check(self, colony, batch)

    monkeypatch.setattr(Helpers, "check", deadly)
    assert await built(ledger, tmp_path / "helped.sqlite", monkeypatch, 2) == alone
    assert checked > 5


def test_a_helper_ends_with_its_input() -> None:
    answers = io.BytesIO()
    serve(io.BytesIO(), answers)
    serve(io.BytesIO(b"\0\0"), answers)
    assert answers.getvalue() == b""


@pytest.mark.parametrize("data", [b"", b"junk", b"\x92\xc4\x01a\xc4\x01b", b"\x92\x01\x02"])
def test_what_is_no_envelope_is_signed_by_nobody(data: bytes) -> None:
    key = Generated(1).colony
    assert not codec.is_signed_by(key, "ledger.process.x.completed.w1", data, key)
    assert len(VIEWS) >= 4
