"""`colonies colony`: the colony itself, as its ledger tells it; to pause it and go on."""

from __future__ import annotations

from typing import Any

from colonies_cli import options, output, pausing
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

app = group("See the colony, pause all of its work.\n\nExample: colonies colony pause --reason 'a power cut'")


@command(app, "get", past=True)
async def get(here: Here) -> None:
    """Show the colony: its settings, and what is paused or drained, by whom and why.

    Example: colonies colony get -o json
    """
    from colonies.show import rfc3339

    async with here.session() as session:
        colony = session.colony

    def shown(found: Any) -> dict[str, Any]:
        return {"by": found.by, "since": rfc3339(found.since), "reason": found.reason}

    item: dict[str, Any] = {
        "name": colony.name,
        "key": colony.key,
        "lease_s": colony.lease_s,
        "members": sum(member.until is None for member in colony.members.values()),
        "queues": len(colony.queues),
        "paused": shown(colony.paused) if colony.paused is not None else None,
        "paused_queues": [{"id": id, **shown(found)} for id, found in colony.paused_queues.items()],
        "drained": [{"name": name, **shown(found)} for name, found in colony.drained.items()],
    }
    if here.output != Output.table:
        output.line(colony.name) if here.output == Output.name else output.json_line(item)
        return
    for key in ("name", "key", "lease_s", "members", "queues"):
        output.line(f"{key:8}  {item[key]}")
    if item["paused"]:
        output.line(f"paused    {_told(item['paused'])}")
    for found in item["paused_queues"]:
        output.line(f"paused    queue {found['id']} {_told(found)}")
    for found in item["drained"]:
        output.line(f"drained   worker {found['name']} {_told(found)}")


def _told(found: dict[str, Any]) -> str:
    return output.cell(f"since {output.seconds(found['since'])} {pausing.by(found)}")


@command(app, "pause")
async def pause(here: Here, reason: options.Reason = "") -> None:
    """Hand out nothing of the colony, until it is resumed.

    What runs goes on, and what waits keeps its place; its maxwaittime goes on counting. Needs an owner.

    Example: colonies colony pause --reason "a power cut"
    """
    reason = pausing.checked(reason)
    async with pausing.owner_of(here) as client:
        await client.pause_colony(reason)
        pausing.said(here, "name", client.colony, "paused", "colony", True)


@command(app, "resume")
async def resume(here: Here) -> None:
    """Hand out the colony's work again, but for queues that are paused themselves.

    Example: colonies colony resume
    """
    async with pausing.owner_of(here) as client:
        await client.resume_colony()
        pausing.said(here, "name", client.colony, "paused", "colony", False)
