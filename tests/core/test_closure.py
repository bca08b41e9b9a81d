"""A part of a ledger, with what its judgement needs, is judged as the whole is."""

from __future__ import annotations

import json

import pytest

from colonies.closure import Closure
from colonies.core.colony import Colony
from colonies.history import History
from colonies.ledger import Stored
from tests.vectors.making import FOLDER

TOLD = json.loads((FOLDER / "ledger.json").read_text(encoding="utf-8"))
WHOLE = [
    Stored(row["subject"], row["sequence"], row["time"], bytes.fromhex(row["data"]))
    for row in TOLD["messages"]
]
LAST = WHOLE[-1].sequence


def verdicts(messages: list[Stored]) -> dict[int, tuple[str, str]]:
    history = History(Colony(TOLD["colony"]))
    judged = [history.add(stored) for stored in messages]
    return {seen.stored.sequence: (seen.verdict.kind, seen.verdict.rule) for seen in judged}


def part(first: int, last: int) -> list[Stored]:
    closure = Closure(first)
    for stored in WHOLE[:last]:
        closure.see(stored)
    closure.close()
    return [stored for stored in WHOLE[:last] if closure.needs(stored)]


@pytest.fixture(scope="module")
def expected() -> dict[int, tuple[str, str]]:
    return verdicts(WHOLE)


@pytest.mark.parametrize(("length", "step"), [(1, 2), (5, 5), (40, 11), (LAST, 37)])
def test_every_event_of_every_part_has_the_verdict_that_it_has_in_the_whole(
    expected: dict[int, tuple[str, str]], length: int, step: int
) -> None:
    assert {kind for kind, _ in expected.values()} == {"valid", "void", "quarantined"}
    for first in range(1, LAST + 1, step):
        last = min(LAST, first + length - 1)
        found = verdicts(part(first, last))
        inner = range(first, last + 1)
        assert {n: found[n] for n in inner} == {n: expected[n] for n in inner}, (first, last)


def test_a_part_leaves_out_the_processes_and_workflows_that_it_has_nothing_to_do_with() -> None:
    kept = part(LAST, LAST)
    assert len(kept) < LAST / 2
    others = [s for s in kept[:-1] if s.subject.split(".")[1] in ("process", "workflow")]
    own = kept[-1].subject.split(".")[2]
    assert len(others) < 40, own


def test_what_is_no_event_makes_a_part_no_smaller_and_no_larger_than_it_has_to_be() -> None:
    junk = [Stored(stored.subject, stored.sequence, stored.time, b"\xc1junk") for stored in WHOLE]
    closure = Closure(LAST)
    for stored in junk:
        closure.see(stored)
    closure.close()
    assert closure.needs(junk[0])  # of the colony
    assert not closure.needs(Stored("ledger.nonsense", 3, 0, b""))
