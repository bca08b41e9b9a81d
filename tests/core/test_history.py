"""Reading with open eyes: damage, strangers and lies get their verdict, and two ways to fold agree on each.

With real keys and real bytes, so that what is tested is what a verifier does.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonies import codec, subjects
from colonies.core import colony as colonies_
from colonies.core.colony import Colony
from colonies.core.events import (
    Approved,
    Assigned,
    Cancelled,
    Completed,
    Configured,
    Event,
    Expired,
    Failed,
    Genesis,
    Poisoned,
    Queued,
    Renewed,
    Requeued,
    Returned,
    Revoked,
    Rotated,
    WorkerStopped,
)
from colonies.core.process import SECOND, Running, Waiting
from colonies.core.spec import Spec, queue_of
from colonies.history import History, Judged, examine, fold_process
from colonies.ids import new_id
from colonies.ledger import Stored
from colonies.nkeys import KeyPair
from colonies.watching import Watched, Watcher
from tests.core.telling import MEMBERS, START

ACCOUNT = KeyPair.new("account")
OTHER = KeyPair.new("account").public
KEYS = {name: KeyPair.new("user") for name in [*MEMBERS, "zoe", "mallory"]}
SPEC = Spec.parse(
    {"func": "resize", "conditions": {"runtimetype": "cli"}, "maxretries": 1, "maxwaittime": 30}
)
QUEUE = queue_of(SPEC.conditions, SPEC.priority)


def changed(name: str, former: KeyPair, key: KeyPair, colony: str = ACCOUNT.public) -> Rotated:
    """The member's change of keys, with the consent of both."""
    statement = codec.consent_to(colony, name, former.public, key.public)
    return Rotated(key.public, former.public, key.sign(statement), former.sign(statement))


