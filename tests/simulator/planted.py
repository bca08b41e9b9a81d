"""Bugs to be found: each patches one function of the code under test, and says within how many seeds.

If the simulator does not find one of them, it would not find its like either.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from colonies_projections import projector
from colonies_projections.position import Position
from colonies_projections.projector import Projector
from colonies_projections.store import Store

from colonies import feed, instance, recording
from colonies.client import Client
from colonies.core import process as processes
from colonies.core import rules
from colonies.core.events import VALID, Completed, Returned
from colonies.core.process import Blocked, Process, Running, Waiting, evolve
from colonies.errors import Refused, Unknown
from colonies.history import Story, examine
from colonies.instance import Instance
from colonies.ledger import Draft
from colonies.liveness import Liveness
from colonies.orchestrator import Orchestrator
from colonies.session import Session
from colonies.sweeping import Sweeper
from colonies.watching import Watcher
from tests.simulator.plan import draw
from tests.simulator.planted_flows import FLOW_BUGS
from tests.simulator.planted_holds import HOLD_BUGS
from tests.simulator.planted_times import TIME_BUGS
from tests.simulator.planting import Patch, with_append


@dataclass(frozen=True, slots=True)
class Bug:
    """`patches` makes (where, name, what instead); it is found within so many seeds from `first` on,
    which is near one that found it: what is rare would take long from 0.

    `among`: of those seeds alone whose plan has this. `subscribed`: with a subscriber.
    """

    name: str
    patches: Callable[[], list[Patch]]
    within: int
    first: int = 0
    among: str = ""
    subscribed: bool = False

    def seeds(self) -> Iterator[int]:
        """Those in which it is to be found."""
        seeds = (s for s in itertools.count(self.first) if not self.among or getattr(draw(s), self.among))
        return itertools.islice(seeds, self.within)


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    """With this bug in the code; None: with none."""
    patches = next(bug.patches for bug in BUGS if bug.name == name)() if name is not None else []
    before = [(where, attribute, getattr(where, attribute)) for where, attribute, _ in patches]
    for where, attribute, instead in patches:
        setattr(where, attribute, instead)
    try:
        yield
    finally:
        for where, attribute, was in before:
            setattr(where, attribute, was)


async def _nothing(*_: Any, **__: Any) -> None:
    return None


# --- writing ------------------------------------------------------------------------------------------


def no_guard_on_complete() -> list[Patch]:
    """A result is stored whatever came before it; and nobody decides first."""

    def draft(subject: str, data: bytes, after: int) -> Draft:
        return Draft(subject, data, None if ".completed." in subject else after)  # type: ignore[arg-type]

    return [(recording, "Draft", draft)]


def unknown_taken_for_done() -> list[Patch]:
    """No answer came: it will have been stored."""
    real = Session.record

    async def record(self: Session, *arguments: Any, **options: Any) -> Story:
        async def hopeful(draft: Draft) -> int:
            try:
                return await self.ledger.append(draft)
            except Unknown:
                return draft.after + 1

        return await real(with_append(self, hopeful), *arguments, **options)

    return [(Session, "record", record)]


def unknown_sent_again_as_new() -> list[Patch]:
    """No answer came to a submission: submit it again, as another process."""
    real = Client.submit

    async def submit(self: Client, work: Any, *, key: str | None = None) -> Any:
        before, unknown = self.session, []

        async def noting(draft: Draft) -> int:
            try:
                return await before.ledger.append(draft)
            except Unknown:
                unknown.append(draft)
                raise Refused("no answer") from None

        hasty = copy.copy(self)
        hasty.session = with_append(before, noting)
        try:
            return await real(hasty, work, key=key)
        except Refused:
            return await real(self, work, key=key)

    return [(Client, "submit", submit)]


# --- the worker ---------------------------------------------------------------------------------------


def ack_before_assigned() -> list[Patch]:
    """The offer is acknowledged before its process is assigned: a crash in between loses it."""
    real = Instance._assign

    async def assign(self: Instance, delivery: Any, *more: Any) -> Any:
        await delivery.ack()
        return await real(self, delivery, *more)

    return [(Instance, "_assign", assign)]


def ack_before_result() -> list[Patch]:
    """The offer is acknowledged before the result is recorded."""
    real = Instance._report

    async def report(self: Instance, held: Any, event: Any, log: Any) -> None:
        await held.delivery.ack()
        await real(self, held, event, log)

    return [(Instance, "_report", report)]


def no_heartbeats_asked() -> list[Patch]:
    """A takeover looks at the ledger only, where a living worker is silent for long."""

    async def left_s(session: Session, process: Process, running: Running) -> float:
        return (running.lapses_at() - await session.ledger.now()) / 1e9

    return [(instance, "lease_left_s", left_s)]


def takeover_without_lease() -> list[Patch]:
    """Another worker's lease is nothing: neither for the worker nor for those who judge."""

    async def left_s(*_: Any) -> float:
        return 0.0

    return [(instance, "lease_left_s", left_s), (Running, "lapses_at", lambda self: self.signed_at)]


