"""The shell process of one command, and its two output streams.

`Child` starts it, ends it with all of its session, and learns how it ended; `Output` reads what it writes.
In which order that happens is `colonies_workers.command`'s business. Neither keeps anything running, or any
number of a process in use, after `Child.end` and `Child.reap`.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
import inspect
import os
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from colonies import reaping
from colonies.errors import Invalid, Unavailable
from colonies.reaper import gated

Stream = Literal["stdout", "stderr"]
OnOutput = Callable[[Stream, str], Awaitable[None] | None]

_READ_BYTES = 64 * 1024
_LINE_CHARS_MAX = 64 * 1024
_PIPE_BYTES_MAX = 1024 * 1024
_FLUSH_S = 0.2
_POLL_S = 0.02
_DEATH_LIMIT_S = 10.0


class Child:
    """The shell of one command, the leader of its own session. It waits for `go`, and stays a zombie until
    `reap`, so that its number means the same session from the first to the last."""

    def __init__(self, words: list[str | bytes], env: dict[bytes, bytes], folder: Path) -> None:
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        try:
            self._popen = subprocess.Popen(
                gated(words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno == errno.E2BIG:
                limit = "func, args and env are too long for a command line (Linux: 128 KiB each)"
                raise Invalid(f"{limit}: put large values into a file, and pass its name") from error
            raise Unavailable(f"the command could not be started: {error}") from error
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._stdin: IO[bytes] = self._popen.stdin
        self.stdout: IO[bytes] = self._popen.stdout
        self.stderr: IO[bytes] = self._popen.stderr
        self.pid = self._popen.pid
        self._destroyed = False
        try:
            threading.Thread(target=self._await_exit, name=f"command-{self.pid}", daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads
            self.exited.set_result(self._kill())
            self.reap()
            raise Unavailable(f"the command could not be started: {error}") from error

    def go(self) -> None:
        """Let the shell begin."""
        with suppress(BrokenPipeError):  # killed already
            self._stdin.write(b"go\n")
        self._stdin.close()

    async def terminate(self, grace_s: float) -> None:
        """Ask all of the session to end, and kill what is left of it after the grace."""
        reaping.send(self.pid, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        while reaping.members(self.pid) and loop.time() < deadline:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(_POLL_S)
        self.destroy()

    def destroy(self) -> None:
        """Kill all of the session, at once."""
        self._destroyed = True
        reaping.destroy(self.pid)

    async def end(self) -> bool:
        """Make sure that all is dead. False if the shell is still not, because the kernel holds it."""
        if not self._destroyed:
            self.destroy()
        await settle([self.exited], _DEATH_LIMIT_S)
        return self.exited.done()

    def reap(self) -> None:
        """Close the pipes and let go of the process number."""
        for file in (self._stdin, self.stdout, self.stderr):
            file.close()
        if self.exited.done():
            self._popen.wait()

    def _kill(self) -> int:
        self._popen.kill()
        return self._popen.wait()

    def _await_exit(self) -> None:
        """In a thread: wait for the shell's end without taking its number from it, where the system can."""
        status: int | None
        if hasattr(os, "waitid"):
            try:
                ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:  # another part of this program waits for all children
                status = None
            else:
                assert ended is not None
                status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        else:
            status = self._popen.wait()
        with suppress(RuntimeError):  # the loop is closed, and nobody asks any more
            self.exited.get_loop().call_soon_threadsafe(self.exited.set_result, status)


class Output:
    """One output stream of a command: read as it comes, handed on in lines, its head or its tail kept."""

    def __init__(
        self, file: IO[bytes], name: Stream, on_output: OnOutput, *, head_bytes: int = 0, tail_bytes: int = 0
    ) -> None:
        self._fd = file.fileno()
        self._name: Stream = name
        self._on_output = on_output
        self._head_bytes, self._head = head_bytes, bytearray()
        self._tail_bytes, self._tail = tail_bytes, bytearray()
        self._total_bytes = 0
        self._finishing = False
        self._waiter: asyncio.Future[None] | None = None
        os.set_blocking(self._fd, False)

    @property
    def truncated(self) -> bool:
        """Whether more came than the head holds."""
        return self._total_bytes > len(self._head)

    def head(self) -> str:
        """The first bytes as text, with a note of how many were left out."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(bytes(self._head), final=not self.truncated)
        if not self.truncated:
            return text
        left_out = self._total_bytes - len(self._head)
        return f"{text}\n[output cut at {self._head_bytes} bytes; {left_out} bytes left out]"

    def tail(self) -> str:
        """The last bytes as text, from the first whole character."""
        start = 0
        while self._total_bytes > len(self._tail) and start < 3 and self._tail[start : start + 1] >= b"\x80":
            if self._tail[start] >= 0xC0:
                break
            start += 1
        return self._tail[start:].decode(errors="replace")

    def finish(self) -> None:
        """The writers are dead: read what the pipe still holds and wait for no more."""
        self._finishing = True
        self._wake()

    async def pump(self) -> None:
        """Read to the end. A daemon outside the session cannot hold this up once `finish` was called."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        held, rest_bytes = "", _PIPE_BYTES_MAX
        while rest_bytes > 0:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                if self._finishing:
                    break
                if not await self._readable(_FLUSH_S if held else None):
                    held = await self._hand_over(held, len(held))
                continue
            if not data:
                break
            rest_bytes -= len(data) if self._finishing else 0
            self._keep(data)
            held += decoder.decode(data)
            line_end = max(held.rfind("\n"), held.rfind("\r")) + 1
            held = await self._hand_over(held, len(held) if len(held) > _LINE_CHARS_MAX else line_end)
            await asyncio.sleep(0)
        held += decoder.decode(b"", final=True)
        await self._hand_over(held, len(held))

    def _keep(self, data: bytes) -> None:
        self._total_bytes += len(data)
        self._head += data[: self._head_bytes - len(self._head)]
        self._tail = (self._tail + data)[-self._tail_bytes :] if self._tail_bytes else self._tail

    async def _hand_over(self, text: str, end: int) -> str:
        """Give the text before `end` to `on_output`; returns the rest."""
        if end:
            waiting = self._on_output(self._name, text[:end])
            if inspect.isawaitable(waiting):
                await waiting
        return text[end:]

    async def _readable(self, limit_s: float | None) -> bool:
        """Wait until there is something to read, or `finish` was called; False if the time is over."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        loop.add_reader(self._fd, self._wake)
        try:
            async with asyncio.timeout(limit_s):
                await self._waiter
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
            self._waiter = None
        return True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def settle(futures: Sequence[asyncio.Future[Any]], limit_s: float) -> None:
    """Wait for all of them, also while being cancelled: for whoever raises the cancellation afterwards."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while (rest := [future for future in futures if not future.done()]) and loop.time() < deadline:
        with suppress(asyncio.CancelledError):
            await asyncio.wait(rest, timeout=deadline - loop.time())
