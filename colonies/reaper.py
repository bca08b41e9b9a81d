"""The reaper: a small helper process that kills what its parent started, should the parent die.

A parent killed by SIGKILL cannot clean up, so a helper does it: it holds the read end of a pipe, only the
parent holds the write end, and the end of that pipe is the parent's death. The helper is in a session of its
own, out of reach of the terminal's Ctrl-C, and what it does is in `colonies.reaping`. The reaper never
starts anything but its helper, and never signals what it was not told to watch.

    async with Reaper() as reaper:
        child = subprocess.Popen(gated(["nats-server"]), stdin=PIPE, start_new_session=True)
        reaper.watch(child.pid, grace_s=2.0)
        child.stdin.write(b"go\\n")
        child.stdin.close()                           # only now does it become nats-server
        ...
        child.wait()
        reaper.release(child.pid)
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog

from colonies import reaping
from colonies.errors import Invalid, Unavailable

_START_LIMIT_S = 20.0
_CLOSE_LIMIT_S = 5.0
_CLOSE_POLL_S = 0.005
_GRACE_LIMIT_S = 60.0
_WATCHED_MAX = 10_000
_RESTARTS_MAX = 5
_RESTARTS_WINDOW_S = 60.0

_log = structlog.get_logger(__name__)

# Waits for a line on stdin and then becomes the program; if whoever started it died before, it just ends.
_GATE = 'read -r COLONIES_GO || exit 125; unset COLONIES_GO; exec "$@" </dev/null'


_open: weakref.WeakSet[Reaper] = weakref.WeakSet()


def gated(argv: Sequence[str | bytes]) -> list[str | bytes]:
    """A command line that waits for a line on its stdin before it becomes `argv`, with /dev/null as stdin.

    There is no moment at which the program runs and nobody watches it: start this, `watch` it, write the
    line. It exits with 125 if stdin ends first, which is what happens when its parent dies in between.
    """
    return ["/bin/sh", "-c", _GATE, "sh", *argv]


class Reaper:
    """Kills the watched process groups and sessions when this process dies, or when it is closed.

    Only to be used from the loop that started it. A helper that dies is replaced and told everything again;
    if it dies more than 5 times within a minute, or no other can be started, `watch` raises `Unavailable`.
    """

    def __init__(self) -> None:
        self._watched: dict[int, float] = {}
        self._helper: subprocess.Popen[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard = asyncio.Event()  # the helper said that it is ready, or is gone
        self._ready = False
        self._closing = False
        self._deaths: list[float] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """The helper's process id, None when there is no helper."""
        return self._helper.pid if self._helper else None

    async def start(self) -> None:
        """Start the helper and wait until it is ready. Raises `Unavailable` if it cannot be started."""
        self._loop = asyncio.get_running_loop()
        self._closing = False
        try:
            self._spawn()
            async with asyncio.timeout(_START_LIMIT_S):
                while not self._ready:
                    if self._helper is None:
                        raise Unavailable(f"the reaper ended at once: does {sys.executable} -I -S work?")
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            await self.close()
            raise Unavailable(f"the reaper did not start within {_START_LIMIT_S:.0f} s") from None
        except BaseException:
            await self.close()
            raise

    def watch(self, pgid: int, *, grace_s: float = 0.0) -> None:
        """From now on the group and session `pgid` die with this process.

        By SIGKILL at once, or with a grace by SIGTERM first and SIGKILL after `grace_s` (at most 60) seconds.
        Raises `Unavailable` if there is no helper to do it: what is not watched should not be started.
        """
        if pgid <= 1 or pgid in (os.getpgrp(), os.getsid(0)):
            raise Invalid(f"{pgid} is not the process group of a child: start it in a session of its own")
        if not 0 <= grace_s <= _GRACE_LIMIT_S:
            raise Invalid(f"a grace of {grace_s} s is not in 0..{_GRACE_LIMIT_S:.0f}")
        if len(self._watched) >= _WATCHED_MAX:
            raise Unavailable(f"the reaper watches {_WATCHED_MAX} process groups and takes no more")
        self._watched[pgid] = grace_s
        told = self._tell(_watch_line(pgid, grace_s))
        if not told and not self._replace():
            del self._watched[pgid]
            raise Unavailable("the reaper is dead and cannot be started again: nothing would kill orphans")

    def release(self, pgid: int) -> None:
        """Watch `pgid` no longer. To be called as soon as the group is gone, or before its leader is waited
        for: after that its number may be given to another process, which is not to be killed."""
        if self._watched.pop(pgid, None) is not None and not self._tell(b"-%d\n" % pgid):
            self._replace()

    async def close(self) -> None:
        """Let the helper end; what is still watched is killed by it, each with its grace."""
        helper, self._closing = self._helper, True
        if helper is None:
            return
        self._leave()
        limit_s = max(self._watched.values(), default=0.0) + _CLOSE_LIMIT_S
        cancelled = await _until_gone(helper, limit_s)
        if helper.poll() is None:
            _log.warning("reaper did not end", pid=helper.pid, waited_s=limit_s)
            helper.kill()
            helper.wait()
        self._watched.clear()
        if cancelled:
            raise asyncio.CancelledError

    def _spawn(self) -> None:
        """Start a helper and tell it everything that is watched."""
        assert self._loop is not None, "Reaper.start comes first"
        try:
            helper = subprocess.Popen(
                [sys.executable, "-I", "-S", reaping.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"cannot start the reaper {sys.executable!r}: {error}") from error
        assert helper.stdin is not None
        assert helper.stdout is not None
        self._helper, self._ready = helper, False
        _open.add(self)
        self._loop.add_reader(helper.stdout.fileno(), self._hear)
        with suppress(BrokenPipeError):  # then the end of its stdout says so
            helper.stdin.write(b"".join(_watch_line(*entry) for entry in self._watched.items()))
        os.set_blocking(helper.stdin.fileno(), False)

    def _tell(self, line: bytes) -> bool:
        """Whether the helper's pipe took the line. False: it is dead, or stopped and its pipe is full."""
        if self._helper is None or self._helper.stdin is None or self._helper.stdin.closed:
            return False
        try:
            return os.write(self._helper.stdin.fileno(), line) == len(line)
        except (BrokenPipeError, BlockingIOError):
            return False

    def _hear(self) -> None:
        """The helper is ready, or its stdout ended: nothing else comes."""
        assert self._helper is not None
        assert self._helper.stdout is not None
        self._ready = bool(os.read(self._helper.stdout.fileno(), 64))
        if not self._ready:
            self._replace()
        self._heard.set()

    def _replace(self) -> bool:
        """Put another helper in the place of a dead or stuck one; whether there is one now."""
        if self._closing or self._loop is None:
            return False
        if helper := self._helper:
            helper.kill()  # before its pipe is closed: a stuck one would wake and kill what it watches
            helper.wait()
            self._leave()
            _log.warning("reaper died", pid=helper.pid, status=helper.returncode, watched=len(self._watched))
        now = time.monotonic()
        self._deaths = [death for death in self._deaths if now - death < _RESTARTS_WINDOW_S]
        if len(self._deaths) >= _RESTARTS_MAX:
            _log.error("reaper dies again and again: orphans would not be killed", watched=len(self._watched))
            return False
        self._deaths.append(now)
        try:
            self._spawn()
        except Unavailable as error:
            _log.error("reaper not started", error=str(error), watched=len(self._watched))
            return False
        return True

    def _leave(self) -> None:
        """Close our ends of the helper's pipes."""
        helper, self._helper = self._helper, None
        if helper is None or self._loop is None:
            return
        assert helper.stdin is not None
        assert helper.stdout is not None
        self._loop.remove_reader(helper.stdout.fileno())
        helper.stdout.close()
        helper.stdin.close()
        _open.discard(self)

    def _forget(self) -> None:
        """In a forked child: it must not hold the write end open, or its parent's death goes unseen."""
        self._closing = True
        if self._helper and self._helper.stdin:
            self._helper.stdin.close()


def _forget_all() -> None:
    for reaper in list(_open):
        reaper._forget()


os.register_at_fork(after_in_child=_forget_all)


def _watch_line(pgid: int, grace_s: float) -> bytes:
    return b"+%d %.3f\n" % (pgid, grace_s)


async def _until_gone(helper: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Wait for the helper's end, also while being cancelled; whether that happened."""
    deadline, cancelled = time.monotonic() + limit_s, False
    while helper.poll() is None and time.monotonic() < deadline:
        try:
            await asyncio.sleep(_CLOSE_POLL_S)
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
