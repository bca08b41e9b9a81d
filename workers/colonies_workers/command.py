"""Running a Unix command for a process: the engine of the Unix worker.

`run_unix` is a process's attempt from its arguments to its output; `run_command` is the shell, its output
and its end. Nothing of a command outlives the call: when it returns or raises, all the processes of the
command's session are dead, and if this program is killed the reaper sees to it. (Only a daemon that left
the session with `setsid` gets away.) Nothing here knows the broker.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from colonies.errors import ColoniesError, Invalid
from colonies.reaper import Reaper
from colonies_workers.child import Child, OnOutput, Output, settle
from colonies_workers.folder import ProcessFolder, prune
from colonies_workers.shell import environment, shell_words

OUTPUT_BYTES_MAX = 1024 * 1024
STDERR_TAIL_BYTES = 4096
TERM_GRACE_S = 2.0
LINGER_S = 0.5
RESERVED = ("COLONIES_PROCESS", "COLONIES_ATTEMPT", "COLONIES_INPUTS", "COLONIES_OUTPUT", "COLONIES_ADDS")

OnAdds = Callable[[bytes, str], None]  # takes what is in the file, and what to call it in refusals

_LAST_WORDS_S = 0.5


class CommandFailed(ColoniesError):
    """The command ended, but not well. The message holds the exit code and the end of stderr."""

    def __init__(self, message: str, *, exit_code: int | None, signal: int | None, stderr_tail: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal = signal
        self.stderr_tail = stderr_tail


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended. Exactly one of `exit_code` and `signal` is set (none if the kernel's word on it
    was taken by another). `stdout` is what was kept of it, with a note at its end if `truncated`."""

    exit_code: int | None
    signal: int | None
    stdout: str
    stderr_tail: str
    truncated: bool

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.signal is not None:
            return f"was killed by {_signal_name(self.signal)}"
        if self.exit_code is None:
            return "ended, and its exit code is not known"
        if self.exit_code > 128 and (name := _signal_name(self.exit_code - 128)).startswith("SIG"):
            return f"ended with exit code {self.exit_code} (a program in it was killed by {name})"
        return f"ended with exit code {self.exit_code}"


async def run_unix(
    func: str,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    env: Mapping[str, str],
    *,
    process: str,
    attempt: int,
    inputs: object,
    base: Path,
    reaper: Reaper,
    on_output: OnOutput,
    max_output_bytes: int = OUTPUT_BYTES_MAX,
    term_grace_s: float = TERM_GRACE_S,
    on_adds: OnAdds | None = None,
) -> object:
    """Run one attempt of a process in a folder of its own under `base`, and return its output.

    The output is the JSON in COLONIES_OUTPUT if the command wrote it, else stdout without its last newline.
    What it wrote to COLONIES_ADDS, the nodes that it adds to its workflow, goes to `on_adds`, in a thread,
    if it ended with exit code 0.
    Raises `CommandFailed` for another exit code than 0, a signal, a broken output file, or nodes
    that `on_adds` refuses by `Invalid`; `Invalid` for a
    spec that can never run (trying again is useless); `Unavailable` if this worker cannot run it now. The
    folder is removed after success and kept after anything else: the newest 20 under `base`.
    """
    if kwargs:
        names = ", ".join(map(repr, kwargs))
        raise Invalid(f"a Unix command takes args, not kwargs (got {names}): give args or env")
    for name in RESERVED:
        if name in env:
            raise Invalid(f"env may not set {name}: the worker sets it")
    await asyncio.to_thread(prune, base)
    folder = ProcessFolder(base, process, attempt)
    folder.make(inputs)
    try:
        own = (process, str(attempt), str(folder.inputs), str(folder.output), str(folder.adds))
        completed = await run_command(
            func,
            args,
            env={**env, **dict(zip(RESERVED, own, strict=True))},
            folder=folder.path,
            reaper=reaper,
            on_output=on_output,
            max_output_bytes=max_output_bytes,
            term_grace_s=term_grace_s,
        )
        output = await asyncio.to_thread(_output, completed, folder, on_adds)
    except BaseException:
        folder.keep()
        raise
    await asyncio.to_thread(folder.remove)
    return output


async def run_command(
    command: str,
    args: Sequence[object],
    *,
    env: Mapping[str, str],
    folder: Path,
    reaper: Reaper,
    on_output: OnOutput,
    max_output_bytes: int = OUTPUT_BYTES_MAX,
    term_grace_s: float = TERM_GRACE_S,
    linger_s: float = LINGER_S,
) -> Completed:
    """Run `command` by `/bin/sh -c` in `folder`, with `args` appended to it, and say how it ended.

    All output is handed to `on_output` as it comes, in whole lines where it can be; a slow `on_output` slows
    the command down, one that raises ends it. Background processes that hold the output open when the shell
    has ended get `linger_s` seconds. On cancellation the command gets SIGTERM and, after `term_grace_s`
    seconds, SIGKILL; cancelling again hastens nothing. `env` is added to this program's own environment
    less its COLONIES_ variables. Raises `Invalid` for what can never run, `Unavailable` without a reaper.
    """
    child = Child(shell_words(command, args), environment(env), folder)
    stdout = Output(child.stdout, "stdout", on_output, head_bytes=max_output_bytes)
    stderr = Output(child.stderr, "stderr", on_output, tail_bytes=STDERR_TAIL_BYTES)
    try:
        reaper.watch(child.pid)
        child.go()
        async with asyncio.TaskGroup() as tasks:
            pumps = [tasks.create_task(output.pump()) for output in (stdout, stderr)]
            try:
                await asyncio.wait([child.exited])
                await asyncio.wait(pumps, timeout=linger_s)
            except asyncio.CancelledError:
                await child.terminate(term_grace_s)
                stdout.finish()
                stderr.finish()
                await settle(pumps, _LAST_WORDS_S)
                raise
            child.destroy()
            stdout.finish()
            stderr.finish()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # what on_output raised
    finally:
        if await child.end():
            reaper.release(child.pid)
        child.reap()
    return _completed(child.exited.result(), stdout, stderr)


def _completed(status: int | None, stdout: Output, stderr: Output) -> Completed:
    return Completed(
        exit_code=status if status is not None and status >= 0 else None,
        signal=-status if status is not None and status < 0 else None,
        stdout=stdout.head(),
        stderr_tail=stderr.tail(),
        truncated=stdout.truncated,
    )


def _output(completed: Completed, folder: ProcessFolder, on_adds: OnAdds | None) -> object:
    """The output of the attempt, or the reason why it failed."""
    if completed.exit_code != 0:
        tail = completed.stderr_tail.rstrip()
        told = f"; the end of its stderr:\n{tail}" if tail else " and wrote nothing to stderr"
        raise _failed(f"the command {completed.ending}{told}", completed)
    try:
        written = folder.read_output()
        adds = folder.read_adds() if on_adds is not None else None
        if on_adds is not None and adds is not None:
            on_adds(adds, "COLONIES_ADDS")
    except Invalid as error:
        raise _failed(str(error), completed) from error
    return written[0] if written else completed.stdout.removesuffix("\n")


def _failed(message: str, completed: Completed) -> CommandFailed:
    return CommandFailed(
        message,
        exit_code=completed.exit_code,
        signal=completed.signal,
        stderr_tail=completed.stderr_tail,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
