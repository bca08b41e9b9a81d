"""Who may say what of a process, and when it is true: the rules of DESIGN.md section 3, each with its reason.

`judge` gives a verdict on what is stored. Who writes asks it before the fact (`Verdict.require`), so what is
recorded is what every reader accepts. It is pure: time and ids come in as data. It changes no process; that
is `colonies.core.process`.
"""

from __future__ import annotations

from colonies.core import nodes
from colonies.core.adding import placed
from colonies.core.colony import Colony
from colonies.core.events import (
    VALID,
    Assigned,
    Awaited,
    Cancelled,
    Completed,
    Expired,
    Failed,
    Poisoned,
    Queued,
    Received,
    Record,
    Released,
    Renewed,
    Requeued,
    Returned,
    Signalled,
    Skipped,
    Submitted,
    Verdict,
    denied,
    quarantined,
)
from colonies.core.shapes import SECOND
from colonies.core.spec import Spec, queue_of
from colonies.core.states import (
    MAX_LOST_IN_A_ROW,
    REOFFER_AFTER_S,
    ULID,
    Blocked,
    Process,
    Running,
    Waiting,
    keyed_id,
)
from colonies.core.workflow import MAX_SIGNALS, NOTHING, Known
from colonies.errors import Invalid


def judge(process: Process | None, record: Record, colony: Colony, known: Known = NOTHING) -> Verdict:
    """Could this event of a process be true here? Never raises.

    `record.time` is not before that of the process's last valid event: the fold sees to that. `known` has the
    workflow of a node, and how the nodes before it ended.
    """
    event = record.event
    if isinstance(event, Queued | Submitted):
        return _queued(process, record, event, colony)
    if isinstance(event, Released | Awaited | Skipped):
        return nodes.born(process, record, event, known)
    if process is None and isinstance(event, Cancelled) and event.workflow is not None:
        return nodes.never_born(record, event, known)
    if process is None:
        return quarantined("the process has no valid submission before it")
    # Final is final: no later word, true or not, takes a result back.
    if process.final:
        return quarantined(f"the process is {process.state} already")
    # The chain, not the header that its author chose, says that nothing came in between; and bytes that are
    # stored a second time never fit again.
    if record.prev != process.head:
        return quarantined("its prev is not the digest of the process's last valid event")
    match event:
        case Requeued():
            return _requeued(process, record, event)
        case Assigned():
            return _assigned(process, record, event, colony)
        case Renewed() | Returned() | Completed() | Failed():
            return _of_the_holder(process, record, event)
        case Poisoned():
            return _poisoned(process, record)
        case Expired():
            return _expired(process, record)
        case Cancelled():
            return _cancelled(process, record, event, known)
        case Received():
            return nodes.received(process, record, event, known)
        case Signalled():
            return _signalled(process, record)
        case _:
            return quarantined(f"{event.type} is not an event of a process")


def _queued(process: Process | None, record: Record, event: Queued | Submitted, colony: Colony) -> Verdict:
    # What a process may start are nodes of its workflow, and those are in its `completed`.
    if record.role not in ("user", "owner"):
        return denied(f"the role {record.role} submits no processes")
    if process is not None:
        return quarantined("the process is submitted already")
    if record.prev is not None:
        return quarantined("a submission has no event before it")
    # One form of id for each origin, so that nobody takes the id of another's keyed process in advance.
    if event.key is None and not ULID.match(record.entity):
        return quarantined("the id of a plain process is a ULID")
    if event.key is not None and record.entity != keyed_id(record.author, event.key):
        return quarantined("the id does not derive from the submitter and the key")
    # In another queue it would reach workers that do not meet its conditions, or overtake others.
    if isinstance(event, Queued) and record.queue != queue_of(event.spec.conditions, event.spec.priority):
        return quarantined("the queue is not that of the spec's conditions and priority")
    if isinstance(event, Queued) == _waits(event.spec):
        when = "now" if isinstance(event, Queued) else "later"
        return quarantined(f"by its delay, time and limits it is not to be offered {when}")
    if event.spec.conditions.dependencies:
        return quarantined("a process on its own has no dependencies")
    if event.spec.colony is not None and event.spec.colony not in (colony.name, colony.key):
        return quarantined(f"the spec is for the colony {event.spec.colony}, this is {colony.name}")
    # Else people would be shown other arguments than those that run.
    if event.arguments is not None and (event.spec.args or event.spec.kwargs):
        return quarantined("its arguments are in the spec or stored, not both")
    return VALID


def _requeued(process: Process, record: Record, event: Requeued) -> Verdict:
    if record.role != "service":
        return denied(f"the role {record.role} does not offer a process again")
    if record.queue != process.queue:
        return quarantined("the queue is not that of the process")
    if event.cites != process.sequence:
        return quarantined("it does not cite the process's last valid event")
    match process.phase:
        case Blocked(until=until) if record.time < until:
            return quarantined("the delay is not over")
        case Waiting() as waiting if record.time < waiting.reoffer_at():
            return quarantined(f"it has not waited for {REOFFER_AFTER_S} s yet")
        # Heartbeats are not on the ledger: after one lease a living worker looks dead there. The service is
        # trusted least, so it offers a running process again only when the holder has failed to renew.
        case Running() as running if record.time < running.silent_at():
            return quarantined("the running attempt may still be alive: its time to renew has not passed")
    # A process that is poison must end, not go round again.
    if _lost(process, record) >= MAX_LOST_IN_A_ROW:
        return quarantined(f"{MAX_LOST_IN_A_ROW} attempts in a row lost their worker")
    return VALID


