"""What is asked for: the spec of a process, and the conditions that a worker must meet to take it.

People's input comes in here (`parse`, `parse_text`, `read_file`), and whatever is wrong with it is said in
one `Invalid`: a line for each problem, with the field's path, the value given and what is allowed. The other
way out is `wire`, the one plain form that the ledger holds. A spec is only judged for its own sense: whether
its colony, workers or dependencies exist is never asked here. `read_file` is the one exception to the rule
that the core does no I/O: it opens the file it is given, and hands its bytes to `parse_text`.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from math import isfinite
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgpack
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from colonies.core import names, units
from colonies.core.names import kind, shown
from colonies.errors import Invalid

MAX_SPEC_BYTES: Final = 1_048_576  # of a spec file; larger arguments are given as files or by code
MAX_DEPTH_LEVELS: Final = 64  # of lists and objects in args and kwargs, each of these counted as the first
MAX_VALUES: Final = 1_000_000  # in args and kwargs, each; also ends the walk through a self-containing list
MAX_TEXT_CHARS: Final = 256
MAX_ENV_VALUE_BYTES: Final = 65_536
MAX_SECONDS: Final = 100 * 365 * 86_400
MAX_COUNT: Final = 1_000_000
MAX_ENTRIES: Final = 1_000  # of workernames, labels and env
MAX_DEPENDENCIES: Final = 10_000
MAX_PROBLEMS: Final = 10  # lines in one refusal

# The words of the seed's successors, read where the field they mean stands. Runtimes and executors are
# workers here, and their ids were what their names are now.
ALIASES: Final[dict[str, str]] = {
    "funcname": "func",
    "nodename": "name",
    "colonyname": "colony",
    "colonyid": "colony",
    "executortype": "runtimetype",
    "executornames": "workernames",
    "runtimeids": "workernames",
    "locationname": "location",
}
_COLONY_IN_CONDITIONS: Final = ("colonyname", "colonyid")  # they wrote it there; here it is the spec's

_TEXT: Final = f"text of 1 to {MAX_TEXT_CHARS} printable characters, without white space at its ends"
_SECONDS: Final = f"seconds, a number up to {MAX_SECONDS}; 0, -1 or nothing: no limit"
_COUNT: Final = f"a whole number from 1 to {MAX_COUNT}"
_MISSING: Final = {
    "func": 'missing; it names the function to run, such as "func": "resize"',
    "conditions": 'missing; it says which workers may run it, such as "conditions": {"runtimetype": "cli"}',
    "runtimetype": 'missing; it says which kind of worker may run it, such as "runtimetype": "cli"',
    "count": 'missing; it says how many are needed, such as "count": 1',
}
_CONDITIONS_EXAMPLE: Final = '{"runtimetype": "cli"}'
_EXAMPLE: Final = f'{{"func": "resize", "conditions": {_CONDITIONS_EXAMPLE}}}'
_ENV_NAME: Final = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")

# --- the fields -------------------------------------------------------------------------------------
# A validator only says no; what is allowed instead is the field's description, said in one place.


def _must(holds: Callable[[str], bool]) -> AfterValidator:
    def check(value: str) -> str:
        if not holds(value):
            raise PydanticCustomError("not_allowed", "not allowed")
        return value

    return AfterValidator(check)


def _encodable(text: str) -> bool:
    """False for text with half a surrogate pair, which JSON can write and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


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


def _cores(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}m", value):
        return int(value[:-1]) / 1_000
    return value


def _once(given: list[str]) -> list[str]:
    return list(dict.fromkeys(given))


def _args(value: object) -> list[JsonValue]:
    if not isinstance(value, list):
        raise PydanticCustomError("list_type", "not a list")
    copied = _copied(value)
    assert isinstance(copied, list)
    return copied


def _kwargs(value: object) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "not an object")
    copied = _copied(value)
    assert isinstance(copied, dict)
    return copied


