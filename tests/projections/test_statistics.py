"""The statistics: at every sequence the numbers that one counts by hand, however the ledger was cut."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import facts
from colonies_projections.standing import checksums
from colonies_projections.tally import COUNTS, OUTCOMES, Times, bounds_of, bucket_of

from colonies.core.colony import Colony
from colonies.core.events import Assigned
from colonies.core.process import SECOND, Running, Waiting
from colonies.history import History
from colonies.show import rfc3339
from tests.projections.told import START, Told, asked

CUTS = ((1,), (7, 3), (100_000,))
FUNCS = ("resize", "train", "echo")


def life(seed: int, processes: int = 60) -> Told:
    """Two days of processes that end in all ways, some events of the same minute, some hours apart; and once
    the broker's clock goes back."""
    chance, told = random.Random(seed), Told()
    told.register("w1", "resize", "train", "never")
    under_way: list[tuple[str, str]] = []
    for number in range(processes):
        told.later(chance.choice((0.01, 0.5, 3, 20, 70, 4_000)))
        if number == processes // 2:
            told.later(-7_000)
            under_way.clear()  # by that clock their leases last long
        func = chance.choice(FUNCS)
        under_way.append((told.submit(func, "cli" if func == "echo" else "python", maxretries=-1), "waiting"))
        for _ in range(min(3, len(under_way))):
            process, state = under_way.pop(chance.randrange(len(under_way)))
            told.later(chance.choice((0.0002, 0.04, 1, 12)))
            under_way += one_more(told, chance, process, state)
    return told


def one_more(told: Told, chance: random.Random, process: str, state: str) -> list[tuple[str, str]]:
    """The next event of a process; what it is then, unless it is final."""
    if state == "waiting":
        if chance.random() < 0.1:
            told.cancel(process)
            return []
        told.take(process, chance.choice(("w1", "w2")))
        return [(process, "running")]
    what = chance.choice(("complete", "complete", "fail", "give up", "lose", "cancel"))
    if what == "lose":
        told.later(31)
        told.take(process, "w2")
        return [(process, "running")]
    if what == "complete":
        told.complete(process)
    elif what == "cancel":
        told.cancel(process)
    elif what == "give up":
        told.fail(process, kind="final")
    else:
        told.fail(process, kind=chance.choice(("error", "timeout")))
        if chance.random() < 0.8:
            told.offer_again(process)
            return [(process, "waiting")]
    return []


