"""Real events, notes and specs, as they are in a life: what seeds and altered data are made of."""

from __future__ import annotations

from typing import Any

from colonies.core.events import (
    Assigned,
    Cancelled,
    Completed,
    CronAdded,
    Declared,
    Event,
    Failed,
    Function,
    GeneratorPacked,
    LogDigest,
    Part,
    Queued,
    Ref,
    Released,
    Renewed,
    Requeued,
    Returned,
    Source,
    Trace,
    WebhookAdded,
    WebhookChanged,
    WebhookRemoved,
    WorkerStarted,
    WorkerStopped,
    WorkflowSignalled,
    WorkflowSubmitted,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.spec import Spec
from tests.fuzz import world

FULL_SPEC: dict[str, Any] = {
    "func": "resize",
    "args": ["in.png", 2, 1.5, None, [True, {"a": []}]],
    "kwargs": {"to": "out.png"},
    "name": "resizing",
    "label": "nightly",
    "priority": 3,
    "maxwaittime": 60,
    "maxexectime": 1.5,
    "maxretries": -1,
    "env": {"HOME": "/tmp", "EMPTY": ""},
    "colony": "lab",
    "conditions": {
        "runtimetype": "cli",
        "workernames": ["w1", "w2"],
        "location": "north",
        "labels": {"zone": "a"},
        "cpu": "500m",
        "mem": "1.5Gi",
        "storage": "10GB",
        "gpu": {"count": 1, "name": "A100", "mem": "40GB"},
        "nodes": 2,
        "processes": 4,
        "walltime": 3_600,
        "dependencies": ["a", "b"],
    },
}
ALIASED = {"funcname": "f", "conditions": {"executortype": "cli", "colonyname": "lab", "runtimeids": ["w"]}}


_RUNS = {"func": "f", "conditions": {"runtimetype": "cli"}}
WORKFLOW: dict[str, Any] = {
    "name": "train",
    "parameters": {"rate": 0.5, "files": ["a", "b"]},
    "on_failure": "stop",
    "delay": 2,
    "at": "2027-01-31T09:00:00+01:00",
    "maxwaittime": 60,
    "output": "each",
    "nodes": [
        {"name": "list", **_RUNS, "kwargs": {"rate": {"$parameter": "rate"}}},
        {"name": "each", **_RUNS, "map": {"$output": "list.files"}, "args": [{"$item": "name"}]},
        {"name": "if", **_RUNS, "dependencies": ["list"], "when": "length(list.files) > `1` && !(list.x)"},
        {"name": "ok", "wait_signal": {"name": "go", "timeout": 5}, "dependencies": ["each"]},
        {"name": "end", **_RUNS, "finally": True, "args": [{"$literal": {"$x": 1}}]},
    ],
}
NESTED: dict[str, Any] = {
    "nodes": [
        {"name": "a", **_RUNS},
        {
            "name": "inner",
            "dependencies": ["a"],
            "parameters": {"p": [1, 2]},
            "nodes": [{"name": "x", **_RUNS, "args": [{"$parameter": "p"}]}, {"name": "y", **_RUNS}],
        },
        {"name": "b", **_RUNS, "dependencies": ["inner"]},
    ]
}
WORKFLOWS = [WORKFLOW, NESTED, {"nodes": [{"name": "a", **_RUNS}]}]


def real_events() -> list[tuple[Event, str, str]]:
    """Events as they are in a life: each with its author and its entity."""
    attempt, ref = world.ulid(20), Ref("0" * 64, 200_000, "w1.Ab12")
    full = {**FULL_SPEC, "conditions": {**FULL_SPEC["conditions"], "dependencies": []}}
    of_process: list[tuple[Event, str]] = [
        (Queued(world.SPEC), "ann"),
        (Queued(Spec.parse(full), key="k"), "ann"),
        (Queued(world.SPEC, arguments=ref), "bob"),
        (Queued(world.SPEC, trace=Trace(f"00-{7:032x}-{9:016x}-01", "a=b")), "bob"),
        (Assigned(world.ulid(9), 10.0, "one"), "w1"),
        (Renewed(attempt), "w1"),
        (Returned(attempt, "stopping"), "w1"),
        (Completed(attempt, {"n": [1, 2.5, None]}, logs=LogDigest(2, "0" * 64)), "w1"),
        (Completed(attempt, None, ref), "w2"),
        (Failed(attempt, "broken", "later", 2.0), "w2"),
        (Requeued(12), "orch"),
        (Cancelled("enough"), "ann"),
    ]
    function = Function("f", "does it", {"type": "object", "properties": {"n": {"type": "integer"}}})
    flow, spec = world.ulid(30), WorkflowSpec.parse(WORKFLOW)
    of_workflows: list[tuple[Event, str, str]] = [
        (Part(list(spec.nodes)), "ann", flow),
        (WorkflowSubmitted(spec, ["0" * 64], reuses={"list": world.ulid(31)}, rerun_of=flow), "ann", flow),
        (WorkflowSubmitted(source=Source("cron", "nightly", 5, due=1)), "orch", flow),
        (WorkflowSignalled("go", {"n": 1}), "ann", flow),
        (CronAdded(spec, "0 3 * * *"), "ann", "nightly"),
        (GeneratorPacked(0, [1, "a"]), "ann", "batches"),
    ]
    of_process += [
        (Released(flow, "each[1]", [30, 31]), "orch"),
        (Completed(attempt, 1, items=2, adds=list(spec.nodes[:1]), between=True), "w1"),
        (Cancelled("", flow, "each", 31, "list"), "orch"),
    ]
    of_webhook = ("https://example.com/hook", ["process.*"], "eye", world.KEYS["ann"].public, bytes(80))
    return [
        *((event, author, world.PROCESS) for event, author in of_process),
        *of_workflows,
        (Declared(world.SPEC.conditions, 0), "ann", world.QUEUE),
        (WorkerStarted("one", "cli", 2, [function]), "w1", "w1"),
        (WorkerStopped("one"), "w1", "w1"),
        (WebhookAdded(*of_webhook), "olga", "ops"),
        (WebhookChanged(*of_webhook, func="train", label="night"), "olga", "ops"),
        (WebhookRemoved("moved"), "olga", "ops"),
    ]


EVENTS = real_events()
SPECS: list[dict[str, Any]] = [FULL_SPEC, ALIASED, world.SPEC.wire()]
_HEAD = {"attempt": world.ulid(20), "n": 1, "index": 0}
_BEAT = {
    "instance": "one",
    "runtimetype": "cli",
    "concurrency": 2,
    "attempts": {world.PROCESS: [world.ulid(20), 0.5, "half"]},
}
# The first byte says which type: of the log from 0 to 2, a heartbeat from 128 on.
NOTES: list[tuple[int, dict[str, Any]]] = [
    (0, {**_HEAD, "stream": "stdout", "text": "hello\n"}),
    (1, {**_HEAD, "event": "process.completed", "reason": "too late", "error": "broken"}),
    (2, {**_HEAD, "reason": "cancelled"}),
    (128, _BEAT),
]
