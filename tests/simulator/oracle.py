"""What must hold, written from DESIGN.md sections 3 and 4 and not from the code: it reads the events itself.

`Oracle.stored` sees every event as it is stored and folds it; other methods are told what programs do and
believe. Whatever breaks a rule goes to `broken`, once for each rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from colonies.ledger import Stored
from tests.simulator.broker import SECOND
from tests.simulator.flows import VOID, Tale, spec_of
from tests.simulator.holds import Holds
from tests.simulator.item import Item
from tests.simulator.times import Times

POISON = 5  # attempts in a row that lost their worker
REOFFER_S = 10
RENEW_LEASES, RENEW_S, SILENT_LEASES = 10, 300.0, 2
FINAL = ("successful", "failed", "cancelled", "skipped")
BEGINNINGS = ("released", "awaited", "skipped")


@dataclass(slots=True)
class Attempt:
    """One assignment, as the ledger tells it."""

    id: str
    worker: str
    instance: str
    at: int
    ended: str | None = None


@dataclass(slots=True)
class Life:
    """A process as the ledger tells it. Times are ledger times (ns)."""

    id: str
    submitter: str
    spec: dict[str, Any]
    head: bytes
    sequence: int
    time: int
    offer: str
    offered_at: int
    since: int
    state: str = "waiting"
    lease_s: float = 0.0
    signed_at: int = 0
    until: int = 0
    failures: int = 0
    lost: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    output: Any = None
    queue: str = ""
    tale: Tale | None = None  # of a node: its workflow
    node: str = ""  # its label there

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def lapses_at(self) -> int:
        return self.signed_at + int(self.lease_s * SECOND)

    @property
    def silent_at(self) -> int:
        renews_s = min(RENEW_LEASES * self.lease_s, RENEW_S)
        return self.signed_at + int((renews_s + SILENT_LEASES * self.lease_s) * SECOND)


@dataclass(slots=True)
class Told:
    """One stored event of a process or workflow, taken apart."""

    sequence: int
    time: int
    event: str
    author: str
    queue: str | None
    id: str
    prev: bytes | None
    digest: bytes
    data: dict[str, Any]


class Ledger:
    """The fold. `broken(rule, about)` is called for what an honest member must never store.

    `void` are the sequences of what lost a race with a workflow's cancel, and of what stands on it; the
    attempts among it are in `void_attempts`: their ids.
    """

    def __init__(self, colony: str, roles: dict[str, str], broken: Any, slack_s: float = 0.0) -> None:
        self.lives: dict[str, Life] = {}
        self.tales: dict[str, Tale] = {}
        self.void: set[int] = set()
        self.void_attempts: dict[str, str] = {}  # with the process of each
        self.on_stopped: Callable[[Tale], None] = lambda tale: None
        self._voids: set[bytes] = set()
        self._context = f"colonies/1:{colony}:".encode()
        self._roles = roles
        self._broken = broken
        self.holds = Holds(broken, self.lives)
        self.times = Times(broken, self.void.add, int(slack_s * SECOND))

    def read(self, stored: Stored) -> tuple[Life, Told] | None:
        """Fold one event. None: it is not of a process, or not to be believed."""
        tokens = stored.subject.split(".")
        if tokens[1] == "workflow":
            self._of_workflow(tokens[2], self._told(stored, tokens))
        elif tokens[1] in ("cron", "generator"):
            self.times.read(tokens[1], tokens[2], self._told(stored, tokens), self._roles[tokens[-1]])
        elif tokens[1] in ("colony", "queue", "member"):
            entity = tokens[2] if tokens[1] != "colony" else ""
            self.holds.read(tokens[1], entity, self._told(stored, tokens), self._roles[tokens[-1]])
        elif tokens[1] == "limit":
            self.holds.granted(tokens[2], self._told(stored, tokens), self._roles[tokens[-1]])
        return self._of_process(tokens[2], self._told(stored, tokens)) if tokens[1] == "process" else None

    def _told(self, stored: Stored, tokens: list[str]) -> Told:
        payload, _ = msgpack.unpackb(stored.data)
        body = msgpack.unpackb(payload)
        digest = hashlib.sha256(self._context + stored.subject.encode() + b"\n" + payload).digest()
        return Told(
            stored.sequence,
            stored.time,
            body["type"].partition(".")[2],
            tokens[-1],
            tokens[4] if len(tokens) == 6 else None,
            body["id"],
            body["prev"],
            digest,
            body["data"],
        )

    def _of_process(self, process: str, told: Told) -> tuple[Life, Told] | None:
        life = self.lives.get(process)
        if told.prev is not None and told.prev in self._voids:
            self._is_void(process, told)
            return None
        if told.event in ("queued", "submitted"):
            if life is not None:
                self._broken("a process was submitted twice", process)
                return None
            life = self._born(process, told)
            self.holds.moved(life)
            return life, told
        if told.event in BEGINNINGS or (told.event == "cancelled" and "workflow" in told.data):
            return self._born_as_node(process, told)
        if life is None:
            self._broken(f"{told.event} of a process that nobody submitted", process)
            return None
        wrong = self._wrong(life, told)
        if wrong is not None:
            self._broken(f"{told.event}: {wrong}", process)
            return None
        self._fold(life, told)
        life.head, life.sequence, life.time = told.digest, told.sequence, told.time
        life.queue = told.queue or life.queue
        self.holds.moved(life)
        self._perhaps_ended(life, told)
        return life, told

    def _is_void(self, process: str, told: Told) -> None:
        self.void.add(told.sequence)
        self._voids.add(told.digest)
        if told.event == "assigned":
            self.void_attempts[told.id] = process

    # --- workflows -----------------------------------------------------------------------------------

    def _of_workflow(self, id: str, told: Told) -> None:
        tale, data, role = self.tales.get(id), told.data, self._roles[told.author]
        if told.prev != (tale.head if tale is not None else None):
            self._broken(f"{told.event} does not follow the workflow's last event", id)
        if role != "user" and not data.get("source"):
            self._broken(f"{told.event} of a workflow by a {role}", id)
        if told.event == "submitted":
            tale = self._submitted(id, told) if tale is None else self._twice(id)
            if tale is None:
                return
            self.tales[id] = tale
            tale.learn(tale.spec["nodes"])
        if tale is None:
            self._broken(f"{told.event} of a workflow that nobody submitted", id)
            return
        tale.head = told.digest
        if told.event == "signalled":
            tale.signals.append((told.sequence, told.author, data["name"], data.get("data")))
        elif told.event == "cancelled":
            if tale.cancelled_at is not None or told.author != tale.submitter:
                self._broken("a workflow was cancelled twice, or by another", id)
            tale.cancelled_at, tale.stopped = told.sequence, "it was cancelled"
            self.on_stopped(tale)

    def _submitted(self, id: str, told: Told) -> Tale | None:
        if told.data.get("source"):
            return self.times.submitted(id, told, self._roles[told.author])
        return Tale(id, told.author, told.data["spec"], told.sequence, told.time, told.digest)

    def _twice(self, id: str) -> None:
        self._broken("a workflow was submitted twice", id)

    def _born_as_node(self, process: str, told: Told) -> tuple[Life, Told] | None:
        tale = self.tales.get(told.data["workflow"])
        if process in self.lives or told.prev is not None or tale is None:
            self._broken(f"{told.event}: something was said of the node before, or of no workflow", process)
            return None
        label = told.data["node"]
        wrong = tale.wrong(told, process, self._roles[told.author])
        if wrong == VOID:
            self._is_void(process, told)
            return None
        if wrong is not None:
            self._broken(f"{label} {told.event}: {wrong}", process)
            return None
        offer = told.id if told.event == "released" else ""
        at, spec = told.time, spec_of(tale, label)
        life = Life(process, tale.submitter, spec, told.digest, told.sequence, at, offer, at, at)
        life.tale, life.node, life.queue = tale, label, told.queue or ""
        life.state = told.event if told.event in FINAL else "waiting"
        self.lives[process] = tale.lives[label] = life
        self._perhaps_ended(life, told)
        return life, told

    def _perhaps_ended(self, life: Life, told: Told) -> None:
        """A node has ended: it may have added others, or stop all."""
        tale = life.tale
        if tale is None or not life.final:
            return
        if told.data.get("adds"):
            tale.learn(told.data["adds"], life.node)
            if told.data.get("between"):
                tale.between.add(life.node)
        fatal = life.state in ("failed", "cancelled") and not tale.excused(life.node)
        last = any(life.node == name and node.get("finally") for name, node in tale.nodes.items())
        if fatal and not last and tale.spec.get("on_failure") == "stop" and tale.stopped is None:
            tale.stopped = f"{life.node} is {life.state}"
            self.on_stopped(tale)

    # --- processes -----------------------------------------------------------------------------------

    def _born(self, process: str, told: Told) -> Life:
        if self._roles[told.author] != "user":
            self._broken("a submission by somebody who may not", process)
        life = Life(
            process,
            told.author,
            told.data["spec"],
            told.digest,
            told.sequence,
            told.time,
            told.id,
            told.time,
            told.time,
        )
        life.queue = told.queue or ""
        if told.event == "submitted":
            life.state, life.offer, life.until = "blocked", "", told.time
        if (told.event == "submitted") != bool(life.spec.get("limits")):
            self._broken(f"{told.event}, with the limits {life.spec.get('limits')}", process)
        self.lives[process] = life
        return life

    def _wrong(self, life: Life, told: Told) -> str | None:
        """The rule that this event breaks."""
        if life.final:
            return f"the process is {life.state} already"
        if told.prev != life.head:
            return "it does not follow the last event"
        role, event = self._roles[told.author], told.event
        match event:
            case "requeued":
                return self._requeue_wrong(life, told, role)
            case "assigned":
                return self._assign_wrong(life, told, role)
            case "renewed" | "completed" | "failed" | "returned":
                if life.state != "running":
                    return f"the process is {life.state}"
                last = life.attempts[-1]
                if (told.data["attempt"], told.author) != (last.id, last.worker):
                    return "its attempt does not hold the process any more"
            case "poisoned":
                lapsed = life.state == "running" and told.time >= life.lapses_at
                if life.lost + lapsed < POISON:
                    return f"only {life.lost + lapsed} attempts in a row were lost"
            case "expired":
                wait_s = life.spec.get("maxwaittime")
                if life.state != "waiting" or wait_s is None or told.time < life.since + wait_s * SECOND:
                    return "its wait is not over"
            case "cancelled":
                if life.tale is not None and role == "service":
                    return life.tale.cancel_wrong(told, life.node, role)
                if told.author != life.submitter:
                    return "it is another's"
            case "received":
                return self._receive_wrong(life, told, role)
            case _:
                return "there is no such event"
        return None

    def _requeue_wrong(self, life: Life, told: Told, role: str) -> str | None:
        if role != "service":
            return "only the service offers again"
        if told.data["cites"] != life.sequence:
            return "it cites another event"
        if life.state == "blocked" and told.time < life.until:
            return "the delay is not over"
        if life.state == "blocked" and (wrong := self.holds.offer_wrong(life)) is not None:
            return wrong
        if life.state == "waiting" and told.time < max(life.offered_at, life.since) + REOFFER_S * SECOND:
            return "it has not waited long enough"
        if life.state == "running" and told.time < life.silent_at:
            return "an attempt holds it"
        return None

    def _receive_wrong(self, life: Life, told: Told, role: str) -> str | None:
        node = life.tale.nodes.get(life.node, {}) if life.tale is not None else {}
        if role != "service" or "wait_signal" not in node or life.tale is None:
            return "nothing waits for a signal here"
        came = [signal[0] for signal in life.tale.signals if signal[2] == node["wait_signal"]["name"]]
        return None if came and came[0] == told.data["cites"] else "that is not the first signal of its name"

    def _assign_wrong(self, life: Life, told: Told, role: str) -> str | None:
        names = life.spec["conditions"].get("workernames")
        if role != "worker" or (names and told.author not in names):
            return "the worker does not meet the conditions"
        if told.data["offer"] != life.offer:
            return "it names another offer"
        if life.state == "running" and told.time < life.lapses_at:
            return "a lease holds"
        if life.state not in ("running", "waiting"):
            return f"the process is {life.state}"
        if life.lost + (life.state == "running") >= POISON:
            return "the process is poison"
        return None

    def _fold(self, life: Life, told: Told) -> None:
        data = told.data
        if told.event in ("requeued", "assigned", "poisoned") and life.state == "running":
            life.attempts[-1].ended = "lost"
            life.lost += 1
        match told.event:
            case "requeued":
                if life.state != "waiting":
                    life.since = told.time
                life.state, life.offer, life.offered_at = "waiting", told.id, told.time
            case "assigned":
                life.attempts.append(Attempt(told.id, told.author, data["instance"], told.time))
                life.state, life.lease_s, life.signed_at = "running", data["lease_s"], told.time
            case "renewed":
                life.signed_at = told.time
            case "returned":
                life.state, life.since = "waiting", told.time
            case "completed":
                life.state, life.output = "successful", data.get("output")
            case "failed":
                self._fold_failure(life, told)
            case "poisoned" | "expired":
                life.state = "failed"
            case "cancelled":
                life.state = "cancelled"
            case "received":
                assert life.tale is not None
                [signal] = [signal for signal in life.tale.signals if signal[0] == data["cites"]]
                life.state, life.output = "successful", {"by": signal[1], "data": signal[3]}
        if told.event in ("returned", "completed", "failed"):
            life.attempts[-1].ended = data.get("kind", told.event)
            life.lost = 0

    def _fold_failure(self, life: Life, told: Told) -> None:
        kind, retries = told.data["kind"], life.spec.get("maxretries", 0)
        counts = kind in ("error", "timeout")
        life.failures += counts
        if kind == "final" or (counts and retries != -1 and life.failures > retries):
            life.state = "failed"
        else:
            life.state = "blocked"
            life.until = told.time + int(told.data["delay_s"] * SECOND)


def expected(item: Item, n: int, given: Any = None) -> dict[str, Any]:
    """The output of attempt `n` of an item, if it has one. `given`: what it got; of a cron's run, `p`."""
    found: dict[str, Any] = {"item": item.number, "n": n}
    if given is not None and "p" in given:
        found["count"] = (given["p"] or 0) + 1
    if item.parts is not None:
        found["list"] = [10 * n + part for part in range(item.parts + n % 2)]
    return found
