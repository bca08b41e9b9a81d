"""What a worker has against what a process asks for: who serves, who fits, and what is left."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.core import units
from colonies.core.capacity import Candidate, Capacity, Device, Pool, Share, misses, serves
from colonies.core.spec import Conditions, queue_of

GB = 10**9
HAS: dict[str, Any] = {
    "cpu": 8,
    "mem": "64GB",
    "storage": "1TB",
    "gpus": [
        {"id": "0", "name": "NVIDIA A100-SXM4-40GB", "mem": "40GB"},
        {"id": "1", "name": "NVIDIA A100-SXM4-40GB", "mem": "40GB"},
        {"id": "2", "name": "NVIDIA T4", "mem": "16GB"},
    ],
    "nodes": 2,
    "processes": 16,
    "walltime": 3_600,
    "location": "ice",
    "labels": {"site": "north", "tier": ""},
}


def conditions(**asked: Any) -> Conditions:
    return Conditions.parse({"runtimetype": "cli", **asked})


def worker(**has: Any) -> Candidate:
    return Candidate("w1", "cli", Capacity.parse(has))


MET: list[dict[str, Any]] = [
    {},
    {"workernames": ["w2", "w1"]},
    {"location": "ice"},
    {"labels": {"site": "north"}},
    {"labels": {"site": "north", "tier": ""}},
    {"cpu": 8},
    {"cpu": "8000m"},
    {"mem": "64GB"},
    {"storage": "1TB"},
    {"gpu": {"count": 3}},
    {"gpu": {"count": 2, "name": "A100"}},
    {"gpu": {"count": 2, "name": "a100-sxm4"}},
    {"gpu": {"count": 1, "name": "nvidia t4"}},
    {"gpu": {"count": 2, "mem": "40GB"}},
    {"gpu": {"count": 3, "mem": "16GB"}},
    {"nodes": 2},
    {"processes": 16},
    {"walltime": 3_600},
    {"dependencies": ["another"]},
]
UNMET: list[tuple[dict[str, Any], str]] = [
    ({"runtimetype": "python"}, "runtimetype: python needed, cli there"),
    ({"workernames": ["w2"]}, "workernames: w2 needed, w1 there"),
    ({"location": "attic"}, "location: attic needed, ice there"),
    ({"labels": {"site": "south"}}, "labels.site: south needed, north there"),
    ({"labels": {"rack": "7"}}, "labels.rack: 7 needed, none there"),
    ({"cpu": 8.001}, "cpu: 8.001 needed, 8 there"),
    ({"mem": 64 * GB + 1}, "mem: 64.00GB needed, 64GB there"),
    ({"storage": "2TB"}, "storage: 2TB needed, 1TB there"),
    ({"gpu": {"count": 4}}, "gpu: 4 needed, 3 there"),
    ({"gpu": {"count": 3, "name": "A100"}}, "gpu: 3 A100 needed, 2 there"),
    ({"gpu": {"count": 1, "name": "A10"}}, "gpu: 1 A10 needed, 0 there"),
    ({"gpu": {"count": 1, "mem": "80GB"}}, "gpu: 1 of 80GB needed, 0 there"),
    ({"nodes": 3}, "nodes: 3 needed, 2 there"),
    ({"processes": 17}, "processes: 17 needed, 16 there"),
    ({"walltime": 3_601}, "walltime: 3601 s needed, 3600 s there"),
]


@pytest.mark.parametrize("asked", MET, ids=str)
def test_a_worker_meets_what_it_has(asked: dict[str, Any]) -> None:
    assert misses(conditions(**asked), worker(**HAS)) == []
    assert serves(conditions(**asked), worker(**HAS))


@pytest.mark.parametrize(("asked", "said"), UNMET, ids=[said for _, said in UNMET])
def test_what_a_worker_does_not_have_is_said(asked: dict[str, Any], said: str) -> None:
    assert [
        text.replace("64000000001B", "64.00GB") for text in misses(conditions(**asked), worker(**HAS))
    ] == [said]


@pytest.mark.parametrize("asked", [asked for asked in MET[2:] if "dependencies" not in asked], ids=str)
def test_a_worker_that_declared_nothing_meets_no_such_condition(asked: dict[str, Any]) -> None:
    bare = asked in ({"walltime": 3_600},)
    assert (misses(conditions(**asked), worker()) == []) == bare


def test_all_processes_of_a_queue_need_what_the_queue_says() -> None:
    small, large = conditions(mem="16.2GB"), conditions(mem="16.9GB")
    assert queue_of(small, 0) == queue_of(large, 0) == queue_of(conditions(mem="17GB"), 0)
    queue = Conditions.parse(small.canonical())
    assert misses(queue, worker(mem="16.9GB")) == ["mem: 17GB needed, 16900MB there"]
    assert serves(queue, worker(mem="17GB"))


PEOPLE_SAY = """
1GB 1.5GB 2GB 7.5GB 16GB 24GB 40GB 80GB 96GB 100GB 128GB 192GB 256GB 384GB 500GB 512GB 768GB 1TB 1.5TB
10KB 500MB 512MB 256M 512Mi 1Gi 1.5Gi 3Gi 16Gi 24Gi 40Gi 48Gi 64Gi 80Gi 96Gi 120Gi 128Gi 512Gi 1Ti
"""


@pytest.mark.parametrize(
    "size",
    PEOPLE_SAY.split(),
)
def test_a_size_that_people_say_is_a_step_of_the_ladder(size: str) -> None:
    assert units.rung(units.size(size)) == units.size(size)


@given(st.integers(1, 2**60))
def test_the_ladder_goes_up_by_at_most_an_eighth_and_stands_still_on_itself(size_bytes: int) -> None:
    rung = units.rung(size_bytes)
    assert size_bytes <= rung <= size_bytes * 9 / 8 + 1
    assert units.rung(rung) == rung
    assert units.rung(size_bytes - 1) <= rung


@pytest.mark.parametrize("cores", [0.0001, 0.0005, 1e-300, "1m", 0.3])
def test_the_least_bit_of_a_core_is_a_thousandth(cores: object) -> None:
    queue = Conditions.parse(conditions(cpu=cores).canonical())
    assert queue.cpu is not None
    assert queue.cpu >= 0.001
    assert Pool(Capacity.parse({"cpu": 1})).room(queue, 9) >= 1
    assert Pool(Capacity.parse({"cpu": 1})).room(conditions(cpu=cores), 9) >= 1
    assert queue_of(queue, 0) == queue_of(conditions(cpu=cores), 0)


def test_what_runs_together_shares_and_gets_devices_of_its_own() -> None:
    pool = Pool(Capacity.parse(HAS))
    asked = conditions(cpu=3, mem="20GB", gpu={"count": 1, "name": "A100"})
    assert pool.room(asked, 9) == 2
    first, second = pool.take(asked), pool.take(asked)
    assert first is not None
    assert second is not None
    assert {first.devices[0].id, second.devices[0].id} == {"0", "1"}
    assert pool.room(asked, 9) == 0
    assert pool.take(asked) is None
    small = conditions(cpu=2, gpu={"count": 1})
    third = pool.take(small)
    assert third is not None
    assert third.devices[0].id == "2"
    pool.give_back(first)
    assert pool.room(asked, 9) == 1
    assert pool.room(conditions(cpu=4), 9) == 0
    pool.give_back(third)
    assert pool.room(conditions(cpu=5), 9) == 1


def test_the_smallest_device_that_will_do_is_taken() -> None:
    pool = Pool(Capacity.parse(HAS))
    any_one = pool.take(conditions(gpu={"count": 1}))
    assert any_one is not None
    assert any_one.devices[0].name == "NVIDIA T4"


# --- against brute force ----------------------------------------------------------------------------

amounts = st.integers(0, 6)
cores = st.sampled_from([0, 1, 300, 500, 999, 1_000, 1_250, 3_000])  # in thousandths
devices = st.lists(st.tuples(st.sampled_from(["A100", "T4"]), st.sampled_from([16, 40])), max_size=4)
capacities = st.fixed_dictionaries({"cpu": cores, "mem": amounts, "devices": devices})
wishes = st.fixed_dictionaries(
    {
        "cpu": cores,
        "mem": amounts,
        "count": st.integers(0, 3),
        "name": st.sampled_from([None, "A100", "T4"]),
        "gpu_mem": st.sampled_from([None, 16, 40]),
    }
)


def _conditions(wish: dict[str, Any]) -> Conditions:
    gpu = {"count": wish["count"], "name": wish["name"], "mem": wish["gpu_mem"] and wish["gpu_mem"] * GB}
    asked = {
        "cpu": f"{wish['cpu']}m" if wish["cpu"] else None,
        "mem": wish["mem"] * GB,
        "gpu": gpu if wish["count"] else None,
    }
    return conditions(**asked)


def _possible(wish: dict[str, Any], cpu: int, mem: int, free: list[Device]) -> bool:
    """Try every choice of devices."""
    if wish["cpu"] > cpu or wish["mem"] > mem:
        return False
    return any(
        all(
            wish["name"] in (None, device.name) and (wish["gpu_mem"] or 0) * GB <= (device.mem or 0)
            for device in chosen
        )
        for chosen in combinations(free, wish["count"])
    )


@given(capacities, st.lists(st.tuples(wishes, st.booleans()), max_size=12))
def test_processes_together_never_have_more_than_there_is_and_fit_when_they_could(
    has: dict[str, Any], asked: list[tuple[dict[str, Any], bool]]
) -> None:
    gpus = [Device(id=str(n), name=name, mem=mem * GB) for n, (name, mem) in enumerate(has["devices"])]
    capacity = Capacity(cpu=has["cpu"] / 1_000 or None, mem=has["mem"] * GB or None, gpus=gpus, processes=99)
    pool = Pool(capacity)
    running: list[tuple[dict[str, Any], Share]] = []
    for wish, ends in asked:
        if ends and running:
            pool.give_back(running.pop(0)[1])
        used = {device.id for _, share in running for device in share.devices}
        left_cpu = has["cpu"] - sum(w["cpu"] for w, _ in running)
        left_mem = has["mem"] - sum(w["mem"] for w, _ in running)
        possible = _possible(wish, left_cpu, left_mem, [d for d in gpus if d.id not in used])
        room = pool.room(_conditions(wish), 99)
        share = pool.take(_conditions(wish))
        assert (share is not None) == possible == (room > 0)
        if share is not None:
            running.append((wish, share))
            in_use = [device.id for _, one in running for device in one.devices]
            assert len(in_use) == len(set(in_use))
            assert len(share.devices) == wish["count"]
    for _, share in running:
        pool.give_back(share)
    everything = conditions(
        cpu=f"{has['cpu']}m" if has["cpu"] else None,
        mem=has["mem"] * GB,
        gpu={"count": len(gpus)} if gpus else None,
    )
    assert pool.take(everything) is not None


@given(st.integers(1, 2**60), st.integers(1, 2**60))
def test_who_has_enough_serves_the_queue(needed: int, there: int) -> None:
    queue = Conditions.parse(conditions(mem=needed).canonical())
    assert serves(queue, worker(mem=there)) == (there >= units.rung(needed))


@given(st.integers(0, 2**60))
def test_a_size_is_shown_as_it_can_be_given(size_bytes: int) -> None:
    shown = units.text(size_bytes)
    if "." not in shown:
        assert units.size(shown) == size_bytes
    else:
        assert abs(units.size(shown) - size_bytes) <= size_bytes / 100
