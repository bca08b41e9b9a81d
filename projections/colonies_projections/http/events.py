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
from colonies_projections.http.answers import CloudEvent
from colonies_projections.http.description import problems, ref
from colonies_projections.http.hub import Hub
from colonies_projections.http.problems import Problem
from colonies_projections.http.queries import only, with_plus
from colonies_projections.http.streams import EventStream, Streams

PATH: Final = "/v1/events"
MAX_CHOICES: Final = 20

_SEQUENCE = re.compile(r"[0-9]{1,18}")


def _many(description: str) -> Any:
    return Query(max_length=MAX_CHOICES, description=description)


_Type = Annotated[list[str] | None, _many("Only of this type, such as process.completed, or kind.")]
_Process = Annotated[list[str] | None, _many("Only of this process: its id.")]
_Workflow = Annotated[list[str] | None, _many("Only of this workflow, and of its processes: its id.")]
_Author = Annotated[list[str] | None, _many("Only by this member.")]
_Verdict = Annotated[list[str] | None, _many("valid (if nothing is said), void, quarantined, or all.")]
_After = Annotated[str | None, Query(description="Begin behind this sequence, time (RFC 3339) or age.")]
_LastId = Annotated[str | None, Header(description="Begin behind this sequence; it goes before `after`.")]
_ANSWER: Final = {
    "description": "Server-sent events; the `data` of each is a CloudEvent in JSON.",
    "content": {"text/event-stream": {"schema": {"type": "string", "x-data": {"$ref": ref(CloudEvent)}}}},
}
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
    router.add_api_route(
        PATH,
        _events,
        methods=["GET"],
        operation_id="follow_events",
        summary="Events as they come",
        description=_DESCRIPTION,
        response_class=Response,
        responses={**problems(400, 401, 403, 503), 200: _ANSWER},
    )
    return router


async def _events(
    request: Request,
    asker: Asker,
    type: _Type = None,
    process: _Process = None,
    workflow: _Workflow = None,
    author: _Author = None,
    verdict: _Verdict = None,
    after: _After = None,
    last_event_id: _LastId = None,
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
