"""People's input on its way into a model, and what is said when it makes no sense.

Whatever is wrong is said in one `Invalid`: a line for each problem, with the field's path as it was given,
the value and what is allowed. Values of `env` are never shown: they may be secrets, and refusals end up in
logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from colonies.core.names import kind, shown
from colonies.core.plain import MAX_DEPTH_LEVELS, MAX_PROBLEMS, step
from colonies.core.words import Words, inner
from colonies.errors import Invalid

MAX_SPEC_BYTES: Final = 1_048_576  # of a spec file; larger arguments are given as files or by code
MAX_WORD_CHARS: Final = 256  # of an unknown field, when we look for the one that was meant

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
_MISSING: Final = {
    "func": 'missing; it names the function to run, such as "func": "resize"',
    "conditions": 'missing; it says which workers may run it, such as "conditions": {"runtimetype": "cli"}',
    "runtimetype": 'missing; it says which kind of worker may run it, such as "runtimetype": "cli"',
    "count": 'missing; it says how many are needed, such as "count": 1',
}
_SECRET: Final = "env"

Model = TypeVar("Model", bound=Words)
_Loc = tuple[int | str, ...]


def parsed(model: type[Model], data: object, where: str, *, beside: Iterable[str] = ()) -> Model:
    """`beside` are words that may stand there too and are read elsewhere: unknown words are held against
    these as well."""
    if not isinstance(data, dict):
        wanted = "one object is wanted here" if isinstance(data, list) else "an object is wanted"
        raise Invalid(f"{where}: {shown(data)} is {kind(data)}; {wanted}, such as {model.EXAMPLE}")
    words = _Renaming()
    renamed = words.of_all(data, model)
    problems = words.problems
    found: Model | None = None
    try:
        found = model.model_validate(renamed)
    except ValidationError as error:
        details = error.errors(include_url=False)
        for detail in details[: MAX_PROBLEMS + 1]:
            problems += _problems(model, detail, words.given, beside)
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

    def of_all(self, data: dict[Any, Any], model: type[Words]) -> dict[Any, Any]:
        renamed = self.of(data, model, ())
        conditions = inner(model).get("conditions")
        given = renamed.get("conditions")
        if conditions is not None and isinstance(given, dict):
            given = dict(given)
            for word in _COLONY_IN_CONDITIONS:
                if (colony := given.pop(word, None)) is not None:
                    self._put(renamed, ("colony",), colony, f"{self.given[('conditions',)]}.{word}")
            renamed["conditions"] = self.of(given, conditions, ("conditions",))
        return renamed

    def of(self, data: dict[Any, Any], model: type[Words], at: tuple[str, ...]) -> dict[Any, Any]:
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


def _problems(
    model: type[Words], error: ErrorDetails, given: dict[_Loc, str], beside: Iterable[str]
) -> list[str]:
    """What one of pydantic's errors says, in our words. Mostly one line."""
    loc, value, type_ = error["loc"], error["input"], error["type"]
    path = _path(loc, given)
    at = f"{path}: " if path else ""
    if type_ == "said":
        return [f"{at}{error['ctx']['text']}"]
    if type_ == "limit":
        return [f"{at}{error['ctx']['given']} {error['ctx']['unit']}; allowed: {_allowed(model, loc)}"]
    if type_ == "values":
        return [f"{_shortened(path + below)}: {text}" for below, text in error["ctx"]["problems"]]
    if type_ == "missing":
        return [f"{at}{_MISSING.get(str(loc[-1]), 'missing')}"]
    if type_ == "extra_forbidden":
        return [f"{at}unknown field; {_hint(model, loc, beside if len(loc) == 1 else ())}"]
    if loc[:1] == (_SECRET,):
        return [f"{at}not allowed; allowed: {_allowed(model, loc)}"]
    wrong = f", {kind(value)}," if type_.endswith("_type") else ""
    return [f"{at}{shown(value)}{wrong} is not allowed; allowed: {_allowed(model, loc)}"]


def _path(loc: _Loc, given: dict[_Loc, str]) -> str:
    path = ""
    for end, part in enumerate(loc, start=1):
        if part != "[key]":  # pydantic's mark for "the key itself is wrong"
            if loc[:1] == (_SECRET,) and isinstance(part, str):
                part = part.partition("=")[0]  # NAME=value in the place of the name
            path = given.get(loc[:end]) or path + step(part, first=not path)
    return _shortened(path)


def _shortened(path: str) -> str:
    return path if len(path) <= 100 else f"{path[:60]}...{path[-30:]}"


def _described(model: type[Words], loc: _Loc) -> tuple[type[Words], str]:
    """The innermost model that `loc` leads into, and what is allowed at `loc`."""
    allowed = "an object whose keys are text"
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None:
            break
        allowed = field.description or allowed
        if part not in inner(model):
            break
        model = inner(model)[str(part)]
    return model, allowed


def _allowed(model: type[Words], loc: _Loc) -> str:
    return _described(model, loc)[1]


def _hint(model: type[Words], loc: _Loc, beside: Iterable[str]) -> str:
    holder, _ = _described(model, loc)
    unknown = str(loc[-1])[:MAX_WORD_CHARS].lower()
    word = ALIASES.get(unknown, unknown)
    allowed = sorted({*holder.model_fields, *beside})
    within = [field for field, part in inner(holder).items() if word in part.model_fields]
    if within:
        hint = f"it belongs in {within[0]}, as {within[0]}.{word}; "
    elif holder is inner(model).get("conditions") and word in model.model_fields:
        hint = f"it belongs outside conditions, as {word}; "
    else:
        near = get_close_matches(unknown, [*allowed, *_aliases_of(holder)], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}allowed: {', '.join(allowed)}"


def _aliases_of(model: type[Words]) -> Iterable[str]:
    return (alias for alias, word in ALIASES.items() if word in model.model_fields)


# --- text ------------------------------------------------------------------------------------------


def decoded(text: str | bytes, where: str, form: str) -> str:
    """The text, if it is UTF-8, without the mark that some editors put before it."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            bad = f"byte {error.start} is 0x{text[error.start]:02x}"
            raise Invalid(f"{where}: not UTF-8: {bad} ({error.reason}); allowed: {form} in UTF-8") from None
    return text.removeprefix("\ufeff")


def nothing(where: str, example: str) -> str:
    """What is said of an empty text."""
    return (
        f"{where}: empty; allowed: {'a list' if example.startswith('[') else 'one object'}, such as {example}"
    )


def json_value(text: str | bytes, where: str, example: str) -> object:
    text = decoded(text, where, "JSON")
    if not text.strip():
        raise Invalid(nothing(where, example))

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
