"""Where the service is asked: how it goes with each webhook, for dead letters, and by owners' orders.

    query.webhooks.<service>   {}                                  ->  {"items": [...], "position": 1234}
                               {"webhook": "ops", "dead": 20}      ->  ... with the latest dead letters
                               {"request": "<an order, signed>"}  ->  {"items": [{...}]}

Any member may ask how it goes; it says no more than that and what the ledger has. Only a member's own
inbox is answered, as by every projector.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.micro.request import Request

from colonies import subjects
from colonies.errors import ColoniesError, Invalid
from colonies.webhook_orders import KINDS
from colonies_projections.answering import Endpoint, answering

SERVICE: Final = "colonies-webhooks"
MAX_DEAD_SHOWN: Final = 1_000
MAX_UNDER_WAY: Final = 32  # questions
MAX_QUESTION_BYTES: Final = 65_536

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

_log = structlog.get_logger("colonies.webhooks")


@contextlib.asynccontextmanager
async def open_desk(
    client: Client, member: str, answer: Answer, group: asyncio.TaskGroup
) -> AsyncIterator[None]:
    """Answer questions to this member within this block. What takes long is done in the group."""
    endpoint = Endpoint("webhooks", subjects.webhooks_at(member), _handler(answer, group), member)
    async with answering(client, SERVICE, "Sends to webhooks", [endpoint]):
        yield


def _handler(answer: Answer, group: asyncio.TaskGroup) -> Callable[[Request], Awaitable[None]]:
    under_way: set[asyncio.Task[None]] = set()

    async def handle(request: Request) -> None:
        """nats-py brings one question after the other: none shall wait for a receiver."""
        if len(under_way) >= MAX_UNDER_WAY:
            await request.respond(json.dumps({"error": "too many questions; ask again in a moment"}).encode())
            return
        task = group.create_task(reply(request), name="question")
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    async def reply(request: Request) -> None:
        try:
            found = await answer(_question(request.data))
        except ColoniesError as error:
            kind = next((word for word, kind in KINDS.items() if isinstance(error, kind)), "behind")
            found = {"error": str(error), "kind": kind}
        except Exception:
            _log.exception("question not answered")
            found = {"error": "an error that is ours; its log has more", "kind": "behind"}
        with contextlib.suppress(NatsError):
            await request.respond(json.dumps(found).encode())

    return handle


def _question(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_QUESTION_BYTES:
        raise Invalid(f"the question has {len(data)} bytes; at most {MAX_QUESTION_BYTES} are allowed")
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise Invalid("the question is no JSON") from None
    match found:
        case {"request": request} if len(found) == 1:
            return {"request": request}
        case {"webhook": str() as name, "dead": int() as most} if len(found) == 2:
            return {"webhook": name, "dead": max(0, min(most, MAX_DEAD_SHOWN))}
        case {"webhook": str()} if len(found) == 1:
            return dict(found)
        case {} if not found:
            return {}
    raise Invalid(
        'this is no question; allowed: {}, {"webhook": "ops"}, {"webhook": "ops", "dead": 20}, an order'
    )
