"""Random kills over many small workflows, seeded: nothing is lost, nothing is done twice by the ledger.

Workflows of every kind are submitted, sent signals and cancelled, arguments are packed, crons are due, all
while services, workers and broker are killed. Whatever a client was told counts must be there in the end.
The suite runs a short version; `make long` runs the long one (CHAOS_WORKFLOWS, and see `tests.chaos`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colonies.client import Client
from colonies.core.events import GeneratorPacked
from colonies.core.process import SECOND, Process, Running, Waiting
from colonies.core.workflow import Workflow, dag_of, end_of, state_of
from colonies.errors import Conflict
from colonies.flows import WorkflowHandle
from colonies.history import Judged
from tests.chaos import (
    KILLS,
    LEASE_S,
    LIMIT_S,
    SEED,
    WAIT_S,
    Chaos,
    Fold,
    answered,
    chaos,
    check_marks,
    ledger_of,
    verified,
)
from tests.harness import running_colony

WORKFLOWS = int(os.environ.get("CHAOS_WORKFLOWS", "48"))
RUNNING = 2  # places under the key that some nodes have
TRIGGER = 4
EVERY_S = 4
LONG_S = 60.0  # longer than what stops it ever takes

OK, FAILED, CANCELLED, SKIPPED = "successful", "failed", "cancelled", "skipped"
ENDED = f"{OK}|{CANCELLED}"  # as the cancel comes


@pytest.mark.timeout(LIMIT_S)
async def test_random_kills_lose_no_node_and_end_each_once(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    marks = tmp_path / "marks"
    marks.mkdir()
    began = time.monotonic()
    async with (
        running_colony(tmp_path, lease_s=LEASE_S, orchestrate=False) as colony,
        chaos(colony, dice) as on,
    ):
        load = Load(await colony.client(), str(marks))
        await load.begin()
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            for kill in range(KILLS):
                for number in range(kill * WORKFLOWS // KILLS, (kill + 1) * WORKFLOWS // KILLS):
                    group.create_task(load.workflow(number))
                group.create_task(load.pack(kill))
                await asyncio.sleep(dice.uniform(0.05, 0.35))
                await on.kill_one()
        killed_s = time.monotonic() - began
        found = Found(load)
        async with asyncio.timeout(WAIT_S):
            await found.until_all_ended()
        await found.check(on)
        nodes = len(found.fold.processes)
        print(
            f"seed {SEED}: {KILLS} kills {dict(on.killed)} in {killed_s:.0f} s; "
            f"{len(found.workflows)} workflows, {nodes} nodes, {found.poisoned} poisoned, {found.void} void; "
            f"{time.monotonic() - began:.0f} s in all"
        )


# --- what is asked for ------------------------------------------------------------------------------

Nodes = list[dict[str, Any]]


class Kind:
    """A kind of small workflow. `nodes` makes them, `states` are how its nodes end, by label, `state` is its
    own; `rules` are those of the whole."""

    def __init__(
        self, nodes: Callable[[Any], Nodes], states: dict[str, str], state: str = OK, **rules: Any
    ) -> None:
        self.nodes = nodes
        self.states = states
        self.state = state
        self.rules = rules


class Making:
    """Makes nodes of one workflow."""

    def __init__(self, folder: str, dice: random.Random) -> None:
        self._folder = folder
        self._dice = dice

    def run(
        self, name: str, func: str, *args: Any, after: tuple[str, ...] = (), **more: Any
    ) -> dict[str, Any]:
        conditions = {"runtimetype": "python", "dependencies": list(after)}
        return {"name": name, "func": func, "args": [self._folder, *args], "conditions": conditions, **more}

    def note(self, name: str, *after: str, **more: Any) -> dict[str, Any]:
        return self.run(name, "note", round(self._dice.uniform(0, 0.4), 2), after=after, **more)

    def last(self) -> dict[str, Any]:
        return self.note("last", **{"finally": True})

    def waits(self, timeout: float) -> dict[str, Any]:
        return {"name": "word", "wait_signal": {"name": "go", "timeout": timeout}}


KINDS = {
    "diamond": Kind(
        lambda m: [m.note("a"), m.note("b", "a"), m.note("c", "a"), m.note("d", "b", "c")],
        dict.fromkeys("abcd", OK),
    ),
    "tried again": Kind(
        lambda m: [m.note("a"), m.run("b", "note_again", after=("a",), maxretries=3), m.note("c", "b")],
        dict.fromkeys("abc", OK),
    ),
    "mapping": Kind(
        lambda m: [
            m.run("list", "numbers", 3),
            m.run("each", "note", 0.1, {"$item": ""}, map={"$output": "list"}),
            m.run("all", "note", 0, {"$output": "each"}),
        ],
        dict.fromkeys(("list", "each[0]", "each[1]", "each[2]", "all"), OK),
    ),
    "failing": Kind(
        lambda m: [
            m.note("a"),
            m.run("bad", "refuse", after=("a",)),
            m.note("never", "bad"),
            m.note("other", "a"),
            m.last(),
        ],
        {"a": OK, "bad": FAILED, "never": CANCELLED, "other": OK, "last": OK},
        FAILED,
    ),
    "allowed": Kind(
        lambda m: [
            m.run("bad", "refuse", allow_failure=True),
            m.note("after", "bad"),
            m.note("never", "after", when="after == `7`"),
            m.note("end", "after", "never"),
        ],
        {"bad": FAILED, "after": OK, "never": SKIPPED, "end": OK},
    ),
    "stopping": Kind(
        lambda m: [
            m.run("long", "note_long", LONG_S),
            m.note("behind", "long"),
            m.note("a"),
            m.run("bad", "refuse", after=("a",)),
            m.last(),
        ],
        {"long": CANCELLED, "behind": CANCELLED, "a": OK, "bad": FAILED, "last": OK},
        FAILED,
        on_failure="stop",
    ),
    "told": Kind(lambda m: [m.waits(0), m.note("go-on", "word")], {"word": OK, "go-on": OK}),
    "not told": Kind(
        lambda m: [m.waits(1), m.note("never", "word"), m.last()],
        {"word": FAILED, "never": CANCELLED, "last": OK},
        FAILED,
    ),
    "growing": Kind(
        lambda m: [m.run("grow", "grow", 2), m.note("after", "grow")],
        dict.fromkeys(("grow", "grow/more0", "grow/more1", "after"), OK),
    ),
    "called off": Kind(
        lambda m: [
            m.note("a"),
            m.run("long", "note_long", LONG_S, after=("a",)),
            m.note("b", "long"),
            m.last(),
        ],
        {"a": ENDED, "long": CANCELLED, "b": CANCELLED, "last": OK},
        CANCELLED,
    ),
    "limited": Kind(
        lambda m: [m.note(name, limits={"key": "few", "running": RUNNING}) for name in "abc"],
        dict.fromkeys("abc", OK),
    ),
    "later": Kind(
        lambda m: [m.note("a"), m.note("b", "a", delay=0.5)],
        dict.fromkeys("ab", OK),
        delay=1,
        maxwaittime=600,
    ),
}
ONCE = Kind(lambda m: [m.note("once")], {"once": OK})  # of crons and generators
CRONS = ("all", "one")


class Load:
    """What clients ask for while all around them dies, and what they were told is on the ledger."""

    def __init__(self, client: Client, folder: str) -> None:
        self.client = client
        self.accepted: dict[str, str] = {}  # the kind of a workflow, by id
        self.packed: list[int] = []
        self.folder = folder

    async def begin(self) -> None:
        once = ONCE.nodes(Making(self.folder, random.Random(SEED)))
        await self.client.add_generator("g", once, trigger=TRIGGER, timeout_s=3)
        await self.client.add_cron("all", once, interval_s=EVERY_S, catch_up="all")
        await self.client.add_cron("one", once, interval_s=EVERY_S, wait_previous=True)

    async def workflow(self, number: int) -> None:
        name = list(KINDS)[number % len(KINDS)]
        dice = random.Random(f"{SEED}.{number}")
        nodes = KINDS[name].nodes(Making(self.folder, dice))
        spec = {"name": f"w{number}", "nodes": nodes, **KINDS[name].rules}
        handle = await answered(lambda: self.client.submit_workflow(spec, key=f"{number}"))
        self.accepted[handle.id] = name
        if name == "told":
            await asyncio.sleep(dice.uniform(0, 1))
            await answered(lambda: handle.signal("go", number))
        elif name == "called off":
            await asyncio.sleep(dice.uniform(0, 2))
            await answered(lambda: _call_off(handle))
        if number % 8 == 0:
            assert (await answered(handle.wait)).final

    async def pack(self, number: int) -> None:
        await answered(lambda: self.client.pack("g", number))
        self.packed.append(number)


async def _call_off(handle: WorkflowHandle) -> None:
    try:
        await handle.cancel("enough")
    except Conflict:  # it is cancelled already: by us, when no answer came
        assert (await handle.get()).workflow.reason == "enough"


# --- what is there in the end -----------------------------------------------------------------------


class Found:
    """All that the ledger holds, against what was asked for."""

    def __init__(self, load: Load) -> None:
        self.fold = Fold(ledger_of(load.client))
        self.fold.on_valid = self._on_valid
        self.poisoned = self.void = 0
        self._load = load
        self._packs: list[int] = []
        self._places: set[str] = set()

    def _on_valid(self, judged: Judged) -> None:
        record = judged.record
        assert record is not None
        if isinstance(record.event, GeneratorPacked):
            self._packs += record.event.args
        process = self.fold.processes.get(record.entity)
        if process is not None and process.spec.limits:
            held = isinstance(process.phase, Waiting | Running)
            (self._places.add if held else self._places.discard)(process.id)
            assert len(self._places) <= RUNNING, f"{record.sequence}: one too many under the key"

    @property
    def workflows(self) -> dict[str, Workflow]:
        return {id: w for id, w in self.fold.history.workflows.items() if isinstance(w, Workflow)}

    def _runs(self, name: str) -> list[Workflow]:
        """The runs of a cron or generator, in order."""
        runs = [w for w in self.workflows.values() if w.source is not None and w.source.name == name]
        return sorted(runs, key=lambda run: due(run) or (run.source.run if run.source else None) or 0)

    async def until_all_ended(self) -> None:
        """Read on until the crons run on time again; then remove them, and read on until everything has
        ended."""
        client = self._load.client
        now = await client.ledger.now()
        while not all(any(due(run) > now for run in self._runs(cron)) for cron in CRONS):
            await self._read_on()
        for cron in CRONS:
            await client.cron(cron).remove()
        left = [""]
        try:
            while left:
                await self._read_on()
                left = self._left()
        except BaseException:
            print("left:", *left[:20], sep="\n")
            raise

    async def _read_on(self) -> None:
        await asyncio.sleep(0.5)
        await self.fold.read_on()

    def _left(self) -> list[str]:
        """What is not there or has not ended."""
        packed = sum(len(run.packed) for run in self._runs("g"))
        return [
            *(id for id in self._load.accepted if id not in self.workflows),
            *(f"argument {number}" for number in range(packed, len(self._packs))),
            *(
                f"{workflow.id} {workflow.spec.name} {label}"
                for workflow in self.workflows.values()
                for label, process in self._nodes(workflow).items()
                if process is None or not process.final
            ),
        ]

    def _nodes(self, workflow: Workflow) -> dict[str, Process | None]:
        history = self.fold.history
        labels = [label for label, _ in dag_of(workflow, history).labels()]
        return {label: history.process(workflow.process_of(label)) for label in labels}

    def _state(self, workflow: Workflow) -> str:
        nodes = self._nodes(workflow)
        ends = []
        for label, node in dag_of(workflow, self.fold.history).labels():
            process = nodes[label]
            ends.append((node, end_of(process) if process is not None else None))
        return state_of(workflow, ends)

    async def check(self, on: Chaos) -> None:
        self._check_that_nothing_is_lost()
        for workflow in self.workflows.values():
            self._check_states(workflow)
            self._check_inputs(workflow)
        assert self.poisoned <= len(self.workflows) // 20
        processes = self.fold.processes
        marks = Path(self._load.folder)
        for process in processes.values():
            check_marks(marks, process)
        assert {path.name for path in marks.iterdir()} <= processes.keys()
        report = await verified(on, self._load.client)
        assert [finding for finding in report.findings if finding.kind != "void"] == []
        self.void = len(report.findings)
        await self._check_view()

    def _check_that_nothing_is_lost(self) -> None:
        """What is there is what was asked for, once."""
        nodes = [p.id for w in self.workflows.values() for p in self._nodes(w).values() if p is not None]
        assert len(nodes) == len(set(nodes))
        assert set(nodes) == self.fold.processes.keys()
        assert self.fold.ends == dict.fromkeys(nodes, 1)
        asked = {workflow.id for workflow in self.workflows.values() if workflow.source is None}
        assert asked == self._load.accepted.keys()
        assert len(asked) == WORKFLOWS
        for id, kind in self._load.accepted.items():
            assert (self.workflows[id].cancelled_at is not None) == (kind == "called off")
            assert bool(self.workflows[id].signals) == (kind == "told")
        runs = self._runs("g")
        assert [run.source.run for run in runs if run.source] == list(range(len(runs)))
        assert [argument for run in runs for argument in run.packed] == self._packs
        assert set(self._packs) == set(self._load.packed) == set(range(KILLS))
        times = [due(run) for run in self._runs("all")]
        cron = self.fold.history.crons["all"]
        step = EVERY_S * SECOND
        assert times == [cron.added_at + (n + 1) * step for n in range(len(times))]
        late = [due(run) for run in self._runs("one")]
        assert late == sorted(set(late))

    def _check_states(self, workflow: Workflow) -> None:
        nodes = self._nodes(workflow)
        if any("poison" in error for p in nodes.values() if p is not None for error in p.errors):
            self.poisoned += 1
            return
        kind = KINDS.get(self._load.accepted.get(workflow.id, ""), ONCE)
        states = {label: p.state if p is not None else "" for label, p in nodes.items()}
        assert states.keys() == kind.states.keys()
        for label, state in states.items():
            assert state in kind.states[label].split("|"), f"{workflow.id} {workflow.spec.name}: {states}"
        assert self._state(workflow) == kind.state

    def _check_inputs(self, workflow: Workflow) -> None:
        """Whatever a node that counts was given is what the ledger has of those before it."""
        nodes = self._nodes(workflow)
        for label, process in nodes.items():
            output = getattr(process.phase, "output", None) if process is not None else None
            if not isinstance(output, dict) or "inputs" not in output:
                continue
            node = dag_of(workflow, self.fold.history).node(label)
            assert node is not None
            assert set(node.dependencies) <= output["inputs"].keys()
            for name, given in output["inputs"].items():
                assert given == given_by(nodes, name), f"{workflow.id} {label} was given {output}"
            if label == "all":
                assert output["given"] == given_by(nodes, "each")

    async def _check_view(self) -> None:
        """The projector, who was killed as well, says the same once it has caught up."""
        ledger = ledger_of(self._load.client)
        last = await ledger.last_sequence()
        while True:
            answer = await answered(
                lambda: ledger.ask_service("query.workflows", {"limit": 1_000}, wait_s=10)
            )
            if answer["position"] >= last:
                break
            await asyncio.sleep(0.5)
        shown = {item["id"]: item["state"] for item in answer["items"]}
        assert len(shown) == min(1_000, len(self.workflows))
        assert shown == {id: self._state(self.workflows[id]) for id in shown}


def due(run: Workflow) -> int:
    """When a run of a cron was due (ns)."""
    return (run.source.due if run.source is not None else None) or 0


def given_by(nodes: dict[str, Process | None], name: str) -> Any:
    """What a node, or the parts of it, give to those behind it."""
    if name not in nodes:
        return [given_by(nodes, label) for label in nodes if label.startswith(f"{name}[")]
    process = nodes[name]
    return getattr(process.phase, "output", None) if process is not None else None
