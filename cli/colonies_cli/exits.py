"""How a command ends: the exit codes, and the one line that says why.

    0  done                      4  not permitted
    1  failed                    5  not found
    2  usage or refused input    6  unavailable
    3  the process or workflow failed or was cancelled (run, watch, --wait)
    130  interrupted             141  whoever read our output left

One function maps the error tree to them. A traceback is never shown, unless `COLONIES_LOG=debug` asks for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DONE, FAILED, USAGE, UNSUCCESSFUL, REFUSED, NOT_FOUND, UNAVAILABLE = range(7)
INTERRUPTED = 130
READER_LEFT = 141  # 128 + SIGPIPE, as a program ends that does not mind pipes


class Ended(Exception):
    """A command ends with this code; what there was to say is said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def exit_code(error: BaseException) -> int:
    """The exit code that this error stands for."""
    if isinstance(error, Ended):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return READER_LEFT
    from colonies import errors

    codes: tuple[tuple[type[BaseException], int], ...] = (
        (errors.Invalid, USAGE),
        (errors.Refused, REFUSED),
        (errors.NotFound, NOT_FOUND),
        (errors.Unavailable, UNAVAILABLE),
        (errors.Unsuccessful, UNSUCCESSFUL),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), FAILED)


@contextmanager
def said() -> Iterator[None]:
    """Whatever goes wrong inside is said on stderr; goes on as `Ended`."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except Ended:
        raise
    except (Exception, KeyboardInterrupt) as raised:
        error = _single(raised)
        code = exit_code(error)
        if isinstance(error, BrokenPipeError):
            _write_nowhere()
        else:
            say(_message(error))
            _let_go_of_what_cannot_be_written()
        raise Ended(code) from None


def say(message: str) -> None:
    """Put a message on stderr, each of its lines opened by our name."""
    with suppress(OSError, ValueError):
        for line in message.splitlines() or [""]:
            print(f"colonies: {line}", file=sys.stderr)


def _single(error: BaseException) -> BaseException:
    """The error in a group of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _message(error: BaseException) -> str:
    from colonies.errors import ColoniesError

    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if os.environ.get("COLONIES_LOG", "").lower() == "debug":
        import traceback

        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, ColoniesError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    return f"{type(error).__name__}: {error} (this is a defect; COLONIES_LOG=debug shows where it comes from)"


def _let_go_of_what_cannot_be_written() -> None:
    """Said once is enough: what a full disk did not take is not tried again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        _write_nowhere()


def _write_nowhere() -> None:
    """What is still buffered for a reader who left must not be an error once more when Python ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
