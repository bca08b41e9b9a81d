"""`delay`, `at` and `maxwaittime` of processes, nodes and workflows, by the ledger's own times."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import colonies
from colonies.client import Client
from colonies.core.flow import WorkflowSpec
from colonies.core.process import SECOND, Process
from colonies.core.spec import Spec
from colonies.core.workflow import node_id
from colonies.errors import Invalid
from colonies.jetstream import JetStreamLedger
from colonies.verify import verify_ledger
from tests.chaos import Victim, service
from tests.cli.conftest import Cli
from tests.harness import RunningColony, running_colony

SOON_S = 10.0  # of a busy machine; timers are exact to a few ms
LIMIT_S = 60.0
NOBODY = {"runtimetype": "nothing-serves-this"}
PYTHON = {"runtimetype": "python"}
worker = colonies.Worker("python", concurrency=16)


@worker.function
async def tick(seconds: float = 0.0) -> float:
    await asyncio.sleep(seconds)
    return seconds


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony
        await clean(colony)


async def clean(colony: RunningColony) -> None:
    assert isinstance(colony.owner.ledger, JetStreamLedger)
    assert (await verify_ledger(colony.owner.ledger)).findings == []


def spec(func: str = "tick", *args: object, conditions: object = PYTHON, **more: object) -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": conditions, **more}


def node(name: str, *after: str, runtimetype: str = "python", **more: Any) -> dict[str, Any]:
    return spec(name=name, conditions={"runtimetype": runtimetype, "dependencies": list(after)}, **more)


def moment(at: float, hours: float = 0.0) -> str:
    """A time (s since 1970) as a clock shows it that is so many hours ahead of UTC."""
    return datetime.fromtimestamp(at, UTC).astimezone(timezone(timedelta(hours=hours))).isoformat()


async def times(client: Client, id: str) -> dict[str, int]:
    """The ledger times (ns) of a process's valid events: by type, the first of each."""
    found: dict[str, int] = {}
    for seen in (await client.session.story(id)).judged:
        assert seen.verdict.valid, seen
        assert seen.record is not None
        found.setdefault(seen.record.event.type.removeprefix("process."), seen.stored.time)
    return found


async def begun_in_time(client: Client, id: str, due: float) -> None:
    """It was offered when it was due (ns), not before and not much later, and taken at once."""
    found = await times(client, id)
    offered = found.get("requeued") or found.get("released") or found["queued"]
    assert due <= offered, f"{(due - offered) / SECOND} s too early"
    assert found["assigned"] < due + SOON_S * SECOND, f"{(found['assigned'] - due) / SECOND} s late"


# --- what is said, and when that is -----------------------------------------------------------------

# What is said at a time (s since 1970); and the delay (s) and the moment (s) that this means.
Said = tuple[dict[str, Any], float, float]
SAYINGS: dict[str, Callable[[float], Said]] = {
    "delay": lambda now: ({"delay": 1.5}, 1.5, 0),
    "at, a number": lambda now: ({"at": now + 1.5}, 0, now + 1.5),
    "at, with Z": lambda now: ({"at": moment(now + 1.5).replace("+00:00", "Z")}, 0, now + 1.5),
    "at, ahead of UTC": lambda now: ({"at": moment(now + 1.5, 5.5)}, 0, now + 1.5),
    "at, behind UTC": lambda now: ({"at": moment(now + 1.5, -9)}, 0, now + 1.5),
    "at, over": lambda now: ({"at": "2020-01-01T00:00:00+01:00"}, 0, 0),
    "at, just over": lambda now: ({"at": now - 1}, 0, 0),
    "both, the delay is later": lambda now: ({"delay": 3, "at": now + 0.5}, 3, now + 0.5),
    "both, the moment is later": lambda now: ({"delay": 0.5, "at": moment(now + 3, 1)}, 0.5, now + 3),
    "neither": lambda now: ({"delay": 0, "at": None}, 0, 0),
}
IN_FILES = ("delay", "at, ahead of UTC", "at, over", "both, the moment is later")


def due(said: Said, submitted: int) -> int:
    """When what was submitted then is due (ns)."""
    _, delay_s, at_s = said
    return max(submitted + int(delay_s * SECOND), int(at_s * 1e6 - 1) * 1_000)  # clocks show microseconds


async def seconds(client: Client) -> float:
    return await client.ledger.now() / SECOND


