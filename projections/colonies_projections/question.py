"""Questions as they come over the wire, and the cursors in them: what is wrong is said, and what is right.

{"state": "failed", "limit": 10, "sort": "-submitted", "cursor": "...", "at": 1234, "at_least": 1234}
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from colonies.core.names import kind, shown
from colonies.errors import Invalid
from colonies.ledger import Ledger
from colonies.past import is_age, when
from colonies.show import rfc3339
from colonies_projections.view import DEFAULT_LIMIT, MAX_LIMIT, Asked, Asking, Filter

MAX_QUESTION_BYTES = 16 * 1024
MAX_CURSOR_BYTES = 4_096
MAX_SEQUENCE = 2**63 - 1

_COMMON = ("sort", "limit", "cursor", "at", "at_least")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of which sequence (`at`; None: now), and how far the views must be at least."""

    asked: Asked
    at: int | None
    at_least: int
    about: list[Any]


def read_question(view: Asking, data: bytes) -> Question:
    """The question in a request. Raises Invalid, naming what is allowed."""
    said = read_object(data)
    common = {name: said.pop(name, None) for name in _COMMON}
    filters: dict[str, Any] = {}
    plain: dict[str, str] = {}
    for name, value in said.items():
        if name not in view.filters:
            allowed = ", ".join((*view.filters, *_COMMON))
            raise Invalid(f"{shown(name)} is no filter; allowed: {allowed}")
        if value is not None:
            filters[name], plain[name] = _filter(name, value, view.filters[name]), value
    sort, down = _sort(common["sort"], view.sorts)
    about = [view.name, plain, sort, down]
    asked = Asked(
        filters,
        whole(common["limit"], "limit", 1, MAX_LIMIT) or DEFAULT_LIMIT,
        sort,
        down,
        None if common["cursor"] is None else _after(common["cursor"], about),
    )
    at = whole(common["at"], "at", 1, MAX_SEQUENCE)
    return Question(asked, at, whole(common["at_least"], "at_least", 0, MAX_SEQUENCE) or 0, about)


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object of a request; an empty one may be left out. Raises Invalid."""
    if len(data) > MAX_QUESTION_BYTES:
        raise Invalid(f"the question has {len(data)} bytes; at most {MAX_QUESTION_BYTES} are allowed")
    try:
        said = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        raise Invalid('the question is not JSON; allowed: an object such as {"limit": 10}') from None
    if not isinstance(said, dict):
        raise Invalid(f'the question is {kind(said)}; allowed: an object such as {{"limit": 10}}')
    return said


def whole(value: object, name: str, least: int, most: int) -> int | None:
    """A whole number in its bounds, or None if it is not said. Raises Invalid."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid(f"{name}: {shown(value)}; allowed: a whole number from {least} to {most}")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{name}: {shown(value)} is {kind(value)}; allowed: a string")
    if _is_half(value):
        raise Invalid(f"{name}: {shown(value)} holds half a character; allowed: text that UTF-8 can write")
    return value


def _filter(name: str, value: object, filter: Filter) -> Any:
    text = _text(name, value)
    words = dict.fromkeys(text.split(",")) if filter.several else {}
    if len(words) > 1:
        return tuple(_read(name, word, filter) for word in words)
    return _read(name, next(iter(words), text), filter)


def _read(name: str, text: str, filter: Filter) -> Any:
    if filter.allowed is not None and text not in filter.allowed:
        raise Invalid(f"{name}: {shown(text)} is not one; allowed: {', '.join(filter.allowed)}")
    try:
        return filter.read(text)
    except ValueError as error:
        raise Invalid(f"{name}: {shown(text)}; allowed: {error}") from None


def _sort(value: object, sorts: Sequence[str]) -> tuple[str, bool]:
    if value is None:
        return (sorts[0].removeprefix("-"), sorts[0].startswith("-")) if sorts else ("", True)
    text = _text("sort", value)
    names = [name.removeprefix("-") for name in sorts]
    if text.removeprefix("-") not in names:
        allowed = f"{', '.join(names)}; - before it for the largest first" if names else "this list has none"
        raise Invalid(f"sort: {shown(text)} is not one; allowed: {allowed}")
    return text.removeprefix("-"), text.startswith("-")


# --- cursors ----------------------------------------------------------------------------------------


def cursor(about: list[Any], key: Sequence[Any]) -> str:
    """Where to go on with this question."""
    packed = json.dumps([about, list(key)], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


async def as_time(ledger: Ledger, name: str, text: str, where: str, cursor: str | None = None) -> str:
    """A filter that is a time, an age or a sequence, as the time that views take.

    An age counts back from the first page: on those behind a `cursor` it is the time that is in there.

    Raises Invalid, Unavailable.
    """
    time = rfc3339(await when(ledger, text, where))
    if cursor is None or not is_age(text):
        return time
    match _opened(cursor)[0]:
        case [_, {**filters}, *_] if isinstance(first := filters.get(name), str) and first <= time:
            return first
    return time


def _after(value: object, about: list[Any]) -> Sequence[Any]:
    its, key = _opened(_text("cursor", value))
    if its != about:
        raise Invalid("cursor: it is of another question; allowed: the same filters and sort as before")
    return key


def _opened(text: str) -> tuple[list[Any], Sequence[Any]]:
    """What a cursor is about, and the key that it goes on behind. Raises Invalid."""
    if len(text) > MAX_CURSOR_BYTES:
        raise Invalid(f"cursor: it has {len(text)} characters; at most {MAX_CURSOR_BYTES} are allowed")
    try:
        said = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise Invalid("cursor: it is none of ours; allowed: the one of the answer before") from None
    match said:
        case [list() as its, [*key]] if len(key) == 2 and _keyable(key):
            return its, key
    raise Invalid("cursor: it is none of ours; allowed: the one of the answer before")


def _keyable(key: Sequence[Any]) -> bool:
    value, sequence = key
    return _is_place(sequence) and (_is_place(value) or (isinstance(value, str) and not _is_half(value)))


def _is_place(value: object) -> bool:
    """A whole number that SQLite can hold, and the next one too."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_SEQUENCE


def _is_half(text: str) -> bool:
    """Does it hold half a character, which UTF-8 cannot write?"""
    return any("\ud800" <= char <= "\udfff" for char in text)
