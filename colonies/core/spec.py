"""What is asked for: the spec of a process, and the conditions that a worker must meet to take it.

People's input comes in here (`parse`, `parse_text`); how it is refused is in
`colonies.core.parsing`. The other way out is `wire`, the one plain form that the ledger holds. A spec is only
judged for its own sense: whether its colony, workers or dependencies exist is never asked here.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from math import ceil
from typing import Annotated, ClassVar, Final, Literal

import msgpack
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    PlainValidator,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from colonies.core import names, units
from colonies.core.parsing import ALIASES, MAX_SPEC_BYTES, json_value, parsed
from colonies.core.plain import MAX_DEPTH_LEVELS, MAX_PROBLEMS, at_most, copied, encodable, limited
from colonies.core.words import Words
from colonies.errors import Invalid

__all__ = [
    "ALIASES",
    "MAX_DEPTH_LEVELS",
    "MAX_ENV_VALUE_BYTES",
    "MAX_FUNC_BYTES",
    "MAX_PROBLEMS",
    "MAX_SPEC_BYTES",
    "Conditions",
    "Gpu",
    "Limit",
    "Spec",
    "queue_of",
]

MAX_FUNC_BYTES: Final = 65_536  # a script with its here-documents; what is longer belongs in a file
MAX_TEXT_CHARS: Final = 256
MAX_ENV_VALUE_BYTES: Final = 65_536
MAX_SECONDS: Final = 100 * 365 * 86_400
MAX_COUNT: Final = 1_000_000
MAX_UNIX_S: Final = 2**33  # in the year 2242
MAX_ENTRIES: Final = 1_000  # of workernames, labels and env
MAX_DEPENDENCIES: Final = 10_000
MAX_LIMITS: Final = 8  # of one process
MAX_RATE: Final = 100_000

_TEXT: Final = f"text of 1 to {MAX_TEXT_CHARS} printable characters, without white space at its ends"
_SECONDS: Final = f"seconds, a number up to {MAX_SECONDS}; 0, -1 or nothing: no limit"
COUNT: Final = f"a whole number from 1 to {MAX_COUNT}"
_CONDITIONS_EXAMPLE: Final = '{"runtimetype": "cli"}'
AT_ALLOWED: Final = (
    'a moment with its zone, such as "2027-01-31T09:00:00+01:00", or a number of seconds since 1970 (UTC)'
)
_EXAMPLE: Final = f'{{"func": "resize", "conditions": {_CONDITIONS_EXAMPLE}}}'
_MOMENT: Final = re.compile(
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
)
_ENV_NAME: Final = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")

# --- the fields -------------------------------------------------------------------------------------
# A validator only says no; what is allowed instead is the field's description, said in one place.


def _must(holds: Callable[[str], bool]) -> AfterValidator:
    def check(value: str) -> str:
        if not holds(value):
            raise PydanticCustomError("not_allowed", "not allowed")
        return value

    return AfterValidator(check)


def _short(most: int, unit: Literal["characters", "bytes"] = "characters") -> AfterValidator:
    def check(value: str) -> str:
        limited(len(value) if unit == "characters" else len(value.encode("utf-8", "replace")), most, unit)
        return value

    return AfterValidator(check)


def _holds(text: str) -> bool:
    """Whether a Unix program could be given this text."""
    return "\0" not in text and encodable(text)


def _bytes(value: object) -> int | None:
    """A size. 0 asks for nothing, so it is no condition."""
    if value is None:
        return None
    try:
        return units.size(value, where="") or None
    except Invalid as error:
        raise PydanticCustomError("said", "{text}", {"text": str(error)}) from None


def _limit(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number and value in (0, -1) else value


def _at(value: object) -> object:
    """A moment: seconds since 1970, or text with its zone, as in RFC 3339, which a refusal shows as it is."""
    if not isinstance(value, str):
        return value
    try:
        # Not all that the library reads: what is an event must not depend on its version.
        moment = datetime.fromisoformat(value) if _MOMENT.match(value) else None
    except ValueError:
        moment = None
    if moment is None or not 0 < moment.timestamp() <= MAX_UNIX_S:
        raise PydanticCustomError("not_allowed", "not allowed")
    return moment.timestamp()


def _cores(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}m", value):
        return int(value[:-1]) / 1_000
    return value


def _once(given: list[str]) -> list[str]:
    return list(dict.fromkeys(given))


def _args(value: object) -> list[JsonValue]:
    if not isinstance(value, list):
        raise PydanticCustomError("list_type", "not a list")
    found = copied(value)
    assert isinstance(found, list)
    return found


def _kwargs(value: object) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "not an object")
    found = copied(value)
    assert isinstance(found, dict)
    return found


Name = Annotated[str, _short(names.MAX_NAME_CHARS), _must(lambda text: bool(names.NAME.match(text)))]
Text = Annotated[
    str,
    Field(min_length=1),
    _short(MAX_TEXT_CHARS),
    _must(lambda text: names.is_line(text) and text == text.strip(names.SPACES)),
]
LabelValue = Annotated[str, _short(MAX_TEXT_CHARS), _must(names.is_line)]
EnvName = Annotated[str, _short(MAX_TEXT_CHARS), _must(lambda text: bool(_ENV_NAME.match(text)))]
EnvValue = Annotated[str, _short(MAX_ENV_VALUE_BYTES, "bytes"), _must(_holds)]
Func = Annotated[
    str, _short(MAX_FUNC_BYTES, "bytes"), _must(lambda text: bool(text.strip()) and _holds(text))
]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Seconds = Annotated[Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None, BeforeValidator(_limit)]
Size = Annotated[int | None, BeforeValidator(_bytes)]
Cores = Annotated[Annotated[float, Field(gt=0, le=MAX_COUNT)] | None, BeforeValidator(_cores)]
At = Annotated[Annotated[float, Field(gt=0, le=MAX_UNIX_S)] | None, BeforeValidator(_at)]
Args = Annotated[list[JsonValue], PlainValidator(_args)]
Kwargs = Annotated[dict[str, JsonValue], PlainValidator(_kwargs)]


class Gpu(Words):
    """The graphics processors that a process needs: how many, and optionally which and how large."""

    count: Count = Field(description=COUNT)
    name: Text | None = Field(default=None, description=_TEXT)
    mem: Size = Field(default=None, description=units.SIZES)


class Conditions(Words):
    """What a worker must be or have to take a process. What is not said does not matter."""

    EXAMPLE: ClassVar[str] = _CONDITIONS_EXAMPLE

    runtimetype: Name = Field(description=names.NAME_ALLOWED)
    workernames: Annotated[list[Name], at_most(MAX_ENTRIES), AfterValidator(_once)] = Field(
        default_factory=list, description=f"a list of at most {MAX_ENTRIES} names: each {names.NAME_ALLOWED}"
    )
    location: Text | None = Field(default=None, description=_TEXT)
    labels: Annotated[dict[Text, LabelValue], at_most(MAX_ENTRIES)] = Field(
        default_factory=dict,
        description=f"an object of at most {MAX_ENTRIES} labels: each a name and a value, {_TEXT}; "
        "a value may be empty",
    )
    cpu: Cores = Field(
        default=None,
        description=f'cores, a number above 0 and up to {MAX_COUNT}, or millicores such as "500m"',
    )
    mem: Size = Field(default=None, description=units.SIZES)
    storage: Size = Field(default=None, description=units.SIZES)
    gpu: Gpu | None = Field(
        default=None, description='an object such as {"count": 1, "name": "A100", "mem": "40GB"}'
    )
    nodes: Count = Field(default=1, description=COUNT)
    processes: Count = Field(default=1, description=COUNT)
    walltime: Seconds = Field(default=None, description=_SECONDS)
    dependencies: Annotated[list[Name], at_most(MAX_DEPENDENCIES), AfterValidator(_once)] = Field(
        default_factory=list,
        description=f"a list of at most {MAX_DEPENDENCIES} names: each {names.NAME_ALLOWED}",
    )

    @classmethod
    def parse(cls, data: object, *, where: str = "conditions") -> Conditions:
        """The conditions that `data` means, or `Invalid`. Reads what `wire` and `canonical` wrote."""
        return parsed(cls, data, where)

    def canonical(self) -> dict[str, object]:
        """What tells queues apart, equal for conditions that mean the same.

        Everything but the dependencies (they say when, not where), worker names sorted, sizes and walltime
        rounded up to their rung, so that queues stay few. A process needs what its queue says.
        """
        found = self.wire()
        found.pop("dependencies", None)
        if self.workernames:
            found["workernames"] = sorted(self.workernames)
        if self.cpu is not None:
            found["cpu"] = max(1, ceil(round(self.cpu * 1_000, 6))) / 1_000
        for field in ("mem", "storage"):
            if (size := getattr(self, field)) is not None:
                found[field] = units.rung(size)
        if self.walltime is not None:
            found["walltime"] = units.rung(ceil(self.walltime))
        if self.gpu is not None and self.gpu.mem is not None:
            found["gpu"] = {**self.gpu.wire(), "mem": units.rung(self.gpu.mem)}
        return {field: _sorted(found[field]) for field in sorted(found)}


class Limit(Words):
    """How many may hold a place under a key at once, or get one within a time. Who says the same key shares
    it, whatever else is asked for."""

    EXAMPLE: ClassVar[str] = '{"key": "customer-7", "running": 2}'

    key: Text | None = Field(default=None, description=_TEXT)
    by: Literal["func", "label"] | None = Field(default=None, description="func or label")
    running: Count | None = Field(default=None, description=COUNT)
    rate: Annotated[int, Field(ge=1, le=MAX_RATE)] | None = Field(
        default=None, description=f"a whole number from 1 to {MAX_RATE}"
    )
    per: Literal["second", "minute", "hour"] | None = Field(
        default=None, description="second, minute or hour"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Limit:
        if (self.key is None) == (self.by is None):
            raise _said('it needs a key; allowed: "key": "customer-7", or "by": "func", or "by": "label"')
        if (self.rate is None) != (self.per is None):
            raise _said('a rate is per some time; allowed: "rate": 10, "per": "minute"')
        if self.running is None and self.rate is None:
            raise _said('it limits nothing; allowed: "running": 2, or "rate": 10 with "per": "minute"')
        return self

    def key_for(self, func: str, label: str | None) -> str:
        """The key under which it counts. `by` stands for `func:` or `label:` and what the spec says there."""
        if self.key is not None:
            return self.key
        named = f"{self.by}:{func if self.by == 'func' else label}"
        if len(named) <= MAX_TEXT_CHARS:
            return named
        return f"{self.by}:sha256:{hashlib.sha256(named.encode()).hexdigest()}"


def _said(text: str) -> PydanticCustomError:
    return PydanticCustomError("said", "{text}", {"text": text})


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _apart(limits: list[Limit], info: ValidationInfo) -> list[Limit]:
    """Each of another key, which the spec has. `func` and `label` are read before."""
    func, label = info.data.get("func", ""), info.data.get("label")
    if label is None and any(limit.by == "label" for limit in limits):
        raise _said('by label: this spec has no label; allowed: with "label": "nightly", or a key instead')
    keys = [limit.key_for(func, label) for limit in limits]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise _said(f"the key {names.shown(twice)} stands twice; allowed: running and rate in one limit")
    return limits


class Spec(Words):
    """What was asked for: a function, its arguments, and the conditions under which it is run.

    `func` is a function's name or, for workers that run commands, a whole script.
    """

    EXAMPLE: ClassVar[str] = _EXAMPLE

    func: Func = Field(
        description=f"text of at most {MAX_FUNC_BYTES} bytes, without NUL, not only white space"
    )
    conditions: Conditions = Field(description=f"an object such as {_CONDITIONS_EXAMPLE}")
    args: Args = Field(default_factory=list, description="a list of JSON values")
    kwargs: Kwargs = Field(default_factory=dict, description="an object of JSON values")
    name: Name | None = Field(default=None, description=names.NAME_ALLOWED)
    label: Text | None = Field(default=None, description=_TEXT)
    priority: Annotated[int, Field(ge=-9, le=9)] = Field(default=0, description="a whole number from -9 to 9")
    maxwaittime: Seconds = Field(default=None, description=_SECONDS)
    maxexectime: Seconds = Field(default=None, description=_SECONDS)
    delay: Seconds = Field(default=None, description=_SECONDS)
    at: At = Field(default=None, description=AT_ALLOWED)
    maxretries: Annotated[int, Field(ge=-1, le=MAX_COUNT)] = Field(
        default=0, description=f"a whole number from 0 to {MAX_COUNT}; -1: no limit"
    )
    env: Annotated[dict[EnvName, EnvValue], at_most(MAX_ENTRIES)] = Field(
        default_factory=dict,
        description=f"an object of at most {MAX_ENTRIES} variables: names of A-Z, a-z, 0-9 and _, not "
        f"beginning with a digit; values that are text without NUL, of at most {MAX_ENV_VALUE_BYTES} bytes",
    )
    colony: Name | None = Field(default=None, description=names.NAME_ALLOWED)
    limits: Annotated[list[Limit], at_most(MAX_LIMITS), BeforeValidator(_listed), AfterValidator(_apart)] = (
        Field(
            default_factory=list,
            description=f"an object such as {Limit.EXAMPLE}, or a list of at most {MAX_LIMITS}",
        )
    )

    @classmethod
    def parse(cls, data: object, *, where: str = "spec") -> Spec:
        """The spec that `data`, an object of plain values, means. `where` opens each line of the `Invalid`.

        Aliases are read, null is read as absent, and `data` is copied: later changes to it do not matter.
        """
        return parsed(cls, data, where)

    @classmethod
    def parse_text(cls, text: str | bytes, where: str = "spec") -> Spec:
        """The spec that a JSON text (bytes: UTF-8) means, or `Invalid`."""
        return cls.parse(json_value(text, where, cls.EXAMPLE), where=where)


# --- queues -----------------------------------------------------------------------------------------


_PLAIN = {"runtimetype"}


def queue_of(conditions: Conditions, priority: int) -> str:
    """The name of the queue in which processes of these conditions and this priority wait: 26 of a-z, 2-7."""
    if conditions.model_fields_set == _PLAIN:
        return _plain_queue(conditions.runtimetype, priority)
    return _digest(conditions, priority)


@lru_cache(maxsize=1_024)
def _plain_queue(runtimetype: str, priority: int) -> str:
    """Most processes ask for a runtime type and nothing else."""
    return _digest(Conditions(runtimetype=runtimetype), priority)


def _digest(conditions: Conditions, priority: int) -> str:
    told_apart = msgpack.packb([conditions.canonical(), priority])
    return base64.b32encode(hashlib.sha256(told_apart).digest()[:16]).decode().rstrip("=").lower()


def _sorted(value: object) -> object:
    return {key: value[key] for key in sorted(value)} if isinstance(value, dict) else value
