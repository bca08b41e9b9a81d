"""`colonies projection`: how far the views of the ledger are, what they add up to, building them anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from colonies_cli import exits, listing, output
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

app = group(
    "See how far the views of the ledger are, and build them anew.\n\nExample: colonies projection ls"
)

ANSWER_S = 2.0
COUNT_S = 600.0
LOOK_AGAIN_S = 0.5
REBUILD_S = 10.0

_Projector = Annotated[
    str | None, typer.Option("--projector", metavar="NAME", help="Only this projector, by its member's name.")
]


@command(app, "ls", past=True)
async def ls(
    here: Here,
    projector: _Projector = None,
    checksums: Annotated[
        bool, typer.Option("--checksums/--no-checksums", help="Count all rows; takes a while on large views.")
    ] = True,
) -> None:
    """List the views of each projector.

    LAG is in events and seconds. CHECKSUM is what all rows of a view add up to at the sequence in front of
    it: two projectors that agree there show the same. With --at, that of the rows as they were. The view
    `logs` counts the messages that it keeps, in sequences of the stream LOGS.

    Example: colonies projection ls
    """
    from colonies.past import moment

    async with replace(here, at=None).session() as session:  # the views of now, counted as they were
        ledger: Any = session.ledger
        found = await _asked(ledger, {"checksums": False}, ANSWER_S)
        if checksums:
            at = min((item["position"] for item in found if item.get("stream") is None), default=0)
            if here.at is not None:
                at = (await moment(ledger, here.at, "--at")).sequence
            if at:
                found = await _asked(ledger, {"checksums": True, "at": at}, COUNT_S, len(_names(found)))
    items = [item for item in found if projector in (None, item["projector"])]
    if projector is not None and not items:
        from colonies.errors import NotFound

        raise NotFound(f"no projector {projector} answers; there are: {', '.join(_names(found))}")
    header = ("VIEW", "PROJECTOR", "POSITION", "LAG", "ROWS", "CHECKSUM")
    listing.show(here, items, header, _row, id="view")


async def _asked(
    ledger: Any, question: dict[str, Any], wait_s: float, answers: int | None = None
) -> list[dict[str, Any]]:
    from colonies.asking import ask_all
    from colonies.errors import Invalid, Unavailable
    from colonies.querying import NO_PROJECTOR

    _check_followed(ledger)
    try:
        found = await ask_all(ledger, "query.projections", question, wait_s=wait_s, answers=answers)
    except Unavailable:
        raise Unavailable(NO_PROJECTOR) from None
    for answer in found:
        if answer.get("kind") == "invalid":
            raise Invalid(answer["error"])
        if "error" in answer:
            exits.say(f"a projector has no answer: {answer['error']}")
    items = [item for answer in found for item in answer.get("items", [])]
    return sorted(items, key=lambda item: (item["view"], item["projector"]))


def _check_followed(ledger: Any) -> None:
    """Raises Unavailable: no projector can follow this ledger."""
    from colonies.errors import Unavailable
    from colonies.imported import ImportedLedger

    if isinstance(ledger, ImportedLedger):
        raise Unavailable("no projector follows an imported ledger: its views are built by who asks for them")


def _names(items: list[dict[str, Any]]) -> list[str]:
    return sorted({item["projector"] for item in items})


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    sum_ = f"{item['counted_at']} {item['checksum']}" if item["checksum"] is not None else None
    lag = f"{item['lag_events']} events, {item['lag_s']:g} s"
    if item.get("error") is not None:
        lag = f"BROKEN: {item['error']}"
    elif item["state"] == "rebuilding":
        lag += f"; built anew to {item['rebuilt']} of {item['last']}"
    return item["view"], item["projector"], item["position"], lag, item["rows"], sum_


@command(app, "rebuild")
async def rebuild(
    here: Here,
    projector: _Projector = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the new views answer.")] = True,
) -> None:
    """Build the views anew from the first event, beside those that answer.

    Questions are answered all the while. Needs an owner, an observer or a service.

    Example: colonies projection rebuild
    """
    import asyncio

    from colonies.asking import ask_all
    from colonies.errors import NotFound, Refused, Unavailable
    from colonies.querying import NO_PROJECTOR
    from colonies.requests import sealed_request

    async with here.session() as session:
        ledger: Any = session.ledger
        _check_followed(ledger)
        request = await sealed_request(session, "query.rebuild", {"projector": projector})
        try:
            answers = await ask_all(ledger, "query.rebuild", {"request": request}, wait_s=REBUILD_S)
        except Unavailable:
            raise Unavailable(NO_PROJECTOR) from None
        for answer in answers:
            if "error" in answer:
                tree = Refused if answer.get("kind") == "refused" else Unavailable
                raise tree(answer["error"])
        names = sorted(item["projector"] for answer in answers for item in answer["items"])
        if not names:
            raise NotFound(f"no projector {projector} answers; see `colonies projection ls`")
        while wait and (left := await _rebuilding(ledger, names)):
            told = ", ".join(f"{item['projector']} at {item['rebuilt']} of {item['last']}" for item in left)
            if output.on_terminal():
                exits.say(f"building: {told}")
            await asyncio.sleep(LOOK_AGAIN_S)
    for name in names:
        if here.output == Output.json:
            output.json_line({"projector": name, "rebuilt": wait})
        else:
            done = "rebuilt" if wait else "rebuilding"
            output.line(name if here.output == Output.name else f"projector {name} {done}")


async def _rebuilding(ledger: Any, names: list[str]) -> list[dict[str, Any]]:
    """Of each of these projectors that is still at it, how far it is."""
    items = await _asked(ledger, {"checksums": False}, REBUILD_S)
    found = {item["projector"]: item for item in items if item["state"] == "rebuilding"}
    return [found[name] for name in names if name in found]
