"""The streams of a colony: their settings, and how a new colony gets them.

Only whoever holds the account key makes streams; no member may change or delete one. The settings of LEDGER
are promises (DESIGN.md section 3): no limits, no deletion, every stored event republished on the feed.
"""

from __future__ import annotations

import json
from typing import Any

from colonies import subjects
from colonies.creds import Credential
from colonies.errand import errand
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
    async with errand(url, admin, wait_s=wait_s) as ask:
        for config in configs(replicas):
            name = config["name"]
            if "error" not in json.loads(await ask(f"$JS.API.STREAM.INFO.{name}", b"")):
                continue
            made = json.loads(await ask(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode()))
            if "error" in made:
                raise Unavailable(
                    f"the broker does not make the stream {name}: {made['error']['description']}"
                )
