"""What the shell of a command is given: its text, its words and its environment.

Pure but for reading this program's environment; it starts nothing. Nothing of an argument ever becomes shell
text, and what was meant for this program only (the COLONIES_ variables, its credentials among them) does not
reach a command.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence

from colonies import tracing
from colonies.errors import Invalid

# Where this program stands in a trace is not where a command does.
_OURS = (b"COLONIES_", *(name.encode() for name in tracing.VARIABLES))
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def shell_words(command: str, args: Sequence[object]) -> list[str | bytes]:
    """The command line that runs `command` with `args` appended to it as words.

    The arguments are the shell's positional parameters and the text gets `"$@"` at its end, so no byte of
    an argument is ever shell text, whatever the command looks like. Where words cannot be appended to a
    text (after a comment, a here-document, a `;`), that is refused: they would be lost or taken for a
    program to run. `sh -c '... "$1" ...' sh` puts them anywhere. Strings go as they are, others as JSON.
    """
    if not command.strip():
        raise Invalid("func is empty: there is nothing to run")
    text = command
    if args:
        text = command.rstrip()
        if reason := _why_closed(text):
            raise Invalid(
                f"args cannot be appended to this func, because it {reason}: "
                """mend it, or place them yourself with  sh -c '... "$1" "$2" ...' sh"""
            )
        text += ' "$@"'
    words = [_word(f"args[{index}]", arg) for index, arg in enumerate(args)]
    return ["/bin/sh", "-c", _bytes("func", text), "sh", *words]


def _why_closed(text: str) -> str | None:
    """Why a word cannot be appended to this shell text, or None. In doubt it says that it cannot."""
    quote, comment, in_word, operator, index = "", False, False, False, 0
    while index < len(text):
        char = text[index]
        if comment:
            comment = char != "\n"
        elif char == "\\" and quote != "'":
            index, in_word, operator = index + 1, True, False
            if index == len(text):
                return "ends in a backslash"
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote, in_word, operator = char, True, False
        elif char == "#" and not in_word:
            comment = True
        elif text.startswith("<<", index):
            return "holds a here-document (<<)"
        else:
            operator = char in ";&|" or (operator and char.isspace())
            in_word = char not in " \t\n;&|()<>"
        index += 1
    if comment:
        return "ends in a comment"
    if quote:
        return f"ends within {quote}"
    return f"ends in {text[-1]}" if operator else None


def _word(name: str, value: object) -> bytes:
    if isinstance(value, str):
        return _bytes(name, value)
    try:
        return _bytes(name, json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    except (TypeError, ValueError) as error:
        raise Invalid(f"{name} cannot be written as JSON: {error}") from error


def _bytes(name: str, text: str) -> bytes:
    if "\0" in text:
        raise Invalid(f"{name} holds a NUL character, which no Unix command can be given")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"{name} cannot be encoded as UTF-8: {error.reason}") from error


def environment(env: Mapping[str, str]) -> dict[bytes, bytes]:
    """This program's environment without what is meant for this program, and `env` on top."""
    result = {name: value for name, value in os.environb.items() if not name.startswith(_OURS)}
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            raise Invalid(f"env: {name!r} is not the name of a variable ([A-Za-z_][A-Za-z0-9_]*)")
        result[name.encode()] = _bytes(f"env[{name!r}]", value)
    return result
