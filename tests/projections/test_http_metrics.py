"""Metrics and health: the numbers are those of the ledger and the views, and nothing else gets out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import projector
from colonies_projections.http import counts, health, metrics
from colonies_projections.http.problems import Problem
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import colonies
from colonies.client import Client
from colonies.ledger import Draft
from tests.harness import RunningColony, until
from tests.projections.helpers import projecting
from tests.projections.test_views import some_life, spec
from tests.projections.web import Web, serving

ROOT = Path(__file__).parents[2]
Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture
async def client(colony: RunningColony) -> Client:
    return await colony.client()


@pytest.fixture
async def web(colony: RunningColony) -> AsyncIterator[Web]:
    async with serving(await colony.session("http", "observer")) as web:
        yield web


@pytest.fixture
async def views(colony: RunningColony, tmp_path: Path) -> AsyncIterator[None]:
    """A projector."""
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        yield


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look anew each time."""
    monkeypatch.setattr(metrics, "FRESH_S", 0.0)
    monkeypatch.setattr(health, "FRESH_S", 0.0)


async def read(web: Web) -> dict[Sample, float]:
    """All samples, once the server has followed the ledger to its end, and the views, if there are any."""
    last = await web.service._ledger.last_sequence()
    await until(lambda: web.service._hub.position >= last, "the server has followed")
    async with asyncio.timeout(30):
        while True:
            text = (await web.get("/metrics")).body.decode()
            found = {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
            if not one(found, "projection_lag_events") > 0:
                return found


def one(found: dict[Sample, float], name: str, **labels: str) -> float:
    return found.get((f"colonies_{name}", tuple(sorted(labels.items()))), 0.0)


@pytest.mark.usefixtures("views")
async def test_the_counts_are_those_of_the_ledger(colony: RunningColony, client: Client, web: Web) -> None:
    await some_life(colony, client)
    await client.ledger.append(Draft("ledger.process.X.queued.q.ann", b"junk", 0))
    found = await read(web)
    python = {"runtimetype": "python"}
    assert one(found, "processes_submitted_total", **python) == 6
    assert one(found, "processes_submitted_total", runtimetype="nobody") == 1
    ended = {s: one(found, "processes_ended_total", **python, state=s) for s in ("successful", "failed")}
    assert ended == {"successful": 3, "failed": 2}
    assert one(found, "processes_ended_total", **python, state="cancelled") == 1
    attempts = {
        outcome: one(found, "attempts_ended_total", **python, outcome=outcome)
        for outcome in ("successful", "failed", "later", "cancelled", "lost")
    }
    assert attempts == {"successful": 3, "failed": 4, "later": 1, "cancelled": 1, "lost": 0}
    assert one(found, "retries_total", **python) == 2
    assert one(found, "wait_seconds_count", **python) == 9
    assert one(found, "run_seconds_count", **python) == 7  # of those that came to an end by themselves
    assert 0 < one(found, "run_seconds_sum", **python) < 60
    assert one(found, "events_total", verdict="quarantined") == 1
    assert one(found, "events_total", verdict="valid") > 30


@pytest.mark.usefixtures("views")
async def test_a_lost_lease_is_counted(colony: RunningColony, client: Client, web: Web) -> None:
    worker = await colony.spawn("w1")
    handle = await client.submit(spec("sleep", 1))
    async with asyncio.timeout(30):
        while (await handle.get()).state != "running":
            await asyncio.sleep(0.02)
    await worker.end()
    await colony.spawn("w2")
    await handle.result(60)
    found = await read(web)
    assert one(found, "leases_lost_total", runtimetype="python") == 1
    assert one(found, "attempts_ended_total", runtimetype="python", outcome="lost") == 1
    assert one(found, "retries_total", runtimetype="python") == 0


def counted(found: dict[Sample, float]) -> dict[Sample, float]:
    """What comes from the statistics: counters and histograms."""
    names = ("colonies_processes_", "colonies_attempts_", "colonies_retries", "colonies_leases")
    times = ("colonies_wait_", "colonies_run_")
    return {sample: value for sample, value in found.items() if sample[0].startswith((*names, *times))}


@pytest.mark.usefixtures("views")
async def test_the_counts_are_the_same_after_a_restart_of_the_server(
    colony: RunningColony, client: Client, web: Web
) -> None:
    await some_life(colony, client)
    before = counted(await read(web))
    assert len(before) > 50
    async with serving(await colony.session("http2", "observer")) as again:
        assert counted(await read(again)) == before
        await (await client.submit(spec("sleep", 0))).result(30)
        after = counted(await read(again))
    assert {sample for sample in before if after[sample] < before[sample]} == set()
    assert after == counted(await read(web)) != before


@pytest.mark.usefixtures("views")
async def test_counts_are_left_out_until_the_views_know_as_much_as_was_told(
    colony: RunningColony, client: Client, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A projector that begins anew counts from nothing on: that is never shown."""
    monkeypatch.setattr(projector, "BEHIND_S", 0.2)
    await some_life(colony, client)
    ledger = web.service._ledger
    last = await ledger.last_sequence()
    told = counts.Counts(ledger)
    await told.look(last)
    assert told.position >= last
    assert told.types["python"].counts["submitted"] == 6
    told.position = last + 1_000  # as one that knew more had told
    with pytest.raises(Problem, match="there is no event"):
        await told.look(last + 2_000)
    assert told.types == {}
    assert not [sample for family in told.collect() for sample in family.samples]


@pytest.mark.usefixtures("views")
async def test_buckets_hold_what_took_no_longer(colony: RunningColony, client: Client, web: Web) -> None:
    await colony.spawn("w1")
    for took_s in (0, 0.3, 0.3):
        await (await client.submit(spec("sleep", took_s))).result(30)
    found = await read(web)
    below = [one(found, "run_seconds_bucket", runtimetype="python", le=le) for le in ("0.25", "10.0", "+Inf")]
    assert below == [1, 3, 3]
    assert one(found, "run_seconds_sum", runtimetype="python") >= 0.6
    rows = [value for (name, _), value in found.items() if name == "colonies_run_seconds_bucket"]
    assert rows == sorted(rows)


async def test_the_queues_and_workers_are_those_of_the_views(
    colony: RunningColony, client: Client, web: Web, tmp_path: Path
) -> None:
    await some_life(colony, client)
    left = await client.submit({"func": "f", "conditions": {"runtimetype": "left"}})
    await left.cancel("nobody comes")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        found = await read(web)
        (queue,) = [
            dict(labels)["queue"]
            for (name, labels), _ in found.items()
            if name == "colonies_queue_waiting" and dict(labels)["runtimetype"] == "nobody"
        ]
        labels = {"queue": queue, "runtimetype": "nobody"}
        assert one(found, "queue_waiting", **labels) == 1
        assert one(found, "queue_unserved", **labels) == 1
        (empty,) = [
            dict(labels)
            for (name, labels), waiting in found.items()
            if name == "colonies_queue_waiting" and dict(labels)["runtimetype"] == "left"
        ]
        assert one(found, "queue_waiting", **empty) == 0
        assert one(found, "queue_unserved", **empty) == 0  # nothing waits for anybody
        assert 0 < one(found, "queue_oldest_seconds", **labels) < 120
        assert one(found, "workers_alive", runtimetype="python") == 1
        assert one(found, "projector_up") == 1
        assert one(found, "projection_lag_events") == 0
        assert one(found, "ledger_last_sequence") == one(found, "feed_sequence") > 0
        assert (await web.get("/health")).json["status"] == "ready"
    found = await read(web)
    assert one(found, "projector_up") == 0
    assert not [name for name, _ in found if name.startswith("colonies_queue")]
    answer = await web.get("/health")
    assert answer.status == 503
    assert (answer.json["status"], answer.json["reasons"]) == ("not ready", ["no projector answers"])


async def test_health_says_that_the_broker_is_away_and_then_back(
    colony: RunningColony, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LOOK_S", 0.5)
    await colony.kill_broker()
    answer = await web.get("/health")
    assert (answer.status, answer.json["reasons"]) == (503, ["the broker does not answer"])
    await colony.restart_broker()
    async with asyncio.timeout(30):
        while "the broker does not answer" in (await web.get("/health")).json["reasons"]:
            await asyncio.sleep(0.05)


async def test_nothing_that_somebody_wrote_is_in_them(
    colony: RunningColony, web: Web, tmp_path: Path
) -> None:
    client = await colony.client("ursula")
    worker = colonies.Worker("python")

    @worker.function
    def sesame(word: str) -> str:
        return f"melon {word}"

    await colony.work(worker, "wilhelm")
    async with projecting(await colony.session("viktor", "observer"), tmp_path / "views.sqlite"):
        assert await (await client.submit(spec("sesame", "hush", label="tagged"))).result(30) == "melon hush"
        await (await client.submit(spec("wrong hush"))).wait(30)
        for target in ("/metrics", "/health"):
            text = (await web.get(target)).body.decode()
            for word in ("sesame", "hush", "melon", "tagged", "ursula", "wilhelm", "viktor"):
                assert word not in text, (target, word)


@pytest.mark.usefixtures("views")
async def test_runtime_types_are_bounded_and_the_others_counted_together(
    client: Client, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "MAX_RUNTIMETYPES", 2)
    for number in range(4):
        await client.submit({"func": "f", "conditions": {"runtimetype": f"r{number}"}})
    found = await read(web)
    assert one(found, "processes_submitted_total", runtimetype="r0") == 1
    assert one(found, "processes_submitted_total", runtimetype="r1") == 1
    assert one(found, "processes_submitted_total", runtimetype="other") == 2
    queues = {dict(labels)["runtimetype"] for (name, labels) in found if name == "colonies_queue_waiting"}
    assert queues == {"r0", "r1", "other"}


@pytest.mark.usefixtures("views")
async def test_the_page_has_each_metric_with_its_labels(
    colony: RunningColony, client: Client, web: Web
) -> None:
    await some_life(colony, client)
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| `(colonies_\w+)` \| (\w+) \| (.*?) \| .+ \|$", page, re.MULTILINE)
    await read(web)
    text = (await web.get("/metrics")).body.decode()
    there = []
    for family in text_string_to_metric_families(text):
        labels = list(dict.fromkeys(name for sample in family.samples for name in sample.labels))
        shown = ", ".join(f"`{name}`" for name in labels if name != "le") or "-"
        name = f"{family.name}_total" if family.type == "counter" else family.name
        there.append((name, family.type, shown))
    told = [(name, kind, ", ".join(sorted(labels.split(", ")))) for name, kind, labels in written]
    assert sorted(told) == sorted(there)


@pytest.mark.usefixtures("views")
async def test_what_is_told_is_as_prometheus_would_have_it(
    colony: RunningColony, client: Client, web: Web
) -> None:
    """What `promtool check metrics` looks at, and what makes a histogram one."""
    await some_life(colony, client)
    await read(web)
    text = (await web.get("/metrics")).body.decode()
    accepted = await web.get("/metrics", Accept="application/openmetrics-text")
    strict = list(openmetrics.text_string_to_metric_families(accepted.body.decode()))
    families = list(text_string_to_metric_families(text))
    assert {family.name for family in strict} == {family.name for family in families}
    for family in families:
        assert re.fullmatch(r"colonies_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith("."), family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert not re.search(r"_(count|sum|bucket|info|milliseconds|minutes)$", family.name), family.name
        assert family.type == "counter" or not family.name.endswith("_total"), family.name
        if family.type == "counter":
            assert {sample.name for sample in family.samples} == {f"{family.name}_total"}
        labels = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(labels) == len(set(labels)), family.name
        if family.type == "histogram":
            for kind in {sample.labels["runtimetype"] for sample in family.samples}:
                check_histogram([s for s in family.samples if s.labels["runtimetype"] == kind])
    assert text.count("# HELP") == text.count("# TYPE") == len(families)


def check_histogram(samples: list[Any]) -> None:
    buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
    assert [border for border, _ in buckets] == sorted({border for border, _ in buckets})
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)
    assert buckets[-1][0] == float("inf")
    assert [s.value for s in samples if s.name.endswith("_count")] == [buckets[-1][1]]
    assert len([s for s in samples if s.name.endswith("_sum")]) == 1


async def test_openmetrics_is_given_to_whoever_asks_for_it(web: Web) -> None:
    answer = await web.get("/metrics", Accept="application/openmetrics-text")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    assert (await web.get("/metrics")).headers["content-type"].startswith("text/plain")
