"""Metrics for Prometheus: what the ledger told since this server runs, and how things stand now.

Counts and times come from the events that the hub brings, folded by the library's own `evolve`; how full
the queues are and who is alive comes from a projector when somebody asks. Labels are queue ids, runtime
types and words of ours: no argument, no output, no name of a member, no `func` (of a Unix worker it is the
command line). docs/http.md has a row for each.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from colonies.errors import ColoniesError
from colonies.feed import Told
from colonies.jetstream import JetStreamLedger
from colonies.session import Session
from colonies_projections.http import queries
from colonies_projections.http.health import Found, Health
from colonies_projections.http.hub import Hub
from colonies_projections.http.meter import Change, Meter
from colonies_projections.http.problems import Problem
from colonies_projections.http.streams import Streams

MAX_RUNTIMETYPES: Final = 100
FRESH_S: Final = 1.0
ASK_S: Final = 3.0
MAX_ITEMS: Final = 1_000
OTHER: Final = "other"

_WAITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400)

_log = structlog.get_logger("colonies.http")

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(
        self, session: Session, ledger: JetStreamLedger, hub: Hub, streams: Streams, health: Health
    ) -> None:
        self.registry = CollectorRegistry()
        self._ledger = ledger
        self._hub = hub
        self._streams = streams
        self._health = health
        self._meter = Meter(session)
        self._asking = asyncio.Lock()
        self._asked_at = -FRESH_S
        self._types: set[str] = set()
        self._count()
        self._measure()
        hub.taps.append(self._hear)

    def _count(self) -> None:
        """What grows with each event."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"colonies_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            named = f"colonies_{name}_seconds"
            return Histogram(named, text, ("runtimetype",), registry=self.registry, buckets=_WAITS_S)

        self.events = counter("events", "Messages on the ledger, by verdict.", "verdict")
        self.submitted = counter("processes_submitted", "Processes that began.", "runtimetype")
        self.ended = counter("processes_ended", "Processes that ended, by state.", "runtimetype", "state")
        self.attempts = counter("attempts_ended", "Attempts that ended.", "runtimetype", "outcome")
        self.retries = counter("retries", "Attempts after one that failed or timed out.", "runtimetype")
        self.lost = counter("leases_lost", "Attempts whose worker fell silent.", "runtimetype")
        self.waits = histogram("wait", "From when a process could be taken until it was.")
        self.runs = histogram("run", "From when an attempt began until it ended.")

    def _measure(self) -> None:
        """What is looked up when somebody asks."""

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"colonies_{name}", text, labels, registry=self.registry)

        queue = ("queue", "runtimetype")
        self.waiting = gauge("queue_waiting", "Processes that wait in a queue.", *queue)
        self.running = gauge("queue_running", "Processes of a queue that run.", *queue)
        self.blocked = gauge("queue_blocked", "Processes of a queue that are blocked.", *queue)
        self.oldest = gauge("queue_oldest_seconds", "How long the oldest has waited in a queue.", *queue)
        self.unserved = gauge("queue_unserved", "1 if no living worker can serve a queue.", *queue)
        self.alive = gauge("workers_alive", "Instances of workers that are alive.", "runtimetype")
        self.projector = gauge("projector_up", "1 if a projector answers.")
        self.lag_events = gauge("projection_lag_events", "Events that the views do not have yet.")
        self.lag_seconds = gauge("projection_lag_seconds", "Since when they lack the first of them.")
        self.last = gauge("ledger_last_sequence", "The last sequence of the ledger.")
        self.followed = gauge("feed_sequence", "The last sequence that this server has followed.")
        self.streams = gauge("http_feeds_open", "Feeds that are open at this server.")

    async def text(self, accept: str) -> tuple[bytes, str]:
        """All of them as text, and its media type: what the asker accepts, of what there is."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= FRESH_S:
                await self._look()
                self._asked_at = time.monotonic()
            encode, media_type = choose_encoder(accept)
            return encode(self.registry), media_type

    # --- what is heard -------------------------------------------------------------------------------

    async def _hear(self, told: Told) -> None:
        self.events.labels(told.seen.verdict.kind).inc()
        try:
            change = await self._meter.take(told)
        except ColoniesError as error:
            _log.debug("an event is not in the metrics", error=str(error))
            return
        if change is not None:
            self._take(change)

    def _take(self, change: Change) -> None:
        kind = self._type(change.runtimetype)
        if change.begun:
            self.submitted.labels(kind).inc()
        if change.ended is not None:
            self.ended.labels(kind, change.ended).inc()
        if change.retried:
            self.retries.labels(kind).inc()
        if change.waited_s is not None:
            self.waits.labels(kind).observe(change.waited_s)
        for outcome, ran_s in change.attempts:
            self.attempts.labels(kind, outcome).inc()
            self.runs.labels(kind).observe(ran_s)
            if outcome == "lost":
                self.lost.labels(kind).inc()

    def _type(self, runtimetype: str) -> str:
        """A runtime type as a label: anybody may think of new ones, so there are at most so many."""
        if runtimetype not in self._types and len(self._types) >= MAX_RUNTIMETYPES:
            return OTHER
        self._types.add(runtimetype)
        return runtimetype

    # --- what is looked up ---------------------------------------------------------------------------

    async def _look(self) -> None:
        found = await self._health.look()
        self.followed.set(self._hub.position)
        self.streams.set(self._streams.open.total())
        self._look_at_the_views(found)
        for metric in (self.waiting, self.running, self.blocked, self.oldest, self.unserved, self.alive):
            metric.clear()
        if found.lag is None:
            return
        try:
            async with asyncio.timeout(ASK_S):
                queues = await queries.ask(self._ledger, "queues", {"limit": MAX_ITEMS})
                workers = await queries.ask(self._ledger, "workers", {"limit": MAX_ITEMS, "state": "alive"})
                now = await self._ledger.now()
            for item in queues["items"]:
                self._queue(item, now)
            for item in workers["items"]:
                self.alive.labels(self._type(str(item["runtimetype"]))).inc()
        except (Problem, ColoniesError, TimeoutError, KeyError, TypeError, ValueError) as error:
            # A member that answers with junk must not end the metrics of all.
            _log.debug("the views are not in the metrics", error=str(error))

    def _look_at_the_views(self, found: Found) -> None:
        self.projector.set(0 if found.lag is None else 1)
        self.lag_events.set(found.lag.events if found.lag is not None else float("nan"))
        self.lag_seconds.set(found.lag.seconds if found.lag is not None else float("nan"))
        self.last.set(float("nan") if found.last is None else found.last)

    def _queue(self, item: dict[str, Any], now: int) -> None:
        labels = str(item["id"]), self._type(str(item["runtimetype"]))
        self.waiting.labels(*labels).set(int(item["waiting"]))
        self.running.labels(*labels).set(int(item["running"]))
        self.blocked.labels(*labels).set(int(item["blocked"]))
        self.unserved.labels(*labels).set(0 if item["workers"] else 1)
        age_s = 0.0
        if item["oldest"] is not None:
            age_s = now / 1e9 - datetime.fromisoformat(str(item["oldest"])).timestamp()
        self.oldest.labels(*labels).set(max(0.0, age_s))