Name = Annotated[str, _must(lambda text: bool(names.NAME.match(text)))]
Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TEXT_CHARS),
    _must(lambda text: text.isprintable() and text == text.strip()),
]
LabelValue = Annotated[str, Field(max_length=MAX_TEXT_CHARS), _must(str.isprintable)]
EnvName = Annotated[str, Field(max_length=MAX_TEXT_CHARS), _must(lambda text: bool(_ENV_NAME.match(text)))]
EnvValue = Annotated[
    str,
    _must(lambda text: "\0" not in text and _encodable(text) and len(text.encode()) <= MAX_ENV_VALUE_BYTES),
]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Seconds = Annotated[Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None, BeforeValidator(_limit)]
Size = Annotated[int | None, BeforeValidator(_bytes)]
Cores = Annotated[Annotated[float, Field(gt=0, le=MAX_COUNT)] | None, BeforeValidator(_cores)]
Args = Annotated[list[JsonValue], PlainValidator(_args)]
Kwargs = Annotated[dict[str, JsonValue], PlainValidator(_kwargs)]


class _Words(BaseModel):
    """A strict, frozen object of named fields whose plain form holds only what differs from the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def wire(self) -> dict[str, object]:
        """The plain form for the ledger: canonical words, sizes in bytes, times in seconds; no defaults."""
        return self.model_dump()

    @model_serializer(mode="wrap")
    def _plain(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        defaults = _defaults(type(self))
        dumped: dict[str, object] = dump(self)
        return {
            # 60 and 60.0 are the same time, so they are written, and digested, the same way.
            field: int(value) if isinstance(value, float) and value.is_integer() else value
            for field, value in dumped.items()
            if getattr(self, field) != defaults[field]
        }


@cache
def _defaults(model: type[_Words]) -> dict[str, object]:
    return {
        field: info.get_default(call_default_factory=True, validated_data={})
        for field, info in model.model_fields.items()
    }


class _PathLike(Protocol):
    """`os.PathLike[str]`, without `os`: the core imports nothing that reaches the world."""

    def __fspath__(self) -> str: ...


class Gpu(_Words):
    """The graphics processors that a process needs: how many, and optionally which and how large."""

    count: Count = Field(description=_COUNT)
    name: Text | None = Field(default=None, description=_TEXT)
    mem: Size = Field(default=None, description=units.SIZES)


class Conditions(_Words):
    """What a worker must be or have to take a process. What is not said does not matter."""

    runtimetype: Name = Field(description=names.NAME_ALLOWED)
    workernames: Annotated[list[Name], Field(max_length=MAX_ENTRIES), AfterValidator(_once)] = Field(
        default_factory=list, description=f"a list of at most {MAX_ENTRIES} names: each {names.NAME_ALLOWED}"
    )
    location: Text | None = Field(default=None, description=_TEXT)
    labels: Annotated[dict[Text, LabelValue], Field(max_length=MAX_ENTRIES)] = Field(
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
    nodes: Count = Field(default=1, description=_COUNT)
    processes: Count = Field(default=1, description=_COUNT)
    walltime: Seconds = Field(default=None, description=_SECONDS)
    dependencies: Annotated[list[Name], Field(max_length=MAX_DEPENDENCIES), AfterValidator(_once)] = Field(
        default_factory=list,
        description=f"a list of at most {MAX_DEPENDENCIES} names: each {names.NAME_ALLOWED}",
    )

    @classmethod
    def parse(cls, data: object, *, where: str = "conditions") -> Conditions:
        """The conditions that `data` means, or `Invalid`. Reads what `wire` and `canonical` wrote."""
        return _parsed(cls, data, where)

    def canonical(self) -> dict[str, object]:
        """What tells queues apart, equal for conditions that mean the same.

        Everything but the dependencies (they say when, not where), worker names sorted, sizes rounded up to
        their rung, so that queues stay few. What a worker must really have is in the spec.
        """
        found = self.wire()
        found.pop("dependencies", None)
        if self.workernames:
            found["workernames"] = sorted(self.workernames)
        for field in ("mem", "storage"):
            if (size := getattr(self, field)) is not None:
                found[field] = units.rung(size)
        if self.gpu is not None and self.gpu.mem is not None:
            found["gpu"] = {**self.gpu.wire(), "mem": units.rung(self.gpu.mem)}
        return {field: _sorted(found[field]) for field in sorted(found)}


class Spec(_Words):
    """What was asked for: a function, its arguments, and the conditions under which it is run."""

    func: Text = Field(description=_TEXT)
    conditions: Conditions = Field(description=f"an object such as {_CONDITIONS_EXAMPLE}")
    args: Args = Field(default_factory=list, description="a list of JSON values")
    kwargs: Kwargs = Field(default_factory=dict, description="an object of JSON values")
    name: Name | None = Field(default=None, description=names.NAME_ALLOWED)
    label: Text | None = Field(default=None, description=_TEXT)
    priority: Annotated[int, Field(ge=-9, le=9)] = Field(default=0, description="a whole number from -9 to 9")
    maxwaittime: Seconds = Field(default=None, description=_SECONDS)
    maxexectime: Seconds = Field(default=None, description=_SECONDS)
    maxretries: Annotated[int, Field(ge=-1, le=MAX_COUNT)] = Field(
        default=0, description=f"a whole number from 0 to {MAX_COUNT}; -1: no limit"
    )
    env: Annotated[dict[EnvName, EnvValue], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict,
        description=f"an object of at most {MAX_ENTRIES} variables: names of A-Z, a-z, 0-9 and _, not "
        f"beginning with a digit; values that are text without NUL, of at most {MAX_ENV_VALUE_BYTES} bytes",
    )
    colony: Name | None = Field(default=None, description=names.NAME_ALLOWED)

    @classmethod
    def parse(cls, data: object, *, where: str = "spec") -> Spec:
        """The spec that `data`, an object of plain values, means. `where` opens each line of the `Invalid`.

        Aliases are read, null is read as absent, and `data` is copied: later changes to it do not matter.
        """
        return _parsed(cls, data, where)

    @classmethod
    def parse_text(cls, text: str | bytes, where: str = "spec") -> Spec:
        """The spec that a JSON text (bytes: UTF-8) means, or `Invalid`."""
        return cls.parse(_json(text, where), where=where)

    @classmethod
    def read_file(cls, path: str | _PathLike) -> Spec:
        """The spec in a JSON file of at most `MAX_SPEC_BYTES`, or `Invalid`, naming the path."""
        where = path if isinstance(path, str) else path.__fspath__()
        where = where if where.isprintable() else shown(where)
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_SPEC_BYTES + 1)
                size_bytes = file.seek(0, 2) if file.seekable() else 0
        except (OSError, ValueError) as error:
            raise Invalid(f"{where}: {_why_unreadable(error)}") from None
        if len(text) > MAX_SPEC_BYTES:
            has = str(size_bytes) if size_bytes >= len(text) else f"more than {MAX_SPEC_BYTES}"
            raise Invalid(
                f"{where}: the file has {has} bytes; allowed: at most {MAX_SPEC_BYTES} "
                "(put large values into files of their own)"
            )
        return cls.parse_text(text, where)


# --- queues -----------------------------------------------------------------------------------------


def queue_of(conditions: Conditions, priority: int) -> str:
    """The name of the queue in which processes of these conditions and this priority wait: 26 of a-z, 2-7."""
    told_apart = msgpack.packb([conditions.canonical(), priority])
    return base64.b32encode(hashlib.sha256(told_apart).digest()[:16]).decode().rstrip("=").lower()


def serves(conditions: Conditions, *, name: str, runtimetype: str) -> bool:
    """Whether the worker `name` meets the conditions.

    A worker cannot yet say where it is or what it has, so it does not take what asks for that. `walltime`
    limits the run and not the worker; one node and one process is what every worker is.
    """
    shown_by_worker = {"runtimetype", "workernames", "walltime"}
    return (
        conditions.runtimetype == runtimetype
        and (not conditions.workernames or name in conditions.workernames)
        and conditions.canonical().keys() <= shown_by_worker
    )


def _sorted(value: object) -> object:
    return {key: value[key] for key in sorted(value)} if isinstance(value, dict) else value


# --- reading ----------------------------------------------------------------------------------------

_Model = TypeVar("_Model", bound=_Words)
_Loc = tuple[int | str, ...]


def _parsed(model: type[_Model], data: object, where: str) -> _Model:
    if not isinstance(data, dict):
        wanted = "one object is wanted here" if isinstance(data, list) else "an object is wanted"
        example = _EXAMPLE if model is Spec else _CONDITIONS_EXAMPLE
        raise Invalid(f"{where}: {shown(data)} is {kind(data)}; {wanted}, such as {example}")
    words = _Renaming()
    renamed = words.of_spec(data) if model is Spec else words.of(data, model, ())
    problems = words.problems
    found: _Model | None = None
    try:
        found = model.model_validate(renamed)
    except ValidationError as error:
        details = error.errors(include_url=False)
        for detail in details[: MAX_PROBLEMS + 1]:
            problems += _problems(model, detail, words.given)
        problems += [""] * len(details[MAX_PROBLEMS + 1 :])
    if found is None or problems:
        if len(problems) > MAX_PROBLEMS:
            said = MAX_PROBLEMS - 1
            problems = [*problems[:said], f"and {len(problems) - said} more problems"]
        raise Invalid("\n".join(f"{where}: {problem}" for problem in problems))
    return found


class _Renaming:
    """Puts our words in the place of their aliases, and remembers what was given, to name it in refusals."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.given: dict[_Loc, str] = {}

    def of_spec(self, data: dict[Any, Any]) -> dict[Any, Any]:
        spec = self.of(data, Spec, ())
        conditions = spec.get("conditions")
        if isinstance(conditions, dict):
            conditions = dict(conditions)
            for word in _COLONY_IN_CONDITIONS:
                if (colony := conditions.pop(word, None)) is not None:
                    self._put(spec, ("colony",), colony, f"{self.given[('conditions',)]}.{word}")
            spec["conditions"] = self.of(conditions, Conditions, ("conditions",))
        return spec

    def of(self, data: dict[Any, Any], model: type[_Words], at: tuple[str, ...]) -> dict[Any, Any]:
        renamed: dict[Any, Any] = {}
        for key, value in data.items():
            word = ALIASES.get(key, key) if isinstance(key, str) else key
            if word not in model.model_fields:
                renamed[key] = value
            elif value is not None:
                self._put(renamed, (*at, word), value, ".".join((*at, key)))
        return renamed

    def _put(self, into: dict[Any, Any], loc: tuple[str, ...], value: object, given: str) -> None:
        if loc in self.given:
            both = f"{self.given[loc]} and {given}"
            self.problems.append(f"{both} say the same thing; allowed: one of them, best {'.'.join(loc)}")
        else:
            into[loc[-1]] = value
            self.given[loc] = given


