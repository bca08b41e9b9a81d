"""What a seed stands for: the work, the machines and the misfortunes of one lifetime, all drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from colonies.core.spec import Conditions, queue_of
from tests.simulator.flowplan import Flow, draw_flow
from tests.simulator.holdplan import draw_pauses, limit_all
from tests.simulator.item import Action, Item
from tests.simulator.timeplan import Script, draw_times

INSTANCES = (*[["w1"]] * 5, *[["w1", "w1"]] * 2, *[["w1", "w2"]] * 2, ["w1", "w1", "w2"])  # of each member
LEASES_S = (2.0, 3.0)
PROJECTED = 1 / 24  # of all lifetimes
FLOWING = 1 / 16  # have a workflow, and mostly nothing else
HELD = 1 / 40  # of those that are left have pauses or limits
TIMED = 1 / 40  # of the others have crons or generators
FLOW_EVENTS = ("queued", "submitted", "skipped", "awaited", "received", "signalled")
TIME_EVENTS = {
    "cron": ("submitted", "submitted", "submitted", "added", "paused"),
    "generator": ("submitted", "submitted", "packed", "packed", "added"),
}
NOBODY = "w9"  # a worker that is named and never there


@dataclass(slots=True)
class Faults:
    """How likely a call, a word without an answer, or a message of the feed goes astray (0 to 1)."""

    trouble: float = 0.0
    focus: str = ""  # the event whose storing is in trouble every other time
    lose_word: float = 0.0
    lose_feed: float = 0.0
    redelivery: float = 0.0
    stale_s: float = 0.0
    lag_s: float = 0.0


@dataclass(slots=True)
class Mishap:
    """At `at` (s) something happens to a machine or queue, for `lasts` seconds."""

    at: float
    what: Literal[
        "crash", "pause", "disconnect", "stop", "delete queue", "reset queue", "skip queue", "junk", "broker"
    ]
    target: int
    lasts: float


@dataclass(slots=True)
class Plan:
    """A lifetime. Times count from its beginning (s); mishaps end at `calm_at`."""

    seed: int
    lease_s: float
    instances: list[str]  # the member of each
    orchestrators: int
    clients: int
    concurrency: int
    declared: bool
    items: list[Item]
    faults: Faults = field(default_factory=Faults)
    mishaps: list[Mishap] = field(default_factory=list)
    crashes: list[tuple[int, int, bool, float]] = field(default_factory=list)
    projector: list[tuple[int, bool]] | None = None  # is there one, and at which calls it crashes in turn
    calm_at: float = 0.0
    flows: list[Flow] = field(default_factory=list)
    works: dict[int, Item] = field(default_factory=dict)  # what the nodes of workflows run, by number
    scripts: list[Script] = field(default_factory=list)  # of crons and generators
    pauses: list[Script] = field(default_factory=list)
    limited: bool = False

    def item(self, number: int) -> Item:
        """What the function does whose first argument this is."""
        return self.works.get(number) or self.items[number]

    def slack_s(self) -> float:
        """For how long at most (s) what is stored may be unknown to an orchestrator that says something."""
        faults = self.faults
        return 10.0 if self.orchestrators > 1 or faults.trouble or faults.focus else 1.0

    def bound_s(self) -> float | None:
        """When all must be done (s), if nothing befalls the lifetime but crashes and the like: redelivery,
        not the orchestrator's longer memory, must bring back what they took. None: it may take long.
        """
        faults = self.faults
        if self.flows or self.scripts or self.pauses or self.limited:
            return None
        if faults.trouble or faults.focus or faults.lose_word or faults.lose_feed:
            return None
        if any(mishap.what not in ("crash", "stop", "junk") for mishap in self.mishaps):
            return None
        work_s = 0.0
        for item in self.items:
            hang_s = item.spec.get("maxexectime", 0.0)
            work_s += sum(hang_s if what == "hang" else s + later_s for what, s, later_s in item.actions)
            work_s += 2.5 * (len(item.actions) - 1)  # backoffs, and timers of whole seconds
            work_s += item.spec.get("maxwaittime", 0.0)
        longest_s = max(s for item in self.items for _, s, _ in item.actions)
        crashes = len(self.crashes) + sum(mishap.what != "junk" for mishap in self.mishaps)
        return 8.0 + work_s + crashes * (7.0 + 2 * self.lease_s + longest_s)


def draw(seed: int) -> Plan:
    """The lifetime that a seed stands for."""
    random = Random(seed)
    instances = random.choice(INSTANCES)
    plan = Plan(
        seed=seed,
        lease_s=random.choice(LEASES_S),
        instances=instances,
        orchestrators=2 if random.random() < 0.15 else 1,
        clients=2 if random.random() < 0.15 else 1,
        concurrency=random.choice([1, 2, 4]),
        declared=random.random() < 0.8,
        items=[],
    )
    long = random.random() < 0.1
    plan.items = _items(random, random.choice([1, 1, 1, 2, 2, 3, 4] if not long else [1, 2]))
    if long:  # work that outlasts its lease, and what may befall it meanwhile
        plan.instances = random.choice(INSTANCES[5:])
        for item in plan.items:
            item.actions = [
                (what, 1.0 + 4.0 * random.random(), later_s) for what, _, later_s in item.actions[-2:]
            ]
            item.spec.pop("maxexectime", None)
            item.actions = [("error" if what == "hang" else what, s, d) for what, s, d in item.actions]
    _misfortune(plan, random, long)
    if random.random() < PROJECTED:
        crashes = range(random.choice([0, 1, 1, 2, 3]))
        plan.projector = [(1 + int(80 * random.random() ** 1.5), random.random() < 0.5) for _ in crashes]
    if random.random() < FLOWING:
        _flow(plan, random)
    elif random.random() < TIMED:
        _times(plan, random)
    elif random.random() < HELD:
        _holds(plan, random)
    return plan


def _flow(plan: Plan, random: Random) -> None:
    """Workflows in place of most other work."""
    plan.items = plan.items[:1] if random.random() < 0.2 else []
    plan.flows = [draw_flow(random, number, plan.works) for number in range(1 + (random.random() < 0.1))]
    if plan.faults.focus and random.random() < 0.5:
        plan.faults.focus = random.choice(FLOW_EVENTS)


def _holds(plan: Plan, random: Random) -> None:
    """Pauses, or limits, or both."""
    kind = random.random()
    if kind < 0.6:
        plan.pauses = draw_pauses(random, sorted(set(plan.instances)))
        for script in plan.pauses:
            if script.kind == "queue":
                script.name = queue_of(Conditions(runtimetype="python"), 0)
                plan.declared = True
        for item in plan.items:
            item.submit_at *= 2.0
    if kind > 0.45:
        plan.limited = True
        plan.items = _items(random, random.choice([3, 4, 5, 6]))
        limit_all(random, plan.items)
        if plan.faults.focus and random.random() < 0.7:
            plan.faults.focus = random.choice(["granted", "queued", "completed"])
    if random.random() < 0.3:
        plan.orchestrators = 2


def _times(plan: Plan, random: Random) -> None:
    """Crons and generators in place of other work, and what befalls those who run them."""
    plan.items = []
    plan.projector = None if random.random() < 0.5 else plan.projector
    plan.clients = 1 + (random.random() < 0.5)
    plan.scripts = draw_times(random, plan.clients, plan.works)
    events = TIME_EVENTS[plan.scripts[-1].kind]
    plan.faults.focus = random.choice(events) if random.random() < 0.4 else ""
    first = len(plan.instances)
    for _ in range(random.choice([0, 1, 1, 2, 2, 3])):
        what = random.choice(["crash", "crash", "crash", "pause", "disconnect", "broker"])
        at, lasts = 0.8 + 4.2 * random.random(), 0.05 + 5.0 * random.random()
        hit = range(plan.orchestrators)  # mostly all, so that nobody is left
        if random.random() < 0.3:
            hit = range(random.randrange(plan.orchestrators), plan.orchestrators)
        plan.mishaps += [Mishap(at + 0.1 * n, what, first + n, lasts) for n in hit]  # type: ignore[arg-type]
    plan.mishaps.sort(key=lambda mishap: mishap.at)
    plan.calm_at = 6.0


def _items(random: Random, count: int) -> list[Item]:
    items = [_item(random, number) for number in range(count)]
    if count > 2 and random.random() < 0.2:
        together = random.choice([1, 2])  # 1: pipelined, 2: all or none
        for item in items[1:]:
            item.together, item.key, item.submit_at = together, None, items[1].submit_at
    if count > 1 and random.random() < 0.1:  # the same key again, from two places
        first, second = items[0], items[1]
        first.key = second.key = "same"
        first.together = second.together = 0
        second.spec, second.actions, second.cancel_after = first.spec, first.actions, None
    return items


def _item(random: Random, number: int) -> Item:
    spec: dict[str, Any] = {"func": "work", "args": [number], "conditions": {"runtimetype": "python"}}
    actions: list[tuple[Action, float, float]] = []
    bad = random.choice([0, 0, 0, 1, 2, 3])
    for _ in range(bad):
        what = random.choice(["error", "error", "later", "fail", "hang", "ok"])
        actions.append((what, _duration_s(random), random.choice([0.0, 0.1, 0.7, 1.5])))
    actions.append(("ok", _duration_s(random), 0.0))
    if any(what == "hang" for what, _, _ in actions) or random.random() < 0.1:
        spec["maxexectime"] = random.choice([0.3, 0.8])
        actions[-1] = ("ok", 0.0, 0.0)  # the last one can succeed
    if bad and random.random() < 0.8:
        spec["maxretries"] = random.choice([1, 2, 3, -1])
    if random.random() < 0.1:
        spec["maxwaittime"] = random.choice([0.5, 2.0, 5.0])
    if random.random() < 0.1:
        spec["priority"] = random.choice([-1, 5])
    if random.random() < 0.05:
        spec["conditions"]["workernames"] = [random.choice(["w1", NOBODY])]
        spec.setdefault("maxwaittime", 2.0)
    return Item(
        number,
        spec,
        actions,
        submit_at=random.random() ** 2 * 1.5,
        key=f"key{number}" if random.random() < 0.3 else None,
        cancel_after=random.random() ** 2 * 3.0 if random.random() < 0.15 else None,
    )


def _duration_s(random: Random) -> float:
    kind = random.random()
    if kind < 0.5:
        return 0.0
    if kind < 0.9:
        return 0.4 * random.random()
    return 3.0 * random.random() if kind < 0.99 else 30.0 * random.random()


def _misfortune(plan: Plan, random: Random, long: bool) -> None:
    """Swarm testing: each lifetime has its own few kinds of misfortune, so that none hides another."""
    faults = plan.faults
    if random.random() < 0.15:
        return
    if random.random() < (0.5 if long else 0.22):
        faults.trouble = random.choice([0.02, 0.1])
    if random.random() < 0.08:
        faults.focus = random.choice(["assigned", "assigned", "completed", "failed", "queued", "cancelled"])
        plan.instances = random.choice(INSTANCES[5:])
    if random.random() < 0.2:
        faults.lose_word = random.choice([0.02, 0.1])
    if random.random() < 0.1:
        faults.lose_feed = random.choice([0.1, 0.5])
    if random.random() < 0.3:
        faults.redelivery = random.choice([0.3, 1.0])
    if random.random() < 0.2:
        faults.stale_s = random.choice([0.02, 0.25])
    if random.random() < 0.3:
        faults.lag_s = random.choice([0.01, 0.25])
    machines = len(plan.instances) + plan.orchestrators + plan.clients
    if random.random() < 0.45:  # at an effect
        for _ in range(random.choice([1, 1, 2, 3])):
            machine = random.randrange(machines) if random.random() < 0.4 else 0
            call = 12 + random.randrange(24) if random.random() < 0.6 else 1 + random.randrange(60)
            plan.crashes.append((machine, call, random.random() < 0.6, _down_s(random)))
    for what, chance in (
        ("crash", 0.12),
        ("pause", 0.35 if long else 0.12),
        ("disconnect", 0.35 if long else 0.12),
        ("stop", 0.1),
        ("delete queue", 0.03),
        ("reset queue", 0.5 if long else 0.04),
        ("skip queue", 0.02),
        ("junk", 0.1),
    ):
        if random.random() < chance:
            for _ in range(random.choice([1, 1, 2])):
                at = 4.0 * random.random() ** 1.5
                target = random.randrange(machines) if random.random() < 0.6 else 0
                lasts = _down_s(random) + (2.0 if long and random.random() < 0.5 else 0.0)
                plan.mishaps.append(Mishap(at, what, target, lasts))  # type: ignore[arg-type]
    plan.mishaps.sort(key=lambda mishap: mishap.at)
    plan.calm_at = 6.0


def _down_s(random: Random) -> float:
    return 0.05 + 4.0 * random.random() ** 2
