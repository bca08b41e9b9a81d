"""The streams of a colony: their settings, and how a new colony gets them.

Only whoever holds the account key makes streams; no member may change or delete one. The settings of LEDGER
are promises (DESIGN.md section 3): no limits, no deletion, every stored event republished on the feed.
"""

from __future__ import annotations

import json
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from colonies import subjects
from colonies.creds import Credential
from colonies.errors import Unavailable

DAY_NS = 86_400 * 1_000_000_000
MIB = 1024 * 1024

_COMMON: dict[str, Any] = {
    "storage": "file",
    "retention": "limits",
    "discard": "old",
    "max_consumers": -1,
    "allow_direct": True,
}


def configs(replicas: int = 1) -> list[dict[str, Any]]:
    """The streams of a colony as the JetStream API takes them."""
    return [
        {
            **_COMMON,
            "name": subjects.LEDGER,
            "subjects": ["ledger.>"],
            "num_replicas": replicas,
            "deny_delete": True,
            "allow_atomic": True,
            "republish": {"src": "ledger.>", "dest": "feed.>"},
        },
        {
            **_COMMON,
            "name": subjects.HEARTBEATS,
            "subjects": ["heartbeat.>"],
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "max_age": 7 * DAY_NS,
            "max_bytes": 256 * MIB,
        },
        {
            **_COMMON,
            "name": subjects.LOGS,
            "subjects": ["log.>"],
            "num_replicas": replicas,
            "max_age": 30 * DAY_NS,
            "max_bytes": 4_096 * MIB,
        },
        {
            **_COMMON,
            "name": subjects.TIMERS,
            "subjects": ["timers.>"],
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "allow_msg_schedules": True,
            "allow_msg_ttl": True,
            "allow_rollup_hdrs": True,
        },
        {
            **_COMMON,
            "name": subjects.VALUES,
            "num_replicas": replicas,
            "deny_delete": True,
            "subjects": [f"$O.{subjects.VALUES_BUCKET}.C.>", f"$O.{subjects.VALUES_BUCKET}.M.>"],
        },
    ]


async def create(url: str, admin: Credential, *, replicas: int = 1, wait_s: int = 10) -> None:
    """Make the streams that are not there yet; those that are stay as they are.

    Raises:
        Unavailable: the broker does not answer or does not want them; the message says which.
    """
    client = Client()
    try:
        await client.connect(
            url,
            user_jwt_cb=admin.user_jwt,
            signature_cb=admin.signature,
            allow_reconnect=False,
            inbox_prefix=admin.inbox_prefix,
            connect_timeout=wait_s,
            error_cb=_quiet,
        )
        for config in configs(replicas):
            name = config["name"]
            info = json.loads((await client.request(f"$JS.API.STREAM.INFO.{name}", b"", timeout=wait_s)).data)
            if "error" not in info:
                continue
            made = await client.request(
                f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode(), timeout=wait_s
            )
            error = json.loads(made.data).get("error")
            if error is not None:
                raise Unavailable(f"the broker does not make the stream {name}: {error['description']}")
    except (NatsError, OSError, TimeoutError) as error:
        raise Unavailable(
            f"the streams could not be made at {url}: {error or type(error).__name__}"
        ) from None
    finally:
        await client.close()


async def _quiet(_: Exception) -> None:
    """What goes wrong comes out of the request."""
