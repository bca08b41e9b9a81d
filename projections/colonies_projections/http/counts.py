"""What Prometheus counts, out of the view of statistics: the same numbers whoever asks, and after a restart.

They never become less. A number is what the ledger says up to some sequence, and no answer counts that knows
less of the ledger than one before it did, also one that an earlier run of this server gave. Until a projector
knows as much, they are left out: a counter that is not there for a while is no counter that began anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from colonies.jetstream import JetStreamLedger
from colonies_projections.http import queries
from colonies_projections.tally import COUNTS, OUTCOMES, STATES, TIMES

MAX_RUNTIMETYPES: Final = 100
OTHER: Final = "other"
BORDERS_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400),
)

_TYPE: Final = ("runtimetype",)
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of a runtime type. `buckets`: of each time, how many were less than so many
    microseconds and no less than the next fewer; `sums_s` are their sums."""

    counts: Mapping[str, int]
    buckets: Mapping[str, Mapping[int, int]]
    sums_s: Mapping[str, float]

    def less(self, others: Iterable[Counted]) -> Counted:
        """What is left of it without these."""
        others = list(others)
        counts = Counter(self.counts)
        buckets = {what: Counter(self.buckets[what]) for what in TIMES}
        for other in others:
            counts.subtract(other.counts)
            for what in TIMES:
                buckets[what].subtract(other.buckets[what])
        sums_s = {what: max(0.0, self.sums_s[what] - sum(o.sums_s[what] for o in others)) for what in TIMES}
        return Counted(counts, buckets, sums_s)


@dataclass(slots=True, eq=False)
class Counts(Collector):
    """The counters, as they were at `position`. `types` are the runtime types that have a name of their own:
    the first of the colony."""

    ledger: JetStreamLedger
    position: int = 0
    types: dict[str, Counted] = field(default_factory=dict)

    def describe(self) -> Iterator[Metric]:
        yield from families({})

    def collect(self) -> Iterator[Metric]:
        yield from families(self.types)

    async def look(self, last: int | None) -> None:
        """Look them up. `last` is the ledger's last sequence, if it is known. Raises as `queries.ask`."""
        self.types = {}
        if last is None:
            return
        common = {"histogram": "yes"}
        # The first time: no less than any run of this server can have told.
        least = min(self.position or last, last)
        question = {**common, "by": "runtimetype", "limit": MAX_RUNTIMETYPES, "at_least": least}
        answer = await queries.ask(self.ledger, "statistics", question)
        position = int(answer["position"])
        found = {str(item["runtimetype"]): _counted(item) for item in answer["items"]}
        if "cursor" in answer:
            whole = await queries.ask(self.ledger, "statistics", {**common, "at": position})
            found[OTHER] = _counted(whole["items"][0]).less(found.values())
        self.position, self.types = max(least, position), found


def families(types: Mapping[str, Counted]) -> Iterator[Metric]:
    """The metrics; without types, only what there is to be."""

    def counter(name: str, text: str, *label: str) -> CounterMetricFamily:
        return CounterMetricFamily(f"colonies_{name}", text, labels=(*_TYPE, *label))

    submitted = counter("processes_submitted", "Processes that began.")
    ended = counter("processes_ended", "Processes that ended, by state.", "state")
    attempts = counter("attempts_ended", "Attempts that ended.", "outcome")
    retries = counter("retries", "Attempts after one that failed or timed out.")
    lost = counter("leases_lost", "Attempts whose worker fell silent.")
    texts = {
        "wait": "From when a process could be taken until it was.",
        "run": "From when an attempt began until it was successful, failed or ran out of time.",
    }
    times = {
        what: HistogramMetricFamily(f"colonies_{what}_seconds", texts[what], labels=_TYPE) for what in TIMES
    }
    for kind, of in types.items():
        submitted.add_metric((kind,), of.counts["submitted"])
        for state in STATES:
            ended.add_metric((kind, state), of.counts[state])
        for outcome in OUTCOMES:
            attempts.add_metric((kind, outcome), of.counts[f"attempts_{outcome}"])
        retries.add_metric((kind,), of.counts["retries"])
        lost.add_metric((kind,), of.counts["attempts_lost"])
        for what, family in times.items():
            family.add_metric((kind,), list(_borders(of.buckets[what])), of.sums_s[what])
    yield from (submitted, ended, attempts, retries, lost, *times.values())


def _counted(item: Mapping[str, Any]) -> Counted:
    """An item of the view. Raises KeyError, TypeError or ValueError: it is none."""
    return Counted(
        {name: int(item[name]) for name in COUNTS},
        {
            what: {round(float(less_s) * _MICROSECONDS): int(n) for less_s, n in item[what]["histogram"]}
            for what in TIMES
        },
        {what: float(item[what]["sum_s"]) for what in TIMES},
    )


def _borders(buckets: Mapping[int, int]) -> Iterator[tuple[str, float]]:
    """How many took no longer than each border. The view's own borders are finer, but not the same: what is
    on both sides of one counts as longer."""
    for border_s in BORDERS_S:
        most = border_s * _MICROSECONDS
        yield str(float(border_s)), sum(n for less, n in buckets.items() if less - 1 <= most)
    yield "+Inf", sum(buckets.values())
