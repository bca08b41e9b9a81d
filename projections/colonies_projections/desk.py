"""Where questions are answered: each view as an endpoint of the NATS service `colonies-projector`.

    query.processes  {"state": "failed", "limit": 10}  ->  {"items": [...], "position": 9, "cursor": "..."}

Several projectors share the work (one queue group); `$SRV.PING`, `.INFO` and `.STATS` find them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import structlog
from nats.aio.client import Client
from nats.micro.request import Request
from pydantic_core import to_json

from colonies.errors import ColoniesError, Invalid, Refused, Unavailable
from colonies_projections.answering import Endpoint, answering
from colonies_projections.question import Question, cursor, read_question
from colonies_projections.standing import REBUILD, SUBJECT, Standing
from colonies_projections.view import Asking, Page

SERVICE = "colonies-projector"
QUEUE_GROUP = "projectors"
MAX_ANSWER_BYTES = 900_000  # the broker takes 1 MiB; the rest is room for what is around the items

DEFECT = "a defect of the projector; its log says more"

Answer = Callable[[str, Question], Awaitable[tuple[Page, int]]]

_log = structlog.get_logger("colonies.projector")


@contextlib.asynccontextmanager
async def open_desk(
    client: Client, views: Sequence[Asking], answer: Answer, standing: Standing
) -> AsyncIterator[None]:
    """Answer questions within this block. `answer` gives the items of a view, and of which position."""
    alone = f"projector-{client._nuid.next().decode()}"  # of these every projector answers
    endpoints = [
        *(Endpoint(view.name, f"query.{view.name}", _handler(view, answer), QUEUE_GROUP) for view in views),
        Endpoint("projections", SUBJECT, _of_standing(standing.answer), alone),
        Endpoint("rebuild", REBUILD, _of_standing(standing.rebuild), alone),
    ]
    async with answering(client, SERVICE, "Views of the ledger", endpoints):
        yield


def _handler(view: Asking, answer: Answer) -> Callable[[Request], Awaitable[None]]:
    async def handle(request: Request) -> None:
        try:
            answered = await reply(view, request.data, answer)
        except Exception:
            _log.exception("question not answered", view=view.name)
            answered = to_json({"error": DEFECT, "kind": "defect"})
        await request.respond(answered)

    return handle


def _of_standing(
    answer: Callable[[bytes], Awaitable[dict[str, Any]]],
) -> Callable[[Request], Awaitable[None]]:
    async def handle(request: Request) -> None:
        try:
            answered = to_json(await answer(request.data))
        except ColoniesError as error:
            answered = error_answer(error)
        await request.respond(answered)

    return handle


def error_answer(error: ColoniesError) -> bytes:
    """`{error, kind}`: what is wrong, with the question (`invalid`), with who asks (`refused`), or only for
    now (`behind`). What is wrong with the projector itself is a `defect`."""
    kind = "behind"
    if isinstance(error, Invalid | Refused):
        kind = "invalid" if isinstance(error, Invalid) else "refused"
    return to_json({"error": str(error), "kind": kind})


async def reply(view: Asking, said: bytes, answer: Answer) -> bytes:
    """The answer to a question, as JSON: `{items, position}`, or `{error}`.

    Where there is more, `cursor` says how to go on; `cut` that not all fit, in a list without pages.
    """
    try:
        question = read_question(view, said)
        page, position = await answer(view.name, question)
    except (Invalid, Unavailable) as error:
        return error_answer(error)
    packed: list[bytes] = []
    size_bytes = 0
    for item in page.items:
        packed.append(_packed(item))
        size_bytes += len(packed[-1]) + 1
        if size_bytes > MAX_ANSWER_BYTES:
            packed.pop()
            break
    rest = b""
    if page.keys and packed and (page.more or len(packed) < len(page.items)):
        rest = b',"cursor":"%s"' % cursor(question.about, page.keys[len(packed) - 1]).encode()
    elif len(packed) < len(page.items):
        rest = b',"cut":true'
    return b'{"items":[%s],"position":%d%s}' % (b",".join(packed), position, rest)


def _packed(item: dict[str, Any]) -> bytes:
    """An item as JSON. What Pydantic can just hold by itself may be too deep for it within an item."""
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()