@pytest.mark.timeout(LIMIT_S * 2)
async def test_nothing_begins_before_it_is_due_and_all_begins_soon_after(colony: RunningColony) -> None:
    """Of a process, of a node, of a workflow, of a node behind another: by what the Python API says."""
    client = await colony.client()
    await colony.work(worker)
    now = await seconds(client)
    asked = []
    for saying in SAYINGS.values():
        said = saying(now)
        fields = said[0]
        process = await client.submit(spec(**fields))
        flow = await client.submit_workflow({"nodes": [node("a")], **fields})
        nodes = await client.submit_workflow([node("a", **fields), node("b", "a"), node("c", "b", **fields)])
        asked.append((said, process, flow, nodes))
    for said, process, flow, nodes in asked:
        assert (await process.wait(LIMIT_S)).state == "successful"
        await begun_in_time(client, process.id, due(said, (await process.get()).submitted_at))
        for handle in (flow, nodes):
            ended = await handle.wait(LIMIT_S)
            assert ended.state == "successful"
            submitted = ended.workflow.submitted_at
            await begun_in_time(client, node_id(handle.id, "a"), due(said, submitted))
        before = (await times(client, node_id(nodes.id, "b")))["completed"]
        await begun_in_time(client, node_id(nodes.id, "c"), due(said, before))


@pytest.mark.timeout(LIMIT_S * 2)
async def test_the_classes_say_the_same(colony: RunningColony) -> None:
    client = await colony.client()
    await colony.work(worker)
    now = await seconds(client)
    at = datetime.fromtimestamp(now + 2, UTC).astimezone(timezone(timedelta(hours=-3)))
    whole = colonies.Workflow("whole", delay=0.5, at=at)
    whole.add(tick.call(0.0), name="a")
    parts = colonies.Workflow("parts")
    first = parts.add(tick.call(0.0), name="a", at=now + 2)
    parts.add(tick.call(0.0), name="b", after=[first], delay=1.5)
    handles = [await client.submit(whole), await client.submit(parts)]
    for handle in handles:
        assert (await handle.wait(LIMIT_S)).state == "successful"
        await begun_in_time(client, node_id(handle.id, "a"), due(({}, 0, now + 2), 0))
    first_end = (await times(client, node_id(handles[1].id, "a")))["completed"]
    await begun_in_time(client, node_id(handles[1].id, "b"), first_end + int(1.5 * SECOND))


@pytest.mark.timeout(LIMIT_S * 3)
async def test_spec_files_say_the_same(colony: RunningColony) -> None:
    client = await colony.client()
    await colony.work(worker)
    creds = await colony.credential("bob", "user")
    cli = Cli(colony.folder, {"COLONIES_URL": colony.url, "COLONIES_CREDS": str(creds)})

    async def submit(noun: str, name: str, text: str) -> str:
        (colony.folder / name).write_text(text)
        done = await asyncio.to_thread(cli.ok, noun, "submit", "--spec", name, "-o", "name")
        return done.out.strip()

    asked = []
    for number, saying in enumerate(SAYINGS[name] for name in IN_FILES):
        said = saying(await seconds(client) + 2)  # commands take a moment
        process = await submit("process", f"p{number}.json", json.dumps(spec(**said[0])))
        yaml = [f"{key}: {json.dumps(value)}" for key, value in said[0].items()]
        yaml.append("nodes: [{name: a, func: tick, conditions: {runtimetype: python}}]")
        asked.append((said, process, await submit("workflow", f"w{number}.yaml", "\n".join(yaml))))
    for said, process, flow in asked:
        ended = await client.process(process).wait(LIMIT_S)
        assert ended.state == "successful"
        await begun_in_time(client, process, due(said, ended.submitted_at))
        now = await client.workflow(flow).wait(LIMIT_S)
        assert now.state == "successful"
        await begun_in_time(client, node_id(flow, "a"), due(said, now.workflow.submitted_at))