def old_offer_steals() -> list[Patch]:
    """Any delivery will do to take a process over, be it of an offer that is long over."""
    real = Instance._may_take

    async def may_take(self: Instance, delivery: Any, story: Story) -> bool:
        process = story.process
        offered = delivery.stored.sequence
        match process.phase if process is not None else None:
            case Running(offer=offer) | Waiting(offer=offer) if process and offer.sequence != offered:
                return process.id not in self._held
        return await real(self, delivery, story)

    return [(Instance, "_may_take", may_take)]


def cancel_not_heard() -> list[Patch]:
    """The feed's word of a cancellation falls on deaf ears; it is found out at the next look only."""
    return [(Liveness, "on_cancel", lambda self, stored: None)]


def lost_work_goes_on() -> list[Patch]:
    """A worker never looks whether it still holds what it runs."""
    return [(Liveness, "_drop_what_is_lost", _nothing)]


def no_signs_of_life() -> list[Patch]:
    """A worker says nothing of what it runs."""
    return [(Liveness, "run", _nothing)]


def runs_what_it_lost() -> list[Patch]:
    """Once assigned, always assigned: it does not look whose the last attempt is."""
    return [
        (instance, "_holds", lambda story, id: story.process is not None and bool(story.process.attempts))
    ]


# --- the rules ----------------------------------------------------------------------------------------


def late_result_accepted() -> list[Patch]:
    """Whoever had an attempt may end the process."""

    def of_the_holder(process: Process, record: Any, event: Any) -> Any:
        if isinstance(event, Completed | Returned) and process.attempts:
            return VALID
        return real(process, record, event)

    real = rules._of_the_holder
    return [(rules, "_of_the_holder", of_the_holder)]


def one_retry_too_many() -> list[Patch]:
    """`maxretries` counts attempts, and one is forgotten."""
    real = processes._attempt_failed

    def attempt_failed(process: Process, time: int, event: Any) -> Any:
        after = real(process, time, event)
        one_more = after["failures"] == process.spec.maxretries + 1 and event.kind == "error"
        return {**after, "phase": Blocked(time)} if one_more else after

    return [(processes, "_attempt_failed", attempt_failed)]


def backoff_forgotten() -> list[Patch]:
    """The next attempt follows at once."""
    real = processes._attempt_failed

    def attempt_failed(process: Process, time: int, event: Any) -> Any:
        after = real(process, time, event)
        return {**after, "phase": Blocked(time)} if isinstance(after["phase"], Blocked) else after

    return [(processes, "_attempt_failed", attempt_failed)]


def expires_early() -> list[Patch]:
    """A process that waits at all has waited long enough."""
    real = Sweeper._over

    def over(self: Sweeper, process: Process, now: int) -> Any:
        return real(self, process, now + 3_000_000_000)

    return [(Sweeper, "_over", over), (rules, "_expired", lambda process, record: VALID)]


# --- the orchestrator ---------------------------------------------------------------------------------


def never_offered_again() -> list[Patch]:
    """What a queue lost stays lost."""
    return [(Sweeper, "_offer_again", _nothing)]


def acts_on_what_is_not_true() -> list[Patch]:
    """What it believed for a moment is never checked."""

    async def check(self: Orchestrator, process: str) -> Process | None:
        return self._history.processes.get(process)

    return [(Orchestrator, "_check", check), (Orchestrator, "_checked", _nothing)]


def forgets_timers() -> list[Patch]:
    """A backoff that ends while nobody looks is never ended."""
    return [(Orchestrator, "_blocked", _nothing), (Sweeper, "_over", lambda self, process, now: None)]


# --- the client ---------------------------------------------------------------------------------------


def believes_what_it_hears() -> list[Patch]:
    """The feed is taken at its word, signatures or not."""

    def catch_up(self: Watcher, watched: Any) -> Process | None:
        for stored in watched.heard:
            if watched.story is None or watched.story.process is None:
                break
            if ".completed." in stored.subject:
                record = examine(self._session.colony, stored, trusted=True).record
                if record is not None:
                    return evolve(watched.story.process, record) if watched.story.process.attempts else None
        return real(self, watched)

    real = Watcher._catch_up
    return [(Watcher, "_catch_up", catch_up)]


