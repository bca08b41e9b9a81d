"""Single processes and workflows: read from the ledger and verified here, no projector asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from colonies import values
from colonies.client import Client
from colonies.core.names import name as checked_name
from colonies.core.process import Process, Successful
from colonies.core.shapes import Ref
from colonies.errors import ColoniesError
from colonies.looking import workflow_now
from colonies.missing import not_found
from colonies.past import PastLedger, moment
from colonies.session import Session
from colonies.show import process_object
from colonies.show_event import event_object, numbered
from colonies.show_workflow import workflow_object
from colonies_projections.http import answers
from colonies_projections.http.access import LOCKED, Asker
from colonies_projections.http.description import AT, problems
from colonies_projections.http.queries import json_response, only, with_plus

MAX_LOADED_BYTES: Final = 1_048_576  # of a stored value that is put into an answer

MAX_LOOKUPS: Final = 16

_Id = Annotated[str, Path(description="Its id, whole.")]
_At = Annotated[str | None, Query(description=AT)]


def routes() -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["ledger"], **LOCKED)
    for path, endpoint, model, name, summary in (
        ("/processes/{id}", _process, answers.Process, "process", "One process, as the ledger has it"),
        (
            *("/processes/{id}/history", _history, answers.History, "process_history"),
            "Every event of a process, with verdicts",
        ),
        (
            *("/workflows/{id}", _workflow, answers.Workflow, "workflow"),
            "One workflow with all of its nodes, as the ledger has it",
        ),
    ):
        router.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            operation_id=f"get_{name}",
            summary=summary,
            response_model=model,
            responses=problems(400, 401, 403, 404, 503),
        )
    return router


async def _process(id: _Id, request: Request, asker: Asker, at: _At = None) -> Response:
    async with _reading(id, request, asker, at) as session:
        return json_response(await _full(session, await session.process(id)))


async def _history(id: _Id, request: Request, asker: Asker, at: _At = None) -> Response:
    async with _reading(id, request, asker, at) as session:
        story = await session.story(id)
        if not story.judged:
            raise await not_found(session, "process", id)
        events = [event_object(seen, n) for seen, n, _ in numbered(story.judged, session.knowledge)]
        return json_response({"id": id, "events": events})


async def _workflow(id: _Id, request: Request, asker: Asker, at: _At = None) -> Response:
    async with _reading(id, request, asker, at) as session:
        # A client hears its session's ledger for ever; of the past there is nothing to hear.
        client: Client = request.app.state.client if at is None else Client(session)
        return json_response(workflow_object(await workflow_now(client, id)))


@asynccontextmanager
async def _reading(id: str, request: Request, asker: Asker, at: str | None) -> AsyncIterator[Session]:
    """The session to read from, now or `at` a moment; one answer may be large, so only some are read at once.

    Raises Problem (not theirs to see) or Invalid (an id ends up in a subject; there is no such moment).
    """
    only(request, "at")
    await asker.sees("ledger")
    checked_name(id, "id")
    turns: asyncio.Semaphore = request.app.state.lookups
    async with turns:
        if at is None:
            yield asker.session
            return
        now = asker.session
        then = Session(PastLedger(now.ledger, await moment(now.ledger, with_plus(at))), now.name, now.keypair)
        try:
            yield await then.open()
        finally:
            await then.close()


async def _full(session: Session, process: Process) -> dict[str, Any]:
    """The process, with what the Object Store keeps of it; what is too large, or gone, is in `left_out`."""
    phase = process.phase
    left_out: list[str] = []
    args: Any = ...
    output: Any = ...
    if process.arguments is not None:
        loaded = await _loaded(session, process.arguments, left_out, "args")
        args = loaded[0] if isinstance(loaded, list) and loaded else None
    if isinstance(phase, Successful) and phase.stored is not None:
        output = await _loaded(session, phase.stored, left_out, "output")
    shown = process_object(process, args=args, output=output)
    return {**shown, "left_out": left_out} if left_out else shown


async def _loaded(session: Session, ref: Ref, left_out: list[str], name: str) -> Any:
    try:
        if ref.size_bytes <= MAX_LOADED_BYTES:
            return await values.load(session.ledger, ref)
    except ColoniesError:  # it is gone, or not what the event says
        pass
    left_out.append(name)
    return None