@pytest.mark.timeout(LIMIT_S * 3)
async def test_what_was_due_while_orchestrator_and_broker_were_dead_begins_when_they_are_back(
    tmp_path: Path,
) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        orchestrator = Victim(lambda: service(colony, "orchestrator", "service"))
        colony.stack.push_async_callback(orchestrator.kill)
        await orchestrator.start()
        client = await colony.client()
        await colony.work(worker)
        nodes = await client.submit_workflow(
            [node("a"), node("b", "a", delay=5), node("z", **{"finally": True})]
        )
        await ended(client, node_id(nodes.id, "a"))
        now = await seconds(client)
        whole = await client.submit_workflow({"nodes": [node("a")], "at": moment(now + 5, 2)})
        works = [await client.submit(spec(**fields)) for fields in ({"delay": 5}, {"at": now + 5})]
        await orchestrator.kill()
        await colony.kill_broker()
        over = time.time() + 6
        while time.time() < over:
            await asyncio.sleep(0.1)
        await colony.restart_broker()
        back = await client.ledger.now()
        assert {(await work.get()).state for work in works} == {"blocked"}
        await orchestrator.start()
        ids = [node_id(nodes.id, "b"), node_id(whole.id, "a"), *(work.id for work in works)]
        for id in ids:
            await ended(client, id)
            found = await times(client, id)
            begun = found.get("requeued") or found["released"]
            assert back < begun < found["assigned"] < back + 2 * SOON_S * SECOND
        assert (await nodes.wait(LIMIT_S)).state == "successful"
        await clean(colony)


async def ended(client: Client, id: str) -> Process:
    """A process, or node, once it has ended successfully."""
    async with asyncio.timeout(LIMIT_S):
        while (found := (await client.session.story(id)).process) is None or not found.final:
            await asyncio.sleep(0.05)
    assert found.state == "successful", found.errors
    return found


# --- maxwaittime --------------------------------------------------------------------------------------


async def expired(client: Client, id: str) -> float:
    """How long (s) it had waited when it expired."""
    found = await times(client, id)
    since = found.get("requeued") or found.get("released") or found["queued"]
    return (found["expired"] - since) / SECOND


