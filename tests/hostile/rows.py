"""The attacks, one row each: what is tried, with which role, which fence stops it, and what one sees.

The table in docs/security.md is made of these (`python -m tests.hostile.rows`), and each has exactly one
test, which bears its name: `@row("takeover")`. tests/house/test_security.py holds the three together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Row:
    """One attack. `fence` is one of FENCES; `seen` is what the colony's members see of it."""

    id: str
    attack: str
    role: str
    fence: str
    seen: str


def row(id: str) -> Callable[[Test], Test]:
    """This test is that of the row."""
    assert any(known.id == id for known in ROWS), f"there is no row {id}"
    return lambda test: test


FENCES = {
    "broker": "the broker",
    "readers": "every reader",
    "both": "the broker, then every reader",
    "work": "it is made good",
    "http": "the HTTP server",
    "none": "nothing",
}
QUARANTINED = "quarantined, with the author's name"
DAMAGED = "`damaged`: nobody's word"
UNAUTHORIZED = "401, which tells what its bearer holds anyway"
REFUSED = "a refusal to the attacker; nothing is stored"

BROKER = (
    Row(
        "another-name",
        "Say any event in another's name, or one that the role may not say",
        "each",
        "broker",
        REFUSED,
    ),
    Row(
        "stream-orders",
        "Make, change, delete, purge, copy or restore a stream; delete a message",
        "each",
        "broker",
        REFUSED,
    ),
    Row(
        "consumer-orders",
        "Make, change, pause, reset or delete a consumer",
        "each but service",
        "broker",
        REFUSED,
    ),
    Row(
        "account-orders",
        "Ask about or change the account, the cluster, the system",
        "each",
        "broker",
        REFUSED,
    ),
    Row("feed-publish", "Publish on the feed", "each", "broker", REFUSED),
    Row(
        "inbox-listen",
        "Listen to another's inbox, to the ledger's subjects, to everything",
        "each",
        "broker",
        REFUSED,
    ),
    Row("inbox-write", "Publish into another's inbox", "each", "broker", REFUSED),
    Row("note-name", "Heartbeats, logs and stored values in another's name", "each", "broker", REFUSED),
    Row("timers-write", "Set, move or erase timers", "each but service", "broker", REFUSED),
    Row(
        "answer-orders",
        "Have the broker's answer to a read taken for an order to a stream or consumer",
        "each",
        "broker",
        "nothing: it ends where nobody listens",
    ),
    Row("timer-target", "A timer that publishes on the ledger or the feed", "service", "broker", REFUSED),
    Row(
        "bad-token",
        "Log in with the token of another colony, or an expired one",
        "outsider",
        "broker",
        "a refused login",
    ),
)

SAID = (
    Row(
        "wrong-role",
        "Say what the role may not, well formed, signed, past the broker",
        "each",
        "readers",
        QUARANTINED,
    ),
    Row(
        "worker-submission",
        "Submit as a worker, with or without a process that it runs",
        "worker",
        "both",
        QUARANTINED,
    ),
    Row("cancel-anothers", "Cancel another's process", "user", "readers", QUARANTINED),
    Row(
        "live-takeover",
        "Take over a process within its lease, whatever time one claims",
        "worker",
        "readers",
        QUARANTINED,
    ),
    Row(
        "not-the-holder",
        "Complete, fail, return or renew another's attempt",
        "worker",
        "readers",
        QUARANTINED,
    ),
    Row("endless-lease", "Take a process with a lease of a day", "worker", "readers", QUARANTINED),
    Row("not-for-you", "Take a process that is for other workers", "worker", "readers", QUARANTINED),
    Row(
        "guardless",
        "Append without compare-and-set",
        "worker",
        "readers",
        "valid where it is true, else quarantined",
    ),
    Row(
        "two-ends",
        "Two ends of one attempt in one batch",
        "worker",
        "readers",
        "the first is valid, the second quarantined",
    ),
    Row("after-the-end", "Cancel or fail what has ended", "owner, worker", "readers", QUARANTINED),
    Row(
        "replayed",
        "Store an event once more, under its own subject",
        "each",
        "readers",
        "quarantined; it was said once",
    ),
    Row(
        "re-subjected",
        "Store an event under another process's or author's subject",
        "each",
        "readers",
        DAMAGED,
    ),
    Row("reordered", "Store an end before its beginning", "worker", "readers", QUARANTINED),
    Row("backdated", "Claim a time at which it would be true", "worker, service", "readers", QUARANTINED),
    Row(
        "other-colony",
        "Say here what was signed for another colony, with the same names and keys",
        "owner",
        "readers",
        DAMAGED,
    ),
    Row(
        "keyed-id",
        "Take the id that another's key stands for",
        "user",
        "readers",
        "quarantined; the owner of the key gets it",
    ),
    Row("derived-id", "Submit under an id in the form of a derived one", "user", "readers", QUARANTINED),
    Row("taken-id", "Submit under the id of a process that is there", "user", "readers", QUARANTINED),
    Row(
        "lying-submission",
        "Submit into another queue, for another colony; declare a queue under a false name",
        "user",
        "readers",
        QUARANTINED,
    ),
)

