"""What is sent: an event of the ledger as a CloudEvent, or the test event; its id, and the secret that signs.

The event is read from the ledger each time, and looked at as every reader does. Its id derives from where it
stands and what it says: whoever hears it twice sees the same one, and no member can give an event the id of
another's.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from colonies.core.webhooks import Webhook
from colonies.errors import Invalid, NotFound, Unavailable
from colonies.ids import new_id
from colonies.jetstream import JetStreamLedger
from colonies.session import Session
from colonies.show import rfc3339
from colonies.show_event import cloud_event
from colonies.webhooks import secret_of
from colonies_projections.webhooks.book import Delivery
from colonies_projections.webhooks.line import NotNow

DIGEST_CHARS: Final = 16  # of an event, in the id of its deliveries

Message = tuple[bytes, str, bytes]
"""A secret, an id, a body."""


async def event_message(session: Session, webhook: Webhook, delivery: Delivery) -> Message:
    """What is sent of an event. Raises NotNow; LookupError if there is nothing to send any more."""
    assert isinstance(session.ledger, JetStreamLedger)
    try:
        secret = secret_of(session, webhook)
        seen = await session.examine(await session.ledger.at(delivery.sequence))
    except NotFound:
        raise LookupError("the ledger has this event no more") from None
    except (Invalid, Unavailable) as error:
        raise NotNow(str(error)) from None
    if seen.record is None:
        raise LookupError("the ledger has another event there now")
    id = f"evt_{delivery.sequence}_{seen.record.digest.hex()[:DIGEST_CHARS]}"
    return secret, id, _json(cloud_event(seen, session.colony))


def test_message(session: Session, webhook: Webhook) -> Message:
    """What is sent to try an address. Raises Invalid: the secret cannot be opened."""
    id = new_id()
    event = {
        "specversion": "1.0",
        "id": id,
        "source": f"colonies:{session.colony.key}",
        "type": "colonies.webhook.test",
        "subject": f"webhook/{webhook.name}",
        "time": rfc3339(time.time_ns()),
        "datacontenttype": "application/json",
        "data": {"webhook": webhook.name, "service": session.name},
    }
    return secret_of(session, webhook), f"test_{id}", _json(event)


def _json(event: dict[str, Any]) -> bytes:
    try:
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise LookupError("this event cannot be written as JSON") from None
