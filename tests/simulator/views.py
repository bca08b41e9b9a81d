"""What must hold of the projector: every event is folded once, and its rows are those of the whole ledger.

The file of its views lies in a folder of the lifetime's own, outlives the machine, and is read from outside.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from colonies_projections import store
from colonies_projections.kept import KINDS
from colonies_projections.past import COLUMNS, tables_of
from colonies_projections.projector import VIEWS
from colonies_projections.view import Asked, Batch, Filter, Page, Snapshot, Step, Write

from colonies.core.process import Process, evolve
from colonies.core.workflow import dag_of, end_of, state_of
from colonies.history import History, Judged
from tests.simulator.oracle import Life

_SHM = "/dev/shm"  # a file system in memory, where there is one
FOLDERS = _SHM if os.access(_SHM, os.W_OK) else None


class Folded:
    """A view of our own: each event that was folded, as often as it was."""

    name: ClassVar[str] = "folded_events"
    version: ClassVar[int] = 1
    tables: ClassVar[str] = "CREATE TABLE folded_events (sequence INTEGER, verdict TEXT);"
    filters: ClassVar[Mapping[str, Filter]] = {}
    sorts: ClassVar[Sequence[str]] = ()

    def fold(self, batch: Batch) -> Iterable[Write]:
        rows = [(judged.stored.sequence, judged.verdict.kind) for judged in batch.judged]
        yield "INSERT INTO folded_events VALUES (?, ?)", rows

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        return Page([])


ALL = (*VIEWS, Folded)


class Views:
    """The views of one lifetime."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="colonies-simulator-", dir=FOLDERS)
        self.path = Path(self._folder.name) / "views.sqlite3"
        self._db = sqlite3.connect(self.path, isolation_level=None)

    def position(self) -> int:
        """What was committed of it; 0 if there is no file yet."""
        with contextlib.suppress(sqlite3.OperationalError):
            for (position,) in self._db.execute("SELECT position FROM projector"):
                return int(position)
        return 0

    def close(self) -> None:
        self._db.close()
        self._folder.cleanup()

    def check(
        self,
        last: int,
        judged: list[Judged],
        history: History,
        lives: Mapping[str, Life],
        broken: Callable[..., None],
    ) -> None:
        """`last` is the ledger's end; `judged` and `history` are a fold of all that is not its founding."""
        if self.position() != last:
            broken(f"the views stay at {self.position()}, and the ledger ends at {last}")
            return
        folded = [row[0] for row in self._db.execute("SELECT sequence FROM folded_events ORDER BY sequence")]
        if folded != list(range(1, last + 1)):
            twice = sorted({n for n in folded if folded.count(n) > 1})
            never = sorted(set(range(1, last + 1)) - set(folded))
            broken(f"the projector folded {twice} more than once, and {never} never")
        told = {id: (state, n) for id, state, n in self._db.execute(_TOLD)}
        for id in told.keys() | lives.keys():
            life = lives.get(id)
            truth = (life.state, len(life.attempts)) if life is not None else None
            if told.get(id) != truth:
                broken(f"the views tell {told.get(id)}, it is {truth}", id)
        anew = _rebuilt(judged, history)
        for table, order in _TABLES:
            query = f"SELECT * FROM {table} ORDER BY {order}"
            ours, theirs = self._db.execute(query).fetchall(), anew.execute(query).fetchall()
            if ours != theirs:
                broken(f"the rows of {table} are not those of a rebuild", _difference(ours, theirs))
        self._check_flows(history, broken)
        self._check_fold(history, broken)

    def _check_flows(self, history: History, broken: Callable[..., None]) -> None:
        """Workflows and their nodes are told as the library tells them who counts all nodes anew."""
        workflows, nodes = [], []
        for id in history.workflows:
            if (workflow := history.workflow(id)) is None:
                continue
            ends, states = [], []
            for label, node in dag_of(workflow, history).labels():
                process = history.process(workflow.process_of(label))
                ends.append((node, end_of(process) if process is not None else None))
                states.append(process.state if process is not None else "blocked")
                nodes.append((id, label, workflow.process_of(label), states[-1]))
            done = sum(end is not None for _, end in ends)
            workflows.append((id, state_of(workflow, ends), len(ends), done, states.count("failed")))
        for query, truth in ((_WORKFLOWS, workflows), (_NODES, nodes)):
            if (told := sorted(self._db.execute(query))) != sorted(truth):
                broken("the views tell another tale of workflows", _difference(told, truth))

    def _check_fold(self, history: History, broken: Callable[..., None]) -> None:
        """What the projector would go on with is the fold itself."""
        packed = {
            (kind, id): KINDS[kind].pack(entity)
            for kind, held in (("process", history.processes), ("workflow", history.workflows))
            for id, entity in held.items()
        }
        query = "SELECT kind, id, entity FROM folded WHERE kind IN ('process', 'workflow')"
        if {(kind, id): entity for kind, id, entity in self._db.execute(query)} != packed:
            broken("the folded entities are not those of a rebuild")
        for (colony,) in self._db.execute("SELECT folded FROM projector"):
            if store._unpacked(store._COLONY, colony) != history.colony:
                broken("the folded colony is not that of a rebuild")


_WORKFLOWS = "SELECT id, state, nodes, done, failed FROM workflows"
_NODES = "SELECT workflow, label, process, state FROM workflows_nodes WHERE state IS NOT NULL"
_TOLD = "SELECT id, state, attempts FROM processes"
_TABLES = (
    ("processes", "sequence"),
    ("past_processes", "sequence, until"),
    ("processes_attempts", "process, n"),
    ("past_processes_attempts", "process, n, until"),
    ("processes_values", "sequence"),
    ("workers", "name, instance"),
    ("queues_taken", "sequence"),
)


@lru_cache(1)
def _empty() -> bytes:
    """A file with the tables of all views, and nothing in them."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript("".join(view.tables for view in VIEWS))
    for table in tables_of(db.execute(COLUMNS).fetchall()):
        for statement in table.keeping():
            db.execute(statement)
    return db.serialize()


def _rebuilt(judged: list[Judged], history: History) -> sqlite3.Connection:
    """The rows of the whole ledger in one batch."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.deserialize(_empty())
    valid = [seen.record for seen in judged if seen.record is not None and seen.verdict.valid]
    others = [record for record in valid if record.kind != "process"]
    batch = Batch(judged, _steps(judged, history), others=others)
    for make in VIEWS:
        for statement, rows in make().fold(batch):
            db.executemany(statement, rows)
    return db


def _steps(judged: list[Judged], history: History) -> list[Step]:
    """What each valid event of a process made of it."""
    processes: dict[str, Process] = {}
    steps = []
    for record in (seen.record for seen in judged if seen.record is not None and seen.verdict.valid):
        if record.kind == "process":
            before = processes.get(record.entity)
            processes[record.entity] = evolve(before, record, history)
            steps.append(Step(record, before, processes[record.entity]))
    return steps


def _difference(ours: list[Any], theirs: list[Any]) -> str:
    return f"{[row for row in ours if row not in theirs]} for {[row for row in theirs if row not in ours]}"