def _assigned(process: Process, record: Record, event: Assigned, colony: Colony) -> Verdict:
    if record.role != "worker":
        return denied(f"the role {record.role} takes no processes")
    names = process.spec.conditions.workernames
    if names and record.author not in names:
        return denied(f"the process is for {', '.join(names[:5])}{' and others' if names[5:] else ''}")
    # A lease of its own choice would let a worker hold a process for ever without a sign of life.
    if event.lease_s > colony.longest_lease_s(record.sequence):
        return quarantined("its lease is longer than any that this colony has had")
    match process.phase:
        case Waiting(offer=offer):
            pass
        case Running(offer=offer) as running:
            # The fence: at any ledger time at most one attempt holds the process.
            if record.time < running.lapses_at():
                last = process.attempts[-1]
                return quarantined(f"attempt {last.n} of {last.worker} holds it")
        case _:
            return quarantined(f"the process is {process.state}, not offered")
    if event.offer != offer.id:
        return quarantined("it does not name the process's current offer")
    # Results name their attempt by this id, so it names one.
    if any(attempt.id == record.id for attempt in process.attempts):
        return quarantined("its id is that of an earlier attempt")
    if _lost(process, record) >= MAX_LOST_IN_A_ROW:
        return quarantined(f"{MAX_LOST_IN_A_ROW} attempts in a row lost their worker")
    return VALID


def _of_the_holder(
    process: Process, record: Record, event: Renewed | Returned | Completed | Failed
) -> Verdict:
    if record.role != "worker":
        return denied(f"the role {record.role} holds no attempts")
    if not isinstance(process.phase, Running):
        return quarantined(f"the process is {process.state}, not running")
    # The other half of the fence: who lost the process cannot end it, not even another instance of one name.
    # A lapsed lease alone loses nothing: as long as nobody took over, the work counts.
    latest = process.attempts[-1]
    if latest.id != event.attempt or latest.worker != record.author:
        return quarantined(f"attempt {latest.n} of {latest.worker} holds the process")
    if isinstance(event, Completed) and event.stored is not None and event.output is not None:
        return quarantined("its output is in the event or stored, not both")
    return _adding(process, event) if isinstance(event, Completed) else VALID


def _adding(process: Process, event: Completed) -> Verdict:
    # Whoever reads on asks for them by these names, so they must be such that everybody can.
    if event.adds is None:
        return quarantined("between: it adds nothing") if event.between else VALID
    if process.workflow is None or process.node is None:
        return quarantined("it adds nodes, and belongs to no workflow")
    try:
        placed(event.adds, process.node)
    except Invalid as error:
        return quarantined(f"the nodes that it adds make no workflow with it: {str(error).splitlines()[0]}")
    return VALID


def _poisoned(process: Process, record: Record) -> Verdict:
    if record.role not in ("worker", "service"):
        return denied(f"the role {record.role} calls no process poison")
    if _lost(process, record) < MAX_LOST_IN_A_ROW:
        return quarantined(f"it has not lost {MAX_LOST_IN_A_ROW} attempts in a row")
    return VALID


def _expired(process: Process, record: Record) -> Verdict:
    if record.role not in ("worker", "service"):
        return denied(f"the role {record.role} lets no process expire")
    limit_s = process.spec.maxwaittime
    since = process.waits_since
    if limit_s is None or since is None:
        return quarantined("the process has no wait that could be over")
    if record.time < since + int(limit_s * SECOND):
        return quarantined("the process has not waited for its maxwaittime")
    return VALID


def _cancelled(process: Process, record: Record, event: Cancelled, known: Known) -> Verdict:
    if event.workflow is not None or event.node is not None:
        return quarantined("it names a workflow and node, though the process has events of its own")
    if record.role == "service":
        return nodes.may_stop(process, record, event, known)
    # Names are never used again, so the submitter's name is still the submitter.
    if record.role == "owner" or (record.role == "user" and record.author == process.submitter):
        return VALID
    return denied(f"only {process.submitter} or an owner may cancel the process")


def _signalled(process: Process, record: Record) -> Verdict:
    if record.role not in ("user", "owner"):
        return denied(f"the role {record.role} sends no signals")
    if len(process.signals) >= MAX_SIGNALS:
        return quarantined(f"the process has {MAX_SIGNALS} signals, and takes no more")
    return VALID


def _waits(spec: Spec) -> bool:
    """Is it to be offered later than it is submitted?"""
    return spec.delay is not None or spec.at is not None or bool(spec.limits)


def lost_in_a_row(process: Process, at: int) -> int:
    """How many attempts in a row lost their worker, with a running one whose lease lapsed by `at` (ns)."""
    running = isinstance(process.phase, Running) and at >= process.phase.lapses_at()
    return process.lost_in_a_row + (1 if running else 0)


def _lost(process: Process, record: Record) -> int:
    """As `lost_in_a_row`; for the service a running attempt is lost when it is silent (see `_requeued`)."""
    if record.role == "service" and isinstance(process.phase, Running):
        return process.lost_in_a_row + (1 if record.time >= process.phase.silent_at() else 0)
    return lost_in_a_row(process, record.time)
