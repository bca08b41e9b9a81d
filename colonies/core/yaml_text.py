"""YAML as people write specs in it: the plain values of YAML 1.2's core schema, and nothing that acts.

A library splits the text into events; what these mean is decided here, so that `no` is text, as in YAML 1.2,
and no tag makes an object. Aliases are counted as what they stand for, so a small text cannot grow large.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from colonies.core.names import shown
from colonies.core.parsing import decoded, nothing
from colonies.core.plain import MAX_DEPTH_LEVELS
from colonies.errors import Invalid

MAX_YAML_VALUES: Final = 1_000_000  # with what aliases stand for, each time
MAX_YAML_CHARS: Final = 33_554_432  # as well
_COUNTED: Final = "aliases counted as what they stand for"

_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+\Z")
_OTHER_BASE: Final = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_MAX_DIGITS: Final = 100  # longer numbers are out of every range anyway, and slow to convert

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class _Held:
    """A list or an object that is being read; `size` is the values and characters in it so far."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    begun: tuple[int, int]
    key: str | None = None


@dataclass(slots=True)
class _Reading:
    where: str
    values: int = 0
    chars: int = 0
    stack: list[_Held] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int, int] | None] = field(default_factory=dict)
    found: list[Any] = field(default_factory=list)
    line: int = 1

    def refuse(self, problem: str) -> Invalid:
        return Invalid(f"{self.where}: line {self.line}: {problem}")

    def count(self, values: int, chars: int) -> None:
        self.values += values
        self.chars += chars
        if self.values > MAX_YAML_VALUES:
            raise self.refuse(f"more than {MAX_YAML_VALUES} values, {_COUNTED}")
        if self.chars > MAX_YAML_CHARS:
            raise self.refuse(f"more than {MAX_YAML_CHARS} characters, {_COUNTED}")

    def take(self, event: Any) -> None:
        self.line = event.start_mark.line + 1
        match event:
            case yaml.DocumentStartEvent() if self.found:
                raise self.refuse("a second document (---) begins; allowed: one")
            case yaml.ScalarEvent():
                self.scalar(event)
            case yaml.AliasEvent():
                self.alias(event.anchor or "")
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self.begin(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                held = self.stack.pop()
                if held.anchor is not None:
                    values, chars = self.values - held.begun[0], self.chars - held.begun[1]
                    self.anchors[held.anchor] = (held.value, values, chars)
                self.put(held.value)

    def begin(self, event: Any) -> None:
        self.check_tag(event)
        if len(self.stack) >= MAX_DEPTH_LEVELS:
            raise self.refuse(f"nested too deeply; allowed: at most {MAX_DEPTH_LEVELS} levels")
        self.check_key()
        begun = self.values, self.chars
        self.count(1, 0)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        value: list[Any] | dict[str, Any] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        self.stack.append(_Held(value, event.anchor, begun))

    def check_key(self) -> None:
        if self.is_key():
            raise self.refuse("a key is a list or an object; allowed: text")

    def check_tag(self, event: Any) -> None:
        if event.tag is not None:
            raise self.refuse(
                f"the tag {shown(event.tag)} is not allowed; allowed: plain values, text in quotes"
            )

    def scalar(self, event: Any) -> None:
        self.check_tag(event)
        plain = not event.style
        value = _plain(event.value) if plain else event.value
        self.count(1, len(event.value))
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1, len(event.value))
        if plain and event.value == "<<" and self.is_key():
            raise self.refuse("<< (merge) is not of YAML 1.2; write the fields out")
        self.put(value)

    def is_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def alias(self, anchor: str) -> None:
        if anchor not in self.anchors:
            raise self.refuse(f"*{anchor}: there is no &{anchor} before it")
        found = self.anchors[anchor]
        if found is None:
            raise self.refuse(f"*{anchor}: it stands for what it is itself a part of")
        value, values, chars = found
        self.count(values, chars)
        if self.is_key() and not isinstance(value, Hashable):
            raise self.refuse("a key is a list or an object; allowed: text")
        self.put(value)

    def put(self, value: Any) -> None:
        if not self.stack:
            self.found.append(value)
            return
        held = self.stack[-1]
        if isinstance(held.value, list):
            held.value.append(value)
        elif held.key is None:
            if not isinstance(value, str):
                raise self.refuse(f"the key {shown(value)} is no text; put it in quotes")
            if value in held.value:
                raise self.refuse(f"the key {shown(value)} is given twice in one object; allowed: once")
            held.key = value
        else:
            held.value[held.key] = value
            held.key = None


def yaml_value(text: str | bytes, where: str, example: str) -> object:
    """The value that a YAML text (bytes: UTF-8) holds. Raises Invalid, naming `where` and the line."""
    text = decoded(text, where, "YAML")
    if not text.strip():
        raise Invalid(nothing(where, example))
    reading = _Reading(where)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            reading.take(event)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise Invalid(f"{where}: not YAML: {at}{error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise Invalid(f"{where}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not reading.found:
        raise Invalid(nothing(where, example))
    return reading.found[0]


def _plain(text: str) -> Any:
    """What a plain scalar is by YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        return int(text[:_MAX_DIGITS])
    if _OTHER_BASE.match(text):
        return int(text[2 : 2 + _MAX_DIGITS], 8 if text[1] == "o" else 16)
    if _FLOAT.match(text):
        return float(text)
    if _NOT_FINITE.match(text):
        return float(text.replace(".", "", 1))
    return text
