"""The field of battle: one running colony with honest members at work, and whoever comes to harm it.

`agree` is the heart of it: after every attack, `ledger verify`, a projector's views, the client and the
worker must say the same of every message, and blame exactly what the attackers stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from colonies_projections import Projector
from colonies_projections.projector import VIEWS

import colonies
from colonies.client import Client, Handle
from colonies.core.process import ULID, Process
from colonies.errand import errand
from colonies.history import History
from colonies.ids import new_token
from colonies.jetstream import JetStreamLedger
from colonies.orchestrator import Orchestrator
from colonies.session import Session
from colonies.show import process_object
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until
from tests.hostile.attacker import Attacker
from tests.projections.helpers import Verdicts, ask

LIMIT_S = 30.0
PYTHON = {"runtimetype": "python"}
# Its views lose workflows so far when it forgets what has ended: see `_views_agree`.
PROJECTOR_KNOWS_WORKFLOWS = False
OF_WORKFLOWS = r"ledger\.(workflow\.|process\.[a-z2-7]{32}\.)"
PROCESS = r"ledger\.process\.[^.]+\.[^.]+"


class Field:
    """`ann` is an honest user's client, `w1` an honest worker, `runs` says how often each job was run."""

    def __init__(self, colony: RunningColony) -> None:
        self.colony = colony
        self.runs: Counter[str] = Counter()
        self.blamed: dict[int, tuple[str, str]] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._attackers: dict[tuple[str, str], Attacker] = {}
        self.ann: Client
        self.reader: Session
        self.worker_session: Session
        self.orchestrator: Orchestrator

    @property
    def key(self) -> str:
        """The colony's public key."""
        return self.colony.keyring.owner.account.public

    # --- honest work ---------------------------------------------------------------------------------

    def worker(self, runtimetype: str = "python") -> colonies.Worker:
        """A worker whose jobs wait until they are let go."""
        worker = colonies.Worker(runtimetype, concurrency=50, backoff_s=0.1)

        @worker.function
        async def job(name: str) -> str:
            self.runs[name] += 1
            await self._gate(name).wait()
            return f"done {name}"

        return worker

    def _gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())

    async def running(self, **spec: Any) -> Job:
        """A job that the honest worker w1 has begun."""
        job = await self.submit(**spec)
        async with asyncio.timeout(LIMIT_S):
            while not self.runs[job.name]:
                await asyncio.sleep(0.005)
        return job

    async def waiting(self, **spec: Any) -> Job:
        """A job in a queue of its own that nobody serves yet: `serve` it."""
        return await self.submit(runtimetype=f"r{new_token(8)}", **spec)

    async def submit(self, *, runtimetype: str = "python", key: str | None = None, **spec: Any) -> Job:
        name = new_token()
        conditions = {"runtimetype": runtimetype, **spec.pop("conditions", {})}
        work = {"func": "job", "args": [name], "conditions": conditions, **spec}
        return Job(self, name, runtimetype, await self.ann.submit(work, key=key))

    async def attacker(self, role: str, name: str | None = None) -> Attacker:
        """A member of that role who means no good; the same one each time."""
        name = name or f"evil-{role}"
        if (name, role) not in self._attackers:
            creds = await self.colony.credential(name, role)
            found = await Attacker.login(self.colony.url, name, role, creds, self.key)
            self.colony.stack.push_async_callback(found.close)
            self._attackers[name, role] = found
        return self._attackers[name, role]

    # --- what all agree on ---------------------------------------------------------------------------

    async def agree(self, blamed: Mapping[int, str], kind: str = "quarantined") -> None:
        """Everybody calls these sequences `kind`, by a rule that matches; and nothing else on the ledger."""
        self.blamed |= {sequence: (kind, rule) for sequence, rule in blamed.items()}
        for attacker in self._attackers.values():
            self.blamed |= dict.fromkeys(attacker.carriers, ("damaged", ""))
        report = await verify_ledger(_ledger(self.reader))
        found = {finding.sequence: finding for finding in report.findings}
        assert found.keys() == self.blamed.keys(), _difference(found, self.blamed)
        for sequence, (said, rule) in self.blamed.items():
            assert found[sequence].kind == said
            assert re.search(rule, found[sequence].rule), (rule, found[sequence].rule)
        await self._views_agree()
        await self._readers_agree(list(blamed))
        await self._orchestrator_agrees()

    async def _views_agree(self) -> None:
        """The projector gives the same verdicts, and shows every process as the ledger up to there folds."""
        await ask(self.reader, "verdicts", limit=1)
        with contextlib.closing(sqlite3.connect(self.colony.folder / "views.sqlite")) as views:
            rows = views.execute("SELECT sequence FROM verdicts WHERE kind <> 'valid'").fetchall()
        shown = await ask(self.reader, "processes", limit=1_000)
        folded = History(type(self.reader.colony)(self.key))
        workflows: set[int] = set()
        async for batch in self.reader.ledger.scan(0):
            for stored in batch:
                if stored.sequence <= shown["position"]:
                    folded.add(stored)
                if not PROJECTOR_KNOWS_WORKFLOWS and re.match(OF_WORKFLOWS, stored.subject):
                    workflows.add(stored.sequence)
        assert {sequence for (sequence,) in rows} - workflows == self.blamed.keys() - workflows
        states = {item["id"]: (item["state"], item["worker"]) for item in shown["items"]}
        objects = {id: process_object(process) for id, process in folded.processes.items()}
        if not PROJECTOR_KNOWS_WORKFLOWS:
            states = {id: state for id, state in states.items() if ULID.match(id)}
            objects = {id: shown for id, shown in objects.items() if ULID.match(id)}
        assert states == {id: (now["state"], now["worker"]) for id, now in objects.items()}

    async def _readers_agree(self, sequences: Sequence[int]) -> None:
        """The client and the worker, who read one process each, see it as `ledger verify` does."""
        stored = [await _ledger(self.reader).at(sequence) for sequence in sequences]
        processes = {s.subject.split(".")[2] for s in stored if re.match(PROCESS, s.subject)}
        workflows = {s.subject.split(".")[2] for s in stored if s.subject.startswith("ledger.workflow.")}
        fresh = await self.colony.session(f"late-{new_token(8)}".lower(), "observer")
        for session in (self.ann.session, self.worker_session, fresh):
            told = [(await session.story(process)).judged for process in processes]
            told += [(await session.knowledge.story(workflow)).judged for workflow in workflows]
            for seen in (seen for judged in told for seen in judged):
                kind, rule = self.blamed.get(seen.stored.sequence, (None, None))
                assert seen.verdict.valid == (rule is None), (seen.verdict, rule)
                assert kind in (None, "damaged", seen.verdict.kind)
                assert rule is None or re.search(rule, seen.verdict.rule), (rule, seen.verdict.rule)

    async def _orchestrator_agrees(self) -> None:
        """What the orchestrator has of processes that are open is what `ledger verify` would have."""
        history: History = self.orchestrator._history
        folded = History(type(self.reader.colony)(self.key))
        last = await self.reader.ledger.last_sequence()
        await self.until(lambda: history.position >= last, "the orchestrator has read on")
        end = history.position
        held = dict(history.processes), dict(history.workflows)
        async for batch in self.reader.ledger.scan(0):
            for stored in batch:
                if stored.sequence <= end:
                    folded.add(stored)
        for id, process in held[0].items():
            assert folded.processes[id] == process, id
        for id, workflow in held[1].items():
            assert folded.workflows[id] == workflow, id
        forgotten = folded.processes.keys() - held[0].keys()
        assert all(folded.processes[id].final for id in forgotten)

    async def until(self, fact: Callable[[], object], what: str) -> None:
        await until(fact, what, LIMIT_S)

    async def until_answer(self, view: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until a question is answered so."""
        async with asyncio.timeout(LIMIT_S):
            while not holds(await _ledger(self.reader).ask_service(f"query.{view}", {"limit": 1}, wait_s=10)):
                await asyncio.sleep(0.02)

    async def until_queue(self, queue: str) -> None:
        """Wait until the queue has its consumer."""
        service = await self.attacker("service")
        async with asyncio.timeout(LIMIT_S):
            while "error" in await service.ask(f"$JS.API.CONSUMER.INFO.LEDGER.{queue}"):
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def meanwhile(self, doing: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
        task = asyncio.create_task(doing)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def timers(self) -> list[str]:
        """The processes that have a timer."""
        async with errand(self.colony.url, self.colony.keyring.owner.admin_credential(), wait_s=10) as asked:
            body = json.dumps({"subjects_filter": "timers.at.>"}).encode()
            info = json.loads(await asked("$JS.API.STREAM.INFO.TIMERS", body))
        return [subject.rsplit(".", 1)[1] for subject in info["state"].get("subjects") or ()]

    async def timer_set(self, process: str) -> None:
        """Wait until the process has its timer."""
        async with asyncio.timeout(LIMIT_S):
            while process not in await self.timers():
                await asyncio.sleep(0.02)

    async def replay(self, attacker: Attacker, process: str) -> list[int]:
        """Have the broker store every event of a process once more; the sequences."""
        stored = await self.reader.ledger.read(f"ledger.process.{process}.>")
        return [await self.smuggled(attacker, old.subject, old.data) for old in stored]

    async def head(self, kind: str, entity: str) -> bytes | None:
        """What the next event of a member, or of the colony, must name as `prev`."""
        await self.reader.refresh()
        return self.reader.colony.heads.get(f"{kind}.{entity}")

    async def streams(self) -> dict[str, Any]:
        """Every stream's name and what the broker says of it to whoever holds the account's key."""
        async with errand(self.colony.url, self.colony.keyring.owner.admin_credential(), wait_s=10) as asked:
            listed = json.loads(await asked("$JS.API.STREAM.LIST", b""))["streams"]
        return {info["config"]["name"]: info for info in listed}

    async def sequence_on(self, subject: str, after: int = 0) -> int:
        """Where the newest message on a ledger subject stands, once it stands there."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = await _ledger(self.reader)._last_under(subject)
                if found > after:
                    return found
                await asyncio.sleep(0.005)

    async def smuggled(self, attacker: Attacker, subject: str, data: bytes, **options: Any) -> int:
        """Have an attacker put it on the ledger past the broker's fence; its sequence."""
        before = await _ledger(self.reader)._last_under(subject)
        await attacker.smuggle(subject, data, **options)
        return await self.sequence_on(subject, before)


class Job:
    """An honest process and what must come of it: `finish`, and it was run once and gave its own result."""

    def __init__(self, field: Field, name: str, runtimetype: str, handle: Handle[Any]) -> None:
        self.field = field
        self.name = name
        self.runtimetype = runtimetype
        self.handle = handle
        self.id = handle.id

    async def get(self) -> Process:
        return await self.handle.get()

    def subject(self, event: str, author: str) -> str:
        return f"ledger.process.{self.id}.{event}.{author}"

    async def finish(self, *, runs: int = 1) -> Process:
        """Let it go; it ends well, was run so often, and nobody but w1 had it."""
        self.field._gate(self.name).set()
        assert await self.handle.result(LIMIT_S) == f"done {self.name}"
        assert self.field.runs[self.name] == runs
        process = await self.get()
        assert process.attempts[-1].worker == "w1"
        assert process.attempts[-1].outcome == "successful"
        return process

    async def begin(self) -> None:
        """Have the honest worker w1 serve its queue; returns once it runs."""
        await self.field.colony.work(self.field.worker(self.runtimetype), "w1")
        await self.field.until(lambda: self.field.runs[self.name], "it runs")

    async def serve(self) -> Process:
        """Have the honest worker w1 serve its queue; it ends well."""
        instance = await self.field.colony.work(self.field.worker(self.runtimetype), "w1")
        try:
            return await self.finish()
        finally:
            instance.stop(0.0)


def _ledger(session: Session) -> JetStreamLedger:
    assert isinstance(session.ledger, JetStreamLedger)
    return session.ledger


def _difference(found: Mapping[int, Any], blamed: Mapping[int, Any]) -> str:
    unexpected = [found[sequence] for sequence in found.keys() - blamed.keys()]
    return f"blamed as well: {unexpected}; not blamed: {sorted(blamed.keys() - found.keys())}"


@asynccontextmanager
async def battlefield(folder: Path, *, lease_s: float = 2.0) -> AsyncIterator[Field]:
    """A colony at work: an orchestrator, a projector, the worker w1, the user ann."""
    async with running_colony(folder, lease_s=lease_s, orchestrate=False) as colony:
        field = Field(colony)
        service = await colony.session("orchestrator", "service")
        field.orchestrator = Orchestrator(service, _ledger(service).machinery())
        await colony._start(field.orchestrator.run(), field.orchestrator.ready)
        field.ann = await colony.client("ann")
        field.reader = await colony.session("auditor", "observer")
        projector = Projector(
            await colony.session("projector", "observer"), folder / "views.sqlite", (*VIEWS, Verdicts)
        )
        await colony._start(projector.run(), projector.ready)
        instance = await colony.work(field.worker(), "w1")
        field.worker_session = instance.session
        yield field
