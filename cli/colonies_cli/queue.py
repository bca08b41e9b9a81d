"""`colonies queue`: what waits where, and who can take it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from colonies_cli import listing, options, output, pausing
from colonies_cli.command import Here, command, group

app = group(
    "See the queues, pause them: processes that need the same thing wait in one."
    "\n\nExample: colonies queue ls"
)

_Queue = Annotated[
    str, typer.Argument(metavar="QUEUE", help="The queue's id, or how it begins.", show_default=False)
]


@command(app, "ls", past=True)
async def ls(
    here: Here,
    runtimetype: Annotated[
        str | None, typer.Option("--runtimetype", metavar="T", help="Only queues for this kind of worker.")
    ] = None,
    unserved: Annotated[
        bool, typer.Option("--unserved", help="Only queues that no living worker can serve.")
    ] = False,
    limit: options.Limit = options.LIMIT,
) -> None:
    """List the queues, as the projector has them: first those where something waits that nobody can take.

    Example: colonies queue ls --unserved
    """
    served = "no" if unserved else None
    pages = listing.Pages(limit)
    items = await listing.asked(here, "queues", pages, runtimetype=runtimetype, served=served)
    header = ("QUEUE", "PRIORITY", "WAITING", "RUNNING", "OLDEST", "WORKERS", "CONDITIONS")
    listing.show(here, items, header, _row, elastic=6)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    return (
        item["id"],
        item["priority"],
        item["waiting"],
        item["running"],
        output.seconds(item["oldest"]),
        _paused(item) or _workers(item),
        _conditions(item["conditions"]),
    )


@command(app, "pause")
async def pause(here: Here, queue: _Queue, reason: options.Reason = "") -> None:
    """Hand out nothing of a queue, until it is resumed.

    What runs goes on, and what waits keeps its place; its maxwaittime goes on counting. Needs an owner.

    Example: colonies queue pause k4c2xq --reason "the licence server is down"
    """
    reason = pausing.checked(reason)
    async with pausing.owner_of(here) as client:
        id = await client.pause_queue(queue, reason)
    pausing.said(here, "id", id, "paused", "queue", True)


@command(app, "resume")
async def resume(here: Here, queue: _Queue) -> None:
    """Hand out the queue again.

    Example: colonies queue resume k4c2xq
    """
    async with pausing.owner_of(here) as client:
        id = await client.resume_queue(queue)
    pausing.said(here, "id", id, "paused", "queue", False)


def _paused(item: dict[str, Any]) -> str:
    """Why nobody takes from it, if an owner said so."""
    found = item.get("paused")
    return f"PAUSED {pausing.by(found)}" if found else ""


def _workers(item: dict[str, Any]) -> str:
    """Who can serve it. A queue in which something waits for nobody stands out."""
    names = item["workers"]
    if names and names == item.get("drained"):
        return f"DRAINED: {output.cell(', '.join(names[:3]))}"
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + more
    if not item["lacking"]:
        return "NONE: no worker is alive"
    nearest = item["lacking"][0]
    return f"NONE: {nearest['worker']}: {'; '.join(nearest['misses'][:2])}"


def _conditions(conditions: dict[str, Any]) -> str:
    from colonies.core import units

    def shown(name: str, value: Any) -> str:
        return units.text(value) if name in ("mem", "storage") else output.cell(value)

    return " ".join(f"{name}={shown(name, value)}" for name, value in conditions.items())
