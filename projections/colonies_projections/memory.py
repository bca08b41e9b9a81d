"""What a projector has in mind of the ledger it folds: a part. The rest is in its file and is recalled by id.

Whatever judges an event asks the `History` about others, and that asks here for what memory does not hold.
Nothing foresees what will be asked: a question that memory cannot answer is asked to the end, all that it
lacked is read from the file, and it is asked again. So verdicts are those of somebody who never forgets
anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import msgpack

from colonies import subjects
from colonies.core.process import ULID, Process
from colonies.core.workflow import Gathering, Nothing, Workflow
from colonies.history import History, Judged, examine, judge_process, judge_workflow
from colonies.ledger import Stored
from colonies_projections.kept import KINDS, Key
from colonies_projections.position import Unusable
from colonies_projections.store import Kept, Store

MAX_PROCESSES = 50_000
MAX_NODES = 50_000  # of all workflows in memory; one may have more
MAX_END_BYTES = 4_096  # of a node's end that stays in memory; a larger one is recalled when it is asked for
MAX_ABSENT = 200_000

_T = TypeVar("_T")


class Forgotten(Exception):
    """Memory does not hold it, and the file may."""


class Memory:
    """The memory of one projector, on an open file. `history` is the fold; `held` says where it keeps
    what."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.history = History(store.colony, position=store.position.sequence, beyond=_Beyond(self))
        self.held: dict[str, dict[str, Any]] = {
            "process": self.history.processes,
            "workflow": self.history.workflows,
            "voids": self.history.voids,
            "cron": self.history.crons,
            "generator": self.history.generators,
            "progress": {},
        }
        self.absent: set[Key] = set()  # what is not in the file either
        self.noted: set[Key] | None = None
        self._large: set[Key] = set()
        self._weights: dict[str, int] = {}  # by workflow: how many nodes
        self._nodes = 0

    async def open(self) -> Memory:
        """Recall what is always in memory."""
        for kind in (kind for kind in KINDS if KINDS[kind].always):
            await self._recall(kind, None)
        return self

    # --- the fold ------------------------------------------------------------------------------------

    async def begin(self, batch: Iterable[Stored]) -> set[Key]:
        """Recall the entities that these messages are of; gives their keys."""
        keys: set[Key] = set()
        for stored in batch:
            subject = subjects.parse(stored.subject)
            if subject is not None and subject.kind in self.held:
                keys.add((subject.kind, subject.entity))
                if subject.kind == "process" and not ULID.match(subject.entity):
                    keys.add(("voids", subject.entity))
        await self._bring(key for key in keys if not self._knows(key))
        return keys

    async def take(self, stored: Stored, signed_by: str | None = None) -> Judged:
        """Judge the next message and fold it if it is valid. `signed_by` as of `history.examine`."""
        seen = examine(self.history.colony, stored, signed_by=signed_by)
        try:
            return self.history.take(seen)
        except Forgotten:
            await self.ask(lambda: self._judged(seen))
            return self.history.take(seen)

    def _judged(self, seen: Judged) -> object:
        """All that taking this message would ask; it changes nothing."""
        assert seen.record is not None
        history, id = self.history, seen.record.entity
        if seen.record.kind == "process":
            return judge_process(history.colony, history.processes.get(id), seen, history)
        return judge_workflow(history.colony, history.workflows.get(id), seen, history)

    async def ask(self, question: Callable[[], _T]) -> _T:
        """The answer to a question to `history`, which must change nothing: it may be asked several times."""
        while True:
            noted: set[Key] = set()
            self.noted = noted
            try:
                answer = question()
            finally:
                self.noted = None
            if not noted:
                return answer
            await self._bring(noted)

    async def get(self, kind: str, id: str) -> Any:
        """The entity, from memory or the file; None if there is none."""
        if not self._knows((kind, id)):
            await self._bring([(kind, id)])
        return self.held[kind].get(id)

    def packed(self, keys: Iterable[Key]) -> list[Kept]:
        """These entities as the file keeps them."""
        found = []
        for kind, id in sorted(keys):
            packed = KINDS[kind].pack(self.held[kind][id])
            if len(packed) > MAX_END_BYTES:
                self._large.add((kind, id))
            found.append((kind, id, packed))
        return found

    # --- remembering and forgetting --------------------------------------------------------------------

    def _knows(self, key: Key) -> bool:
        return key[1] in self.held[key[0]] or key in self.absent

    def lacks(self, key: Key) -> None:
        """Somebody asks for this, and memory does not hold it. Raises Forgotten, or notes it within `ask`."""
        if self._knows(key):
            return
        if self.noted is None:
            raise Forgotten
        self.noted.add(key)

    async def _bring(self, keys: Iterable[Key]) -> None:
        wanted: dict[str, list[str]] = {}
        for kind, id in sorted(keys):
            wanted.setdefault(kind, []).append(id)
        for kind, ids in wanted.items():
            self.absent.update((kind, id) for id in ids)
            await self._recall(kind, ids)

    async def _recall(self, kind: str, ids: Collection[str] | None) -> None:
        for id, packed in await self._store.recall(kind, ids):
            try:
                self.held[kind][id] = KINDS[kind].unpack(packed)
            except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
                raise Unusable(
                    f"it is broken: what it holds of {kind} {id} makes no sense: {error}"
                ) from None
            self.absent.discard((kind, id))
            if kind == "workflow":
                self._weigh(id)
            if len(packed) > MAX_END_BYTES:
                self._large.add((kind, id))

    def forget(self, named: Collection[Key]) -> None:
        """After a commit: the file has it all. Memory holds what is open, how nodes ended, and not too
        much."""
        processes: dict[str, Process] = self.held["process"]
        for kind, id in named:
            if kind == "voids" or (kind == "process" and id in processes and _is_done(processes[id])):
                self._drop((kind, id))
        for key in self._large:
            if key[0] == "process" and (found := processes.get(key[1])) is not None and found.final:
                self._drop(key)
        self._large.clear()
        if len(processes) > MAX_PROCESSES:
            for id in list(processes)[: len(processes) - MAX_PROCESSES]:
                self._drop(("process", id))
        self._forget_workflows(named)
        if len(self.absent) > MAX_ABSENT:
            self.absent.clear()

    def _forget_workflows(self, named: Collection[Key]) -> None:
        held = self.held["workflow"]
        for kind, id in named:
            if kind == "workflow" and id in held:
                held[id] = held.pop(id)  # the newest are kept
                self._weigh(id)
        while self._nodes > MAX_NODES and len(held) > 1:
            id = next(iter(held))
            self._drop(("workflow", id))
            self._drop(("progress", id))

    def _drop(self, key: Key) -> None:
        self.held[key[0]].pop(key[1], None)
        self.absent.discard(key)
        if key[0] == "workflow":
            self._weigh(key[1])

    def _weigh(self, id: str) -> None:
        """Count the nodes of a workflow that came, changed or went."""
        self._nodes -= self._weights.pop(id, 0)
        if (held := self.held["workflow"].get(id)) is not None:
            self._weights[id] = _nodes(held)
            self._nodes += self._weights[id]


class _Beyond(Nothing):
    """See `colonies.core.workflow.Known`: what the history asks for that is not in memory. Crons and
    generators are always there."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def workflow(self, id: str) -> Workflow | None:
        self._memory.lacks(("workflow", id))
        return None

    def process(self, id: str) -> Process | None:
        self._memory.lacks(("process", id))
        return None


def _is_done(process: Process) -> bool:
    """Does nothing that comes depend on it?"""
    return process.final and process.workflow is None


def _nodes(held: Gathering | Workflow) -> int:
    if isinstance(held, Workflow):
        return len(held.spec.nodes)
    return sum(len(nodes) for _, nodes in held.parts) or 1
