"""Who may do what at the broker, written down a second time and on purpose not derived from `colonies.roles`:
a table there that grants more, or less, fails against this one.

`o` owner, `u` user, `w` worker, `b` observer, `s` service. `me` is the member, `you` somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping

LETTERS = {"o": "owner", "u": "user", "w": "worker", "b": "observer", "s": "service"}
ALL = "ouwbs"
NOBODY = ""

# Every kind of event, said in one's own name. In another's name: nobody, whatever it is.
EVENTS = {
    # On the wire all three are `queued`: the readers tell them apart.
    "process.queued": "ouws",
    "process.requeued": "ouws",
    "process.released": "ouws",
    "process.submitted": "ou",
    "process.assigned": "w",
    "process.renewed": "w",
    "process.returned": "w",
    "process.completed": "w",
    "process.failed": "w",
    "process.poisoned": "ws",
    "process.expired": "ws",
    "process.cancelled": "ous",
    "process.awaited": "s",
    "process.skipped": "s",
    "process.received": "s",
    "process.signalled": "ou",
    "process.anything": NOBODY,
    "queue.declared": "ous",
    "queue.retired": "s",
    "queue.paused": "o",
    "queue.resumed": "o",
    "worker.started": "w",  # of itself; of another worker: nobody
    "worker.stopped": "w",
    "member.approved": "o",
    "member.rotated": "o",
    "member.revoked": "o",
    "member.drained": "o",
    "member.resumed": "o",
    "colony.genesis": "o",
    "colony.configured": "o",
    "colony.paused": "o",
    "colony.resumed": "o",
    "workflow.part": "ou",
    "workflow.submitted": "ous",
    "workflow.cancelled": "ou",
    "workflow.signalled": "ou",
    "workflow.anything": NOBODY,
    "limit.granted": "s",
    "limit.anything": NOBODY,
    "cron.added": "ou",
    "cron.paused": "ou",
    "cron.resumed": "ou",
    "cron.removed": "ou",
    "cron.anything": NOBODY,
    "generator.added": "ou",
    "generator.packed": "ou",
    "generator.removed": "ou",
    "generator.anything": NOBODY,
    "webhook.added": "o",
    "webhook.changed": "o",
    "webhook.removed": "o",
    "webhook.anything": NOBODY,
}

STREAMS = ("LEDGER", "HEARTBEATS", "LOGS", "TIMERS", "OBJ_values", "EVIL")

# What may be asked of a stream, and who may: per stream, else nobody.
_READERS = {"LEDGER": ALL, "HEARTBEATS": ALL, "LOGS": ALL}
OF_STREAMS: dict[str, dict[str, str]] = {
    "$JS.API.STREAM.INFO.{}": _READERS,
    "$JS.API.STREAM.MSG.GET.{}": _READERS,
    "$JS.API.DIRECT.GET.{}": {**_READERS, "OBJ_values": ALL},
    "$JS.API.DIRECT.GET.{}.x.y": {**_READERS, "OBJ_values": ALL},
    "$JS.API.STREAM.CREATE.{}": {},
    "$JS.API.STREAM.UPDATE.{}": {},
    "$JS.API.STREAM.DELETE.{}": {},
    "$JS.API.STREAM.PURGE.{}": {},
    "$JS.API.STREAM.MSG.DELETE.{}": {},
    "$JS.API.STREAM.SNAPSHOT.{}": {},
    "$JS.API.STREAM.RESTORE.{}": {},
    "$JS.API.STREAM.LEADER.STEPDOWN.{}": {},
    "$JS.API.STREAM.PEER.REMOVE.{}": {},
    "$JS.SNAPSHOT.RESTORE.{}.1": {},
    "$JS.SNAPSHOT.ACK.{}.1": {},
}
OF_CONSUMERS: dict[str, dict[str, str]] = {
    "$JS.API.CONSUMER.CREATE.{}.probe": {"LEDGER": "s", "TIMERS": "s"},
    "$JS.API.CONSUMER.CREATE.{}.probe.x.y": {"LEDGER": "s", "TIMERS": "s"},
    "$JS.API.CONSUMER.CREATE.{}": {},
    "$JS.API.CONSUMER.DURABLE.CREATE.{}.probe": {},
    "$JS.API.CONSUMER.INFO.{}.probe": {"LEDGER": "s"},
    "$JS.API.CONSUMER.DELETE.{}.probe": {"LEDGER": "s"},
    "$JS.API.CONSUMER.LIST.{}": {},
    "$JS.API.CONSUMER.NAMES.{}": {},
    "$JS.API.CONSUMER.PAUSE.{}.probe": {},
    "$JS.API.CONSUMER.RESET.{}.probe": {},
    "$JS.API.CONSUMER.UNPIN.{}.probe": {},
    "$JS.API.CONSUMER.LEADER.STEPDOWN.{}.probe": {},
    "$JS.API.CONSUMER.MSG.NEXT.{}.probe": {"LEDGER": "w", "TIMERS": "s"},
    "$JS.ACK.{}.probe.1.1.1.1.1": dict.fromkeys(STREAMS, "ws"),
    "$JS.FC.{}.probe.1": {},
}

# Everything else that somebody could publish on.
ACCOUNT = {
    "$JS.API.INFO": NOBODY,
    "$JS.API.STREAM.NAMES": NOBODY,
    "$JS.API.STREAM.LIST": NOBODY,
    "$JS.API.STREAM.TEMPLATE.CREATE.x": NOBODY,
    "$JS.API.ACCOUNT.PURGE.x": NOBODY,
    "$JS.API.ACCOUNT.STREAM.MOVE.x.y": NOBODY,
    "$JS.API.META.LEADER.STEPDOWN": NOBODY,
    "$JS.API.SERVER.REMOVE": NOBODY,
    "$JS.EVENT.ADVISORY.x": NOBODY,
    "$SYS.REQ.USER.INFO": NOBODY,
    "$SYS.REQ.SERVER.PING": NOBODY,
    "$SYS.REQ.CLAIMS.UPDATE": NOBODY,
    "$SYS.REQ.ACCOUNT.PING.CONNZ": NOBODY,
    "_R_.colonies.api.STREAM.DELETE.LEDGER": NOBODY,
    "_R_.colonies.api.STREAM.INFO.LEDGER": ALL,  # as without the gate
    "COLONIES.CLOSED.x": NOBODY,
    "operator.x": NOBODY,
    "query.x": ALL,
    "$SRV.PING": ALL,
    "$SRV.PING.x": ALL,
    "$SRV.INFO": ALL,
    "$SRV.INFO.x": ALL,
    "$SRV.STATS": ALL,
    "$SRV.STATS.x": ALL,
    "$SRV.x": NOBODY,
    "$KV.x.y": NOBODY,
    "evil": NOBODY,
    "ledger.x": NOBODY,
}
FEED = {
    "feed.process.P.completed.me": NOBODY,
    "feed.process.P.completed.you": NOBODY,
    "feed.member.x.approved.me": NOBODY,
    "feed.x": NOBODY,
}
INBOXES = {"{you}.x": NOBODY, "_INBOX.x": NOBODY, "_R_.x": NOBODY}
NOTES = {
    "heartbeat.me.i": "w",
    "heartbeat.you.i": NOBODY,
    "log.P.me": "w",
    "log.P.you": NOBODY,
    "$O.values.C.me.x": "ouw",
    "$O.values.C.you.x": NOBODY,
    "$O.values.M.x": "ouw",
}
TIMERS = {"timers.at.P": "s", "timers.due.P": "s"}

LISTEN = {
    "{me}.x": ALL,
    "feed.>": ALL,
    "log.>": ALL,
    "heartbeat.>": ALL,
    "{you}.x": NOBODY,
    "{you}.>": NOBODY,
    "_INBOX.>": NOBODY,
    "*.>": NOBODY,
    ">": NOBODY,
    "ledger.>": NOBODY,
    "ledger.process.P.completed.me": NOBODY,
    "timers.>": NOBODY,
    "$O.values.>": NOBODY,
    "$JS.ACK.>": NOBODY,
    "$JS.API.>": NOBODY,
    "$JS.EVENT.>": NOBODY,
    "$SYS.>": NOBODY,
    "_R_.>": NOBODY,
    "COLONIES.CLOSED.>": NOBODY,
    "query.>": "b",
    "query.processes": "b",
    "$SRV.>": "b",
    "operator.>": NOBODY,
}


def events(me: str) -> dict[str, str]:
    """The subject of every kind of event, in the name of `me` and of `you`, and who may publish on it."""
    table: dict[str, str] = {}
    for kind, may in EVENTS.items():
        entity, event = kind.split(".")
        for author in (me, "you"):
            granted = may if author == me else NOBODY
            if kind in ("process.queued", "process.requeued", "process.released"):
                table[f"ledger.process.P.queued.q.{author}"] = granted
            elif entity == "colony":
                table[f"ledger.colony.{event}.{author}"] = granted
            elif entity == "worker":
                table[f"ledger.worker.{me}.{event}.{author}"] = granted
                table[f"ledger.worker.you.{event}.{author}"] = NOBODY
            else:
                table[f"ledger.{entity}.P.{event}.{author}"] = granted
    return table


def of_streams(table: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """A table of what may be asked of streams, for each stream."""
    return {
        pattern.format(stream): granted.get(stream, NOBODY)
        for pattern, granted in table.items()
        for stream in STREAMS
    }


def named(table: Mapping[str, str], me: str) -> dict[str, str]:
    """A table with a member's name in the place of `me`."""
    parts = {"me": me}
    return {".".join(parts.get(p, p) for p in subject.split(".")): may for subject, may in table.items()}


def everything(me: str) -> dict[str, str]:
    """All that is probed, and who may publish on it."""
    return {
        **events(me),
        **of_streams(OF_STREAMS),
        **of_streams(OF_CONSUMERS),
        **ACCOUNT,
        **TIMERS,
        **named(FEED, me),
        **named(NOTES, me),
    }
