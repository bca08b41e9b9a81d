"""Finding and killing all the processes of a group or session; and, run as a script, the reaper's helper.

The helper reads from a pipe whose write end only its parent holds. The end of that pipe means that the
parent is dead, in whatever way, and then everything the parent had it watch is killed. It is started by
path with `python -I -S`, so this module imports nothing but the standard library and nothing of ours, and
starts in about 10 ms. It never touches a group that it was not told to watch, and never outlives its
parent by more than the longest grace it was given.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

READY = b"ready\n"
_POLL_S = 0.02
_ROUNDS_MAX = 20


def members(group: int) -> set[int]:
    """The living processes whose group or session is `group`; zombies are not among the living.

    The session counts too because a shell's child may take a group of its own (`timeout` does, and so does
    job control) but leaves the session only on purpose, with `setsid`: such a daemon is not found here.
    """
    found = set()
    for pid in _pids():
        with suppress(OSError):
            if (os.getpgid(pid) == group or os.getsid(pid) == group) and not _is_zombie(pid):
                found.add(pid)
    return found


def send(group: int, number: int) -> None:
    """Send a signal to each member once, and wake those that are stopped, so that they can obey it."""
    with suppress(OSError):
        os.killpg(group, number)
        os.killpg(group, signal.SIGCONT)
    for pid in members(group):
        with suppress(OSError):
            if os.getpgid(pid) != group:
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)


def destroy(group: int) -> None:
    """Send SIGKILL to all members, and again to those that were forked meanwhile."""
    seen: set[int] = set()
    for _ in range(_ROUNDS_MAX):
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
        new = members(group) - seen
        if not new:
            return
        for pid in new:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        seen |= new


def _pids() -> list[int]:
    if os.path.exists("/proc/self/stat"):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    import subprocess  # macOS only, and only when something is to be killed

    listing = subprocess.run(["ps", "-A", "-o", "pid=,stat="], stdout=subprocess.PIPE, text=True, check=False)
    rows = (line.split() for line in listing.stdout.splitlines())
    return [int(row[0]) for row in rows if len(row) > 1 and not row[1].startswith("Z")]


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except FileNotFoundError:
        return os.path.exists("/proc/self/stat")  # gone since; where there is no /proc, _pids has looked


def _finish(watched: dict[int, float]) -> None:
    """Kill those without a grace at once; ask the others, wait for their grace, and kill what is left."""
    for group in [group for group, grace_s in watched.items() if grace_s <= 0]:
        destroy(group)
    deadlines = {group: time.monotonic() + grace_s for group, grace_s in watched.items() if grace_s > 0}
    for group in deadlines:
        send(group, signal.SIGTERM)
    while deadlines:
        for group, deadline in list(deadlines.items()):
            if not members(group):
                del deadlines[group]
            elif time.monotonic() >= deadline:
                destroy(group)
                del deadlines[group]
        time.sleep(_POLL_S)


def _mind() -> None:
    """Read `+GROUP GRACE` and `-GROUP` lines from stdin until its end, then finish what is still watched."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # only the parent's end is a reason to end
    with suppress(OSError):
        os.write(1, READY)
    watched: dict[int, float] = {}
    rest = b""
    while data := os.read(0, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"+"):
                group, grace_s = line[1:].split()
                watched[int(group)] = float(grace_s)
            else:
                watched.pop(int(line[1:]), None)
    _finish(watched)


if __name__ == "__main__":
    _mind()
