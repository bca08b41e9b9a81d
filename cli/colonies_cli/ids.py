"""Ids of processes and workflows as people give them: whole, or by their beginning, as in git.

A whole id is taken as it is, and nobody is asked. Case counts for nothing: ids of time (ULIDs) are in upper
case, digests in lower. A beginning is looked up in the views, so that needs a projector; with
--at, in the views as they were.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal

from colonies_cli import output

if TYPE_CHECKING:
    from colonies.errors import ColoniesError

MIN_CHARS: Final = 4
LISTED: Final = 10  # of those that begin so

Noun = Literal["process", "workflow"]

# Of a ULID, and of what derives from something, which are 26 and 32 characters long.
_BEGINNING = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{,24}|[a-z2-7]{,31}")
_VIEWS: Final[dict[Noun, str]] = {"process": "processes", "workflow": "workflows"}
_OTHER: Final[dict[Noun, Noun]] = {"process": "workflow", "workflow": "process"}


def check(given: str, where: str = "ID") -> None:
    """Whole, an id ends up in a subject: a star or a dot in it would mean others as well.

    Raises Invalid: it can be neither an id nor the beginning of one.
    """
    from colonies.core.names import name
    from colonies.errors import Invalid

    name(given, where)
    if len(given) < MIN_CHARS:
        raise Invalid(
            f"{where}: {given} is too short; allowed: a whole id, or at least {MIN_CHARS} characters of its "
            "beginning"
        )


async def whole(ledger: Any, noun: Noun, given: str, where: str = "ID") -> str:
    """The id that is meant.

    Raises:
        Invalid: it cannot be one, or several begin so; the message lists some of them.
        NotFound: none begins so. Unavailable: no projector answers.
    """
    from colonies.errors import NotFound

    check(given, where)
    given = _in_its_case(given)
    if not _BEGINNING.fullmatch(given):
        return given
    found = await _beginning(ledger, noun, given)
    if len(found) == 1:
        return str(found[0]["id"])
    if found:
        raise _ambiguous(noun, given, where, found)
    other = _OTHER[noun]
    if those := await _beginning(ledger, other, given):
        one = those[0]["id"] if len(those) == 1 else None
        there = f"the {other} {one} does" if one else f"{_VIEWS[other]} do"
        how = f"get {one}" if one else "ls"
        raise NotFound(f"no {noun} begins with {given}, but {there}: see `colonies {other} {how}`")
    raise NotFound(f"no {noun} begins with {given}; see `colonies {noun} ls`")


def _in_its_case(given: str) -> str:
    """As ids are written; what can be none in either case, as it is."""
    from colonies.core.states import is_id

    forms = dict.fromkeys((given, given.lower(), given.upper()))
    return next((form for form in forms if is_id(form) or _BEGINNING.fullmatch(form)), given)


async def _beginning(ledger: Any, noun: Noun, given: str) -> list[dict[str, Any]]:
    """Some that begin so, the newest first: one more than are listed, if there are so many.

    Projectors are believed in which they are, but not that they begin so.
    """
    from colonies.core.states import is_id
    from colonies.errors import Unavailable
    from colonies_cli.command import ask

    question = {"begins": given, "sort": "-id", "limit": LISTED + 1}
    try:
        items = (await ask(ledger, _VIEWS[noun], question)).items
    except Unavailable as error:
        raise Unavailable(
            f"{given} is the beginning of an id, which is looked up in the views, and {error}; a whole id "
            "needs none"
        ) from None
    return [item for item in items if is_id(id := str(item.get("id"))) and id.startswith(given)]


def _ambiguous(noun: Noun, given: str, where: str, found: list[dict[str, Any]]) -> ColoniesError:
    from colonies.errors import Invalid

    number = f"{len(found)}" if len(found) <= LISTED else f"more than {LISTED}"
    lines = [f"{where}: {number} {_VIEWS[noun]} begin with {given}; give more of the one that is meant:"]
    for item in found[:LISTED]:
        lines.append(output.spaced((item["id"], output.cell(item.get("state")), _called(item)), (32, 10, 0)))
    return Invalid("\n".join(lines))


def _called(item: dict[str, Any]) -> str:
    """What tells it from others: its function, or a workflow's name."""
    said = filter(None, (item.get("func"), item.get("name"), item.get("label")))
    return output.cell(" ".join(map(str, said)))