AUTHORITY = (
    Row(
        "unapproved-key",
        "A token from a stolen role key, for a key that no owner approved",
        "outsider",
        "readers",
        "quarantined: no member at this point",
    ),
    Row(
        "second-key",
        "A token for a second key of a name, or for the name `*`",
        "outsider",
        "readers",
        DAMAGED,
    ),
    Row("names", "Approve a used name, a known key, a name that is none", "owner", "readers", QUARANTINED),
    Row("approved-twice", "Approve a request a second time", "owner", "readers", QUARANTINED),
    Row(
        "taken-name",
        "Give a member another key without its word, or with a word that was for another change",
        "owner",
        "readers",
        DAMAGED,
    ),
    Row(
        "former-key",
        "Speak with a key that was changed since, with whatever date",
        "worker",
        "readers",
        "quarantined: a key that does not count here",
    ),
    Row(
        "genesis-again",
        "Begin the colony once more, with oneself as its owner",
        "owner",
        "readers",
        QUARANTINED,
    ),
    Row(
        "after-revocation",
        "Speak after one's revocation, with whatever date",
        "worker",
        "readers",
        "quarantined: no member at this point",
    ),
    Row(
        "revoked-is-dropped",
        "Stay connected, or come again, after one's revocation",
        "user",
        "broker",
        "a dropped connection, a refused login",
    ),
    Row(
        "forged-release",
        "Offer a process again too early, citing nothing or another event, into another queue",
        "service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "forged-end",
        "End, as expired, poisoned, cancelled or completed, what has not ended",
        "service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "invented-work",
        "Submit a process, or offer one that nobody submitted",
        "service",
        "readers",
        QUARANTINED,
    ),
)

FORGED = (
    Row(
        "junk",
        "Junk on every subject of a process that one may publish on, while it waits and runs",
        "user, worker, service",
        "readers",
        DAMAGED,
    ),
    Row(
        "malformed",
        "Envelopes that are almost right: cut, doubled, of another version, with other types",
        "worker",
        "readers",
        DAMAGED,
    ),
    Row(
        "oversize",
        "The largest message and the largest headers that the broker takes",
        "user",
        "readers",
        DAMAGED,
    ),
    Row(
        "lying-headers",
        "Headers that say where the message stands, or that are none",
        "user",
        "readers",
        DAMAGED,
    ),
    Row(
        "lying-guard", "An offer whose guard is missing, doubled or ill written", "user", "both", QUARANTINED
    ),
    Row(
        "ruinous-headers",
        "Rollup, expiry, schedule, counter or half a batch on the ledger",
        "user",
        "broker",
        REFUSED,
    ),
    Row(
        "squatted-msg-id",
        "Use up a message id that another might use",
        "user",
        "readers",
        "nothing: honest events have none",
    ),
    Row(
        "hoarded-batches",
        "Open all the batches that the broker allows",
        "user",
        "work",
        "`submit_many(atomic=True)` is refused for 10 s; all else goes on",
    ),
    Row(
        "unsigned-by-reply",
        "Have the broker store unsigned bytes in another's name",
        "each",
        "readers",
        DAMAGED,
    ),
    Row(
        "forged-by-reply",
        "The same with events that fit in all but the signature",
        "observer",
        "readers",
        DAMAGED,
    ),
    Row(
        "heartbeat-erased",
        "Overwrite another's last heartbeat with junk, or with an older one",
        "observer",
        "readers",
        "`worker ls` shows it late, until its next heartbeat",
    ),
    Row("log-forged", "Write into another's log", "observer, worker", "readers", "nothing: it is not shown"),
    Row(
        "value-spoiled",
        "Store more behind another's large value",
        "observer, user, worker",
        "readers",
        "nothing: it is not read",
    ),
    Row("timers-erased", "Empty TIMERS by a rollup", "observer", "work", "a release that is up to 5 s late"),
    Row(
        "feed-forged",
        "Lead an answer, or a delivery with false headers, onto the feed",
        "each",
        "both",
        "nothing: it is not heard",
    ),
    Row(
        "false-answers",
        "Answer questions with lies",
        "observer",
        "readers",
        "a false `process ls`; results and `process get` are the ledger's",
    ),
    Row(
        "name-in-bytes", "Begin a second attempt under the id of the first", "worker", "readers", QUARANTINED
    ),
)

