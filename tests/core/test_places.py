"""Places under the keys of limits: who may have one, and that two who grant them never grant one too many."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonies import subjects
from colonies.codec import Sealed
from colonies.core.events import VALID, Expired, Granted, Queued, Requeued, Submitted
from colonies.core.limits import Places, digest_of, keeps_place, limits_of
from colonies.core.process import SECOND, Blocked, Offer, Process, Running, Successful, Waiting
from colonies.core.spec import Limit, Spec
from colonies.errors import Conflict, Invalid, Unknown
from colonies.history import Judged
from colonies.ledger import Draft, Stored
from colonies.limiting import Limiter
from tests.core.telling import LEASE_S, START, Telling, a_colony, a_spec, new_id, record_of, tell_colony

KEY = {"key": "customer-7", "running": 2}


# --- what is asked for ------------------------------------------------------------------------------


def test_limits_are_one_object_or_a_list_and_come_back_as_they_were() -> None:
    one = a_spec(limits=KEY)
    assert one == a_spec(limits=[KEY])
    both = a_spec(limits=[KEY, {"by": "func", "rate": 10, "per": "minute"}])
    assert Spec.parse(both.wire()) == both
    assert a_spec().wire() == a_spec(limits=[]).wire()


def test_a_key_may_stand_for_the_function_or_the_label() -> None:
    spec = a_spec(label="nightly", limits=[{"by": "label", "running": 1}, {"by": "func", "running": 1}, KEY])
    assert {key for key, _ in limits_of(spec)} == {"label:nightly", "func:resize", "customer-7"}
    script = "echo hello\n" * 100
    [(key, _)] = limits_of(a_spec(limits={"by": "func", "running": 1}).model_copy(update={"func": script}))
    assert key.startswith("func:sha256:")
    assert len(key) < 100


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"running": 2}, "spec: limits[0]: it needs a key"),
        ({"key": "a", "by": "func", "running": 2}, "spec: limits[0]: it needs a key"),
        ({"key": "a"}, "spec: limits[0]: it limits nothing"),
        ({"key": "a", "rate": 2}, "spec: limits[0]: a rate is per some time"),
        ({"key": "a", "running": 1, "per": "hour"}, "spec: limits[0]: a rate is per some time"),
        ({"key": "a", "running": 0}, "spec: limits[0].running: 0 is not allowed"),
        ({"key": "a", "rate": 1, "per": "day"}, "spec: limits[0].per: 'day' is not allowed"),
        ({"key": "a", "rate": 100_001, "per": "hour"}, "spec: limits[0].rate: 100001 is not allowed"),
        ({"by": "label", "running": 1}, "spec: limits: by label: this spec has no label"),
        ([KEY, {**KEY, "running": 3}], "spec: limits: the key 'customer-7' stands twice"),
        ([{"key": str(n), "running": 1} for n in range(9)], "spec: limits: 9"),
        ({"key": "a", "running": 1, "most": 2}, "spec: limits[0].most: unknown field"),
        (3, "spec: limits: 3, a whole number, is not allowed"),
    ],
)
def test_limits_that_make_no_sense_are_refused_saying_what_would(limits: object, said: str) -> None:
    with pytest.raises(Invalid) as refused:
        a_spec(limits=limits)
    assert str(refused.value).startswith(said), str(refused.value)
    assert "allowed: " in str(refused.value)


# --- the rules --------------------------------------------------------------------------------------


def test_a_process_with_limits_is_submitted_blocked_and_one_without_is_offered() -> None:
    told = Telling(limits=KEY)
    assert told.say("ann", Queued(told.spec)).rule.endswith("is not to be offered now")
    assert told.say("ann", Submitted(told.spec)).valid
    assert told.it.phase == Blocked(told.now)
    plain = Telling()
    assert not plain.say("ann", Submitted(plain.spec)).valid


def test_the_wait_for_a_place_and_for_a_worker_is_one_wait() -> None:
    told = Telling(limits=KEY, maxwaittime=60)
    told.say("ann", Submitted(told.spec))
    told.now += 40 * SECOND
    assert not told.say("orch", Expired()).valid
    assert told.say("orch", Requeued(told.it.sequence)).valid
    told.now += 19 * SECOND
    assert not told.say("orch", Expired()).valid
    told.now += 2 * SECOND
    assert told.say("orch", Expired()).valid


def test_one_that_waits_for_its_place_expires_and_one_that_waits_for_its_delay_does_not() -> None:
    told = Telling(limits=KEY, maxwaittime=60)
    told.say("ann", Submitted(told.spec))
    told.now += 61 * SECOND
    assert told.say("orch", Expired()).valid
    delayed = Telling(delay=600, maxwaittime=60)
    delayed.say("ann", Submitted(delayed.spec))
    delayed.now += 61 * SECOND
    assert not delayed.say("orch", Expired()).valid


def test_only_the_service_grants_places_and_under_the_keys_own_name() -> None:
    colony = a_colony()
    event = Granted("customer-7", {new_id(): 3})
    at = {"kind": "limit", "entity": digest_of("customer-7")}
    assert tell_colony(colony, event, "orch", **at).valid  # type: ignore[arg-type]
    assert tell_colony(colony, event, "orch", **at).valid  # type: ignore[arg-type]
    for author in ("olga", "ann", "w1", "eye"):
        assert tell_colony(colony, event, author, **at).denied  # type: ignore[arg-type]
    assert not tell_colony(colony, event, "orch", kind="limit", entity=digest_of("other")).valid
    assert not any(head.startswith("limit.") for head in colony.heads), "a reader keeps nothing of a key"


# --- rates ------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.sampled_from(["second", "minute"]), st.lists(st.integers(0, 90), max_size=60))
def test_no_window_has_more_than_the_rate_and_nobody_waits_longer_than_he_must(
    rate: int, per: str, waits_s: list[int]
) -> None:
    limit = Limit.model_validate({"key": "a", "rate": rate, "per": per})
    window = {"second": 1, "minute": 60}[per]
    places, now, times = Places(), START, []
    for wait_s in waits_s:
        now += wait_s * SECOND // 3
        at = places.room_at(limit, now)
        assert at is not None
        due = max(now, times[-rate] + window * SECOND) if len(times) >= rate else now
        assert at == due
        now = at
        places.forget(now)
        places.count(now, 1, window)
        times.append(now)
    for time in times:
        assert sum(time <= other < time + window * SECOND for other in times) <= rate


def test_many_of_one_rate_may_be_granted_at_once_but_not_more() -> None:
    limit = Limit.model_validate({"key": "a", "rate": 3, "per": "minute"})
    places = Places()
    assert [places.room_at(limit, START, more) == START for more in range(5)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    places.count(START, 2, 60)
    assert places.room_at(limit, START + SECOND, 0) == START + SECOND
    assert places.room_at(limit, START + SECOND, 1) == START + 60 * SECOND


# --- two who grant ----------------------------------------------------------------------------------


@dataclass
class World:
    """A ledger of processes and grants, by compare-and-set on each key. Both kinds count in one sequence."""

    events: list[Process | Judged] = field(default_factory=list)
    truth: dict[str, Process] = field(default_factory=dict)
    lasts: dict[str, int] = field(default_factory=dict)
    sealed: dict[bytes, Granted] = field(default_factory=dict)
    granted: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    clock: int = START
    breaks: Callable[[], bool] = lambda: False

    def store(self, process: Process, phase: Any) -> Process:
        sequence = len(self.events) + 1
        found = replace(process, phase=phase, sequence=sequence, time=self.clock)
        self.truth[process.id] = found
        self.events.append(found)
        return found

    async def append(self, draft: Draft) -> int:
        await asyncio.sleep(0)
        if self.breaks():
            raise Unknown("no answer came, and it is not stored")
        digest = draft.subject.split(".")[2]
        if self.lasts.get(digest, 0) != draft.after:
            raise Conflict("another was first")
        sequence = self.lasts[digest] = len(self.events) + 1
        event = self.sealed[draft.data]
        stored = Stored(draft.subject, sequence, self.clock, draft.data)
        record = record_of(
            event, "orch", role="service", kind="limit", entity=digest, sequence=sequence, time=self.clock
        )
        self.events.append(Judged(stored, record, VALID))
        self.granted.setdefault(event.key, []).extend(
            (process, cites, self.clock) for process, cites in event.processes.items()
        )
        await asyncio.sleep(0)
        if self.breaks():
            raise Unknown("no answer came, and it is stored")
        return sequence

    async def last_of(self, guards: list[str]) -> dict[str, int]:
        return {guard: self.lasts.get(guard.split(".")[2], 0) for guard in guards}

    async def now(self) -> int:
        return self.clock


class Side:
    """One orchestrator, as far as limits go."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = world
        self.processes: dict[str, Process] = {}
        self.ended: set[str] = set()
        self.position = 0
        self.touched: set[str] = set()
        self.timers: list[Callable[[], None]] = []
        self.limiter = Limiter(
            self,
            self.processes,
            lambda: self.position,
            self.ended.__contains__,
            self._later,  # type: ignore[arg-type]
        )

    def _later(self, _: float, do: Callable[[], None]) -> None:
        self.timers.append(do)

    def seal(self, event: Granted, digest: str, **_: Any) -> tuple[str, Sealed]:
        data = repr((digest, new_id())).encode()
        self.world.sealed[data] = event
        return f"ledger.limit.{digest}.granted.orch", Sealed(data, data)

    def fold(self, number: int) -> None:
        for event in self.world.events[self.position : self.position + number]:
            self.position += 1
            if isinstance(event, Judged):
                self.limiter.on_event(event)
            elif event.final:
                self.processes.pop(event.id, None)
                self.ended.add(event.id)
                self.limiter.gone(event.id)
            else:
                self.processes[event.id] = event
                self.limiter.on_process(event)
                self.touched.add(event.id)

    def release(self) -> None:
        for id in sorted(self.touched):
            self.touched.discard(id)
            found = self.processes.get(id)
            if found is None or not isinstance(found.phase, Blocked):
                continue
            since = found.submitted_at
            again = lambda id=id: self.touched.add(id)  # noqa: E731
            if not self.limiter.admits(id, found.spec, found.sequence, since, again):
                continue
            if self.world.truth[id].sequence == found.sequence:  # compare-and-set
                self.world.store(found, Waiting(Offer(new_id(), 1, 1), 1))

    async def act(self) -> None:
        timers, self.timers = self.timers, []
        for due in timers:
            due()
        self.release()
        await self.limiter.act(await self.world.now())
        self.release()


