"""The table of roles (colonies.roles) and the rules of the core say the same of who may say what."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from colonies.core import colony as colonies_
from colonies.core import workflow as workflows_
from colonies.core.events import (
    Approved,
    Assigned,
    Awaited,
    Cancelled,
    ColonyPaused,
    ColonyResumed,
    Completed,
    Configured,
    Declared,
    Event,
    Expired,
    Failed,
    Genesis,
    Granted,
    Part,
    Poisoned,
    Queued,
    QueuePaused,
    QueueResumed,
    Received,
    Released,
    Renewed,
    Requeued,
    Retired,
    Returned,
    Revoked,
    Role,
    Rotated,
    ScheduleEvent,
    Signalled,
    Skipped,
    Source,
    Submitted,
    Verdict,
    WebhookAdded,
    WebhookChanged,
    WebhookRemoved,
    WorkerDrained,
    WorkerResumed,
    WorkerStarted,
    WorkerStopped,
    WorkflowCancelled,
    WorkflowSignalled,
    WorkflowSubmitted,
)
from colonies.core.flow import WorkflowSpec
from colonies.core.limits import digest_of
from colonies.core.node import Node
from colonies.core.process import judge
from colonies.core.spec import Conditions, queue_of
from colonies.core.workflow import NOTHING, Workflow
from colonies.roles import ROLES
from tests.core.telling import LEASE_S, MEMBERS, START, Telling, key, new_id, record_of

WHO: dict[Role, str] = {role: name for name, role in reversed(MEMBERS.items())}
CONDITIONS = Conditions.parse({"runtimetype": "gpu"})
ATTEMPT = new_id()
WORKFLOW = new_id()
NODE = Node.read({"name": "a", "func": "f", "conditions": {"runtimetype": "cli"}})
EVENTS: list[Event] = [
    Genesis("lab", "olga", key(0), {}, LEASE_S),
    Configured(20.0),
    Approved(key(50), "user"),
    Rotated(key(50), key(2), bytes(64), bytes(64)),
    Revoked(),
    Declared(CONDITIONS, 0),
    Retired(1),
    WorkerStarted("one", "cli", 1, []),
    WorkerStopped("one"),
    Queued(Telling().spec),
    Requeued(1),
    Assigned(new_id(), LEASE_S, "one"),
    Renewed(ATTEMPT),
    Returned(ATTEMPT),
    Completed(ATTEMPT),
    Failed(ATTEMPT, "broken"),
    Poisoned(),
    Expired(),
    Cancelled(),
    ColonyPaused(),
    ColonyResumed(),
    QueuePaused(),
    QueueResumed(),
    Granted("customer-7", {WORKFLOW: 1}),
    WorkerDrained(),
    WorkerResumed(),
    Submitted(Telling(delay=1).spec),
    Released(WORKFLOW, "a", [1]),
    Awaited(WORKFLOW, "a", [1]),
    Skipped(WORKFLOW, "a", [1]),
    Received(1),
    Signalled("approve"),
    Part([NODE]),
    WorkflowSubmitted(source=Source("cron", "nightly", 1)),  # of its own hand the service says none
    WorkflowCancelled(),
    WorkflowSignalled("approve"),
    WebhookAdded("https://example.com/", ["*"], "eye", key(5), bytes(80)),
    WebhookChanged("https://example.com/", ["*"], "eye", key(5), bytes(80)),
    WebhookRemoved(),
]


def said(event: Event, role: Role) -> Verdict:
    """What the core makes of it, said by a member of this role about a process of ann's, or about itself."""
    telling = Telling().submit(WHO["user"])
    telling.take()
    name, kind = WHO[role], event.type.split(".")[0]
    if kind == "process":
        first = isinstance(event, Queued | Submitted | Released | Awaited | Skipped)
        process = None if first else telling.it
        if isinstance(event, Cancelled) and role == "service":  # which cancels nodes, and nothing else
            process = replace(telling.it, workflow=WORKFLOW, node="a")
        queue = telling.queue if isinstance(event, Queued | Requeued | Released) else None
        prev = process.head if process else None
        record = record_of(
            event, name, role=role, kind=kind, entity=telling.id, sequence=200, prev=prev, queue=queue
        )
        return judge(process, record, telling.colony)
    if kind == "workflow":
        held = None
        if isinstance(event, WorkflowCancelled | WorkflowSignalled):
            submitter = WHO["user"]
            held = Workflow(WORKFLOW, WorkflowSpec((NODE,)), submitter, 100, START, b"", START)
        prev = held.head if held is not None else None
        record = record_of(event, name, role=role, kind=kind, entity=WORKFLOW, sequence=200, prev=prev)
        return workflows_.judge(held, record, telling.colony, NOTHING)
    queue, key = queue_of(CONDITIONS, 0), digest_of("customer-7")
    entity = {"member": "bob", "worker": name, "queue": queue, "limit": key, "webhook": "ops"}.get(kind, "")
    prev = colonies_.head(telling.colony, kind, entity)
    record = record_of(event, name, role=role, kind=kind, entity=entity, sequence=200, prev=prev)
    return colonies_.judge(telling.colony, record)


def test_every_type_of_event_is_tried_here() -> None:
    ours = set(get_args(Event)) - set(get_args(ScheduleEvent))
    assert {type(event) for event in EVENTS} == ours
    said = {event for role in ROLES.values() for event in role.says}
    assert {event for event in said if not event.startswith(("cron.", "generator."))} == {
        event.type for event in EVENTS
    }


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_a_role_is_denied_what_the_table_does_not_give_it_and_nothing_else(event: Event) -> None:
    # A genesis is signed by the colony's own key, whoever carries it: no rule asks for a role.
    roles: list[Role] = ["owner"] if isinstance(event, Genesis) else list(ROLES)
    may = {role for role in roles if not said(event, role).denied}
    assert may == {role for role in roles if event.type in ROLES[role].says}
