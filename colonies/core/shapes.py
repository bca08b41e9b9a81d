"""The shapes that the data of events is made of, each with its limit. Data only; no event, no rule.

Types are strict, so that readers in every language agree on what is an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from colonies.core.plain import at_most

Role = Literal["owner", "user", "worker", "observer", "service"]

SECOND = 1_000_000_000  # ns

MAX_REASON_CHARS = 1_000
MAX_ERROR_CHARS = 16_384
MAX_TEXT_CHARS = 256
MAX_DESCRIPTION_CHARS = 4_096
MAX_DELAY_S = 365 * 86_400
MAX_LEASE_S = 86_400.0
MIN_LEASE_S = 2.0
MAX_STORED_BYTES = 64 * 1024 * 1024
MAX_UNIX_S = 2**33  # in the year 2242; in nanoseconds it still fits into 63 bits
MAX_COUNT = 2**53 - 1  # the largest whole number that JSON readers in every language keep exactly
MAX_CONCURRENCY = 10_000
MAX_FUNCTIONS = 1_000
MAX_SCHEMA_KEYS = 1_000  # at its top
MAX_ROLES = 5
MAX_VALUE_LEVELS = 256  # of lists and objects in a value, so that no reader's stack ends before it


def _plain(value: Any) -> Any:
    """`value`, if it is made of what JSON has: readers of a result must not meet anything else.

    NaN and infinities are let through: Python's JSON has them, and a diverged loss is a result.
    """
    level, inner = 0, [value]
    while inner:
        if level > MAX_VALUE_LEVELS:
            raise PydanticCustomError(
                "nested", "it is nested deeper than {most} levels", {"most": MAX_VALUE_LEVELS}
            )
        level, outer, inner = level + 1, inner, []
        for item in outer:
            kind = type(item)
            if kind is dict:
                if not all(type(key) is str for key in item):
                    raise PydanticCustomError("key", "it has a key that is no text")
                inner += item.values()
            elif kind is list:
                inner += item
            elif item is not None and kind not in _SCALARS:
                raise PydanticCustomError("value", "it holds what JSON has not")
    return value


_SCALARS = frozenset({str, int, float, bool})

Id = Annotated[str, Field(strict=True, pattern=r"\A[0-7][0-9A-HJKMNP-TV-Z]{25}\z")]  # a ULID
Name = Annotated[str, Field(strict=True, pattern=r"\A[A-Za-z0-9_-]{1,64}\z")]
# A ULID, or what derives from something.
WorkflowId = Annotated[str, Field(strict=True, pattern=r"\A([0-7][0-9A-HJKMNP-TV-Z]{25}|[a-z2-7]{32})\z")]
MemberName = Annotated[str, Field(strict=True, pattern=r"\A[a-z0-9][a-z0-9_-]{0,31}\z")]
Text = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_TEXT_CHARS)]
Reason = Annotated[str, Field(strict=True, max_length=MAX_REASON_CHARS)]
Digest = Annotated[str, Field(strict=True, pattern=r"\A[0-9a-f]{64}\z")]  # SHA-256
Key = Annotated[str, Field(strict=True, pattern=r"\A[A-Z2-7]{56}\z")]  # a public nkey; sound: codec
Int = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]
UnixSeconds = Annotated[int, Field(strict=True, ge=1, le=MAX_UNIX_S)]
Signature = Annotated[bytes, Field(strict=True, min_length=64, max_length=64)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=MAX_DELAY_S, allow_inf_nan=False)]
Lease = Annotated[float, Field(strict=True, ge=MIN_LEASE_S, le=MAX_LEASE_S, allow_inf_nan=False)]
Value = Annotated[Any, AfterValidator(_plain)]
Schema = Annotated[dict[str, Any], at_most(MAX_SCHEMA_KEYS), AfterValidator(_plain)]

CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


@dataclass(frozen=True, slots=True)
class Ref:
    """A value that is too large for an event: where the Object Store keeps it, and what it must hash to."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    sha256: Digest
    size_bytes: Annotated[int, Field(strict=True, ge=0, le=MAX_STORED_BYTES)]
    object: Annotated[str, Field(strict=True, pattern=r"\A[a-z0-9_-]{1,32}\.[A-Za-z0-9]{1,32}\z")]


@dataclass(frozen=True, slots=True)
class LogDigest:
    """What an attempt wrote to LOGS: how many messages, and the SHA-256 over their bytes in order."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    count: Int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a worker offers: its description and the JSON schema of its arguments."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG
    name: Text
    description: Annotated[str, Field(strict=True, max_length=MAX_DESCRIPTION_CHARS)] = ""
    schema: Schema | None = None
