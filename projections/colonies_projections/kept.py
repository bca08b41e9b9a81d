"""What a projector keeps of each kind of entity, packed for its file and read back.

A kind is a word of the ledger's subjects (`process`, `workflow`), or one of the projector's own. One more
needs an entry in `KINDS` here, and in `Memory` the place where memory holds it. What is final is kept as far
as a later event can ask about it: of a node how it ended, of any other process next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgpack
from pydantic import TypeAdapter

from colonies.core.process import Process, Successful
from colonies.core.workflow import Held
from colonies_projections.progress import Progress

Key = tuple[str, str]
"""A kind, and the id of an entity of it."""

_PROCESS: TypeAdapter[Process] = TypeAdapter(Process)
_WORKFLOW: TypeAdapter[Held] = TypeAdapter(Held)
_VOIDS: TypeAdapter[set[bytes]] = TypeAdapter(set[bytes])
_PROGRESS: TypeAdapter[Progress] = TypeAdapter(Progress)


@dataclass(frozen=True, slots=True)
class Kind:
    """How entities of one kind are kept: as what plain value, and what that is read with."""

    plain: Callable[[Any], Any]
    adapter: TypeAdapter[Any]

    def pack(self, entity: Any) -> bytes:
        packed: bytes = msgpack.packb(self.plain(entity))
        return packed

    def unpack(self, packed: bytes) -> Any:
        """Raises ValueError, TypeError or msgpack's own errors if it makes no sense."""
        return self.adapter.validate_python(msgpack.unpackb(packed))


def _process(process: Process) -> Any:
    """A process as the fold needs it later."""
    if process.final:
        spec = process.spec.model_copy(update={"args": [], "kwargs": {}, "env": {}})
        process = replace(process, spec=spec, arguments=None, signals=())
        if process.workflow is not None:  # other nodes are judged by its end, and by who brought that about
            process = replace(process, attempts=process.attempts[-1:])
        else:
            phase = Successful() if isinstance(process.phase, Successful) else process.phase
            process = replace(process, phase=phase, attempts=())
    return _PROCESS.dump_python(process)


KINDS: Final[dict[str, Kind]] = {
    "process": Kind(_process, _PROCESS),
    "workflow": Kind(_WORKFLOW.dump_python, _WORKFLOW),
    # Of a process: the digests of its void events. Of a workflow: how far it is.
    "voids": Kind(sorted, _VOIDS),
    "progress": Kind(Progress.wire, _PROGRESS),
}
