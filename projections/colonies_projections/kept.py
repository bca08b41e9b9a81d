"""What a projector keeps of each kind of entity, packed for its file and read back.

A kind is a word of the ledger's subjects (`process`, `workflow`), or one of the projector's own. One more
needs an entry in `KINDS` here, and in `Memory` the place where memory holds it. What is final is kept as far
as a later event can ask about it: of a node how it ended, of any other process next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import msgpack
from pydantic import TypeAdapter

from colonies.core.crons import Cron
from colonies.core.generators import Chain, Group, Pack
from colonies.core.process import CancelledForGood, FailedForGood, Process
from colonies.core.workflow import Held
from colonies_projections.progress import Progress

Key = tuple[str, str]
"""A kind, and the id of an entity of it."""

_PROCESS: TypeAdapter[Process] = TypeAdapter(Process)
_CRON: TypeAdapter[Cron] = TypeAdapter(Cron)
_CHAIN: TypeAdapter[Chain] = TypeAdapter(Chain)
_PACKS: TypeAdapter[list[Pack]] = TypeAdapter(list[Pack])
_WORKFLOW: TypeAdapter[Held] = TypeAdapter(Held)
_VOIDS: TypeAdapter[set[bytes]] = TypeAdapter(set[bytes])
_PROGRESS: TypeAdapter[Progress] = TypeAdapter(Progress)


@dataclass(frozen=True, slots=True)
class Kind:
    """How entities of one kind are kept: as what plain value, and how that is read again. Those that are
    `always` in memory are few, and judging asks for them by name."""

    plain: Callable[[Any], Any]
    read: Callable[[Any], Any]
    always: bool = False

    def pack(self, entity: Any) -> bytes:
        packed: bytes = msgpack.packb(self.plain(entity))
        return packed

    def unpack(self, packed: bytes) -> Any:
        """Raises ValueError, TypeError or msgpack's own errors if it makes no sense."""
        return self.read(msgpack.unpackb(packed, strict_map_key=False))


def _process(process: Process) -> Any:
    """A process as the fold needs it later."""
    if not process.final:
        return _PROCESS.dump_python(process)
    if process.workflow is None:
        return _ended(process)
    # Other nodes are judged by its end, and by who brought that about.
    spec = process.spec.model_copy(update={"args": [], "kwargs": {}, "env": {}})
    attempts = process.attempts[-1:]
    return _PROCESS.dump_python(replace(process, spec=spec, arguments=None, signals=(), attempts=attempts))


def _ended(process: Process) -> Any:
    """Of a process on its own that is final: nothing changes it, and what comes late is void whatever it
    says. Written by hand, since there are more of these than of all else."""
    return {
        "id": process.id,
        "spec": {
            "func": process.spec.func,
            "conditions": {"runtimetype": process.spec.conditions.runtimetype},
        },
        "queue": process.queue,
        "submitter": process.submitter,
        "submitted_at": process.submitted_at,
        "phase": _phase(process),
        "head": process.head,
        "sequence": process.sequence,
        "time": process.time,
        "first": process.first,
    }


def _phase(process: Process) -> dict[str, Any]:
    match process.phase:
        case CancelledForGood(by=by):
            return {"state": "cancelled", "by": by, "reason": ""}
        case FailedForGood():
            return {"state": "failed", "error": ""}
        case phase:
            return {"state": phase.state}


def _generator(chain: Chain) -> Any:
    """A generator, and apart from it what was packed: several runs may have arguments from one event."""
    packs: dict[int, Pack] = {}
    groups: list[list[int]] = []
    kept = replace(chain, former=dict(sorted(chain.former.items())))
    for group in _groups(chain):
        packs.update((pack.sequence, pack) for pack in group.packs)
        groups.append([pack.sequence for pack in group.packs])
    plain = _CHAIN.dump_python(kept, exclude=_NO_PACKS)
    return [plain, _PACKS.dump_python([packs[sequence] for sequence in sorted(packs)]), groups]


def _read_generator(kept: Any) -> Chain:
    plain, packed, groups = kept
    chain = _CHAIN.validate_python(plain)
    packs = {pack.sequence: pack for pack in _PACKS.validate_python(packed)}
    for group, sequences in zip(_groups(chain), groups, strict=True):
        group.packs = [packs[sequence] for sequence in sequences]
    return chain


def _groups(chain: Chain) -> Iterator[Group]:
    for generator in chain.all():
        yield from generator.closed.values()
        yield from (group for group in (generator.open, generator.left) if group is not None)


_GROUP: Any = {"packs"}
_GENERATOR: Any = {"closed": {"__all__": _GROUP}, "open": _GROUP, "left": _GROUP}
_NO_PACKS: Any = {"generator": _GENERATOR, "former": {"__all__": _GENERATOR}}

KINDS: Final[dict[str, Kind]] = {
    "process": Kind(_process, _PROCESS.validate_python),
    "workflow": Kind(_WORKFLOW.dump_python, _WORKFLOW.validate_python),
    "cron": Kind(_CRON.dump_python, _CRON.validate_python, always=True),
    "generator": Kind(_generator, _read_generator, always=True),
    # Of a process: the digests of its void events. Of a workflow: how far it is.
    "voids": Kind(sorted, _VOIDS.validate_python),
    "progress": Kind(Progress.wire, _PROGRESS.validate_python),
}
