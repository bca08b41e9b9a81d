"""`colonies process replay`: which function is run, and how what came of it is shown.

What the function prints goes to stdout, as it would anywhere; with -o json and -o name to stderr, because
stdout is the answer's then.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from colonies_cli import exits, ids, output
from colonies_cli.command import Here
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.replaying import Replayed
    from colonies.worker import Worker

MAX_SHOWN_CHARS = 2_000


def worker_of(place: str) -> Any:
    """What runs: the worker that MODULE:WORKER names, or the function that MODULE:FUNCTION does, which then
    stands for the process's own. Raises Invalid."""
    from colonies.calls import Function
    from colonies.errors import Invalid
    from colonies.worker import Worker
    from colonies_cli import importing

    module, found = importing.found_at(
        place, "MODULE:FUNCTION, such as shop:resize for `resize` in shop.py, or MODULE:WORKER"
    )
    if isinstance(found, Worker | Function):
        return found
    if callable(found) and not isinstance(found, type):
        return Function(found, "replay")
    own = sorted(
        name
        for name, value in vars(module).items()
        if isinstance(value, Worker | Function)
        or (callable(value) and getattr(value, "__module__", None) == module.__name__)
    )
    what = "there is no such name" if found is None else "this is no function"
    has = f"it has: {', '.join(own)}" if own else "it has no function"
    raise Invalid(f"{place}: {what} in {module.__name__}; {has}")


async def run(here: Here, id: str, found: Any, attempt: int | None, *, debug: bool) -> None:
    """Run it and show what came of it; ends with 1 if it is different."""
    from colonies.replaying import replay

    apart = (
        contextlib.nullcontext() if here.output == Output.table else contextlib.redirect_stdout(sys.stderr)
    )
    async with here.session() as session:
        id = await ids.whole(session.ledger, "process", id)
        with apart:
            replayed = await replay(session, id, await _worker(session, id, found), attempt, _show)
            _leave_if_quit(replayed)
            if debug and replayed.here.error is not None:
                _look_around(replayed.here.error)
    _say(here, replayed)
    if replayed.same is False:
        raise exits.Ended(exits.FAILED)


async def _worker(session: Any, id: str, found: Any) -> Worker:
    """A worker that has the function, under the name that the process calls it by."""
    from colonies.worker import Worker

    if isinstance(found, Worker):
        return found
    process = await session.process(id)
    worker = Worker(process.spec.conditions.runtimetype)
    worker.functions[process.spec.func] = found
    return worker


def _show(text: str) -> None:
    output.raw(text, sys.stdout)


def _leave_if_quit(replayed: Replayed) -> None:
    """Whoever leaves the debugger with `quit` wants to leave."""
    import bdb

    if isinstance(replayed.here.error, bdb.BdbQuit):
        raise KeyboardInterrupt


def _look_around(error: BaseException) -> None:
    import pdb

    exits.say(f"{type(error).__name__}: {error}; `q` goes on")
    pdb.post_mortem(error.__traceback__)


def _say(here: Here, replayed: Replayed) -> None:
    if here.output == Output.json:
        output.json_line(_object(replayed))
        return
    if here.output == Output.name:
        output.line(replayed.process.id)
        return
    if replayed.same_code is False:
        exits.say("the code is not the one that ran then: its file has another digest")
    process, attempt = replayed.process, replayed.attempt
    output.line(f"attempt {attempt.n} of process {process.id}: {process.spec.func}, by {attempt.worker}")
    for line in _words(replayed):
        output.line(line)


def _words(replayed: Replayed) -> list[str]:
    here, difference = replayed.here, replayed.difference
    ended = here.how if here.text is None else f"{here.how}: {here.text}"
    if replayed.recorded is None:
        how = replayed.attempt.outcome or "running"
        return [f"nothing to compare: it is {how} on the ledger", f"here: {ended}"]
    if difference is None:
        return [f"the same: {ended}"]
    return [
        f"different at {difference.path}",
        f"  ledger: {_shown(difference.expected)}",
        f"  here:   {_shown(difference.got)}",
    ]


def _shown(value: Any) -> str:
    from colonies.difference import NOTHING
    from colonies.show import jsonable

    text = "nothing" if value is NOTHING else output.json_text(jsonable(value))
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}... ({len(text)} characters)"


def _object(replayed: Replayed) -> dict[str, Any]:
    """`{id, attempt, func, worker, same, outcome, here, difference, code, code_here, same_code}`."""
    from colonies.difference import NOTHING
    from colonies.show import jsonable

    found, difference = None, replayed.difference
    if difference is not None:
        found = {"path": difference.path}
        for name, value in (("ledger", difference.expected), ("here", difference.got)):
            if value is not NOTHING:
                found[name] = jsonable(value)
    return {
        "id": replayed.process.id,
        "attempt": replayed.attempt.n,
        "func": replayed.process.spec.func,
        "worker": replayed.attempt.worker,
        "same": replayed.same,
        "outcome": replayed.recorded.how if replayed.recorded is not None else None,
        "here": replayed.here.how,
        "error": replayed.here.text,
        "difference": found,
        "code": replayed.code,
        "code_here": replayed.code_here,
        "same_code": replayed.same_code,
    }
