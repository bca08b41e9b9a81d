"""Events as they come, as server-sent events: from now on, or from any place of the ledger with no gap."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from colonies.core.names import shown
from colonies.feed import checked_after
from colonies.jetstream import JetStreamLedger
from colonies.listening import Wanted
from colonies.past import place
from colonies_projections.http.access import LOCKED, Asker
from colonies_projections.http.hub import Hub
from colonies_projections.http.problems import Problem
from colonies_projections.http.queries import only, with_plus
from colonies_projections.http.streams import EventStream, Streams

PATH: Final = "/v1/events"
MAX_CHOICES: Final = 20

_SEQUENCE = re.compile(r"[0-9]{1,18}")
_Many = Annotated[list[str] | None, Query(max_length=MAX_CHOICES)]
_DESCRIPTION: Final = (
    "`text/event-stream`: the `data` of each is a CloudEvent in JSON, its `id` the sequence in the ledger. "
    "With `Last-Event-ID`, which browsers send by themselves, or `after`, it goes on behind that sequence, "
    "time or age with no gap; without, it begins with what comes from now on. A block with an `id` and no "
    "`data` says how far the ledger was looked at.\n\n"
    "Each filter may be given several times; one value must fit. `type` is one such as `process.completed`, "
    "or a kind such as `process`; `verdict` is `valid` if nothing is said.\n\n"
    "It ends when the token does, and when its reader does not keep up; then go on with the last `id`."
)


def routes() -> APIRouter:
    router = APIRouter(tags=["feed"], **LOCKED)
    answers: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
    router.add_api_route(
        PATH,
        _events,
        methods=["GET"],
        summary="Events as they come",
        description=_DESCRIPTION,
        response_class=Response,
        responses=answers,
    )
    return router


async def _events(
    request: Request,
    asker: Asker,
    type: _Many = None,
    process: _Many = None,
    workflow: _Many = None,
    author: _Many = None,
    verdict: _Many = None,
    after: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    only(request, "type", "process", "workflow", "author", "verdict", "after")
    await asker.sees("feed")
    hub: Hub = request.app.state.hub
    streams: Streams = request.app.state.streams
    begin = _sequence(last_event_id)
    ledger: JetStreamLedger = request.app.state.ledger
    if begin is None and after:
        begin = await place(ledger, with_plus(after))
    elif begin is not None and begin > hub.position:  # it may have come this moment
        begin = checked_after(begin, await ledger.last_sequence())
    wanted = Wanted(type=type, process=process, workflow=workflow, author=author, verdict=verdict or "valid")
    return EventStream(hub, streams, asker, hub.position if begin is None else begin, wanted)


def _sequence(text: str | None) -> int | None:
    """Of the header. Raises Problem."""
    if not text:
        return None
    if not _SEQUENCE.fullmatch(text):
        raise Problem(400, f"Last-Event-ID: {shown(text)}; allowed: a sequence of the ledger, such as 1234")
    return int(text)