def _problems(model: type[_Words], error: ErrorDetails, given: dict[_Loc, str]) -> list[str]:
    """What one of pydantic's errors says, in our words. Mostly one line."""
    loc, value, type_ = error["loc"], error["input"], error["type"]
    path = _path(loc, given)
    at = f"{path}: " if path else ""
    if type_ == "said":
        return [f"{at}{error['ctx']['text']}"]
    if type_ == "values":
        return [f"{_shortened(path + below)}: {text}" for below, text in error["ctx"]["problems"]]
    if type_ == "missing":
        return [f"{at}{_MISSING.get(str(loc[-1]), 'missing')}"]
    if type_ == "extra_forbidden":
        return [f"{at}unknown field; {_hint(model, loc)}"]
    wrong = f", {kind(value)}," if type_.endswith("_type") else ""
    return [f"{at}{shown(value)}{wrong} is not allowed; allowed: {_allowed(model, loc)}"]


def _path(loc: _Loc, given: dict[_Loc, str]) -> str:
    path = ""
    for end, part in enumerate(loc, start=1):
        if part != "[key]":  # pydantic's mark for "the key itself is wrong"
            path = given.get(loc[:end]) or path + _step(part, first=not path)
    return _shortened(path)


def _step(part: int | str, *, first: bool = False) -> str:
    if isinstance(part, str) and names.NAME.match(part):
        return part if first else f".{part}"
    return shown(part) if first else f"[{shown(part)}]"


