"""Who is a member from when to when, who may say so, and what queues and workers there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.core import colony as colonies_
from colonies.core.colony import MAX_QUEUES, Colony, Queue
from colonies.core.events import (
    MAX_UNIX_S,
    Approved,
    Configured,
    Declared,
    Event,
    Genesis,
    Revoked,
    Rotated,
    Verdict,
    WorkerStarted,
    WorkerStopped,
)
from colonies.core.members import SECOND
from colonies.core.spec import Conditions, queue_of
from tests.core.telling import ACCOUNT, LEASE_S, MEMBERS, START, a_colony, key, record_of, tell_colony

GENESIS = Genesis("lab", "olga", key(0), {}, LEASE_S)
NEW = key(99)


def told(
    colony: Colony,
    author: str,
    event: Event,
    *,
    of: str = "",
    kind: str = "member",
    sequence: int = 100,
    time: int = START,
    prev: bytes | type | None = str,
) -> Verdict:
    return tell_colony(colony, event, author, kind=kind, entity=of, sequence=sequence, time=time, prev=prev)


def key_at(colony: Colony, name: str, sequence: int, time: int = START) -> str | None:
    holder = colony.key_of("worker", "started", name, sequence, time)
    return holder[0] if holder else None


def changed(former: str, to: str, expires_unix_s: int | None = None) -> Rotated:
    """A change of keys; whether both consented is not for these rules (see test_history)."""
    return Rotated(to, former, bytes(64), bytes(64), expires_unix_s)


def refused(verdict: Verdict, why: str) -> None:
    assert verdict.kind == "quarantined"
    assert why in verdict.rule


def a_queue(**asked: object) -> tuple[str, Declared]:
    conditions = Conditions.parse({"runtimetype": "cli", **asked})
    return queue_of(conditions, 0), Declared(conditions, 0)


# --- genesis ----------------------------------------------------------------------------------------


def test_genesis_makes_its_owner_the_first_member() -> None:
    colony = Colony(ACCOUNT)
    assert tell_colony(colony, GENESIS, "olga", sequence=5).valid
    olga = colony.members["olga"]
    assert (colony.name, colony.lease_s, olga.role, olga.key, olga.since) == (
        "lab",
        LEASE_S,
        "owner",
        key(0),
        5,
    )


def test_genesis_is_signed_by_the_account_and_everything_else_by_a_member() -> None:
    colony = Colony(ACCOUNT)
    assert colony.key_of("colony", "genesis", "anybody", 1, START) == (ACCOUNT, "owner")
    assert colony.key_of("colony", "configured", "olga", 1, START) is None
    assert a_colony().key_of("process", "queued", "ann", 100, START) == (key(1), "user")


def test_there_is_one_genesis() -> None:
    colony = a_colony()
    refused(tell_colony(colony, GENESIS, "olga"), "genesis already")
    refused(tell_colony(colony, GENESIS, "olga", prev=None), "prev")


def test_a_genesis_is_said_by_the_owner_whom_it_names() -> None:
    refused(tell_colony(Colony(ACCOUNT), GENESIS, "ann"), "the owner whom it names")


def test_nothing_is_true_before_genesis() -> None:
    for event, kind in [
        (Configured(5.0), "colony"),
        (Approved(NEW, "user"), "member"),
        (Revoked(), "member"),
    ]:
        refused(told(Colony(ACCOUNT), "olga", event, kind=kind, of="zoe"), "before the colony's genesis")


# --- members ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("author", [name for name, role in MEMBERS.items() if role != "owner"])
def test_only_an_owner_approves_revokes_and_configures(author: str) -> None:
    colony = a_colony()
    for verdict in [
        told(colony, author, Approved(NEW, "owner"), of="zoe"),
        told(colony, author, Revoked(), of="ann"),
        told(colony, author, Configured(20.0), kind="colony"),
    ]:
        refused(verdict, "only an owner")
        assert verdict.denied


def test_a_member_is_one_from_its_approval_to_its_revocation() -> None:
    colony = a_colony()
    assert told(colony, "olga", Approved(NEW, "worker"), of="zoe", sequence=50).valid
    assert told(colony, "olga", Revoked("left"), of="zoe", sequence=60).valid
    held = [sequence for sequence in range(45, 65) if key_at(colony, "zoe", sequence)]
    assert held == list(range(51, 61))  # its revocation itself may be its own word


@pytest.mark.parametrize("bad", ["W1", "a.b", "-a", "a" * 33, "zoe\n", "*", ""])
def test_a_name_that_could_break_a_subject_is_never_approved(bad: str) -> None:
    refused(told(a_colony(), "olga", Approved(NEW, "user"), of=bad), "not a member's name")


def test_neither_a_name_nor_a_key_is_ever_used_again() -> None:
    colony = a_colony()
    refused(told(colony, "olga", Approved(key(1), "user"), of="zoe"), "this key is a member already")
    assert told(colony, "olga", Revoked(), of="ann").valid
    refused(told(colony, "olga", Approved(NEW, "user"), of="ann"), "never used again")
    refused(told(colony, "olga", Approved(key(1), "user"), of="zoe"), "this key is a member already")


def test_who_is_no_member_cannot_be_revoked_and_nobody_twice() -> None:
    colony = a_colony()
    refused(told(colony, "olga", Revoked(), of="zoe"), "no member zoe")
    assert told(colony, "olga", Revoked(), of="ann").valid
    refused(told(colony, "olga", Revoked(), of="ann"), "revoked already")


def test_a_changed_key_counts_from_its_event_on_and_the_former_up_to_it() -> None:
    colony = a_colony()
    assert told(colony, "olga", changed(key(1), NEW), of="ann", sequence=50).valid
    assert {key_at(colony, "ann", sequence) for sequence in range(3, 51)} == {key(1)}
    assert {key_at(colony, "ann", sequence) for sequence in range(51, 60)} == {NEW}
    assert told(colony, "olga", changed(NEW, key(98)), of="ann", sequence=60).valid
    assert told(colony, "olga", Revoked(), of="ann", sequence=70).valid
    held = [key_at(colony, "ann", sequence) for sequence in (50, 51, 60, 61, 70, 71)]
    assert held == [key(1), NEW, NEW, key(98), key(98), None]


def test_a_former_key_is_never_used_again() -> None:
    colony = a_colony()
    assert told(colony, "olga", changed(key(1), NEW), of="ann").valid
    refused(told(colony, "olga", changed(NEW, key(1)), of="ann"), "this key is a member already")
    refused(told(colony, "olga", changed(key(2), key(1)), of="bob"), "this key is a member already")
    refused(told(colony, "olga", Approved(key(1), "user"), of="zoe"), "this key is a member already")


def test_only_the_key_that_counts_is_changed_and_only_a_members() -> None:
    colony = a_colony()
    refused(told(colony, "olga", changed(key(2), NEW), of="ann"), "is not that of ann")
    refused(told(colony, "olga", changed(NEW, key(98)), of="zoe"), "no member zoe")
    assert told(colony, "olga", Revoked(), of="ann").valid
    refused(told(colony, "olga", changed(key(1), NEW), of="ann"), "no member any more")


def test_a_member_that_has_an_end_is_none_from_then_on() -> None:
    colony = a_colony()
    end = START // SECOND + 60
    assert told(colony, "olga", Approved(NEW, "worker", end), of="zoe", sequence=50).valid
    assert key_at(colony, "zoe", 51, end * SECOND - 1) == NEW
    assert key_at(colony, "zoe", 51, end * SECOND) is None
    assert key_at(colony, "zoe", 50, START) is None


def test_a_changed_key_ends_when_the_former_would_have_unless_told_otherwise() -> None:
    end = START // SECOND + 60
    for told_end, expected in [(None, end), (end + 60, end + 60)]:
        colony = a_colony()
        assert told(colony, "olga", Approved(NEW, "worker", end), of="zoe").valid
        assert told(colony, "olga", changed(NEW, key(98), told_end), of="zoe").valid
        assert colony.members["zoe"].expires == expected * SECOND


def test_whose_time_is_over_changes_no_key() -> None:
    colony = a_colony()
    assert told(colony, "olga", Approved(NEW, "worker", START // SECOND), of="zoe").valid
    refused(told(colony, "olga", changed(NEW, key(98)), of="zoe"), "no member any more")


def test_the_last_owner_has_no_end() -> None:
    colony = a_colony()
    refused(told(colony, "olga", changed(key(0), NEW, START), of="olga"), "last owner")
    assert told(colony, "olga", Approved(NEW, "owner", MAX_UNIX_S), of="otto").valid
    refused(told(colony, "olga", Revoked(), of="olga"), "last owner")  # otto ends by himself
    assert told(colony, "olga", Approved(key(98), "owner"), of="oona").valid
    assert told(colony, "olga", changed(key(0), key(97), MAX_UNIX_S), of="olga").valid


Change = tuple[str, str, int, int | None]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["approve", "rotate", "rotate", "revoke", "stale"]),
        st.sampled_from(["ann", "bob", "zoe", "olga", "yara"]),
        st.integers(10, 16),  # few keys, so that they meet again
        st.none() | st.integers(-5, 40),  # an end, in s from the start
    ),
    max_size=30,
)


@given(CHANGES)
def test_whatever_members_do_a_key_has_one_name_and_a_place_one_key(changes: list[Change]) -> None:
    """And whoever reads on later agrees about every place with who stood there."""
    colony = a_colony()
    owners: dict[str, str] = {}
    seen: list[tuple[str, int, int, str | None]] = []
    for step, (what, name, number, end_s) in enumerate(changes):
        sequence, time = 100 + step, START + step * SECOND
        end = None if end_s is None else START // SECOND + end_s
        seen += [(n, sequence, time, key_at(colony, n, sequence, time)) for n in (*MEMBERS, "zoe", "yara")]
        former = colony.members[name].key if name in colony.members else key(99)
        event = {
            "approve": Approved(key(number), "user", end),
            "rotate": changed(former, key(number), end),
            "stale": changed(key(97), key(number)),
            "revoke": Revoked(),
        }[what]
        told(colony, "olga", event, of=name, sequence=sequence, time=time)
        for member in colony.members.values():
            for held in member.keys:
                assert owners.setdefault(held.key, member.name) == member.name
    assert colony.holders == {held.key: m.name for m in colony.members.values() for held in m.keys}
    assert [(n, s, t, key_at(colony, n, s, t)) for n, s, t, _ in seen] == seen
    last_time = START + 50 * SECOND
    assert any(m.role == "owner" and not m.ended_by(last_time) for m in colony.members.values())


def test_the_last_owner_stays() -> None:
    colony = a_colony()
    refused(told(colony, "olga", Revoked(), of="olga"), "last owner")
    assert told(colony, "olga", Approved(NEW, "owner"), of="otto").valid
    assert told(colony, "olga", Revoked(), of="olga").valid
    refused(told(colony, "otto", Revoked(), of="otto"), "last owner")


def test_an_event_must_follow_the_last_valid_one_of_its_entity() -> None:
    colony = a_colony()
    refused(told(colony, "olga", Revoked(), of="ann", prev=None), "prev")
    refused(told(colony, "olga", Revoked(), of="ann", prev=bytes(32)), "prev")
    refused(told(colony, "olga", Approved(NEW, "user"), of="zoe", prev=bytes(32)), "prev")


def test_bytes_that_are_stored_again_are_never_true_again() -> None:
    colony = a_colony()
    before = colonies_.head(colony, "colony", "")
    for sequence in (10, 11):
        record = record_of(
            Configured(20.0), "olga", role="owner", kind="colony", sequence=sequence, prev=before
        )
        valid = colonies_.judge(colony, record).valid
        assert valid == (sequence == 10)
        if valid:
            colonies_.evolve(colony, record)


# --- settings ---------------------------------------------------------------------------------------


def test_the_longest_lease_is_that_of_all_before_an_event() -> None:
    colony = a_colony()
    for sequence, lease_s in [(10, 20.0), (20, 5.0), (30, 15.0), (40, 60.0)]:
        assert told(colony, "olga", Configured(lease_s), kind="colony", sequence=sequence).valid
        assert colony.lease_s == lease_s
    found = [colony.longest_lease_s(sequence) for sequence in (1, 2, 10, 11, 21, 40, 41)]
    assert found == [0.0, 10.0, 10.0, 20.0, 20.0, 20.0, 60.0]


# --- queues -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("author", ["ann", "olga", "orch"])
def test_users_owners_and_the_service_declare_queues(author: str) -> None:
    colony = a_colony()
    id, event = a_queue()
    assert told(colony, author, event, kind="queue", of=id, sequence=77).valid
    assert colony.queues[id] == Queue(id, event.conditions, 0, 77)
    refused(told(colony, author, event, kind="queue", of=id), "declared already")


@pytest.mark.parametrize("author", ["w1", "eye"])
def test_nobody_else_declares_queues(author: str) -> None:
    id, event = a_queue()
    refused(told(a_colony(), author, event, kind="queue", of=id), "declares no queues")


def test_a_queue_has_the_name_that_its_conditions_give() -> None:
    _, event = a_queue()
    refused(told(a_colony(), "ann", event, kind="queue", of="a" * 26), "not the digest")


def test_a_queue_asks_for_the_most_that_any_process_in_it_may_need() -> None:
    colony = a_colony()
    id, event = a_queue(mem="10GB", dependencies=["first"])
    assert told(colony, "ann", event, kind="queue", of=id).valid
    assert colony.queues[id].conditions == Conditions.parse({"runtimetype": "cli", "mem": "10GiB"})


def test_a_colony_has_at_most_a_thousand_queues() -> None:
    colony = a_colony()
    for number in range(MAX_QUEUES):
        id, event = a_queue(labels={"n": str(number)})
        assert told(colony, "ann", event, kind="queue", of=id).valid
    id, event = a_queue()
    refused(told(colony, "ann", event, kind="queue", of=id), "has 1000 queues")


# --- workers ----------------------------------------------------------------------------------------


def test_a_worker_speaks_of_itself_and_nobody_else_does() -> None:
    colony = a_colony()
    started = WorkerStarted("one", "cli", 4, [])
    assert told(colony, "w1", started, kind="worker", of="w1").valid
    assert told(colony, "w1", WorkerStopped("one"), kind="worker", of="w1").valid
    for author in ("w2", "ann", "olga", "orch", "eye"):
        refused(told(colony, author, started, kind="worker", of="w1"), "of itself only")
    refused(told(colony, "ann", started, kind="worker", of="ann"), "of itself only")
