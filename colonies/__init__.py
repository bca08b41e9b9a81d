"""Colonies: describe work as processes, let workers anywhere pull and run them, trust nobody in between.

The words, in code, subjects, command and errors:

colony: a trust domain with one ledger. member: an identity of it, with a name, a key and a role.
process: one unit of work and its whole history. spec: what was asked for.
worker: a running program that takes processes. runtime type: the kind of worker a process needs.
queue: the waiting processes that need the same thing. offer: the event that puts a process there.
event: a signed fact. ledger: all of them, in order. feed: the live stream of them.
attempt: one assignment of a process. lease: how long an attempt may go without a sign of life.
projection: a view derived from the ledger.

    async with colonies.connect() as colony:
        process = await colony.submit({"func": "echo hello", "conditions": {"runtimetype": "cli"}})
        print(await process.result())
"""

import sys

import structlog

from colonies import light as light  # first of all: before nats is imported
from colonies.attempt import current
from colonies.batch import PartlySubmitted
from colonies.building import Workflow
from colonies.calls import Call
from colonies.client import Client, Handle
from colonies.connection import connect
from colonies.core.flow import WorkflowSpec
from colonies.core.spec import Conditions, Spec
from colonies.errors import (
    ColoniesError,
    Conflict,
    Invalid,
    NotFound,
    ProcessCancelled,
    ProcessFailed,
    Refused,
    Unavailable,
    Unknown,
    Unsuccessful,
    WorkflowUnsuccessful,
)
from colonies.execution import Fail, Later
from colonies.flows import WorkflowHandle
from colonies.listening import FeedEvent
from colonies.memory_colony import memory
from colonies.signals import signal
from colonies.tracing import traced
from colonies.worker import Worker

__all__ = [
    "Call",
    "Client",
    "ColoniesError",
    "Conditions",
    "Conflict",
    "Fail",
    "FeedEvent",
    "Handle",
    "Invalid",
    "Later",
    "NotFound",
    "PartlySubmitted",
    "ProcessCancelled",
    "ProcessFailed",
    "Refused",
    "Spec",
    "Unavailable",
    "Unknown",
    "Unsuccessful",
    "Worker",
    "Workflow",
    "WorkflowHandle",
    "WorkflowSpec",
    "WorkflowUnsuccessful",
    "connect",
    "current",
    "memory",
    "signal",
    "traced",
]

if not structlog.is_configured():
    # A library is quiet: warnings only, on stderr. Whoever configures structlog, before or after, decides.
    # Its own tracebacks show what variables held, and take up to a second in which nothing else runs.
    structlog.configure(
        processors=[
            *structlog.get_config()["processors"][:-1],
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