def _shortened(path: str) -> str:
    return path if len(path) <= 100 else f"{path[:60]}...{path[-30:]}"


def _described(model: type[_Words], loc: _Loc) -> tuple[type[_Words], str]:
    """The innermost model that `loc` leads into, and what is allowed at `loc`."""
    inner: dict[str, type[_Words]] = {"conditions": Conditions, "gpu": Gpu}
    allowed = "an object whose keys are text"
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None:
            break
        allowed = field.description or allowed
        if part not in inner:
            break
        model = inner[str(part)]
    return model, allowed


def _allowed(model: type[_Words], loc: _Loc) -> str:
    return _described(model, loc)[1]


def _hint(model: type[_Words], loc: _Loc) -> str:
    holder, _ = _described(model, loc)
    unknown = str(loc[-1])[:MAX_TEXT_CHARS].lower()
    word = ALIASES.get(unknown, unknown)
    allowed = sorted(holder.model_fields)
    if holder is Spec and word in Conditions.model_fields:
        hint = f"it belongs in conditions, as conditions.{word}; "
    elif holder is Conditions and model is Spec and word in Spec.model_fields:
        hint = f"it belongs outside conditions, as {word}; "
    else:
        near = get_close_matches(unknown, [*allowed, *_aliases_of(holder)], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}allowed: {', '.join(allowed)}"


