"""The OpenAPI description is true: each route has one, and real answers are as it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from colonies_projections.http import events, lookups, opening, queries
from colonies_projections.http.answers import Problem
from colonies_projections.http.rows import PAGES
from colonies_projections.logs import Logs
from colonies_projections.projector import VIEWS
from fastapi.routing import APIRoute

from colonies.client import Client
from colonies.ledger import Draft
from tests.harness import RunningColony
from tests.projections.conforming import findings, resolved
from tests.projections.flows import added, by_others, cut_off, worker
from tests.projections.helpers import projecting
from tests.projections.logged import Writer
from tests.projections.test_views import some_life
from tests.projections.web import Answer, Web, serving, token_of

Schema = dict[str, Any]


@pytest.fixture
async def client(colony: RunningColony) -> Client:
    return await colony.client()


@pytest.fixture
async def web(colony: RunningColony, tmp_path: Path) -> AsyncIterator[Web]:
    async with (
        serving(await colony.session("http", "observer")) as web,
        projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"),
    ):
        yield web


@pytest.fixture
async def schema(web: Web) -> Schema:
    found: Schema = (await web.get("/openapi.json")).json
    return found


def operations(schema: Schema) -> Iterator[tuple[str, Schema]]:
    for path, said in schema["paths"].items():
        assert said.keys() == {"get"}
        yield path, said["get"]


async def test_every_route_is_described(schema: Schema) -> None:
    routers = (opening.routes(), events.routes(), lookups.routes(), queries.routes())
    routes = {
        route.path
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
    }
    assert routes == schema["paths"].keys()
    assert {f"/v1/{name}" for name in PAGES} <= routes
    assert PAGES.keys() == {make().name for make in VIEWS} | {Logs.name}
    named = [said["operationId"] for _, said in operations(schema)]
    assert len(named) == len(set(named))
    assert all(name.isidentifier() for name in named)


async def test_every_answer_has_a_schema_that_says_something(schema: Schema) -> None:
    for path, said in operations(schema):
        for status, answer in said["responses"].items():
            assert answer["description"], (path, status)
            (content,) = answer["content"].values()
            assert content["schema"], (path, status)
            model = resolved(content["schema"]["$ref"], schema) if "$ref" in content["schema"] else None
            if model is None:
                assert path in ("/metrics", "/v1/events"), path
                assert content["schema"]["type"] == "string"
            else:
                assert model["properties"], (path, status)
                assert model["required"], (path, status)
        errors = said["responses"].keys() - {"200"}
        assert "default" in errors
        assert path in ("/health", "/metrics") or errors >= {"400", "401", "403", "503"}
        assert "422" not in errors  # we do not answer it


async def test_every_item_of_a_list_has_its_columns(schema: Schema) -> None:
    for view in PAGES:
        answer = schema["paths"][f"/v1/{view}"]["get"]["responses"]["200"]
        page = resolved(answer["content"]["application/json"]["schema"]["$ref"], schema)
        item = resolved(page["properties"]["items"]["items"]["$ref"], schema)
        assert len(item["properties"]) > 8, view
        for name, of in item["properties"].items():
            assert of.keys() & {"type", "anyOf", "$ref", "description"}, (view, name)


async def test_every_parameter_is_explained(schema: Schema) -> None:
    for path, said in operations(schema):
        for parameter in said.get("parameters", ()):
            assert parameter["description"], (path, parameter["name"])
            assert parameter["schema"].keys() & {"type", "anyOf"}
    nodes = {p["name"]: p["required"] for p in schema["paths"]["/v1/nodes"]["get"]["parameters"]}
    assert [name for name, needed in nodes.items() if needed] == ["workflow"]


async def test_the_token_is_a_security_scheme(schema: Schema) -> None:
    (name, scheme), *others = schema["components"]["securitySchemes"].items()
    assert not others
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, said in operations(schema):
        assert said.get("security", []) == ([{name: []}] if path.startswith("/v1/") else []), path


async def test_all_references_lead_somewhere(schema: Schema) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for one in value.values():
                yield from references(one)
        elif isinstance(value, list):
            for one in value:
                yield from references(one)

    found = set(references(schema))
    assert len(found) > 30
    for ref in found:
        assert resolved(ref, schema)
    assert {ref.rpartition("/")[2] for ref in found} == schema["components"]["schemas"].keys()


def check(answer: Answer, path: str, schema: Schema, status: int = 200) -> Any:
    """Is the answer of a path as the description has it? What it says."""
    responses = schema["paths"][path]["get"]["responses"]
    said = responses.get(str(status), responses["default"])
    assert answer.status == status, answer.body
    media_type = answer.headers["content-type"].partition(";")[0]
    content = said["content"][media_type]
    assert findings(answer.json, content["schema"], schema) == []
    return answer.json


async def test_real_answers_are_as_the_description_has_them(
    colony: RunningColony, client: Client, web: Web, schema: Schema
) -> None:
    other = await colony.work(worker(), "w9")
    flow = await added(client, await colony.session("hand", "worker"))
    await flow.wait(30)
    await (await cut_off(client)).wait(30)
    await by_others(client)
    other.stop(0.0)  # it has other functions
    ids = await some_life(colony, client)
    await client.ledger.append(Draft("ledger.process.X.queued.q.ann", b"junk", 0))
    log = Writer(await colony.session("w8", "worker"), ids[0])
    await log.write("a line\n")
    await log.say("log.stopped", {"reason": "cancelled"})
    owner = await colony.client("owner", "owner")
    await owner.drain_worker("w9", "enough")
    token = await token_of(client.session)
    last = await client.ledger.last_sequence()
    queues = (await web.get(f"/v1/queues?at_least={last}", token)).json["items"]
    await owner.pause_queue(queues[0]["id"], "wait")
    last = await client.ledger.last_sequence()
    more = {"nodes": f"&workflow={flow.id}", "statistics": "&histogram=yes&every=1m"}
    for view in PAGES:
        for question in ("", "&limit=1"):
            target = f"/v1/{view}?at_least={last}{more.get(view, '')}{question}"
            page = check(await web.get(target, token), f"/v1/{view}", schema)
            assert page["items"], view
    for view in ("statistics?by=func", "statistics", "processes?at=20"):
        check(await web.get(f"/v1/{view}", token), f"/v1/{view.partition('?')[0]}", schema)
    check(await web.get("/v1/projections", token), "/v1/projections", schema)
    for id in ids:
        check(await web.get(f"/v1/processes/{id}", token), "/v1/processes/{id}", schema)
        check(await web.get(f"/v1/processes/{id}/history", token), "/v1/processes/{id}/history", schema)
    check(await web.get(f"/v1/workflows/{flow.id}", token), "/v1/workflows/{id}", schema)
    check(await web.get("/health"), "/health", schema)
    assert (await web.get("/metrics")).headers["content-type"].startswith("text/plain")
    content = schema["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    async with web.events(token, "?after=0&verdict=valid&verdict=quarantined") as feed:
        for event in await feed.until(last):
            assert findings(event.data, content["schema"]["x-data"], schema) == []


async def test_errors_are_as_the_description_has_them(
    client: Client, web: Web, schema: Schema, colony: RunningColony
) -> None:
    token = await token_of(client.session)
    for target, path, status in (
        ("/v1/processes?limit=0", "/v1/processes", 400),
        ("/v1/logs?text=%22", "/v1/logs", 400),
        ("/v1/nodes", "/v1/nodes", 400),
        ("/v1/workflows/x", "/v1/workflows/{id}", 404),
        ("/v1/colours", "/v1/{view}", 404),
        (f"/v1/processes?func={'x' * 9_000}", "/v1/processes", 414),
    ):
        check(await web.get(target, token), path, schema, status)
    for path in schema["paths"]:
        if path.startswith("/v1/"):
            check(await web.get(path.replace("{", "").replace("}", "")), path, schema, 401)
    assert Problem.model_json_schema() == schema["components"]["schemas"]["Problem"]


async def test_health_that_is_not_ready_is_as_the_description_has_it(colony: RunningColony) -> None:
    async with serving(await colony.session("http", "observer")) as web:
        schema = (await web.get("/openapi.json")).json
        answer = await web.get("/health")
        said = check(answer, "/health", schema, 503)
        assert said["reasons"] == ["no projector answers"]


def test_a_wrong_answer_is_found() -> None:
    model = {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "b": {"enum": ["x"]}},
    }
    assert findings({"a": None, "b": "x"}, model, {}) == []
    for wrong in ({}, {"a": "1"}, {"a": True}, {"a": 1, "b": "y"}, {"a": 1, "c": 2}, [], None):
        assert len(findings(json.loads(json.dumps(wrong)), model, {})) == 1, wrong
