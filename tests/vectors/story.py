"""The story of `ledger.json`: a colony with every type of event, and all the rules that can be broken."""

from __future__ import annotations

import msgpack

from colonies import codec, subjects
from colonies.core import events as facts
from colonies.core.capacity import Capacity
from colonies.core.process import keyed_id
from colonies.core.spec import Conditions, Spec, queue_of
from tests.vectors import flows, schedules
from tests.vectors.telling import ACCOUNT, COLONY, NO_EVENT, ROLES, Teller, keypair

PLAIN = Conditions(runtimetype="python")
QUEUE = queue_of(PLAIN, 0)
CHAIN = "its prev is not the digest of the"
LOST = "5 attempts in a row"


def spec(**given: object) -> Spec:
    return Spec.parse({"func": "double", "conditions": {"runtimetype": "python"}, **given})


def told() -> Teller:
    teller = Teller()
    _colony(teller)
    _members(teller)
    _queues_and_workers(teller)
    _submissions(teller)
    _a_life(teller)
    _attempts(teller)
    _poison(teller)
    _waits(teller)
    flows.told(teller)
    schedules.told(teller)
    _strangers(teller)
    return teller


def _colony(t: Teller) -> None:
    roles = {role: keypair(f"role {role}", "account").public for role in dict.fromkeys(ROLES.values())}
    genesis = facts.Genesis("vectors", "olga", t.keys["olga"].public, roles, 20.0)  # type: ignore[arg-type]
    t.say("olga", facts.Configured(5.0), rule="olga is no member at this point")
    t.say("ann", genesis, rule="a genesis is said by the owner", key=ACCOUNT)
    t.say("olga", genesis, rule="its signature is not that of olga")
    t.say("olga", genesis, key=ACCOUNT)
    t.say("olga", genesis, rule="the colony has its genesis", key=ACCOUNT)
    t.say("olga", facts.Configured(5.0), rule=CHAIN, prev=None)
    t.say("olga", facts.Configured(10.0))
    for name, role in ROLES.items():
        if name != "olga":
            t.say("olga", facts.Approved(t.keys[name].public, role), name)  # type: ignore[arg-type]


