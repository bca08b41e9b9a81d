"""What is submitted carries on the trace in which it is; what runs stands at its attempt's span."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import timeit
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import colonies
from colonies import codec, tracing
from colonies.core import trace as traces
from colonies.core.process import Process
from colonies.core.spec import Spec
from colonies.core.trace import Trace
from colonies.errors import Invalid
from colonies.memory_colony import MemoryClient
from colonies.nkeys import KeyPair

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"
PYTHON = {"runtimetype": "python"}
LIMIT_S = 30.0


@pytest.fixture
def worker() -> colonies.Worker:
    """Its functions say where they stand: for us, and for OpenTelemetry."""
    worker = colonies.Worker("python", concurrency=4)

    def places() -> list[str | None]:
        found = otel.get_current_span().get_span_context()
        here = tracing.here()
        state = found.trace_state.to_header() or None
        return [here and here.parent, f"{found.trace_id:032x}-{found.span_id:016x}", state]

    @worker.function
    async def waits() -> list[str | None]:
        await asyncio.sleep(0)
        return places()

    @worker.function
    def works() -> list[str | None]:
        return places()

    return worker


@pytest.fixture
def spans() -> Iterator[tuple[otel.Tracer, InMemorySpanExporter]]:
    """A program's own OpenTelemetry."""
    exported = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    yield provider.get_tracer("test"), exported
    provider.shutdown()


def attempt_span(colony: colonies.Client, process: Process) -> str:
    return traces.span_id(colony.ledger.colony, "attempt", process.attempts[-1].id)


@pytest.mark.parametrize("func", ["waits", "works"])
async def test_a_function_stands_at_its_attempts_span_in_the_submitters_trace(
    worker: colonies.Worker, func: str
) -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        with colonies.traced(PARENT, "vendor=1"):
            handle = await colony.submit({"func": func, "conditions": PYTHON})
        ours, theirs, state = await handle.result(LIMIT_S)
        process = await handle.get()
        span = attempt_span(colony, process)
        assert process.trace == Trace(PARENT, "vendor=1")
        assert ours == f"{PARENT[:36]}{span}-01"
        assert theirs == f"{PARENT[3:36]}{span}"
        assert state == "vendor=1"
        assert tracing.here() is None


async def test_a_process_without_a_trace_has_one_of_its_own(worker: colonies.Worker) -> None:
    async with colonies.memory() as colony:
        await colony.work(worker)
        handle = await colony.submit({"func": "works", "conditions": PYTHON})
        ours, theirs, _ = await handle.result(LIMIT_S)
        process = await handle.get()
        own = traces.own(colony.ledger.colony, "process", process.id)
        assert process.trace is None
        assert ours == own.at(attempt_span(colony, process)).parent
        assert theirs == ours[3:52]


async def test_a_submission_inside_a_span_of_opentelemetry_is_its_child(
    worker: colonies.Worker, spans: tuple[otel.Tracer, InMemorySpanExporter]
) -> None:
    tracer, _ = spans
    async with colonies.memory() as colony:
        with tracer.start_as_current_span("asks") as span, colonies.traced(OTHER):
            outer = await colony.submit({"func": "works", "conditions": PYTHON})
            with tracer.start_as_current_span("asks more") as inner:
                handles = [
                    await colony.submit({"func": "works", "conditions": PYTHON}),
                    *(await colony.submit_many([{"func": "works", "conditions": PYTHON}] * 2)),
                    await colony.submit({"func": "works", "delay": 60, "conditions": PYTHON}),
                ]
        asked = (await outer.get()).trace
        assert asked == Trace(OTHER)
        assert span.get_span_context().trace_id != int(OTHER[3:35], 16)
        for handle in handles:
            found = (await handle.get()).trace
            assert found is not None
            assert found.trace_id == OTHER[3:35]
            assert found.span_id == f"{inner.get_span_context().span_id:016x}"


async def test_spans_that_a_function_makes_are_children_of_its_attempt_and_children_it_submits_are_theirs(
    worker: colonies.Worker, spans: tuple[otel.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exported = spans
    async with colonies.memory() as colony:

        @worker.function
        async def adds() -> list[str]:
            first = await colony.submit({"func": "works", "conditions": PYTHON})
            with tracer.start_as_current_span("inside"):
                second = await colony.submit({"func": "works", "conditions": PYTHON})
            return [first.id, second.id]

        await colony.work(worker)
        with colonies.traced(PARENT):
            handle = await colony.submit({"func": "adds", "conditions": PYTHON})
        children = [await colony.process(id).get() for id in await handle.result(LIMIT_S)]
        span = attempt_span(colony, await handle.get())
        (made,) = exported.get_finished_spans()
        assert made.parent is not None
        assert f"{made.parent.span_id:016x}" == span
        assert made.parent.is_remote
        assert made.context is not None
        assert [child.trace.parent for child in children if child.trace is not None] == [
            f"{PARENT[:36]}{span}-01",
            f"{PARENT[:36]}{made.context.span_id:016x}-01",
        ]


async def test_nodes_inherit_the_trace_of_their_workflow(worker: colonies.Worker) -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "a", "func": "works", "conditions": PYTHON},
        {"name": "b", "func": "waits", "conditions": {**PYTHON, "dependencies": ["a"]}},
    ]
    async with colonies.memory() as colony:
        await colony.work(worker)
        with colonies.traced(PARENT):
            traced = await colony.submit_workflow({"nodes": nodes})
        plain = await colony.submit_workflow({"nodes": nodes})
        for handle, trace in ((traced, PARENT[3:35]), (plain, None)):
            now = await handle.wait(LIMIT_S)
            assert trace is None or now.workflow.trace == Trace(PARENT)
            own = traces.own(colony.ledger.colony, "workflow", handle.id).trace_id
            for node in now.nodes:
                assert node.process is not None
                ours = (await colony.output(node.process))[0]
                assert ours == f"00-{trace or own}-{attempt_span(colony, node.process)}-01"
        with colonies.traced(OTHER):
            again = await traced.rerun("b")
        assert (await again.wait(LIMIT_S)).workflow.trace == Trace(OTHER)


