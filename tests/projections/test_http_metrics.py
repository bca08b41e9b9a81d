"""Metrics and health: the numbers are those of the ledger and the views, and nothing else gets out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from colonies_projections.http import health, meter, metrics
from prometheus_client.parser import text_string_to_metric_families

import colonies
from colonies.client import Client
from colonies.ledger import Draft
from tests.harness import RunningColony, until
from tests.projections.flows import node
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


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look anew each time."""
    monkeypatch.setattr(metrics, "FRESH_S", 0.0)
    monkeypatch.setattr(health, "FRESH_S", 0.0)


async def read(web: Web) -> dict[Sample, float]:
    """All samples, once the server has followed the ledger to its end."""
    last = await web.service._ledger.last_sequence()
    await until(lambda: web.service._hub.position >= last, "the server has followed")
    text = (await web.get("/metrics")).body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def one(found: dict[Sample, float], name: str, **labels: str) -> float:
    return found.get((f"colonies_{name}", tuple(sorted(labels.items()))), 0.0)


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
    assert one(found, "run_seconds_count", **python) == 9
    assert 0 < one(found, "run_seconds_sum", **python) < 60
    assert one(found, "events_total", verdict="quarantined") == 1
    assert one(found, "events_total", verdict="valid") > 30


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


async def test_what_began_before_the_server_is_counted_when_it_goes_on(
    colony: RunningColony, client: Client
) -> None:
    handle = await client.submit(spec("sleep", 0))
    flow = await client.submit_workflow({"nodes": [node("a", "sleep", args=[0]), node("b", "give_up", "a")]})
    await asyncio.sleep(0)
    async with serving(await colony.session("http", "observer")) as web:
        await colony.spawn("w1")
        await handle.result(30)
        await flow.wait(30)
        found = await read(web)
    python = {"runtimetype": "python"}
    assert one(found, "processes_ended_total", **python, state="successful") == 2
    assert one(found, "processes_ended_total", **python, state="failed") == 1
    assert one(found, "wait_seconds_count", **python) == 3
    assert one(found, "processes_submitted_total", **python) < 3


async def test_the_queues_and_workers_are_those_of_the_views(
    colony: RunningColony, client: Client, web: Web, tmp_path: Path
) -> None:
    await some_life(colony, client)
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


async def test_runtime_types_are_bounded(client: Client, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_RUNTIMETYPES", 2)
    for number in range(4):
        await client.submit({"func": "f", "conditions": {"runtimetype": f"r{number}"}})
    found = await read(web)
    assert one(found, "processes_submitted_total", runtimetype="r1") == 1
    assert one(found, "processes_submitted_total", runtimetype="other") == 2


async def test_what_is_held_is_bounded_and_what_was_forgotten_is_read_again(
    colony: RunningColony, client: Client, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "MAX_PROCESSES", 2)
    handles = [await client.submit(spec("sleep", 0)) for _ in range(6)]
    await read(web)
    assert len(web.service._app.state.metrics._meter._held) == 2
    await colony.spawn("w1")
    for handle in handles:
        await handle.result(30)
    found = await read(web)
    assert one(found, "wait_seconds_count", runtimetype="python") == 6
    assert web.service._app.state.metrics._meter._size_bytes == 0


async def test_the_page_has_each_metric_with_its_labels(web: Web) -> None:
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| `(colonies_\w+)` \| (\w+) \| (.*?) \| .+ \|$", page, re.MULTILINE)
    registry = web.service._app.state.metrics.registry
    there = [
        (
            f"{metric._name}_total" if metric._type == "counter" else metric._name,
            metric._type,
            ", ".join(f"`{label}`" for label in metric._labelnames) or "-",
        )
        for metric in registry._collector_to_names
    ]
    assert sorted(written) == sorted(there)
    text = (await web.get("/metrics")).body.decode()
    for name, kind, _ in there:
        assert f"# TYPE {name} {kind}\n" in text


async def test_openmetrics_is_given_to_whoever_asks_for_it(web: Web) -> None:
    answer = await web.get("/metrics", Accept="application/openmetrics-text")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    assert (await web.get("/metrics")).headers["content-type"].startswith("text/plain")