def held(world: World) -> Counter[str]:
    alive = [found for found in world.truth.values() if isinstance(found.phase, Waiting | Running)]
    return Counter(key for found in alive for key, limit in limits_of(found.spec) if limit.running)


CHOICES: list[list[dict[str, Any]]] = [
    [{"key": "a", "running": 2}],
    [{"key": "b", "running": 1}],
    [{"key": "b", "running": 1}, {"key": "a", "running": 2}],
    [{"key": "c", "running": 3}, {"key": "b", "running": 1}, {"key": "a", "running": 2}],
    [{"key": "c", "running": 1}],
    [{"key": "r", "rate": 2, "per": "second"}],
    [{"key": "r", "rate": 2, "per": "second"}, {"key": "c", "running": 3}],
]
MOST = {"a": 2, "b": 1, "c": 3}


def sound(world: World) -> None:
    """What must hold at every moment."""
    assert all(number <= MOST[key] for key, number in held(world).items()), held(world)
    for key, granted in world.granted.items():
        assert len({(process, cites) for process, cites, _ in granted}) == len(granted), (key, granted)
    times = [time for _, _, time in world.granted.get("r", [])]
    assert all(later >= time + SECOND for time, later in zip(times, times[2:], strict=False)), times


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_two_who_grant_places_never_let_out_too_many_and_let_out_all(seed: int) -> None:
    """Both fold at their own pace, are killed and begin anew; processes end, fail, and are cancelled."""
    rng = random.Random(seed)
    world = World(breaks=lambda: rng.random() < 0.05)
    sides = [Side(world), Side(world)]

    async def live() -> None:
        for _ in range(120):
            world.clock += rng.choice([0, 0, 1, SECOND // 3])
            match rng.choice(
                ["submit", "fold", "fold", "act", "act", "both", "end", "end", "cancel", "kill"]
            ):
                case "submit":
                    spec = a_spec(limits=rng.choice(CHOICES))
                    number = len(world.events) + 1
                    made = Process(new_id(), spec, "q", "ann", number, Blocked(0), b"", number, number)
                    world.store(made, Blocked(0))
                case "fold":
                    rng.choice(sides).fold(rng.randrange(1, 9))
                case "act":
                    await rng.choice(sides).act()
                case "both":
                    await asyncio.gather(*(side.act() for side in sides))
                case "kill" if rng.random() < 0.2:
                    sides[rng.randrange(2)] = Side(world)
                case "end" | "cancel" as what:
                    states = Blocked if what == "cancel" else Waiting
                    of = [found for found in world.truth.values() if isinstance(found.phase, states)]
                    if of and (what == "end" or rng.random() < 0.3):
                        retried = what == "end" and rng.random() < 0.3
                        world.store(rng.choice(of), Blocked(1) if retried else Successful())
            sound(world)

    async def drain() -> None:
        for _ in range(1_000):
            world.clock += SECOND // 4
            for side in sides:
                side.fold(1_000_000)
                await side.act()
            sound(world)
            waiting = [found for found in world.truth.values() if isinstance(found.phase, Waiting)]
            for found in waiting[:1]:
                world.store(found, Successful())
            if all(found.final for found in world.truth.values()):
                break
        assert all(found.final for found in world.truth.values()), "some never had their turn"
        for side in sides:
            side.fold(1_000_000)
            world.clock += 3_600 * SECOND
            await side.act()
            assert not side.limiter._keys, "nothing is kept of keys that are not in use"

    async def life() -> None:
        await live()
        await drain()

    asyncio.run(life())


def test_a_place_is_kept_by_what_was_offered_and_not_by_what_moved_on() -> None:
    spec = a_spec(limits=KEY)
    blocked = Process(new_id(), spec, "q", "ann", 1, Blocked(0), b"", 5, 1)
    assert keeps_place(blocked, 5)
    assert not keeps_place(replace(blocked, sequence=9), 5), "an attempt failed; or somebody signalled it"
    running = replace(blocked, phase=Running(Offer(new_id(), 6, 1), LEASE_S, 1), sequence=7)
    assert keeps_place(running, 5)
    assert not keeps_place(replace(running, phase=Successful()), 5)
    assert keeps_place(None, 0), "a node that is about to be released"
    assert not keeps_place(None, 5)
    assert subjects.parse(f"ledger.limit.{digest_of('a')}.granted.orch") is not None