class Writing:
    """A ledger being written by honest hands, with its history; `stored` holds all that is on it."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.keys = dict(KEYS)
        self.now = START
        self.history = History(Colony(ACCOUNT.public))
        self.judged: list[Judged] = []
        self.add(Genesis("lab", "olga", KEYS["olga"].public, {}, 10.0), "olga", keypair=ACCOUNT)
        for name, role in list(MEMBERS.items())[1:]:
            self.add(Approved(KEYS[name].public, role), "olga", entity=name)

    @property
    def colony(self) -> Colony:
        return self.history.colony

    def head(self, kind: str, entity: str) -> bytes | None:
        if kind != "process":
            return colonies_.head(self.colony, kind, entity)
        process = self.history.processes.get(entity)
        return process.head if process else None

    def sealed(
        self,
        event: Event,
        author: str,
        *,
        entity: str = "",
        keypair: KeyPair | None = None,
        prev: bytes | type | None = str,
        id: str | None = None,
    ) -> Stored:
        """The event as it would be stored next."""
        queue = QUEUE if isinstance(event, Queued | Requeued) else None
        subject = subjects.subject_of(event, entity, author, queue)
        before = self.head(event.type.split(".")[0], entity) if prev is str else prev
        assert before is None or isinstance(before, bytes)
        sealed = codec.seal(
            keypair or self.keys[author],
            ACCOUNT.public,
            subject,
            id=id or new_id(),
            type=event.type,
            time=self.now,
            author=author,
            prev=before,
            data=codec.data_of(event),
        )
        return self.next(subject, sealed.data)

    def next(self, subject: str, data: bytes) -> Stored:
        return Stored(subject, len(self.stored) + 1, self.now, data)

    def store(self, stored: Stored) -> Judged:
        self.stored.append(stored)
        self.judged.append(self.history.add(stored))
        return self.judged[-1]

    def add(self, event: Event, author: str, **options: object) -> Judged:
        return self.store(self.sealed(event, author, **options))  # type: ignore[arg-type]

    def submitted(self) -> str:
        id = new_id()
        assert self.add(Queued(SPEC), "ann", entity=id).verdict.valid
        return id


def quarantined(judged: Judged, why: str) -> None:
    assert judged.verdict.kind == "quarantined"
    assert why in judged.verdict.rule
    assert judged.record is None


# --- damage and lies --------------------------------------------------------------------------------


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), where=st.sampled_from(["payload", "signature"]))
@settings(max_examples=200)
def test_a_flipped_bit_anywhere_is_quarantined(at: int, bit: int, where: str) -> None:
    writing = Writing()
    stored = writing.sealed(Queued(SPEC), "ann", entity=new_id())
    parts = [bytearray(part) for part in msgpack.unpackb(stored.data)]
    part = parts[where == "signature"]
    part[at % len(part)] ^= 1 << bit
    damaged = replace(stored, data=msgpack.packb([bytes(part) for part in parts]))
    quarantined(writing.store(damaged), "")


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_subject_is_quarantined(at: int, bit: int) -> None:
    writing = Writing()
    stored = writing.sealed(Queued(SPEC), "ann", entity=new_id())
    subject = bytearray(stored.subject.encode())
    subject[at % len(subject)] ^= 1 << bit
    moved = subject.decode("utf-8", "surrogateescape")
    quarantined(writing.store(replace(stored, subject=moved)), "")


def test_an_event_holds_on_its_own_subject_only() -> None:
    writing = Writing()
    process = writing.submitted()
    stored = writing.sealed(Cancelled(), "ann", entity=process)
    other = writing.submitted()
    quarantined(
        writing.store(replace(stored, subject=stored.subject.replace(process, other))), "its signature"
    )
    moved = stored.subject.replace("cancelled", "expired")
    quarantined(writing.store(replace(stored, subject=moved)), "not that of its subject")
    quarantined(writing.store(replace(stored, subject="ledger.process.x")), "grammar")
    quarantined(writing.store(replace(stored, subject=stored.subject + ".x")), "grammar")


def test_an_event_holds_in_its_own_colony_only() -> None:
    writing = Writing()
    stored = writing.sealed(Queued(SPEC), "ann", entity=new_id())
    assert examine(writing.colony, stored).verdict.valid
    quarantined(examine(replace(writing.colony, key=OTHER), stored), "its signature")


def test_nobody_speaks_in_the_name_of_another() -> None:
    writing = Writing()
    id = new_id()
    quarantined(
        writing.store(writing.sealed(Queued(SPEC), "ann", entity=id, keypair=KEYS["bob"])), "its signature"
    )
    stored = writing.sealed(Queued(SPEC), "bob", entity=id)
    quarantined(
        writing.store(replace(stored, subject=stored.subject[:-3] + "ann")), "not that of its subject"
    )
    assert id not in writing.history.processes


def test_a_stranger_is_told_from_a_liar() -> None:
    writing = Writing()
    stranger = writing.store(writing.sealed(Queued(SPEC), "zoe", entity=new_id()))
    quarantined(stranger, "zoe is no member at this point")
    assert stranger.stranger
    assert writing.add(Approved(KEYS["zoe"].public, "user"), "olga", entity="zoe").verdict.valid
    assert writing.add(Queued(SPEC), "zoe", entity=new_id()).verdict.valid
    assert writing.add(Revoked(), "olga", entity="zoe").verdict.valid
    quarantined(writing.add(Queued(SPEC), "zoe", entity=new_id()), "no member at this point")


def test_after_a_change_of_keys_only_the_new_one_speaks_and_what_the_old_one_said_stays() -> None:
    writing = Writing()
    before = writing.sealed(Queued(SPEC), "ann", entity=new_id())
    assert writing.store(before).verdict.valid
    fresh = KeyPair.new("user")
    assert writing.add(changed("ann", KEYS["ann"], fresh), "olga", entity="ann").verdict.valid
    late = writing.add(Queued(SPEC), "ann", entity=new_id())
    quarantined(late, "signed with a key of ann that does not count here")
    assert late.stranger
    assert writing.add(Queued(SPEC), "ann", entity=new_id(), keypair=fresh).verdict.valid
    assert examine(writing.colony, before).verdict.valid  # also for who reads it later
    early = writing.sealed(Queued(SPEC), "ann", entity=new_id(), keypair=fresh)
    quarantined(examine(writing.colony, replace(early, sequence=before.sequence)), "does not count here")


def test_a_key_changes_only_with_the_word_of_both_keys() -> None:
    writing = Writing()
    ann, bob, fresh = KEYS["ann"], KEYS["bob"], KeyPair.new("user")
    good = changed("ann", ann, fresh)
    for bad in (
        replace(good, consent=good.former_consent),
        replace(good, former_consent=good.consent),
        replace(good, former_consent=bytes(64)),
        replace(good, key=KeyPair.new("user").public),
        changed("bob", ann, fresh),
        changed("ann", ann, fresh, OTHER),
        replace(changed("ann", bob, fresh), former=ann.public),  # an owner that takes a name over
    ):
        quarantined(writing.add(bad, "olga", entity="ann"), "not both keys consented")
    quarantined(writing.add(good, "olga", entity="bob"), "not both keys consented")
    assert writing.add(good, "olga", entity="ann").verdict.valid


def test_an_owner_may_change_its_own_key_and_who_reads_on_believes_it_still() -> None:
    writing = Writing()
    fresh = KeyPair.new("user")
    said = writing.add(changed("olga", KEYS["olga"], fresh), "olga", entity="olga")
    assert said.verdict.valid
    assert examine(writing.colony, said.stored).verdict.valid
    quarantined(writing.add(Configured(20.0), "olga"), "does not count here")
    assert writing.add(Configured(20.0), "olga", keypair=fresh).verdict.valid


def test_what_is_signed_to_log_in_is_never_a_consent() -> None:
    """The broker chooses that text (the nonce), so the consent must not be text."""
    statement = codec.consent_to(ACCOUNT.public, "ann", KEYS["ann"].public, KEYS["bob"].public)
    with pytest.raises(UnicodeDecodeError):
        statement.decode()


def test_who_has_an_end_is_no_member_from_that_time_on() -> None:
    writing = Writing()
    end = writing.now // SECOND + 60
    assert writing.add(Approved(KEYS["zoe"].public, "user", end), "olga", entity="zoe").verdict.valid
    writing.now = end * SECOND - 1_000
    assert writing.add(Queued(SPEC), "zoe", entity=new_id()).verdict.valid
    writing.now = end * SECOND
    over = writing.add(Queued(SPEC), "zoe", entity=new_id())
    quarantined(over, "zoe is no member at this point")
    assert over.stranger


def test_a_genesis_of_somebody_else_is_none() -> None:
    writing = Writing()
    empty = Writing.__new__(Writing)
    empty.stored, empty.now, empty.judged, empty.keys = [], START, [], KEYS
    empty.history = History(Colony(ACCOUNT.public))
    genesis = Genesis("lab", "mallory", KEYS["mallory"].public, {}, 10.0)
    quarantined(empty.add(genesis, "mallory"), "its signature")
    assert not empty.colony.name
    verdict = writing.add(genesis, "mallory", keypair=ACCOUNT).verdict
    assert "genesis already" in verdict.rule


def test_a_skipped_signature_is_the_only_thing_that_trust_leaves_out() -> None:
    writing = Writing()
    forged = writing.sealed(Queued(SPEC), "ann", entity=new_id(), keypair=KEYS["bob"])
    assert examine(writing.colony, forged, trusted=True).verdict.valid
    quarantined(examine(writing.colony, forged), "its signature")
    stranger = writing.sealed(Queued(SPEC), "zoe", entity=new_id())
    quarantined(examine(writing.colony, stranger, trusted=True), "no member")


def test_a_worker_that_is_revoked_while_it_runs_loses_the_process_to_another() -> None:
    writing = Writing()
    process = writing.submitted()
    offer = writing.judged[-1].record
    assert offer is not None
    attempt = writing.add(Assigned(offer.id, 10.0, "one"), "w1", entity=process)
    assert attempt.record is not None
    assert writing.add(Revoked(), "olga", entity="w1").verdict.valid
    quarantined(writing.add(Completed(attempt.record.id), "w1", entity=process), "w1 is no member")
    writing.now += 10 * SECOND
    assert writing.add(Assigned(offer.id, 10.0, "one"), "w2", entity=process).verdict.valid


def test_a_client_keeps_nothing_of_a_forged_result_that_nobody_vouches_for() -> None:
    """Heard: an assignment, a forged result, and junk after it that would have to vouch for it."""
    writing = Writing()
    process = writing.submitted()
    watched = Watched(fold_process(writing.colony, [writing.stored[-1]]))
    offer = writing.judged[-1].record
    assert offer is not None
    taken = writing.add(Assigned(offer.id, 10.0, "one"), "w1", entity=process)
    assert taken.record is not None
    result = Completed(taken.record.id, "forged")
    forged = writing.sealed(result, "w1", entity=process, keypair=KEYS["mallory"])
    writing.stored.append(forged)
    head = codec.open_(ACCOUNT.public, forged.subject, forged.data).digest
    junk = writing.sealed(Renewed(taken.record.id), "w1", entity=process, prev=head, keypair=KEYS["mallory"])
    watched.heard += [taken.stored, forged, junk]
    listening = SimpleNamespace(_session=SimpleNamespace(colony=writing.colony))
    assert Watcher._catch_up(listening, watched) is None  # type: ignore[arg-type]
    assert watched.story is None  # it must be read


# --- two ways to fold -------------------------------------------------------------------------------

TOLD = [
    *("submit", "take", "renew", "return", "complete", "fail", "requeue", "expire", "poison", "cancel"),
    *("take", "take", "requeue", "fail"),
]
NONSENSE = ["again", "junk", "damage", "forge", "stale"]
ABOUT = ["approve", "revoke", "configure", "worker", "rotate"]
steps = st.tuples(
    st.sampled_from([*TOLD, *NONSENSE, *ABOUT]),
    st.integers(0, 2),
    st.sampled_from(["w1", "w2", "ann", "bob", "orch", "olga", "zoe"]),
    st.sampled_from([0, 0.5, 9, 11, 31, 130, -7, -300]),
)
NAMES = ["ann", "bob", "w1", "w2"]


class Muddle(Writing):
    """Three processes at once, members coming and going, junk, damage and a clock that jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = [new_id() for _ in range(3)]
        self.next_key = KEYS["mallory"]
        self.instances = count(1)

    def step(self, what: str, which: int, who: str, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        id = self.ids[which]
        if event := self.of_the_colony(what, which):
            kind = event.type.split(".")[0]
            entity = {"member": ("zoe" if what == "approve" else NAMES[which]), "worker": who}.get(kind, "")
            if isinstance(event, Rotated):
                self.keys[NAMES[which]] = self.next_key
            self.add(event, "olga" if kind != "worker" else who, entity=entity)
        elif event := self.of_the_process(what, id):
            self.add(event, who, entity=id)
        else:
            self.nonsense(what, which, who, id)

    def of_the_colony(self, what: str, which: int) -> Event | None:
        match what:
            case "approve":
                return Approved(KEYS["zoe"].public, "worker", START // SECOND + 60)
            case "rotate":
                self.next_key = KeyPair.new("user")
                return changed(NAMES[which], self.keys[NAMES[which]], self.next_key)
            case "revoke":
                return Revoked()
            case "configure":
                return Configured([5.0, 20.0, 40.0][which])
            case "worker":
                return WorkerStopped("one")
        return None

    def of_the_process(self, what: str, id: str) -> Event | None:
        process = self.history.processes.get(id)
        phase = process.phase if process else None
        offer = phase.offer.id if isinstance(phase, Waiting | Running) else new_id()
        attempt = process.attempts[-1].id if process and process.attempts else new_id()
        return {
            "submit": Queued(SPEC),
            "take": Assigned(offer, [10.0, 20.0, 40.0][next(self.instances) % 3], "one"),
            "renew": Renewed(attempt),
            "return": Returned(attempt),
            "complete": Completed(attempt),
            "fail": Failed(attempt, "broken"),
            "requeue": Requeued(process.sequence if process else 0),
            "expire": Expired(),
            "poison": Poisoned(),
            "cancel": Cancelled(),
        }.get(what)

    def nonsense(self, what: str, which: int, who: str, id: str) -> None:
        match what:
            case "again":
                old = self.stored[-1 - which]
                self.store(self.next(old.subject, old.data))
            case "junk":
                subject = [f"ledger.process.{id}.x.y.z", f"ledger.process.{id}.cancelled.{who}", "ledger.x"]
                self.store(self.next(subject[which], b"junk"))
            case "damage":
                stored = self.sealed(Cancelled(), who, entity=id)
                self.store(replace(stored, data=stored.data[:-1] + b"x"))
            case "forge":
                self.add(Cancelled(), "ann", entity=id, keypair=KEYS["mallory"])
            case "stale":
                self.add(Cancelled(), who, entity=id, prev=bytes(32))


def pattern(stored: Stored, id: str) -> bool:
    return stored.subject.startswith(subjects.guard_of("process", id).removesuffix(">"))


@given(st.lists(steps, max_size=40))
@settings(max_examples=150, deadline=None)
def test_who_reads_one_process_later_agrees_with_who_read_everything_from_the_start(
    told: list[tuple[str, int, str, float]],
) -> None:
    muddle = Muddle()
    for process in (0, 1, 2):
        muddle.step("submit", process, "ann", 0)
    for what, which, who, seconds in told:
        muddle.step(what, which, who, seconds)
    for id in muddle.ids:
        read = fold_process(muddle.colony, [stored for stored in muddle.stored if pattern(stored, id)])
        expected = [seen for seen in muddle.judged if pattern(seen.stored, id)]
        assert read.judged == expected
        assert read.process == muddle.history.processes.get(id)
        assert read.guard == max(seen.stored.sequence for seen in expected)
    again = History(Colony(ACCOUNT.public))
    assert [again.add(stored) for stored in muddle.stored] == muddle.judged
    assert again == muddle.history


@pytest.mark.parametrize("back_s", [1, 3_600])
def test_times_of_a_process_never_go_back_whatever_the_brokers_clock_does(back_s: int) -> None:
    writing = Writing()
    process = writing.submitted()
    offer = writing.judged[-1].record
    assert offer is not None
    writing.now -= back_s * SECOND
    writing.add(Assigned(offer.id, 10.0, "one"), "w1", entity=process)
    found = writing.history.processes[process]
    assert found.attempts[0].started_at == found.submitted_at == START