@pytest.mark.timeout(LIMIT_S * 2)
async def test_a_wait_ends_maxwaittime_after_the_offer_however_long_it_was_blocked(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    await colony.work(worker)
    waiting = await client.submit(spec(conditions=NOBODY, maxwaittime=1))
    delayed = await client.submit(spec(conditions=NOBODY, maxwaittime=1, delay=2.5))
    taken = await client.submit(spec(maxwaittime=1, delay=2.5))
    nodes = await client.submit_workflow(
        [
            spec("tick", 2.5, name="a"),
            node("b", "a", maxwaittime=1),
            node("c", "b", runtimetype="nothing-serves-this", maxwaittime=1),
            node("d", "c"),
            node("z", **{"finally": True}),
        ]
    )
    for handle in (waiting, delayed):
        process = await handle.wait(LIMIT_S)
        assert process.errors == ["nobody took it within 1 s"]
        assert 1 <= await expired(client, handle.id) < 1 + SOON_S
    found = await times(client, delayed.id)
    assert found["requeued"] - found["submitted"] >= 2.5 * SECOND
    assert (await taken.wait(LIMIT_S)).state == "successful"
    now = await nodes.wait(LIMIT_S)
    assert {n.label: n.state for n in now.nodes} == {
        "a": "successful",
        "b": "successful",
        "c": "failed",
        "d": "cancelled",
        "z": "successful",
    }
    assert 1 <= await expired(client, node_id(nodes.id, "c")) < 1 + SOON_S


@pytest.mark.timeout(LIMIT_S * 2)
async def test_what_a_workflow_says_of_waiting_holds_for_nodes_that_say_nothing(
    colony: RunningColony,
) -> None:
    client = await colony.client()
    await colony.work(worker)
    nobody = {"runtimetype": "nothing-serves-this"}
    handle = await client.submit_workflow(
        {
            "nodes": [
                node("short", **nobody),
                node("shorter", maxwaittime=0.5, **nobody),
                node("long", maxwaittime=4, **nobody),
                node("late", delay=3),
                node("asked", "late", map={"$parameter": "items"}, **nobody),
                {"name": "word", "wait_signal": "go"},
                node("last", **{"finally": True}),
            ],
            "parameters": {"items": [1, 2]},
            "maxwaittime": 1.5,
        }
    )
    await ended(client, node_id(handle.id, "late"))
    await handle.signal("go")
    now = await handle.wait(LIMIT_S)
    assert {n.label: n.state for n in now.nodes} == {
        **dict.fromkeys(("short", "shorter", "long", "asked[0]", "asked[1]"), "failed"),
        **dict.fromkeys(("late", "word", "last"), "successful"),
    }
    for label, limit_s in {"short": 1.5, "shorter": 0.5, "long": 4, "asked[0]": 1.5, "asked[1]": 1.5}.items():
        assert limit_s <= await expired(client, node_id(handle.id, label)) < limit_s + SOON_S


@pytest.mark.timeout(LIMIT_S * 2)
async def test_a_wait_that_was_over_while_no_orchestrator_ran_ends_when_one_does(tmp_path: Path) -> None:
    async with running_colony(tmp_path, orchestrate=False) as colony:
        orchestrator = Victim(lambda: service(colony, "orchestrator", "service"))
        colony.stack.push_async_callback(orchestrator.kill)
        await orchestrator.start()
        client = await colony.client()
        handle = await client.submit_workflow([node("a", maxwaittime=2, runtimetype="none"), node("b", "a")])
        async with asyncio.timeout(LIMIT_S):
            while (await handle.get()).nodes[0].state != "waiting":
                await asyncio.sleep(0.05)
        await orchestrator.kill()
        over = time.time() + 3
        while time.time() < over:
            await asyncio.sleep(0.1)
        assert (await handle.get()).nodes[0].state == "waiting"
        back = await client.ledger.now()
        await orchestrator.start()
        now = await handle.wait(LIMIT_S)
        assert [n.state for n in now.nodes] == ["failed", "cancelled"]
        assert back < (await times(client, now.nodes[0].id))["expired"] < back + SOON_S * SECOND
        await clean(colony)


# --- what makes no sense ----------------------------------------------------------------------------

S = "seconds, a number up to 3153600000"
AT = "a moment with its zone"
BAD: list[tuple[str, object, str]] = [
    *(("delay", value, S) for value in (-5, "5", True, "soon", 4e9, [1])),
    *(("maxwaittime", value, S) for value in (-2, "1h", 1e300, {})),
    *(
        ("at", value, AT)
        for value in (0, -3, True, 1e12, [], "tomorrow", "2027-01-31", "2027-01-31T09:00:00")
    ),
    *(
        ("at", value, AT)
        for value in ("2027-02-30T09:00:00Z", "2027-01-31T09:00:00+25:00", "0001-01-01T00:00:00Z")
    ),
    *(("at", value, AT) for value in ("9999-12-31T23:59:59-12:00", "1960-06-01T00:00:00Z")),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD)
def test_a_time_that_makes_no_sense_is_refused_where_it_stands(
    field: str, value: object, allowed: str
) -> None:
    shown = f"'{value}'" if isinstance(value, str) else ""
    for parse, given, where in (
        (Spec.parse, spec(**{field: value}), "spec: "),
        (WorkflowSpec.parse, {"nodes": [node("a")], field: value}, "workflow: "),
        (WorkflowSpec.parse, [node("a", **{field: value})], "workflow: nodes[0] (a): "),
    ):
        with pytest.raises(Invalid) as refused:
            parse(given)
        says = str(refused.value)
        assert says.startswith(f"{where}{field}: {shown}")
        assert f"is not allowed; allowed: {allowed}" in says
        assert "\n" not in says


@pytest.mark.parametrize(
    ("field", "value"), [("delay", -5), ("at", "2027-01-31T09:00:00"), ("maxwaittime", "1h")]
)
def test_commands_refuse_it_before_anybody_is_asked(tmp_path: Path, field: str, value: object) -> None:
    """On a machine that knows no colony everything else ends with 5."""
    cli = Cli(tmp_path)
    for noun, given, where in (
        ("process", spec(**{field: value}), "t.json: "),
        ("workflow", {"nodes": [node("a")], field: value}, "t.json: "),
        ("workflow", [node("a", **{field: value})], "t.json: nodes[0] (a): "),
    ):
        (tmp_path / "t.json").write_text(json.dumps(given))
        done = cli(noun, "submit", "--spec", "t.json")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"colonies: {where}{field}: {value!r}"), done.err
        assert "is not allowed; allowed: " in done.err
        assert done.err.count("\n") == 1


def test_the_classes_refuse_it_as_well() -> None:
    for rules, says in (
        ({"delay": -5}, "workflow w: delay: -5 is not allowed"),
        ({"maxwaittime": "1h"}, "workflow w: maxwaittime: '1h'"),
        ({"at": datetime(2027, 1, 31, 9)}, "workflow w: at: '2027-01-31T09:00:00' is not allowed"),  # noqa: DTZ001
        ({"at": "noon"}, "workflow w: at: 'noon' is not allowed"),
    ):
        with pytest.raises(Invalid, match=says):
            colonies.Workflow("w", **rules)  # type: ignore[arg-type]
        if "maxwaittime" not in rules:
            with pytest.raises(Invalid, match=says.replace("workflow w: ", r"workflow w \(a\): ")):
                colonies.Workflow("w").add(tick.call(1.0), name="a", **rules)  # type: ignore[arg-type]
