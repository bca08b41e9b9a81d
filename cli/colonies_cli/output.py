"""What the command prints: tables for people, JSON Lines for programs, ids for the shell.

Data goes to stdout and nothing else does. A table has no boxes; on a terminal its one long column gives way,
elsewhere nothing is cut. What others wrote is shown with its control characters spelled out, so that no
process can play tricks on a terminal by its name. Only `logs` and outputs go out as they are.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

MAX_CELL_CHARS = 10_000
MIN_ELASTIC_CHARS = 12


class Output(StrEnum):
    """How the data is printed: for people, as one JSON object per line, or ids only."""

    table = "table"
    json = "json"
    name = "name"


def prepare() -> None:
    """Let no character be an error: what the terminal cannot show is spelled out."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def on_terminal() -> bool:
    """Does a person read our stdout?"""
    return sys.stdout is not None and sys.stdout.isatty()


def line(text: str = "") -> None:
    """One line on stdout, at once."""
    print(text, flush=True)


def raw(text: str, stream: Any = None) -> None:
    """Text as it is, at once."""
    stream = stream or sys.stdout
    if stream is not None:
        stream.write(text)
        stream.flush()


def json_line(data: Any) -> None:
    """One compact JSON object on a line of its own."""
    line(json_text(data))


def json_text(data: Any) -> str:
    """Data as strict JSON: what JSON lacks is said as `colonies.show.jsonable` does, NaN as null."""
    encoding = ((sys.stdout.encoding if sys.stdout else None) or "").lower().replace("-", "")
    options: dict[str, Any] = {"ensure_ascii": encoding != "utf8", "separators": (",", ":")}
    try:
        return json.dumps(data, allow_nan=False, **options)
    except (TypeError, ValueError):
        from colonies.show import jsonable

        return json.dumps(jsonable(data), allow_nan=False, **options)


def cell(value: Any) -> str:
    """A value on one line, control characters spelled out."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json_text(value)
    text = text[:MAX_CELL_CHARS]
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def seconds(time: str | None) -> str:
    """An RFC 3339 time as tables show it: to the second."""
    return f"{time[:19]}Z" if time else "-"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, elastic: int | None = None) -> None:
    """Columns under a header line. On a terminal the `elastic` column, if any, is cut to what fits."""
    cells = [list(header), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    if elastic is not None and on_terminal():
        room = shutil.get_terminal_size().columns - sum(widths) - 2 * (len(widths) - 1) + widths[elastic]
        widths[elastic] = min(widths[elastic], max(MIN_ELASTIC_CHARS, room))
    for row in cells:
        line(spaced(row, widths, elastic))


def spaced(row: Sequence[str], widths: Sequence[int], elastic: int | None = None) -> str:
    """One line of a table; what is too wide is cut in the `elastic` column only."""
    fitted = [
        f"{text[: width - 3]}..." if column == elastic and len(text) > width else text.ljust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(fitted).rstrip()


def card(fields: Iterable[tuple[str, Any]]) -> list[str]:
    """One thing as lines of a name and a value."""
    pairs = [(name, cell(value)) for name, value in fields]
    width = max(len(name) for name, _ in pairs)
    return [f"{name.ljust(width)}  {value}" for name, value in pairs]
