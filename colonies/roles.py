"""The roles of a colony: for each, what it is for, what it may say, and what it may publish and subscribe.

One table, from which everything else is derived: the permission templates that the broker enforces (they go
into the account's token, one scoped signing key per role), the tables about roles in the docs, and the tests
that hold the broker and the rules of `colonies.core` against it. `{{name()}}`
becomes the member's name and `{{subject()}}` its public key when it logs in. What is not listed is forbidden:
nobody may publish to `feed.>`, and nobody but the service may create, change or delete consumers.

These are broker permissions, the first fence. Whether an event is *true* is for the verifiers, who trust no
fence. nats-server does not check the *reply* subject of a publish, and the answer goes out with the account's
own rights. So a member can have the broker store bytes of its choice under any subject: what it signed
itself, or what nobody signed, for which nobody may be blamed.

It cannot have an answer taken for an order to delete a stream or a consumer. Within a colony's account the
JetStream API answers behind GATE only, whose prefix the broker forbids in replies; mappings in the account's
token put there what a client publishes on `$JS.API`, and they do not touch what the broker itself sends. So
the broker checks, and names in its refusals, the subject behind the gate.

This module never checks an event, and it holds no member: it only says what each role may do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from colonies.errors import Invalid

RoleName = Literal["owner", "user", "worker", "observer", "service"]

INBOX = "_INBOX_{{subject()}}"  # a member's own inbox prefix, without the dot after it

API = "$JS.API"
GATE = "_R_.colonies.api"  # nats-server refuses any client's publish with a reply that begins with `_R_.`
CLOSED = "COLONIES.CLOSED"  # where an answer that is addressed to the API goes: nobody listens there

# What goes through the gate. Direct gets and pulls are no part of it: the streams themselves listen to them.
GATED = (
    "INFO",
    "STREAM.>",
    *(
        f"CONSUMER.{verb}.>"
        for verb in ("CREATE", "DURABLE", "DELETE", "INFO", "LIST", "NAMES", "PAUSE", "LEADER")
    ),
)

ANSWER_MESSAGES = 10_000  # a streamed answer to one question; the broker stops it after as many messages ...
ANSWER_SECONDS = 120  # ... or after this time


@dataclass(frozen=True, slots=True)
class Role:
    """One row of the table. `says` are types of events; `asks` and `subscribe` are NATS subject templates.

    `asks` is what it may publish beside its events: questions, heartbeats, logs, values. `answers` lets the
    role publish to the reply subject of whatever it received, up to ANSWER_MESSAGES messages within
    ANSWER_SECONDS seconds each.
    """

    name: RoleName
    purpose: str
    says: tuple[str, ...]
    asks: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False

    @property
    def publish(self) -> tuple[str, ...]:
        """All that it may publish: its events in its own name, and what it asks."""
        return (*dict.fromkeys(map(_subject_of, self.says)), *self.asks)


def _subject_of(event: str) -> str:
    """Where a member says events of this type: about anything, but a worker's about itself."""
    kind, _, name = event.partition(".")
    match kind:
        case "process" if name in ("queued", "requeued", "released"):
            return "ledger.process.*.queued.*.{{name()}}"
        case "colony":
            return f"ledger.colony.{name}.{{{{name()}}}}"
        case "worker":
            return f"ledger.worker.{{{{name()}}}}.{name}.{{{{name()}}}}"
    return f"ledger.{kind}.*.{name}.{{{{name()}}}}"


def _each(pattern: str, *words: str) -> tuple[str, ...]:
    """`pattern` once for each word, put in the place of `@`."""
    return tuple(pattern.replace("@", word) for word in words)


_READ = (
    *_each("$JS.API.DIRECT.GET.@", "LEDGER", "HEARTBEATS", "LOGS", "OBJ_values"),
    *_each("$JS.API.DIRECT.GET.@.>", "LEDGER", "HEARTBEATS", "LOGS", "OBJ_values"),
    *_each("$JS.API.STREAM.MSG.GET.@", "LEDGER", "HEARTBEATS", "LOGS"),
    *_each("$JS.API.STREAM.INFO.@", "LEDGER", "HEARTBEATS", "LOGS"),
    "query.>",
    *_each("$SRV.@", "PING", "INFO", "STATS"),
    *_each("$SRV.@.>", "PING", "INFO", "STATS"),
)
_LISTEN = (f"{INBOX}.>", "feed.>", "log.>", "heartbeat.>")
_STORE_VALUES = ("$O.values.C.{{name()}}.*", "$O.values.M.*")
_SUBMIT = (
    *_each("process.@", "queued", "submitted", "cancelled", "signalled"),
    "queue.declared",
    *_each("workflow.@", "part", "submitted", "cancelled", "signalled"),
    *_each("cron.@", "added", "paused", "resumed", "removed"),
    *_each("generator.@", "added", "packed", "removed"),
)

