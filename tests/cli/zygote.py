"""Runs the command in processes of its own that need not import it: each is a fork of one that has.

Most of the processor time of a short command is its imports, and the tests of this folder run a thousand of
them. What runs is `colonies_cli.main.run`, as in the installed command, in a new process with its own
arguments, environment, folder and streams. Signals, early moments and closed streams are tested with the
installed one.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

ROOT = Path(__file__).parents[2]
_LENGTH = struct.Struct("!I")  # of a request
FDS = 4  # stdin, stdout, stderr, and where to say how it ended


@dataclass
class Zygote:
    """What commands are forked from, as the process of the tests has it."""

    process: subprocess.Popen[bytes]  # it ends when nobody holds the channel any more
    channel: socket.socket

    @classmethod
    def start(cls) -> Zygote:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.cli.zygote", str(theirs.fileno())]
            process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
        return cls(process, ours)

    def end(self) -> None:
        self.channel.close()
        self.process.wait(10)

    def run(
        self, arguments: list[str], env: dict[str, str], cwd: Path, stdin: bytes, timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """As `subprocess.run` of the command, its output captured. Raises TimeoutExpired and kills it."""
        ours, theirs = socket.socketpair()
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err, ours:
            given.write(stdin)
            given.seek(0)
            with theirs:
                fds = [given.fileno(), out.fileno(), err.fileno(), theirs.fileno()]
                request = pickle.dumps((arguments, env, str(cwd)))
                socket.send_fds(self.channel, [_LENGTH.pack(len(request))], fds)
                self.channel.sendall(request)
            ours.settimeout(timeout_s)
            with ours.makefile() as said:
                pid = int(said.readline())
                try:
                    code = int(said.readline())
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(arguments, timeout_s) from None
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def main(channel: socket.socket) -> int:
    """Serve requests until nobody is there who could make one; returns in the first process only."""
    from colonies_cli import main as command
    from colonies_cli import tree

    tree.whole()
    _import_all()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        length, fds, _, _ = socket.recv_fds(channel, _LENGTH.size, FDS)
        if not length:
            return 0
        request = channel.recv(_LENGTH.unpack(length)[0], socket.MSG_WAITALL)
        if os.fork():
            for fd in fds:
                os.close(fd)
            continue
        channel.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if child:
            _see_to(child, fds)
            os._exit(0)
        arguments, env, cwd = pickle.loads(request)
        for fd, place in zip(fds, (0, 1, 2), strict=False):
            os.dup2(fd, place)
        for fd in fds:
            os.close(fd)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = ["colonies", *arguments]
        _end(command.run())


def _import_all() -> None:
    import colonies_cli

    for module in sorted(Path(colonies_cli.__file__).parent.glob("*.py")):
        if module.stem != "__main__":
            __import__(f"colonies_cli.{module.stem}")
    import colonies

    assert colonies.connect is not None


def _end(code: int) -> NoReturn:
    """What the interpreter does as it ends, but for taking apart all that was imported: twice the processor
    time of a short command, since each page of it is first copied."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _see_to(child: int, fds: list[int]) -> None:
    """Say its id, and then how it ended."""
    *streams, fd = fds
    for stream in streams:
        os.close(stream)
    with socket.socket(fileno=fd) as heard, contextlib.suppress(BrokenPipeError):
        heard.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        heard.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    sys.exit(main(socket.socket(fileno=int(sys.argv[1]))))
