"""Metrics for Prometheus: what the ledger told, and how things stand now.

Counts and times (`counts`), how full the queues are and who is alive come from a projector when somebody
asks; what comes in on the ledger is counted as the hub brings it. Labels are queue ids, runtime types and
words of ours: no argument, no output, no name of a member, no `func` (of a Unix worker it is the command
line). docs/http.md has a row for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from colonies.errors import ColoniesError
from colonies.feed import Told
from colonies.jetstream import JetStreamLedger
from colonies_projections.http import counts, queries
from colonies_projections.http.counts import OTHER, Counts
from colonies_projections.http.health import Found, Health
from colonies_projections.http.hub import Hub
from colonies_projections.http.problems import Problem
from colonies_projections.http.streams import Streams

FRESH_S: Final = 1.0
ASK_S: Final = 3.0
MAX_ITEMS: Final = 1_000

_log = structlog.get_logger("colonies.http")

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self, ledger: JetStreamLedger, hub: Hub, streams: Streams, health: Health) -> None:
        self.registry = CollectorRegistry()
        self._ledger = ledger
        self._hub = hub
        self._streams = streams
        self._health = health
        self._counts = Counts(ledger)
        self._asking = asyncio.Lock()
        self._asked_at = -FRESH_S
        self._types: set[str] = set()
        self.registry.register(self._counts)
        self._events = Counter(
            "colonies_events", "Messages on the ledger, by verdict.", ("verdict",), registry=self.registry
        )
        for kind in ("valid", "void", "quarantined"):
            self._events.labels(kind)
        self._measure()
        hub.taps.append(self._hear)

    def _measure(self) -> None:
        """What is looked up when somebody asks."""

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"colonies_{name}", text, labels, registry=self.registry)

        queue = ("queue", "runtimetype")
        self.waiting = gauge("queue_waiting", "Processes that wait in a queue.", *queue)
        self.running = gauge("queue_running", "Processes of a queue that run.", *queue)
        self.blocked = gauge("queue_blocked", "Processes of a queue that are blocked.", *queue)
        self.oldest = gauge("queue_oldest_seconds", "How long the oldest has waited in a queue.", *queue)
        self.unserved = gauge(
            "queue_unserved", "1 if something waits in a queue that no living worker can serve.", *queue
        )
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
        self._events.labels(told.seen.verdict.kind).inc()

    def _type(self, runtimetype: str) -> str:
        """A runtime type as a label: anybody may think of new ones, so there are at most so many."""
        if runtimetype not in self._types and len(self._types) >= counts.MAX_RUNTIMETYPES:
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
            self._counts.types = {}
            return
        await self._quietly(self._counts.look(found.last))  # it says which runtime types have a name
        await self._quietly(self._look_around())

    async def _quietly(self, looking: Awaitable[None]) -> None:
        """A projector that is late, or a member that answers with junk, must not end the metrics of all."""
        try:
            async with asyncio.timeout(ASK_S):
                await looking
        except (Problem, ColoniesError, TimeoutError, KeyError, TypeError, ValueError, IndexError) as error:
            _log.debug("the views are not in the metrics", error=str(error))

    async def _look_around(self) -> None:
        queues = await queries.ask(self._ledger, "queues", {"limit": MAX_ITEMS})
        workers = await queries.ask(self._ledger, "workers", {"limit": MAX_ITEMS, "state": "alive"})
        now = await self._ledger.now()
        self._types = set(self._counts.types)
        for item in queues["items"]:
            self._queue(item, now)
        for item in workers["items"]:
            self.alive.labels(self._type(str(item["runtimetype"]))).inc()

    def _look_at_the_views(self, found: Found) -> None:
        self.projector.set(0 if found.lag is None else 1)
        self.lag_events.set(found.lag.events if found.lag is not None else float("nan"))
        self.lag_seconds.set(found.lag.seconds if found.lag is not None else float("nan"))
        self.last.set(float("nan") if found.last is None else found.last)

    def _queue(self, item: dict[str, Any], now: int) -> None:
        labels = str(item["id"]), self._type(str(item["runtimetype"]))
        waiting = int(item["waiting"])
        self.waiting.labels(*labels).set(waiting)
        self.running.labels(*labels).set(int(item["running"]))
        self.blocked.labels(*labels).set(int(item["blocked"]))
        self.unserved.labels(*labels).set(1 if waiting and not item["workers"] else 0)
        age_s = 0.0
        if item["oldest"] is not None:
            age_s = now / 1e9 - datetime.fromisoformat(str(item["oldest"])).timestamp()
        self.oldest.labels(*labels).set(max(0.0, age_s))