def _aliases_of(model: type[_Words]) -> Iterable[str]:
    return (alias for alias, word in ALIASES.items() if word in model.model_fields and model is not Gpu)


# --- values -----------------------------------------------------------------------------------------


def _copied(value: object) -> JsonValue:
    """A plain copy of a JSON value, or an error that lists what in it is none, by path."""
    copying = _Copying()
    copied = copying.copy(value, (), 1)
    if copying.problems:
        raise PydanticCustomError("values", "not JSON values", {"problems": copying.problems})
    return copied


class _Copying:
    """One walk through a value. A place is a pair of the place around it and the step from there."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []
        self.values = 0

    def copy(self, value: object, place: tuple[Any, ...], depth: int) -> JsonValue:
        self.values += 1
        problem = self._problem(value, depth)
        if problem:
            self._refuse(place, problem)
            return None
        match value:
            case str():
                return str.__str__(value)
            case None | bool():
                return value
            case int():
                return int(value)
            case float():
                return float(value)
            case list():
                each = enumerate(value)
                return [self.copy(item, (place, at), depth + 1) for at, item in each if self._goes_on()]
            case dict():
                return {
                    str.__str__(key): self.copy(item, (place, key), depth + 1)
                    for key, item in value.items()
                    if self._goes_on() and self._is_key(key, place)
                }
        self._refuse(place, f"{shown(value)}, {kind(value)}, is not allowed; allowed: {_JSON}")
        return None

    def _problem(self, value: object, depth: int) -> str | None:
        if self.values > MAX_VALUES:
            return f"too many values; allowed: at most {MAX_VALUES}"
        match value:
            case str() if not _encodable(value):
                return _half(value)
            case int() if not -(2**63) <= value < 2**63:
                return f"{shown(value)} is too large; allowed: whole numbers of 64 bits, signed"
            case float() if not isfinite(value):
                return f"{value} is not allowed; allowed: finite numbers"
            case list() | dict() if depth > MAX_DEPTH_LEVELS:
                return f"nested too deeply; allowed: at most {MAX_DEPTH_LEVELS} levels"
        return None

    def _goes_on(self) -> bool:
        return len(self.problems) < MAX_PROBLEMS and self.values <= MAX_VALUES

    def _is_key(self, key: object, place: tuple[Any, ...]) -> bool:
        if not isinstance(key, str):
            self._refuse(place, f"the key {shown(key)} is {kind(key)}; allowed: strings")
        elif not _encodable(key):
            self._refuse(place, _half(key))
        else:
            return True
        return False

    def _refuse(self, place: tuple[Any, ...], problem: str) -> None:
        path = ""
        while place:
            place, step = place
            path = _step(step) + path
        self.problems.append((path, problem))


_JSON: Final = "null, true, false, numbers, strings, lists, objects"


def _half(text: str) -> str:
    return f"{shown(text)} holds half a surrogate pair; allowed: text that UTF-8 can hold"


# --- text and files ---------------------------------------------------------------------------------


def _json(text: str | bytes, where: str) -> object:
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            bad = f"byte {error.start} is 0x{text[error.start]:02x}"
            raise Invalid(f"{where}: not UTF-8: {bad} ({error.reason}); allowed: JSON in UTF-8") from None
    text = text.removeprefix("\ufeff")  # the mark that some editors put before the text
    if not text.strip():
        raise Invalid(f"{where}: empty; allowed: one object, such as {_EXAMPLE}")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise Invalid(f"{where}: the key {shown(twice)} is given twice in one object; allowed: once")
        return found

    def whole(digits: str) -> int:
        return int(digits[:100])  # longer ones are out of every range anyway, and slow to convert

    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=whole)
    except json.JSONDecodeError as error:
        raise Invalid(f"{where}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise Invalid(f"{where}: nested too deeply; allowed: at most {MAX_DEPTH_LEVELS} levels") from None


def _why_unreadable(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return "this cannot be a path; allowed: the path of a JSON file"
    match error.errno:
        case errno.ENOENT:
            return "there is no such file; allowed: the path of a JSON file"
        case errno.EISDIR:
            return "this is a directory; allowed: the path of a JSON file"
    return f"the file cannot be read: {error.strerror}"