def by_hand(told: Told) -> list[list[tuple[int, dict[str, Any]]]]:
    """Of every sequence all that was counted up to there: `(minute, what)`, by the rules of processes."""
    history, found, so_far, minute = History(Colony(told.account.public)), [], [], 0
    for stored in told.events:
        id = stored.subject.split(".")[2]
        before = history.processes.get(id)
        seen = history.add(stored)
        assert seen.verdict.valid, (stored.sequence, seen.verdict)
        process = history.processes.get(id)
        if process is not None and seen.record is not None:
            now = seen.record.time
            what: dict[str, Any] = dict.fromkeys(COUNTS, 0) | {"wait": [], "run": []}
            what["key"] = (process.spec.func, process.spec.conditions.runtimetype)
            what["submitted"] = int(before is None)
            if isinstance(seen.record.event, Assigned):
                what["started"] = 1
                assert before is not None
                if isinstance(before.phase, Waiting):
                    what["wait"] = [(now - before.phase.since) // 1_000]
                last = before.attempts[-1] if before.attempts else None
                what["retries"] = int(last is not None and last.outcome in ("failed", "timeout"))
            if before is not None and isinstance(before.phase, Running):
                attempt = process.attempts[before.attempts[-1].n - 1]
                if attempt.outcome is not None and attempt.ended_at is not None:
                    what[f"attempts_{attempt.outcome}"] = 1
                    if attempt.outcome in ("successful", "failed", "timeout"):
                        what["run"] = [(attempt.ended_at - attempt.started_at) // 1_000]
            if process.final:
                what[process.state] = 1
            if any(what[name] for name in COUNTS):
                minute = max(minute, now // (60 * SECOND) * 60)
                so_far = [*so_far, (minute, what)]
        found.append(so_far)
    return found


def summed(whats: Iterable[dict[str, Any]]) -> dict[str, Any]:
    whats = list(whats)
    found: dict[str, Any] = {name: sum(what[name] for what in whats) for name in COUNTS}
    for name in ("wait", "run"):
        times = sorted(us for what in whats for us in what[name])
        found[name] = {
            "number": len(times),
            "mean_s": pytest.approx(sum(times) / len(times) / 1e6, abs=1e-6) if times else None,
            **{f"p{p}_s": _percentile(times, p) for p in (50, 95, 99)},
        }
    return found


def _percentile(times: list[int], percent: int) -> Any:
    if not times:
        return None
    return pytest.approx(times[-(-len(times) * percent // 100) - 1] / 1e6, rel=1 / 32, abs=1e-6)


def plain(item: dict[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in (*COUNTS, "wait", "run")}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("bits", [3, 14])
async def test_what_is_counted_at_every_sequence_is_what_one_counts_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, bits: int
) -> None:
    _blocks_of(monkeypatch, bits)
    told = life(seed)
    right = by_hand(told)
    for cut in CUTS:
        async with told.folded(tmp_path / f"{cut[0]}.sqlite", cut) as build:
            for sequence in range(1, len(told.events) + 1, 1 if cut == (7, 3) else 17):
                so_far = right[sequence - 1]
                [item] = await asked(build, "statistics", sequence)
                assert plain(item) == summed(what for _, what in so_far), sequence
            assert plain((await asked(build, "statistics"))[0]) == summed(what for _, what in right[-1])


def _blocks_of(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(facts, "BLOCK_BITS", bits)
    monkeypatch.setattr(facts, "_BEGUN", facts._BEGUN.replace(">> 14", f">> {bits}"))


async def test_pieces_of_time_functions_and_ranges(tmp_path: Path) -> None:
    told = life(3, 200)
    right = by_hand(told)[-1]
    middle = right[len(right) // 4][0]
    async with told.folded(tmp_path / "views.sqlite") as build:
        for every, seconds in (("1m", 60), ("1h", 3_600), ("1d", 86_400)):
            for begin, end in ((None, None), (middle, None), (None, middle + 60), (middle, middle + 7_200)):
                filters = {"every": every}
                filters |= {"since": rfc3339(begin * SECOND)} if begin else {}
                filters |= {"until": rfc3339(end * SECOND)} if end else {}
                items = await asked(build, "statistics", filters=filters, down=False)
                pieces: dict[int, list[dict[str, Any]]] = {}
                for minute, what in right:
                    if (begin or 0) <= minute < (end or 2**40):
                        pieces.setdefault(minute // seconds * seconds, []).append(what)
                assert [plain(item) for item in items] == [summed(pieces[key]) for key in sorted(pieces)]
                firsts = [max(key, begin or 0) for key in sorted(pieces)]
                assert [item["start"] for item in items] == [rfc3339(key * SECOND) for key in firsts]
        for func, kind in (("resize", "python"), ("echo", "cli")):
            [item] = await asked(build, "statistics", filters={"func": func})
            assert plain(item) == summed(what for _, what in right if what["key"] == (func, kind))
        by_kind = await asked(build, "statistics", filters={"by": "runtimetype"})
        assert {item["runtimetype"]: plain(item) for item in by_kind} == {
            kind: summed(what for _, what in right if what["key"][1] == kind) for kind in ("python", "cli")
        }


async def test_two_builds_agree_about_what_is_closed_however_they_were_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _blocks_of(monkeypatch, 4)
    told = life(4)
    sums = []
    for cut in CUTS:
        async with told.folded(path := tmp_path / f"{cut[0]}.sqlite", cut) as build:
            tables, names = build.store.tables, [view.name for view in build.views]
            sums.append([checksums(path, tables, names, at) for at in range(1, len(told.events) + 1, 11)])
    assert sums[0] == sums[1] == sums[2]
    assert len({found["statistics"] for found in sums[0]}) > len(sums[0]) // 2


async def test_of_commands_without_end_only_so_many_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "MAX_SUBMITTED", 20)
    told = Told()
    for number in range(50):
        process = told.submit(f"echo {number}", "cli")
        told.take(process)
    told.submit("x" * 300, "cli")
    told.register("w1", "resize")
    told.submit("resize")
    async with told.folded(tmp_path / "views.sqlite", (9,)) as build:
        items = await asked(build, "statistics", filters={"by": "func"})
        [everything] = await asked(build, "statistics", filters={"runtimetype": "cli"})
    names = {(item["func"], item["runtimetype"]): item["submitted"] for item in items}
    assert len(names) < 30
    assert names["resize", "python"] == 1
    assert names["", "cli"] == 51 - sum(1 for name, kind in names if kind == "cli" and name)
    assert everything["submitted"] == 51


def test_a_bucket_holds_what_is_in_its_bounds_and_no_percentile_is_far_off() -> None:
    chance, before = random.Random(1), -1
    for us in [*range(5_000), *(chance.randrange(2**60) for _ in range(2_000))]:
        low, high = bounds_of(bucket_of(us))
        assert low <= us < high
        assert (high - 1 - low) / 2 <= us / 32
        if us < 5_000:
            assert bucket_of(us) >= before
            before = bucket_of(us)
    times, values = Times(), sorted(chance.randrange(1, 10**9) for _ in range(1_001))
    for us in values:
        times.add(bucket_of(us), 1, us)
    for percent in (1, 50, 95, 99, 100):
        exact = values[-(-len(values) * percent // 100) - 1] / 1e6
        assert times.percentile(percent) == pytest.approx(exact, rel=1 / 32)
    assert Times().percentile(50) is None
    assert set(OUTCOMES) >= {"lost", "timeout"}
    assert START > 0
