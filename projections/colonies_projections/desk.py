"""Where questions are answered: each view as an endpoint of the NATS service `colonies-projector`.

    query.processes  {"state": "failed", "limit": 10}  ->  {"items": [...], "position": 9, "cursor": "..."}

Several projectors share the work (one queue group); `$SRV.PING`, `.INFO` and `.STATS` find them. The broker
lets a projector publish to the reply subject of whatever it is asked, and the asker chooses that subject. So
only a member's own inbox is answered, never a stream, the feed or the JetStream API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any, cast

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.micro.request import Request
from nats.micro.service import Service, ServiceConfig
from pydantic_core import to_json

from colonies.errors import ColoniesError, Invalid, Refused, Unavailable
from colonies.tasks import cancellable
from colonies_projections.question import Question, cursor, read_question
from colonies_projections.standing import REBUILD, SUBJECT, Standing
from colonies_projections.view import Asking, Page

SERVICE = "colonies-projector"
QUEUE_GROUP = "projectors"
CLOSE_S = 2.0
MAX_ANSWER_BYTES = 900_000  # the broker takes 1 MiB; the rest is room for what is around the items

_INBOX = re.compile(r"_INBOX_U[A-Z2-7]{55}(\.[A-Za-z0-9_-]+)+")

DEFECT = "a defect of the projector; its log says more"

Answer = Callable[[str, Question], Awaitable[tuple[Page, int]]]

_log = structlog.get_logger("colonies.projector")


@contextlib.asynccontextmanager
async def open_desk(
    client: Client, views: Sequence[Asking], answer: Answer, standing: Standing
) -> AsyncIterator[None]:
    """Answer questions within this block. `answer` gives the items of a view, and of which position."""
    # nats-py asks datetime for the time in a way that is deprecated from Python 3.12 on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        config = ServiceConfig(
            name=SERVICE, version=_version(), description="Views of the ledger", queue_group=QUEUE_GROUP
        )
        service = Service(cast(Client, _OnlyInboxes(client)), config)
        await cancellable(service.start())
    try:
        for view in views:
            await service.add_endpoint(
                name=view.name, subject=f"query.{view.name}", handler=_handler(view, answer), metadata={}
            )
        # Of these every projector answers: a queue group of one.
        alone = f"projector-{client._nuid.next().decode()}"
        for name, subject, said in (
            ("projections", SUBJECT, standing.answer),
            ("rebuild", REBUILD, standing.rebuild),
        ):
            await service.add_endpoint(
                name=name, subject=subject, handler=_of_standing(said), queue_group=alone, metadata={}
            )
        # nats-py may send the first PING before the subscriptions that wait to be sent, the second never.
        for _ in range(2):
            await cancellable(client.flush())
        yield
    finally:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await cancellable(service.stop())


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


class _OnlyInboxes:
    """A client as `Service` uses it, which hears only what asks for the answer to a member's inbox."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._nuid = client._nuid

    async def subscribe(
        self, subject: str, queue: str = "", *, cb: Callable[[Msg], Awaitable[None]]
    ) -> Subscription:
        async def guarded(msg: Msg) -> None:
            if not _INBOX.fullmatch(msg.reply):
                _log.debug("not answered: the reply subject is no member's inbox", reply=msg.reply)
                return
            try:
                await cb(msg)
            except NatsError as error:
                _log.debug("answer not sent", error=str(error))

        return await self._client.subscribe(subject, queue=queue, cb=guarded)

    async def flush(self) -> None:
        await self._client.flush()


def _version() -> str:
    """This package's version, if it is one as the protocol wants it."""
    found = re.match(r"\d+\.\d+\.\d+", version("colonies"))
    return found[0] if found else "0.0.0"
