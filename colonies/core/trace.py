"""Where work stands in a distributed trace (W3C Trace Context), and which spans the ledger's events are.

Whoever submits may say in which trace it does. All else is derived: of work that has none, the trace; of each
workflow, process, attempt and wait, its span. So a worker and whoever tells the ledger as spans name the same
ones without a word between them. Pure; the rules ask nothing of it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from colonies.core.names import shown
from colonies.core.shapes import CONFIG
from colonies.errors import Invalid

MAX_STATE_CHARS = 512
MAX_STATE_MEMBERS = 32

SpanOf = Literal["workflow", "process", "attempt", "wait"]

EXAMPLE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_ALLOWED = f"version, trace id, span id and flags in lower-case hexadecimal, such as {EXAMPLE}"
_PARENT = re.compile(r"\A([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_KEY = r"[a-z0-9][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_MEMBER = re.compile(rf"\A({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]\Z")


def _no_zeros(parent: str) -> str:
    if (wrong := _zeros(parent)) is not None:
        raise PydanticCustomError("zeros", "its {wrong} is all zeros", {"wrong": wrong})
    return parent


def _zeros(parent: str) -> str | None:
    """Which of its two ids stands for none."""
    if parent[3:35] == "0" * 32:
        return "trace id"
    return "span id" if parent[36:52] == "0" * 16 else None


# `traceparent` as the standard has it, in its version 00.
TraceParent = Annotated[
    str,
    Field(strict=True, pattern=r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\z"),
    AfterValidator(_no_zeros),
]


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: `parent` is the `traceparent` of the span there, `state` the `tracestate`, which
    belongs to whoever traces and means nothing here."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    parent: TraceParent
    state: Annotated[str, Field(strict=True, pattern=r"\A[ -~]{1,512}\z")] | None = None

    @property
    def trace_id(self) -> str:
        return self.parent[3:35]

    @property
    def span_id(self) -> str:
        return self.parent[36:52]

    @property
    def sampled(self) -> bool:
        """Is it recorded? Its beginner decided."""
        return bool(int(self.parent[53:], 16) & 1)

    def at(self, span: str) -> Trace:
        """The same trace, at another span of it (16 hexadecimal digits)."""
        return Trace(f"{self.parent[:36]}{span}{self.parent[52:]}", self.state)


def read(parent: object, state: str | None = None, where: str = "traceparent") -> Trace:
    """A trace from the two headers of the standard. A later version is read as the standard wants it: what
    version 00 has of it. Of `state`, `kept_state` is taken.

    Raises:
        Invalid: it is none. A `state` never raises.
    """
    found = _PARENT.match(parent) if isinstance(parent, str) else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        raise Invalid(f"{where}: {shown(parent)} is not a traceparent; allowed: {_ALLOWED}")
    flags = found[4] if found[1] == "00" else f"{int(found[4], 16) & 1:02x}"
    said = f"00-{found[2]}-{found[3]}-{flags}"
    if (wrong := _zeros(said)) is not None:
        raise Invalid(f"{where}: {shown(parent)}: its {wrong} is all zeros; allowed: {_ALLOWED}")
    return Trace(said, kept_state(state))


def kept_state(state: str | None) -> str | None:
    """What is kept of a `tracestate`: its first members up to the limits; None if it is not one."""
    members = [member.strip(" \t") for member in (state or "").split(",")]
    members = [member for member in members if member]
    keys = [member.partition("=")[0] for member in members]
    if len(set(keys)) != len(keys) or not all(map(_MEMBER.match, members)):
        return None
    kept = ""
    for member in members[:MAX_STATE_MEMBERS]:
        longer = f"{kept},{member}" if kept else member
        if len(longer) > MAX_STATE_CHARS:
            break
        kept = longer
    return kept or None


def own(colony: str, what: Literal["workflow", "process"], id: str) -> Trace:
    """The trace of a workflow, or a process that is no node, that was submitted without one, at its span."""
    return Trace(f"00-{_digest(32, 'trace', colony, id)}-{span_id(colony, what, id)}-01")


def at_attempt(colony: str, trace: Trace | None, workflow: str | None, process: str, attempt: str) -> Trace:
    """Where the function of an attempt stands: at the attempt's span. `trace` is where the submitter stood,
    `attempt` the id of its `assigned`."""
    own_ = own(colony, "process", process) if workflow is None else own(colony, "workflow", workflow)
    return (trace or own_).at(span_id(colony, "attempt", attempt))


def span_id(colony: str, what: SpanOf, id: str) -> str:
    """The span (16 hexadecimal digits) of a workflow or process, by its id; of an attempt, by that of its
    `assigned`; of a wait, by that of the event that ended it. `colony` is its public key."""
    return _digest(16, what, colony, id)


def _digest(digits: int, *sources: str) -> str:
    found = hashlib.sha256("\0".join(("colonies trace", *sources)).encode()).hexdigest()[:digits]
    return found if found.strip("0") else f"{1:0{digits}x}"  # all zeros stand for none