_TABLE = (
    Role(
        name="owner",
        purpose="Owns the colony: all that a user may, who is a member, what is set, where events are sent.",
        says=(
            *_SUBMIT,
            *_each("member.@", "approved", "rotated", "revoked", "drained", "resumed"),
            *_each("colony.@", "genesis", "configured", "paused", "resumed"),
            *_each("queue.@", "paused", "resumed"),
            *_each("webhook.@", "added", "changed", "removed"),
        ),
        asks=(*_READ, *_STORE_VALUES),
        subscribe=_LISTEN,
    ),
    Role(
        name="user",
        purpose="Submits processes, workflows, crons and generators, waits for results, cancels, signals.",
        says=_SUBMIT,
        asks=(*_READ, *_STORE_VALUES),
        subscribe=_LISTEN,
    ),
    Role(
        name="worker",
        purpose="Pulls offers from the queues it meets, runs them, and says how that ended.",
        says=(
            *_each("process.@", "assigned", "renewed", "returned", "completed", "failed"),
            *_each("process.@", "poisoned", "expired", "released"),
            *_each("worker.@", "started", "stopped"),
        ),
        asks=(
            *_READ,
            "heartbeat.{{name()}}.*",
            "log.*.{{name()}}",
            "$JS.API.CONSUMER.MSG.NEXT.LEDGER.*",
            "$JS.ACK.>",
            *_STORE_VALUES,
        ),
        subscribe=_LISTEN,
    ),
    Role(
        name="observer",
        purpose="Reads everything and answers questions about it (projectors, dashboards). Adds nothing.",
        says=(),
        asks=_READ,
        subscribe=(*_LISTEN, "query.>", "$SRV.>"),
        answers=True,
    ),
    Role(
        name="service",
        purpose="The orchestrator: makes queues' consumers, releases, re-offers, ends, starts what is due.",
        says=(
            *_each("process.@", "requeued", "poisoned", "expired", "cancelled"),
            *_each("process.@", "released", "awaited", "skipped", "received"),
            "workflow.submitted",
            *_each("queue.@", "declared", "retired"),
            "limit.granted",
        ),
        asks=(
            *_READ,
            *_each("$JS.API.CONSUMER.CREATE.@.>", "LEDGER", "TIMERS"),
            *_each("$JS.API.CONSUMER.@.LEDGER.*", "INFO", "DELETE"),
            "$JS.API.CONSUMER.MSG.NEXT.TIMERS.*",
            "$JS.ACK.>",
            "timers.>",
        ),
        subscribe=_LISTEN,
    ),
)

ROLES: Mapping[RoleName, Role] = MappingProxyType({role.name: role for role in _TABLE})


def role_named(name: str) -> Role:
    """The role of that name. Raises Invalid, naming those there are."""
    for role in _TABLE:
        if role.name == name:
            return role
    raise Invalid(f"there is no role {name!r}; roles are {', '.join(get_args(RoleName))}")


def gate_mappings() -> dict[str, str]:
    """The mappings of a colony's account: from the API's subjects to those behind the gate.

    And from the feed to nowhere: an observer may answer what it is asked, also by itself, with what it likes,
    on whatever subject the question names.
    """
    return {f"{API}.{part}": f"{GATE}.{part}" for part in GATED} | {"feed.>": f"{CLOSED}.feed.>"}


def gated(subject: str) -> str:
    """The subject that the broker checks when a client publishes on `subject`."""
    for part in GATED:
        prefix = f"{API}.{part.removesuffix('>')}"
        if subject == prefix or (part.endswith(">") and subject.startswith(prefix)):
            return GATE + subject.removeprefix(API)
    return subject


def template(name: str) -> dict[str, Any]:
    """The role as the template of a scoped signing key: `{"pub", "sub", "resp"?, "subs", "data", "payload"}`.

    Raises Invalid for an unknown role.
    """
    role = role_named(name)
    scoped: dict[str, Any] = {
        "pub": {"allow": [gated(subject) for subject in role.publish]},
        "sub": {"allow": list(role.subscribe)},
        "subs": -1,
        "data": -1,
        "payload": -1,
    }
    if role.answers:
        scoped["resp"] = {"max": ANSWER_MESSAGES, "ttl": ANSWER_SECONDS * 1_000_000_000}
    return scoped
