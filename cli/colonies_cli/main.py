"""The entry point of the command `colonies`: nouns, then verbs, then one way out.

Modules of commands are cheap to import, so that `--help` answers at once; what a command needs it imports
when it runs. This one imports nothing at its top, so that not even an early Ctrl-C leaves a traceback.
"""

from __future__ import annotations

import sys
from typing import Any

_NUMBERS = (
    ("Input should be a valid number, unable to parse string as a number", "allowed: a number"),
    ("Input should be a valid integer, unable to parse string as an integer", "allowed: a whole number"),
)  # what the parser of the command line says, and what people understand


def run() -> int:
    """The entry point: runs what the command line says; the exit code."""
    try:
        _open_what_is_closed()
        from colonies_cli import exits, output

        output.prepare()
        try:
            with exits.said():
                return _run(sys.argv[1:])
        except exits.Ended as ended:
            return ended.code
    except KeyboardInterrupt:
        return 130
    finally:
        _let_go_of_stdout()
        _keep_what_was_imported()


def _keep_what_was_imported() -> None:
    """At exit nobody looks for cycles in it, which would take a fifth of a short command's time."""
    import gc

    gc.freeze()


def _let_go_of_stdout() -> None:
    """What cannot be written by now never will be; the last try at exit must not change the code."""
    import os

    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_what_is_closed() -> None:
    """Without all of stdin, stdout and stderr the event loop aborts: what is closed goes nowhere instead."""
    import os

    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _run(arguments: list[str]) -> int:
    import typer

    from colonies_cli import exits, tree

    # Where typer keeps its usage errors depends on its version; that this one is one of them does not.
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        code = tree.whole().main(arguments, prog_name="colonies", standalone_mode=False)
    except usage_error as error:
        return _usage(error)
    except typer.Abort:
        exits.say("interrupted")
        return exits.INTERRUPTED
    except SystemExit as error:  # typer's own way out, when a reader has left
        return exits.READER_LEFT if error.code == 1 else exits.FAILED
    return code if isinstance(code, int) else exits.DONE


def _usage(error: Any) -> int:
    """A wrong command line, in one line that says where to look."""
    from colonies_cli import exits

    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "colonies"
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
        return exits.USAGE
    message = " ".join(error.format_message().split()).rstrip(".")
    for theirs, ours in _NUMBERS:
        message = message.replace(theirs, ours)
    if getattr(getattr(error, "param", None), "metavar", None) == "S":
        message = message.replace(_NUMBERS[0][1], f"{_NUMBERS[0][1]} of seconds, such as 90")
    hint = f"see `{path} --help`"
    if path == "colonies process run" and message.startswith("No such option"):
        hint = "put -- before a command that has options of its own"
    exits.say(f"{message}; {hint}")
    return exits.USAGE