def trusts_the_feed_to_lose_nothing() -> list[Patch]:
    """It never reads again what it waits for."""
    return [(Watcher, "_read_again", lambda self: None)]


# --- the projector ------------------------------------------------------------------------------------


def position_before_view() -> list[Patch]:
    """How far it is is committed before the rows that came of it: a crash in between loses them."""
    real = Store.commit

    async def commit(self: Store, position: Position, *rows: Any) -> None:
        await real(self, position, (), None, ())
        await real(self, position, *rows)

    return [(Store, "commit", commit)]


def view_before_position() -> list[Patch]:
    """The rows are committed before how far they go: after a crash in between, a batch is folded again."""
    real = Store.commit

    async def commit(self: Store, position: Position, *rows: Any) -> None:
        await real(self, self.position, *rows)
        await real(self, position, (), None, ())

    return [(Store, "commit", commit)]


def folded_in_memory_only() -> list[Patch]:
    """Only the rows are kept: a projector that starts again does not know the processes any more."""
    real = Store.commit

    async def commit(self: Store, position: Position, processes: Any, *rows: Any) -> None:
        await real(self, position, (), *rows)

    return [(Store, "commit", commit)]


def feed_wakes_alone() -> list[Patch]:
    """The projector reads when it hears something, and only then."""
    return [(projector, "POLL_S", 1e6), (Projector, "_on_gap", lambda self: None)]


# --- a feed -------------------------------------------------------------------------------------------


def feed_reads_when_woken() -> list[Patch]:
    """A feed reads when it hears something, and only then."""
    return [
        (feed, "LOOK_AGAIN_S", 1e6),
        (feed._Ear, "wait_s", lambda self, position: 1e6),
        (Session, "_on_gap", lambda self: self.stale.set()),
    ]


def feed_learns_nothing() -> list[Patch]:
    """Once a node is known, a feed judges what is said of it by what was known then."""
    real = feed.Reader._judge_next

    async def judge_next(self: feed.Reader, *about: Any) -> Any:
        with contextlib.ExitStack() as stack:
            knowledge: Any = self._session.knowledge
            knowledge.learn = _nothing
            stack.callback(delattr, knowledge, "learn")
            return await real(self, *about)

    return [(feed.Reader, "_judge_next", judge_next)]


BUGS = [
    Bug("no guard on complete", no_guard_on_complete, 3_000, first=80),
    Bug("an unknown outcome taken for done", unknown_taken_for_done, 2_000, first=100),
    Bug("an unknown submission sent again as a new one", unknown_sent_again_as_new, 3_000, first=790),
    Bug("ack before assigned", ack_before_assigned, 3_000, first=660),
    Bug("ack before the result is recorded", ack_before_result, 3_000, first=730),
    Bug("takeover without asking for heartbeats", no_heartbeats_asked, 4_000, first=680),
    Bug("takeover without the lease check", takeover_without_lease, 500),
    Bug("an old offer steals", old_offer_steals, 6_000, first=140),
    Bug("a cancel is not heard", cancel_not_heard, 500),
    Bug("lost work goes on", lost_work_goes_on, 1_000),
    Bug("no signs of life", no_signs_of_life, 500),
    Bug("runs what it lost", runs_what_it_lost, 6_000, first=860),
    Bug("a late result is accepted", late_result_accepted, 3_000, first=1110),
    Bug("one retry too many", one_retry_too_many, 200),
    Bug("the backoff is forgotten", backoff_forgotten, 200),
    Bug("a wait that ends too early", expires_early, 1_000),
    Bug("never offered again", never_offered_again, 1_000),
    Bug("the orchestrator acts on what is not true", acts_on_what_is_not_true, 6_000, first=2290),
    Bug("a backoff that nobody ends", forgets_timers, 200),
    Bug("a result believed unverified", believes_what_it_hears, 3_000, first=480),
    Bug("the feed is trusted to lose nothing", trusts_the_feed_to_lose_nothing, 1_000),
    Bug("position saved before view", position_before_view, 500),
    Bug("view saved before position", view_before_position, 1_000, first=250),
    Bug("the fold is not saved with its rows", folded_in_memory_only, 500),
    Bug("the projector trusts the feed to lose nothing", feed_wakes_alone, 2_000),
    Bug("a feed reads only when it is woken", feed_reads_when_woken, 500, subscribed=True),
    Bug("a feed learns nothing", feed_learns_nothing, 500, among="flows", subscribed=True),
    *(Bug(*bug, among="flows") for bug in FLOW_BUGS),
    *(Bug(*bug, among="scripts") for bug in TIME_BUGS),
    *(Bug(*bug) for bug in HOLD_BUGS),
]
