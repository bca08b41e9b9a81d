"""What can go wrong, as a tree with one class for each decision its handler has to make.

    ColoniesError
    ├── Invalid          the command makes no sense: mend it, sending it again is useless
    ├── Refused          you may not: the broker or a rule of the ledger says no
    ├── NotFound         there is no such process, member or context
    ├── Conflict         someone wrote first: read again, decide again
    ├── Unavailable      the broker or a service did not answer: try again later
    │   └── Unknown      ... and whether it stored the event is not known: read before repeating
    └── Unsuccessful     the process ended otherwise than hoped
        ├── ProcessFailed
        ├── ProcessCancelled
        └── WorkflowUnsuccessful

Each message says what happened, where, and what would be right.
"""

from __future__ import annotations


class ColoniesError(Exception):
    """Base of every error this package raises on purpose."""


class Invalid(ColoniesError):
    """The command makes no sense as it stands. Nothing was recorded."""


class Refused(ColoniesError):
    """The member may not do this. Nothing was recorded."""


class NotFound(ColoniesError):
    """No such process, member, context or file."""


class Conflict(ColoniesError):
    """Another event of the same entity was stored first. Nothing was recorded by this call."""


class Unavailable(ColoniesError):
    """The broker or a service gave no answer in time."""


class Unknown(Unavailable):
    """An event was sent and no answer came: it may be stored or not. Settled by reading its id."""


class Unsuccessful(ColoniesError):
    """A process ended without success. `process` is its id."""

    def __init__(self, message: str, *, process: str) -> None:
        super().__init__(message)
        self.process = process


class ProcessFailed(Unsuccessful):
    """The process is failed for good. The message is the last error of its last attempt."""


class ProcessCancelled(Unsuccessful):
    """The process was cancelled before it ended by itself."""


class WorkflowUnsuccessful(Unsuccessful):
    """The workflow failed or was cancelled. `workflow` is its id."""

    def __init__(self, message: str, *, workflow: str) -> None:
        super().__init__(message, process=workflow)
        self.workflow = workflow
