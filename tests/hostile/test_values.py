"""Values at every limit of what is an event: whatever a member puts there, every reader goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hostile.attacker import ulid
from tests.hostile.field import PYTHON, Field
from tests.hostile.rows import row
from tests.hostile.test_said import submission, take

pytestmark = pytest.mark.asyncio(loop_scope="package")

INF = float("inf")


def nested(levels: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


@row("ugly-values")
async def test_no_result_and_no_spec_stops_a_reader(field: Field) -> None:
    who, user = await field.attacker("worker"), await field.attacker("user")
    outputs = [
        *(nested(levels, kind) for kind in (list, dict) for levels in (100, 253, 254, 255, 256, 300)),
        [2**64 - 1, -(2**63), 1e308, -0.0, INF, -INF],
        {"\0": "\x1b[2J\u202e\uffff", "": []},
        "x" * 900_000,
        list(range(200_000)),
    ]
    broken = {}
    for output in outputs:
        job = await field.waiting()
        attempt, head = await take(job, who)
        subject = job.subject("completed", who.name)
        data = {"attempt": attempt, "output": output}
        stored = await who.store(subject, who.event("process.completed", subject, prev=head, data=data))
        if (await job.get()).state == "successful":
            assert json.dumps(await job.handle.result()) == json.dumps(output)
        else:
            broken[stored] = "nested deeper"
            await job.handle.cancel()
    queue = (await (await field.running()).get()).queue
    for levels in (65, 100, 256, 300, 400):
        data = {"spec": {"func": "job", "args": nested(levels, list), "conditions": PYTHON}}
        subject, event = submission(user, ulid(), queue, **data)
        broken[await user.store(subject, event)] = "args|nested|not an event"
    await field.agree(broken, "damaged")
    await (await field.running()).finish()
