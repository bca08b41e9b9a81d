"""The ledger told as spans, exported to a real receiver: real broker, real workers, real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import traces as exporting
from colonies_projections.traces import exporter as sending
from colonies_projections.traces import telling
from colonies_projections.traces.exporter import Exporter
from structlog.testing import capture_logs

import colonies
from colonies import tracing
from colonies.core import trace as traces
from colonies.errors import Refused, Unavailable
from tests.harness import RunningColony, running_colony
from tests.receiver import Received, Receiver, receiving

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PYTHON = {"runtimetype": "python"}
LIMIT_S = 60.0
SECRET = "an-argument-or-output-of-somebody"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv(exporting.ENDPOINT, receiver.endpoint)
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_TIMEOUT", "1"
        )  # seconds for which OpenTelemetry tries by itself
        yield receiver
    assert SECRET.encode() not in b"".join(receiver.bodies)


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony


@pytest.fixture
def worker() -> colonies.Worker:
    worker = colonies.Worker("python", concurrency=4, backoff_s=0.2)

    @worker.function
    def echo(said: Any = None) -> Any:
        return said

    @worker.function
    def second_time(said: str) -> str:
        if colonies.current().n == 1:
            raise RuntimeError("not yet\nand a second line")
        return said

    @worker.function
    def later() -> str:
        if colonies.current().n == 1:
            raise colonies.Later(0.1)
        return "now"

    @worker.function
    def broken() -> None:
        raise colonies.Fail("broken for good")

    @worker.function
    def numbers(n: int) -> list[int]:
        return list(range(n))

    @worker.function
    def adds() -> None:
        here = colonies.current()
        here.add(echo.call(here.add(echo.call(1), name="one").output), name="two")

    return worker


@asynccontextmanager
async def exporter(colony: RunningColony, name: str = "traces") -> AsyncIterator[Exporter]:
    found = Exporter(await colony.session(name, "observer"), colony.folder / f"{name}.sqlite")
    task = await colony._start(found.run(), found.ready, cancel=False)
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def received(receiver: Receiver, fact: Callable[[], Any], what: str) -> Any:
    """As `Receiver.until`, beside a colony that goes on."""
    return await asyncio.to_thread(receiver.until, fact, what)


async def spans_of(receiver: Receiver, process: str, number: int) -> list[Received]:
    await received(receiver, lambda: len(receiver.of(process)) >= number, f"{number} spans of {process}")
    found = receiver.of(process)
    assert len(found) == number, found
    return found


async def attempts(handle: colonies.Handle[Any], number: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while len((await handle.get()).attempts) < number:
            await asyncio.sleep(0.02)


def span(colony: RunningColony, what: traces.SpanOf, id: str) -> str:
    return traces.span_id(colony.owner.ledger.colony, what, id)


async def test_a_process_with_a_retry_is_a_span_with_two_waits_and_two_attempts(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        spec = {"func": "second_time", "args": [SECRET], "maxretries": 1, "label": "l", "conditions": PYTHON}
        handle = await client.submit(spec)
        assert await handle.result(LIMIT_S) == SECRET
        process = await handle.get()
        wait, first, again, second, whole = await spans_of(receiver, process.id, 5)
    own = traces.own(client.ledger.colony, "process", process.id)
    assert {s.trace for s in (wait, first, again, second, whole)} == {own.trace_id}
    assert (whole.id, whole.parent) == (span(colony, "process", process.id), None)
    assert [s.id for s in (first, second)] == [span(colony, "attempt", a.id) for a in process.attempts]
    assert {s.parent for s in (wait, first, again, second)} == {whole.id}
    assert [s.name for s in (wait, first, again, second, whole)] == [
        *("wait", "attempt second_time", "wait", "attempt second_time", "second_time")
    ]
    # Each begins where the one before it ended, but for the backoff; and all of it is the ledger's own time.
    assert whole.start == wait.start == process.submitted_at
    assert wait.end == first.start == process.attempts[0].started_at
    assert first.end == process.attempts[0].ended_at
    assert first.end < again.start < again.end == second.start
    assert second.end == whole.end == process.ended_at
    [(what, when)] = first.events
    assert what == "backoff"
    assert again.start >= first.end + when["colonies.delay_s"] * 1e9
    assert first.error is not None
    assert first.error.startswith("RuntimeError: not yet")
    assert "second line" not in first.error
    assert [s.error for s in (wait, second, whole)] == [None] * 3
    assert whole.attributes == {
        "colonies.process.id": process.id,
        "colonies.func": "second_time",
        "colonies.label": "l",
        "colonies.runtimetype": "python",
        "colonies.queue": process.queue,
        "colonies.priority": 0,
        "colonies.submitter": "ann",
        "colonies.attempts": 2,
        "colonies.outcome": "successful",
    }
    assert second.attributes["colonies.worker"] == "w1"
    assert second.attributes["colonies.attempt.n"] == 2
    assert whole.resource["service.name"] == "colonies"
    assert whole.resource["colonies.colony"] == "test"


async def test_what_was_forgotten_meanwhile_is_read_again(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "MAX_PROCESSES", 1)
    monkeypatch.setattr(telling, "MAX_NODES", 1)
    spec = {"func": "second_time", "args": ["x"], "maxretries": 1, "conditions": PYTHON}
    chain = [
        {**spec, "name": "a"},
        {**spec, "name": "b", "conditions": {**PYTHON, "dependencies": ["a"]}},
        {**spec, "name": "c", "conditions": {**PYTHON, "dependencies": ["a"]}},
    ]
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        handles = await client.submit_many([spec] * 5)
        flows = [await client.submit_workflow({"nodes": chain}) for _ in range(3)]
        for handle in handles:
            await handle.result(LIMIT_S)
        nodes = [node.id for flow in flows for node in (await flow.wait(LIMIT_S)).nodes]
        for id in [*(handle.id for handle in handles), *nodes]:
            await spans_of(receiver, id, 5)
        wholes = {span(colony, "workflow", flow.id) for flow in flows}
        await received(receiver, lambda: wholes <= receiver.spans.keys(), "the workflows' spans")
    assert len(receiver.all) == (5 + 9) * 5 + 3


async def test_a_broker_that_goes_and_comes_back_costs_no_span(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    flow = [
        {"name": "a", "func": "echo", "conditions": PYTHON},
        {"name": "b", "func": "echo", "conditions": {**PYTHON, "dependencies": ["a"]}},
    ]
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        handles = await client.submit_many([{"func": "echo", "conditions": PYTHON}] * 30)
        workflow = await client.submit_workflow({"nodes": flow})
        await handles[5].result(LIMIT_S)
        await colony.kill_broker()
        await colony.restart_broker()
        for handle in handles:
            await handle.result(LIMIT_S)
        await workflow.wait(LIMIT_S)
        for handle in handles:
            await spans_of(receiver, handle.id, 3)
        whole = span(colony, "workflow", workflow.id)
        await received(receiver, lambda: whole in receiver.spans, "the workflow's span")
    assert len(receiver.spans) == 30 * 3 + 2 * 3 + 1


async def test_an_attempt_that_loses_its_lease_is_a_span_that_went_wrong(
    colony: RunningColony, receiver: Receiver
) -> None:
    async with exporter(colony):
        client = await colony.client()
        first = await colony.spawn("w1")
        handle = await client.submit({"func": "sleep", "args": [LIMIT_S], "conditions": PYTHON})
        await attempts(handle, 1)
        await first.end()
        await colony.spawn("w2")
        await attempts(handle, 2)
        await handle.cancel("enough")
        found = await spans_of(receiver, handle.id, 4)
    wait, lost, cancelled, whole = found
    assert [s.attributes.get("colonies.outcome") for s in (wait, lost, cancelled, whole)] == [
        *(None, "lost", "cancelled", "cancelled")
    ]
    assert lost.error is not None
    assert "no sign of life from w1" in lost.error
    assert cancelled.error is None
    assert whole.attributes["colonies.cancelled_by"] == "ann"


async def test_a_workflow_is_a_span_above_those_of_its_nodes(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    def node(name: str, func: str, *parents: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "func": func, "conditions": {**PYTHON, "dependencies": list(parents)}, **more}

    nodes = [
        node("a", "echo", args=[SECRET]),
        node("b", "second_time", "a", args=["b"], maxretries=1),
        node("c", "broken", "a", allow_failure=True),
        node("d", "echo", "a", when="a == 'something else'"),
        node("e", "echo", "b", "c"),
    ]
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        with colonies.traced(PARENT, "vendor=1"):
            handle = await client.submit_workflow({"nodes": nodes, "name": "five", "label": "l"})
        now = await handle.wait(LIMIT_S)
        flow = span(colony, "workflow", handle.id)
        await received(receiver, lambda: flow in receiver.spans, "the workflow's span")
    spans = receiver.spans
    whole = spans[flow]
    assert (whole.name, whole.parent, whole.trace) == ("five", PARENT[36:52], PARENT[3:35])
    assert whole.attributes == {
        "colonies.workflow.id": handle.id,
        "colonies.label": "l",
        "colonies.submitter": "ann",
        "colonies.nodes": 5,
        "colonies.outcome": "successful",
    }
    assert {s.trace for s in spans.values()} == {whole.trace}
    assert {s.state for s in spans.values()} == {"vendor=1"}
    for node_ in now.nodes:
        assert node_.process is not None
        found = spans[span(colony, "process", node_.id)]
        assert found.parent == flow
        assert (found.name, found.attributes["colonies.node"]) == (node_.label, node_.label)
        assert found.attributes["colonies.outcome"] == node_.state
        assert whole.start <= found.start <= found.end <= whole.end
        assert (found.error is not None) == (node_.label == "c")
        for attempt in node_.process.attempts:
            assert spans[span(colony, "attempt", attempt.id)].parent == found.id
    # five nodes, five attempts, five waits (d had neither), the workflow
    assert len(receiver.all) == len(spans) == 16


async def test_nodes_that_map_and_nodes_that_are_added_are_told_before_their_workflow_is(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    nodes = [
        {"name": "list", "func": "numbers", "args": [3], "conditions": PYTHON},
        {
            "name": "each",
            "func": "echo",
            "map": {"$output": "list"},
            "args": [{"$item": ""}],
            "conditions": PYTHON,
        },
        {"name": "last", "func": "adds", "conditions": {**PYTHON, "dependencies": ["each"]}},
    ]
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        handle = await client.submit_workflow({"nodes": nodes})
        now = await handle.wait(LIMIT_S)
        flow = span(colony, "workflow", handle.id)
        await received(receiver, lambda: flow in receiver.spans, "the workflow's span")
        again = await handle.rerun()  # everything is taken over: it ends as it begins
        await received(receiver, lambda: span(colony, "workflow", again.id) in receiver.spans, "the rerun's")
    names = sorted(s.attributes["colonies.node"] for s in receiver.all if "colonies.node" in s.attributes)
    assert names == sorted(node.label for node in now.nodes)
    assert {"each[0]", "each[2]", "last/one", "last/two"} < set(names)
    assert [s.name for s in receiver.all if "colonies.nodes" in s.attributes] == ["workflow", "workflow"]
    whole, rerun = (receiver.spans[span(colony, "workflow", id)] for id in (handle.id, again.id))
    assert whole.end == max(s.end for s in receiver.all if s.trace == whole.trace)
    assert whole.attributes["colonies.nodes"] == 7
    assert rerun.attributes["colonies.rerun_of"] == handle.id
    assert rerun.end == rerun.start


async def test_a_wait_for_a_signal_is_a_span_and_so_is_a_generators_run(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    nodes = [{"name": "ok", "wait_signal": "approve"}]
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        handle = await client.submit_workflow({"nodes": nodes})
        async with asyncio.timeout(LIMIT_S):
            while (await handle.get()).nodes[0].process is None:
                await asyncio.sleep(0.02)
        await handle.signal("approve", SECRET)
        ok = (await handle.wait(LIMIT_S)).nodes[0].id
        wait, whole = await spans_of(receiver, ok, 2)
        work = {"func": "echo", "args": [{"$packed": ""}], "conditions": PYTHON}
        with colonies.traced(PARENT):
            await client.add_generator("ones", work, trigger=1)
            await client.pack("ones", SECRET)
        run = await received(receiver, lambda: named(receiver, "colonies.source"), "the run's span")
        node = await received(receiver, lambda: named(receiver, "colonies.runtimetype"), "its node's")
    assert (wait.name, wait.parent, whole.name) == ("wait", whole.id, "ok")
    assert (wait.start, wait.end) == (whole.start, whole.end)
    assert "colonies.queue" not in whole.attributes
    assert run.attributes["colonies.source"] == "generator ones"
    assert (run.parent, node.parent) == (None, run.id)
    assert run.trace == node.trace != PARENT[3:35]


def named(receiver: Receiver, attribute: str) -> Received | None:
    """The first span with this attribute."""
    return next((s for s in receiver.all if attribute in s.attributes), None)


async def test_later_is_no_error_and_what_never_ran_has_a_span(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        waited = await client.submit({"func": "later", "conditions": PYTHON})
        await waited.result(LIMIT_S)
        nobody = await client.submit({"func": "f", "conditions": {"runtimetype": "none"}, "maxwaittime": 1})
        blocked = await client.submit({"func": "f", "conditions": PYTHON, "delay": 600})
        await blocked.cancel()
        late = await spans_of(receiver, waited.id, 5)
        expired = await spans_of(receiver, nobody.id, 2)
        (cancelled,) = await spans_of(receiver, blocked.id, 1)
    assert [s.error for s in late] == [None] * 5
    assert late[1].attributes["colonies.outcome"] == "later"
    assert [s.error for s in expired] == [None, "nobody took it within 1 s"]
    assert cancelled.attributes["colonies.attempts"] == 0


async def test_what_its_submitter_does_not_record_is_not_told(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        flow = {"nodes": [{"name": "a", "func": "echo", "conditions": PYTHON}]}
        with colonies.traced(PARENT[:-1] + "0"):
            silent = await client.submit({"func": "echo", "conditions": PYTHON})
            quiet = await client.submit_workflow(flow)
        await silent.result(LIMIT_S)
        await quiet.wait(LIMIT_S)
        told = await client.submit({"func": "echo", "conditions": PYTHON})
        await told.result(LIMIT_S)
        await spans_of(receiver, told.id, 3)
    assert len(receiver.all) == 3


async def test_a_tracestate_that_is_none_is_left_out_and_the_trace_stays(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = traces.Trace(PARENT, "a=1,nonsense")  # as another program may write it
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()

        async def submit() -> colonies.Handle[Any]:
            tracing.enter(nonsense)  # in this task only
            return await client.submit({"func": "echo", "conditions": PYTHON})

        handle = await asyncio.create_task(submit())
        await handle.result(LIMIT_S)
        found = await spans_of(receiver, handle.id, 3)
    assert (await handle.get()).trace == nonsense
    assert {(s.trace, s.state) for s in found} == {(PARENT[3:35], "")}
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_an_exporter_begins_with_what_ends_from_then_on_and_tells_that_whole(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    client = await colony.client()
    before = await client.submit({"func": "echo", "conditions": PYTHON})
    under_way = await client.submit(
        {"func": "second_time", "args": ["x"], "maxretries": 1, "conditions": PYTHON}
    )
    await before.cancel()
    async with exporter(colony):
        await colony.work(worker)
        await under_way.result(LIMIT_S)
        found = await spans_of(receiver, under_way.id, 5)
    assert found[-1].start == (await under_way.get()).submitted_at
    assert receiver.of(before.id) == []


async def test_while_nobody_takes_spans_the_exporter_waits_and_then_all_are_taken_once(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answer = lambda _: 503
    async with exporter(colony):
        await colony.work(worker)
        client = await colony.client()
        handles = await client.submit_many([{"func": "echo", "conditions": PYTHON}] * 20)
        for handle in handles:
            await handle.result(LIMIT_S)
        await received(receiver, lambda: receiver.bodies, "a request")
        await received(receiver, lambda: "spans are not taken" in capsys.readouterr().err, "a word on it")
    async with exporter(colony):  # another one, which has only the ledger and what was taken so far: nothing
        receiver.answer = lambda _: 200
        for handle in handles:
            await spans_of(receiver, handle.id, 3)
    assert len(receiver.all) == 60


async def test_an_endpoint_that_is_away_is_said_once(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "MAX_PAUSE_S", 0.1)
    receiver.answer = lambda _: 503
    with capture_logs() as logs:
        async with exporter(colony):
            await colony.work(worker)
            client = await colony.client()
            for _ in range(3):
                handle = await client.submit({"func": "echo", "conditions": PYTHON})
                await handle.result(LIMIT_S)
                tried = len(receiver.bodies)
                await received(receiver, lambda n=tried: len(receiver.bodies) > n + 1, "it is tried again")
            receiver.answer = lambda _: 200
            await spans_of(receiver, handle.id, 3)
    assert [entry["event"] for entry in logs].count("spans are not taken; it is tried again") == 1


async def test_a_span_that_is_refused_for_good_holds_no_other_up(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    client = await colony.client()
    handles = await client.submit_many([{"func": "echo", "conditions": PYTHON}] * 10)
    bad = span(colony, "process", handles[4].id)
    receiver.answer = lambda spans: 400 if any(s.id == bad for s in spans) else 200
    async with exporter(colony):
        await colony.work(worker)
        for handle in handles:
            await handle.result(LIMIT_S)
        for number, handle in enumerate(handles):
            await spans_of(receiver, handle.id, 2 if number == 4 else 3)
    assert len(receiver.all) == 29


async def test_an_exporter_that_is_ended_in_the_middle_leaves_nothing_out(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    await colony.work(worker)
    client = await colony.client()
    handles: list[colonies.Handle[Any]] = []
    for round_ in range(5):
        async with exporter(colony):
            for _ in range(6):
                handles.append(await client.submit({"func": "echo", "conditions": PYTHON}))
            if round_ % 2:
                await handles[-1].result(LIMIT_S)
    async with exporter(colony):
        for handle in handles:
            await handle.result(LIMIT_S)
            await spans_of(receiver, handle.id, 3)


async def test_another_ledger_under_the_same_name_is_told_from_its_beginning(
    colony: RunningColony, worker: colonies.Worker, receiver: Receiver
) -> None:
    await colony.work(worker)
    client = await colony.client()
    async with exporter(colony):
        handle = await client.submit({"func": "echo", "conditions": PYTHON})
        await handle.result(LIMIT_S)
        await spans_of(receiver, handle.id, 3)
    path = colony.folder / "traces.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE exported SET digest = x'00'")
        file.commit()
    async with exporter(colony):
        await received(receiver, lambda: len(receiver.all) >= 6, "all of it once more")
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE exported SET sequence = 1000000")  # farther than this ledger is
        file.commit()
    async with exporter(colony):
        await received(receiver, lambda: len(receiver.all) >= 9, "all of it once more")
    assert len(receiver.spans) == 3


async def test_a_file_that_is_damaged_or_in_use_is_said(
    colony: RunningColony, receiver: Receiver, tmp_path: Path
) -> None:
    async with exporter(colony):
        other = Exporter(await colony.session("traces2", "observer"), colony.folder / "traces.sqlite")
        with pytest.raises(Unavailable, match="works on"):
            await other.run()
    (tmp_path / "damaged.sqlite").write_bytes(b"no database" * 1_000)
    damaged = Exporter(await colony.session("traces3", "observer"), tmp_path / "damaged.sqlite")
    with pytest.raises(Unavailable, match="if it is damaged, remove it"):
        await damaged.run()
    worker = Exporter(await colony.session("w9", "worker"), tmp_path / "other.sqlite")
    with pytest.raises(Refused, match="w9 is a worker; exporting needs the role observer"):
        await worker.run()
    assert receiver.all == []
