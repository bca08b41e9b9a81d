"""Traces as people have them: `colonies dev` with an endpoint, the command, Unix commands, the page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from colonies_cli.services import exports_traces
from colonies_projections import traces as exporting

import colonies
from colonies import contexts
from colonies.core import trace as traces
from tests.receiver import Received, Receiver, receiving

ROOT = Path(__file__).parents[2]
COLONIES = Path(sys.executable).with_name("colonies")
PAGE = (ROOT / "docs" / "tracing.md").read_text(encoding="utf-8")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LIMIT_S = 60.0
_OFF, _TRACES = "OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv(exporting.ENDPOINT, receiver.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield receiver


@contextmanager
def running(folder: Path, *arguments: str, ready: str = "") -> Iterator[subprocess.Popen[str]]:
    """A `colonies` command that runs meanwhile. `ready`: how the line on stdout begins for which to wait."""
    with (folder / f"{arguments[0]}.log").open("a") as log:
        found = subprocess.Popen(
            [COLONIES, *arguments],
            cwd=folder,
            stdout=subprocess.PIPE if ready else log,
            stderr=log,
            text=True,
        )
    try:
        if found.stdout is not None:
            line = found.stdout.readline()
            assert line.startswith(ready), (folder / f"{arguments[0]}.log").read_text()
        yield found
    finally:
        found.terminate()
        found.wait(LIMIT_S)
        if found.stdout is not None:
            found.stdout.close()


def run(*command: str | Path, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def colony_key() -> str:
    return contexts.credential_of(contexts.resolve()).colony


def attempt_of(id: str) -> str:
    """The span of a process's first attempt."""
    with colonies.connect() as colony:
        return traces.span_id(colony_key(), "attempt", colony.process(id).get().attempts[0].id)


@pytest.mark.usefixtures("receiver", "dev")
def test_a_command_carries_on_the_trace_that_the_command_line_was_given(
    tmp_path: Path, receiver: Receiver
) -> None:
    config = os.environ["COLONIES_CONFIG_DIR"]
    child = f"COLONIES_CONFIG_DIR={config} {COLONIES} process submit --spec child.json -o name"
    spec = {"func": "echo", "args": ["x"], "conditions": {"runtimetype": "other"}}
    (tmp_path / "child.json").write_text(json.dumps(spec))
    line = f'echo "$TRACEPARENT $TRACESTATE"; cd {tmp_path} && {child}'
    command = ("process", "run", "--runtimetype", "cli", "--", "sh", "-c", line)
    with running(tmp_path, "worker", "start", "--name", "lab", "--runtimetype", "cli"):
        done = run(COLONIES, *command, folder=tmp_path, TRACEPARENT=PARENT, TRACESTATE="vendor=1")
    assert done.returncode == 0, done.stderr
    said, child_id = done.stdout.split("\n")[:2]
    (id,) = re.findall(r"process (\w+) submitted", done.stderr)
    attempt = attempt_of(id)
    assert said == f"{PARENT[:36]}{attempt}-01 vendor=1"
    # The child waits for a worker that there is not; its end tells it.
    assert run(COLONIES, "process", "cancel", child_id, folder=tmp_path).returncode == 0
    receiver.until(lambda: receiver.of(id) and len(receiver.of(child_id)) == 2, "both processes")
    assert [s.parent for s in receiver.of(id) if s.name == "sh"] == [PARENT[36:52]]
    (whole,) = [s for s in receiver.of(child_id) if s.name == "echo"]
    assert (whole.trace, whole.parent, whole.state) == (PARENT[3:35], attempt, "vendor=1")


@pytest.mark.usefixtures("dev")
def test_a_traceparent_that_is_none_is_said_and_keeps_nobody_from_submitting(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"func": "echo", "conditions": {"runtimetype": "cli"}}')
    submit = ("process", "submit", "--spec", "spec.json", "-o", "name")
    for env, said in (
        (
            {"TRACEPARENT": "nonsense"},
            "colonies: submitted without a trace: TRACEPARENT: 'nonsense' is not a",
        ),
        ({"TRACEPARENT": ""}, ""),
    ):
        done = run(COLONIES, *submit, folder=tmp_path, **env)
        assert done.returncode == 0
        assert done.stderr.startswith(said)
        assert bool(done.stderr) == bool(said)
        with colonies.connect() as colony:
            assert colony.process(done.stdout.strip()).get().trace is None


@pytest.mark.usefixtures("receiver", "dev")
def test_a_specs_own_traceparent_is_left_alone(tmp_path: Path) -> None:
    own = {"TRACEPARENT": PARENT}
    with (
        running(tmp_path, "worker", "start", "--name", "lab", "--runtimetype", "cli"),
        colonies.connect() as colony,
    ):
        spec = {"func": 'echo "$TRACEPARENT $TRACESTATE."', "env": own, "conditions": {"runtimetype": "cli"}}
        with colonies.traced(PARENT, "vendor=1"):
            assert colony.submit(spec).result(LIMIT_S) == f"{PARENT} ."


