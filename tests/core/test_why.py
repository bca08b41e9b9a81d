"""Reasons out of facts: each code, what it says, and the events that it stands on. No broker, no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from colonies.core.capacity import Capacity
from colonies.core.colony import Queue
from colonies.core.dag import Dag
from colonies.core.ends import End
from colonies.core.events import (
    Cancelled,
    Expired,
    Failed,
    Poisoned,
    Requeued,
    Returned,
    Submitted,
    quarantined,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.process import SECOND, Process, evolve
from colonies.core.spec import Conditions, Limit
from colonies.heartbeats import Heartbeat
from colonies.history import Judged
from colonies.ledger import Stored
from colonies.looking import NodeNow
from colonies.reasons import (
    Ahead,
    Cause,
    Facts,
    PlaceNow,
    Reason,
    Step,
    Stop,
    Usual,
    Views,
    WorkerNow,
    lasted,
    reason_object,
)
from colonies.why import why
from colonies.why_nodes import not_begun
from colonies.why_waiting import needs
from tests.core.telling import LEASE_S, START, Telling

NO_ONE = Views(9)


def facts_of(told: Telling, **more: Any) -> Facts:
    """What is known of a told process: of its queue, too, and that views answer, with nobody alive."""
    process: Process | None = None
    steps = []
    for record in told.valid:
        process = evolve(process, record)
        steps.append(Step(record, process))
    queue = Queue(told.queue, told.spec.conditions, told.spec.priority, 50)
    return Facts(
        **{"process": told.it, "steps": steps, "now": told.now, "queue": queue, "views": NO_ONE, **more}
    )


def said(facts: Facts) -> dict[str, Reason]:
    return {reason.code: reason for reason in why(facts)}


def worker(name: str = "w1", running: int = 0, functions: tuple[str, ...] = (), **more: Any) -> WorkerNow:
    found = {"runtimetype": "cli", "concurrency": 4, "has": Capacity(), **more}
    return WorkerNow(name, "one", running=running, functions=functions, **found)


def sequences(told: Telling) -> list[int]:
    return [record.sequence for record in told.valid]


# --- waiting ------------------------------------------------------------------------------------------


def test_what_nobody_has_is_said_with_the_nearest_worker() -> None:
    told = Telling(conditions={"runtimetype": "cli", "gpu": {"count": 2}, "cpu": 2}).submit()
    one = worker("lab1", has=Capacity.parse({"cpu": 8, "gpus": [{"id": "0"}]}))
    workers = (worker("lab2", runtimetype="python"), one, worker("lab3"))
    found = said(facts_of(told, views=Views(9, workers)))["unserved"]
    assert found.text == (
        "waiting since 2025-06-15T15:06:40Z: needs runtimetype=cli, cpu=2 and gpu=2; 0 of 3 workers have it; "
        "nearest: lab1 lacks gpu: 2 needed, 1 there"
    )
    assert found.sequences == (50, told.it.sequence)
    assert found.since == START
    assert [near["worker"] for near in found.data["nearest"]] == ["lab1", "lab3", "lab2"]
    assert found.data["position"] == 9


def test_of_very_many_workers_it_says_that_it_looked_at_the_newest() -> None:
    told = Telling(conditions={"runtimetype": "cli", "gpu": {"count": 2}}).submit()
    found = said(facts_of(told, views=Views(9, (worker(), worker("w2")), more=True)))["unserved"]
    assert "; of the newest workers 0 of 2 workers have it" in found.text


def test_that_no_worker_is_alive_is_said_as_such() -> None:
    assert said(facts_of(Telling().submit()))["unserved"].text.endswith("; no worker is alive")


@pytest.mark.parametrize(
    ("workers", "code", "text"),
    [
        (
            (worker(running=4), worker("w2", 4)),
            "workers_busy",
            "2 could take it and are busy: each runs 4 of 4",
        ),
        (
            (worker(running=4), worker("w2", 1, concurrency=1)),
            "workers_busy",
            "w1 runs 4 of 4, w2 runs 1 of 1",
        ),
        ((worker(running=1),), "workers_free", "w1 runs 1 of 4: it is about to be taken"),
    ],
)
def test_whether_those_who_have_it_are_busy_is_said(
    workers: tuple[WorkerNow, ...], code: str, text: str
) -> None:
    told = Telling().submit()
    reasons = said(facts_of(told, views=Views(9, (*workers, worker("other", runtimetype="x")))))
    assert reasons[code].text.endswith(text)
    assert f"; {len(workers)} of {len(workers) + 1} workers have it; " in reasons[code].text
    assert reasons[code].sequences == (50, told.it.sequence)


def test_a_place_that_is_free_may_lack_what_others_use_up() -> None:
    told = Telling(conditions={"runtimetype": "cli", "mem": "8GB"}).submit()
    big = worker(running=1, has=Capacity.parse({"mem": "16GB"}))
    assert (
        "may use up the mem that this needs"
        in said(facts_of(told, views=Views(9, (big,))))["workers_full"].text
    )
    idle = replace(big, running=0)
    assert "workers_free" in said(facts_of(told, views=Views(9, (idle,))))


def test_who_drained_which_worker_is_said() -> None:
    stop = Stop("worker", "w1", "olga", START, "new disks", 33)
    facts = facts_of(Telling().submit(), stops=[stop], views=Views(9, (worker(),)))
    reasons = said(facts)
    assert reasons["worker_drained"].text == (
        "the worker w1 is drained by olga since 2025-06-15T15:06:40Z: new disks"
    )
    assert reasons["worker_drained"].sequences == (33,)
    assert reasons["all_drained"].text.endswith("1 of 1 worker have it, all drained")
    others = said(replace(facts, views=Views(9, (worker(), worker("w2")))))
    assert "w2 runs 0 of 4" in others["workers_free"].text
    elsewhere = said(replace(facts, views=Views(9, (worker("w2"),))))
    assert "worker_drained" not in elsewhere


def test_who_paused_what_is_said_also_of_what_is_blocked() -> None:
    stops = [Stop("colony", "lab", "olga", START, "", 31), Stop("queue", "q", "olga", START, "licence", 32)]
    facts = facts_of(Telling().submit(), stops=stops, views=Views(9, (worker(),)))
    reasons = said(facts)
    assert list(reasons) == ["colony_paused", "queue_paused"]
    assert reasons["colony_paused"].text == "the colony is paused by olga since 2025-06-15T15:06:40Z"
    assert reasons["queue_paused"].text.endswith(": licence")
    assert (reasons["colony_paused"].sequences, reasons["queue_paused"].sequences) == ((31,), (32,))
    told = Telling(delay=60)
    told.say("ann", Submitted(told.spec))
    assert list(said(facts_of(told, stops=stops))) == ["delay", "colony_paused", "queue_paused"]


def test_what_waits_before_it_is_counted() -> None:
    told = Telling().submit()
    reasons = said(facts_of(told, views=Views(9, (worker(running=4),), ahead=Ahead(12, False, 1))))
    assert reasons["ahead"].text == "12 processes submitted before it wait in the same queue"
    assert reasons["higher_priority"].text == "1 process of higher priority waits for the same workers"
    more = said(facts_of(told, views=Views(9, (worker(running=4),), ahead=Ahead(1_000, True, 0))))
    assert more["ahead"].text.startswith("more than 1000 processes")
    assert "higher_priority" not in more


def test_offers_that_nobody_took_are_counted_from_the_last_attempt_on() -> None:
    told = Telling(maxretries=1).submit()
    assert "not_taken" not in said(facts_of(told))
    told.wait(10)
    told.requeue()
    told.wait(10)
    told.requeue()
    found = said(facts_of(told))["not_taken"]
    assert found.text == f"offered 3 times; the offer of sequence {told.it.sequence} is not taken"
    assert found.sequences == tuple(sequences(told))
    told.fail(told.take())
    told.requeue()
    assert "not_taken" not in said(facts_of(told))


def test_workers_without_the_function_leave_it_to_others_or_would_fail_it() -> None:
    told = Telling().submit()
    both = (worker(functions=("other",)), worker("w2", functions=("resize",)))
    found = said(facts_of(told, views=Views(9, both)))["no_function"]
    assert found.text == "w1 has no function resize and leaves it to others; w2 has it"
    assert "no_function" not in said(facts_of(told, views=Views(9, (worker(), worker("w2"))))), "of shells"
    many = worker("w3", functions=("other",), more_functions=True)
    assert "no_function" not in said(facts_of(told, views=Views(9, (many,)))), "it has others as well"
    found = said(facts_of(told, views=Views(9, (both[0], many))))["no_function"]
    assert found.text.endswith("w1 has no function resize and would fail it; none is known to have it")


def test_until_when_it_may_wait_is_said() -> None:
    told = Telling(maxwaittime=60).submit()
    found = said(facts_of(told))["expires"]
    assert found.until == START + 60 * SECOND
    assert "unless somebody takes it before (maxwaittime 60 s)" in found.text


def test_without_views_it_says_what_is_not_known() -> None:
    found = said(facts_of(Telling().submit(), views=None, silence="nobody answers"))
    assert list(found) == ["no_views"]
    assert found["no_views"].text.endswith("needs runtimetype=cli; nobody answers")
    assert found["no_views"].sequences[0] == 50


# --- blocked ------------------------------------------------------------------------------------------


def test_a_delay_a_backoff_and_a_put_off_are_told_apart() -> None:
    delayed = Telling(delay=60)
    delayed.say("ann", Submitted(delayed.spec))
    found = said(facts_of(delayed))["delay"]
    assert (found.until, found.sequences) == (START + 60 * SECOND, (delayed.it.sequence,))
    for kind, code in (("error", "backoff"), ("later", "put_off")):
        told = Telling(maxretries=2).submit()
        told.fail(told.take(), kind, 30.0)
        found = said(facts_of(told))[code]
        assert found.text.startswith("blocked: attempt 1 on w1 ended so: broken; it ")
        assert found.until == told.now + 30 * SECOND
        assert found.sequences == (told.it.sequence,)
        assert list(said(facts_of(told))) == [code], "the attempt is not told twice"
        told.wait(31)
        due = said(facts_of(told))
        assert "an orchestrator is to offer it" in due["offer_due"].text
        assert set(due) == {"offer_due", "attempt_failed" if kind == "error" else "attempt_put_off"}


LIMIT = Limit(key="k", running=2)
RATE = Limit(key="maps", rate=5, per="minute")


def blocked_by_limits() -> Telling:
    told = Telling(limits=[{"key": "k", "running": 2}, {"key": "maps", "rate": 5, "per": "minute"}])
    told.say("ann", Submitted(told.spec))
    return told


def test_who_has_the_places_under_a_key_is_said() -> None:
    told = blocked_by_limits()
    full = PlaceNow("k", LIMIT, (("A", 21), ("B", 22)), None)
    found = said(facts_of(told, places=[full]))["limit_reached"]
    assert found.text == "blocked: limit key k: 2 of 2 places taken by A, B"
    assert found.sequences == (21, 22)
    assert found.since == told.it.time


def test_when_a_rate_has_the_next_place_is_said() -> None:
    at = START + 30 * SECOND
    place = PlaceNow("maps", RATE, (), at, (21, 21, 22, 23, 23))
    found = said(facts_of(blocked_by_limits(), places=[PlaceNow("k", LIMIT, (), START, granted=20), place]))
    assert list(found) == ["rate_reached"]
    assert found["rate_reached"].until == at
    assert found["rate_reached"].sequences == (21, 22, 23)
    assert found["rate_reached"].text.startswith(
        "blocked: rate maps: 5 per minute, 5 granted; next place at "
    )


def test_a_place_that_is_free_or_granted_leaves_it_to_the_orchestrator() -> None:
    told = blocked_by_limits()
    free = said(facts_of(told, places=[PlaceNow("k", LIMIT, (("A", 21),), START)]))
    assert free["place_due"].text.startswith("blocked: there is room under k, and no place is granted yet")
    granted = said(facts_of(told, places=[PlaceNow("k", LIMIT, (), START, granted=30)]))
    assert granted["offer_due"].sequences == (told.it.sequence, 30)


# --- running, and attempts ----------------------------------------------------------------------------


def test_a_running_process_says_where_since_when_and_how_far() -> None:
    told = Telling(maxexectime=600).submit()
    attempt = told.take()
    told.wait(5)
    beat = Heartbeat("w1", "one", told.now - SECOND, "cli", 4, {told.id: [attempt, 0.4, "epoch 4"]})
    found = said(facts_of(told, beat=beat))
    assert list(found) == ["running"]
    assert found["running"].text == (
        "running since 2025-06-15T15:06:40Z: attempt 1 on w1/one; it may run until 2025-06-15T15:16:40Z "
        "(maxexectime 600 s); it showed life 1.0 s ago, 40% done: epoch 4"
    )
    assert found["running"].sequences == (told.it.sequence,)
    told.wait(LEASE_S)
    found = said(facts_of(told, beat=beat))
    assert list(found) == ["silent", "running"]  # the most telling first
    silent = found["silent"]
    assert silent.since == beat.time
    assert silent.sequences == (told.it.sequence,)
    other = replace(beat, attempts={told.id: ["another", 0.9, ""]})
    assert "showed life" not in said(facts_of(told, beat=other))["running"].text
    junk = replace(beat, attempts={told.id: [attempt, "much", {"more": 1}]})
    assert "showed life" in said(facts_of(told, beat=junk))["running"].text


def test_longer_than_usual_is_said_when_it_is() -> None:
    told = Telling().submit()
    told.take()
    told.wait(8)
    usual = Views(9, usual=Usual(20, 1.0, 4.0))
    found = said(facts_of(told, views=usual))["running_long"]
    assert found.text.startswith("it runs for 8.0 s, longer than each of the last 20 of resize that were")
    script = Telling(func="\n  sleep 9 \nexit 1\n").submit()
    script.take()
    script.wait(8)
    assert " of sleep 9  ... that were" in said(facts_of(script, views=usual))["running_long"].text
    assert "running_long" not in said(facts_of(told, views=replace(usual, usual=Usual(20, 1.0, 9.0))))


def test_a_lost_attempt_says_after_which_event_and_who_took_over() -> None:
    told = Telling().submit()
    told.take("w1")
    told.wait(LEASE_S)
    told.take("w2")
    found = said(facts_of(told))["attempt_lost"]
    first, second = sequences(told)[1:]
    assert found.text == (
        f"attempt 1 on w1 was lost: no sign of life for 10 s after sequence {first}; "
        f"attempt 2 on w2 took it at sequence {second}"
    )
    assert found.sequences == (first, second)


def test_a_running_attempt_that_was_offered_again_says_so() -> None:
    told = Telling().submit()
    told.take("w1")
    told.wait(12 * LEASE_S)
    told._must(told.say("orch", Requeued(told.it.sequence)))
    assert said(facts_of(told))["attempt_lost"].text.endswith(
        f"; offered again at sequence {told.it.sequence}"
    )


def test_what_was_given_back_failed_or_timed_out_is_told_the_last_first() -> None:
    told = Telling(maxretries=9).submit()
    told._must(told.say("w1", Returned(told.take("w1"), "the machine goes down")))
    for kind in ("error", "timeout", "later"):
        told.fail(told.take("w2"), kind)
        told.requeue()
    reasons = [reason for reason in why(facts_of(told)) if reason.code.startswith("attempt")]
    assert [reason.code for reason in reasons] == [
        *("attempt_put_off", "attempt_timed_out", "attempt_failed", "attempt_returned")
    ]
    assert reasons[-1].text == (
        "attempt 1 on w1 was given back unfinished: the machine goes down; attempt 2 on w2 took it at "
        f"sequence {sequences(told)[3]}"
    )
    assert reasons[-1].sequences == tuple(sequences(told)[1:3])
    for _ in range(9):
        told.fail(told.take(), "later")
        told.requeue()
    assert said(facts_of(told))["attempts_before"].text.startswith("3 attempts before these; see `colonies")


# --- ends ---------------------------------------------------------------------------------------------


def test_poison_expiry_fail_and_used_up_retries_are_told_apart() -> None:
    told = Telling().submit()
    for _ in range(5):
        told.take()
        told.wait(LEASE_S)
    told._must(told.say("w2", Poisoned()))
    found = said(facts_of(told))["poisoned"]
    assert found.text == "poisoned: 5 attempts in a row were lost, on w1"
    assert found.sequences == tuple(sequences(told)[1:])
    lost = [reason for reason in why(facts_of(told)) if reason.code == "attempt_lost"]
    assert lost[0].text.endswith("; it was not offered again")

    late = Telling(maxwaittime=5).submit()
    late.wait(5)
    late._must(late.say("orch", Expired()))
    expired = said(facts_of(late))["expired"]
    assert expired.text == ("expired: waited longer than its maxwaittime of 5 s, since 2025-06-15T15:06:40Z")
    assert expired.sequences == (late.it.sequence,)

    final = Telling(maxretries=3).submit()
    final.fail(final.take(), "final")
    assert list(said(facts_of(final))) == ["failed_for_good"]
    assert said(facts_of(final))["failed_for_good"].text.endswith(
        "said Fail, or what it was given or gave is not allowed): broken"
    )

    used = Telling(maxretries=1).submit()
    used.fail(used.take())
    used.requeue()
    used.fail(used.take("w2"), "timeout")
    found = said(facts_of(used))["retries_used_up"]
    assert found.text == "retries used up (1 of 1): attempt 2 on w2 timed out: broken"
    assert found.sequences == (used.it.sequence,)
    assert "attempt_failed" in said(facts_of(used))


def test_a_function_that_was_not_there_says_who_has_it() -> None:
    told = Telling().submit()
    error = "LookupError: this worker has no function 'resize'; it has: none"
    told._must(told.say("w1", Failed(told.take(), error)))
    views = Views(9, (worker("w2", functions=("resize",)), worker("w1", functions=("x",))))
    found = said(facts_of(told, views=views))["no_function"]
    assert found.text == "w1 has no function resize; of the living workers of runtimetype cli w2 has it"
    assert said(facts_of(told))["no_function"].text.endswith("none has it")
    assert said(facts_of(told, views=None, silence="?"))["no_function"].text == "w1 has no function resize; ?"


def test_who_cancelled_it_and_why_is_said() -> None:
    told = Telling().submit()
    told.take()
    told._must(told.say("ann", Cancelled("wrong input")))
    found = said(facts_of(told))
    assert found["cancelled"].text == "cancelled by ann at 2025-06-15T15:06:40Z: wrong input"
    assert found["cancelled"].sequences == (told.it.sequence,)
    assert found["attempt_cancelled"].sequences == tuple(sequences(told)[1:])


def test_what_ended_a_node_is_said_with_its_error() -> None:
    told = Telling().submit()
    record = replace(told.record("orch", Cancelled(cites=77, cause="b")), role="service")
    steps = [*facts_of(told).steps, Step(record, evolve(told.it, record))]
    parent = Telling().submit()
    parent.fail(parent.take(), "final")
    facts = facts_of(told, process=steps[-1].after, steps=steps, cause=Cause("b", parent.it))
    found = said(facts)["stopped_by_node"]
    assert found.text.endswith("since node b failed (sequence 77): broken")
    assert found.sequences == (record.sequence, 77)


def test_a_success_and_events_that_do_not_count_are_said() -> None:
    told = Telling().submit()
    attempt = told.take()
    told.wait(3)
    told.complete(attempt)
    late = told.record("w2", Cancelled("late"))
    seen = Judged(Stored("s", late.sequence, late.time, b""), late, quarantined("the process is over"))
    found = said(facts_of(told, refused=[seen]))
    assert found["successful"].text == "successful: attempt 1 on w1 took 3.0 s"
    assert found["not_counted"].text == (
        "process.cancelled of w2 does not count (quarantined): the process is over"
    )
    assert found["not_counted"].sequences == (late.sequence,)


# --- nodes --------------------------------------------------------------------------------------------

NODE = {"func": "f", "conditions": {"runtimetype": "cli"}}


def dag(ends: dict[str, End], *nodes: dict[str, Any]) -> Dag:
    spec = WorkflowSpec.parse([{**NODE, **node} for node in nodes])
    return Dag(spec, 1, START, ends.get)


def nodes_of(of: Dag, processes: dict[str, Process]) -> dict[str, NodeNow]:
    return {label: NodeNow(label, node, label, processes.get(label)) for label, node in of.labels()}


def test_a_node_names_those_that_it_waits_for() -> None:
    a, b = Telling().submit(), Telling(maxretries=1).submit()
    a.take()
    b.fail(b.take(), delay_s=60)
    graph = dag({}, {"name": "a"}, {"name": "b"}, {"name": "c", "dependencies": ["a", "b"]})
    (found,) = not_begun(graph, nodes_of(graph, {"a": a.it, "b": b.it}), "c", START)
    assert found.text == (
        "blocked: waits for parents: a (running since 2025-06-15T15:06:40Z on w1), "
        "b (blocked, attempt 2, backing off until 2025-06-15T15:07:40Z)"
    )
    assert found.sequences == tuple(sorted((a.it.sequence, b.it.sequence)))


@pytest.mark.parametrize(
    ("node", "end", "code", "text"),
    [
        ({"delay": 60}, "successful", "delay", "it has a delay until "),
        ({}, "successful", "release_due", "an orchestrator is to release it"),
        ({}, "failed", "cancel_due", "since its parent a failed; it is cancelled by an orchestrator"),
    ],
)
def test_a_node_whose_parents_have_ended_says_what_is_left(
    node: dict[str, Any], end: str, code: str, text: str
) -> None:
    graph = dag(
        {"a": End("a", 40, START, end, "w1")}, {"name": "a"}, {"name": "c", "dependencies": ["a"], **node}
    )
    parent = Telling().submit()
    parent.fail(parent.take(), "final")
    (found,) = not_begun(graph, nodes_of(graph, {"a": parent.it}), "c", START)
    assert (found.code, text in found.text) == (code, True), found.text
    assert 40 in found.sequences


def test_a_node_with_limits_says_who_has_the_places() -> None:
    graph = dag({}, {"name": "a", "limits": {"key": "k", "running": 1}})
    place = PlaceNow("k", Limit(key="k", running=1), (("X", 21),), None)
    (found,) = not_begun(graph, nodes_of(graph, {}), "a", START, [place])
    assert (found.code, found.sequences) == ("limit_reached", (21,))


# --- words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ({}, "runtimetype=cli"),
        ({"gpu": {"count": 2}}, "runtimetype=cli and gpu=2"),
        ({"gpu": {"count": 1, "name": "A100", "mem": "40GB"}}, "runtimetype=cli and gpu=1 A100 of 40GB"),
        (
            {"cpu": 0.5, "mem": "16GB", "location": "attic", "labels": {"disk": "ssd"}},
            "runtimetype=cli, location=attic, labels.disk=ssd, cpu=0.5 and mem=16GB",
        ),
        (
            {"workernames": ["a", "b"], "nodes": 2, "walltime": 60},
            "runtimetype=cli, workernames=a or b, nodes=2 and walltime=60 s",
        ),
    ],
)
def test_needs_are_said_in_the_words_of_a_spec(conditions: dict[str, Any], text: str) -> None:
    assert needs(Conditions.parse({"runtimetype": "cli", **conditions})) == text


def test_spans_are_said_as_people_say_them() -> None:
    spans = {
        0.04: "0.0 s",
        3.25: "3.2 s",
        42: "42 s",
        600: "10 min",
        10_000: "3 h",
        400_000: "5 d",
        -1: "0.0 s",
    }
    assert {seconds: lasted(int(seconds * SECOND)) for seconds in spans} == spans


def test_a_reason_as_an_object_has_these_fields() -> None:
    shown = reason_object(Reason("delay", "later", (3,), START, None, {"a": (1, 2)}, "p", "n"))
    assert shown == {
        "process": "p",
        "node": "n",
        "reason": "delay",
        "text": "later",
        "sequences": [3],
        "since": "2025-06-15T15:06:40.000000Z",
        "until": None,
        "data": {"a": [1, 2]},
    }