AGAIN = "nothing, or the offer comes again within 30 s"
OFFERS = (
    Row(
        "flood",
        "A thousand messages on a process's subjects, while it waits and runs",
        "user, worker",
        "readers",
        DAMAGED,
    ),
    Row(
        "flooded-node",
        "A flood where a node of another's workflow will be, again and again as it is to be released",
        "user, worker",
        "work",
        "nothing, or the node is released a few seconds after the flood",
    ),
    Row(
        "ugly-values",
        "Results and arguments at every limit of what is an event, and beyond",
        "worker, user",
        "readers",
        "valid up to the limit, `damaged` beyond it",
    ),
    Row("ack-anothers", "Acknowledge an offer without taking it", "worker", "work", AGAIN),
    Row("term-anothers", "Terminate an offer", "worker", "work", AGAIN),
    Row("nak-for-years", "Give an offer back for ten years", "worker", "work", AGAIN),
    Row(
        "keep-for-ever",
        "Keep an offer by saying that one is at it, and never take it",
        "worker",
        "work",
        AGAIN,
    ),
    Row(
        "steal-the-next",
        "Acknowledge an offer and have the next one sent to nowhere",
        "worker",
        "work",
        AGAIN,
    ),
    Row(
        "ack-by-reply",
        "Acknowledge an offer by way of a reply",
        "owner, user, observer",
        "broker",
        "nothing: it takes no such reply",
    ),
    Row(
        "nak-what-runs",
        "Give back the offer of what another runs, again and again, past its lease",
        "worker",
        "readers",
        "nothing: its heartbeats say that it runs",
    ),
    Row(
        "displaced",
        "Give back the offer of what another runs, and overwrite its heartbeat with junk or an old one",
        "worker",
        "readers",
        "nothing: a heartbeat that was tampered with proves no death",
    ),
    Row(
        "ack-what-runs",
        "Acknowledge, terminate or steal the offer of what another runs",
        "worker",
        "readers",
        "nothing: it ends as if nothing had been",
    ),
    Row(
        "queue-deleted",
        "Delete a queue's consumer",
        "service",
        "work",
        "a warning of the orchestrator; " + AGAIN,
    ),
    Row(
        "queue-changed",
        "Pause a queue's consumer, filter it, push it elsewhere, have it begin in the future",
        "service",
        "work",
        "a warning of the orchestrator; " + AGAIN,
    ),
    Row(
        "hoarded-pulls",
        "Park pulls by the thousand and take nothing that comes",
        "worker",
        "work",
        "processes that wait although workers are there, until the hoarder is revoked",
    ),
    Row(
        "lapsed-takeover",
        "Take over a live process a lease after its last word on the ledger",
        "worker",
        "none",
        "an attempt `lost` though its worker lived; the signed `assigned` names who took it",
    ),
)