@pytest.mark.usefixtures("dev")
def test_an_exporter_that_is_killed_again_and_again_leaves_nothing_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver, colonies.connect() as colony:
        monkeypatch.setenv(exporting.ENDPOINT, receiver.endpoint)
        start = ("server", "start", "--only", "traces", "--views", str(tmp_path / "own"))
        ids: list[str] = []
        with running(tmp_path, "worker", "start", "--name", "lab", "--runtimetype", "cli"):
            for _ in range(3):
                with running(tmp_path, *start, ready="ready ") as exporter:
                    works = [{"func": "echo", "args": ["x"], "conditions": {"runtimetype": "cli"}}] * 10
                    ids += [handle.id for handle in colony.submit_many(works)]
                    taken = len(receiver.all)
                    receiver.until(lambda taken=taken: len(receiver.all) > taken, "something new")
                    exporter.send_signal(signal.SIGKILL)
                    exporter.wait(LIMIT_S)
            processes = [colony.process(id).wait(LIMIT_S) for id in ids]
        with running(tmp_path, *start, ready="ready "):
            receiver.until(lambda: all(len(receiver.of(id)) == 3 for id in ids), "all spans")
        key = colony_key()
        expected = {traces.span_id(key, "process", id) for id in ids}
        expected |= {traces.span_id(key, "attempt", p.attempts[0].id) for p in processes}
        assert expected < receiver.spans.keys()
        assert len(receiver.spans) == 90


@pytest.mark.usefixtures("receiver", "dev")
def test_the_pages_example_gives_the_trace_that_it_shows(tmp_path: Path, receiver: Receiver) -> None:
    worker, client = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "traced_worker.py").write_text(worker)
    (tmp_path / "traced_client.py").write_text(client)
    (start,) = re.findall(r"^colonies (worker start .*)$", PAGE, re.MULTILINE)
    (printed,) = re.findall(r"It prints `(.*?)`", PAGE)
    (shown,) = re.findall(r"the trace is\n\n(.*?)\n\n", PAGE, re.DOTALL)
    with running(tmp_path, *start.split()):
        done = run(sys.executable, "traced_client.py", folder=tmp_path)
        assert done.stdout == f"{printed}\n", done.stderr
        receiver.until(lambda: len(receiver.all) == 5, "five spans")
    assert len({span.trace for span in receiver.all}) == 1
    assert tree(receiver.all) == [line.removeprefix("    ") for line in shown.splitlines()]


def tree(spans: list[Received], parent: str | None = None, indent: str = "") -> list[str]:
    """The names of spans as a tree, in the order in which they began."""
    lines: list[str] = []
    for span in sorted(spans, key=lambda span: span.start):
        if span.parent == parent:
            lines += [f"{indent}{span.name}", *tree(spans, span.id, f"{indent}  ")]
    return lines


def test_each_attribute_is_in_the_pages_table_and_no_other() -> None:
    table = re.findall(r"^\| (`colonies\..*?) \|", PAGE, re.MULTILINE)
    said = {name for cell in table for name in re.findall(r"`(colonies\.[a-z_.]+)`", cell)}
    folder = ROOT / "projections" / "colonies_projections" / "traces"
    made = {
        name
        for module in ("spans.py", "otlp.py")
        for name in re.findall(r'"(colonies\.[a-z_.]+)"', (folder / module).read_text(encoding="utf-8"))
    }
    assert said == made


# --- without it ---------------------------------------------------------------------------------------

WITHOUT = (
    "import sys; sys.modules['opentelemetry.exporter.otlp'] = None\n"
    "from colonies_cli.main import run; sys.exit(run())"
)


