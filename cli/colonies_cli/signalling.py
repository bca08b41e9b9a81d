"""A person's word to a process or a workflow: `signal`, which both have."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, ids, output, specs
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies_cli.command import Here

Name = Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.", show_default=False)]
Data = Annotated[str | None, typer.Option("--data", metavar="JSON", help="What goes with it; a JSON value.")]


def send(here: Here, what: ids.Noun, id: str, name: str, data: str | None) -> Coroutine[Any, Any, None]:
    """Send it, and show what it was sent to. Raises Invalid at once, for an id or data that cannot be."""
    ids.check(id)
    return _send(here, what, id, name, specs.json_given(data, "--data"))


async def _send(here: Here, what: ids.Noun, id: str, name: str, data: Any) -> None:
    from colonies_cli import flow_showing, showing

    async with here.client() as client:
        id = await ids.whole(client.session.ledger, what, id)
        handle = client.workflow(id)
        if what == "process":
            await client.signal(id, name, data)
        else:
            await handle.signal(name, data)
            awaited = {n.node.wait_signal.name for n in (await handle.get()).nodes if n.node.wait_signal}
            if awaited and name not in awaited:  # a function may wait for it; more likely it is misspelt
                exits.say(f"no node waits for {name}; they wait for: {', '.join(sorted(awaited))}")
        if here.output == Output.table:
            output.line(f"{what} {id} was sent {output.cell(name)}")
        elif what == "process":
            await showing.show(here, client, await client.process(id).get())
        else:
            await flow_showing.show(here, handle, await handle.get())
