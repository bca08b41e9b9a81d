"""Log messages as lines, and what is searched for as the index of text takes it.

A worker stores what a program wrote as it came: many lines in one message, and a line in two of them. People
look for lines. So a message counts as its lines that are not blank, and one that goes on where the message
before it broke off begins with the beginning of that line (`carried`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

MAX_LINE_CHARS = 4_096
MAX_LINES = 16_384
MAX_TERMS = 32
MIN_BEGINNING_CHARS = 2

_BLANK_IN_LAST_CHARS = 256
_ENDS = re.compile(r"\r\n|\r|\n")
_WORD = re.compile(r"[^\W_]+")
_COLOUR = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_TERM = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')


def lines(text: str) -> list[str]:
    """The lines of a text that are not blank, at most MAX_LINES; a longer one is several of them.

    A progress bar, which ends its lines by going back to their beginning, is a line each time.
    """
    found: list[str] = []
    for line in _ENDS.split(text):
        found += (piece for piece in _pieces(line) if piece.strip())
        if len(found) >= MAX_LINES:
            return found[:MAX_LINES]
    return found


def _pieces(line: str) -> Iterable[str]:
    """A line in pieces of at most MAX_LINE_CHARS, cut at a blank if there is one near."""
    while len(line) > MAX_LINE_CHARS:
        cut = line.rfind(" ", MAX_LINE_CHARS - _BLANK_IN_LAST_CHARS, MAX_LINE_CHARS) + 1 or MAX_LINE_CHARS
        yield line[:cut]
        line = line[cut:]
    yield line


def broken_off(text: str) -> str | None:
    """The last line of a text, or its last piece, if it goes on in the next message."""
    last = text[max(text.rfind("\n"), text.rfind("\r")) + 1 :]
    return list(_pieces(last))[-1] if last.strip() else None


def indexed(line: str) -> str:
    """A line as it is searched: without what only colours it on a terminal."""
    return _COLOUR.sub("", line)


def expression(text: str) -> str:
    """What is searched for, for `MATCH`: all of the words; "words in a row"; and the beginn* of one.

    Everything else is literal: what is neither a letter nor a digit only separates words, so 10.0.0.1 is
    four of them in a row. Raises ValueError with what would be right.
    """
    if text.count('"') % 2:
        raise ValueError('words, with "quotes" around those that stand in a row; a quote is not closed')
    terms = [match[3] or match[1] + match[2] for match in _TERM.finditer(indexed(text))]
    terms = [term for term in terms if _WORD.search(term)]
    if not terms:
        raise ValueError("words of letters or digits")
    if len(terms) > MAX_TERMS:
        raise ValueError(f"at most {MAX_TERMS} words; there are {len(terms)}")
    return " AND ".join(f"words : {_phrase(term)}" for term in terms)


def _phrase(term: str) -> str:
    """Words in a row. What decides where one ends is the index."""
    plain = "".join(char if char.isprintable() else " " for char in term)
    if not term.endswith("*"):
        return f'"{plain}"'
    if len(_WORD.findall(term)[-1]) < MIN_BEGINNING_CHARS:
        raise ValueError(f"at least {MIN_BEGINNING_CHARS} letters or digits before a *")
    return f'"{plain}" *'


def token(name: str, value: str) -> str:
    """A word that stands for one value of a filter. It is no word of a line: it has a column of its own."""
    return f"{name[0]}{hashlib.blake2b(f'{name}={value}'.encode(), digest_size=16).hexdigest()}"


def about(values: Iterable[tuple[str, str | None]]) -> str:
    """What a line is about: a token for each value that it has, and one that all have."""
    return " ".join([ALL, *(token(name, value) for name, value in values if value is not None)])


ALL = "all"