@pytest.mark.usefixtures("dev")
def test_a_service_that_cannot_export_says_what_to_do(tmp_path: Path) -> None:
    command = (sys.executable, "-c", WITHOUT, "server", "start", "--only", "traces")
    done = run(*command, folder=tmp_path, **{exporting.ENDPOINT: "http://127.0.0.1:9"})
    assert done.returncode == 2
    said = "colonies: traces: what exports spans is not installed: pip install '.[otel]' in"
    assert said in done.stderr


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "there is nowhere to export to: set OTEL_EXPORTER_OTLP_ENDPOINT, to http://localhost:4318 for"),
        ({exporting.ENDPOINT: ""}, "there is nowhere to export to"),
        (
            {exporting.ENDPOINT: "http://x", _OFF: "TRUE"},
            "OTEL_SDK_DISABLED=TRUE switches it off",
        ),
        (
            {exporting.ENDPOINT: "http://x", "OTEL_TRACES_EXPORTER": "none"},
            "OTEL_TRACES_EXPORTER=none switches it off",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "console"},
            "OTEL_TRACES_EXPORTER: 'console' is not supported here; allowed: otlp, none",
        ),
        (
            {exporting.ENDPOINT: "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "'grpc' is not spoken here; allowed:",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://x/v1/traces?key=1",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            None,
        ),
        (
            {exporting.ENDPOINT: "http://x", "OTEL_TRACES_EXPORTER": "otlp", _OFF: "false"},
            None,
        ),
    ],
)
def test_the_variables_of_opentelemetry_say_whether_anything_is_exported(
    env: dict[str, str], said: str | None
) -> None:
    reason = exporting.why_not(env)
    assert reason is None if said is None else said in str(reason)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (
            {exporting.ENDPOINT: "collector:4318"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' is no URL of an endpoint: it does not begin "
            "with http:// or https://; allowed: http:// or https://, a host and a port: http://collector:4318",
        ),
        (
            {exporting.ENDPOINT: "http://x", _TRACES: "u:secret@c/v1/t?key=k"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'c' is no URL of an endpoint: it does not begin "
            "with http:// or https://; allowed: http:// or https://, a host and a port: http://c",
        ),
        (
            {exporting.ENDPOINT: "grpc://c:4317"},
            "'grpc://c:4317' is no URL of an endpoint: grpc:// is not spoken here",
        ),
        (
            {exporting.ENDPOINT: "http://"},
            "'http://' is no URL of an endpoint: it names no host; allowed: http://",
        ),
        ({exporting.ENDPOINT: "http://"}, "a port: http://localhost:4318"),
        ({exporting.ENDPOINT: "ftp://x"}, "'ftp://x' is no URL of an endpoint: ftp:// is not spoken here"),
        ({exporting.ENDPOINT: "http://u:secret@c:0/?key"}, "'http://c:0' is no URL of an endpoint: its port"),
        (
            {exporting.ENDPOINT: "http://c:99999"},
            "from 1 to 65535; allowed: http:// or https://, a host and a port: http://c:4318",
        ),
        ({exporting.ENDPOINT: "http://c:99999"}, "'http://c:99999' is no URL"),
        ({exporting.ENDPOINT: "http://[::1"}, "'http://[::1' is no URL of an endpoint: its host is none"),
        ({exporting.ENDPOINT: "HTTPS://c"}, None),
        ({exporting.ENDPOINT: "http://[::1]:4318"}, None),
        ({exporting.ENDPOINT: "c:1", _TRACES: "http://c:1"}, None),
        ({exporting.ENDPOINT: "c:1", _OFF: "true"}, None),
    ],
)
def test_an_endpoint_that_is_none_is_refused_with_what_would_be_right(
    env: dict[str, str], said: str | None
) -> None:
    wrong = exporting.malformed(env)
    assert wrong is None if said is None else said in str(wrong)
    assert "secret" not in str(wrong)
    assert "key" not in str(wrong)


def test_an_exporter_that_is_not_ours_is_said_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(exporting.ENDPOINT, raising=False)
    for value, said in (("console", 1), ("none", 0), ("otlp", 0)):
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", value)
        with structlog.testing.capture_logs() as logs:
            assert not exports_traces()
        assert [line["log_level"] for line in logs] == ["warning"] * said
        assert all("'console' is not supported" in line["reason"] for line in logs)


@pytest.mark.parametrize("command", ["dev --port 0", "server start", "server start --only traces"])
def test_nothing_is_started_with_an_endpoint_that_is_none(command: str, tmp_path: Path) -> None:
    if command != "dev --port 0":
        with running(tmp_path, "dev", "--port", "0", "--http-port", "0", ready="ready "):
            done = run(COLONIES, *command.split(), folder=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="c:4318")
    else:
        done = run(COLONIES, *command.split(), folder=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="c:4318")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "colonies: OTEL_EXPORTER_OTLP_ENDPOINT: 'c:4318' is no URL of an endpoint: it does not begin "
        "with http:// or https://; allowed: http:// or https://, a host and a port: http://c:4318"
    )


def test_a_colony_of_ones_own_runs_without_what_exports_and_says_so(tmp_path: Path) -> None:
    env = {**os.environ, exporting.ENDPOINT: "http://127.0.0.1:9"}
    with (tmp_path / "dev.log").open("w") as log:
        command = [sys.executable, "-c", WITHOUT, "dev", "--port", "0"]
        found = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    assert found.stdout is not None
    try:
        assert found.stdout.readline().startswith("ready ")
        assert "pip install '.[otel]'" in (tmp_path / "dev.log").read_text()
    finally:
        found.terminate()
        found.wait(LIMIT_S)
        found.stdout.close()


def test_a_colony_whose_endpoint_is_away_stops_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        endpoint = receiver.endpoint
    monkeypatch.setenv(exporting.ENDPOINT, endpoint)  # where nobody listens any more
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with running(tmp_path, "dev", "--port", "0", ready="ready ") as dev:
        with colonies.connect() as colony:
            handle = colony.submit({"func": "f", "conditions": {"runtimetype": "none"}})
            handle.cancel()
        deadline = time.monotonic() + LIMIT_S
        while "spans are not taken" not in (tmp_path / "dev.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        dev.send_signal(signal.SIGTERM)
        assert dev.wait(LIMIT_S) == 0
