"""What may stand as a name, and how a refused value is shown to the person who gave it.

Names end up in subjects, file names and permissions, so they are ASCII, short, and free of dots, stars
and white space. This module only judges a name; it never mends one, and never knows who holds it.
"""

from __future__ import annotations

import re
import reprlib

from colonies.errors import Invalid

# \A and \Z, not ^ and $: `$` also matches before a trailing newline, and a name may not have one.
MEMBER = re.compile(r"\A[a-z0-9][a-z0-9_-]{0,31}\Z")
NAME = re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z")

MAX_MEMBER_CHARS = 32
MAX_NAME_CHARS = 64
MEMBER_ALLOWED = "1 to 32 of a-z, 0-9, _ and -, beginning with a letter or digit"
NAME_ALLOWED = "1 to 64 of A-Z, a-z, 0-9, _ and -"


# What may stand in a line of text. Not `str.isprintable`: whether an event is valid must not depend on the
# version of Unicode that a reader's Python knows.
_NO_LINE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
SPACES = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


def is_line(text: str) -> bool:
    """No control characters or line ends, nothing that turns the writing round, no half characters."""
    return _NO_LINE.search(text) is None


def member_name(value: object, where: str) -> str:
    """`value`, if it may be a member's name. `where` is the field to name in the `Invalid`."""
    return _matching(MEMBER, MEMBER_ALLOWED, value, where)


def name(value: object, where: str) -> str:
    """`value`, if it may be the name of a process, a runtime type or a colony."""
    return _matching(NAME, NAME_ALLOWED, value, where)


def shown(value: object) -> str:
    """`value` on one line, shortened to about 60 characters, whatever it is."""
    return " ".join(_SHORT.repr(value).split())


def kind(value: object) -> str:
    """What `value` is, in the words of JSON."""
    return _KINDS.get(type(value), f"a Python {type(value).__name__}")


def _matching(pattern: re.Pattern[str], allowed: str, value: object, where: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{where}: {shown(value)}, {kind(value)}, is not a name; allowed: {allowed}")
    if not pattern.fullmatch(value):
        most = MAX_MEMBER_CHARS if pattern is MEMBER else MAX_NAME_CHARS
        if len(value) > most:
            raise Invalid(f"{where}: {shown(value)} has {len(value)} characters; allowed: {allowed}")
        raise Invalid(f"{where}: {shown(value)} is not allowed as a name; allowed: {allowed}")
    return value


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxlist = self.maxtuple = self.maxdict = 3
        self.maxstring = self.maxlong = self.maxother = 40

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print integers of more than 4,300 digits; nobody wants to read them either.
        bits = x.bit_length()
        return super().repr_int(x, level) if bits < 1_000 else f"an integer of {bits} bits"

    def repr_bool(self, x: bool, level: int) -> str:
        return "true" if x else "false"

    # reprlib looks for methods named after types.
    def repr_NoneType(self, x: None, level: int) -> str:
        return "null"


_SHORT = _Short()
_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}
