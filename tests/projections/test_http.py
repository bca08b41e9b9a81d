"""Questions over HTTP: a real server, a real projector, and the answers are those of the projector and the
ledger."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import structlog
from colonies_projections.http import access, fence, lookups, page, problems

import colonies
from colonies.client import Client
from colonies.looking import workflow_now
from colonies.roles import ROLES
from colonies.show import process_object, rfc3339
from colonies.show_event import event_object, numbered
from colonies.show_workflow import workflow_object
from tests.harness import RunningColony
from tests.projections.helpers import ALL, ask, projecting
from tests.projections.logged import NOBODY, Writer
from tests.projections.test_views import PYTHON, some_life, spec
from tests.projections.web import Answer, Web, serving, token_of

OPEN = {"/health", "/metrics"}
WRAPPING = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture
async def client(colony: RunningColony) -> Client:
    return await colony.client()


@pytest.fixture
async def web(colony: RunningColony) -> AsyncIterator[Web]:
    async with serving(await colony.session("http", "observer")) as web:
        yield web


@pytest.fixture
async def token(client: Client) -> str:
    return await token_of(client.session)


async def test_pages_and_the_past_go_through(
    colony: RunningColony, client: Client, web: Web, token: str, tmp_path: Path
) -> None:
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        ids = await some_life(colony, client)
        last = await client.ledger.last_sequence()
        first = (await web.get(f"/v1/processes?limit=4&at_least={last}", token)).json
        rest = (await web.get(f"/v1/processes?limit=4&cursor={first['cursor']}", token)).json
        assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
        assert "cursor" not in rest
        young = (await web.get("/v1/processes?since=1h&limit=4", token)).json
        older = (await web.get(f"/v1/processes?since=1h&limit=4&cursor={young['cursor']}", token)).json
        assert [item["id"] for item in young["items"] + older["items"]] == ids[::-1]
        oldest = (await web.get("/v1/processes?sort=submitted&limit=1", token)).json
        assert oldest["items"][0]["id"] == ids[0]
        submitted = (await client.session.story(ids[0])).judged[0].stored.sequence
        then = (await web.get(f"/v1/processes?at={submitted}", token)).json
        assert [(item["id"], item["state"]) for item in then["items"]] == [(ids[0], "waiting")]
        whole = (await web.get(f"/v1/processes/{ids[0]}", token)).json
        assert whole["state"] == "successful"
        before = (await web.get(f"/v1/processes/{ids[0]}?at={submitted}", token)).json
        assert before["state"] == "waiting"
        history = await web.get(f"/v1/processes/{ids[0]}/history?at={submitted}", token)
        assert len(history.json["events"]) == 1
        standing = (await web.get("/v1/projections", token)).json["items"]
        assert {item["projector"] for item in standing} == {"viewer"}


def problem(answer: Answer) -> tuple[int, str]:
    """The status and the words of an error, which has the one form that errors have."""
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json
    assert said.keys() == {"type", "title", "status", "detail"}
    assert said["status"] == answer.status
    return answer.status, said["detail"]


async def test_a_question_is_answered_as_the_projector_answers_it(
    colony: RunningColony, client: Client, web: Web, token: str, tmp_path: Path
) -> None:
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite", ALL):
        await some_life(colony, client)
        for view, question in (
            ("processes", {}),
            ("processes", {"state": "failed", "limit": 1}),
            ("processes", {"func": "sleep", "runtimetype": "python"}),
            ("workflows", {}),
            ("verdicts", {"kind": "valid", "limit": 3}),  # a view of somebody's own
        ):
            wanted = await ask(client.session, view, **question)
            query = "&".join(f"{name}={value}" for name, value in question.items())
            answer = await web.get(f"/v1/{view}?{query}", token)
            assert answer.status == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.json == wanted
        assert (await web.get("/v1/queues", token)).json["items"][0]["runtimetype"] == "nobody"
        assert (await web.get("/v1/workers?state=alive", token)).json["items"][0]["name"] == "w1"


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("/v1/processes?colour=red", 400, "'colour' is no filter; allowed: id, state"),
        ("/v1/processes?state=done", 400, "state: 'done' is not one; allowed: blocked"),
        ("/v1/processes?limit=0", 400, "limit: 0; allowed: a whole number from 1 to"),
        ("/v1/processes?sort=colour", 400, "sort: 'colour' is not one; allowed: "),
        ("/v1/processes?cursor=x", 400, "cursor: it is none of ours"),
        ("/v1/processes?at=soon", 400, "at: 'soon' is no moment; allowed: a sequence"),
        ("/v1/processes?at=999999", 400, "at: there is no sequence 999999"),
        ("/v1/processes?at_least=999999", 400, "there is no event 999999 yet"),
        ("/v1/rebuild", 404, "there is no such view"),
        ("/v1/processes?limit=many", 400, "limit: 'many'; allowed: a whole number"),
        ("/v1/processes?limit=%D9%A3", 400, "allowed: a whole number"),
        ("/v1/processes?state=failed&state=running", 400, "'state' is given twice"),
        ("/v1/processes?access_token=x", 400, "goes into the Authorization header"),
        ("/v1/events?access_token=x", 400, "goes into the Authorization header"),
        ("/v1/colours", 404, "there is no view colours; there are crons, findings, functions"),
        ("/v1/processes.>", 404, "there is no such view"),
        ("/v1/Processes", 404, "there is no such view"),
        ("/v2/processes", 404, "there is no such path; /docs has"),
        ("/", 404, "there is no such path; /docs has"),
        ("/v1/processes/", 404, "there is no such path; /docs has"),
        ("/v1/processes/01JZY800000000000000000000", 404, "there is no process 01JZY8"),
        ("/v1/processes/01JZY800000000000000000000/history", 404, "there is no process 01JZY8"),
        ("/v1/workflows/01JZY800000000000000000000", 404, "there is no workflow 01JZY8"),
        ("/v1/processes/01JZY800000000000000000000?at=soon", 400, "'soon' is no moment"),
        ("/v1/processes/*", 400, "is not allowed as a name"),
        ("/v1/processes/a.b/history", 400, "is not allowed as a name"),
        ("/v1/processes/01JZY800000000000000000000?pretty=1", 400, "'pretty' is no parameter of this path"),
        ("/v1/events?tpye=x", 400, "'tpye' is no parameter of this path; allowed: type, process"),
        ("/v1/events?type=colour", 400, "colour"),
        ("/v1/events?verdict=bad", 400, "bad"),
        ("/v1/events?process=*", 400, "is not allowed as a name"),
        (
            "/v1/processes?since=soon",
            400,
            "since: 'soon' is no moment; allowed: a sequence, such as",
        ),
        ("/v1/workflows?until=", 400, "until: '' is no moment"),
        ("/v1/findings?until=1w", 400, "until: '1w' is no moment"),
        ("/v1/logs?since=yesterday", 400, "since: 'yesterday' is no moment"),
        ("/v1/statistics?since=0d", 400, "since: '0d' is not allowed; allowed: a whole number and one of s"),
        (
            "/v1/processes?since=999999",
            400,
            "since: there is no sequence 999999; the ledger has those from 1",
        ),
        ("/v1/queues?since=1h", 400, "'since' is no filter; allowed: id, runtimetype"),
        ("/v1/queues?since=soon", 400, "'since' is no filter; allowed: id, runtimetype"),
        ("/v1/events?after=-1", 400, "after: '-1' is no moment; allowed: a sequence"),
        ("/v1/events?after=soon", 400, "after: 'soon' is no moment; allowed: a sequence"),
        ("/v1/events?after=2100-01-01", 400, "after: '2100-01-01' is in the future; leave it out"),
        ("/v1/events?after=999999", 400, "the ledger has the sequences 1 to"),
        (f"/v1/events?{'&'.join(f'type=t{n}' for n in range(21))}", 400, "not of the right kind"),
        (f"/v1/processes?func={'x' * fence.MAX_TARGET_BYTES}", 414, "more than 8192 bytes"),
    ],
)
async def test_what_makes_no_sense_is_answered_with_what_does(
    colony: RunningColony, web: Web, token: str, tmp_path: Path, target: str, status: int, words: str
) -> None:
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        found, said = problem(await web.get(target, token))
    assert found == status
    assert words in said


async def test_since_and_until_are_times_ages_and_sequences(
    colony: RunningColony, client: Client, web: Web, token: str, tmp_path: Path
) -> None:
    async def found(view: str, question: str) -> list[Any]:
        answer = await web.get(f"/v1/{view}?at_least={await client.ledger.last_sequence()}&{question}", token)
        assert answer.status == 200, answer.json
        items: list[Any] = answer.json["items"]
        return [item.get("id", item.get("text", item.get("submitted"))) for item in items]

    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        worker = await colony.session("w1", "worker")
        handles = [await client.submit(NOBODY) for _ in range(2)]
        await Writer(worker, handles[0].id).write("a line\n")
        old, new = (handle.id for handle in handles)
        second = (await client.session.story(new)).judged[0].stored
        time = rfc3339(second.time)
        east = datetime.fromisoformat(time).astimezone(timezone(timedelta(hours=2))).isoformat()
        assert "+02:00" in east
        for question, wanted in (
            ("since=1h", [new, old]),
            ("until=1h", []),
            ("since=1d&until=1h", []),
            (f"since={time}", [new]),
            (f"until={time}", [old]),
            (f"since={east}", [new]),  # where a query string has a blank for +
            (f"since={east.replace('+', '%2B')}", [new]),
            (f"since={second.sequence}", [new]),
            (f"until={second.sequence}", [old]),
        ):
            assert await found("processes", question) == wanted, question
        assert await found("workflows", "since=1h") == []
        assert await found("findings", "since=1h&until=1m") == []
        assert await found("logs", "since=1h") == ["a line"]
        assert await found("logs", "until=1h") == []
        assert await found("statistics", "since=1h") == [2]
        assert await found("statistics", "since=2d&until=1d") == [0]


async def test_without_a_projector_it_says_so_and_what_to_start(web: Web, token: str) -> None:
    for view in ("processes", "colours"):
        answer = await web.get(f"/v1/{view}", token)
        assert problem(answer) == (
            503,
            "no projector answers; start one: `colonies dev` runs it, or `colonies server start --only "
            "projector`",
        )
        assert answer.headers["retry-after"] == "1"


async def test_a_process_and_its_history_are_the_ledgers_without_a_projector(
    colony: RunningColony, client: Client, web: Web, token: str
) -> None:
    for id in await some_life(colony, client):
        story = await client.session.story(id)
        assert story.process is not None
        assert (await web.get(f"/v1/processes/{id}", token)).json == process_object(story.process)
        history = (await web.get(f"/v1/processes/{id}/history", token)).json
        events = [event_object(seen, n) for seen, n, _ in numbered(story.judged)]
        assert history == {"id": id, "events": events}
        assert events


async def test_what_is_kept_in_the_object_store_is_shown_up_to_a_size(
    colony: RunningColony, client: Client, web: Web, token: str
) -> None:
    worker = colonies.Worker("python")

    @worker.function
    def echo(text: str, times: int) -> str:
        return text * times

    await colony.work(worker)
    text = "x" * 200_000
    small = await client.submit(spec("echo", text, 1))
    large = await client.submit(spec("echo", text, 1 + lookups.MAX_LOADED_BYTES // len(text)))
    assert await small.result(30) == text
    await large.wait(30)
    shown = (await web.get(f"/v1/processes/{small.id}", token)).json
    assert (shown["args"], shown["output"]) == ([text, 1], text)
    assert "left_out" not in shown
    shown = (await web.get(f"/v1/processes/{large.id}", token)).json
    assert (shown["state"], shown["output"], shown["left_out"]) == ("successful", None, ["output"])


async def test_a_workflow_is_the_ledgers(colony: RunningColony, client: Client, web: Web, token: str) -> None:
    worker = colonies.Worker("python")

    @worker.function
    def one() -> int:
        return 1

    await colony.work(worker)
    nodes: list[dict[str, Any]] = [
        {"name": "a", "func": "one", "conditions": PYTHON},
        {"name": "b", "func": "one", "conditions": {**PYTHON, "dependencies": ["a"]}},
    ]
    handle = await client.submit_workflow({"nodes": nodes})
    await handle.wait(30)
    shown = (await web.get(f"/v1/workflows/{handle.id}", token)).json
    assert shown == workflow_object(await workflow_now(client, handle.id))
    assert (shown["state"], shown["done"]) == ("successful", 2)


# --- who may ask -----------------------------------------------------------------------------------------


async def test_every_path_but_the_open_ones_needs_a_token(web: Web) -> None:
    schema = (await web.get("/openapi.json")).json
    assert {path for path, said in schema["paths"].items() if not said["get"].get("security")} == OPEN
    for path in schema["paths"].keys() - OPEN:
        answer = await web.get(re.sub(r"\{\w+\}", "x", path))
        assert problem(answer)[0] == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="colonies"'
    for path in (*OPEN, "/openapi.json", "/docs"):
        assert (await web.get(path)).status in (200, 503)


@pytest.mark.parametrize("role", ["owner", "user", "worker", "observer", "service"])
async def test_a_member_of_each_role_reads_by_its_own_word_and_by_an_owners(
    colony: RunningColony, web: Web, role: str
) -> None:
    session = colony.owner if role == "owner" else await colony.session(f"m-{role}", role)
    for token in (await token_of(session), await token_of(colony.owner, session.name)):
        answer = await web.get("/v1/processes/x", token)
        assert problem(answer)[0] == 404
        async with web.events(token) as feed:
            assert feed.status == 200


async def test_the_word_bearer_may_be_small_and_there_is_one_header(web: Web, token: str) -> None:
    assert (await web.get("/v1/processes/x", Authorization=f"bearer {token}")).status == 404
    for other in (f"Basic {token}", token):
        answer = await web.get("/v1/processes/x", Authorization=other)
        assert problem(answer) == (401, problems.NO_BEARER)
        assert f'error_description="{problems.NO_BEARER}"' in answer.headers["www-authenticate"]
    connection = await web.connect()
    two = [("Host", "localhost"), ("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert (await connection.ask("/v1/processes/x", two)).status_code == 401
    connection.close()


async def test_a_role_that_may_not_see_something_is_told_so_and_no_more(
    web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(access.may_see(role, what) for role in ROLES for what in ("views", "ledger", "feed"))
    assert not access.may_see("guest", "views")  # type: ignore[arg-type]
    monkeypatch.setitem(access._SEES, "user", frozenset())
    for target in ("/v1/processes", "/v1/processes/x", "/v1/workflows/x", "/v1/events", "/v1/projections"):
        answer = await web.get(target, token)
        assert problem(answer) == (403, "this member's role may not see that")
        assert 'error="insufficient_scope", error_description="this' in answer.headers["www-authenticate"]


# --- how it is wrapped -----------------------------------------------------------------------------------


async def test_every_answer_says_what_browsers_must_not_do_with_it(web: Web, token: str) -> None:
    for target in ("/health", "/metrics", "/docs", "/openapi.json", "/v1/processes/x", "/nowhere"):
        headers = (await web.get(target, token)).headers
        assert headers.items() >= WRAPPING.items(), target
        assert headers["content-security-policy"].startswith("default-src 'none';")
        assert "server" not in headers
        assert not [name for name in headers if name.startswith("access-control-")]
    async with web.events(token) as feed:
        assert feed.headers.items() >= WRAPPING.items()


async def test_the_page_needs_nothing_from_elsewhere(web: Web) -> None:
    answer = await web.get("/docs")
    text = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"<script|<link|<img|<iframe|src=|url\(|//|@import", text)
    assert "style-src 'sha256-" in answer.headers["content-security-policy"]
    assert text.count("<style>") == 1
    for path in (await web.get("/openapi.json")).json["paths"]:
        assert f"GET {path}" in text


def test_what_a_schema_says_is_no_html() -> None:
    said = {"summary": "<b>", "parameters": [{"name": "<i>", "in": "query"}], "responses": {}}
    info = {"title": "<t>", "version": "1", "description": "a & b"}
    text = page.rendered({"info": info, "paths": {"/<p>": {"get": said}}})
    for tag in ("<b>", "<i>", "<t>", "/<p>"):
        assert tag not in text
    assert "a &amp; b" in text


async def test_the_schema_has_the_views_with_their_filters(web: Web) -> None:
    paths = (await web.get("/openapi.json")).json["paths"]
    named = {p["name"]: p["schema"] for p in paths["/v1/processes"]["get"]["parameters"]}
    assert "successful" in named["state"]["items"]["enum"]
    assert named["limit"] == {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 50}
    assert {"at", "at_least", "cursor", "sort", "func"} <= named.keys()
    assert {"/v1/workflows", "/v1/workers", "/v1/queues", "/v1/{view}", "/v1/events"} <= paths.keys()


async def test_there_is_only_get_and_nothing_is_taken(web: Web, token: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"):
        answer = await web.get("/v1/processes", token, method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET")
    for how in ({"Content_Length": "5"}, {"Transfer_Encoding": "chunked"}):
        assert problem(await web.get("/v1/processes", token, sent=b"12345", **how))[0] == 413


async def test_it_is_asked_under_names_of_this_machine_only(web: Web) -> None:
    for host in ("127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:80", f"localhost:{web.door.port}"):
        assert (await web.get("/openapi.json", Host=host)).status == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]", "::1x"):
        assert (await web.get("/openapi.json", Host=host)).status == 421


async def test_an_answer_that_takes_too_long_is_none(
    web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(fence, "ANSWER_S", 0.1)
    monkeypatch.setattr(web.service._ledger, "ask_service", never)
    assert problem(await web.get("/v1/processes", token)) == (503, "there is no answer within 0.1 s")


async def test_a_defect_is_a_problem_that_says_nothing_of_itself(
    web: Web, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise AssertionError("a secret")

    monkeypatch.setattr(web.service._ledger, "ask_service", broken)
    with structlog.testing.capture_logs() as said:
        answer = await web.get("/v1/processes", token)
    assert [line["event"] for line in said] == ["request not answered: a defect"]
    assert problem(answer) == (500, "a defect of this server; its log says more")
    assert answer.headers.items() >= WRAPPING.items()