async def test_a_key_stands_for_one_process_and_one_workflow_whatever_the_trace() -> None:
    flow = {"nodes": [{"name": "a", "func": "f", "conditions": PYTHON}]}

    async def submitted(colony: MemoryClient) -> tuple[str, str]:
        process = await colony.submit({"func": "f", "conditions": PYTHON}, key="k")
        return process.id, (await colony.submit_workflow(flow, key="k")).id

    async with colonies.memory() as colony:
        with colonies.traced(PARENT):
            first = await submitted(colony)
        with colonies.traced(OTHER):
            second = await submitted(colony)
        assert first == second == await submitted(colony)
        assert (await colony.process(first[0]).get()).trace == Trace(PARENT)
        assert (await colony.workflow(first[1]).get()).workflow.trace == Trace(PARENT)


def test_without_asyncio_it_is_the_same() -> None:
    with colonies.memory() as colony:
        with colonies.traced(PARENT):
            handle = colony.submit({"func": "f", "conditions": PYTHON})
        assert handle.get().trace == Trace(PARENT)
        assert colony.submit({"func": "f", "conditions": PYTHON}).get().trace is None


def test_what_is_no_traceparent_is_refused_before_anything_is_submitted() -> None:
    with pytest.raises(Invalid, match="traceparent: '00-12' is not a traceparent"), colonies.traced("00-12"):
        pytest.fail("it went on")


def test_only_the_command_of_a_worker_has_its_trace_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)
    monkeypatch.setenv("TRACESTATE", "vendor=1")
    assert tracing.here() is None
    monkeypatch.setenv("COLONIES_PROCESS", "01JZY8")
    assert tracing.here() == Trace(PARENT, "vendor=1")
    with colonies.traced(OTHER):
        assert tracing.here() == Trace(OTHER)
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    assert tracing.here() is None
    assert "TRACEPARENT: 'nonsense' is not a traceparent" in capsys.readouterr().err


def test_the_library_needs_no_opentelemetry_and_does_not_import_it() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import asyncio, colonies\n"
        "worker = colonies.Worker('python')\n"
        "@worker.function\n"
        "def where() -> str: return colonies.current().trace.parent\n"
        "async def main():\n"
        "    async with colonies.memory() as colony:\n"
        "        await colony.work(worker)\n"
        f"        with colonies.traced({PARENT!r}):\n"
        "            print(await (await colony.submit(where.call())).result())\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith(PARENT[:36]), done.stderr
    program = "import sys, colonies; print([name for name in sys.modules if 'telemetry' in name])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_a_function_that_is_the_first_to_use_opentelemetry_is_in_its_trace_all_the_same() -> None:
    program = (
        "import asyncio, sys, colonies\n"
        "worker = colonies.Worker('python')\n"
        "@worker.function\n"
        "def where() -> str:\n"
        "    from opentelemetry import trace\n"
        "    return f'{trace.get_current_span().get_span_context().trace_id:032x}'\n"
        "async def main():\n"
        "    async with colonies.memory() as colony:\n"
        "        await colony.work(worker)\n"
        f"        with colonies.traced({PARENT!r}):\n"
        "            handle = await colony.submit(where.call())\n"
        "        assert 'opentelemetry.trace' not in sys.modules\n"
        "        print(await handle.result())\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{PARENT[3:35]}\n", done.stderr


def test_a_submission_outside_of_every_trace_costs_nothing_that_counts() -> None:
    """Beside its signature alone, on the same machine in the same moment."""
    key = KeyPair.new("user")
    envelope = {"id": "0" * 26, "type": "process.queued", "time": 1, "author": "ann", "prev": None}
    data = {"spec": Spec.parse({"func": "f", "conditions": PYTHON}).wire()}

    def seal() -> None:
        codec.seal(key, "A" * 56, "ledger.process.p.queued.q.ann", data=data, **envelope)  # type: ignore[arg-type]

    asked = min(timeit.repeat(tracing.here, number=1_000, repeat=5))
    sealed = min(timeit.repeat(seal, number=1_000, repeat=5))
    print(
        f"where a submission stands: {asked * 1_000:.2f} us; sealing it: {sealed * 1_000:.1f} us", os.linesep
    )
    assert asked < sealed / 5
