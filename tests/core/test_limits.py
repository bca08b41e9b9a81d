"""Limits of what people and programs give: each is refused with both numbers, the given and the allowed.

The whole list is docs/limits.md, held against the code by tests/house/test_limits.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import colonies
from colonies import contexts, jwt, recording
from colonies.core import names
from colonies.core.events import MAX_FUNCTIONS, Approved, Completed, checked_reason
from colonies.core.spec import Spec
from colonies.creds import Credential
from colonies.errors import Invalid
from tests.fuzz import world


def spec(**fields: Any) -> Callable[[], object]:
    return lambda: Spec.parse({"func": "f", "conditions": {"runtimetype": "cli"}, **fields})


def conditions(**fields: Any) -> Callable[[], object]:
    return spec(conditions={"runtimetype": "cli", **fields})


def sealed(event: Any) -> Callable[[], object]:
    return lambda: world.sealed(event, "w1", entity="x", number=1)


MANY = {f"A{number}": "" for number in range(1_001)}
TOO_MUCH: dict[str, tuple[Callable[[], object], str]] = {
    "func": (spec(func="x" * 65_537), "func: 65537 bytes; allowed: text of at most 65536 bytes"),
    "label": (spec(label="x" * 257), "label: 257 characters; allowed: text of 1 to 256"),
    "name": (spec(name="x" * 65), "name: 65 characters; allowed: 1 to 64"),
    "env": (spec(env=MANY), "env: 1001 entries; allowed: an object of at most 1000"),
    "env value": (spec(env={"A": "x" * 65_537}), "env.A: 65537 bytes; allowed: an object"),
    "priority": (spec(priority=10), "priority: 10 is not allowed; allowed: a whole number from -9 to 9"),
    "retries": (
        spec(maxretries=1_000_001),
        "1000001 is not allowed; allowed: a whole number from 0",
    ),
    "labels": (conditions(labels=MANY), "labels: 1001 entries; allowed: an object of at most 1000"),
    "workers": (
        conditions(workernames=["w"] * 1_001),
        "1001 entries; allowed: a list of at most 1000",
    ),
    "parents": (conditions(dependencies=["w"] * 10_001), "10001 entries; allowed: a list of at most 10000"),
    "member": (lambda: names.member_name("x" * 33, "NAME"), "has 33 characters; allowed: 1 to 32"),
    "reason": (lambda: checked_reason("x" * 1_001), "1001 characters; at most 1000"),
    "event": (sealed(Completed(world.ulid(1), "x" * 1_000_000)), "bytes; an event has at most 1000000"),
    "backoff": (lambda: colonies.Worker(backoff_s=math.nan), "backoff_s: nan s; 0 to 300"),
    "concurrency": (lambda: colonies.Worker(concurrency=10_001), "concurrency: 10001; 1 to 10000"),
    "url": (lambda: contexts.checked_url("nats://" + "x" * 2_042, "--url"), "2049 characters; at most 2048"),
    "creds": (lambda: Credential.parse("x" * 65_537), "65537 characters; at most 65536"),
    "token": (lambda: jwt.decode("x" * 1_048_577), "1048577 bytes, the limit is 1048576"),
}


@pytest.mark.parametrize(("what", "said"), TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_is_too_much_is_refused_with_both_numbers(what: Callable[[], object], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        what()
    assert said in str(refused.value)


def test_a_worker_has_no_more_functions_than_an_event_can_name() -> None:
    worker = colonies.Worker()
    for number in range(MAX_FUNCTIONS):
        worker.function(name=f"f{number}")(lambda: None)
    with pytest.raises(Invalid, match="function number 1001 of this worker; at most 1000"):
        worker.function(name="one more")(lambda: None)
    with pytest.raises(Invalid, match="257 characters; at most 256"):
        colonies.Worker().function(name="g" * 257)(lambda: None)


async def test_a_colony_has_no_more_members_than_the_broker_can_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with colonies.memory() as client:
        owner = client._members.owner
        await owner.refresh()
        known = len(owner.colony.members)
        monkeypatch.setattr(recording, "MAX_MEMBERS", known + 1)
        await owner.record_entity("member", "new", Approved(world.key("new").public, "user"))
        with pytest.raises(Invalid, match=f"number {known + 2} of this colony, .* at most {known + 1}"):
            await owner.record_entity("member", "newer", Approved(world.key("newer").public, "user"))
