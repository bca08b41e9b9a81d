"""The colony before a lifetime begins: its members and, mostly, its queues, recorded by the real session."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from colonies.core.colony import Colony
from colonies.core.events import Approved, Declared, Genesis, Role
from colonies.core.spec import Conditions, queue_of
from colonies.history import History
from colonies.ledger import Stored
from colonies.nkeys import KeyPair
from colonies.roles import ROLES
from colonies.session import Session
from tests.simulator.broker import Broker
from tests.simulator.ground import GROUND
from tests.simulator.link import Host, Network, SimLedger
from tests.simulator.loop import VirtualLoop
from tests.simulator.plan import Faults

OWNER = "olga"
MEMBERS: dict[str, str] = {
    OWNER: "owner",
    "u1": "user",
    "w1": "worker",
    "w2": "worker",
    "orch": "service",
    "obs": "observer",
}
PRIORITIES = (0,)  # what is declared; others the clients declare


@dataclass(frozen=True, slots=True)
class Founded:
    colony: str
    keys: dict[str, KeyPair]
    events: list[Stored]
    read: Colony

    def view(self) -> Colony:
        """The colony as somebody knows it who has read all that was before."""
        found = self.read
        return replace(
            found,
            leases=list(found.leases),
            members=dict(found.members),
            queues=dict(found.queues),
            heads=dict(found.heads),
            paused_queues=dict(found.paused_queues),
            drained=dict(found.drained),
        )


def _key(name: str, kind: str) -> KeyPair:
    return KeyPair._of(kind, hashlib.sha256(f"{kind} {name}".encode()).digest())  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def founded(lease_s: float, declared: bool) -> Founded:
    """A colony with its members; with its queues if they are `declared`. The same for every seed."""
    before = GROUND.loop, GROUND.random, GROUND.count
    random, errors = Random(1), []
    loop = VirtualLoop(random, lambda what, error: errors.append(error), now=0.0)
    GROUND.loop, GROUND.random, GROUND.count = loop, random, 9_000_000
    account = _key("lab", "account")
    keys = {name: _key(name, "user") for name in MEMBERS}
    broker = Broker(loop, account.public, [])
    network = Network(loop, broker, Faults(), random)

    async def found() -> None:
        ledger = SimLedger(network, Host("founder", OWNER))
        roles: dict[Role, str] = {role: _key(role, "account").public for role in ROLES}
        genesis = Genesis("lab", OWNER, keys[OWNER].public, roles, lease_s)
        await Session(ledger, OWNER, account).record_genesis(genesis)
        session = await Session(ledger, OWNER, keys[OWNER]).open()
        for name, role in MEMBERS.items():
            if name != OWNER:
                await session.record_entity("member", name, Approved(keys[name].public, role))  # type: ignore[arg-type]
        if declared:
            for priority in PRIORITIES:
                conditions = Conditions(runtimetype="python")
                event = Declared(conditions, priority)
                await session.record_entity("queue", queue_of(conditions, priority), event)
        await session.close()

    task = loop.create_task(found())
    loop.run(100.0)
    assert task.done(), errors
    task.result()
    GROUND.loop, GROUND.random, GROUND.count = before
    history = History(Colony(account.public))
    for stored in broker.events:
        assert history.add(stored).verdict.valid
    return Founded(account.public, keys, broker.events, history.colony)