FLOWS = (
    Row(
        "untrue-release",
        "Release a node whose parents have not ended, too early, citing something else, into another queue",
        "service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "failed-parent",
        "Release or skip a node whose parent failed",
        "service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "worker-release",
        "Release a node that waits for others as well, or for what another finished",
        "worker",
        "readers",
        QUARANTINED,
    ),
    Row(
        "cancelled-flow",
        "Release a node of a cancelled workflow, and run it",
        "service, worker",
        "readers",
        "void, nobody's fault; quarantined if it was untrue without the cancel too",
    ),
    Row(
        "untrue-skip",
        "Skip a node whose condition holds, release one whose condition does not, have one wait",
        "service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "untrue-stop",
        "Cancel a node or a process citing nothing, another's failure, or an allowed one",
        "service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "cancel-anothers-flow",
        "Cancel another's workflow, or a node of it that has not begun",
        "user",
        "readers",
        QUARANTINED,
    ),
    Row(
        "invented-flow",
        "Submit a workflow that no member asked for, and release its nodes",
        "service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "spliced-parts",
        "Put parts into another's workflow, or where another's will be; release nodes of parts",
        "user, service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "squatted-node",
        "Take a node's id for a process of one's own",
        "user",
        "readers",
        QUARANTINED,
    ),
    Row(
        "false-reuse",
        "Take for a node the result of what failed, of another node or workflow, in a circle",
        "user",
        "readers",
        QUARANTINED,
    ),
    Row(
        "forged-signal",
        "Approve in the place of a user, or say that a signal came",
        "worker, observer, service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "foreign-nodes",
        "Add nodes to a workflow without holding the attempt, in a circle, under others' names",
        "worker",
        "readers",
        QUARANTINED,
    ),
    Row(
        "pausing",
        "Pause the colony or a queue, drain a worker",
        "user",
        "readers",
        QUARANTINED,
    ),
    Row(
        "events-abroad",
        "Have events sent to an address of one's own: add or change a webhook, or repeat an owner's",
        "user, worker, observer, service",
        "readers",
        QUARANTINED,
    ),
    Row(
        "ordered-requests",
        "Have the service send requests: an order of one's own, or an owner's once more",
        "user, worker, observer",
        "readers",
        "a refusal to the attacker; nothing is sent",
    ),
    Row(
        "replayed-flow",
        "Store a workflow's and its nodes' events once more, elsewhere, or from another colony",
        "user",
        "readers",
        "quarantined; elsewhere `damaged`",
    ),
)

HTTP = (
    Row(
        "forged-bearer",
        "Show a bearer token that nobody signed, that was altered, or whose header names another algorithm",
        "outsider",
        "http",
        UNAUTHORIZED,
    ),
    Row(
        "bearer-for-another",
        "Make a bearer token for another member, or one that lasts for years",
        "each but owner",
        "http",
        UNAUTHORIZED,
    ),
    Row(
        "foreign-bearer",
        "Show a bearer token of another colony, or a NATS token in its place",
        "owner",
        "http",
        UNAUTHORIZED,
    ),
    Row(
        "stale-bearer",
        "Show a bearer token that has expired, or whose member or maker was revoked or changed its key",
        "user, owner",
        "http",
        UNAUTHORIZED,
    ),
    Row(
        "feed-after-revocation",
        "Keep a feed open over HTTP beyond one's revocation",
        "user",
        "http",
        "the feed ends within a second",
    ),
    Row(
        "bearer-elsewhere",
        "Log in at the broker with a bearer token, or store it as an event",
        "user",
        "both",
        "a refused login; `damaged`: nobody's word",
    ),
    Row(
        "challenge",
        "Have a member sign a bearer token as the challenge of a broker that it logs in to",
        "outsider",
        "http",
        UNAUTHORIZED,
    ),
    Row(
        "half-open",
        "Half-open connections, endless headers, requests that trickle, pipelines, by the hundred",
        "outsider",
        "http",
        "nothing: they are cut off, and others are answered",
    ),
    Row(
        "rebinding",
        "Have a browser ask under the name of a page of one's own",
        "outsider",
        "http",
        "421, and nothing of what was asked for",
    ),
    Row(
        "http-subjects",
        "Smuggle other subjects, or an order to build views anew, into what is asked over HTTP",
        "user",
        "http",
        "400 or 404",
    ),
)

ROWS: tuple[Row, ...] = BROKER + SAID + AUTHORITY + FLOWS + FORGED + OFFERS + HTTP


def table() -> str:
    """The rows as docs/security.md has them."""
    lines = ["| attack | with which key | what stops it | what one sees | test |", "|---|---|---|---|---|"]
    lines += [f"| {r.attack} | {r.role} | {FENCES[r.fence]} | {r.seen} | `{r.id}` |" for r in ROWS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
