"""The views of functions, members, crons, generators and nodes: what the ledger says, now and then."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import colonies
from colonies import founding
from colonies.client import Client
from colonies.session import Session
from tests.harness import RunningColony
from tests.house.test_views import SECTIONS
from tests.projections.flows import all_ways
from tests.projections.helpers import ask, ledger_of, projecting


def worker(*, described: str = "Make it smaller.") -> colonies.Worker:
    made = colonies.Worker("python")

    async def resize(width: int) -> int:
        return width

    async def shy() -> None:
        raise colonies.Fail("shy")

    resize.__doc__ = described
    made.function(resize)
    made.function(shy)
    return made


def spec(func: str, *args: Any, runtimetype: str = "python") -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": {"runtimetype": runtimetype}}


async def items(session: Session, view: str, **question: Any) -> list[dict[str, Any]]:
    """The items of a view; every field of theirs is on the page."""
    answer = await ask(session, view, **question)
    assert "items" in answer, answer
    found: list[dict[str, Any]] = answer["items"]
    for item in found:
        assert {f"`{name}`" for name in item} <= set(re.findall(r"`\w+`", SECTIONS[view])), view
    return found


async def test_a_function_has_its_schemas_holders_and_numbers_at_any_time(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = client.session
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        nobody = await client.submit(spec("resize", 3))
        [one] = await items(session, "functions")
        assert (one["name"], one["alive"], one["holders"], one["schemas"]) == ("resize", 0, [], [])
        assert (one["submitted"], one["open"], one["running"]) == (1, 1, 0)
        before = await ledger_of(session).last_sequence()

        first = await colony.work(worker(), "w1")
        await nobody.result(30)
        await client.submit(spec("true", runtimetype="cli"))
        failed = await client.submit(spec("shy"))
        await failed.wait(30)
        resize, shy, unix = await items(session, "functions")
        assert [item["name"] for item in (resize, shy, unix)] == ["resize", "shy", "true"]
        assert (resize["alive"], resize["successful"], resize["attempts"], resize["failures"]) == (1, 1, 1, 0)
        [schema] = resize["schemas"]
        assert schema["description"] == "Make it smaller."
        assert schema["schema"]["properties"]["width"]["type"] == "integer"
        [holder] = resize["holders"]
        assert (holder["worker"], holder["state"], holder["schema"]) == ("w1", "alive", schema["digest"])
        assert (shy["failed"], shy["failures"], shy["run"]["number"]) == (1, 1, 1)
        assert resize["first_at"] <= resize["last_at"]

        second = await colony.work(worker(described="Now better."), "w2")
        [resize] = await items(session, "functions", name="resize")
        assert [found["description"] for found in resize["schemas"]] == ["Now better.", "Make it smaller."]
        assert {holder["worker"]: holder["schema"] for holder in resize["holders"]} == {
            "w1": schema["digest"],
            "w2": resize["schemas"][0]["digest"],
        }
        assert [item["name"] for item in await items(session, "functions", served="no")] == ["true"]
        assert [item["name"] for item in await items(session, "functions", served="yes")] == ["resize", "shy"]
        assert [item["name"] for item in await items(session, "functions", text="R", sort="-first")] == [
            "true",
            "resize",
        ]
        [then] = await items(session, "functions", at=before)
        assert then == one
        first.stop(0.0)
        second.stop(0.0)


async def test_members_are_active_expired_or_revoked(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    session = client.session
    await colony.credential("w1", "worker")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        before = await ledger_of(session).last_sequence()
        await founding.revoke(colony.owner, "w1", "stolen")
        found = {item["name"]: item for item in await items(session, "members", sort="name")}
        assert list(found) == sorted(found)
        assert {"owner", "ann", "w1", "viewer", "orchestrator"} <= set(found)
        assert [found[name]["role"] for name in ("owner", "ann", "w1")] == ["owner", "user", "worker"]
        assert found["ann"]["key"] == session.colony.members["ann"].key
        assert (found["ann"]["state"], found["ann"]["approved_by"]) == ("active", "owner")
        assert found["owner"]["last_said_at"] >= found["owner"]["approved_at"]
        assert found["ann"]["last_said_at"] is None
        revoked = found["w1"]
        assert (revoked["state"], revoked["revoked_by"], revoked["revoked_reason"]) == (
            "revoked",
            "owner",
            "stolen",
        )
        assert [item["name"] for item in await items(session, "members", state="revoked")] == ["w1"]
        assert await items(session, "members", state="expired") == []
        [then] = await items(session, "members", name="w1", at=before)
        assert (then["state"], then["revoked_at"], then["last_said_at"]) == ("active", None, None)


async def test_crons_and_generators_have_their_state_and_last_runs(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = client.session
    nodes = [{"name": "a", **spec("x", runtimetype="nobody")}]
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        cron = await client.add_cron("tick", nodes, interval_s=1.0)
        added = await ledger_of(session).last_sequence()
        async with asyncio.timeout(60):
            while not (found := await items(session, "crons"))[0]["runs"]:
                await asyncio.sleep(0.1)
        await cron.pause("enough")
        [item] = await items(session, "crons", state="paused")
        assert (item["name"], item["interval_s"], item["nodes"]) == ("tick", 1.0, ["a"])
        assert (item["changed_by"], item["reason"], item["next"]) == ("ann", "enough", None)
        assert {run["id"] for run in found[0]["runs"]} <= {run.workflow.id for run in await cron.runs()}
        assert found[0]["runs"][0]["state"] == "running"
        [then] = await items(session, "crons", at=added)
        assert (then["state"], then["runs"]) == ("active", [])
        assert then["next"] > then["added_at"]
        await cron.remove()
        assert await items(session, "crons", state="paused") == []

        await client.add_generator("packs", nodes, trigger=2)
        for number in range(5):
            await client.pack("packs", number)
        async with asyncio.timeout(60):
            while (made := (await items(session, "generators", name="packs"))[0])["runs_submitted"] < 2:
                await asyncio.sleep(0.1)
        assert (made["packed"], made["submitted"], made["trigger"], made["state"]) == (5, 4, 2, "active")
        assert [(run["run"], run["count"], run["state"]) for run in made["runs"]] == [
            (1, 2, "running"),
            (0, 2, "running"),
        ]


async def test_nodes_are_those_of_the_workflow_with_states_processes_and_parents(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    handles = await all_ways(colony, client)
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        for handle in handles:
            now = await handle.get()
            found = await items(client.session, "nodes", workflow=handle.id)
            told = {node.label: (node.state, node.id) for node in now.nodes}
            assert {item["label"]: (item["state"], item["process"]) for item in found} == told
            names = {item["node"] for item in found}
            for item in found:
                assert (item["func"] is None) == (item["signal"] is not None)
                assert item["started_at"] is None or item["attempts"] > 0
                assert {parent.rpartition("/")[2] for parent in item["parents"]} <= {
                    name.rpartition("/")[2] for name in names
                }
            paged = await pages(client, handle.id)
            assert paged == [item["label"] for item in found] == sorted(told)
        mapped = await items(client.session, "nodes", workflow=handles[0].id, state="successful")
        assert [(item["label"], item["maps"], item["parents"]) for item in mapped][:3] == [
            ("l", False, []),
            ("m[0]", True, ["l"]),
            ("m[1]", True, ["l"]),
        ]


async def pages(client: Client, workflow: str) -> list[str]:
    """The labels of its nodes, two by two."""
    found: list[str] = []
    cursor = None
    while True:
        answer = await ask(client.session, "nodes", workflow=workflow, limit=2, cursor=cursor)
        found += [item["label"] for item in answer["items"]]
        if (cursor := answer.get("cursor")) is None:
            return found
