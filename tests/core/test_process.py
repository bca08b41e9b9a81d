"""The life of one process: who may say what, when it is true, and what holds whatever anybody says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from colonies.core.events import (
    Assigned,
    Cancelled,
    Completed,
    Expired,
    Failed,
    LogDigest,
    Poisoned,
    ProcessEvent,
    Queued,
    Record,
    Ref,
    Renewed,
    Requeued,
    Returned,
)
from colonies.core.process import (
    MAX_ATTEMPTS_KEPT,
    MAX_LOST_IN_A_ROW,
    SECOND,
    Blocked,
    CancelledForGood,
    FailedForGood,
    Process,
    Running,
    Successful,
    Waiting,
    derived_id,
    evolve,
    judge,
    keyed_id,
    lost_in_a_row,
)
from colonies.errors import Conflict, Refused
from tests.core.telling import LEASE_S, MEMBERS, START, Telling, a_spec, new_id

STORED = Ref("0" * 64, 200_000, "w1.abc")


def refused(told: Telling, author: str, event: ProcessEvent, why: str, **options: object) -> None:
    """It is quarantined where it stands, with this reason, and no writer of ours would have recorded it."""
    before = told.process
    record = told.record(author, event, **options)  # type: ignore[arg-type]
    verdict = told.tell(record)
    assert verdict.kind == "quarantined"
    assert why in verdict.rule
    assert told.process == before
    if "prev" not in options:
        with pytest.raises(Refused if verdict.denied else Conflict, match=r"^process "):
            told.require(record)


# --- submission -------------------------------------------------------------------------------------


@pytest.mark.parametrize("author", ["ann", "olga"])
def test_a_user_and_an_owner_submit_a_process_and_it_waits(author: str) -> None:
    told = Telling().submit(author)
    assert (told.it.state, told.it.submitter, told.it.submitted_at) == ("waiting", author, START)
    assert told.offer.id == told.valid[0].id


@pytest.mark.parametrize("author", ["w1", "eye", "orch"])
def test_nobody_else_submits(author: str) -> None:
    refused(Telling(), author, Queued(a_spec()), "submits no processes")


def test_a_process_is_submitted_once() -> None:
    told = Telling().submit()
    refused(told, "ann", Queued(told.spec), "submitted already")
    refused(told, "ann", Queued(told.spec), "submitted already", prev=None)


def test_nothing_is_true_of_a_process_that_was_not_submitted() -> None:
    for event in (Cancelled(), Requeued(1), Assigned(new_id(), LEASE_S, "one"), Expired()):
        refused(Telling(), "olga", event, "no valid submission")


def test_an_id_belongs_to_its_origin() -> None:
    told = Telling()
    told.id = keyed_id("ann", "nightly")
    refused(told, "ann", Queued(told.spec), "a ULID")
    refused(told, "bob", Queued(told.spec, "nightly"), "does not derive")
    refused(told, "ann", Queued(told.spec, "hourly"), "does not derive")
    assert told.say("ann", Queued(told.spec, "nightly")).valid
    plain = Telling()
    refused(plain, "ann", Queued(plain.spec, "nightly"), "does not derive")
    plain.id = plain.id + "\n"
    refused(plain, "ann", Queued(plain.spec), "a ULID")
    assert derived_id("a", "b") != derived_id("ab")


def test_a_process_waits_in_the_queue_of_its_conditions() -> None:
    refused(Telling(), "ann", Queued(a_spec()), "the queue", queue="a" * 26)
    refused(Telling(), "ann", Queued(a_spec(priority=1)), "the queue")


def test_a_spec_for_another_colony_or_with_dependencies_is_not_of_here() -> None:
    refused(Telling(), "ann", Queued(a_spec(colony="other")), "the spec is for the colony other")
    assert Telling(colony="lab").submit().it.state == "waiting"
    needy = a_spec(conditions={"runtimetype": "cli", "dependencies": ["first"]})
    refused(Telling(), "ann", Queued(needy), "no dependencies")


def test_arguments_are_shown_or_stored_but_not_both() -> None:
    refused(Telling(), "ann", Queued(a_spec(args=[1]), arguments=STORED), "not both")
    assert Telling().say("ann", Queued(a_spec(), arguments=STORED)).valid


# --- assignment -------------------------------------------------------------------------------------


def test_a_worker_takes_a_waiting_process() -> None:
    told = Telling().submit()
    told.wait(1)
    attempt = told.take("w1")
    last = told.it.attempts[-1]
    assert (last.n, last.id, last.worker, last.instance, last.ended_at) == (1, attempt, "w1", "one", None)
    assert told.it.phase == Running(told.offer, LEASE_S, told.now)


@pytest.mark.parametrize("author", ["ann", "olga", "eye", "orch"])
def test_nobody_else_takes_one(author: str) -> None:
    told = Telling().submit()
    refused(told, author, Assigned(told.offer.id, LEASE_S, "one"), "takes no processes")


def test_a_worker_that_is_not_named_takes_nothing() -> None:
    told = Telling(conditions={"runtimetype": "cli", "workernames": ["w2"]}).submit()
    refused(told, "w1", Assigned(told.offer.id, LEASE_S, "one"), "for w2")
    told.take("w2")


def test_an_assignment_names_the_current_offer() -> None:
    told = Telling().submit()
    first = told.offer.id
    told.wait(10)
    told.requeue()
    refused(told, "w1", Assigned(first, LEASE_S, "one"), "current offer")
    told.take()


def test_a_lease_is_no_longer_than_any_the_colony_has_had() -> None:
    told = Telling().submit()
    refused(told, "w1", Assigned(told.offer.id, LEASE_S + 1, "one"), "longer")
    told.configure(LEASE_S + 5)
    told.configure(LEASE_S)
    told.take("w1", LEASE_S + 5)


def test_a_longer_lease_of_later_does_not_make_an_old_event_true() -> None:
    told = Telling().submit()
    record = told.record("w1", Assigned(told.offer.id, LEASE_S + 5, "one"))
    told.configure(LEASE_S + 5)
    assert not judge(told.process, record, told.colony).valid


def test_a_running_process_is_not_taken_before_its_lease_has_lapsed() -> None:
    told = Telling().submit()
    told.take("w1")
    told.wait(LEASE_S)
    told.now -= 1
    refused(told, "w2", Assigned(told.offer.id, LEASE_S, "two"), "attempt 1 of w1 holds it")
    told.now += 1
    told.take("w2")
    first, second = told.it.attempts
    assert (first.outcome, first.ended_at, second.n) == ("lost", told.now, 2)
    assert "no sign of life from w1 within its lease of 10 s" in told.it.errors


def test_a_renewal_starts_the_lease_anew() -> None:
    told = Telling().submit()
    attempt = told.take("w1")
    told.wait(LEASE_S - 1)
    assert told.say("w1", Renewed(attempt)).valid
    told.wait(LEASE_S - 1)
    refused(told, "w2", Assigned(told.offer.id, LEASE_S, "two"), "holds it")


def test_an_id_names_one_attempt() -> None:
    told = Telling().submit()
    attempt = told.take("w1")
    assert told.say("w1", Returned(attempt)).valid
    refused(told, "w1", Assigned(told.offer.id, LEASE_S, "one"), "earlier attempt", id=attempt)


# --- the end of an attempt --------------------------------------------------------------------------


def test_the_holder_completes_and_that_is_final() -> None:
    told = Telling().submit()
    attempt = told.take()
    told.wait(1)
    assert told.say("w1", Completed(attempt, {"n": 1}, logs=LogDigest(3, "0" * 64))).valid
    assert told.it.phase == Successful({"n": 1})
    assert (told.it.attempts[-1].logs, told.it.ended_at) == (3, told.now)
    for author, event in [
        ("w1", Completed(attempt)),
        ("w1", Failed(attempt, "no")),
        ("w1", Renewed(attempt)),
        ("ann", Cancelled()),
        ("olga", Cancelled()),
        ("orch", Requeued(told.it.sequence)),
        ("orch", Expired()),
        ("orch", Poisoned()),
        ("w2", Assigned(new_id(), LEASE_S, "two")),
    ]:
        refused(told, author, event, "successful already")


def test_an_output_is_in_the_event_or_stored_but_not_both() -> None:
    told = Telling().submit()
    attempt = told.take()
    refused(told, "w1", Completed(attempt, 1, STORED), "not both")
    assert told.say("w1", Completed(attempt, None, STORED)).valid


@pytest.mark.parametrize("event", [Renewed, Returned, Completed, lambda a: Failed(a, "no")])
def test_only_the_holder_speaks_for_an_attempt(event) -> None:  # type: ignore[no-untyped-def]
    told = Telling().submit()
    refused(told, "w1", event(new_id()), "waiting, not running")
    attempt = told.take("w1")
    for author in ("ann", "olga", "eye", "orch"):
        refused(told, author, event(attempt), "holds no attempts")
    refused(told, "w2", event(attempt), "attempt 1 of w1 holds")
    refused(told, "w1", event(new_id()), "attempt 1 of w1 holds")


def test_a_worker_that_lost_its_lease_cannot_report_a_result() -> None:
    told = Telling().submit()
    lost = told.take("w1")
    told.wait(LEASE_S)
    told.take("w2")
    refused(told, "w1", Completed(lost), "attempt 2 of w2 holds")


def test_two_instances_of_one_worker_are_fenced_from_each_other() -> None:
    told = Telling().submit()
    lost = told.take("w1", instance="one")
    told.wait(LEASE_S)
    mine = told.take("w1", instance="two")
    refused(told, "w1", Completed(lost), "attempt 2 of w1 holds")
    told.complete(mine)


def test_a_late_result_counts_while_nobody_has_taken_over() -> None:
    told = Telling().submit()
    attempt = told.take("w1")
    told.wait(100 * LEASE_S)
    told.complete(attempt)
    assert told.it.state == "successful"


def test_a_returned_process_waits_in_its_offer_and_nothing_counts() -> None:
    told = Telling(maxwaittime=60).submit()
    offer = told.offer
    attempt = told.take("w1")
    told.wait(50)
    assert told.say("w1", Returned(attempt, "shutting down")).valid
    assert told.it.phase == Waiting(offer, told.now)
    assert (told.it.failures, told.it.attempts[-1].outcome) == (0, "returned")
    told.wait(50)
    refused(told, "orch", Expired(), "has not waited")


# --- failure and retries ----------------------------------------------------------------------------


def test_without_retries_the_first_failure_is_final() -> None:
    told = Telling().submit()
    told.fail(told.take())
    assert told.it.phase == FailedForGood("broken")


def test_a_failed_attempt_is_followed_by_another_after_its_delay() -> None:
    told = Telling(maxretries=1).submit()
    told.fail(told.take(), delay_s=2.5)
    assert told.it.phase == Blocked(told.now + 2_500_000_000)
    refused(told, "w1", Assigned(new_id(), LEASE_S, "one"), "blocked, not offered")
    told.wait(2.4)
    refused(told, "orch", Requeued(told.it.sequence), "delay is not over")
    told.wait(0.1)
    told.requeue()
    told.fail(told.take(), "timeout")
    assert told.it.state == "failed"
    assert [attempt.outcome for attempt in told.it.attempts] == ["failed", "timeout"]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_maxretries_counts_the_attempts_after_the_first(retries: int) -> None:
    told = Telling(maxretries=retries).submit()
    while not told.it.final:
        told.fail(told.take())
        if not told.it.final:
            told.requeue()
    assert len(told.it.attempts) == retries + 1


def test_retries_without_limit_never_run_out() -> None:
    told = Telling(maxretries=-1).submit()
    for _ in range(50):
        told.fail(told.take())
        told.requeue()
    assert (told.it.state, told.it.failures) == ("waiting", 50)


def test_a_final_failure_ends_it_whatever_retries_are_left() -> None:
    told = Telling(maxretries=-1).submit()
    told.fail(told.take(), "final")
    assert (told.it.state, told.it.failures) == ("failed", 0)


def test_later_waits_without_counting() -> None:
    told = Telling(maxretries=0).submit()
    for _ in range(3):
        told.fail(told.take(), "later", delay_s=1)
        told.wait(1)
        told.requeue()
    assert (told.it.state, told.it.failures) == ("waiting", 0)


def test_only_the_last_thousand_attempts_are_kept_and_their_numbers_go_on() -> None:
    told = Telling(maxretries=-1).submit()
    for _ in range(MAX_ATTEMPTS_KEPT + 2):
        told.fail(told.take())
        told.requeue()
    assert len(told.it.attempts) == MAX_ATTEMPTS_KEPT
    assert (told.it.attempts[0].n, told.it.attempts[-1].n) == (3, MAX_ATTEMPTS_KEPT + 2)
    assert told.it.failures == MAX_ATTEMPTS_KEPT + 2


# --- lost workers -----------------------------------------------------------------------------------


def lose(told: Telling, times: int) -> None:
    for _ in range(times):
        told.take()
        told.wait(LEASE_S)


def test_lost_attempts_are_no_failures() -> None:
    told = Telling(maxretries=0).submit()
    lose(told, 3)
    attempt = told.take()
    assert (told.it.failures, told.it.lost_in_a_row) == (0, 3)
    told.complete(attempt)
    assert (told.it.state, told.it.lost_in_a_row) == ("successful", 0)


@pytest.mark.parametrize("author", ["w1", "orch"])
def test_after_5_lost_attempts_in_a_row_it_is_poison_and_nobody_takes_it(author: str) -> None:
    told = Telling().submit()
    lose(told, MAX_LOST_IN_A_ROW - 1)
    refused(told, author, Poisoned(), "has not lost 5")
    lose(told, 1)
    refused(told, "w2", Assigned(told.offer.id, LEASE_S, "two"), "lost their worker")
    told.wait(20 * LEASE_S)
    refused(told, "orch", Requeued(told.it.sequence), "lost their worker")
    assert told.say(author, Poisoned()).valid
    assert told.it.phase == FailedForGood("poison: 5 attempts in a row lost their worker")
    assert told.it.attempts[-1].outcome == "lost"


@pytest.mark.parametrize("author", ["ann", "olga", "eye"])
def test_a_person_calls_nothing_poison(author: str) -> None:
    told = Telling().submit()
    lose(told, MAX_LOST_IN_A_ROW)
    refused(told, author, Poisoned(), "calls no process poison")


def test_an_attempt_that_ends_in_any_other_way_breaks_the_row() -> None:
    told = Telling(maxretries=-1).submit()
    lose(told, 4)
    told.fail(told.take())
    told.requeue()
    lose(told, 4)
    assert lost_in_a_row(told.it, told.now) == 4
    told.take()


# --- offered again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("author", ["ann", "olga", "w1", "eye"])
def test_only_the_service_offers_again(author: str) -> None:
    told = Telling().submit()
    told.wait(100)
    refused(told, author, Requeued(told.it.sequence), "does not offer")


def test_a_waiting_process_is_offered_again_after_10_s_and_its_wait_goes_on() -> None:
    told = Telling(maxwaittime=25).submit()
    told.wait(9.9)
    refused(told, "orch", Requeued(told.it.sequence), "not waited for 10 s")
    told.wait(0.1)
    told.requeue()
    told.wait(9.9)
    refused(told, "orch", Requeued(told.it.sequence), "not waited for 10 s")
    told.wait(5.1)
    assert told.say("orch", Expired()).valid


def test_a_process_that_was_just_given_back_is_not_offered_again_at_once() -> None:
    told = Telling().submit()
    attempt = told.take()
    told.wait(60)
    assert told.say("w1", Returned(attempt)).valid
    refused(told, "orch", Requeued(told.it.sequence), "not waited for 10 s")


def test_a_re_offer_cites_what_it_answers_and_stays_in_its_queue() -> None:
    told = Telling().submit()
    told.wait(10)
    refused(told, "orch", Requeued(told.it.sequence - 1), "cite")
    refused(told, "orch", Requeued(told.it.sequence), "the queue", queue="a" * 26)


def test_the_service_cannot_take_a_process_from_a_worker_that_renews_in_time() -> None:
    told = Telling().submit()
    attempt = told.take("w1")
    for _ in range(3):
        told.wait(11 * LEASE_S)
        refused(told, "orch", Requeued(told.it.sequence), "may still be alive")
        assert told.say("w1", Renewed(attempt)).valid
    told.complete(attempt)


def test_the_service_cannot_call_a_living_worker_lost_to_end_the_process() -> None:
    told = Telling().submit()
    lose(told, 4)
    told.take("w1")
    told.wait(2 * LEASE_S)
    refused(told, "orch", Poisoned(), "has not lost 5")


def test_a_process_whose_worker_fell_silent_is_offered_again() -> None:
    told = Telling().submit()
    attempt = told.take("w1")
    told.wait(12 * LEASE_S)
    told.requeue()
    assert (told.it.state, told.it.lost_in_a_row, told.it.attempts[-1].outcome) == ("waiting", 1, "lost")
    refused(told, "w1", Completed(attempt), "waiting, not running")
    told.complete(told.take("w2"))


def test_a_worker_with_a_long_lease_renews_every_5_minutes() -> None:
    told = Telling().submit()
    told.configure(1_000)
    told.take("w1", 1_000)
    told.wait(2_299)
    refused(told, "orch", Requeued(told.it.sequence), "may still be alive")
    told.wait(1)
    told.requeue()


# --- expiry and cancel ------------------------------------------------------------------------------


@pytest.mark.parametrize("author", ["w1", "orch"])
def test_a_process_that_nobody_took_in_time_expires(author: str) -> None:
    told = Telling(maxwaittime=60).submit()
    told.wait(59.9)
    refused(told, author, Expired(), "has not waited")
    told.wait(0.1)
    assert told.say(author, Expired()).valid
    assert told.it.phase == FailedForGood("nobody took it within 60 s")
    assert told.it.errors == ["nobody took it within 60 s"]


def test_without_a_maxwaittime_or_once_taken_nothing_expires() -> None:
    told = Telling().submit()
    told.wait(10**6)
    refused(told, "orch", Expired(), "no wait")
    taken = Telling(maxwaittime=60).submit()
    taken.take()
    taken.wait(1_000)
    refused(taken, "orch", Expired(), "no wait")


@pytest.mark.parametrize("author", ["ann", "olga", "eye"])
def test_a_person_lets_nothing_expire(author: str) -> None:
    told = Telling(maxwaittime=60).submit()
    told.wait(60)
    refused(told, author, Expired(), "lets no process expire")


@pytest.mark.parametrize("author", ["ann", "olga"])
def test_the_submitter_and_an_owner_cancel_it(author: str) -> None:
    told = Telling().submit("ann")
    attempt = told.take()
    assert told.say(author, Cancelled("too dear")).valid
    assert told.it.phase == CancelledForGood(author, "too dear")
    assert told.it.attempts[-1].outcome == "cancelled"
    refused(told, "w1", Completed(attempt), "cancelled already")


@pytest.mark.parametrize("author", ["bob", "w1", "eye"])
def test_nobody_cancels_the_process_of_another(author: str) -> None:
    told = Telling().submit("ann")
    refused(told, author, Cancelled(), "only ann or an owner")


def test_the_service_cancels_no_process_that_is_not_a_node() -> None:
    refused(Telling().submit("ann"), "orch", Cancelled(cites=1), "nothing but nodes of workflows")


# --- the chain and the clock ------------------------------------------------------------------------


def test_an_event_that_does_not_follow_the_last_valid_one_is_not_true() -> None:
    told = Telling().submit()
    first = told.it.head
    told.take()
    refused(told, "ann", Cancelled(), "prev", prev=first)
    refused(told, "ann", Cancelled(), "prev", prev=None)
    refused(told, "ann", Cancelled(), "prev", prev=bytes(32))


def test_bytes_that_are_stored_again_are_never_true_again() -> None:
    told = Telling(maxretries=-1).submit()
    told.fail(told.take())
    told.requeue()
    told.take("w2")
    for record in list(told.valid):
        assert not told.tell(record).valid


def test_a_clock_that_goes_back_does_not_break_the_fence_or_the_order_of_times() -> None:
    told = Telling().submit()
    told.wait(5)
    told.take("w1")
    told.now -= 3_600 * SECOND
    refused(told, "w2", Assigned(told.offer.id, LEASE_S, "two"), "holds it")
    told.complete(told.it.attempts[-1].id)
    assert told.it.ended_at == told.it.attempts[-1].started_at == START + 5 * SECOND


def test_a_writer_asks_by_the_time_that_the_fold_will_have_even_if_the_clock_went_back() -> None:
    told = Telling(maxwaittime=30).submit()
    told.wait(30)
    told.requeue()
    told.now -= 20 * SECOND
    expired = told.record("orch", Expired())
    told.require(expired)
    assert told.tell(expired).valid


def test_a_writer_learns_who_may_not_from_what_is_not_true() -> None:
    told = Telling().submit("ann")
    with pytest.raises(Refused, match="only ann or an owner"):
        told.require(told.record("bob", Cancelled()))
    with pytest.raises(Conflict, match="no wait"):
        told.require(told.record("orch", Expired()))


# --- whatever anybody says --------------------------------------------------------------------------

authors = st.sampled_from(sorted(MEMBERS))
kinds = st.sampled_from(["error", "timeout", "final", "later"])
outcomes = st.sampled_from([Renewed, Returned, Completed])


class AnybodySaysAnything(RuleBasedStateMachine):
    """Members speak at random, the broker's clock jumps; what they say is judged and, if valid, folded."""

    @initialize(
        retries=st.sampled_from([-1, 0, 1, 2]),
        wait=st.sampled_from([None, 15]),
        names=st.sampled_from([[], ["w1"]]),
    )
    def begin(self, retries: int, wait: int | None, names: list[str]) -> None:
        conditions = {"runtimetype": "cli", "workernames": names}
        self.told = Telling(maxretries=retries, maxwaittime=wait, conditions=conditions)
        self.submitter = "ann"
        self.finals = 0
        self.failures = 0
        self.states: list[Process | None] = [None]

    def hear(self, author: str, event: ProcessEvent, prev: bytes | type | None = str) -> None:
        told = self.told
        before = told.process
        record = told.record(author, event, prev=prev)
        chained = prev is str or record.prev == (before.head if before else None)
        if chained:
            try:
                told.require(record)
                allowed = True
            except (Conflict, Refused):
                allowed = False
        verdict = told.tell(record)
        if chained:
            assert verdict.valid == allowed
        else:
            assert not verdict.valid
        if verdict.valid:
            self.check(before, record)
        else:
            assert told.process is before

    def check(self, before: Process | None, record: Record) -> None:
        after = self.told.it
        self.states.append(after)
        assert before is None or not before.final
        self.finals += after.final
        if isinstance(record.event, Failed) and record.event.kind in ("error", "timeout"):
            self.failures += 1
        if isinstance(record.event, Assigned) and before is not None and isinstance(before.phase, Running):
            assert record.time >= before.phase.lapses_at()
        if before is not None and isinstance(before.phase, Running) and record.author == "orch":
            assert record.time >= before.phase.silent_at()
        if isinstance(record.event, Cancelled):
            assert record.author in ("olga", after.submitter)

    @rule(seconds=st.sampled_from([0.001, 1, 2, 9.9, 10, 10.1, 15, 60, 130, -5, -3_600]))
    def the_clock_moves(self, seconds: float) -> None:
        self.told.wait(seconds)

    @rule(author=authors)
    def submits(self, author: str) -> None:
        self.hear(author, Queued(self.told.spec))

    @rule(author=authors, stale=st.booleans(), instance=st.sampled_from(["one", "two"]))
    def takes(self, author: str, stale: bool, instance: str) -> None:
        process = self.told.process
        offer = getattr(process.phase, "offer", None) if process else None
        id = new_id() if stale or offer is None else offer.id
        self.hear(author, Assigned(id, LEASE_S, instance))

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def takes_as_it_should(self, worker: str) -> None:
        self.takes(worker, False, "one")

    @rule(author=authors, event=outcomes, which=st.integers(0, 3))
    def speaks_for_an_attempt(self, author: str, event, which: int) -> None:  # type: ignore[no-untyped-def]
        self.hear(author, event(self.attempt(which)))

    @rule(event=outcomes)
    def speaks_as_the_holder(self, event) -> None:  # type: ignore[no-untyped-def]
        if event is not Completed:
            self.hear(self.holder(), event(self.attempt(0)))

    @rule()
    def completes_as_the_holder(self) -> None:
        if len(self.states) > 12:
            self.hear(self.holder(), Completed(self.attempt(0)))

    @rule(author=authors, kind=kinds, delay=st.sampled_from([0, 1, 30]), which=st.integers(0, 2))
    def fails(self, author: str, kind, delay: float, which: int) -> None:  # type: ignore[no-untyped-def]
        self.hear(author, Failed(self.attempt(which), "broken", kind, delay))

    @rule(kind=kinds)
    def fails_as_the_holder(self, kind) -> None:  # type: ignore[no-untyped-def]
        self.hear(self.holder(), Failed(self.attempt(0), "broken", kind))

    @rule(author=authors, back=st.integers(0, 1))
    def offers_again(self, author: str, back: int) -> None:
        self.hear(author, Requeued((self.told.process.sequence if self.told.process else 0) - back))

    @rule()
    def the_service_offers_again(self) -> None:
        self.offers_again("orch", 0)

    @rule(author=authors, event=st.sampled_from([Poisoned(), Expired()]))
    def ends(self, author: str, event: ProcessEvent) -> None:
        self.hear(author, event)

    @rule(author=authors)
    def cancels(self, author: str) -> None:
        if len(self.states) > 8:
            self.hear(author, Cancelled())

    @rule(author=authors, back=st.integers(0, 5))
    def speaks_out_of_turn(self, author: str, back: int) -> None:
        valid = self.told.valid
        prev = valid[-1 - back].prev if back < len(valid) else bytes(32)
        self.hear(author, Cancelled(), prev)

    @rule(index=st.integers(0, 20))
    def somebody_stores_old_bytes_again(self, index: int) -> None:
        valid = self.told.valid
        if index < len(valid):
            before = self.told.process
            assert not self.told.tell(valid[index]).valid
            assert self.told.process is before

    def attempt(self, which: int) -> str:
        attempts = self.told.process.attempts if self.told.process else ()
        return attempts[-1 - which].id if which < len(attempts) else new_id()

    def holder(self) -> str:
        attempts = self.told.process.attempts if self.told.process else ()
        return attempts[-1].worker if attempts else "w1"

    @invariant()
    def everything_holds(self) -> None:
        process = self.told.process
        if process is None:
            assert not self.told.valid
            return
        assert self.finals == process.final
        attempts = process.attempts
        assert [attempt.n for attempt in attempts] == list(range(1, len(attempts) + 1))
        still_open = [attempt.ended_at is None for attempt in attempts]
        assert not any(still_open[:-1])
        assert isinstance(process.phase, Running) == (still_open[-1:] == [True])
        # Fenced: an attempt begins no earlier than the one before it has ended.
        for first, second in pairwise(attempts):
            assert first.ended_at is not None
            assert first.started_at <= first.ended_at <= second.started_at
        assert process.failures == self.failures
        retries = process.spec.maxretries
        assert retries == -1 or process.failures <= retries + 1
        if not process.final and retries != -1:
            assert process.failures <= retries
        assert process.lost_in_a_row <= MAX_LOST_IN_A_ROW
        assert process.time == max(record.time for record in self.told.valid)
        assert (process.head, process.sequence) == (
            self.told.valid[-1].digest,
            self.told.valid[-1].sequence,
        )

    def teardown(self) -> None:
        """The fold of a beginning, continued, is the fold of all."""
        if not hasattr(self, "told"):
            return
        process = None
        for index, record in enumerate(self.told.valid, start=1):
            assert judge(process, record, self.told.colony).valid
            process = evolve(process, record)
            assert process == self.states[index]


TestAnybodySaysAnything = AnybodySaysAnything.TestCase
TestAnybodySaysAnything.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