def _members(t: Teller) -> None:
    def new(name: str, role: facts.Role = "worker", end: int | None = None) -> facts.Approved:
        return facts.Approved(keypair(name).public, role, end)

    t.say("ann", facts.Configured(3_600.0), rule="only an owner configures")
    t.say("ann", new("w3"), "w3", "only an owner approves")
    t.say("olga", new("w3"), "W3", "'W3' is not a member's name")
    t.say("olga", new("w3"), "w1", "the name w1 is taken")
    t.say("olga", facts.Approved(t.keys["w1"].public, "owner"), "w3", "this key is a member")
    # One that ends by itself, by the ledger's time.
    t.keys["brief"] = keypair("brief")
    t.say("olga", new("brief", "worker", t.now // 10**9 + 4), "brief")
    t.say("brief", facts.WorkerStarted("i1", "python", 1, []), "brief")
    t.say("brief", facts.WorkerStopped("i1"), "brief", "brief is no member at this point", after_s=2)
    # A changed key: the former one counts up to the change, and both agreed.
    former, fresh = t.keys["bob"], keypair("bob, second")

    def rotated(key: str = fresh.public, old: str = former.public, **more: int) -> facts.Rotated:
        statement = codec.consent_to(COLONY, "bob", old, key)
        return facts.Rotated(key, old, fresh.sign(statement), former.sign(statement), **more)

    t.say("ann", rotated(), "bob", "only an owner changes")
    t.say("olga", rotated(), "nobody", "not both keys consented")
    _rotated_wrongly(t)
    t.say("olga", rotated(), "bob")
    bobs = facts.Declared(Conditions(runtimetype="bobs"), 0)
    t.say("bob", bobs, queue_of(bobs.conditions, 0), "it is signed with a key of bob that does not count")
    t.keys["bob"] = fresh
    t.say("olga", rotated(), "bob", "the key that it replaces is not that of bob")
    t.say("bob", bobs, queue_of(bobs.conditions, 0))
    # The end of a membership, and of an owner's.
    t.keys["gone"] = keypair("gone")
    t.say("olga", new("gone"), "gone")
    t.say("gone", facts.WorkerStarted("i1", "python", 1, []), "gone")
    t.say("ann", facts.Revoked(), "gone", "only an owner revokes")
    t.say("olga", facts.Revoked(), "nobody", "there is no member nobody")
    t.say("olga", facts.Revoked("the key was stolen"), "gone")
    t.say("olga", facts.Revoked(), "gone", "gone is revoked already")
    t.say("gone", facts.WorkerStopped("i1"), "gone", "gone is no member at this point")
    change(t, "gone", keypair("gone, second"), "gone is no member any more")
    t.say("ole", facts.Revoked("I leave"), "ole")
    t.say("olga", facts.Revoked(), "olga", "olga is the last owner")
    change(t, "olga", keypair("olga, second"), "olga is the last owner, and cannot have an end", end=2**32)


def change(t: Teller, name: str, key: object, rule: str, *, end: int | None = None) -> None:
    former, fresh = t.keys[name], key
    statement = codec.consent_to(COLONY, name, former.public, fresh.public)  # type: ignore[attr-defined]
    consents = fresh.sign(statement), former.sign(statement)  # type: ignore[attr-defined]
    t.say("olga", facts.Rotated(fresh.public, former.public, *consents, end), name, rule)  # type: ignore[attr-defined]


def _rotated_wrongly(t: Teller) -> None:
    """Changes that both keys agreed to and that yet cannot be."""
    ghost, w1 = keypair("ghost"), t.keys["w1"]
    t.keys["ghost"] = ghost
    change(t, "ghost", keypair("ghost, second"), "there is no member ghost")
    change(t, "ann", w1, "this key is a member already")


def _queues_and_workers(t: Teller) -> None:
    t.say("w1", facts.Declared(PLAIN, 0), QUEUE, "the role worker declares no queues")
    t.say("ann", facts.Declared(PLAIN, 1), QUEUE, "the queue's name is not the digest")
    t.say("ann", facts.Declared(PLAIN, 0), QUEUE)
    t.say("bob", facts.Declared(PLAIN, 0), QUEUE, "the queue is declared already")
    large = Conditions.parse({"runtimetype": "python", "mem": "10.1GB", "gpu": {"count": 2, "mem": "40GB"}})
    t.say("ann", facts.Declared(large, 5), queue_of(large, 5))
    t.say("ann", facts.Retired(t.last), queue_of(large, 5), "the role user retires no queues")
    t.say("orch", facts.Retired(1), queue_of(large, 5), "its floor lies before")
    t.say("orch", facts.Retired(t.last), queue_of(large, 5))
    t.say("orch", facts.Retired(t.last), queue_of(large, 5), "there is no such queue")
    functions = [facts.Function("double", "Twice as much.", {"type": "object"}), facts.Function("echo")]
    has = Capacity.parse(
        {"cpu": 8, "mem": "64GB", "gpus": [{"id": "0", "mem": "40GB"}], "labels": {"site": "north"}}
    )
    t.say("w1", facts.WorkerStarted("i1", "python", 4, functions, has), "w1")
    t.say("w1", facts.WorkerStopped("i9"), "w2", "a worker speaks of itself only")
    t.say("ann", facts.WorkerStarted("i1", "python", 4, []), "ann", "a worker speaks of itself only")
    t.say("w2", facts.WorkerStarted("i2", "python", 4, []), "w2")
    t.say("w2", facts.WorkerStopped("i2"), "w2")


def _submissions(t: Teller) -> None:
    def submit(
        author: str, event: facts.Queued, id: str, rule: str, queue: str = QUEUE, **more: object
    ) -> None:
        t.say(author, event, id, rule, queue=queue, **more)  # type: ignore[arg-type]

    plain = facts.Queued(spec(args=[21]))
    id = t.new_id()
    submit("w1", plain, id, "the role worker submits no processes")
    submit("ann", plain, id, "a submission has no event before it", prev=bytes(32))
    submit("ann", plain, "nightly", "the id of a plain process is a ULID")
    submit("ann", plain, id, "the queue is not that of the spec's", queue_of(PLAIN, 9))
    after = facts.Queued(spec(conditions={"runtimetype": "python", "dependencies": ["a"]}))
    submit("ann", after, id, "a process on its own has no dependencies")
    submit("ann", facts.Queued(spec(colony="other")), id, "the spec is for the colony other")
    kept = facts.Ref("0" * 64, 200_000, "ann.Ab0Cd1Ef2Gh3")
    submit("ann", facts.Queued(spec(args=[1]), None, kept), id, "its arguments are in the spec or stored")
    submit("ann", plain, id, "")
    submit("ann", plain, id, "the process is submitted already")
    keyed = facts.Queued(spec(colony="vectors"), "invoice 7")
    submit("bob", keyed, keyed_id("ann", "invoice 7"), "the id does not derive")
    submit("ann", keyed, keyed_id("ann", "invoice 7"), "")
    submit("bob", keyed, keyed_id("bob", "invoice 7"), "")
    submit("olga", facts.Queued(spec(func="load"), None, kept), t.new_id(), "")
    sized = spec(
        conditions={"runtimetype": "python", "mem": "10.1GB", "gpu": {"count": 2, "mem": "40GB"}}, priority=5
    )
    submit("ann", facts.Queued(sized), t.new_id(), "", queue_of(sized.conditions, 5))
    # Sizes may be text, and null may stand for nothing: the same spec, the same queue.
    as_text = {"func": "double", "priority": 5, "label": None}
    as_text["conditions"] = {"runtimetype": "python", "mem": "10.1GB", "gpu": {"count": 2, "mem": "40GB"}}
    data = {"spec": as_text, "key": None}
    submit("ann", facts.Queued(sized), t.new_id(), "", queue_of(sized.conditions, 5), data=data)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    traced = facts.Queued(spec(), trace=facts.Trace(parent, "vendor=1,other@x=a b"))
    submit("ann", traced, t.new_id(), "")
    for wrong in (
        parent.upper(),
        parent.replace("00-4", "01-4"),
        f"{parent}-x",
        parent[:36] + "0" * 16 + "-01",
    ):
        submit("ann", traced, t.new_id(), NO_EVENT, data={"spec": spec().wire(), "trace": {"parent": wrong}})
    data = {"spec": spec().wire(), "trace": {"parent": parent, "state": "a" * 513}}
    submit("ann", traced, t.new_id(), NO_EVENT, data=data)


def submitted(t: Teller, author: str = "ann", **given: object) -> str:
    """A process with this spec, waiting."""
    wanted = spec(**given)
    id = t.new_id()
    t.say(author, facts.Queued(wanted), id, queue=queue_of(wanted.conditions, wanted.priority))
    return id


def assign(
    t: Teller,
    worker: str,
    process: str,
    rule: str = "",
    *,
    after_s: float = 1.0,
    lease_s: float = 10.0,
    code: str | None = None,
    **more: object,
) -> str:
    phase = t.process(process).phase
    offer = getattr(phase, "offer", None)
    event = facts.Assigned(offer.id if offer else t.new_id(), lease_s, "i1", code)
    return t.say(worker, event, process, rule, after_s=after_s, **more)  # type: ignore[arg-type]


def requeue(
    t: Teller,
    id: str,
    rule: str = "",
    *,
    after_s: float = 1.0,
    author: str = "orch",
    cites: int = 0,
    queue: str = QUEUE,
) -> None:
    event = facts.Requeued(cites or t.process(id).sequence)
    t.say(author, event, id, rule, after_s=after_s, queue=queue)


def _a_life(t: Teller) -> None:
    id = submitted(t, args=[21])
    assign(t, "ann", id, "the role user takes no processes")
    t.say("w1", facts.Assigned(t.new_id(), 10.0, "i1"), id, "it does not name the process's current offer")
    assign(t, "w1", id, "its lease is longer than any", lease_s=20.5)
    assign(t, "w1", id, CHAIN, prev=bytes(32))
    t.say("w1", facts.Completed(t.new_id(), 42), id, "the process is waiting, not running")
    attempt = assign(t, "w1", id, lease_s=20.0, code="c0" * 32)  # the colony had this lease once
    assigned = t.last
    t.say("ann", facts.Completed(attempt, 42), id, "the role user holds no attempts")
    t.say("w2", facts.Completed(attempt, 42), id, "attempt 1 of w1 holds the process")
    t.say("w1", facts.Renewed(t.new_id()), id, "attempt 1 of w1 holds the process")
    t.say("w1", facts.Renewed(attempt), id, after_s=60)  # a lapsed lease alone loses nothing
    kept = facts.Ref("0" * 64, 200_000, "w1.Ab0Cd1Ef2Gh3")
    t.say("w1", facts.Completed(attempt, 42, kept), id, "its output is in the event or stored")
    logs = facts.LogDigest(2, "1" * 64)
    t.say("w1", facts.Completed(attempt, {"twice": [42, -1.5, None, True, "é"]}, None, logs), id)
    t.say("w1", facts.Failed(attempt, "no"), id, "the process is successful already")
    t.again(assigned, "the process is successful already")
    elsewhere = submitted(t)
    t.again(assigned, "its signature is not that of w1", f"ledger.process.{elsewhere}.assigned.w1")
    for_w2 = submitted(t, conditions={"runtimetype": "python", "workernames": ["w2"]})
    assign(t, "w1", for_w2, "the process is for w2")
    stored = assign(t, "w2", for_w2)
    t.say("w2", facts.Completed(stored, None, kept), for_w2)
    t.say("w1", facts.Renewed(attempt), t.new_id(), "the process has no valid submission", prev=bytes(32))


def _attempts(t: Teller) -> None:
    id = submitted(t, maxretries=1)
    first = assign(t, "w1", id)
    t.say("w1", facts.Failed(first, "one", "error", 2.5), id)
    requeue(t, id, "the delay is not over")
    assign(t, "w1", id, "the process is blocked, not offered")
    requeue(t, id, "the role worker does not offer a process again", author="w1", after_s=3)
    requeue(t, id, "the queue is not that of the process", queue=queue_of(PLAIN, 3))
    requeue(t, id, "it does not cite", cites=1)
    requeue(t, id)
    assign(t, "w1", id, "its id is that of an earlier attempt", id=first)
    second = assign(t, "w1", id)
    t.say("w1", facts.Failed(second, "later", "later", 0.5), id)
    requeue(t, id)
    third = assign(t, "w1", id)
    t.say("w2", facts.Returned(third), id, "attempt 3 of w1 holds the process")
    t.say("w1", facts.Returned(third, "the worker is stopping"), id)
    fourth = assign(t, "w2", id)  # the same offer
    t.say("w2", facts.Failed(fourth, "too long", "timeout"), id)  # the second that counts
    requeue(t, id, "the process is failed already")
    final = submitted(t, maxretries=-1)
    t.say("w1", facts.Failed(assign(t, "w1", final), "no such picture", "final"), final)
    # A takeover, to the nanosecond, and the loser's result.
    id = submitted(t)
    lost = assign(t, "w1", id)
    assign(t, "w2", id, "attempt 1 of w1 holds it", after_s=9.999999)
    taken = assign(t, "w2", id, after_s=0.000001)
    t.say("w1", facts.Completed(lost, 1), id, "attempt 2 of w2 holds the process")
    # The broker's clock went back: the process's does not.
    t.say("w2", facts.Renewed(taken), id, after_s=-3_600)
    t.say("w2", facts.Completed(taken, 2), id)
    t.now += 3_600 * 10**9


def _poison(t: Teller) -> None:
    id = submitted(t)
    t.say("orch", facts.Poisoned(), id, "it has not lost 5 attempts")
    assign(t, "w1", id)
    requeue(t, id, "the running attempt may still be alive", after_s=119.999)
    requeue(t, id, after_s=0.001)
    for number in range(4):
        assign(t, f"w{number % 2 + 1}", id, after_s=10)
    assign(t, "w1", id, LOST, after_s=10)
    t.say("orch", facts.Poisoned(), id, "it has not lost 5 attempts")  # not yet silent, so not for a service
    requeue(t, id, LOST, after_s=120)
    t.say("ann", facts.Poisoned(), id, "the role user calls no process poison")
    t.say("w2", facts.Poisoned(), id)


def _waits(t: Teller) -> None:
    id = submitted(t, maxwaittime=30)
    requeue(t, id, "it has not waited for 10 s yet", after_s=9.999999)
    requeue(t, id, after_s=0.000001)
    t.say("ann", facts.Expired(), id, "the role user lets no process expire")
    t.say("orch", facts.Expired(), id, "the process has not waited", after_s=10)
    t.say("orch", facts.Expired(), id, after_s=10)
    id = submitted(t)
    t.say("w1", facts.Expired(), id, "the process has no wait that could be over", after_s=100)
    t.say("bob", facts.Cancelled(), id, "only ann or an owner may cancel")
    t.say("orch", facts.Cancelled(), id, "the service cancels nothing but nodes of workflows")
    t.say("ann", facts.Cancelled("not needed"), id)
    t.say("ann", facts.Cancelled(), id, "the process is cancelled already")
    id = submitted(t)
    attempt = assign(t, "w1", id)
    t.say("olga", facts.Cancelled(), id)
    t.say("w1", facts.Completed(attempt, 1), id, "the process is cancelled already")
    submitted(t)  # waits for ever


def _strangers(t: Teller) -> None:
    id = submitted(t)
    here = f"ledger.process.{id}.cancelled.ann"
    t.put("ledger.process", b"", "its subject is not of the ledger's grammar")
    t.put(f"ledger.process.{id}.cancelled.Ann", b"", "its subject is not of the ledger's grammar")
    t.put(here, b"", "it is not an event: not msgpack")
    t.say("bob", facts.Cancelled(), id, "its author or type is not that of its subject", subject=here)
    t.say("ann", facts.Expired(), id, "its author or type is not that of its subject", subject=here)
    t.say("mallory", facts.Cancelled(), id, "mallory is no member", key=keypair("mallory"))
    t.say("ann", facts.Cancelled(), id, "its signature is not that of ann", key=keypair("mallory"))
    other = codec.seal(
        t.keys["ann"],
        keypair("other", "account").public,
        here,
        id=t.new_id(),
        type="process.cancelled",
        time=t.now,
        author="ann",
        prev=t.process(id).head,
        data={},
    )
    t.put(here, other.data, "its signature is not that of ann")  # for another colony
    t.say("ann", facts.Cancelled(), id, "it is not an event: 'process.cancelled'", data={"why": "no"})
    t.say("ann", facts.Cancelled(), id, "it is not an event: 'process.forgotten'", type="process.forgotten")
    t.put(here, msgpack.packb(["text", bytes(64)]), "it is not an event: not a pair")
    assert subjects.parse(here) is not None
    t.say("ann", facts.Cancelled(), id)  # after all that, it is as it was
