"""The view of queues: what waits, since when, and who could take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import colonies
from tests.harness import RunningColony
from tests.projections.helpers import ask, projecting


def spec(**conditions: Any) -> dict[str, Any]:
    return {"func": "noop", "conditions": {"runtimetype": "python", **conditions}}


def worker(**has: Any) -> colonies.Worker:
    made = colonies.Worker("python", has=has)

    @made.function
    async def noop() -> None:
        pass

    return made


async def test_a_queue_shows_what_waits_and_who_can_serve_it(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    first = await client.submit(spec(mem="64GB"))
    await client.submit(spec(mem="64GB"))
    await client.submit(spec(location="attic"))
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        nobody = (await ask(client.session, "queues"))["items"]
        assert [(item["waiting"], item["workers"], item["lacking"]) for item in nobody] == [
            (2, [], []),
            (1, [], []),
        ]
        process = await first.get()
        assert nobody[0]["id"] == process.queue
        assert nobody[0]["oldest"] <= (await ask(client.session, "processes"))["items"][1]["submitted_at"]

        small = await colony.work(worker(mem="16GB", gpus=[]), "small")
        lacking = (await ask(client.session, "queues"))["items"]
        assert lacking[0]["lacking"][0]["worker"] == "small"
        assert lacking[0]["lacking"][0]["misses"][0].startswith("mem: ")
        assert lacking[1]["lacking"] == [
            {"worker": "small", "misses": ["location: attic needed, none there"]}
        ]

        await colony.work(worker(mem="64GB"), "large")
        await first.result(30)
        served = (await ask(client.session, "queues", served="yes"))["items"]
        assert [(item["id"], item["workers"]) for item in served] == [(process.queue, ["large"])]
        unserved = (await ask(client.session, "queues", served="no"))["items"]
        assert [item["conditions"]["location"] for item in unserved] == ["attic"]
        everything = (await ask(client.session, "queues"))["items"]
        assert everything[0]["id"] == unserved[0]["id"], "what nobody can take comes first"

        workers = (await ask(client.session, "workers"))["items"]
        assert [(item["name"], item["has"]["mem"]) for item in workers] == [
            ("large", 64 * 10**9),
            ("small", 16 * 10**9),
        ]
        small.stop(0.0)


async def test_only_queues_of_one_runtime_type(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    await client.submit(spec())
    await client.submit({"func": "echo", "conditions": {"runtimetype": "cli"}})
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        items = (await ask(client.session, "queues", runtimetype="cli"))["items"]
    assert [(item["runtimetype"], item["conditions"]) for item in items] == [("cli", {"runtimetype": "cli"})]
